package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

func TestKeysUnknownKids(t *testing.T) {
	pub := newKey(t)
	good := document(t, pub)
	tests := []struct {
		name   string
		answer func(*http.Request) (*http.Response, error)
		ok     bool
	}{
		{"good", answerWith(200, good), true},
		{"down", answerDown, false},
		{"hung", answerHung, false},
		{"panic", answerPanic, false},
		{"no response", func(*http.Request) (*http.Response, error) { return nil, nil }, false},
		{"500", answerWith(500, marker), false},
		{"empty", answerWith(200, `{"keys":[]}`), false},
		{"garbage", answerWith(200, marker), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &memServer{answer: answerWith(200, good)}
				r := newKeys(t, server)
				kept := requireKey(t, r, pub)
				server.set(func(req *http.Request) (*http.Response, error) {
					time.Sleep(100 * time.Millisecond) // so that the flood meets it under way
					return tt.answer(req)
				})

				time.Sleep(30 * time.Second) // two fetches are in hand
				begin := time.Now()
				var wg sync.WaitGroup
				var wrong atomic.Int32
				for i := range 1000 {
					wg.Go(func() {
						set, err := r.KeySet(t.Context(), fmt.Sprint("unknown ", i))
						if (err == nil) != tt.ok || (set == kept) != tt.ok || errors.Is(err, sessiontoken.ErrInvalid) || time.Since(begin) > 2*time.Second {
							wrong.Add(1)
						}
					})
					wg.Go(func() {
						set, err := r.KeySet(t.Context(), pub.KeyID())
						if err != nil || set != kept || time.Since(begin) != 0 {
							wrong.Add(1)
						}
					})
				}
				wg.Wait()
				require.Zero(t, wrong.Load())
				fetches := server.fetches()[1:]
				if tt.ok {
					require.Len(t, fetches, 2, "the second one proves that the server does not publish them")
					require.Equal(t, 1200*time.Millisecond, fetches[1].Sub(fetches[0]))
				} else {
					require.Len(t, fetches, 1, "a pause follows a failure")
				}
				time.Sleep(10 * time.Second)
			})
		})
	}
}

// TestKeysFlood asks for made-up kids for a minute. At most one fetch in
// 2 s comes of it, besides the two in hand. No answer is a set without two fetches
// since the call, the second 1.2 s after it. Known kids notice nothing.
func TestKeysFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub, next := newKey(t), newKey(t)
		server := &memServer{answer: answerWith(200, document(t, pub))}
		r := newKeys(t, server)
		requireKey(t, r, pub)
		server.set(func(req *http.Request) (*http.Response, error) {
			time.Sleep(30 * time.Millisecond)
			return answerWith(200, document(t, pub))(req)
		})
		time.Sleep(time.Minute)
		begin := time.Now()
		var wg sync.WaitGroup
		var undecided, decided atomic.Int32
		for i := range 600 {
			for j := range 5 {
				wg.Go(func() {
					called := time.Now()
					_, err := r.KeySet(t.Context(), fmt.Sprint("made up ", i, j))
					if took := time.Since(called); took > 2*time.Second {
						t.Errorf("waited for %v", took)
					}
					if err != nil {
						undecided.Add(1)
						return
					}
					decided.Add(1)
					fetches := server.fetches()
					if fetches[len(fetches)-1].Add(30 * time.Millisecond).After(time.Now()) { // under way
						fetches = fetches[:len(fetches)-1]
					}
					first, second := fetches[len(fetches)-2].Sub(called), fetches[len(fetches)-1].Sub(called)
					if first < 0 || second < 1200*time.Millisecond {
						t.Errorf("sets fetched %v and %v after the call", first, second)
					}
				})
			}
			called := time.Now()
			requireKey(t, r, pub)
			require.Zero(t, time.Since(called))
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		fetches := server.fetches()[1:]
		require.LessOrEqual(t, len(fetches), 2+int(time.Since(begin)/(2*time.Second)))
		for i := 2; i < len(fetches); i++ {
			require.GreaterOrEqual(t, fetches[i].Sub(fetches[i-2]), 2*time.Second)
		}
		require.NotZero(t, undecided.Load())
		require.NotZero(t, decided.Load())

		server.set(answerWith(200, document(t, pub, next)))
		called := time.Now()
		requireKey(t, r, next)
		require.LessOrEqual(t, time.Since(called), 2*time.Second, "a genuine new key is found in the middle of it")
		time.Sleep(2 * time.Second)
	})
}

