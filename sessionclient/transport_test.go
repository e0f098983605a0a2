package sessionclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionclient"
)

// call is an answer of an API, and the request that it had.
type call struct {
	status int
	header []string
}

const refusal = `Bearer error="invalid_token", error_description="expired"`

// api answers requests in turn, the last one for ever. It keeps what it got.
type api struct {
	mu      sync.Mutex
	answers []call
	bodies  []string
	tokens  []string
	at      []time.Time
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	answer := a.answers[min(len(a.bodies), len(a.answers)-1)]
	a.bodies, a.tokens, a.at = append(a.bodies, string(body)), append(a.tokens, r.Header.Get("Authorization")), append(a.at, time.Now())
	for i := 0; i < len(answer.header); i += 2 {
		w.Header().Add(answer.header[i], answer.header[i+1])
	}
	w.WriteHeader(answer.status)
	fmt.Fprintf(w, "answer %d", len(a.bodies))
}

// newAPI is a world whose API answers as given.
func newAPI(t testing.TB, answers ...call) (*world, *api) {
	t.Helper()
	w, a := newWorld(t), &api{answers: answers}
	mux := http.NewServeMux()
	mux.Handle("api.example/", a)
	mux.Handle("/", w.mux)
	w.transport = piped(t, mux)
	w.restart(t)
	return w, a
}

// closes counts how often a body is closed, and fails a read after that.
type closes struct {
	io.Reader
	n atomic.Int64
}

func (c *closes) Read(p []byte) (int, error) {
	if c.n.Load() > 0 {
		return 0, errors.New("read after close")
	}
	return c.Reader.Read(p)
}

func (c *closes) Close() error { c.n.Add(1); return nil }

// TestRefusedToken: a request that is refused with invalid_token is sent again
// once, with a renewed token, if its body can be replayed.
func TestRefusedToken(t *testing.T) {
	refused := call{401, []string{"WWW-Authenticate", refusal}}
	ok := call{200, nil}
	for _, tt := range []struct {
		name      string
		method    string
		body      string
		replay    bool
		answers   []call
		status    int
		sent      int
		exchanges int64
	}{
		{"GET", "GET", "", true, []call{refused, ok}, 200, 2, 1},
		{"POST that can be replayed", "POST", "text", true, []call{refused, ok}, 200, 2, 1},
		{"POST that cannot be replayed", "POST", "text", false, []call{refused, ok}, 401, 1, 0},
		{"refused again", "POST", "text", true, []call{refused}, 401, 2, 1},
		{"other case, second in the line", "GET", "", true, []call{{401, []string{"WWW-Authenticate", `Basic realm="x, y", BEARER realm="a",  Error=invalid_token`}}, ok}, 200, 2, 1},
		{"second line", "GET", "", true, []call{{401, []string{"WWW-Authenticate", "Basic", "WWW-Authenticate", refusal}}, ok}, 200, 2, 1},
		{"no challenge", "GET", "", true, []call{{401, nil}, ok}, 401, 1, 0},
		{"Bearer without an error", "GET", "", true, []call{{401, []string{"WWW-Authenticate", "Bearer"}}, ok}, 401, 1, 0},
		{"a sign-in that is too old", "GET", "", true, []call{{401, []string{"WWW-Authenticate", `Bearer error="insufficient_user_authentication"`}}, ok}, 401, 1, 0},
		{"a longer error", "GET", "", true, []call{{401, []string{"WWW-Authenticate", `Bearer error="invalid_token_type"`}}, ok}, 401, 1, 0},
		{"another scheme", "GET", "", true, []call{{401, []string{"WWW-Authenticate", `DPoP error="invalid_token"`}}, ok}, 401, 1, 0},
		{"403", "GET", "", true, []call{{403, []string{"WWW-Authenticate", refusal}}, ok}, 403, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, a := newAPI(t, tt.answers...)
				var bodies []*closes
				open := func() (io.ReadCloser, error) {
					bodies = append(bodies, &closes{Reader: strings.NewReader(tt.body)})
					return bodies[len(bodies)-1], nil
				}
				req, err := http.NewRequest(tt.method, apiURL, nil)
				require.NoError(t, err)
				if tt.body != "" {
					req.Body, _ = open()
					if tt.replay {
						req.GetBody = open
					}
				}
				before := req.Clone(t.Context())
				resp, err := w.http.Transport.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, tt.status, resp.StatusCode)
				answer, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf("answer %d", tt.sent), string(answer), "whole")
				require.NoError(t, resp.Body.Close())
				require.Len(t, a.bodies, tt.sent)
				for i, body := range a.bodies {
					require.Equal(t, tt.body, body)
					require.Contains(t, a.tokens[i], "Bearer eyJ")
				}
				for _, b := range bodies {
					require.Equal(t, int64(1), b.n.Load(), "closed once")
				}
				require.Equal(t, tt.exchanges, w.exchanges.Load())
				require.Equal(t, before.Header, req.Header, "the caller's request is not changed")
				require.Same(t, req, resp.Request)
				require.Empty(t, resp.Request.Header)
				if tt.sent == 2 {
					require.NotEqual(t, a.tokens[0], a.tokens[1])
				}
			})
		})
	}
}

