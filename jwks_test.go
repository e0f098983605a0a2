package sessiontoken_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

func serve(h http.Handler, method string, change ...func(*http.Request)) *http.Response {
	r := httptest.NewRequest(method, "https://auth.example/.well-known/jwks.json", nil)
	for _, f := range change {
		f(r)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, _ := r.Body.Read(b)
	return string(b[:n])
}

func TestJWKSHandler(t *testing.T) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		source := staticSource(t, alg)
		h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source})
		require.NoError(t, err)
		get := serve(h, http.MethodGet)
		require.Equal(t, 200, get.StatusCode)
		require.Equal(t, "application/jwk-set+json", get.Header.Get("Content-Type"))
		require.Equal(t, "nosniff", get.Header.Get("X-Content-Type-Options"))
		require.Equal(t, "*", get.Header.Get("Access-Control-Allow-Origin"))
		require.Equal(t, "public, max-age=600, s-maxage=1", get.Header.Get("Cache-Control"))
		etag := get.Header.Get("ETag")
		require.Regexp(t, `^"[0-9a-f]{32}"$`, etag)
		text := body(t, get)

		var doc struct {
			Keys []map[string]any `json:"keys"`
		}
		require.NoError(t, json.Unmarshal([]byte(text), &doc, json.RejectUnknownMembers(true)))
		require.Len(t, doc.Keys, 1)
		for name := range doc.Keys[0] {
			require.Contains(t, []string{"kty", "kid", "use", "alg", "crv", "x", "y", "n", "e"}, name)
		}
		set, err := source.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.Equal(t, set.Keys()[0].KeyID(), doc.Keys[0]["kid"])
		require.Equal(t, "sig", doc.Keys[0]["use"])
		require.Equal(t, string(alg), doc.Keys[0]["alg"])

		head := serve(h, http.MethodHead)
		require.Equal(t, 200, head.StatusCode)
		require.Equal(t, etag, head.Header.Get("ETag"))
		require.Equal(t, int64(len(text)), head.ContentLength)
		require.Empty(t, body(t, head))
		for _, inm := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
			cached := serve(h, http.MethodGet, func(r *http.Request) { r.Header.Set("If-None-Match", inm) })
			require.Equal(t, 304, cached.StatusCode, inm)
			require.Equal(t, "public, max-age=600, s-maxage=1", cached.Header.Get("Cache-Control"))
			require.Empty(t, body(t, cached))
		}
		require.Equal(t, 200, serve(h, http.MethodGet, func(r *http.Request) { r.Header.Set("If-None-Match", `"other"`) }).StatusCode)
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} {
			refused := serve(h, method)
			require.Equal(t, 405, refused.StatusCode)
			require.Equal(t, "GET, HEAD", refused.Header.Get("Allow"))
		}
	}
}

func TestJWKSHandlerOverPlainHTTP(t *testing.T) {
	source := staticSource(t, keys.ES256)
	plain := func(from string) func(*http.Request) {
		return func(r *http.Request) { r.TLS, r.RemoteAddr = nil, from }
	}
	var logged bytes.Buffer
	strict, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	require.NoError(t, err)
	told, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source, InsecurePlainHTTP: true})
	require.NoError(t, err)
	require.Equal(t, 200, serve(strict, http.MethodGet, func(r *http.Request) { r.TLS = new(tls.ConnectionState) }).StatusCode)
	require.Equal(t, 200, serve(strict, http.MethodGet, plain("127.0.0.1:1")).StatusCode)
	require.Equal(t, 200, serve(strict, http.MethodGet, plain("[::1]:1")).StatusCode)
	for _, from := range []string{"192.0.2.1:1", "[2001:db8::1]:1", "", "localhost:1", "@"} {
		refused := serve(strict, http.MethodGet, plain(from), func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") })
		require.Equal(t, 403, refused.StatusCode, from)
		require.Contains(t, body(t, refused), "JWKSConfig.InsecurePlainHTTP")
		require.Equal(t, "no-store", refused.Header.Get("Cache-Control"))
		require.Equal(t, 200, serve(told, http.MethodGet, plain(from)).StatusCode, from)
	}
	require.Equal(t, 1, strings.Count(logged.String(), "\n"), "one line a minute")
	require.Contains(t, logged.String(), "JWKSConfig.InsecurePlainHTTP")

	logged.Reset()
	discovery, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{
		Issuer: "https://auth.example", Keys: source, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	require.NoError(t, err)
	refused := serve(discovery, http.MethodGet, plain("192.0.2.1:1"))
	require.Equal(t, 403, refused.StatusCode)
	require.Contains(t, body(t, refused), "DiscoveryConfig.InsecurePlainHTTP")
	require.Contains(t, logged.String(), "DiscoveryConfig.InsecurePlainHTTP")
}

var (
	_ sessiontoken.Looker = (*keys.Ring)(nil)
	_ keys.Scheduler      = (*keys.Ring)(nil)
)

func newPublicKey(t testing.TB) *keys.PublicKey {
	t.Helper()
	k, err := keys.GenerateKey(keys.ES256)
	require.NoError(t, err)
	return k.Public()
}

// looker is a source whose store has a newer set, which a look brings.
type looker struct {
	changing
	looks atomic.Int32
	look  func(ctx context.Context) error
}

func (l *looker) Look(ctx context.Context) error {
	l.looks.Add(1)
	return l.look(ctx)
}

// TestJWKSHandlerLooksAtTheStore: what another process has made or revoked is
// published without delay, and the store is read at most once a second.
func TestJWKSHandlerLooksAtTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := mustSet(t, newPublicKey(t)), mustSet(t, newPublicKey(t))
		source := new(looker)
		source.put(old, nil)
		stored := old
		source.look = func(context.Context) error {
			time.Sleep(10 * time.Millisecond)
			source.put(stored, nil)
			return nil
		}
		h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source})
		require.NoError(t, err)
		has := func(set *keys.Set) bool {
			return strings.Contains(body(t, serve(h, http.MethodGet)), set.Keys()[0].KeyID())
		}
		stored = next // revoked at another replica
		require.True(t, has(next))
		require.False(t, has(old))
		require.EqualValues(t, 1, source.looks.Load())

		stored = old
		time.Sleep(980 * time.Millisecond)
		require.True(t, has(next), "within a second of the last look")
		require.EqualValues(t, 1, source.looks.Load())
		time.Sleep(10 * time.Millisecond)
		require.True(t, has(old))
		require.EqualValues(t, 2, source.looks.Load())

		begin := time.Now()
		for time.Since(begin) < 10*time.Second {
			serve(h, http.MethodGet)
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, source.looks.Load(), int32(2+10), "at most once a second")
	})
}

