package bench

import (
	"github.com/kataras/jwt"
)

// kataras/jwt: a Keys map, which chooses by kid and binds the algorithm to the
// key, the Expected validator, and a validator of our own that requires exp.
//
// Its PS256 is left out: it signs with the longest salt that fits, which
// RFC 7518 section 3.5 does not allow and other verifiers refuse.
func katarasPeer() Peer {
	return Peer{
		Name:       "kataras-jwt",
		Algorithms: []Algorithm{ES256, EdDSA, RS256},
		New:        newKataras,
	}
}

type katarasHeader struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
}

type katarasClaims struct {
	jwt.Claims
	SessionID string `json:"sid"`
	Began     int64  `json:"begun"`
	AuthTime  int64  `json:"auth_time"`
	Renewable bool   `json:"rnw"`
	State     State  `json:"state"`
}

type kataras struct {
	alg    jwt.Alg
	header katarasHeader
	keys   jwt.Keys
	key    Key
}

func newKataras(f *Fixture, alg Algorithm) (Contender, error) {
	names := map[Algorithm]jwt.Alg{ES256: jwt.ES256, EdDSA: jwt.EdDSA, RS256: jwt.RS256}
	c := &kataras{alg: names[alg], keys: make(jwt.Keys), key: f.Current(alg)}
	c.header = katarasHeader{Alg: string(alg), Kid: c.key.ID, Typ: TokenType}
	for _, k := range f.Of(ES256, EdDSA, RS256) {
		c.keys.Register(names[k.Algorithm], k.ID, k.Signer.Public(), nil)
	}
	return c, nil
}

func (c *kataras) Issue(subject string, state State) (string, error) {
	r := newFresh()
	token, err := jwt.SignWithHeader(c.alg, c.key.Signer, katarasClaims{
		Claims: jwt.Claims{
			Issuer:   Issuer,
			Subject:  subject,
			Audience: jwt.Audience{Audience},
			Expiry:   r.expires.Unix(),
			IssuedAt: r.now.Unix(),
			ID:       r.tokenID,
		},
		SessionID: r.sessionID,
		Began:     r.now.UnixMilli(),
		AuthTime:  r.now.Unix(),
		Renewable: true,
		State:     state,
	}, c.header)
	return string(token), err
}

var (
	katarasExpected = jwt.Expected{Issuer: Issuer, Audience: jwt.Audience{Audience}}
	katarasExpiry   = jwt.TokenValidatorFunc(func(_ []byte, claims jwt.Claims, err error) error {
		if err == nil && claims.Expiry == 0 {
			return errMissingClaim
		}
		return err
	})
)

func (c *kataras) Verify(token string) (Session, error) {
	var claims katarasClaims
	if err := c.keys.VerifyToken([]byte(token), &claims, katarasExpected, katarasExpiry); err != nil {
		return Session{}, err
	}
	return Session{
		Issuer:    claims.Issuer,
		Subject:   claims.Subject,
		TokenID:   claims.ID,
		SessionID: claims.SessionID,
		Began:     claims.Began,
		AuthTime:  claims.AuthTime,
		IssuedAt:  claims.IssuedAt,
		Expires:   claims.Expiry,
		State:     claims.State,
	}, nil
}
