package revoke_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

var errDown = errors.New("the store is down")

// faulty is a store that can fail, hang, and apply what it reports as failed.
type faulty struct {
	revoke.MemStore
	mode atomic.Int32
}

const (
	good = iota
	down
	hung
	lostReply
)

func (f *faulty) fault(ctx context.Context) error {
	switch f.mode.Load() {
	case down:
		return errDown
	case hung:
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (f *faulty) Append(ctx context.Context, e revoke.Entry) error {
	if err := f.fault(ctx); err != nil {
		return err
	}
	if err := f.MemStore.Append(ctx, e); err != nil {
		return err
	}
	if f.mode.Load() == lostReply {
		return errDown
	}
	return nil
}

func (f *faulty) Since(ctx context.Context, cursor string) ([]revoke.Entry, string, bool, error) {
	if err := f.fault(ctx); err != nil {
		return nil, "", false, err
	}
	return f.MemStore.Since(ctx, cursor)
}

func newList(t *testing.T, s revoke.Store, change ...func(*revoke.Config)) *revoke.List {
	t.Helper()
	cfg := revoke.Config{Store: s, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	l, err := revoke.NewList(cfg)
	require.NoError(t, err)
	return l
}

func running(t *testing.T, s revoke.Store, change ...func(*revoke.Config)) *revoke.List {
	t.Helper()
	l := newList(t, s, change...)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	synctest.Wait()
	return l
}

func ended(t *testing.T, l *revoke.List, sid, sub, kid string, began time.Time) bool {
	t.Helper()
	yes, err := l.Revoked(t.Context(), sid, sub, kid, began)
	require.NoError(t, err)
	return yes
}

func TestWhatIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		time.Sleep(time.Hour + time.Second/2)
		second := time.Now().Truncate(time.Second)
		before, after := second.Add(-time.Minute), second.Add(time.Second)

		require.NoError(t, a.EndSession(t.Context(), "sid-1"))
		require.NoError(t, a.EndSubject(t.Context(), "ada"))
		require.NoError(t, a.EndKey(t.Context(), "kid-1"))
		for _, l := range []*revoke.List{a, b} {
			require.True(t, ended(t, l, "sid-1", "bob", "kid-2", after), "a session, whenever it began")
			require.True(t, ended(t, l, "sid-2", "ada", "kid-2", before))
			require.True(t, ended(t, l, "sid-2", "ada", "kid-2", second), "the same second")
			require.False(t, ended(t, l, "sid-2", "ada", "kid-2", after), "a later sign-in")
			require.True(t, ended(t, l, "sid-2", "bob", "kid-1", after), "a key")
			require.False(t, ended(t, l, "sid-2", "bob", "kid-2", before))
			require.False(t, ended(t, l, "", "", "", before))
			time.Sleep(time.Second) // the bound on the others
		}
		require.NoError(t, b.EndAll(t.Context(), before))
		time.Sleep(time.Second)
		require.True(t, ended(t, a, "sid-2", "bob", "kid-2", before), "all that had begun by then")
		require.False(t, ended(t, a, "sid-2", "bob", "kid-2", second))
		require.NoError(t, b.EndAll(t.Context(), time.Now()))
		time.Sleep(time.Second)
		require.True(t, ended(t, a, "sid-2", "bob", "kid-2", after))
		require.False(t, ended(t, a, "sid-2", "bob", "kid-2", time.Now()))
		require.Equal(t, 4, a.Status().Entries)

		for _, f := range []func(context.Context, string) error{a.EndSession, a.EndSubject, a.EndKey} {
			require.Error(t, f(t.Context(), ""), "nothing is ended by mistake")
		}
		require.Error(t, a.EndAll(t.Context(), time.Time{}))
		require.Error(t, a.EndAll(t.Context(), time.Now().Add(time.Second)), "nobody could sign in")
	})
}

