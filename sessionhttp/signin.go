package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// SignIn begins a session for a browser: it issues a token and sets the cookie.
// Call it after the user has proven who they are, in a handler that a form of
// your own site posts to: a request from another origin is [ErrCrossOrigin], so
// that nobody can be signed in as somebody else.
//
// A session that the request already has is ended: nothing that was there before
// the sign-in, planted or stolen, becomes the new session. With an error no
// header was written; [Sessions.Refuse] answers it.
func (s *Sessions[T]) SignIn(w http.ResponseWriter, r *http.Request, subject string, state T) (*sessiontoken.Claims[T], error) {
	switch {
	case s.cfg.Issuer == nil:
		return nil, errors.New("sessionhttp: SignIn: Config.Issuer is not set")
	case s.origins.Check(r) != nil:
		return nil, ErrCrossOrigin
	case !s.isSecure(r):
		return nil, ErrInsecure
	}
	for _, c := range r.CookiesNamed(s.cookie) {
		old, err := s.sessionOf(r.Context(), c.Value)
		if err != nil {
			return nil, err
		}
		if old != nil {
			if err := s.end(r.Context(), old); err != nil {
				return nil, err
			}
		}
	}
	token, c, err := s.cfg.Issuer.Issue(r.Context(), subject, state)
	if err != nil {
		return nil, err
	}
	if err := s.fits(token); err != nil {
		return nil, err
	}
	if s.cfg.RefreshPath != "" {
		f := refresh.Family{Subject: c.Subject, SessionID: c.SessionID, Created: c.AuthTime}
		if s.cfg.DeviceLabel != nil {
			f.Label = s.cfg.DeviceLabel(r)
		}
		refreshToken, f, err := s.cfg.Refresh.Start(r.Context(), f)
		if err != nil {
			return nil, err
		}
		s.setRefresh(w, refreshToken, f.Ends)
	}
	s.set(w, token)
	return c, nil
}

// SignOut ends the session of a request, of whatever kind, with its refresh
// tokens, and clears the cookie. It wins over what is under way: a request that
// began before it may still set the cookie again, but the session of that cookie
// is over. That there is no session is no error.
//
// With an error nothing was written, and the session may go on; the user must be
// told. [Sessions.Refuse] answers it.
func (s *Sessions[T]) SignOut(w http.ResponseWriter, r *http.Request) error {
	return s.signOut(w, r, s.end)
}

// SignOutEverywhere is SignOut for all sessions of the user. It needs a session
// that is valid or can still be renewed; otherwise it is [ErrNoSession].
func (s *Sessions[T]) SignOutEverywhere(w http.ResponseWriter, r *http.Request) error {
	found := false
	err := s.signOut(w, r, func(ctx context.Context, c *sessiontoken.Claims[T]) error {
		found = true
		if s.cfg.Refresh != nil {
			if err := s.cfg.Refresh.EndSubject(ctx, c.Subject); err != nil {
				return err
			}
		}
		return s.cfg.Ender.EndSubject(ctx, c.Subject)
	})
	if err == nil && !found {
		return ErrNoSession
	}
	return err
}

func (s *Sessions[T]) signOut(w http.ResponseWriter, r *http.Request, end func(context.Context, *sessiontoken.Claims[T]) error) error {
	if s.cfg.Issuer == nil {
		return errors.New("sessionhttp: SignOut: Config.Issuer is not set")
	}
	if s.origins.Check(r) != nil {
		return ErrCrossOrigin
	}
	var tokens []string
	if auth, ok := r.Header["Authorization"]; ok {
		token, err := bearer(auth)
		if err != nil {
			return err
		}
		tokens = append(tokens, token)
	} else {
		for _, c := range r.CookiesNamed(s.cookie) { // all of them, planted ones too
			tokens = append(tokens, c.Value)
		}
	}
	for _, token := range tokens {
		c, err := s.sessionOf(r.Context(), token)
		if err != nil {
			return err
		}
		if c != nil {
			if err := end(r.Context(), c); err != nil {
				return fmt.Errorf("sessionhttp: sign-out: %w", err)
			}
		}
	}
	if s.cfg.RefreshPath != "" { // which is sent only below its path
		for _, c := range r.CookiesNamed(s.refreshCookie("").Name) {
			if err := s.cfg.Refresh.End(r.Context(), c.Value); err != nil && !errors.Is(err, refresh.ErrInvalid) {
				return fmt.Errorf("sessionhttp: sign-out: %w", err)
			}
		}
	}
	s.clearRefresh(w)
	s.clear(w)
	return nil
}

// end ends a session wherever it is known.
func (s *Sessions[T]) end(ctx context.Context, c *sessiontoken.Claims[T]) error {
	if s.cfg.Refresh != nil {
		if err := s.cfg.Refresh.EndSession(ctx, c.Subject, c.SessionID); err != nil {
			return err
		}
	}
	return s.cfg.Ender.EndSession(ctx, c.SessionID)
}

var errOnlyAsked = errors.New("sessionhttp: only asked")

// sessionOf returns the session of a token that is valid or could be renewed,
// nil if it is neither, and an error if that cannot be told.
func (s *Sessions[T]) sessionOf(ctx context.Context, token string) (*sessiontoken.Claims[T], error) {
	c, err := s.cfg.Verifier.Verify(ctx, token)
	if errors.Is(err, sessiontoken.ErrExpired) {
		_, _, err = s.cfg.Issuer.Renew(ctx, token, func(_ context.Context, old *sessiontoken.Claims[T]) (T, error) {
			c = old
			var none T
			return none, errOnlyAsked
		})
	}
	switch {
	case err == nil, errors.Is(err, errOnlyAsked):
		return c, nil
	case errors.Is(err, sessiontoken.ErrInvalid):
		return nil, nil
	}
	return nil, err
}
