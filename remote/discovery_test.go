package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
	"github.com/sessiontoken/sessiontoken/remote"
)

const (
	testIssuer    = "https://id.example/tenant"
	discoveryPath = "/tenant/.well-known/openid-configuration"
)

type answerer = func(*http.Request) (*http.Response, error)

// byPath answers each path by its own, and counts the requests of each.
type byPath struct {
	mu      sync.Mutex
	answers map[string]answerer
	asked   map[string]int
	noCache map[string]int
}

func newByPath(answers map[string]answerer) *byPath {
	return &byPath{answers: answers, asked: map[string]int{}, noCache: map[string]int{}}
}

func (b *byPath) set(path string, answer answerer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[path] = answer
}

func (b *byPath) count(path string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[path]
}

func (b *byPath) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	answer := b.answers[r.URL.Path]
	b.asked[r.URL.Path]++
	if r.Header.Get("Cache-Control") == "no-cache" {
		b.noCache[r.URL.Path]++
	}
	b.mu.Unlock()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if answer == nil {
		return answerWith(404, marker)(r)
	}
	return answer(r)
}

// slow answers after 100 ms, if the request is still wanted then.
func slow(answer answerer) answerer {
	return func(r *http.Request) (*http.Response, error) {
		select {
		case <-r.Context().Done():
			return nil, r.Context().Err()
		case <-time.After(100 * time.Millisecond):
			return answer(r)
		}
	}
}

