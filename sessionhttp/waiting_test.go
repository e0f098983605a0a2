package sessionhttp_test

import (
	"context"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// hanging is a Load that hangs until it is released, and counts.
type hanging struct {
	heeds   bool // its context
	release chan struct{}
	calls   atomic.Int64
	now     atomic.Int64 // under way
}

func (h *hanging) load(ctx context.Context, _ *sessiontoken.Claims[state]) (state, error) {
	h.calls.Add(1)
	h.now.Add(1)
	defer h.now.Add(-1)
	if h.heeds {
		select {
		case <-h.release:
		case <-ctx.Done():
			return state{}, ctx.Err()
		}
	} else {
		<-h.release
	}
	return state{Name: "Ada"}, nil
}

// eachHanging runs a test with a Load that heeds its context, and one that does
// not.
func eachHanging(t *testing.T, f func(t *testing.T, s *site, r *replica, h *hanging)) {
	for _, heeds := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			h := &hanging{heeds: heeds, release: make(chan struct{})}
			r := s.month(func(p *parts) {
				before := p.http
				p.http = func(c *sessionhttp.Config[state]) { before(c); c.Load = h.load }
			})
			f(t, s, r, h)
			select {
			case <-h.release:
			default:
				close(h.release)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
		})
	}
}

func timed(f func() *http.Response) (resp *http.Response, took time.Duration) {
	began := time.Now()
	resp = f()
	return resp, time.Since(began)
}

// A request whose token is still good does not wait for a Load that hangs.
func TestLoadHangsWithAGoodToken(t *testing.T) {
	eachHanging(t, func(t *testing.T, s *site, r *replica, h *hanging) {
		cookie := r.signInCookie(t)
		time.Sleep(3 * time.Minute)
		for range 5 {
			resp, took := timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
			require.Equal(t, 200, resp.StatusCode)
			require.LessOrEqual(t, took, 200*time.Millisecond)
			require.Empty(t, resp.Cookies())
		}
		require.EqualValues(t, 1, h.calls.Load(), "one for all of them")
		close(h.release)
		synctest.Wait()
		resp, took := timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
		require.Len(t, resp.Cookies(), 1, "the next request takes the result")
		require.Zero(t, took)
	})
}

// One whose token has expired waits for 2 s, keeps its cookie and tries again; and
// after a failure not at all, until a pause has passed that grows.
func TestLoadHangsWithAnExpiredToken(t *testing.T) {
	eachHanging(t, func(t *testing.T, s *site, r *replica, h *hanging) {
		cookie := r.signInCookie(t)
		time.Sleep(6 * time.Minute)
		resp, took := timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
		require.Equal(t, 503, resp.StatusCode)
		require.Equal(t, 2*time.Second, took)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
		require.Empty(t, resp.Cookies(), "kept")

		time.Sleep(3*time.Second + 100*time.Millisecond) // the run has failed now
		resp, took = timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
		require.Equal(t, 503, resp.StatusCode)
		require.Zero(t, took, "at once in the pause")
		require.EqualValues(t, 1, h.calls.Load())

		for range 600 { // a minute of impatience
			r.do(request("GET", "/who", cookie))
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, h.calls.Load(), int64(20))
		require.LessOrEqual(t, h.now.Load(), int64(4), "three that were abandoned, and one under way")
		close(h.release)
		time.Sleep(15 * time.Second)
		resp = r.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode)
		require.Len(t, resp.Cookies(), 1)
	})
}

