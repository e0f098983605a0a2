package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// ErrNoUser is returned by Config.User for a person who may not sign in. 403.
var ErrNoUser = errors.New("oidclogin: not a user of this site")

// Config configures a [Provider] with states of type T. All replicas are
// configured alike.
type Config[T any] struct {
	// Sessions signs users in and out. Required.
	Sessions *sessionhttp.Sessions[T]
	// Revocations is the list that Sessions asks, such as that of the
	// authority. The provider's logout writes to it. Required.
	Revocations *revoke.List
	// Secrets are at least 32 random bytes each, the same on every replica,
	// such as those of the authority: other keys are derived from them. They
	// seal cookies. The first seals, all open. Required.
	Secrets [][]byte

	// Issuer is the provider's issuer identifier, which is compared byte for
	// byte. https, or http on a loopback host. Required.
	Issuer string
	// ClientID is the id of this site at the provider. Required.
	ClientID string
	// ClientSecret is this site's secret at the provider. It is sent as
	// client_secret_basic, or as client_secret_post if the provider's metadata
	// has no basic. Required, unless ClientKey is set.
	ClientSecret string
	// ClientKey signs in place of a secret (private_key_jwt, RFC 7523). Its kid
	// is the RFC 7638 thumbprint of the key, which is registered at the
	// provider.
	ClientKey *keys.SigningKey
	// RedirectURL is where the provider sends the browser back to, such as
	// "https://site.example/oidc/callback". It ends in "/callback", and the
	// Provider is mounted at its folder: see [Provider.ServeHTTP]. If Sessions
	// have a RefreshPath, the folder is below it, so that a sign-out finds the
	// session also when its cookie has expired. https, or http on a loopback
	// host. Required.
	RedirectURL string

	// Scopes are asked for beside "openid". Optional.
	Scopes []string
	// Ask is what every login asks of the provider. Optional.
	Ask Ask
	// FormPost has the provider send the code in the body of a POST
	// (response_mode=form_post) in place of a URL.
	FormPost bool
	// User finds the user of a login, which has passed all checks, and returns
	// the subject and the first state of the session. A person is identified by
	// Login.Issuer and Login.Subject alone: other claims, such as an e-mail
	// address, can change hands. [ErrNoUser] refuses the login; any other error
	// is answered with 503. Its context ends after 5 s. Required.
	User func(ctx context.Context, l *Login) (subject string, state T, err error)
	// AfterSignOut is the path to which the browser goes in the end of a
	// sign-out. Empty means "/".
	AfterSignOut string
	// IDTokenHint keeps the ID token in a sealed cookie of its own, for the
	// id_token_hint of a sign-out, with which some providers do not ask the user
	// to confirm. The cookie makes every request larger. An ID token that does
	// not fit into a cookie, over about 3000 bytes, is not kept.
	IDTokenHint bool

	// Client fetches from the provider. Redirects are not followed, and its
	// Timeout is at most 5 s. Nil means a client over http.DefaultTransport.
	Client *http.Client
	// Logger gets a line for each refusal and each failure, at most one a
	// reason and minute. Nil means slog.Default().
	Logger *slog.Logger

	// InsecureDiscoveryURL is the URL of the discovery document, if it is not
	// below Issuer. The document then does not prove that the host of Issuer
	// wrote it. Azure AD B2C needs it: its issuer names the tenant by an id,
	// and its document is below the name of a policy.
	InsecureDiscoveryURL string
	// InsecureTokenEndpointAudience makes the audience of what ClientKey signs
	// the token endpoint in place of the issuer. A provider that learns of it
	// could use it at another one that has the same token endpoint in its
	// metadata. WSO2 Identity Server of 2023 needs it: it accepted no other
	// audience.
	InsecureTokenEndpointAudience bool
	// InsecureLogoutTypeJWT also accepts a logout token whose typ is absent or
	// "JWT". Only the other checks then keep a token of another kind from being
	// taken for one. Auth0, dex, and Keycloak before version 25 need it.
	InsecureLogoutTypeJWT bool
}

