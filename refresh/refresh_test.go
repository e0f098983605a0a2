package refresh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

var (
	secret  = bytes.Repeat([]byte{1}, 32)
	errDown = errors.New("the store is down")
	quiet   = slog.New(slog.DiscardHandler)
)

// revocations is a store of a list: it remembers what was written, and can fail
// or hang.
type revocations struct {
	revoke.MemStore
	down, blind atomic.Bool  // writing fails; reading fails
	slow        atomic.Int64 // how long writing takes

	mu      sync.Mutex
	entries []revoke.Entry
}

func (r *revocations) Append(ctx context.Context, entries ...revoke.Entry) error {
	if slow := r.slow.Load(); slow > 0 {
		select {
		case <-time.After(time.Duration(slow)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if r.down.Load() {
		return errDown
	}
	if err := r.MemStore.Append(ctx, entries...); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if e.Scope != revoke.Birth {
			r.entries = append(r.entries, e)
		}
	}
	return nil
}

func (r *revocations) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if r.blind.Load() {
		return revoke.Page{}, errDown
	}
	return r.MemStore.Since(ctx, cursor)
}

// revoked returns how many entries were written, and fails if one is not that of
// a session with one of these ids.
func (r *revocations) revoked(t *testing.T, sessionIDs ...string) int {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.entries {
		require.Equal(t, revoke.Session, e.Scope)
		require.True(t, slices.ContainsFunc(sessionIDs, func(id string) bool { return revoke.Session.Digest(id) == e.Digest }))
	}
	return len(r.entries)
}

func newList(t testing.TB, s revoke.Store) *revoke.List {
	t.Helper()
	l, err := revoke.NewList(revoke.Config{Store: s, MaxSession: 90 * 24 * time.Hour, Logger: quiet})
	require.NoError(t, err)
	return l
}

// run follows the store of l until the function that it returns is called.
func run(t *testing.T, l *revoke.List) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = l.Run(ctx) }()
	return func() { cancel(); <-ran }
}

// faulty is a store whose calls fail, before or after they were done.
type faulty struct {
	refresh.MemStore
	before, after atomic.Int32 // fail once when this many calls more were made
	stuck         atomic.Bool  // nothing can be deleted
}

func (f *faulty) fault(n *atomic.Int32) error {
	if n.Load() > 0 && n.Add(-1) == 0 {
		return errDown
	}
	return nil
}

func (f *faulty) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	if err := f.fault(&f.before); err != nil {
		return refresh.Record{}, err
	}
	return f.MemStore.Find(ctx, namespace, id)
}

func (f *faulty) Swap(ctx context.Context, r refresh.Record) error {
	if err := f.fault(&f.before); err != nil {
		return err
	}
	if err := f.MemStore.Swap(ctx, r); err != nil {
		return err
	}
	return f.fault(&f.after)
}

func (f *faulty) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	if f.stuck.Load() {
		return errDown
	}
	return f.MemStore.DeleteSession(ctx, namespace, sessionID)
}

// newManager returns a manager with a list of its own, unless change sets one.
func newManager(t testing.TB, s refresh.Store, change ...func(*refresh.Config)) *refresh.Manager {
	t.Helper()
	cfg := refresh.Config{Store: s, Secrets: [][]byte{secret}, Revocations: newList(t, new(revoke.MemStore)), Logger: quiet}
	for _, f := range change {
		f(&cfg)
	}
	m, err := refresh.NewManager(cfg)
	require.NoError(t, err)
	return m
}

// on makes a manager's list one on r.
func on(t testing.TB, r *revocations) func(*refresh.Config) {
	return func(c *refresh.Config) { c.Revocations = newList(t, r) }
}

// read has the manager's list read its store, which is born then: a session of
// now is not older than it. In real time that matters.
func read(t testing.TB, m *refresh.Manager) {
	t.Helper()
	_, err := m.Config().Revocations.Now(t.Context())
	require.NoError(t, err)
}

// without makes a manager one without a list.
func without(c *refresh.Config) { c.Revocations, c.InsecureSessionsLiveOn = nil, true }

func start(t testing.TB, m *refresh.Manager, change ...func(*refresh.Family)) string {
	t.Helper()
	family := refresh.Family{Subject: "ada", SessionID: "sid-1", ClientID: "app", Label: "phone", Began: time.Now()}
	for _, f := range change {
		f(&family)
	}
	token, f, err := m.Start(t.Context(), family, "")
	require.NoError(t, err)
	require.Equal(t, family.Subject, f.Subject)
	return token
}

func session(id string) func(*refresh.Family) { return func(f *refresh.Family) { f.SessionID = id } }

func issue(context.Context, refresh.Family) error { return nil }

// app is what the client of start presents.
func app(token string) refresh.Presented { return refresh.Presented{Token: token, ClientID: "app"} }

func exchange(t testing.TB, m *refresh.Manager, token string) (string, error) {
	t.Helper()
	out, _, err := m.Exchange(t.Context(), app(token), issue)
	return out, err
}

func next(t testing.TB, m *refresh.Manager, token string) string {
	t.Helper()
	out, f, err := m.Exchange(t.Context(), app(token), issue)
	require.NoError(t, err)
	require.Equal(t, "ada", f.Subject)
	return out
}

