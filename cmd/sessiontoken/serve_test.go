package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// siteState is the state of the authority's sessions. It has a version that
// older types cannot read.
type siteState struct {
	Role string                      `json:"role"`
	City string                      `json:"city"`
	Mail sessiontoken.Sealed[string] `json:"mail,omitzero"`
}

func (siteState) StateVersion() (version, readableBy int) { return 3, 2 }

func (s *siteState) UpgradeState(int, []byte) error { return nil }

const (
	feedCredential = "0123456789abcdefghijklmnopqrstuvwxyzABCD"
	sealedMail     = "ada@site.example"
)

// gateSite is an authority on loopback.
type gateSite struct {
	*authority.Authority[siteState]
	url   string
	state atomic.Pointer[siteState]
	renew atomic.Pointer[http.Handler] // in place of the authority's
}

func newGateSite(t *testing.T, change ...func(*authority.Config[siteState])) *gateSite {
	t.Helper()
	s, mux := &gateSite{}, http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.state.Store(&siteState{Role: "admin", City: "Zürich 🏔", Mail: sessiontoken.Seal(sealedMail)})
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	cfg := authority.Config[siteState]{
		Issuer: s.url, Audience: []string{"site", "node"}, Store: authority.Memory(), Secrets: [][]byte{secret},
		Load:       func(context.Context, *sessiontoken.Claims[siteState]) (siteState, error) { return *s.state.Load(), nil },
		HTTP:       sessionhttp.Config[siteState]{TLSInFront: true, TrustedOrigins: []string{"https://app.example"}},
		FeedTokens: []string{feedCredential}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	a, err := authority.New(cfg)
	require.NoError(t, err)
	s.Authority = a
	inBackground(t, a.Run)
	mux.Handle("/.well-known/", a.WellKnown())
	mux.Handle("/elsewhere", a.RenewHandler())
	mux.HandleFunc("/renew", func(w http.ResponseWriter, r *http.Request) {
		if h := s.renew.Load(); h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		a.RenewHandler().ServeHTTP(w, r)
	})
	return s
}

// inBackground runs a function until the test ends.
func inBackground(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

// signIn returns the value of the session cookie of a new session.
func (s *gateSite) signIn(t *testing.T, start sessiontoken.Start, options ...sessionhttp.SignInOption) string {
	t.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", s.url+"/sign-in", nil)
	_, err := s.Sessions().SignIn(w, r, start, *s.state.Load(), options...)
	require.NoError(t, err)
	return cookieOf(t, w.Header())
}

func cookieOf(t *testing.T, h http.Header) string {
	t.Helper()
	require.NotEmpty(t, h["Set-Cookie"])
	c, err := http.ParseSetCookie(h["Set-Cookie"][0])
	require.NoError(t, err)
	return c.Value
}

// newTestGate returns a gate that follows the site's feed.
func (s *gateSite) newTestGate(t *testing.T, change ...func(*serveOptions)) *gate {
	t.Helper()
	o := serveOptions{issuer: s.url, audience: "node", listen: "127.0.0.1:0", plainHTTP: true}
	for _, f := range change {
		f(&o)
	}
	c := &call{getenv: func(string) string { return feedCredential }}
	require.NoError(t, o.check(c))
	g, r, err := o.newGate(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	inBackground(t, r.Run)
	return g
}

// ask sends what a proxy sends about a request.
func ask(g http.Handler, method string, headers map[string]string) *http.Response {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://gate/auth", nil)
	r.Header.Set("X-Forwarded-Method", method)
	r.Header.Set("X-Forwarded-Host", "app.example")
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	g.ServeHTTP(w, r)
	return w.Result()
}

func TestServeAnswers(t *testing.T) {
	s := newGateSite(t)
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	other := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "bob"})
	tokens, err := s.Sessions().SignInNative(httptest.NewRequest("POST", s.url, nil), sessionhttp.Device{}, sessiontoken.Start{Subject: "eve"}, *s.state.Load())
	require.NoError(t, err)
	g := s.newTestGate(t, func(o *serveOptions) { o.origins = list{"https://shop.example"} })

	for _, tt := range []struct {
		name, method string
		headers      map[string]string
		status       int
		subject      string
	}{
		{"nothing", "GET", nil, 401, ""},
		{"a cookie", "GET", map[string]string{"Cookie": cookie}, 200, "ada"},
		{"a bearer token", "DELETE", map[string]string{"Authorization": "Bearer " + tokens.AccessToken}, 200, "eve"},
		{"a cookie beside another scheme", "GET", map[string]string{"Cookie": cookie, "Authorization": "Basic eDp5"}, 200, "ada"},
		{"a bearer token in the cookie", "GET", map[string]string{"Cookie": "__Host-session=" + tokens.AccessToken}, 401, ""},
		{"a cookie of another name", "GET", map[string]string{"Cookie": strings.Replace(cookie, "__Host-", "", 1)}, 401, ""},
		{"no token", "GET", map[string]string{"Cookie": "__Host-session=x"}, 401, ""},
		{"a changed token", "GET", map[string]string{"Cookie": cookie[:len(cookie)-6] + "AAAAAA"}, 401, ""},
		{"two sessions", "GET", map[string]string{"Cookie": cookie + "; " + other}, 401, ""},
		{"no bearer token", "GET", map[string]string{"Authorization": "Bearer"}, 401, ""},
		{"an invalid bearer token beside a cookie", "GET", map[string]string{"Cookie": cookie, "Authorization": "Bearer x"}, 401, ""},
		{"a POST of no browser", "POST", map[string]string{"Cookie": cookie}, 200, "ada"},
		{"a POST of the same origin", "POST", map[string]string{"Cookie": cookie, "Origin": "https://app.example", "Sec-Fetch-Site": "same-origin"}, 200, "ada"},
		{"a POST of the same origin, of an old browser", "POST", map[string]string{"Cookie": cookie, "Origin": "https://app.example"}, 200, "ada"},
		{"a POST of a trusted origin", "POST", map[string]string{"Cookie": cookie, "Origin": "https://shop.example", "Sec-Fetch-Site": "same-site"}, 200, "ada"},
		{"a POST of another site", "POST", map[string]string{"Cookie": cookie, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403, ""},
		{"a POST of a sibling", "POST", map[string]string{"Cookie": cookie, "Origin": "https://blog.app.example", "Sec-Fetch-Site": "same-site"}, 403, ""},
		{"a POST of an old browser from another site", "POST", map[string]string{"Cookie": cookie, "Origin": "https://evil.example"}, 403, ""},
		{"a method in small letters", "get", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, 403, ""},
		{"a method of its own", "PURGE", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, 403, ""},
		{"a link on another site", "GET", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200, "ada"},
		{"a WebSocket of another site, of which the proxy tells", "GET", map[string]string{"Cookie": cookie, "Origin": "https://evil.example", "Upgrade": "websocket"}, 403, ""},
		{"a WebSocket of another site, of which it does not", "GET", map[string]string{"Cookie": cookie, "Origin": "https://evil.example"}, 403, ""},
		{"a WebSocket of another site, without Origin", "GET", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Upgrade": "websocket"}, 403, ""},
		{"a WebSocket of the same origin", "GET", map[string]string{"Cookie": cookie, "Origin": "https://app.example"}, 200, "ada"},
		{"an origin without a host", "POST", map[string]string{"Cookie": cookie, "Origin": "https://app.example", "X-Forwarded-Host": ""}, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := ask(g, tt.method, tt.headers)
			require.Equal(t, tt.status, resp.StatusCode)
			require.Equal(t, tt.subject, resp.Header.Get(headerSubject))
			require.Contains(t, resp.Header.Get("Cache-Control"), "no-store")
			require.Equal(t, tt.status == 401, resp.Header.Get("WWW-Authenticate") != "")
			for _, name := range []string{headerSubject, headerSession, headerAudience, headerState} {
				n := 0
				if tt.status == 200 {
					n = 1
				}
				require.Len(t, resp.Header[name], n, name)
			}
			if tt.status == 200 {
				require.Equal(t, "node", resp.Header.Get(headerAudience))
				require.Equal(t, "{}", resp.Header.Get(headerState))
			}
		})
	}
}

// TestServeWantsToldByTheProxy: a proxy that does not overwrite what a client
// sends is noticed, and nothing passes.
func TestServeWantsToldByTheProxy(t *testing.T) {
	s := newGateSite(t)
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	g := s.newTestGate(t)
	for name, change := range map[string]func(http.Header){
		"no method":            func(h http.Header) { h.Del("X-Forwarded-Method") },
		"an empty method":      func(h http.Header) { h.Set("X-Forwarded-Method", "") },
		"two methods":          func(h http.Header) { h.Add("X-Forwarded-Method", "GET") },
		"two methods in one":   func(h http.Header) { h.Set("X-Forwarded-Method", "GET, POST") },
		"two hosts":            func(h http.Header) { h.Add("X-Forwarded-Host", "evil.example") },
		"two hosts in one":     func(h http.Header) { h.Set("X-Forwarded-Host", "app.example, evil.example") },
		"a method with spaces": func(h http.Header) { h.Set("X-Forwarded-Method", "GET ") },
	} {
		t.Run(name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://gate/auth", nil)
			r.Header = http.Header{"Cookie": {cookie}, "X-Forwarded-Method": {"GET"}, "X-Forwarded-Host": {"app.example"}}
			change(r.Header)
			g.ServeHTTP(w, r)
			require.Equal(t, 500, w.Code)
			require.Empty(t, w.Header()[headerSubject])
			require.Contains(t, w.Body.String(), "the proxy must send")
		})
	}
}

// TestServeHasNoHostOfItsOwn: without X-Forwarded-Host no origin is the request's
// own, and not that of the address at which the proxy asks.
func TestServeHasNoHostOfItsOwn(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t)
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "http://gate/auth", nil)
	r.Header = http.Header{"Cookie": {"__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})}, "X-Forwarded-Method": {"POST"}, "Origin": {"http://gate"}}
	g.ServeHTTP(w, r)
	require.Equal(t, 403, w.Code)
}

func TestServeForEnvoy(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.envoy = true })
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	for _, tt := range []struct {
		name, method, origin string
		status               int
	}{
		{"a page", "GET", "", 200},
		{"a POST of the same origin", "POST", "https://app.example", 200},
		{"a POST of another site", "POST", "https://evil.example", 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, r := httptest.NewRecorder(), httptest.NewRequest(tt.method, "http://app.example/gate/any/path?acr=x", nil)
			r.Header.Set("Cookie", cookie)
			r.Header.Set("X-Forwarded-Method", "GET") // from the client
			r.Header.Set("X-Forwarded-Host", "evil.example")
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			g.ServeHTTP(w, r)
			require.Equal(t, tt.status, w.Code)
		})
	}
}

