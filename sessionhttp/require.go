package sessionhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// Require lets requests with a valid session through, and refuses the others:
// 401 with WWW-Authenticate as RFC 6750 section 3 says, 400 or 403 for what can
// be no request of ours, 503 if the server cannot tell.
//
// The answers are "Cache-Control: private, no-store" unless the handler says
// otherwise before it writes. An answer that sets a cookie is no-store whatever
// the handler says, and all of them vary by Cookie and Authorization: these hold
// by a second field line of the name in small letters.
func (s *Sessions[T]) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, err := s.read(w, r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Optional is Require for handlers that also answer those who are not signed in:
// requests without a session pass, and so do those whose cookie has ended or is
// not one of ours. A Bearer token that does not hold is refused all the same.
func (s *Sessions[T]) Optional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, err := s.read(w, r)
		_, isBearer, _ := bearer(r.Header)
		ended := isRefused(err)
		if err != nil && !isVerdict(err, ErrNoSession) && (isBearer || !ended) {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireFresh is Require for handlers that want a sign-in not longer ago than
// maxAge, by Claims.AuthTime: a change of password, a payment. Others are told to
// sign in again (RFC 9470 section 3), also if it is not known when they did.
func (s *Sessions[T]) RequireFresh(maxAge time.Duration, next http.Handler) http.Handler {
	return s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, err := s.cfg.Verifier.Now(r.Context())
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		c, ok := s.FromContext(r.Context())
		if !ok || c.AuthTime.IsZero() || clock.Between(c.AuthTime, now) > maxAge {
			s.refuse(w, r, tooOld(maxAge))
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// read returns the request with its session. It sets a cookie that was renewed,
// and removes one that is dead.
func (s *Sessions[T]) read(w http.ResponseWriter, r *http.Request) (*http.Request, error) {
	private(w.Header())
	c, err := s.claims(w, r)
	if err != nil {
		return r, err
	}
	return r.WithContext(context.WithValue(r.Context(), contextKey{s}, c)), nil
}

// claims returns the session of a request, by the one credential that counts.
func (s *Sessions[T]) claims(w http.ResponseWriter, r *http.Request) (*sessiontoken.Claims[T], error) {
	token, isBearer, err := bearer(r.Header)
	switch {
	case err != nil:
		return nil, err
	case isBearer:
		return s.cfg.Verifier.Verify(r.Context(), token)
	case len(r.CookiesNamed(s.cookie)) == 0:
		return nil, ErrNoSession
	}
	if err := s.checkOrigin(r); err != nil {
		return nil, err
	}
	token, err = s.sessionToken(r)
	if err != nil {
		if errors.Is(err, errTwoSessions) {
			s.clearSession(w, r)
		}
		return nil, err
	}
	c, err := s.readCookie(w, r, token)
	if isRefused(err) && s.isDead(r.Context(), token) {
		s.clearSession(w, r)
	}
	return c, err
}
