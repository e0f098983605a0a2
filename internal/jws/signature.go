package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// ErrSignature means that a signature is not the key's over these bytes.
var ErrSignature = errors.New("the signature does not verify")

// ErrKey means that key and algorithm do not belong together.
var ErrKey = errors.New("the key is not one for the algorithm")

// ps256 is golang-jwt's PS256 held to the salt length that RFC 7518 section 3.5
// prescribes; its own verifies any.
var ps256 = func() *jwt.SigningMethodRSAPSS {
	opts := rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA,
		Options:          &opts,
		VerifyOptions:    &opts,
	}
}()

// method returns the signing method of alg if pub is a key for it. The values
// are held here and never looked up by name: golang-jwt's registry can be
// changed by any package of the process.
func method(alg string, pub crypto.PublicKey) (jwt.SigningMethod, error) {
	switch alg {
	case "ES256":
		if k, ok := pub.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P256() {
			return jwt.SigningMethodES256, nil
		}
	case "EdDSA":
		if k, ok := pub.(ed25519.PublicKey); ok && len(k) == ed25519.PublicKeySize {
			return jwt.SigningMethodEdDSA, nil
		}
	case "PS256":
		if _, ok := pub.(*rsa.PublicKey); ok {
			return ps256, nil
		}
	case "RS256":
		if _, ok := pub.(*rsa.PublicKey); ok {
			return jwt.SigningMethodRS256, nil
		}
	}
	return nil, ErrKey
}

// Verify checks sig over input with the public key pub under alg (RFC 7515
// section 5.2, step 8). The key must have passed the checks of package jwk.
func Verify(alg string, pub crypto.PublicKey, input string, sig []byte) error {
	m, err := method(alg, pub)
	if err != nil {
		return err
	}
	// One length is right for each key: RFC 7518 sections 3.3 and 3.4,
	// RFC 8032 section 5.1.7.
	if len(sig) != SignatureSize(pub) || m.Verify(input, sig, pub) != nil {
		return ErrSignature
	}
	return nil
}

// SignatureSize is the length in bytes of the signatures of a key.
func SignatureSize(pub crypto.PublicKey) int {
	if k, ok := pub.(*rsa.PublicKey); ok {
		return k.Size()
	}
	return 64
}

// Sign returns the signature of key over input under alg. A key that is not one
// of the standard library's (a handle on a KMS or an HSM) signs through
// crypto.Signer, and what it returns is verified before it is used.
func Sign(alg string, key crypto.Signer, input string) ([]byte, error) {
	pub := key.Public()
	m, err := method(alg, pub)
	if err != nil {
		return nil, err
	}
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey:
		sig, err := m.Sign(input, key)
		if err != nil {
			return nil, fmt.Errorf("sign with %s: %w", alg, err)
		}
		return sig, nil
	}
	sig, err := signExternal(alg, key, input)
	if err != nil {
		return nil, err
	}
	if Verify(alg, pub, input, sig) != nil {
		return nil, errors.New("the signer returned a signature that its public key does not verify")
	}
	return sig, nil
}

func signExternal(alg string, key crypto.Signer, input string) ([]byte, error) {
	message, opts := []byte(input), crypto.SignerOpts(crypto.Hash(0))
	if alg != "EdDSA" {
		digest := sha256.Sum256(message)
		message, opts = digest[:], crypto.SHA256
	}
	if alg == "PS256" {
		opts = ps256.Options
	}
	sig, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", alg, err)
	}
	if alg == "ES256" {
		return rawECDSA(sig)
	}
	return sig, nil
}

// rawECDSA turns the ASN.1 form that a crypto.Signer gives into r and s of 32
// bytes each, leading zeros kept (RFC 7518 section 3.4).
func rawECDSA(der []byte) ([]byte, error) {
	errForm := errors.New("the signer returned no ASN.1 ECDSA signature")
	var v struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil || len(rest) != 0 || v.R.Sign() <= 0 || v.S.Sign() <= 0 || v.R.BitLen() > 256 || v.S.BitLen() > 256 {
		return nil, errForm
	}
	raw := make([]byte, 64)
	v.R.FillBytes(raw[:32])
	v.S.FillBytes(raw[32:])
	return raw, nil
}
