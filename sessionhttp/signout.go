package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// SignOut revokes the sessions that a request names by a cookie, a Bearer token
// or a refresh cookie, deletes their refresh tokens, and removes the cookies. A
// credential needs to be authentic alone: it may be expired, idle for too long,
// of another release's state type, or revoked already. A request that names no
// session is not an error.
//
// A concurrent request may set the cookie again, but the session of that cookie
// is revoked.
//
// Nil means that the store has acknowledged the revocation: every replica knows
// of it after its next reading of the store. With an error, nothing was written
// to w, and the session may still be accepted elsewhere: tell the user.
// [Sessions.Refuse] answers it, and the same request can be sent again. A
// client that goes away does not cancel the sign-out.
func (s *Sessions[T]) SignOut(w http.ResponseWriter, r *http.Request) error {
	if err := s.signOut(r, s.revokeThese); err != nil {
		return err
	}
	s.clearAll(w, r)
	return nil
}

// SignOutEverywhere is SignOut for all sessions of the user. It needs a session
// that is valid or renewable, or whose revocation the store has not
// acknowledged yet. Otherwise, and for an [Anonymous] session, it returns
// [ErrNoSession].
func (s *Sessions[T]) SignOutEverywhere(w http.ResponseWriter, r *http.Request) error {
	err := s.signOut(r, func(ctx context.Context, r *http.Request) error {
		mine, err := s.current(ctx, r)
		if err != nil {
			return err
		}
		if err := s.revokeForeign(ctx, r, mine.subject); err != nil {
			return err // before the request has lost its own session
		}
		if err := s.cfg.Revocations.RevokeSubject(ctx, mine.subject); err != nil {
			return notWritten(err)
		}
		s.tidy(ctx, func(ctx context.Context, m *refresh.Manager) error {
			return m.DeleteSubject(ctx, mine.subject, "")
		})
		return nil
	})
	if err != nil {
		return err
	}
	s.clearAll(w, r)
	return nil
}

// SignOutOthers revokes all sessions of the user except that of the request,
// such as after a change of password. It needs a session as SignOutEverywhere
// does.
func (s *Sessions[T]) SignOutOthers(_ http.ResponseWriter, r *http.Request) error {
	return s.signOut(r, func(ctx context.Context, r *http.Request) error {
		mine, err := s.current(ctx, r)
		if err != nil {
			return err
		}
		if err := s.cfg.Revocations.RevokeOthers(ctx, mine.subject, mine.id); err != nil {
			return notWritten(err)
		}
		s.tidy(ctx, func(ctx context.Context, m *refresh.Manager) error {
			return m.DeleteSubject(ctx, mine.subject, mine.id)
		})
		return nil
	})
}

// signOut checks the origin of a request and calls one of the three.
func (s *Sessions[T]) signOut(r *http.Request, out func(context.Context, *http.Request) error) error {
	if s.cfg.Issuer == nil {
		return errNoIssuer
	}
	if err := s.checkOriginAlways(r); err != nil {
		return err
	}
	_, err := within(r.Context(), &s.leaving, opLimit, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, out(ctx, r)
	})
	if err != nil {
		return fmt.Errorf("sessionhttp: sign-out: %w", err)
	}
	s.counted.signOuts.Add(1)
	return nil
}

// revokeThese revokes every session that a request names.
func (s *Sessions[T]) revokeThese(ctx context.Context, r *http.Request) error {
	return s.eachSession(ctx, r, func(n *named) error { return s.revoke(ctx, n.id) })
}

// revokeForeign revokes the sessions of other subjects that a request names,
// whose cookies will be removed.
func (s *Sessions[T]) revokeForeign(ctx context.Context, r *http.Request, subject string) error {
	return s.eachSession(ctx, r, func(n *named) error {
		if n.subject == subject {
			return nil
		}
		return s.revoke(ctx, n.id)
	})
}

