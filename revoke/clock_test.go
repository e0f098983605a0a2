package revoke_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// listAt returns a list on a machine whose clock is ahead.
func listAt(t *testing.T, c *clock.Clock, ahead time.Duration, s revoke.Store, change ...func(*revoke.Config)) (l *revoke.List) {
	c.SetAhead(ahead)
	clock.As(c, func() { l = newList(t, s, change...) })
	return l
}

const day = 24 * time.Hour

// Whatever the clocks of two machines say, a mark reaches the sessions that
// had begun, and no others.
func TestClocksThatDiffer(t *testing.T) {
	seldom := func(c *revoke.Config) { c.SyncEvery, c.MaxStale = 5*time.Minute, 25*time.Minute }
	offsets := []time.Duration{-32 * day, -time.Minute, 0, 45 * time.Second, 23 * time.Hour, 32 * day}
	for _, ofA := range offsets {
		for _, ofB := range offsets {
			t.Run(fmt.Sprint(ofA, " and ", ofB), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := new(faulty)
					a, b := listAt(t, new(clock.Clock), ofA, s, seldom), listAt(t, new(clock.Clock), ofB, s, seldom)
					run(t, a)
					run(t, b)
					old := begin(t, b, "ada")
					require.WithinDuration(t, time.Now(), old, time.Second, "the store's time")
					time.Sleep(40 * time.Second)
					require.NoError(t, a.RevokeSubject(t.Context(), "ada"))
					fresh := begin(t, b, "ada")
					require.NoError(t, b.RevokeSession(t.Context(), "sid-1"))
					for _, l := range []*revoke.List{a, b} {
						begin(t, l, "x") // reads
						require.True(t, revoked(t, l, "sid", "ada", "", old))
						require.False(t, revoked(t, l, "sid", "ada", "", fresh))
						require.True(t, revoked(t, l, "sid-1", "ada", "", fresh))
						now, err := l.Now(t.Context())
						require.NoError(t, err)
						require.WithinDuration(t, time.Now(), now, time.Second)
					}
					require.InDelta(t, ofA.Seconds(), a.Metrics()["revocation_clock_offset_seconds"], 1)
					time.Sleep(23 * time.Hour) // what was revoked holds as long as on every other machine
					for _, l := range []*revoke.List{a, b} {
						require.True(t, revoked(t, l, "sid", "ada", "", old))
						require.True(t, revoked(t, l, "sid-1", "ada", "", fresh))
					}
				})
			})
		}
	}
}

// A wall clock that jumps under a running list moves nothing.
func TestWallClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		c := new(clock.Clock)
		l := listAt(t, c, 0, s)
		run(t, l)
		require.NoError(t, l.RevokeSession(t.Context(), "sid-1"))
		for _, ahead := range []time.Duration{time.Hour, -time.Hour, 32 * day, -32 * day, 10 * time.Minute, 0} {
			before, err := l.Now(t.Context())
			require.NoError(t, err)
			c.SetAhead(ahead)
			after, err := l.Now(t.Context())
			require.NoError(t, err)
			require.Equal(t, before, after)
			begun := begin(t, l, "ada")
			require.WithinDuration(t, time.Now(), begun, time.Millisecond)
			require.True(t, revoked(t, l, "sid-1", "x", "", begun))
			require.False(t, revoked(t, l, "sid-2", "ada", "", begun))
			require.NoError(t, l.RevokeSubject(t.Context(), "ada"))
			require.True(t, revoked(t, l, "sid-2", "ada", "", begun))
			require.False(t, revoked(t, l, "sid-2", "ada", "", begin(t, l, "ada")))
			time.Sleep(10 * time.Second)
			now, err := l.Now(t.Context())
			require.NoError(t, err)
			require.WithinDuration(t, time.Now(), now, time.Second)
		}
		require.Equal(t, 2, l.Status().Entries)
	})
}

