package revoke_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestSync: it reads the store once and writes what is owed, and its error is
// that of the reading.
func TestSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Error(t, new(revoke.List).Sync(t.Context()))
		store := new(faulty)
		l, other := newList(t, store), newList(t, store)
		require.NoError(t, l.Sync(t.Context()))
		require.Equal(t, int64(1), store.reads.Load())
		require.NoError(t, other.RevokeSession(t.Context(), "elsewhere"))
		require.NoError(t, l.Sync(t.Context()))
		require.ErrorIs(t, checkSession(t, l, "elsewhere"), revoke.ErrRevoked)

		store.writes.Store(down)
		require.Error(t, l.RevokeSession(t.Context(), "here"))
		require.Equal(t, 1, l.Status().Owed)
		store.mode.Store(down)
		require.ErrorIs(t, l.Sync(t.Context()), errDown)
		require.Equal(t, 1, l.Status().Owed)
		store.mode.Store(good)
		store.writes.Store(good)
		for range 5 { // the pause after a write that failed ends
			time.Sleep(time.Second)
			require.NoError(t, l.Sync(t.Context()))
		}
		synctest.Wait()
		require.Zero(t, l.Status().Owed)
		require.NoError(t, other.Sync(t.Context()))
		require.ErrorIs(t, checkSession(t, other, "here"), revoke.ErrRevoked)
	})
}

// TestSyncGivesUp: a ctx that ends does not end the reading.
func TestSyncGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(faulty)
		store.mode.Store(hung)
		l := newList(t, store)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, l.Sync(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		require.Equal(t, int64(1), store.reads.Load())
		time.Sleep(time.Minute)
	})
}

func checkSession(t *testing.T, l *revoke.List, sessionID string) error {
	t.Helper()
	now, err := l.Now(t.Context())
	require.NoError(t, err)
	return l.Check(t.Context(), &revoke.Question{SessionID: sessionID, Subject: "ada", Began: now})
}

// sharing is a store whose readings are shared, and as old as may be.
type sharing struct {
	revoke.MemStore
	clock clock.Clock
	last  revoke.Page
	asked clock.Instant
	reads int
}

func (s *sharing) SinceAfter(ctx context.Context, cursor string, after clock.Instant) (revoke.Page, clock.Instant, clock.Instant, error) {
	if s.asked.IsZero() || clock.SteadyBetween(s.asked, after) > 0 {
		s.reads++
		s.asked = s.clock.Read()
		var err error
		if s.last, err = s.Since(ctx, ""); err != nil {
			return s.last, s.asked, s.asked, err
		}
	}
	return s.last, s.asked, s.asked, nil
}

// TestListOfSharedReadings: what has to be known at a moment is known by a
// reading that began after it, and Sync is content with an older one, whose age
// counts.
func TestListOfSharedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(sharing)
		l := newList(t, store)
		require.NoError(t, l.Sync(t.Context()))
		require.Equal(t, 1, store.reads)
		time.Sleep(20 * time.Second)
		require.NoError(t, l.Sync(t.Context()))
		require.Equal(t, 1, store.reads)
		require.InDelta(t, 20, l.Metrics()["revocation_age_seconds"], 0.1)

		other := newList(t, &store.MemStore)
		require.NoError(t, other.RevokeSubject(t.Context(), "ada"))
		begun, err := l.Begin(t.Context(), revoke.Question{Subject: "ada"})
		require.NoError(t, err)
		require.Equal(t, 2, store.reads)
		require.NoError(t, other.Check(t.Context(), &revoke.Question{SessionID: "s", Subject: "ada", Began: begun}))

		time.Sleep(25 * time.Second)
		require.NoError(t, l.Sync(t.Context()))
		_, err = l.Now(t.Context())
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.NoError(t, l.Sync(t.Context()))
		_, err = l.Now(t.Context())
		require.Error(t, err, "a reading that is older than MaxStale makes no list answer")
	})
}

// TestListAtRestIsSmall: a list that knows one entry of each scope costs a few
// KiB.
func TestListAtRestIsSmall(t *testing.T) {
	const lists = 200
	store := new(revoke.MemStore)
	all := make([]*revoke.List, lists)
	before := heapInUse()
	for i := range all {
		all[i] = newList(t, store)
	}
	l := all[0]
	require.NoError(t, l.RevokeSession(t.Context(), "s"))
	require.NoError(t, l.RevokeSubject(t.Context(), "ada"))
	require.NoError(t, l.RevokeKey(t.Context(), "k", time.Time{}))
	require.NoError(t, l.RevokeGroup(t.Context(), "AAAAAAAAAAAAAAAA"))
	for _, l := range all {
		require.NoError(t, l.Sync(t.Context()))
		require.Equal(t, 4, l.Status().Entries)
	}
	each := (heapInUse() - before) / lists
	t.Logf("%d bytes a list", each)
	require.LessOrEqual(t, each, 12<<10)
	runtime.KeepAlive(all)
}

func heapInUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