// errNotWritten means that the store has not acknowledged a revocation. The
// list writes it again until the store does.
var errNotWritten = errors.New("sessionhttp: the revocation is not written yet")

func notWritten(err error) error { return fmt.Errorf("%w: %w", errNotWritten, err) }

// revoke revokes a session by an entry in the list. Then it deletes the refresh
// tokens, which the entry has made useless.
func (s *Sessions[T]) revoke(ctx context.Context, sessionID string) error {
	if err := s.cfg.Revocations.RevokeSession(ctx, sessionID); err != nil {
		return notWritten(err)
	}
	s.tidy(ctx, func(ctx context.Context, m *refresh.Manager) error { return m.DeleteSession(ctx, sessionID) })
	return nil
}

// tidy deletes the refresh tokens of revoked sessions. They are useless
// already, so that no request waits for it for long. The manager reports a
// failure.
func (s *Sessions[T]) tidy(ctx context.Context, remove func(context.Context, *refresh.Manager) error) {
	if s.cfg.Refresh != nil {
		_, _ = within(ctx, &s.tidying, time.Second, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, remove(ctx, s.cfg.Refresh)
		})
	}
}

// eachSession calls f for each session that the credentials of a request name.
// An error about one credential does not stop the others.
func (s *Sessions[T]) eachSession(ctx context.Context, r *http.Request, f func(*named) error) error {
	token, isBearer, err := bearer(r.Header)
	if err != nil {
		return err
	}
	f = once(f)
	if isBearer {
		err = s.withSession(ctx, token, f)
	}
	complete, e := s.eachCookieSession(ctx, r, f)
	if err = errors.Join(err, e); err == nil && !complete {
		err = errTooMany
	}
	return err
}

// eachCookieSession is eachSession for cookies. complete reports whether all
// cookies were tried.
func (s *Sessions[T]) eachCookieSession(ctx context.Context, r *http.Request, f func(*named) error) (complete bool, err error) {
	f = once(f)
	tokens, _, complete := cookieTokens(r, s.cookie, maxTried, isJWS)
	for _, token := range tokens {
		err = errors.Join(err, s.withSession(ctx, token, f))
	}
	binder, _ := s.binderOf(r)
	p := refresh.Presented{Binder: binder}
	if s.cfg.RefreshPath == "" || p.Binder == "" {
		return complete, err // refresh cookies are not accepted
	}
	tokens, _, all := cookieTokens(r, s.refresh, maxFamilies, isOpaque) // which are sent only below their path
	var unknown error
	for _, p.Token = range tokens {
		switch family, e := s.findFamily(ctx, p); {
		case e == nil: // and no other one has this binder
			return complete, errors.Join(err, f(&named{id: family.SessionID, subject: family.Subject, refresh: true}))
		case !errors.Is(e, refresh.ErrInvalid):
			unknown = errors.Join(unknown, e)
		}
	}
	return complete && all, errors.Join(err, unknown)
}

// findFamily returns the family of a refresh token. Its limit is shorter than
// that of a sign-out, which calls it.
func (s *Sessions[T]) findFamily(ctx context.Context, p refresh.Presented) (refresh.Family, error) {
	return within(ctx, &s.finding, findLimit, func(ctx context.Context) (refresh.Family, error) {
		return s.cfg.Refresh.Find(ctx, p)
	})
}

// withSession calls f with the session that a token names, if it names one.
func (s *Sessions[T]) withSession(ctx context.Context, token string, f func(*named) error) error {
	n, err := s.identify(ctx, token)
	if n == nil || err != nil {
		return err
	}
	return f(n)
}

// once returns a function that calls f for each session once.
func once(f func(*named) error) func(*named) error {
	seen := map[string]bool{}
	return func(n *named) error {
		if seen[n.id] {
			return nil
		}
		seen[n.id] = true
		return f(n)
	}
}

