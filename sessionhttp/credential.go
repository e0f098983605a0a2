package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// errTwoSessions is ErrBadRequest for two valid cookies of different sessions.
// One of them was planted, and the server does not know which. Both are
// removed.
var errTwoSessions = fmt.Errorf("%w: cookies of two sessions", ErrBadRequest)

// errTooMany is ErrBadRequest for a sign-out with more cookies of one name than
// are tried: one of the others may name a session.
var errTooMany = fmt.Errorf("%w: too many cookies of one name", ErrBadRequest)

// bearer reads the Authorization headers (RFC 6750 section 2.1). ok reports
// whether one has the scheme Bearer. Other schemes are ignored.
func bearer(h http.Header) (token string, ok bool, err error) {
	return bearerOf(h["Authorization"])
}

func bearerOf(values []string) (token string, ok bool, err error) {
	for _, v := range values {
		scheme, rest, spaced := strings.Cut(v, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		switch {
		case len(values) != 1:
			return "", true, fmt.Errorf("%w: more than one Authorization header", ErrBadRequest)
		case !spaced || !arg.IsToken68(rest):
			return "", true, fmt.Errorf("%w: no Bearer token", ErrBadRequest)
		}
		return rest, true, nil
	}
	return "", false, nil
}

// sessionToken returns the session token that a request's cookies present.
func (s *Sessions[T]) sessionToken(r *http.Request) (string, error) {
	tokens, found, _ := cookieTokens(r, s.cookie, maxTried, isJWS)
	switch {
	case !found:
		return "", ErrNoSession
	case len(tokens) == 0:
		return "", sessiontoken.ErrMalformed
	case len(tokens) == 1:
		return tokens[0], nil
	}
	return s.pick(r.Context(), tokens)
}

// pick chooses one of several tokens: the newest of those that are live or
// renewable, which must be of one session. If there is none, it returns a token
// to be refused: one that the issuer signed, if there is one.
func (s *Sessions[T]) pick(ctx context.Context, tokens []string) (string, error) {
	var best string
	var of *sessiontoken.Claims[T]
	last := tokens[0] // the token that the error is about
	for _, token := range tokens {
		c, err := s.liveOrRenewable(ctx, token)
		switch {
		case err == nil:
		case errors.Is(err, sessiontoken.ErrInvalid):
			if isAuthentic(err) {
				last = token
			}
			continue
		default:
			return "", err
		}
		if of != nil && of.SessionID != c.SessionID {
			return "", errTwoSessions
		}
		if of == nil || of.IssuedAt.Before(c.IssuedAt) {
			best, of = token, c
		}
	}
	if of == nil {
		return last, nil
	}
	return best, nil
}

// isAuthentic reports whether an error of Verify means that the token was
// signed by the issuer and is refused for another reason.
func isAuthentic(err error) bool {
	return isRenewable(err) || errors.Is(err, sessiontoken.ErrRevoked)
}

// errDryRun stops a renewal before it signs.
var errDryRun = errors.New("sessionhttp: the token is renewable")

// liveOrRenewable returns the claims of a cookie's token that is valid or
// renewable.
func (s *Sessions[T]) liveOrRenewable(ctx context.Context, token string) (*sessiontoken.Claims[T], error) {
	c, err := s.cfg.Verifier.Verify(ctx, token)
	if err == nil && !c.Renewable {
		return nil, sessiontoken.ErrNotRenewable
	}
	if s.cfg.Issuer == nil || !isRenewable(err) {
		return c, err
	}
	_, _, err = s.cfg.Issuer.Renew(ctx, token, func(_ context.Context, old *sessiontoken.Claims[T]) (T, error) {
		c = old
		var none T
		return none, errDryRun
	})
	if errors.Is(err, errDryRun) {
		return c, nil
	}
	return nil, err
}

// isDead reports whether a refused cookie may be removed: its signature is
// invalid, or its session reached MaxSession longer than IdleTimeout ago. Any
// other cookie is kept: the answer may arrive after that of a new sign-in, and
// would remove the new cookie.
func (s *Sessions[T]) isDead(ctx context.Context, token string) bool {
	if s.cfg.Issuer == nil {
		return false // another server may renew it
	}
	q, err := s.cfg.Issuer.Identify(ctx, token)
	if err != nil {
		return errors.Is(err, sessiontoken.ErrSignature)
	}
	now, err := s.cfg.Issuer.Now(ctx)
	return err == nil && now.After(q.Began.Add(s.issuer.MaxSession+s.issuer.IdleTimeout))
}

// named is a session that an authentic credential of a request names.
type named struct {
	id, subject string
	question    revoke.Question
	refresh     bool // named by a refresh token: question is not set
}

// identify returns the session that a token names, or nil if it names none.
func (s *Sessions[T]) identify(ctx context.Context, token string) (*named, error) {
	q, err := s.cfg.Issuer.Identify(ctx, token)
	switch {
	case err == nil:
		return &named{id: q.SessionID, subject: q.Subject, question: q}, nil
	case errors.Is(err, sessiontoken.ErrInvalid):
		return nil, nil
	}
	return nil, err
}
