package remote_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/remote"
)

// TestKeysFetchesFirstAfterTheMachineWasSuspended: its monotonic clock stood
// still, so only the wall clock shows that the set is old.
func TestKeysFetchesFirstAfterTheMachineWasSuspended(t *testing.T) {
	for _, withRun := range []bool{false, true} {
		t.Run(fmt.Sprint("Run ", withRun), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, next := newKey(t), newKey(t)
				server := &memServer{answer: answerWith(200, document(t, old))}
				machine := new(clock.Clock)
				var r *remote.Keys
				clock.As(machine, func() { r = newKeys(t, server) })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if withRun {
					go func() { _ = r.Run(ctx) }()
					synctest.Wait()
				}
				requireKey(t, r, old)
				server.set(answerWith(200, document(t, next)))
				machine.SetAhead(8 * time.Hour) // right after a fetch
				set, err := r.KeySet(t.Context(), old.KeyID())
				require.NoError(t, err)
				_, ok := set.Key(old.KeyID())
				require.False(t, ok, "a removed key is served")
				requireKey(t, r, next)
				require.Len(t, server.fetches(), 2)

				// A wall clock that is set back moves nothing.
				machine.SetAhead(-8 * time.Hour)
				requireKey(t, r, next)
				time.Sleep(10 * time.Minute)
				requireKey(t, r, next)
				require.GreaterOrEqual(t, len(server.fetches()), 3)
			})
		})
	}
}

func TestKeysUnknownKidAfterTheMachineWasSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKey(t), newKey(t)
		server := &memServer{answer: answerWith(200, document(t, old))}
		machine := new(clock.Clock)
		var r *remote.Keys
		clock.As(machine, func() { r = newKeys(t, server) })
		requireKey(t, r, old)
		server.set(answerWith(200, document(t, next)))
		machine.SetAhead(25 * time.Hour) // past MaxStale too
		begin := time.Now()
		requireKey(t, r, next)
		require.Zero(t, time.Since(begin))
	})
}

// TestKeysKnownKidsDoNotWaitForAHungServer: however short RefreshEvery is, a
// source that is in use does not wait, except once where nothing was asked for
// longer than RefreshEvery.
func TestKeysKnownKidsDoNotWaitForAHungServer(t *testing.T) {
	asked := 15 * time.Minute
	if isLong() {
		asked = time.Hour
	}
	for _, every := range []time.Duration{time.Second, 2 * time.Second, 6 * time.Second, time.Minute, 10 * time.Minute} {
		for name, hung := range hungServers() {
			t.Run(fmt.Sprint(every, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pub := newKey(t)
					server := &memServer{answer: answerWith(200, document(t, pub))}
					r := newKeys(t, server, func(c *remote.KeysConfig) { c.RefreshEvery = every })
					before := runtime.NumGoroutine()
					requireKey(t, r, pub)
					answer, release := hung()
					server.set(answer)
					var total, longest time.Duration
					begin := time.Now()
					for time.Since(begin) < asked {
						called := time.Now()
						requireKey(t, r, pub)
						took := time.Since(called)
						total, longest = total+took, max(longest, took)
						time.Sleep(50 * time.Millisecond)
					}
					require.Zero(t, total)
					require.Zero(t, longest)
					synctest.Wait()
					require.LessOrEqual(t, runtime.NumGoroutine()-before, 14, "what hangs, and what else the process does")
					release()
					time.Sleep(time.Minute)
				})
			})
		}
	}
}

// hungServers heed the context of a request, or ignore it.
func hungServers() map[string]func() (func(*http.Request) (*http.Response, error), func()) {
	return map[string]func() (func(*http.Request) (*http.Response, error), func()){
		"heeds its context": func() (func(*http.Request) (*http.Response, error), func()) { return answerHung, func() {} },
		"ignores its context": func() (func(*http.Request) (*http.Response, error), func()) {
			release := make(chan struct{})
			return func(*http.Request) (*http.Response, error) { <-release; return nil, errDown }, func() { close(release) }
		},
	}
}

