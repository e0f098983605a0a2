package sessionhttp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// world is a site whose stores fail: each call takes up to 200 ms, and fails
// before or after it was done, 15 % each.
type world struct {
	*site
	faulty atomic.Bool

	mu       sync.Mutex
	rand     *rand.Rand
	replicas [2]*node
	out      []outcome // all that was ever handed out
}

// node is a process: a replica, until it is killed.
type node struct {
	*replica
	stop   context.CancelFunc
	killed atomic.Bool
}

// outcome is a credential that was handed out, as requests that present it.
type outcome struct {
	session string
	what    string
	present func() *http.Request
	good    int
}

func (w *world) n(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.n(int(d))) }

// call is a call of a store by a node.
func (w *world) call(ctx context.Context, n *node, f func(context.Context) error) error {
	fault := w.n(100)
	if !w.faulty.Load() {
		fault = 100
	}
	select {
	case <-time.After(w.upTo(200 * time.Millisecond)):
	case <-ctx.Done():
		return ctx.Err()
	}
	if fault < 15 || n.killed.Load() {
		return errDown
	}
	err := f(ctx)
	if fault < 30 {
		return errDown
	}
	return err
}

// start puts a new process in the place of an old one.
func (w *world) start(i int) {
	n := new(node)
	n.replica = w.month(func(p *parts) {
		p.list.Store = revocations{w, n}
		p.manager.Store = families{w, n}
		p.issuer.TTL, p.issuer.IdleTimeout = 4*time.Second, time.Hour
	})
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() { _ = n.list.Run(ctx) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.replicas[i] = n
}

func (w *world) node(i int) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.replicas[i]
}

func (w *world) kill(i int) {
	n := w.node(i)
	n.killed.Store(true)
	n.stop()
	w.start(i)
}

// send sends a request to a replica. Some clients hang up before the answer is
// there. The answer is nil for a client that got none.
func (w *world) send(i int, req *http.Request) *http.Response {
	n := w.node(i)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if w.faulty.Load() && w.n(5) == 0 {
		time.AfterFunc(w.upTo(500*time.Millisecond), cancel)
	}
	rec := httptest.NewRecorder()
	n.mux.ServeHTTP(rec, req.WithContext(ctx))
	resp := rec.Result()
	if n.killed.Load() {
		return nil
	}
	w.record(resp, req)
	if ctx.Err() != nil {
		return nil
	}
	return resp
}

// client is a user agent that keeps a session going on both replicas.
type client struct {
	session string
	native  bool
	turn    chan struct{} // of a native client, which refreshes once at a time
	mu      sync.Mutex
	browser browser
	access  string
	since   time.Time // when access was asked for: its iat is not before that
	refresh string
}

// record remembers what an answer hands out.
func (w *world) record(resp *http.Response, req *http.Request) {
	c, ok := req.Context().Value(clientKey{}).(*client)
	if !ok {
		return
	}
	var got []outcome
	c.mu.Lock()
	b := c.browser
	c.mu.Unlock()
	b.take(resp)
	if v := b.session; v != "" {
		got = append(got, outcome{c.session, "cookie", func() *http.Request { return request("POST", "/who", v) }, 200})
	}
	if b.refresh != "" && b.binder != "" {
		got = append(got, outcome{c.session, "refresh cookie", func() *http.Request { return b.request("POST", "/session/refresh") }, 204})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out, got...)
}

func (w *world) recordTokens(c *client, tokens sessionhttp.Tokens) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = append(w.out,
		outcome{c.session, "access token", func() *http.Request { return request("GET", "/who", "", bearer(tokens.AccessToken)...) }, 200},
		outcome{c.session, "refresh token", func() *http.Request { return refreshRequest(grant(tokens.RefreshToken)) }, 200})
}

type clientKey struct{}

func (c *client) of(req *http.Request) *http.Request {
	return req.WithContext(context.WithValue(req.Context(), clientKey{}, c))
}

