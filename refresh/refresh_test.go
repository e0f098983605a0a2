package refresh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
)

var (
	secret  = bytes.Repeat([]byte{1}, 32)
	errDown = errors.New("the store is down")
)

// ender remembers what was ended.
type ender struct {
	mu                 sync.Mutex
	sessions, subjects []string
	err                error
}

func (e *ender) EndSession(_ context.Context, sid string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.sessions = append(e.sessions, sid)
	}
	return e.err
}

func (e *ender) EndSubject(_ context.Context, subject string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.subjects = append(e.subjects, subject)
	}
	return e.err
}

// faulty is a store whose calls fail, before or after they were done.
type faulty struct {
	refresh.MemStore
	before, after atomic.Int32 // fail once when this many calls more were made
}

func (f *faulty) fault(n *atomic.Int32) error {
	if n.Load() > 0 && n.Add(-1) == 0 {
		return errDown
	}
	return nil
}

func (f *faulty) Find(ctx context.Context, id string) (refresh.Record, error) {
	if err := f.fault(&f.before); err != nil {
		return refresh.Record{}, err
	}
	return f.MemStore.Find(ctx, id)
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

func newManager(t testing.TB, s refresh.Store, change ...func(*refresh.Config)) *refresh.Manager {
	t.Helper()
	cfg := refresh.Config{Store: s, Secrets: [][]byte{secret}, Sessions: new(ender), Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	m, err := refresh.NewManager(cfg)
	require.NoError(t, err)
	return m
}

func start(t testing.TB, m *refresh.Manager) string {
	t.Helper()
	token, f, err := m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: "sid-1", ClientID: "app", Label: "phone", Created: time.Now()})
	require.NoError(t, err)
	require.Equal(t, "ada", f.Subject)
	return token
}

func issue(context.Context, refresh.Family) error { return nil }

func next(t testing.TB, m *refresh.Manager, token string) string {
	t.Helper()
	out, f, err := m.Exchange(t.Context(), token, "app", issue)
	require.NoError(t, err)
	require.Equal(t, "sid-1", f.SessionID)
	return out
}

func TestSingleUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := new(ender)
		var told []refresh.Family
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) {
			c.Sessions = e
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

		_, _, err := m.Exchange(t.Context(), first, "app", func(context.Context, refresh.Family) error { t.Error("issued"); return nil })
		require.ErrorIs(t, err, refresh.ErrReused, "older than the parent")
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Equal(t, []string{"sid-1"}, e.sessions)
		require.Len(t, told, 1)
		require.Equal(t, "phone", told[0].Label)
		_, _, err = m.Exchange(t.Context(), third, "app", issue)
		require.ErrorIs(t, err, refresh.ErrInvalid, "the family is gone")
		require.Len(t, told, 1)
	})
}

func TestReuseAfterTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore))
		first := start(t, m)
		next(t, m, first)
		time.Sleep(30*time.Second + 1)
		_, _, err := m.Exchange(t.Context(), first, "app", issue)
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
				if token, _, err = m.Exchange(t.Context(), *who, "app", issue); err != nil {
					break
				}
				*who = token
				time.Sleep(time.Second)
			}
			require.Less(t, time.Since(begin), time.Hour, "they go on for ever")
		}
		require.ErrorIs(t, err, refresh.ErrReused)
		require.LessOrEqual(t, time.Since(begin), 35*time.Second)

		a := start(t, m)
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
		s, e := new(refresh.MemStore), new(ender)
		managers := []*refresh.Manager{
			newManager(t, s, func(c *refresh.Config) { c.Sessions = e }),
			newManager(t, s, func(c *refresh.Config) { c.Sessions = e }),
		}
		token := start(t, managers[0])
		for range 200 {
			var mu sync.Mutex
			got := map[string]int{}
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					out, _, err := managers[i%2].Exchange(t.Context(), token, "app", issue)
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
		require.Empty(t, e.sessions, "nobody was signed out")
	})
}

