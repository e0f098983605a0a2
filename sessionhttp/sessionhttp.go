// Package sessionhttp keeps sessions over net/http: in a cookie for browsers, in
// an Authorization header for the rest.
//
// [Sessions.Require] is the middleware of handlers that need a session, and
// [Sessions.FromContext] returns it there. [Sessions.Check] makes the same
// checks without middleware. [Sessions.SignIn] begins a session after the user
// has proven who they are; [Sessions.SignOut] revokes it. A cookie past half
// its token's life is renewed during a request, with the state that Config.Load
// reads from the authority. [Sessions.Update] changes data that only the token
// holds. [Sessions.Live] ends a connection that lasts longer than a request with
// its session.
//
// The credentials of a request are read by these rules:
//
//   - If there is an Authorization header of the scheme Bearer, it alone is
//     used (RFC 6750 section 2.1). Other schemes are ignored.
//   - Otherwise the cookie of the configured name is used. Of several, the
//     valid one is used; two valid ones of different sessions are refused and
//     removed.
//   - A request with a cookie that can change something must come from the same
//     origin or a trusted one ([net/http.CrossOriginProtection]). A request to
//     switch protocols, such as to a WebSocket, can.
//   - A token is never taken from a URL, and only a refresh token from a body.
//
// Put CORS middleware around Require: a preflight has no cookie, and a page of
// another origin can read a refusal only if it has the CORS headers. The
// example of Require shows it.
//
// The cache headers of an answer also hold in a framework that wraps the
// ResponseWriter: see [Sessions.Require].
package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// The reasons to refuse a request or to end a [Live] connection, beside those of
// packages sessiontoken and revoke.
var (
	// ErrNoSession means that the request has no session. 401.
	ErrNoSession = errors.New("sessionhttp: no session")
	// ErrBadRequest means that the request has a malformed Bearer token, or
	// cookies of two sessions. 400.
	ErrBadRequest = errors.New("sessionhttp: malformed credentials")
	// ErrCrossOrigin means that a request with a cookie that can change something
	// comes from another origin. 403.
	ErrCrossOrigin = errors.New("sessionhttp: cross-origin request")
	// ErrSessionOver is returned by Config.Load to end a session, such as that
	// of a blocked user. The session is then revoked. 401.
	ErrSessionOver = errors.New("sessionhttp: the session is over")
	// ErrIdle ends a connection that was not used for IdleTimeout.
	ErrIdle = errors.New("sessionhttp: the connection was not used for IdleTimeout")
	// ErrMaxSession ends a connection whose session has reached MaxSession.
	ErrMaxSession = errors.New("sessionhttp: the session has reached MaxSession")
	// ErrUndecided ends a connection when the server does not know any more
	// whether its session is live. The client may connect again later.
	ErrUndecided = errors.New("sessionhttp: it is not known whether the session is live")
)

// errInsecure means that a token was to be handed out over plain http. 403.
var errInsecure = errors.New("sessionhttp: not over https")

// Config says how [Sessions] work.
type Config[T any] struct {
	// Verifier reads sessions. Required.
	Verifier *sessiontoken.Verifier[T]

	// Issuer begins and renews sessions. Its keys, issuer name and audience
	// must be those of Verifier. An API that only reads sessions has no Issuer:
	// sign-in, sign-out and renewal then fail, and Load and Revocations are not
	// needed.
	Issuer *sessiontoken.Issuer[T]
	// Load returns the current state of a session from the authority on it,
	// such as a database. Required with Issuer.
	//
	// old holds the claims of the verified old token. For a refresh token, it
	// is the record of the session, with Context and without State, TokenID,
	// KeyID, IssuedAt and Expires. Load returns data that only the token holds,
	// see [Sessions.Update], as it is in old.
	//
	// [ErrSessionOver] revokes the session. Any other error changes nothing.
	Load func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error)
	// Revocations is the list that a sign-out writes to. Verifier, Issuer and
	// Refresh must ask the same one. Required with Issuer.
	Revocations *revoke.List
	// Refresh hands out refresh tokens. Optional.
	Refresh *refresh.Manager

	// RefreshPath is the path below which [Sessions.RefreshHandler] is mounted
	// for browsers, such as "/session/". If it is set, SignIn also sets a
	// cookie of that path with a refresh token, so that a session can last
	// beyond the idle end of its session cookie. Mount the sign-out below it
	// too: the browser then sends the refresh cookie, also when it has no
	// session cookie any more. Needs Refresh.
	RefreshPath string
	// DeviceLabel returns the label, in the user's list of devices, of the
	// client that signs in with a request. Optional.
	DeviceLabel func(r *http.Request) string

	// CookieName is the name of the session cookie without its prefix. Empty
	// means "session", so that the cookie is "__Host-session".
	CookieName string
	// CookieDomain is the Domain of the session cookie, which is then named
	// "__Secure-…". Every host of the domain gets the cookie, and can set one.
	// Empty means this host alone.
	CookieDomain string
	// SameSite is the attribute of the session cookie. 0 means Lax. None needs
	// InsecureSameSiteNone.
	SameSite http.SameSite
	// InsecureSameSiteNone permits a SameSite of None: requests that other
	// sites make carry the cookie.
	InsecureSameSiteNone bool
	// Partitioned sets the attribute of that name (CHIPS): the browser keeps
	// separate cookies for each site that embeds pages of this one, and the
	// user signs in once for each. Browsers that block third-party cookies
	// permit these. It needs a SameSite of None. It cannot differ between
	// sign-ins: a browser does not send back attributes, so that a renewal
	// could not know them.
	Partitioned bool
	// TLSInFront means that every request comes through a proxy that accepts
	// https alone. If false, tokens are handed out over https only, or if the
	// peer, Host and Origin are this machine.
	TLSInFront bool
	// TrustedOrigins ("https://app.example") may send requests with the cookie
	// that change something, beside the server's own origin.
	TrustedOrigins []string

	// OnRefused is called for each request that is refused, with the reason.
	// The error holds no token. Optional.
	OnRefused func(r *http.Request, err error)
	// Unauthorized answers requests with 401 in place of the default text, such
	// as with a redirect to the sign-in page. WWW-Authenticate and
	// Cache-Control are set before it is called. Optional.
	Unauthorized http.Handler
	// Logger gets a line for each failure, at most one a reason and minute, and
	// one for each session that begins with an Actor. Nil means slog.Default().
	Logger *slog.Logger
	// OnEvent gets an event for each request with a credential that is
	// refused: see [event.Func]. Sign-ins, renewals and sign-outs are events of
	// Issuer, Refresh and Revocations, which have an OnEvent of their own.
	// Optional.
	OnEvent event.Func
}

