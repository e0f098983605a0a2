package exchange_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/browser"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/exchange"
	"github.com/sessiontoken/sessiontoken/revoke"
)

type state struct{ From string }

// store fails on demand.
type store struct {
	authority.Store
	deaf bool // writes of revocations fail
}

func (s *store) Append(ctx context.Context, entries ...revoke.Entry) error {
	if s.deaf {
		return errors.New("the store is gone")
	}
	return s.Store.Append(ctx, entries...)
}

// replica is one of the site, whose old sessions are the cookies "old" of the
// form "user.random". They live for ever: nothing destroys them.
type replica struct {
	http.Handler
	authority *authority.Authority[state]
	findErr   error
}

func newReplica(t *testing.T, s authority.Store, from time.Time) *replica {
	t.Helper()
	a, err := authority.New(authority.Config[state]{
		Issuer: "https://site.example", Audience: []string{"site"}, Store: s, Secrets: [][]byte{make([]byte, 32)},
		Load:   func(_ context.Context, old *sessiontoken.Claims[state]) (state, error) { return old.State, nil },
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	p := &replica{authority: a}
	page := func(w http.ResponseWriter, r *http.Request) {
		c, ok := a.Sessions().FromContext(r.Context())
		require.True(t, ok)
		_, _ = fmt.Fprint(w, c.Subject, " ", c.State.From, " ", c.AuthTime.IsZero())
	}
	after := http.NewServeMux()
	after.Handle("/", a.Sessions().Require(http.HandlerFunc(page)))
	after.HandleFunc("/sign-out-everywhere", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Sessions().SignOutEverywhere(w, r); err != nil {
			a.Sessions().Refuse(w, r, err)
		}
	})
	p.Handler = exchange.New(exchange.Config[state]{
		Authority: a, From: from, After: after,
		Before: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "before") }),
		Find: func(r *http.Request) (old exchange.Old[state], ok bool, err error) {
			c, err := r.Cookie("old")
			if err != nil || p.findErr != nil {
				return old, false, p.findErr
			}
			user, _, _ := strings.Cut(c.Value, ".")
			return exchange.Old[state]{ID: c.Value, Start: sessiontoken.Start{Subject: user}, State: state{From: c.Value}}, true, nil
		},
		Drop: func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "old", Path: "/", MaxAge: -1})
		},
	})
	return p
}

// old returns a browser with an old session.
func old(site http.Handler, value string) *browser.Browser {
	b := browser.New(site)
	b.Cookies["old"] = value
	return b
}

// in runs f in a bubble, with two replicas. from is an hour after the
// beginning, and the bubble is a second later when f begins.
func in(t *testing.T, f func(t *testing.T, s *store, a, b *replica, from time.Time)) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{Store: authority.Memory()}
		from := time.Now().Add(time.Hour)
		a, b := newReplica(t, s, from), newReplica(t, s, from)
		status, text := old(a, "ada.1").Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "before", text)
		time.Sleep(time.Hour + time.Second)
		f(t, s, a, b, from)
	})
}

func TestOldSessionIsExchangedOnce(t *testing.T) {
	in(t, func(t *testing.T, _ *store, a, b *replica, _ time.Time) {
		user := old(a, "ada.1")
		status, text := user.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "ada ada.1 true", text, "no password was given now")
		require.NotContains(t, user.Cookies, "old")
		status, text = user.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "ada ada.1 true", text)
		status, _ = user.At(b).Get("/")
		require.Equal(t, http.StatusOK, status)

		for _, site := range []*replica{a, b} { // b has not read the store since
			thief := old(site, "ada.1")
			status, _ = thief.Get("/")
			require.Equal(t, http.StatusUnauthorized, status)
			require.Empty(t, thief.Cookies)
		}
		status, text = old(b, "ada.2").Get("/")
		require.Equal(t, http.StatusOK, status, "another session of the user")
		require.Equal(t, "ada ada.2 true", text)
	})
}