func records(t testing.TB, s refresh.Store) []refresh.Record {
	t.Helper()
	list, err := s.List(t.Context(), "", "ada")
	require.NoError(t, err)
	return list
}

func TestSingleUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(revocations)
		var told []refresh.Family
		m := newManager(t, new(refresh.MemStore), on(t, r), func(c *refresh.Config) {
			c.OnReuse = func(_ context.Context, f refresh.Family) { told = append(told, f) }
		})
		first := start(t, m)
		time.Sleep(5 * time.Minute)
		second := next(t, m, first)
		require.NotEqual(t, first, second)
		time.Sleep(30 * time.Second)
		require.Equal(t, second, next(t, m, first), "within the window: the same successor")
		third := next(t, m, second)
		require.Equal(t, third, next(t, m, second))

		_, _, err := m.Exchange(t.Context(), app(first), func(context.Context, refresh.Family) error { t.Error("issued"); return nil })
		require.ErrorIs(t, err, refresh.ErrReused, "older than the parent")
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Equal(t, 1, r.revoked(t, "sid-1"))
		require.Len(t, told, 1)
		require.Equal(t, "phone", told[0].Label)
		_, err = exchange(t, m, third)
		require.ErrorIs(t, err, refresh.ErrInvalid, "the family is gone")
		require.Len(t, told, 1)
		require.Equal(t, 1, r.revoked(t, "sid-1"))
	})
}

// A lost answer is forgiven once, however late the client comes back within a
// day, and again after a generation without any retry.
func TestLateRetryIsForgivenOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		late    time.Duration
		refused bool
	}{
		{"just after the window", 30*time.Second + 1, false},
		{"31 s", 31 * time.Second, false},
		{"10 min", 10 * time.Minute, false},
		{"a day", 24 * time.Hour, false},
		{"more than a day", 24*time.Hour + 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := new(revocations)
				m := newManager(t, new(refresh.MemStore), on(t, r), func(c *refresh.Config) { c.IdleTimeout, c.MaxSession = 48*time.Hour, 30*24*time.Hour })
				first := start(t, m)
				second := next(t, m, first)
				time.Sleep(c.late)
				if c.refused {
					_, err := exchange(t, m, first)
					require.ErrorIs(t, err, refresh.ErrReused)
					return
				}
				require.Equal(t, second, next(t, m, first))
				time.Sleep(30 * time.Second)
				require.Equal(t, second, next(t, m, first), "the same retry")

				// The generation with the retry ends: no other late one yet.
				third := next(t, m, second)
				time.Sleep(30 * time.Second)
				require.Equal(t, third, next(t, m, second), "within the window")
				fourth := next(t, m, third)
				time.Sleep(time.Hour)
				fifth := next(t, m, fourth) // ends a generation without any retry
				time.Sleep(time.Hour)
				require.Equal(t, fifth, next(t, m, fourth), "forgiven again")
				time.Sleep(30*time.Second + 1)
				_, err := exchange(t, m, fourth)
				require.ErrorIs(t, err, refresh.ErrReused, "a second late one in one generation")
				require.Equal(t, 1, r.revoked(t, "sid-1"))
			})
		})
	}
}

// Who comes back late with the answer lost can go on from there.
func TestLateRetryKeepsTheFamilyGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		first := start(t, m)
		second := next(t, m, first)
		time.Sleep(59 * time.Minute)
		require.Equal(t, second, next(t, m, first))
		time.Sleep(59 * time.Minute)
		next(t, m, second)
	})
}

func TestSecondLateRetryIsReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		first := start(t, m)
		second := next(t, m, first)
		time.Sleep(time.Minute)
		require.Equal(t, second, next(t, m, first))
		next(t, m, second)
		time.Sleep(time.Minute)
		_, err := exchange(t, m, second)
		require.ErrorIs(t, err, refresh.ErrReused, "no generation without a retry has ended")
	})
}

// A late retry is of the parent alone, and only while its successor is unused.
func TestUsedUpIsReuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		first := start(t, m)
		next(t, m, next(t, m, first))
		_, err := exchange(t, m, first)
		require.ErrorIs(t, err, refresh.ErrReused)
	})
}

// A thief and the victim who take turns, each one behind, are found out; two tabs
// that refresh together are not.
func TestTakingTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		victim := start(t, m)
		thief := victim
		begin := time.Now()
		var err error
		for err == nil {
			for _, who := range []*string{&victim, &thief} {
				var token string
				if token, err = exchange(t, m, *who); err != nil {
					break
				}
				*who = token
				time.Sleep(time.Second)
			}
			require.Less(t, time.Since(begin), time.Hour, "they go on for ever")
		}
		require.ErrorIs(t, err, refresh.ErrReused)
		require.LessOrEqual(t, time.Since(begin), 35*time.Second)

		a := start(t, m, session("sid-2"))
		b := a
		for range 200 {
			a = next(t, m, a)
			time.Sleep(time.Second)
			b = next(t, m, b)
			require.Equal(t, a, b)
			time.Sleep(5 * time.Minute)
		}
		// Answers that are lost now and then, by a client that is in a hurry.
		for i := range 600 {
			c := next(t, m, a)
			if i%50 == 0 {
				require.Equal(t, c, next(t, m, a))
			}
			a = c
			time.Sleep(10 * time.Second)
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		managers := []*refresh.Manager{newManager(t, s, on(t, r)), newManager(t, s, on(t, r))}
		token := start(t, managers[0])
		for range 200 {
			var mu sync.Mutex
			got := map[string]int{}
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					calls := 0
					out, _, err := managers[i%2].Exchange(t.Context(), app(token), func(context.Context, refresh.Family) error { calls++; return nil })
					if calls != 1 {
						t.Errorf("issue was called %d times", calls)
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					got[out]++
				})
			}
			wg.Wait()
			require.Len(t, got, 1, "exactly one successor")
			for out := range got {
				token = out
			}
			time.Sleep(time.Minute)
		}
		require.Zero(t, r.revoked(t), "a user was signed out")
	})
}

