package sessiongrpc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessiongrpc"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// soon is how long a test waits for what happens within a second.
const soon = 30 * time.Second

// TestRefusals: calls and streams are refused alike, with the reason.
func TestRefusals(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions())
	conn := a.dial(t)
	good, _ := s.token(t, "ada")
	revoked, claims := s.token(t, "bob")
	require.NoError(t, s.Revocations().RevokeSession(t.Context(), claims.SessionID))
	changed, _ := s.token(t, "eve")
	require.NoError(t, s.Revocations().Changed(t.Context(), "eve"))
	other, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://id.example", Audience: []string{"other"}, Keys: s.Ring(), Revocations: s.Revocations()})
	require.NoError(t, err)
	foreign, _, err := other.Begin(t.Context(), sessiontoken.Start{Subject: "ada"}, state{})
	require.NoError(t, err)

	for _, test := range []struct {
		name   string
		values []string
		reason string
	}{
		{"no authorization", nil, "NO_SESSION"},
		{"another scheme", []string{"Basic YTpi"}, "NO_SESSION"},
		{"no token", []string{"Bearer "}, "MALFORMED"},
		{"a space too many", []string{"Bearer  " + good}, "MALFORMED"},
		{"two", []string{"Bearer " + good, "Bearer " + good}, "MALFORMED"},
		{"a token without scheme", []string{good}, "NO_SESSION"},
		{"no token of ours", []string{"Bearer abc"}, "INVALID"},
		{"changed by one byte", []string{"Bearer " + good[:len(good)-2] + "AA"}, "INVALID"},
		{"for another audience", []string{"Bearer " + foreign}, "WRONG_AUDIENCE"},
		{"revoked", []string{"Bearer " + revoked}, "REVOKED"},
		{"changed state", []string{"Bearer " + changed}, "STATE_CHANGED"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := presenting(t.Context(), test.values...)
			_, err := call(ctx, conn, who)
			requireRefused(t, err, codes.Unauthenticated, test.reason)
			_, err = ask(open(t, ctx, conn, echo), "hello")
			requireRefused(t, err, codes.Unauthenticated, test.reason)
			answer, err := call(ctx, conn, ping)
			require.NoError(t, err, "an exempt method")
			require.Equal(t, "pong", answer)
		})
	}
	ctx := presenting(t.Context(), "bearer "+good)
	answer, err := call(ctx, conn, who)
	require.NoError(t, err)
	require.Equal(t, "ada admin", answer)
	answer, err = ask(open(t, ctx, conn, echo), "hello")
	require.NoError(t, err)
	require.Contains(t, answer, "ada ")
	require.Positive(t, s.Metrics()["sessionhttp_refused_no_session_total"])
}

// TestCannotTell: past MaxStale new calls are refused as Unavailable, and streams
// end so.
func TestCannotTell(t *testing.T) {
	st := &store{Store: authority.Memory()}
	list, err := revoke.NewList(revoke.Config{Store: st, SyncEvery: 50 * time.Millisecond, MaxStale: time.Second})
	require.NoError(t, err)
	s := newSite(t, st.Store, authority.Limits{})
	verifier, err := sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: "https://id.example", Audience: "api", Keys: s.Ring(), Revocations: list})
	require.NoError(t, err)
	sessions, err := sessionhttp.New(sessionhttp.Config[state]{Verifier: verifier})
	require.NoError(t, err)
	running, stop := context.WithCancel(t.Context())
	defer stop()
	go func() { _ = list.Run(running) }()
	_, err = list.Now(t.Context()) // the list makes its birth mark: the session begins after it
	require.NoError(t, err)
	token, _ := s.token(t, "ada")
	a := newAPI(t, sessions)
	conn := a.dial(t)
	ctx := presenting(t.Context(), "Bearer "+token)
	stream := open(t, ctx, conn, echo)
	_, err = ask(stream, "hello")
	require.NoError(t, err)

	st.down.Store(true)
	requireRefused(t, stream.RecvMsg(nil), codes.Unavailable, "CANNOT_TELL")
	_, err = call(ctx, conn, who)
	requireRefused(t, err, codes.Unavailable, "CANNOT_TELL")

	st.down.Store(false)
	require.Eventually(t, func() bool {
		_, err := ask(open(t, ctx, conn, echo), "hello")
		return err == nil
	}, soon, 50*time.Millisecond)
}

