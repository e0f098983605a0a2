package sessionhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const name = "__Host-session"

type state struct {
	Name string `json:"name"`
	Rev  int64  `json:"rev"`
}

var errDown = errors.New("the database is down")

// site is what replicas share, and what tests turn.
type site struct {
	t        testing.TB
	source   *keys.Static
	revoked  revoke.MemStore
	families refresh.MemStore
	loads    atomic.Int64
	loadErr  atomic.Pointer[error]
	slow     atomic.Int64 // nanoseconds of a load
	big      atomic.Int64 // bytes of name
}

func newSite(t testing.TB) *site {
	key, err := keys.GenerateKey(keys.EdDSA)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	return &site{t: t, source: source}
}

func (s *site) fail(err error) {
	if err == nil {
		s.loadErr.Store(nil)
		return
	}
	s.loadErr.Store(&err)
}

func (s *site) load(ctx context.Context, old *sessiontoken.Claims[state]) (state, error) {
	rev := s.loads.Add(1)
	time.Sleep(time.Duration(s.slow.Load()))
	if err := s.loadErr.Load(); err != nil {
		return state{}, *err
	}
	return state{Name: "Ada" + strings.Repeat("x", int(s.big.Load())), Rev: rev}, ctx.Err()
}

// replica is one server of the site.
type replica struct {
	*sessionhttp.Sessions[state]
	list    *revoke.List
	refused []error
	mu      sync.Mutex
	mux     *http.ServeMux
}

func (s *site) replica(change ...func(*sessionhttp.Config[state])) *replica {
	s.t.Helper()
	r := &replica{mux: http.NewServeMux()}
	list, err := revoke.NewList(revoke.Config{Store: &s.revoked, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(s.t, err)
	r.list = list
	verifier, err := sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: "https://a.example", Audience: "web", Keys: s.source, Revocations: list})
	require.NoError(s.t, err)
	issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source, Revocations: list, MaxBytes: 8000})
	require.NoError(s.t, err)
	manager, err := refresh.NewManager(refresh.Config{Store: &s.families, Secrets: [][]byte{bytes.Repeat([]byte{7}, 32)}, Sessions: list, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(s.t, err)
	cfg := sessionhttp.Config[state]{
		Verifier: verifier, Issuer: issuer, Load: s.load, Ender: list, Refresh: manager,
		OnRefused: func(_ *http.Request, err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused = append(r.refused, err)
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Sessions, err = sessionhttp.New(cfg)
	require.NoError(s.t, err)

	who := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, ok := sessionhttp.FromContext[state](req.Context())
		if !ok {
			_, _ = io.WriteString(w, "nobody")
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=600") // a handler's mistake
		_, _ = fmt.Fprintf(w, "%s %s %d", c.Subject, c.SessionID, c.State.Rev)
	})
	r.mux.Handle("/who", r.Require(who))
	r.mux.Handle("/maybe", r.Optional(who))
	r.mux.Handle("/pay", r.RequireFresh(10*time.Minute, who))
	r.mux.HandleFunc("POST /in", func(w http.ResponseWriter, req *http.Request) {
		if _, err := r.SignIn(w, req, "ada", state{Name: "Ada" + strings.Repeat("x", int(s.big.Load()))}); err != nil {
			r.Refuse(w, req, err)
		}
	})
	r.mux.HandleFunc("POST /out", func(w http.ResponseWriter, req *http.Request) {
		if err := r.SignOut(w, req); err != nil {
			r.Refuse(w, req, err)
		}
	})
	r.mux.HandleFunc("POST /everywhere", func(w http.ResponseWriter, req *http.Request) {
		if err := r.SignOutEverywhere(w, req); err != nil {
			r.Refuse(w, req, err)
		}
	})
	r.mux.Handle("/refresh", r.RefreshHandler())
	return r
}

// request makes one over https to the site's own host.
func request(method, path, cookie string, header ...string) *http.Request {
	req := httptest.NewRequest(method, "https://a.example"+path, nil)
	if cookie != "" {
		req.Header.Set("Cookie", name+"="+cookie)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return req
}

func (r *replica) do(req *http.Request) *http.Response {
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w.Result()
}

func (r *replica) signIn(t testing.TB) string {
	t.Helper()
	resp := r.do(request("POST", "/in", ""))
	require.Equal(t, 200, resp.StatusCode)
	return cookieOf(t, resp)
}

func cookieOf(t testing.TB, resp *http.Response) string {
	t.Helper()
	require.Len(t, resp.Cookies(), 1)
	require.Equal(t, name, resp.Cookies()[0].Name)
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	return resp.Cookies()[0].Value
}

func body(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// bubble is a test in simulated time.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

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
		require.Equal(t, name+"=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax", resp.Header.Get("Set-Cookie"))
		require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
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
	for host, ok := range map[string]bool{
		"a.example": false, "localhost": true, "localhost:8080": true, "127.0.0.1:8080": true, "[::1]:80": true, "[::1]": true,
		"localhost.a.example": false, "localhostx:80": false, "127.0.0.1.a.example:80": false, "10.0.0.1:80": false, "": false,
	} {
		req := httptest.NewRequest("POST", "/in", nil)
		req.Host = host
		require.Equal(t, ok, r.do(req).StatusCode == 200, host)
		require.Equal(t, 200, behind.do(req).StatusCode)
	}
	require.ErrorIs(t, r.refused[0], sessionhttp.ErrInsecure)
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
				require.Equal(t, 503, resp.StatusCode)
				require.Empty(t, resp.Header["Set-Cookie"])
				require.ErrorContains(t, r.refused[0], "over the 4096 B")
				break
			}
			largest = len(name) + len(cookieOf(t, resp))
			require.LessOrEqual(t, largest, 4096)
		}
		require.GreaterOrEqual(t, largest, 4094)
	})
}

func TestRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		resp := r.do(request("GET", "/who", cookie))
		first := body(t, resp)
		require.Empty(t, resp.Header["Set-Cookie"])
		require.Equal(t, "Cookie", resp.Header.Get("Vary"))
		require.Equal(t, "public, max-age=600", resp.Header.Get("Cache-Control"), "the handler's own business")

		time.Sleep(2*time.Minute + 31*time.Second) // past half of its life
		resp = r.do(request("GET", "/who", cookie))
		renewed := cookieOf(t, resp)
		require.NotEqual(t, cookie, renewed)
		require.Equal(t, strings.TrimSuffix(first, "0")+"1", body(t, resp), "the same session, with the state of now")

		time.Sleep(59 * time.Minute) // long expired, and still within IdleTimeout
		resp = r.do(request("POST", "/who", renewed))
		require.Equal(t, 200, resp.StatusCode)
		renewed = cookieOf(t, resp)
		require.EqualValues(t, 2, s.loads.Load())

		time.Sleep(time.Hour)
		resp = r.do(request("GET", "/who", renewed))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, `Bearer error="invalid_token", error_description="expired"`, resp.Header.Get("WWW-Authenticate"))
		require.Equal(t, -1, resp.Cookies()[0].MaxAge, "cleared")
	})
}

// 50 requests at once with a cookie that has expired: each is answered, and the
// state is loaded once for each replica.
func TestParallelRenewal(t *testing.T) {
	s := newSite(t)
	var replicas []*replica
	bubble(t, func(t *testing.T) {
		replicas = []*replica{s.replica(), s.replica()}
		cookie := replicas[0].signIn(t)
		time.Sleep(6 * time.Minute)
		s.slow.Store(int64(100 * time.Millisecond))
		var mu sync.Mutex
		sessions, tokens := map[string]bool{}, map[string]bool{}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond) // some come after the renewal
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i == 0 { // the first one gives up, and fails nobody
					go func() { time.Sleep(10 * time.Millisecond); cancel() }()
				}
				resp := replicas[i%2].do(request("GET", "/who", cookie).WithContext(ctx))
				if i == 0 {
					return
				}
				if resp.StatusCode != 200 {
					t.Errorf("request %d: %d", i, resp.StatusCode)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				tokens[cookieOf(t, resp)] = true
				sessions[strings.Fields(body(t, resp))[1]] = true
			})
		}
		wg.Wait()
		require.EqualValues(t, 2, s.loads.Load(), "once for each replica")
		require.Len(t, tokens, 2)
		require.Len(t, sessions, 1, "one session")
	})
}

