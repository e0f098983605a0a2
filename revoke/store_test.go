package revoke_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

func TestStoreFails(t *testing.T) {
	for _, mode := range []int32{down, hung} {
		t.Run(fmt.Sprint("mode ", mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				a, b := running(t, s), running(t, s)
				require.NoError(t, a.RevokeSession(t.Context(), "sid-1"))
				time.Sleep(time.Second)
				s.mode.Store(mode)
				begin := time.Now()
				for time.Since(begin) < 29*time.Second {
					require.True(t, revoked(t, b, "sid-1", "", "", begin))
					require.False(t, revoked(t, b, "sid-2", "", "", begin))
					time.Sleep(time.Second)
				}
				time.Sleep(3 * time.Second) // beyond MaxStale
				asked := time.Now()
				err := ask(t, b, "sid-2", "", "", begin)
				require.Error(t, err, "fails closed")
				require.Zero(t, time.Since(asked), "at once")
				_, err = b.Now(t.Context())
				require.Error(t, err)
				_, err = b.Begin(t.Context(), revoke.Question{Subject: "ada"})
				require.Error(t, err)
				require.Error(t, b.Status().Err)

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				require.Error(t, a.RevokeSession(ctx, "sid-3"))
				s.mode.Store(good)
				time.Sleep(7 * time.Second)
				require.False(t, revoked(t, b, "sid-2", "", "", begin))
				require.NoError(t, b.Status().Err)
				require.True(t, revoked(t, a, "sid-3", "", "", begin), "whatever the store said")
				require.True(t, revoked(t, b, "sid-3", "", "", begin), "it was owed, and written again")
				require.NoError(t, a.RevokeSession(t.Context(), "sid-3"), "and can be repeated")
			})
		})
	}
}

// A store that swallows everything, past MaxStale: at most one question waits,
// all others are answered at once.
func TestSwallowedIsAnsweredAtOnce(t *testing.T) {
	for _, run := range []bool{true, false} {
		t.Run(fmt.Sprint("run ", run), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l := newList(t, s)
				if run {
					l = running(t, s)
				}
				require.False(t, revoked(t, l, "sid", "", "", time.Now()))
				time.Sleep(time.Second)
				s.mode.Store(swallowed)
				time.Sleep(time.Minute)
				begin := time.Now()
				err := ask(t, l, "sid", "", "", begin)
				require.Error(t, err)
				require.LessOrEqual(t, time.Since(begin), 2*time.Second)
				for range 100 {
					asked := time.Now()
					err := ask(t, l, "sid", "", "", begin)
					require.Error(t, err)
					require.Zero(t, time.Since(asked))
					time.Sleep(time.Second)
				}
				require.LessOrEqual(t, s.reads.Load(), int64(10), "three hang, and no more")
				s.mode.Store(good)
				time.Sleep(7 * time.Hour) // they return
				_ = ask(t, l, "sid", "", "", begin)
				time.Sleep(time.Second)
				require.False(t, revoked(t, l, "sid", "", "", time.Now()))
			})
		})
	}
}

func TestReplyIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		s.writes.Store(lostReply)
		require.Error(t, a.RevokeSession(t.Context(), "sid-1"))
		require.Error(t, a.RevokeSession(t.Context(), "sid-1"))
		time.Sleep(time.Second)
		require.True(t, revoked(t, b, "sid-1", "", "", time.Now()))
		require.Equal(t, 1, b.Status().Entries)
		s.writes.Store(good)
	})
}

// slow is a store that returns a page at a time, each after a while.
type slow struct {
	made
	takes time.Duration
	fails atomic.Int64 // the page that does, counted from 1
	asked atomic.Int64
	stuck bool
}

func (s *slow) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return revoke.Page{}, ctx.Err()
	}
	n := s.asked.Add(1)
	if s.stuck && n > 1 {
		return revoke.Page{Next: cursor, More: true, Time: time.Now()}, nil
	}
	if n == s.fails.Load() {
		return revoke.Page{}, errDown
	}
	return s.made.Since(ctx, cursor)
}