// TestKeysWaits is the table of what a call waits for at most.
func TestKeysWaits(t *testing.T) {
	pub := newKey(t)
	doc := document(t, pub)
	tests := []struct {
		name    string
		prepare func(t *testing.T, r *remote.Keys, hang func())
		kid     string
		ok      bool
		most    time.Duration
	}{
		{"never read", func(_ *testing.T, _ *remote.Keys, hang func()) { hang() }, pub.KeyID(), false, 2 * time.Second},
		{"never read, and the last fetch was too long", func(t *testing.T, r *remote.Keys, hang func()) {
			hang()
			_, _ = r.KeySet(t.Context(), "")
			time.Sleep(8 * time.Second)
		}, pub.KeyID(), false, 0},
		{"known, and due", func(t *testing.T, r *remote.Keys, hang func()) {
			requireKey(t, r, pub)
			hang()
			time.Sleep(9*time.Minute + 30*time.Second)
		}, pub.KeyID(), true, 0},
		{"known, and nothing asked for RefreshEvery", func(t *testing.T, r *remote.Keys, hang func()) {
			requireKey(t, r, pub)
			hang()
			time.Sleep(10 * time.Minute)
		}, pub.KeyID(), true, 2 * time.Second},
		{"nothing asked for MaxStale", func(t *testing.T, r *remote.Keys, hang func()) {
			requireKey(t, r, pub)
			hang()
			time.Sleep(25 * time.Hour)
		}, pub.KeyID(), false, 2 * time.Second},
		{"unknown", func(t *testing.T, r *remote.Keys, hang func()) {
			requireKey(t, r, pub)
			hang()
		}, "unknown", false, 2 * time.Second},
		{"unknown, and nothing asked for RefreshEvery", func(t *testing.T, r *remote.Keys, hang func()) {
			requireKey(t, r, pub)
			hang()
			time.Sleep(10 * time.Minute)
		}, "unknown", false, 2 * time.Second},
		{"unknown, and the last fetch was too long", func(t *testing.T, r *remote.Keys, hang func()) {
			requireKey(t, r, pub)
			hang()
			_, _ = r.KeySet(t.Context(), "unknown")
			time.Sleep(10 * time.Second)
		}, "unknown", false, 0},
	}
	for _, tt := range tests {
		for name, hung := range hungServers() {
			t.Run(fmt.Sprint(tt.name, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &memServer{answer: answerWith(200, doc)}
					r := newKeys(t, server)
					answer, release := hung()
					tt.prepare(t, r, func() { server.set(answer) })
					begin := time.Now()
					set, err := r.KeySet(t.Context(), tt.kid)
					if tt.ok {
						require.NoError(t, err)
					} else {
						requireUnavailable(t, set, err)
					}
					require.LessOrEqual(t, time.Since(begin), tt.most)
					begin = time.Now()
					_, _ = r.KeySet(t.Context(), tt.kid)
					require.LessOrEqual(t, time.Since(begin), max(tt.most, 200*time.Millisecond))
					release()
					time.Sleep(time.Minute)
				})
			})
		}
	}
}

// TestKeysServerThatStartsASecondLater: while there is no set, the next
// fetch is a second after the first one.
func TestKeysServerThatStartsASecondLater(t *testing.T) {
	for _, withRun := range []bool{false, true} {
		t.Run(fmt.Sprint("Run ", withRun), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pub := newKey(t)
				server := &memServer{answer: answerDown}
				r := newKeys(t, server)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if withRun {
					go func() { _ = r.Run(ctx) }()
				}
				set, err := r.KeySet(t.Context(), pub.KeyID())
				requireUnavailable(t, set, err)
				time.Sleep(time.Second)
				server.set(answerWith(200, document(t, pub)))
				time.Sleep(250 * time.Millisecond) // jitter
				requireKey(t, r, pub)
				require.Len(t, server.fetches(), 2)
			})
		})
	}
}