func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) { c.IdleTimeout = time.Hour; c.MaxAge = 10 * time.Hour })
		began := time.Now()
		token := start(t, m)
		for time.Since(began) < 10*time.Hour-59*time.Minute {
			time.Sleep(59 * time.Minute)
			token = next(t, m, token)
		}
		time.Sleep(time.Until(began.Add(10*time.Hour)) - 1)
		token = next(t, m, token)
		time.Sleep(time.Nanosecond)
		_, _, err := m.Exchange(t.Context(), token, "app", issue)
		require.ErrorIs(t, err, refresh.ErrExpired, "no exchange moves the absolute end")
		require.ErrorIs(t, err, refresh.ErrInvalid)

		token = start(t, m)
		time.Sleep(time.Hour - 1)
		token = next(t, m, token)
		time.Sleep(time.Hour)
		_, _, err = m.Exchange(t.Context(), token, "app", issue)
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
		_, _, err := m.Exchange(t.Context(), token, client, issue)
		require.ErrorIs(t, err, refresh.ErrInvalid)
	}
	next(t, m, token) // nothing was used up
}

// What cannot be issued uses nothing up, and a store that fails is no reuse.
func TestFailuresUseNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, e := new(faulty), new(ender)
		m := newManager(t, s, func(c *refresh.Config) { c.Sessions = e })
		token := start(t, m)
		calls := 0
		for range 10 {
			_, _, err := m.Exchange(t.Context(), token, "app", func(context.Context, refresh.Family) error { calls++; return errDown })
			require.ErrorIs(t, err, errDown)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			time.Sleep(time.Minute)
		}
		require.Equal(t, 10, calls)
		for call := int32(1); call <= 2; call++ {
			s.before.Store(call)
			_, _, err := m.Exchange(t.Context(), token, "app", issue)
			require.ErrorIs(t, err, errDown)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			time.Sleep(time.Minute)
		}
		s.after.Store(1) // it was done, and the answer is lost
		_, _, err := m.Exchange(t.Context(), token, "app", issue)
		require.ErrorIs(t, err, errDown)
		time.Sleep(29 * time.Second)
		require.NotEqual(t, token, next(t, m, token))
		require.Empty(t, e.sessions)
	})
}

// If the session cannot be ended, the token is not spent: it is tried again.
func TestReuseIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ender{err: errDown}
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) { c.Sessions = e })
		first := start(t, m)
		next(t, m, first)
		time.Sleep(time.Minute)
		_, _, err := m.Exchange(t.Context(), first, "app", issue)
		require.ErrorIs(t, err, errDown)
		require.NotErrorIs(t, err, refresh.ErrInvalid)
		e.err = nil
		_, _, err = m.Exchange(t.Context(), first, "app", issue)
		require.ErrorIs(t, err, refresh.ErrReused)
		require.Equal(t, []string{"sid-1"}, e.sessions)
	})
}

func TestSignOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := new(ender)
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) { c.Sessions = e })
		phone, laptop := start(t, m), start(t, m)
		list, err := m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Len(t, list, 2)
		time.Sleep(time.Minute)
		old := laptop
		laptop = next(t, m, laptop)
		list, err = m.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Equal(t, time.Now().UTC(), list[0].LastUsed)

		require.NoError(t, m.End(t.Context(), phone))
		require.ErrorIs(t, m.End(t.Context(), phone), refresh.ErrInvalid)
		require.ErrorIs(t, m.EndFamily(t.Context(), "bob", list[0].ID), refresh.ErrInvalid, "of somebody else")
		require.NoError(t, m.EndFamily(t.Context(), "ada", list[0].ID))
		for _, token := range []string{phone, laptop, old} {
			_, _, err := m.Exchange(t.Context(), token, "app", issue)
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
		require.Equal(t, []string{"sid-1", "sid-1"}, e.sessions)

		token := start(t, m)
		require.NoError(t, m.EndSubject(t.Context(), "ada"))
		require.Equal(t, []string{"ada"}, e.subjects)
		_, _, err = m.Exchange(t.Context(), token, "app", issue)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.Error(t, m.EndSubject(t.Context(), ""))
	})
}