// TestStreamsEndWithTheSession: of many streams at one replica, those of a
// session that is revoked at another one end, and no others. Handlers that wait
// for a message end too.
func TestStreamsEndWithTheSession(t *testing.T) {
	st := authority.Memory()
	here, there := newSite(t, st, authority.Limits{}), newSite(t, st, authority.Limits{})
	a := newAPI(t, here.Sessions())
	conn := a.dial(t)
	const others = 200
	for i := range others {
		token, _ := there.token(t, fmt.Sprint("user-", i))
		open(t, presenting(t.Context(), "Bearer "+token), conn, wait)
	}
	token, claims := there.token(t, "ada")
	var streams []grpc.ClientStream
	for range 3 {
		streams = append(streams, open(t, presenting(t.Context(), "Bearer "+token), conn, wait))
	}
	for range others + 3 {
		<-a.waiting
	}
	require.NoError(t, there.Revocations().RevokeSession(t.Context(), claims.SessionID))
	for _, stream := range streams {
		requireRefused(t, stream.RecvMsg(nil), codes.Unauthenticated, "REVOKED")
	}
	for range 3 {
		err := <-a.left
		require.Error(t, err)
		require.ErrorIs(t, err, revoke.ErrRevoked)
	}
	require.Empty(t, a.left, "streams of other sessions")
}

// TestStreamEnds: why a stream can end, and what its handler sees.
func TestStreamEnds(t *testing.T) {
	for _, test := range []struct {
		name, reason string
		end          func(t *testing.T, s *site, c *sessiontoken.Claims[state])
	}{
		{"everywhere", "REVOKED", func(t *testing.T, s *site, c *sessiontoken.Claims[state]) {
			require.NoError(t, s.Revocations().RevokeSubject(t.Context(), "ada"))
		}},
		{"its key", "REVOKED", func(t *testing.T, s *site, c *sessiontoken.Claims[state]) {
			require.NoError(t, s.RevokeKeys(t.Context(), c.KeyID))
		}},
		{"changed", "STATE_CHANGED", func(t *testing.T, s *site, c *sessiontoken.Claims[state]) {
			require.NoError(t, s.Revocations().Changed(t.Context(), "ada"))
		}},
		{"nothing", "EXPIRED", func(t *testing.T, s *site, c *sessiontoken.Claims[state]) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			limits := authority.Limits{}
			if test.reason == "EXPIRED" {
				limits.TTL = 3 * time.Second
			}
			s := newSite(t, authority.Memory(), limits)
			a := newAPI(t, s.Sessions())
			token, claims := s.token(t, "ada")
			stream := open(t, presenting(t.Context(), "Bearer "+token), a.dial(t), wait)
			<-a.waiting
			test.end(t, s, claims)
			requireRefused(t, stream.RecvMsg(nil), codes.Unauthenticated, test.reason)
			require.Error(t, <-a.left)
		})
	}
}

// TestNewerToken: a stream lives on with a newer token of its session, and with
// no other.
func TestNewerToken(t *testing.T) {
	t.Parallel() // it waits
	s := newSite(t, authority.Memory(), authority.Limits{TTL: 12 * time.Second, IdleTimeout: time.Minute})
	a := newAPI(t, s.Sessions())
	conn := a.dial(t)
	token, old, err := s.Issuer().Issue(t.Context(), "ada", state{})
	require.NoError(t, err)
	stream := open(t, presenting(t.Context(), "Bearer "+token), conn, echo)
	answer, err := ask(stream, "hello")
	require.NoError(t, err)
	require.Equal(t, "ada "+old.TokenID, answer)

	time.Sleep(time.Until(old.IssuedAt.Add(6 * time.Second)))
	token, renewed, err := s.Issuer().Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{}, nil })
	require.NoError(t, err)
	answer, err = ask(stream, "token:"+token)
	require.NoError(t, err)
	require.Equal(t, "ada "+renewed.TokenID, answer)
	time.Sleep(time.Until(old.Expires.Add(100 * time.Millisecond)))
	_, err = ask(stream, "after the end of the first token")
	require.NoError(t, err)

	for _, test := range []struct{ name, token, reason string }{
		{"of another session", first(s.token(t, "ada")), "MALFORMED"},
		{"no token", "abc", "INVALID"},
	} {
		stream := open(t, presenting(t.Context(), "Bearer "+first(s.token(t, "ada"))), conn, echo)
		_, err = ask(stream, "token:"+test.token)
		requireRefused(t, err, codes.Unauthenticated, test.reason)
	}
	requireRefused(t, a.Renew(t.Context(), token), codes.Unauthenticated, "NO_SESSION")
}

