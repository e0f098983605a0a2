package revoke_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// reader is a store that is written to behind the list's back.
type reader struct {
	revoke.Store // that of the writers
	appends      int
}

func (*reader) ReadOnly() {}

func (r *reader) Append(context.Context, ...revoke.Entry) error {
	r.appends++
	return errors.ErrUnsupported
}

// TestReadOnlyBeforeTheBirth: a list that reads a store before its writers do
// accepts no session that has begun, and writes nothing. It is ready as soon as
// a writer has made its mark, also about the sessions that began before that
// reading.
func TestReadOnlyBeforeTheBirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		r := &reader{Store: s}
		l := running(t, r)
		began := time.Now()
		time.Sleep(30 * time.Minute)
		for range 10 {
			err := ask(t, l, "sid", "ada", "kid", began)
			require.Error(t, err)
			require.NotErrorIs(t, err, revoke.ErrRevoked, "it cannot tell")
			time.Sleep(time.Second)
		}
		writer := running(t, s)
		one := begin(t, writer, "ada")
		time.Sleep(2 * time.Second)
		require.NoError(t, ask(t, l, "sid", "ada", "kid", one))
		require.Zero(t, r.appends)
		require.Zero(t, l.Status().Owed)
		require.Zero(t, l.Metrics()["revocation_write_failures_total"])
	})
}

// TestReadOnlyAfterALoss: until the writers have brought back what was lost, a
// list that only reads accepts no session from before the loss whose revocation
// it may lack.
func TestReadOnlyAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		l := running(t, &reader{Store: s.server})
		time.Sleep(20 * time.Minute)
		s.right(t, l)
		require.NoError(t, s.lists[0].RevokeSession(t.Context(), "just now"))
		s.become(nil)
		time.Sleep(1100 * time.Millisecond) // the next reading, as after any revocation
		for range 200 {
			s.never(t, l)
			require.Error(t, ask(t, l, "just now", "x", "kid", s.begun))
			time.Sleep(50 * time.Millisecond)
		}
		s.right(t, l)
		require.ErrorIs(t, ask(t, l, "just now", "x", "kid", s.begun), revoke.ErrRevoked)
	})
}

// TestReadOnlyAfterALossForGood: if no writer brings back what was lost, the
// sessions from before count as revoked after 10 min, as at the writers.
func TestReadOnlyAfterALossForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		writer := newList(t, s)
		stop := run(t, writer)
		time.Sleep(time.Minute)
		one := begin(t, writer, "ada")
		r := &reader{Store: s}
		l := running(t, r)
		time.Sleep(20 * time.Minute)
		require.NoError(t, ask(t, l, "sid", "ada", "kid", one))
		stop()
		time.Sleep(5 * time.Second)
		s.become(nil)
		other := running(t, s) // knows nothing of before
		time.Sleep(2 * time.Second)
		for range 60 {
			err := ask(t, l, "sid", "ada", "kid", one)
			require.Error(t, err)
			require.NotErrorIs(t, err, revoke.ErrRevoked, "it cannot tell")
			require.NoError(t, ask(t, l, "new", "ada", "kid", begin(t, other, "ada")))
			time.Sleep(9 * time.Second)
		}
		time.Sleep(2 * time.Minute)
		require.ErrorIs(t, ask(t, l, "sid", "ada", "kid", one), revoke.ErrRevoked)
		require.Zero(t, r.appends)
	})
}
