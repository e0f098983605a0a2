// Package sessionhttp keeps sessions over net/http: in a cookie for browsers, in
// an Authorization header for the rest.
//
// [Sessions.Require] stands before handlers that need a session; [FromContext]
// gives it to them. [Sessions.SignIn], after the user has proven who they are,
// begins one; [Sessions.SignOut] ends it. A cookie past half its token's life is
// renewed on the way, with the state that Config.Load reads from the authority.
//
// A request is read by these rules. If there is an Authorization header, it alone
// decides, and it has to be one Bearer token (RFC 6750 section 2.1). Otherwise the
// cookie of the configured name does, if there is just one; then a request that
// can change something has to come from the same origin or a trusted one
// ([net/http.CrossOriginProtection]). A token is never taken from a URL or a body.
package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// Reasons for which a request is refused, beside those of package sessiontoken.
var (
	// ErrNoSession: the request brings none. 401.
	ErrNoSession = errors.New("sessionhttp: no session")
	// ErrBadRequest: an Authorization header that is not one Bearer token, or
	// two cookies of our name. 400.
	ErrBadRequest = errors.New("sessionhttp: malformed credentials")
	// ErrCrossOrigin: a request with a cookie that can change something, from
	// another origin. 403.
	ErrCrossOrigin = errors.New("sessionhttp: cross-origin request")
	// ErrInsecure: a session was to begin over plain http. 403.
	ErrInsecure = errors.New("sessionhttp: not over https")
	// ErrTooOld: the sign-in is older than the handler allows. 401.
	ErrTooOld = errors.New("sessionhttp: the sign-in is too long ago")
	// ErrSessionOver is what Config.Load returns if a session may not go on: the
	// user is blocked, say. It is ended then. 401.
	ErrSessionOver = errors.New("sessionhttp: the session is over")
)

// SessionEnder ends sessions before their tokens end: a List of package revoke.
// The verifier and the issuer must ask the same one.
type SessionEnder interface {
	EndSession(ctx context.Context, sessionID string) error
	EndSubject(ctx context.Context, subject string) error
}

// Config says how [Sessions] work.
type Config[T any] struct {
	// Verifier reads sessions. Required.
	Verifier *sessiontoken.Verifier[T]

	// Issuer begins and renews sessions. An API that only reads them has none;
	// then SignIn and renewal are not there, and Load and Ender are not needed.
	Issuer *sessiontoken.Issuer[T]
	// Load returns the state of a session as the authority, a database say, has
	// it now. old is the verified old token; for a refresh token, it has no
	// State and no more than Subject, SessionID and AuthTime. [ErrSessionOver] ends the session; any other
	// error leaves it as it was. Required with Issuer.
	Load func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error)
	// Ender ends sessions at sign-out. Required with Issuer.
	Ender SessionEnder
	// Refresh hands out refresh tokens. Optional.
	Refresh *refresh.Manager

	// RefreshPath is the path under which [Sessions.RefreshHandler] is mounted
	// for browsers, such as "/session/". If it is set, SignIn also sets a refresh
	// token as a cookie of that path, with which a session can go on after the
	// browser was closed or idle; mount the sign-out below it too, so that it ends
	// that token even when nothing else is left of the session. Needs Refresh.
	RefreshPath string
	// DeviceLabel is how the user's list of devices calls the client of a request
	// that signs in. Optional.
	DeviceLabel func(r *http.Request) string

	// CookieName is that of the session's cookie, without the prefix that is
	// put before it. Empty means "session", and so "__Host-session".
	CookieName string
	// CookieDomain makes the cookie one of all hosts of a domain, named
	// "__Secure-…": any of those hosts can then set it. Empty means this host.
	CookieDomain string
	// SameSite is that of the cookie. 0 means Lax. None needs
	// InsecureSameSiteNone.
	SameSite http.SameSite
	// InsecureSameSiteNone permits a cookie that other sites' requests carry.
	InsecureSameSiteNone bool
	// TLSInFront says that requests reach this server through a proxy which
	// takes them over https alone. Without it, a session begins over https or on
	// localhost only.
	TLSInFront bool
	// TrustedOrigins ("https://app.example") may send requests with the cookie
	// that change something, beside the server's own origin.
	TrustedOrigins []string

	// OnRefused is told of each request that is refused, and why: for logs and
	// metrics. The error holds no token. Optional.
	OnRefused func(r *http.Request, err error)
	// Unauthorized answers requests without a valid session instead of the short
	// text that is the same for all: with a redirect to the sign-in page, say. It
	// finds WWW-Authenticate and Cache-Control set. Optional.
	Unauthorized http.Handler
}

// Sessions are the sessions of one site or API, with states of type T. They are
// safe for concurrent use.
type Sessions[T any] struct {
	cfg      Config[T]
	cookie   string // its name, with the prefix
	origins  *http.CrossOriginProtection
	renewals renewals
}

