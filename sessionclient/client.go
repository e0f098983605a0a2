package sessionclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

// ErrSignIn means that the user has to sign in again: there is no record, or the
// server has refused its refresh token. After any other error of a [Client]
// nothing is lost, and the call can be repeated. No text of an error holds a
// token.
var ErrSignIn = errors.New("sessionclient: sign in again")

// Config configures a [Client].
type Config struct {
	// TokenURL is the URL at which refresh tokens are exchanged: the server's
	// sessionhttp RefreshHandler. It must be https, or http on a loopback host.
	// Redirects are not followed. Required.
	TokenURL string
	// RevokeURL is the URL at which the session is revoked: the server's
	// sessionhttp RevokeHandler. As TokenURL. Optional: without it, SignOut
	// deletes the record and the session lives on.
	RevokeURL string
	// ClientID is the client that the refresh token is bound to. Empty if it is
	// bound to none.
	ClientID string
	// Origins are the only ones that the access token is sent to, such as
	// "https://api.example". They must be https, or http on a loopback host, and
	// have no path. Required.
	Origins []string
	// Keeper holds the record. Required.
	Keeper Keeper
	// HTTPClient sends the requests to TokenURL and RevokeURL. Its CheckRedirect
	// is not used. Nil means the default transport of net/http.
	HTTPClient *http.Client
	// Margin is how long before its end an access token is not used any more:
	// the time that a request is under way. At most a quarter of the life of a
	// token is used. 0 means 10 s.
	Margin time.Duration
}

// Keeper holds the record of one session: a short text, which is a secret as a
// password is. [File] returns one. An operating system's key chain is another.
//
//   - Durability: after Save has returned nil, a crash or a power cut does not
//     bring the old record back. A keeper in memory signs the user out when the
//     program ends.
//   - Exclusion: between Lock and unlock, no other caller of Lock that has the
//     same record gets the lock, in this process or another. It is held while a
//     refresh token is exchanged, for up to 30 s. Load and Save are called with
//     the lock held.
//   - Absence: Load returns nil if there is no record. Save of an empty record
//     deletes it.
//   - Aliasing: neither side changes or keeps the bytes after the call.
//   - Cancellation: the calls return when ctx is done.
//   - Errors hold no part of a record.
type Keeper interface {
	Lock(ctx context.Context) (unlock func(), err error)
	Load(ctx context.Context) (record []byte, err error)
	Save(ctx context.Context, record []byte) error
}

// Tokens are the tokens of a sign-in, in the JSON of RFC 6749 section 5.1.
type Tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"` // "Bearer"; empty means that too
	ExpiresIn    int64  `json:"expires_in"` // seconds that the access token is valid from now; 0 means that it is renewed before its first use
	RefreshToken string `json:"refresh_token"`
}

// Client has one session with a server. It is safe for concurrent use. Make it
// with [New]. Several clients, also in several processes, can share a record:
// they take turns, and each reads what the others have saved.
type Client struct {
	cfg      Config
	http     http.Client
	server   string // the origin of TokenURL
	origins  map[string]bool
	clock    *clock.Clock
	renewals *flight.Group

	mu      sync.Mutex
	current *grant        // nil before the first renewal, and when there is no session
	over    error         // why there is no session; matches ErrSignIn
	began   clock.Instant // of the renewal under way; zero if there is none
	refused string        // an access token that an API has refused
	forced  clock.Instant // when an API last refused one
	inRow   int           // how many were refused at short intervals

	ended   string // a refresh token that the server has refused
	lost    string // a refresh token that was presented, and the answer was lost
	unsaved *grant // the successor of parent, which could not be saved
	parent  string
}

const (
	defaultMargin = 10 * time.Second
	// renewLimit is how long a renewal takes at most: lockLimit, exchangeLimit
	// and the time of the keeper.
	renewLimit    = time.Minute
	lockLimit     = 30 * time.Second
	exchangeLimit = 25 * time.Second
	// patience is how long a renewal delays callers while the old access token
	// is good.
	patience = 2 * time.Second
	// firstPause and maxPause are how long no renewal begins after one that
	// failed, and how long a token that an API refuses is not renewed after
	// others were.
	firstPause = time.Second / 4
	maxPause   = 30 * time.Second
)

