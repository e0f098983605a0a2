package oidclogin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type renewed struct{ Provider string }

func checkOf(g *Grants) RenewalCheck[renewed] {
	return RenewalCheck[renewed]{
		Grants: g,
		Subject: func(_ context.Context, old *sessiontoken.Claims[renewed]) (string, error) {
			return old.State.Provider, nil
		},
		Load: func(_ context.Context, old *sessiontoken.Claims[renewed]) (renewed, error) { return old.State, nil },
	}
}

func TestCheckAtRenewalNamesTheField(t *testing.T) {
	g := grantsOf(t, memoryStore(), newChain())
	for _, row := range []struct {
		field  string
		change func(*RenewalCheck[renewed])
	}{
		{"Grants", func(c *RenewalCheck[renewed]) { c.Grants = nil }},
		{"Grants", func(c *RenewalCheck[renewed]) { c.Grants = new(Grants) }},
		{"Subject", func(c *RenewalCheck[renewed]) { c.Subject = nil }},
		{"Load", func(c *RenewalCheck[renewed]) { c.Load = nil }},
		{"Every", func(c *RenewalCheck[renewed]) { c.Every = 5 }},
		{"Grace", func(c *RenewalCheck[renewed]) { c.Grace = -time.Second }},
		{"Grace", func(c *RenewalCheck[renewed]) { c.Grace = time.Minute }},
	} {
		c := checkOf(g)
		row.change(&c)
		_, err := CheckAtRenewal(c)
		require.ErrorContains(t, err, "RenewalCheck."+row.field)
	}
}

// checkedUser is a browser that is signed in at a site whose renewals check.
type checkedUser struct {
	t      *testing.T
	page   http.Handler
	cookie string
}

func newChecked(t *testing.T, c RenewalCheck[renewed], provider string) *checkedUser {
	t.Helper()
	load, err := CheckAtRenewal(c)
	require.NoError(t, err)
	a, err := authority.New(authority.Config[renewed]{
		Issuer: "https://site.example", Audience: []string{"site"}, Store: authority.Memory(), Load: load,
		Limits: authority.Limits{TTL: 10 * time.Minute}, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	u := &checkedUser{t: t, page: a.Sessions().Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }))}
	w := httptest.NewRecorder()
	_, err = a.Sessions().SignIn(w, httptest.NewRequest(http.MethodPost, "https://site.example/", nil), sessiontoken.Start{Subject: "7"}, renewed{provider})
	require.NoError(t, err)
	u.keep(w)
	return u
}

func (u *checkedUser) keep(w *httptest.ResponseRecorder) {
	for _, c := range w.Result().Cookies() {
		u.cookie = c.Name + "=" + c.Value
	}
}

// after waits and returns the status of a request.
func (u *checkedUser) after(d time.Duration) int {
	time.Sleep(d)
	r := httptest.NewRequest(http.MethodGet, "https://site.example/", nil)
	r.Header.Set("Cookie", u.cookie)
	w := httptest.NewRecorder()
	u.page.ServeHTTP(w, r)
	u.keep(w)
	return w.Code
}

// TestCheckAtRenewal: the provider is asked at renewals, not more often than
// Every, and its invalid_grant ends the session.
func TestCheckAtRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain()
		g := grantsOf(t, memoryStore(), c)
		begin(t, g)
		check := checkOf(g)
		check.Every = 20 * time.Minute
		u, stranger := newChecked(t, check, ada), newChecked(t, check, "")
		for range 12 { // 2 h
			require.Equal(t, 200, u.after(10*time.Minute-time.Second))
			require.Equal(t, 200, stranger.after(time.Second))
		}
		asked, twice := c.count()
		require.InDelta(t, 5, asked, 1, "every 20 to 30 min")
		require.Zero(t, twice)

		c.current = ""
		require.Equal(t, 200, u.after(time.Minute))
		require.Equal(t, 200, stranger.after(0))
		for range 3 {
			u.after(9 * time.Minute)
			stranger.after(0)
		}
		require.Equal(t, 401, u.after(0))
		require.Equal(t, 200, stranger.after(0))
	})
}

// TestCheckAtRenewalRevoked: Revoke ends the sessions too, each at its next
// renewal that is due.
func TestCheckAtRenewalRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := grantsOf(t, memoryStore(), newChain())
		begin(t, g)
		u := newChecked(t, checkOf(g), ada)
		require.NoError(t, g.Revoke(t.Context(), ada))
		require.Equal(t, 200, u.after(time.Minute), "the token is not renewed yet")
		require.Equal(t, 401, u.after(10*time.Minute))
	})
}

// TestCheckAtRenewalDown: while the provider does not answer, a renewal that is
// due fails, and goes on within Grace. A provider that hangs is no longer
// waited for than a renewal waits.
func TestCheckAtRenewalDown(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		for _, grace := range []time.Duration{0, time.Hour} {
			synctest.Test(t, func(t *testing.T) {
				c := newChain()
				c.keeps = true
				g := grantsOf(t, memoryStore(), c)
				begin(t, g)
				accessOf(t, g)
				check := checkOf(g)
				check.Grace = grace
				u := newChecked(t, check, ada)
				var up atomic.Bool
				c.before = func() error {
					if up.Load() {
						return nil
					}
					if hangs {
						time.Sleep(refreshLimit)
						return errors.New("no answer")
					}
					return errNotUsed
				}
				require.Equal(t, 200, u.after(6*time.Minute), "the token is valid still")
				if grace == 0 {
					require.Equal(t, 503, u.after(9*time.Minute))
				} else {
					for range 4 {
						require.Equal(t, 200, u.after(11*time.Minute))
					}
					require.Equal(t, 503, u.after(15*time.Minute), "past Grace")
				}
				up.Store(true)
				time.Sleep(2 * time.Minute)
				require.Equal(t, 200, u.after(0))
			})
		}
	}
}

// TestCheckAtRenewalErrors: an error of Subject or of the seal changes nothing,
// also within Grace.
func TestCheckAtRenewalErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memoryStore()
		begin(t, grantsOf(t, store, newChain()))
		c := checkOf(grantsOf(t, store, newChain(), make([]byte, 32)))
		c.Every, c.Grace = time.Second, time.Hour
		load, err := CheckAtRenewal(c)
		require.NoError(t, err)
		old := &sessiontoken.Claims[renewed]{State: renewed{ada}}
		time.Sleep(time.Minute)
		_, err = load(t.Context(), old)
		require.ErrorIs(t, err, ErrGrantSealed)
		require.NotErrorIs(t, err, sessionhttp.ErrSessionOver)
		down := errors.New("down")
		c.Subject = func(context.Context, *sessiontoken.Claims[renewed]) (string, error) { return "", down }
		load, err = CheckAtRenewal(c)
		require.NoError(t, err)
		_, err = load(t.Context(), old)
		require.ErrorIs(t, err, down)
	})
}