// TestRefusedWithoutReplay: after a refusal of a request that cannot be sent
// again, the next request has another token.
func TestRefusedWithoutReplay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, a := newAPI(t, call{401, []string{"WWW-Authenticate", refusal}}, call{200, nil})
		resp, err := w.http.Post(apiURL, "text/plain", text("x"))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, 200, w.get(t))
		require.NotEqual(t, a.tokens[0], a.tokens[1])
		require.Equal(t, int64(1), w.exchanges.Load())
	})
}

// TestRefusedInParallel: 200 requests that are refused with one token are one
// exchange.
func TestRefusedInParallel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.token(t)
		mux := http.NewServeMux()
		mux.Handle("/", w.mux)
		mux.HandleFunc("api.example/", func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+old {
				rw.Header().Set("WWW-Authenticate", refusal)
				rw.WriteHeader(401)
			}
		})
		w.transport = piped(t, mux)
		w.restart(t)
		var wg sync.WaitGroup
		var failed atomic.Int64
		for range 200 {
			wg.Go(func() {
				resp, err := w.http.Get(apiURL)
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					return
				}
				resp.Body.Close()
			})
		}
		wg.Wait()
		require.Zero(t, failed.Load())
		require.Equal(t, int64(1), w.exchanges.Load())
	})
}

// TestAPIThatRefusesEverything: an API that refuses each token, such as one of
// another audience, causes fewer than 40 exchanges in 10 minutes of 6,000
// requests.
func TestAPIThatRefusesEverything(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, _ := newAPI(t, call{401, []string{"WWW-Authenticate", refusal}})
		begin := time.Now()
		for time.Since(begin) < 10*time.Minute {
			require.Equal(t, 401, w.get(t))
			time.Sleep(100 * time.Millisecond)
		}
		require.Less(t, w.exchanges.Load(), int64(40))
		require.Zero(t, w.metric(t, "refresh_reuse_detections_total"))
	})
}

// TestRefusedWhileTheEndpointIsDown: the API's own answer is returned if the
// token cannot be renewed.
func TestRefusedWhileTheEndpointIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, _ := newAPI(t, call{401, []string{"WWW-Authenticate", refusal}})
		w.wrap(func(rw http.ResponseWriter, _ *http.Request, _ http.Handler) {
			http.Error(rw, marker, http.StatusServiceUnavailable)
		})
		resp, err := w.http.Get(apiURL)
		require.NoError(t, err)
		require.Equal(t, 401, resp.StatusCode)
		answer, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "answer 1", string(answer))
		resp.Body.Close()
	})
}

