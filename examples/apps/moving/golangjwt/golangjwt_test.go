package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/browser"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

var secret = []byte(strings.Repeat("k", 32))

// in runs f in a bubble, with the site during, and signs ada in before: in a
// browser, and in an app whose token is old.
func in(t *testing.T, f func(t *testing.T, during http.Handler, ada *browser.Browser, old string)) {
	synctest.Test(t, func(t *testing.T) {
		a, err := newAuthority("https://site.example", authority.Memory())
		require.NoError(t, err)
		during := newDuring(secret, a, time.Now().Add(time.Hour))
		ada := browser.New(newBefore(secret))
		status, _ := ada.Post("/sign-in", "user", "ada", "password", "wrong")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = ada.Post("/sign-in", "user", "ada", "password", "demo")
		require.Equal(t, http.StatusSeeOther, status)
		time.Sleep(time.Second) // another iat, and so another token
		status, text := browser.New(during).Post("/api/token", "user", "ada", "password", "demo")
		require.Equal(t, http.StatusOK, status)
		var answer struct{ Token string }
		require.NoError(t, json.Unmarshal([]byte(text), &answer))
		ada.Site = during
		_, text = ada.Get("/")
		require.Equal(t, "Hello Ada, editor.\n", text)
		require.Contains(t, ada.Cookies, "token")
		status, _ = call(during, "POST", "/api/exchange", answer.Token)
		require.Equal(t, http.StatusUnauthorized, status, "too early")
		time.Sleep(time.Hour)
		f(t, during, ada, answer.Token)
	})
}

// call sends a request of the app.
func call(h http.Handler, method, path, token string, form ...string) (int, string) {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	r := httptest.NewRequest(method, "https://site.example"+path, strings.NewReader(values.Encode()))
	if len(form) > 0 {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestSignedInBeforeAndAfter(t *testing.T) {
	in(t, func(t *testing.T, during http.Handler, ada *browser.Browser, _ string) {
		t.Cleanup(func() { site.SetRole("ada", "editor") })
		old := ada.At(during)
		site.SetRole("ada", "chief")
		status, text := ada.Get("/")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "Hello Ada, chief.\n", text, "the database is the authority")
		require.NotContains(t, ada.Cookies, "token")
		require.Contains(t, ada.Cookies, "__Host-session")

		status, _ = old.At(newBefore(secret)).Get("/")
		require.Equal(t, http.StatusOK, status, "the site before would accept it")
		status, _ = old.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = ada.At(newBefore(secret)).Get("/")
		require.Equal(t, http.StatusUnauthorized, status, "never the other way round")

		time.Sleep(10 * time.Minute)
		status, _ = ada.Get("/")
		require.Equal(t, http.StatusOK, status)
	})
}

// TestOtherSpelling: a token whose signature is spelled otherwise is the same.
func TestOtherSpelling(t *testing.T) {
	in(t, func(t *testing.T, during http.Handler, ada *browser.Browser, _ string) {
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		token := ada.Cookies["token"]
		last := strings.IndexByte(alphabet, token[len(token)-1])
		thief := browser.New(during)
		thief.Cookies["token"] = token[:len(token)-1] + string(alphabet[last|1]) // 32 bytes leave two bits
		require.NotEqual(t, token, thief.Cookies["token"])
		status, _ := thief.At(newBefore(secret)).Get("/")
		require.Equal(t, http.StatusOK, status, "golang-jwt accepts it")
		status, _ = ada.Get("/")
		require.Equal(t, http.StatusOK, status)
		status, _ = thief.Get("/")
		require.Equal(t, http.StatusUnauthorized, status)
	})
}

func TestSignOutEndsBoth(t *testing.T) {
	for name, first := range map[string]string{"after a page": "/", "as the first request": ""} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, during http.Handler, ada *browser.Browser, _ string) {
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

// TestApp: an app exchanges its old token once, refreshes, and signs out.
func TestApp(t *testing.T) {
	in(t, func(t *testing.T, during http.Handler, _ *browser.Browser, old string) {
		status, _ := call(during, "GET", "/", old)
		require.Equal(t, http.StatusUnauthorized, status, "it is exchanged by name alone")
		status, text := call(during, "POST", "/api/exchange", old)
		require.Equal(t, http.StatusOK, status)
		var tokens struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
		require.NoError(t, json.Unmarshal([]byte(text), &tokens))
		status, text = call(during, "GET", "/", tokens.Access)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "Hello Ada, editor.\n", text)
		status, _ = call(during, "POST", "/api/exchange", old)
		require.Equal(t, http.StatusUnauthorized, status, "once")
		thief := browser.New(during)
		thief.Cookies["token"] = old
		status, _ = thief.Get("/")
		require.Equal(t, http.StatusUnauthorized, status, "nor as a cookie")
		status, _ = call(during, "POST", "/api/exchange", "no.token.x")
		require.Equal(t, http.StatusUnauthorized, status)

		time.Sleep(10 * time.Minute)
		status, _ = call(during, "GET", "/", tokens.Access)
		require.Equal(t, http.StatusUnauthorized, status)
		status, text = call(during, "POST", "/api/refresh", "", "grant_type", "refresh_token", "refresh_token", tokens.Refresh, "client_id", "app")
		require.Equal(t, http.StatusOK, status)
		require.NoError(t, json.Unmarshal([]byte(text), &tokens))
		status, _ = call(during, "GET", "/", tokens.Access)
		require.Equal(t, http.StatusOK, status)
		status, _ = call(during, "POST", "/api/sign-out", "", "token", tokens.Refresh, "client_id", "app")
		require.Equal(t, http.StatusOK, status)
		status, _ = call(during, "GET", "/", tokens.Access)
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = call(during, "POST", "/api/exchange", old)
		require.Equal(t, http.StatusUnauthorized, status)
	})
}

func TestSignInAfter(t *testing.T) {
	in(t, func(t *testing.T, during http.Handler, _ *browser.Browser, _ string) {
		grace := browser.New(during)
		status, _ := grace.Post("/sign-in", "user", "grace", "password", "wrong")
		require.Equal(t, http.StatusUnauthorized, status)
		status, _ = grace.Post("/sign-in", "user", "grace", "password", "demo")
		require.Equal(t, http.StatusSeeOther, status)
		_, text := grace.Get("/")
		require.Equal(t, "Hello Grace, reader.\n", text)
		status, text = call(during, "POST", "/api/token", "", "user", "grace", "password", "demo")
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, text, `"refresh_token"`)
	})
}
