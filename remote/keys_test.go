package remote_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
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

// marker is in every hostile answer and must be in no error and no log.
const marker = "hunter2"

var _ sessiontoken.KeySource = (*remote.Keys)(nil)

var errDown = errors.New("connection to hunter2 refused")

func newKey(t testing.TB) *keys.PublicKey {
	t.Helper()
	k, err := keys.GenerateKey(keys.ES256)
	require.NoError(t, err)
	return k.Public()
}

func document(t testing.TB, pub ...*keys.PublicKey) string {
	t.Helper()
	set, err := keys.NewSet(pub...)
	require.NoError(t, err)
	doc, err := set.MarshalJSON()
	require.NoError(t, err)
	return string(doc)
}

// remoteMember is the one key of a document, without the set around it.
func element(t testing.TB, pub *keys.PublicKey) string {
	t.Helper()
	doc := document(t, pub)
	return doc[strings.Index(doc, "[")+1 : strings.LastIndex(doc, "]")]
}

// withKid is element under another kid.
func withKid(t testing.TB, pub *keys.PublicKey, kid string) string {
	t.Helper()
	return strings.Replace(element(t, pub), pub.KeyID(), kid, 1)
}

// memServer is a server in memory, for the fake clock. Its answer can be
// changed at any time.
type memServer struct {
	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error)
	times  []time.Time
}

func (s *memServer) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	answer := s.answer
	s.times = append(s.times, time.Now())
	s.mu.Unlock()
	return answer(r)
}

func (s *memServer) set(answer func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *memServer) fetches() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.times)
}

func answerWith(status int, body string, header ...string) func(*http.Request) (*http.Response, error) {
	return func(*http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		for i := 0; i+1 < len(header); i += 2 {
			resp.Header.Add(header[i], header[i+1])
		}
		return resp, nil
	}
}

func answerDown(*http.Request) (*http.Response, error) { return nil, errDown }

func answerHung(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func answerPanic(*http.Request) (*http.Response, error) { panic(marker) }

// newRemote returns Keys over a server in memory.
func newKeys(t testing.TB, s *memServer, change ...func(*remote.KeysConfig)) *remote.Keys {
	t.Helper()
	config := remote.KeysConfig{
		URL:    "https://id.example/jwks?hunter2",
		Client: &http.Client{Transport: s},
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&config)
	}
	r, err := remote.NewKeys(config)
	require.NoError(t, err)
	return r
}

func requireUnavailable(t testing.TB, set *keys.Set, err error) {
	t.Helper()
	require.Nil(t, set)
	require.Error(t, err)
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	require.NotContains(t, err.Error(), marker)
}

func requireKey(t testing.TB, r *remote.Keys, pub *keys.PublicKey) *keys.Set {
	t.Helper()
	set, err := r.KeySet(t.Context(), pub.KeyID())
	require.NoError(t, err)
	_, ok := set.Key(pub.KeyID())
	require.True(t, ok)
	return set
}

