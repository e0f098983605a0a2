package oidclogin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/keys"
)

var (
	// ErrNoGrant means that the user has no grant: none was begun, or it is
	// over. The user has to log in again, with scope offline_access.
	ErrNoGrant = errors.New("oidclogin: the user has no grant for offline access")
	// ErrGrantSealed means that a grant is there and GrantsConfig.Secrets
	// do not open it: another secret sealed it, or it was changed.
	ErrGrantSealed = errors.New("oidclogin: a grant for offline access cannot be opened with GrantsConfig.Secrets")
)

// GrantStore keeps opaque bytes by namespace and key, and replaces them by
// compare-and-swap. The stores of packages sqlstore and redisstore and that of
// authority.Memory have its methods. [Grants] has all logic; the store only
// stores.
//
// What every implementation promises:
//
//   - Names are separate: two different pairs of namespace and key never have
//     one grant, whatever characters they hold. A namespace has at most 256
//     bytes and a key 128. Both are valid UTF-8 without a NUL.
//   - Absence: a grant that was never saved, or was deleted, is nil and "", and
//     not an error. A store that does not know whether there is a grant returns
//     an error and never absence.
//   - Primary: LoadGrant reads the copy that SaveGrant writes to. A copy that
//     may lag is an error.
//   - Size: a grant has at most 64 KiB. SaveGrant refuses a longer one and
//     changes nothing.
//   - Revisions are opaque, never empty for a grant that exists, and only
//     compared for equality. No revision comes back, not even that of a deleted
//     grant.
//   - Concurrency: both methods may be called from any number of goroutines and
//     processes. Of several SaveGrants with the same rev, one at most succeeds.
//     A LoadGrant that begins after a SaveGrant returned sees its grant or a
//     later one, and always a whole one.
//   - Durability: what SaveGrant acknowledged is not lost. A store that loses
//     it lets a refresh token be used twice.
//   - Aliasing: slices are copied.
//   - Cancellation: a ctx that is done before the call ends it with ctx's
//     error and without a change. One that ends during the call ends it soon.
//
// Package storetest has a test of these promises. A process that can write to a
// store can end a grant or put an old one back, and cannot read or make one.
type GrantStore interface {
	// LoadGrant returns a grant and its revision.
	LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error)

	// SaveGrant replaces a grant if its revision still is rev, where ""
	// means that it does not exist, and returns the new revision. An empty
	// sealed deletes the grant; the revision is "" then. If the grant has
	// another revision, the error matches [keys.ErrConflict] and nothing
	// has changed. After any other error the write may have taken effect.
	SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error)
}

// GrantsConfig configures [Grants]. All replicas, and all programs that act for
// the same users, are configured alike.
type GrantsConfig struct {
	// Store keeps the grants. Required.
	Store GrantStore
	// Namespace separates grants of programs that share a store and have
	// nothing to do with each other. At most 256 bytes. Optional.
	Namespace string
	// Secrets are at least 32 random bytes each, such as those of the
	// authority: the keys that seal the grants are derived from them. The
	// first seals, all open. A grant is sealed again when it is refreshed.
	// Required.
	Secrets [][]byte

	// Issuer, ClientID, ClientSecret and ClientKey are as in [Config]: a
	// refresh token is the client's for which it was issued. Required, of
	// the last two one.
	Issuer, ClientID, ClientSecret string
	ClientKey                      *keys.SigningKey
	// Rotates says that the provider replaces refresh tokens, though it may
	// not do so at each refresh. Without it, a provider counts as one that
	// keeps them if it has kept a grant's at every refresh so far, and then
	// the token is sent again after a crash or a lost answer. Set it for a
	// provider that replaces old tokens only, as npm oidc-provider does by
	// default: it could take that for a theft.
	Rotates bool

	// Client and Logger are as in [Config]. A request for a refresh may
	// take 20 s.
	Client *http.Client
	Logger *slog.Logger

	// InsecureDiscoveryURL and InsecureTokenEndpointAudience are as in
	// [Config].
	InsecureDiscoveryURL          string
	InsecureTokenEndpointAudience bool
}