func discoveryDocument(issuer, jwksURI string) string {
	return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"response_types_supported":["id_token"]}`, issuer, jwksURI)
}

type state struct{ Name string }

func newReader(t testing.TB, transport http.RoundTripper, change ...func(*remote.Config)) *remote.Remote[state] {
	t.Helper()
	config := remote.Config{
		Issuer: testIssuer, Audience: "orders", Client: &http.Client{Transport: transport}, Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&config)
	}
	r, err := remote.New[state](config)
	require.NoError(t, err)
	return r
}

// ready returns the status and the body of a probe.
func ready(t testing.TB, r *remote.Remote[state]) (int, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Ready().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/ready", nil))
	require.Equal(t, "application/json", rec.Header().Get("Content-Type"))
	require.Equal(t, "no-store", rec.Header().Get("Cache-Control"))
	return rec.Code, rec.Body.String()
}

// TestDiscoveryDocument answers discovery with each row. One that does not hold
// is an error by which no token is refused, told by the probe, and over as soon as
// the document is right.
func TestDiscoveryDocument(t *testing.T) {
	pub := newKey(t)
	const jwks = "https://id.example/keys"
	good := discoveryDocument(testIssuer, jwks)
	with := func(issuer, uri string) answerer { return answerWith(200, discoveryDocument(issuer, uri)) }
	text := func(body string) answerer { return answerWith(200, body) }
	tests := []struct {
		name   string
		answer answerer
		err    string // "" = accepted
	}{
		{"good", text(good), ""},
		{"byte order mark", text("\ufeff" + good), ""},
		{"gzip", answerWith(200, gzipped(t, good), "Content-Encoding", "gzip"), ""},
		{"other members", text(`{"jwks_uri":"` + jwks + `","x":[{"y":1}],"Issuer":"other","issuer":"` + testIssuer + `"}`), ""},
		{"key set at another host", with(testIssuer, "https://cdn.example/keys"), ""},
		{"redirect within the origin", answerWith(302, "", "Location", "/tenant/moved"), ""},

		{"issuer with a slash", with(testIssuer+"/", jwks), `"https://id.example/tenant/", which differs from Config.Issuer by a slash at the end alone`},
		{"another issuer", with("https://id.example/other", jwks), `issuer is "https://id.example/other", and not Config.Issuer`},
		{"issuer in other letters", with("https://ID.example/tenant", jwks), "not Config.Issuer"},
		{"long issuer", with("https://id.example/"+strings.Repeat("x", 1000), jwks), "not Config.Issuer"},
		{"no issuer", text(`{"jwks_uri":"` + jwks + `"}`), "not Config.Issuer"},
		{"issuer under a name in other case", text(`{"ISSUER":"` + testIssuer + `","jwks_uri":"` + jwks + `"}`), "not Config.Issuer"},
		{"issuer that is no string", text(`{"issuer":1,"jwks_uri":"` + jwks + `"}`), "malformed"},
		{"no jwks_uri", text(`{"issuer":"` + testIssuer + `"}`), "no jwks_uri"},
		{"jwks_uri null", text(`{"issuer":"` + testIssuer + `","jwks_uri":null}`), "no jwks_uri"},
		{"jwks_uri over http", with(testIssuer, "http://id.example/hunter2"), "jwks_uri must be https"},
		{"jwks_uri over http on loopback", with(testIssuer, "http://127.0.0.1/hunter2"), "jwks_uri must be https"},
		{"jwks_uri of another scheme", with(testIssuer, "file:///hunter2"), "jwks_uri"},
		{"relative jwks_uri", with(testIssuer, "/hunter2"), "jwks_uri"},
		{"jwks_uri with a password", with(testIssuer, "https://u:hunter2@id.example/keys"), "jwks_uri must not have user information"},
		{"jwks_uri with a fragment", with(testIssuer, jwks+"#hunter2"), "jwks_uri must not have a fragment"},

		{"nothing", text(""), "malformed"},
		{"null", text("null"), "not Config.Issuer"},
		{"array", text("[" + good + "]"), "malformed"},
		{"garbage", text("<html>" + marker), "malformed"},
		{"garbage after it", text(good + marker), "malformed"},
		{"issuer twice", text(`{"issuer":"` + testIssuer + `",` + good[1:]), "malformed"},
		{"a name twice, deep down", text(`{"x":[{"y":1,"y":2}],` + good[1:]), "malformed"},
		{"invalid UTF-8", text("{\"x\":\"\xff\"," + good[1:]), "malformed"},
		{"17 levels", text(`{"x":` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + "," + good[1:]), "malformed"},
		{"over 64 KiB", text(good + strings.Repeat(" ", 64<<10)), "over 65536 bytes"},
		{"404", answerWith(404, marker), "status 404"},
		{"203 with a good document", answerWith(203, good), "status 203"},
		{"redirect to another host", answerWith(302, "", "Location", "https://hunter2.example/"), "redirect away"},
		{"redirect to itself", answerWith(302, "", "Location", discoveryPath), "more than 3 redirects"},
		{"down", answerDown, "request failed"},
		{"hung", answerHung, ""}, // below
		{"panic", answerPanic, "panicked"},
		{"no response", func(*http.Request) (*http.Response, error) { return nil, nil }, "panicked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				keySet := answerWith(200, document(t, pub))
				server := newByPath(map[string]answerer{discoveryPath: tt.answer, "/tenant/moved": answerWith(200, good), "/keys": keySet})
				r := newReader(t, server)
				hung := tt.name == "hung"
				begin := time.Now()
				set, err := r.Keys().KeySet(t.Context(), pub.KeyID())
				require.LessOrEqual(t, time.Since(begin), 2*time.Second)
				if tt.err == "" && !hung {
					require.NoError(t, err)
					require.Len(t, set.Keys(), 1)
					status, body := ready(t, r)
					require.Equal(t, 200, status)
					require.Equal(t, `{}`, body)
					return
				}
				requireUnavailable(t, set, err)
				require.ErrorContains(t, err, tt.err)
				require.Less(t, len(err.Error()), 400)
				_, err = r.Verifier().Verify(t.Context(), "a.b.c")
				require.Error(t, err)
				if hung {
					time.Sleep(5 * time.Second)
				}
				status, body := ready(t, r)
				require.Equal(t, 503, status)
				require.Contains(t, body, `{"keys":"remote: there is no key set to serve: `)
				require.NotContains(t, body, marker)
				require.Zero(t, server.count("/keys"))
				require.Zero(t, r.Metrics()["jwks_keys"])

				server.set(discoveryPath, answerWith(200, good))
				time.Sleep(time.Minute)
				_, _ = r.Keys().KeySet(t.Context(), pub.KeyID())
				time.Sleep(time.Second)
				requireKey(t, r.Keys(), pub)
				status, body = ready(t, r)
				require.Equal(t, 200, status)
				require.Equal(t, `{}`, body)
				time.Sleep(time.Minute)
			})
		})
	}
}