// An entry never takes back another one, in whatever order they arrive.
func TestOrderDoesNotMatter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		entries := []revoke.Entry{
			{Scope: revoke.Subject, Value: "ada", Before: now.Add(-time.Hour), Until: now.Add(time.Hour)},
			{Scope: revoke.Subject, Value: "ada", Before: now, Until: now.Add(time.Hour)},
			{Scope: revoke.Subject, Value: "ada", Before: now.Add(-time.Minute), Until: now.Add(3 * time.Hour)},
		}
		for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {1, 1, 0}} {
			s := new(revoke.MemStore)
			for _, i := range order {
				require.NoError(t, s.Append(t.Context(), entries[i]))
			}
			l := newList(t, s)
			require.True(t, ended(t, l, "", "ada", "", now))
			require.False(t, ended(t, l, "", "ada", "", now.Add(time.Second)))
		}
	})
}

// What was ended is forgotten when no session that it ends can live, and not before.
func TestEntriesForgetThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		l := running(t, s, func(c *revoke.Config) {
			c.MaxSession = 10 * time.Hour
			c.SyncEvery = time.Minute
			c.MaxStale = time.Hour
		})
		for i := range 10_000 {
			require.NoError(t, l.EndSession(t.Context(), fmt.Sprint(i)))
		}
		time.Sleep(10 * time.Hour)
		require.True(t, ended(t, l, "77", "", "", time.Now()))
		time.Sleep(7 * time.Minute)
		require.NoError(t, l.EndSession(t.Context(), "last"))
		time.Sleep(70 * time.Minute) // in which all parts are swept
		require.Equal(t, 1, l.Status().Entries)
		for i := range 10_000 { // the store forgets too
			require.NoError(t, l.EndSession(t.Context(), fmt.Sprint(i)))
		}
		all, _, _, err := s.Since(t.Context(), "")
		require.NoError(t, err)
		require.LessOrEqual(t, len(all), 10_001)
	})
}

func TestStoreFails(t *testing.T) {
	for _, mode := range []int32{down, hung} {
		t.Run(fmt.Sprint("mode ", mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				a, b := running(t, s), running(t, s)
				require.NoError(t, a.EndSession(t.Context(), "sid-1"))
				time.Sleep(time.Second)
				s.mode.Store(mode)
				begin := time.Now()
				for time.Since(begin) < 29*time.Second {
					require.True(t, ended(t, b, "sid-1", "", "", begin))
					require.False(t, ended(t, b, "sid-2", "", "", begin))
					time.Sleep(time.Second)
				}
				time.Sleep(3 * time.Second) // beyond MaxStale
				_, err := b.Revoked(t.Context(), "sid-2", "", "", begin)
				require.Error(t, err, "fails closed")
				require.Error(t, b.Status().Err)

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.Error(t, a.EndSession(ctx, "sid-3"))
				s.mode.Store(good)
				time.Sleep(7 * time.Second)
				require.False(t, ended(t, b, "sid-2", "", "", begin))
				require.NoError(t, b.Status().Err)
				require.True(t, ended(t, a, "sid-3", "", "", begin), "ended here, whatever the store said")
				require.False(t, ended(t, b, "sid-3", "", "", begin))
				require.NoError(t, a.EndSession(t.Context(), "sid-3"), "and repeated")
				time.Sleep(time.Second)
				require.True(t, ended(t, b, "sid-3", "", "", begin))
			})
		})
	}
}

func TestReplyIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		s.mode.Store(lostReply)
		require.Error(t, a.EndSession(t.Context(), "sid-1"))
		require.Error(t, a.EndSession(t.Context(), "sid-1"))
		time.Sleep(time.Second)
		require.True(t, ended(t, b, "sid-1", "", "", time.Now()))
		require.Equal(t, 1, b.Status().Entries)
	})
}

// slow is a store that returns a portion at a time, each after a while.
type slow struct {
	log
	takes time.Duration
	fails atomic.Int64 // the portion that does, counted from 1
	asked atomic.Int64
	stuck bool
}

