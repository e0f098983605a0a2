package revoke_test

import (
	"fmt"
	"math/rand/v2"
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

// ear keeps what a watch was told, and when.
type ear struct {
	mu   sync.Mutex
	errs []error
	at   []time.Time
	stop func()
}

func (e *ear) tell(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.errs, e.at = append(e.errs, err), append(e.at, time.Now())
}

// told returns what the watch was told.
func (e *ear) told() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]error(nil), e.errs...)
}

// only requires that the watch was told one error.
func (e *ear) only(t *testing.T, want error) {
	t.Helper()
	told := e.told()
	require.Len(t, told, 1)
	require.ErrorIs(t, told[0], want)
}

func watch(l *revoke.List, q revoke.Question) *ear {
	e := new(ear)
	e.stop = l.Watch(&q, e.tell)
	return e
}

// TestWatch: a watch is told what concerns its session, whether it was revoked
// here or at another replica, and nothing else.
func TestWatch(t *testing.T) {
	sid, other := inGroups(groupA, groupB), inGroups(groupC)
	for _, test := range []struct {
		name   string
		act    func(l *revoke.List) error
		want   error // nil: nothing is told
		stated bool  // the question has an IssuedAt
	}{
		{"its session", func(l *revoke.List) error { return l.RevokeSession(t.Context(), sid) }, revoke.ErrRevoked, false},
		{"another session of its subject", func(l *revoke.List) error { return l.RevokeSession(t.Context(), other) }, nil, false},
		{"its subject", func(l *revoke.List) error { return l.RevokeSubject(t.Context(), "ada") }, revoke.ErrRevoked, false},
		{"another subject", func(l *revoke.List) error { return l.RevokeSubject(t.Context(), "bob") }, nil, true},
		{"the others but this one", func(l *revoke.List) error { return l.RevokeOthers(t.Context(), "ada", sid) }, nil, false},
		{"the others of its subject", func(l *revoke.List) error { return l.RevokeOthers(t.Context(), "ada", other) }, revoke.ErrRevoked, false},
		{"its first group", func(l *revoke.List) error { return l.RevokeGroup(t.Context(), groupA) }, revoke.ErrRevoked, true},
		{"its second group", func(l *revoke.List) error { return l.RevokeGroup(t.Context(), groupB) }, revoke.ErrRevoked, false},
		{"another group", func(l *revoke.List) error { return l.RevokeGroup(t.Context(), groupC) }, nil, false},
		{"its key", func(l *revoke.List) error { return l.RevokeKey(t.Context(), "kid", time.Time{}) }, revoke.ErrRevoked, false},
		{"another key", func(l *revoke.List) error { return l.RevokeKey(t.Context(), "kid-2", time.Time{}) }, nil, false},
		{"everything", func(l *revoke.List) error { return l.RevokeAll(t.Context(), time.Now()) }, revoke.ErrRevoked, false},
		{"everything before it began", func(l *revoke.List) error { return l.RevokeAll(t.Context(), time.Now().Add(-30*time.Minute)) }, nil, false},
		{"its state", func(l *revoke.List) error { return l.Changed(t.Context(), "ada") }, revoke.ErrChanged, true},
		{"its state, which it does not ask about", func(l *revoke.List) error { return l.Changed(t.Context(), "ada") }, nil, false},
		{"the state of another subject", func(l *revoke.List) error { return l.Changed(t.Context(), "bob") }, nil, true},
	} {
		for _, where := range []string{"here", "elsewhere"} {
			t.Run(test.name+", "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := new(faulty)
					here, elsewhere := running(t, s), running(t, s)
					time.Sleep(time.Hour)
					q := revoke.Question{SessionID: sid, Subject: "ada", KeyID: "kid", Began: time.Now().Add(-time.Minute)}
					if test.stated {
						q.IssuedAt = q.Began
					}
					e, stopped := watch(here, q), watch(here, q)
					stopped.stop()
					time.Sleep(time.Minute)
					require.Empty(t, e.told())
					if where == "here" {
						require.NoError(t, test.act(here))
					} else {
						require.NoError(t, test.act(elsewhere))
						time.Sleep(2 * time.Second)
					}
					if test.want == nil {
						time.Sleep(time.Minute)
						require.Empty(t, e.told())
					} else {
						e.only(t, test.want)
					}
					q = q.Prepared()
					require.Equal(t, test.want, here.Check(t.Context(), &q))
					before := len(e.told())
					time.Sleep(time.Minute)
					require.Len(t, e.told(), before, "told again")
					require.Empty(t, stopped.told())
					e.stop()
				})
			})
		}
	}
}

