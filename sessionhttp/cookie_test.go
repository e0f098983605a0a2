package sessionhttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/stretchr/testify/require"
)

func TestCookieIsSafe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		resp := r.do(request("POST", "/in", ""))
		set := resp.Header["Set-Cookie"]
		require.Len(t, set, 1)
		value, attributes, _ := strings.Cut(set[0], ";")
		require.True(t, strings.HasPrefix(value, name+"=ey"))
		require.Equal(t, " Path=/; HttpOnly; Secure; SameSite=Lax", attributes)
		require.Empty(t, body(t, resp), "the token is not in the body")

		resp = r.do(request("POST", "/out", resp.Cookies()[0].Value))
		require.Equal(t, name+"=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax", resp.Header["Set-Cookie"][0])
		require.Contains(t, held(resp, "Cache-Control"), "no-store")
	})
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica(func(c *sessionhttp.Config[state]) {
			c.CookieDomain, c.CookieName, c.SameSite = "a.example", "s", http.SameSiteStrictMode
		})
		set := r.do(request("POST", "/in", "")).Header.Get("Set-Cookie")
		require.True(t, strings.HasPrefix(set, "__Secure-s=ey"))
		require.True(t, strings.HasSuffix(set, "; Path=/; Domain=a.example; HttpOnly; Secure; SameSite=Strict"))
	})
}

func TestOnlyOverHTTPS(t *testing.T) {
	r := newSite(t).replica()
	behind := newSite(t).replica(func(c *sessionhttp.Config[state]) { c.TLSInFront = true })
	for _, tt := range []struct {
		host string
		ok   bool
	}{
		{"a.example", false}, {"localhost", true}, {"localhost:8080", true}, {"127.0.0.1:8080", true}, {"[::1]:80", true}, {"[::1]", true},
		{"localhost.a.example", false}, {"localhostx:80", false}, {"127.0.0.1.a.example:80", false}, {"10.0.0.1:80", false}, {"", false},
		{"LOCALHOST", true}, {"app.localhost", true}, {"App.LocalHost:3000", true}, {"127.0.0.2", true}, {"127.1.2.3:80", true}, {"xlocalhost", false},
	} {
		for _, path := range []string{"/in", "/native"} {
			req := httptest.NewRequest("POST", path, nil)
			req.Host, req.RemoteAddr = tt.host, "127.0.0.1:1234"
			require.Equal(t, tt.ok, r.status(req) == 200, tt.host)
			require.Equal(t, 200, behind.status(req))
		}
	}
	require.EqualValues(t, len(r.refused), r.Metrics()["sessionhttp_refused_insecure_total"])
	require.NotEmpty(t, r.refused)
}

func TestCookieOfUpTo4096Bytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		largest := 0
		for n := int64(2500); n < 2800; n++ {
			s.big.Store(n)
			resp := r.do(request("POST", "/in", ""))
			if resp.StatusCode != 200 {
				require.Equal(t, 500, resp.StatusCode, "it will never succeed")
				require.Empty(t, resp.Header["Set-Cookie"])
				require.ErrorContains(t, r.lastRefusal(), "4096 B")
				break
			}
			largest = len(name) + len(cookieOf(t, resp))
			require.LessOrEqual(t, largest, 4096)
		}
		require.GreaterOrEqual(t, largest, 4094)
	})
}

// Nothing that was there before the sign-in becomes the session, or outlives it.
func TestFixation(t *testing.T) {
	r := newSite(t).replica()
	planted := r.signIn(t)
	resp := r.do(request("POST", "/in", planted))
	require.NotEqual(t, planted, cookieOf(t, resp))
	require.Equal(t, 401, r.do(request("GET", "/who", planted)).StatusCode, "ended")
	require.Equal(t, 200, r.do(request("GET", "/who", cookieOf(t, resp))).StatusCode)
}

