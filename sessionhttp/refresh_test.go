package sessionhttp_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

func refreshRequest(form url.Values) *http.Request {
	req := httptest.NewRequest("POST", "https://a.example/refresh?refresh_token=query", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

func grant(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"app"}}
}

func TestNativeClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.replica(), s.replica()
		tokens, err := r.SignInNative(t.Context(), "app", "phone", "ada", state{Name: "Ada"})
		require.NoError(t, err)
		require.EqualValues(t, 300, tokens.ExpiresIn)
		who := body(t, r.do(request("GET", "/who", "", "Authorization", "Bearer "+tokens.AccessToken)))

		time.Sleep(30 * time.Minute)
		resp := other.do(refreshRequest(grant(tokens.RefreshToken)))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
		var next sessionhttp.Tokens
		require.NoError(t, json.Unmarshal([]byte(body(t, resp)), &next))
		require.Equal(t, "Bearer", next.TokenType)
		require.NotEqual(t, tokens.RefreshToken, next.RefreshToken)
		now := body(t, r.do(request("GET", "/who", "", "Authorization", "Bearer "+next.AccessToken)))
		require.Equal(t, strings.Fields(who)[:2], strings.Fields(now)[:2], "the same session")
		require.Equal(t, "1", strings.Fields(now)[2], "with the state of now")

		// Neither kind of token passes for the other.
		require.Equal(t, 401, r.do(request("GET", "/who", "", "Authorization", "Bearer "+next.RefreshToken)).StatusCode)
		require.Equal(t, 400, r.do(refreshRequest(grant(next.AccessToken))).StatusCode)

		require.Equal(t, 200, r.do(request("POST", "/out", "", "Authorization", "Bearer "+next.AccessToken)).StatusCode)
		resp = other.do(refreshRequest(grant(next.RefreshToken)))
		require.Equal(t, 400, resp.StatusCode, "signed out")
		require.JSONEq(t, `{"error":"invalid_grant"}`, body(t, resp))
	})
}

// A browser that was closed, or idle for longer than its token can be renewed,
// goes on with the refresh token in a cookie that nothing else is sent.
func TestRefreshCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		longer := func(c *sessionhttp.Config[state]) {
			c.RefreshPath, c.DeviceLabel = "/refresh", func(*http.Request) string { return "laptop" }
			manager, err := refresh.NewManager(refresh.Config{
				Store: &s.families, Secrets: [][]byte{bytes.Repeat([]byte{7}, 32)}, Sessions: c.Ender, IdleTimeout: 12 * time.Hour, Logger: slog.New(slog.DiscardHandler),
			})
			require.NoError(t, err)
			c.Refresh = manager
		}
		r := s.replica(longer)
		const refreshName = "__Secure-session-refresh"
		both := func(resp *http.Response) (session, token string) {
			t.Helper()
			require.Len(t, resp.Cookies(), 2)
			for _, c := range resp.Cookies() {
				switch c.Name {
				case name:
					session = c.Value
				case refreshName:
					token = c.Value
				}
			}
			return session, token
		}
		post := func(path, token string, header ...string) *http.Response {
			req := request("POST", path, "", header...)
			if token != "" {
				req.Header.Add("Cookie", refreshName+"="+token)
			}
			return r.do(req)
		}
		resp := r.do(request("POST", "/in", ""))
		require.Regexp(t, `^__Secure-session-refresh=[\w-]+; Path=/refresh; Max-Age=86400; HttpOnly; Secure; SameSite=Strict$`, resp.Header["Set-Cookie"][0])
		session, token := both(resp)
		list, err := s.families.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Equal(t, "laptop", list[0].Label)

		time.Sleep(5 * time.Hour)
		require.Equal(t, 401, r.do(request("GET", "/who", session)).StatusCode)
		resp = post("/refresh", token, "Sec-Fetch-Site", "cross-site")
		require.Equal(t, 403, resp.StatusCode)
		require.Empty(t, resp.Cookies())
		s.fail(errDown)
		resp = post("/refresh", token)
		require.Equal(t, 503, resp.StatusCode)
		require.Empty(t, resp.Cookies(), "kept")
		s.fail(nil)

		resp = post("/refresh", token)
		require.Equal(t, 204, resp.StatusCode)
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		session, next := both(resp)
		require.Empty(t, body(t, resp))
		resp = post("/refresh", token) // the loser of a race
		require.Equal(t, 204, resp.StatusCode)
		_, same := both(resp)
		require.Equal(t, next, same, "gets the successor's cookie")
		resp = r.do(request("GET", "/who", session))
		require.Equal(t, 200, resp.StatusCode)

		req := request("POST", "/refresh", "", "Cookie", refreshName+"="+token+"; "+refreshName+"="+next)
		require.Equal(t, 400, r.do(req).StatusCode, "two of them")
		require.Equal(t, 401, r.do(request("GET", "/who", next)).StatusCode, "it is no session token")

		time.Sleep(5 * time.Hour) // nothing is left but the refresh token
		resp = post("/out", next)
		require.Equal(t, 200, resp.StatusCode)
		for _, c := range resp.Cookies() {
			require.Equal(t, -1, c.MaxAge)
		}
		both(resp)
		resp = post("/refresh", next)
		require.Equal(t, 401, resp.StatusCode, "signed out")
		both(resp)
		require.Equal(t, 400, post("/refresh", "").StatusCode, "no cookie and no form")
	})
}

func TestRefreshHandlerRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		tokens, err := r.SignInNative(t.Context(), "app", "phone", "ada", state{})
		require.NoError(t, err)
		good := tokens.RefreshToken
		with := func(f func(url.Values)) url.Values { v := grant(good); f(v); return v }
		for name, tt := range map[string]struct {
			form   url.Values
			status int
			code   string
		}{
			"empty":         {url.Values{}, 400, "unsupported_grant_type"},
			"other grant":   {with(func(v url.Values) { v.Set("grant_type", "password") }), 400, "unsupported_grant_type"},
			"twice":         {with(func(v url.Values) { v.Add("refresh_token", good) }), 400, "invalid_request"},
			"garbage":       {grant("garbage"), 400, "invalid_grant"},
			"none":          {with(func(v url.Values) { v.Del("refresh_token") }), 400, "invalid_grant"},
			"other client":  {with(func(v url.Values) { v.Set("client_id", "x") }), 400, "invalid_grant"},
			"without it":    {with(func(v url.Values) { v.Del("client_id") }), 400, "invalid_grant"},
			"a large body":  {with(func(v url.Values) { v.Set("x", strings.Repeat("a", 9000)) }), 400, "invalid_request"},
			"query ignored": {with(func(v url.Values) { v.Set("refresh_token", "") }), 400, "invalid_grant"},
		} {
			resp := r.do(refreshRequest(tt.form))
			require.Equal(t, tt.status, resp.StatusCode, name)
			require.JSONEq(t, `{"error":"`+tt.code+`"}`, body(t, resp), name)
			require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		}
		req := refreshRequest(grant(good))
		req.Header.Set("Content-Type", "application/json")
		require.Equal(t, 400, r.do(req).StatusCode)
		req = refreshRequest(grant(good))
		req.Method = "GET"
		require.Equal(t, 405, r.do(req).StatusCode)

		s.fail(errDown)
		resp := r.do(refreshRequest(grant(good)))
		require.Equal(t, 503, resp.StatusCode)
		time.Sleep(10 * time.Minute)
		s.fail(nil)
		require.Equal(t, 200, r.do(refreshRequest(grant(good))).StatusCode, "nothing was used up")
		time.Sleep(time.Minute)
		require.Equal(t, 400, r.do(refreshRequest(grant(good))).StatusCode, "now it was")

		tokens, err = r.SignInNative(t.Context(), "app", "phone", "ada", state{})
		require.NoError(t, err)
		s.fail(sessionhttp.ErrSessionOver)
		require.Equal(t, 400, r.do(refreshRequest(grant(tokens.RefreshToken))).StatusCode)
		require.Equal(t, 401, r.do(request("GET", "/who", "", "Authorization", "Bearer "+tokens.AccessToken)).StatusCode, "ended")
		for _, err := range r.refused {
			require.NotContains(t, err.Error(), good)
		}
	})
}
