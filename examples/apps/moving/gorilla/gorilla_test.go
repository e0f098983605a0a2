package main

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/sessions"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/browser"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// in runs f in a bubble, with the site before and during, and signs ada in
// before.
func in(t *testing.T, f func(t *testing.T, store *sessions.CookieStore, during http.Handler, ada *browser.Browser)) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore([]byte(strings.Repeat("k", 32)))
		a, err := newAuthority("https://site.example", authority.Memory())
		require.NoError(t, err)
		during := newDuring(store, a, time.Now().Add(time.Hour))
		ada := browser.New(newBefore(store))
		status, _ := ada.Post("/sign-in", "user", "ada", "password", "wrong")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = ada.Post("/sign-in", "user", "ada", "password", "demo")
		require.Equal(t, http.StatusSeeOther, status)
		status, _ = ada.Post("/theme", "theme", "dark")
		require.Equal(t, http.StatusSeeOther, status)
		ada.Site = during
		_, text := ada.Get("/")
		require.Equal(t, "Welcome back. Hello Ada, editor. Theme \"dark\".\n", text)
		require.Contains(t, ada.Cookies, "site")
		time.Sleep(time.Hour + time.Second)
		f(t, store, during, ada)
	})
}

func TestSignedInBeforeAndAfter(t *testing.T) {
	in(t, func(t *testing.T, store *sessions.CookieStore, during http.Handler, ada *browser.Browser) {
		t.Cleanup(func() { site.SetRole("ada", "editor") })
		old := ada.At(during)
		site.SetRole("ada", "chief")
		status, text := ada.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "Hello Ada, chief. Theme \"dark\".\n", text, "the database is the authority")
		require.NotContains(t, ada.Cookies, "site")
		require.Contains(t, ada.Cookies, "__Host-session")

		status, _ = old.At(newBefore(store)).Get("/")
		require.Equal(t, http.StatusOK, status, "gorilla/sessions would accept it")
		status, _ = old.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = ada.At(newBefore(store)).Get("/")
		require.Equal(t, http.StatusUnauthorized, status, "never the other way round")

		time.Sleep(3 * 24 * time.Hour)
		status, text = ada.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, `Theme "dark"`)
	})
}

// TestOtherSpelling: a cookie in another spelling of base64 is the same old
// session.
func TestOtherSpelling(t *testing.T) {
	in(t, func(t *testing.T, store *sessions.CookieStore, during http.Handler, ada *browser.Browser) {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		// The length of the theme decides how many bits of the last letter count.
		for name := ""; !strings.HasSuffix(ada.Cookies["site"], "="); name += "x" {
			before := ada.At(newBefore(store))
			status, _ := before.Post("/theme", "theme", name)
			require.Equal(t, http.StatusSeeOther, status)
			ada = before.At(during)
		}
		value := ada.Cookies["site"]
		body := strings.TrimRight(value, "=")
		last := strings.IndexByte(alphabet, body[len(body)-1])
		other := body[:len(body)-1] + string(alphabet[last|1]) + value[len(body):]
		require.NotEqual(t, value, other)
		thief := browser.New(during)
		thief.Cookies["site"] = other
		status, _ := thief.At(newBefore(store)).Get("/")
		require.Equal(t, http.StatusOK, status, "gorilla/sessions accepts it")

		status, _ = ada.Get("/")
		require.Equal(t, http.StatusOK, status)
		status, _ = thief.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
	})
}

func TestSignOutEndsBoth(t *testing.T) {
	for name, first := range map[string]string{"after a page": "/", "as the first request": ""} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, _ *sessions.CookieStore, during http.Handler, ada *browser.Browser) {
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

// TestEarlierCookie: each save made another cookie, which is an old session of
// its own. A sign-out everywhere ends all of them.
func TestEarlierCookie(t *testing.T) {
	in(t, func(t *testing.T, store *sessions.CookieStore, during http.Handler, ada *browser.Browser) {
		earlier := ada.At(newBefore(store))
		second := ada.At(newBefore(store))
		_, _ = second.Post("/theme", "theme", "light")
		third := ada.At(newBefore(store))
		_, _ = third.Post("/theme", "theme", "blue")
		earlier.Site, second.Site, third.Site = during, during, during
		for _, b := range []*browser.Browser{earlier, second} {
			status, _ := b.Get("/")
			require.Equal(t, http.StatusOK, status)
		}
		status, _ := second.Post("/sign-out-everywhere")
		require.Equal(t, http.StatusOK, status)
		for _, b := range []*browser.Browser{earlier, second, third} {
			status, _ := b.Get("/")
			require.Equal(t, http.StatusUnauthorized, status)
		}
	})
}

func TestSignInAfter(t *testing.T) {
	in(t, func(t *testing.T, _ *sessions.CookieStore, during http.Handler, _ *browser.Browser) {
		grace := browser.New(during)
		status, _ := grace.Post("/sign-in", "user", "grace", "password", "wrong")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = grace.Post("/sign-in", "user", "grace", "password", "demo")
		require.Equal(t, http.StatusSeeOther, status)
		_, text := grace.Get("/")
		require.Equal(t, "Welcome back. Hello Grace, reader. Theme \"\".\n", text)
		_, text = grace.Get("/")
		require.NotContains(t, text, "Welcome back.")
		status, _ = grace.Post("/theme", "theme", "light")
		require.Equal(t, http.StatusSeeOther, status)
		_, text = grace.Get("/")
		require.Contains(t, text, `Theme "light"`)
	})
}
