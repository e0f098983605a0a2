package sessionhttp_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func basic(id, secret string) []string {
	req, _ := http.NewRequest("POST", "/", nil)
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	return []string{"Authorization", req.Header.Get("Authorization")}
}

// A native client signs out with any of its tokens; what is no token of ours is
// 200 too (RFC 7009 section 2.2).
func TestRevokeHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.month(), s.month()
		send := func(token string, more ...string) *http.Response {
			form := url.Values{"token": {token}}
			for i := 0; i < len(more); i += 2 {
				form.Set(more[i], more[i+1])
			}
			return r.do(formRequest("/revoke", form))
		}
		for _, tt := range []string{"refresh", "access", "used up", "an expired access token", "by Basic", "with a wrong hint"} {
			tokens := r.native(t)
			var resp *http.Response
			switch tt {
			case "refresh":
				resp = send(tokens.RefreshToken, "client_id", "app", "token_type_hint", "refresh_token")
			case "access":
				resp = send(tokens.AccessToken, "client_id", "app")
			case "used up":
				used := tokens.RefreshToken
				tokens = tokensIn(t, r.do(refreshRequest(grant(used))))
				resp = send(used, "client_id", "app")
			case "an expired access token":
				time.Sleep(3 * time.Hour)
				resp = send(tokens.AccessToken)
			case "by Basic":
				resp = r.do(formRequest("/revoke", url.Values{"token": {tokens.RefreshToken}}, basic("app", "")...))
			case "with a wrong hint":
				resp = send(tokens.RefreshToken, "client_id", "app", "token_type_hint", "access_token")
			}
			require.Equal(t, 200, resp.StatusCode, tt)
			require.Contains(t, held(resp, "Cache-Control"), "no-store")
			require.Empty(t, body(t, resp))
			time.Sleep(time.Minute)
			require.Equal(t, 401, other.status(request("GET", "/who", "", bearer(tokens.AccessToken)...)), tt)
			require.Equal(t, 400, other.status(refreshRequest(grant(tokens.RefreshToken))), tt)
		}
		written := s.revoked.written.Load()
		for _, garbage := range []string{"x", "a.b.c", r.native(t).AccessToken + "x"} {
			require.Equal(t, 200, send(garbage).StatusCode)
		}
		require.Equal(t, written, s.revoked.written.Load())

		tokens, b := r.native(t), r.browse(t)
		require.Equal(t, 400, send("").StatusCode)
		require.Equal(t, 400, send(tokens.RefreshToken, "client_id", "other").StatusCode, "another client's")
		require.Equal(t, 401, send(tokens.RefreshToken).StatusCode, "which client?")
		require.Equal(t, 400, send(b.refresh).StatusCode, "a browser's")
		require.Equal(t, 405, r.status(request("GET", "/revoke", "")))
		require.Equal(t, 400, r.status(request("POST", "/revoke", "")))
		s.revoked.down.Store(true)
		for range 2 {
			resp := send(tokens.RefreshToken, "client_id", "app")
			require.Equal(t, 503, resp.StatusCode)
			require.JSONEq(t, `{"error":"temporarily_unavailable"}`, body(t, resp))
		}
		s.revoked.down.Store(false)
		time.Sleep(10 * time.Second)
		require.Equal(t, 200, send(tokens.RefreshToken, "client_id", "app").StatusCode)
		require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
	})
}

// A confidential client names itself in a Basic header; one that names itself
// nowhere is told so, and not that its user has to sign in again.
func TestClientOfABasicHeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		tokens := r.native(t)
		without := grant(tokens.RefreshToken)
		without.Del("client_id")
		resp := r.do(refreshRequest(without))
		require.Equal(t, 401, resp.StatusCode)
		require.JSONEq(t, `{"error":"invalid_client"}`, body(t, resp))
		require.NotEmpty(t, resp.Header.Get("WWW-Authenticate"))
		resp = r.do(refreshRequest(without, "Authorization", "Basic %%%"))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, 400, r.status(refreshRequest(without, basic("other", "secret")...)))
		resp = r.do(refreshRequest(without, basic("app", "secret")...))
		require.Equal(t, 200, resp.StatusCode)
		next := tokensIn(t, resp)
		resp = r.do(refreshRequest(grant(next.RefreshToken), basic("staging", "secret")...))
		require.Equal(t, 200, resp.StatusCode, "a public client behind a staging site's password")
	})
}

// A browser behind a staging site's password has its cookie read all the same.
func TestAnotherSchemeBesideTheCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		b := r.browse(t)
		for _, path := range []string{"/who", "/session/refresh", "/others", "/renew", "/session/out"} {
			resp := r.send(b, "POST", path, basic("staging", "x")...)
			require.Less(t, resp.StatusCode, 300, path)
		}
		require.Equal(t, browser{}, *b)
	})
}