// A million entries take longer than one reading may. Each page has its own time,
// nothing is answered before the last, and a failure in between costs one page.
func TestPages(t *testing.T) {
	const n = 60_000 // in six pages
	entry := func(i int) revoke.Entry { return sessionEntry(fmt.Sprint(i)) }
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		s := &slow{made: made{make: entry, n: n}, takes: 4 * time.Second}
		s.fails.Store(4)
		l := running(t, s)
		time.Sleep(15 * time.Second)
		err := ask(t, l, "1", "", "", time.Now())
		require.Error(t, err, "not before it knows all")
		require.Zero(t, l.Status().Synced)
		time.Sleep(time.Second + 2*time.Second)
		require.ErrorIs(t, l.Status().Err, errDown)
		require.Equal(t, n/2, l.Status().Entries, "what was read counts")
		time.Sleep(10 * time.Second)
		require.Equal(t, n, l.Status().Entries)
		require.EqualValues(t, 7, s.asked.Load(), "nothing was read twice")
		begin := l.Status().Synced
		require.WithinDuration(t, time.Now(), begin, 6*time.Second, "as old as the last page")
		require.True(t, revoked(t, l, fmt.Sprint(n-1), "", "", time.Now()))
		require.False(t, revoked(t, l, fmt.Sprint(n), "", "", time.Now()))
	})
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		s := &slow{made: made{make: entry, n: n}, takes: 4 * time.Second}
		l := newList(t, s) // that nothing runs
		began := time.Now()
		for time.Since(began) < 24*time.Second { // one waits 2 s at most
			asked := time.Now()
			err := ask(t, l, "1", "", "", asked)
			require.LessOrEqual(t, time.Since(asked), 2*time.Second)
			if err == nil {
				break
			}
		}
		require.True(t, revoked(t, l, "1", "", "", time.Now()))
	})
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		l := running(t, &slow{made: made{make: entry, n: n}, takes: time.Second, stuck: true})
		time.Sleep(10 * time.Second)
		require.ErrorContains(t, l.Status().Err, "the same page")
	})
}

// An entry that a later version wrote must not be passed over, unless it says
// that it may be.
func TestUnknownScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		l := running(t, s)
		until := time.Now().Add(time.Hour)
		require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: "moon", Until: until, Skip: true}, revoke.Entry{Scope: "planet", Namespace: "other", Until: until}))
		time.Sleep(35 * time.Second)
		require.False(t, revoked(t, l, "sid-1", "", "", time.Now()))
		require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: "planet", Until: until}))
		time.Sleep(35 * time.Second)
		err := ask(t, l, "sid-1", "", "", time.Now())
		require.Error(t, err)
	})
}

// waiting is a store that tells of news at once, until it breaks.
type waiting struct {
	faulty
	news chan struct{}
}

func (w *waiting) Append(ctx context.Context, entries ...revoke.Entry) error {
	err := w.faulty.Append(ctx, entries...)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return err
}

func (w *waiting) Wait(ctx context.Context, _ string) error {
	if err := fault(ctx, w.mode.Load()); err != nil {
		return err
	}
	select {
	case <-w.news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A store that cannot wait is asked once, and read every SyncEvery.
func TestStoreThatCannotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(unable)
		a, b := newList(t, s), running(t, s)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, s.waits.Load())
		reads := s.reads.Load()
		require.NoError(t, a.RevokeSession(t.Context(), "sid-1"))
		time.Sleep(time.Second)
		require.True(t, revoked(t, b, "sid-1", "", "", time.Now()))
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, s.waits.Load())
		require.InDelta(t, 65, s.reads.Load()-reads, 10, "every SyncEvery")
	})
}

// A MemStore waits for the next entry, and for nothing else.
func TestMemStoreWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		require.NoError(t, s.Wait(t.Context(), "of another store"))
		page, err := s.Since(t.Context(), "")
		require.NoError(t, err)
		got := make(chan error, 3)
		for range 3 {
			go func() { got <- s.Wait(t.Context(), page.Next) }()
		}
		synctest.Wait()
		require.NoError(t, s.Append(t.Context()), "no entry")
		synctest.Wait()
		require.Empty(t, got)
		require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: revoke.Session}))
		for range 3 {
			require.NoError(t, <-got)
		}
		require.NoError(t, s.Wait(t.Context(), page.Next), "there is one already")
		ctx, cancel := context.WithCancel(t.Context())
		page, err = s.Since(t.Context(), page.Next)
		require.NoError(t, err)
		go func() { got <- s.Wait(ctx, page.Next) }()
		synctest.Wait()
		require.Empty(t, got)
		cancel()
		require.ErrorIs(t, <-got, context.Canceled)
	})
}