func (s *slow) Since(ctx context.Context, cursor string) ([]revoke.Entry, string, bool, error) {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, "", false, ctx.Err()
	}
	n := s.asked.Add(1)
	if s.stuck && n > 1 {
		return nil, cursor, true, nil
	}
	if n == s.fails.Load() {
		return nil, "", false, errDown
	}
	return s.log.Since(ctx, cursor)
}

// A million entries take longer than one reading may. Each portion has its own
// time, nothing is answered before the last, and a failure in between costs one
// portion.
func TestPortions(t *testing.T) {
	const n = 60_000                                      // in six portions
	lastReading := func() { time.Sleep(5 * time.Second) } // ends within the bubble
	entry := func(i int) revoke.Entry {
		return revoke.Entry{Scope: revoke.Session, Value: fmt.Sprint(i), Before: time.Now(), Until: time.Now().Add(time.Hour)}
	}
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		s := &slow{log: log{make: entry, n: n}, takes: 4 * time.Second}
		s.fails.Store(4)
		l := running(t, s)
		time.Sleep(15 * time.Second)
		_, err := l.Revoked(t.Context(), "1", "", "", time.Now())
		require.Error(t, err, "not before it knows all")
		require.Zero(t, l.Status().Synced)
		time.Sleep(time.Second + 2*time.Second)
		require.ErrorIs(t, l.Status().Err, errDown)
		require.Equal(t, n/2, l.Status().Entries, "what was read counts")
		time.Sleep(10 * time.Second)
		require.Equal(t, n, l.Status().Entries)
		require.EqualValues(t, 7, s.asked.Load(), "nothing was read twice")
		begin := l.Status().Synced
		require.WithinDuration(t, time.Now(), begin, 6*time.Second, "as old as the last portion")
		require.True(t, ended(t, l, fmt.Sprint(n-1), "", "", begin))
		require.False(t, ended(t, l, fmt.Sprint(n), "", "", begin))
	})
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		s := &slow{log: log{make: entry, n: n}, takes: 4 * time.Second}
		l := newList(t, s) // that nobody runs
		for range 4 {      // one waits for no longer than one reading may take
			begin := time.Now()
			_, err := l.Revoked(t.Context(), "1", "", "", begin)
			require.Error(t, err)
			require.Equal(t, 5*time.Second, time.Since(begin))
		}
		require.True(t, ended(t, l, "1", "", "", time.Now()))
	})
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		l := running(t, &slow{log: log{make: entry, n: n}, takes: time.Second, stuck: true})
		time.Sleep(10 * time.Second)
		require.ErrorContains(t, l.Status().Err, "the same portion")
	})
}

// A leaked key makes new tokens: it is remembered for longer than a session lasts.
func TestKeysAreRememberedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := running(t, new(revoke.MemStore), func(c *revoke.Config) { c.SyncEvery, c.MaxStale = time.Minute, time.Hour })
		require.NoError(t, l.EndKey(t.Context(), "kid-1"))
		require.NoError(t, l.EndSession(t.Context(), "sid-1"))
		time.Sleep(30 * 24 * time.Hour)
		require.True(t, ended(t, l, "", "", "kid-1", time.Now()))
		require.False(t, ended(t, l, "sid-1", "", "", time.Now()))
		time.Sleep(2 * time.Hour)
		require.False(t, ended(t, l, "", "", "kid-1", time.Now()))
	})
}

// A list that nobody runs reads its store by itself.
func TestWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := newList(t, s), newList(t, s)
		require.False(t, ended(t, b, "sid-1", "", "", time.Now()), "the first answer waits for the store")
		require.NoError(t, a.EndSession(t.Context(), "sid-1"))
		time.Sleep(31 * time.Second)
		require.True(t, ended(t, b, "sid-1", "", "", time.Now()), "and so does one after MaxStale")

		s.mode.Store(down)
		c := newList(t, s)
		_, err := c.Revoked(t.Context(), "sid-1", "", "", time.Now())
		require.ErrorIs(t, err, errDown)
	})
}

