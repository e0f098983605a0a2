package revoke_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
)

func TestWhatIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		time.Sleep(time.Hour + time.Second/2)
		now := time.Now()
		before, after := now.Add(-time.Minute), now.Add(time.Millisecond)

		require.NoError(t, a.RevokeSession(t.Context(), "sid-1"))
		require.NoError(t, a.RevokeSubject(t.Context(), "ada"))
		require.NoError(t, a.RevokeKey(t.Context(), "kid-1", time.Time{}))
		require.NoError(t, a.RevokeOthers(t.Context(), "eve", "sid-3"))
		for _, l := range []*revoke.List{a, b} {
			require.True(t, revoked(t, l, "sid-1", "bob", "kid-2", after), "a session, whenever it began")
			require.True(t, revoked(t, l, "sid-2", "ada", "kid-2", before))
			require.True(t, revoked(t, l, "sid-2", "ada", "kid-2", now), "the same moment")
			require.False(t, revoked(t, l, "sid-2", "ada", "kid-2", after), "a later sign-in")
			require.True(t, revoked(t, l, "sid-2", "eve", "kid-2", before), "another session of the subject")
			require.False(t, revoked(t, l, "sid-3", "eve", "kid-2", before), "the one that is spared")
			require.True(t, revoked(t, l, "sid-2", "bob", "kid-1", after), "a key")
			require.True(t, l.KeyRevoked("kid-1"))
			require.False(t, l.KeyRevoked("kid-2"))
			require.False(t, revoked(t, l, "sid-2", "bob", "kid-2", before))
			require.False(t, revoked(t, l, "", "", "", before))
			time.Sleep(time.Second) // the bound on the others
		}
		require.NoError(t, b.RevokeAll(t.Context(), before))
		time.Sleep(time.Second)
		require.True(t, revoked(t, a, "sid-2", "bob", "kid-2", before), "all that had begun by then")
		require.False(t, revoked(t, a, "sid-2", "bob", "kid-2", now))
		require.NoError(t, b.RevokeAll(t.Context(), time.Now()))
		time.Sleep(time.Second)
		require.True(t, revoked(t, a, "sid-2", "bob", "kid-2", after))
		require.False(t, revoked(t, a, "sid-2", "bob", "kid-2", time.Now()))
		require.Equal(t, 5, a.Status().Entries)

		for _, f := range []func(context.Context, string) error{a.RevokeSession, a.RevokeSubject} {
			require.Error(t, f(t.Context(), ""), "nothing is revoked by mistake")
		}
		require.Error(t, a.RevokeKey(t.Context(), "", time.Time{}))
		require.Error(t, a.RevokeOthers(t.Context(), "", "sid-1"))
		require.Error(t, a.RevokeOthers(t.Context(), "ada", ""), "that is RevokeSubject")
		require.Error(t, a.RevokeAll(t.Context(), time.Time{}))
		require.Error(t, a.RevokeAll(t.Context(), time.Now().Add(time.Second)), "no sign-in would work")
	})
}

// A question that was put together by hand is the same as one of Prepared.
func TestQuestionByHand(t *testing.T) {
	l := newList(t, new(revoke.MemStore))
	require.NoError(t, l.RevokeSession(t.Context(), "sid-1"))
	began := time.Now()
	require.NoError(t, l.RevokeGroup(t.Context(), groupA))
	for _, sid := range []string{"sid-1", inGroups(groupA)} {
		require.Equal(t, revoke.ErrRevoked, l.Check(t.Context(), &revoke.Question{SessionID: sid, Subject: "ada", KeyID: "kid", Began: began}))
	}
	require.Error(t, l.Check(t.Context(), nil))
}