func first[A, B any](a A, _ B) A { return a }

// TestHandlersThatPanic: a panic reaches the interceptors outside, as without
// sessions; one after the end of its stream ends no process.
func TestHandlersThatPanic(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions())
	conn := a.dial(t)
	token, claims := s.token(t, "ada")
	ctx := presenting(t.Context(), "Bearer "+token)
	_, err := ask(open(t, ctx, conn, echo), "panic")
	require.ErrorContains(t, err, "a panic")

	a.panics.Store(true)
	stream := open(t, ctx, conn, wait)
	<-a.waiting
	require.NoError(t, s.Revocations().RevokeSession(t.Context(), claims.SessionID))
	requireRefused(t, stream.RecvMsg(nil), codes.Unauthenticated, "REVOKED")
	require.Error(t, <-a.left)
	_, err = call(ctx, conn, who)
	requireRefused(t, err, codes.Unauthenticated, "REVOKED")
}

// TestClientThatLeaves: the handler of a stream whose client has gone ends, and
// sees that.
func TestClientThatLeaves(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	a := newAPI(t, s.Sessions())
	token, _ := s.token(t, "ada")
	ctx, leave := context.WithCancel(presenting(t.Context(), "Bearer "+token))
	open(t, ctx, a.dial(t), wait)
	<-a.waiting
	leave()
	require.ErrorContains(t, <-a.left, "context canceled")
}

// TestNew names the field at fault.
func TestNew(t *testing.T) {
	_, err := sessiongrpc.New(sessiongrpc.Config[state]{})
	require.ErrorContains(t, err, "Config.Sessions")
	s := newSite(t, authority.Memory(), authority.Limits{})
	for _, name := range []string{"", "/", "//", "grpc.health.v1.Health/Check", "/grpc.health.v1.Health", "/grpc.health.v1.Health/", "/*/Check", "/a.B/Che*", "/*", "*", "/a.B/C/D"} {
		_, err := sessiongrpc.New(sessiongrpc.Config[state]{Sessions: s.Sessions(), Exempt: []string{name}})
		require.ErrorContains(t, err, "Config.Exempt", "%q", name)
	}
}

// TestAllocations: what a call costs beside its handler.
func TestAllocations(t *testing.T) {
	s := newSite(t, authority.Memory(), authority.Limits{})
	server, err := sessiongrpc.New(sessiongrpc.Config[state]{Sessions: s.Sessions()})
	require.NoError(t, err)
	token, _ := s.token(t, "ada")
	ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": {"Bearer " + token}, "user-agent": {"test"}})
	info := &grpc.UnaryServerInfo{FullMethod: who}
	handler := func(ctx context.Context, req any) (any, error) {
		if _, ok := server.FromContext(ctx); !ok {
			return nil, errors.New("no session")
		}
		return req, nil
	}
	ask := func() {
		if _, err := server.Unary(ctx, nil, info, handler); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	require.LessOrEqual(t, testing.AllocsPerRun(100, ask), 6.0)
}

// BenchmarkUnary compares the interceptor with a hit of the verifier.
func BenchmarkUnary(b *testing.B) {
	s := newSite(b, authority.Memory(), authority.Limits{})
	server, err := sessiongrpc.New(sessiongrpc.Config[state]{Sessions: s.Sessions()})
	require.NoError(b, err)
	token, _ := s.token(b, "ada")
	ctx := metadata.NewIncomingContext(b.Context(), metadata.MD{"authorization": {"Bearer " + token}, "user-agent": {"test"}})
	info := &grpc.UnaryServerInfo{FullMethod: who}
	b.Run("interceptor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := server.Unary(ctx, nil, info, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Verifier().Verify(ctx, token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
