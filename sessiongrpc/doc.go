// Package sessiongrpc keeps sessions over gRPC: interceptors of google.golang.org/grpc
// for servers and clients. A session token travels as a Bearer token in the
// metadata "authorization". For connect-go, which serves net/http, package
// sessionhttp is enough.
//
// # Server
//
// [New] makes a [Server] of the sessions of an authority or a remote. Its
// interceptors refuse calls without a valid session, and [Server.FromContext]
// returns the session in a handler. A stream ends with its session:
//
//	server, err := sessiongrpc.New(sessiongrpc.Config[State]{Sessions: site.Sessions()})
//	s := grpc.NewServer(grpc.UnaryInterceptor(server.Unary), grpc.StreamInterceptor(server.Stream))
//
// A refusal has the code Unauthenticated, or Unavailable if the server cannot
// decide. Its details hold an ErrorInfo with the domain "sessiontoken" and one
// of these reasons:
//
//	NO_SESSION      there is no Bearer token
//	MALFORMED       the metadata is not one Bearer token
//	EXPIRED         the token has expired: refresh
//	STATE_CHANGED   the state has changed since the token was made: refresh
//	STATE_VERSION   the state is of another version of the service: refresh
//	REVOKED         the session was revoked: sign in again
//	MAX_SESSION     the session has reached MaxSession: sign in again
//	WRONG_AUDIENCE  the token is for another API
//	INVALID         the token is not valid for another reason
//	CANNOT_TELL     Unavailable, with a RetryInfo: call again later
//
// # Client
//
// [UnaryClientInterceptor] and [StreamClientInterceptor] add the access token of
// a [sessionclient.Client], and renew one that a server of this package refuses.
package sessiongrpc