func TestServeAnonymous(t *testing.T) {
	s := newGateSite(t)
	cookie := map[string]string{"Cookie": "__Host-session=" + s.signIn(t, sessiontoken.Start{}, sessionhttp.Anonymous())}
	require.Equal(t, 401, ask(s.newTestGate(t), "GET", cookie).StatusCode)
	resp := ask(s.newTestGate(t, func(o *serveOptions) { o.anonymous = true }), "GET", cookie)
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, resp.Header.Get(headerSubject), "anonymous:")
}

func TestServeACR(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.acr = list{"mfa", "hardware"} })
	resp := ask(g, "GET", map[string]string{"Cookie": "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada", ACR: "pwd"})})
	require.Equal(t, 401, resp.StatusCode)
	require.Contains(t, resp.Header.Get("WWW-Authenticate"), `acr_values="mfa hardware"`)
	require.Empty(t, resp.Header[headerSubject])
	require.Equal(t, 200, ask(g, "GET", map[string]string{"Cookie": "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada", ACR: "hardware"})}).StatusCode)
}

// TestServeState: chosen members pass, whatever the version of the state is. A
// sealed one does not, and no header can be made to hold another line.
func TestServeState(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.state = list{"city", "mail", "none"} })
	subject := "ada\r\nX-Session-State: {\"role\":\"root\"}\n 100%ü"
	resp := ask(g, "GET", map[string]string{"Cookie": "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: subject})})
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, `{"city":"Z\u00fcrich \ud83c\udfd4","mail":null}`, resp.Header.Get(headerState))
	require.Equal(t, "ada%0D%0AX-Session-State:%20{\"role\":\"root\"}%0A%20100%25%C3%BC", resp.Header.Get(headerSubject))
	require.NotContains(t, resp.Header.Get(headerState), sealedMail)
}