// TestDiscoveryIsOneFlight: many first requests at once are one reading of the
// document and one of the keys, and later ones are none.
func TestDiscoveryIsOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newKey(t)
		server := newByPath(map[string]answerer{
			discoveryPath: slow(answerWith(200, discoveryDocument(testIssuer, "https://id.example/keys"))),
			"/keys":       slow(answerWith(200, document(t, pub))),
		})
		r := newReader(t, server)
		require.Zero(t, server.count(discoveryPath), "New does no I/O")
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 1000 {
			wg.Go(func() {
				if _, err := r.Keys().KeySet(t.Context(), pub.KeyID()); err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		require.Zero(t, failed.Load())
		for range 1000 {
			requireKey(t, r.Keys(), pub)
			status, _ := ready(t, r)
			require.Equal(t, 200, status)
		}
		require.Equal(t, 1, server.count(discoveryPath))
		require.Equal(t, 1, server.count("/keys"))
	})
}

// TestDiscoveryOfAKeySetThatMoves: each planned fetch follows the document. A
// fetch for an unknown kid goes to the URL that is known, and asks again where
// that fails.
func TestDiscoveryOfAKeySetThatMoves(t *testing.T) {
	tests := []struct {
		name string
		old  func(t *testing.T, pub *keys.PublicKey) answerer // of the old URL, after the move
	}{
		{"the old URL goes on with the old set", func(t *testing.T, pub *keys.PublicKey) answerer { return answerWith(200, document(t, pub)) }},
		{"the old URL is gone", func(*testing.T, *keys.PublicKey) answerer { return answerWith(404, "") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, next := newKey(t), newKey(t)
				server := newByPath(map[string]answerer{
					discoveryPath: answerWith(200, discoveryDocument(testIssuer, "https://id.example/a")),
					"/a":          answerWith(200, document(t, old)),
					"/b":          answerWith(200, document(t, next)),
				})
				r := newReader(t, server)
				requireKey(t, r.Keys(), old)
				server.set(discoveryPath, answerWith(200, discoveryDocument(testIssuer, "https://id.example/b")))
				server.set("/a", tt.old(t, old))
				time.Sleep(10 * time.Minute)
				set, err := r.Keys().KeySet(t.Context(), old.KeyID())
				require.NoError(t, err)
				_, ok := set.Key(old.KeyID())
				require.False(t, ok, "RefreshEvery has passed")
				requireKey(t, r.Keys(), next)
			})
		})
	}
	t.Run("found by an unknown kid", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			old, next := newKey(t), newKey(t)
			server := newByPath(map[string]answerer{
				discoveryPath: answerWith(200, discoveryDocument(testIssuer, "https://id.example/a")),
				"/a":          answerWith(200, document(t, old)),
				"/b":          answerWith(200, document(t, next)),
			})
			r := newReader(t, server)
			requireKey(t, r.Keys(), old)
			server.set(discoveryPath, answerWith(200, discoveryDocument(testIssuer, "https://id.example/b")))
			server.set("/a", answerWith(404, ""))
			begin := time.Now()
			for {
				if set, err := r.Keys().KeySet(t.Context(), next.KeyID()); err == nil {
					_, ok := set.Key(next.KeyID())
					require.True(t, ok)
					break
				}
				require.Less(t, time.Since(begin), 6*time.Second)
				time.Sleep(10 * time.Millisecond)
			}
			require.Equal(t, 2, server.count(discoveryPath))
			require.Equal(t, 1, server.noCache[discoveryPath], "after a failure, past the caches")
		})
	})
}

