package sessiongrpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sessiontoken/sessiontoken/sessionclient"
)

// UnaryClientInterceptor returns an interceptor that adds the access token of c
// to calls. gRPC sends it over TLS alone. A call whose context has an
// "authorization" already is passed on as it is.
//
// If the server says that the token has expired, or that the state has changed,
// the call is made again, once, with a renewed token. Servers refuse a token
// before they call a handler.
//
// An error of c has the code Unauthenticated if it matches
// [sessionclient.ErrSignIn], and Unavailable otherwise; errors.Is finds what it
// matches. It panics if c is nil.
func UnaryClientInterceptor(c *sessionclient.Client) grpc.UnaryClientInterceptor {
	needed(c)
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if hasAuthorization(ctx) {
			return invoker(ctx, method, req, reply, conn, opts...)
		}
		token, _, err := c.Token(ctx)
		if err != nil {
			return tokenError(ctx, err)
		}
		err = invoker(ctx, method, req, reply, conn, with(opts, token)...)
		if !isStale(err) {
			return err
		}
		token, _, renewErr := c.Renew(ctx, token)
		switch {
		case errors.Is(renewErr, sessionclient.ErrSignIn):
			return tokenError(ctx, renewErr)
		case renewErr != nil:
			return err
		}
		return invoker(ctx, method, req, reply, conn, with(opts, token)...)
	}
}

// StreamClientInterceptor returns an interceptor that adds the access token of c
// to streams, as [UnaryClientInterceptor] does to calls. A stream whose token the
// server refuses is not opened again. Its RecvMsg renews the token before it
// returns the error, so that a stream that is opened then is accepted. It panics
// if c is nil.
func StreamClientInterceptor(c *sessionclient.Client) grpc.StreamClientInterceptor {
	needed(c)
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if hasAuthorization(ctx) {
			return streamer(ctx, desc, conn, method, opts...)
		}
		token, _, err := c.Token(ctx)
		if err != nil {
			return nil, tokenError(ctx, err)
		}
		stream, err := streamer(ctx, desc, conn, method, with(opts, token)...)
		if err != nil {
			return nil, err
		}
		return &clientStream{stream, ctx, c, token}, nil
	}
}

type clientStream struct {
	grpc.ClientStream
	ctx    context.Context // of the caller
	client *sessionclient.Client
	token  string
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if isStale(err) {
		if _, _, renewErr := s.client.Renew(s.ctx, s.token); errors.Is(renewErr, sessionclient.ErrSignIn) {
			return tokenError(s.ctx, renewErr)
		}
	}
	return err
}

func needed(c *sessionclient.Client) {
	if c == nil {
		panic("sessiongrpc: nil Client")
	}
}

func hasAuthorization(ctx context.Context) bool {
	md, _ := metadata.FromOutgoingContext(ctx)
	return len(md["authorization"]) > 0
}

// with returns opts with an access token.
func with(opts []grpc.CallOption, token string) []grpc.CallOption {
	return append(opts[:len(opts):len(opts)], grpc.PerRPCCredentials(bearer(token)))
}

// bearer is an access token. It is a PerRPCCredentials.
type bearer string

// GetRequestMetadata returns the metadata with the token.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// String does not return the token.
func (bearer) String() string { return "an access token" }

// RequireTransportSecurity returns true.
func (bearer) RequireTransportSecurity() bool { return true }

// tokenError returns an error of a Client as a status.
func tokenError(ctx context.Context, err error) error {
	code := codes.Unavailable
	switch {
	case errors.Is(err, sessionclient.ErrSignIn):
		code = codes.Unauthenticated
	case ctx.Err() != nil:
		code = status.FromContextError(ctx.Err()).Code()
	}
	return &clientError{status.New(code, err.Error()), err}
}

// clientError is a status that matches what err matches.
type clientError struct {
	status *status.Status
	err    error
}

func (e *clientError) Error() string              { return e.err.Error() }
func (e *clientError) Unwrap() error              { return e.err }
func (e *clientError) GRPCStatus() *status.Status { return e.status }