func TestOpenState(t *testing.T) {
	for _, tt := range []struct{ name, state, want string }{
		{"a string", `"x"`, "{}"},
		{"null", "null", "{}"},
		{"an array", `[{"a":1}]`, "{}"},
		{"none of them", `{"b":1}`, "{}"},
		{"in another case", `{"A":1}`, "{}"},
		{"spaces and lines", "{ \"a\" : [ 1,\n 2 ] , \"b\": 2 }", `{"a":[1,2]}`},
		{"control characters", `{"a":"` + "\u007f" + `\u000a"}`, `{"a":"\u007f\u000a"}`},
		{"the longest", `{"a":"` + strings.Repeat("x", maxState-8) + `"}`, `{"a":"` + strings.Repeat("x", maxState-8) + `"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := openState{[]byte(tt.state)}.choose([]string{"a"})
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
	_, err := openState{[]byte(`{"a":"` + strings.Repeat("x", maxState-7) + `"}`)}.choose([]string{"a"})
	require.ErrorIs(t, err, errState)
}

// TestServeRefusesATooLargeState: what does not fit is 500, and not cut.
func TestServeRefusesATooLargeState(t *testing.T) {
	s := newGateSite(t)
	s.state.Store(&siteState{City: strings.Repeat("ü", 1000)}) // 6 bytes each in the header
	g := s.newTestGate(t, func(o *serveOptions) { o.state = list{"city"} })
	resp := ask(g, "GET", map[string]string{"Cookie": "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})})
	require.Equal(t, 500, resp.StatusCode)
	require.Empty(t, resp.Header[headerSubject])
}

// changed marks the state of a user as changed, and waits until each of the gates
// knows that the cookie has to be renewed.
func (s *gateSite) changed(t *testing.T, cookie string, gates ...*gate) {
	t.Helper()
	require.NoError(t, s.Sessions().Changed(t.Context(), "ada"))
	r := httptest.NewRequest("GET", "http://app.example/", nil)
	r.Header.Set("Cookie", cookie)
	for _, g := range gates {
		require.Eventually(t, func() bool {
			_, err := g.sessions.Check(httptest.NewRecorder(), r)
			return errors.Is(err, sessiontoken.ErrChanged)
		}, 30*time.Second, 10*time.Millisecond)
	}
}

func TestServeRenews(t *testing.T) {
	s := newGateSite(t)
	without := s.newTestGate(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.renew, o.state = s.url+"/renew", list{"role"} })
	value := s.signIn(t, sessiontoken.Start{Subject: "ada"}, sessionhttp.Remember(true))
	cookie := "__Host-session=" + value
	require.Equal(t, `{"role":"admin"}`, ask(g, "GET", map[string]string{"Cookie": cookie}).Header.Get(headerState))
	s.state.Store(&siteState{Role: "reader"})
	s.changed(t, cookie, without, g)
	bearer := strings.TrimSuffix(value, "~r")

	for _, tt := range []struct {
		name, method string
		headers      map[string]string
		status       int
		renewed      bool
	}{
		{"a page", "GET", map[string]string{"Cookie": "a=b; " + cookie}, 200, true},
		{"a link on another site", "GET", map[string]string{"Cookie": cookie, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200, true},
		{"a POST of the same origin", "POST", map[string]string{"Cookie": cookie, "Origin": "https://app.example", "Sec-Fetch-Site": "same-origin"}, 200, true},
		{"a POST of an old browser, whose origin the authority knows", "POST", map[string]string{"Cookie": cookie, "Origin": "https://app.example"}, 200, true},
		{"a POST of another site", "POST", map[string]string{"Cookie": cookie, "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403, false},
		{"a WebSocket of another site", "GET", map[string]string{"Cookie": cookie, "Origin": "https://evil.example"}, 403, false},
		{"a bearer token", "GET", map[string]string{"Authorization": "Bearer " + bearer}, 401, false},
		{"a bearer token beside the cookie", "GET", map[string]string{"Authorization": "bearer " + bearer, "Cookie": cookie}, 401, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := ask(g, tt.method, tt.headers)
			require.Equal(t, tt.status, resp.StatusCode)
			require.Equal(t, tt.renewed, len(resp.Header["Set-Cookie"]) == 1)
			if tt.renewed {
				require.Equal(t, "ada", resp.Header.Get(headerSubject))
				require.Equal(t, `{"role":"reader"}`, resp.Header.Get(headerState))
				require.Contains(t, resp.Header.Get("Set-Cookie"), "; Max-Age=") // as the authority has set it
				require.Equal(t, 200, ask(without, "GET", map[string]string{"Cookie": "__Host-session=" + cookieOf(t, resp.Header)}).StatusCode)
			}
		})
	}
	require.Equal(t, uint64(4), g.renewals.renewed.Load())
	require.Zero(t, g.renewals.failed.Load())
}

// TestServeDoesNotRenew: what the renew endpoint does, and nothing passes that it
// does not renew.
func TestServeDoesNotRenew(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.renew = s.url + "/renew" })
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	s.changed(t, cookie, g)
	stranger := newGateSite(t).signIn(t, sessiontoken.Start{Subject: "root"})
	set := func(lines ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for _, l := range lines {
				w.Header().Add("Set-Cookie", l)
			}
			w.WriteHeader(http.StatusNoContent)
		}
	}
	for _, tt := range []struct {
		name   string
		renew  http.HandlerFunc
		status int
	}{
		{"refuses", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, 401},
		{"refuses the origin", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, 403},
		{"does not know", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, 503},
		{"is not there", http.NotFound, 503},
		{"redirects", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, 503},
		{"sets nothing", set(), 503},
		{"sets another cookie", set("session=x; Path=/"), 503},
		{"removes the cookie", set("__Host-session=; Path=/; Secure; Max-Age=0"), 503},
		{"sets no token", set("__Host-session=x; Path=/; Secure"), 401},
		{"sets the old cookie", set(cookie + "; Path=/; Secure"), 401},
		{"sets another authority's token", set("__Host-session=" + stranger + "; Path=/; Secure"), 0}, // 401, or 503 if two looks for its key take too long
		{"aborts", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h http.Handler = tt.renew
			s.renew.Store(&h)
			resp := ask(g, "GET", map[string]string{"Cookie": cookie})
			if tt.status == 0 {
				require.Contains(t, []int{401, 503}, resp.StatusCode)
			} else {
				require.Equal(t, tt.status, resp.StatusCode)
			}
			require.Empty(t, resp.Header[headerSubject])
			require.Equal(t, resp.StatusCode == 503, resp.Header.Get("Retry-After") != "")
		})
	}
	t.Run("hangs", func(t *testing.T) {
		var h http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		s.renew.Store(&h)
		g.renewals.limit = 10 * time.Millisecond
		resp := ask(g, "GET", map[string]string{"Cookie": cookie})
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
	})
	t.Run("many at once", func(t *testing.T) {
		for range maxRenewed {
			g.renewals.running <- struct{}{}
		}
		require.Equal(t, 503, ask(g, "GET", map[string]string{"Cookie": cookie}).StatusCode)
	})
}

// TestServeWithAnotherCookie: the cookie has the name and the domain that the
// authority gives it, also when it is renewed.
func TestServeWithAnotherCookie(t *testing.T) {
	s := newGateSite(t, func(cfg *authority.Config[siteState]) {
		cfg.HTTP.CookieName, cfg.HTTP.CookieDomain = "sid", "app.example"
	})
	named := func(o *serveOptions) { o.cookie, o.domain = "sid", "app.example" }
	without := s.newTestGate(t, named)
	g := s.newTestGate(t, named, func(o *serveOptions) { o.renew = s.url + "/renew" })
	value := s.signIn(t, sessiontoken.Start{Subject: "ada"})
	require.Equal(t, 401, ask(without, "GET", map[string]string{"Cookie": "__Host-sid=" + value}).StatusCode)
	require.Equal(t, 401, ask(without, "GET", map[string]string{"Cookie": "__Host-session=" + value}).StatusCode)
	cookie := "__Secure-sid=" + value
	require.Equal(t, 200, ask(without, "GET", map[string]string{"Cookie": cookie}).StatusCode)
	s.changed(t, cookie, without, g)
	resp := ask(g, "GET", map[string]string{"Cookie": cookie})
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, resp.Header.Get("Set-Cookie"), "__Secure-sid=")
	require.Contains(t, resp.Header.Get("Set-Cookie"), "; Domain=app.example")
}

// TestServeSendsTheCookieAlone: the renew endpoint gets no other credential, and
// no other cookie.
func TestServeSendsTheCookieAlone(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.renew = s.url + "/renew" })
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	s.changed(t, cookie, g)
	var got http.Header
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.WriteHeader(401)
	})
	s.renew.Store(&h)
	ask(g, "POST", map[string]string{"Cookie": "theme=dark; " + cookie, "Authorization": "Basic eDp5", "Origin": "https://app.example", "X-Other": "x"})
	require.Equal(t, cookie, got.Get("Cookie"))
	require.Equal(t, "https://app.example", got.Get("Origin"))
	require.Empty(t, got["Authorization"])
	require.Empty(t, got["X-Other"])
}

// TestServeWithoutTheAuthority: what has no credential is 401, and all else 503.
func TestServeWithoutTheAuthority(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	gone := &gateSite{url: "http://" + l.Addr().String()}
	require.NoError(t, l.Close())
	g := gone.newTestGate(t, func(o *serveOptions) { o.renew = gone.url + "/renew" })
	cookie := newGateSite(t).signIn(t, sessiontoken.Start{Subject: "ada"})
	require.Equal(t, 401, ask(g, "GET", nil).StatusCode)
	for name, headers := range map[string]map[string]string{
		"a cookie":       {"Cookie": "__Host-session=" + cookie},
		"a bearer token": {"Authorization": "Bearer " + cookie},
	} {
		t.Run(name, func(t *testing.T) {
			resp := ask(g, "GET", headers)
			require.Equal(t, 503, resp.StatusCode)
			require.Equal(t, "1", resp.Header.Get("Retry-After"))
			require.Empty(t, resp.Header[headerSubject])
		})
	}
}

// TestServeWithAnotherCredential: a credential that the authority refuses lets
// nothing pass, and the health check says so without it.
func TestServeWithAnotherCredential(t *testing.T) {
	s := newGateSite(t)
	const wrong = "ABCDabcdefghijklmnopqrstuvwxyz0123456789"
	o := serveOptions{issuer: s.url, audience: "node", listen: "127.0.0.1:0", plainHTTP: true}
	g, r, err := o.newGate(&call{getenv: func(string) string { return wrong }}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, 503, ask(g, "GET", map[string]string{"Cookie": "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})}).StatusCode)
	w := httptest.NewRecorder()
	r.Ready().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	require.Equal(t, 503, w.Code)
	require.Contains(t, w.Body.String(), "credential")
	require.NotContains(t, w.Body.String(), wrong)
}

// TestProxyFiles: each file names all headers that an answer has, and the
// command line that it shows is one that serve takes.
func TestProxyFiles(t *testing.T) {
	for _, name := range []string{"nginx.conf", "haproxy.cfg", "Caddyfile", "traefik.yml", "envoy.yaml"} {
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join("proxies", name))
			require.NoError(t, err)
			text := string(raw)
			for _, header := range []string{headerSubject, headerSession, headerAudience, headerState, "Set-Cookie"} {
				if name == "traefik.yml" && header == "Set-Cookie" {
					header = "addAuthCookiesToResponse"
				}
				require.Contains(t, strings.ToLower(text), strings.ToLower(header))
			}
			require.Contains(t, text, "127.0.0.1")
			_, line, found := strings.Cut(strings.NewReplacer("\\\n", " ", "#", "").Replace(text), "sessiontoken serve ")
			require.True(t, found)
			line, _, _ = strings.Cut(line, "\n")
			var o serveOptions
			fs := flag.NewFlagSet("", flag.ContinueOnError)
			o.flags(fs)
			require.NoError(t, fs.Parse(strings.Fields(line)))
			require.NoError(t, o.check(&call{args: fs.Args()}))
			require.Equal(t, name == "envoy.yaml", o.envoy)
			require.NotEmpty(t, o.renew)
		})
	}
}

// TestServeSignOut: a session that was signed out at the authority is refused.
func TestServeSignOut(t *testing.T) {
	s := newGateSite(t)
	g := s.newTestGate(t, func(o *serveOptions) { o.renew = s.url + "/renew" })
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	headers := map[string]string{"Cookie": cookie}
	require.Equal(t, 200, ask(g, "GET", headers).StatusCode)
	r := httptest.NewRequest("POST", s.url+"/sign-out", nil)
	r.Header.Set("Cookie", cookie)
	require.NoError(t, s.Sessions().SignOut(httptest.NewRecorder(), r))
	require.Eventually(t, func() bool { return ask(g, "GET", headers).StatusCode == 401 }, 30*time.Second, 10*time.Millisecond)
}

// TestLimitedLog: a client that is refused all the time does not fill the log.
func TestLimitedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text strings.Builder
		l := limitedLog{logger: slog.New(slog.NewTextHandler(&text, nil))}
		for range 100 {
			l.warn("x")
		}
		require.Equal(t, 1, strings.Count(text.String(), "\n"))
		time.Sleep(11 * time.Second)
		l.warn("x")
		require.Equal(t, 2, strings.Count(text.String(), "\n"))
		time.Sleep(11 * time.Second)
	})
}

func TestServeCommandLine(t *testing.T) {
	folder := t.TempDir()
	empty := filepath.Join(folder, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	const token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
	good := []string{"serve", "--issuer", "https://auth.example", "--audience", "node"}
	with := func(more ...string) []string { return append(append([]string{}, good...), more...) }
	for _, tt := range []struct {
		name string
		args []string
		env  string
		code int
		text string
	}{
		{"no issuer", []string{"serve", "--audience", "node"}, feedCredential, exitUsage, "--issuer"},
		{"no audience", []string{"serve", "--issuer", "https://auth.example"}, feedCredential, exitUsage, "--audience"},
		{"an http issuer", []string{"serve", "--issuer", "http://auth.example", "--audience", "node"}, feedCredential, exitUsage, "https"},
		{"no credential", good, "", exitUsage, "--no-feed"},
		{"a credential and none", with("--no-feed", "--feed-token-file", empty), "", exitUsage, "exclude"},
		{"a file that is not there", with("--feed-token-file", filepath.Join(folder, "none")), "", exitFailed, "cannot be read"},
		{"a file that is empty", with("--feed-token-file", empty), "", exitFailed, "is empty"},
		{"an argument", with(token), feedCredential, exitUsage, "flags alone"},
		{"all addresses", with("--listen", ":4180"), feedCredential, exitUsage, "--any-address"},
		{"another address", with("--listen", "10.0.0.1:4180"), feedCredential, exitUsage, "--any-address"},
		{"another address of the metrics", with("--admin", "0.0.0.0:4181"), feedCredential, exitUsage, "--admin"},
		{"an address that is taken", with("--listen", taken.Addr().String()), feedCredential, exitFailed, "--listen"},
		{"an address of the metrics that is taken", with("--listen", "127.0.0.1:0", "--admin", taken.Addr().String()), feedCredential, exitFailed, "--admin"},
		{"a renew endpoint without TLS", with("--renew", "http://auth.example/renew"), feedCredential, exitUsage, "--renew"},
		{"a renew endpoint with a password", with("--renew", "https://a:b@auth.example/renew"), feedCredential, exitUsage, "--renew"},
		{"an acr with quotes", with("--acr", `a"b`), feedCredential, exitUsage, "--acr"},
		{"an origin with a path", with("--trusted-origin", "https://app.example/x"), feedCredential, exitUsage, "--trusted-origin"},
		{"a cookie with spaces", with("--cookie", "a b"), feedCredential, exitUsage, "--cookie"},
		{"a flag that is unknown", with("--token", token), feedCredential, exitUsage, "-h shows"},
		{"an empty member", with("--state", "a,,b"), feedCredential, exitUsage, "-h shows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, text strings.Builder
			c := &call{out: &out, err: &text, getenv: func(string) string { return tt.env }}
			require.Equal(t, tt.code, run(t.Context(), tt.args, c))
			require.Contains(t, text.String(), tt.text)
			require.NotContains(t, text.String(), feedCredential)
			require.NotContains(t, text.String(), token)
			require.NotContains(t, text.String(), "panic")
			if strings.HasPrefix(tt.name, "an address") {
				return
			}
			require.Empty(t, out.String())
		})
	}
}

