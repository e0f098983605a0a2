package sessiongrpc_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionclient"
	"github.com/sessiontoken/sessiontoken/sessiongrpc"
)

func withClient(c *sessionclient.Client) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithUnaryInterceptor(sessiongrpc.UnaryClientInterceptor(c)), grpc.WithStreamInterceptor(sessiongrpc.StreamClientInterceptor(c))}
}

// TestClientRenews: a token that the server refuses as stale is renewed, once for
// all calls, and the calls are made again.
func TestClientRenews(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions())
	c := client(t, s)
	conn := a.dial(t, withClient(c)...)
	answer, err := call(t.Context(), conn, who)
	require.NoError(t, err)
	require.Equal(t, "ada admin", answer)

	s.role.Store("reader")
	require.NoError(t, s.Revocations().Changed(t.Context(), "ada"))
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			answer, err := call(t.Context(), conn, who)
			if err != nil || answer != "ada reader" {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	calls.Wait()
	require.EqualValues(t, 1, s.exchanges.Load())
}

// TestClientStreams: a stream that the server refuses as stale fails, and the next
// one is accepted.
func TestClientStreams(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions())
	conn := a.dial(t, withClient(client(t, s))...)
	stream := open(t, t.Context(), conn, echo)
	_, err := ask(stream, "hello")
	require.NoError(t, err)
	require.NoError(t, s.Revocations().Changed(t.Context(), "ada"))
	requireRefused(t, stream.RecvMsg(nil), codes.Unauthenticated, "STATE_CHANGED")
	require.EqualValues(t, 1, s.exchanges.Load())
	_, err = ask(open(t, t.Context(), conn, echo), "hello")
	require.NoError(t, err)
	require.EqualValues(t, 1, s.exchanges.Load())
}

// TestClientSignsInAgain: an ended session is told from a failure.
func TestClientSignsInAgain(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions())
	c := client(t, s)
	conn := a.dial(t, withClient(c)...)
	require.NoError(t, s.Revocations().RevokeSubject(t.Context(), "ada"))
	_, err := call(t.Context(), conn, who)
	requireRefused(t, err, codes.Unauthenticated, "REVOKED")
	require.Zero(t, s.exchanges.Load(), "a revoked session is not renewed")

	require.NoError(t, c.SignOut(t.Context()))
	_, err = call(t.Context(), conn, who)
	require.ErrorIs(t, err, sessionclient.ErrSignIn)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	_, err = conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, echo)
	require.ErrorIs(t, err, sessionclient.ErrSignIn)
}

// TestTokenNeedsTLS: a connection that others can read gets no token.
func TestTokenNeedsTLS(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions(), grpc.Creds(nil))
	c := client(t, s)
	conn := a.dial(t, append(withClient(c), plaintext())...)
	_, err := call(t.Context(), conn, who)
	require.ErrorContains(t, err, "insecure connection")
	require.Zero(t, s.Metrics()["verified_first_total"])
	_, err = call(presenting(t.Context(), "Bearer abc"), conn, who)
	requireRefused(t, err, codes.Unauthenticated, "INVALID") // the caller's own authorization is passed on
}

// TestExpiredOnTheWay: a server whose clock is ahead refuses a token that the
// client takes for good. It is renewed and the call made again.
func TestExpiredOnTheWay(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{TTL: 2 * time.Second, IdleTimeout: time.Minute, RefreshIdle: time.Minute})
	a := newAPI(t, s.Sessions())
	conn := a.dial(t, withClient(client(t, s))...)
	begin := time.Now()
	for time.Since(begin) < 5*time.Second {
		_, err := call(t.Context(), conn, who)
		require.NoError(t, err)
		time.Sleep(50 * time.Millisecond)
	}
	require.GreaterOrEqual(t, s.exchanges.Load(), int64(2))
}
