package sessionhttp_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// shop is a replica whose Load returns what the token owns, the name, and the
// number of the call. POST /add?item= adds to the name.
func (s *site) shop(change ...func(*parts)) *replica {
	s.t.Helper()
	r := s.with(func(p *parts) {
		for _, f := range change {
			f(p)
		}
		before := p.http
		p.http = func(c *sessionhttp.Config[state]) {
			if before != nil {
				before(c)
			}
			c.Load = func(ctx context.Context, old *sessiontoken.Claims[state]) (state, error) {
				now, err := s.load(ctx, old)
				now.Name = old.State.Name
				return now, err
			}
		}
	})
	r.mux.HandleFunc("/add", func(w http.ResponseWriter, req *http.Request) {
		c, err := r.Update(w, req, func(st *state) error {
			st.Name += req.URL.Query().Get("item")
			return nil
		})
		if err != nil {
			r.Refuse(w, req, err)
			return
		}
		_, _ = fmt.Fprint(w, c.State.Name)
	})
	r.mux.Handle("/name", r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := r.FromContext(req.Context())
		_, _ = fmt.Fprint(w, c.State.Name)
	})))
	return r
}

func (r *replica) name(t testing.TB, cookie string) string {
	t.Helper()
	resp := r.do(request("GET", "/name", cookie))
	require.Equal(t, 200, resp.StatusCode)
	return body(t, resp)
}

// f gets what Load has just returned, and what it makes of that is in the answer's
// cookie, of the same session.
func TestUpdate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.shop()
		cookie := r.signIn(t)
		before, err := r.issuer.Identify(t.Context(), cookie)
		require.NoError(t, err)
		time.Sleep(time.Second)
		resp := r.do(request("POST", "/add?item=+shoes", cookie))
		require.Equal(t, "Ada shoes", body(t, resp))
		updated := cookieOf(t, resp)
		after, err := r.issuer.Identify(t.Context(), updated)
		require.NoError(t, err)
		require.Equal(t, before.SessionID, after.SessionID)
		require.Equal(t, "Ada shoes", r.name(t, updated))
		require.EqualValues(t, 1, s.loads.Load(), "one Load, and its Rev")
		require.True(t, strings.HasSuffix(body(t, r.do(request("GET", "/who", updated))), " 1"))

		for range 3 { // and in what follows
			time.Sleep(6 * time.Minute)
			resp = r.do(request("GET", "/name", updated))
			require.Equal(t, "Ada shoes", body(t, resp))
			updated = cookieOf(t, resp)
		}
		resp = r.do(request("POST", "/add?item=+hat", updated))
		require.Equal(t, "Ada shoes hat", body(t, resp))
	})
}

// An error of f is the caller's, and changes nothing: no cookie, no pause, no
// failure that is counted.
func TestUpdateFails(t *testing.T) {
	errFull := errors.New("the basket is full")
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.shop()
		var got error
		r.mux.HandleFunc("/full", func(w http.ResponseWriter, req *http.Request) {
			_, got = r.Update(w, req, func(st *state) error { st.Name = "changed"; return errFull })
		})
		r.mux.HandleFunc("/panic", func(w http.ResponseWriter, req *http.Request) {
			_, _ = r.Update(w, req, func(*state) error { panic("of the handler") })
		})
		r.mux.HandleFunc("/large", func(w http.ResponseWriter, req *http.Request) {
			_, got = r.Update(w, req, func(st *state) error { st.Name = strings.Repeat("x", 5000); return nil })
			r.Refuse(w, req, got)
		})
		r.mux.HandleFunc("/none", func(w http.ResponseWriter, req *http.Request) { _, got = r.Update(w, req, nil) })
		cookie := r.signIn(t)
		time.Sleep(3 * time.Minute)
		for range 3 {
			resp := r.do(request("POST", "/full", cookie))
			require.Equal(t, errFull, got)
			require.Empty(t, resp.Header, "nothing was written")
		}
		require.PanicsWithValue(t, "of the handler", func() { r.do(request("POST", "/panic", cookie)) })
		synctest.Wait()
		require.Zero(t, r.Metrics()["sessionhttp_renewals_running"])
		require.Zero(t, r.Metrics()["sessionhttp_renewal_failures_total"])
		resp := r.do(request("POST", "/large", cookie))
		var size *sessiontoken.SizeError
		require.True(t, errors.As(got, &size) || strings.Contains(got.Error(), "4096"))
		require.Equal(t, 500, resp.StatusCode)
		require.Empty(t, resp.Cookies())
		r.do(request("POST", "/none", cookie))
		require.Error(t, got)
		require.Equal(t, "Ada", r.name(t, cookie))
		resp = r.do(request("POST", "/add?item=!", cookie))
		require.Equal(t, "Ada!", body(t, resp), "at once")
	})
}