func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) { c.IdleTimeout = time.Hour; c.MaxSession = 10 * time.Hour })
		began := time.Now()
		token := start(t, m)
		for time.Since(began) < 10*time.Hour-59*time.Minute {
			time.Sleep(59 * time.Minute)
			token = next(t, m, token)
		}
		time.Sleep(time.Until(began.Add(10*time.Hour)) - 1)
		token = next(t, m, token)
		time.Sleep(time.Nanosecond)
		_, err := exchange(t, m, token)
		require.ErrorIs(t, err, refresh.ErrExpired, "no exchange moves the absolute end")
		require.ErrorIs(t, err, refresh.ErrInvalid)

		token = start(t, m)
		time.Sleep(time.Hour - 1)
		token = next(t, m, token)
		time.Sleep(time.Hour)
		_, err = exchange(t, m, token)
		require.ErrorIs(t, err, refresh.ErrExpired, "idle")
		list, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Empty(t, list)
	})
}

func TestBoundToItsClient(t *testing.T) {
	m := newManager(t, new(refresh.MemStore))
	token := start(t, m)
	for _, client := range []string{"", "other", "APP"} {
		p := refresh.Presented{Token: token, ClientID: client}
		_, _, err := m.Exchange(t.Context(), p, issue)
		require.ErrorIs(t, err, refresh.ErrClient)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.ErrorIs(t, m.Revoke(t.Context(), p), refresh.ErrClient)
		_, err = m.Find(t.Context(), p)
		require.ErrorIs(t, err, refresh.ErrClient)
	}
	next(t, m, token) // nothing was used up
}

// A browser's refresh token counts only beside its binder, and a native client's
// only without one; neither is reuse, and nothing is used up.
func TestBoundToItsBrowser(t *testing.T) {
	s, r := new(refresh.MemStore), new(revocations)
	m := newManager(t, s, on(t, r))
	read(t, m)
	binder, other := strings.Repeat("b", 43), strings.Repeat("c", 43)
	f := refresh.Family{Subject: "ada", SessionID: "sid-1", Began: time.Now()}
	browser, _, err := m.Start(t.Context(), f, binder)
	require.NoError(t, err)
	native, _, err := m.Start(t.Context(), f, "")
	require.NoError(t, err)
	for _, rec := range records(t, s) {
		require.NotContains(t, string(rec.Data), binder)
	}
	used := func(token, with string) string {
		out, _, err := m.Exchange(t.Context(), refresh.Presented{Token: token, Binder: with}, issue)
		require.NoError(t, err)
		return out
	}
	parent := browser
	browser = used(browser, binder)
	browser = used(browser, binder)
	for _, c := range []struct{ name, token, binder string }{
		{"a browser's without", browser, ""},
		{"a browser's with another", browser, other},
		{"a browser's with part of it", browser, binder[:42]},
		{"one that was used before, without", parent, ""},
		{"one that was used before, with another", parent, other},
		{"a native client's as a browser's", native, binder},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := refresh.Presented{Token: c.token, Binder: c.binder}
			_, _, err := m.Exchange(t.Context(), p, func(context.Context, refresh.Family) error { t.Error("issued"); return nil })
			require.ErrorIs(t, err, refresh.ErrBinder)
			require.ErrorIs(t, err, refresh.ErrInvalid)
			require.NotErrorIs(t, err, refresh.ErrReused)
			require.ErrorIs(t, m.Revoke(t.Context(), p), refresh.ErrBinder)
			_, err = m.Find(t.Context(), p)
			require.ErrorIs(t, err, refresh.ErrBinder)
		})
	}
	used(browser, binder)
	used(native, "")
	require.Zero(t, r.revoked(t))
	_, _, err = m.Start(t.Context(), f, strings.Repeat("b", 31))
	require.Error(t, err, "too short to be a secret")
}

// What cannot be issued uses nothing up, and a store that fails is no reuse.
func TestFailuresUseNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(faulty), new(revocations)
		m := newManager(t, s, on(t, r))
		token := start(t, m)
		for _, cannot := range []error{errDown, refresh.ErrConflict, refresh.ErrNotFound} {
			calls := 0
			for range 10 {
				_, _, err := m.Exchange(t.Context(), app(token), func(context.Context, refresh.Family) error { calls++; return cannot })
				require.ErrorIs(t, err, cannot)
				require.NotErrorIs(t, err, refresh.ErrInvalid)
				time.Sleep(time.Minute)
			}
			require.Equal(t, 10, calls)
		}
		before := records(t, s)
		for call := int32(1); call <= 2; call++ {
			s.before.Store(call)
			_, err := exchange(t, m, token)
			require.ErrorIs(t, err, errDown)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			time.Sleep(time.Minute)
		}
		require.Equal(t, before, records(t, s))
		s.after.Store(1) // it was done, and the answer is lost
		_, err := exchange(t, m, token)
		require.ErrorIs(t, err, errDown)
		time.Sleep(29 * time.Second)
		require.NotEqual(t, token, next(t, m, token))
		require.Zero(t, r.revoked(t))
	})
}

