package oidclogin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// endpoint is the tokenEndpoint of a provider. Its Provider signs no user in:
// it has the metadata, the keys, and what authenticates this client.
type endpoint struct {
	provider *Provider[struct{}]
	client   *http.Client
	traced   bool // client tells of each connection that it gets
}

const (
	maxAccess  = 32 << 10 // bytes of an access token
	maxRefresh = 8 << 10  // bytes of a refresh token
)

// What a refreshed ID token can fail beside what every ID token must fulfil.
const (
	errOtherSubject refusal = "a refreshed ID token is of another subject"
	errOtherTime    refusal = "a refreshed ID token has another auth_time"
)

// newEndpoint checks what cfg says of the provider. An error says "Config." for
// "GrantsConfig.".
func newEndpoint(cfg *GrantsConfig) (*endpoint, error) {
	c := Config[struct{}]{
		Issuer: cfg.Issuer, ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, ClientKey: cfg.ClientKey,
		InsecureDiscoveryURL: cfg.InsecureDiscoveryURL, InsecureTokenEndpointAudience: cfg.InsecureTokenEndpointAudience,
	}
	if err := checkSecrets(cfg.Secrets); err != nil {
		return nil, err
	}
	if err := checkURL("Issuer", cfg.Issuer); err != nil {
		return nil, err
	}
	at := strings.TrimSuffix(cfg.Issuer, "/") + "/.well-known/openid-configuration"
	if cfg.InsecureDiscoveryURL != "" {
		if err := checkURL("InsecureDiscoveryURL", cfg.InsecureDiscoveryURL); err != nil {
			return nil, err
		}
		at = cfg.InsecureDiscoveryURL
	}
	if err := c.checkClient(); err != nil {
		return nil, err
	}
	p := &Provider[struct{}]{cfg: c, client: boundedClient(cfg.Client), log: loud.New(cfg.Logger)}
	p.discovery = newDiscovery(at, cfg.Issuer, p.client, p.log)
	p.keys = newKeySet(p.client, p.discovery.get, p.log)
	client, traced := ownConnections(p.client)
	return &endpoint{p, client, traced}, nil
}

// ownConnections returns a client whose requests end with their context alone,
// and each have a connection of their own: on a kept one that the server closes
// just then, it would not be known whether the request arrived. A transport
// that is not of net/http is used as it is, and isHTTP is false.
func ownConnections(c *http.Client) (own *http.Client, isHTTP bool) {
	own = new(http.Client)
	*own = *c
	own.Timeout = 0
	if own.Transport == nil {
		own.Transport = http.DefaultTransport
	}
	t, isHTTP := own.Transport.(*http.Transport)
	if isHTTP {
		t = t.Clone()
		t.DisableKeepAlives = true
		own.Transport = t
	}
	return own, isHTTP
}

// reply is the answer of an endpoint.
type reply struct {
	status int
	body   []byte
}

// post authenticates this client and sends a form, once. x/oauth2 would try a
// second way of authenticating after an error. An error matches errNotUsed if
// nothing was sent.
func (e *endpoint) post(ctx context.Context, m *metadata, to string, form url.Values) (*reply, error) {
	proof, err := e.provider.clientProof(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotUsed, err)
	}
	c := e.provider.oauth(m)
	inHeader := c.Endpoint.AuthStyle == oauth2.AuthStyleInHeader
	if !inHeader {
		form.Set("client_id", c.ClientID)
		if c.ClientSecret != "" {
			form.Set("client_secret", c.ClientSecret)
		}
	}
	for name, value := range proof {
		form.Set(name, value)
	}
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("%w: the request could not be made", errNotUsed)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if inHeader {
		req.SetBasicAuth(url.QueryEscape(c.ClientID), url.QueryEscape(c.ClientSecret))
	}
	resp, err := e.client.Do(req)
	if err != nil {
		why := requestError(ctx, err)
		if !connected.Load() && (e.traced || isNoConnection(err)) {
			why = fmt.Errorf("%w: %w", errNotUsed, why)
		}
		return nil, why
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokens))
	if err != nil {
		return nil, requestError(ctx, err)
	}
	return &reply{resp.StatusCode, body}, nil
}

// isNoConnection reports whether an error says that no connection could be
// made.
func isNoConnection(err error) bool {
	var op *net.OpError
	var name *net.DNSError
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") ||
		errors.As(err, &name) || errors.As(err, &certificate) || errors.As(err, &notTLS)
}

// refresh implements tokenEndpoint.
func (e *endpoint) refresh(ctx context.Context, refreshToken string) (*tokenAnswer, error) {
	m, err := e.provider.discover(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotUsed, err)
	}
	r, err := e.post(ctx, m, m.TokenEndpoint, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
	if err != nil {
		return nil, err
	}
	return parseRefresh(r.status, r.body)
}