// TestDiscoveryOutage: while the document cannot be read, the key set is fetched
// where it was, for MaxStale and no longer, and that is told.
func TestDiscoveryOutage(t *testing.T) {
	for name, answer := range map[string]answerer{"down": answerDown, "hung": answerHung, "another issuer": answerWith(200, discoveryDocument("https://other.example", "https://id.example/evil"))} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var logged bytes.Buffer
				pub, next := newKey(t), newKey(t)
				good := answerWith(200, discoveryDocument(testIssuer, "https://id.example/keys"))
				server := newByPath(map[string]answerer{discoveryPath: good, "/keys": slow(answerWith(200, document(t, pub)))})
				r := newReader(t, server, func(c *remote.Config) {
					c.Logger = slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
						mu.Lock()
						defer mu.Unlock()
						return logged.Write(b)
					}), nil))
				})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = r.Run(ctx) }()
				synctest.Wait()
				requireKey(t, r.Keys(), pub)
				server.set(discoveryPath, answer)
				server.set("/keys", slow(answerWith(200, document(t, next))))
				time.Sleep(11 * time.Minute)
				requireKey(t, r.Keys(), next)
				set, err := r.Keys().KeySet(t.Context(), "")
				require.NoError(t, err)
				_, ok := set.Key(pub.KeyID())
				require.False(t, ok, "a removed key")
				status, body := ready(t, r)
				require.Equal(t, 200, status)
				require.Contains(t, body, `{"discovery":"discovery: `)

				time.Sleep(23 * time.Hour)
				requireKey(t, r.Keys(), next)
				mu.Lock()
				require.Equal(t, 1, strings.Count(logged.String(), "cannot read the discovery document"))
				mu.Unlock()
				time.Sleep(2 * time.Hour)
				before := server.count("/keys")
				time.Sleep(10 * time.Hour)
				require.Equal(t, before, server.count("/keys"), "the URL is too old")
				requireKey(t, r.Keys(), next)
				time.Sleep(15 * time.Hour)
				set, err = r.Keys().KeySet(t.Context(), next.KeyID())
				requireUnavailable(t, set, err)
				status, _ = ready(t, r)
				require.Equal(t, 503, status)

				server.set(discoveryPath, good)
				time.Sleep(time.Minute)
				requireKey(t, r.Keys(), next)
				status, body = ready(t, r)
				require.Equal(t, 200, status)
				require.Equal(t, `{}`, body)
				require.Zero(t, server.count("/evil"))
				cancel()
				synctest.Wait()
			})
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestDiscoveryOverPlainHTTP: on loopback, where it is permitted, and never from
// an https issuer.
func TestDiscoveryOverPlainHTTP(t *testing.T) {
	pub := newKey(t)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	uri := server.URL + "/keys"
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, discoveryDocument(server.URL, uri))
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, document(t, pub)) })
	_, err := remote.New[state](remote.Config{Issuer: server.URL, Audience: "orders"})
	require.ErrorContains(t, err, "InsecurePlainHTTP")
	quiet := slog.New(slog.DiscardHandler)
	r, err := remote.New[state](remote.Config{Issuer: server.URL, Audience: "orders", InsecurePlainHTTP: true, Logger: quiet})
	require.NoError(t, err)
	requireKey(t, r.Keys(), pub)

	uri = "http://192.0.2.1/hunter2"
	r, err = remote.New[state](remote.Config{Issuer: server.URL, Audience: "orders", InsecurePlainHTTP: true, Logger: quiet})
	require.NoError(t, err)
	set, err := r.Keys().KeySet(t.Context(), "")
	requireUnavailable(t, set, err)
	require.ErrorContains(t, err, "loopback")

	secure := newByPath(map[string]answerer{discoveryPath: answerWith(200, discoveryDocument(testIssuer, "http://127.0.0.1/hunter2"))})
	r = newReader(t, secure, func(c *remote.Config) { c.InsecurePlainHTTP = true })
	set, err = r.Keys().KeySet(t.Context(), "")
	requireUnavailable(t, set, err)
	require.ErrorContains(t, err, "jwks_uri must be https")
}

// FuzzDiscovery: whatever the document is, the keys come over https from a URL
// that a document of this very issuer names.
func FuzzDiscovery(f *testing.F) {
	f.Add(discoveryDocument(testIssuer, "https://id.example/keys"))
	f.Add(discoveryDocument(testIssuer, "http://id.example/keys"))
	f.Add(discoveryDocument(testIssuer+"/", "https://u:p@id.example:1/%zz"))
	f.Add(`{"issuer":"` + testIssuer + `","jwks_uri":"https://id.example/\u0000#"}`)
	f.Add(`{"issuer":null,"issuer":1}`)
	good := document(f, newKey(f))
	f.Fuzz(func(t *testing.T, body string) {
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			require.Equal(t, "https", r.URL.Scheme)
			require.Nil(t, r.URL.User)
			if r.URL.Path == discoveryPath && r.URL.Host == "id.example" {
				return answerWith(200, body)(r)
			}
			return answerWith(200, good)(r)
		})
		set, err := newReader(t, transport).Keys().KeySet(t.Context(), "")
		if err != nil {
			require.Nil(t, set)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
			require.Less(t, len(err.Error()), 2000)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