// Runs that never return do not stop the next ones, and do not pile up.
func TestLoadNeverReturns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		h := &hanging{release: make(chan struct{})}
		var healthy atomic.Bool
		defer func() { close(h.release); time.Sleep(time.Minute) }()
		r := s.replica(func(c *sessionhttp.Config[state]) {
			c.Load = func(ctx context.Context, old *sessiontoken.Claims[state]) (state, error) {
				if healthy.Load() {
					return state{Name: "Ada"}, nil
				}
				return h.load(ctx, old)
			}
		})
		var cookies []string
		for range 600 {
			cookies = append(cookies, r.signIn(t))
		}
		time.Sleep(6 * time.Minute)
		most := int64(0)
		for range 5 {
			var wg sync.WaitGroup
			for _, cookie := range cookies {
				wg.Go(func() {
					resp, took := timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
					if resp.StatusCode != 503 || took > 2*time.Second {
						t.Errorf("%d after %v", resp.StatusCode, took)
					}
				})
			}
			wg.Wait()
			most = max(most, h.now.Load())
			time.Sleep(10 * time.Second)
		}
		require.LessOrEqual(t, most, int64(510), "what hangs is bounded")
		require.LessOrEqual(t, r.Metrics()["sessionhttp_renewals_hung"], 510.0)
		healthy.Store(true)
		ok := 0
		for i := range 40 {
			time.Sleep(3 * time.Second)
			if r.status(request("GET", "/who", cookies[599-i])) == 200 {
				ok++
			}
		}
		require.GreaterOrEqual(t, ok, 35, "those that hang do not stop the others")
	})
}

// Two requests 300 ms apart in the second half of a token's life are enough to
// renew it, though Load takes 300 ms.
func TestRenewedBeforeItExpires(t *testing.T) {
	for after := 150 * time.Second; after < 299*time.Second; after += 7 * time.Second {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			r := s.replica()
			cookie := r.signIn(t)
			s.slow.Store(int64(300 * time.Millisecond))
			time.Sleep(after)
			resp, took := timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
			require.Equal(t, 200, resp.StatusCode)
			require.LessOrEqual(t, took, 200*time.Millisecond)
			require.Empty(t, resp.Cookies())
			time.Sleep(300*time.Millisecond - took)
			resp, took = timed(func() *http.Response { return r.do(request("GET", "/who", cookie)) })
			require.Len(t, resp.Cookies(), 1)
			require.LessOrEqual(t, took, 200*time.Millisecond)
			require.EqualValues(t, 1, s.loads.Load())
		})
	}
}

// What a renewal brought answers late requests with the old cookie until the old
// token expires: one Load for all of them.
func TestRenewalIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		time.Sleep(151 * time.Second)
		first := cookieOf(t, r.do(request("GET", "/who", cookie)))
		for range 14 {
			time.Sleep(10 * time.Second)
			require.Equal(t, first, cookieOf(t, r.do(request("GET", "/who", cookie))))
		}
		require.EqualValues(t, 1, s.loads.Load())
	})
}

// Tokens of one moment are not all due at one moment.
func TestRenewalsAreSpread(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		var cookies []string
		for range 200 {
			cookies = append(cookies, r.signIn(t))
		}
		time.Sleep(110 * time.Second)
		most, last := int64(0), int64(0)
		for range 45 {
			time.Sleep(time.Second)
			for i, cookie := range cookies {
				if resp := r.do(request("GET", "/who", cookie)); len(resp.Cookies()) > 0 {
					cookies[i] = resp.Cookies()[0].Value
				}
			}
			most, last = max(most, s.loads.Load()-last), s.loads.Load()
		}
		require.EqualValues(t, 200, s.loads.Load(), "all of them before half of their life is over")
		require.Less(t, most, int64(30))
	})
}

