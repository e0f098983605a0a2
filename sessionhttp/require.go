package sessionhttp

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/testhook"
)

// Check returns the session of a request. It makes the checks of
// [Sessions.Require] for code that is not middleware, such as a WebSocket or a
// framework. With an error, [Sessions.Refuse] answers the request.
//
// Check sets the headers of the answer in w: those about caching, and the
// cookie that it renewed. Code that answers without w, such as an upgrade, must
// send them.
func (s *Sessions[T]) Check(w http.ResponseWriter, r *http.Request) (*sessiontoken.Claims[T], error) {
	private(w.Header())
	return s.claims(w, r)
}

// CheckBearer returns the session of the values of an Authorization field, for
// protocols other than HTTP requests, such as gRPC. It reads no cookie. Its
// errors are those of Check; they are counted, and logged as [Sessions.Refuse]
// does.
func (s *Sessions[T]) CheckBearer(ctx context.Context, authorization []string) (*sessiontoken.Claims[T], error) {
	if c, ok := s.given(ctx); ok {
		return c, nil
	}
	token, isBearer, err := bearerOf(authorization)
	if err == nil && !isBearer {
		err = ErrNoSession
	}
	if err == nil {
		var c *sessiontoken.Claims[T]
		if c, err = s.cfg.Verifier.Verify(ctx, token); err == nil {
			return c, nil
		}
	}
	s.count(ctx, err)
	return nil, err
}

// Require calls next for requests with a valid session. It refuses the others:
//
//   - 401, with WWW-Authenticate (RFC 6750 section 3), without a valid session;
//   - 400 for malformed credentials;
//   - 403 for another origin;
//   - 503 if the server cannot decide.
//
// It panics if next is nil.
//
// A session that is [Anonymous] passes: its Subject begins with "anonymous:".
//
// Require sets "Cache-Control: private, no-store", which the handler may change
// before it writes. It also sets "Vary: Cookie, Authorization" and, on an
// answer that sets a cookie, no-store. The handler cannot change these two:
// they have a second field line whose name is in lower case.
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

// Optional is Require for handlers that also answer users who are not signed
// in. A request without a session passes, and so does one whose cookie has
// expired or is not a token of ours. A request with an invalid Bearer token is
// refused.
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

// RequireFresh is Require for handlers that need a recent proof of who the user
// is, such as a payment: Claims.AuthTime is at most maxAge ago. Another session
// gets a 401 that asks the user to sign in again (RFC 9470 section 3). So does
// one without an AuthTime, and one that is [Anonymous].
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

// RequireACR is Require for handlers that need a proof of a certain strength,
// such as one with a second factor: Claims.ACR returns one of values. Another
// session gets a 401 that asks the user to sign in with one of them, the
// preferred one first (RFC 9470 section 3). So does one without an ACR, and one
// that is [Anonymous].
//
// It panics if next is nil, if values is empty, and if a value cannot be asked
// for or can be no session's: each has 1 to 64 bytes of ASCII, without spaces,
// control characters, quotes and backslashes.
func (s *Sessions[T]) RequireACR(values []string, next http.Handler) http.Handler {
	needed(next)
	if len(values) == 0 || slices.ContainsFunc(values, func(v string) bool { return !isACRValue(v) }) {
		panic("sessionhttp: RequireACR: values is empty, or has one that is not 1 to 64 bytes of ASCII without spaces, quotes and backslashes")
	}
	values = slices.Clone(values)
	return s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := s.FromContext(r.Context())
		if !ok || isAnonymous(c.Subject) || !slices.Contains(values, c.ACR()) {
			s.refuse(w, r, &otherACR{strings.Join(values, " ")})
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// isACRValue reports whether a value can be written in the parameter
// acr_values, a quoted string of values with spaces between them, and be the
// ACR of a session.
func isACRValue(v string) bool {
	isOther := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }
	return v != "" && len(v) <= 64 && !strings.ContainsFunc(v, isOther)
}

// needed panics if a handler is nil, as net/http does.
func needed(next http.Handler) {
	if arg.IsNil(next) {
		panic("sessionhttp: nil handler")
	}
}

// with returns a request with its session.
func (s *Sessions[T]) with(r *http.Request, c *sessiontoken.Claims[T]) *http.Request {
	var value any = c
	if c.Renewable {
		if _, ok, _ := bearer(r.Header); ok {
			value = (*bearerClaims[T])(c)
		}
	}
	return r.WithContext(context.WithValue(r.Context(), contextKey[T]{s}, value))
}

// given returns the session that a test has put into a context, if there is one. Only a test can do that: see package internal/testhook.
func (s *Sessions[T]) given(ctx context.Context) (*sessiontoken.Claims[T], bool) {
	if testhook.Claims == nil {
		return nil, false
	}
	c, ok := testhook.Claims(ctx, s).(sessiontoken.Claims[T])
	return &c, ok
}

// isTest reports whether a context has a session that a test has put into it.
func (s *Sessions[T]) isTest(ctx context.Context) bool {
	return testhook.Claims != nil && testhook.Claims(ctx, s) != nil
}

// now returns the time that an AuthTime is compared with.
func (s *Sessions[T]) now(r *http.Request) (time.Time, error) {
	if _, ok := s.given(r.Context()); ok {
		return s.clock.Now(), nil
	}
	return s.cfg.Verifier.Now(r.Context())
}

// claims returns the session of a request. It sets a cookie that was renewed,
// and removes one that is dead.
func (s *Sessions[T]) claims(w http.ResponseWriter, r *http.Request) (*sessiontoken.Claims[T], error) {
	if c, ok := s.given(r.Context()); ok {
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
