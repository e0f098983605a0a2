package sessionclient_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionclient"
)

// TestNew: a configuration that cannot work is an error that names the field.
func TestNew(t *testing.T) {
	tests := []struct {
		name   string
		change func(*sessionclient.Config)
		err    string
	}{
		{"good", func(*sessionclient.Config) {}, ""},
		{"loopback", func(c *sessionclient.Config) {
			c.TokenURL, c.RevokeURL, c.Origins = "http://127.0.0.1:1/token", "", []string{"http://localhost:8080", "http://[::1]"}
		}, ""},
		{"no token URL", func(c *sessionclient.Config) { c.TokenURL = "" }, "Config.TokenURL is required"},
		{"token URL over http", func(c *sessionclient.Config) { c.TokenURL = "http://id.example/" + marker }, "Config.TokenURL must be https"},
		{"relative token URL", func(c *sessionclient.Config) { c.TokenURL = "/" + marker }, "Config.TokenURL is not an absolute URL"},
		{"token URL with a password", func(c *sessionclient.Config) { c.TokenURL = "https://u:" + marker + "@id.example/" }, "Config.TokenURL must not have user information"},
		{"token URL with a fragment", func(c *sessionclient.Config) { c.TokenURL = "https://id.example/#" + marker }, "Config.TokenURL must not have a fragment"},
		{"token URL that is none", func(c *sessionclient.Config) { c.TokenURL = "https://" + marker + "\x00" }, "Config.TokenURL is not an absolute URL"},
		{"revocation over http", func(c *sessionclient.Config) { c.RevokeURL = "http://id.example/" }, "Config.RevokeURL must be https"},
		{"revocation elsewhere", func(c *sessionclient.Config) { c.RevokeURL = "https://other.example/" }, "Config.RevokeURL must have the origin"},
		{"no origins", func(c *sessionclient.Config) { c.Origins = nil }, "Config.Origins is required"},
		{"origin over http", func(c *sessionclient.Config) { c.Origins = []string{"http://api.example"} }, "Config.Origins holds one that must be https"},
		{"origin below localhost over http", func(c *sessionclient.Config) { c.Origins = []string{"http://api.localhost"} }, "Config.Origins holds one that must be https"},
		{"origin with a path", func(c *sessionclient.Config) { c.Origins = []string{"https://api.example/"} }, "Config.Origins holds one that must end after the host"},
		{"no keeper", func(c *sessionclient.Config) { c.Keeper = nil }, "Config.Keeper is required"},
		{"nil keeper", func(c *sessionclient.Config) { c.Keeper = (*memory)(nil) }, "Config.Keeper is required"},
		{"negative margin", func(c *sessionclient.Config) { c.Margin = -1 }, "Config.Margin is -1ns"},
		{"margin without a unit", func(c *sessionclient.Config) { c.Margin = 10 }, "Config.Margin is 10ns"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sessionclient.Config{TokenURL: "https://id.example/token", Origins: []string{"https://api.example"}, Keeper: newMemory()}
			tt.change(&cfg)
			c, err := sessionclient.New(cfg)
			if tt.err == "" {
				require.NoError(t, err)
				require.NotNil(t, c)
				return
			}
			require.ErrorContains(t, err, tt.err)
			requireNoToken(t, err.Error())
		})
	}
}

// TestOneExchangeAcrossAnExpiry: 200 parallel requests after the end of the
// access token, and 200 while it is due, are one exchange each.
func TestOneExchangeAcrossAnExpiry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		require.Equal(t, 200, w.get(t))
		require.Zero(t, w.exchanges.Load())
		for n, age := range []time.Duration{6 * time.Minute, 4*time.Minute + 30*time.Second} {
			time.Sleep(age)
			var refused atomic.Int64
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					resp, err := w.http.Get(apiURL)
					if err != nil || resp.StatusCode != 200 {
						refused.Add(1)
						return
					}
					resp.Body.Close()
				})
			}
			wg.Wait()
			require.Zero(t, refused.Load())
			require.Equal(t, int64(n+1), w.exchanges.Load())
		}
	})
}

