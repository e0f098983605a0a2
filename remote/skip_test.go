package remote_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/remote"
)

func gzipped(t testing.TB, body string) string {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	require.NoError(t, err)
	_, err = z.Write([]byte(body))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.String()
}

// TestKeysBodies: what servers do to a good document, and what it must not be.
func TestKeysBodies(t *testing.T) {
	pub := newKey(t)
	good := document(t, pub)
	tests := []struct {
		name     string
		body     string
		encoding string // "" = no header
		err      string // "" = accepted
	}{
		{"plain", good, "", ""},
		{"byte order mark", "\ufeff" + good, "", ""},
		{"identity", good, "identity", ""},
		{"gzip", gzipped(t, good), "gzip", ""},
		{"gzip in capitals", gzipped(t, good), " GZIP ", ""},
		{"x-gzip", gzipped(t, good), "x-gzip", ""},
		{"gzip and a byte order mark", gzipped(t, "\ufeff"+good), "gzip", ""},
		{"1 MiB in gzip", gzipped(t, good+strings.Repeat(" ", 1<<20-len(good))), "gzip", ""},
		{"over 1 MiB in gzip", gzipped(t, good+strings.Repeat(" ", 1<<20-len(good)+1)), "gzip", "over 1048576 bytes"},
		{"64 MiB in gzip", gzipped(t, good+strings.Repeat(" ", 64<<20)), "gzip", "over 1048576 bytes"},
		{"gzip that is none", good, "gzip", "could not be read"},
		{"gzip that is cut", gzipped(t, good)[:40], "gzip", "could not be read"},
		{"gzip that is not told", gzipped(t, good), "", "malformed"},
		{"gzip twice", gzipped(t, gzipped(t, good)), "gzip, gzip", "Content-Encoding"},
		{"br", good, "br", "Content-Encoding"},
		{"an encoding that is made up", good, marker, "Content-Encoding"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &memServer{answer: answerWith(200, tt.body)}
				if tt.encoding != "" {
					server.set(answerWith(200, tt.body, "Content-Encoding", tt.encoding))
				}
				r := newKeys(t, server)
				if tt.err == "" {
					requireKey(t, r, pub)
					return
				}
				set, err := r.KeySet(t.Context(), pub.KeyID())
				requireUnavailable(t, set, err)
				require.ErrorContains(t, err, tt.err)
			})
		})
	}
}

// TestKeysCompression: a transport of its own asks for no compression, and one
// that does reads it itself.
func TestKeysCompression(t *testing.T) {
	pub := newKey(t)
	doc := document(t, pub)
	asked := make(chan string, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted := r.Header.Get("Accept-Encoding")
		asked <- accepted
		if accepted == "gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, gzipped(t, doc))
			return
		}
		_, _ = io.WriteString(w, doc)
	}))
	t.Cleanup(server.Close)
	for accepted, client := range map[string]*http.Client{"": nil, "gzip": server.Client()} {
		r, err := remote.NewKeys(remote.KeysConfig{URL: server.URL, Client: client})
		require.NoError(t, err)
		requireKey(t, r, pub)
		require.Equal(t, accepted, <-asked)
	}
}

// TestKeysSkippedAreCountedAndToldOnce: keys that cannot be used do not take the
// others with them, and which ones they are is one log line until that changes.
func TestKeysSkippedAreCountedAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		pub, shared := newKey(t), newKey(t)
		one := `{"keys":[` + element(t, pub) + `,` + element(t, shared) + `,` + withKid(t, newKey(t), shared.KeyID()) + `]}`
		server := &memServer{answer: answerWith(200, one)}
		r := newKeys(t, server, func(c *remote.KeysConfig) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
		for range 100 {
			set := requireKey(t, r, pub)
			require.Len(t, set.Keys(), 1)
			time.Sleep(5 * time.Minute)
		}
		synctest.Wait()
		require.Greater(t, len(server.fetches()), 10)
		require.Equal(t, 2.0, r.Metrics()["jwks_keys_skipped"])
		require.Equal(t, 1.0, r.Metrics()["jwks_keys"])
		require.Equal(t, 1, strings.Count(logged.String(), "\n"), logged.String())
		require.Contains(t, logged.String(), "reason=jwks_keys_skipped")
		require.Contains(t, logged.String(), "skipped=2")
		require.Contains(t, logged.String(), shared.KeyID()[:40])

		server.set(answerWith(200, strings.Replace(one, `,{`, `,{"kty":"AKP","kid":"pq"},{`, 1)))
		time.Sleep(10 * time.Minute)
		requireKey(t, r, pub)
		require.Equal(t, 2, strings.Count(logged.String(), "\n"))
		require.Contains(t, logged.String(), `pq`)
		require.Equal(t, 3.0, r.Metrics()["jwks_keys_skipped"])

		server.set(answerWith(200, document(t, pub)))
		time.Sleep(10 * time.Minute)
		requireKey(t, r, pub)
		require.Equal(t, 2, strings.Count(logged.String(), "\n"))
		require.Zero(t, r.Metrics()["jwks_keys_skipped"])
	})
}

// TestKeysNameTheReasonsOfASetThatCannotBeUsed: the error and the log line have
// the first ones.
func TestKeysNameTheReasonsOfASetThatCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		server := &memServer{answer: answerWith(200, `{"keys":[{"kty":"RSA","kid":"of a provider","n":"AQAB","e":"AQAB"},{"kty":"EC"},{},{},{}]}`)}
		r := newKeys(t, server, func(c *remote.KeysConfig) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) })
		set, err := r.KeySet(t.Context(), "")
		requireUnavailable(t, set, err)
		require.ErrorContains(t, err, `key 1 (kid "of a provider"): RSA without alg and without use "sig"; key 2: no key id; key 3: no key id; and 2 more`)
		require.Contains(t, logged.String(), "of a provider")
		time.Sleep(time.Minute)
	})
}

// TestKeysThatWereNotMade: the zero value and a nil pointer fail at each call, and
// never panic.
func TestKeysThatWereNotMade(t *testing.T) {
	for name, k := range map[string]*remote.Keys{"zero": new(remote.Keys), "nil": nil} {
		t.Run(name, func(t *testing.T) {
			for _, kid := range []string{"", "a"} {
				set, err := k.KeySet(t.Context(), kid)
				requireUnavailable(t, set, err)
			}
			_, err := k.Status()
			require.Error(t, err)
			require.Error(t, k.Run(t.Context()))
			require.Len(t, k.Metrics(), 6)
			for name, value := range k.Metrics() {
				require.Zero(t, value, name)
			}
		})
	}
}
