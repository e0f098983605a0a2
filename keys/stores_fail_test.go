package keys_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// A store that falls back to an older document brings no revoked key back, also
// if another replica has written to it since.
func TestRevokedStaysRevokedAfterRollback(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(t *testing.T, b *keys.Ring, leaked string)
	}{
		{"nothing is written", func(*testing.T, *keys.Ring, string) {}},
		{"one write", func(t *testing.T, b *keys.Ring, leaked string) {
			for _, k := range b.Status().Keys {
				if k.KeyID != leaked {
					require.NoError(t, b.Revoke(t.Context(), k.KeyID))
				}
			}
		}},
		{"many writes", func(t *testing.T, b *keys.Ring, leaked string) {
			for range 5 {
				for _, k := range b.Status().Keys {
					if k.Phase == "next" {
						require.NoError(t, b.Revoke(t.Context(), k.KeyID))
					}
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				a := running(t, n)
				reader := running(t, n, func(c *keys.RingConfig) { c.VerifyOnly = true })
				leaked := current(t, a)
				b := newRing(t, n)
				require.Equal(t, leaked, current(t, b))
				old := n.get(t)
				require.NoError(t, a.Revoke(t.Context(), leaked))
				fresh := current(t, a)
				time.Sleep(2 * time.Second)
				require.True(t, published(t, reader, fresh))
				n.put(t, old) // a fail-over to a standby that lacks the last write
				tt.write(t, b, leaked)
				for range 4 {
					time.Sleep(30 * time.Second)
					require.False(t, published(t, a, leaked))
					require.False(t, published(t, reader, leaked), "VerifyOnly too")
					require.NotEqual(t, leaked, current(t, a))
				}
				require.False(t, published(t, b, leaked), "the others learn of it again")
				require.True(t, published(t, a, fresh))
				require.True(t, published(t, b, fresh), "nor is what was signed meanwhile lost")
				require.Equal(t, current(t, a), current(t, b))
				require.False(t, published(t, newRing(t, n), leaked), "it is in the store")
				require.Positive(t, a.Metrics()["ring_older_documents_total"]+b.Metrics()["ring_older_documents_total"]+
					float64(len(a.Status().Keys)))
			})
		})
	}
}

// lossy acknowledges writes that it forgets.
type lossy struct {
	shared
	lose atomic.Int64
}

func (l *lossy) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if l.lose.Add(-1) >= 0 {
		return "acknowledged", nil
	}
	return l.shared.Save(ctx, name, doc, rev)
}

func TestRevokeReadsItsOwnWriteBack(t *testing.T) {
	for _, c := range []struct {
		name string
		lose int64
		fail bool
	}{{"once", 1, false}, {"three times", 3, false}, {"always", 1 << 20, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				l := &lossy{shared: shared{n}}
				r := newRing(t, n, func(c *keys.RingConfig) { c.Store = l })
				leaked := current(t, r)
				l.lose.Store(c.lose)
				err := r.Revoke(t.Context(), leaked)
				if c.fail {
					require.ErrorIs(t, err, keys.ErrLost)
					l.lose.Store(0)
					require.NoError(t, r.Revoke(t.Context(), leaked))
				}
				require.NoError(t, second(0, map[bool]error{false: err}[c.fail]))
				require.False(t, published(t, r, leaked))
				require.False(t, published(t, newRing(t, n), leaked))
			})
		})
	}
}

// An emptied store and a replica that makes a new ring in it: what the others
// have counts, and no token is refused.
func TestRingOutlivesEmptiedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		a, b := running(t, n), running(t, n)
		first := current(t, a)
		time.Sleep(time.Hour)
		n.set(func() { n.mem = new(keys.MemStore) })
		fresh := newRing(t, n)
		stranger := current(t, fresh)
		require.NotEqual(t, first, stranger)
		time.Sleep(time.Second)
		require.True(t, published(t, a, first))
		require.True(t, published(t, a, stranger), "its key is kept")
		time.Sleep(2 * time.Minute)
		for _, r := range []*keys.Ring{a, b, fresh} {
			require.Equal(t, first, current(t, r), "the ring that was first published signs")
			require.True(t, published(t, r, first))
			require.True(t, published(t, r, stranger))
		}
		require.Equal(t, []string{"retired", "retired", "current", "next"}, phases(a))
		require.False(t, a.Status().Keys[0].Private)
	})
}

