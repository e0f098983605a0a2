package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// Provider signs users in with one OpenID provider. A site with several has one
// each, in folders of their own. It is safe for concurrent use. Make it with
// [New].
type Provider[T any] struct {
	cfg       Config[T]
	site      string // "https://site.example"
	base      string // the path of the folder, "/oidc/"
	cookies   cookieNames
	seal      *sealer
	client    *http.Client
	discovery *discovery
	keys      *keySet
	logouts   *logoutReceiver
	log       *loud.Log
	counted   counters
}

// The paths below the folder.
const (
	pathLogin     = "login"
	pathCallback  = "callback"
	pathLogout    = "backchannel-logout"
	pathSignOut   = "sign-out"
	pathSignedOut = "signed-out"
)

// New checks the configuration and returns the provider for it. An error names
// the field at fault, and never holds a secret. New does no I/O and starts no
// goroutine: the provider's metadata is fetched when it is first needed.
func New[T any](cfg Config[T]) (*Provider[T], error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Scopes = slices.Clone(cfg.Scopes)
	cfg.Ask.ACRValues = slices.Clone(cfg.Ask.ACRValues)
	if cfg.AfterSignOut == "" {
		cfg.AfterSignOut = "/"
	}
	redirect, err := url.Parse(cfg.RedirectURL)
	if err != nil {
		return nil, errors.New("oidclogin: Config.RedirectURL is not a URL")
	}
	p := &Provider[T]{
		cfg: cfg, site: redirect.Scheme + "://" + redirect.Host,
		base:    strings.TrimSuffix(redirect.Path, pathCallback),
		cookies: newCookieNames(cfg.Issuer, cfg.ClientID),
		client:  boundedClient(cfg.Client),
		log:     loud.New(cfg.Logger),
	}
	if p.seal, err = newSealer(cfg.Secrets, cfg.Issuer, cfg.ClientID); err != nil {
		return nil, fmt.Errorf("oidclogin: Config.Secrets: %w", err)
	}
	p.cfg.Secrets = nil // what was derived from them is enough
	at := cfg.InsecureDiscoveryURL
	if at == "" {
		at = strings.TrimSuffix(cfg.Issuer, "/") + "/.well-known/openid-configuration"
	}
	p.discovery = newDiscovery(at, cfg.Issuer, p.client, p.log)
	p.keys = newKeySet(p.client, p.discovery.get, p.log)
	p.logouts = &logoutReceiver{provider: p.logoutRules, revocations: cfg.Revocations, loud: p.log, counted: &p.counted, clock: clock.Here()}
	return p, nil
}

// ServeHTTP answers the paths below the folder of Config.RedirectURL:
//
//	GET  login               begins a login; "return" is the path to go to then
//	GET  callback            ends it (with FormPost: POST)
//	POST backchannel-logout  takes logout tokens from the provider
//	POST sign-out            signs out here and at the provider
//	GET  signed-out          is where the provider sends the browser then
//
// Mount it at that folder, such as with mux.Handle("/oidc/", provider). It
// answers all other paths with 404. No answer may be stored by a cache.
//
// A page with a form that posts to sign-out needs a Content-Security-Policy
// whose form-action, if it has one, names this site and the provider: browsers
// apply it to the redirect too.
func (p *Provider[T]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	name, below := strings.CutPrefix(r.URL.Path, p.base)
	if !below {
		http.NotFound(w, r)
		return
	}
	get, post := r.Method == http.MethodGet, r.Method == http.MethodPost
	switch {
	case name == pathLogin && get:
		p.login(w, r)
	case name == pathCallback && get && !p.cfg.FormPost:
		p.callback(w, r)
	case name == pathCallback && post && p.cfg.FormPost:
		p.postedCallback(w, r)
	case name == pathLogout && post:
		p.logouts.ServeHTTP(w, r)
	case name == pathSignOut && post:
		p.signOut(w, r)
	case name == pathSignedOut && get:
		p.signedOut(w, r)
	case name == pathLogin || name == pathSignedOut || name == pathCallback && !p.cfg.FormPost:
		notAllowed(w, http.MethodGet)
	case name == pathCallback || name == pathLogout || name == pathSignOut:
		notAllowed(w, http.MethodPost)
	default:
		http.NotFound(w, r)
	}
}

func notAllowed(w http.ResponseWriter, method string) {
	w.Header().Set("Allow", method)
	http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
}

// discover returns the provider's metadata. An error matches errUnavailable.
func (p *Provider[T]) discover(ctx context.Context) (*metadata, error) {
	return p.discovery.get(ctx)
}

// logoutRules returns the provider's keys, and what a logout token must fulfil.
func (p *Provider[T]) logoutRules(ctx context.Context) (oidc.KeySet, logoutRules, error) {
	m, err := p.discover(ctx)
	if err != nil {
		return nil, logoutRules{}, err
	}
	return p.keys, logoutRules{issuer: m.Issuer, clientID: p.cfg.ClientID, algorithms: m.algorithms(), insecureTypeJWT: p.cfg.InsecureLogoutTypeJWT}, nil
}

