package bench

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/json"
	"errors"

	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/jwt"
	"github.com/tink-crypto/tink-go/v2/jwt/jwtecdsa"
	"github.com/tink-crypto/tink-go/v2/jwt/jwtrsassapkcs1"
	"github.com/tink-crypto/tink-go/v2/jwt/jwtrsassapss"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
)

// tink-go's jwt package: a verifier made from a JWK set, and a validator made
// once. It offers no EdDSA for JWT.
//
// It does not look a key up by kid: it tries the keys in their order and
// compares the kid after the signature. So that no signature of the wrong
// algorithm is tried, it gets the keys of one algorithm only, with the key
// that signs at the front, which is to its advantage. In some builds its JSON
// encoder adds a space after each comma of the tokens it issues.
func tinkPeer() Peer {
	return Peer{
		Name:       "tink-go-v2",
		Algorithms: []Algorithm{ES256, RS256, PS256},
		New:        newTink,
	}
}

type tink struct {
	signer    jwt.Signer
	verifier  jwt.Verifier
	validator *jwt.Validator
}

func newTink(f *Fixture, alg Algorithm) (Contender, error) {
	set, err := jwks(f.Of(alg))
	if err != nil {
		return nil, err
	}
	public, err := jwt.JWKSetToPublicKeysetHandle(set)
	if err != nil {
		return nil, err
	}
	private, err := tinkPrivate(f.Current(alg))
	if err != nil {
		return nil, err
	}
	c := &tink{}
	if c.verifier, err = jwt.NewVerifier(public); err != nil {
		return nil, err
	}
	if c.signer, err = jwt.NewSigner(private); err != nil {
		return nil, err
	}
	typ, issuer, audience := TokenType, Issuer, Audience
	c.validator, err = jwt.NewValidator(&jwt.ValidatorOpts{
		ExpectedTypeHeader: &typ,
		ExpectedIssuer:     &issuer,
		ExpectedAudience:   &audience,
	})
	return c, err
}

// tinkPrivate makes a keyset of the one key k.
func tinkPrivate(k Key) (*keyset.Handle, error) {
	var private key.Key
	var err error
	switch signer := k.Signer.(type) {
	case *ecdsa.PrivateKey:
		private, err = tinkECDSA(k.ID, signer)
	case *rsa.PrivateKey:
		if k.Algorithm == PS256 {
			private, err = tinkPSS(k.ID, signer)
		} else {
			private, err = tinkPKCS1(k.ID, signer)
		}
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return nil, err
	}
	manager := keyset.NewManager()
	id, err := manager.AddKey(private)
	if err != nil {
		return nil, err
	}
	if err := manager.SetPrimary(id); err != nil {
		return nil, err
	}
	return manager.Handle()
}

func tinkSecret(b []byte) secretdata.Bytes {
	return secretdata.NewBytesFromData(b, insecuresecretdataaccess.Token{})
}

func tinkECDSA(kid string, signer *ecdsa.PrivateKey) (key.Key, error) {
	params, err := jwtecdsa.NewParameters(jwtecdsa.CustomKID, jwtecdsa.ES256)
	if err != nil {
		return nil, err
	}
	point, err := signer.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	scalar, err := signer.Bytes()
	if err != nil {
		return nil, err
	}
	public, err := jwtecdsa.NewPublicKey(jwtecdsa.PublicKeyOpts{
		PublicPoint: point, CustomKID: kid, HasCustomKID: true, Parameters: params,
	})
	if err != nil {
		return nil, err
	}
	return jwtecdsa.NewPrivateKeyFromPublicKey(tinkSecret(scalar), public)
}