// TestExchangeOfManyRequests: of many requests at once, one is exchanged.
func TestExchangeOfManyRequests(t *testing.T) {
	in(t, func(t *testing.T, _ *store, a, _ *replica, _ time.Time) {
		var mu sync.Mutex
		statuses := map[int]int{}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				status, _ := old(a, "ada.1").Get("/")
				mu.Lock()
				statuses[status]++
				mu.Unlock()
			})
		}
		wg.Wait()
		require.Equal(t, map[int]int{http.StatusOK: 1, http.StatusUnauthorized: 19}, statuses)
	})
}

// TestExchangesEnd: an old session is refused when the record of its exchange
// could have been forgotten.
func TestExchangesEnd(t *testing.T) {
	in(t, func(t *testing.T, _ *store, a, _ *replica, from time.Time) {
		status, _ := old(a, "ada.1").Get("/")
		require.Equal(t, http.StatusOK, status)
		time.Sleep(time.Until(from.Add(24*time.Hour - time.Second)))
		status, _ = old(a, "ada.1").Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = old(a, "ada.2").Get("/")
		require.Equal(t, http.StatusOK, status)
		for range 3 {
			time.Sleep(24 * time.Hour)
			for _, value := range []string{"ada.1", "ada.2", "ada.3"} {
				status, _ = old(a, value).Get("/")
				require.Equal(t, http.StatusUnauthorized, status)
			}
		}
	})
}

// TestOriginOfTheExchange: a form on another site begins no session and uses no
// old one up; a link does what it did before.
func TestOriginOfTheExchange(t *testing.T) {
	in(t, func(t *testing.T, _ *store, a, _ *replica, _ time.Time) {
		user := old(a, "ada.1")
		for _, fetch := range []string{"cross-site", "same-site"} {
			user.Fetch = fetch
			status, _ := user.Post("/")
			require.Equal(t, http.StatusUnauthorized, status)
			require.Equal(t, map[string]string{"old": "ada.1"}, user.Cookies)
		}
		user.Fetch = "-" // a browser before 2023
		status, _ := user.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
		require.Equal(t, map[string]string{"old": "ada.1"}, user.Cookies)
		user.Fetch = "cross-site"
		status, _ = user.Get("/")
		require.Equal(t, http.StatusOK, status)
	})
}

// TestNewSessionStays: an old cookie beside a new session, such as one that an
// attacker has planted, changes nothing and ends.
func TestNewSessionStays(t *testing.T) {
	in(t, func(t *testing.T, _ *store, a, _ *replica, _ time.Time) {
		user := old(a, "ada.1")
		_, _ = user.Get("/")
		user.Cookies["old"] = "mallory.1"
		status, text := user.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "ada ada.1 true", text)
		require.NotContains(t, user.Cookies, "old")
		status, _ = old(a, "mallory.1").Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
	})
}

// TestRevokedUser: what revokes the sessions of a user ends the old ones too.
func TestRevokedUser(t *testing.T) {
	in(t, func(t *testing.T, _ *store, a, b *replica, _ time.Time) {
		user := old(a, "ada.1")
		status, _ := user.Post("/sign-out-everywhere")
		require.Equal(t, http.StatusOK, status)
		status, _ = old(b, "ada.2").Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = old(b, "grace.1").Get("/")
		require.Equal(t, http.StatusOK, status)
	})
}

// TestExchangeFailsClosed: without either store there is no session, and no
// second one later.
func TestExchangeFailsClosed(t *testing.T) {
	in(t, func(t *testing.T, s *store, a, b *replica, _ time.Time) {
		a.findErr = errors.New("the old store is gone")
		user := old(a, "ada.1")
		status, _ := user.Get("/")
		require.Equal(t, http.StatusServiceUnavailable, status)
		a.findErr = nil

		s.deaf = true
		status, _ = user.Get("/")
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, map[string]string{"old": "ada.1"}, user.Cookies)
		status, _ = user.Get("/")
		require.NotEqual(t, http.StatusOK, status)
		s.deaf = false
		status, _ = old(b, "ada.2").Get("/")
		require.Equal(t, http.StatusOK, status)
	})
}