// A machine whose clock disagrees says so.
func TestClockThatDisagreesIsLoud(t *testing.T) {
	for _, row := range []struct {
		name  string
		ahead time.Duration
		lines int
	}{{"right", 0, 0}, {"a little ahead", 59 * time.Second, 0}, {"10 min ahead", 10 * time.Minute, 2}, {"10 min behind", -10 * time.Minute, 2}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				l := listAt(t, new(clock.Clock), row.ahead, new(faulty), func(c *revoke.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				stop := run(t, l)
				time.Sleep(90 * time.Second)
				stop()
				require.Equal(t, row.lines, strings.Count(log.String(), "reason=clock_disagrees"), log.String())
				require.Equal(t, row.ahead.Seconds(), l.Metrics()["revocation_clock_offset_seconds"])
				require.Equal(t, row.lines > 0, l.Metrics()["revocation_clock_warnings_total"] > 0)
			})
		})
	}
}

// Entries are forgotten by the store's time, never by the machine's.
func TestMachineAheadForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seldom := func(c *revoke.Config) { c.SyncEvery, c.MaxStale = time.Minute, 5*time.Minute }
		s := new(faulty)
		a := running(t, s, seldom)
		require.NoError(t, a.RevokeSession(t.Context(), "sid"))
		for _, ahead := range []time.Duration{32 * day, -32 * day} {
			l := listAt(t, new(clock.Clock), ahead, s, seldom)
			run(t, l)
			require.True(t, revoked(t, l, "sid", "", "", time.Now()))
			require.NoError(t, l.RevokeSession(t.Context(), fmt.Sprint("by ", ahead)))
		}
		time.Sleep(23 * time.Hour)
		for _, ahead := range []time.Duration{32 * day, -32 * day} {
			require.True(t, revoked(t, a, fmt.Sprint("by ", ahead), "", "", time.Now()), "its sign-outs hold")
		}
	})
}

// apart is a store whose calls take a while, each way.
type apart struct {
	revoke.MemStore
	mu    sync.Mutex
	r     *rand.Rand
	most  time.Duration
	loses float64 // how many answers to writes are lost
}

var errLost = errors.New("the answer is lost")

func (s *apart) wait(ctx context.Context) error {
	s.mu.Lock()
	d := time.Duration(s.r.Int64N(int64(s.most)))
	s.mu.Unlock()
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *apart) Append(ctx context.Context, entries ...revoke.Entry) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	if err := s.MemStore.Append(ctx, entries...); err != nil {
		return err
	}
	s.mu.Lock()
	lost := s.r.Float64() < s.loses
	s.mu.Unlock()
	if err := s.wait(ctx); err != nil {
		return err
	}
	if lost {
		return errLost
	}
	return nil
}

func (s *apart) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if err := s.wait(ctx); err != nil {
		return revoke.Page{}, err
	}
	p, err := s.MemStore.Since(ctx, cursor)
	if err == nil {
		err = s.wait(ctx)
	}
	return p, err
}

