package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// apiFor is an API for pages of some origins, with CORS outside of Require as the
// example of sessionhttp has it.
func apiFor(t *testing.T, origins []string, partitioned bool) http.Handler {
	t.Helper()
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	require.NoError(t, err)
	revocations, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	require.NoError(t, err)
	issuer, err := sessiontoken.NewIssuer[string](sessiontoken.IssuerConfig{Issuer: issuerName, Audience: []string{audience}, Keys: ring, Revocations: revocations})
	require.NoError(t, err)
	verifier, err := sessiontoken.NewVerifier[string](sessiontoken.VerifierConfig{Issuer: issuerName, Audience: audience, Keys: ring, Revocations: revocations})
	require.NoError(t, err)
	cfg := sessionhttp.Config[string]{
		Verifier: verifier, Issuer: issuer, Revocations: revocations, TrustedOrigins: origins,
		Load: func(context.Context, *sessiontoken.Claims[string]) (string, error) { return "", nil },
	}
	if partitioned {
		cfg.SameSite, cfg.InsecureSameSiteNone, cfg.Partitioned = http.SameSiteNoneMode, true, true
	}
	sessions, err := sessionhttp.New(cfg)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, ""); err != nil {
			sessions.Refuse(w, r, err)
		}
	})
	mux.HandleFunc("POST /out", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.SignOut(w, r); err != nil {
			sessions.Refuse(w, r, err)
		}
	})
	mux.Handle("/notes", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := sessions.FromContext(r.Context())
		_, _ = fmt.Fprint(w, c.Subject)
	})))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Add("Vary", "Origin")
		if origin := r.Header.Get("Origin"); slices.Contains(origins, origin) {
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Allow-Credentials", "true")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST, PUT")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		mux.ServeHTTP(w, r)
	})
}

// Pages of another origin use an API with the user's cookie: one of the same site
// with the cookie as it is by default, one of another site with a partitioned one,
// also where the browser blocks the cookies of other sites. The latter is that
// page's alone.
func TestPagesOfOtherOrigins(t *testing.T) {
	bin := chromium(t)
	var lax, partitioned http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.Host, "lax."):
			lax.ServeHTTP(w, r)
		case strings.HasPrefix(r.Host, "partitioned."):
			partitioned.ServeHTTP(w, r)
		default:
			w.Header().Set("Content-Type", "text/html")
		}
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	origin := func(host string) string { return "https://" + host + ":" + at.Port() }
	lax = apiFor(t, []string{origin("app.a.example")}, false)
	partitioned = apiFor(t, []string{origin("b.example"), origin("c.example")}, true)

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.NoSandbox,
		chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"), chromedp.Flag("ignore-certificate-errors", true),
		chromedp.Flag("test-third-party-cookie-phaseout", true))
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	fetch := func(method, api, path string) (answer string) {
		t.Helper()
		script := fmt.Sprintf(`fetch(%q, {method: %q, credentials: "include"}).then(async r => r.status + " " + (await r.text()).trim(), e => "unreadable")`, origin(api+".a.example")+path, method)
		do(t, ctx, chromedp.Evaluate(script, &answer, awaited))
		return answer
	}
	for _, tt := range []struct{ page, api string }{{"app.a.example", "lax"}, {"b.example", "partitioned"}} {
		do(t, ctx, chromedp.Navigate(origin(tt.page)))
		require.Equal(t, "401 Unauthorized", fetch("PUT", tt.api, "/notes"), "a refusal that %s can read, after a preflight", tt.page)
		require.Equal(t, "200 ", fetch("POST", tt.api, "/in"), tt.page)
		require.Equal(t, "200 ada", fetch("PUT", tt.api, "/notes"), tt.page)
	}
	do(t, ctx, chromedp.Navigate(origin("c.example")))
	require.Equal(t, "401 Unauthorized", fetch("GET", "partitioned", "/notes"), "the session is of b.example's jar")
	require.Equal(t, "unreadable", fetch("GET", "lax", "/notes"), "a stranger")
	require.Equal(t, "unreadable", fetch("PUT", "lax", "/notes"))
	require.Equal(t, "unreadable", fetch("POST", "lax", "/in"))
	do(t, ctx, chromedp.Navigate(origin("b.example")))
	require.Equal(t, "200 ", fetch("POST", "partitioned", "/out"))
	require.Equal(t, "401 Unauthorized", fetch("PUT", "partitioned", "/notes"))
}
