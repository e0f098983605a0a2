package sessionhttp

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
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
	// errSubject is about what the caller wrote, and not about the user.
	errSubject = errors.New("sessionhttp: Start.Subject is required and must not begin with \"anonymous:\"; with Anonymous it is left empty")
)

// SignInOption changes one [Sessions.SignIn].
type SignInOption struct{ set func(*signInOptions) }

type signInOptions struct {
	crossSiteCallback bool
	authTimeUnknown   bool
	anonymous         bool
	keeping           keeping
}

// InsecureCrossSiteCallback lets SignIn answer a page that another site sends
// the browser to: the address that a login provider redirects back to. It
// weakens SignIn: a link on any site then reaches it. The handler must have
// checked that this browser began the login, by a state parameter that is bound
// to a cookie (RFC 6749 section 10.12), or a user can be signed in as another.
//
// It permits a GET that opens a page in a window, and nothing else: requests of
// scripts, frames, images and forms are refused as ever. A browser that does not
// send Sec-Fetch-Mode is refused.
func InsecureCrossSiteCallback() SignInOption {
	return SignInOption{func(o *signInOptions) { o.crossSiteCallback = true }}
}

// AuthTimeUnknown says that a zero Start.AuthTime means that it is not known when
// the user proved who they are, and not that they have just done so: of a login
// provider that does not tell, say.
func AuthTimeUnknown() SignInOption {
	return SignInOption{func(o *signInOptions) { o.authTimeUnknown = true }}
}

// Remember says how long the browser keeps what this sign-in sets, and what follows
// from it: with true also after it was closed, for as long as the session can be
// renewed or refreshed; with false until it is closed. Without Remember the session
// cookie goes then, and the refresh cookie of Config.RefreshPath stays.
//
// The session ends when it does in any case: Remember lengthens no limit. The
// value of such a cookie ends in "~r" or "~f" behind the token, by which it is known
// when it is renewed.
func Remember(remember bool) SignInOption {
	k := keepNothing
	if remember {
		k = keepAll
	}
	return SignInOption{func(o *signInOptions) { o.keeping = k }}
}

// anonymous begins the subjects of sessions that are no user's.
const anonymous = "anonymous:"

func isAnonymous(subject string) bool { return strings.HasPrefix(subject, anonymous) }

// Anonymous begins a session before a user has signed in: for a basket, say.
// Start.Subject is empty: the session gets one of its own, "anonymous:" and 128 random bits, which
// no user can have. SignOutEverywhere, SignOutOthers and RequireFresh refuse the
// session; Require lets it pass, so that handlers for users have to look at Subject,
// or at a State that tells. Load is asked about it as about others.
//
// It lives as long as its cookie is renewed: it has no refresh token, since what
// its token owns would not be in the next one.
//
// A sign-in replaces it as it does any session, and revokes it. What is to be
// carried over, [Sessions.Check] returns before: its claims are the replaced ones.
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
// Call it after the user has proven who they are, in a handler that a form of
// your own site posts to: a request from another origin is [ErrCrossOrigin]
// whatever its method is, so that no user can be signed in as another. So is a GET
// that does not tell where it comes from, as a link of another site does not in
// browsers before 2023.
//
// A session that the request already has is revoked: nothing that was there
// before the sign-in, planted or stolen, becomes the new session. If that cannot
// be written, SignIn fails.
//
// Of start, Subject is required. A zero AuthTime means that the user has just
// proven who they are, unless [AuthTimeUnknown] is among the options. Renewal is
// ignored: the session can be renewed. A Subject must not begin with "anonymous:".
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
	case start.AuthTime.IsZero() && !o.authTimeUnknown:
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
	label, refreshed := "", s.cfg.RefreshPath != "" && !o.anonymous
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
	if refreshed {
		s.setRefresh(w, in.refresh, in.binder, in.left, o.keeping)
	}
	return in.claims, nil
}

// signedIn is what a sign-in hands out.
type signedIn[T any] struct {
	token, refresh, binder string
	claims                 *sessiontoken.Claims[T]
	left                   time.Duration // of the family
}

// beginSession makes the token that a browser gets. All that can fail comes before
// the old session is revoked, but for the new family, which must not outlive a
// failure.
func (s *Sessions[T]) beginSession(ctx context.Context, r *http.Request, start sessiontoken.Start, state T, k keeping) (*signedIn[T], error) {
	var in signedIn[T]
	var err error
	if in.token, in.claims, err = s.cfg.Issuer.Begin(ctx, start, state); err != nil {
		return nil, err
	}
	if err := s.fits(in.token, k); err != nil {
		return nil, err
	}
	return &in, s.revokeOld(ctx, r)
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

// revokeOld revokes the sessions that the cookies of a request name, unless they
// are revoked already. A revocation that is owed is an error.
func (s *Sessions[T]) revokeOld(ctx context.Context, r *http.Request) error {
	_, err := s.eachCookieSession(ctx, r, func(n *named) error {
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

func familyOf[T any](c *sessiontoken.Claims[T]) refresh.Family {
	f := refresh.Family{
		Subject: c.Subject, SessionID: c.SessionID, Began: c.Began, AuthTime: c.AuthTime,
		ACR: c.ACR, AMR: c.AMR, Context: c.Context,
	}
	if c.Actor != nil {
		f.ActorSubject, f.ActorSessionID, f.ActorBegan = c.Actor.Subject, c.Actor.SessionID, c.Actor.Began
	}
	return f
}

// newBinder returns 256 random bits.
func newBinder() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Tokens are what a native client gets: the JSON of RFC 6749 section 5.1.
type Tokens struct {
	AccessToken  string `json:"access_token"` // the session token
	TokenType    string `json:"token_type"`   // "Bearer"
	ExpiresIn    int64  `json:"expires_in"`   // seconds
	RefreshToken string `json:"refresh_token"`
}

// Device is what a native client is known by.
type Device struct {
	ClientID string // the client that the refresh token is bound to; empty if to none
	Label    string // how the user's list of devices shows it
}

// SignInNative begins a session for a client without cookies: it issues a session
// token and a refresh token. Call it after the user has proven who they are, in
// answer to r, which must have come over https. start is as for SignIn; a zero
// AuthTime means that the user has just proven who they are.
//
// The session token is not renewed: the refresh token is what keeps the session
// going, so that its theft is noticed. As a cookie it is refused.
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
	start.Renewal = sessiontoken.NotRenewable
	if start.AuthTime.IsZero() {
		start.AuthTime = justNow
	}
	tokens, err := within(r.Context(), &s.entering, opLimit, func(ctx context.Context) (Tokens, error) {
		token, c, err := s.cfg.Issuer.Begin(ctx, start, state)
		if err != nil {
			return Tokens{}, err
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