// Ask is what a login asks of the provider. The provider need not do it: what
// can be checked in the ID token is checked.
type Ask struct {
	// MaxAge is how long ago the user may have proven who they are, in whole
	// seconds. The ID token must then say so (auth_time). 0 asks nothing. To
	// have the user prove it now, use 1 s, or a Prompt of "login".
	MaxAge time.Duration
	// ACRValues are the acceptable strengths of that proof, the preferred one
	// first. The ID token must name one of them (acr). Optional.
	ACRValues []string
	// Prompt is the parameter of that name, such as "select_account". It cannot
	// be checked in the ID token. Optional.
	Prompt string
	// LoginHint is the parameter of that name, such as an e-mail address. It
	// cannot be checked in the ID token. Optional.
	LoginHint string
}

// Login is a login at the provider that has passed all checks.
type Login struct {
	// Start is how the session will begin. Config.User may add to it. Its
	// Subject is set afterwards, and Groups and Earliest are kept.
	Start sessiontoken.Start
	// Issuer and Subject identify the user: iss and sub of the ID token.
	Issuer, Subject string
	// Token has the provider's access token, and the refresh token if one was
	// asked for. They are not part of the session.
	Token *oauth2.Token
	// Options are added to those of the sign-in, such as
	// [sessionhttp.Remember].
	Options []sessionhttp.SignInOption
	// Request is the browser's request.
	Request *http.Request

	payload []byte // of the ID token
}

const maxAskValue = 1000 // bytes of one value of Ask

// check returns an error for a configuration that cannot work.
func (cfg *Config[T]) check() error {
	switch {
	case cfg.Sessions == nil:
		return errors.New("oidclogin: Config.Sessions is required")
	case cfg.Revocations == nil:
		return errors.New("oidclogin: Config.Revocations is required: the provider's logout has to revoke sessions")
	case cfg.Revocations.RetainFor() == 0:
		return errors.New("oidclogin: Config.Revocations was not made by revoke.NewList")
	case cfg.Sessions.Revocations() == nil:
		return errors.New("oidclogin: Config.Sessions has no Issuer, or was not made by sessionhttp.New: it cannot sign users in")
	case cfg.Sessions.Revocations() != cfg.Revocations:
		return errors.New("oidclogin: Config.Revocations is not the list of Config.Sessions: the provider's logout would revoke nothing")
	case cfg.User == nil:
		return errors.New("oidclogin: Config.User is required: it finds the user of a login")
	}
	if err := checkSecrets(cfg.Secrets); err != nil {
		return err
	}
	if err := checkURL("Issuer", cfg.Issuer); err != nil {
		return err
	}
	if cfg.InsecureDiscoveryURL != "" {
		if err := checkURL("InsecureDiscoveryURL", cfg.InsecureDiscoveryURL); err != nil {
			return err
		}
	}
	if err := checkRedirectURL(cfg.RedirectURL); err != nil {
		return err
	}
	if below := cfg.Sessions.RefreshPath(); below != "" && !strings.HasPrefix(pathOf(cfg.RedirectURL), strings.TrimSuffix(below, "/")+"/") {
		return fmt.Errorf("oidclogin: the path of Config.RedirectURL must be below %q, the RefreshPath of Config.Sessions: the sign-out beside it needs the cookie of that path", below)
	}
	if err := cfg.checkClient(); err != nil {
		return err
	}
	if slices.ContainsFunc(cfg.Scopes, func(s string) bool { return !isScope(s) }) {
		return errors.New("oidclogin: Config.Scopes holds an empty scope, or one with a space or another character that no scope has")
	}
	if err := cfg.Ask.check("Config.Ask"); err != nil {
		return err
	}
	if cfg.AfterSignOut != "" && localPath(cfg.AfterSignOut) != cfg.AfterSignOut {
		return errors.New("oidclogin: Config.AfterSignOut must be a path of this site, such as \"/goodbye\"")
	}
	return nil
}