// An entry that a later version wrote must not be passed over.
func TestUnknownScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		l := running(t, s)
		require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: "planet", Until: time.Now().Add(time.Hour)}))
		time.Sleep(35 * time.Second)
		_, err := l.Revoked(t.Context(), "sid-1", "", "", time.Now())
		require.Error(t, err)
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
			require.NoError(t, lists[i%8].EndSession(t.Context(), sid))
			begin := time.Now()
			for _, l := range lists {
				for !ended(t, l, sid, "", "", begin) {
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
	for field, cfg := range map[string]revoke.Config{
		"Store":      {},
		"MaxSession": {Store: new(revoke.MemStore), MaxSession: -1},
		"SyncEvery":  {Store: new(revoke.MemStore), SyncEvery: -1},
		"MaxStale":   {Store: new(revoke.MemStore), SyncEvery: time.Minute},
	} {
		_, err := revoke.NewList(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
	var none *revoke.MemStore
	_, err := revoke.NewList(revoke.Config{Store: none})
	require.ErrorContains(t, err, "Config.Store")
}

// waiting is a store that tells of news at once, until it breaks.
type waiting struct {
	faulty
	news chan struct{}
}

func (w *waiting) Append(ctx context.Context, e revoke.Entry) error {
	err := w.faulty.Append(ctx, e)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return err
}

func (w *waiting) Wait(ctx context.Context, _ string) error {
	if err := w.fault(ctx); err != nil {
		return err
	}
	select {
	case <-w.news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A store that can wait makes a list know at once; one whose waiting breaks, or
// says nothing, is read every SyncEvery all the same, and no more often.
func TestWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiting{news: make(chan struct{}, 1)}
		a, b := newList(t, w), running(t, w)
		require.NoError(t, a.EndSession(t.Context(), "sid-1"))
		time.Sleep(2 * time.Millisecond)
		require.True(t, ended(t, b, "sid-1", "", "", time.Now()), "at once")

		require.NoError(t, w.MemStore.Append(t.Context(), revoke.Entry{Scope: revoke.Session, Value: "sid-2", Until: time.Now().Add(time.Hour)}))
		time.Sleep(time.Second)
		require.True(t, ended(t, b, "sid-2", "", "", time.Now()), "without a hint")

		w.mode.Store(down)
		time.Sleep(10 * time.Second)
		require.Error(t, b.Status().Err)
		w.mode.Store(good)
		time.Sleep(time.Second)
		require.NoError(t, b.Status().Err)
	})
}

func TestStaleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		healthy, most := newList(t, s).Staleness()
		require.Equal(t, 6*time.Second, healthy)
		require.Equal(t, 30*time.Second, most)
		open := running(t, s, func(c *revoke.Config) { c.InsecureAnswerWhenStale = true })
		require.NoError(t, open.EndSession(t.Context(), "sid-1"))
		s.mode.Store(down)
		time.Sleep(time.Hour)
		require.True(t, ended(t, open, "sid-1", "", "", time.Now()))
		require.False(t, ended(t, open, "sid-2", "", "", time.Now()), "as it was told")
		never := newList(t, s, func(c *revoke.Config) { c.InsecureAnswerWhenStale = true })
		_, err := never.Revoked(t.Context(), "sid-2", "", "", time.Now())
		require.ErrorIs(t, err, errDown)
	})
}

func TestTimesAreHeldToWhatCanBeSaid(t *testing.T) {
	s := new(revoke.MemStore)
	require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: revoke.Subject, Value: "ada", Before: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}))
	require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: revoke.Subject, Value: "bob", Until: time.Now().Add(time.Hour)}))
	l := newList(t, s)
	require.True(t, ended(t, l, "", "ada", "", time.Now()))
	require.False(t, ended(t, l, "", "bob", "", time.Now()))
}

