package sessionhttp_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

func recorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// Check and Refuse answer as Require does, header by header, whatever comes.
func TestCheckIsRequire(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica(func(c *sessionhttp.Config[state]) { c.TrustedOrigins = []string{"https://app.example"} })
		good, other, out := r.signIn(t), r.signIn(t), r.signIn(t)
		native := r.native(t).AccessToken
		require.Equal(t, 200, r.status(request("POST", "/out", out)))
		time.Sleep(time.Second)
		requests := map[string]func() *http.Request{
			"nothing":          func() *http.Request { return request("GET", "/", "") },
			"a cookie":         func() *http.Request { return request("GET", "/", good) },
			"a Bearer token":   func() *http.Request { return request("POST", "/", "", bearer(native)...) },
			"a bad header":     func() *http.Request { return request("GET", "/", good, "Authorization", "Bearer  x") },
			"garbage":          func() *http.Request { return request("GET", "/", "garbage") },
			"two sessions":     func() *http.Request { return request("GET", "/", good+"; "+name+"="+other) },
			"signed out":       func() *http.Request { return request("GET", "/", out) },
			"a native cookie":  func() *http.Request { return request("GET", "/", native) },
			"another site":     func() *http.Request { return request("POST", "/", good, "Sec-Fetch-Site", "cross-site") },
			"a trusted origin": func() *http.Request { return request("POST", "/", good, "Origin", "https://app.example") },
			"a neighbour's socket": func() *http.Request {
				return request("GET", "/", good, "Upgrade", "websocket", "Connection", "Upgrade", "Origin", "https://evil.a.example")
			},
			"our own socket": func() *http.Request {
				return request("GET", "/", good, "Upgrade", "websocket", "Connection", "Upgrade", "Origin", "https://a.example")
			},
		}
		compare := func() (statuses map[int]bool) {
			statuses = map[int]bool{}
			for what, req := range requests {
				var required *sessiontoken.Claims[state]
				want := recorder()
				r.Require(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
					required, _ = r.FromContext(req.Context())
				})).ServeHTTP(want, req())
				got := recorder()
				c, err := r.Check(got, req())
				if err != nil {
					require.Nil(t, c, what)
					r.Refuse(got, req(), err)
				}
				require.Equal(t, want.Result().StatusCode, got.Result().StatusCode, what)
				require.Equal(t, want.Header(), got.Header(), what)
				require.Equal(t, want.Body.String(), got.Body.String(), what)
				require.Equal(t, required, c, what)
				statuses[got.Code] = true
			}
			return statuses
		}
		require.Equal(t, map[int]bool{200: true, 400: true, 401: true, 403: true}, compare())
		time.Sleep(4 * time.Minute) // due: the renewed cookie is set by both, from one Load
		loads := s.loads.Load()
		compare()
		got := recorder()
		_, err := r.Check(got, request("GET", "/", good))
		require.NoError(t, err)
		cookieOf(t, got.Result())
		require.Equal(t, loads+1, s.loads.Load())
		s.fail(errDown)
		time.Sleep(10 * time.Minute)
		_, err = r.Check(recorder(), request("GET", "/", good))
		require.ErrorIs(t, err, errDown)
		require.True(t, compare()[503])
		time.Sleep(26 * time.Hour) // dead: both remove it
		compare()
		got = recorder()
		_, err = r.Check(got, request("GET", "/", good))
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
		require.Equal(t, -1, got.Result().Cookies()[0].MaxAge)
	})
}

// What Check returns while a revocation is owed is no session.
func TestCheckWhileARevocationIsOwed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		s.revoked.down.Store(true)
		require.Equal(t, 503, r.status(request("POST", "/out", cookie)))
		_, err := r.Check(recorder(), request("GET", "/", cookie))
		require.ErrorIs(t, err, revoke.ErrOwed)
		require.False(t, errors.Is(err, sessiontoken.ErrInvalid))
		s.revoked.down.Store(false)
	})
}

// Middleware around nothing fails when it is mounted, as net/http's does.
func TestMiddlewareNeedsAHandler(t *testing.T) {
	r := newSite(t).replica()
	for _, next := range []http.Handler{nil, http.HandlerFunc(nil), (*http.ServeMux)(nil)} {
		require.Panics(t, func() { r.Require(next) })
		require.Panics(t, func() { r.Optional(next) })
		require.Panics(t, func() { r.RequireFresh(time.Minute, next) })
		require.Panics(t, func() { r.RequireACR([]string{"aal2"}, next) })
	}
}

// TestCheckBearer: CheckBearer answers as Check does to the same Authorization
// field. It reads nothing else, and counts what it refuses.
func TestCheckBearer(t *testing.T) {
	s := newSite(t)
	r := s.replica()
	token := r.native(t).AccessToken
	for _, test := range []struct {
		name   string
		values []string
		want   error
	}{
		{"valid", []string{"Bearer " + token}, nil},
		{"another case", []string{"bEARER " + token}, nil},
		{"nothing", nil, sessionhttp.ErrNoSession},
		{"another scheme", []string{"Basic YTpi"}, sessionhttp.ErrNoSession},
		{"two", []string{"Bearer " + token, "Bearer " + token}, sessionhttp.ErrBadRequest},
		{"no token", []string{"Bearer "}, sessionhttp.ErrBadRequest},
		{"two spaces", []string{"Bearer  " + token}, sessionhttp.ErrBadRequest},
		{"not ours", []string{"Bearer abc"}, sessiontoken.ErrMalformed},
		{"changed", []string{"Bearer " + token[:len(token)-4] + "AAAA"}, sessiontoken.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			req := request("GET", "/me", "")
			req.Header["Authorization"] = test.values
			wanted, checkErr := r.Check(recorder(), req)
			before := refusals(r)
			c, err := r.CheckBearer(t.Context(), test.values)
			if test.want == nil {
				require.NoError(t, err)
				require.NoError(t, checkErr)
				require.Equal(t, wanted, c)
				require.Equal(t, before, refusals(r))
				return
			}
			require.ErrorIs(t, err, test.want)
			require.Equal(t, checkErr, err)
			require.Nil(t, c)
			require.Equal(t, before+1, refusals(r))
		})
	}
}

// refusals returns how many requests a replica has refused, for any reason.
func refusals(r *replica) (sum float64) {
	for name, n := range r.Metrics() {
		if strings.HasPrefix(name, "sessionhttp_refused_") {
			sum += n
		}
	}
	return sum
}