// Live tells the time that Now tells, and only what Check answers at once and
// without an error.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		c := new(clock.Clock)
		l := listAt(t, c, time.Hour, s)
		t.Cleanup(lastReading)
		q := revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: time.Now().Add(time.Second)}.Prepared()
		isLive := func(q *revoke.Question) bool {
			t.Helper()
			now, live := l.Live(q)
			if live {
				right, err := l.Now(t.Context())
				require.NoError(t, err)
				require.Equal(t, right, now)
				return true
			}
			require.Zero(t, now)
			return false
		}
		check := func() {
			t.Helper()
			require.NoError(t, l.Check(t.Context(), &q))
		}
		require.False(t, isLive(&q), "never read")
		require.Zero(t, s.reads.Load(), "nothing but memory")
		check()
		synctest.Wait()
		require.True(t, isLive(&q))
		require.False(t, isLive(nil))
		require.False(t, isLive(&revoke.Question{SessionID: "sid"}), "by hand")

		time.Sleep(2 * time.Second)
		require.True(t, isLive(&q))
		time.Sleep(time.Millisecond)
		require.False(t, isLive(&q), "Check has the store read again")
		check()
		synctest.Wait()
		require.True(t, isLive(&q))
		c.SetAhead(2 * time.Hour)
		require.False(t, isLive(&q), "the machine was suspended, perhaps")
		check()
		synctest.Wait()
		require.True(t, isLive(&q))

		s.writes.Store(down)
		require.Error(t, l.RevokeSession(t.Context(), "other"))
		require.False(t, isLive(&q), "something is owed: Check writes it")
		s.writes.Store(good)
		require.NoError(t, l.RevokeSession(t.Context(), "other"))
		check()
		synctest.Wait()
		require.True(t, isLive(&q))
		require.NoError(t, l.RevokeSession(t.Context(), "sid"))
		require.False(t, isLive(&q))
	})
}

// What was revoked is forgotten when no session that it reaches can live, and not
// before.
func TestEntriesForgetThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		l := running(t, s, func(c *revoke.Config) {
			c.MaxSession = 10 * time.Hour
			c.SyncEvery = time.Minute
			c.MaxStale = time.Hour
		})
		for i := range 10_000 {
			require.NoError(t, l.RevokeSession(t.Context(), fmt.Sprint(i)))
		}
		require.NoError(t, l.RevokeGroup(t.Context(), groupA))
		begun := time.Now()
		time.Sleep(10 * time.Hour)
		require.True(t, revoked(t, l, "77", "", "", time.Now()))
		require.True(t, revoked(t, l, inGroups(groupA), "", "", begun))
		time.Sleep(7 * time.Minute)
		require.NoError(t, l.RevokeSession(t.Context(), "last"))
		time.Sleep(70 * time.Minute) // in which all shards are swept
		require.Equal(t, 1, l.Status().Entries)
		require.Len(t, revocations(t, s), 1, "the store forgets too")
	})
}

// A leaked key makes new tokens: it is remembered for longer than a session lasts.
func TestKeysAreRememberedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := running(t, new(revoke.MemStore), func(c *revoke.Config) { c.SyncEvery, c.MaxStale = 25*time.Minute, time.Hour })
		require.NoError(t, l.RevokeKey(t.Context(), "kid-1", time.Time{}))
		require.NoError(t, l.RevokeKey(t.Context(), "kid-2", time.Now().Add(time.Hour)), "at least")
		require.NoError(t, l.RevokeKey(t.Context(), "kid-3", time.Now().Add(90*24*time.Hour)))
		require.NoError(t, l.RevokeSession(t.Context(), "sid-1"))
		time.Sleep(60 * 24 * time.Hour)
		require.True(t, revoked(t, l, "", "", "kid-1", time.Now()))
		require.True(t, revoked(t, l, "", "", "kid-2", time.Now()))
		require.False(t, revoked(t, l, "sid-1", "", "", time.Now()))
		time.Sleep(2 * time.Hour)
		require.False(t, revoked(t, l, "", "", "kid-1", time.Now()))
		require.False(t, revoked(t, l, "", "", "kid-2", time.Now()))
		require.True(t, revoked(t, l, "", "", "kid-3", time.Now()))
		time.Sleep(30 * 24 * time.Hour)
		require.False(t, l.KeyRevoked("kid-3"))
	})
}

// A list that nothing runs reads its store by itself.
func TestWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := newList(t, s), newList(t, s)
		require.False(t, b.KeyRevoked("kid"), "from memory")
		require.Zero(t, s.reads.Load())
		require.False(t, revoked(t, b, "sid-1", "", "", time.Now()), "the first answer waits for the store")
		require.NoError(t, a.RevokeSession(t.Context(), "sid-1"))
		time.Sleep(31 * time.Second)
		require.True(t, revoked(t, b, "sid-1", "", "", time.Now()), "and so does one after MaxStale")

		s.mode.Store(down)
		c := newList(t, s)
		err := ask(t, c, "sid-1", "", "", time.Now())
		require.ErrorIs(t, err, errDown)
	})
}

