package remote_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

// authority issues tokens and publishes its keys under its URL.
type authority struct {
	url    string
	ring   *keys.Ring
	issuer *sessiontoken.Issuer[state]
	mux    *http.ServeMux
}

func newAuthority(t testing.TB, url string) *authority {
	t.Helper()
	a := &authority{url: url, mux: http.NewServeMux()}
	var err error
	a.ring, err = keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	a.issuer, err = sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
		Issuer: url, Audience: []string{"orders"}, Keys: a.ring, TTL: time.Hour, IdleTimeout: time.Hour,
	})
	require.NoError(t, err)
	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: a.ring})
	require.NoError(t, err)
	discovery, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: url, Keys: a.ring})
	require.NoError(t, err)
	paths, err := sessiontoken.DiscoveryPaths(url)
	require.NoError(t, err)
	for _, path := range paths {
		a.mux.Handle("GET "+path, discovery)
	}
	a.mux.Handle("GET /tenant/.well-known/jwks.json", jwks)
	return a
}

// RoundTrip makes the authority a transport, so that a test can have the fake
// clock. Requests come over TLS.
func (a *authority) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.TLS, in.Host = new(tls.ConnectionState), r.URL.Host
	rec := httptest.NewRecorder()
	a.mux.ServeHTTP(rec, in)
	return rec.Result(), nil
}

func (a *authority) token(t testing.TB) string {
	t.Helper()
	token, _, err := a.issuer.Issue(t.Context(), "user-42", state{Name: "Ada"})
	require.NoError(t, err)
	return token
}

// get sends a request with a token to an API that reads sessions by r.
func get(t testing.TB, r *remote.Remote[state], token string) (int, string) {
	t.Helper()
	api := r.Sessions().Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := r.Sessions().FromContext(req.Context())
		fmt.Fprint(w, c.Subject, " ", c.State.Name)
	}))
	req := httptest.NewRequestWithContext(t.Context(), "GET", "https://api.example/", nil)
	req.Header.Set("Authorization", "Bearer "+token)
	rec := httptest.NewRecorder()
	api.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

// TestRemoteKnowsARevokedKeyWithinRefreshEvery: an API that has nothing but the
// URL of an authority reads its sessions. A key that is revoked there is known
// here within RefreshEvery, and at once where a token of its successor comes.
func TestRemoteKnowsARevokedKeyWithinRefreshEvery(t *testing.T) {
	for _, withRun := range []bool{false, true} {
		for _, successor := range []bool{false, true} {
			t.Run(fmt.Sprint("Run ", withRun, " a token of the successor ", successor), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority(t, testIssuer)
					r := newReader(t, a)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if withRun {
						go func() { _ = r.Run(ctx) }()
						synctest.Wait()
					}
					token := a.token(t)
					status, body := get(t, r, token)
					require.Equal(t, 200, status, body)
					require.Equal(t, "user-42 Ada", body)
					require.Equal(t, 1.0, r.Metrics()["verifications_total"])
					require.Equal(t, 2.0, r.Metrics()["jwks_keys"])
					time.Sleep(time.Minute)
					status, _ = get(t, r, token)
					require.Equal(t, 200, status)

					key, err := a.ring.SigningKey(t.Context())
					require.NoError(t, err)
					require.NoError(t, a.ring.Revoke(t.Context(), key.Public().KeyID()))
					within := 10 * time.Minute
					if successor {
						begin := time.Now()
						status, body = get(t, r, a.token(t))
						require.Equal(t, 200, status, body)
						require.LessOrEqual(t, time.Since(begin), 2*time.Second)
						within = 0
					}
					time.Sleep(within)
					begin := time.Now()
					for status, _ = get(t, r, token); status == 503; status, _ = get(t, r, token) {
						require.Less(t, time.Since(begin), 5*time.Second) // the server is asked twice, in a fixed rhythm
						time.Sleep(10 * time.Millisecond)
					}
					require.Equal(t, 401, status)
					status, _ = get(t, r, a.token(t))
					require.Equal(t, 200, status)
					cancel()
					time.Sleep(10 * time.Second)
				})
			})
		}
	}
}

// TestRemoteReadsOnly: what begins and ends sessions is the authority's.
func TestRemoteReadsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReader(t, newAuthority(t, testIssuer))
		rec := httptest.NewRecorder()
		err := r.Sessions().SignOut(rec, httptest.NewRequestWithContext(t.Context(), "POST", "https://api.example/", nil))
		require.Error(t, err)
		require.Empty(t, rec.Result().Cookies())
	})
}

