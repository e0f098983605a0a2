package oidclogin

import (
	"context"
	"crypto"
	_ "crypto/sha256" // at_hash
	_ "crypto/sha512" // at_hash
	"crypto/subtle"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/jws"
)

const (
	// maxIDToken is how many bytes an ID token has at most.
	maxIDToken = 16 << 10
	// maxIDTokenAge is how long ago the iat of an ID token may be. Entra sets it
	// 5 minutes back.
	maxIDTokenAge = 10 * time.Minute
	// maxMethods is how many names a session's amr has at most.
	maxMethods = 10
)

// What an ID token can fail after its signature.
const (
	errIssuer     refusal = "iss is not the provider"
	errAudience   refusal = "the token is for another client, or for several without an azp that names this one"
	errSubject    refusal = "sub is missing"
	errNonce      refusal = "the nonce is not that of this login"
	errEvents     refusal = "the token has events: it is no ID token"
	errIssuedAt   refusal = "iat is missing, too old or in the future"
	errExpired    refusal = "exp is missing or has passed"
	errNotBefore  refusal = "nbf is in the future"
	errAuthTime   refusal = "auth_time is in the future"
	errAuthAge    refusal = "auth_time is missing or older than the max_age that was asked for"
	errACR        refusal = "acr is none of those that were asked for"
	errAccessHash refusal = "at_hash is not that of the access token"
)

// idTokenRules is what an ID token must fulfil.
type idTokenRules struct {
	issuer, clientID string
	algorithms       []string // that the provider may sign with
	now              time.Time
	// nonce is that of the login. Required, except with refreshed.
	nonce string
	// maxAge is the max_age that was asked for. 0: none was.
	maxAge time.Duration
	// acrValues are the acr_values that were asked for. None: none were.
	acrValues []string
	// accessToken is the one that came with the ID token. An at_hash must be its
	// hash.
	accessToken string
	// refreshed means that the token came for a refresh token: it may lack the
	// nonce (OpenID Connect Core section 12.2). If it has one and nonce is set,
	// they must be equal.
	refreshed bool
}

// idToken is what a verified ID token says. No other claim identifies the user
// but the pair of issuer and subject.
type idToken struct {
	issuer, subject             string
	sessionID                   string // empty if the provider names none
	acr                         string // empty if absent, or unfit for a session
	amr                         []string
	authTime, issuedAt, expires time.Time // authTime is zero if absent
	payload                     []byte
}

type idTokenClaims struct {
	Issuer     text           `json:"iss"`
	Subject    name           `json:"sub"`
	Audience   audience       `json:"aud"`
	Party      optional       `json:"azp"`
	Expires    date           `json:"exp"`
	NotBefore  date           `json:"nbf"`
	IssuedAt   date           `json:"iat"`
	AuthTime   date           `json:"auth_time"`
	Nonce      optional       `json:"nonce"`
	AccessHash optional       `json:"at_hash"`
	SessionID  name           `json:"sid"`
	ACR        loose[string]  `json:"acr"`
	AMR        loose[[]text]  `json:"amr"`
	Events     jsontext.Value `json:"events"`
}

// loose is a claim that counts as absent if its value is of another type.
type loose[T any] struct{ value T }

func (l *loose[T]) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	v, err := dec.ReadValue()
	if err != nil {
		return err
	}
	var value T
	if json.Unmarshal(v, &value) == nil {
		l.value = value
	}
	return nil
}

// verifyIDToken checks an ID token as OpenID Connect Core section 3.1.3.7
// requires. go-oidc checks the signature, iss and aud. Its error matches
// errRefused, or errUnavailable if the keys cannot be had.
func verifyIDToken(ctx context.Context, keys oidc.KeySet, raw string, r idTokenRules) (*idToken, error) {
	h, payload, err := readForm(raw, maxIDToken, r.algorithms)
	if err != nil {
		return nil, err
	}
	// A session token, a logout token and an access token (RFC 9068) have a typ
	// of their own.
	if !h.isPlain() {
		return nil, errType
	}
	passed, err := verifySignature(ctx, keys, r.issuer, r.clientID, r.algorithms, payload, func(v *oidc.IDTokenVerifier) error {
		_, err := v.Verify(ctx, raw)
		return err
	})
	if err != nil {
		return nil, err
	}
	var c idTokenClaims
	if err := parseObject(payload, &c); err != nil {
		return nil, err
	}
	if err := c.check(r, string(h.Algorithm)); err != nil {
		return nil, err
	}
	if !passed {
		return nil, errLibrary
	}
	return &idToken{
		issuer: r.issuer, subject: string(c.Subject), sessionID: string(c.SessionID),
		acr: c.acr(), amr: c.amr(),
		authTime: c.AuthTime.time(), issuedAt: c.IssuedAt.time(), expires: c.Expires.time(),
		payload: payload,
	}, nil
}