// Lists of two namespaces share a store and know nothing of each other.
func TestNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		in := func(name string) *revoke.List {
			return running(t, s, func(c *revoke.Config) { c.Namespace = name })
		}
		a, b, a2 := in("a"), in("b"), in("a")
		require.NoError(t, a.RevokeSession(t.Context(), "sid"))
		require.NoError(t, a.RevokeAll(t.Context(), time.Now()))
		time.Sleep(time.Second)
		require.True(t, revoked(t, a2, "sid", "", "", time.Now()))
		require.False(t, revoked(t, b, "sid", "", "", time.Now()))
		require.Zero(t, b.Status().Entries)
	})
}

// revoked to refused everywhere, under the stated bound: SyncEvery and one reading.
func TestBoundOnReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		var lists []*revoke.List
		for range 8 {
			lists = append(lists, running(t, s))
		}
		worst := time.Duration(0)
		for i := range 1000 {
			sid := fmt.Sprint(i)
			require.NoError(t, lists[i%8].RevokeSession(t.Context(), sid))
			begin := time.Now()
			for _, l := range lists {
				for !revoked(t, l, sid, "", "", begin) {
					time.Sleep(10 * time.Millisecond)
				}
			}
			worst = max(worst, time.Since(begin))
			time.Sleep(time.Duration(i%97) * 11 * time.Millisecond)
		}
		require.LessOrEqual(t, worst, time.Second+10*time.Millisecond)
		require.Greater(t, worst, time.Second/2, "the test would notice")
	})
}

func TestNewListNamesTheField(t *testing.T) {
	for _, row := range []struct {
		name, field string
		cfg         revoke.Config
	}{
		{"no store", "Store", revoke.Config{}},
		{"negative", "MaxSession", revoke.Config{Store: new(revoke.MemStore), MaxSession: -1}},
		{"a bare number", "MaxSession", revoke.Config{Store: new(revoke.MemStore), MaxSession: 3600}},
		{"negative", "SyncEvery", revoke.Config{Store: new(revoke.MemStore), SyncEvery: -1}},
		{"a bare number", "SyncEvery", revoke.Config{Store: new(revoke.MemStore), SyncEvery: 1}},
		{"below the floor", "SyncEvery", revoke.Config{Store: new(revoke.MemStore), SyncEvery: 9 * time.Millisecond}},
		{"below SyncEvery", "MaxStale", revoke.Config{Store: new(revoke.MemStore), SyncEvery: time.Minute}},
		{"negative", "MaxStale", revoke.Config{Store: new(revoke.MemStore), MaxStale: -1}},
		{"a bare number", "MaxSkew", revoke.Config{Store: new(revoke.MemStore), MaxSkew: 60}},
		{"no UTF-8", "Namespace", revoke.Config{Store: new(revoke.MemStore), Namespace: "\xff"}},
		{"a NUL", "Namespace", revoke.Config{Store: new(revoke.MemStore), Namespace: "a\x00b"}},
	} {
		t.Run(row.field+" "+row.name, func(t *testing.T) {
			_, err := revoke.NewList(row.cfg)
			require.ErrorContains(t, err, "Config."+row.field)
		})
	}
	var none *revoke.MemStore
	_, err := revoke.NewList(revoke.Config{Store: none})
	require.ErrorContains(t, err, "Config.Store")
	_, err = revoke.NewList(revoke.Config{Store: new(revoke.MemStore), SyncEvery: 20 * time.Millisecond})
	require.NoError(t, err)
}

func TestTimesAreHeldToWhatCanBeSaid(t *testing.T) {
	s := new(revoke.MemStore)
	never := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, s.Append(t.Context(), subjectEntry("ada", never, never)))
	require.NoError(t, s.Append(t.Context(), subjectEntry("bob", time.Time{}, time.Now().Add(time.Hour))))
	l := newList(t, s)
	require.True(t, revoked(t, l, "", "ada", "", time.Now()))
	require.False(t, revoked(t, l, "", "bob", "", time.Now()))
	now, err := l.Now(t.Context())
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), now, time.Minute, "an entry far ahead of the store's clock is not its time")
}