// What is remembered of a renewal is used only while it is good: a request that
// comes late with the old cookie is renewed again.
func TestLateRequestAfterRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) {
			issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
				Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source, TTL: 3 * time.Second, Revocations: c.Ender.(sessiontoken.RevocationChecker),
			})
			require.NoError(t, err)
			c.Issuer = issuer
		})
		cookie := r.signIn(t)
		time.Sleep(3 * time.Second)
		for range 20 {
			resp := r.do(request("GET", "/who", cookie))
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, 200, r.do(request("GET", "/who", cookieOf(t, resp))).StatusCode)
			time.Sleep(time.Second + 100*time.Millisecond)
		}
	})
}

func TestLoadFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		s.fail(errDown)
		time.Sleep(4 * time.Minute)
		resp := r.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode, "it is still valid")
		require.ErrorIs(t, r.refused[0], errDown, "and the caller is told")
		require.Empty(t, resp.Header["Set-Cookie"])

		time.Sleep(2 * time.Minute)
		for range 3 {
			resp = r.do(request("GET", "/who", cookie))
			require.Equal(t, 503, resp.StatusCode)
			require.Empty(t, resp.Header["Set-Cookie"], "the session is kept")
		}
		s.fail(nil)
		resp = r.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode, "at once")
		renewed := cookieOf(t, resp)

		s.fail(fmt.Errorf("blocked: %w", sessionhttp.ErrSessionOver))
		time.Sleep(4 * time.Minute)
		resp = r.do(request("GET", "/who", renewed))
		require.Equal(t, 401, resp.StatusCode, "over, although the token is valid")
		require.Equal(t, -1, resp.Cookies()[0].MaxAge)
		s.fail(nil)
		require.Equal(t, 401, r.do(request("GET", "/who", "", "Authorization", "Bearer "+renewed)).StatusCode, "and ended for good")
	})
}

func TestLoadPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) {
			c.Load = func(context.Context, *sessiontoken.Claims[state]) (state, error) { panic("secret") }
		})
		cookie := r.signIn(t)
		time.Sleep(6 * time.Minute)
		require.Equal(t, 503, r.do(request("GET", "/who", cookie)).StatusCode)
		require.NotContains(t, r.refused[0].Error(), "secret")
	})
}

// A request that began before the sign-out and ends after it may set the cookie
// again: the session is over all the same, on every replica.
func TestSignOutWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.replica(), s.replica()
		cookie := r.signIn(t)
		time.Sleep(6 * time.Minute)
		for _, load := range []time.Duration{2 * time.Second, 0} {
			s.slow.Store(int64(load))
			done := make(chan *http.Response, 1)
			go func() { done <- other.do(request("GET", "/who", cookie)) }()
			time.Sleep(time.Second)
			if load != 0 {
				require.Equal(t, 200, r.do(request("POST", "/out", cookie)).StatusCode)
			}
			resp := <-done
			if resp.StatusCode == 200 { // it had not heard of it
				time.Sleep(31 * time.Second) // without Run: MaxStale
				cookie = cookieOf(t, resp)
			}
		}
		for _, r := range []*replica{r, other} {
			resp := r.do(request("GET", "/who", cookie))
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, -1, resp.Cookies()[0].MaxAge)
			require.Equal(t, `Bearer error="invalid_token", error_description="revoked"`, resp.Header.Get("WWW-Authenticate"))
		}
	})
}

