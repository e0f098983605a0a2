package sessionhttp_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// A refresh cookie counts only beside the binder that was set with it: one that a
// neighbour has planted gives no user the session of another, and harms none.
func TestPlantedRefreshCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		victim, attacker, visitor := r.browse(t), r.browse(t), new(browser)
		phone := r.native(t).RefreshToken
		who := func(b *browser) string { return strings.Fields(body(t, r.send(b, "GET", "/who")))[1] }
		mine := who(victim)
		var garbage []string
		for range 32 {
			garbage = append(garbage, rand.Text())
		}
		plant := func(b *browser, values ...string) *http.Request {
			left := *b
			left.refresh = ""
			req := left.request("POST", "/session/refresh")
			for _, v := range values {
				req.AddCookie(&http.Cookie{Name: refreshName, Value: v})
			}
			return req
		}
		for _, tt := range []struct {
			name   string
			b      *browser
			values []string
			status int
		}{
			{"planted alone, before a sign-in", visitor, []string{attacker.refresh}, 401},
			{"planted over", victim, []string{attacker.refresh}, 401},
			{"a native client's planted over", victim, []string{phone}, 401},
			{"planted beside", victim, []string{attacker.refresh, victim.refresh}, 204},
			{"garbage beside", victim, []string{"x", "y", "", "z", "é", victim.refresh}, 204},
			{"a native client's beside", victim, []string{phone, victim.refresh}, 204},
			{"too many beside", victim, append(garbage, victim.refresh), 401},
		} {
			resp := r.do(plant(tt.b, tt.values...))
			require.Equal(t, tt.status, resp.StatusCode, tt.name)
			if tt.status == 204 {
				victim.take(resp)
				require.Equal(t, mine, who(victim), tt.name)
			} else {
				require.Empty(t, resp.Cookies(), tt.name)
			}
		}
		req := plant(victim, victim.refresh)
		req.AddCookie(&http.Cookie{Name: binderName, Value: attacker.binder})
		require.Equal(t, 401, r.status(req), "two binders")
		unbound := *victim
		unbound.binder = ""
		require.Equal(t, 401, r.send(&unbound, "POST", "/session/refresh").StatusCode)
		require.Equal(t, 204, r.send(victim, "POST", "/session/refresh").StatusCode, "none of it was a reuse")
		require.Equal(t, 204, r.send(attacker, "POST", "/session/refresh").StatusCode, "nor did it end the other's")
	})
}

// The binder is the refresh token's: as long-lived, of this host alone, never
// rotated, and new with each sign-in.
func TestBinderCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		for _, tt := range []struct {
			name   string
			change func(*sessionhttp.Config[state])
			suffix string
		}{
			{"default", func(*sessionhttp.Config[state]) {}, "SameSite=Strict"},
			{"a shared domain", func(c *sessionhttp.Config[state]) { c.CookieDomain = "a.example" }, "SameSite=Strict"},
			{"None", func(c *sessionhttp.Config[state]) {
				c.SameSite, c.InsecureSameSiteNone = http.SameSiteNoneMode, true
			}, "SameSite=None"},
		} {
			r := s.month(func(p *parts) {
				before := p.http
				p.http = func(c *sessionhttp.Config[state]) { before(c); tt.change(c) }
			})
			b := new(browser)
			for i, path := range []string{"/session/in", "/session/refresh", "/session/refresh", "/session/in", "/session/out"} {
				time.Sleep(time.Hour)
				old := *b
				resp := r.send(b, "POST", path)
				require.Less(t, resp.StatusCode, 300, "%s %d", tt.name, i)
				for _, line := range resp.Header["Set-Cookie"] {
					if strings.HasPrefix(line, "__Secure-session=") {
						continue
					}
					if strings.HasSuffix(line, "; Partitioned") {
						require.Equal(t, "None", tt.name)
						require.Contains(t, line, "=; ")
						require.Contains(t, line, "; Max-Age=0; ", "what another configuration may have set")
						continue
					}
					require.NotContains(t, line, "Domain", tt.name)
					if !strings.HasPrefix(line, name+"=") {
						require.True(t, strings.HasSuffix(line, "HttpOnly; Secure; "+tt.suffix), line)
					}
				}
				var ages []int
				for _, c := range resp.Cookies() {
					if (c.Name == refreshName || c.Name == binderName) && !c.Partitioned {
						ages = append(ages, c.MaxAge)
					}
				}
				require.Len(t, ages, 2)
				require.Equal(t, ages[0], ages[1])
				require.Equal(t, path == "/session/refresh", old.binder == b.binder && b.binder != "")
			}
		}
	})
}

// What the user's cookie cannot hold is found out before the refresh token is
// used up: it is 500 and told, and the token goes on when the state is smaller.
func TestTooLargeARefreshUsesNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.month()
		b := r.browse(t)
		for _, big := range []int64{2800, 20_000} { // the cookie; the token
			s.big.Store(big)
			for range 3 {
				time.Sleep(time.Minute)
				resp := r.send(b, "POST", "/session/refresh")
				require.Equal(t, 500, resp.StatusCode)
				require.Empty(t, resp.Header.Get("Retry-After"))
				require.Empty(t, resp.Cookies())
			}
		}
		s.big.Store(0)
		require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
	})
}

