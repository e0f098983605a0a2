package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// staleSignIn means that the sign-in is longer ago than the handler allows, or
// that its time is not known. 401.
type staleSignIn struct{ maxAge time.Duration }

func (e *staleSignIn) Error() string { return "sessionhttp: the sign-in is too long ago" }

// otherACR means that the user did not prove who they are in one of the ways
// that the handler asks for, or that it is not known how. 401.
type otherACR struct{ values string }

func (e *otherACR) Error() string { return "sessionhttp: the sign-in has another acr" }

// Refuse answers a request that failed with an error of this package or of
// package sessiontoken, as [Sessions.Require] does. Use it for the errors of
// SignIn and SignOut. 503 means that the same request may succeed a second
// later. A request that can never succeed, such as one with a state over its
// budget, is 500.
func (s *Sessions[T]) Refuse(w http.ResponseWriter, r *http.Request, err error) { s.refuse(w, r, err) }

func (s *Sessions[T]) refuse(w http.ResponseWriter, r *http.Request, err error) {
	s.report(r, err)
	status, challenge := statusAndChallenge(err)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	varies(h)
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

// report reports a refusal to OnRefused, to the metrics and, unless it is the
// client's fault alone, to the log.
func (s *Sessions[T]) report(r *http.Request, err error) {
	if s.cfg.OnRefused != nil {
		s.cfg.OnRefused(r, err)
	}
	s.count(r.Context(), err)
}

// count reports a refusal to the metrics and the log.
func (s *Sessions[T]) count(ctx context.Context, err error) {
	f := faultOf(err)
	if ctx.Err() != nil {
		f = faultGone // the client has gone away
	}
	s.counted.refused(f)
	if f.message != "" {
		s.log.Warn(f.reason, "sessionhttp: "+f.message, "err", err)
	}
	if s.events != nil && f != faultNoSession && f != faultGone {
		s.events.Send(ctx, event.Event{Kind: event.Refused, Reason: refusedFor(f, err)})
	}
}

// refusedFor returns the reason of an event: that of f or, if the credential is
// at fault, a more exact one.
func refusedFor(f fault, err error) string {
	if f != faultClient {
		return f.reason
	}
	var stale *staleSignIn
	var other *otherACR
	if errors.As(err, &stale) || errors.As(err, &other) {
		return "step_up"
	}
	for _, r := range [...]struct {
		err    error
		reason string
	}{ // the narrower ones first
		{sessiontoken.ErrChanged, "changed"},
		{sessiontoken.ErrState, "state"},
		{sessiontoken.ErrAudience, "audience"},
		{sessiontoken.ErrExpired, "expired"},
		{sessiontoken.ErrRevoked, "revoked"},
		{ErrSessionOver, "over"},
		{sessiontoken.ErrMalformed, "malformed"},
		{sessiontoken.ErrSignature, "signature"},
		{sessiontoken.ErrInvalid, "claims"},
		{refresh.ErrReused, "reused"},
		{refresh.ErrExpired, "expired"},
		{refresh.ErrClient, "client"},
		{refresh.ErrBinder, "binder"},
		{refresh.ErrInvalid, "refresh_token"},
	} {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	return "request"
}

// reportRenewal reports a renewal that failed while the old token is still
// valid. The request is served all the same.
func (s *Sessions[T]) reportRenewal(r *http.Request, err error) {
	if s.cfg.OnRefused != nil {
		s.cfg.OnRefused(r, err)
	}
	s.log.Warn("renewal_failed", "sessionhttp: a cookie could not be renewed; its token is still valid, and its user is refused when it expires: "+faultOf(err).message, "err", err)
}

// statusAndChallenge returns the status and the challenge of RFC 6750 section
// 3. The texts are fixed and hold nothing of the request.
func statusAndChallenge(err error) (status int, challenge string) {
	var stale *staleSignIn
	var other *otherACR
	var open undecided
	switch {
	case isPermanent(err):
		return http.StatusInternalServerError, ""
	case errors.As(err, &open):
		return http.StatusServiceUnavailable, ""
	case errors.Is(err, errNotWritten), errors.Is(err, revoke.ErrOwed):
		return http.StatusServiceUnavailable, ""
	case errors.Is(err, ErrNoSession):
		return http.StatusUnauthorized, "Bearer"
	case errors.Is(err, ErrBadRequest):
		return http.StatusBadRequest, `Bearer error="invalid_request"`
	case errors.Is(err, ErrCrossOrigin), errors.Is(err, errInsecure):
		return http.StatusForbidden, ""
	case errors.As(err, &stale): // RFC 9470 section 3
		return http.StatusUnauthorized, fmt.Sprintf(`Bearer error="insufficient_user_authentication", error_description="sign in again", max_age=%d`, int64(stale.maxAge/time.Second))
	case errors.As(err, &other):
		return http.StatusUnauthorized, fmt.Sprintf(`Bearer error="insufficient_user_authentication", error_description="sign in in another way", acr_values="%s"`, other.values)
	case errors.Is(err, sessiontoken.ErrChanged):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="state changed"`
	case errors.Is(err, sessiontoken.ErrState):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="state of another version"`
	case errors.Is(err, sessiontoken.ErrExpired):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="expired"`
	case errors.Is(err, sessiontoken.ErrRevoked), errors.Is(err, ErrSessionOver):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="revoked"`
	case errors.Is(err, sessiontoken.ErrAudience):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="wrong audience"`
	case errors.Is(err, sessiontoken.ErrInvalid), errors.Is(err, refresh.ErrInvalid):
		return http.StatusUnauthorized, `Bearer error="invalid_token", error_description="not valid"`
	}
	return http.StatusServiceUnavailable, ""
}

// isPermanent reports whether the same request would fail in the same way again.
func isPermanent(err error) bool {
	var size *sessiontoken.SizeError
	return errors.As(err, &size) || errors.Is(err, errCookieSize) || isUnwritable(err) ||
		errors.Is(err, errNoIssuer) || errors.Is(err, errNoRefresh) || errors.Is(err, errSubject) || errors.Is(err, errActor)
}

// isUnwritable reports whether a state cannot be written as JSON, such as one
// with text that is not valid UTF-8.
func isUnwritable(err error) bool {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	return errors.As(err, &semantic) || errors.As(err, &syntactic)
}

// fault is a kind of refusal. One with a message is logged.
type fault struct {
	reason  string
	message string // what happens, and what to do
}

var (
	faultClient    = fault{"invalid_credentials", ""}
	faultNoSession = fault{"no_session", ""}
	faultGone      = fault{"client_gone", ""}

	faultCrossOrigin = fault{"cross_origin", "a request from another origin was refused; if the origin is yours, name it in Config.TrustedOrigins; a login provider's redirect needs InsecureCrossSiteCallback"}
	faultInsecure    = fault{"insecure", "no token is handed out over plain http; serve https, or set Config.TLSInFront if a proxy in front takes requests over https alone"}
	faultSize        = fault{"too_large", "a session token is larger than IssuerConfig.MaxBytes or than the cookies that browsers keep; make the state smaller: Issuer.Size shows the largest claims"}
	faultState       = fault{"state_unwritable", "a state cannot be written as JSON; text must be valid UTF-8"}
	faultMisuse      = fault{"not_configured", "a call can never succeed: it needs Config.Issuer or Config.Refresh, which is not set, or it has a subject or an actor that SignIn does not accept"}
	faultOwed        = fault{"revocation_owed", "the store has not acknowledged a revocation, which is written again until it does; check the store of the revocations"}
	faultLate        = fault{"late", "Load, a store or the signer did not answer in time; check what it waits for, and that it heeds its context"}
	faultPanic       = fault{"panic", "Load or a store panicked; what it panicked with is not logged"}
	faultUnknown     = fault{"cannot_tell", "a request could not be decided; check the store or the key server that the error names"}

	faults = []fault{faultClient, faultNoSession, faultGone, faultCrossOrigin, faultInsecure, faultSize, faultState, faultMisuse, faultOwed, faultLate, faultPanic, faultUnknown}
)

func faultOf(err error) fault {
	var size *sessiontoken.SizeError
	switch status, _ := statusAndChallenge(err); {
	case status == http.StatusForbidden && errors.Is(err, ErrCrossOrigin):
		return faultCrossOrigin
	case status == http.StatusForbidden:
		return faultInsecure
	case status < http.StatusInternalServerError && errors.Is(err, ErrNoSession):
		return faultNoSession
	case status < http.StatusInternalServerError:
		return faultClient
	case errors.As(err, &size), errors.Is(err, errCookieSize):
		return faultSize
	case isUnwritable(err):
		return faultState
	case isPermanent(err):
		return faultMisuse
	case errors.Is(err, revoke.ErrOwed), errors.Is(err, errNotWritten):
		return faultOwed
	case errors.Is(err, errPanic), errors.Is(err, flight.ErrPanic):
		return faultPanic
	case errors.Is(err, errOpLate), errors.Is(err, errOpStuck), errors.Is(err, flight.ErrLate), errors.Is(err, flight.ErrWaited), errors.Is(err, flight.ErrStuck), errors.Is(err, flight.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		return faultLate
	}
	return faultUnknown
}
