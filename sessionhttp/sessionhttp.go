// Package sessionhttp keeps sessions over net/http: in a cookie for browsers, in
// an Authorization header for the rest.
//
// [Sessions.Require] stands before handlers that need a session, and
// [Sessions.FromContext] gives it to them; [Sessions.Check] is for what is no
// handler. [Sessions.SignIn] begins a session after the user has proven who they
// are; [Sessions.SignOut] revokes it. A cookie past half its token's life is
// renewed on the way, with the state that Config.Load reads from the authority.
// [Sessions.Update] changes what the token itself is the authority on.
//
// A request is read by these rules:
//
//   - An Authorization header of the scheme Bearer decides alone (RFC 6750
//     section 2.1). Other schemes are not ours, and are ignored.
//   - Otherwise the cookie of the configured name decides. Of several ones, the
//     genuine one counts; two of different sessions are refused and removed.
//   - A request with a cookie that can change something has to come from the
//     same origin or a trusted one ([net/http.CrossOriginProtection]). A request
//     to switch protocols, to a WebSocket say, is one that can.
//   - A token is never taken from a URL, and only a refresh token from a body.
//
// CORS goes outside of Require: a preflight has no cookie, and a refusal that a
// page of another origin is to read needs the headers too. The example of Require
// shows it.
//
// What an answer says about caching holds through every framework that shares
// the header map of the response: see [Sessions.Require].
package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Reasons for which a request is refused, beside those of package sessiontoken.
var (
	// ErrNoSession means that the request brings no session. 401.
	ErrNoSession = errors.New("sessionhttp: no session")
	// ErrBadRequest means that the request brings a malformed Bearer token, or
	// two sessions. 400.
	ErrBadRequest = errors.New("sessionhttp: malformed credentials")
	// ErrCrossOrigin means that a request with a cookie that can change something
	// comes from another origin. 403.
	ErrCrossOrigin = errors.New("sessionhttp: cross-origin request")
	// ErrSessionOver is what Config.Load returns if a session may not go on: the
	// user is blocked, say. The session is revoked then. 401.
	ErrSessionOver = errors.New("sessionhttp: the session is over")
)

// errInsecure means that a token was to be handed out over plain http. 403.
var errInsecure = errors.New("sessionhttp: not over https")

// Config says how [Sessions] work.
type Config[T any] struct {
	// Verifier reads sessions. Required.
	Verifier *sessiontoken.Verifier[T]

	// Issuer begins and renews sessions; it has the keys, the issuer name and the
	// audience of Verifier. An API that only reads sessions has none: then
	// sign-in, sign-out and renewal are not there, and Load and Revocations are
	// not needed.
	Issuer *sessiontoken.Issuer[T]
	// Load returns the state of a session as the authority, a database say, has
	// it now. old is the verified old token; for a refresh token, it is what is on
	// record of the session, with Context and without State, TokenID, KeyID and
	// the times of a token. What the token itself is the authority on, see
	// [Sessions.Update], is returned as old has it.
	// [ErrSessionOver] revokes the session; any other error leaves it as it was.
	// Required with Issuer.
	Load func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error)
	// Revocations is the list that a sign-out writes to. Verifier, Issuer and
	// Refresh must ask the same one. Required with Issuer.
	Revocations *revoke.List
	// Refresh hands out refresh tokens. Optional.
	Refresh *refresh.Manager

	// RefreshPath is the path under which [Sessions.RefreshHandler] is mounted
	// for browsers, such as "/session/". If it is set, SignIn also sets a refresh
	// token as a cookie of that path, with which a session can go on after the
	// browser was closed or idle; mount the sign-out below it too, so that it
	// revokes that token's session when nothing else is left of it. Needs Refresh.
	RefreshPath string
	// DeviceLabel is how the user's list of devices calls the client of a request
	// that signs in. Optional.
	DeviceLabel func(r *http.Request) string

	// CookieName is that of the session's cookie, without the prefix that is
	// put before it. Empty means "session", and so "__Host-session".
	CookieName string
	// CookieDomain makes the session cookie one of all hosts of a domain, named
	// "__Secure-…": any of those hosts can then set it. Empty means this host.
	CookieDomain string
	// SameSite is that of the cookie. 0 means Lax. None needs
	// InsecureSameSiteNone.
	SameSite http.SameSite
	// InsecureSameSiteNone permits a cookie that other sites' requests carry.
	InsecureSameSiteNone bool
	// Partitioned keeps the cookies in a jar of their own for each site that
	// embeds pages of this one (CHIPS), which browsers permit where they block the
	// cookies of other sites: a user signs in once for each. It needs a SameSite of
	// None. It is the same for all sign-ins, since a browser sends back no
	// attributes: the cookies that follow could not tell.
	Partitioned bool
	// TLSInFront says that requests reach this server through a proxy which
	// takes them over https alone. Without it, tokens are handed out over https
	// only, or where peer, Host and Origin are this machine.
	TLSInFront bool
	// TrustedOrigins ("https://app.example") may send requests with the cookie
	// that change something, beside the server's own origin.
	TrustedOrigins []string

	// OnRefused is told of each request that is refused, and why. The error holds
	// no token. Optional.
	OnRefused func(r *http.Request, err error)
	// Unauthorized answers requests without a valid session instead of the short
	// text that is the same for all: with a redirect to the sign-in page, say. It
	// finds WWW-Authenticate and Cache-Control set. Optional.
	Unauthorized http.Handler
	// Logger is told of what fails: one line a reason and minute. Nil means
	// slog.Default().
	Logger *slog.Logger
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
	clock    *clock.Clock
	log      *loud.Log
	counted  counters
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
	if cfg.CookieDomain != "" {
		s.cookie = "__Secure-" + cfg.CookieName
	}
	if cfg.Issuer != nil {
		s.issuer = cfg.Issuer.Config()
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

// contextKey is one for each Sessions, so that two of one state type can stand
// one around the other.
type contextKey[T any] struct{ sessions *Sessions[T] }

// FromContext returns the session of a request that came through
// [Sessions.Require] of s, or through its [Sessions.Optional] with a session.
func (s *Sessions[T]) FromContext(ctx context.Context) (*sessiontoken.Claims[T], bool) {
	c, ok := ctx.Value(contextKey[T]{s}).(*sessiontoken.Claims[T])
	return c, ok
}
