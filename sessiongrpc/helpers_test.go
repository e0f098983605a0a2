package sessiongrpc_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionclient"
	"github.com/sessiontoken/sessiontoken/sessiongrpc"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type state struct{ Role string }

// certificate has the certificate of net/http/httptest, for example.com.
var certificate, trusted = func() (*httptest.Server, *x509.CertPool) {
	s := httptest.NewTLSServer(nil)
	s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s, pool
}()

var errDown = errors.New("the store is down")

// store fails once it is told to.
type store struct {
	authority.Store
	down atomic.Bool
}

func (s *store) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if s.down.Load() {
		return revoke.Page{}, errDown
	}
	return s.Store.Since(ctx, cursor)
}

func (s *store) Append(ctx context.Context, entries ...revoke.Entry) error {
	if s.down.Load() {
		return errDown
	}
	return s.Store.Append(ctx, entries...)
}

// site is one authority.
type site struct {
	*authority.Authority[state]
	exchanges atomic.Int64
	role      atomic.Value
}

func newSite(t testing.TB, store authority.Store, limits authority.Limits) *site {
	t.Helper()
	s := new(site)
	s.role.Store("admin")
	var err error
	s.Authority, err = authority.New(authority.Config[state]{
		Issuer: "https://id.example", Audience: []string{"api"}, Store: store, Algorithm: keys.EdDSA, Limits: limits,
		Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)},
		Load: func(context.Context, *sessiontoken.Claims[state]) (state, error) {
			return state{s.role.Load().(string)}, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// token begins a session and returns its token, as a native client gets it.
func (s *site) token(t testing.TB, subject string) (string, *sessiontoken.Claims[state]) {
	t.Helper()
	token, claims, err := s.Issuer().Begin(t.Context(), sessiontoken.Start{Subject: subject, Renewal: sessiontoken.NotRenewable}, state{"admin"})
	require.NoError(t, err)
	return token, claims
}

// api is a gRPC server with a session behind each call.
type api struct {
	*sessiongrpc.Server[state]
	addr    string
	left    chan error // how handlers of Wait have ended
	waiting chan struct{}
	panics  atomic.Bool
}

const (
	who  = "/test.Service/Who"
	echo = "/test.Service/Echo"
	wait = "/test.Service/Wait"
	ping = "/test.Open/Ping"
)

func newAPI(t testing.TB, sessions *sessionhttp.Sessions[state], options ...grpc.ServerOption) *api {
	t.Helper()
	server, err := sessiongrpc.New(sessiongrpc.Config[state]{Sessions: sessions, Exempt: []string{"/test.Open/*"}, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	a := &api{Server: server, left: make(chan error, 10_000), waiting: make(chan struct{}, 10_000)}
	s := grpc.NewServer(append([]grpc.ServerOption{grpc.Creds(credentials.NewServerTLSFromCert(&certificate.TLS.Certificates[0])), grpc.ChainUnaryInterceptor(server.Unary), grpc.ChainStreamInterceptor(recovered, server.Stream)}, options...)...)
	unary := func(name string, f func(context.Context) (string, error)) grpc.MethodDesc {
		return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Service/" + name}
			if name == "Ping" {
				info.FullMethod = ping
			}
			return chain(ctx, in, info, func(ctx context.Context, _ any) (any, error) {
				text, err := f(ctx)
				return wrapperspb.String(text), err
			})
		}}
	}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Service", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary("Who", func(ctx context.Context) (string, error) {
			c, ok := a.FromContext(ctx)
			if !ok {
				return "", status.Error(codes.Internal, "no session in the handler")
			}
			return c.Subject + " " + c.State.Role, nil
		})},
		Streams: []grpc.StreamDesc{
			{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: a.echo},
			{StreamName: "Wait", ServerStreams: true, ClientStreams: true, Handler: a.wait},
		},
	}, nil)
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Open", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{unary("Ping", func(ctx context.Context) (string, error) {
			if _, ok := a.FromContext(ctx); ok {
				return "", status.Error(codes.Internal, "a session in an exempt handler")
			}
			return "pong", nil
		})},
	}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a.addr = l.Addr().String()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return a
}