// The list is asked before anything is used up: a revoked session's token is not
// valid, and nothing is told while the list cannot tell.
func TestListIsAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		list := newList(t, r)
		defer run(t, list)()
		m := newManager(t, s, func(c *refresh.Config) { c.Revocations = list })
		never := func(context.Context, refresh.Family) error { t.Error("issued"); return nil }
		first := start(t, m)
		token := next(t, m, next(t, m, first))

		r.blind.Store(true)
		time.Sleep(10 * time.Minute) // past MaxStale
		before := records(t, s)
		for _, token := range []string{token, first} {
			_, _, err := m.Exchange(t.Context(), app(token), never)
			require.Error(t, err)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
		}
		_, _, err := m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: "sid-3", Began: time.Now()}, "")
		require.Error(t, err)
		require.NotErrorIs(t, err, refresh.ErrInvalid)
		require.Equal(t, before, records(t, s))
		r.blind.Store(false)
		time.Sleep(time.Minute)
		token = next(t, m, token)

		start(t, m, session("sid-2"))
		require.NoError(t, list.RevokeSession(t.Context(), "sid-1"))
		require.Len(t, records(t, s), 2)
		for _, token := range []string{token, first} {
			_, _, err := m.Exchange(t.Context(), app(token), never)
			require.ErrorIs(t, err, refresh.ErrInvalid)
			require.NotErrorIs(t, err, refresh.ErrReused)
		}
		require.Len(t, records(t, s), 1, "the record of the revoked session is gone")
		require.Equal(t, 1, r.revoked(t, "sid-1"))
	})
}

// A token that was used twice revokes its session also if the client hangs up.
func TestReuseRevokesThoughTheClientHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		r.slow.Store(int64(300 * time.Millisecond))
		told := 0
		m := newManager(t, s, on(t, r), func(c *refresh.Config) {
			c.OnReuse = func(ctx context.Context, _ refresh.Family) {
				told++
				require.NoError(t, ctx.Err())
			}
		})
		first := start(t, m)
		next(t, m, next(t, m, first))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, _, err := m.Exchange(ctx, app(first), issue)
		require.ErrorIs(t, err, refresh.ErrReused)
		require.Error(t, ctx.Err())
		require.Equal(t, 1, r.revoked(t, "sid-1"))
		require.Empty(t, records(t, s))
		require.Equal(t, 1, told)
	})
}

// The same for a sign-out.
func TestRevokeThoughTheClientHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		r.slow.Store(int64(300 * time.Millisecond))
		m := newManager(t, s, on(t, r))
		token := start(t, m)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.NoError(t, m.Revoke(ctx, app(token)))
		require.Equal(t, 1, r.revoked(t, "sid-1"))
		require.Empty(t, records(t, s))
	})
}

// While a revocation is not acknowledged, the token is neither refused nor
// exchanged; afterwards it is refused.
func TestReuseIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, told := new(revocations), 0
		list := newList(t, r)
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) {
			c.Revocations = list
			c.OnReuse = func(context.Context, refresh.Family) { told++ }
		})
		defer run(t, list)()
		first := start(t, m)
		last := next(t, m, next(t, m, first))
		r.down.Store(true)
		for range 3 {
			for _, token := range []string{first, last} {
				_, err := exchange(t, m, token)
				require.Error(t, err)
				require.NotErrorIs(t, err, refresh.ErrInvalid)
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, told)
		r.down.Store(false)
		time.Sleep(time.Minute)
		for _, token := range []string{first, last} {
			_, err := exchange(t, m, token)
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
		require.Equal(t, 1, r.revoked(t, "sid-1"), "acknowledged once")
	})
}

// Without a list, a family that could not be deleted is found out again.
func TestReuseIsNotForgottenWithoutAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		m := newManager(t, s, without)
		first := start(t, m)
		next(t, m, next(t, m, first))
		s.stuck.Store(true)
		_, err := exchange(t, m, first)
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, refresh.ErrInvalid)
		s.stuck.Store(false)
		_, err = exchange(t, m, first)
		require.ErrorIs(t, err, refresh.ErrReused)
		_, err = exchange(t, m, first)
		require.ErrorIs(t, err, refresh.ErrInvalid)
	})
}

func TestSignOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		list := newList(t, r)
		m := newManager(t, s, func(c *refresh.Config) { c.Revocations = list })
		phone, laptop := start(t, m), start(t, m, session("sid-2"))
		families, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Len(t, families, 2)
		time.Sleep(time.Minute)
		old := laptop
		laptop = next(t, m, laptop)

		family, err := m.Find(t.Context(), app(old))
		require.NoError(t, err)
		require.Equal(t, "sid-2", family.SessionID)
		require.NoError(t, m.Revoke(t.Context(), app(phone)))
		require.ErrorIs(t, m.Revoke(t.Context(), app(phone)), refresh.ErrInvalid)
		_, err = m.Find(t.Context(), app(phone))
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.ErrorIs(t, m.RevokeFamily(t.Context(), "bob", family.ID), refresh.ErrInvalid, "of another subject")
		require.ErrorIs(t, m.RevokeFamily(t.Context(), "ada", "x"), refresh.ErrInvalid)
		require.Error(t, m.RevokeFamily(t.Context(), "", family.ID))
		require.NoError(t, m.RevokeFamily(t.Context(), "ada", family.ID))
		for _, token := range []string{phone, laptop, old} {
			_, err := exchange(t, m, token)
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
		require.Equal(t, 2, r.revoked(t, "sid-1", "sid-2"), "one entry each")

		token := start(t, m, session("sid-3"))
		here := start(t, m, session("sid-4"))
		require.NoError(t, m.DeleteSubject(t.Context(), "ada", "sid-4"))
		_, err = exchange(t, m, token)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		here = next(t, m, here)
		require.NoError(t, m.DeleteSession(t.Context(), "sid-4"))
		_, err = exchange(t, m, here)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Equal(t, 2, r.revoked(t, "sid-1", "sid-2"), "deleting revokes nothing")
		require.Error(t, m.DeleteSubject(t.Context(), "", ""))
		require.Error(t, m.DeleteSession(t.Context(), ""))
		require.Empty(t, records(t, s))
	})
}

// A native client that has nothing but its refresh token can sign out, also with
// one that was used up or has expired.
func TestRevokeByToken(t *testing.T) {
	for _, c := range []struct {
		name  string
		token func(t *testing.T, m *refresh.Manager, first string) string
	}{
		{"unused", func(_ *testing.T, _ *refresh.Manager, first string) string { return first }},
		{"used up", func(t *testing.T, m *refresh.Manager, first string) string {
			next(t, m, next(t, m, first))
			return first
		}},
		{"just expired", func(_ *testing.T, _ *refresh.Manager, first string) string {
			time.Sleep(time.Hour)
			return first
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := new(refresh.MemStore), new(revocations)
				m := newManager(t, s, on(t, r))
				token := c.token(t, m, start(t, m))
				require.NoError(t, m.Revoke(t.Context(), app(token)))
				require.Equal(t, 1, r.revoked(t, "sid-1"), "one sign-out, one entry")
				require.Empty(t, records(t, s))
			})
		})
	}
}

// With a list its entry is the fact: a sign-out succeeds if and only if the list
// acknowledges it. Without a list the deletion is.
func TestAcknowledgedIsTheFact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, r := new(faulty), new(revocations)
		m := newManager(t, s, on(t, r), func(c *refresh.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		token := start(t, m)
		r.down.Store(true)
		err := m.Revoke(t.Context(), app(token))
		require.Error(t, err)
		require.NotErrorIs(t, err, refresh.ErrInvalid)
		require.Len(t, records(t, s), 1, "it can be repeated")
		r.down.Store(false)
		s.stuck.Store(true)
		require.NoError(t, m.Revoke(t.Context(), app(token)))
		require.Contains(t, log.String(), "reason=deletion")
		require.Len(t, records(t, s), 1)
		_, err = exchange(t, m, token)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		list, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Empty(t, list, "what is revoked is on no list of devices")

		m = newManager(t, s, without)
		token = start(t, m, session("sid-2"))
		require.ErrorIs(t, m.Revoke(t.Context(), app(token)), errDown)
		s.stuck.Store(false)
		require.NoError(t, m.Revoke(t.Context(), app(token)))
	})
}

// A device list that is polled does not tell when its owner refreshes.
func TestLastUsedIsShownByTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		phone := start(t, m)
		time.Sleep(time.Millisecond)
		start(t, m, session("sid-2"), func(f *refresh.Family) { f.Label = "laptop" })
		before, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Equal(t, "laptop", before[0].Label)
		var exact time.Time
		for range 5 {
			time.Sleep(10 * time.Minute)
			token, f, err := m.Exchange(t.Context(), app(phone), issue)
			require.NoError(t, err)
			phone, exact = token, f.LastUsed
			require.Equal(t, time.Now().UTC(), exact)
			after, err := m.List(t.Context(), "ada")
			require.NoError(t, err)
			require.Equal(t, before, after, "neither times nor order have changed")
		}
		time.Sleep(10 * time.Minute)
		next(t, m, phone)
		list, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Equal(t, "phone", list[0].Label, "an hour later it shows")
		require.Equal(t, time.Now().UTC().Truncate(time.Hour), list[0].LastUsed)
	})
}

func TestLabelIsCut(t *testing.T) {
	for _, c := range []struct{ name, label, want string }{
		{"short", "Firefox on Linux", "Firefox on Linux"},
		{"full", strings.Repeat("x", 256), strings.Repeat("x", 256)},
		{"900 KB", strings.Repeat("x", 900<<10), strings.Repeat("x", 256)},
		{"a rune at the edge", strings.Repeat("x", 255) + "é", strings.Repeat("x", 255)},
		{"four bytes at the edge", strings.Repeat("x", 253) + "\U0001F600", strings.Repeat("x", 253)},
		{"no UTF-8", "a\xff\xfeb", "a\uFFFDb"},
		{"no UTF-8 at all", strings.Repeat("\xff", 900<<10), "\uFFFD"},
		{"control characters", strings.Repeat("\x01", 900<<10), strings.Repeat("\x01", 256)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(refresh.MemStore)
			m := newManager(t, s)
			token := start(t, m, func(f *refresh.Family) { f.Label = c.label; f.ClientID = "app" })
			next(t, m, token)
			list, err := m.List(t.Context(), "ada")
			require.NoError(t, err)
			require.Equal(t, c.want, list[0].Label)
			require.True(t, utf8.ValidString(list[0].Label))
			require.LessOrEqual(t, len(records(t, s)[0].Data), refresh.MaxData)
		})
	}
}