// TestRenewsAtFourFifths: clients renew between 75 and 85 % of a token's life,
// and not all at the same moment.
func TestRenewsAtFourFifths(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		tokens := w.signIn(t)
		moments := map[int]bool{}
		for range 20 {
			w.keeper, tokens.ExpiresIn = newMemory(), 300
			w.restart(t)
			tokens = w.signIn(t)
			require.NoError(t, w.client.SignIn(t.Context(), tokens))
			before := w.exchanges.Load()
			for at := 0; ; at++ {
				w.token(t)
				if w.exchanges.Load() > before {
					require.GreaterOrEqual(t, at, 225)
					require.LessOrEqual(t, at, 256)
					moments[at] = true
					break
				}
				time.Sleep(time.Second)
			}
		}
		require.Greater(t, len(moments), 5)
	})
}

// TestExpiresIsTheEnd: the time that Token returns is that of the token's exp.
func TestExpiresIsTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		begin := time.Now()
		time.Sleep(time.Minute)
		for range 2 {
			_, expires, err := w.client.Token(t.Context())
			require.NoError(t, err)
			require.Equal(t, begin.Add(5*time.Minute).UTC(), expires)
			w.restart(t) // the record has it too
		}
	})
}

// TestGivingUpDoesNotCancel: a caller that gives up gets its error at once. The
// exchange goes on, and the next caller has its result.
func TestGivingUpDoesNotCancel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(6 * time.Minute)
		w.wrap(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			time.Sleep(3 * time.Second)
			next.ServeHTTP(rw, r)
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, _, err := w.client.Token(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		requireTryAgain(t, err)
		require.Equal(t, time.Second, time.Since(begin))
		w.token(t)
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.Equal(t, int64(1), w.exchanges.Load())
	})
}

// TestGoodTokenIsNotHeldUp: while an access token is good, an endpoint that hangs
// or fails delays callers by 2 s in all, and they get the old token.
func TestGoodTokenIsNotHeldUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.token(t)
		time.Sleep(4*time.Minute + 16*time.Second)
		w.wrap(func(rw http.ResponseWriter, r *http.Request, next http.Handler) { <-r.Context().Done() })
		begin := time.Now()
		require.Equal(t, old, w.token(t))
		require.Equal(t, 2*time.Second, time.Since(begin))
		for range 100 {
			require.Equal(t, old, w.token(t))
		}
		require.Equal(t, 2*time.Second, time.Since(begin))
		time.Sleep(time.Minute)
		w.unwrap()
		time.Sleep(time.Minute)
		require.NotEqual(t, old, w.token(t))
	})
}

// TestKilledBetweenExchangeAndSave: of 50 generations, each is killed once
// between the exchange and the saving of the successor and comes back within
// RetryWindow; or every second one, and it comes back late. The user is never
// signed out, and no reuse is seen.
func TestKilledBetweenExchangeAndSave(t *testing.T) {
	for _, tt := range []struct {
		name   string
		killed func(generation int) bool
		away   time.Duration
		kills  float64
		late   float64
	}{
		{"each, within RetryWindow", func(int) bool { return true }, 20 * time.Second, 50, 0},
		{"every second, late", func(n int) bool { return n%2 == 0 }, 25 * time.Minute, 25, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				for n := range 50 {
					time.Sleep(4*time.Minute + 30*time.Second)
					if tt.killed(n) {
						before := w.keeper.text()
						w.keeper.failing(errDisk) // nothing is written by a process that is dead
						_, _, _ = w.client.Token(t.Context())
						require.Equal(t, before, w.keeper.text())
						w.keeper.failing(nil)
						time.Sleep(tt.away)
						w.restart(t)
					}
					old := w.keeper.text()
					require.Equal(t, 200, w.get(t), "generation %d", n)
					require.NotEqual(t, old, w.keeper.text())
				}
				require.Equal(t, 50+tt.kills, float64(w.exchanges.Load()))
				require.Equal(t, tt.kills, w.metric(t, "refresh_retries_total")+w.metric(t, "refresh_late_retries_total"))
				require.Equal(t, tt.late, w.metric(t, "refresh_late_retries_total"))
				require.Zero(t, w.metric(t, "refresh_reuse_detections_total"))
			})
		})
	}
}

