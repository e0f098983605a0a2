package sessiontoken

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	// defaultMaxAge is the default max-age of a key set.
	defaultMaxAge = 10 * time.Minute
	// discoveryMaxAge is the max-age of the discovery document, which names no
	// key.
	discoveryMaxAge = time.Hour
	// sharedMaxAge is the s-maxage, for shared caches. It is short because a
	// verifier that meets an unknown kid fetches the set again, and must get a
	// new one.
	sharedMaxAge = time.Second

	lookEvery = time.Second            // least time between two readings of the store
	lookLimit = 5 * time.Second        // of one reading
	lookWait  = 200 * time.Millisecond // how long a request waits for a reading
)

// Looker is a KeySource that reads its store on demand, such as [keys.Ring].
type Looker interface {
	KeySource
	// Look reads the store, so that the next KeySet is of a reading that began
	// after the call. An error means that the store could not be read: KeySet
	// then returns what it would have returned without Look.
	Look(ctx context.Context) error
}

// JWKSConfig says how a key set is published.
type JWKSConfig struct {
	// Keys is the source to publish. Required. If it is a [Looker], the handler
	// has it read its store at most once a second, so that a key that another
	// process has made or revoked is published without delay.
	Keys KeySource
	// MaxAge is the Cache-Control max-age of the answers, in whole seconds. 0
	// means 10 min. If Keys is a [keys.Scheduler], as [keys.Ring] is, then
	// MaxAge must not exceed the MaxAge of Keys, and the handler shortens it so
	// that no answer outlives the next planned change. A key could otherwise
	// sign before every verifier has it.
	MaxAge time.Duration
	// InsecurePlainHTTP also serves requests that came over plain http from
	// another host. It is for a proxy on another host that ends TLS. An
	// attacker who can change what a verifier fetches over plain http chooses
	// its keys.
	InsecurePlainHTTP bool
	// Logger gets a line for requests that are refused or cannot be answered, at
	// most one a reason and minute. Nil means slog.Default().
	Logger *slog.Logger
}

// JWKSHandler returns the handler for the issuer's /.well-known/jwks.json: the
// public keys of a source as a JWK set (RFC 7517 section 5). Only public
// members can appear in it. The handler answers GET and HEAD, sets a strong
// ETag, and answers 304 to a matching If-None-Match. It permits every origin
// (CORS), since the set is public. If the source has no key set, it answers
// 503.
//
// The handler reads the store of a [Looker] at most once a second for all
// requests, since some verifiers fetch the set for each bad token. A request
// waits for a reading for at most 200 ms, or not at all if the last reading
// failed. A shared cache may keep an answer for one second (s-maxage), a client
// for MaxAge.
//
// An error names the field of the configuration at fault.
func JWKSHandler(cfg JWKSConfig) (http.Handler, error) {
	if arg.IsNil(cfg.Keys) {
		return nil, errors.New("sessiontoken: JWKSConfig.Keys is required")
	}
	if arg.IsUnmade(cfg.Keys) {
		return nil, fmt.Errorf("sessiontoken: JWKSConfig.Keys is a zero %T: make it with its constructor", cfg.Keys)
	}
	if cfg.MaxAge < 0 || cfg.MaxAge%time.Second != 0 {
		return nil, errors.New("sessiontoken: JWKSConfig.MaxAge must be a whole number of seconds")
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = defaultMaxAge
	}
	plan, _ := cfg.Keys.(keys.Scheduler)
	if plan != nil && cfg.MaxAge > plan.MaxAge() {
		return nil, fmt.Errorf("sessiontoken: JWKSConfig.MaxAge is %v; with the times of Keys it must not exceed %v, or a key could sign before every verifier has it", cfg.MaxAge, plan.MaxAge())
	}
	h := &documentHandler{
		keys:        cfg.Keys,
		plan:        plan,
		contentType: "application/jwk-set+json",
		plainHTTP:   cfg.InsecurePlainHTTP,
		setting:     "JWKSConfig.InsecurePlainHTTP",
		maxAge:      cfg.MaxAge,
		shared:      sharedMaxAge,
		loud:        loud.New(cfg.Logger),
		clock:       clock.Here(),
		render:      func(set *keys.Set) ([]byte, error) { return set.MarshalJSON() },
	}
	if l, ok := cfg.Keys.(Looker); ok {
		h.looks = flight.New(flight.Config{Limit: lookLimit, Cooldown: lookEvery},
			func(ctx context.Context, _ *flight.Run) error { return l.Look(ctx) })
	}
	return h, nil
}