// The largest family fits into a record.
func TestLargestFamilyFits(t *testing.T) {
	s := new(refresh.MemStore)
	m := newManager(t, s)
	f := refresh.Family{Subject: "ada", SessionID: "s", ClientID: strings.Repeat("\"", 256), Label: strings.Repeat("\x01", 300), Began: time.Now(), AuthTime: time.Now()}
	token, _, err := m.Start(t.Context(), f, strings.Repeat("b", 43))
	require.NoError(t, err)
	_, got, err := m.Exchange(t.Context(), refresh.Presented{Token: token, ClientID: f.ClientID, Binder: strings.Repeat("b", 43)}, issue)
	require.NoError(t, err)
	require.Equal(t, f.ClientID, got.ClientID)
	require.True(t, f.AuthTime.Equal(got.AuthTime))
	require.Less(t, len(records(t, s)[0].Data), refresh.MaxData-1024, "there is room for what comes later")
}

// The family that was used longest ago goes with its session, and no other one
// is looked at.
func TestMaxPerSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		m := newManager(t, s, on(t, r), func(c *refresh.Config) { c.MaxPerSubject = 3 })
		bob := start(t, m, session("bob"), func(f *refresh.Family) { f.Subject = "bob" })
		var tokens []string
		for i := range 3 {
			tokens = append(tokens, start(t, m, session(fmt.Sprint(i))))
			time.Sleep(time.Minute)
		}
		tokens[0] = next(t, m, tokens[0])
		require.Zero(t, r.revoked(t))
		time.Sleep(time.Minute)
		start(t, m, session("3")) // 1 was used longest ago
		require.Equal(t, 1, r.revoked(t, "1"))
		require.Len(t, records(t, s), 3)
		_, err := exchange(t, m, tokens[1])
		require.ErrorIs(t, err, refresh.ErrInvalid)
		next(t, m, tokens[0])
		_, _, err = m.Exchange(t.Context(), app(bob), issue)
		require.NoError(t, err)

		// It makes room for itself also if there are many too many.
		m = newManager(t, s, on(t, r), func(c *refresh.Config) { c.MaxPerSubject = 1 })
		last := start(t, m, session("4"))
		require.Len(t, records(t, s), 1)
		require.Equal(t, 4, r.revoked(t, "0", "1", "2", "3"))
		again := start(t, m, session("4")) // a second one of one session
		next(t, m, last)
		next(t, m, again)
		require.Equal(t, 4, r.revoked(t, "0", "1", "2", "3"))
	})
}

func TestMaxPerSubjectDefault(t *testing.T) {
	s := new(refresh.MemStore)
	m := newManager(t, s)
	require.Equal(t, 100, m.Config().MaxPerSubject)
	for i := range 120 {
		start(t, m, session(fmt.Sprint(i)))
	}
	require.Len(t, records(t, s), 100)
}

// Families that are idle for too long are kept to sign out with, and do not pile
// up all the same: those above ten times the number go with their sessions.
func TestMaxPerSubjectCountsTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		m := newManager(t, s, on(t, r), func(c *refresh.Config) { c.MaxPerSubject, c.IdleTimeout = 2, time.Minute })
		for i := range 30 {
			start(t, m, session(fmt.Sprint(i)))
			time.Sleep(2 * time.Minute)
		}
		require.Len(t, records(t, s), 21, "the idle, and the last one")
		require.Equal(t, 9, r.revoked(t, "0", "1", "2", "3", "4", "5", "6", "7", "8"))
		families, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Empty(t, families)
	})
}

// A sign-in does not fail because an old session could not be revoked.
func TestMaxPerSubjectIsTidying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, r := new(refresh.MemStore), new(revocations)
		m := newManager(t, s, on(t, r), func(c *refresh.Config) {
			c.MaxPerSubject, c.Logger = 1, slog.New(slog.NewTextHandler(&log, nil))
		})
		start(t, m, session("0"))
		r.down.Store(true)
		next(t, m, start(t, m, session("1")))
		require.Contains(t, log.String(), "reason=cap")
	})
}

func TestNamespacesAreApart(t *testing.T) {
	s := new(refresh.MemStore)
	in := func(namespace string) *refresh.Manager {
		return newManager(t, s, func(c *refresh.Config) { c.Namespace = namespace })
	}
	a, b := in("a"), in("b")
	token := start(t, a)
	_, err := exchange(t, b, token)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	require.ErrorIs(t, b.Revoke(t.Context(), app(token)), refresh.ErrInvalid)
	list, err := b.List(t.Context(), "ada")
	require.NoError(t, err)
	require.Empty(t, list)
	require.NoError(t, b.DeleteSubject(t.Context(), "ada", ""))
	require.NoError(t, b.DeleteSession(t.Context(), "sid-1"))

	// A record that was copied to another namespace says nothing there.
	of, err := s.List(t.Context(), "a", "ada")
	require.NoError(t, err)
	of[0].Namespace = "b"
	require.NoError(t, s.Create(t.Context(), of[0]))
	require.Error(t, b.RevokeFamily(t.Context(), "ada", of[0].ID))
	require.EqualValues(t, 1, b.Metrics()["refresh_unauthenticated_records_total"])
	next(t, a, token)
}