// Refresh and sign-in give up after 5 s, and nothing is used up.
func TestRefreshHangs(t *testing.T) {
	eachHanging(t, func(t *testing.T, s *site, r *replica, h *hanging) {
		b, tokens := r.browse(t), r.native(t)
		resp, took := timed(func() *http.Response { return r.send(b, "POST", "/session/refresh") })
		require.Equal(t, 503, resp.StatusCode)
		require.LessOrEqual(t, took, 5*time.Second)
		resp, took = timed(func() *http.Response { return r.do(refreshRequest(grant(tokens.RefreshToken))) })
		require.Equal(t, 503, resp.StatusCode)
		require.LessOrEqual(t, took, 5*time.Second)
		require.Equal(t, "1", resp.Header.Get("Retry-After"))
		close(h.release)
		time.Sleep(time.Minute)
		require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
		require.Equal(t, 200, r.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// Renew renews now, with what Load returns after the call.
func TestRenewNow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		resp := r.do(request("POST", "/renew", cookie))
		require.Equal(t, 200, resp.StatusCode)
		renewed := cookieOf(t, resp)
		require.NotEqual(t, cookie, renewed)
		require.EqualValues(t, 1, s.loads.Load())
		resp = r.do(request("POST", "/renew", cookie))
		require.NotEqual(t, renewed, cookieOf(t, resp), "not what is remembered")
		require.EqualValues(t, 2, s.loads.Load())

		// A renewal that was under way has asked Load too early.
		cookie = r.signIn(t)
		s.slow.Store(int64(time.Second))
		time.Sleep(3 * time.Minute)
		go r.do(request("GET", "/who", cookie))
		time.Sleep(100 * time.Millisecond)
		last := r.do(request("POST", "/renew", cookie))
		require.Equal(t, 200, last.StatusCode)
		require.EqualValues(t, 4, s.loads.Load())
		require.Equal(t, cookieOf(t, last), cookieOf(t, r.do(request("GET", "/who", cookie))), "it is what is remembered now")

		require.Equal(t, 401, r.status(request("POST", "/renew", "")))
		require.Equal(t, 401, r.status(request("POST", "/renew", "", bearer(cookie)...)))
		require.Equal(t, 401, r.status(request("POST", "/renew", r.native(t).AccessToken)))
		require.Equal(t, 403, r.status(request("POST", "/renew", cookie, "Sec-Fetch-Site", "cross-site")))
		s.fail(sessionhttp.ErrSessionOver)
		time.Sleep(15 * time.Second)
		require.Equal(t, 401, r.status(request("POST", "/renew", cookie)))
		require.Equal(t, 401, r.status(request("GET", "/who", cookie)))
	})
}

// hungFamilies is a store of refresh tokens that hangs, and ignores its context.
type hungFamilies struct {
	refresh.Store
	hang atomic.Pointer[chan struct{}]
}

func (h *hungFamilies) wait() {
	if c := h.hang.Load(); c != nil {
		<-*c
	}
}

func (h *hungFamilies) Create(ctx context.Context, r refresh.Record) error {
	h.wait()
	return h.Store.Create(ctx, r)
}

func (h *hungFamilies) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	h.wait()
	return h.Store.Find(ctx, namespace, id)
}

func (h *hungFamilies) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	h.wait()
	return h.Store.DeleteSession(ctx, namespace, sessionID)
}

// A store of refresh tokens that hangs holds no request up for more than 5 s. A
// sign-out does not need it: the entry in the list is the fact.
func TestRefreshStoreHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		store := &hungFamilies{Store: &s.families}
		r := s.month(func(p *parts) { p.manager.Store = store })
		b, tokens := r.browse(t), r.native(t)
		release := make(chan struct{})
		defer func() { store.hang.Store(nil); time.Sleep(time.Minute) }()
		defer close(release)
		store.hang.Store(&release)
		for _, req := range []*http.Request{
			b.request("POST", "/session/refresh"), refreshRequest(grant(tokens.RefreshToken)), request("POST", "/in", ""), request("POST", "/native", ""),
			formRequest("/revoke", url.Values{"token": {tokens.RefreshToken}, "client_id": {"app"}}), b.request("POST", "/session/out"),
		} {
			resp, took := timed(func() *http.Response { return r.do(req) })
			require.Equal(t, 503, resp.StatusCode, req.URL.Path)
			require.LessOrEqual(t, took, 5*time.Second, req.URL.Path)
		}
		require.Equal(t, 401, r.status(b.request("GET", "/who")), "the session cookie's session was revoked all the same")
		resp, took := timed(func() *http.Response { return r.do(request("POST", "/out", "", bearer(tokens.AccessToken)...)) })
		require.Equal(t, 200, resp.StatusCode)
		require.LessOrEqual(t, took, time.Second)
		store.hang.Store(nil)
		require.Equal(t, 400, r.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// A Load that hangs, however often, keeps no browser from signing out with its
// refresh cookie, nor from signing in again.
func TestBrowserSignOutDespiteHungLoads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		h := &hanging{release: make(chan struct{})}
		defer func() { close(h.release); time.Sleep(time.Minute) }()
		r := s.month(func(p *parts) {
			before := p.http
			p.http = func(c *sessionhttp.Config[state]) { before(c); c.Load = h.load }
		})
		mine, other := r.browse(t), r.browse(t)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() { r.do(other.request("POST", "/session/refresh")) })
		}
		wg.Wait()
		mine.session = ""
		require.Equal(t, 200, r.send(mine, "POST", "/session/out").StatusCode)
		require.Equal(t, 200, r.send(mine, "POST", "/session/in").StatusCode)
	})
}

