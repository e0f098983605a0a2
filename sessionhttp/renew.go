package sessionhttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

const (
	// waitGood is how long a request waits for a renewal whose old token is still
	// good: it goes on with that one, and a later request takes the new one.
	waitGood = 200 * time.Millisecond
	// waitExpired is how long it waits if there is nothing else to go on with.
	waitExpired = 2 * time.Second
	// rememberFor is how long at least the outcome of a renewal answers further
	// requests with the same old cookie: those that a browser had sent before it
	// got the new one.
	rememberFor = 10 * time.Second
)

// renewals renews each token once for all requests that bring it at the same
// time, and for those that come later, until the old token expires.
type renewals = *flight.Keyed[[sha256.Size]byte, string]

func newRenewals() renewals {
	return flight.NewKeyed[[sha256.Size]byte, string](flight.KeyedConfig{
		Limit: opLimit, Pause: 500 * time.Millisecond, MaxPause: 10 * time.Second, MaxRuns: 500, MaxKept: 10_000,
	})
}

func renewalKey(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// newest returns the last of the tokens that are remembered to have come of one, or
// that one itself.
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
	if s.cfg.Issuer == nil || err != nil && !errors.Is(err, sessiontoken.ErrExpired) || err == nil && !s.isDue(ctx, c) {
		return c, err
	}
	atMost := waitExpired
	if c != nil {
		atMost = waitGood
	}
	k := s.keepingOf(r, token)
	fresh, renewErr := s.renewCookie(w, r, k, func() (string, error) {
		renewed, err := s.renewals.Do(ctx, renewalKey(token), atMost, s.renewing(token, k, s.load))
		if err != nil {
			return "", err
		}
		return s.newest(renewed), nil
	})
	switch {
	case renewErr == nil:
		return fresh, nil
	case c == nil || isEnd(renewErr) || errors.Is(renewErr, errNotWritten):
		return nil, renewErr
	}
	// It cannot be renewed now, and the old one is still good.
	if !errors.Is(renewErr, flight.ErrWaited) && ctx.Err() == nil {
		s.tellRenewal(r, renewErr)
	}
	return c, nil
}

// Renew renews the session cookie of a request now, with the state that Load
// returns after the call: after a change of the user's role, say. Requests that
// come later with the old cookie get the new one. A request without a cookie is
// [ErrNoSession]: a client with a refresh token uses that. With an error no header
// was written; [Sessions.Refuse] answers it.
//
// The old token stays good until it expires, on other replicas too.
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

// renewNewest renews the newest token that has come of one, by renew. If another
// one has come of that before its turn, it is renewed instead.
func (s *Sessions[T]) renewNewest(token string, renew func(last string, left time.Duration) (string, error)) (string, error) {
	began := s.clock.Read()
	for {
		renewed, err := renew(s.newest(token), opLimit-s.clock.Steady(began))
		if !errors.Is(err, flight.ErrRemembered) {
			return renewed, err
		}
	}
}

// presented returns the token of the cookie that a request asks to renew.
func (s *Sessions[T]) presented(r *http.Request, checkOrigin func(*http.Request) error) (string, keeping, error) {
	if s.cfg.Issuer == nil {
		return "", keepUntold, errNoIssuer
	}
	if _, ok, err := bearer(r.Header); ok || err != nil {
		return "", keepUntold, ErrNoSession
	}
	token, err := s.sessionToken(r)
	if err == nil {
		err = checkOrigin(r)
	}
	if err == nil {
		_, err = s.goingOn(r.Context(), token)
	}
	return token, s.keepingOf(r, token), err
}

// renewCookie sets the cookie that renew returns.
func (s *Sessions[T]) renewCookie(w http.ResponseWriter, r *http.Request, k keeping, renew func() (string, error)) (*sessiontoken.Claims[T], error) {
	if !s.isSecure(r) {
		return nil, errInsecure
	}
	renewed, err := renew()
	if err != nil {
		return nil, err
	}
	// The session may have been revoked since: what was renewed is verified as it
	// came.
	c, err := s.cfg.Verifier.Verify(r.Context(), renewed)
	if err != nil {
		return nil, err
	}
	s.setSession(w, renewed, c, k)
	return c, nil
}

// renewing exchanges a token for one with the state that load returns.
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
			return renewed, 0, nil // it is good, and only not remembered
		}
		// Until the old token expires, which the new one does not before it. Past that
		// not so long that the new one is no longer good for a while itself.
		life := clock.Between(c.IssuedAt, c.Expires)
		late := min(rememberFor, clock.Between(now, c.Expires)-life/4)
		return renewed, max(clock.Between(now, old.Expires), late), nil
	}
}

// load asks Config.Load. A session that it calls over is revoked before anything
// else happens.
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
		return none, err // the session goes on nowhere here, and its cookie is kept
	}
	return none, ErrSessionOver
}

// undecided is what Load or the list failed with. It decides nothing about the
// session, whatever err is: another token that Load verified was expired, say.
type undecided struct {
	call string
	err  error
}

func (e undecided) Error() string { return "sessionhttp: " + e.call + ": " + e.err.Error() }
func (e undecided) Unwrap() error { return e.err }

// isDue reports whether a token should be renewed: in the second half of its
// life at the latest, and for tokens of one moment not all at one moment.
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

// isEnd reports whether a session has ended for good. A signature that cannot be
// verified, for one, may be that of a key which is not known here yet.
func isEnd(err error) bool {
	return isVerdict(err, sessiontoken.ErrExpired, sessiontoken.ErrRevoked, ErrSessionOver)
}

// isVerdict reports whether an error is one of some, and not what Load or the
// list failed with.
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
