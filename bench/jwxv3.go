package bench

import (
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

// jwx v3: jwt.Parse with a key set, the validating options and typed private
// claims. The options are made once.
func jwxV3Peer() Peer {
	return Peer{
		Name:       "jwx-v3",
		Algorithms: []Algorithm{ES256, EdDSA, RS256, PS256},
		New:        newJWXV3,
	}
}

type jwxV3 struct {
	sign  jwt.SignOption
	parse []jwt.ParseOption
}

func newJWXV3(f *Fixture, alg Algorithm) (Contender, error) {
	set := jwk.NewSet()
	for _, k := range f.Keys {
		key, err := jwk.Import(k.Signer.Public())
		if err != nil {
			return nil, err
		}
		if err := key.Set(jwk.KeyIDKey, k.ID); err != nil {
			return nil, err
		}
		if err := key.Set(jwk.AlgorithmKey, string(k.Algorithm)); err != nil {
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
	name, ok := jwa.LookupSignatureAlgorithm(string(alg))
	if !ok {
		return nil, errUnknownKey
	}
	return &jwxV3{
		sign: jwt.WithKey(name, current.Signer, jws.WithProtectedHeaders(headers)),
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

func (c *jwxV3) Issue(subject string, state State) (string, error) {
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

func (c *jwxV3) Verify(token string) (Session, error) {
	t, err := jwt.ParseString(token, c.parse...)
	if err != nil {
		return Session{}, err
	}
	var s Session
	s.Issuer, _ = t.Issuer()
	s.Subject, _ = t.Subject()
	s.TokenID, _ = t.JwtID()
	if at, ok := t.IssuedAt(); ok {
		s.IssuedAt = at.Unix()
	}
	if at, ok := t.Expiration(); ok {
		s.Expires = at.Unix()
	}
	if err := t.Get("state", &s.State); err != nil {
		return Session{}, err
	}
	if err := t.Get("sid", &s.SessionID); err != nil {
		return Session{}, err
	}
	if err := t.Get("begun", &s.Began); err != nil {
		return Session{}, err
	}
	if err := t.Get("auth_time", &s.AuthTime); err != nil {
		return Session{}, err
	}
	return s, nil
}