// Sessions are the sessions of one site or API, with states of type T. They are
// safe for concurrent use.
type Sessions[T any] struct {
	cfg      Config[T]
	cookie   string // its name, with the prefix
	refresh  string // the refresh cookie's
	binder   string // the binder cookie's
	issuer   sessiontoken.IssuerConfig
	origins  *http.CrossOriginProtection
	renewals renewals
	entering hung // of sign-ins, which need no Load
	loading  hung // of refreshes
	leaving  hung // of sign-outs, which need neither Load nor a signer
	finding  hung // of what looks a refresh token up
	tidying  hung // of deletions that sign-outs leave behind

	lives       lives[T]
	reloading   hung          // of renewals of live connections
	watcher     watcher       // nil if there is none
	unwatchable bool          // the verifier has a list without Watch
	leeway      time.Duration // the verifier's

	clock   *clock.Clock
	log     *loud.Log
	events  *notify.Sender
	counted counters
}

// New checks the configuration and returns the sessions for it. An error names
// the field at fault. It does no I/O.
func New[T any](cfg Config[T]) (*Sessions[T], error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.SameSite == 0 {
		cfg.SameSite = http.SameSiteLaxMode
	}
	if cfg.CookieName == "" {
		cfg.CookieName = "session"
	}
	if lower := strings.ToLower(cfg.CookieName); strings.HasPrefix(lower, "__host-") || strings.HasPrefix(lower, "__secure-") {
		return nil, errors.New("sessionhttp: Config.CookieName has a prefix already; which one is needed follows from CookieDomain")
	}
	s := &Sessions[T]{
		cfg:      cfg,
		cookie:   "__Host-" + cfg.CookieName,
		refresh:  "__Secure-" + cfg.CookieName + "-refresh",
		binder:   "__Host-" + cfg.CookieName + "-binder",
		origins:  http.NewCrossOriginProtection(),
		renewals: newRenewals(),
		clock:    clock.Here(),
		log:      loud.New(cfg.Logger),
	}
	s.events = notify.New(cfg.OnEvent, false, s.log)
	if cfg.CookieDomain != "" {
		s.cookie = "__Secure-" + cfg.CookieName
	}
	if cfg.Issuer != nil {
		s.issuer = cfg.Issuer.Config()
	}
	verifier := cfg.Verifier.Config()
	s.leeway = verifier.Leeway
	if verifier.Revocations != nil {
		s.watcher, _ = verifier.Revocations.(watcher)
		s.unwatchable = s.watcher == nil
	}
	if err := s.sessionCookie("x").Valid(); err != nil {
		return nil, fmt.Errorf("sessionhttp: Config.CookieName or Config.CookieDomain: %w", err)
	}
	if err := s.refreshCookie("x").Valid(); err != nil {
		return nil, fmt.Errorf("sessionhttp: Config.RefreshPath: %w", err)
	}
	s.cfg.TrustedOrigins = append([]string(nil), cfg.TrustedOrigins...)
	for _, origin := range cfg.TrustedOrigins {
		if err := s.origins.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("sessionhttp: Config.TrustedOrigins: %w", err)
		}
	}
	return s, nil
}

// Revocations returns the list that a sign-out writes to, and nil if the
// sessions have no issuer. Code that revokes sessions otherwise, such as for a
// login provider, checks with it that it has the same list.
func (s *Sessions[T]) Revocations() *revoke.List {
	if s.cfg.Issuer == nil {
		return nil
	}
	return s.cfg.Revocations
}

// RefreshPath returns Config.RefreshPath. A sign-out that is not mounted below
// it does not find a session whose cookie has expired.
func (s *Sessions[T]) RefreshPath() string { return s.cfg.RefreshPath }

// contextKey is different for each Sessions, so that the middleware of two with
// one state type can be nested.
type contextKey[T any] struct{ sessions *Sessions[T] }

// bearerClaims are the claims of a renewable token that came in an
// Authorization header: it is not renewed.
type bearerClaims[T any] sessiontoken.Claims[T]

// FromContext returns the session of a request that came through
// [Sessions.Require] of s, or through its [Sessions.Optional] with a session.
func (s *Sessions[T]) FromContext(ctx context.Context) (*sessiontoken.Claims[T], bool) {
	switch c := ctx.Value(contextKey[T]{s}).(type) {
	case *sessiontoken.Claims[T]:
		return c, true
	case *bearerClaims[T]:
		return (*sessiontoken.Claims[T])(c), true
	}
	return nil, false
}