// A token that another replica renewed before it heard of "sign out everywhere" is
// refused once it has: what counts is when the session began.
func TestRenewedDuringTheDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.replica(), s.replica()
		cookie := r.signIn(t)
		time.Sleep(4 * time.Minute)
		require.Equal(t, 401, other.do(request("GET", "/who", "")).StatusCode)
		require.Equal(t, 200, other.do(request("GET", "/who", cookie)).StatusCode, "it has read the list just now")
		require.Equal(t, 200, r.do(request("POST", "/everywhere", cookie)).StatusCode)
		time.Sleep(time.Second)
		resp := other.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode, "it has not heard of it")
		renewed := cookieOf(t, resp)
		time.Sleep(31 * time.Second)
		for _, replica := range []*replica{r, other} {
			require.Equal(t, 401, replica.do(request("GET", "/who", renewed)).StatusCode)
		}
	})
}

func TestSignOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		expired := r.signIn(t)
		time.Sleep(10 * time.Minute)
		require.Equal(t, 200, r.do(request("POST", "/out", expired)).StatusCode)
		require.Equal(t, 401, r.do(request("GET", "/who", expired)).StatusCode, "it could have been renewed")
		require.Zero(t, s.loads.Load())

		require.Equal(t, 200, r.do(request("POST", "/out", "")).StatusCode, "nobody is no error")
		require.Equal(t, 200, r.do(request("POST", "/out", "garbage")).StatusCode)
		a, b := r.signIn(t), r.signIn(t)
		require.Equal(t, 200, r.do(request("POST", "/out", "", "Authorization", "Bearer "+a)).StatusCode)
		require.Equal(t, 401, r.do(request("GET", "/who", a)).StatusCode)
		require.Equal(t, 200, r.do(request("GET", "/who", b)).StatusCode, "another session")

		c := r.signIn(t)
		time.Sleep(time.Second)
		require.Equal(t, 200, r.do(request("POST", "/everywhere", b)).StatusCode)
		for _, cookie := range []string{b, c} {
			require.Equal(t, 401, r.do(request("GET", "/who", cookie)).StatusCode)
		}
		require.Equal(t, 401, r.do(request("POST", "/everywhere", "")).StatusCode)
		time.Sleep(time.Second)
		require.Equal(t, 200, r.do(request("GET", "/who", r.signIn(t))).StatusCode, "and in again")
	})
}

// If the end of the session cannot be written down, the user keeps the cookie
// and is told.
func TestSignOutFails(t *testing.T) {
	s := newSite(t)
	r := s.replica(func(c *sessionhttp.Config[state]) { c.Refresh, c.Ender = nil, brokenEnder{} })
	cookie := r.signIn(t)
	for _, path := range []string{"/out", "/everywhere", "/in"} {
		resp := r.do(request("POST", path, cookie))
		require.Equal(t, 503, resp.StatusCode, path)
		require.Empty(t, resp.Header["Set-Cookie"])
	}
}

type brokenEnder struct{}

func (brokenEnder) EndSession(context.Context, string) error { return errDown }
func (brokenEnder) EndSubject(context.Context, string) error { return errDown }

// Nothing that was there before the sign-in becomes the session, or outlives it.
func TestFixation(t *testing.T) {
	r := newSite(t).replica()
	planted := r.signIn(t)
	resp := r.do(request("POST", "/in", planted))
	require.NotEqual(t, planted, cookieOf(t, resp))
	require.Equal(t, 401, r.do(request("GET", "/who", planted)).StatusCode, "ended")
	require.Equal(t, 200, r.do(request("GET", "/who", cookieOf(t, resp))).StatusCode)
}