// S10: "change the password, stay signed in here" over two replicas. A mark at
// one, and a sign-in at the other 0 to 5 ms after its answer, over and over: no
// session is born revoked, and no older one survives. Answers are lost, and the
// call repeated.
func TestMarkThenBegin(t *testing.T) {
	turns := 500
	if isLong() {
		turns = 2500
	}
	for _, row := range []struct {
		name  string
		most  time.Duration
		loses float64
	}{{"near", 2 * time.Millisecond, 0}, {"far", 100 * time.Millisecond, 0}, {"answers are lost", 20 * time.Millisecond, 0.3}, {"very far", 400 * time.Millisecond, 0.1}} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(lastReading)
				r := rand.New(rand.NewPCG(7, uint64(row.most)))
				s := &apart{r: rand.New(rand.NewPCG(1, 2)), most: row.most, loses: row.loses}
				var lists []*revoke.List
				for _, ahead := range []time.Duration{-time.Minute, 0, time.Minute} {
					l := listAt(t, new(clock.Clock), ahead, s)
					run(t, l)
					lists = append(lists, l)
				}
				time.Sleep(5 * time.Second)
				var old []time.Time
				var sids []string
				spared := 0
				for n := range turns {
					a, b := lists[r.IntN(3)], lists[r.IntN(3)]
					// Others of the subject begin while the mark is under way, and may
					// be before or after it.
					revoke := func() error { return a.RevokeSubject(t.Context(), "ada") }
					if spared = -1; n%3 == 1 && len(sids) > 0 {
						spared = len(sids) - 1
						revoke = func() error { return a.RevokeOthers(t.Context(), "ada", sids[spared]) }
					}
					for revoke() != nil {
						time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
					}
					time.Sleep(time.Duration(r.IntN(6)) * time.Millisecond)
					begun := begin(t, b, "ada")
					sid := fmt.Sprint("sid ", n)
					if r.IntN(2) == 0 { // time for all to read it, but no more
						time.Sleep(1100*time.Millisecond + 2*row.most)
					} else {
						for _, l := range lists {
							begin(t, l, "x") // has each read it
						}
					}
					for i, l := range lists {
						require.False(t, revoked(t, l, sid, "ada", "", begun), "turn %d: born revoked at list %d", n, i)
						for k := range old {
							if k != spared {
								require.True(t, revoked(t, l, sids[k], "ada", "", old[k]), "turn %d: session %d survives at list %d", n, k, i)
							}
						}
					}
					if spared >= 0 {
						require.False(t, revoked(t, a, sids[spared], "ada", "", old[spared]), "the spared one lives")
					}
					old, sids = append(old, begun), append(sids, sid)
					if len(old) > 5 {
						old, sids = old[len(old)-5:], sids[len(sids)-5:]
					}
				}
			})
		})
	}
}

// A login that takes a while has begun when it started: a mark in between ends it.
func TestEarliest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		time.Sleep(time.Hour)
		start, err := a.Now(t.Context())
		require.NoError(t, err)
		start = start.Add(time.Microsecond)
		time.Sleep(time.Minute)
		require.NoError(t, b.RevokeKey(t.Context(), "kid", time.Time{}))
		begun, err := b.Begin(t.Context(), revoke.Question{Subject: "ada", KeyID: "kid", Began: start})
		require.NoError(t, err)
		require.Equal(t, start.Truncate(time.Millisecond), begun)
		require.NoError(t, a.RevokeSubject(t.Context(), "ada"))
		_, err = b.Begin(t.Context(), revoke.Question{Subject: "ada", Began: start})
		require.ErrorIs(t, err, revoke.ErrRevoked)
		_, err = b.Begin(t.Context(), revoke.Question{Subject: "bob", Began: start})
		require.NoError(t, err)
		begun, err = b.Begin(t.Context(), revoke.Question{Subject: "bob", Began: time.Now().Add(time.Hour)})
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), begun, time.Millisecond, "the future counts as now")
		require.NoError(t, a.RevokeAll(t.Context(), time.Now()))
		_, err = b.Begin(t.Context(), revoke.Question{Subject: "bob", Began: start})
		require.ErrorIs(t, err, revoke.ErrRevoked)
	})
}

// A sign-in waits at most 1 s for its reading, shares it with all others of the
// moment, and goes on without it while the list is fresh.
func TestBeginWaitsForAReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		s := &apart{r: rand.New(rand.NewPCG(1, 2)), most: 100 * time.Millisecond}
		counting := &counted{Store: s}
		l := running(t, counting)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		before := counting.reads()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() { begin(t, l, "ada") })
		}
		wg.Wait()
		require.LessOrEqual(t, counting.reads()-before, 2)

		counting.hang(true)
		began := time.Now()
		begun := begin(t, l, "ada")
		require.LessOrEqual(t, time.Since(began), time.Second)
		require.WithinDuration(t, time.Now(), begun, 2*time.Second)
		require.False(t, begun.After(time.Now()), "a lower bound")
		time.Sleep(35 * time.Second)
		began = time.Now()
		_, err := l.Begin(t.Context(), revoke.Question{Subject: "ada"})
		require.Error(t, err)
		require.LessOrEqual(t, time.Since(began), time.Second)
		counting.hang(false)
		time.Sleep(10 * time.Second)
		begin(t, l, "ada")
	})
}

