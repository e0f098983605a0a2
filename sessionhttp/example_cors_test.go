package sessionhttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// cors lets pages of the named origins send requests with the user's cookies, and
// read the answers (https://fetch.spec.whatwg.org/#http-cors-protocol). It stands
// outside of Require: a preflight has no cookie, and a page can read a 401 only if
// that has the headers too.
func cors(origins []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if !slices.Contains(origins, origin) {
			next.ServeHTTP(w, r) // without the headers no page can read the answer
			return
		}
		h.Set("Access-Control-Allow-Origin", origin) // not "*", which is for requests without cookies
		h.Set("Access-Control-Allow-Credentials", "true")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
			h.Set("Access-Control-Allow-Headers", "Content-Type")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// The API is at https://api.example.com. One page is at https://app.example.com, of
// the same site: its requests carry the cookie as it is by default. The other is at
// https://partner.example, of another site, and needs a cookie of its own kind. Both
// origins are trusted, and both have to send credentials: "include".
func ExampleSessions_Require_cors() {
	sameSite := []string{"https://app.example.com"}
	crossSite := []string{"https://partner.example"}

	forOurApp := newExample(func(c *sessionhttp.Config[string]) { c.TrustedOrigins = sameSite })
	forPartners := newExample(func(c *sessionhttp.Config[string]) {
		c.TrustedOrigins = crossSite
		c.SameSite, c.InsecureSameSiteNone, c.Partitioned = http.SameSiteNoneMode, true, true
	})
	show("same site", cors(sameSite, api(forOurApp)), sameSite[0])
	show("cross-site", cors(crossSite, api(forPartners)), crossSite[0])
	show("a stranger", cors(crossSite, api(forPartners)), "https://evil.example")
	// Output:
	// same site
	//   preflight 204, readable by https://app.example.com
	//   not signed in 401, readable by https://app.example.com
	//   sign-in 200, SameSite=Lax
	//   change 200 of ada, readable by https://app.example.com
	// cross-site
	//   preflight 204, readable by https://partner.example
	//   not signed in 401, readable by https://partner.example
	//   sign-in 200, SameSite=None Partitioned
	//   change 200 of ada, readable by https://partner.example
	// a stranger
	//   preflight 401, readable by no page
	//   not signed in 401, readable by no page
	//   sign-in 403
}

// api signs in, and has one handler behind Require.
func api(sessions *sessionhttp.Sessions[string]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) { // once the password is checked
		if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, ""); err != nil {
			sessions.Refuse(w, r, err)
		}
	})
	mux.Handle("/notes", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := sessions.FromContext(r.Context())
		_, _ = fmt.Fprint(w, "of ", c.Subject)
	})))
	return mux
}

// show sends what a browser does for a page of an origin.
func show(name string, h http.Handler, origin string) {
	fmt.Println(name)
	send := func(method, path string, cookies []*http.Cookie, header ...string) *http.Response {
		r := httptest.NewRequest(method, "https://api.example.com"+path, nil)
		r.Header.Set("Origin", origin)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	reader := func(resp *http.Response) string {
		if allowed := resp.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
			return "readable by " + allowed
		}
		return "readable by no page"
	}
	resp := send("OPTIONS", "/notes", nil, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "content-type")
	fmt.Printf("  preflight %d, %s\n", resp.StatusCode, reader(resp))
	resp = send("GET", "/notes", nil)
	fmt.Printf("  not signed in %d, %s\n", resp.StatusCode, reader(resp))
	resp = send("POST", "/sign-in", nil)
	if resp.StatusCode != 200 {
		fmt.Printf("  sign-in %d\n", resp.StatusCode)
		return
	}
	kind := "SameSite=Lax"
	if c := resp.Cookies()[0]; c.SameSite == http.SameSiteNoneMode && c.Partitioned {
		kind = "SameSite=None Partitioned"
	}
	fmt.Printf("  sign-in %d, %s\n", resp.StatusCode, kind)
	resp = send("PUT", "/notes", resp.Cookies())
	text, _ := io.ReadAll(resp.Body)
	fmt.Printf("  change %d %s, %s\n", resp.StatusCode, text, reader(resp))
}

func newExample(change func(*sessionhttp.Config[string])) *sessionhttp.Sessions[string] {
	ring := must(keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), Logger: quiet}))
	revocations := must(revoke.NewList(revoke.Config{Store: new(revoke.MemStore)}))
	cfg := sessionhttp.Config[string]{
		Issuer: must(sessiontoken.NewIssuer[string](sessiontoken.IssuerConfig{
			Issuer: "https://api.example.com", Audience: []string{"api"}, Keys: ring, Revocations: revocations})),
		Verifier: must(sessiontoken.NewVerifier[string](sessiontoken.VerifierConfig{
			Issuer: "https://api.example.com", Audience: "api", Keys: ring, Revocations: revocations})),
		Revocations: revocations, Logger: quiet,
		Load: func(context.Context, *sessiontoken.Claims[string]) (string, error) { return "", nil },
	}
	change(&cfg)
	return must(sessionhttp.New(cfg))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Every answer of an API for pages of other origins tells a cache what it varies by
// and a page whether it may read it: refusals, renewals and preflights too. A
// preflight is answered without a session, and asks Load and the list for nothing.
func TestCORSOutsideOfRequire(t *testing.T) {
	const origin = "https://app.example"
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) { c.TrustedOrigins = []string{origin} })
		h := cors([]string{origin}, r.mux)
		cookie := r.signIn(t)
		send := func(req *http.Request) *http.Response {
			w := recorder()
			h.ServeHTTP(w, req)
			return w.Result()
		}
		for _, tt := range []struct {
			name     string
			req      *http.Request
			status   int
			readable bool
		}{
			{"preflight", request("OPTIONS", "/who", "", "Origin", origin, "Access-Control-Request-Method", "POST"), 204, true},
			{"no session", request("POST", "/who", "", "Origin", origin), 401, true},
			{"a session", request("POST", "/who", cookie, "Origin", origin, "Sec-Fetch-Site", "cross-site"), 200, true},
			{"bad credentials", request("GET", "/who", "", "Origin", origin, "Authorization", "Bearer  x"), 400, true},
			{"a stranger's preflight", request("OPTIONS", "/who", "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST"), 401, false},
			{"a stranger's request", request("POST", "/who", cookie, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), 403, false},
			{"null", request("POST", "/who", cookie, "Origin", "null"), 403, false},
			{"no preflight", request("OPTIONS", "/who", "", "Origin", origin), 401, true},
		} {
			resp := send(tt.req)
			require.Equal(t, tt.status, resp.StatusCode, tt.name)
			require.Contains(t, held(resp, "Vary"), "Origin", tt.name)
			want := ""
			if tt.readable {
				want = origin
			}
			require.Equal(t, want, resp.Header.Get("Access-Control-Allow-Origin"), tt.name)
			require.Equal(t, tt.readable, resp.Header.Get("Access-Control-Allow-Credentials") == "true", tt.name)
			if tt.status != 204 {
				require.Contains(t, held(resp, "Vary"), "Cookie, Authorization", tt.name)
			}
		}
		require.Zero(t, s.loads.Load())
		bare := r.do(request("OPTIONS", "/who", "", "Origin", origin, "Access-Control-Request-Method", "POST"))
		require.Equal(t, 401, bare.StatusCode, "why it goes outside")
	})
}
