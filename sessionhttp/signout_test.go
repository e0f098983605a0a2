package sessionhttp_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A request that began before the sign-out and ends after it may set the cookie
// again: the session is over all the same, on every replica.
func TestSignOutWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.replica(), s.replica()
		cookie := r.signIn(t)
		time.Sleep(6 * time.Minute)
		for _, load := range []time.Duration{2 * time.Second, 0} {
			s.slow.Store(int64(load))
			done := make(chan *http.Response, 1)
			go func() { done <- other.do(request("GET", "/who", cookie)) }()
			time.Sleep(time.Second)
			if load != 0 {
				require.Equal(t, 200, r.do(request("POST", "/out", cookie)).StatusCode)
			}
			resp := <-done
			if resp.StatusCode == 200 { // it had not heard of it
				time.Sleep(31 * time.Second) // without Run: MaxStale
				cookie = cookieOf(t, resp)
			}
		}
		for _, r := range []*replica{r, other} {
			resp := r.do(request("GET", "/who", cookie))
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, `Bearer error="invalid_token", error_description="revoked"`, resp.Header.Get("WWW-Authenticate"))
		}
	})
}

func TestSignOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		expired := r.signIn(t)
		time.Sleep(10 * time.Minute)
		require.Equal(t, 200, r.do(request("POST", "/out", expired)).StatusCode)
		require.Equal(t, 401, r.do(request("GET", "/who", expired)).StatusCode, "it could have been renewed")
		require.Zero(t, s.loads.Load())

		require.Equal(t, 200, r.do(request("POST", "/out", "")).StatusCode, "no session is no error")
		require.Equal(t, 200, r.do(request("POST", "/out", "garbage")).StatusCode)
		a, b := r.signIn(t), r.signIn(t)
		require.Equal(t, 200, r.do(request("POST", "/out", "", "Authorization", "Bearer "+a)).StatusCode)
		require.Equal(t, 401, r.do(request("GET", "/who", a)).StatusCode)
		require.Equal(t, 200, r.do(request("GET", "/who", b)).StatusCode, "another session")

		c := r.signIn(t)
		time.Sleep(time.Second)
		require.Equal(t, 200, r.do(request("POST", "/everywhere", b)).StatusCode)
		for _, cookie := range []string{b, c} {
			require.Equal(t, 401, r.do(request("GET", "/who", cookie)).StatusCode)
		}
		require.Equal(t, 401, r.do(request("POST", "/everywhere", "")).StatusCode)
		time.Sleep(time.Second)
		require.Equal(t, 200, r.do(request("GET", "/who", r.signIn(t))).StatusCode, "and in again")
	})
}
