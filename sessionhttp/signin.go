package sessionhttp

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

var (
	errNoIssuer  = errors.New("sessionhttp: Config.Issuer is not set")
	errNoRefresh = errors.New("sessionhttp: Config.Refresh is not set")
	// errSubject is a mistake of the caller, and not of the user.
	errSubject = errors.New("sessionhttp: Start.Subject is required and must not begin with \"anonymous:\"; with Anonymous it is left empty")
	// errActor is one too: whatever revokes the first actor would not end the
	// new session.
	errActor = errors.New("sessionhttp: Start.Actor is a session that has an Actor itself; pass that Actor")
)

// SignInOption changes one [Sessions.SignIn].
type SignInOption struct{ set func(*signInOptions) }

type signInOptions struct {
	crossSiteCallback bool
	authTimeUnknown   bool
	anonymous         bool
	keeping           keeping
}

// InsecureCrossSiteCallback permits SignIn at the address to which a login
// provider redirects the browser. It weakens SignIn: a link on any site then
// reaches it. The handler must have checked that this browser began the login,
// by a state parameter that is bound to a cookie (RFC 6749 section 10.12).
// Otherwise an attacker can sign a user in as another one.
//
// It permits a cross-site GET that opens a page in a window. Cross-site
// requests of scripts, frames, images and forms are still refused, and so is a
// browser that does not send Sec-Fetch-Mode.
func InsecureCrossSiteCallback() SignInOption {
	return SignInOption{func(o *signInOptions) { o.crossSiteCallback = true }}
}

// AuthTimeUnknown makes a zero Start.AuthTime mean that the time at which the
// user proved who they are is not known, such as for a login provider that does
// not return it. Without this option it means now.
func AuthTimeUnknown() SignInOption {
	return SignInOption{func(o *signInOptions) { o.authTimeUnknown = true }}
}

// Remember sets how long the browser keeps the cookies of this session. With
// true, it keeps them after it is closed, for as long as the session can be
// renewed or refreshed. With false, it removes all of them when it is closed.
// Without Remember, it then removes the session cookie and keeps the refresh
// cookie of Config.RefreshPath.
//
// Remember does not change when the session ends. The value of the cookie ends
// in "~r" or "~f" after the token, from which a renewal knows what was set.
func Remember(remember bool) SignInOption {
	k := keepNothing
	if remember {
		k = keepAll
	}
	return SignInOption{func(o *signInOptions) { o.keeping = k }}
}

// anonymous is the prefix of the subjects of anonymous sessions.
const anonymous = "anonymous:"

func isAnonymous(subject string) bool { return strings.HasPrefix(subject, anonymous) }

// Anonymous begins a session before a user has signed in, such as for a basket.
// Start.Subject must be empty: the session gets a random subject, "anonymous:"
// and 128 random bits, which no user has. SignOutEverywhere, SignOutOthers,
// RequireFresh and RequireACR refuse the session. Require does not: a handler
// for users alone must check Subject or State. Load is called for it as for
// others.
//
// The session has no refresh token, and ends when its cookie is no longer
// renewed: a refresh would lose the data that only the token holds.
//
// A sign-in replaces and revokes it, as it does any session. To carry its state
// over, call [Sessions.Check] before the sign-in.
func Anonymous() SignInOption {
	return SignInOption{func(o *signInOptions) { o.anonymous = true }}
}

func gather(options []SignInOption) (o signInOptions) {
	for _, option := range options {
		if option.set != nil {
			option.set(&o)
		}
	}
	return o
}

// justNow is an AuthTime in the future, which [sessiontoken.Issuer.Begin] counts
// as now.
var justNow = time.Unix(1<<37, 0)

