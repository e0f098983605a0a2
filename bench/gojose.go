package bench

import (
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// go-jose v4: ParseSigned with the allowed algorithms, Claims with the key of
// a JSONWebKeySet, and Validate with the expected claims. One structure embeds
// the registered claims, so that the payload is decoded once.
func goJOSEPeer() Peer {
	return Peer{
		Name:       "go-jose-v4",
		Algorithms: []Algorithm{ES256, EdDSA, RS256, PS256},
		New:        newGoJOSE,
	}
}

type goJOSEClaims struct {
	jwt.Claims
	SessionID string           `json:"sid"`
	Began     int64            `json:"begun"`
	AuthTime  *jwt.NumericDate `json:"auth_time"`
	Renewable bool             `json:"rnw"`
	State     State            `json:"state"`
}

type goJOSE struct {
	signer jose.Signer
	set    *jose.JSONWebKeySet
	algs   []jose.SignatureAlgorithm
}

func newGoJOSE(f *Fixture, alg Algorithm) (Contender, error) {
	c := &goJOSE{
		set:  &jose.JSONWebKeySet{},
		algs: []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.RS256, jose.PS256},
	}
	for _, k := range f.Keys {
		c.set.Keys = append(c.set.Keys, jose.JSONWebKey{
			Key: k.Signer.Public(), KeyID: k.ID, Algorithm: string(k.Algorithm), Use: "sig",
		})
	}
	key := f.Current(alg)
	var err error
	c.signer, err = jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(alg),
		Key:       jose.JSONWebKey{Key: key.Signer, KeyID: key.ID},
	}, (&jose.SignerOptions{}).WithType(TokenType))
	return c, err
}

func (c *goJOSE) Issue(subject string, state State) (string, error) {
	r := newFresh()
	now := jwt.NewNumericDate(r.now)
	return jwt.Signed(c.signer).Claims(&goJOSEClaims{
		Claims: jwt.Claims{
			Issuer:   Issuer,
			Subject:  subject,
			Audience: jwt.Audience{Audience},
			Expiry:   jwt.NewNumericDate(r.expires),
			IssuedAt: now,
			ID:       r.tokenID,
		},
		SessionID: r.sessionID,
		Began:     r.now.UnixMilli(),
		AuthTime:  now,
		Renewable: true,
		State:     state,
	}).Serialize()
}

func (c *goJOSE) Verify(token string) (Session, error) {
	parsed, err := jwt.ParseSigned(token, c.algs)
	if err != nil {
		return Session{}, err
	}
	// The set chooses by kid alone; that the key is for this algorithm is
	// left to its caller.
	keys := c.set.Key(parsed.Headers[0].KeyID)
	if len(keys) != 1 || keys[0].Algorithm != parsed.Headers[0].Algorithm {
		return Session{}, errUnknownKey
	}
	var claims goJOSEClaims
	if err := parsed.Claims(keys[0].Key, &claims); err != nil {
		return Session{}, err
	}
	// A missing exp passes Validate.
	if claims.Expiry == nil || claims.IssuedAt == nil || claims.AuthTime == nil || claims.Began == 0 {
		return Session{}, errMissingClaim
	}
	if err := claims.Validate(jwt.Expected{Issuer: Issuer, AnyAudience: jwt.Audience{Audience}}); err != nil {
		return Session{}, err
	}
	return Session{
		Issuer:    claims.Issuer,
		Subject:   claims.Subject,
		TokenID:   claims.ID,
		SessionID: claims.SessionID,
		Began:     claims.Began,
		AuthTime:  int64(*claims.AuthTime),
		IssuedAt:  int64(*claims.IssuedAt),
		Expires:   int64(*claims.Expiry),
		State:     claims.State,
	}, nil
}