func TestCredentials(t *testing.T) {
	r := newSite(t).replica()
	good, other := r.signIn(t), r.signIn(t)
	bearer := func(v string) []string { return []string{"Authorization", v} }
	tests := []struct {
		name    string
		cookie  string
		header  []string
		status  int
		problem string
	}{
		{"nothing", "", nil, 401, ""},
		{"cookie", good, nil, 200, ""},
		{"bearer", "", bearer("Bearer " + good), 200, ""},
		{"scheme in another case", "", bearer("bEARER " + good), 200, ""},
		{"bad header beside a good cookie", good, bearer("Bearer " + good + "x"), 401, "invalid_token"},
		{"good header beside a bad cookie", "bad", bearer("Bearer " + good), 200, ""},
		{"two headers", "", append(bearer("Bearer "+good), bearer("Bearer "+good)...), 400, "invalid_request"},
		{"two spaces", "", bearer("Bearer  " + good), 400, "invalid_request"},
		{"a space behind", "", bearer("Bearer " + good + " "), 400, "invalid_request"},
		{"a tab", "", bearer("Bearer\t" + good), 401, ""},
		{"no token", "", bearer("Bearer"), 400, "invalid_request"},
		{"an empty token", "", bearer("Bearer "), 400, "invalid_request"},
		{"only padding", "", bearer("Bearer =="), 400, "invalid_request"},
		{"a list", "", bearer("Bearer " + good + ", Bearer " + good), 400, "invalid_request"},
		{"quotes", "", bearer(`Bearer "` + good + `"`), 400, "invalid_request"},
		{"not ASCII", "", bearer("Bearer é"), 400, "invalid_request"},
		{"an empty header beside a good cookie", good, bearer(""), 401, ""},
		{"another scheme beside a good cookie", good, bearer("Basic YTpi"), 401, ""},
		{"a cookie of another", "garbage", nil, 401, "invalid_token"},
		{"an empty cookie", "", []string{"Cookie", name + "="}, 401, "invalid_token"},
		{"two cookies", good, []string{"Cookie", name + "=" + other}, 400, "invalid_request"},
		{"two cookies in one header", good + "; " + name + "=" + good, nil, 400, "invalid_request"},
		{"8 KB of cookies", good, []string{"Cookie", strings.Repeat("a=bbbbbbbb; ", 800)}, 200, ""},
		{"a cookie of 8 KB", strings.Repeat("a", 8200), nil, 401, "invalid_token"},
		{"another case of the name", "", []string{"Cookie", "__HOST-session=" + good}, 401, ""},
		{"another case of the name, 2", "", []string{"Cookie", "__host-session=" + good}, 401, ""},
		{"without the prefix", "", []string{"Cookie", "session=" + good}, 401, ""},
		{"a bearer of 100 KB", "", bearer("Bearer " + strings.Repeat("a", 100_000)), 401, "invalid_token"},
	}
	var outward string
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := r.do(request("GET", "/who?access_token="+good, tt.cookie, tt.header...))
			require.Equal(t, tt.status, resp.StatusCode)
			challenge := resp.Header.Get("WWW-Authenticate")
			text := body(t, resp)
			switch {
			case tt.status == 200:
				require.Empty(t, challenge)
				return
			case tt.problem == "":
				require.Equal(t, "Bearer", challenge, "no credentials, so no error code")
			default:
				require.True(t, strings.HasPrefix(challenge, `Bearer error="`+tt.problem+`"`), challenge)
			}
			if tt.status == 401 {
				if outward == "" {
					outward = text
				}
				require.Equal(t, outward, text, "one body for all")
			}
			require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		})
	}
}

func TestOptional(t *testing.T) {
	r := newSite(t).replica()
	cookie := r.signIn(t)
	for _, tt := range []struct {
		cookie, auth, want string
		status             int
	}{
		{"", "", "nobody", 200}, {"garbage", "", "nobody", 200}, {cookie, "", "ada", 200},
		{"", "Bearer " + cookie, "ada", 200}, {cookie, "Bearer garbage", "", 401}, {"", "Bearer  x", "", 400},
	} {
		var header []string
		if tt.auth != "" {
			header = []string{"Authorization", tt.auth}
		}
		resp := r.do(request("GET", "/maybe", tt.cookie, header...))
		require.Equal(t, tt.status, resp.StatusCode)
		if tt.status == 200 {
			require.True(t, strings.HasPrefix(body(t, resp), tt.want))
		}
	}
}