// TestServeRuns: the command listens, tells its metrics, answers what has begun
// when it is stopped, and then ends with 0.
func TestServeRuns(t *testing.T) {
	s := newGateSite(t)
	cookie := "__Host-session=" + s.signIn(t, sessiontoken.Start{Subject: "ada"})
	began, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(began) })
		<-answer
		s.RenewHandler().ServeHTTP(w, r)
	})
	s.renew.Store(&h)
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(feedCredential+"\n"), 0o600))

	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	code := make(chan int, 1)
	var text strings.Builder
	go func() {
		code <- run(ctx, []string{"serve", "--json", "--issuer", s.url, "--audience", "node", "--feed-token-file", file,
			"--insecure-plain-http", "--renew", s.url + "/renew", "--listen", "127.0.0.1:0", "--admin", "localhost:0"},
			&call{out: in, err: &text, getenv: func(string) string { return "" }})
	}()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	require.NoError(t, err)
	var at struct{ Listen, Admin string }
	require.NoError(t, json.Unmarshal(line, &at))

	get := func(url, cookie string) (int, string) {
		r, err := http.NewRequest("GET", "http://"+url, nil)
		require.NoError(t, err)
		r.Header.Set("X-Forwarded-Method", "GET")
		r.Header.Set("X-Forwarded-Host", "app.example")
		r.Header.Set("Cookie", cookie)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	status, _ := get(at.Listen+"/healthz", "") // paths mean nothing here
	require.Equal(t, 401, status)
	status, _ = get(at.Admin+"/healthz", "")
	require.Equal(t, 200, status)
	status, _ = get(at.Admin+"/", cookie)
	require.Equal(t, 404, status)
	status, _ = get(at.Listen, cookie)
	require.Equal(t, 200, status)
	status, all := get(at.Admin+"/metrics", "")
	require.Equal(t, 200, status)
	for _, want := range []string{"\nsessiontoken_serve_answers_200_total 1\n", "\nsessiontoken_serve_answers_401_total 1\n", "\nsessiontoken_serve_goroutines ", "\nsessiontoken_serve_heap_bytes ", "sessiontoken_jwks_keys 2\n", "\nsessiontoken_sessionhttp_refused_no_session_total 1\n", "\nsessiontoken_serve_renewals_total 0\n"} {
		require.Contains(t, all, want)
	}
	require.NotContains(t, all, "ada")

	s.changed(t, cookie)
	require.Eventually(t, func() bool { // until the command knows of the change
		select {
		case <-began:
			return true
		default:
			go func() {
				r, _ := http.NewRequest("GET", "http://"+at.Listen, nil)
				r.Header = http.Header{"X-Forwarded-Method": {"GET"}, "Cookie": {cookie}}
				if resp, err := http.DefaultClient.Do(r); err == nil {
					_ = resp.Body.Close()
				}
			}()
			return false
		}
	}, 30*time.Second, 200*time.Millisecond)
	stop()
	select {
	case <-code:
		t.Fatal("it ended before the answer that had begun")
	case <-time.After(50 * time.Millisecond):
	}
	close(answer)
	require.Equal(t, exitDone, <-code)
	require.NotContains(t, text.String(), feedCredential)
	require.NotContains(t, text.String(), "eyJ")
}