// TestJWKSHandlerWhileTheStoreHangs: a request waits for 200 ms, and not at all
// once the look has failed, whatever the store does with its context.
func TestJWKSHandlerWhileTheStoreHangs(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		t.Run(fmt.Sprint("heeds its context ", heeds), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				set := mustSet(t, newPublicKey(t))
				source := new(looker)
				source.put(set, nil)
				release := make(chan struct{})
				var works atomic.Bool
				source.look = func(ctx context.Context) error {
					switch {
					case works.Load():
						return nil
					case heeds:
						<-ctx.Done()
						return ctx.Err()
					}
					<-release
					return errBoom
				}
				h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source})
				require.NoError(t, err)
				took := func() time.Duration {
					begin := time.Now()
					require.Equal(t, 200, serve(h, http.MethodGet).StatusCode)
					return time.Since(begin)
				}
				require.Equal(t, 200*time.Millisecond, took())
				require.Equal(t, 200*time.Millisecond, took())
				time.Sleep(5 * time.Second)
				for range 100 {
					require.Zero(t, took())
					time.Sleep(time.Second)
				}
				works.Store(true)
				close(release)
				time.Sleep(time.Minute)
				require.Zero(t, took())
				synctest.Wait()
				before := source.looks.Load()
				time.Sleep(time.Second)
				require.Zero(t, took())
				require.Equal(t, before+1, source.looks.Load(), "it works again")
			})
		})
	}
}

func TestJWKSHandlerWithoutSet(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source *changing
	}{{"error", &changing{err: errBoom}}, {"no set", &changing{}}} {
		var logged bytes.Buffer
		h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: tt.source, Logger: slog.New(slog.NewTextHandler(&logged, nil))})
		require.NoError(t, err)
		r := serve(h, http.MethodGet)
		require.Equal(t, 503, r.StatusCode, tt.name)
		require.Contains(t, logged.String(), "reason=no_key_set")
		require.Equal(t, "no-store", r.Header.Get("Cache-Control"))
		require.NotContains(t, body(t, r), "boom")
		tt.source.put(mustSet(t, newShop(t, keys.ES256).key.Public()), nil)
		require.Equal(t, 200, serve(h, http.MethodGet).StatusCode)
	}
}

// TestJWKSMaxAge: no answer outlives the next planned change, and a max-age
// that is too long for the ring's times is refused.
func TestJWKSMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), SyncEvery: 5 * time.Minute})
		require.NoError(t, err)
		_, err = sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring, MaxAge: ring.MaxAge().Truncate(time.Second) + time.Second})
		require.ErrorContains(t, err, "JWKSConfig.MaxAge")
		_, err = sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring, MaxAge: ring.MaxAge().Truncate(time.Second)})
		require.NoError(t, err)
		h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- ring.Run(ctx) }()
		synctest.Wait()
		first := serve(h, http.MethodGet)
		require.Equal(t, "public, max-age=600, s-maxage=1", first.Header.Get("Cache-Control"))
		time.Sleep(30*24*time.Hour - 90*time.Second)
		require.Equal(t, "public, max-age=90, s-maxage=1", serve(h, http.MethodGet).Header.Get("Cache-Control"))
		time.Sleep(10 * time.Minute)
		changed := serve(h, http.MethodGet)
		require.NotEqual(t, first.Header.Get("ETag"), changed.Header.Get("ETag"))
		cancel()
		<-done
	})
}