// A foreign ring that was first published wins for signing, and the keys of the
// other one verify on.
func TestFirstPublishedRingWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		elder, younger := new(network), new(network)
		first := current(t, newRing(t, elder))
		time.Sleep(time.Hour)
		r := running(t, younger)
		reader := running(t, younger, func(c *keys.RingConfig) { c.VerifyOnly = true })
		second := current(t, r)
		require.NoError(t, r.Revoke(t.Context(), second))
		third := current(t, r)
		younger.put(t, elder.get(t)) // another environment's document
		time.Sleep(time.Minute)
		require.Equal(t, first, current(t, r))
		for _, r := range []*keys.Ring{r, reader, newRing(t, younger)} {
			require.True(t, published(t, r, first))
			require.True(t, published(t, r, third))
			require.False(t, published(t, r, second))
		}
		younger.put(t, elder.get(t)) // and once more
		require.True(t, published(t, reader, third))
		time.Sleep(time.Minute)
		require.True(t, published(t, reader, third))
		require.False(t, published(t, reader, second))
	})
}

// A next key that is written back is published for long enough once more.
func TestLostNextKeyIsPublishedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := running(t, n, func(c *keys.RingConfig) { c.SyncEvery = 5 * time.Minute })
		first, next := current(t, r), r.Status().Keys[1].KeyID
		time.Sleep(29*day + 20*time.Hour)
		n.set(func() { n.mem = new(keys.MemStore) })
		time.Sleep(10 * time.Minute)
		list := newRing(t, n)
		require.Equal(t, first, current(t, list))
		require.Equal(t, next, list.Status().Keys[1].KeyID)
		require.GreaterOrEqual(t, time.Until(list.Status().Keys[1].SignsFrom), day-10*time.Minute)
		time.Sleep(5 * time.Hour)
		require.Equal(t, first, current(t, r), "the one before signs for longer")
		at, err := r.Rotate(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Until(at), 18*time.Hour)
	})
}

// What was read counts, whatever becomes of a write.
func TestRevocationIsAdoptedWithoutWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		var logged logBuffer
		ro := &readOnly{shared: shared{n}}
		a := running(t, n)
		r := running(t, n, func(c *keys.RingConfig) {
			// A longer time, so that it has something to write.
			c.Store, c.RetainFor, c.Logger = ro, 48*time.Hour, slog.New(slog.NewTextHandler(&logged, nil))
			ro.fail.Store(true)
		})
		leaked := current(t, a)
		require.True(t, published(t, r, leaked))
		require.NoError(t, a.Revoke(t.Context(), leaked))
		time.Sleep(2 * time.Minute)
		require.False(t, published(t, r, leaked))
		require.Equal(t, current(t, a), current(t, r))
		time.Sleep(20 * time.Hour)
		require.False(t, published(t, r, leaked))
		require.Equal(t, current(t, a), current(t, r), "beyond MaxStale too")
		st := r.Status()
		require.NoError(t, st.Err)
		require.ErrorIs(t, st.WriteErr, errNoSpace)
		require.Positive(t, r.Metrics()["ring_write_failures_total"])
		require.Zero(t, r.Metrics()["ring_sync_failures_total"])
		require.Contains(t, logged.String(), "ring_write")
		require.LessOrEqual(t, strings.Count(logged.String(), "ring_write"), 21*60)
		ro.fail.Store(false)
		time.Sleep(2 * time.Minute)
		require.NoError(t, r.Status().WriteErr)
		require.Zero(t, r.Metrics()["ring_write_due"])
	})
}

var errNoSpace = errors.New("no space left")

type readOnly struct {
	shared
	fail atomic.Bool
}

func (d *readOnly) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	if d.fail.Load() {
		return "", errNoSpace
	}
	return d.shared.Save(ctx, name, doc, rev)
}

// While two configurations share a store, the longer times hold.
func TestLongerTimesHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		long := newRing(t, n)
		current(t, long)
		shorter := func(c *keys.RingConfig) {
			c.PublishBefore, c.MaxStale, c.ClientRefresh, c.RetainFor = 2*time.Hour, 30*time.Minute, time.Hour, time.Hour
		}
		short := newRing(t, n, shorter)
		first := long.Status().Keys[0]
		require.NoError(t, short.Revoke(t.Context(), long.Status().Keys[1].KeyID)) // a new next key
		at, err := short.Rotate(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Until(at), 24*time.Hour-time.Minute)
		time.Sleep(time.Until(at) + time.Minute)
		require.NotEqual(t, first.KeyID, current(t, short))
		time.Sleep(2 * time.Hour)
		require.True(t, published(t, short, first.KeyID), "kept for the longer RetainFor and MaxStale")

		time.Sleep(10 * day) // no replica has the longer times any more
		for range 3 {
			current(t, short)
			time.Sleep(time.Hour)
		}
		at, err = short.Rotate(t.Context())
		require.NoError(t, err)
		require.False(t, at.After(time.Now()), "it was published long ago")
		at, err = short.Rotate(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2*time.Hour, time.Until(at).Round(time.Minute), "the shorter ones hold at last")
	})
}

