package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// refreshBrowser is RefreshHandler for a refresh token in a cookie.
func (s *Sessions[T]) refreshBrowser(w http.ResponseWriter, r *http.Request) {
	if err := s.checkOriginAlways(r); err != nil {
		s.refuse(w, r, err)
		return
	}
	if !s.isSecure(r) {
		s.refuse(w, r, errInsecure)
		return
	}
	began := s.clock.Read()
	p, err := within(r.Context(), &s.loading, opLimit, func(ctx context.Context) (refresh.Presented, error) {
		return s.presentedCookie(ctx, r)
	})
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	_, k := s.binderOf(r)
	out, err := s.exchange(r.Context(), opLimit-s.clock.Steady(began), p, sessiontoken.Renewable, k)
	switch {
	case err == nil:
		s.setSession(w, out.token, out.claims, k)
		s.setRefresh(w, out.next, p.Binder, clock.Between(out.claims.IssuedAt, out.family.Ends), k)
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, refresh.ErrExpired):
		s.refuse(w, r, fmt.Errorf("%w: %w", sessiontoken.ErrExpired, err))
	case isRefused(err):
		s.refuse(w, r, fmt.Errorf("%w: %w", ErrSessionOver, err))
	default:
		s.refuse(w, r, err)
	}
}

// presentedCookie returns the refresh token among a request's cookies that
// belongs to the binder. Without a binder there is none: another host of the
// site can have planted the refresh cookie. A token that does not belong to the
// binder is ignored, and does not count as reuse.
func (s *Sessions[T]) presentedCookie(ctx context.Context, r *http.Request) (refresh.Presented, error) {
	tokens, _, _ := cookieTokens(r, s.refresh, maxFamilies, isOpaque)
	binder, _ := s.binderOf(r)
	if len(tokens) == 0 || binder == "" {
		return refresh.Presented{}, ErrNoSession
	}
	p := refresh.Presented{Binder: binder}
	if len(tokens) == 1 {
		p.Token = tokens[0]
		return p, nil
	}
	unknown := ErrNoSession
	for _, p.Token = range tokens {
		_, err := s.findFamily(ctx, p)
		switch {
		case err == nil:
			return p, nil
		case !errors.Is(err, refresh.ErrInvalid):
			unknown = err
		}
	}
	return refresh.Presented{}, unknown
}

// binderOf returns the binder of a request, or "" if there is none. A browser
// keeps one alone.
func (s *Sessions[T]) binderOf(r *http.Request) (binder string, k keeping) {
	cookies := r.CookiesNamed(s.binder)
	if len(cookies) != 1 || !isOpaque(cookies[0].Value) {
		return "", keepUnset
	}
	return cutKeeping(cookies[0].Value)
}