// TestOverTheWire: a browser's cookie jar, TLS, and handlers on a real server.
func TestOverTheWire(t *testing.T) {
	s := newSite(t)
	r := s.replica()
	server := httptest.NewTLSServer(r.mux)
	defer server.Close()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := server.Client()
	client.Jar = jar
	post := func(path string) *http.Response {
		resp, err := client.Post(server.URL+path, "", nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	get := func(path string) int {
		resp, err := client.Get(server.URL + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		return resp.StatusCode
	}
	require.Equal(t, 401, get("/who"))
	require.Equal(t, 200, post("/in").StatusCode)
	require.Equal(t, 200, get("/who"))
	require.Equal(t, 200, post("/out").StatusCode)
	require.Equal(t, 401, get("/who"))
}

func TestStreamingAfterRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		cookie := r.signIn(t)
		r.mux.Handle("/stream", r.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)) // which unwraps it
			w.Header().Set("Cache-Control", "public")
			w.(http.Flusher).Flush()
			_, err := io.WriteString(w, "part")
			require.NoError(t, err)
			require.NoError(t, http.NewResponseController(w).Flush())
		})))
		time.Sleep(4 * time.Minute)
		w := httptest.NewRecorder()
		r.mux.ServeHTTP(w, request("GET", "/stream", cookie))
		require.True(t, w.Flushed)
		require.Contains(t, held(w.Result(), "Cache-Control"), "no-store")
	})
}

// cookies makes a Cookie header of values of our name.
func cookies(of string, values ...string) string {
	var all []string
	for _, v := range values {
		all = append(all, of+"="+v)
	}
	return strings.Join(all, "; ")
}

// Of several cookies of one name the genuine one counts, and signing in or out
// removes the others.
func TestSeveralSessionCookies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const name = "__Secure-session"
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) { c.CookieDomain = "a.example" })
		in := func() string {
			resp := r.do(request("POST", "/in", ""))
			require.Len(t, resp.Cookies(), 1)
			return resp.Cookies()[0].Value
		}
		a, b := in(), in()
		forged := a[:len(a)-4] + "AAAA"
		native := r.native(t).AccessToken
		with := func(path string, values ...string) *http.Response {
			return r.do(request("POST", path, "", "Cookie", cookies(name, values...)))
		}
		garbage := slices.Repeat([]string{"x"}, 2000)
		for _, tt := range []struct {
			name   string
			values []string
			status int
		}{
			{"forged and genuine", []string{forged, a}, 200},
			{"genuine and forged", []string{a, forged}, 200},
			{"garbage does not count", append(garbage, a), 200},
			{"of one session", []string{a, a}, 200},
			{"a native client's access token beside it", []string{native, a}, 200},
			{"of two sessions", []string{a, b}, 400},
			{"of two sessions, with garbage", []string{a, "x", forged, b}, 400},
			{"forged alone", []string{forged, forged + "x"}, 401},
			{"no more than four are looked at", []string{forged, forged[:100] + "x" + forged[101:], forged + "a", forged + "b", a}, 401},
		} {
			resp := with("/who", tt.values...)
			require.Equal(t, tt.status, resp.StatusCode, tt.name)
			if tt.status == 400 {
				require.NotEmpty(t, resp.Cookies())
				for _, c := range resp.Cookies() {
					require.Equal(t, -1, c.MaxAge)
				}
			}
		}
		for _, path := range []string{"/in", "/out"} {
			resp := r.do(httptest.NewRequest("POST", "https://www.app.a.example:8443"+path, nil))
			require.Len(t, resp.Header["Set-Cookie"], 1, "nothing to remove")
			req := httptest.NewRequest("POST", "https://www.app.a.example:8443"+path, nil)
			req.Header.Set("Cookie", cookies(name, a, forged))
			resp = r.do(req)
			require.Equal(t, 200, resp.StatusCode)
			var removed []string
			for _, c := range resp.Cookies() {
				require.Equal(t, name, c.Name)
				if c.MaxAge < 0 {
					removed = append(removed, c.Domain)
				}
			}
			want := []string{"", "www.app.a.example", "app.a.example"}
			if path == "/out" {
				want = append(want, "a.example")
			}
			require.Equal(t, want, removed, "the host's own, and those of another CookieDomain")
		}

		c := in()
		require.Equal(t, 200, with("/out", c, b).StatusCode)
		require.Equal(t, 401, with("/who", c).StatusCode, "a sign-out ends both")
		require.Equal(t, 401, with("/who", b).StatusCode)
		d := in()
		require.Equal(t, 200, with("/who", c, d).StatusCode, "one that is over does not count")
		old := in()
		time.Sleep(20 * time.Minute)
		require.Equal(t, 200, with("/who", d, old[:len(old)-4]+"AAAA").StatusCode, "expired and renewable")
		require.Equal(t, 400, with("/who", d, old).StatusCode)
	})
}