func tinkPKCS1(kid string, signer *rsa.PrivateKey) (key.Key, error) {
	params, err := jwtrsassapkcs1.NewParameters(jwtrsassapkcs1.ParametersOpts{
		ModulusSizeInBits: signer.N.BitLen(), PublicExponent: signer.E,
		Algorithm: jwtrsassapkcs1.RS256, KidStrategy: jwtrsassapkcs1.CustomKID,
	})
	if err != nil {
		return nil, err
	}
	public, err := jwtrsassapkcs1.NewPublicKey(jwtrsassapkcs1.PublicKeyOpts{
		Modulus: signer.N.Bytes(), CustomKID: kid, HasCustomKID: true, Parameters: params,
	})
	if err != nil {
		return nil, err
	}
	return jwtrsassapkcs1.NewPrivateKey(jwtrsassapkcs1.PrivateKeyOpts{
		PublicKey: public,
		D:         tinkSecret(signer.D.Bytes()),
		P:         tinkSecret(signer.Primes[0].Bytes()),
		Q:         tinkSecret(signer.Primes[1].Bytes()),
	})
}

func tinkPSS(kid string, signer *rsa.PrivateKey) (key.Key, error) {
	params, err := jwtrsassapss.NewParameters(jwtrsassapss.ParametersOpts{
		ModulusSizeInBits: signer.N.BitLen(), PublicExponent: signer.E,
		Algorithm: jwtrsassapss.PS256, KidStrategy: jwtrsassapss.CustomKID,
	})
	if err != nil {
		return nil, err
	}
	public, err := jwtrsassapss.NewPublicKey(jwtrsassapss.PublicKeyOpts{
		Modulus: signer.N.Bytes(), CustomKID: kid, HasCustomKID: true, Parameters: params,
	})
	if err != nil {
		return nil, err
	}
	return jwtrsassapss.NewPrivateKey(jwtrsassapss.PrivateKeyOpts{
		PublicKey: public,
		D:         tinkSecret(signer.D.Bytes()),
		P:         tinkSecret(signer.Primes[0].Bytes()),
		Q:         tinkSecret(signer.Primes[1].Bytes()),
	})
}

func (c *tink) Issue(subject string, state State) (string, error) {
	r := newFresh()
	exp := r.expires.Unix()
	payload, err := json.Marshal(Payload{
		Issuer:    Issuer,
		Subject:   subject,
		Audience:  Audience,
		Expires:   &exp,
		IssuedAt:  r.now.Unix(),
		TokenID:   r.tokenID,
		SessionID: r.sessionID,
		Began:     r.now.UnixMilli(),
		AuthTime:  r.now.Unix(),
		Renewable: true,
		State:     state,
	})
	if err != nil {
		return "", err
	}
	typ := TokenType
	raw, err := jwt.NewRawJWTFromJSON(&typ, payload)
	if err != nil {
		return "", err
	}
	return c.signer.SignAndEncode(raw)
}

// Verify decodes the payload that the library verified into the structure; its
// own accessors give nested claims as map[string]any only.
func (c *tink) Verify(token string) (Session, error) {
	verified, err := c.verifier.VerifyAndDecode(token, c.validator)
	if err != nil {
		return Session{}, err
	}
	payload, err := verified.JSONPayload()
	if err != nil {
		return Session{}, err
	}
	var claims struct {
		SessionID string `json:"sid"`
		Began     int64  `json:"begun"`
		AuthTime  int64  `json:"auth_time"`
		State     State  `json:"state"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Session{}, err
	}
	s := Session{SessionID: claims.SessionID, Began: claims.Began, AuthTime: claims.AuthTime, State: claims.State}
	if s.Issuer, err = verified.Issuer(); err != nil {
		return Session{}, err
	}
	if s.Subject, err = verified.Subject(); err != nil {
		return Session{}, err
	}
	if s.TokenID, err = verified.JWTID(); err != nil {
		return Session{}, err
	}
	issued, err := verified.IssuedAt()
	if err != nil {
		return Session{}, err
	}
	expires, err := verified.ExpiresAt()
	if err != nil {
		return Session{}, err
	}
	s.IssuedAt, s.Expires = issued.Unix(), expires.Unix()
	return s, nil
}
