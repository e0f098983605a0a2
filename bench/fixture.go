package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// KeysPerAlgorithm is the number of keys of each algorithm in the key set of a
// [Fixture]: one that signs and one that is still or already published.
const KeysPerAlgorithm = 2

// Key is one key of a [Fixture]. Peers verify with the public half of Signer
// only.
type Key struct {
	Algorithm Algorithm

	// ID is the "kid": the JWK SHA-256 thumbprint (RFC 7638).
	ID string

	// Signer is an *ecdsa.PrivateKey, an ed25519.PrivateKey or an
	// *rsa.PrivateKey of 2048 bits.
	Signer crypto.Signer
}

// Fixture is the key set that all peers share.
type Fixture struct {
	// Keys is the whole set, of all algorithms mixed.
	Keys []Key
}

// NewFixture makes a key set with new keys.
func NewFixture() (*Fixture, error) {
	f := &Fixture{}
	for range KeysPerAlgorithm {
		for _, alg := range Algorithms() {
			k, err := newKey(alg)
			if err != nil {
				return nil, err
			}
			f.Keys = append(f.Keys, k)
		}
	}
	return f, nil
}

// Current returns the key that signs new tokens of alg.
func (f *Fixture) Current(alg Algorithm) Key { return f.Of(alg)[0] }

// Of returns the keys of the given algorithms, in the order of the set.
func (f *Fixture) Of(algs ...Algorithm) []Key {
	var out []Key
	for _, k := range f.Keys {
		for _, alg := range algs {
			if k.Algorithm == alg {
				out = append(out, k)
			}
		}
	}
	return out
}

func newKey(alg Algorithm) (Key, error) {
	k := Key{Algorithm: alg}
	var err error
	switch alg {
	case ES256:
		k.Signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, k.Signer, err = ed25519.GenerateKey(rand.Reader)
	case RS256, PS256:
		k.Signer, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return Key{}, fmt.Errorf("bench: making a key for %s: %w", alg, err)
	}
	k.ID, err = thumbprint(k.Signer.Public())
	return k, err
}

// thumbprint is RFC 7638 section 3 with SHA-256.
func thumbprint(pub crypto.PublicKey) (string, error) {
	var text string
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // 4, x, y
		if err != nil {
			return "", fmt.Errorf("bench: encoding a public key: %w", err)
		}
		text = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, b64(point[1:33]), b64(point[33:]))
	case ed25519.PublicKey:
		text = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, b64(pub))
	case *rsa.PublicKey:
		text = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, b64(big.NewInt(int64(pub.E)).Bytes()), b64(pub.N.Bytes()))
	default:
		return "", errors.ErrUnsupported
	}
	sum := sha256.Sum256([]byte(text))
	return b64(sum[:]), nil
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Header is the protected header of a token made by [Sign].
type Header struct {
	Algorithm Algorithm `json:"alg"`
	KeyID     string    `json:"kid,omitempty"`
	Type      string    `json:"typ"`
}

// Payload is the claims set of every token of this package. A pointer that is
// nil leaves its claim out.
type Payload struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Expires   *int64 `json:"exp,omitempty"`
	NotBefore *int64 `json:"nbf,omitempty"`
	IssuedAt  int64  `json:"iat"`
	TokenID   string `json:"jti"`
	SessionID string `json:"sid"`
	Began     int64  `json:"begun"` // milliseconds
	AuthTime  int64  `json:"auth_time"`
	Renewable bool   `json:"rnw"`
	State     State  `json:"state"`
}

// GoodPayload returns the claims of a session that began now.
func GoodPayload() Payload {
	r := newFresh()
	exp := r.expires.Unix()
	return Payload{
		Issuer:    Issuer,
		Subject:   Subject,
		Audience:  Audience,
		Expires:   &exp,
		IssuedAt:  r.now.Unix(),
		TokenID:   r.tokenID,
		SessionID: r.sessionID,
		Began:     r.now.UnixMilli(),
		AuthTime:  r.now.Unix(),
		Renewable: true,
		State:     SampleState(),
	}
}

// Session returns what a peer must read from a token with the claims p.
func (p Payload) Session() Session {
	return Session{
		Issuer:    p.Issuer,
		Subject:   p.Subject,
		TokenID:   p.TokenID,
		SessionID: p.SessionID,
		Began:     p.Began,
		AuthTime:  p.AuthTime,
		IssuedAt:  p.IssuedAt,
		Expires:   *p.Expires,
		State:     p.State,
	}
}

// Shift returns a copy of p with every time moved by d.
func (p Payload) Shift(d time.Duration) Payload {
	secs := int64(d / time.Second)
	if p.Expires != nil {
		exp := *p.Expires + secs
		p.Expires = &exp
	}
	p.IssuedAt += secs
	p.Began += 1000 * secs
	p.AuthTime += secs
	return p
}

// Sign makes a token with nothing but the standard library: the header h, the
// claims p and a signature by key with the algorithm of the header, whether or
// not that is the algorithm of the key. Good and hostile tokens of the tests
// come from here, so that no peer judges tokens of its own making only.
func Sign(key Key, h Header, p Payload) (string, error) {
	header, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("bench: encoding a header: %w", err)
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("bench: encoding claims: %w", err)
	}
	input := b64(header) + "." + b64(payload)
	sig, err := rawSign(h.Algorithm, key.Signer, []byte(input))
	if err != nil {
		return "", err
	}
	if h.Algorithm == ES256 {
		if sig, err = joseSignature(sig); err != nil {
			return "", err
		}
		withSmallerS(sig)
	}
	return input + "." + b64(sig), nil
}

