package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Store holds what replicas share: the key ring, the revocations, and the
// families of refresh tokens. The modules sqlstore and redisstore have stores,
// and [Memory] is one.
type Store interface {
	keys.Store
	revoke.Store
	refresh.Store

	// Revisions returns the revisions of key rings, in the order of names. Each
	// is the Rev that Load of that name returns, and "" for a document that was
	// never saved. A [Host] reads with it which of many rings have changed.
	//
	//   - Size: names may have any number of names, also none, in any order and
	//     more than once. All of them take one reading.
	//   - Identity: two documents of one name never have the same revision
	//     unless their bytes are the same, even if the store has lost its data
	//     in between.
	//   - Time, Primary, Concurrency, Cancellation: as Load of [keys.Store]. A
	//     store that does not know the revision of one name returns an error.
	Revisions(ctx context.Context, names ...string) (revs []string, now time.Time, err error)
}

// Config configures an [Authority] with states of type T. All replicas that
// share a store are configured alike.
type Config[T any] struct {
	// Issuer is the iss of every token, and the URL from which others find the
	// keys. Required.
	//
	// It is compared byte for byte, so that only one spelling is permitted:
	// https (http on a loopback host), the host in lower case, no default port,
	// and a path, if there is one, of plain segments. It has no slash at the
	// end, no user, no query and no fragment, and at most 256 bytes.
	Issuer string
	// Audience is the aud of every token: the names of the servers that it is
	// for. The first is this server's own. Required.
	Audience []string
	// Store is shared by all replicas. Required, unless Host is set.
	Store Store
	// Host is shared by the authorities of many tenants in this process. It has
	// the store, and its Run replaces [Authority.Run]. Optional.
	Host *Host
	// Secrets are at least 32 random bytes each, the same on every replica,
	// such as from a secret manager. From each secret keys are derived by HKDF:
	// one seals the private keys in the store, one makes refresh tokens, one
	// encrypts the names in the feed, one seals the fields of the state that are
	// a [sessiontoken.Sealed]. New data is made with the first secret, and that
	// of all secrets is accepted. Required, unless Store is Memory().
	//
	// To replace a secret while replicas roll, finish each step everywhere
	// before the next:
	//
	//  1. Append the new secret.
	//  2. Move it to the front, and call Reseal of [Authority.Ring] once.
	//  3. When MaxSession has passed, remove the old one.
	Secrets [][]byte
	// Seal seals the private keys in place of Secrets, such as with a KMS.
	// Optional.
	Seal keys.AEAD
	// Algorithm is the algorithm of new keys. Empty means ES256.
	Algorithm keys.Algorithm
	// Namespace separates authorities that share a store. At most 256 bytes.
	// Empty means Issuer. With Host it is required, and different for each
	// authority.
	Namespace string
	// Load returns the current state of a session from the authority on it,
	// such as a database; see [sessionhttp.Config]. Required.
	Load func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error)
	// Limits are the times of sessions. Zero means the defaults.
	Limits Limits
	// HTTP configures sessions over HTTP: cookies, origins, pages. Leave out
	// Verifier, Issuer, Refresh, Revocations, Load, Logger and OnEvent: New sets
	// them.
	HTTP sessionhttp.Config[T]
	// FeedTokens are the credentials of the feed of revocations, which APIs
	// without the store read by package remote: bearer tokens of at least 32
	// random characters of base64url, hex or the like. All of them are
	// accepted, so that they can be replaced one after the other. Without
	// FeedTokens and FeedCheck there is no feed.
	//
	// A reader of the feed learns when sessions, subjects, groups and keys were
	// revoked or have changed. It can check whether a name that it knows is
	// among them, and cannot read the names. Optional.
	FeedTokens []string
	// FeedCheck permits requests to the feed that have none of FeedTokens, such
	// as those with a client certificate that it knows. It is called for each
	// of them. Optional.
	FeedCheck func(r *http.Request) bool
	// Logger gets a line for each failure, at most one a reason and minute. Nil
	// means slog.Default(), or with Host its logger.
	Logger *slog.Logger
	// OnEvent gets what happens to sessions and keys at this replica: see
	// [event.Event] and [event.Func]. Optional.
	OnEvent event.Func
	// InsecureEventNames lets the events name subjects and sessions as they
	// are, and not by hashes: who reads them then knows when each person came
	// and went.
	InsecureEventNames bool
}

// maxName is how many bytes the name of a ring can have.
const maxName = 256