// SignIn begins a session for a browser: it issues a token and sets the cookie.
// Call it after the user has proven who they are, in a handler to which a form
// of your own site posts. A request from another origin is [ErrCrossOrigin]
// with every method: it could sign a user in as another one. So is a GET
// without a header that names its origin, as browsers before 2023 send it for a
// link.
//
// SignIn revokes a session that the request already has, so that a token that
// was planted or stolen before the sign-in is of no use. If the revocation
// cannot be written, SignIn fails.
//
// start.Subject is required, and must not begin with "anonymous:". A zero
// AuthTime means now, unless [AuthTimeUnknown] is among the options. Renewal is
// ignored: the token is renewable.
//
// With start.Actor, who acts for the subject, the session has no refresh token,
// and the browser's cookies of another one are removed. A zero AuthTime means
// that it is not known, since the subject has proven nothing, so that
// RequireFresh refuses the session. The actor's own session is not revoked: the
// new one would end with it. The browser loses its cookies: the actor signs in
// again to go back. The logger gets a line with both subjects. An actor that is
// the request's own session and has an Actor itself is refused: pass that Actor.
//
// With an error no header was written; [Sessions.Refuse] answers it.
func (s *Sessions[T]) SignIn(w http.ResponseWriter, r *http.Request, start sessiontoken.Start, state T, options ...SignInOption) (*sessiontoken.Claims[T], error) {
	if s.cfg.Issuer == nil {
		return nil, errNoIssuer
	}
	o := gather(options)
	start.Renewal = sessiontoken.Renewable
	switch {
	case o.anonymous != (start.Subject == ""), isAnonymous(start.Subject):
		return nil, errSubject
	case o.anonymous:
		start.Subject, start.AuthTime = anonymous+rand.Text(), time.Time{}
	case start.AuthTime.IsZero() && !o.authTimeUnknown && start.Actor == nil:
		start.AuthTime = justNow
	}
	if !(o.crossSiteCallback && isTopLevel(r)) {
		if err := s.checkOriginAlways(r); err != nil {
			return nil, err
		}
	}
	if !s.isSecure(r) {
		return nil, errInsecure
	}
	if err := s.checkActor(r, start.Actor); err != nil {
		return nil, err
	}
	label, refreshed := "", s.cfg.RefreshPath != "" && !o.anonymous && start.Actor == nil
	if s.cfg.DeviceLabel != nil && refreshed {
		label = s.cfg.DeviceLabel(r)
	}
	in, err := within(r.Context(), &s.entering, opLimit, func(ctx context.Context) (*signedIn[T], error) {
		in, err := s.beginSession(ctx, r, start, state, o.keeping)
		if err == nil && refreshed {
			err = s.beginFamily(ctx, in, label)
		}
		return in, err
	})
	if err != nil {
		return nil, err
	}
	s.counted.signIns.Add(1)
	s.clearVariants(w, r)
	s.setSession(w, in.token, in.claims, o.keeping)
	switch {
	case refreshed:
		s.setRefresh(w, in.refresh, in.binder, in.left, o.keeping)
	case start.Actor != nil:
		s.clearRefresh(w)
		s.logActing(in.claims, start.Actor)
	}
	return in.claims, nil
}

// checkActor refuses an actor that is the request's own session if another acts
// in that session already.
func (s *Sessions[T]) checkActor(r *http.Request, actor *sessiontoken.Actor) error {
	if actor == nil {
		return nil
	}
	token, ok, err := bearer(r.Header)
	if !ok {
		token, err = s.sessionToken(r)
	}
	if err != nil {
		return nil // no session of the request
	}
	c, err := s.cfg.Verifier.Verify(r.Context(), token)
	if err == nil && c.SessionID == actor.SessionID && c.Actor() != nil {
		return errActor
	}
	return nil
}

// logActing tells that a session has begun in which another acts for the
// subject. Unlike failures, each one is a line.
func (s *Sessions[T]) logActing(c *sessiontoken.Claims[T], by *sessiontoken.Actor) {
	logger := s.cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Info("sessionhttp: a session began in which another acts for the subject",
		"acting", by.Subject, "subject", c.Subject, "session", c.SessionID, "acting_session", by.SessionID)
}

// signedIn holds the tokens of a sign-in.
type signedIn[T any] struct {
	token, refresh, binder string
	claims                 *sessiontoken.Claims[T]
	left                   time.Duration // of the family
}

// beginSession makes the token for a browser. Every step that can fail comes
// before the old session is revoked, except the start of the new family: it
// would be left behind by a failure.
func (s *Sessions[T]) beginSession(ctx context.Context, r *http.Request, start sessiontoken.Start, state T, k keeping) (*signedIn[T], error) {
	var in signedIn[T]
	var err error
	if in.token, in.claims, err = s.cfg.Issuer.Begin(ctx, start, state); err != nil {
		return nil, err
	}
	if err := s.fits(in.token, k); err != nil {
		return nil, err
	}
	return &in, s.revokeOld(ctx, r, start.Actor)
}

