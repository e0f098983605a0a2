package oidclogin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// assertionLife is how long what ClientKey signs is valid.
const assertionLife = time.Minute

// algorithms returns the algorithms of the provider's ID tokens that a public
// key verifies. Without any in the metadata it is RS256 (OpenID Connect Core
// 1.0 section 2).
func (m *metadata) algorithms() (algs []string) {
	for _, a := range signatureAlgorithms {
		if slices.Contains(m.Algorithms, a) {
			algs = append(algs, a)
		}
	}
	if len(m.Algorithms) == 0 {
		algs = []string{"RS256"}
	}
	return algs
}

// redeem exchanges a code at the token endpoint. Errors hold no part of the
// answer.
func (p *Provider[T]) redeem(ctx context.Context, m *metadata, code, verifier string) (*oauth2.Token, error) {
	options := []oauth2.AuthCodeOption{oauth2.VerifierOption(verifier)}
	proof, err := p.clientProof(ctx, m)
	if err != nil {
		return nil, err
	}
	for name, value := range proof {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	token, err := p.oauth(m).Exchange(p.tokenContext(ctx), code, options...)
	if err != nil {
		return nil, p.tokenError(ctx, err)
	}
	return token, nil
}

// tokenContext returns a context in which x/oauth2 finds a client that reads at
// most maxTokens of an answer.
func (p *Provider[T]) tokenContext(ctx context.Context) context.Context {
	c := *p.client
	c.Transport = limited{c.Transport}
	return context.WithValue(ctx, oauth2.HTTPClient, &c)
}

// limited is a transport that cuts answers off at maxTokens.
type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	next := l.next
	if next == nil {
		next = http.DefaultTransport
	}
	resp, err := next.RoundTrip(req)
	if err == nil && resp.Body != nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxTokens), resp.Body}
	}
	return resp, err
}

// tokenError returns what an error of the token endpoint means.
func (p *Provider[T]) tokenError(ctx context.Context, err error) error {
	var answered *oauth2.RetrieveError
	var failed *url.Error
	what, why := "the token endpoint", errors.New("its answer is not that of a token endpoint, or too long")
	switch {
	case errors.As(err, &answered) && answered.ErrorCode == "invalid_grant":
		return errCode
	case errors.As(err, &answered) && slices.Contains([]string{"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_request", "invalid_scope"}, answered.ErrorCode):
		p.log.Warn("client", "oidclogin: the provider's token endpoint refuses this client; check ClientID, ClientSecret or ClientKey, and RedirectURL", "error", answered.ErrorCode)
		return unavailable(what, errors.New("it refuses this client"))
	case errors.As(err, &answered):
		why = fmt.Errorf("it answered with status %d", answered.Response.StatusCode)
	case errors.As(err, &failed):
		why = requestError(ctx, err)
	}
	p.log.Warn("token_endpoint", "oidclogin: the provider's token endpoint did not answer as it should; check that this machine reaches it", "err", why)
	return unavailable(what, why)
}

// clientProof returns the parameters by which ClientKey authenticates this site
// at the token endpoint (RFC 7523 section 2.2). Without ClientKey there are
// none.
func (p *Provider[T]) clientProof(ctx context.Context, m *metadata) (map[string]string, error) {
	key := p.cfg.ClientKey
	if key == nil {
		return nil, nil
	}
	audience := m.Issuer
	if p.cfg.InsecureTokenEndpointAudience {
		audience = m.TokenEndpoint
	}
	now := clock.Here().Now()
	header, err := jws.Header{Algorithm: string(key.Public().Algorithm()), KeyID: key.Public().KeyID(), Type: "JWT"}.Encode()
	if err != nil {
		return nil, errors.New("oidclogin: the header of a client assertion cannot be written")
	}
	payload, err := json.Marshal(map[string]any{
		"iss": p.cfg.ClientID, "sub": p.cfg.ClientID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return nil, errors.New("oidclogin: a client assertion cannot be written")
	}
	input := header + "." + jws.Encode(payload)
	sig, err := key.Sign(ctx, []byte(input))
	if err != nil {
		p.log.Warn("client_key", "oidclogin: ClientKey does not sign; check the KMS or HSM that holds it", "err", err)
		return nil, unavailable("ClientKey", err)
	}
	return map[string]string{
		"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
		"client_assertion":      input + "." + jws.Encode(sig),
	}, nil
}