// check returns an error for a configuration that cannot work, and sets the
// fields that follow from others. It does not check the limits.
func (cfg *Config[T]) check() error {
	if err := checkIssuer(cfg.Issuer); err != nil {
		return err
	}
	if err := cfg.checkStore(); err != nil {
		return err
	}
	if cfg.Namespace == "" {
		cfg.Namespace = cfg.Issuer
	}
	noAudience := func(a string) bool { return a == "" || !utf8.ValidString(a) }
	switch {
	case len(cfg.Audience) == 0:
		return errors.New("authority: Config.Audience is required: the name of this server, and of others that the tokens are for")
	case slices.ContainsFunc(cfg.Audience, noAudience):
		return errors.New("authority: Config.Audience holds an empty name, or one that is not valid UTF-8")
	case cfg.Seal != nil && arg.IsNil(cfg.Seal):
		return errors.New("authority: Config.Seal holds a nil pointer")
	case len(cfg.Namespace) > maxName || !utf8.ValidString(cfg.Namespace) || strings.ContainsRune(cfg.Namespace, 0):
		return fmt.Errorf("authority: Config.Namespace must be valid UTF-8 of at most %d bytes, without a NUL", maxName)
	case cfg.Load == nil:
		return errors.New("authority: Config.Load is required: it returns the state of a session from your database, at each renewal")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"Verifier", cfg.HTTP.Verifier != nil}, {"Issuer", cfg.HTTP.Issuer != nil}, {"Refresh", cfg.HTTP.Refresh != nil},
		{"Revocations", cfg.HTTP.Revocations != nil}, {"Load", cfg.HTTP.Load != nil}, {"Logger", cfg.HTTP.Logger != nil},
		{"OnEvent", cfg.HTTP.OnEvent != nil},
	} {
		if f.set {
			return fmt.Errorf("authority: Config.HTTP.%s must be left out; it follows from Config", f.name)
		}
	}
	if m, ok := cfg.store().(*memory); ok && len(cfg.Secrets) == 0 {
		cfg.Secrets = [][]byte{m.secret()}
	}
	if err := checkFeedTokens(cfg.FeedTokens); err != nil {
		return err
	}
	return checkSecrets(cfg.Secrets)
}

// servesFeed reports whether the feed has a credential.
func (cfg *Config[T]) servesFeed() bool { return len(cfg.FeedTokens) > 0 || cfg.FeedCheck != nil }

// checkStore returns an error unless the configuration has one store, its own
// or that of its host.
func (cfg *Config[T]) checkStore() error {
	switch {
	case cfg.Host == nil && arg.IsNil(cfg.Store):
		return errors.New("authority: Config.Store is required, or Config.Host: Memory() for one process, or a store of the modules sqlstore and redisstore")
	case cfg.Host == nil:
		return nil
	case cfg.Host.store == nil:
		return errors.New("authority: Config.Host is a zero Host: make it with NewHost")
	case cfg.Store != nil:
		return errors.New("authority: Config.Store must be left out beside Config.Host, which has one")
	case cfg.Namespace == "":
		return errors.New("authority: Config.Namespace is required with Config.Host")
	}
	if cfg.Logger == nil {
		cfg.Logger = cfg.Host.logger.With("namespace", cfg.Namespace)
	}
	return nil
}

// store returns the store of the authority or of its host.
func (cfg *Config[T]) store() Store {
	if cfg.Host != nil {
		return cfg.Host.store
	}
	return cfg.Store
}

// spelling is the form of an issuer. Hosts with http, default ports and
// segments of dots are checked separately.
var spelling = regexp.MustCompile(`^https?://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[1-9][0-9]*)?(/[A-Za-z0-9._~-]+)*$`)

const likeIssuer = "such as https://site.example, or http://localhost:8080 for development"

// checkIssuer returns an error unless the issuer has its one spelling. The
// error does not quote the issuer, which may hold a password.
func checkIssuer(issuer string) error {
	if issuer == "" {
		return errors.New("authority: Config.Issuer is required: " + likeIssuer)
	}
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return errors.New("authority: Config.Issuer must be an https URL: " + likeIssuer)
	}
	defaultPort := u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80"
	dots := func(segment string) bool { return segment == "." || segment == ".." }
	switch {
	case u.Scheme != "https" && !(u.Scheme == "http" && arg.IsLoopback(u.Hostname())):
		return errors.New("authority: Config.Issuer must be an https URL; http is for loopback hosts alone: " + likeIssuer + "; behind a proxy that ends TLS it is the URL that browsers see, with HTTP.TLSInFront")
	case strings.HasSuffix(issuer, "/"):
		return errors.New("authority: Config.Issuer must not end in a slash")
	case len(issuer) > maxName:
		return fmt.Errorf("authority: Config.Issuer has %d bytes; it must have at most %d", len(issuer), maxName)
	case defaultPort, !spelling.MatchString(issuer), slices.ContainsFunc(strings.Split(u.Path, "/"), dots):
		return errors.New("authority: Config.Issuer must be spelled in the one way: the host in small letters, no default port, plain segments, no user, query or fragment")
	}
	return nil
}
