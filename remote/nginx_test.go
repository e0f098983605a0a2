//go:build unix

package remote_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

// startNginx starts a shared cache over plain http on loopback in front of the
// backends. It honours Cache-Control and has no setting for this library.
func startNginx(t *testing.T, backends ...string) (url string) {
	t.Helper()
	bin, err := exec.LookPath("nginx")
	if err != nil {
		bin = "/usr/sbin/nginx"
		if _, err := os.Stat(bin); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("nginx is not installed")
			}
			t.Skip("nginx is not installed")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	dir := t.TempDir()
	servers := ""
	for _, b := range backends {
		servers += "server " + b + ";\n"
	}
	config := fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	proxy_cache_path %[1]s/cache keys_zone=keys:1m;
	upstream issuers { %[2]s }
	server {
		listen %[3]s;
		location / {
			proxy_pass http://issuers;
			proxy_cache keys;
			add_header X-Cache-Status $upstream_cache_status;
		}
	}
}
`, dir, servers, addr)
	path := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	cmd := exec.Command(bin, "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", path)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 20*time.Second, 20*time.Millisecond)
	return "http://" + addr
}

// TestKeysBehindASharedCache has three replicas of an issuer on one store,
// none of which reads it more often than once a minute by itself, nginx as a
// shared cache in front of their key sets, and a verifier behind that.
func TestKeysBehindASharedCache(t *testing.T) {
	long(t)
	const bar = 2 * time.Second // in quiet; asserted at ten times that
	quiet := slog.New(slog.DiscardHandler)
	store := new(keys.MemStore)
	var rings []*keys.Ring
	var backends []string
	var mu sync.Mutex
	var asked []time.Time // requests that the cache let through
	for range 3 {
		ring, err := keys.NewRing(keys.RingConfig{Store: store, Logger: quiet})
		require.NoError(t, err)
		h, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring, Logger: quiet})
		require.NoError(t, err)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, time.Now())
			mu.Unlock()
			h.ServeHTTP(w, r)
		}))
		t.Cleanup(server.Close)
		_, err = ring.SigningKey(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = ring.Run(ctx) }()
		rings, backends = append(rings, ring), append(backends, server.Listener.Addr().String())
	}
	url := startNginx(t, backends...) + "/.well-known/jwks.json"
	fetches := new(countingTransport)
	const refreshEvery = 6 * time.Second
	source, err := remote.NewKeys(remote.KeysConfig{
		URL: url, Client: &http.Client{Transport: fetches}, RefreshEvery: refreshEvery, Logger: quiet,
	})
	require.NoError(t, err)
	signing := func(ring *keys.Ring) string {
		key, err := ring.SigningKey(t.Context())
		require.NoError(t, err)
		return key.Public().KeyID()
	}
	// emergency revokes the current key at one replica and presents a token of the
	// new key, again and again as its client would, until it is accepted.
	emergency := func(ring *keys.Ring) (revoked string, took time.Duration, refused int) {
		require.NoError(t, ring.Look(t.Context())) // it knows what the others did
		revoked = signing(ring)
		_, err := source.KeySet(t.Context(), revoked)
		require.NoError(t, err)
		require.NoError(t, ring.Revoke(t.Context(), revoked))
		begin := time.Now()
		next := signing(ring)
		require.NotEqual(t, revoked, next)
		for time.Since(begin) < 10*bar {
			set, err := source.KeySet(t.Context(), next)
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				continue
			}
			if _, ok := set.Key(next); ok {
				return revoked, time.Since(begin), refused
			}
			refused++
			time.Sleep(20 * time.Millisecond)
		}
		return revoked, 10 * bar, refused
	}

	for i := range 4 {
		if i > 0 {
			time.Sleep(2 * time.Second) // two fetches are in hand again
		}
		_, err := source.KeySet(t.Context(), fmt.Sprint("made up ", i)) // a fetch right before
		t.Log("made-up kid:", err)
		revoked, took, refused := emergency(rings[i%3])
		t.Logf("a token of the new key is accepted after %v, that is %.2f of the bar", took, took.Seconds()/bar.Seconds())
		require.Less(t, took, 10*bar)
		require.Zero(t, refused, "the old set for a new key")
		begin := time.Now()
		for {
			set, err := source.KeySet(t.Context(), revoked)
			if err == nil {
				if _, ok := set.Key(revoked); !ok {
					break
				}
			}
			require.Less(t, time.Since(begin), refreshEvery+10*bar, "the revoked key is accepted")
			time.Sleep(20 * time.Millisecond)
		}
	}
	t.Log("the cache answered", fetches.hits.Load(), "of", len(fetches.began()), "fetches")

	// A flood of made-up kids.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var decided, undecided atomic.Int64
	for i := range 50 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := source.KeySet(ctx, fmt.Sprint("flood ", i, n)); err != nil {
					undecided.Add(1)
				} else {
					decided.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Second)
	before, begin := len(fetches.began()), time.Now()
	_, took, refused := emergency(rings[1])
	t.Logf("under the flood: accepted after %v, that is %.2f of the bar; %d undecided, %d decided", took, took.Seconds()/bar.Seconds(), undecided.Load(), decided.Load())
	require.Less(t, took, 10*bar)
	require.Zero(t, refused, "the old set for a new key")
	time.Sleep(2 * time.Second)
	during := fetches.began()
	require.LessOrEqual(t, len(during)-before, 2+int(time.Since(begin)/(2*time.Second)))
	cancel()
	wg.Wait()
	for i := 2; i < len(during); i++ {
		require.GreaterOrEqual(t, during[i].Sub(during[i-2]), 1900*time.Millisecond)
	}
	require.NotZero(t, undecided.Load())
	mu.Lock()
	defer mu.Unlock()
	require.LessOrEqual(t, len(asked), len(during)+1)
}

// countingTransport notes when each request began, and how many of them the
// cache answered.
type countingTransport struct {
	mu    sync.Mutex
	times []time.Time
	hits  atomic.Int64
}

func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.times = append(c.times, time.Now())
	c.mu.Unlock()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && resp.Header.Get("X-Cache-Status") == "HIT" {
		c.hits.Add(1)
	}
	return resp, err
}

func (c *countingTransport) began() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.times)
}