func TestNewKeys(t *testing.T) {
	tests := []struct {
		name   string
		config remote.KeysConfig
		field  string // named by the error; "" = no error
	}{
		{"https", remote.KeysConfig{URL: "https://id.example/jwks"}, ""},
		{"https with port and query", remote.KeysConfig{URL: "https://id.example:8443/jwks?tenant=a"}, ""},
		{"http on 127.0.0.1", remote.KeysConfig{URL: "http://127.0.0.1:8080/"}, ""},
		{"http elsewhere in 127.0.0.0/8", remote.KeysConfig{URL: "http://127.8.9.1/"}, ""},
		{"http on ::1", remote.KeysConfig{URL: "http://[::1]:8080/"}, ""},
		{"http on localhost", remote.KeysConfig{URL: "http://localhost:8080/"}, ""},
		{"stale as long as refresh", remote.KeysConfig{URL: "https://id.example", RefreshEvery: time.Hour, MaxStale: time.Hour}, ""},
		{"empty", remote.KeysConfig{}, "URL"},
		{"http", remote.KeysConfig{URL: "http://id.example/hunter2"}, "URL"},
		{"http on a name that begins like loopback", remote.KeysConfig{URL: "http://127.0.0.1.example/"}, "URL"},
		{"http under localhost", remote.KeysConfig{URL: "http://localhost.example/"}, "URL"},
		{"http on a private address", remote.KeysConfig{URL: "http://10.0.0.1/"}, "URL"},
		{"http on the unspecified address", remote.KeysConfig{URL: "http://0.0.0.0/"}, "URL"},
		{"another scheme", remote.KeysConfig{URL: "file:///hunter2"}, "URL"},
		{"another scheme with a host", remote.KeysConfig{URL: "ftp://id.example/hunter2"}, "URL"},
		{"relative", remote.KeysConfig{URL: "/hunter2"}, "URL"},
		{"without scheme", remote.KeysConfig{URL: "//id.example/hunter2"}, "URL"},
		{"opaque", remote.KeysConfig{URL: "https:id.example"}, "URL"},
		{"without host", remote.KeysConfig{URL: "https://:443/hunter2"}, "URL"},
		{"unreadable", remote.KeysConfig{URL: "https://u:hunter2@id.example/%zz"}, "URL"},
		{"user information", remote.KeysConfig{URL: "https://u:hunter2@id.example/"}, "URL"},
		{"empty user information", remote.KeysConfig{URL: "https://@id.example/"}, "URL"},
		{"fragment", remote.KeysConfig{URL: "https://id.example/#hunter2"}, "URL"},
		{"empty fragment", remote.KeysConfig{URL: "https://id.example/#"}, "URL"},
		{"RefreshEvery of a second", remote.KeysConfig{URL: "https://id.example", RefreshEvery: time.Second}, ""},
		{"RefreshEvery below a second", remote.KeysConfig{URL: "https://id.example", RefreshEvery: time.Second - 1}, "RefreshEvery"},
		{"RefreshEvery that was meant in seconds", remote.KeysConfig{URL: "https://id.example", RefreshEvery: 600}, "RefreshEvery"},
		{"negative RefreshEvery", remote.KeysConfig{URL: "https://id.example", RefreshEvery: -1}, "RefreshEvery"},
		{"negative MaxStale", remote.KeysConfig{URL: "https://id.example", MaxStale: -1}, "MaxStale"},
		{"stale before refresh", remote.KeysConfig{URL: "https://id.example", MaxStale: time.Minute}, "MaxStale"},
		{"refresh after the default MaxStale", remote.KeysConfig{URL: "https://id.example", RefreshEvery: 25 * time.Hour}, "MaxStale"},
		{"negative client timeout", remote.KeysConfig{URL: "https://id.example", Client: &http.Client{Timeout: -1}}, "Client"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := remote.NewKeys(tt.config)
			if tt.field == "" {
				require.NoError(t, err)
				require.NotNil(t, r)
				return
			}
			require.Nil(t, r)
			require.ErrorContains(t, err, "KeysConfig."+tt.field)
			require.NotContains(t, err.Error(), marker)
		})
	}
}