// step uses the session once: a page, or a refresh.
func (w *world) step(t *testing.T, c *client, i int) {
	if c.native {
		c.turn <- struct{}{}
		defer func() { <-c.turn }()
	}
	c.mu.Lock()
	b, token := c.browser, c.refresh
	c.mu.Unlock()
	if c.native {
		asked := time.Now()
		if resp := w.send(i, refreshRequest(grant(token))); resp != nil && resp.StatusCode == 200 {
			tokens := tokensIn(t, resp)
			w.recordTokens(c, tokens)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.access, c.refresh, c.since = tokens.AccessToken, tokens.RefreshToken, asked
		}
		return
	}
	path := "/who"
	if w.n(2) == 0 {
		path = "/session/refresh"
	}
	if resp := w.send(i, c.of(b.request("POST", path))); resp != nil && resp.StatusCode < 300 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.browser.take(resp)
	}
}

// schedule is one run of the model.
type schedule struct {
	seed    uint64
	path    string // of the sign-out
	native  bool   // who signs out
	faults  bool
	other   bool // the sign-out is repeated at the other replica
	killing bool
}

// run returns what still works after a sign-out that was answered with anything
// but "try again".
func (s schedule) run(t *testing.T) (answer int, alive []string) {
	w := &world{site: newSite(t), rand: rand.New(rand.NewPCG(s.seed, 1))}
	w.start(0)
	w.start(1)
	time.Sleep(2 * time.Second)
	var clients []*client
	for _, native := range []bool{false, true, false, true} {
		c := &client{native: native, turn: make(chan struct{}, 1)}
		if native {
			tokens := w.node(0).native(t)
			c.access, c.refresh, c.since = tokens.AccessToken, tokens.RefreshToken, time.Now()
			q, err := w.node(0).issuer.Identify(t.Context(), tokens.AccessToken)
			require.NoError(t, err)
			c.session = q.SessionID
			w.recordTokens(c, tokens)
		} else {
			c.browser = *w.node(0).browse(t)
			q, err := w.node(0).issuer.Identify(t.Context(), c.browser.session)
			require.NoError(t, err)
			c.session = q.SessionID
			resp := httptest.NewRecorder().Result()
			w.record(resp, c.of(request("GET", "/", "")))
		}
		clients = append(clients, c)
	}
	leaver := clients[0]
	if s.native {
		leaver = clients[1]
	}
	w.faulty.Store(s.faults)
	w.slow.Store(int64(w.upTo(1500 * time.Millisecond)))
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	for i := range 4 { // two for the one who leaves, as two tabs
		c := clients[i]
		if i >= 2 && s.path == "/session/out" {
			c = leaver
		}
		loops.Go(func() {
			for ctx.Err() == nil {
				w.step(t, c, w.n(2))
				time.Sleep(w.upTo(700 * time.Millisecond))
			}
		})
	}
	if s.killing {
		loops.Go(func() {
			for range 3 {
				time.Sleep(w.upTo(4 * time.Second))
				w.kill(w.n(2))
			}
		})
	}
	time.Sleep(w.upTo(6 * time.Second))
	i := w.n(2)
	for tries := 0; answer == 0 && tries < 200; tries++ {
		if s.native { // such a client refreshes first
			w.step(t, leaver, i)
		}
		leaver.mu.Lock()
		req, expired := leaver.browser.request("POST", s.path), s.native && time.Since(leaver.since) > 2*time.Second
		if s.native {
			req = request("POST", s.path, "", bearer(leaver.access)...)
		}
		leaver.mu.Unlock()
		if resp := w.send(i, req); resp != nil && slices.Contains([]int{200, 204, 401, 404}, resp.StatusCode) {
			if answer = resp.StatusCode; answer == 401 && expired && s.path != "/session/out" {
				answer = 0 // it is told to refresh
			} else if s.killing {
				w.kill(i) // what it has said must be true without it
			}
		}
		if s.other {
			i = 1 - i
		}
		time.Sleep(w.upTo(600 * time.Millisecond))
	}
	time.Sleep(w.upTo(3 * time.Second))
	w.faulty.Store(false)
	time.Sleep(10 * time.Second)
	cancel()
	loops.Wait()
	w.slow.Store(0)
	w.mu.Lock()
	out := slices.Clone(w.out)
	w.mu.Unlock()
	mine := false // what the one who signed out the others has still works
	for _, o := range slices.Backward(out) {
		dead := answer != 0
		switch s.path {
		case "/session/out":
			dead = dead && o.session == leaver.session
		case "/session/others":
			dead = dead && o.session != leaver.session
		}
		for i := range 2 {
			status := w.node(i).status(o.present())
			mine = mine || o.session == leaver.session && status == o.good
			if status == o.good && dead {
				alive = append(alive, fmt.Sprintf("%s at %d after %d", o.what, i, answer))
			} else if status == 503 || status == 500 {
				alive = append(alive, fmt.Sprintf("%s at %d: %d", o.what, i, status))
			}
		}
	}
	if s.path == "/session/others" && answer == 200 && !mine {
		alive = append(alive, "the session that was to stay is over")
	}
	for i := range 2 {
		w.node(i).stop()
	}
	time.Sleep(time.Minute)
	return answer, alive
}

