package oidclogin

import (
	"context"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

const (
	// maxLogoutToken is how many bytes a logout token has at most.
	maxLogoutToken = 8 << 10
	// maxLogoutAge is how long ago the iat of a logout token may be: a provider's
	// clock that is behind, and a minute to deliver it.
	maxLogoutAge = maxBehind + time.Minute
	// maxLogoutLife is how long a logout token may be valid. The specification
	// recommends two minutes.
	maxLogoutLife = time.Hour
)

// The members of events. Keycloak adds the second one if its client has
// "Backchannel logout revoke offline sessions".
const (
	logoutEvent  = "http://schemas.openid.net/event/backchannel-logout"
	offlineEvent = "revoke_offline_access"
)

// What a logout token can fail after its signature.
const (
	errLifetime    refusal = "exp is missing, has passed or is too long after iat"
	errTokenID     refusal = "jti is missing"
	errLogoutEvent refusal = "events is not that of a logout"
	errHasNonce    refusal = "the token has a nonce: it is no logout token"
	errNoSession   refusal = "the token has neither sub nor sid"
)

// logoutRules is what a logout token must fulfil.
type logoutRules struct {
	issuer, clientID string
	algorithms       []string // that the provider may sign with
	now              time.Time
	// insecureTypeJWT also accepts a token whose typ is absent or "JWT". The
	// specification only recommends typ. Of the providers that were looked at,
	//   - Keycloak sends logout+jwt since version 25 (its pull request 29260), and
	//     JWT before;
	//   - authentik sends logout+jwt since 2025.12;
	//   - npm oidc-provider sends logout+jwt;
	//   - dex sends none (its server/signer/utils.go);
	//   - Auth0 sends JWT: go-oidc's tests have one of its tokens;
	//   - Okta has front-channel logout alone, by its article "Key elements and
	//     limitations of single logout";
	//   - for Entra none is known: it documents front-channel logout.
	insecureTypeJWT bool
}

// logoutToken is what a verified logout token says.
type logoutToken struct {
	issuer, tokenID    string
	subject, sessionID string // one may be empty
}

type logoutClaims struct {
	Issuer    text           `json:"iss"`
	Subject   name           `json:"sub"`
	Audience  audience       `json:"aud"`
	Party     optional       `json:"azp"`
	Expires   date           `json:"exp"`
	NotBefore date           `json:"nbf"`
	IssuedAt  date           `json:"iat"`
	TokenID   name           `json:"jti"`
	SessionID name           `json:"sid"`
	Events    jsontext.Value `json:"events"`
	Nonce     jsontext.Value `json:"nonce"`
}

// verifyLogoutToken checks a logout token as OpenID Connect Back-Channel Logout
// 1.0 section 2.6 requires. go-oidc checks the signature, iss and aud. The
// caller checks that the token was not used before. Its error matches
// errRefused, or errUnavailable if the keys cannot be had.
func verifyLogoutToken(ctx context.Context, keys oidc.KeySet, raw string, r logoutRules) (*logoutToken, error) {
	h, payload, err := readForm(raw, maxLogoutToken, r.algorithms)
	if err != nil {
		return nil, err
	}
	if h.Type.text != "logout+jwt" && !(r.insecureTypeJWT && h.isPlain()) {
		return nil, errType
	}
	passed, err := verifySignature(ctx, keys, r.issuer, r.clientID, r.algorithms, payload, func(v *oidc.IDTokenVerifier) error {
		_, err := v.VerifyLogout(ctx, raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	var c logoutClaims
	if err := parseObject(payload, &c); err != nil {
		return nil, err
	}
	if err := c.check(r); err != nil {
		return nil, err
	}
	if !passed {
		return nil, errLibrary
	}
	return &logoutToken{
		issuer: r.issuer, tokenID: string(c.TokenID),
		subject: string(c.Subject), sessionID: string(c.SessionID),
	}, nil
}

func (c *logoutClaims) check(r logoutRules) error {
	issued, expires := c.IssuedAt.time(), c.Expires.time()
	switch {
	case r.issuer == "" || string(c.Issuer) != r.issuer:
		return errIssuer
	case !isFor(r.clientID, c.Audience, c.Party):
		return errAudience
	case c.Nonce != nil:
		return errHasNonce
	case !isLogoutEvent(c.Events):
		return errLogoutEvent
	case c.TokenID == "":
		return errTokenID
	case c.Subject == "" && c.SessionID == "":
		return errNoSession
	case c.IssuedAt == 0, r.now.After(issued.Add(maxLogoutAge)), issued.After(r.now.Add(maxAhead)):
		return errIssuedAt
	case c.Expires <= c.IssuedAt, !r.now.Before(expires.Add(maxBehind)), clock.Between(issued, expires) > maxLogoutLife:
		return errLifetime
	case c.NotBefore.time().After(r.now.Add(maxAhead)):
		return errNotBefore
	}
	return nil
}

// isLogoutEvent reports whether events is an object that has the logout event,
// with an object as its value, and no other event but Keycloak's.
func isLogoutEvent(events jsontext.Value) bool {
	var members map[string]jsontext.Value
	if parseObject(events, &members) != nil || members[logoutEvent].Kind() != '{' {
		return false
	}
	for name := range members {
		if name != logoutEvent && name != offlineEvent {
			return false
		}
	}
	return true
}