// planned is a source with a plan, and wrapped one that keeps the plan of another.
type planned struct {
	changing
	maxAge time.Duration
	next   time.Time
}

func (p *planned) MaxAge() time.Duration { return p.maxAge }
func (p *planned) NextChange() time.Time { return p.next }

// TestJWKSHandlerKeepsToThePlan: of any source that has one, of a wrapper too.
func TestJWKSHandlerKeepsToThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &planned{maxAge: time.Minute, next: time.Now().Add(20 * time.Second)}
		source.put(mustSet(t, newPublicKey(t)), nil)
		for _, tt := range []struct {
			name string
			s    sessiontoken.KeySource
		}{{"itself", source}, {"wrapped", struct {
			sessiontoken.KeySource
			keys.Scheduler
		}{source, source}}} {
			_, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: tt.s})
			require.ErrorContains(t, err, "JWKSConfig.MaxAge is 10m0s; with the times of Keys it must not exceed 1m0s", tt.name)
			h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: tt.s, MaxAge: time.Minute})
			require.NoError(t, err, tt.name)
			require.Equal(t, "public, max-age=20, s-maxage=1", serve(h, http.MethodGet).Header.Get("Cache-Control"), tt.name)
		}
	})
}

// TestDiscoveryPaths: each standard has its own place for the path of an issuer.
func TestDiscoveryPaths(t *testing.T) {
	const openID, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	for _, tt := range []struct {
		issuer string
		want   []string
	}{
		{"https://auth.example", []string{openID, oauth}},
		{"https://auth.example/", []string{openID, oauth}},
		{"https://auth.example/tenant", []string{"/tenant" + openID, oauth + "/tenant"}},
		{"https://auth.example/a/b/", []string{"/a/b" + openID, oauth + "/a/b"}},
		{"https://auth.example/%7Bx%7D/a%2Fb", []string{"/%7Bx%7D/a%2Fb" + openID, oauth + "/%7Bx%7D/a%2Fb"}},
		{"http://localhost:8080/tenant", []string{"/tenant" + openID, oauth + "/tenant"}},
	} {
		t.Run(tt.issuer, func(t *testing.T) {
			paths, err := sessiontoken.DiscoveryPaths(tt.issuer)
			require.NoError(t, err)
			require.Equal(t, tt.want, paths)
			h, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: tt.issuer, Keys: staticSource(t, keys.EdDSA), InsecurePlainHTTP: true})
			require.NoError(t, err)
			mux := http.NewServeMux()
			for _, path := range paths {
				mux.Handle("GET "+path, h)
			}
			for _, path := range paths {
				rec := httptest.NewRecorder()
				mux.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
				require.Equal(t, 200, rec.Code, path)
				require.Contains(t, rec.Body.String(), `"issuer":"`+tt.issuer+`"`)
			}
		})
	}
	for _, bad := range []string{"", "auth.example", "https://", "https://auth.example?x", "https://u:hunter2@auth.example", "https://auth.example/#"} {
		_, err := sessiontoken.DiscoveryPaths(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestDiscoveryHandler(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	h, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: "https://auth.example/tenant/", Keys: source})
	require.NoError(t, err)
	r := serve(h, http.MethodGet)
	require.Equal(t, 200, r.StatusCode)
	require.Equal(t, "application/json", r.Header.Get("Content-Type"))
	var doc map[string]any
	require.NoError(t, json.Unmarshal([]byte(body(t, r)), &doc))
	require.Equal(t, map[string]any{
		"issuer": "https://auth.example/tenant/", "jwks_uri": "https://auth.example/tenant/.well-known/jwks.json",
		"id_token_signing_alg_values_supported": []any{"EdDSA"}, "response_types_supported": []any{"id_token"}, "subject_types_supported": []any{"public"},
	}, doc)
	for _, bad := range []string{"", "auth.example", "http://auth.example", "https://", "https://auth.example?x", "https://auth.example#", "https://u:p@auth.example", "https://auth.example/?"} {
		_, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: bad, Keys: source})
		require.ErrorContains(t, err, "DiscoveryConfig.Issuer", bad)
		if bad != "" {
			_, err = sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: "https://auth.example", JWKSURI: bad, Keys: source})
			require.ErrorContains(t, err, "DiscoveryConfig.JWKSURI", bad)
			require.False(t, strings.Contains(err.Error(), "u:p"))
		}
	}
	_, err = sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: "https://auth.example"})
	require.ErrorContains(t, err, "DiscoveryConfig.Keys")
	_, err = sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{})
	require.ErrorContains(t, err, "JWKSConfig.Keys")
	_, err = sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source, MaxAge: time.Millisecond})
	require.ErrorContains(t, err, "JWKSConfig.MaxAge")
}