// Two replicas whose stores fail 30 % of their calls, clients that hang up,
// replicas that are killed, and users who repeat their sign-out until it is
// answered: once it is, nothing that was handed out works anywhere.
func TestSignOutModel(t *testing.T) {
	seeds, least, every := 1, 10, 2
	if os.Getenv("SESSIONTOKEN_LONG") != "" {
		seeds, least, every = 2, 50, 1
	}
	if os.Getenv("SESSIONTOKEN_FULL") == "1" {
		seeds, least, every = 40, 50, 1
	}
	answers := map[int]int{}
	for seed := range seeds {
		for i, path := range []string{"/session/out", "/session/everywhere", "/session/others"} {
			for bits := i % every; bits < 10; bits += every {
				s := schedule{
					seed: uint64(seed*100 + bits), path: path,
					native: bits&1 != 0, other: bits&2 != 0, faults: bits < 8, killing: bits&4 != 0,
				}
				bubble(t, func(t *testing.T) {
					answer, alive := s.run(t)
					if len(alive) > 0 {
						t.Errorf("%+v: %s", s, strings.Join(alive, "; "))
					}
					answers[answer]++
				})
			}
		}
	}
	t.Logf("answers, 0 if there was none: %v", answers)
	require.Greater(t, answers[200], least)
}

// revocations is a node's way to the store of revocations.
type revocations struct {
	w *world
	n *node
}

func (s revocations) Append(ctx context.Context, entries ...revoke.Entry) error {
	return s.w.call(ctx, s.n, func(ctx context.Context) error { return s.w.revoked.Append(ctx, entries...) })
}

func (s revocations) Since(ctx context.Context, cursor string) (p revoke.Page, err error) {
	err = s.w.call(ctx, s.n, func(ctx context.Context) (err error) {
		p, err = s.w.revoked.Since(ctx, cursor)
		return err
	})
	return p, err
}

func (revocations) Wait(context.Context, string) error { return errors.ErrUnsupported }

// families is a node's way to the store of refresh tokens.
type families struct {
	w *world
	n *node
}

func (s families) Create(ctx context.Context, r refresh.Record) error {
	return s.w.call(ctx, s.n, func(ctx context.Context) error { return s.w.families.Create(ctx, r) })
}

func (s families) Find(ctx context.Context, namespace, id string) (r refresh.Record, err error) {
	err = s.w.call(ctx, s.n, func(ctx context.Context) (err error) {
		r, err = s.w.families.Find(ctx, namespace, id)
		return err
	})
	return r, err
}

func (s families) Swap(ctx context.Context, r refresh.Record) error {
	return s.w.call(ctx, s.n, func(ctx context.Context) error { return s.w.families.Swap(ctx, r) })
}

func (s families) Delete(ctx context.Context, namespace, id string) error {
	return s.w.call(ctx, s.n, func(ctx context.Context) error { return s.w.families.Delete(ctx, namespace, id) })
}

func (s families) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	return s.w.call(ctx, s.n, func(ctx context.Context) error { return s.w.families.DeleteSession(ctx, namespace, sessionID) })
}

func (s families) DeleteSubject(ctx context.Context, namespace, subject, except string) error {
	return s.w.call(ctx, s.n, func(ctx context.Context) error { return s.w.families.DeleteSubject(ctx, namespace, subject, except) })
}

func (s families) List(ctx context.Context, namespace, subject string) (rs []refresh.Record, err error) {
	err = s.w.call(ctx, s.n, func(ctx context.Context) (err error) {
		rs, err = s.w.families.List(ctx, namespace, subject)
		return err
	})
	return rs, err
}
