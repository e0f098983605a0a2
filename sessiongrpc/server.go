package sessiongrpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Config configures a [Server].
type Config[T any] struct {
	// Sessions are those of an authority or a remote. Required.
	Sessions *sessionhttp.Sessions[T]
	// Exempt are the methods that need no session, such as
	// "/grpc.health.v1.Health/Check", or all of a service:
	// "/grpc.health.v1.Health/*". In their handlers, FromContext has no session.
	Exempt []string
	// Logger gets a line if a handler panics after its stream has ended. Nil
	// means slog.Default(). Refusals are logged by Sessions.
	Logger *slog.Logger
}

// Server has the interceptors of a server. It is safe for concurrent use. Make it
// with [New].
type Server[T any] struct {
	sessions *sessionhttp.Sessions[T]
	exempt   map[string]bool // methods, and services with the last slash
	log      *slog.Logger
}

// New checks the configuration and returns the interceptors for it. An error
// names the field at fault.
func New[T any](cfg Config[T]) (*Server[T], error) {
	if cfg.Sessions == nil {
		return nil, errors.New("sessiongrpc: Config.Sessions is required")
	}
	s := &Server[T]{sessions: cfg.Sessions, exempt: map[string]bool{}, log: cfg.Logger}
	for _, name := range cfg.Exempt {
		service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if !ok || !strings.HasPrefix(name, "/") || service == "" || method == "" || strings.Contains(method, "/") ||
			strings.Contains(service, "*") || strings.Contains(method, "*") && method != "*" {
			return nil, fmt.Errorf(`sessiongrpc: Config.Exempt holds %q, which is neither "/package.Service/Method" nor "/package.Service/*"`, name)
		}
		s.exempt[strings.TrimSuffix(name, "*")] = true
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s, nil
}

// isExempt reports whether a method needs no session.
func (s *Server[T]) isExempt(method string) bool {
	return s.exempt[method] || s.exempt[method[:strings.LastIndexByte(method, '/')+1]]
}

// contextKey is different for each Server.
type contextKey[T any] struct{ server *Server[T] }

// FromContext returns the session of a call that came through an interceptor of
// s. In a stream it returns the claims of the newest token that was presented.
func (s *Server[T]) FromContext(ctx context.Context) (*sessiontoken.Claims[T], bool) {
	switch v := ctx.Value(contextKey[T]{s}).(type) {
	case *sessiontoken.Claims[T]:
		return v, true
	case *sessionhttp.Live[T]:
		return v.Claims(), true
	}
	return nil, false
}

// Renew takes a newer token of the session of a stream, which the client has sent
// in a message, so that the stream does not end when the first token expires. ctx
// is the context of the stream. The error is a status, as that of a call: a
// handler may return it. With an error nothing has changed.
func (s *Server[T]) Renew(ctx context.Context, token string) error {
	live, ok := ctx.Value(contextKey[T]{s}).(*sessionhttp.Live[T])
	if !ok {
		return refusal(ctx, sessionhttp.ErrNoSession)
	}
	if err := live.Renew(ctx, token); err != nil {
		return refusal(ctx, err)
	}
	return nil
}

// check returns the session of a call.
func (s *Server[T]) check(ctx context.Context) (*sessiontoken.Claims[T], error) {
	return s.sessions.CheckBearer(ctx, metadata.ValueFromIncomingContext(ctx, "authorization"))
}

// Unary is a [grpc.UnaryServerInterceptor]. It calls handler for calls with a
// valid session, and refuses the others.
func (s *Server[T]) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s.isExempt(info.FullMethod) {
		return handler(ctx, req)
	}
	c, err := s.check(ctx)
	if err != nil {
		return nil, refusal(ctx, err)
	}
	return handler(context.WithValue(ctx, contextKey[T]{s}, c), req)
}

// Stream is a [grpc.StreamServerInterceptor]. It calls handler for streams with a
// valid session, and refuses the others.
//
// A stream ends when its session is revoked or its state has changed, when its
// token expires, unless [Server.Renew] was called with a newer one, and when the
// server no longer knows whether the session is live. The status then says why.
// The stream's context ends too, and handler runs on until it notices: what it
// sends is dropped.
func (s *Server[T]) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.isExempt(info.FullMethod) {
		return handler(srv, stream)
	}
	ctx := stream.Context()
	c, err := s.check(ctx)
	if err != nil {
		return refusal(ctx, err)
	}
	live, err := s.sessions.Live(ctx, c, sessionhttp.LiveOptions{Bearer: true})
	if err != nil {
		return refusal(ctx, err)
	}
	defer live.Stop()
	wrapped := &liveStream{stream, context.WithValue(live, contextKey[T]{s}, live)}
	r := run(func() error { return handler(srv, wrapped) })
	select {
	case <-r.done:
	case <-live.Done():
		if ctx.Err() != nil { // the client has gone: handler ends as without a session
			<-r.done
			break
		}
		go s.abandoned(r, info.FullMethod)
		return refusal(ctx, context.Cause(live))
	}
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case r.err != nil && live.Err() != nil:
		return refusal(ctx, context.Cause(live)) // handler was the first to notice
	}
	return r.err
}

// abandoned waits for a handler whose stream has ended.
func (s *Server[T]) abandoned(r *running, method string) {
	<-r.done
	if r.panicked != nil {
		s.log.Error("sessiongrpc: a handler panicked after its stream had ended with its session", "method", method)
	}
}

// liveStream is a stream that fails once its session has ended.
type liveStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (l *liveStream) Context() context.Context { return l.ctx }

func (l *liveStream) SendMsg(m any) error {
	if l.ctx.Err() != nil {
		return refusal(l.ServerStream.Context(), context.Cause(l.ctx))
	}
	return l.ServerStream.SendMsg(m)
}

func (l *liveStream) RecvMsg(m any) error {
	if l.ctx.Err() != nil {
		return refusal(l.ServerStream.Context(), context.Cause(l.ctx))
	}
	return l.ServerStream.RecvMsg(m)
}

// running is a handler in a goroutine of its own: one that waits for a message
// ends only after the stream has ended.
type running struct {
	done     chan struct{}
	err      error
	panicked any
}

var errNoResult = errors.New("sessiongrpc: the handler has ended its goroutine")

func run(f func() error) *running {
	r := &running{done: make(chan struct{}), err: errNoResult}
	go func() {
		defer close(r.done)
		defer func() { r.panicked = recover() }()
		r.err = f()
	}()
	return r
}