// metadata is what is used of the provider's discovery document (OpenID Connect
// Discovery 1.0 section 3).
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	KeysURL               string   `json:"jwks_uri"`
	EndSessionEndpoint    string   `json:"end_session_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	Algorithms            []string `json:"id_token_signing_alg_values_supported"`
	AuthMethods           []string `json:"token_endpoint_auth_methods_supported"`
	SendsIssuer           bool     `json:"authorization_response_iss_parameter_supported"`
	BackChannelLogout     bool     `json:"backchannel_logout_supported"`
}

const (
	fetchLimit   = 5 * time.Second // of one fetch
	maxMetadata  = 256 << 10       // bytes of a discovery document
	maxKeys      = 256 << 10       // bytes of a key set
	maxTokens    = 256 << 10       // bytes of the answer of the token endpoint
	freshFor     = time.Hour       // metadata is fetched again after that
	usableFor    = 24 * time.Hour  // metadata is used while it cannot be fetched
	firstPause   = 400 * time.Millisecond
	longestPause = 800 * time.Millisecond // jitter makes it 1 s at most
)

// discovery fetches the metadata when it is needed.
type discovery struct {
	at, issuer string
	client     *http.Client
	clock      *clock.Clock
	fetches    *flight.Group

	mu    sync.Mutex
	found *metadata
	since clock.Instant
}

func newDiscovery(at, issuer string, client *http.Client, log *loud.Log) *discovery {
	d := &discovery{at: at, issuer: issuer, client: client, clock: clock.Here()}
	d.fetches = flight.New(flight.Config{
		Limit: fetchLimit, Pause: firstPause, MaxPause: longestPause,
		Ended: func(err error) {
			if err != nil {
				log.Warn("metadata", "oidclogin: the provider's metadata cannot be fetched; check that this machine reaches the URL, and that the document's issuer is Config.Issuer", "url", at, "err", err)
			}
		},
	}, d.fetch)
	return d
}

// get returns the metadata. Metadata that is older than freshFor is used while
// it is fetched again, and while that fails until it is older than usableFor.
func (d *discovery) get(ctx context.Context) (*metadata, error) {
	d.mu.Lock()
	found, age := d.found, d.clock.Age(d.since)
	d.mu.Unlock()
	switch {
	case found != nil && age < freshFor:
		return found, nil
	case found != nil && age < usableFor:
		d.fetches.Go()
		return found, nil
	}
	if _, err := d.fetches.Try(ctx, fetchLimit); err != nil {
		return nil, unavailable("the provider's metadata", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.found, nil
}

func unavailable(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", errUnavailable, what, err)
}

func (d *discovery) fetch(ctx context.Context, run *flight.Run) error {
	began := d.clock.Read()
	body, err := getBody(ctx, d.client, d.at, maxMetadata)
	if err != nil {
		return err
	}
	m, err := parseMetadata(body, d.issuer)
	if err != nil {
		return err
	}
	run.Commit(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.found, d.since = m, began
	})
	return nil
}

// parseMetadata reads a discovery document. Errors quote no part of it.
func parseMetadata(body []byte, issuer string) (*metadata, error) {
	if strictjson.TooDeep(body) {
		return nil, errors.New("the document is nested too deeply")
	}
	m := new(metadata)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, errors.New("the document is not valid JSON, or a member has another type than it should")
	}
	if m.Issuer != issuer {
		return nil, errors.New("the document is of another issuer than Config.Issuer, which is compared byte for byte")
	}
	home, err := url.Parse(issuer)
	if err != nil {
		return nil, errors.New("the issuer is not a URL")
	}
	for _, e := range []struct {
		name, url string
		optional  bool
	}{
		{"authorization_endpoint", m.AuthorizationEndpoint, false},
		{"token_endpoint", m.TokenEndpoint, false},
		{"jwks_uri", m.KeysURL, false},
		{"end_session_endpoint", m.EndSessionEndpoint, true},
		{"revocation_endpoint", m.RevocationEndpoint, true},
	} {
		if e.optional && e.url == "" {
			continue
		}
		u, err := url.Parse(e.url)
		if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || !isSafeURL(u) || home.Scheme == "https" && u.Scheme != "https" {
			return nil, fmt.Errorf("the document's %s is missing or not an https URL", e.name)
		}
	}
	return m, nil
}

// boundedClient returns a client that follows no redirect, and whose requests
// end after fetchLimit. A redirect could lead a secret, or a fetch, elsewhere.
func boundedClient(given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		c.Transport, c.Timeout = given.Transport, given.Timeout
	}
	if c.Timeout <= 0 || c.Timeout > fetchLimit {
		c.Timeout = fetchLimit
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// getBody fetches a document of at most most bytes. Errors quote no part of the
// response.
func getBody(ctx context.Context, client *http.Client, at string, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, errors.New("the request could not be made")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, requestError(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answered with status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, requestError(ctx, err)
	case int64(len(body)) > most:
		return nil, fmt.Errorf("the document is over %d bytes", most)
	}
	return body, nil
}

// requestError returns the error of a request without its URL.
func requestError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("no answer in time")
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err
}
