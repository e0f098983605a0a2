package sessionhttp_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// run runs a replica's list until the test ends.
func (r *replica) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.list.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

// open opens a connection by a request through Require.
func (r *replica) open(t testing.TB, ctx context.Context, o sessionhttp.LiveOptions, req *http.Request) *sessionhttp.Live[state] {
	t.Helper()
	var l *sessionhttp.Live[state]
	h := r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, ok := r.FromContext(req.Context())
		require.True(t, ok)
		var err error
		l, err = r.Live(req.Context(), c, o)
		require.NoError(t, err)
	}))
	h.ServeHTTP(new(discard), req.WithContext(ctx))
	require.NotNil(t, l)
	t.Cleanup(l.Stop)
	require.NoError(t, l.Err())
	return l
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header {
	if d.h == nil {
		d.h = http.Header{}
	}
	return d.h
}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func TestLiveSmoke(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		a, b := s.replica(), s.replica()
		a.run(t)
		b.run(t)
		cookie := a.signIn(t)
		l := b.open(t, t.Context(), sessionhttp.LiveOptions{}, request("GET", "/", cookie))
		time.Sleep(20 * time.Minute)
		require.NoError(t, l.Err())
		require.Greater(t, l.Claims().State.Rev, int64(2))
		require.NoError(t, a.list.RevokeSession(t.Context(), l.Claims().SessionID))
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, context.Cause(l), revoke.ErrRevoked)
		require.ErrorIs(t, l.Err(), context.Canceled)
		<-l.Done()

		tokens := a.native(t)
		n := b.open(t, t.Context(), sessionhttp.LiveOptions{}, request("GET", "/", "", bearer(tokens.AccessToken)...))
		time.Sleep(6 * time.Minute)
		require.ErrorIs(t, context.Cause(n), sessiontoken.ErrExpired)
	})
}