// TestMillion: a million ended sessions stay within 128 MiB, and asking about
// one allocates nothing.
func TestMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("a million entries")
	}
	const million = 1_000_000
	id := func(i int) string { return fmt.Sprintf("sid-%018d", i) } // as long as a real one
	s := &log{make: func(i int) revoke.Entry {
		return revoke.Entry{Scope: revoke.Session, Value: id(i), Before: time.Now(), Until: time.Now().Add(time.Hour)}
	}, n: million}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l := newList(t, s)
	now := time.Now()
	for l.Status().Synced.IsZero() { // on a busy machine that may take longer than one call waits
		_, _ = l.Revoked(t.Context(), id(77), "ada", "kid", now)
		require.Less(t, time.Since(now), time.Minute)
	}
	require.True(t, ended(t, l, id(77), "ada", "kid", now))
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := (after.HeapAlloc - before.HeapAlloc) >> 20
	t.Logf("%d entries in %d MiB", l.Status().Entries, used)
	require.Equal(t, million, l.Status().Entries)
	require.Less(t, used, uint64(128))
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = l.Revoked(t.Context(), "sid-1", "ada", "kid", now) }))
	require.True(t, ended(t, l, id(million-1), "ada", "kid", now))
	require.False(t, ended(t, l, id(million), "ada", "kid", now))
}

// log is a store that makes its entries up, in portions.
type log struct {
	revoke.MemStore
	make func(int) revoke.Entry
	n    int
}

func (l *log) Since(_ context.Context, cursor string) ([]revoke.Entry, string, bool, error) {
	from, _ := strconv.Atoi(cursor)
	to := min(l.n, from+10_000)
	var out []revoke.Entry
	for i := from; i < to; i++ {
		out = append(out, l.make(i))
	}
	return out, strconv.Itoa(to), to < l.n, nil
}

func benchmarked(b *testing.B, n int) *revoke.List {
	s := &log{make: func(i int) revoke.Entry {
		return revoke.Entry{Scope: revoke.Session, Value: fmt.Sprintf("sid-%018d", i), Before: time.Now(), Until: time.Now().Add(time.Hour)}
	}, n: n}
	l, err := revoke.NewList(revoke.Config{Store: s, MaxStale: time.Hour, SyncEvery: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	for l.Status().Synced.IsZero() {
		_, _ = l.Revoked(b.Context(), "", "", "", time.Now())
	}
	return l
}

// BenchmarkRevoked is the question that each verification asks.
func BenchmarkRevoked(b *testing.B) {
	for _, n := range []int{0, 1_000_000} {
		b.Run(fmt.Sprint(n, " entries"), func(b *testing.B) {
			l := benchmarked(b, n)
			ids := make([]string, 1024)
			for i := range ids {
				ids[i] = fmt.Sprintf("sid-%018d", 5_000_000+i)
			}
			now, ctx := time.Now(), b.Context()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if yes, err := l.Revoked(ctx, ids[i%len(ids)], "user-42", "key-1", now); yes || err != nil {
					b.Fatal(yes, err)
				}
			}
		})
	}
}

// BenchmarkEnd adds one entry to a million.
func BenchmarkEnd(b *testing.B) {
	l := benchmarked(b, 1_000_000)
	ctx := b.Context()
	i := 0
	for b.Loop() {
		i++
		if err := l.EndSession(ctx, fmt.Sprint("new-", i)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := new(revoke.MemStore)
	l := newList(t, s, func(c *revoke.Config) { c.SyncEvery = time.Millisecond; c.MaxStale = time.Minute })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) })
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			for n := range 500 {
				sid := fmt.Sprint(i, "-", n)
				if yes, err := l.Revoked(ctx, sid, "ada", "kid", time.Now()); yes || err != nil {
					t.Error(yes, err)
				}
				if err := l.EndSession(ctx, sid); err != nil {
					t.Error(err)
				}
				if yes, err := l.Revoked(ctx, sid, "ada", "kid", time.Now()); !yes || err != nil {
					t.Error(yes, err)
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
