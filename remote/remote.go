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
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Config configures [New].
type Config struct {
	// Issuer is the URL of the authority, exactly as its tokens have it in iss.
	// Required. It is https, without query, fragment and user information. The
	// discovery document is read at this URL followed by
	// /.well-known/openid-configuration (OpenID Connect Discovery 1.0 section
	// 4). It must have the same issuer, byte for byte, and an https URL as
	// jwks_uri.
	Issuer string

	// Audience is what the tokens for this API name in aud. Required.
	Audience string

	// Client sends the requests, as in [KeysConfig]. Fetching the document and
	// the keys takes at most the time of one fetch.
	Client *http.Client

	// RefreshEvery is the longest time between two fetches of the keys while
	// fetches succeed. A key that was revoked at the authority verifies here
	// for at most RefreshEvery and the time of one fetch. The discovery
	// document is read again with the keys. At least 1 s. 0 means 10 min.
	RefreshEvery time.Duration

	// MaxStale is how long the last valid keys are used while fetches fail, and
	// the last jwks_uri while the document cannot be read. At least
	// RefreshEvery. 0 means 24 h.
	MaxStale time.Duration

	// FeedToken returns the credential for the authority's feed of revocations:
	// one of its FeedTokens. It is called for each request to the feed, so
	// that a credential that is replaced takes effect without a restart. With
	// it, a session that is revoked at the authority is refused here, mostly
	// within a second, and at most 5 s and one request later while the feed
	// answers. After 30 s without an answer every session is refused. A token
	// whose state has changed is refused too.
	//
	// The feed is the one that the discovery document names. It must have the
	// scheme, host and port of Issuer: the credential is sent nowhere else.
	//
	// Nil means that revocations are not known here: a token is accepted until
	// its exp.
	FeedToken func(ctx context.Context) (string, error)

	// StateSecrets open the [sessiontoken.Sealed] fields of the state: what
	// StateSecrets of the authority returns. Required if T has such a field,
	// unless LeaveSealed is set.
	StateSecrets [][]byte

	// LeaveSealed reads the other fields alone. A Sealed field is then not
	// checked, and its Open returns [sessiontoken.ErrSealed].
	LeaveSealed bool

	// Logger gets the lines that [KeysConfig] lists, and those of package
	// sessionhttp and of [revoke.List]. Nil means slog.Default().
	Logger *slog.Logger

	// OnEvent gets an event for each request with a credential that Sessions
	// refuses: see [event.Func]. Optional.
	OnEvent event.Func

	// InsecurePlainHTTP permits an http Issuer, and its http jwks_uri, on a
	// loopback host (127.0.0.0/8, ::1, localhost), for development. The
	// jwks_uri of an https Issuer must be https all the same.
	InsecurePlainHTTP bool
}

// Remote reads the sessions of an authority on another server. It is safe for
// concurrent use.
type Remote[T any] struct {
	keys     *Keys
	verifier *sessiontoken.Verifier[T]
	sessions *sessionhttp.Sessions[T]

	revocations *revoke.List // nil without FeedToken
}

// New checks the configuration and returns the Remote for it, for sessions of
// state type T. It does no I/O and starts no goroutine: the first request, or
// Run, reads the discovery document and the keys. An error names the field at
// fault.
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
	verifier := sessiontoken.VerifierConfig{Issuer: config.Issuer, Audience: config.Audience, Keys: k, StateSecrets: config.StateSecrets, LeaveSealed: config.LeaveSealed}
	if config.FeedToken != nil {
		r.revocations, err = revoke.NewList(revoke.Config{
			Store: newFeed(d, k.client, config.FeedToken), SyncEvery: feedSync, MaxStale: feedStale, MaxSession: feedRemembers, Logger: config.Logger,
		})
		if err != nil {
			return nil, fmt.Errorf("remote: %w", err)
		}
		verifier.Revocations = r.revocations
	}
	if r.verifier, err = sessiontoken.NewVerifier[T](verifier); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if r.sessions, err = sessionhttp.New(sessionhttp.Config[T]{Verifier: r.verifier, Revocations: r.revocations, Logger: config.Logger, OnEvent: config.OnEvent}); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	return r, nil
}

// Run keeps the keys fresh and follows the feed of revocations, until ctx ends,
// and returns ctx.Err(). Without it the keys are fetched when calls need them,
// as [Keys] says, and the feed is read when the last reading is older than 10 s:
// a revocation is then known after 30 s at most.
func (r *Remote[T]) Run(ctx context.Context) error {
	if r.revocations == nil {
		return r.keys.Run(ctx)
	}
	following := make(chan struct{})
	go func() {
		defer close(following)
		_ = r.revocations.Run(ctx) // it ends with ctx alone
	}()
	defer func() { <-following }()
	return r.keys.Run(ctx)
}

// Keys returns the source of the authority's keys.
func (r *Remote[T]) Keys() *Keys { return r.keys }

// Revocations returns the list of what was revoked at the authority, or nil
// without Config.FeedToken. It only reads: a call of RevokeSession and the like
// returns an error that matches [errors.ErrUnsupported], and revokes nothing.
func (r *Remote[T]) Revocations() *revoke.List { return r.revocations }

// Verifier returns the verifier of the authority's tokens for this audience.
func (r *Remote[T]) Verifier() *sessiontoken.Verifier[T] { return r.verifier }

// Sessions returns the middleware for the handlers of this API. It reads a
// Bearer token, or the cookie "__Host-session" if the API has the host of the
// authority's cookie. It does not begin, renew or revoke a session. If the
// cookie has another name, or other origins send requests with it, use
// [sessionhttp.New] with Verifier instead.
func (r *Remote[T]) Sessions() *sessionhttp.Sessions[T] { return r.sessions }

// Ready returns a handler for a readiness probe. It answers 503 if KeySet or
// the list of revocations fails now, so that every request with a session is
// 503 too, and 200 otherwise. The body is one JSON object with a reason for each
// failure: "keys" and "revocations", with 503; "discovery", also with 200, if the
// document cannot be read and the last jwks_uri is used; "feed", also with 200,
// if the last reading of the feed has failed. The first probe reads all of
// them, and waits for each for at most 2 s.
func (r *Remote[T]) Ready() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		status, reasons := http.StatusOK, struct {
			Keys        string `json:"keys,omitzero"`
			Revocations string `json:"revocations,omitzero"`
			Discovery   string `json:"discovery,omitzero"`
			Feed        string `json:"feed,omitzero"`
		}{}
		if _, err := r.keys.KeySet(req.Context(), ""); err != nil {
			status, reasons.Keys = http.StatusServiceUnavailable, err.Error()
		}
		if failure := r.keys.discovery.failure.Load(); failure != nil && *failure != nil {
			reasons.Discovery = (*failure).Error()
		}
		if r.revocations != nil {
			_, err := r.revocations.Now(req.Context())
			last := r.revocations.Status()
			switch {
			case err != nil:
				status, reasons.Revocations = http.StatusServiceUnavailable, err.Error()
			case last.Foreign:
				status, reasons.Revocations = http.StatusServiceUnavailable, "the authority has another store than before; restart this program if that is right"
			case last.Err != nil:
				reasons.Feed = last.Err.Error()
			}
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