// While too many calls wait for an unknown kid, further ones fail at once.
func TestKeysCallsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		pub := newKey(t)
		server := &memServer{answer: answerWith(200, document(t, pub))}
		r := newKeys(t, server, func(c *remote.KeysConfig) {
			c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		})
		requireKey(t, r, pub)
		var wg sync.WaitGroup
		for i := range 1024 {
			wg.Go(func() { _, _ = r.KeySet(t.Context(), fmt.Sprint(marker, i)) })
		}
		synctest.Wait()
		begin := time.Now()
		for range 10 {
			set, err := r.KeySet(t.Context(), marker)
			requireUnavailable(t, set, err)
			requireKey(t, r, pub)
		}
		require.Zero(t, time.Since(begin))
		require.Equal(t, 1, strings.Count(logged.String(), "reason=jwks_unknown_kid"))
		require.NotContains(t, logged.String(), marker)
		wg.Wait()
		requireKey(t, r, pub)
		time.Sleep(2 * time.Second)
	})
}

// TestKeysNewKeyIsFoundWithinTwoSeconds: however recently the set was
// fetched, and whatever made-up kids asked for before, a key that is published
// now is found by the first call or by one that follows it at once, within 2 s;
// meanwhile the answer is an error and never the old set.
func TestKeysNewKeyIsFoundWithinTwoSeconds(t *testing.T) {
	tests := []struct {
		name   string
		before func(*testing.T, *remote.Keys)
	}{
		{"right after the first fetch", func(*testing.T, *remote.Keys) {}},
		{"a second after a fetch", func(*testing.T, *remote.Keys) { time.Sleep(time.Second) }},
		{"29 s after a fetch", func(*testing.T, *remote.Keys) { time.Sleep(29 * time.Second) }},
		{"a made-up kid every 29 s", func(t *testing.T, r *remote.Keys) {
			for i := range 20 {
				time.Sleep(29 * time.Second)
				go func() { _, _ = r.KeySet(t.Context(), fmt.Sprint("made up ", i)) }()
			}
			synctest.Wait()
		}},
		{"right after two looks", func(t *testing.T, r *remote.Keys) {
			time.Sleep(time.Minute)
			_, _ = r.KeySet(t.Context(), "made up")
		}},
		{"right after three looks", func(t *testing.T, r *remote.Keys) {
			time.Sleep(time.Minute)
			_, _ = r.KeySet(t.Context(), "made up")
			_, _ = r.KeySet(t.Context(), "another")
		}},
	}
	for _, tt := range tests {
		for _, cached := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " cached ", cached), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					old, next := newKey(t), newKey(t)
					var doc atomic.Value
					doc.Store(document(t, old))
					server := &memServer{answer: func(req *http.Request) (*http.Response, error) {
						return answerWith(200, doc.Load().(string))(req)
					}}
					if cached {
						server.set(sharedCache(server.answer))
					}
					r := newKeys(t, server)
					requireKey(t, r, old)
					tt.before(t, r)
					time.Sleep(time.Millisecond)
					doc.Store(document(t, next)) // an emergency: the old key is gone
					begin := time.Now()
					for {
						set, err := r.KeySet(t.Context(), next.KeyID())
						if err == nil {
							_, ok := set.Key(next.KeyID())
							require.True(t, ok, "the old set")
							break
						}
						time.Sleep(time.Millisecond)
						require.LessOrEqual(t, time.Since(begin), 2*time.Second+10*time.Millisecond)
					}
					require.LessOrEqual(t, time.Since(begin), 2*time.Second)
					time.Sleep(5 * time.Second)
				})
			})
		}
	}
}

