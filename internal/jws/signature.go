package jws

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/golang-jwt/jwt/v5"
)

// ErrSignature means that a signature does not verify.
var ErrSignature = errors.New("the signature does not verify")

// ErrKey means that a key is not for an algorithm.
var ErrKey = errors.New("the key is not one for the algorithm")

// ps256 is golang-jwt's PS256 with the salt length that RFC 7518 section 3.5
// requires. golang-jwt's own verifies any length.
var ps256 = func() *jwt.SigningMethodRSAPSS {
	opts := rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	return &jwt.SigningMethodRSAPSS{
		SigningMethodRSA: jwt.SigningMethodPS256.SigningMethodRSA,
		Options:          &opts,
		VerifyOptions:    &opts,
	}
}()

// verifier is the half of golang-jwt's SigningMethod that verifies.
type verifier interface {
	Verify(input string, sig []byte, key any) error
}

// es256 is golang-jwt's ES256 without its conversions to big.Int: crypto/ecdsa
// reads and writes ASN.1.
type es256 struct{}

func (es256) Verify(input string, sig []byte, key any) error {
	pub, ok := key.(*ecdsa.PublicKey)
	if !ok || len(sig) != 64 {
		return ErrSignature
	}
	var buf [72]byte
	digest := sha256Of(input)
	if !ecdsa.VerifyASN1(pub, digest[:], appendDER(buf[:0], sig)) {
		return ErrSignature
	}
	return nil
}

func signES256(message []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	digest := sha256.Sum256(message)
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	sig, err := rawECDSA(der)
	if err != nil {
		return nil, err
	}
	lowerS(sig)
	return sig, nil
}

// The order of P-256 (n of FIPS 186-5), and half of it, rounded down.
var (
	orderP256 = [32]byte{
		0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
	}
	halfP256 = [32]byte{
		0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
	}
)

// IsCanonical reports whether sig has the form in which [Sign] writes
// signatures under alg. If (r, s) is an ES256 signature, (r, n-s) is one too,
// and can be made without a key: the canonical one has the smaller s. Verify
// accepts both, since other libraries write either.
func IsCanonical(alg string, sig []byte) bool {
	return alg != "ES256" || len(sig) != 64 || bytes.Compare(sig[32:], halfP256[:]) <= 0
}

// lowerS replaces an ES256 signature by the canonical one of its two forms. It
// does not take constant time: the values are public.
func lowerS(sig []byte) {
	if IsCanonical("ES256", sig) {
		return
	}
	s, borrow := sig[32:], 0
	for i := len(s) - 1; i >= 0; i-- {
		d := int(orderP256[i]) - int(s[i]) - borrow
		borrow = 0
		if d < 0 {
			d, borrow = d+256, 1
		}
		s[i] = byte(d)
	}
}

// appendDER appends the ASN.1 form of r and s of 32 bytes each.
func appendDER(dst, raw []byte) []byte {
	dst = append(dst, 0x30, 0)
	for _, n := range [2][]byte{raw[:32], raw[32:64]} {
		for len(n) > 1 && n[0] == 0 {
			n = n[1:]
		}
		pad := n[0] >> 7 // a set top bit would mean a negative number
		dst = append(dst, 0x02, byte(len(n))+pad)
		if pad == 1 {
			dst = append(dst, 0)
		}
		dst = append(dst, n...)
	}
	dst[1] = byte(len(dst) - 2)
	return dst
}

// eddsa is golang-jwt's EdDSA without its copy of the input.
type eddsa struct{}

func (eddsa) Verify(input string, sig []byte, key any) error {
	pub, ok := key.(ed25519.PublicKey)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return ErrSignature
	}
	message := borrow(input)
	defer giveBack(message)
	if !ed25519.Verify(pub, *message, sig) {
		return ErrSignature
	}
	return nil
}

// inputs holds copies of signing inputs while they are hashed: golang-jwt
// passes strings, and the standard library takes bytes.
var inputs = sync.Pool{New: func() any { return new([]byte) }}

func borrow(input string) *[]byte {
	b := inputs.Get().(*[]byte)
	*b = append((*b)[:0], input...)
	return b
}

func giveBack(b *[]byte) {
	const most = 16 << 10 // a long token must not occupy memory for ever
	if cap(*b) <= most {
		inputs.Put(b)
	}
}

func sha256Of(input string) [sha256.Size]byte {
	b := borrow(input)
	defer giveBack(b)
	return sha256.Sum256(*b)
}

