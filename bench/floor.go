package bench

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Floor is the bare signature of the standard library over the bytes of one
// token: no base64, no JSON, no choice of a key, no claims. It is not a
// [Peer], and it is exempt from the proof that the peers do the same work,
// because it does not do it: it is what the ratios are taken against.
//
// SHA-256 of the signing input is part of it. For ES256 its signature is in
// ASN.1, the form in which crypto/ecdsa takes and gives it.
type Floor struct {
	alg    Algorithm
	signer crypto.Signer
	pub    crypto.PublicKey
	input  []byte
	sig    []byte
}

// NewFloor prepares the signing input and the signature of token, which key
// must have signed.
func NewFloor(key Key, token string) (*Floor, error) {
	cut := strings.LastIndexByte(token, '.')
	if cut < 0 {
		return nil, errors.New("bench: not a token")
	}
	sig, err := base64.RawURLEncoding.DecodeString(token[cut+1:])
	if err != nil {
		return nil, fmt.Errorf("bench: decoding a signature: %w", err)
	}
	if key.Algorithm == ES256 {
		if sig, err = asn1Signature(sig); err != nil {
			return nil, err
		}
	}
	return &Floor{alg: key.Algorithm, signer: key.Signer, pub: key.Signer.Public(), input: []byte(token[:cut]), sig: sig}, nil
}

// Verify checks the prepared signature.
func (f *Floor) Verify() error {
	if !rawVerify(f.alg, f.pub, f.input, f.sig) {
		return errors.New("bench: bad signature")
	}
	return nil
}

// Sign signs the prepared signing input and throws the signature away.
func (f *Floor) Sign() error {
	_, err := rawSign(f.alg, f.signer, f.input)
	return err
}
