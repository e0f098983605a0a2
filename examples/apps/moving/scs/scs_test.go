package main

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/alexedwards/scs/v2/memstore"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/browser"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// TestManager: the command's own manager serves the site, and no cookie of it
// goes over http.
func TestManager(t *testing.T) {
	sm := newManager()
	require.True(t, sm.Cookie.Secure)
	ada := browser.New(newBefore(sm))
	status, _ := ada.Post("/sign-in", "user", "ada", "password", "wrong")
	require.Equal(t, http.StatusUnauthorized, status)
	status, _ = ada.Post("/sign-in", "user", "ada", "password", "demo")
	require.Equal(t, http.StatusSeeOther, status)
}

// in runs f in a bubble, with the site before and during, and signs ada in
// before.
func in(t *testing.T, f func(t *testing.T, sm *scs.SessionManager, during http.Handler, ada *browser.Browser)) {
	sm := newManager() // has a goroutine, which must not be in the bubble
	sm.Store = memstore.NewWithCleanupInterval(0)
	synctest.Test(t, func(t *testing.T) {
		a, err := newAuthority("https://site.example", authority.Memory())
		require.NoError(t, err)
		during := newDuring(sm, a, time.Now().Add(time.Hour))
		ada := browser.New(newBefore(sm))
		status, _ := ada.Post("/sign-in", "user", "ada", "password", "demo")
		require.Equal(t, http.StatusSeeOther, status)
		status, _ = ada.Post("/theme", "theme", "dark")
		require.Equal(t, http.StatusSeeOther, status)
		ada.Site = during
		_, text := ada.Get("/")
		require.Equal(t, "Welcome back. Hello Ada, editor. Visit 1, theme \"dark\".\n", text)
		require.Contains(t, ada.Cookies, "session")
		time.Sleep(time.Hour + time.Second)
		f(t, sm, during, ada)
	})
}

func TestSignedInBeforeAndAfter(t *testing.T) {
	in(t, func(t *testing.T, sm *scs.SessionManager, during http.Handler, ada *browser.Browser) {
		t.Cleanup(func() { site.SetRole("ada", "editor") })
		old := ada.At(during)
		site.SetRole("ada", "chief")
		status, text := ada.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, "Hello Ada, chief.", "the database is the authority")
		require.Contains(t, text, `theme "dark"`)
		require.NotContains(t, ada.Cookies, "session")
		require.Contains(t, ada.Cookies, "__Host-session")
		all, err := sm.Store.(scs.IterableStore).All()
		require.NoError(t, err)
		require.Empty(t, all, "destroyed")

		status, _ = old.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = ada.At(newBefore(sm)).Get("/")
		require.Equal(t, http.StatusUnauthorized, status, "never the other way round")

		status, _ = ada.Post("/theme", "theme", "light")
		require.Equal(t, http.StatusSeeOther, status)
		time.Sleep(10 * time.Minute) // a renewal in between
		_, text = ada.Get("/")
		require.Contains(t, text, `theme "light"`)
	})
}

// TestRecordAlone: an old session that comes back to the store of scs, such as
// by a request that was under way, is refused all the same.
func TestRecordAlone(t *testing.T) {
	in(t, func(t *testing.T, sm *scs.SessionManager, during http.Handler, ada *browser.Browser) {
		old := ada.At(during)
		data, found, err := sm.Store.Find(old.Cookies["session"])
		require.NoError(t, err)
		require.True(t, found)
		_, _ = ada.Get("/")
		require.NoError(t, sm.Store.Commit(old.Cookies["session"], data, time.Now().Add(time.Hour)))
		status, _ := old.At(newBefore(sm)).Get("/")
		require.Equal(t, http.StatusOK, status, "scs would accept it")
		status, _ = old.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
	})
}

func TestSignOutEndsBoth(t *testing.T) {
	for name, first := range map[string]string{"after a page": "/", "as the first request": ""} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, _ *scs.SessionManager, during http.Handler, ada *browser.Browser) {
				old := ada.At(during)
				if first != "" {
					_, _ = ada.Get(first)
				}
				current := ada.At(during)
				status, _ := ada.Post("/sign-out")
				require.Equal(t, http.StatusOK, status)
				require.Empty(t, ada.Cookies)
				for _, b := range []*browser.Browser{old, current} {
					require.NotEmpty(t, b.Cookies)
					status, _ = b.Get("/")
					require.Equal(t, http.StatusUnauthorized, status)
				}
			})
		})
	}
}

func TestSignInAfter(t *testing.T) {
	in(t, func(t *testing.T, _ *scs.SessionManager, during http.Handler, _ *browser.Browser) {
		grace := browser.New(during)
		status, _ := grace.Post("/sign-in", "user", "grace", "password", "wrong")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = grace.Post("/sign-in", "user", "grace", "password", "demo")
		require.Equal(t, http.StatusSeeOther, status)
		_, text := grace.Get("/")
		require.Contains(t, text, "Welcome back. Hello Grace, reader.")
		_, text = grace.Get("/")
		require.NotContains(t, text, "Welcome back.")
	})
}