// sharedCache keeps an answer until the second after the next one has begun, as
// nginx does with s-maxage=1.
func sharedCache(answer func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	var mu sync.Mutex
	var kept []byte
	var valid int64
	return func(req *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now().Unix(); valid < now || kept == nil {
			resp, err := answer(req)
			if err != nil {
				return nil, err
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return nil, err
			}
			kept, valid = body, now+1
		}
		return answerWith(200, string(kept))(req)
	}
}

// TestKeysFetchForAnUnknownKidPassesCaches: only such a fetch tells the
// caches on the way not to answer it.
func TestKeysFetchForAnUnknownKidPassesCaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newKey(t)
		var said []string
		server := &memServer{answer: func(req *http.Request) (*http.Response, error) {
			said = append(said, req.Header.Get("Cache-Control"))
			return answerWith(200, document(t, pub))(req)
		}}
		r := newKeys(t, server)
		requireKey(t, r, pub)
		require.Equal(t, []string{""}, said)
		time.Sleep(time.Minute)
		_, err := r.KeySet(t.Context(), "unknown")
		require.NoError(t, err)
		require.Equal(t, []string{"", "no-cache", "no-cache"}, said)
		time.Sleep(9*time.Minute + 30*time.Second)
		requireKey(t, r, pub)
		synctest.Wait()
		require.Equal(t, []string{"", "no-cache", "no-cache", ""}, said)
	})
}

// A key that is gone is refused, not undecided, as soon as that is settled: its
// tokens come from everywhere.
func TestKeysTokensOfARemovedKeyAreDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKey(t), newKey(t)
		server := &memServer{answer: answerWith(200, document(t, old))}
		r := newKeys(t, server)
		requireKey(t, r, old)
		server.set(answerWith(200, document(t, next)))
		requireKey(t, r, next)
		var wg sync.WaitGroup
		for range 50 { // 5 s
			wg.Go(func() { _, _ = r.KeySet(t.Context(), old.KeyID()) })
			time.Sleep(100 * time.Millisecond)
		}
		for range 6000 { // 10 min
			begin := time.Now()
			set, err := r.KeySet(t.Context(), old.KeyID())
			require.NoError(t, err)
			_, ok := set.Key(old.KeyID())
			require.False(t, ok)
			require.Zero(t, time.Since(begin))
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
		require.LessOrEqual(t, len(server.fetches()), 5+60, "one fetch in 10 s")
		server.set(answerWith(200, document(t, old, next)))
		time.Sleep(10 * time.Second)
		requireKey(t, r, old) // it is back: the set is older than what was settled
	})
}

func TestKeysWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &memServer{answer: answerHung}
		r := newKeys(t, server)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		set, err := r.KeySet(ctx, "")
		requireUnavailable(t, set, err)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))

		set, err = r.KeySet(t.Context(), "") // joins the fetch under way
		requireUnavailable(t, set, err)
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.Len(t, server.fetches(), 1)

		time.Sleep(2 * time.Second) // the fetch has failed
		for range 100 {             // in the pause, and while the next fetch hangs
			begin := time.Now()
			set, err = r.KeySet(t.Context(), "")
			requireUnavailable(t, set, err)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Zero(t, time.Since(begin), "the last fetch failed: at once")
			time.Sleep(100 * time.Millisecond)
		}
		require.Greater(t, len(server.fetches()), 1)
		time.Sleep(time.Minute)
	})
}

func TestKeysServerDownAtTheStart(t *testing.T) {
	for _, withRun := range []bool{false, true} {
		t.Run(fmt.Sprint("Run ", withRun), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pub := newKey(t)
				server := &memServer{answer: answerDown}
				r := newKeys(t, server)
				_, err := r.Status()
				require.Error(t, err)
				if withRun {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					go func() { _ = r.Run(ctx) }()
					synctest.Wait()
				}
				for range 100 {
					set, err := r.KeySet(t.Context(), pub.KeyID())
					requireUnavailable(t, set, err)
					require.ErrorIs(t, err, errDown)
					time.Sleep(time.Second)
				}
				fetched, err := r.Status()
				require.ErrorIs(t, err, errDown)
				require.True(t, fetched.IsZero())
				fetches := server.fetches()
				require.Less(t, len(fetches), 10) // in 100 s
				for i, want := range []time.Duration{1, 2, 4, 8, 16, 30} {
					gap := fetches[i+1].Sub(fetches[i])
					require.GreaterOrEqual(t, gap, want*time.Second)
					require.LessOrEqual(t, gap, want*time.Second*5/4+time.Second)
				}

				server.set(answerWith(200, document(t, pub)))
				time.Sleep(38 * time.Second) // the cooldown and what Run adds to it
				requireKey(t, r, pub)
				fetched, err = r.Status()
				require.NoError(t, err)
				require.False(t, fetched.IsZero())
			})
		})
	}
}

func TestKeysOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newKey(t)
		good := answerWith(200, document(t, pub))
		server := &memServer{answer: good}
		r := newKeys(t, server)
		kept := requireKey(t, r, pub)
		begin := time.Now()
		server.set(answerDown)

		time.Sleep(23 * time.Hour)
		require.Same(t, kept, requireKey(t, r, pub))
		set, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.Same(t, kept, set)
		_, err = r.Status()
		require.NoError(t, err)

		time.Sleep(time.Until(begin.Add(24 * time.Hour)))
		require.Same(t, kept, requireKey(t, r, pub))

		time.Sleep(time.Nanosecond)
		for _, kid := range []string{pub.KeyID(), "", "unknown"} {
			set, err := r.KeySet(t.Context(), kid)
			requireUnavailable(t, set, err)
		}
		time.Sleep(time.Hour)
		set, err = r.KeySet(t.Context(), pub.KeyID())
		requireUnavailable(t, set, err)
		fetched, err := r.Status()
		require.ErrorIs(t, err, errDown)
		require.True(t, fetched.Equal(begin))

		server.set(good)
		time.Sleep(30 * time.Second)
		require.Same(t, kept, requireKey(t, r, pub)) // the same keys are the same generation
		_, err = r.Status()
		require.NoError(t, err)
	})
}

func TestKeysIdleForLongerThanMaxStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKey(t), newKey(t)
		server := &memServer{answer: answerWith(200, document(t, old))}
		r := newKeys(t, server)
		requireKey(t, r, old)
		server.set(answerWith(200, document(t, next)))
		time.Sleep(25 * time.Hour)
		set, err := r.KeySet(t.Context(), old.KeyID()) // waits: the old set must not answer
		require.NoError(t, err)
		_, ok := set.Key(old.KeyID())
		require.False(t, ok)
		require.Len(t, server.fetches(), 2)
	})
}

// RefreshEvery bounds how long a removed key verifies, whether the source was
// used in the meantime or not.
func TestKeysIdleForLongerThanRefreshEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := newKey(t), newKey(t)
		server := &memServer{answer: answerWith(200, document(t, old, next))}
		r := newKeys(t, server)
		requireKey(t, r, old)
		server.set(func(req *http.Request) (*http.Response, error) {
			time.Sleep(100 * time.Millisecond)
			return answerWith(200, document(t, next))(req)
		})
		time.Sleep(10 * time.Minute)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				set, err := r.KeySet(t.Context(), old.KeyID())
				if err != nil {
					t.Error(err)
					return
				}
				if _, ok := set.Key(old.KeyID()); ok {
					t.Error("an idle source serves a removed key")
				}
			})
		}
		wg.Wait()
		require.Len(t, server.fetches(), 2)
	})
}

// While the server hangs, a source that was idle waits for it once, one that is
// used does not wait, and both serve the last good set.
func TestKeysWaitsOnceForAHungServer(t *testing.T) {
	for _, withRun := range []bool{false, true} {
		t.Run(fmt.Sprint("Run ", withRun), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pub := newKey(t)
				server := &memServer{answer: answerWith(200, document(t, pub))}
				r := newKeys(t, server)
				running, stop := context.WithCancel(t.Context())
				defer stop()
				if withRun {
					go func() { _ = r.Run(running) }()
					synctest.Wait()
				}
				kept := requireKey(t, r, pub)
				server.set(answerHung)
				wait := func() time.Duration {
					begin := time.Now()
					require.Same(t, kept, requireKey(t, r, pub))
					return time.Since(begin)
				}
				idle := 2 * time.Second
				if withRun {
					idle = 0
				}
				time.Sleep(time.Hour)
				require.Equal(t, idle, wait())
				for range 3600 {
					require.Zero(t, wait())
					time.Sleep(time.Second)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				time.Sleep(time.Hour)
				begin := time.Now()
				set, err := r.KeySet(ctx, pub.KeyID())
				require.NoError(t, err, "a caller that gives up is served the last good set")
				require.Same(t, kept, set)
				require.LessOrEqual(t, time.Since(begin), time.Second)
				stop()
				time.Sleep(10 * time.Second) // the fetch under way ends
			})
		})
	}
}

func TestKeysRefetchReplacesTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newKey(t), newKey(t), newKey(t)
		server := &memServer{answer: answerWith(200, document(t, a, b))}
		r := newKeys(t, server)
		first := requireKey(t, r, a)

		server.set(answerWith(200, document(t, b, a))) // the same keys in another order
		time.Sleep(time.Minute)
		same, err := r.KeySet(t.Context(), c.KeyID())
		require.NoError(t, err)
		require.Same(t, first, same)

		server.set(answerWith(200, document(t, b, c)))
		second := requireKey(t, r, c)
		require.NotSame(t, first, second)
		time.Sleep(time.Minute)
		set, err := r.KeySet(t.Context(), a.KeyID())
		require.NoError(t, err)
		require.Same(t, second, set)
		_, ok := set.Key(a.KeyID())
		require.False(t, ok, "a removed key must stop working")
		_, ok = first.Key(a.KeyID())
		require.True(t, ok, "a set that was handed out must not change")
	})
}

// TestKeysSwapIsAtomic has readers look for half a set: every set holds
// both keys of its generation or none.
func TestKeysSwapIsAtomic(t *testing.T) {
	pairs := [2][2]*keys.PublicKey{}
	docs := [2]string{}
	for i := range pairs {
		pairs[i] = [2]*keys.PublicKey{newKey(t), newKey(t)}
		docs[i] = document(t, pairs[i][0], pairs[i][1])
	}
	var n atomic.Int32
	server := &memServer{answer: func(r *http.Request) (*http.Response, error) {
		return answerWith(200, docs[n.Add(1)%2])(r)
	}}
	machine := new(clock.Clock)
	var r *remote.Keys
	clock.As(machine, func() {
		r = newKeys(t, server, func(c *remote.KeysConfig) { c.RefreshEvery, c.MaxStale = time.Second, 1000*time.Hour })
	})
	var wg sync.WaitGroup
	var wrong, calls atomic.Int32
	for range 8 {
		wg.Go(func() {
			for range 3000 {
				machine.SetAhead(time.Duration(calls.Add(1)) * time.Second) // the set is due
				set, err := r.KeySet(t.Context(), "")
				if err != nil {
					wrong.Add(1)
					continue
				}
				_, a0 := set.Key(pairs[0][0].KeyID())
				_, a1 := set.Key(pairs[0][1].KeyID())
				_, b0 := set.Key(pairs[1][0].KeyID())
				_, b1 := set.Key(pairs[1][1].KeyID())
				if a0 != a1 || b0 != b1 || a0 == b0 {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
	require.Greater(t, n.Load(), int32(2))
}

// TestKeysRefreshTimes asks once a second, with known kids only, and looks
// at when the second fetch came.
func TestKeysRefreshTimes(t *testing.T) {
	tests := []struct {
		name     string
		every    time.Duration
		header   []string
		lifetime time.Duration
	}{
		{"no header", 0, nil, 10 * time.Minute},
		{"shorter max-age", 0, []string{"Cache-Control", "public, max-age=300"}, 5 * time.Minute},
		{"longer max-age", 0, []string{"Cache-Control", "max-age=86400"}, 10 * time.Minute},
		{"huge max-age", 0, []string{"Cache-Control", "max-age=99999999999999999999999"}, 10 * time.Minute},
		{"max-age under the least", 0, []string{"Cache-Control", "max-age=1"}, time.Minute},
		{"max-age of nothing", 0, []string{"Cache-Control", "max-age=0"}, time.Minute},
		{"max-age that cannot be read", 0, []string{"Cache-Control", "max-age=-5"}, time.Minute},
		{"case, quotes and spaces", 0, []string{"Cache-Control", "public ,  Max-Age=\"300\" "}, 5 * time.Minute},
		{"two max-ages", 0, []string{"Cache-Control", "max-age=400", "Cache-Control", "max-age=300"}, 5 * time.Minute},
		{"s-maxage is for others", 0, []string{"Cache-Control", "s-maxage=300"}, 10 * time.Minute},
		{"age on the way", 0, []string{"Cache-Control", "max-age=540", "Age", "240"}, 5 * time.Minute},
		{"more age than max-age", 0, []string{"Cache-Control", "max-age=300", "Age", "900"}, time.Minute},
		{"RefreshEvery under the least", 20 * time.Second, []string{"Cache-Control", "max-age=1"}, 20 * time.Second},
		{"long RefreshEvery", time.Hour, nil, time.Hour},
	}
	for _, tt := range tests {
		for _, withRun := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " Run ", withRun), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					pub := newKey(t)
					server := &memServer{answer: answerWith(200, document(t, pub), tt.header...)}
					r := newKeys(t, server, func(c *remote.KeysConfig) { c.RefreshEvery = tt.every })
					if withRun {
						go func() { _ = r.Run(ctx) }()
						time.Sleep(tt.lifetime)
					} else {
						for range int(tt.lifetime / time.Second) {
							requireKey(t, r, pub)
							time.Sleep(time.Second)
						}
					}
					fetches := server.fetches()
					require.Len(t, fetches, 2)
					gap := fetches[1].Sub(fetches[0])
					require.GreaterOrEqual(t, gap, tt.lifetime*3/4)
					require.LessOrEqual(t, gap, tt.lifetime*9/10+time.Second)
				})
			})
		}
	}
}

func TestKeysClientsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		doc := document(t, newKey(t))
		servers := make([]*memServer, 100)
		for i := range servers {
			servers[i] = &memServer{answer: answerWith(200, doc)}
			r := newKeys(t, servers[i])
			go func() { _ = r.Run(ctx) }()
		}
		time.Sleep(10 * time.Minute)
		perSecond := map[int64]int{}
		first, last := time.Duration(1<<62), time.Duration(0)
		for _, s := range servers {
			fetches := s.fetches()
			require.Len(t, fetches, 2)
			gap := fetches[1].Sub(fetches[0])
			first, last = min(first, gap), max(last, gap)
			perSecond[int64(gap/time.Second)]++
		}
		require.Greater(t, last-first, time.Minute) // of the 90 s over which they may spread
		for _, n := range perSecond {
			require.Less(t, n, 15) // 1.1 on average
		}
	})
}

func TestKeysRunEndsWithItsContext(t *testing.T) {
	for _, name := range []string{"before", "while it waits", "while it fetches"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &memServer{answer: answerWith(200, document(t, newKey(t)))}
				if name == "while it fetches" {
					server.set(answerHung)
				}
				ctx, cancel := context.WithCancel(t.Context())
				if name == "before" {
					cancel()
				}
				done := make(chan error, 1)
				go func() { done <- newKeys(t, server).Run(ctx) }()
				synctest.Wait()
				begin := time.Now()
				cancel()
				require.ErrorIs(t, <-done, context.Canceled)
				require.Zero(t, time.Since(begin))
				time.Sleep(5 * time.Second) // the fetch has its own end
			})
		})
	}
}

func TestKeysLogsChangesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var logged bytes.Buffer
		good := answerWith(200, document(t, newKey(t)))
		server := &memServer{answer: good}
		r := newKeys(t, server, func(c *remote.KeysConfig) {
			c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
		})
		go func() { _ = r.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, logged.String())
		for outage := 1; outage <= 2; outage++ {
			server.set(answerDown)
			time.Sleep(time.Hour)
			server.set(good)
			time.Sleep(time.Hour)
			synctest.Wait()
			require.Equal(t, outage, strings.Count(logged.String(), "level=WARN"))
			require.Equal(t, outage, strings.Count(logged.String(), "level=INFO"))
		}
		require.NotContains(t, logged.String(), marker)
	})
}