type unable struct {
	faulty
	waits atomic.Int64
}

func (u *unable) Wait(ctx context.Context, cursor string) error {
	u.waits.Add(1)
	return errors.ErrUnsupported
}

// What a store fails with says nothing of a session, whatever it is.
func TestErrorsOfTheStoreDecideNothing(t *testing.T) {
	for name, err := range map[string]error{"revoked": revoke.ErrRevoked, "owed": revoke.ErrOwed, "both": errors.Join(revoke.ErrOwed, revoke.ErrRevoked)} {
		synctest.Test(t, func(t *testing.T) {
			s := new(saying)
			read, never := newList(t, s), newList(t, s)
			began := begin(t, read, "ada")
			s.err = fmt.Errorf("upstream: %w", err)
			time.Sleep(time.Minute)
			for _, l := range []*revoke.List{read, never} {
				q := revoke.Question{SessionID: "sid", Subject: "ada", Began: began}
				_, nowErr := l.Now(t.Context())
				_, beginErr := l.Begin(t.Context(), q)
				for call, err := range map[string]error{"Check": l.Check(t.Context(), &q), "Now": nowErr, "Begin": beginErr} {
					require.Error(t, err, "%s: %s", name, call)
					require.NotErrorIs(t, err, revoke.ErrRevoked, "%s: %s", name, call)
					require.NotErrorIs(t, err, revoke.ErrOwed, "%s: %s", name, call)
				}
			}
		})
	}
}

// saying is a store whose Since fails with err, if it is set.
type saying struct {
	revoke.MemStore
	err error
}

func (s *saying) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if s.err != nil {
		return revoke.Page{}, s.err
	}
	return s.MemStore.Since(ctx, cursor)
}

// A store that can wait makes a list know at once; one whose waiting breaks, or
// says nothing, is read every SyncEvery all the same, and no more often.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiting{news: make(chan struct{}, 1)}
		a, b := newList(t, w), running(t, w)
		require.NoError(t, a.RevokeSession(t.Context(), "sid-1"))
		time.Sleep(2 * time.Millisecond)
		require.True(t, revoked(t, b, "sid-1", "", "", time.Now()), "at once")

		require.NoError(t, w.MemStore.Append(t.Context(), sessionEntry("sid-2")))
		time.Sleep(time.Second)
		require.True(t, revoked(t, b, "sid-2", "", "", time.Now()), "without a hint")

		w.mode.Store(down)
		time.Sleep(10 * time.Second)
		require.Error(t, b.Status().Err)
		w.mode.Store(good)
		time.Sleep(5 * time.Second)
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
		require.NoError(t, open.RevokeSession(t.Context(), "sid-1"))
		s.mode.Store(down)
		time.Sleep(time.Hour)
		require.True(t, revoked(t, open, "sid-1", "", "", time.Now()))
		require.False(t, revoked(t, open, "sid-2", "", "", time.Now()), "as it was told")
		require.Error(t, open.RevokeSubject(t.Context(), "ada"))
		err := ask(t, open, "sid-2", "ada", "", time.Now())
		require.ErrorIs(t, err, revoke.ErrOwed, "also while it does not know the time")
		never := newList(t, s, func(c *revoke.Config) { c.InsecureAnswerWhenStale = true })
		err = ask(t, never, "sid-2", "", "", time.Now())
		require.ErrorIs(t, err, errDown)
	})
}

// A Wait that ignores its context holds up nothing.
func TestWaitThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(deaf)
		a, b := newList(t, s), newList(t, s)
		stop := run(t, b)
		for i := range 10 {
			require.NoError(t, a.RevokeSession(t.Context(), fmt.Sprint(i)))
			time.Sleep(time.Second)
			require.True(t, revoked(t, b, fmt.Sprint(i), "", "", time.Now()))
		}
		began := time.Now()
		stop()
		require.Zero(t, time.Since(began))
		require.EqualValues(t, 1, s.waits.Load())
		time.Sleep(time.Hour)
	})
}

type deaf struct {
	revoke.MemStore
	waits atomic.Int64
}

func (d *deaf) Wait(context.Context, string) error {
	d.waits.Add(1)
	time.Sleep(time.Hour)
	panic("and then it breaks")
}
