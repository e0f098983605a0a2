package sessionhttp_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/stretchr/testify/require"
)

func TestRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		resp := r.do(request("GET", "/who?public", cookie))
		first := body(t, resp)
		require.Empty(t, resp.Header["Set-Cookie"])
		require.Equal(t, "Cookie, Authorization", resp.Header.Get("Vary"))
		require.Equal(t, "public, max-age=600", held(resp, "Cache-Control"), "the handler's own business")

		time.Sleep(2*time.Minute + 31*time.Second) // past half of its life
		resp = r.do(request("GET", "/who", cookie))
		renewed := cookieOf(t, resp)
		require.NotEqual(t, cookie, renewed)
		require.Equal(t, strings.TrimSuffix(first, "0")+"1", body(t, resp), "the same session, with the state of now")

		time.Sleep(59 * time.Minute) // long expired, and still within IdleTimeout
		resp = r.do(request("POST", "/who", renewed))
		require.Equal(t, 200, resp.StatusCode)
		renewed = cookieOf(t, resp)
		require.EqualValues(t, 2, s.loads.Load())

		time.Sleep(time.Hour)
		resp = r.do(request("GET", "/who", renewed))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, `Bearer error="invalid_token", error_description="expired"`, resp.Header.Get("WWW-Authenticate"))
		require.Empty(t, resp.Cookies(), "the answer may be late, and the cookie that of a new sign-in")
		time.Sleep(24 * time.Hour)
		resp = r.do(request("GET", "/who", renewed))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, -1, resp.Cookies()[0].MaxAge, "removed in the end")
	})
}

// 50 requests at once with a cookie that has expired: each is answered, and the
// state is loaded once for each replica.
func TestParallelRenewal(t *testing.T) {
	s := newSite(t)
	var replicas []*replica
	bubble(t, func(t *testing.T) {
		replicas = []*replica{s.replica(), s.replica()}
		cookie := replicas[0].signIn(t)
		time.Sleep(6 * time.Minute)
		s.slow.Store(int64(100 * time.Millisecond))
		var mu sync.Mutex
		sessions, tokens := map[string]bool{}, map[string]bool{}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond) // some come after the renewal
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i == 0 { // the first one gives up, and fails no other
					go func() { time.Sleep(10 * time.Millisecond); cancel() }()
				}
				resp := replicas[i%2].do(request("GET", "/who", cookie).WithContext(ctx))
				if i == 0 {
					return
				}
				if resp.StatusCode != 200 {
					t.Errorf("request %d: %d", i, resp.StatusCode)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				tokens[cookieOf(t, resp)] = true
				sessions[strings.Fields(body(t, resp))[1]] = true
			})
		}
		wg.Wait()
		require.EqualValues(t, 2, s.loads.Load(), "once for each replica")
		require.Len(t, tokens, 2)
		require.Len(t, sessions, 1, "one session")
	})
}

// What is remembered of a renewal is used only while it is good: a request that
// comes late with the old cookie is renewed again.
func TestLateRequestAfterRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) {
			issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
				Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source, TTL: 3 * time.Second, Revocations: c.Revocations,
			})
			require.NoError(t, err)
			c.Issuer = issuer
		})
		cookie := r.signIn(t)
		time.Sleep(3 * time.Second)
		for range 20 {
			resp := r.do(request("GET", "/who", cookie))
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, 200, r.do(request("GET", "/who", cookieOf(t, resp))).StatusCode)
			time.Sleep(time.Second + 100*time.Millisecond)
		}
	})
}

func TestLoadFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		s.fail(errDown)
		time.Sleep(4 * time.Minute)
		resp := r.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode, "it is still valid")
		require.ErrorIs(t, r.refused[0], errDown, "and the caller is told")
		require.Empty(t, resp.Header["Set-Cookie"])

		time.Sleep(2 * time.Minute)
		for range 3 {
			resp = r.do(request("GET", "/who", cookie))
			require.Equal(t, 503, resp.StatusCode)
			require.Empty(t, resp.Header["Set-Cookie"], "the session is kept")
		}
		s.fail(nil)
		time.Sleep(2 * time.Second)
		resp = r.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode, "after a pause of a second or so")
		renewed := cookieOf(t, resp)

		s.fail(fmt.Errorf("blocked: %w", sessionhttp.ErrSessionOver))
		time.Sleep(4 * time.Minute)
		resp = r.do(request("GET", "/who", renewed))
		require.Equal(t, 401, resp.StatusCode, "over, although the token is valid")
		s.fail(nil)
		require.Equal(t, 401, r.do(request("GET", "/who", "", "Authorization", "Bearer "+renewed)).StatusCode, "and ended for good")
	})
}

func TestLoadPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) {
			c.Load = func(context.Context, *sessiontoken.Claims[state]) (state, error) { panic("secret") }
		})
		cookie := r.signIn(t)
		time.Sleep(6 * time.Minute)
		require.Equal(t, 503, r.do(request("GET", "/who", cookie)).StatusCode)
		require.NotContains(t, r.lastRefusal().Error(), "secret")
	})
}

// A token that another replica renewed before it heard of "sign out everywhere" is
// refused once it has: what counts is when the session began.
func TestRenewedDuringTheDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.replica(), s.replica()
		cookie := r.signIn(t)
		time.Sleep(4 * time.Minute)
		require.Equal(t, 401, other.do(request("GET", "/who", "")).StatusCode)
		require.Equal(t, 200, other.do(request("GET", "/who", cookie)).StatusCode, "it has read the list just now")
		require.Equal(t, 200, r.do(request("POST", "/everywhere", cookie)).StatusCode)
		time.Sleep(time.Second)
		resp := other.do(request("GET", "/who", cookie))
		require.Equal(t, 200, resp.StatusCode, "it has not heard of it")
		renewed := cookieOf(t, resp)
		time.Sleep(31 * time.Second)
		for _, replica := range []*replica{r, other} {
			require.Equal(t, 401, replica.do(request("GET", "/who", renewed)).StatusCode)
		}
	})
}

// What Load fails with is no verdict about the session: it may be that of another
// token that Load has verified.
func TestLoadErrorIsNoVerdict(t *testing.T) {
	for _, err := range []error{sessiontoken.ErrExpired, sessiontoken.ErrRevoked, sessionhttp.ErrNoSession, sessionhttp.ErrBadRequest, sessionhttp.ErrCrossOrigin, refresh.ErrReused, context.Canceled} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			r := s.month()
			b, tokens := r.browse(t), r.native(t)
			s.fail(fmt.Errorf("upstream: %w", err))
			time.Sleep(3 * time.Minute)
			require.Equal(t, 200, r.send(b, "GET", "/who").StatusCode, err)
			time.Sleep(3 * time.Minute)
			require.Equal(t, 503, r.send(b, "GET", "/who").StatusCode, err)
			require.Equal(t, 503, r.send(b, "GET", "/maybe").StatusCode, err)
			require.Equal(t, 503, r.send(b, "POST", "/session/refresh").StatusCode, err)
			require.Equal(t, 503, r.status(refreshRequest(grant(tokens.RefreshToken))), err)
			s.fail(nil)
			time.Sleep(10 * time.Second)
			require.Equal(t, 200, r.send(b, "GET", "/who").StatusCode)
		})
	}
}