// TestKilledTooOften: a program that is killed in each generation, and comes back
// late each time, looks like a thief: its user has to sign in again.
func TestKilledTooOften(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		for range 2 {
			time.Sleep(4*time.Minute + 30*time.Second)
			w.keeper.failing(errDisk)
			_, _, _ = w.client.Token(t.Context())
			w.keeper.failing(nil)
			time.Sleep(25 * time.Minute)
			w.restart(t)
			_, _, err := w.client.Token(t.Context())
			if w.exchanges.Load() == 2 {
				require.NoError(t, err)
			} else {
				requireSignIn(t, err)
			}
		}
		require.Equal(t, int64(4), w.exchanges.Load())
		require.Equal(t, float64(1), w.metric(t, "refresh_reuse_detections_total"))
	})
}

// TestMargin: an access token is not used in the time before its end that Margin
// is, or in the last quarter of a short life.
func TestMargin(t *testing.T) {
	for _, tt := range []struct {
		name    string
		margin  time.Duration
		life    int64
		goodFor time.Duration
	}{
		{"default", 0, 300, 290 * time.Second},
		{"a minute", time.Minute, 300, 240 * time.Second},
		{"an hour", time.Hour, 300, 225 * time.Second},
		{"a short life", 0, 8, 6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				c, err := sessionclient.New(sessionclient.Config{
					TokenURL: "https://id.example/token", ClientID: "app", Origins: []string{"https://api.example"}, Keeper: w.keeper,
					HTTPClient: &http.Client{Transport: w.transport}, Margin: tt.margin,
				})
				require.NoError(t, err)
				w.wrap(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) { rw.WriteHeader(http.StatusNotFound) })
				tokens := w.signIn(t)
				tokens.ExpiresIn = tt.life
				require.NoError(t, c.SignIn(t.Context(), tokens))
				time.Sleep(tt.goodFor - 1)
				got, _, err := c.Token(t.Context())
				require.NoError(t, err)
				require.Equal(t, tokens.AccessToken, got)
				time.Sleep(time.Nanosecond)
				_, _, err = c.Token(t.Context())
				requireTryAgain(t, err)
			})
		})
	}
}

// TestSuccessorIsSavedBeforeUse: if the successor cannot be saved, no caller gets
// its access token. It is saved later without another exchange, however long the
// disk is full.
func TestSuccessorIsSavedBeforeUse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(6 * time.Minute)
		w.keeper.failing(errDisk)
		for range 100 {
			_, _, err := w.client.Token(t.Context())
			require.ErrorIs(t, err, errDisk)
			requireTryAgain(t, err)
			time.Sleep(2 * time.Second)
		}
		require.Equal(t, int64(1), w.exchanges.Load())
		w.keeper.failing(nil)
		time.Sleep(time.Minute)
		require.Equal(t, 200, w.get(t))
		require.Equal(t, int64(1), w.exchanges.Load())
		time.Sleep(6 * time.Minute)
		require.Equal(t, 200, w.get(t))
		require.Zero(t, w.metric(t, "refresh_reuse_detections_total"))
	})
}

// TestLostAnswers: an endpoint whose answers are lost for hours, after it has
// exchanged the token, gets it once. When it answers again the user is still
// signed in.
func TestLostAnswers(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(w http.ResponseWriter, r *http.Request)
	}{
		{"hung", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>"+marker) }},
		{"no HTTP", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = conn.Write([]byte(marker + " " + marker + "\r\n\r\n"))
				conn.Close()
			}
		}},
		{"a proxy's 504", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, marker, http.StatusGatewayTimeout) }},
		{"over 64 KiB", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 65<<10)) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				time.Sleep(6 * time.Minute)
				w.wrap(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
					next.ServeHTTP(httptest.NewRecorder(), r)
					tt.lose(rw, r)
				})
				begin := time.Now()
				for time.Since(begin) < 40*time.Minute {
					_, _, err := w.client.Token(t.Context())
					requireTryAgain(t, err)
					time.Sleep(10 * time.Second)
				}
				require.Equal(t, int64(1), w.exchanges.Load())
				require.Greater(t, w.probes.Load(), int64(10))
				w.unwrap()
				time.Sleep(time.Minute)
				require.Equal(t, 200, w.get(t))
				require.Equal(t, int64(2), w.exchanges.Load())
				time.Sleep(6 * time.Minute)
				require.Equal(t, 200, w.get(t))
				require.Zero(t, w.metric(t, "refresh_reuse_detections_total"))
			})
		})
	}
}

