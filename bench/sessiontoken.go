package bench

import (
	"context"
	"fmt"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// sessiontoken itself: an Issuer on a static signing key and a Verifier on a
// key set. It makes "jti" and "sid" and reads the clock itself.
func sessiontokenPeer() Peer {
	return Peer{
		Name:       "sessiontoken",
		Algorithms: []Algorithm{ES256, EdDSA, RS256, PS256},
		New:        newSessiontoken,
	}
}

type sessiontokenContender struct {
	issuer   *sessiontoken.Issuer[State]
	verifier *sessiontoken.Verifier[State]
}

func newSessiontoken(f *Fixture, alg Algorithm) (Contender, error) {
	names := map[Algorithm]keys.Algorithm{ES256: keys.ES256, EdDSA: keys.EdDSA, RS256: keys.RS256, PS256: keys.PS256}
	var current *keys.SigningKey
	var public []*keys.PublicKey
	for _, k := range f.Keys {
		signing, err := keys.NewSigningKey(names[k.Algorithm], k.Signer)
		if err != nil {
			return nil, err
		}
		if signing.Public().KeyID() != k.ID {
			return nil, fmt.Errorf("bench: the kid of an %s key is not its thumbprint", k.Algorithm)
		}
		if k.ID == f.Current(alg).ID {
			current = signing
		}
		public = append(public, signing.Public())
	}
	set, err := keys.NewSet(public...)
	if err != nil {
		return nil, err
	}
	source, err := keys.NewStatic(current)
	if err != nil {
		return nil, err
	}
	c := &sessiontokenContender{}
	c.issuer, err = sessiontoken.NewIssuer[State](sessiontoken.IssuerConfig{
		Issuer:   Issuer,
		Audience: []string{Audience},
		Keys:     source,
		TTL:      TokenTTL,
	})
	if err != nil {
		return nil, err
	}
	c.verifier, err = sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{
		Issuer:   Issuer,
		Audience: Audience,
		Keys:     set,
		// What is compared is a first verification: no answer from memory.
		CacheBytes: -1,
	})
	return c, err
}

func (c *sessiontokenContender) Issue(subject string, state State) (string, error) {
	token, _, err := c.issuer.Issue(context.Background(), subject, state)
	return token, err
}

func (c *sessiontokenContender) Verify(token string) (Session, error) {
	claims, err := c.verifier.Verify(context.Background(), token)
	if err != nil {
		return Session{}, err
	}
	return Session{
		Issuer:    claims.Issuer,
		Subject:   claims.Subject,
		TokenID:   claims.TokenID,
		SessionID: claims.SessionID,
		Began:     claims.Began.UnixMilli(),
		AuthTime:  claims.AuthTime.Unix(),
		IssuedAt:  claims.IssuedAt.Unix(),
		Expires:   claims.Expires.Unix(),
		State:     claims.State,
	}, nil
}