// current returns the session of the user of a request, for SignOutEverywhere
// and SignOutOthers. It must be valid or renewable, or its revocation must be
// unacknowledged. An anonymous session is refused.
func (s *Sessions[T]) current(ctx context.Context, r *http.Request) (*named, error) {
	n, err := s.currentSession(ctx, r)
	if err == nil && isAnonymous(n.subject) {
		return nil, ErrNoSession
	}
	return n, err
}

func (s *Sessions[T]) currentSession(ctx context.Context, r *http.Request) (*named, error) {
	token, isBearer, err := bearer(r.Header)
	if err == nil && !isBearer {
		if _, _, all := cookieTokens(r, s.cookie, maxTried, isJWS); !all {
			return nil, errTooMany
		}
		token, err = s.sessionToken(r)
	}
	if errors.Is(err, ErrNoSession) || errors.Is(err, sessiontoken.ErrMalformed) {
		return s.currentFamily(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	if isBearer {
		_, err = s.cfg.Verifier.Verify(ctx, token)
	} else {
		_, err = s.liveOrRenewable(ctx, token)
	}
	switch {
	case err == nil, errors.Is(err, revoke.ErrOwed), errors.Is(err, sessiontoken.ErrChanged):
		return s.live(ctx, token)
	case errors.Is(err, sessiontoken.ErrClaims) && !errors.Is(err, sessiontoken.ErrAudience):
		// The state may be of another release's type, or the issuer's clock
		// ahead.
		return s.live(ctx, token)
	case errors.Is(err, sessiontoken.ErrInvalid) && !isBearer:
		return s.currentFamily(ctx, r)
	case errors.Is(err, sessiontoken.ErrInvalid):
		return nil, ErrNoSession
	}
	return nil, err
}

// live returns the session that a token names. It fails if the session is
// revoked.
func (s *Sessions[T]) live(ctx context.Context, token string) (*named, error) {
	n, err := s.identify(ctx, token)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, ErrNoSession
	}
	return n, s.notRevoked(ctx, &n.question)
}

// notRevoked returns ErrNoSession for a session that is revoked, and nil for
// one whose revocation the store has not acknowledged.
func (s *Sessions[T]) notRevoked(ctx context.Context, q *revoke.Question) error {
	switch err := s.cfg.Revocations.Check(ctx, q); {
	case err == nil, errors.Is(err, revoke.ErrOwed):
		return nil
	case err == revoke.ErrRevoked: // itself: what wraps it may be an error of the store
		return ErrNoSession
	default:
		return undecided{"revocation is not known", err}
	}
}

// currentFamily is current for a request that has a refresh cookie alone.
func (s *Sessions[T]) currentFamily(ctx context.Context, r *http.Request) (*named, error) {
	if s.cfg.RefreshPath == "" {
		return nil, ErrNoSession
	}
	p, err := s.presentedCookie(ctx, r)
	if err != nil {
		return nil, err
	}
	f, err := s.findFamily(ctx, p)
	if errors.Is(err, refresh.ErrInvalid) {
		return nil, ErrNoSession
	}
	if err != nil {
		return nil, err
	}
	now, err := s.cfg.Issuer.Now(ctx)
	if err != nil {
		return nil, err
	}
	if !now.Before(f.Ends) || !now.Before(f.LastUsed.Add(s.cfg.Refresh.Config().IdleTimeout)) {
		return nil, ErrNoSession
	}
	q := revoke.Question{SessionID: f.SessionID, Subject: f.Subject, Began: f.Began}.Prepared()
	if err := s.notRevoked(ctx, &q); err != nil {
		return nil, err
	}
	if f.ActorSessionID != "" {
		q = revoke.Question{SessionID: f.ActorSessionID, Subject: f.ActorSubject, Began: f.ActorBegan}.Prepared()
		err = s.notRevoked(ctx, &q)
	}
	return &named{id: f.SessionID, subject: f.Subject, refresh: true}, err
}