// TestKeysHostileServer answers each row to a client without a set, which
// must fail, and to one with a good set, which must keep it.
func TestKeysHostileServer(t *testing.T) {
	pub := newKey(t)
	good := document(t, pub)
	member := element(t, pub)
	body := func(status int, doc string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, doc)
		}
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	}
	var lured atomic.Int32
	lure := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		lured.Add(1)
		_, _ = io.WriteString(w, good)
	})
	otherTLS, otherPlain := httptest.NewTLSServer(lure), httptest.NewServer(lure)
	t.Cleanup(otherTLS.Close)
	t.Cleanup(otherPlain.Close)

	many := make([]string, 101)
	for i := range many {
		many[i] = element(t, newKey(t))
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
	}{
		{"endless body after a good set", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, good)
			for r.Context().Err() == nil {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<15)); err != nil {
					return
				}
			}
		}},
		{"slow drip", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, good[:len(good)/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"cut body", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)+100))
			_, _ = io.WriteString(w, good)
		}},
		{"connection dropped", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"not http", func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = rw.WriteString(marker + "\r\n\r\n")
				_ = rw.Flush()
				_ = conn.Close()
			}
		}},
		{"500 with a good set", body(500, good)},
		{"500", body(500, marker)},
		{"404", body(404, marker)},
		{"203 with a good set", body(203, good)},
		{"304", body(304, "")},
		{"nothing", body(200, "")},
		{"empty set", body(200, `{"keys":[]}`)},
		{"no set", body(200, `{}`)},
		{"null", body(200, `null`)},
		{"garbage", body(200, `<html>`+marker)},
		{"garbage after a good set", body(200, good+marker)},
		{"duplicate name", body(200, `{"hunter2":1,"hunter2":2,`+good[1:])},
		{"private key among good ones", body(200, `{"keys":[`+member+`,`+strings.Replace(member, `{`, `{"d":"hunter2",`, 1)+`]}`)},
		{"symmetric key among good ones", body(200, `{"keys":[`+member+`,{"kty":"oct","kid":"h","k":"hunter2"}]}`)},
		{"one kid for two keys", body(200, `{"keys":[`+member+`,`+withKid(t, newKey(t), pub.KeyID())+`]}`)},
		{"340000 empty keys", body(200, `{"keys":[`+strings.Repeat("{},", 340_000)+`{}]}`)},
		{"only keys of an unknown type", body(200, `{"keys":[{"kty":"hunter2","kid":"a"}]}`)},
		{"101 keys", body(200, `{"keys":[`+strings.Join(many, ",")+`]}`)},
		{"100000 keys", body(200, `{"keys":[`+strings.Repeat(member+",", 100_000)+member+`]}`)},
		{"redirect to another port", redirect(otherTLS.URL)},
		{"redirect to http", redirect(otherPlain.URL)},
		{"redirect to another host", redirect("https://id.example/hunter2")},
		{"redirect to itself", redirect("")},
		{"redirect that cannot be read", redirect("https://hunter2/%zz")},
		{"redirect to another scheme", redirect("file:///hunter2")},
	}
	type answer struct {
		set *keys.Set
		err error
	}
	// Each hostile fetch takes a second and more: they are made at once, when all
	// clients that have a good set have it.
	start, finish := make([]func(), len(tests)), make([]func(*testing.T), len(tests))
	for i, tt := range tests {
		func() {
			var hostile atomic.Bool
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if hostile.Load() {
					tt.handler(w, r)
					return
				}
				_, _ = io.WriteString(w, good)
			})
			server := httptest.NewUnstartedServer(handler)
			server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			server.StartTLS()
			t.Cleanup(server.Close)
			client := server.Client()
			client.Timeout = time.Second // the slow rows take this long; none is quicker for a longer one
			var logged bytes.Buffer
			config := remote.KeysConfig{
				URL: server.URL + "/?hunter2", Client: client,
				Logger: slog.New(slog.NewTextHandler(&logged, nil)),
			}
			withSet, err := remote.NewKeys(config)
			require.NoError(t, err)
			var kept *keys.Set
			require.Eventually(t, func() bool { // a machine that is busy may need more than one fetch of a second
				kept, err = withSet.KeySet(t.Context(), pub.KeyID())
				return err == nil
			}, time.Minute, 10*time.Millisecond)
			logged.Reset()
			config.Logger = slog.New(slog.DiscardHandler)
			without, err := remote.NewKeys(config)
			require.NoError(t, err)

			first, second := make(chan answer, 1), make(chan answer, 1)
			start[i] = func() {
				hostile.Store(true)
				set, err := without.KeySet(t.Context(), pub.KeyID())
				first <- answer{set, err}
				set, err = withSet.KeySet(t.Context(), "unknown")
				second <- answer{set, err}
			}
			finish[i] = func(t *testing.T) {
				got := <-first
				requireUnavailable(t, got.set, got.err)
				got = <-second
				requireUnavailable(t, got.set, got.err)
				require.Contains(t, logged.String(), "level=WARN")
				require.NotContains(t, logged.String(), marker)
				require.Same(t, kept, requireKey(t, withSet, pub))
			}
		}()
	}
	for _, f := range start {
		go f()
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NotNil(t, finish[i])
			finish[i](t)
		})
	}
	require.Zero(t, lured.Load())
}

func TestKeysSkipsWhatItCannotUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newKey(t)
		doc := `{"keys":[{"kty":"AKP","alg":"ML-DSA-44","kid":"pq","pub":"AA"},` + element(t, pub) +
			`,{"kty":"EC","crv":"P-256","kid":"off","x":"AA","y":"AA"}]}`
		r := newKeys(t, &memServer{answer: answerWith(200, doc)})
		set := requireKey(t, r, pub)
		require.Len(t, set.Keys(), 1)
	})
}