// TestOneLostAnswer: the exchange whose answer is lost is made again at once, in
// the same call.
func TestOneLostAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(6 * time.Minute)
		var once sync.Once
		w.wrap(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
			once.Do(func() {
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			})
			next.ServeHTTP(rw, r)
		})
		require.Equal(t, 200, w.get(t))
		require.Equal(t, int64(2), w.exchanges.Load())
	})
}

// TestSignInOrTryAgain tells the answers of a token endpoint apart. After one to
// try again the record stays, and the next exchange works.
func TestSignInOrTryAgain(t *testing.T) {
	answer := func(status int, body string, header ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	good := `{"access_token":"` + marker + `","token_type":"Bearer","expires_in":300,"refresh_token":"` + marker + `"`
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter)
		signIn bool
	}{
		{"invalid_grant", answer(400, `{"error":"invalid_grant","error_description":"`+marker+`"}`), true},
		{"401", answer(401, marker), true},
		{"invalid_client", answer(401, `{"error":"invalid_client"}`), true},
		{"invalid_request", answer(400, `{"error":"invalid_request"}`), false},
		{"400 of another kind", answer(400, `{"error":"`+marker+`"}`), false},
		{"400 without JSON", answer(400, marker), false},
		{"403", answer(403, marker), false},
		{"404", answer(404, marker), false},
		{"429", answer(429, marker, "Retry-After", "1"), false},
		{"500", answer(500, marker), false},
		{"503", answer(503, `{"error":"temporarily_unavailable"}`, "Retry-After", "1"), false},
		{"503 for an hour", answer(503, marker, "Retry-After", "3600"), false},
		{"503 without a time", answer(503, marker, "Retry-After", marker), false},
		{"201", answer(201, good+"}"), false},
		{"redirect elsewhere", answer(307, "", "Location", "https://other.example/"+marker), false},
		{"redirect within", answer(308, "", "Location", "/token"), false},
		{"nothing", answer(200, ""), false},
		{"HTML", answer(200, "<html>"+marker), false},
		{"array", answer(200, "["+good+"}]"), false},
		{"garbage after it", answer(200, good+"}"+marker), false},
		{"another type", answer(200, `{"token_type":"DPoP",`+good[1:52]+"}"), false},
		{"no refresh token", answer(200, `{"access_token":"`+marker+`","token_type":"Bearer","expires_in":300}`), false},
		{"no expires_in", answer(200, `{"access_token":"`+marker+`","token_type":"Bearer","refresh_token":"`+marker+`"}`), false},
		{"expires_in of text", answer(200, `{"access_token":"`+marker+`","token_type":"Bearer","expires_in":"300","refresh_token":"`+marker+`"}`), false},
		{"expires_in of millennia", answer(200, `{"access_token":"`+marker+`","token_type":"Bearer","expires_in":9223372036854775807,"refresh_token":"`+marker+`"}`), false},
		{"token with a line", answer(200, `{"access_token":"`+marker+`\r\nX: y","token_type":"Bearer","expires_in":300,"refresh_token":"`+marker+`"}`), false},
		{"over 64 KiB", answer(200, good+`,"x":"`+string(make([]byte, 65<<10))+`"}`), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t)
				time.Sleep(6 * time.Minute)
				w.wrap(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
					if r.PostForm.Get("refresh_token") == "" {
						next.ServeHTTP(rw, r) // a probe
						return
					}
					tt.answer(rw)
				})
				record := w.keeper.text()
				_, _, err := w.client.Token(t.Context())
				if tt.signIn {
					requireSignIn(t, err)
				} else {
					requireTryAgain(t, err)
				}
				require.Equal(t, record, w.keeper.text())
				require.LessOrEqual(t, w.exchanges.Load(), int64(3))
				exchanges := w.exchanges.Load()
				_, err = w.http.Get(apiURL)
				require.Error(t, err)
				requireNoToken(t, err.Error())
				require.Equal(t, exchanges, w.exchanges.Load(), "not again at once")
				w.unwrap()
				time.Sleep(time.Minute)
				if tt.signIn { // until a user has signed in: here, or in another process
					_, _, err = w.client.Token(t.Context())
					requireSignIn(t, err)
					require.Equal(t, exchanges, w.exchanges.Load())
					other := *w
					other.restart(t)
					require.NoError(t, other.client.SignIn(t.Context(), w.signIn(t)))
				}
				require.Equal(t, 200, w.get(t))
			})
		})
	}
}

