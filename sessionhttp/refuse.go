package sessionhttp

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

// staleSignIn is ErrTooOld with the age that was asked for.
type staleSignIn struct{ maxAge time.Duration }

func tooOld(maxAge time.Duration) error { return &staleSignIn{maxAge} }

func (e *staleSignIn) Error() string { return ErrTooOld.Error() }
func (e *staleSignIn) Unwrap() error { return ErrTooOld }

// Refuse answers a request that an error of this package or of package
// sessiontoken refused, as [Sessions.Require] does: for the errors of SignIn and
// SignOut.
func (s *Sessions[T]) Refuse(w http.ResponseWriter, r *http.Request, err error) { s.refuse(w, r, err) }

func (s *Sessions[T]) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.tell(r, err)
	status, challenge := answer(err)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	if status == http.StatusUnauthorized && s.cfg.Unauthorized != nil {
		s.cfg.Unauthorized.ServeHTTP(w, r)
		return
	}
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	http.Error(w, http.StatusText(status), status)
}

func (s *Sessions[T]) tell(r *http.Request, err error) {
	if s.cfg.OnRefused != nil {
		s.cfg.OnRefused(r, err)
	}
}

// answer is the status and the challenge of RFC 6750 section 3. Its texts are
// fixed: nothing that came with the request is in them.
func answer(err error) (status int, challenge string) {
	var stale *staleSignIn
	switch {
	case errors.Is(err, ErrNoSession):
		return http.StatusUnauthorized, "Bearer"
	case errors.Is(err, ErrBadRequest):
		return http.StatusBadRequest, `Bearer error="invalid_request"`
	case errors.Is(err, ErrCrossOrigin), errors.Is(err, ErrInsecure):
		return http.StatusForbidden, ""
	case errors.As(err, &stale): // RFC 9470 section 3
		return http.StatusUnauthorized, fmt.Sprintf(`Bearer error="insufficient_user_authentication", error_description="sign in again", max_age=%d`, int64(stale.maxAge/time.Second))
	case errors.Is(err, sessiontoken.ErrExpired):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="expired"`
	case errors.Is(err, sessiontoken.ErrRevoked), errors.Is(err, ErrSessionOver):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="revoked"`
	case errors.Is(err, sessiontoken.ErrAudience):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="wrong audience"`
	case errors.Is(err, sessiontoken.ErrInvalid):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="not valid"`
	}
	return http.StatusServiceUnavailable, ""
}
