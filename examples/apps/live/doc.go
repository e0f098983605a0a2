// Package live shows connections that end with their session: server-sent
// events, and WebSockets with github.com/coder/websocket and
// github.com/gorilla/websocket. Each tells its client why it ends.
package live

import (
	"context"
	"errors"
	"net/http"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Close codes of WebSockets, by the IANA registry.
const (
	GoingAway     = 1001 // the server shuts down
	SignedOut     = 1008 // policy violation: the session has ended; sign in again
	TryAgainLater = 1013 // it is not known whether the session is live
	Unauthorized  = 3000 // the token is no longer accepted; refresh it and connect again
)

// Reason returns the close code and the text for the end of a connection.
func Reason(why error) (code int, text string) {
	switch {
	case errors.Is(why, sessionhttp.ErrUndecided):
		return TryAgainLater, "try again later"
	case errors.Is(why, revoke.ErrRevoked), errors.Is(why, sessionhttp.ErrSessionOver):
		return SignedOut, "signed out"
	case errors.Is(why, sessionhttp.ErrIdle):
		return SignedOut, "idle for too long"
	case errors.Is(why, sessionhttp.ErrMaxSession):
		return SignedOut, "the session has reached its end"
	case errors.Is(why, revoke.ErrChanged):
		return Unauthorized, "the state has changed"
	case errors.Is(why, sessiontoken.ErrExpired):
		return Unauthorized, "the token has expired"
	}
	return GoingAway, "going away"
}

// withLive calls serve for requests with a session that is live.
func withLive[T any](s *sessionhttp.Sessions[T], serve func(w http.ResponseWriter, r *http.Request, l *sessionhttp.Live[T])) http.Handler {
	return s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		l, err := s.Live(r.Context(), c, sessionhttp.LiveOptions{})
		if err != nil {
			s.Refuse(w, r, err)
			return
		}
		defer l.Stop()
		serve(w, r, l)
	}))
}

// atEnd calls f with the reason when the session ends. stop undoes that.
func atEnd[T any](l *sessionhttp.Live[T], f func(code int, text string)) (stop func() bool) {
	return context.AfterFunc(l, func() { f(Reason(context.Cause(l))) })
}