func TestSecretsRotate(t *testing.T) {
	s := new(refresh.MemStore)
	fresh := bytes.Repeat([]byte{2}, 32)
	old := newManager(t, s)
	both := newManager(t, s, func(c *refresh.Config) { c.Secrets = [][]byte{fresh, secret} })
	only := newManager(t, s, func(c *refresh.Config) { c.Secrets = [][]byte{fresh} })
	token := start(t, old)
	_, _, err := only.Exchange(t.Context(), token, "app", issue)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	token = next(t, both, token)
	_, _, err = old.Exchange(t.Context(), token, "app", issue)
	require.ErrorIs(t, err, refresh.ErrInvalid)
	next(t, only, token)
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
	records, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	dump, err := json.Marshal(records)
	require.NoError(t, err)
	_, _, err = m.Exchange(t.Context(), tokens[0], "app", issue)
	text := string(dump) + log.String() + err.Error()
	for _, token := range tokens {
		require.NotContains(t, text, token)
		require.NotContains(t, text, token[len(token)-43:], "nor its HMAC")
	}
	_, _, err = m.Exchange(t.Context(), records[0].ID, "app", issue)
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
			_, _, err := m.Exchange(t.Context(), token[:i]+string(c)+token[i+1:], "app", issue)
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
	}
	for _, bad := range []string{"", token + "A", token[1:], token + "=", strings.Repeat("A", len(token)), strings.Repeat("A", 1<<20)} {
		_, _, err := m.Exchange(t.Context(), bad, "app", issue)
		require.ErrorIs(t, err, refresh.ErrInvalid)
		require.ErrorIs(t, m.End(t.Context(), bad), refresh.ErrInvalid)
	}
	s.before.Store(0)
	next(t, m, token)
}

// A store that has lost what it had acknowledged signs nobody out.
func TestStoreFallsBack(t *testing.T) {
	s := new(refresh.MemStore)
	m := newManager(t, s)
	token := start(t, m)
	backup, err := s.List(t.Context(), "ada")
	require.NoError(t, err)
	for range 3 {
		token = next(t, m, token)
	}
	require.NoError(t, s.Delete(t.Context(), backup[0].ID))
	require.NoError(t, s.Create(t.Context(), backup[0]))
	token = next(t, m, token)
	next(t, m, token)
}

func TestNewManagerNamesTheField(t *testing.T) {
	ok := refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, Sessions: new(ender)}
	for i, c := range []struct {
		field  string
		change func(*refresh.Config)
	}{
		{"Store", func(c *refresh.Config) { c.Store = nil }},
		{"Store", func(c *refresh.Config) { c.Store = (*refresh.MemStore)(nil) }},
		{"Secrets", func(c *refresh.Config) { c.Secrets = nil }},
		{"Secrets", func(c *refresh.Config) { c.Secrets = [][]byte{secret, secret[:31]} }},
		{"Sessions", func(c *refresh.Config) { c.Sessions = nil }},
		{"Sessions", func(c *refresh.Config) { c.Sessions, c.InsecureSessionsLiveOn = (*ender)(nil), true }},
		{"IdleTimeout", func(c *refresh.Config) { c.IdleTimeout = -1 }},
		{"MaxAge", func(c *refresh.Config) { c.MaxAge = -1 }},
		{"IdleTimeout", func(c *refresh.Config) { c.IdleTimeout = 2; c.MaxAge = 1 }},
		{"RetryWindow", func(c *refresh.Config) { c.RetryWindow = time.Minute + 1 }},
	} {
		cfg := ok
		c.change(&cfg)
		_, err := refresh.NewManager(cfg)
		require.ErrorContains(t, err, "Config."+c.field, fmt.Sprint(i))
	}
	_, err := refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, InsecureSessionsLiveOn: true})
	require.NoError(t, err)

	m := newManager(t, new(refresh.MemStore))
	for _, f := range []refresh.Family{{SessionID: "s", Created: time.Now()}, {Subject: "s", Created: time.Now()}, {Subject: "s", SessionID: "s"}} {
		_, _, err := m.Start(t.Context(), f)
		require.Error(t, err)
	}
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
		_, _, err := m.Exchange(t.Context(), token, "app", issue)
		require.ErrorIs(t, err, refresh.ErrInvalid)
	})
}