// Nothing that the store holds can be presented, and no error holds a token.
func TestNothingUsableIsStored(t *testing.T) {
	var log bytes.Buffer
	s := new(refresh.MemStore)
	m := newManager(t, s, func(c *refresh.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	tokens := []string{start(t, m)}
	for range 5 {
		tokens = append(tokens, next(t, m, tokens[len(tokens)-1]))
	}
	stored := records(t, s)
	dump, err := json.Marshal(stored)
	require.NoError(t, err)
	_, err = exchange(t, m, tokens[0])
	require.ErrorIs(t, err, refresh.ErrReused)
	require.Contains(t, log.String(), "reason=reuse")
	text := string(dump) + string(stored[0].Data) + log.String() + err.Error()
	for _, token := range tokens {
		require.NotContains(t, text, token)
		require.NotContains(t, text, token[len(token)-43:], "nor its HMAC")
	}
	_, err = exchange(t, m, stored[0].ID)
	require.ErrorIs(t, err, refresh.ErrInvalid)
}

// Every change of one byte of a token is refused, without a look at the store.
func TestOnlyGenuineTokens(t *testing.T) {
	s := new(faulty)
	m := newManager(t, s)
	token := start(t, m)
	s.before.Store(1) // the store would fail
	for i := range token {
		for _, c := range []byte("AQgw05-_=. \n\x00\xff") {
			if token[i] == c {
				continue
			}
			_, err := exchange(t, m, token[:i]+string(c)+token[i+1:])
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
	}
	for _, bad := range []string{"", token + "A", token[1:], token + "=", strings.Repeat("A", len(token)), strings.Repeat("A", 1<<20)} {
		_, err := exchange(t, m, bad)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.ErrorIs(t, m.Revoke(t.Context(), app(bad)), refresh.ErrInvalid)
	}
	s.before.Store(0)
	next(t, m, token)
}

// A store that has lost what it had acknowledged signs no user out.
func TestStoreFallsBack(t *testing.T) {
	s := new(refresh.MemStore)
	m := newManager(t, s)
	token := start(t, m)
	backup := records(t, s)
	for range 3 {
		token = next(t, m, token)
	}
	require.NoError(t, s.Delete(t.Context(), "", backup[0].ID))
	require.NoError(t, s.Create(t.Context(), backup[0]))
	token = next(t, m, token)
	next(t, m, token)
}

// hanging is a store that answers when the caller's patience ends.
type hanging struct {
	refresh.MemStore
	at atomic.Pointer[string] // the method that hangs
}

func (h *hanging) hang(ctx context.Context, method string) error {
	if at := h.at.Load(); at == nil || *at != method {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (h *hanging) Create(ctx context.Context, r refresh.Record) error {
	return errors.Join(h.hang(ctx, "Create"), h.MemStore.Create(ctx, r))
}

func (h *hanging) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	if err := h.hang(ctx, "Find"); err != nil {
		return refresh.Record{}, err
	}
	return h.MemStore.Find(ctx, namespace, id)
}

func (h *hanging) Swap(ctx context.Context, r refresh.Record) error {
	if err := h.hang(ctx, "Swap"); err != nil {
		return err
	}
	return h.MemStore.Swap(ctx, r)
}

func (h *hanging) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	return errors.Join(h.hang(ctx, "DeleteSession"), h.MemStore.DeleteSession(ctx, namespace, sessionID))
}

func (h *hanging) List(ctx context.Context, namespace, subject string) ([]refresh.Record, error) {
	if err := h.hang(ctx, "List"); err != nil {
		return nil, err
	}
	return h.MemStore.List(ctx, namespace, subject)
}

// No call takes longer than 5 s when the store or the list's store hangs.
func TestNothingWaitsForLong(t *testing.T) {
	for _, c := range []struct{ name, hangs string }{
		{"Create", "Create"}, {"Find", "Find"}, {"Swap", "Swap"}, {"DeleteSession", "DeleteSession"}, {"List", "List"}, {"the list's store", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := new(hanging), new(revocations)
				m := newManager(t, s, on(t, r), func(c *refresh.Config) { c.MaxPerSubject = 1 })
				token := start(t, m)
				if s.at.Store(&c.hangs); c.hangs == "" {
					r.slow.Store(int64(time.Hour))
				}
				for i, call := range []func(){
					func() { _, _, _ = m.Exchange(t.Context(), app(token), issue) },
					func() { _, _ = m.List(t.Context(), "ada") },
					func() { _, _ = m.Find(t.Context(), app(token)) },
					func() {
						_, _, _ = m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: "sid-2", Began: time.Now()}, "")
					},
					func() { _ = m.Revoke(t.Context(), app(token)) },
				} {
					began := time.Now()
					call()
					require.LessOrEqual(t, time.Since(began), 5*time.Second, "call %d", i)
				}
				time.Sleep(time.Minute) // what they have started reaches its limit
			})
		})
	}
}