func (cfg *Config[T]) checkClient() error {
	switch {
	case cfg.ClientID == "" || !utf8.ValidString(cfg.ClientID):
		return errors.New("oidclogin: Config.ClientID is required, in valid UTF-8")
	case cfg.ClientSecret == "" && cfg.ClientKey == nil:
		return errors.New("oidclogin: Config.ClientSecret is required, unless ClientKey is set")
	case cfg.ClientSecret != "" && cfg.ClientKey != nil:
		return errors.New("oidclogin: Config.ClientKey and Config.ClientSecret are both set; use one of them")
	case cfg.ClientKey != nil && cfg.ClientKey.Public() == nil:
		return errors.New("oidclogin: Config.ClientKey was not made by keys.NewSigningKey or keys.GenerateKey")
	case cfg.InsecureTokenEndpointAudience && cfg.ClientKey == nil:
		return errors.New("oidclogin: Config.InsecureTokenEndpointAudience is for ClientKey, which is not set")
	}
	return nil
}

// checkSecrets checks the secrets. An error names a secret by its index, and
// never holds one.
func checkSecrets(secrets [][]byte) error {
	if len(secrets) == 0 {
		return errors.New("oidclogin: Config.Secrets is required: at least 32 random bytes, the same on every replica, such as those of the authority")
	}
	return arg.Secrets("oidclogin: Config.Secrets", secrets)
}

// checkURL checks an absolute URL of the configuration. The error does not quote
// it: a URL can hold a password.
func checkURL(field, raw string) error {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return fmt.Errorf("oidclogin: Config.%s is required", field)
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		return fmt.Errorf("oidclogin: Config.%s must be a URL with a host, without a user, a query and a fragment", field)
	case !isSafeURL(u):
		return fmt.Errorf("oidclogin: Config.%s must begin with https:// (http:// on a loopback host)", field)
	}
	return nil
}

// isSafeURL reports whether a URL is https, or http on a loopback host.
func isSafeURL(u *url.URL) bool {
	return u.Scheme == "https" || u.Scheme == "http" && arg.IsLoopback(u.Hostname())
}

func checkRedirectURL(raw string) error {
	if err := checkURL("RedirectURL", raw); err != nil {
		return err
	}
	u, _ := url.Parse(raw)
	if !strings.HasSuffix(u.Path, "/"+pathCallback) || u.RawPath != "" || localPath(u.Path) != u.Path {
		return errors.New("oidclogin: Config.RedirectURL must have a plain path that ends in \"/callback\"")
	}
	return nil
}

// pathOf returns the path of a URL that checkRedirectURL has accepted.
func pathOf(raw string) string {
	u, _ := url.Parse(raw)
	return u.Path
}

// check returns an error that begins with the name of the field.
func (a *Ask) check(field string) error {
	if a.MaxAge%time.Second != 0 {
		return fmt.Errorf("oidclogin: %s.MaxAge must be in whole seconds", field)
	}
	if err := arg.Duration(field+".MaxAge", a.MaxAge, time.Second); err != nil {
		return fmt.Errorf("oidclogin: %w", err)
	}
	for _, v := range a.ACRValues {
		if v == "" || strings.ContainsAny(v, " \"\\") || !isText(v) {
			return fmt.Errorf("oidclogin: %s.ACRValues holds an empty value, or one with a space, a quote or a control character", field)
		}
	}
	if !isText(strings.Join(a.ACRValues, " ")) || !isText(a.Prompt) || !isText(a.LoginHint) {
		return fmt.Errorf("oidclogin: %s must hold text of at most %d bytes without control characters", field, maxAskValue)
	}
	return nil
}

func isText(s string) bool {
	return len(s) <= maxAskValue && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// isScope reports whether s is a scope-token of RFC 6749 section 3.3.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' })
}

// localPath returns a path of this site, with its query, unless it is none: then
// "/". A browser reads "//host" and "/\host" as another site, and removes tabs
// and line breaks before it reads.
func localPath(p string) string {
	const most = 1000
	bad := len(p) > most || !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") ||
		strings.ContainsFunc(p, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' || r == '#' })
	if bad {
		return "/"
	}
	u, err := url.Parse(p)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil {
		return "/"
	}
	return p
}