// TestNamesAreApart: one store, two rings.
func TestNamesAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		a := newRing(t, n, func(c *keys.RingConfig) { c.Name = "a" })
		b := newRing(t, n, func(c *keys.RingConfig) { c.Name = "b" })
		require.NotEqual(t, current(t, a), current(t, b))
		require.False(t, published(t, b, current(t, a)))
		require.ErrorIs(t, b.Revoke(t.Context(), current(t, a)), keys.ErrUnknownKey)
	})
}

// A program that was started for one call reads first, and makes nothing.
func TestOneOffPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		leaked := current(t, newRing(t, n))
		before := n.get(t)

		r := newRing(t, n)
		require.ErrorIs(t, r.Status().Err, keys.ErrNotRead)
		require.Zero(t, r.Status().Synced)
		require.Error(t, r.Revoke(t.Context()), "no key is named")
		wrong := newRing(t, n, func(c *keys.RingConfig) { c.Name = "wrong" })
		require.ErrorIs(t, wrong.Revoke(t.Context(), leaked), keys.ErrNoRing)
		_, err := wrong.Rotate(t.Context())
		require.ErrorIs(t, err, keys.ErrNoRing)
		stored, err := n.store().Load(t.Context(), "wrong")
		require.NoError(t, err)
		require.Nil(t, stored.Doc, "nothing was made")
		require.Equal(t, before, n.get(t))

		require.NoError(t, r.Revoke(t.Context(), leaked))
		require.False(t, published(t, newRing(t, n), leaked))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, r.Revoke(ctx, leaked), context.Canceled)
	})
}

// A list knows that a key was revoked: the first replica that is asked for it
// signs no more with it and revokes it in the ring.
func TestKeyRevokedInAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		var revoked atomic.Value
		listed := func(c *keys.RingConfig) { c.Revoked = func(kid string) bool { return kid == revoked.Load() } }
		r, reader := newRing(t, n, listed), newRing(t, n, listed, func(c *keys.RingConfig) { c.VerifyOnly = true })
		other := running(t, n)
		leaked := current(t, r)
		require.True(t, published(t, reader, leaked))
		revoked.Store(leaked)
		begin := time.Now()
		fresh := current(t, r)
		require.NotEqual(t, leaked, fresh)
		require.Zero(t, time.Since(begin))
		require.False(t, published(t, r, leaked))
		require.False(t, published(t, newRing(t, n), leaked), "it is revoked in the store")
		time.Sleep(time.Second)
		require.False(t, published(t, reader, leaked))
		time.Sleep(time.Minute)
		require.Equal(t, fresh, current(t, other))
		require.False(t, published(t, other, leaked))

		next := other.Status().Keys[1].KeyID
		revoked.Store(next)
		set, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		_, ok := set.Key(next)
		require.False(t, ok, "nor is it served")
		synctest.Wait()

		// It cannot be written: no signature all the same.
		revoked.Store(fresh)
		n.set(func() { n.err = errors.New("boom") })
		_, err = r.SigningKey(t.Context())
		require.Error(t, err)
		require.False(t, published(t, r, fresh))
		n.set(func() { n.err = nil })
		time.Sleep(time.Minute)
		require.NotEqual(t, fresh, current(t, r))
	})
}

func TestIdentifyKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := running(t, n, func(c *keys.RingConfig) { c.IdentifyFor, c.SyncEvery = 90*day, time.Hour })
		first, next := current(t, r), r.Status().Keys[1].KeyID
		time.Sleep(35 * day)
		require.False(t, published(t, r, first))
		k, err := r.IdentifyKey(t.Context(), first)
		require.NoError(t, err)
		require.Equal(t, first, k.KeyID(), "it is kept for this alone")
		set, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, set.Keys(), 2)
		k, err = newRing(t, n, func(c *keys.RingConfig) { c.VerifyOnly = true }).IdentifyKey(t.Context(), first)
		require.NoError(t, err)
		require.Equal(t, first, k.KeyID())

		require.NoError(t, r.Revoke(t.Context(), next))
		for _, kid := range []string{next, "made up", ""} {
			k, err = r.IdentifyKey(t.Context(), kid)
			require.NoError(t, err)
			require.Nil(t, k, kid)
		}
		require.NoError(t, r.Revoke(t.Context(), first), "a retired one can be revoked")
		k, err = r.IdentifyKey(t.Context(), first)
		require.NoError(t, err)
		require.Nil(t, k)
		last := current(t, r)
		n.set(func() { n.err = errors.New("boom") })
		_, err = r.IdentifyKey(t.Context(), "another")
		require.Error(t, err, "it cannot be told")
		k, err = r.IdentifyKey(t.Context(), last)
		require.NoError(t, err)
		require.NotNil(t, k)
		n.set(func() { n.err = nil })
		time.Sleep(200 * day)
		k, err = r.IdentifyKey(t.Context(), last)
		require.NoError(t, err)
		require.Nil(t, k, "gone")
	})
}