// TestRemoteWhileTheAuthorityIsDown: no token is refused, and no request waits
// for longer than 2 s.
func TestRemoteWhileTheAuthorityIsDown(t *testing.T) {
	for name, answer := range map[string]answerer{"down": answerDown, "hung": answerHung, "panic": answerPanic} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				token := newAuthority(t, testIssuer).token(t)
				r := newReader(t, &memServer{answer: answer})
				for range 20 {
					begin := time.Now()
					status, _ := get(t, r, token)
					require.Equal(t, 503, status)
					require.LessOrEqual(t, time.Since(begin), 2*time.Second)
					time.Sleep(time.Second)
				}
				status, body := ready(t, r)
				require.Equal(t, 503, status)
				require.Contains(t, body, `"keys":`)
				require.NotContains(t, body, marker)
				time.Sleep(time.Minute)
			})
		})
	}
}

func TestNew(t *testing.T) {
	good := remote.Config{Issuer: "https://auth.example", Audience: "orders"}
	for _, tt := range []struct {
		name   string
		change func(*remote.Config)
		field  string // named by the error; "" = no error
	}{
		{"good", func(*remote.Config) {}, ""},
		{"issuer with a path", func(c *remote.Config) { c.Issuer = "https://auth.example/tenant" }, ""},
		{"issuer with a slash", func(c *remote.Config) { c.Issuer = "https://auth.example/" }, ""},
		{"http on loopback, permitted", func(c *remote.Config) { c.Issuer, c.InsecurePlainHTTP = "http://127.0.0.1:80", true }, ""},
		{"no issuer", func(c *remote.Config) { c.Issuer = "" }, "Issuer"},
		{"no audience", func(c *remote.Config) { c.Audience = "" }, "Audience"},
		{"issuer that is a name", func(c *remote.Config) { c.Issuer = "hunter2" }, "Issuer"},
		{"issuer over http", func(c *remote.Config) { c.Issuer = "http://auth.example/hunter2" }, "Issuer"},
		{"issuer over http on loopback", func(c *remote.Config) { c.Issuer = "HTTP://127.0.0.1/hunter2" }, "Issuer"},
		{"issuer over http elsewhere, permitted", func(c *remote.Config) { c.Issuer, c.InsecurePlainHTTP = "http://auth.example/hunter2", true }, "Issuer"},
		{"issuer of another scheme", func(c *remote.Config) { c.Issuer = "ftp://auth.example/hunter2" }, "Issuer"},
		{"issuer with a query", func(c *remote.Config) { c.Issuer = "https://auth.example?hunter2" }, "Issuer"},
		{"issuer with an empty query", func(c *remote.Config) { c.Issuer = "https://auth.example?" }, "Issuer"},
		{"issuer with a fragment", func(c *remote.Config) { c.Issuer = "https://auth.example#hunter2" }, "Issuer"},
		{"issuer with a password", func(c *remote.Config) { c.Issuer = "https://u:hunter2@auth.example" }, "Issuer"},
		{"issuer that cannot be read", func(c *remote.Config) { c.Issuer = "https://auth.example/hunter2%zz" }, "Issuer"},
		{"RefreshEvery below a second", func(c *remote.Config) { c.RefreshEvery = 600 }, "RefreshEvery"},
		{"negative MaxStale", func(c *remote.Config) { c.MaxStale = -1 }, "MaxStale"},
		{"MaxStale below RefreshEvery", func(c *remote.Config) { c.MaxStale = time.Minute }, "MaxStale"},
		{"negative Timeout", func(c *remote.Config) { c.Client = &http.Client{Timeout: -1} }, "Client"},
		{"nil Transport", func(c *remote.Config) { c.Client = &http.Client{Transport: (*http.Transport)(nil)} }, "Client"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			tt.change(&c)
			r, err := remote.New[state](c)
			if tt.field == "" {
				require.NoError(t, err)
				require.NotNil(t, r.Sessions())
				require.Equal(t, c.Issuer, r.Verifier().Config().Issuer)
				require.Same(t, r.Keys(), r.Verifier().Config().Keys)
				return
			}
			require.Nil(t, r)
			require.ErrorContains(t, err, "remote: Config."+tt.field)
			require.NotContains(t, err.Error(), marker)
		})
	}
}

// TestVerifierWithKeysThatWereNotMade: a constructor refuses them.
func TestVerifierWithKeysThatWereNotMade(t *testing.T) {
	for _, tt := range []struct {
		name string
		keys sessiontoken.KeySource
	}{
		{"zero", new(remote.Keys)},
		{"nil", (*remote.Keys)(nil)},
	} {
		_, err := sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: testIssuer, Audience: "orders", Keys: tt.keys})
		require.ErrorContains(t, err, "VerifierConfig.Keys", tt.name)
	}
}