var (
	p256Order = elliptic.P256().Params().N
	p256Half  = new(big.Int).Rsh(p256Order, 1)
)

// withSmallerS makes of r and s, in place, the one of the two spellings of an
// ES256 signature that sessiontoken takes.
func withSmallerS(sig []byte) {
	s := new(big.Int).SetBytes(sig[32:])
	if s.Cmp(p256Half) > 0 {
		s.Sub(p256Order, s).FillBytes(sig[32:])
	}
}

// WithSmallerS is withSmallerS for a token of another library, half of which have
// the other spelling. A token of another algorithm comes back as it was.
func WithSmallerS(alg Algorithm, token string) (string, error) {
	if alg != ES256 {
		return token, nil
	}
	at := strings.LastIndexByte(token, '.') + 1
	sig, err := base64.RawURLEncoding.DecodeString(token[at:])
	if err != nil || len(sig) != 64 {
		return "", errors.New("bench: that is no ES256 token")
	}
	withSmallerS(sig)
	return token[:at] + b64(sig), nil
}

// GoodToken returns a token that every contender for key's algorithm must
// accept, and what it must read from it.
func GoodToken(key Key) (string, Session, error) {
	p := GoodPayload()
	token, err := Sign(key, Header{Algorithm: key.Algorithm, KeyID: key.ID, Type: TokenType}, p)
	return token, p.Session(), err
}

// rawSign is the bare signature operation of each algorithm. For ES256 the
// result is in ASN.1.
func rawSign(alg Algorithm, signer crypto.Signer, input []byte) ([]byte, error) {
	switch alg {
	case ES256:
		key, ok := signer.(*ecdsa.PrivateKey)
		if !ok {
			break
		}
		sum := sha256.Sum256(input)
		return ecdsa.SignASN1(rand.Reader, key, sum[:])
	case EdDSA:
		key, ok := signer.(ed25519.PrivateKey)
		if !ok {
			break
		}
		return ed25519.Sign(key, input), nil
	case RS256:
		key, ok := signer.(*rsa.PrivateKey)
		if !ok {
			break
		}
		sum := sha256.Sum256(input)
		return rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	case PS256:
		key, ok := signer.(*rsa.PrivateKey)
		if !ok {
			break
		}
		sum := sha256.Sum256(input)
		return rsa.SignPSS(rand.Reader, key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return nil, fmt.Errorf("bench: signing with %s: %w", alg, errors.ErrUnsupported)
}

// rawVerify is the bare verification of each algorithm. For ES256 sig is in
// ASN.1.
func rawVerify(alg Algorithm, pub crypto.PublicKey, input, sig []byte) bool {
	switch alg {
	case ES256:
		sum := sha256.Sum256(input)
		return ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), sum[:], sig)
	case EdDSA:
		return ed25519.Verify(pub.(ed25519.PublicKey), input, sig)
	case RS256:
		sum := sha256.Sum256(input)
		return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, sum[:], sig) == nil
	case PS256:
		sum := sha256.Sum256(input)
		return rsa.VerifyPSS(pub.(*rsa.PublicKey), crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}

type ecdsaSignature struct{ R, S *big.Int }

// joseSignature turns an ASN.1 P-256 signature into R and S of 32 bytes each
// (RFC 7518 section 3.4).
func joseSignature(der []byte) ([]byte, error) {
	var sig ecdsaSignature
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) != 0 {
		return nil, errors.New("bench: malformed ECDSA signature")
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// asn1Signature is the reverse of joseSignature.
func asn1Signature(raw []byte) ([]byte, error) {
	if len(raw) != 64 {
		return nil, errors.New("bench: malformed ECDSA signature")
	}
	return asn1.Marshal(ecdsaSignature{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
}

// jwks writes the public halves of keys as a JSON Web Key Set (RFC 7517
// section 5), for peers that take their keys in this form only.
func jwks(keys []Key) ([]byte, error) {
	type member struct {
		Kty string `json:"kty"`
		Use string `json:"use"`
		Alg string `json:"alg"`
		Kid string `json:"kid"`
		Crv string `json:"crv,omitempty"`
		X   string `json:"x,omitempty"`
		Y   string `json:"y,omitempty"`
		N   string `json:"n,omitempty"`
		E   string `json:"e,omitempty"`
	}
	var set struct {
		Keys []member `json:"keys"`
	}
	for _, k := range keys {
		m := member{Use: "sig", Alg: string(k.Algorithm), Kid: k.ID}
		switch pub := k.Signer.Public().(type) {
		case *ecdsa.PublicKey:
			point, err := pub.Bytes()
			if err != nil {
				return nil, fmt.Errorf("bench: encoding a public key: %w", err)
			}
			m.Kty, m.Crv, m.X, m.Y = "EC", "P-256", b64(point[1:33]), b64(point[33:])
		case ed25519.PublicKey:
			m.Kty, m.Crv, m.X = "OKP", "Ed25519", b64(pub)
		case *rsa.PublicKey:
			m.Kty, m.N, m.E = "RSA", b64(pub.N.Bytes()), b64(big.NewInt(int64(pub.E)).Bytes())
		}
		set.Keys = append(set.Keys, m)
	}
	return json.Marshal(set)
}