// FuzzOriginal: whatever a proxy sends, a request counts as one that changes
// nothing only if it says so once, and is from no page of another origin.
func FuzzOriginal(f *testing.F) {
	f.Add("GET", "", "app.example", "", "", "")
	f.Add("GET", "POST", "app.example", "evil.example", "https://evil.example", "websocket")
	f.Add("get", "", "a, b", "", "null", "")
	f.Fuzz(func(t *testing.T, method, second, host, otherHost, origin, upgrade string) {
		r := httptest.NewRequest("GET", "http://gate/", nil)
		for _, h := range [][2]string{{"X-Forwarded-Method", method}, {"X-Forwarded-Method", second}, {"X-Forwarded-Host", host}, {"X-Forwarded-Host", otherHost}, {"Origin", origin}, {"Upgrade", upgrade}} {
			if h[1] != "" {
				r.Header.Add(h[0], h[1])
			}
		}
		o, err := new(gate).original(r)
		if method != "" && second != "" || method+second == "" || host != "" && otherHost != "" {
			require.Error(t, err)
			return
		}
		if err != nil {
			require.Nil(t, o)
			return
		}
		require.Equal(t, method+second, o.Method)
		require.Equal(t, host+otherHost, o.Host)
		require.NotContains(t, o.Host, ",")
		require.Equal(t, origin != "" || upgrade != "", len(o.Header["Upgrade"]) > 0)
		require.Empty(t, o.Header["X-Forwarded-Method"])
	})
}

// FuzzHeaders: no subject and no state makes a header that is not one line of
// visible ASCII, and both can be read back.
func FuzzHeaders(f *testing.F) {
	f.Add("ada", `{"a":"x"}`)
	f.Add("a\r\nb%\x00ü", "{\"a\":\"\u2028\U0001f3d4\",\"b\":[1]}")
	f.Fuzz(func(t *testing.T, subject, state string) {
		isLine := func(s string) bool {
			return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
		}
		got := escape(subject)
		require.True(t, isLine(got) && !strings.Contains(got, " "), got)
		if subject != "" {
			back, err := percentDecode(got)
			require.NoError(t, err)
			require.Equal(t, subject, back)
		}
		if !json.Valid([]byte(state)) {
			return
		}
		text, err := openState{[]byte(state)}.choose([]string{"a", "b"})
		if err != nil {
			require.ErrorIs(t, err, errState)
			return
		}
		require.True(t, isLine(text), text)
		require.True(t, json.Valid([]byte(text)))
	})
}

func percentDecode(s string) (string, error) { return url.PathUnescape(s) }