// New checks the configuration and returns a client for it. An error names the
// field at fault. New does no I/O and starts no goroutine.
func New(cfg Config) (*Client, error) {
	if cfg.TokenURL == "" {
		return nil, errors.New("sessionclient: Config.TokenURL is required")
	}
	token, err := checkURL(cfg.TokenURL)
	if err != nil {
		return nil, fmt.Errorf("sessionclient: Config.TokenURL %w", err)
	}
	if cfg.RevokeURL != "" {
		revoke, err := checkURL(cfg.RevokeURL)
		if err != nil {
			return nil, fmt.Errorf("sessionclient: Config.RevokeURL %w", err)
		}
		if origin(revoke) != origin(token) {
			return nil, errors.New("sessionclient: Config.RevokeURL must have the origin of Config.TokenURL")
		}
	}
	if len(cfg.Origins) == 0 {
		return nil, errors.New("sessionclient: Config.Origins is required: the origins of the APIs, such as https://api.example")
	}
	c := &Client{cfg: cfg, server: origin(token), origins: map[string]bool{}, clock: clock.Here()}
	for _, o := range cfg.Origins {
		u, err := checkURL(o)
		if err == nil && (u.Path != "" || u.RawQuery != "" || u.ForceQuery) {
			err = errors.New("must end after the host and the port")
		}
		if err != nil {
			return nil, fmt.Errorf("sessionclient: Config.Origins holds one that %w", err)
		}
		c.origins[origin(u)] = true
	}
	c.cfg.Origins = nil // c.origins has them
	if arg.IsNil(cfg.Keeper) {
		return nil, errors.New("sessionclient: Config.Keeper is required")
	}
	if err := arg.Duration("sessionclient: Config.Margin", cfg.Margin, time.Millisecond); err != nil {
		return nil, err
	}
	if cfg.Margin == 0 {
		c.cfg.Margin = defaultMargin
	}
	if cfg.HTTPClient != nil {
		c.http = *cfg.HTTPClient
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.renewals = flight.New(flight.Config{Limit: renewLimit, Pause: firstPause, MaxPause: maxPause}, c.renew)
	return c, nil
}

// checkURL parses an absolute https URL, or an http URL of a loopback host. The
// error does not repeat the URL, which may hold a password.
func checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("is not an absolute URL with a host")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())):
		return nil, errors.New("must be https, or http on a loopback host")
	case u.User != nil:
		return nil, errors.New("must not have user information")
	case u.Fragment != "" || u.RawFragment != "":
		return nil, errors.New("must not have a fragment")
	}
	return u, nil
}

// isLoopback reports whether a host is localhost or a loopback address. A name
// below localhost is none: a resolver may ask others for it.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost")
	}
	return ip.Zone() == "" && ip.Unmap().IsLoopback()
}

// Token returns an access token that is valid now, and its end by this machine's
// clock. It renews one that is due, together with all callers of that moment. If
// that fails, or takes longer than 2 s, while the old token is good, Token
// returns the old one.
//
// The end of ctx does not cancel a renewal. An error that matches [ErrSignIn]
// means that the user has to sign in again. After any other error the call can
// be repeated; renewals that fail are not repeated at once but after a pause,
// in which Token returns the last error.
func (c *Client) Token(ctx context.Context) (accessToken string, expires time.Time, err error) {
	g, err := c.grant(ctx)
	if err != nil {
		return "", time.Time{}, err
	}
	return g.access, g.expires(), nil
}

// Renew returns another access token than one that an API has refused as
// expired or stale, as [Client.Token] does. [Client.Transport] needs no call of
// it: it is for other protocols. If an API refuses renewed tokens too, they are
// renewed at growing intervals, up to 30 s; Renew returns an error in between.
func (c *Client) Renew(ctx context.Context, refused string) (accessToken string, expires time.Time, err error) {
	if !c.refuse(refused) {
		return "", time.Time{}, errRefusedAgain
	}
	g, err := c.other(ctx, refused)
	switch {
	case err != nil:
		return "", time.Time{}, err
	case g.access == refused:
		return "", time.Time{}, errRefusedAgain
	}
	return g.access, g.expires(), nil
}