// countedKeys counts how often a key is asked for: once for each token that is
// looked at.
type countedKeys struct {
	*keys.Static
	asked atomic.Int64
}

func (k *countedKeys) KeySet(ctx context.Context, kid string) (*keys.Set, error) {
	k.asked.Add(1)
	return k.Static.KeySet(ctx, kid)
}

// Of a megabyte of cookies of our name four are looked at.
func TestMaxCookiesLookedAt(t *testing.T) {
	s := newSite(t)
	source := &countedKeys{Static: s.source}
	r := s.with(func(p *parts) { p.issuer.Keys, p.verifier.Keys = source, source })
	cookie := r.signIn(t)
	var forged []string
	for i := range 2045 {
		forged = append(forged, fmt.Sprintf("%s%06d", cookie[:len(cookie)-6], i))
	}
	for _, tt := range []struct {
		path string
		want int
	}{{"/who", 401}, {"/maybe", 200}, {"/out", 400}, {"/in", 200}, {"/everywhere", 400}, {"/others", 400}, {"/renew", 401}} {
		before := source.asked.Load()
		resp := r.do(request("POST", tt.path, "", "Cookie", cookies(name, forged...)))
		require.Equal(t, tt.want, resp.StatusCode, tt.path)
		require.LessOrEqual(t, source.asked.Load()-before, int64(10), tt.path)
	}
}

// An answer sets a cookie of one name once: the last one.
func TestOneSetCookieAName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		r.mux.Handle("/both/in", r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
			_, err := r.SignIn(w, req, sessiontoken.Start{Subject: "bob"}, state{})
			require.NoError(t, err)
		})))
		r.mux.Handle("/both/out", r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			require.NoError(t, r.SignOut(w, req))
		})))
		r.mux.Handle("/both/renew", r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			_, err := r.Renew(w, req)
			require.NoError(t, err)
		})))
		for _, path := range []string{"/both/in", "/both/out", "/both/renew"} {
			cookie := r.signIn(t)
			time.Sleep(4 * time.Minute)
			resp := r.do(request("POST", path, cookie))
			var ours []*http.Cookie
			for _, c := range resp.Cookies() {
				if c.Name == name {
					ours = append(ours, c)
				}
			}
			require.Len(t, ours, 1, path)
			if path == "/both/out" {
				require.Empty(t, ours[0].Value)
				continue
			}
			require.Equal(t, 200, r.status(request("GET", "/who", ours[0].Value)))
		}
	})
}

// A cookie is removed only when its session has been over for so long that no
// answer to a request with it can still be under way.
func TestDeadCookieIsRemovedInTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		idle, out := r.signIn(t), r.signIn(t)
		require.Equal(t, 200, r.status(request("POST", "/out", "", bearer(out)...)))
		require.Empty(t, r.do(request("GET", "/who", "garbage")).Cookies())
		time.Sleep(3 * time.Hour)
		for _, cookie := range []string{idle, out} {
			require.Empty(t, r.do(request("GET", "/who", cookie)).Cookies())
		}
		time.Sleep(22*time.Hour + time.Second)
		for _, cookie := range []string{idle, out} {
			for _, path := range []string{"/who", "/maybe"} {
				require.Equal(t, -1, r.do(request("GET", path, cookie)).Cookies()[0].MaxAge)
			}
		}
	})
}