// What cannot be updated.
func TestUpdateNeedsACookieOfOurOwnPage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.shop()
		api := s.replica(func(c *sessionhttp.Config[state]) { c.Issuer, c.Load, c.Revocations, c.Refresh = nil, nil, nil, nil })
		cookie, native := r.signIn(t), r.native(t).AccessToken
		plain := request("POST", "/add?item=x", cookie)
		plain.TLS = nil
		for _, tt := range []struct {
			name string
			req  *http.Request
			want int
		}{
			{"no cookie", request("POST", "/add?item=x", ""), 401},
			{"a Bearer token", request("POST", "/add?item=x", "", bearer(cookie)...), 401},
			{"both", request("POST", "/add?item=x", cookie, bearer(cookie)...), 401},
			{"a native client's token as a cookie", request("POST", "/add?item=x", native), 401},
			{"garbage", request("POST", "/add?item=x", "garbage"), 401},
			{"another site's form", request("POST", "/add?item=x", cookie, "Sec-Fetch-Site", "cross-site"), 403},
			{"a neighbour's link", request("GET", "/add?item=x", cookie, "Sec-Fetch-Site", "same-site"), 403},
			{"a link in an old browser", request("GET", "/add?item=x", cookie), 403},
			{"plain http", plain, 403},
		} {
			resp := r.do(tt.req)
			require.Equal(t, tt.want, resp.StatusCode, tt.name)
			require.Empty(t, resp.Cookies(), tt.name)
		}
		require.Zero(t, s.loads.Load(), "nothing was loaded for them")
		require.Equal(t, 200, r.status(request("GET", "/add?item=x", cookie, "Sec-Fetch-Site", "same-origin")))
		_, err := api.Update(nil, request("POST", "/", cookie), func(*state) error { return nil })
		require.Error(t, err)

		s.fail(sessionhttp.ErrSessionOver)
		require.Equal(t, 401, r.status(request("POST", "/add?item=x", cookie)))
		s.fail(nil)
		require.Equal(t, 401, r.status(request("GET", "/who", cookie)), "and it is revoked")
	})
}

// A hundred updates at once, with one old cookie, and renewals and reads among
// them: none is lost, and what is handed out last has all of them.
func TestUpdatesAtOnce(t *testing.T) {
	for _, age := range []time.Duration{0, 3 * time.Minute, 6 * time.Minute} { // fresh, due, expired
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			r := s.shop()
			cookie := r.signIn(t)
			time.Sleep(age)
			s.slow.Store(int64(10 * time.Millisecond))
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					time.Sleep(time.Duration(i%7) * 15 * time.Millisecond)
					if resp := r.do(request("POST", "/add?item=x", cookie)); resp.StatusCode != 200 {
						t.Errorf("update %d: %d", i, resp.StatusCode)
					}
				})
				wg.Go(func() {
					time.Sleep(time.Duration(i%13) * 11 * time.Millisecond)
					path := []string{"/name", "/renew"}[i%2]
					if resp := r.do(request("POST", path, cookie)); resp.StatusCode != 200 {
						t.Errorf("%s: %d", path, resp.StatusCode)
					}
				})
			}
			wg.Wait()
			resp := r.do(request("POST", "/renew", cookie))
			require.Equal(t, "Ada"+strings.Repeat("x", 100), r.name(t, cookieOf(t, resp)))
			if age > 0 {
				resp = r.do(request("GET", "/name", cookie))
				require.Equal(t, "Ada"+strings.Repeat("x", 100), body(t, resp), "a renewal on the way hands it out too")
			}
		})
	}
}

