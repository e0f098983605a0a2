package sessionhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/testhook"
)

// Check returns the session of a request, as [Sessions.Require] does for a handler:
// for a WebSocket, say, or within a framework. With an error, [Sessions.Refuse]
// answers the request.
//
// It does all that Require does to the answer: w has the headers that an answer
// needs, and the cookie that it renewed. What writes an answer of its own past w,
// to an upgrade for instance, has to send them.
func (s *Sessions[T]) Check(w http.ResponseWriter, r *http.Request) (*sessiontoken.Claims[T], error) {
	private(w.Header())
	return s.claims(w, r)
}

// Require lets requests with a valid session through, and refuses the others:
// 401 with WWW-Authenticate as RFC 6750 section 3 says, 400 or 403 for what can
// be no request of ours, 503 if the server cannot tell. It panics if next is nil.
//
// A session that is [Anonymous] passes: its Subject tells.
//
// The answers are "Cache-Control: private, no-store" unless the handler says
// otherwise before it writes. An answer that sets a cookie is no-store whatever
// the handler says, and all of them vary by Cookie and Authorization: these hold
// by a second field line of the name in small letters.
func (s *Sessions[T]) Require(next http.Handler) http.Handler {
	needed(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.Check(w, r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, s.with(r, c))
	})
}

// Optional is Require for handlers that also answer those who are not signed in:
// requests without a session pass, and so do those whose cookie has ended or is
// not one of ours. A Bearer token that does not hold is refused all the same.
func (s *Sessions[T]) Optional(next http.Handler) http.Handler {
	needed(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.Check(w, r)
		_, isBearer, _ := bearer(r.Header)
		switch {
		case err == nil:
			r = s.with(r, c)
		case isVerdict(err, ErrNoSession), isRefused(err) && !isBearer:
		default:
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireFresh is Require for handlers that want a sign-in not longer ago than
// maxAge, by Claims.AuthTime: a change of password, a payment. Others are told to
// sign in again (RFC 9470 section 3), and so are sessions of which it is not known
// when that was or that are [Anonymous].
func (s *Sessions[T]) RequireFresh(maxAge time.Duration, next http.Handler) http.Handler {
	needed(next)
	return s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, err := s.now(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		c, ok := s.FromContext(r.Context())
		if !ok || isAnonymous(c.Subject) || c.AuthTime.IsZero() || clock.Between(c.AuthTime, now) > maxAge {
			s.refuse(w, r, &staleSignIn{maxAge})
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// needed is for middleware that is mounted around nothing, as net/http has it.
func needed(next http.Handler) {
	if arg.IsNil(next) {
		panic("sessionhttp: nil handler")
	}
}

// with returns a request with its session.
func (s *Sessions[T]) with(r *http.Request, c *sessiontoken.Claims[T]) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), contextKey[T]{s}, c))
}

// given returns the session that a test has given a request, if one has. No
// program but a test can: see package internal/testhook.
func (s *Sessions[T]) given(r *http.Request) (*sessiontoken.Claims[T], bool) {
	if testhook.Claims == nil {
		return nil, false
	}
	c, ok := testhook.Claims(r.Context(), s).(sessiontoken.Claims[T])
	return &c, ok
}

// now returns the time that a sign-in is compared with.
func (s *Sessions[T]) now(r *http.Request) (time.Time, error) {
	if _, ok := s.given(r); ok {
		return s.clock.Now(), nil
	}
	return s.cfg.Verifier.Now(r.Context())
}

// claims returns the session of a request, by the one credential that counts. It
// sets a cookie that was renewed, and removes one that is dead.
func (s *Sessions[T]) claims(w http.ResponseWriter, r *http.Request) (*sessiontoken.Claims[T], error) {
	if c, ok := s.given(r); ok {
		if err := s.checkOrigin(r); err != nil {
			return nil, err
		}
		return c, nil
	}
	token, isBearer, err := bearer(r.Header)
	switch {
	case err != nil:
		return nil, err
	case isBearer:
		return s.cfg.Verifier.Verify(r.Context(), token)
	}
	token, ok := onlyToken(r.Header, s.cookie)
	if !ok && len(r.CookiesNamed(s.cookie)) == 0 {
		return nil, ErrNoSession
	}
	if err := s.checkOrigin(r); err != nil {
		return nil, err
	}
	if !ok {
		token, err = s.sessionToken(r)
	}
	if err != nil {
		if errors.Is(err, errTwoSessions) {
			s.clearSession(w, r)
		}
		return nil, err
	}
	c, err := s.readCookie(w, r, token)
	if err != nil && isRefused(err) && s.isDead(r.Context(), token) {
		s.clearSession(w, r)
	}
	return c, err
}
