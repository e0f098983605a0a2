package jwk

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"
)

const (
	algES256 = "ES256"
	algEdDSA = "EdDSA"
	algPS256 = "PS256"
	algRS256 = "RS256"

	minRSABits     = 2048
	maxRSABits     = 8192
	maxRSAExponent = 1<<31 - 1
)

// CheckPublic reports whether pub may be used to verify signatures of alg. It
// returns nil, or an error that matches [ErrUnusable].
//
//   - ES256: a *ecdsa.PublicKey that is a point on P-256, not at infinity.
//   - PS256, RS256: a *rsa.PublicKey with an odd modulus of 2048 to 8192 bits
//     and an odd exponent from 3 to 2^31-1.
//   - EdDSA: an ed25519.PublicKey of 32 bytes, the one canonical encoding of
//     a point on the curve that is not of low order (RFC 8032 section 5.1.3;
//     under a low-order key one signature fits many messages).
//
// Every other algorithm and type is refused, including private keys and
// pointers to ed25519.PublicKey. CheckPublic does not look for moduli with a
// known structure (ROCA) or for shared factors. It does not prove that the
// private key exists.
func CheckPublic(alg string, pub crypto.PublicKey) error {
	switch alg {
	case algES256:
		if k, ok := pub.(*ecdsa.PublicKey); ok {
			return checkP256(k)
		}
	case algEdDSA:
		if k, ok := pub.(ed25519.PublicKey); ok {
			return checkEd25519(k)
		}
	case algPS256, algRS256:
		if k, ok := pub.(*rsa.PublicKey); ok {
			return checkRSA(k)
		}
	default:
		return fmt.Errorf("%w: unknown algorithm", ErrUnusable)
	}
	return fmt.Errorf("%w: key type does not fit the algorithm", ErrUnusable)
}

// algorithmOf returns an algorithm under which pub can be checked.
func algorithmOf(pub crypto.PublicKey) (string, error) {
	switch pub.(type) {
	case *ecdsa.PublicKey:
		return algES256, nil
	case ed25519.PublicKey:
		return algEdDSA, nil
	case *rsa.PublicKey:
		return algRS256, nil
	}
	return "", fmt.Errorf("%w: unknown key type", ErrUnusable)
}

func checkP256(k *ecdsa.PublicKey) error {
	// ECDH refuses every wrong value but panics on a nil coordinate.
	//lint:ignore SA1019 the coordinates are only compared with nil
	if k == nil || k.Curve != elliptic.P256() || k.X == nil || k.Y == nil {
		return fmt.Errorf("%w: not a P-256 key", ErrUnusable)
	}
	if _, err := k.ECDH(); err != nil {
		return fmt.Errorf("%w: not a point on P-256", ErrUnusable)
	}
	return nil
}

func checkRSA(k *rsa.PublicKey) error {
	if k == nil || k.N == nil || k.N.Sign() <= 0 {
		return fmt.Errorf("%w: no RSA modulus", ErrUnusable)
	}
	if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits || k.N.Bit(0) == 0 {
		return fmt.Errorf("%w: RSA modulus must be odd and of %d to %d bits", ErrUnusable, minRSABits, maxRSABits)
	}
	if k.E < 3 || k.E > maxRSAExponent || k.E%2 == 0 {
		return fmt.Errorf("%w: RSA exponent must be odd and from 3 to 2^31-1", ErrUnusable)
	}
	return nil
}

// The field prime 2^255-19 and the curve constant d = -121665/121666 of
// edwards25519 (RFC 8032 section 5.1).
var (
	ed25519P = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	ed25519D = func() *big.Int {
		d := new(big.Int).ModInverse(big.NewInt(121666), ed25519P)
		d.Mul(d, big.NewInt(-121665))
		return d.Mod(d, ed25519P)
	}()
	bigOne = big.NewInt(1)
)

// checkEd25519 does not take constant time: all values are public.
func checkEd25519(k ed25519.PublicKey) error {
	if len(k) != ed25519.PublicKeySize {
		return fmt.Errorf("%w: Ed25519 key must be 32 bytes", ErrUnusable)
	}
	b := bytes.Clone(k)
	b[31] &= 0x7f // the sign of x
	slices.Reverse(b)
	y := new(big.Int).SetBytes(b)
	if y.Cmp(ed25519P) >= 0 {
		return fmt.Errorf("%w: Ed25519 key is not canonical", ErrUnusable)
	}
	// -x^2 + y^2 = 1 + d x^2 y^2, so x^2 = u/v with u = y^2-1, v = d y^2+1.
	// v is never zero, and u/v is a square exactly when uv is.
	yy := mulMod(y, y)
	u := new(big.Int).Sub(yy, bigOne)
	u.Mod(u, ed25519P)
	v := mulMod(ed25519D, yy)
	v.Add(v, bigOne)
	if big.Jacobi(mulMod(u, v), ed25519P) < 0 {
		return fmt.Errorf("%w: Ed25519 key is not on the curve", ErrUnusable)
	}
	if lowOrder(yy, u) {
		return fmt.Errorf("%w: Ed25519 key is of low order", ErrUnusable)
	}
	return nil
}

// lowOrder reports whether a point of the curve has order 1, 2, 4 or 8, given
// y^2 and u = y^2-1.
//
//   - Order 1 and 2: y is 1 or -1, so u is 0. These are also the points with
//     x = 0, whose encoding with the sign bit set is not canonical.
//   - Order 4: doubling must give (0, -1), so y is 0.
//   - Order 8: doubling must give y = 0. The y of a doubled point is
//     (x^2+y^2)/(1-d x^2 y^2), so x^2 = -y^2, which in the equation of the
//     curve gives d y^4 + 2 y^2 - 1 = 0.
func lowOrder(yy, u *big.Int) bool {
	if u.Sign() == 0 || yy.Sign() == 0 {
		return true
	}
	f := mulMod(ed25519D, mulMod(yy, yy))
	f.Add(f, yy)
	f.Add(f, u)
	return f.Mod(f, ed25519P).Sign() == 0
}

func mulMod(a, b *big.Int) *big.Int {
	p := new(big.Int).Mul(a, b)
	return p.Mod(p, ed25519P)
}