func TestCrossSiteRequests(t *testing.T) {
	r := newSite(t).replica(func(c *sessionhttp.Config[state]) { c.TrustedOrigins = []string{"https://app.example"} })
	cookie := r.signIn(t)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} {
		safe := method == "GET" || method == "HEAD" || method == "OPTIONS"
		for _, tt := range []struct {
			header []string
			same   bool
		}{
			{nil, true}, // neither header: not a browser
			{[]string{"Sec-Fetch-Site", "same-origin"}, true},
			{[]string{"Sec-Fetch-Site", "none"}, true},
			{[]string{"Sec-Fetch-Site", "same-site"}, false},
			{[]string{"Sec-Fetch-Site", "cross-site"}, false},
			{[]string{"Sec-Fetch-Site", "else"}, false},
			{[]string{"Origin", "https://a.example"}, true},
			{[]string{"Origin", "https://evil.example"}, false},
			{[]string{"Origin", "null"}, false},
			{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example"}, true},
			{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "http://app.example"}, false},
			{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example:444"}, false},
		} {
			want := 403
			if safe || tt.same {
				want = 200
			}
			require.Equal(t, want, r.do(request(method, "/who", cookie, tt.header...)).StatusCode, "%s %v", method, tt.header)
			require.Equal(t, 200, r.do(request(method, "/who", "", append(tt.header, "Authorization", "Bearer "+cookie)...)).StatusCode, "a header is no ambient credential")
			if method == "POST" && want == 403 {
				for _, path := range []string{"/in", "/out", "/everywhere"} {
					resp := r.do(request(method, path, cookie, tt.header...))
					require.Equal(t, 403, resp.StatusCode, "%s %v", path, tt.header)
					require.Empty(t, resp.Header["Set-Cookie"])
				}
			}
		}
	}
	require.Equal(t, 200, r.do(request("GET", "/who", cookie)).StatusCode, "none of it signed the user out")
}

func TestRequireFresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).replica()
		cookie := r.signIn(t)
		time.Sleep(10 * time.Minute)
		resp := r.do(request("POST", "/pay", cookie))
		require.Equal(t, 200, resp.StatusCode)
		cookie = cookieOf(t, resp)
		time.Sleep(time.Second)
		resp = r.do(request("POST", "/pay", cookie))
		require.Equal(t, 401, resp.StatusCode, "a new token is no new sign-in")
		require.Equal(t, `Bearer error="insufficient_user_authentication", error_description="sign in again", max_age=600`, resp.Header.Get("WWW-Authenticate"))
		require.ErrorIs(t, r.refused[len(r.refused)-1], sessionhttp.ErrTooOld)
		require.Equal(t, 200, r.do(request("GET", "/who", cookie)).StatusCode)
		require.Equal(t, 401, r.do(request("POST", "/pay", "")).StatusCode)
	})
}

func TestUnauthorizedHandler(t *testing.T) {
	r := newSite(t).replica(func(c *sessionhttp.Config[state]) {
		c.Unauthorized = http.RedirectHandler("/sign-in", http.StatusSeeOther)
	})
	resp := r.do(request("GET", "/who", "garbage"))
	require.Equal(t, 303, resp.StatusCode)
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	require.Equal(t, 400, r.do(request("GET", "/who", "", "Authorization", "Bearer  x")).StatusCode)
}

func TestReadOnlyAPI(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		api := s.replica(func(c *sessionhttp.Config[state]) { c.Issuer, c.Load, c.Ender, c.Refresh = nil, nil, nil, nil })
		cookie := r.signIn(t)
		require.Equal(t, 200, api.do(request("GET", "/who", cookie)).StatusCode)
		time.Sleep(6 * time.Minute)
		require.Equal(t, 401, api.do(request("GET", "/who", cookie)).StatusCode)
		require.Equal(t, 503, api.do(request("POST", "/in", "")).StatusCode)
		require.Equal(t, 503, api.do(request("POST", "/out", cookie)).StatusCode)
		require.Equal(t, 404, api.do(request("POST", "/refresh", "")).StatusCode)
	})
}