// A browser's refresh may have an empty body of any kind; without a cookie it is
// 401, which is no error of a first visit.
func TestBrowserRefreshBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		for _, tt := range []struct {
			name, kind, body string
			chunked          bool
		}{
			{"none", "", "", false},
			{"an empty chunked body", "", "", true},
			{"axios.post(url, {})", "application/json", "{}", false},
			{"axios, chunked", "application/json", "{}", true},
			{"an empty form", "application/x-www-form-urlencoded", "", false},
			{"text", "text/plain;charset=UTF-8", "", false},
			{"a form of something else", "application/x-www-form-urlencoded", "a=b", false},
		} {
			b := r.browse(t)
			for _, signedIn := range []bool{true, false} {
				req := b.request("POST", "/session/refresh")
				if !signedIn {
					req = new(browser).request("POST", "/session/refresh")
				}
				req.Body = http.NoBody
				if tt.body != "" || tt.chunked {
					req = formRequest("/session/refresh", nil)
					req.Header = b.request("POST", "/session/refresh").Header
					if !signedIn {
						req.Header = http.Header{}
					}
					req.Body = readCloser{strings.NewReader(tt.body)}
					req.ContentLength = int64(len(tt.body))
				}
				if tt.chunked {
					req.ContentLength, req.TransferEncoding = -1, []string{"chunked"}
				}
				if tt.kind != "" {
					req.Header.Set("Content-Type", tt.kind)
				}
				want := 401
				if signedIn {
					want = 204
				}
				require.Equal(t, want, r.status(req), tt.name)
			}
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// A native client's access token is no cookie: it is not renewed on the way, with
// no refresh token and no detection of reuse. A cookie's token in a header is
// accepted until it expires, and not renewed either.
func TestAccessTokenIsNoCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		tokens, b := r.native(t), r.browse(t)
		for range 4 {
			resp := r.do(request("GET", "/who", tokens.AccessToken))
			require.Equal(t, 401, resp.StatusCode)
			require.Empty(t, resp.Cookies(), "it is not ours to remove")
			time.Sleep(90 * time.Second)
		}
		require.Equal(t, 401, r.status(request("GET", "/who", tokens.AccessToken)), "nor when it has expired")
		resp := r.do(refreshRequest(grant(tokens.RefreshToken)))
		require.Equal(t, 401, r.status(request("GET", "/who", tokensIn(t, resp).AccessToken)), "nor is the next one")

		require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
		time.Sleep(4 * time.Minute)
		resp = r.do(request("GET", "/who", "", bearer(b.session)...))
		require.Equal(t, 200, resp.StatusCode)
		require.Empty(t, resp.Cookies())
		time.Sleep(time.Minute)
		require.Equal(t, 401, r.status(request("GET", "/who", "", bearer(b.session)...)))
		require.Equal(t, 200, r.send(b, "GET", "/who").StatusCode)
	})
}

// A wall clock that jumps moves nothing, here neither: all times are the store's.
func TestWallClockJumps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := new(clock.Clock)
		s := newSite(t)
		var r *replica
		clock.As(c, func() { r = s.month() })
		b, tokens := r.browse(t), r.native(t)
		for _, ahead := range []time.Duration{32 * 24 * time.Hour, -24 * time.Hour, time.Minute} {
			c.SetAhead(ahead)
			require.Equal(t, 200, r.send(b, "GET", "/who").StatusCode)
			require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
			resp := r.do(refreshRequest(grant(tokens.RefreshToken)))
			require.Equal(t, 200, resp.StatusCode)
			tokens = tokensIn(t, resp)
			require.EqualValues(t, 300, tokens.ExpiresIn)
			require.Equal(t, 200, r.status(b.request("POST", "/pay")))
			require.Equal(t, 200, r.send(b, "POST", "/session/in").StatusCode)
		}
	})
}

// A neighbour plants refresh cookies, as many as it likes, genuine ones of its
// own among them: the browser's own counts still, to refresh and to sign out.
func TestManyPlantedRefreshCookies(t *testing.T) {
	for _, tt := range []struct {
		name    string
		planted func(r *replica) string
	}{
		{"made up", func(*replica) string { return rand.Text() }},
		{"genuine", func(r *replica) string { return r.native(t).RefreshToken }},
	} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			r := s.month()
			b := r.browse(t)
			plant := func(req *http.Request) *http.Request {
				line := ""
				for range 12 {
					line += refreshName + "=" + tt.planted(r) + "; "
				}
				req.Header.Set("Cookie", line+req.Header.Get("Cookie"))
				return req
			}
			resp := r.do(plant(b.request("POST", "/session/refresh")))
			require.Equal(t, 204, resp.StatusCode, tt.name)
			b.take(resp)
			old := *b
			resp = r.do(plant(b.request("POST", "/session/out")))
			require.Equal(t, 200, resp.StatusCode, tt.name)
			require.Equal(t, 401, r.send(&old, "POST", "/session/refresh").StatusCode, tt.name)
		})
	}
}

// slowFamilies is a store of refresh tokens of which each reading takes 2 s.
type slowFamilies struct{ refresh.Store }

func (s slowFamilies) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	time.Sleep(2 * time.Second)
	return s.Store.Find(ctx, namespace, id)
}

// A refresh takes 5 s at most, also if it has to find out which cookie counts.
func TestSlowRefreshOfSeveralCookies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.month(func(p *parts) { p.manager.Store = slowFamilies{&s.families} })
		b, other := r.browse(t), r.browse(t)
		req := b.request("POST", "/session/refresh")
		req.AddCookie(&http.Cookie{Name: refreshName, Value: other.refresh})
		_, took := timed(func() *http.Response { return r.do(req) })
		require.LessOrEqual(t, took, 5*time.Second)
		req = b.request("POST", "/session/refresh")
		req.Header.Set("Cookie", refreshName+"="+other.refresh+"; "+req.Header.Get("Cookie"))
		_, took = timed(func() *http.Response { return r.do(req) })
		require.LessOrEqual(t, took, 5*time.Second)
		time.Sleep(10 * time.Second)
	})
}