// TestWatchChanged: each mark is told once, and a mark that the token knows is not.
func TestWatchChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		here, elsewhere := running(t, s), running(t, s)
		time.Sleep(time.Hour)
		e := watch(here, *tokenOf("ada", 0))
		for n := 1; n <= 3; n++ {
			by := []*revoke.List{here, elsewhere}[n%2]
			require.NoError(t, by.Changed(t.Context(), "ada"))
			time.Sleep(5 * time.Second)
			require.Len(t, e.told(), n)
			require.Equal(t, revoke.ErrChanged, e.told()[n-1])
		}
		fresh := watch(here, *tokenOf("ada", markOf(t, here, "ada")))
		require.Empty(t, fresh.told())
		stale := watch(here, *tokenOf("ada", markOf(t, here, "ada")-1))
		stale.only(t, revoke.ErrChanged)
		require.NoError(t, here.RevokeSession(t.Context(), "sid"))
		require.Equal(t, revoke.ErrRevoked, e.told()[3])
		fresh.only(t, revoke.ErrRevoked)
	})
}

// TestWatchAtTheCall: what is so already is told before Watch returns.
func TestWatchAtTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		unread := newList(t, s)
		watch(unread, revoke.Question{SessionID: "sid"}).only(t, revoke.ErrNotRead)
		l := running(t, s)
		require.NoError(t, l.RevokeSession(t.Context(), "sid"))
		watch(l, revoke.Question{SessionID: "sid", Began: time.Now()}).only(t, revoke.ErrRevoked)
		require.Len(t, watchNothing(l), 1)
		require.Len(t, watchNothing(new(revoke.List)), 1)
	})
}

func watchNothing(l *revoke.List) []error {
	e := new(ear)
	l.Watch(nil, e.tell)()
	return e.told()
}

// TestWatchOwed: a revocation that the store does not acknowledge is told as
// owed, within 200 ms, and the watch has ended.
func TestWatchOwed(t *testing.T) {
	for _, test := range []struct {
		name   string
		fault  int32
		within time.Duration
	}{
		{"the store fails", down, 0},
		{"the store hangs", hung, 200 * time.Millisecond},
		{"the store swallows the write", swallowed, 200 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(lastReading)
				if test.fault == swallowed {
					t.Cleanup(func() { time.Sleep(7 * time.Hour) })
				}
				s := new(faulty)
				l := running(t, s)
				time.Sleep(time.Minute)
				q := revoke.Question{SessionID: "sid", Subject: "ada", Began: time.Now()}
				e, other := watch(l, q), watch(l, revoke.Question{SessionID: "other", Subject: "bob", Began: time.Now()})
				time.Sleep(time.Minute)
				s.writes.Store(test.fault)
				called := time.Now()
				require.Error(t, l.RevokeSession(t.Context(), "sid"))
				e.only(t, revoke.ErrOwed)
				require.LessOrEqual(t, e.at[0].Sub(called), test.within)
				s.writes.Store(good)
				time.Sleep(time.Minute)
				require.Len(t, e.told(), 1)
				require.Empty(t, other.told())
				other.stop()
			})
		})
	}
}

// TestWatchStale: past MaxStale all watches are told within a second, not at one
// moment, and none before. If the store is read in the meantime, the rest are not
// told.
func TestWatchStale(t *testing.T) {
	const n = 2000
	for _, test := range []struct {
		name     string
		heals    time.Duration // after MaxStale; 0: never
		insecure bool
		all      bool
	}{
		{name: "all", all: true},
		{name: "the store heals half way", heals: 400 * time.Millisecond},
		{name: "the list answers all the same", insecure: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l := running(t, s, func(c *revoke.Config) { c.InsecureAnswerWhenStale = test.insecure })
				time.Sleep(10 * time.Second)
				ears := make([]*ear, n)
				for i := range ears {
					ears[i] = watch(l, revoke.Question{SessionID: strconv.Itoa(i), Subject: "ada", Began: time.Now()})
				}
				s.mode.Store(down)
				stale := l.Status().Synced.Add(30 * time.Second)
				time.Sleep(time.Until(stale))
				for _, e := range ears {
					require.Empty(t, e.told(), "told before MaxStale")
				}
				if test.heals > 0 {
					time.Sleep(test.heals)
					s.mode.Store(good)
					require.NoError(t, l.Sync(t.Context()))
				}
				time.Sleep(time.Second + 100*time.Millisecond)
				told, moments := 0, map[time.Time]int{}
				for _, e := range ears {
					if len(e.told()) == 0 {
						continue
					}
					told++
					require.Len(t, e.told(), 1)
					require.ErrorIs(t, e.told()[0], errDown)
					require.True(t, e.at[0].After(stale))
					require.False(t, e.at[0].After(stale.Add(time.Second)))
					moments[e.at[0]]++
				}
				switch {
				case test.insecure:
					require.Zero(t, told)
				case test.all:
					require.Equal(t, n, told)
					for _, k := range moments {
						require.Less(t, k, n/5, "told at one moment")
					}
					// New ones are told at once, and none after the store has healed.
					require.Len(t, watch(l, revoke.Question{SessionID: "new", Began: time.Now()}).told(), 1)
					s.mode.Store(good)
					require.NoError(t, l.Sync(t.Context()))
					e := watch(l, revoke.Question{SessionID: "new", Began: time.Now()})
					time.Sleep(time.Hour)
					require.Empty(t, e.told())
					e.stop()
				default:
					require.Greater(t, told, n/5)
					require.Less(t, told, n*4/5)
				}
				for _, e := range ears {
					e.stop()
				}
			})
		})
	}
}

