package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Config configures [New].
type Config struct {
	// Issuer is the URL of the authority, exactly as its tokens have it in iss.
	// Required. It is https without query, fragment and user information. Its
	// discovery document is read at this URL followed by
	// /.well-known/openid-configuration (OpenID Connect Discovery 1.0 section 4),
	// has to name the same issuer, byte for byte, and an https URL as jwks_uri.
	Issuer string

	// Audience is what the tokens for this API name in aud. Required.
	Audience string

	// Client sends the requests, as [KeysConfig] has it. The document and the keys
	// share the time of one fetch.
	Client *http.Client

	// RefreshEvery is the longest time between two fetches of the keys while all
	// is well, and how long a key that was revoked at the authority still
	// verifies here at most, plus the time that a fetch takes. The discovery
	// document is read again with them. At least 1 s. 0 = 10 min.
	RefreshEvery time.Duration

	// MaxStale is how long the last good keys serve while fetches fail, and the
	// last jwks_uri while the document cannot be read. At least RefreshEvery.
	// 0 = 24 h.
	MaxStale time.Duration

	// Logger is told what [KeysConfig] says, and of requests that cannot be
	// answered. nil = slog.Default().
	Logger *slog.Logger

	// InsecurePlainHTTP permits an Issuer, and with it a jwks_uri, that is http on
	// a loopback host (127.0.0.0/8, ::1, localhost): for development. An https
	// Issuer never leads to plain http.
	InsecurePlainHTTP bool
}

// Remote reads the sessions of an authority elsewhere. It is safe for concurrent
// use.
type Remote[T any] struct {
	keys     *Keys
	verifier *sessiontoken.Verifier[T]
	sessions *sessionhttp.Sessions[T]
}

// New checks the configuration and returns what reads the authority's sessions of
// state type T. It does no I/O and starts no goroutine: the first request, or Run,
// reads the discovery document and the keys. An error names the field at fault.
func New[T any](config Config) (*Remote[T], error) {
	switch {
	case config.Issuer == "":
		return nil, errors.New("remote: Config.Issuer is required: the URL of the authority, exactly as its Config.Issuer")
	case config.Audience == "":
		return nil, errors.New("remote: Config.Audience is required: the name of this API, one of those in the authority's Config.Audience")
	case !config.InsecurePlainHTTP && strings.HasPrefix(strings.ToLower(config.Issuer), "http:"):
		return nil, errors.New("remote: Config.Issuer must be https; InsecurePlainHTTP permits http on a loopback host")
	}
	d, err := newDiscovery(config.Issuer, config.InsecurePlainHTTP)
	if err != nil {
		return nil, fmt.Errorf("remote: Config.Issuer %w", err)
	}
	k, err := newKeys("Config", KeysConfig{Client: config.Client, RefreshEvery: config.RefreshEvery, MaxStale: config.MaxStale, Logger: config.Logger})
	if err != nil {
		return nil, err
	}
	k.discovery, k.host, k.setting = d, d.url.Host, "Config.Issuer"
	r := &Remote[T]{keys: k}
	if r.verifier, err = sessiontoken.NewVerifier[T](sessiontoken.VerifierConfig{Issuer: config.Issuer, Audience: config.Audience, Keys: k}); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if r.sessions, err = sessionhttp.New(sessionhttp.Config[T]{Verifier: r.verifier, Logger: config.Logger}); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	return r, nil
}

// Run keeps the keys fresh until ctx ends and returns ctx.Err(). It is optional,
// as [Keys.Run] is.
func (r *Remote[T]) Run(ctx context.Context) error { return r.keys.Run(ctx) }

// Keys returns the authority's keys, which are found by discovery.
func (r *Remote[T]) Keys() *Keys { return r.keys }

// Verifier returns the verifier of the authority's tokens for this audience.
func (r *Remote[T]) Verifier() *sessiontoken.Verifier[T] { return r.verifier }

// Sessions returns what stands before the handlers of this API. It reads a Bearer
// token, or the cookie "__Host-session" where the API has the host of the
// authority's cookie; it begins, renews and ends nothing. Where the cookie has
// another name, or other origins send requests with it, use [sessionhttp.New] with
// Verifier.
func (r *Remote[T]) Sessions() *sessionhttp.Sessions[T] { return r.sessions }

// Ready returns a handler for a readiness probe. It answers 200, or 503 if the
// keys cannot be told now: then every request with a session is 503 too. The body
// is one JSON object with a reason for each thing that fails: "keys", with 503;
// "discovery", also with 200, if the document cannot be read and the key set is
// still found where it was. The first probe reads both, and waits for 2 s at most.
func (r *Remote[T]) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		status, reasons := http.StatusOK, struct {
			Keys      string `json:"keys,omitzero"`
			Discovery string `json:"discovery,omitzero"`
		}{}
		if _, err := r.keys.KeySet(req.Context(), ""); err != nil {
			status, reasons.Keys = http.StatusServiceUnavailable, err.Error()
		}
		if failure := r.keys.discovery.failure.Load(); failure != nil && *failure != nil {
			reasons.Discovery = (*failure).Error()
		}
		body, err := json.Marshal(reasons)
		if err != nil { // a text that is not UTF-8
			body = []byte(`{"keys":"the reason cannot be shown"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = w.Write(body) // a prober that went away
	})
}