// TestUnavailable: a 503 with Retry-After is repeated twice, after that time, if
// the method is idempotent, the body can be replayed and the time is short. A
// POST is not repeated.
func TestUnavailable(t *testing.T) {
	down := func(after string) call { return call{503, []string{"Retry-After", after}} }
	ok := call{200, nil}
	for _, tt := range []struct {
		name    string
		method  string
		replay  bool
		answers []call
		limit   time.Duration // of the request's context
		status  int
		sent    int
		took    time.Duration
	}{
		{"GET", "GET", true, []call{down("2"), ok}, 0, 200, 2, 2 * time.Second},
		{"DELETE", "DELETE", true, []call{down("1"), down("2"), ok}, 0, 200, 3, 3 * time.Second},
		{"PUT that can be replayed", "PUT", true, []call{down("1"), ok}, 0, 200, 2, time.Second},
		{"PUT that cannot be replayed", "PUT", false, []call{down("1"), ok}, 0, 503, 1, 0},
		{"POST", "POST", true, []call{down("1"), ok}, 0, 503, 1, 0},
		{"PATCH", "PATCH", true, []call{down("1"), ok}, 0, 503, 1, 0},
		{"for ever", "GET", true, []call{down("1")}, 0, 503, 3, 2 * time.Second},
		{"at once", "GET", true, []call{down("0")}, 0, 503, 3, 0},
		{"the longest", "GET", true, []call{down("5"), ok}, 0, 200, 2, 5 * time.Second},
		{"too long", "GET", true, []call{down("6"), ok}, 0, 503, 1, 0},
		{"far too long", "GET", true, []call{down("99999999999999999999"), ok}, 0, 503, 1, 0},
		{"a date", "GET", true, []call{down("Sat, 01 Jan 2000 00:00:03 GMT"), ok}, 0, 200, 2, 3 * time.Second},
		{"a date in an hour", "GET", true, []call{down("Sat, 01 Jan 2000 01:00:00 GMT"), ok}, 0, 503, 1, 0},
		{"a date in the past", "GET", true, []call{down("Sat, 01 Jan 1999 01:00:00 GMT"), ok}, 0, 200, 2, 0},
		{"no time", "GET", true, []call{{503, nil}, ok}, 0, 503, 1, 0},
		{"garbage", "GET", true, []call{down("soon"), ok}, 0, 503, 1, 0},
		{"negative", "GET", true, []call{down("-1"), ok}, 0, 503, 1, 0},
		{"beyond the context", "GET", true, []call{down("5"), ok}, 3 * time.Second, 503, 1, 0},
		{"429", "GET", true, []call{{429, []string{"Retry-After", "1"}}, ok}, 0, 429, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w, a := newAPI(t, tt.answers...)
				ctx := t.Context()
				if tt.limit > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, tt.limit)
					defer cancel()
				}
				req, err := http.NewRequestWithContext(ctx, tt.method, apiURL, strings.NewReader("text"))
				require.NoError(t, err)
				if !tt.replay {
					req.GetBody = nil
				}
				begin := time.Now()
				resp, err := w.http.Do(req)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, tt.status, resp.StatusCode)
				require.Equal(t, tt.took, time.Since(begin))
				require.Len(t, a.bodies, tt.sent)
				for _, body := range a.bodies {
					require.Equal(t, "text", body)
				}
				require.Zero(t, w.exchanges.Load())
			})
		})
	}
}

// TestTokenGoesToItsOriginsOnly: no request to another scheme, host or port has
// the access token, also along redirects, nor one with an Authorization header
// of its own.
func TestTokenGoesToItsOriginsOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		got := map[string]string{}
		w.transport = piped(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			got[r.Host+r.URL.Path] = r.Header.Get("Authorization")
			if to := r.URL.Query().Get("to"); to != "" {
				http.Redirect(rw, r, to, http.StatusTemporaryRedirect)
			}
		}))
		w.restart(t)
		send := func(u string, header ...string) {
			req, err := http.NewRequest("GET", u, nil)
			require.NoError(t, err)
			for i := 0; i < len(header); i += 2 {
				req.Header.Set(header[i], header[i+1])
			}
			resp, err := w.http.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
		}
		for i, u := range []string{"https://api.example", "https://API.example", "https://api.example:443"} {
			send(fmt.Sprintf("%s/%d", u, i))
			host := strings.TrimPrefix(u, "https://")
			require.Contains(t, got[fmt.Sprintf("%s/%d", host, i)], "Bearer eyJ", u)
		}
		for i, u := range []string{
			"http://api.example", "https://api.example:8443", "https://sub.api.example", "https://api.example.", "https://other.example",
			"https://id.example", "http://api.example:443", "https://api.example.other.example",
		} {
			clear(got)
			send(fmt.Sprintf("%s/direct/%d", u, i))
			send(fmt.Sprintf("https://api.example/start?to=%s/redirected/%d", u, i))
			_, host, _ := strings.Cut(u, "//")
			require.Len(t, got, 3)
			require.Contains(t, got["api.example/start"], "Bearer eyJ")
			require.Empty(t, got[fmt.Sprintf("%s/direct/%d", host, i)], u)
			require.Contains(t, got, fmt.Sprintf("%s/redirected/%d", host, i))
			require.Empty(t, got[fmt.Sprintf("%s/redirected/%d", host, i)], u)
		}
		send("https://api.example/within?to=/there")
		require.Contains(t, got["api.example/there"], "Bearer eyJ")
		send("https://api.example/own", "Authorization", "Basic dTpw")
		require.Equal(t, "Basic dTpw", got["api.example/own"])
		send("https://u:p@api.example/user")
		require.Equal(t, "Basic dTpw", got["api.example/user"])
		req, err := http.NewRequest("GET", "https://u:p@api.example/transport", nil)
		require.NoError(t, err)
		resp, err := w.http.Transport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Empty(t, got["api.example/transport"])
	})
}