// A token for another API is refused with a reason of its own.
func TestWrongAudience(t *testing.T) {
	s := newSite(t)
	r := s.replica()
	issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"other"}, Keys: s.source})
	require.NoError(t, err)
	token, _, err := issuer.Issue(t.Context(), "ada", state{})
	require.NoError(t, err)
	resp := r.do(request("GET", "/who", "", "Authorization", "Bearer "+token))
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, `Bearer error="invalid_token", error_description="wrong audience"`, resp.Header.Get("WWW-Authenticate"))
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
		require.Equal(t, "no-store", w.Result().Header.Get("Cache-Control"))
	})
}

func TestNewNamesTheField(t *testing.T) {
	s := newSite(t)
	for i, tt := range []struct {
		field  string
		change func(*sessionhttp.Config[state])
	}{
		{"Verifier", func(c *sessionhttp.Config[state]) { c.Verifier = nil }},
		{"Load", func(c *sessionhttp.Config[state]) { c.Load = nil }},
		{"Ender", func(c *sessionhttp.Config[state]) { c.Ender = nil }},
		{"Ender", func(c *sessionhttp.Config[state]) { c.Ender = (*revoke.List)(nil) }},
		{"Refresh", func(c *sessionhttp.Config[state]) { c.Issuer = nil }},
		{"SameSite", func(c *sessionhttp.Config[state]) { c.SameSite = http.SameSiteNoneMode }},
		{"SameSite", func(c *sessionhttp.Config[state]) { c.SameSite = 99 }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath = "/" }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath = "session" }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath = "/a;b" }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath, c.Refresh = "/session/", nil }},
		{"CookieName", func(c *sessionhttp.Config[state]) { c.CookieName = "__Host-session" }},
		{"CookieName", func(c *sessionhttp.Config[state]) { c.CookieName = "__secure-session" }},
		{"CookieName", func(c *sessionhttp.Config[state]) { c.CookieName = "a b" }},
		{"CookieDomain", func(c *sessionhttp.Config[state]) { c.CookieDomain = "a b" }},
		{"TrustedOrigins", func(c *sessionhttp.Config[state]) { c.TrustedOrigins = []string{"app.example"} }},
	} {
		func() {
			var good sessionhttp.Config[state]
			s.replica(func(c *sessionhttp.Config[state]) { good = *c })
			tt.change(&good)
			_, err := sessionhttp.New(good)
			require.ErrorContains(t, err, "Config."+strings.Split(tt.field, ",")[0], fmt.Sprint(i))
		}()
	}
}

// The header of a refusal is well formed whatever came in, and holds none of it.
func FuzzAuthorization(f *testing.F) {
	s := newSite(f)
	r := s.replica(func(c *sessionhttp.Config[state]) { c.OnRefused = nil })
	f.Add("Bearer x", "y")
	f.Add("Bearer \"\r\nX: y", "a=b; __Host-session=c")
	f.Add("", "__Host-session=a; __Host-session=b")
	allowed := map[string]bool{"": true, "Bearer": true, `Bearer error="invalid_request"`: true, `Bearer error="invalid_token", error_description="not valid"`: true}
	f.Fuzz(func(t *testing.T, auth, cookie string) {
		req := request("GET", "/who", "")
		if auth != "" {
			req.Header["Authorization"] = []string{auth}
		}
		req.Header["Cookie"] = []string{cookie}
		resp := r.do(req)
		require.Contains(t, []int{400, 401}, resp.StatusCode)
		require.True(t, allowed[resp.Header.Get("WWW-Authenticate")], resp.Header.Get("WWW-Authenticate"))
	})
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
