package sessionhttp_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

func TestNativeClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.replica(), s.replica()
		tokens := r.native(t)
		require.EqualValues(t, 300, tokens.ExpiresIn)
		who := body(t, r.do(request("GET", "/who", "", "Authorization", "Bearer "+tokens.AccessToken)))

		time.Sleep(30 * time.Minute)
		resp := other.do(refreshRequest(grant(tokens.RefreshToken)))
		require.Equal(t, 200, resp.StatusCode)
		require.Contains(t, held(resp, "Cache-Control"), "no-store")
		require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
		next := tokensIn(t, resp)
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
		r := s.with(func(p *parts) {
			p.manager.IdleTimeout = 12 * time.Hour
			p.http = func(c *sessionhttp.Config[state]) {
				c.RefreshPath, c.DeviceLabel = "/session/", func(*http.Request) string { return "laptop" }
			}
		})
		resp := r.do(request("POST", "/session/in", ""))
		require.Regexp(t, `^__Secure-session-refresh=[\w-]+; Path=/session/; Max-Age=86400; HttpOnly; Secure; SameSite=Strict$`, resp.Header["Set-Cookie"][1])
		require.Regexp(t, `^__Host-session-binder=[\w-]{43}; Path=/; Max-Age=86400; HttpOnly; Secure; SameSite=Strict$`, resp.Header["Set-Cookie"][2])
		b := new(browser)
		b.take(resp)
		list, err := r.manager.List(t.Context(), "ada")
		require.NoError(t, err)
		require.Equal(t, "laptop", list[0].Label)

		time.Sleep(5 * time.Hour)
		require.Equal(t, 401, r.status(request("GET", "/who", b.session)))
		resp = r.send(b, "POST", "/session/refresh", "Sec-Fetch-Site", "cross-site")
		require.Equal(t, 403, resp.StatusCode)
		require.Empty(t, resp.Cookies())
		s.fail(errDown)
		resp = r.send(b, "POST", "/session/refresh")
		require.Equal(t, 503, resp.StatusCode)
		require.Empty(t, resp.Cookies(), "kept")
		s.fail(nil)

		first := *b
		resp = r.send(b, "POST", "/session/refresh")
		require.Equal(t, 204, resp.StatusCode)
		require.Contains(t, held(resp, "Cache-Control"), "no-store")
		require.Empty(t, body(t, resp))
		require.Len(t, resp.Cookies(), 3)
		require.NotEqual(t, first.refresh, b.refresh)
		require.Equal(t, first.binder, b.binder, "never rotated")
		loser := first
		require.Equal(t, 204, r.send(&loser, "POST", "/session/refresh").StatusCode)
		require.Equal(t, b.refresh, loser.refresh, "the loser of a race gets the successor's cookie")
		require.Equal(t, 200, r.status(request("GET", "/who", b.session)))
		require.Equal(t, 401, r.status(request("GET", "/who", b.refresh)), "it is no session token")

		time.Sleep(5 * time.Hour) // nothing is left but the refresh token
		b.session = ""
		left := *b
		resp = r.send(b, "POST", "/session/out")
		require.Equal(t, 200, resp.StatusCode)
		require.Len(t, resp.Cookies(), 3)
		require.Equal(t, browser{}, *b)
		resp = r.send(&left, "POST", "/session/refresh")
		require.Equal(t, 401, resp.StatusCode, "signed out")
		require.Empty(t, resp.Cookies(), "the answer may be late, and the cookies those of a new sign-in")
	})
}

func TestRefreshHandlerRefuses(t *testing.T) {
	nothing := formRequest("/refresh", nil)
	nothing.Body = nil
	require.Equal(t, 400, newSite(t).replica().status(nothing))
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		tokens := r.native(t)
		good := tokens.RefreshToken
		with := func(f func(url.Values)) url.Values { v := grant(good); f(v); return v }
		for _, row := range []struct {
			name   string
			form   url.Values
			status int
			code   string
		}{
			{"empty", url.Values{}, 400, "unsupported_grant_type"},
			{"other grant", with(func(v url.Values) { v.Set("grant_type", "password") }), 400, "unsupported_grant_type"},
			{"twice", with(func(v url.Values) { v.Add("refresh_token", good) }), 400, "invalid_request"},
			{"garbage", grant("garbage"), 400, "invalid_grant"},
			{"none", with(func(v url.Values) { v.Del("refresh_token") }), 400, "invalid_grant"},
			{"other client", with(func(v url.Values) { v.Set("client_id", "x") }), 400, "invalid_grant"},
			{"without it", with(func(v url.Values) { v.Del("client_id") }), 401, "invalid_client"},
			{"a large body", with(func(v url.Values) { v.Set("x", strings.Repeat("a", 9000)) }), 400, "invalid_request"},
			{"query ignored", with(func(v url.Values) { v.Set("refresh_token", "") }), 400, "invalid_grant"},
		} {
			resp := r.do(refreshRequest(row.form))
			require.Equal(t, row.status, resp.StatusCode, row.name)
			require.JSONEq(t, `{"error":"`+row.code+`"}`, body(t, resp), row.name)
			require.Contains(t, held(resp, "Cache-Control"), "no-store")
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
		require.Equal(t, 200, r.do(refreshRequest(grant(good))).StatusCode, "now it was, and a late retry is forgiven once")
		time.Sleep(time.Minute)
		require.Equal(t, 400, r.do(refreshRequest(grant(good))).StatusCode)

		tokens = r.native(t)
		s.fail(sessionhttp.ErrSessionOver)
		require.Equal(t, 400, r.do(refreshRequest(grant(tokens.RefreshToken))).StatusCode)
		require.Equal(t, 401, r.do(request("GET", "/who", "", "Authorization", "Bearer "+tokens.AccessToken)).StatusCode, "ended")
		for _, err := range r.refused {
			require.NotContains(t, err.Error(), good)
		}
	})
}