// panicking is a store of refresh tokens whose List panics.
type panicking struct{ refresh.Store }

func (panicking) List(context.Context, string, string) ([]refresh.Record, error) {
	panic("a fault of the store")
}

// A store that panics while a sign-in counts the user's devices does no more
// harm than one that fails.
func TestStorePanicsAtSignIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.month(func(p *parts) { p.manager.Store = panicking{&s.families} })
		b := r.browse(t)
		require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
	})
}

// Calls of Load and of the store of refresh tokens that never return, however
// many, do not keep a user from signing out: that needs neither.
func TestSignOutDespiteEverythingThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		store := &hungFamilies{Store: &s.families}
		r := s.month(func(p *parts) { p.manager.Store = store })
		mine := r.native(t)
		other := r.browse(t)
		release := make(chan struct{})
		defer func() { store.hang.Store(nil); time.Sleep(time.Minute) }()
		defer close(release)
		store.hang.Store(&release)
		for range 2 {
			var wg sync.WaitGroup
			for range 600 {
				wg.Go(func() { r.do(other.request("POST", "/session/refresh")) })
			}
			wg.Wait()
		}
		require.Equal(t, 200, r.status(request("POST", "/out", "", bearer(mine.AccessToken)...)))
		require.Equal(t, 401, r.status(request("GET", "/who", "", bearer(mine.AccessToken)...)))
		for range 1100 { // each of which leaves a deletion that hangs
			cookie, _, err := r.issuer.Issue(t.Context(), "bob", state{})
			require.NoError(t, err)
			require.Equal(t, 200, r.status(request("POST", "/out", cookie)))
		}
	})
}

// Users whose state cannot be loaded in time, those of one tenant's database
// say, keep no others from being renewed.
func TestSlowTenantHarmsItselfAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) {
			c.Load = func(ctx context.Context, old *sessiontoken.Claims[state]) (state, error) {
				if old.Subject == "slow" {
					<-ctx.Done()
					return state{}, ctx.Err()
				}
				return state{Name: "Ada"}, nil
			}
		})
		var slow, good []string
		for range 50 {
			a, _, err := r.issuer.Issue(t.Context(), "slow", state{})
			require.NoError(t, err)
			slow = append(slow, a)
		}
		for range 200 {
			b, _, err := r.issuer.Issue(t.Context(), "good", state{})
			require.NoError(t, err)
			good = append(good, b)
		}
		time.Sleep(6 * time.Minute)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for _, c := range slow {
			wg.Go(func() {
				for !stop.Load() {
					r.status(request("GET", "/who", c))
					time.Sleep(time.Second)
				}
			})
		}
		ok := 0
		for _, c := range good {
			if r.status(request("GET", "/who", c)) == 200 {
				ok++
			}
			time.Sleep(500 * time.Millisecond)
		}
		stop.Store(true)
		wg.Wait()
		require.GreaterOrEqual(t, ok, 195)
		time.Sleep(time.Minute)
	})
}