// beginFamily makes the refresh token and the binder.
func (s *Sessions[T]) beginFamily(ctx context.Context, in *signedIn[T], label string) (err error) {
	f := familyOf(in.claims)
	f.Label = label
	in.binder = newBinder()
	if in.refresh, f, err = s.cfg.Refresh.Start(ctx, f, in.binder); err != nil {
		return err
	}
	in.left = clock.Between(in.claims.IssuedAt, f.Ends)
	return nil
}

// revokeOld revokes the sessions that the cookies of a request name, unless
// they are revoked already, or the actor's own. A revocation that the store has
// not acknowledged is an error.
func (s *Sessions[T]) revokeOld(ctx context.Context, r *http.Request, actor *sessiontoken.Actor) error {
	_, err := s.eachCookieSession(ctx, r, func(n *named) error {
		if actor != nil && n.id == actor.SessionID {
			return nil
		}
		if !n.refresh {
			switch err := s.cfg.Revocations.Check(ctx, &n.question); err {
			case nil:
			case revoke.ErrRevoked:
				return nil
			default:
				return undecided{"revocation is not known", err}
			}
		}
		return s.revoke(ctx, n.id)
	})
	return err
}

// familyOf returns the family of a session that has no Actor.
func familyOf[T any](c *sessiontoken.Claims[T]) refresh.Family {
	return refresh.Family{
		Subject: c.Subject, SessionID: c.SessionID, Began: c.Began, AuthTime: c.AuthTime,
		ACR: c.ACR(), AMR: c.AMR(), Context: c.Context(),
	}
}

// newBinder returns 256 random bits.
func newBinder() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Tokens is the answer to a native client: the JSON of RFC 6749 section 5.1.
type Tokens struct {
	AccessToken  string `json:"access_token"` // the session token
	TokenType    string `json:"token_type"`   // "Bearer"
	ExpiresIn    int64  `json:"expires_in"`   // seconds
	RefreshToken string `json:"refresh_token,omitzero"`
}

// Device names a native client.
type Device struct {
	ClientID string // the client that the refresh token is bound to; empty if to none
	Label    string // its label in the user's list of devices
}

// SignInNative begins a session for a client without cookies: it issues a session
// token and a refresh token. Call it after the user has proven who they are, in
// answer to r, which must have come over https. start is as for SignIn; a zero
// AuthTime means that the user has just proven who they are.
//
// The session token is not renewable: the client exchanges the refresh token,
// so that a stolen one is noticed. The session token is refused in a cookie.
//
// With start.Actor there is no refresh token, a zero AuthTime means that it is
// not known, and the logger gets a line, as for SignIn.
func (s *Sessions[T]) SignInNative(r *http.Request, device Device, start sessiontoken.Start, state T) (Tokens, error) {
	switch {
	case s.cfg.Refresh == nil:
		return Tokens{}, errNoRefresh
	case !s.isSecure(r):
		return Tokens{}, errInsecure
	}
	if start.Subject == "" || isAnonymous(start.Subject) {
		return Tokens{}, errSubject
	}
	if err := s.checkActor(r, start.Actor); err != nil {
		return Tokens{}, err
	}
	start.Renewal = sessiontoken.NotRenewable
	if start.AuthTime.IsZero() && start.Actor == nil {
		start.AuthTime = justNow
	}
	tokens, err := within(r.Context(), &s.entering, opLimit, func(ctx context.Context) (Tokens, error) {
		token, c, err := s.cfg.Issuer.Begin(ctx, start, state)
		if err != nil {
			return Tokens{}, err
		}
		if start.Actor != nil {
			s.logActing(c, start.Actor)
			return tokensOf(token, c, ""), nil
		}
		f := familyOf(c)
		f.ClientID, f.Label = device.ClientID, device.Label
		next, _, err := s.cfg.Refresh.Start(ctx, f, "")
		if err != nil {
			return Tokens{}, err
		}
		return tokensOf(token, c, next), nil
	})
	if err == nil {
		s.counted.signIns.Add(1)
	}
	return tokens, err
}

func tokensOf[T any](token string, c *sessiontoken.Claims[T], next string) Tokens {
	return Tokens{token, "Bearer", int64(clock.Between(c.IssuedAt, c.Expires) / time.Second), next}
}