// A renewal that began before the update and ends after it does not undo it, and
// neither does one that begins while the update is under way.
func TestRenewalDoesNotUndoAnUpdate(t *testing.T) {
	for _, path := range []string{"/name", "/renew"} {
		for _, first := range []bool{true, false} {
			bubble(t, func(t *testing.T) {
				s := newSite(t)
				r := s.shop()
				cookie := r.signIn(t)
				time.Sleep(6 * time.Minute)
				s.slow.Store(int64(time.Second))
				renewed := make(chan *http.Response, 1)
				renewal := func() {
					go func() { renewed <- r.do(request("POST", path, cookie)) }()
					time.Sleep(300 * time.Millisecond)
				}
				updated := make(chan *http.Response, 1)
				if first {
					renewal()
				}
				go func() { updated <- r.do(request("POST", "/add?item=!", cookie)) }()
				time.Sleep(300 * time.Millisecond)
				if !first {
					renewal()
				}
				require.Equal(t, 200, (<-updated).StatusCode)
				require.Equal(t, 200, (<-renewed).StatusCode)
				resp := r.do(request("POST", "/name", cookie))
				require.Equal(t, "Ada!", body(t, resp))
				require.Equal(t, "Ada!", r.name(t, cookieOf(t, resp)))
			})
		}
	}
}

// An update whose f fails while a renewal waits for it does not fail that.
func TestRenewalWaitsForAFailingUpdate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.shop()
		r.mux.HandleFunc("/full", func(w http.ResponseWriter, req *http.Request) {
			_, _ = r.Update(w, req, func(*state) error { return errDown })
		})
		cookie := r.signIn(t)
		time.Sleep(6 * time.Minute)
		s.slow.Store(int64(500 * time.Millisecond))
		go r.do(request("POST", "/full", cookie))
		time.Sleep(100 * time.Millisecond)
		resp := r.do(request("GET", "/name", cookie))
		require.Equal(t, 200, resp.StatusCode)
		cookieOf(t, resp)
	})
}

// The handler's f is never called once Update has returned, whatever Load does; and
// Update returns in time.
func TestUpdateReturnsBeforeLoad(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			h := &hanging{heeds: heeds, release: make(chan struct{})}
			r := s.replica(func(c *sessionhttp.Config[state]) { c.Load = h.load })
			var calls atomic.Int64
			r.mux.HandleFunc("/hang", func(w http.ResponseWriter, req *http.Request) {
				_, err := r.Update(w, req, func(*state) error { calls.Add(1); return nil })
				r.Refuse(w, req, err)
			})
			cookie := r.signIn(t)
			resp, took := timed(func() *http.Response { return r.do(request("POST", "/hang", cookie)) })
			require.Equal(t, 503, resp.StatusCode)
			require.LessOrEqual(t, took, 5*time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, took = timed(func() *http.Response { return r.do(request("POST", "/hang", cookie).WithContext(ctx)) })
			require.Equal(t, time.Second, took, "the client went away")
			close(h.release)
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Zero(t, calls.Load())
			require.Zero(t, r.Metrics()["sessionhttp_renewals_hung"])
		})
	}
}

// At two replicas the later cookie wins: what holds there is that each update is in
// the cookie of its own answer.
func TestUpdatesAtTwoReplicas(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		a, b := s.shop(), s.shop()
		cookie := a.signIn(t)
		ra, rb := a.do(request("POST", "/add?item=+a", cookie)), b.do(request("POST", "/add?item=+b", cookie))
		ca, cb := cookieOf(t, ra), cookieOf(t, rb)
		require.Equal(t, "Ada a", b.name(t, ca))
		require.Equal(t, "Ada b", a.name(t, cb))
		// One after the other, with the cookie that each has given, all of them stay.
		for i, r := range []*replica{a, b, a, b} {
			cb = cookieOf(t, r.do(request("POST", fmt.Sprint("/add?item=", i), cb)))
		}
		require.Equal(t, "Ada b0123", a.name(t, cb))
	})
}

// A sign-out wins over an update that is under way.
func TestSignOutWinsOverUpdate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.shop()
		cookie := r.signIn(t)
		s.slow.Store(int64(2 * time.Second))
		done := make(chan *http.Response, 1)
		go func() { done <- r.do(request("POST", "/add?item=x", cookie)) }()
		time.Sleep(time.Second)
		require.Equal(t, 200, r.status(request("POST", "/out", cookie)))
		resp := <-done
		require.Equal(t, 401, resp.StatusCode)
		require.Empty(t, resp.Cookies())
	})
}