// New checks the configuration and returns the sessions for it. An error names
// the field at fault.
func New[T any](cfg Config[T]) (*Sessions[T], error) {
	switch {
	case cfg.Verifier == nil:
		return nil, errors.New("sessionhttp: Config.Verifier is required")
	case cfg.Issuer != nil && cfg.Load == nil:
		return nil, errors.New("sessionhttp: Config.Load is required with Issuer")
	case cfg.Issuer != nil && arg.IsNil(cfg.Ender):
		return nil, errors.New("sessionhttp: Config.Ender is required with Issuer: a sign-out has to end the session")
	case cfg.Refresh != nil && cfg.Issuer == nil:
		return nil, errors.New("sessionhttp: Config.Refresh needs Issuer")
	case cfg.RefreshPath != "" && cfg.Refresh == nil:
		return nil, errors.New("sessionhttp: Config.RefreshPath needs Refresh")
	case cfg.RefreshPath != "" && (cfg.RefreshPath[0] != '/' || cfg.RefreshPath == "/"):
		return nil, errors.New("sessionhttp: Config.RefreshPath must be a path below /, so that not every request carries the refresh token")
	case cfg.SameSite == http.SameSiteNoneMode && !cfg.InsecureSameSiteNone:
		return nil, errors.New("sessionhttp: Config.SameSite is None; set InsecureSameSiteNone to let other sites' requests carry the cookie")
	case cfg.SameSite != 0 && cfg.SameSite != http.SameSiteLaxMode && cfg.SameSite != http.SameSiteStrictMode && cfg.SameSite != http.SameSiteNoneMode:
		return nil, errors.New("sessionhttp: Config.SameSite is none of Lax, Strict and None")
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
	s := &Sessions[T]{cfg: cfg, cookie: "__Host-" + cfg.CookieName, origins: http.NewCrossOriginProtection()}
	if cfg.CookieDomain != "" {
		s.cookie = "__Secure-" + cfg.CookieName
	}
	if err := s.newCookie("x").Valid(); err != nil {
		return nil, fmt.Errorf("sessionhttp: Config.CookieName or Config.CookieDomain: %w", err)
	}
	if err := s.refreshCookie("x").Valid(); err != nil {
		return nil, fmt.Errorf("sessionhttp: Config.RefreshPath: %w", err)
	}
	for _, origin := range cfg.TrustedOrigins {
		if err := s.origins.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("sessionhttp: Config.TrustedOrigins: %w", err)
		}
	}
	return s, nil
}

type contextKey[T any] struct{}

// FromContext returns the session of a request that came through
// [Sessions.Require], or through [Sessions.Optional] with a session.
func FromContext[T any](ctx context.Context) (*sessiontoken.Claims[T], bool) {
	c, ok := ctx.Value(contextKey[T]{}).(*sessiontoken.Claims[T])
	return c, ok
}

// Require lets requests with a valid session through, and refuses the others:
// 401 with WWW-Authenticate as RFC 6750 section 3 says, 400 or 403 for what can
// be no request of ours, 503 if the server cannot tell.
func (s *Sessions[T]) Require(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, r, err := s.read(w, r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Optional is Require for handlers that also answer those who are not signed in:
// requests without a session pass, and so do those whose cookie has ended or is
// not one of ours. An Authorization header that does not hold is refused all the
// same.
func (s *Sessions[T]) Optional(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w, r, err := s.read(w, r)
		bearer := len(r.Header["Authorization"]) > 0
		ended := errors.Is(err, sessiontoken.ErrInvalid) || errors.Is(err, ErrSessionOver)
		if err != nil && !errors.Is(err, ErrNoSession) && (bearer || !ended) {
			s.refuse(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireFresh is Require for handlers that want a sign-in not longer ago than
// maxAge: a change of password, a payment. Others are told to sign in again
// (RFC 9470 section 3).
func (s *Sessions[T]) RequireFresh(maxAge time.Duration, next http.Handler) http.Handler {
	return s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := FromContext[T](r.Context())
		if !ok || time.Since(c.AuthTime) > maxAge {
			s.refuse(w, r, tooOld(maxAge))
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// read returns the request with its session. The response writer may be another
// one, on which a renewed cookie is set.
func (s *Sessions[T]) read(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, error) {
	var c *sessiontoken.Claims[T]
	token, fromCookie, err := s.credential(r)
	if fromCookie {
		w.Header().Add("Vary", "Cookie")
	}
	switch {
	case err != nil:
		return w, r, err
	case fromCookie:
		w, c, err = s.readCookie(w, r, token)
	default:
		c, err = s.cfg.Verifier.Verify(r.Context(), token)
	}
	if err != nil {
		return w, r, err
	}
	return w, r.WithContext(context.WithValue(r.Context(), contextKey[T]{}, c)), nil
}

// credential returns the one token that a request may be judged by.
func (s *Sessions[T]) credential(r *http.Request) (token string, fromCookie bool, err error) {
	if auth, ok := r.Header["Authorization"]; ok {
		token, err = bearer(auth)
		return token, false, err
	}
	cookies := r.CookiesNamed(s.cookie)
	switch len(cookies) {
	case 0:
		return "", true, ErrNoSession
	case 1:
	default: // one of them was planted
		return "", true, fmt.Errorf("%w: more than one cookie", ErrBadRequest)
	}
	if err := s.origins.Check(r); err != nil {
		return "", true, ErrCrossOrigin
	}
	return cookies[0].Value, true, nil
}

// bearer reads an Authorization header (RFC 6750 section 2.1). Another scheme is
// no credential of ours.
func bearer(values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("%w: more than one Authorization header", ErrBadRequest)
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", ErrNoSession
	}
	if !ok || !isToken68(token) {
		return "", fmt.Errorf("%w: no Bearer token", ErrBadRequest)
	}
	return token, nil
}

// isToken68 says whether s is what RFC 6750 section 2.1 calls b64token.
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/", c) >= 0) {
			return false
		}
	}
	return s != ""
}