// Fetches that never end, whatever their context says, leave later ones alone.
func TestKeysTransportThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKey(t), newKey(t)
		release := make(chan struct{})
		server := &memServer{answer: answerWith(200, document(t, old))}
		r := newKeys(t, server)
		requireKey(t, r, old)
		server.set(func(req *http.Request) (*http.Response, error) {
			<-release
			return answerWith(200, document(t, old))(req)
		})
		for range 3 {
			set, err := r.KeySet(t.Context(), next.KeyID())
			requireUnavailable(t, set, err)
			time.Sleep(15 * time.Second)
			synctest.Wait()
		}
		require.GreaterOrEqual(t, len(server.fetches()), 3)
		server.set(answerWith(200, document(t, next)))
		close(release) // they end late, with the old set
		synctest.Wait()
		time.Sleep(40 * time.Second)
		_, _ = r.KeySet(t.Context(), next.KeyID()) // the last fetch was too long: at once, and one in the background
		synctest.Wait()
		requireKey(t, r, next)
		time.Sleep(time.Minute)
		requireKey(t, r, next)
		set, err := r.KeySet(t.Context(), old.KeyID())
		require.NoError(t, err)
		_, ok := set.Key(old.KeyID())
		require.False(t, ok, "a late answer replaced a newer one")
	})
}

func TestKeysOneHungFetchDoesNotStopTheNext(t *testing.T) {
	for hangs := range 3 {
		t.Run(fmt.Sprint(hangs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pub := newKey(t)
				release := make(chan struct{})
				defer close(release)
				n := 0
				var mu sync.Mutex
				server := &memServer{answer: func(req *http.Request) (*http.Response, error) {
					mu.Lock()
					n++
					hung := n <= hangs
					mu.Unlock()
					if hung {
						<-release
						return nil, errDown
					}
					return answerWith(200, document(t, pub))(req)
				}}
				r := newKeys(t, server)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() { _ = r.Run(ctx) }()
				time.Sleep(30 * time.Second)
				requireKey(t, r, pub)
			})
		})
	}
}

// TestKeysUseAConnectionAFetch: one that died silently would fail each
// fetch for minutes.
func TestKeysUseAConnectionAFetch(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/2 ", h2), func(t *testing.T) {
			pub := newKey(t)
			doc := document(t, pub)
			var mu sync.Mutex
			connections, protocols := 0, map[string]int{}
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				protocols[r.Proto]++
				mu.Unlock()
				_, _ = io.WriteString(w, doc)
			}))
			server.EnableHTTP2 = h2
			server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					mu.Lock()
					connections++
					mu.Unlock()
				}
			}
			server.StartTLS()
			t.Cleanup(server.Close)
			machine := new(clock.Clock)
			var r *remote.Keys
			var err error
			clock.As(machine, func() { r, err = remote.NewKeys(remote.KeysConfig{URL: server.URL, Client: server.Client()}) })
			require.NoError(t, err)
			for i := range 5 {
				machine.SetAhead(time.Duration(i) * time.Hour)
				requireKey(t, r, pub)
			}
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, 5, connections)
			require.Equal(t, map[string]int{map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]: 5}, protocols)
		})
	}
}

// Without a set no token can be verified: that is one line a minute.
func TestKeysWithoutASetAreLoud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		server := &memServer{answer: answerDown}
		r := newKeys(t, server, func(c *remote.KeysConfig) {
			c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		})
		for range 180 {
			set, err := r.KeySet(t.Context(), "")
			requireUnavailable(t, set, err)
			time.Sleep(time.Second)
		}
		require.Equal(t, 3, strings.Count(logged.String(), "reason=jwks_unavailable"))
		require.Contains(t, logged.String(), "KeysConfig.URL")
		require.InDelta(t, 180, r.Metrics()["jwks_undecided_total"], 0)
	})
}

func TestKeysRefuseANilTransport(t *testing.T) {
	_, err := remote.NewKeys(remote.KeysConfig{URL: "https://id.example", Client: &http.Client{Transport: (*http.Transport)(nil)}})
	require.ErrorContains(t, err, "KeysConfig.Client")
}