func TestNewManagerNamesTheField(t *testing.T) {
	list := newList(t, new(revoke.MemStore))
	short, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore), MaxSession: time.Hour})
	require.NoError(t, err)
	ok := refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, Revocations: list}
	for i, c := range []struct {
		field  string
		change func(*refresh.Config)
	}{
		{"Store", func(c *refresh.Config) { c.Store = nil }},
		{"Store", func(c *refresh.Config) { c.Store = (*refresh.MemStore)(nil) }},
		{"Namespace", func(c *refresh.Config) { c.Namespace = "\xff" }},
		{"Namespace", func(c *refresh.Config) { c.Namespace = "a\x00b" }},
		{"Secrets", func(c *refresh.Config) { c.Secrets = nil }},
		{"Secrets", func(c *refresh.Config) { c.Secrets = [][]byte{secret, secret[:31]} }},
		{"Revocations", func(c *refresh.Config) { c.Revocations = nil }},
		{"MaxSession", func(c *refresh.Config) { c.Revocations = short }},
		{"MaxSession", func(c *refresh.Config) { c.Revocations = new(revoke.List) }},
		{"IdleTimeout", func(c *refresh.Config) { c.IdleTimeout = -1 }},
		{"IdleTimeout", func(c *refresh.Config) { c.IdleTimeout = 3600 }},
		{"MaxSession", func(c *refresh.Config) { c.MaxSession = -1 }},
		{"MaxSession", func(c *refresh.Config) { c.MaxSession = 86400 }},
		{"IdleTimeout", func(c *refresh.Config) { c.IdleTimeout = 2 * time.Second; c.MaxSession = time.Second }},
		{"RetryWindow", func(c *refresh.Config) { c.RetryWindow = time.Minute + 1 }},
		{"RetryWindow", func(c *refresh.Config) { c.RetryWindow = 30 }},
		{"RetryWindow", func(c *refresh.Config) { c.RetryWindow = -time.Second }},
		{"MaxPerSubject", func(c *refresh.Config) { c.MaxPerSubject = -1 }},
	} {
		cfg := ok
		c.change(&cfg)
		_, err := refresh.NewManager(cfg)
		require.ErrorContains(t, err, "Config."+c.field, fmt.Sprint(i))
	}
	_, err = refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, InsecureSessionsLiveOn: true})
	require.NoError(t, err)

	secrets := [][]byte{bytes.Clone(secret)}
	cfg := ok
	cfg.Secrets = secrets
	m, err := refresh.NewManager(cfg)
	require.NoError(t, err)
	require.Nil(t, m.Config().Secrets)
	require.Equal(t, []any{time.Hour, 24 * time.Hour, 30 * time.Second}, []any{m.Config().IdleTimeout, m.Config().MaxSession, m.Config().RetryWindow})
	token := start(t, m)
	secrets[0][0]++ // the caller's
	next(t, m, token)
}

func TestStartRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		now := time.Now()
		for _, tt := range []struct {
			name string
			f    refresh.Family
		}{
			{"no subject", refresh.Family{SessionID: "s", Began: now}},
			{"no session", refresh.Family{Subject: "s", Began: now}},
			{"no beginning", refresh.Family{Subject: "s", SessionID: "s"}},
			{"begun in the future", refresh.Family{Subject: "s", SessionID: "s", Began: now.Add(time.Minute + time.Millisecond)}},
			{"over", refresh.Family{Subject: "s", SessionID: "s", Began: now.Add(-24 * time.Hour)}},
			{"proven in the future", refresh.Family{Subject: "s", SessionID: "s", Began: now, AuthTime: now.Add(time.Hour)}},
			{"a client id too long", refresh.Family{Subject: "s", SessionID: "s", Began: now, ClientID: strings.Repeat("x", 257)}},
			{"a client id not UTF-8", refresh.Family{Subject: "s", SessionID: "s", Began: now, ClientID: "\xff"}},
			{"a client id not of text", refresh.Family{Subject: "s", SessionID: "s", Began: now, ClientID: "a\x00b"}},
		} {
			_, _, err := m.Start(t.Context(), tt.f, "")
			require.Error(t, err, tt.name)
			require.NotErrorIs(t, err, refresh.ErrInvalid, tt.name)
		}
		at := now.Add(123456 * time.Nanosecond)
		_, f, err := m.Start(t.Context(), refresh.Family{Subject: "s", SessionID: "s", Began: at}, "")
		require.NoError(t, err)
		require.Equal(t, at.UTC().Truncate(time.Millisecond), f.Began)
		_, _, err = m.Exchange(t.Context(), refresh.Presented{}, nil)
		require.Error(t, err)
	})
}

func FuzzExchange(f *testing.F) {
	m := newManager(f, new(refresh.MemStore))
	good := start(f, m)
	f.Add("")
	f.Add(good[:20])
	f.Add(strings.Repeat("A", len(good)))
	f.Fuzz(func(t *testing.T, token string) {
		if token == good {
			return
		}
		_, _, err := m.Exchange(t.Context(), app(token), issue)
		require.ErrorIs(t, err, refresh.ErrInvalid)
	})
}