// method returns the verifier of alg if pub is a key for it. It does not use
// golang-jwt's registry of names, which any package of the process can change.
func method(alg string, pub crypto.PublicKey) (verifier, error) {
	switch alg {
	case "ES256":
		if k, ok := pub.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P256() {
			return es256{}, nil
		}
	case "EdDSA":
		if k, ok := pub.(ed25519.PublicKey); ok && len(k) == ed25519.PublicKeySize {
			return eddsa{}, nil
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
	// The length of a signature depends on the key alone: RFC 7518 sections 3.3
	// and 3.4, RFC 8032 section 5.1.7.
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

// Sign returns the signature of key over message under alg. A key that is not
// of the standard library signs as SignWith describes. An ES256 signature has
// the smaller s: see [IsCanonical]. Sign does not keep message.
func Sign(alg string, key crypto.Signer, message []byte) (sig []byte, err error) {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if alg != "ES256" || k.Curve != elliptic.P256() {
			return nil, ErrKey
		}
		sig, err = signES256(message, k)
	case ed25519.PrivateKey:
		if alg != "EdDSA" || len(k) != ed25519.PrivateKeySize {
			return nil, ErrKey
		}
		sig = ed25519.Sign(k, message)
	case *rsa.PrivateKey:
		switch alg {
		case "PS256":
			sig, err = ps256.Sign(string(message), k)
		case "RS256":
			sig, err = jwt.SigningMethodRS256.Sign(string(message), k)
		default:
			return nil, ErrKey
		}
	default:
		return SignWith(alg, key.Public(), message, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
			return key.Sign(rand.Reader, digest, opts)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", alg, err)
	}
	return sig, nil
}

// IsSoftware reports whether a key is of the standard library, which signs
// without I/O.
func IsSoftware(key crypto.Signer) bool {
	switch key.(type) {
	case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey:
		return true
	}
	return false
}

// SignWith is Sign for a key outside of the process, such as in a KMS or an
// HSM, whose public key is pub. sign has the arguments and the result of
// crypto.Signer's Sign. Its result is verified before it is used.
func SignWith(alg string, pub crypto.PublicKey, message []byte, sign func(digest []byte, opts crypto.SignerOpts) ([]byte, error)) ([]byte, error) {
	if _, err := method(alg, pub); err != nil {
		return nil, err
	}
	digest, opts := bytes.Clone(message), crypto.SignerOpts(crypto.Hash(0))
	if alg != "EdDSA" {
		sum := sha256.Sum256(message)
		digest, opts = sum[:], crypto.SHA256
	}
	if alg == "PS256" {
		opts = ps256.Options
	}
	sig, err := sign(digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", alg, err)
	}
	if alg == "ES256" {
		if sig, err = rawECDSA(sig); err != nil {
			return nil, err
		}
		lowerS(sig)
	}
	if Verify(alg, pub, string(message), sig) != nil {
		return nil, errors.New("the signer returned a signature that its public key does not verify")
	}
	return sig, nil
}

// errASN1 means that a signer returned a malformed signature.
var errASN1 = errors.New("the signer returned no ASN.1 ECDSA signature")

// rawECDSA converts the ASN.1 form of crypto/ecdsa and of every crypto.Signer
// into r and s of 32 bytes each, with leading zeros (RFC 7518 section 3.4). It
// accepts DER alone.
func rawECDSA(der []byte) ([]byte, error) {
	if len(der) < 2 || der[0] != 0x30 || int(der[1]) != len(der)-2 {
		return nil, errASN1
	}
	raw, rest := make([]byte, 64), der[2:]
	for _, to := range [2][]byte{raw[:32], raw[32:]} {
		n, after, ok := derPositive(rest)
		if !ok || len(n) > len(to) {
			return nil, errASN1
		}
		copy(to[len(to)-len(n):], n)
		rest = after
	}
	if len(rest) != 0 {
		return nil, errASN1
	}
	return raw, nil
}

// derPositive reads an INTEGER above zero of fewer than 128 bytes, and returns
// its magnitude and the rest.
func derPositive(der []byte) (n, rest []byte, ok bool) {
	if len(der) < 3 || der[0] != 0x02 || der[1] == 0 || int(der[1]) > len(der)-2 || der[1] > 127 {
		return nil, nil, false
	}
	n, rest = der[2:2+der[1]], der[2+der[1]:]
	if n[0] == 0 { // either the number is zero, or the next bit needs it
		n = n[1:]
		return n, rest, len(n) > 0 && n[0]>>7 == 1
	}
	return n, rest, n[0]>>7 == 0
}