// Grants keeps what a program needs to act for users at the provider, or at
// APIs that accept its access tokens, while no session is there: a refresh
// token for each user, and the last access token. They are kept sealed in a
// store of their own, and are no part of a session.
//
// A grant belongs to an issuer, a subject and a client. [Grants.Save] begins it
// at a login with scope offline_access. It has a life of its own: the end of a
// session leaves it as it is. It is over when [Grants.Revoke] ends it, or when
// the provider does.
//
// # One use of a refresh token
//
// A provider that replaces a refresh token at each use takes a second use for a
// theft and ends the whole chain. So one replica refreshes at a time: it
// records in the store that the token is in use before it sends it, and stores
// the new token in the place of the old one. Other replicas wait. If the
// outcome of a use is lost, the token is not sent again, and the grant is over:
// [ErrNoGrant]. The exception is a provider that does not replace refresh
// tokens; see GrantsConfig.Rotates. These are the cases:
//
//   - The provider answers with an error of RFC 6749 section 5.2 and a status of
//     4xx: the token was not used. invalid_grant ends the grant. All others are
//     faults of the configuration, after which the grant goes on.
//   - No connection could be made; or the status is 429 or 503, by which a
//     server says that it has not processed the request; or the error is
//     temporarily_unavailable: the token was not used, and the grant goes on.
//   - Anything else, such as no answer, a status of 500, 502 or 504, or one of
//     200 without an access token: the token counts as used. RFC 6749 does not
//     say what has become of it.
//   - The process ends between its record and the answer: the token counts as
//     used when a minute has passed. The clocks of replicas may differ by 15 s.
//   - The store fails while the record is written: the refresh does not begin.
//   - The store fails after the provider's answer, until 45 s have passed since
//     the record: the token counts as used, and the answer is lost.
//
// A refreshed ID token must be of the same issuer, subject, client, nonce and
// auth_time as the first (OpenID Connect Core 1.0 section 12.2); another one
// ends the grant.
//
// It is safe for concurrent use. Make it with [NewGrants].
type Grants struct {
	store     GrantStore
	namespace string
	issuer    string
	clientID  string
	rotates   bool
	seal      keys.AEAD
	endpoint  tokenEndpoint
	clock     *clock.Clock
	runs      *flight.Keyed[string, refreshed]
	log       *loud.Log
	counted   struct{ refreshed, failed, over, sealed atomic.Uint64 }
}

// tokenEndpoint is what Grants needs of the provider.
type tokenEndpoint interface {
	// refresh sends a refresh token, once. An error matches errNotUsed or
	// errInvalidGrant; after any other the token may have been used.
	refresh(ctx context.Context, refreshToken string) (*tokenAnswer, error)
	// verify checks a refreshed ID token. An error matches errUnavailable
	// or errRefused.
	verify(ctx context.Context, a *tokenAnswer, g *grant) error
	// revoke revokes a refresh token, if the provider has an endpoint for
	// that.
	revoke(ctx context.Context, refreshToken string) error
}

// tokenAnswer is a successful answer of the token endpoint.
type tokenAnswer struct {
	access, kind string
	lasts        time.Duration // 0 if the provider does not say
	refresh      string        // empty if the old one goes on
	idToken      string        // empty if there is none
}

var (
	errNotUsed      = errors.New("oidclogin: the refresh token was not used")
	errInvalidGrant = errors.New("oidclogin: the provider has ended the grant")
)

const (
	// recordLimit is how long the record of a use may take, and
	// refreshLimit how long the provider. finishLimit is how long all may
	// take from the start of the record to the end of the write that stores
	// the outcome. A use that is older than lease has failed.
	recordLimit  = 10 * time.Second
	refreshLimit = 20 * time.Second
	finishLimit  = 45 * time.Second
	lease        = time.Minute

	firstPoll   = 20 * time.Millisecond
	longestPoll = time.Second
)

// NewGrants checks the configuration and returns the grants for it. An error
// names the field at fault, and never holds a secret. NewGrants does no I/O and
// starts no goroutine.
func NewGrants(cfg GrantsConfig) (*Grants, error) {
	switch {
	case arg.IsNil(cfg.Store):
		return nil, errors.New("oidclogin: GrantsConfig.Store is required")
	case len(cfg.Namespace) > 256 || !isPlain(cfg.Namespace):
		return nil, errors.New("oidclogin: GrantsConfig.Namespace must have at most 256 bytes of valid UTF-8, without control characters")
	}
	endpoint, err := newEndpoint(&cfg)
	if err != nil {
		return nil, errors.New(strings.ReplaceAll(err.Error(), " Config.", " GrantsConfig."))
	}
	g := &Grants{
		store: cfg.Store, namespace: cfg.Namespace, issuer: cfg.Issuer, clientID: cfg.ClientID, rotates: cfg.Rotates,
		endpoint: endpoint, clock: clock.Here(), log: loud.New(cfg.Logger),
		runs: flight.NewKeyed[string, refreshed](flight.KeyedConfig{
			Limit: 2 * lease, Pause: time.Second, MaxPause: 30 * time.Second, MaxRuns: 1000, MaxKept: 10_000,
		}),
	}
	if g.seal, err = sealOf(cfg.Secrets, "grants", cfg.Issuer, cfg.ClientID); err != nil {
		return nil, fmt.Errorf("oidclogin: GrantsConfig.Secrets: %w", err)
	}
	return g, nil
}

