package sessiontoken

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	// defaultMaxAge is how long a fetched key set may be used unasked.
	defaultMaxAge = 10 * time.Minute
	// discoveryMaxAge is the same for the discovery document, which names no key.
	discoveryMaxAge = time.Hour
)

// JWKSConfig says how a key set is published.
type JWKSConfig struct {
	// Keys is the source to publish. Required.
	Keys KeySource
	// MaxAge is the Cache-Control max-age of the answers, in whole seconds. It
	// is shortened so that no answer outlives the next planned change. If Keys
	// is a [keys.Ring], MaxAge must not exceed its [keys.Ring.MaxAge]: a key
	// could otherwise sign before every verifier has it. 0 means 10 min.
	MaxAge time.Duration
	// InsecurePlainHTTP serves requests that came neither over TLS nor from
	// this host: for a proxy on another host that ends TLS. Whoever can change
	// what a verifier fetches over plain http can choose its keys.
	InsecurePlainHTTP bool
}

// JWKSHandler returns the handler for the issuer's /.well-known/jwks.json: the
// public keys of a source as a JWK set (RFC 7517 section 5). Only public members
// can appear in it. It answers GET and HEAD, with a strong ETag, 304 to a
// matching If-None-Match, and to any origin (CORS), since it is public data that
// browsers may read. If the source has no key set, it answers 503. It does no
// I/O of its own, and is cheap: some verifiers refetch for each bad token.
//
// An error names the field of the configuration at fault.
func JWKSHandler(cfg JWKSConfig) (http.Handler, error) {
	if arg.IsNil(cfg.Keys) {
		return nil, errors.New("sessiontoken: JWKSConfig.Keys is required")
	}
	if cfg.MaxAge < 0 || cfg.MaxAge%time.Second != 0 {
		return nil, errors.New("sessiontoken: JWKSConfig.MaxAge must be a whole number of seconds")
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = defaultMaxAge
	}
	if r, ok := cfg.Keys.(interface{ MaxAge() time.Duration }); ok && cfg.MaxAge > r.MaxAge() {
		return nil, fmt.Errorf("sessiontoken: JWKSConfig.MaxAge is %v; with the times of Keys it must not exceed %v, or a key could sign before every verifier has it", cfg.MaxAge, r.MaxAge())
	}
	return &documentHandler{
		keys:        cfg.Keys,
		contentType: "application/jwk-set+json",
		plainHTTP:   cfg.InsecurePlainHTTP,
		maxAge:      cfg.MaxAge,
		render:      func(set *keys.Set) ([]byte, error) { return set.MarshalJSON() },
	}, nil
}

// DiscoveryConfig says what a discovery document names.
type DiscoveryConfig struct {
	// Issuer is the issuer of the tokens, exactly as IssuerConfig.Issuer: an
	// https URL without query or fragment. Required.
	Issuer string
	// JWKSURI is the https URL of the key set. Empty means the issuer's URL
	// followed by /.well-known/jwks.json.
	JWKSURI string
	// Keys is the source whose algorithms are listed. Required.
	Keys KeySource
	// InsecurePlainHTTP serves requests that came neither over TLS nor from
	// this host, as [JWKSConfig] has it, and permits http URLs above.
	InsecurePlainHTTP bool
}

// DiscoveryHandler returns the handler for a small document from which gateways
// find the key set when they are given the issuer's URL alone. Mount it below
// that URL at /.well-known/openid-configuration, where gateways look (OpenID
// Connect Discovery section 4), or at /.well-known/oauth-authorization-server
// (RFC 8414). It names issuer, jwks_uri and the algorithms of the current keys.
// It does not make the issuer an OpenID provider: there is nothing to log in to,
// and a session token is not an ID token.
//
// An error names the field of the configuration at fault.
func DiscoveryHandler(cfg DiscoveryConfig) (http.Handler, error) {
	if arg.IsNil(cfg.Keys) {
		return nil, errors.New("sessiontoken: DiscoveryConfig.Keys is required")
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
	return &documentHandler{
		keys:        cfg.Keys,
		contentType: "application/json",
		plainHTTP:   cfg.InsecurePlainHTTP,
		maxAge:      discoveryMaxAge,
		render: func(set *keys.Set) ([]byte, error) {
			var algorithms []string
			for _, k := range set.Keys() {
				algorithms = append(algorithms, string(k.Algorithm()))
			}
			slices.Sort(algorithms)
			return json.Marshal(discovery{
				Issuer:     cfg.Issuer,
				JWKSURI:    cfg.JWKSURI,
				Algorithms: slices.Compact(algorithms),
				Subjects:   []string{"public"},
			})
		},
	}, nil
}

// discovery has the members that clients of either standard insist on, with
// nothing in those that say what one could log in with.
type discovery struct {
	Issuer     string   `json:"issuer"`
	JWKSURI    string   `json:"jwks_uri"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Responses  []string `json:"response_types_supported"`
	Subjects   []string `json:"subject_types_supported"`
}

func isPublicURL(s string, plainHTTP bool) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || plainHTTP && u.Scheme == "http") && u.Host != "" &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery && !strings.Contains(s, "#")
}

// documentHandler serves a document that follows from a key set alone. It is
// rendered once for each generation.
type documentHandler struct {
	keys        KeySource
	contentType string
	plainHTTP   bool
	maxAge      time.Duration
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
	if r.TLS == nil && !h.plainHTTP && !fromThisHost(r) {
		header.Set("Cache-Control", "no-store")
		http.Error(w, "served over https only", http.StatusForbidden)
		return
	}
	doc, err := h.document(r)
	if err != nil {
		header.Set("Cache-Control", "no-store")
		http.Error(w, "no key set at the moment", http.StatusServiceUnavailable)
		return
	}
	header.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(h.age()/time.Second)))
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

// age is how long an answer of now may be used: not beyond the next change.
func (h *documentHandler) age() time.Duration {
	age := h.maxAge
	if r, ok := h.keys.(interface{ NextChange() time.Time }); ok {
		if next := r.NextChange(); !next.IsZero() {
			age = max(0, min(age, time.Until(next)))
		}
	}
	return age
}

// matches is the weak comparison of RFC 9110 section 13.1.2.
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

// fromThisHost says whether the peer is on loopback, as a proxy in the same pod
// or machine is.
func fromThisHost(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