var errRefusedAgain = errors.New("sessionclient: the API refuses renewed access tokens too; the next one is renewed after a pause")

var errNoToken = errors.New("sessionclient: the access token expired on the way")

// grant returns a grant that is good. It renews one that is due.
func (c *Client) grant(ctx context.Context) (*grant, error) {
	c.mu.Lock()
	g, began := c.good(), c.began
	wait := time.Duration(0)
	if g != nil {
		if !g.due(c.clock) && g.access != c.refused {
			c.mu.Unlock()
			return g, nil
		}
		wait = patience
		if !began.IsZero() {
			wait -= c.clock.Age(began)
		}
	}
	c.mu.Unlock()
	if g != nil && wait <= 0 {
		return g, nil
	}
	return c.renewed(ctx, wait)
}

// renewed waits for a renewal, at most for a time (0 means no limit), and
// returns the grant that is good then.
func (c *Client) renewed(ctx context.Context, atMost time.Duration) (*grant, error) {
	_, err := c.renewals.Try(ctx, atMost)
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.good()
	switch {
	case g != nil:
		return g, nil
	case err != nil:
		return nil, prefixed("no access token", err)
	case c.over != nil:
		return nil, c.over
	}
	return nil, errNoToken
}

// good returns the current grant if its access token can be used. c.mu is held.
func (c *Client) good() *grant {
	if c.current == nil || !c.current.good(c.clock, c.cfg.Margin) {
		return nil
	}
	return c.current
}

// refuse records that an API has refused an access token, and reports whether
// another one can be had. An API that refuses all tokens, such as those for
// another audience, causes few renewals.
func (c *Client) refuse(access string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.current == nil || c.current.access != access || c.refused == access:
		return true
	case !c.forced.IsZero() && c.clock.Age(c.forced) > 2*maxPause:
		c.inRow = 0
	}
	if c.inRow > 0 && c.clock.Age(c.forced) < min(firstPause<<min(c.inRow-1, 10), maxPause) {
		return false
	}
	c.refused, c.forced, c.inRow = access, c.clock.Read(), c.inRow+1
	return true
}

// SignIn saves the tokens of a new sign-in. They replace those of an earlier
// one, whose session lives on unless SignOut has revoked it. The tokens must
// come from the server of TokenURL.
func (c *Client) SignIn(ctx context.Context, tokens Tokens) error {
	at := c.clock.Read()
	if err := tokens.check(); err != nil {
		return prefixed("SignIn", err)
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return prefixed("SignIn", err)
	}
	defer unlock()
	g := newGrant(tokens, at)
	if err := c.save(ctx, g); err != nil {
		return prefixed("SignIn", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current, c.over, c.refused = g, nil, ""
	return nil
}

// SignOut revokes the session and then deletes the record. If there is no
// record, it does nothing. After an error the record is still there: call
// SignOut again. The end of ctx does not cancel it.
func (c *Client) SignOut(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		err := flight.ErrPanic
		defer func() {
			_ = recover() // of the keeper; its value may hold the record
			done <- err
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewLimit)
		defer cancel()
		err = c.signOut(ctx)
	}()
	select {
	case err := <-done:
		return prefixed("SignOut", err)
	case <-ctx.Done():
		return fmt.Errorf("sessionclient: SignOut goes on: %w", ctx.Err())
	}
}

func (c *Client) signOut(ctx context.Context) error {
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := c.load(ctx)
	if err != nil {
		return err
	}
	if g != nil {
		if c.cfg.RevokeURL != "" {
			if err := c.revoke(ctx, g.refresh); err != nil {
				return err
			}
		}
		if err := c.cfg.Keeper.Save(ctx, nil); err != nil {
			return fmt.Errorf("deleting the record: %w", err)
		}
	}
	c.publish(nil, errNoRecord)
	return nil
}

// prefixed adds what failed to an error that does not say it.
func prefixed(what string, err error) error {
	if err == nil || errors.Is(err, ErrSignIn) {
		return err
	}
	return fmt.Errorf("sessionclient: %s: %w", what, err)
}

// publish sets what callers get.
func (c *Client) publish(g *grant, over error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current, c.over = g, over
}