// key returns the key of a user's grant. It is a digest, so that the store
// holds no name of a person. The store's reader can check whether a name that
// it knows is among them.
func (g *Grants) key(subject string) string {
	h := sha256.New()
	for _, s := range []string{"oidclogin grant", g.issuer, subject, g.clientID} {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Save begins the grant of a user at a login, in the place of an earlier one of
// the same user. Config.User is a good place to call it. If the login brought
// no refresh token, the earlier grant goes on: some providers give one at the
// first login alone. Without an earlier one the error is [ErrNoGrant].
func (g *Grants) Save(ctx context.Context, l *Login) error {
	if l.Issuer != g.issuer {
		return errors.New("oidclogin: the login is of another issuer than GrantsConfig.Issuer")
	}
	key := g.key(l.Subject)
	for {
		_, rev, err := g.load(ctx, key)
		if err != nil && !errors.Is(err, ErrGrantSealed) {
			return err
		}
		if l.Token == nil || l.Token.RefreshToken == "" {
			if err == nil && rev == "" {
				err = ErrNoGrant
			}
			return err
		}
		nonce, authTime := l.bound()
		now := g.clock.Now()
		next := &grant{
			Subject: l.Subject, Refresh: l.Token.RefreshToken, Nonce: nonce, AuthTime: authTime,
			Access: l.Token.AccessToken, Kind: l.Token.Type(), Refreshed: now.UnixMilli(), Expires: expiry(now, l.Token.Expiry),
		}
		if _, err = g.swap(ctx, key, next, rev); !errors.Is(err, keys.ErrConflict) {
			return err
		}
	}
}

// expiry returns the end of a login's access token in milliseconds.
func expiry(now, told time.Time) int64 {
	if told.IsZero() {
		return now.Add(untold).UnixMilli()
	}
	return told.UnixMilli()
}

// Token returns an access token of a user that is valid for a while, without a
// refresh token. subject is Login.Subject, the provider's name of the user.
// Token refreshes at the provider if the last access token has expired or soon
// will, and waits while another replica does. It waits until ctx ends, and for
// 2 min at most; the end of ctx does not cancel a refresh that has begun. An
// error that is neither [ErrNoGrant] nor [ErrGrantSealed] may be gone at a
// later call.
func (g *Grants) Token(ctx context.Context, subject string) (*oauth2.Token, error) {
	found, err := g.atLeast(ctx, subject, g.isUsable)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: found.Access, TokenType: found.Kind, Expiry: time.UnixMilli(found.Expires).UTC()}, nil
}

// Revoke ends the grant of a user: here, and at the provider if its metadata
// has a revocation endpoint (RFC 7009). If the provider fails, the error says
// so, and the grant is over here all the same. No grant is no error. Revoke
// also erases what the store has of the user.
func (g *Grants) Revoke(ctx context.Context, subject string) error {
	key := g.key(subject)
	var refused error
	revoked := ""
	for {
		found, rev, err := g.load(ctx, key)
		switch {
		case err != nil && !errors.Is(err, ErrGrantSealed):
			return errors.Join(refused, err)
		case rev == "":
			return refused
		case err != nil:
			refused = err // the provider cannot be told
		case found.Refresh != revoked:
			revoked = found.Refresh
			refused = g.endpoint.revoke(ctx, revoked)
		}
		if _, err = g.swap(ctx, key, nil, rev); !errors.Is(err, keys.ErrConflict) {
			return errors.Join(refused, err)
		}
	}
}

// Metrics returns the counts since NewGrants. The names are fixed, and all of
// them only grow:
//
//	oidclogin_grants_refreshed_total  refreshes that brought a token
//	oidclogin_grants_failed_total     refreshes after which the grant went on without one
//	oidclogin_grants_over_total       grants that ended at a refresh
//	oidclogin_grants_sealed_total     readings of a grant that Secrets do not open
//
// Metrics does no I/O. The map is the caller's: [expvar.Func] can publish it as
// it is.
func (g *Grants) Metrics() map[string]float64 {
	return map[string]float64{
		"oidclogin_grants_refreshed_total": float64(g.counted.refreshed.Load()),
		"oidclogin_grants_failed_total":    float64(g.counted.failed.Load()),
		"oidclogin_grants_over_total":      float64(g.counted.over.Load()),
		"oidclogin_grants_sealed_total":    float64(g.counted.sealed.Load()),
	}
}
