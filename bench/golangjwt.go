package bench

import (
	"crypto"
	"errors"

	"github.com/golang-jwt/jwt/v5"
)

// golang-jwt v5, as its documentation shows it: ParseWithClaims into a struct
// that embeds RegisteredClaims, a Keyfunc, and the validating options. The
// parser, with its options, is made once.
func golangJWTPeer() Peer {
	return Peer{
		Name:       "golang-jwt-v5",
		Algorithms: []Algorithm{ES256, EdDSA, RS256, PS256},
		New:        newGolangJWT,
	}
}

type golangJWTClaims struct {
	jwt.RegisteredClaims
	SessionID string           `json:"sid"`
	Began     int64            `json:"begun"`
	AuthTime  *jwt.NumericDate `json:"auth_time"`
	Renewable bool             `json:"rnw"`
	State     State            `json:"state"`
}

type golangJWTKey struct {
	alg string
	pub crypto.PublicKey
}

type golangJWT struct {
	method jwt.SigningMethod
	key    Key
	keys   map[string]golangJWTKey
	parser *jwt.Parser
}

func newGolangJWT(f *Fixture, alg Algorithm) (Contender, error) {
	c := &golangJWT{
		method: jwt.GetSigningMethod(string(alg)),
		key:    f.Current(alg),
		keys:   make(map[string]golangJWTKey),
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{"ES256", "EdDSA", "RS256", "PS256"}),
			jwt.WithIssuer(Issuer),
			jwt.WithAudience(Audience),
			jwt.WithExpirationRequired(),
		),
	}
	for _, k := range f.Keys {
		c.keys[k.ID] = golangJWTKey{alg: string(k.Algorithm), pub: k.Signer.Public()}
	}
	return c, nil
}

func (c *golangJWT) Issue(subject string, state State) (string, error) {
	r := newFresh()
	now := jwt.NewNumericDate(r.now)
	token := jwt.NewWithClaims(c.method, &golangJWTClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    Issuer,
			Subject:   subject,
			Audience:  jwt.ClaimStrings{Audience},
			ExpiresAt: jwt.NewNumericDate(r.expires),
			IssuedAt:  now,
			ID:        r.tokenID,
		},
		SessionID: r.sessionID,
		Began:     r.now.UnixMilli(),
		AuthTime:  now,
		Renewable: true,
		State:     state,
	})
	token.Header["kid"] = c.key.ID
	token.Header["typ"] = TokenType
	return token.SignedString(c.key.Signer)
}

func (c *golangJWT) Verify(token string) (Session, error) {
	var claims golangJWTClaims
	if _, err := c.parser.ParseWithClaims(token, &claims, c.keyfunc); err != nil {
		return Session{}, err
	}
	if claims.IssuedAt == nil || claims.AuthTime == nil || claims.Began == 0 {
		return Session{}, errMissingClaim
	}
	return Session{
		Issuer:    claims.Issuer,
		Subject:   claims.Subject,
		TokenID:   claims.ID,
		SessionID: claims.SessionID,
		Began:     claims.Began,
		AuthTime:  claims.AuthTime.Unix(),
		IssuedAt:  claims.IssuedAt.Unix(),
		Expires:   claims.ExpiresAt.Unix(),
		State:     claims.State,
	}, nil
}

// keyfunc binds the algorithm to the key, which the library leaves to it: a
// set with both RS256 and PS256 keys would otherwise let a token choose.
func (c *golangJWT) keyfunc(token *jwt.Token) (any, error) {
	kid, _ := token.Header["kid"].(string)
	k, ok := c.keys[kid]
	if !ok || k.alg != token.Method.Alg() {
		return nil, errUnknownKey
	}
	return k.pub, nil
}

// For peers that leave the check to their caller.
var (
	errUnknownKey   = errors.New("bench: no such key")
	errMissingClaim = errors.New("bench: a claim is missing")
)
