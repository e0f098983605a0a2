package sessionhttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

const (
	// waitValid is how long a request waits for a renewal while its old token
	// is valid. After that it is served with the old token, and a later request
	// gets the new one.
	waitValid = 200 * time.Millisecond
	// waitExpired is how long a request waits for a renewal if its old token
	// has expired.
	waitExpired = 2 * time.Second
	// rememberFor is how long at least the result of a renewal is kept for
	// other requests with the old cookie, which a browser sent before it got
	// the new one.
	rememberFor = 10 * time.Second
)

// renewals renews each token once: concurrent requests with it share the
// renewal, and later ones get its result until the old token expires.
type renewals = *flight.Keyed[[sha256.Size]byte, string]

func newRenewals() renewals {
	return flight.NewKeyed[[sha256.Size]byte, string](flight.KeyedConfig{
		Limit: opLimit, Pause: 500 * time.Millisecond, MaxPause: 10 * time.Second, MaxRuns: 500, MaxKept: 10_000,
	})
}

func renewalKey(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// newest follows the remembered renewals of a token and returns the last token,
// or the token itself if there is none.
func (s *Sessions[T]) newest(token string) string {
	if last, ok := s.renewals.Last(renewalKey(token), renewalKey); ok {
		return last
	}
	return token
}

// readCookie verifies a cookie's token. It renews one that is due, or that has
// expired and can still be renewed.
func (s *Sessions[T]) readCookie(w http.ResponseWriter, r *http.Request, token string) (*sessiontoken.Claims[T], error) {
	ctx := r.Context()
	c, err := s.cfg.Verifier.Verify(ctx, token)
	if err == nil && !c.Renewable {
		return nil, sessiontoken.ErrNotRenewable // an access token of a native client
	}
	if s.cfg.Issuer == nil || err != nil && !isRenewable(err) || err == nil && !s.isDue(ctx, c) {
		return c, err
	}
	atMost := waitExpired
	if c != nil {
		atMost = waitValid
	}
	k := s.keepingOf(r, token)
	fresh, renewErr := s.renewCookie(w, r, k, func() (string, error) { return s.renewDue(ctx, token, k, atMost) })
	switch {
	case renewErr == nil:
		return fresh, nil
	case c == nil || isEnd(renewErr) || errors.Is(renewErr, errNotWritten):
		return nil, renewErr
	}
	// The renewal failed, and the old token is still valid.
	if !errors.Is(renewErr, flight.ErrWaited) && ctx.Err() == nil {
		s.reportRenewal(r, renewErr)
	}
	return c, nil
}

// isRenewable reports whether an error of Verify leaves it to Renew whether the
// token can be renewed: the token has expired, or its state cannot be read.
func isRenewable(err error) bool {
	return errors.Is(err, sessiontoken.ErrExpired) || errors.Is(err, sessiontoken.ErrState)
}

// renewDue returns the newest token that renewals of a token have made, unless
// its state has changed since. Then, or if there is none, it renews the newest
// one. If the state changes while Load runs, it renews once more, and no
// further: Load of that second renewal began after the call.
func (s *Sessions[T]) renewDue(ctx context.Context, token string, k keeping, atMost time.Duration) (string, error) {
	began, newest := s.clock.Read(), s.newest(token)
	for runs := 0; runs < 2 && (newest == token || s.isStale(ctx, newest)); runs++ {
		renewed, err := s.renewals.Do(ctx, renewalKey(newest), atMost-s.clock.Steady(began), s.renewing(newest, k, s.load))
		if err != nil {
			return "", err
		}
		newest = s.newest(renewed)
	}
	return newest, nil
}

// isStale reports whether the state of a token has changed.
func (s *Sessions[T]) isStale(ctx context.Context, token string) bool {
	_, err := s.cfg.Verifier.Verify(ctx, token)
	return errors.Is(err, sessiontoken.ErrChanged)
}

// Changed marks the state of a subject as changed, such as after a change of
// the user's role. Call it after the change is committed; Load must read the
// database that has it. A request with a cookie from before is then answered
// with the state that Load returns now, and gets a new cookie. A Bearer token
// from before is 401, and its client refreshes. No session ends.
//
// Other replicas do so after the next reading of their list. Nil means that
// the store has acknowledged the mark. After an error, call it again: see
// [revoke.List.Changed].
func (s *Sessions[T]) Changed(ctx context.Context, subject string) error {
	if s.cfg.Revocations == nil {
		return errNoIssuer
	}
	if err := s.cfg.Revocations.Changed(ctx, subject); err != nil {
		return fmt.Errorf("sessionhttp: Changed: %w", err)
	}
	return nil
}

// Renew renews the session cookie of a request now, with the state that Load
// returns after the call. Where others change the state, use Changed. Later
// requests with the old cookie get the new one. A request without a cookie is
// [ErrNoSession]: a client with a refresh token exchanges that instead. With an
// error no header was written; [Sessions.Refuse] answers it.
//
// The old token stays valid until it expires, on every replica.
func (s *Sessions[T]) Renew(w http.ResponseWriter, r *http.Request) (*sessiontoken.Claims[T], error) {
	token, k, err := s.presented(r, s.checkOrigin)
	if err != nil {
		return nil, err
	}
	return s.renewCookie(w, r, k, func() (string, error) {
		return s.renewNewest(token, func(last string, left time.Duration) (string, error) {
			return s.renewals.After(r.Context(), renewalKey(last), left, s.renewing(last, k, s.load))
		})
	})
}

// renewNewest calls renew for the newest token that renewals of a token have
// made. If another renewal of that one finishes first, it renews the result
// instead.
func (s *Sessions[T]) renewNewest(token string, renew func(last string, left time.Duration) (string, error)) (string, error) {
	began := s.clock.Read()
	for {
		renewed, err := renew(s.newest(token), opLimit-s.clock.Steady(began))
		if !errors.Is(err, flight.ErrRemembered) {
			return renewed, err
		}
	}
}

// presented returns the token of a request's cookie that is to be renewed.
func (s *Sessions[T]) presented(r *http.Request, checkOrigin func(*http.Request) error) (string, keeping, error) {
	if s.cfg.Issuer == nil {
		return "", keepUnset, errNoIssuer
	}
	if _, ok, err := bearer(r.Header); ok || err != nil {
		return "", keepUnset, ErrNoSession
	}
	token, err := s.sessionToken(r)
	if err == nil {
		err = checkOrigin(r)
	}
	if err == nil {
		_, err = s.liveOrRenewable(r.Context(), token)
	}
	return token, s.keepingOf(r, token), err
}

// renewCookie calls renew and sets the cookie with the new token.
func (s *Sessions[T]) renewCookie(w http.ResponseWriter, r *http.Request, k keeping, renew func() (string, error)) (*sessiontoken.Claims[T], error) {
	if !s.isSecure(r) {
		return nil, errInsecure
	}
	renewed, err := renew()
	if err != nil {
		return nil, err
	}
	// The session may have been revoked since: the new token is verified too.
	// If its state has changed while Load ran, the token is used for this
	// request, which came before, and renewed at the next one.
	c, err := s.cfg.Verifier.Verify(r.Context(), renewed)
	if errors.Is(err, sessiontoken.ErrChanged) {
		c, err = s.liveOrRenewable(r.Context(), renewed)
	}
	if err != nil {
		return nil, err
	}
	s.setSession(w, renewed, c, k)
	return c, nil
}

// renewing returns a function that exchanges a token for one with the state
// that load returns.
func (s *Sessions[T]) renewing(token string, k keeping, load func(context.Context, *sessiontoken.Claims[T]) (T, error)) flight.Func[string] {
	return func(ctx context.Context) (string, time.Duration, error) {
		var old *sessiontoken.Claims[T]
		renewed, c, err := s.cfg.Issuer.Renew(ctx, token, func(ctx context.Context, o *sessiontoken.Claims[T]) (T, error) {
			old = o
			return load(ctx, o)
		})
		if err == nil {
			err = s.fits(renewed, k)
		}
		if err != nil {
			if !errors.Is(err, errNotUpdated) {
				s.counted.renewalsFailed.Add(1)
			}
			return "", 0, err
		}
		s.counted.renewals.Add(1)
		now, err := s.cfg.Issuer.Now(ctx)
		if err != nil {
			return renewed, 0, nil // the new token is valid, and not remembered
		}
		// Remember the result until the old token expires, and at least for
		// rememberFor, but not into the last part of the new token's life.
		life := clock.Between(c.IssuedAt, c.Expires)
		late := min(rememberFor, clock.Between(now, c.Expires)-life/4)
		return renewed, max(clock.Between(now, old.Expires), late), nil
	}
}

// load calls Config.Load. If that returns ErrSessionOver, load revokes the
// session before it returns.
func (s *Sessions[T]) load(ctx context.Context, old *sessiontoken.Claims[T]) (T, error) {
	state, err := s.cfg.Load(ctx, old)
	switch {
	case err == nil:
		return state, nil
	case !errors.Is(err, ErrSessionOver):
		return state, undecided{"Load", err}
	}
	var none T
	if err := s.revoke(ctx, old.SessionID); err != nil {
		return none, err // the session is refused here, and the cookie is kept
	}
	return none, ErrSessionOver
}

// undecided is an error of Load or of the list. It says nothing about the
// session, even if err matches ErrExpired: err may be about another token,
// which Load verified.
type undecided struct {
	call string
	err  error
}

func (e undecided) Error() string { return "sessionhttp: " + e.call + ": " + e.err.Error() }
func (e undecided) Unwrap() error { return e.err }

// isDue reports whether a token should be renewed: after half its life, less up
// to an eighth of its life. The eighth depends on the token, so that tokens
// issued at one moment are not renewed at one moment.
func (s *Sessions[T]) isDue(ctx context.Context, c *sessiontoken.Claims[T]) bool {
	now, err := s.cfg.Issuer.Now(ctx)
	if err != nil {
		return false
	}
	life := clock.Between(c.IssuedAt, c.Expires)
	sum := sha256.Sum256([]byte(c.TokenID))
	early := life / 8 * time.Duration(sum[0]) / 256
	return !now.Before(c.IssuedAt.Add(life/2 - early))
}

// isEnd reports whether an error means that a session has ended for good.
// ErrSignature does not: the key may be one that this process has not read yet.
func isEnd(err error) bool {
	return isVerdict(err, sessiontoken.ErrExpired, sessiontoken.ErrRevoked, ErrSessionOver)
}

// isVerdict reports whether an error matches one of some and is not an error of
// Load or of the list.
func isVerdict(err error, some ...error) bool {
	var open undecided
	if errors.As(err, &open) {
		return false
	}
	for _, target := range some {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
