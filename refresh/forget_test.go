package refresh_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// breaking is a store whose calls can be watched, and whose deletions can fail.
type breaking struct {
	refresh.MemStore
	onCreate func()      // before a record is written
	stuck    atomic.Bool // nothing can be deleted by subject
	lost     atomic.Bool // a deletion by subject is done, and its answer is lost
}

func (s *breaking) Create(ctx context.Context, r refresh.Record) error {
	if s.onCreate != nil {
		s.onCreate()
	}
	return s.MemStore.Create(ctx, r)
}

func (s *breaking) DeleteSubject(ctx context.Context, namespace, subject, except string) error {
	if s.stuck.Load() {
		return errDown
	}
	err := s.MemStore.DeleteSubject(ctx, namespace, subject, except)
	if s.lost.Load() {
		return errDown
	}
	return err
}

// replicas are two managers on one store of families and one of revocations,
// each with a list of its own that no Run keeps fresh.
func replicas(t *testing.T, families refresh.Store, revocations revoke.Store) (a, b *refresh.Manager) {
	t.Helper()
	on := func(c *refresh.Config) { c.Revocations = newList(t, revocations) }
	a, b = newManager(t, families, on), newManager(t, families, on)
	read(t, a)
	read(t, b)
	time.Sleep(time.Second)
	return a, b
}

func family(subject, session string) refresh.Family {
	return refresh.Family{Subject: subject, SessionID: session, ClientID: "app", Label: "Ada's phone", Began: time.Now()}
}

// TestForget: the sessions of the subject end on every replica, its families
// are gone from the store, those of others stay, and who signs in afterwards
// has a session that lasts.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		a, b := replicas(t, s, r)
		mine := start(t, a)
		start(t, b, session("sid-2"))
		other, _, err := a.Start(t.Context(), family("bob", "sid-3"), "")
		require.NoError(t, err)
		require.Len(t, records(t, s), 2)
		time.Sleep(time.Second)

		for range 2 { // repeating does no harm
			require.NoError(t, b.Forget(t.Context(), "ada"))
			require.Empty(t, records(t, s))
		}
		_, err = exchange(t, a, mine)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.NoError(t, a.Config().Revocations.Sync(t.Context()))
		q := revoke.Question{SessionID: "sid-1", Subject: "ada", Began: time.Now().Add(-2 * time.Second)}
		require.ErrorIs(t, a.Config().Revocations.Check(t.Context(), &q), revoke.ErrRevoked, "the old token stays refused")
		for _, e := range r.entries {
			require.NotContains(t, fmt.Sprint(e), "ada")
		}
		_, _, err = a.Exchange(t.Context(), app(other), issue)
		require.NoError(t, err)

		time.Sleep(time.Second)
		again := start(t, a, session("sid-4"))
		require.NoError(t, b.Config().Revocations.Sync(t.Context()))
		next(t, b, again)
		require.Len(t, records(t, s), 1)
	})
}

// TestForgetSaysWhatIsLeft: whichever store fails, the error says how far
// Forget has come, and repeating it ends the work.
func TestForgetSaysWhatIsLeft(t *testing.T) {
	for _, tt := range []struct {
		name         string
		fail         func(s *breaking, r *revocations, on bool)
		says         string
		ended, erase bool // what has happened all the same
	}{
		{"the list cannot be written", func(_ *breaking, r *revocations, on bool) { r.down.Store(on) }, "nothing is erased yet", false, false},
		{"the families cannot be deleted", func(s *breaking, _ *revocations, on bool) { s.stuck.Store(on) }, "families with its name and the labels of its devices are left", true, false},
		{"the answer of the deletion is lost", func(s *breaking, _ *revocations, on bool) { s.lost.Store(on) }, "are left", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := new(breaking), new(revocations)
				a, b := replicas(t, s, r)
				token := start(t, a)
				time.Sleep(time.Second)
				tt.fail(s, r, true)
				err := a.Forget(t.Context(), "ada")
				require.ErrorIs(t, err, errDown)
				require.ErrorContains(t, err, tt.says)
				require.ErrorContains(t, err, "call Forget again")
				require.NotContains(t, err.Error(), "ada")
				require.Equal(t, tt.erase, len(records(t, s)) == 0)
				if tt.ended {
					require.NoError(t, b.Config().Revocations.Sync(t.Context()))
					_, err = exchange(t, b, token)
					require.ErrorIs(t, err, refresh.ErrInvalid)
				}
				tt.fail(s, r, false)
				require.NoError(t, b.Forget(t.Context(), "ada"), "by another replica")
				require.Empty(t, records(t, s))
				_, err = exchange(t, b, token)
				require.ErrorIs(t, err, refresh.ErrInvalid)
			})
		})
	}
	m, err := refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, InsecureSessionsLiveOn: true})
	require.NoError(t, err)
	require.ErrorContains(t, m.Forget(t.Context(), ""), "subject is required")
	start(t, m)
	require.NoError(t, m.Forget(t.Context(), "ada"), "without a list")
	list, err := m.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Empty(t, list)
	require.Error(t, new(refresh.Manager).Forget(t.Context(), "ada"))
}

// TestForgetDuringASignIn: another replica has checked the list and is about to
// write a family while Forget runs to its end. The sign-in is refused, and no
// family comes back.
func TestForgetDuringASignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(breaking), new(revocations)
		a, b := replicas(t, s, r)
		f := family("ada", "sid-1")
		time.Sleep(10 * time.Millisecond)
		s.onCreate = func() {
			s.onCreate = nil
			require.NoError(t, a.Forget(t.Context(), "ada"))
		}
		_, _, err := b.Start(t.Context(), f, "")
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Nil(t, s.onCreate)
		require.Empty(t, records(t, s))
		time.Sleep(time.Second)
		start(t, b, session("sid-2"))
		require.Len(t, records(t, s), 1)
	})
}

// TestForgetWhileAReplicaIsBlind: a replica that cannot read the list at that
// moment leaves a family, as the comment of Forget says. Its token is of no
// use where the list can be read, and Forget removes it.
func TestForgetWhileAReplicaIsBlind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(breaking), new(revocations)
		a, b := replicas(t, s, r)
		f := family("ada", "sid-1")
		time.Sleep(10 * time.Millisecond)
		s.onCreate = func() {
			s.onCreate = nil
			require.NoError(t, a.Forget(t.Context(), "ada"))
			r.blind.Store(true)
		}
		token, _, err := b.Start(t.Context(), f, "")
		require.NoError(t, err)
		require.Len(t, records(t, s), 1)
		_, err = exchange(t, a, token)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Empty(t, records(t, s), "who is asked for it deletes it")

		s.onCreate = func() {
			s.onCreate = nil
			r.blind.Store(false)
			require.NoError(t, a.Forget(t.Context(), "ada"))
			r.blind.Store(true)
		}
		time.Sleep(10 * time.Second)
		_, _, err = b.Start(t.Context(), family("ada", "sid-2"), "")
		require.NoError(t, err)
		require.Len(t, records(t, s), 1)
		r.blind.Store(false)
		time.Sleep(time.Minute)
		require.NoError(t, b.Forget(t.Context(), "ada"))
		require.Empty(t, records(t, s))
	})
}

// TestForgetDuringAnExchange: an exchange that has read the family, and then
// finds it gone, does not write it again.
func TestForgetDuringAnExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		a, b := replicas(t, s, r)
		token := start(t, a)
		time.Sleep(time.Second)
		_, _, err := b.Exchange(t.Context(), app(token), func(ctx context.Context, _ refresh.Family) error {
			return a.Forget(ctx, "ada")
		})
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Empty(t, records(t, s))
	})
}