// TestWatchForeign: when the store is another one than before, the watches are
// told within a second.
func TestWatchForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{id: 1}
		l := running(t, s)
		time.Sleep(time.Minute)
		var ears []*ear
		for i := range 100 {
			ears = append(ears, watch(l, revoke.Question{SessionID: strconv.Itoa(i), Began: time.Now()}))
		}
		other := &server{id: 2}
		running(t, other)
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.id, s.log = other.id, other.log
		s.log[0].Before = s.log[0].Before.Add(-time.Hour) // born long before
		s.mu.Unlock()
		for !l.Status().Foreign {
			require.Empty(t, ears[0].told())
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		for _, e := range ears {
			require.Len(t, e.told(), 1)
			require.NotErrorIs(t, e.told()[0], revoke.ErrRevoked)
		}
	})
}

// TestWatchRestored: a store that has lost its data tells nothing, and a revocation
// after that is told.
func TestWatchRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{id: 1}
		a, b := running(t, s), running(t, s)
		time.Sleep(time.Minute)
		e := watch(a, revoke.Question{SessionID: "sid", Subject: "ada", Began: time.Now()})
		time.Sleep(time.Minute)
		s.mu.Lock()
		s.id, s.log = 2, nil
		s.mu.Unlock()
		time.Sleep(time.Minute)
		require.Empty(t, e.told())
		require.NoError(t, b.RevokeSubject(t.Context(), "ada"))
		time.Sleep(2 * time.Second)
		e.only(t, revoke.ErrRevoked)

		// A backup has a revocation that this list has not read.
		e = watch(a, revoke.Question{SessionID: "sid", Subject: "bob", Began: time.Now()})
		s.mu.Lock()
		s.id, s.log = 3, []revoke.Entry{subjectEntry("bob", time.Now().Truncate(time.Millisecond), time.Now().Add(time.Hour))}
		s.mu.Unlock()
		time.Sleep(2 * time.Second)
		e.only(t, revoke.ErrRevoked)
	})
}

// TestWatchRace: of watches that begin while their sessions are revoked, here and
// elsewhere, none misses it.
func TestWatchRace(t *testing.T) {
	const n = 1000
	s := new(faulty)
	here, elsewhere := newList(t, s), newList(t, s)
	read(t, here)
	read(t, elsewhere)
	ears := make([]*ear, n)
	var wg sync.WaitGroup
	run := func(f func(i int)) {
		for _, i := range rand.Perm(n) {
			wg.Add(1)
			go func() { defer wg.Done(); f(i) }()
		}
	}
	for i := range ears {
		ears[i] = new(ear)
	}
	q := revoke.Question{Began: time.Now().Add(time.Second)} // after the store's birth
	run(func(i int) {
		q := q
		q.SessionID, q.Subject = "sid-"+strconv.Itoa(i), "user-"+strconv.Itoa(i)
		ears[i].stop = here.Watch(&q, ears[i].tell)
	})
	run(func(i int) {
		by := []*revoke.List{here, elsewhere}[i%2]
		_ = by.RevokeSession(t.Context(), "sid-"+strconv.Itoa(i))
		if i%10 == 0 {
			_ = here.Sync(t.Context())
		}
	})
	wg.Wait()
	require.NoError(t, here.Sync(t.Context()))
	require.Eventually(t, func() bool {
		for _, e := range ears {
			if len(e.told()) == 0 {
				return false
			}
		}
		return true
	}, time.Minute, time.Millisecond)
	for _, e := range ears {
		require.Len(t, e.told(), 1)
		e.stop()
	}
}