func (c *idTokenClaims) check(r idTokenRules, algorithm string) error {
	switch {
	case r.issuer == "" || string(c.Issuer) != r.issuer:
		return errIssuer // go-oidc accepts a second spelling of Google's
	case !isFor(r.clientID, c.Audience, c.Party):
		return errAudience
	case c.Subject == "":
		return errSubject
	case c.Events != nil:
		return errEvents
	case !c.hasNonce(r):
		return errNonce
	case c.AccessHash.present && !isHashOf(string(c.AccessHash.text), r.accessToken, algorithm):
		return errAccessHash
	}
	if err := c.checkTimes(r); err != nil {
		return err
	}
	// Without this check, a provider that ignores acr_values would send the user
	// back to a page that asks for them once more, for ever.
	if len(r.acrValues) > 0 && !slices.Contains(r.acrValues, c.acr()) {
		return errACR
	}
	return nil
}

func (c *idTokenClaims) hasNonce(r idTokenRules) bool {
	if r.refreshed && (!c.Nonce.present || r.nonce == "") {
		return true
	}
	return r.nonce != "" && subtle.ConstantTimeCompare([]byte(c.Nonce.text), []byte(r.nonce)) == 1
}

func (c *idTokenClaims) checkTimes(r idTokenRules) error {
	issued, auth := c.IssuedAt.time(), c.AuthTime.time()
	switch {
	case c.IssuedAt == 0, r.now.After(issued.Add(maxIDTokenAge)), issued.After(r.now.Add(maxAhead)):
		return errIssuedAt
	case c.Expires == 0, !r.now.Before(c.Expires.time().Add(maxBehind)):
		return errExpired
	case c.NotBefore.time().After(r.now.Add(maxAhead)):
		return errNotBefore
	case auth.After(r.now.Add(maxAhead)):
		return errAuthTime
	case r.maxAge <= 0:
		return nil
	}
	// Both are times of the provider's clock, which may be behind ours. A
	// provider whose iat is set back 5 minutes gains as much; the session's
	// AuthTime does not.
	at := r.now
	if issued.Before(at) {
		at = issued
	}
	if c.AuthTime == 0 || clock.Between(auth, at) > r.maxAge+maxAhead {
		return errAuthAge
	}
	return nil
}

// acr returns the acr if a session can have it.
func (c *idTokenClaims) acr() string {
	if !isShort(c.ACR.value) {
		return ""
	}
	return c.ACR.value
}

// amr returns the amr if a session can have it. A part of it would be a weaker
// statement than the provider's, or a stronger one.
func (c *idTokenClaims) amr() []string {
	if len(c.AMR.value) == 0 || len(c.AMR.value) > maxMethods {
		return nil
	}
	var names []string
	for _, s := range c.AMR.value {
		if !isShort(string(s)) {
			return nil
		}
		names = append(names, string(s))
	}
	return names
}

// isHashOf reports whether hash is the at_hash of an access token (OpenID
// Connect Core section 3.1.3.6): the left half of the digest that the algorithm
// uses. EdDSA counts as Ed25519, which uses SHA-512.
func isHashOf(hash, accessToken, algorithm string) bool {
	var h crypto.Hash
	switch algorithm {
	case oidc.RS256, oidc.PS256, oidc.ES256:
		h = crypto.SHA256
	case oidc.RS384, oidc.PS384, oidc.ES384:
		h = crypto.SHA384
	case oidc.RS512, oidc.PS512, oidc.ES512, oidc.EdDSA:
		h = crypto.SHA512
	default:
		return false
	}
	if accessToken == "" {
		return false
	}
	d := h.New()
	_, _ = d.Write([]byte(accessToken)) // never fails
	sum := d.Sum(nil)
	return subtle.ConstantTimeCompare([]byte(hash), []byte(jws.Encode(sum[:len(sum)/2]))) == 1
}
