package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// errTwoSessions is ErrBadRequest for two genuine cookies of different sessions:
// one of them was planted, and it cannot be told which. Both are removed.
var errTwoSessions = fmt.Errorf("%w: cookies of two sessions", ErrBadRequest)

// errTooMany is ErrBadRequest for a sign-out of which not all cookies were looked
// at: it cannot be said that none of the others names a session.
var errTooMany = fmt.Errorf("%w: too many cookies of one name", ErrBadRequest)

// bearer reads the Authorization headers (RFC 6750 section 2.1). ok is false if
// there is none of the scheme Bearer: other schemes are no credentials of ours.
func bearer(h http.Header) (token string, ok bool, err error) {
	values := h["Authorization"]
	for _, v := range values {
		scheme, rest, spaced := strings.Cut(v, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		switch {
		case len(values) != 1:
			return "", true, fmt.Errorf("%w: more than one Authorization header", ErrBadRequest)
		case !spaced || !isToken68(rest):
			return "", true, fmt.Errorf("%w: no Bearer token", ErrBadRequest)
		}
		return rest, true, nil
	}
	return "", false, nil
}

// isToken68 reports whether s is what RFC 6750 section 2.1 calls b64token.
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// sessionToken returns the one session token of a request's cookies that counts.
func (s *Sessions[T]) sessionToken(r *http.Request) (string, error) {
	tokens, found, _ := cookieTokens(r, s.cookie, maxLooked, isJWS)
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

// pick returns the token that counts of several ones: the only one that is live
// or can be renewed, the newest one of its session.
func (s *Sessions[T]) pick(ctx context.Context, tokens []string) (string, error) {
	var best string
	var of *sessiontoken.Claims[T]
	last := tokens[0] // what the error will be about
	for _, token := range tokens {
		c, err := s.goingOn(ctx, token)
		switch {
		case err == nil:
		case errors.Is(err, sessiontoken.ErrInvalid):
			if isGenuine(err) {
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

// isGenuine reports whether an error about a token of ours means that it was
// signed by us, and no more.
func isGenuine(err error) bool {
	return errors.Is(err, sessiontoken.ErrExpired) || errors.Is(err, sessiontoken.ErrRevoked)
}

var errOnlyAsked = errors.New("sessionhttp: only asked")

// goingOn returns the claims of a cookie's token that is valid or can be
// renewed.
func (s *Sessions[T]) goingOn(ctx context.Context, token string) (*sessiontoken.Claims[T], error) {
	c, err := s.cfg.Verifier.Verify(ctx, token)
	if err == nil && !c.Renewable {
		return nil, sessiontoken.ErrNotRenewable
	}
	if s.cfg.Issuer == nil || !errors.Is(err, sessiontoken.ErrExpired) {
		return c, err
	}
	_, _, err = s.cfg.Issuer.Renew(ctx, token, func(_ context.Context, old *sessiontoken.Claims[T]) (T, error) {
		c = old
		var none T
		return none, errOnlyAsked
	})
	if errors.Is(err, errOnlyAsked) {
		return c, nil
	}
	return nil, err
}

// isDead reports whether a cookie that was refused can be removed: it names no
// session at all, or its session ended so long ago that no answer to a request
// with it can still be under way, to remove the cookie of a new sign-in.
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

// named is a session that a request names by a genuine credential.
type named struct {
	id, subject string
	question    revoke.Question
	refresh     bool // by a refresh token: question is not made
}

// identify returns the session that a token names, nil if it names none.
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
