package remote_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	issuing "github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// served is an authority on a server of its own.
type served struct {
	*issuing.Authority[state]
	url       string
	transport http.RoundTripper
}

func serve(t testing.TB, store issuing.Store) *served {
	t.Helper()
	var handler http.Handler
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	server.EnableHTTP2 = true
	url := "https://" + server.Listener.Addr().String()
	a, err := issuing.New(issuing.Config[state]{
		Issuer: url, Audience: []string{"orders"}, Store: store, Algorithm: keys.EdDSA, Logger: slog.New(slog.DiscardHandler),
		FeedTokens: []string{feedToken},
		Load:       func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{}, nil },
	})
	require.NoError(t, err)
	handler = a.WellKnown()
	server.StartTLS()
	t.Cleanup(server.Close)
	runFor(t, a.Run)
	return &served{a, url, server.Client().Transport}
}

// runFor runs a function until the test ends.
func runFor(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func (s *served) api(t testing.TB) *remote.Remote[state] {
	t.Helper()
	r, err := remote.New[state](remote.Config{
		Issuer: s.url, Audience: "orders", Client: &http.Client{Transport: s.transport}, Logger: slog.New(slog.DiscardHandler),
		FeedToken: func(context.Context) (string, error) { return feedToken, nil },
	})
	require.NoError(t, err)
	return r
}

// roundTrip measures one exchange with the server over a new connection.
func (s *served) roundTrip(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/.well-known/jwks.json", nil)
	require.NoError(t, err)
	req.Close = true
	resp, err := s.transport.RoundTrip(req)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return time.Since(began)
}

// TestFeedHowSoon: a sign-out is known at an API within ten round trips to the
// authority. It is asserted at ten times that.
func TestFeedHowSoon(t *testing.T) {
	trials := 50
	if isLong() {
		trials = 500
	}
	s := serve(t, issuing.Memory())
	r := s.api(t)
	runFor(t, r.Run)
	var trips, took []time.Duration
	for range trials {
		trips = append(trips, s.roundTrip(t))
		token, claims, err := s.Issuer().Issue(t.Context(), "ada", state{})
		require.NoError(t, err)
		require.Eventually(t, func() bool { return verify(t, r, token) == nil }, time.Minute, time.Millisecond)
		require.NoError(t, s.Revocations().RevokeSession(t.Context(), claims.SessionID))
		began := time.Now()
		for verify(t, r, token) == nil {
			require.Less(t, time.Since(began), time.Minute)
			time.Sleep(100 * time.Microsecond)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(trips)
	slices.Sort(took)
	trip, p50, p99 := trips[len(trips)/2], took[len(took)/2], took[len(took)*99/100]
	t.Logf("%d sign-outs, known after %.1f round trips of %v (p50) and %.1f (p99)", trials, float64(p50)/float64(trip), trip.Round(10*time.Microsecond), float64(p99)/float64(trip))
	require.Less(t, p50, 100*trip)
}

// TestFeedStart: an API that starts is ready when it has read all entries. With
// a million, that takes less than 10 s.
func TestFeedStart(t *testing.T) {
	entries := 30_000
	if isLong() {
		entries = 1_000_000
	}
	store := issuing.Memory()
	s := serve(t, store)
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i := 0; i < entries; {
		var some []revoke.Entry
		for ; len(some) < 10_000; i++ {
			some = append(some, revoke.Entry{
				Namespace: s.url, Scope: revoke.Session, Digest: revoke.Session.Digest(fmt.Sprint(i)), Before: now, Until: now.Add(time.Hour),
			})
		}
		require.NoError(t, store.Append(t.Context(), some...))
	}
	r := s.api(t)
	began := time.Now()
	require.NoError(t, r.Revocations().Sync(t.Context()))
	took := time.Since(began)
	t.Logf("%d entries read in %v", entries, took.Round(time.Millisecond))
	require.Equal(t, entries, r.Revocations().Status().Entries)
	require.Less(t, took, 100*time.Second) // the bar is 10 s, on a machine with nothing else to do
}