// DiscoveryConfig says what a discovery document names.
type DiscoveryConfig struct {
	// Issuer is the issuer of the tokens, exactly as IssuerConfig.Issuer: an
	// https URL without query or fragment. Required.
	Issuer string
	// JWKSURI is the https URL of the key set. Empty means the issuer's URL
	// followed by /.well-known/jwks.json.
	JWKSURI string
	// RevocationFeed is the URL of the feed of revocations that package
	// authority serves, with the scheme, host and port of Issuer. Empty means
	// that there is none.
	RevocationFeed string
	// Keys is the source whose algorithms are listed. Required.
	Keys KeySource
	// InsecurePlainHTTP also serves requests that came over plain http from
	// another host, as in [JWKSConfig]. It also permits http URLs in the fields
	// above.
	InsecurePlainHTTP bool
	// Logger gets a line for requests that are refused or cannot be answered, at
	// most one a reason and minute. Nil means slog.Default().
	Logger *slog.Logger
}

// DiscoveryHandler returns the handler for the discovery document, with which a
// gateway finds the key set by the issuer's URL alone. Mount it at
// [DiscoveryPaths]. The document names issuer, jwks_uri, the algorithms of the
// current keys and, as session_revocation_feed, the feed. It does not make the
// issuer an OpenID provider: it has no login, and a session token is not an ID
// token.
//
// An error names the field of the configuration at fault.
func DiscoveryHandler(cfg DiscoveryConfig) (http.Handler, error) {
	if arg.IsNil(cfg.Keys) {
		return nil, errors.New("sessiontoken: DiscoveryConfig.Keys is required")
	}
	if arg.IsUnmade(cfg.Keys) {
		return nil, fmt.Errorf("sessiontoken: DiscoveryConfig.Keys is a zero %T: make it with its constructor", cfg.Keys)
	}
	if !isPublicURL(cfg.Issuer, cfg.InsecurePlainHTTP) {
		return nil, errors.New("sessiontoken: DiscoveryConfig.Issuer must be an https URL without query or fragment")
	}
	if cfg.JWKSURI == "" {
		cfg.JWKSURI = strings.TrimSuffix(cfg.Issuer, "/") + "/.well-known/jwks.json"
	}
	if !isPublicURL(cfg.JWKSURI, cfg.InsecurePlainHTTP) {
		return nil, errors.New("sessiontoken: DiscoveryConfig.JWKSURI must be an https URL without query or fragment")
	}
	if cfg.RevocationFeed != "" && !(isPublicURL(cfg.RevocationFeed, cfg.InsecurePlainHTTP) && isOneOrigin(cfg.RevocationFeed, cfg.Issuer)) {
		return nil, errors.New("sessiontoken: DiscoveryConfig.RevocationFeed must be an https URL without query or fragment, with the scheme, host and port of Issuer")
	}
	return &documentHandler{
		keys:        cfg.Keys,
		contentType: "application/json",
		plainHTTP:   cfg.InsecurePlainHTTP,
		setting:     "DiscoveryConfig.InsecurePlainHTTP",
		maxAge:      discoveryMaxAge,
		shared:      discoveryMaxAge,
		loud:        loud.New(cfg.Logger),
		clock:       clock.Here(),
		render: func(set *keys.Set) ([]byte, error) {
			var algorithms []string
			for _, k := range set.Keys() {
				algorithms = append(algorithms, string(k.Algorithm()))
			}
			slices.Sort(algorithms)
			return json.Marshal(discovery{
				Issuer:     cfg.Issuer,
				JWKSURI:    cfg.JWKSURI,
				Feed:       cfg.RevocationFeed,
				Algorithms: slices.Compact(algorithms),
				Responses:  []string{"id_token"},
				Subjects:   []string{"public"},
			})
		},
	}, nil
}