// A store that was never read costs a list a few KiB, so that there may be many.
func TestListAtRest(t *testing.T) {
	const n = 200
	var before, after runtime.MemStats
	s := new(revoke.MemStore)
	lists := make([]*revoke.List, n)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range lists {
		lists[i] = newList(t, s)
		require.False(t, revoked(t, lists[i], "sid", "", "", time.Now()))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Log(each, "bytes a list")
	require.Less(t, each, int64(8<<10))
	runtime.KeepAlive(lists)
}

// An entry lives as long as what it revokes can, and not much longer.
func TestHowLongEntriesLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		l := newList(t, s, func(c *revoke.Config) { c.MaxSession = 10 * time.Hour })
		require.NoError(t, l.RevokeSession(t.Context(), "sid"))
		require.NoError(t, l.RevokeSubject(t.Context(), "ada"))
		require.NoError(t, l.RevokeGroup(t.Context(), groupA))
		require.NoError(t, l.RevokeAll(t.Context(), time.Now().Add(-time.Hour)))
		require.NoError(t, l.RevokeKey(t.Context(), "kid", time.Time{}))
		for _, e := range revocations(t, s) {
			lives := 10 * time.Hour
			if e.Scope == revoke.Key {
				lives = 60 * 24 * time.Hour
			}
			lives += 10*time.Minute + time.Minute // a login, and MaxSkew
			require.GreaterOrEqual(t, time.Until(e.Until), lives, e.Scope)
			require.LessOrEqual(t, time.Until(e.Until), lives+time.Minute, e.Scope)
			require.Equal(t, e.Before.Truncate(time.Millisecond), e.Before)
			require.Equal(t, e.Until.Truncate(time.Millisecond), e.Until)
		}
	})
}

// TestMillion: a million revoked sessions stay within 128 MiB, and asking about
// one allocates nothing.
func TestMillion(t *testing.T) {
	long(t)
	const million = 1_000_000
	id := func(i int) string { return fmt.Sprintf("sid-%018d", i) } // as long as a real one
	s := &made{make: func(i int) revoke.Entry { return sessionEntry(id(i)) }, n: million}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := newList(t, s)
	now := time.Now()
	for l.Status().Synced.IsZero() { // on a busy machine that may take longer than one call waits
		_ = ask(t, l, id(77), "ada", "kid", now)
		require.Less(t, time.Since(now), time.Minute)
	}
	now = time.Now()
	require.True(t, revoked(t, l, id(77), "ada", "kid", now))
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := (after.HeapAlloc - before.HeapAlloc) >> 20
	t.Logf("%d entries in %d MiB", l.Status().Entries, used)
	require.Equal(t, million, l.Status().Entries)
	require.Less(t, used, uint64(128))
	q := revoke.Question{SessionID: "sid-1", Subject: "ada", KeyID: "kid", Began: now}.Prepared()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_ = l.Check(t.Context(), &q)
		_, _ = l.Now(t.Context())
		_ = l.KeyRevoked("kid-1")
	}))
	require.True(t, revoked(t, l, id(million-1), "ada", "kid", now))
	require.False(t, revoked(t, l, id(million), "ada", "kid", now))
}

func TestConcurrentUse(t *testing.T) {
	s := new(revoke.MemStore)
	l := newList(t, s, func(c *revoke.Config) { c.SyncEvery = 10 * time.Millisecond; c.MaxStale = time.Minute })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) })
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for n := range 500 {
				q := revoke.Question{SessionID: fmt.Sprint(i, "-", n), Subject: "ada", KeyID: "kid", Began: time.Now()}.Prepared()
				if err := l.Check(ctx, &q); err != nil {
					t.Error(err)
				}
				if err := l.RevokeSession(ctx, q.SessionID); err != nil {
					t.Error(err)
				}
				if err := l.Check(ctx, &q); err != revoke.ErrRevoked {
					t.Error(err)
				}
				runtime.Gosched()
			}
		})
	}
	readers.Wait()
	cancel()
	wg.Wait()
	require.Equal(t, 2000, l.Status().Entries)
}