// recovered is an interceptor outside of the server's.
func recovered(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = status.Error(codes.Internal, "a panic")
		}
	}()
	return handler(srv, stream)
}

// echo answers each message. One that begins with "token:" presents a newer
// token.
func (a *api) echo(_ any, stream grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		if token, ok := bytes.CutPrefix([]byte(in.Value), []byte("token:")); ok {
			if err := a.Renew(stream.Context(), string(token)); err != nil {
				return err
			}
		}
		if in.Value == "panic" {
			panic("as asked")
		}
		c, ok := a.FromContext(stream.Context())
		if !ok {
			return status.Error(codes.Internal, "no session in the handler")
		}
		if err := stream.SendMsg(wrapperspb.String(c.Subject + " " + c.TokenID)); err != nil {
			return err
		}
	}
}

// wait waits for a message that never comes, whatever happens to the context.
func (a *api) wait(_ any, stream grpc.ServerStream) error {
	a.waiting <- struct{}{}
	err := stream.RecvMsg(new(wrapperspb.StringValue))
	a.left <- errors.Join(err, context.Cause(stream.Context()))
	if a.panics.Load() {
		panic("after the end")
	}
	return err
}

// dial connects to an API.
func (a *api) dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(a.addr, append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(trusted, "example.com"))}, options...)...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func plaintext() grpc.DialOption { return grpc.WithTransportCredentials(insecure.NewCredentials()) }

func call(ctx context.Context, conn *grpc.ClientConn, method string) (string, error) {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, method, wrapperspb.String(""), out)
	return out.Value, err
}

func open(t testing.TB, ctx context.Context, conn *grpc.ClientConn, method string) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	require.NoError(t, err)
	return stream
}

// ask sends a message and returns the answer.
func ask(stream grpc.ClientStream, text string) (string, error) {
	if err := stream.SendMsg(wrapperspb.String(text)); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	out := new(wrapperspb.StringValue)
	err := stream.RecvMsg(out)
	return out.Value, err
}

// presenting is a context of calls with an authorization.
func presenting(ctx context.Context, values ...string) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.MD{"authorization": values})
}

// requireRefused checks code, reason and details of a refusal.
func requireRefused(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	s, ok := status.FromError(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, s.Code(), "%v", err)
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	require.NotNil(t, info, "%v", err)
	require.Equal(t, "sessiontoken", info.Domain)
	require.Equal(t, reason, info.Reason)
	require.Equal(t, code == codes.Unavailable, retry != nil)
	require.NotContains(t, err.Error(), "eyJ", "a token")
}

// client is a sessionclient.Client that is signed in at a site.
func client(t testing.TB, s *site) *sessionclient.Client {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /in", func(w http.ResponseWriter, r *http.Request) {
		tokens, err := s.Sessions().SignInNative(r, sessionhttp.Device{}, sessiontoken.Start{Subject: "ada"}, state{s.role.Load().(string)})
		if err != nil {
			s.Sessions().Refuse(w, r, err)
			return
		}
		_ = json.NewEncoder(w).Encode(tokens)
	})
	refresh := s.Sessions().RefreshHandler()
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		s.exchanges.Add(1)
		refresh.ServeHTTP(w, r)
	})
	server := httptest.NewTLSServer(mux)
	t.Cleanup(server.Close)
	c, err := sessionclient.New(sessionclient.Config{
		TokenURL: server.URL + "/token", Origins: []string{server.URL}, Keeper: new(memory), HTTPClient: server.Client(), Margin: time.Millisecond,
	})
	require.NoError(t, err)
	resp, err := server.Client().Post(server.URL+"/in", "", nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var tokens sessionclient.Tokens
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&tokens))
	require.NoError(t, c.SignIn(t.Context(), tokens))
	return c
}

// memory is a keeper in memory.
type memory struct {
	lock   sync.Mutex
	record []byte
}

func (m *memory) Lock(context.Context) (func(), error) { m.lock.Lock(); return m.lock.Unlock, nil }
func (m *memory) Load(context.Context) ([]byte, error) { return m.record, nil }
func (m *memory) Save(_ context.Context, record []byte) error {
	m.record = bytes.Clone(record)
	return nil
}