// refusals are the errors of RFC 6749 section 5.2 that can be quoted.
var refusals = map[string]bool{
	"invalid_client": true, "invalid_request": true, "unauthorized_client": true, "unsupported_grant_type": true, "invalid_scope": true,
}

// parseRefresh reads the answer of a token endpoint to a refresh token: see
// [Grants] for what it means. Its error quotes nothing of the body but an error
// code of RFC 6749.
func parseRefresh(status int, body []byte) (*tokenAnswer, error) {
	var v struct {
		Access  string         `json:"access_token"`
		Kind    string         `json:"token_type"`
		Lasts   jsontext.Value `json:"expires_in"`
		Refresh string         `json:"refresh_token"`
		IDToken string         `json:"id_token"`
		Error   string         `json:"error"`
	}
	readable := !strictjson.TooDeep(body) && json.Unmarshal(body, &v) == nil
	answered := fmt.Errorf("the token endpoint answered with status %d", status)
	switch {
	case status == http.StatusOK && readable && v.Error == "":
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("%w: %w", errNotUsed, answered)
	case !readable || v.Error == "":
		return nil, answered
	case v.Error == "temporarily_unavailable":
		return nil, fmt.Errorf("%w: %w", errNotUsed, answered)
	case status < 400 || status > 499:
		return nil, answered
	case v.Error == "invalid_grant":
		return nil, errInvalidGrant
	case refusals[v.Error]:
		return nil, fmt.Errorf("%w: %w: %s: check ClientID, ClientSecret or ClientKey", errNotUsed, answered, v.Error)
	default:
		return nil, fmt.Errorf("%w: %w and an error of its own", errNotUsed, answered)
	}
	a := &tokenAnswer{access: v.Access, kind: v.Kind, refresh: v.Refresh, idToken: v.IDToken}
	switch {
	case !isVisible(a.access, 1, maxAccess):
		return nil, errors.New("the answer of the token endpoint has no access token, or one that cannot be used")
	case !isVisible(a.refresh, 0, maxRefresh):
		return nil, errors.New("the answer of the token endpoint has a refresh token that cannot be used")
	case !isVisible(a.kind, 0, maxShort):
		return nil, errors.New("the answer of the token endpoint has a token_type that cannot be used")
	case a.kind == "":
		a.kind = "Bearer"
	}
	if n, err := strconv.ParseUint(strings.Trim(string(v.Lasts), `"`), 10, 31); err == nil {
		a.lasts = time.Duration(n) * time.Second
	}
	return a, nil
}

// isVisible reports whether s has from least to most bytes, all of them visible
// ASCII (RFC 6749 appendix A) or spaces.
func isVisible(s string, least, most int) bool {
	return least <= len(s) && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// verify implements tokenEndpoint.
func (e *endpoint) verify(ctx context.Context, a *tokenAnswer, g *grant) error {
	m, err := e.provider.discover(ctx)
	if err != nil {
		return err
	}
	t, err := verifyIDToken(ctx, e.provider.keys, a.idToken, idTokenRules{
		issuer: m.Issuer, clientID: e.provider.cfg.ClientID, algorithms: m.algorithms(), now: clock.Here().Now(),
		nonce: g.Nonce, accessToken: a.access, refreshed: true,
	})
	switch {
	case err != nil:
		return err
	case t.subject != g.Subject:
		return errOtherSubject
	case g.AuthTime != 0 && !t.authTime.IsZero() && t.authTime.Unix() != g.AuthTime:
		return errOtherTime
	}
	return nil
}

// revoke implements tokenEndpoint.
func (e *endpoint) revoke(ctx context.Context, refreshToken string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	m, err := e.provider.discover(ctx)
	if err != nil || m.RevocationEndpoint == "" {
		return err
	}
	r, err := e.post(ctx, m, m.RevocationEndpoint, url.Values{"token": {refreshToken}, "token_type_hint": {"refresh_token"}})
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("it answered with status %d", r.status)
	}
	if err != nil {
		return unavailable("the revocation endpoint", err)
	}
	return nil
}

// bound returns what of a login's ID token its refreshed ones must have too:
// the nonce, and auth_time in Unix seconds. Both can be absent.
func (l *Login) bound() (nonce string, authTime int64) {
	var c idTokenClaims
	if parseObject(l.payload, &c) != nil {
		return "", 0 // a Login that the Provider did not make
	}
	if at := c.AuthTime.time(); !at.IsZero() {
		authTime = at.Unix()
	}
	return string(c.Nonce.text), authTime
}