// TestRetryAfterOfTheEndpoint: a Retry-After is waited for up to 5 s; beyond that
// the call fails at once.
func TestRetryAfterOfTheEndpoint(t *testing.T) {
	for after, took := range map[string]time.Duration{"1": 2 * time.Second, "5": 10 * time.Second, "6": 0, "24": 0} {
		bubble(t, func(t *testing.T) {
			w := newWorld(t)
			time.Sleep(6 * time.Minute)
			w.wrap(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
				rw.Header().Set("Retry-After", after)
				rw.WriteHeader(http.StatusServiceUnavailable)
			})
			begin := time.Now()
			_, _, err := w.client.Token(t.Context())
			requireTryAgain(t, err)
			require.Equal(t, took, time.Since(begin), after)
		})
	}
}

// endless is a body without an end.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.read.Add(int64(len(p))) > 1<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

func (*endless) Close() error { return nil }

// TestEndlessAnswer: little more than 64 KiB of an answer is read.
func TestEndlessAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(6 * time.Minute)
		body := new(endless)
		c, err := sessionclient.New(sessionclient.Config{
			TokenURL: "https://id.example/token", Origins: []string{"https://api.example"}, Keeper: w.keeper,
			HTTPClient: &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 404, Body: body}, nil
			})},
		})
		require.NoError(t, err)
		_, _, err = c.Token(t.Context())
		requireTryAgain(t, err)
		require.ErrorContains(t, err, "over 65536 bytes")
		require.LessOrEqual(t, body.read.Load(), int64(3*(128<<10)))
	})
}

// TestSignInReplaces: after a sign-in the token is that of the new session.
func TestSignInReplaces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.token(t)
		tokens := w.signIn(t)
		require.NoError(t, w.client.SignIn(t.Context(), tokens))
		require.Equal(t, tokens.AccessToken, w.token(t))
	})
}

// TestNeverSignedIn: without a record the error says that the user has to sign
// in, and nothing is sent.
func TestNeverSignedIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.keeper = newMemory()
		w.restart(t)
		_, _, err := w.client.Token(t.Context())
		requireSignIn(t, err)
		require.NoError(t, w.client.SignOut(t.Context()))
		for _, record := range []string{"x", "{}", `{"version":2}`, `{"version":1,"access_token":"a"}`, marker} {
			w.keeper.set(record)
			_, _, err := w.client.Token(t.Context())
			requireSignIn(t, err)
		}
		require.Zero(t, w.exchanges.Load())
		require.NoError(t, w.client.SignIn(t.Context(), w.signIn(t)))
		require.Equal(t, 200, w.get(t))
	})
}

// TestRecordOfAnotherServer: a refresh token is sent to no other origin than that
// which it came from.
func TestRecordOfAnotherServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		c, err := sessionclient.New(sessionclient.Config{
			TokenURL: "https://other.example/token", Origins: []string{"https://api.example"}, Keeper: w.keeper,
			HTTPClient: &http.Client{Transport: w.transport},
		})
		require.NoError(t, err)
		for range 2 {
			_, _, err = c.Token(t.Context())
			requireSignIn(t, err)
			require.Error(t, c.SignOut(t.Context()))
			time.Sleep(6 * time.Minute)
		}
		require.Zero(t, w.exchanges.Load())
		require.Equal(t, 200, w.get(t))
	})
}

