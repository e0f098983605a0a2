//go:build !race

package sessionhttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
)

// bare is the cheapest answer that a server could have.
type bare struct{ header http.Header }

func (b *bare) Header() http.Header         { return b.header }
func (b *bare) Write(p []byte) (int, error) { return len(p), nil }
func (b *bare) WriteHeader(int)             {}

// TestAllocations holds how many more allocations a request makes that passes
// Require than one that nothing checks. The verifier has seen the token before.
func TestAllocations(t *testing.T) {
	s := newSite(t)
	r := s.replica()
	token, _, err := r.issuer.Issue(t.Context(), "ada", state{Name: "Ada"})
	require.NoError(t, err)
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	count := func(h http.Handler, req *http.Request) float64 {
		w := &bare{header: http.Header{}}
		return testing.AllocsPerRun(200, func() {
			clear(w.header)
			h.ServeHTTP(w, req)
		})
	}
	for _, tt := range []struct {
		name string
		set  func(*http.Request)
		most float64
	}{
		{"cookie", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: name, Value: token}) }, 4},
		{"bearer", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, 4},
	} { // the claims, the context, the request that has it, and the fields about caching
		req := httptest.NewRequest(http.MethodGet, "https://a.example/", nil)
		tt.set(req)
		var claims *sessiontoken.Claims[state]
		count(r.Require(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			claims, _ = r.FromContext(req.Context())
		})), req)
		require.Equal(t, "ada", claims.Subject, tt.name)
		require.LessOrEqual(t, count(r.Require(next), req)-count(next, req), tt.most, tt.name)
	}
}
