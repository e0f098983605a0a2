package bench

import (
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

// jwx v2: jwt.Parse with a key set, the validating options and typed private
// claims. The options are made once.
func jwxV2Peer() Peer {
	return Peer{
		Name:       "jwx-v2",
		Algorithms: []Algorithm{ES256, EdDSA, RS256, PS256},
		New:        newJWXV2,
	}
}

type jwxV2 struct {
	sign  jwt.SignOption
	parse []jwt.ParseOption
}

func newJWXV2(f *Fixture, alg Algorithm) (Contender, error) {
	set := jwk.NewSet()
	for _, k := range f.Keys {
		key, err := jwk.FromRaw(k.Signer.Public())
		if err != nil {
			return nil, err
		}
		if err := key.Set(jwk.KeyIDKey, k.ID); err != nil {
			return nil, err
		}
		if err := key.Set(jwk.AlgorithmKey, jwa.SignatureAlgorithm(k.Algorithm)); err != nil {
			return nil, err
		}
		if err := set.AddKey(key); err != nil {
			return nil, err
		}
	}
	current := f.Current(alg)
	headers := jws.NewHeaders()
	if err := headers.Set(jws.TypeKey, TokenType); err != nil {
		return nil, err
	}
	if err := headers.Set(jws.KeyIDKey, current.ID); err != nil {
		return nil, err
	}
	return &jwxV2{
		sign: jwt.WithKey(jwa.SignatureAlgorithm(alg), current.Signer, jws.WithProtectedHeaders(headers)),
		parse: []jwt.ParseOption{
			jwt.WithKeySet(set),
			jwt.WithIssuer(Issuer),
			jwt.WithAudience(Audience),
			jwt.WithRequiredClaim(jwt.ExpirationKey),
			jwt.WithTypedClaim("state", State{}),
			jwt.WithTypedClaim("sid", ""),
			jwt.WithTypedClaim("begun", int64(0)),
			jwt.WithTypedClaim("auth_time", int64(0)),
		},
	}, nil
}

func (c *jwxV2) Issue(subject string, state State) (string, error) {
	r := newFresh()
	token, err := jwt.NewBuilder().
		Issuer(Issuer).
		Subject(subject).
		Audience([]string{Audience}).
		Expiration(r.expires).
		IssuedAt(r.now).
		JwtID(r.tokenID).
		Claim("sid", r.sessionID).
		Claim("begun", r.now.UnixMilli()).
		Claim("auth_time", r.now.Unix()).
		Claim("rnw", true).
		Claim("state", state).
		Build()
	if err != nil {
		return "", err
	}
	signed, err := jwt.Sign(token, c.sign)
	return string(signed), err
}

func (c *jwxV2) Verify(token string) (Session, error) {
	t, err := jwt.ParseString(token, c.parse...)
	if err != nil {
		return Session{}, err
	}
	s := Session{
		Issuer:   t.Issuer(),
		Subject:  t.Subject(),
		TokenID:  t.JwtID(),
		IssuedAt: t.IssuedAt().Unix(),
		Expires:  t.Expiration().Unix(),
	}
	var haveState, haveID, haveBegan, haveAuth bool
	if v, ok := t.Get("state"); ok {
		s.State, haveState = v.(State)
	}
	if v, ok := t.Get("sid"); ok {
		s.SessionID, haveID = v.(string)
	}
	if v, ok := t.Get("begun"); ok {
		s.Began, haveBegan = v.(int64)
	}
	if v, ok := t.Get("auth_time"); ok {
		s.AuthTime, haveAuth = v.(int64)
	}
	if !haveState || !haveID || !haveBegan || !haveAuth {
		return Session{}, errMissingClaim
	}
	return s, nil
}