// TestWatchModel: with random watches, revocations at two replicas, and faults of
// the store, the watches that were told are those of the sessions that Check
// refuses.
func TestWatchModel(t *testing.T) {
	rounds := 15
	var live, revoked, changed atomic.Int64 // answers of Check
	if isLong() {
		rounds = 300
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(lastReading)
				r := rand.New(rand.NewPCG(uint64(seed), 12))
				s := new(faulty)
				lists := []*revoke.List{running(t, s), running(t, s)}
				time.Sleep(time.Hour)
				type watched struct {
					*ear
					q  revoke.Question
					by *revoke.List
				}
				var all []*watched
				pick := func(of ...string) string { return of[r.IntN(len(of))] }
				groups := func() string {
					return pick("", groupA+".", groupB+".", groupA+"."+groupC+".") + strconv.Itoa(r.IntN(20))
				}
				verify := func() {
					for i, w := range all {
						err := w.by.Check(t.Context(), &w.q)
						told := w.told()
						switch {
						case err == nil:
							live.Add(1)
							require.Empty(t, told, "watch %d", i)
						case err == revoke.ErrChanged:
							changed.Add(1)
							require.Contains(t, told, revoke.ErrChanged, "watch %d", i)
							require.NotContains(t, told, revoke.ErrRevoked, "watch %d", i)
						default:
							revoked.Add(1)
							require.NotEmpty(t, told, "watch %d: %v", i, err)
							require.NotEqual(t, revoke.ErrChanged, told[len(told)-1], "watch %d: %v", i, err)
						}
					}
				}
				for range 60 {
					by := lists[r.IntN(2)]
					switch r.IntN(12) {
					case 0:
						_ = by.RevokeSession(t.Context(), groups())
					case 1:
						_ = by.RevokeSubject(t.Context(), pick("ada", "bob", "eve"))
					case 2:
						_ = by.RevokeOthers(t.Context(), pick("ada", "bob", "eve"), groups())
					case 3:
						_ = by.RevokeGroup(t.Context(), pick(groupA, groupB, groupC))
					case 4:
						if r.IntN(5) == 0 {
							_ = by.RevokeKey(t.Context(), pick("k1", "k2", "k3"), time.Time{})
						}
					case 5:
						if r.IntN(5) == 0 {
							_ = by.RevokeAll(t.Context(), time.Now().Add(-time.Minute))
						}
					case 6:
						_ = by.Changed(t.Context(), pick("ada", "bob", "eve"))
					case 7:
						s.writes.Store([]int32{good, good, down, lostReply}[r.IntN(4)])
					default:
						for range r.IntN(8) {
							q := revoke.Question{SessionID: groups(), Subject: pick("ada", "bob", "eve"), KeyID: pick("k1", "k2", "k3"), Began: time.Now().Add(-time.Duration(r.IntN(120)) * time.Second)}
							if r.IntN(2) == 0 {
								q.IssuedAt = q.Began.Truncate(time.Second)
							}
							q = q.Prepared()
							if by.Check(t.Context(), &q) == nil {
								all = append(all, &watched{watch(by, q), q, by})
							}
						}
					}
					if len(all) > 0 && r.IntN(4) == 0 {
						i := r.IntN(len(all))
						all[i].stop()
						all[i] = all[len(all)-1]
						all = all[:len(all)-1]
					}
					time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
					if r.IntN(4) == 0 {
						time.Sleep(2 * time.Second)
						synctest.Wait()
						verify()
					}
				}
				s.writes.Store(good)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				verify()
				for _, w := range all {
					w.stop()
				}
			})
		})
	}
	for _, n := range []int64{live.Load(), revoked.Load(), changed.Load()} {
		require.Greater(t, n, int64(rounds))
	}
}

// TestWatchNeedsNoGoroutine: 10,000 watches have none.
func TestWatchNeedsNoGoroutine(t *testing.T) {
	l := newList(t, new(faulty))
	read(t, l)
	before := runtime.NumGoroutine()
	for i := range 10_000 {
		e := watch(l, revoke.Question{SessionID: strconv.Itoa(i), Began: time.Now().Add(time.Second)})
		require.Empty(t, e.told())
		defer e.stop()
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), before+10, "what else the process does")
}

// BenchmarkWatchNews is what a page with one revoked session, one revoked subject
// of three sessions, or one changed state costs a list with 100,000 watches.
func BenchmarkWatchNews(b *testing.B) {
	for _, n := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprint(n, " watches"), func(b *testing.B) {
			s := new(revoke.MemStore)
			l, err := revoke.NewList(revoke.Config{Store: s})
			require.NoError(b, err)
			require.NoError(b, l.Sync(b.Context()))
			began := time.Now().Add(-time.Minute)
			for i := range n {
				defer l.Watch(&revoke.Question{SessionID: "sid-" + strconv.Itoa(i), Subject: "user-" + strconv.Itoa(i/3), Began: began}, func(error) {})()
			}
			var told atomic.Int64
			i := 0
			for b.Loop() {
				i++
				sid := "news-" + strconv.Itoa(i)
				stop := l.Watch(&revoke.Question{SessionID: sid, Subject: "eve", Began: began}, func(error) { told.Add(1) })
				require.NoError(b, s.Append(b.Context(), sessionEntry(sid)))
				require.NoError(b, l.Sync(b.Context()))
				stop()
			}
		})
	}
}
