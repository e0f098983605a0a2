package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/jwk"
	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// PublicKey is one verification key: its id, its one algorithm and the key
// itself. It is immutable and safe for concurrent use.
type PublicKey struct {
	id  string
	alg Algorithm
	key crypto.PublicKey
}

// NewPublicKey wraps the public half of a key for use with alg. Its id is the
// key's RFC 7638 thumbprint (SHA-256, base64url). The key must be one for alg:
// an *ecdsa.PublicKey on P-256 for [ES256], an ed25519.PublicKey for [EdDSA],
// an *rsa.PublicKey of 2048 to 8192 bits for [PS256] and [RS256] (RFC 7518
// section 3.3); anything else, a point off its curve and an Ed25519 key of low
// order is an error. The caller must not change pub afterwards.
func NewPublicKey(alg Algorithm, pub crypto.PublicKey) (*PublicKey, error) {
	if !alg.valid() {
		return nil, fmt.Errorf("keys: algorithm %q is not offered", string(alg))
	}
	if err := jwk.CheckPublic(string(alg), pub); err != nil {
		return nil, fmt.Errorf("keys: public key: %w", err)
	}
	id, err := jwk.Thumbprint(pub)
	if err != nil {
		return nil, fmt.Errorf("keys: public key: %w", err)
	}
	return &PublicKey{id: id, alg: alg, key: pub}, nil
}

// KeyID returns the key's id, the kid of its JWK and of its tokens.
func (k *PublicKey) KeyID() string { return k.id }

// Algorithm returns the one algorithm that the key verifies.
func (k *PublicKey) Algorithm() Algorithm { return k.alg }

// Key returns the key itself: *ecdsa.PublicKey, ed25519.PublicKey or
// *rsa.PublicKey. It is shared and must not be changed.
func (k *PublicKey) Key() crypto.PublicKey { return k.key }

// Equal reports whether both are the same key under the same id and algorithm.
func (k *PublicKey) Equal(o *PublicKey) bool {
	return k.id == o.id && k.alg == o.alg && sameKey(k.key, o.key)
}

func sameKey(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}

// SigningKey is a private key with its public half. It is immutable, and safe
// for concurrent use if its signer is. Every fmt verb prints its id and
// algorithm alone. Make it with [NewSigningKey] or [GenerateKey].
type SigningKey struct {
	public  *PublicKey
	signer  crypto.Signer
	signing chan struct{} // one element for each call of an external signer under way
}

// GenerateKey makes a new key for alg from crypto/rand: P-256, Ed25519 or RSA
// with 2048 bits.
func GenerateKey(alg Algorithm) (*SigningKey, error) {
	var signer crypto.Signer
	var err error
	switch alg {
	case ES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case PS256, RS256:
		signer, err = rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("keys: algorithm %q is not offered", string(alg))
	}
	if err != nil {
		return nil, fmt.Errorf("keys: generate %s: %w", alg, err)
	}
	return NewSigningKey(alg, signer)
}

// NewSigningKey wraps a key that signs for alg. The signer may be a key of the
// standard library or a handle on one that never leaves a KMS or an HSM: only
// its Public and Sign methods are used, Sign as the standard library's keys of
// that type define it (a digest for ES256, PS256 and RS256, the message for
// EdDSA; an ASN.1 signature from ECDSA, as RFC 3279 has it), or SignContext in
// its place if the handle is a [ContextSigner]. NewSigningKey calls Public
// alone. The key's id is its RFC 7638 thumbprint.
func NewSigningKey(alg Algorithm, signer crypto.Signer) (*SigningKey, error) {
	if arg.IsNil(signer) {
		return nil, errors.New("keys: signer is required")
	}
	switch k := signer.(type) {
	case *rsa.PrivateKey:
		if k.Validate() != nil { // its text is dropped: it is about a private key
			return nil, errors.New("keys: the RSA key is not valid")
		}
	case ed25519.PrivateKey:
		if len(k) != ed25519.PrivateKeySize {
			return nil, errors.New("keys: the Ed25519 key is not valid")
		}
	}
	pub, err := NewPublicKey(alg, signer.Public())
	if err != nil {
		return nil, err
	}
	k := &SigningKey{public: pub, signer: signer}
	if !jws.IsSoftware(signer) {
		k.signing = make(chan struct{}, maxSigning)
	}
	return k, nil
}

// Public returns the key's public half.
func (k *SigningKey) Public() *PublicKey { return k.public }

// Format implements [fmt.Formatter], so that no verb prints the private half.
func (k *SigningKey) Format(s fmt.State, _ rune) {
	if k == nil || k.public == nil {
		fmt.Fprint(s, "keys.SigningKey(nil)")
		return
	}
	fmt.Fprintf(s, "keys.SigningKey(%s %s)", k.public.alg, k.public.id)
}
