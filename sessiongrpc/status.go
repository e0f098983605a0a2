package sessiongrpc

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const domain = "sessiontoken"

// retryAfter is what a client waits before it asks a server again that could not
// decide.
const retryAfter = time.Second

// refusal returns the status of an error of package sessionhttp, or that of ctx,
// the context of the call, if it has ended. Its text is fixed and holds nothing
// of the call.
func refusal(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	code, reason, text := codes.Unauthenticated, "INVALID", "the token is not valid"
	switch {
	case errors.Is(err, sessionhttp.ErrUndecided), errors.Is(err, revoke.ErrOwed):
		code, reason, text = codes.Unavailable, "CANNOT_TELL", "the session cannot be checked now"
	case errors.Is(err, sessionhttp.ErrNoSession):
		reason, text = "NO_SESSION", "there is no session"
	case errors.Is(err, sessionhttp.ErrBadRequest):
		reason, text = "MALFORMED", "the authorization is malformed"
	case errors.Is(err, sessionhttp.ErrMaxSession):
		reason, text = "MAX_SESSION", "the session has reached its end"
	case errors.Is(err, sessiontoken.ErrChanged), errors.Is(err, revoke.ErrChanged):
		reason, text = "STATE_CHANGED", "the state has changed"
	case errors.Is(err, sessiontoken.ErrState):
		reason, text = "STATE_VERSION", "the state is of another version"
	case errors.Is(err, sessiontoken.ErrExpired):
		reason, text = "EXPIRED", "the token has expired"
	case errors.Is(err, sessiontoken.ErrRevoked), errors.Is(err, revoke.ErrRevoked):
		reason, text = "REVOKED", "the session is revoked"
	case errors.Is(err, sessiontoken.ErrAudience):
		reason, text = "WRONG_AUDIENCE", "the token is for another audience"
	case errors.Is(err, sessiontoken.ErrInvalid):
	default:
		code, reason, text = codes.Unavailable, "CANNOT_TELL", "the session cannot be checked now"
	}
	s, detailsErr := status.New(code, text).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: domain})
	if detailsErr == nil && code == codes.Unavailable {
		s, detailsErr = s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	if detailsErr != nil { // impossible: the details are messages
		return status.Error(code, text)
	}
	return s.Err()
}

// isStale reports whether a server refused a token that can be renewed.
func isStale(err error) bool {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.Unauthenticated {
		return false
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == domain {
			return info.Reason == "EXPIRED" || info.Reason == "STATE_CHANGED" || info.Reason == "STATE_VERSION"
		}
	}
	return false
}