func TestKeysFollowsRedirectsWithinTheOrigin(t *testing.T) {
	pub := newKey(t)
	doc := document(t, pub)
	tests := []struct {
		name     string
		location func(r *http.Request, n int) string // "" = answer
		ok       bool
		requests int
	}{
		{"three relative", func(_ *http.Request, n int) string {
			if n > 3 {
				return ""
			}
			return fmt.Sprintf("../%d#frag", n)
		}, true, 4},
		{"four", func(_ *http.Request, n int) string {
			if n > 4 {
				return ""
			}
			return fmt.Sprintf("/%d", n)
		}, false, 4},
		{"default port spelled out", func(r *http.Request, n int) string {
			if n > 1 {
				return ""
			}
			return "https://ID.example:443/b"
		}, true, 2},
		{"other port", func(*http.Request, int) string { return "https://id.example:8443/" }, false, 1},
		{"down to http", func(*http.Request, int) string { return "http://id.example/" }, false, 1},
		{"down to http on the same port", func(*http.Request, int) string { return "http://id.example:443/" }, false, 1},
		{"host that ends alike", func(*http.Request, int) string { return "https://evil.id.example/" }, false, 1},
		{"scheme-relative", func(*http.Request, int) string { return "//evil.example/" }, false, 1},
		{"with credentials", func(*http.Request, int) string { return "https://u:hunter2@id.example/" }, false, 1},
	}
	for _, tt := range tests {
		for _, status := range []int{301, 302, 303, 307, 308} {
			t.Run(fmt.Sprint(tt.name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := 0
					server := &memServer{answer: func(r *http.Request) (*http.Response, error) {
						n++
						if to := tt.location(r, n); to != "" {
							return answerWith(status, doc, "Location", to)(r)
						}
						return answerWith(200, doc)(r)
					}}
					set, err := newKeys(t, server).KeySet(t.Context(), pub.KeyID())
					if tt.ok {
						require.NoError(t, err)
						require.NotNil(t, set)
					} else {
						requireUnavailable(t, set, err)
					}
					require.Len(t, server.fetches(), tt.requests)
				})
			})
		}
	}
}

// TestKeysRequest looks at what goes over the wire, with a client whose
// jar holds a cookie for the server and whose redirects would be followed.
func TestKeysRequest(t *testing.T) {
	doc := document(t, newKey(t))
	var mu sync.Mutex
	var seen []*http.Request
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r)
		mu.Unlock()
		http.SetCookie(w, &http.Cookie{Name: "set", Value: "by-the-server", Path: "/"})
		if r.URL.Path == "/jwks" {
			http.Redirect(w, r, "/moved", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, doc)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: "hunter2", Path: "/"}})
	client := server.Client()
	client.Jar = jar
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("not asked") }

	r, err := remote.NewKeys(remote.KeysConfig{URL: server.URL + "/jwks?tenant=a", Client: client})
	require.NoError(t, err)
	_, err = r.KeySet(t.Context(), "")
	require.NoError(t, err)

	require.Len(t, seen, 2)
	for _, req := range seen {
		require.Equal(t, http.MethodGet, req.Method)
		require.Equal(t, "application/jwk-set+json, application/json", req.Header.Get("Accept"))
		for _, name := range []string{"Cookie", "Authorization", "Referer"} {
			require.Empty(t, req.Header.Values(name))
		}
	}
	require.Equal(t, "tenant=a", seen[0].URL.RawQuery)
	require.Len(t, jar.Cookies(u), 1, "the caller's jar stays as it was")
	require.Zero(t, client.Timeout, "the caller's client stays as it was")
}

// TestKeysOwnClient uses no Client: the proxy of the environment, which is
// nowhere, must not be asked, and certificates are checked.
func TestKeysOwnClient(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("NO_PROXY", "")
	pub := newKey(t)
	doc := document(t, pub)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, doc)
	})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	r, err := remote.NewKeys(remote.KeysConfig{URL: server.URL})
	require.NoError(t, err)
	requireKey(t, r, pub)

	untrusted := httptest.NewUnstartedServer(handler)
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)
	r, err = remote.NewKeys(remote.KeysConfig{
		URL: untrusted.URL, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	set, err := r.KeySet(t.Context(), pub.KeyID())
	requireUnavailable(t, set, err)
	var certificate *tls.CertificateVerificationError
	require.ErrorAs(t, err, &certificate)
}

func FuzzKeys(f *testing.F) {
	good := document(f, newKey(f))
	f.Add(200, good, "max-age=60", "", "")
	f.Add(200, good, `public, max-age="1", MAX-AGE=99999999999999999999`, "-1", "")
	f.Add(200, `{"keys":[]}`, "max-age", "", "")
	f.Add(302, "", "", "", "//evil.example/")
	f.Add(307, "", "", "", "https://u:p@id.example:443/#f")
	f.Fuzz(func(t *testing.T, status int, body, cacheControl, age, location string) {
		var asked []*url.URL
		server := &memServer{answer: func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL)
			return answerWith(status, body, "Cache-Control", cacheControl, "Age", age, "Location", location)(r)
		}}
		set, err := newKeys(t, server).KeySet(t.Context(), "")
		for _, u := range asked {
			require.Equal(t, "id.example", strings.ToLower(u.Hostname()))
			require.Equal(t, "https", u.Scheme)
			require.Nil(t, u.User)
		}
		require.LessOrEqual(t, len(server.fetches()), 4)
		if err != nil {
			require.Nil(t, set)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
			return
		}
		require.Equal(t, 200, status)
		require.NotEmpty(t, set.Keys())
	})
}