// TestRedirectsOfTheServers over TCP: neither a redirect of an API nor one of the
// token endpoint takes a token to another server.
func TestRedirectsOfTheServers(t *testing.T) {
	var leaked atomic.Int64
	var reached atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached.Add(1)
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "" || strings.Contains(string(body), "refresh_token") {
			leaked.Add(1)
		}
	}))
	defer other.Close()
	s := newSite(t)
	mux := http.NewServeMux()
	mux.Handle("/", s.mux)
	mux.Handle("/moved", http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	defer server.Close()
	keeper := newMemory()
	newClient := func(path string) *sessionclient.Client {
		c, err := sessionclient.New(sessionclient.Config{TokenURL: server.URL + path, ClientID: "app", Origins: []string{server.URL}, Keeper: keeper})
		require.NoError(t, err)
		return c
	}
	c := newClient("/token")
	tokens := signIn(t, server.Client(), server.URL+"/in")
	tokens.ExpiresIn = 0
	require.NoError(t, c.SignIn(t.Context(), tokens))
	hc := &http.Client{Transport: c.Transport(nil)}
	for _, path := range []string{"/api", "/moved"} {
		resp, err := hc.Post(server.URL+path, "text/plain", strings.NewReader("text"))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	require.Equal(t, int64(1), s.exchanges.Load())
	require.Equal(t, int64(1), s.calls.Load())
	require.Equal(t, int64(1), reached.Load())
	require.Zero(t, leaked.Load())

	c = newClient("/moved")
	tokens.ExpiresIn = 0
	require.NoError(t, c.SignIn(t.Context(), tokens))
	_, _, err := c.Token(t.Context())
	requireTryAgain(t, err)
	require.ErrorContains(t, err, "status 307")
	require.Equal(t, int64(1), reached.Load())
}

// TestExchangeThroughItsOwnTransport: a client that is configured to send its
// exchanges through its own Transport does not wait for itself.
func TestExchangeThroughItsOwnTransport(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		own := new(http.Client)
		c, err := sessionclient.New(sessionclient.Config{
			TokenURL: "https://id.example/token", ClientID: "app", Origins: []string{"https://id.example"}, Keeper: w.keeper,
			HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) { return own.Transport.RoundTrip(r) })},
		})
		require.NoError(t, err)
		own.Transport = c.Transport(w.transport)
		time.Sleep(6 * time.Minute)
		begin := time.Now()
		_, _, err = c.Token(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(begin))
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestBodyIsClosedOnce: a request that is not sent, since there is no token, has
// its body closed.
func TestBodyIsClosedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.keeper.set("")
		w.restart(t)
		body := &closes{Reader: strings.NewReader("text")}
		_, err := w.http.Post(apiURL, "text/plain", body)
		requireSignIn(t, err)
		require.Equal(t, int64(1), body.n.Load())
		require.Zero(t, w.calls.Load())
	})
}

// TestRenew: Renew is the exchange that a refused token causes, for protocols
// other than HTTP: one for all callers, and no more than a Transport makes.
func TestRenew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t)
		old := w.token(t)
		var calls sync.WaitGroup
		for range 50 {
			calls.Go(func() {
				token, expires, err := w.client.Renew(t.Context(), old)
				if err != nil || token == old || time.Until(expires) < 4*time.Minute {
					t.Errorf("until %v: %v", expires, err)
				}
			})
		}
		calls.Wait()
		require.EqualValues(t, 1, w.exchanges.Load())

		begin, renewed := time.Now(), 0
		for time.Since(begin) < 10*time.Minute {
			if _, _, err := w.client.Renew(t.Context(), w.token(t)); err == nil {
				renewed++
			} else {
				requireTryAgain(t, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		require.Greater(t, renewed, 10)
		require.Less(t, w.exchanges.Load(), int64(40))

		require.NoError(t, w.client.SignOut(t.Context()))
		_, _, err := w.client.Renew(t.Context(), old)
		requireSignIn(t, err)
	})
}