// TestSignInRefuses: tokens that cannot be used are an error, and the record
// stays.
func TestSignInRefuses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		good := w.signIn(t)
		for name, change := range map[string]func(*sessionclient.Tokens){
			"no access token":  func(t *sessionclient.Tokens) { t.AccessToken = "" },
			"no refresh token": func(t *sessionclient.Tokens) { t.RefreshToken = "" },
			"another type":     func(t *sessionclient.Tokens) { t.TokenType = marker },
			"a line":           func(t *sessionclient.Tokens) { t.AccessToken = marker + "\n" },
			"17 KiB":           func(t *sessionclient.Tokens) { t.RefreshToken = marker + string(make([]byte, 17<<10)) },
			"negative":         func(t *sessionclient.Tokens) { t.ExpiresIn = -1 },
			"for ever":         func(t *sessionclient.Tokens) { t.ExpiresIn = 1 << 62 },
		} {
			record, tokens := w.keeper.text(), good
			change(&tokens)
			requireTryAgain(t, w.client.SignIn(t.Context(), tokens))
			require.Equal(t, record, w.keeper.text(), name)
		}
		w.keeper.failing(errDisk)
		require.ErrorIs(t, w.client.SignIn(t.Context(), good), errDisk)
		w.keeper.failing(nil)
		good.ExpiresIn, good.TokenType = 0, "" // as when nothing is known of them
		require.NoError(t, w.client.SignIn(t.Context(), good))
		require.Equal(t, 200, w.get(t))
		require.Equal(t, int64(1), w.exchanges.Load())
	})
}

// TestSignOut: the session is revoked and the record deleted; until the server
// has answered 200 it stays.
func TestSignOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		token := w.token(t)
		w.transport.CloseIdleConnections()
		down := true
		revoke := w.Sessions().RevokeHandler()
		mux := http.NewServeMux()
		mux.Handle("/", w.mux)
		mux.HandleFunc("/revoke", func(rw http.ResponseWriter, r *http.Request) {
			if down {
				rw.Header().Set("Retry-After", "1")
				http.Error(rw, marker, http.StatusServiceUnavailable)
				return
			}
			revoke.ServeHTTP(rw, r)
		})
		w.transport = piped(t, mux)
		w.restart(t)
		requireTryAgain(t, w.client.SignOut(t.Context()))
		require.NotEmpty(t, w.keeper.text())
		require.Equal(t, 200, w.get(t))

		down = false
		require.NoError(t, w.client.SignOut(t.Context()))
		require.Empty(t, w.keeper.text())
		_, _, err := w.client.Token(t.Context())
		requireSignIn(t, err)
		req, err := http.NewRequest("GET", apiURL, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := w.transport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode, "the session is revoked")
		require.NoError(t, w.client.SignOut(t.Context()), "again")
		synctest.Wait()
	})
}

// TestSignOutGoesOn: a caller that gives up does not cancel a sign-out.
func TestSignOutGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, w.client.SignOut(ctx), context.Canceled)
		time.Sleep(time.Second)
		require.Empty(t, w.keeper.text())
		_, _, err := w.client.Token(t.Context())
		requireSignIn(t, err)
	})
}

// TestSignedOutElsewhere: when the session was revoked, the user has to sign in
// again.
func TestSignedOutElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		require.Equal(t, 200, w.get(t))
		require.NoError(t, w.Revocations().RevokeSubject(t.Context(), "ada"))
		_, err := w.http.Get(apiURL)
		requireSignIn(t, err)
	})
}

// TestClockSetBack: an access token that seems to come from the future is
// renewed.
func TestClockSetBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		time.Sleep(time.Minute)
		require.Zero(t, w.exchanges.Load())
		clockBack(t, time.Hour, func() { w.restart(t) })
		require.Equal(t, 200, w.get(t))
		require.Equal(t, int64(1), w.exchanges.Load())
	})
}

// TestKeeperPanics: a keeper that panics is an error, and no crash.
func TestKeeperPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		c, err := sessionclient.New(sessionclient.Config{TokenURL: "https://id.example/token", Origins: []string{"https://api.example"}, Keeper: panics{w.keeper}})
		require.NoError(t, err)
		_, _, err = c.Token(t.Context())
		requireTryAgain(t, err)
		requireTryAgain(t, c.SignOut(t.Context()))
	})
}

type panics struct{ sessionclient.Keeper }

func (panics) Load(context.Context) ([]byte, error) { panic(marker) }