// DiscoveryPaths returns the paths at which clients look for the document of an
// issuer, as patterns for [http.ServeMux]. For https://auth.example/tenant they
// are /tenant/.well-known/openid-configuration, after the path of the issuer
// (OpenID Connect Discovery 1.0 section 4), and
// /.well-known/oauth-authorization-server/tenant, between the host and the path
// (RFC 8414 section 3.1). A proxy in front must pass both paths on. An issuer
// that is not a URL with a host is an error.
func DiscoveryPaths(issuer string) ([]string, error) {
	if !isPublicURL(issuer, true) {
		return nil, errors.New("sessiontoken: the issuer must be a URL without query or fragment")
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, errors.New("sessiontoken: the issuer must be a URL without query or fragment")
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	return []string{path + "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server" + path}, nil
}

// discovery has the members that the clients of either standard require. Both
// standards require response_types_supported, and clients such as authlib
// refuse an empty list. The one value is the one that the issuer of Kubernetes
// publishes, which has no login either.
type discovery struct {
	Issuer     string   `json:"issuer"`
	JWKSURI    string   `json:"jwks_uri"`
	Feed       string   `json:"session_revocation_feed,omitzero"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Responses  []string `json:"response_types_supported"`
	Subjects   []string `json:"subject_types_supported"`
}

func isPublicURL(s string, plainHTTP bool) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || plainHTTP && u.Scheme == "http") && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && !strings.Contains(s, "#")
}

// isOneOrigin reports whether two URLs are spelled with one scheme, host and
// port.
func isOneOrigin(a, b string) bool {
	u, err1 := url.Parse(a)
	v, err2 := url.Parse(b)
	return err1 == nil && err2 == nil && u.Scheme == v.Scheme && u.Host == v.Host
}

// documentHandler serves a document that is rendered from a key set alone. It
// renders the document once for each new set.
type documentHandler struct {
	keys        KeySource
	plan        keys.Scheduler // or nil
	contentType string
	plainHTTP   bool
	setting     string // the field that permits plain http
	maxAge      time.Duration
	shared      time.Duration // maxAge of a shared cache
	loud        *loud.Log
	clock       *clock.Clock
	looks       *flight.Group // nil if the source is no Looker
	render      func(*keys.Set) ([]byte, error)
	rendered    atomic.Pointer[rendered]
}

type rendered struct {
	set  *keys.Set
	body []byte
	etag string
}

func (h *documentHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Access-Control-Allow-Origin", "*")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "GET and HEAD only", http.StatusMethodNotAllowed)
		return
	}
	if r.TLS == nil && !h.plainHTTP && !arg.IsLocalPeer(r.RemoteAddr) {
		header.Set("Cache-Control", "no-store")
		h.loud.Warn("plain_http", "sessiontoken: the keys are served over https only, and a request from another host came over plain http; if a proxy there ends TLS, set "+h.setting)
		http.Error(w, "served over https only; if a proxy on another host ends TLS, set "+h.setting+" at the server", http.StatusForbidden)
		return
	}
	h.look(r.Context())
	doc, err := h.document(r)
	if err != nil {
		h.loud.Warn("no_key_set", "sessiontoken: there is no key set to publish; check the store of the keys", "error", err)
		header.Set("Cache-Control", "no-store")
		http.Error(w, "no key set at the moment", http.StatusServiceUnavailable)
		return
	}
	header.Set("Cache-Control", h.cacheControl())
	header.Set("ETag", doc.etag)
	if matches(r.Header.Values("If-None-Match"), doc.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", h.contentType)
	header.Set("Content-Length", strconv.Itoa(len(doc.body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(doc.body) // a client that went away
	}
}

// look has the source read its store, unless it did so within the last second.
// It waits for at most lookWait, and not at all if the last reading failed.
func (h *documentHandler) look(ctx context.Context) {
	if h.looks == nil {
		return
	}
	if _, err := h.looks.Failing(); err != nil {
		h.looks.Go()
		return
	}
	_, _ = h.looks.Try(ctx, lookWait) // if it fails, the source says what it knows
}

func (h *documentHandler) document(r *http.Request) (*rendered, error) {
	set, err := h.keys.KeySet(r.Context(), "")
	if err != nil {
		return nil, err
	}
	if set == nil {
		return nil, errors.New("the source returned no set")
	}
	if doc := h.rendered.Load(); doc != nil && doc.set == set {
		return doc, nil
	}
	body, err := h.render(set)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	doc := &rendered{set: set, body: body, etag: `"` + hex.EncodeToString(sum[:16]) + `"`}
	h.rendered.Store(doc)
	return doc, nil
}

// age returns how long an answer may be used: until the next planned change of
// the keys, and at most maxAge.
func (h *documentHandler) age() time.Duration {
	age := h.maxAge
	if h.plan != nil {
		if next := h.plan.NextChange(); !next.IsZero() {
			age = max(0, min(age, clock.Between(h.clock.Now(), next)))
		}
	}
	return age
}

func (h *documentHandler) cacheControl() string {
	age := h.age()
	value := "public, max-age=" + strconv.Itoa(int(age/time.Second))
	if h.shared < h.maxAge {
		value += ", s-maxage=" + strconv.Itoa(int(min(age, h.shared)/time.Second))
	}
	return value
}

// matches makes the weak comparison of RFC 9110 section 13.1.2.
func matches(ifNoneMatch []string, etag string) bool {
	for _, line := range ifNoneMatch {
		for candidate := range strings.SplitSeq(line, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == etag || candidate == "*" {
				return true
			}
		}
	}
	return false
}