// counted counts the readings of a store, and can make them hang.
type counted struct {
	revoke.Store
	mu    sync.Mutex
	n     int
	hangs bool
}

func (c *counted) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	c.mu.Lock()
	c.n++
	hangs := c.hangs
	c.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return revoke.Page{}, ctx.Err()
	}
	return c.Store.Since(ctx, cursor)
}

func (c *counted) reads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *counted) hang(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hangs = yes
}

// A store whose clock was set back at a fail-over: running lists do not go back,
// and a mark still reaches what had begun.
func TestStoreClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		a, b := running(t, s), running(t, s)
		time.Sleep(time.Hour)
		require.NoError(t, a.RevokeSubject(t.Context(), "ada"))
		old := begin(t, b, "ada")
		before, err := b.Now(t.Context())
		require.NoError(t, err)
		s.mu.Lock()
		s.before = 10 * time.Minute
		s.mu.Unlock()
		time.Sleep(time.Minute)
		now, err := b.Now(t.Context())
		require.NoError(t, err)
		require.False(t, now.Before(before.Add(59*time.Second)))
		require.False(t, revoked(t, b, "sid", "ada", "", begin(t, b, "ada")))
		require.NoError(t, a.RevokeSubject(t.Context(), "ada"))
		fresh := begin(t, b, "ada")
		c := running(t, s) // whose time is the store's, 10 min behind
		late := begin(t, c, "ada")
		for _, l := range []*revoke.List{a, b, c} {
			require.True(t, revoked(t, l, "sid", "ada", "", old))
			require.False(t, revoked(t, l, "sid", "ada", "", fresh))
			require.False(t, revoked(t, l, "sid", "ada", "", late))
		}
		require.NoError(t, c.RevokeSubject(t.Context(), "ada"))
		time.Sleep(time.Second)
		for _, l := range []*revoke.List{a, b, c} {
			require.True(t, revoked(t, l, "sid", "ada", "", fresh))
			require.True(t, revoked(t, l, "sid", "ada", "", late))
		}
	})
}

// The newest entry, less the longest reading, is a lower bound on the store's
// time, unless it is further ahead of the store's clock than MaxSkew.
func TestNewestEntryIsAFloor(t *testing.T) {
	for _, row := range []struct {
		name         string
		ahead, moves time.Duration
	}{
		{"behind", -time.Hour, 0}, {"5 s ahead", 5 * time.Second, 0}, {"30 s ahead", 30 * time.Second, 25 * time.Second}, {"2 min ahead", 2 * time.Minute, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l := running(t, s)
				require.NoError(t, s.Append(t.Context(), subjectEntry("ada", time.Now().Add(row.ahead), time.Now().Add(time.Hour))))
				begin(t, l, "bob")
				now, err := l.Now(t.Context())
				require.NoError(t, err)
				require.Equal(t, time.Now().Add(row.moves).UTC(), now)
			})
		})
	}
}

// faraway is a store that questions take a while to reach.
type faraway struct {
	revoke.Store
	way time.Duration
}

func (f faraway) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	time.Sleep(f.way)
	return f.Store.Since(ctx, cursor)
}

// No list has a time that the store's clock has not reached: iat never lies in
// the future, also when another replica, for which readings take long, revokes
// or marks.
func TestTimeIsNeverAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(lastReading)
		s := new(faulty)
		a, b := running(t, faraway{s, 450 * time.Millisecond}), running(t, s)
		time.Sleep(10 * time.Second)
		for i := range 20 {
			time.Sleep(170 * time.Millisecond)
			sid := strconv.Itoa(i)
			for _, revokes := range []func() error{
				func() error { return a.RevokeSession(t.Context(), sid) },
				func() error { return a.RevokeSubject(t.Context(), "bob") },
				func() error { return a.Changed(t.Context(), "ada") },
			} {
				require.NoError(t, revokes())
				read(t, b)
				for _, l := range []*revoke.List{a, b} {
					now, err := l.Now(t.Context())
					require.NoError(t, err)
					require.False(t, now.After(time.Now()))
				}
			}
		}
	})
}
