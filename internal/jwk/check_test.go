package jwk_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
)

// le returns the 32-byte little-endian form of y, with the sign bit of x.
func le(y *big.Int, sign byte) ed25519.PublicKey {
	b := make([]byte, 32)
	y.FillBytes(b)
	for i, j := 0, 31; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	b[31] |= sign << 7
	return b
}

func point(x, y *big.Int) *ecdsa.PublicKey {
	//lint:ignore SA1019 only this way can a wrong point be made
	return &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: y}
}

func TestCheckPublic(t *testing.T) {
	t.Parallel()
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	offset := func(d int64) *big.Int { return new(big.Int).Add(p, big.NewInt(d)) }
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	x, y := coordinates()
	generic := point(x, y)
	generic.Curve = elliptic.P256().Params()
	ed := edPub()
	even := new(big.Int).Lsh(big.NewInt(1), 2047)
	order8a := must(hex.DecodeString("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))
	order8b := must(hex.DecodeString("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"))
	flip := func(b []byte) ed25519.PublicKey { b = bytes.Clone(b); b[31] ^= 0x80; return b }

	for _, tc := range []struct {
		name string
		alg  string
		pub  crypto.PublicKey
		ok   bool
	}{
		{"P-256", "ES256", ecPub(), true},
		{"P-256 under EdDSA", "EdDSA", ecPub(), false},
		{"P-256 under RS256", "RS256", ecPub(), false},
		{"P-256 by value", "ES256", *ecPub(), false},
		{"P-256 private", "ES256", ecKey(), false},
		{"P-384", "ES256", &p384.PublicKey, false},
		{"generic P-256", "ES256", generic, false},
		{"EC nil", "ES256", (*ecdsa.PublicKey)(nil), false},
		{"EC zero", "ES256", &ecdsa.PublicKey{}, false},
		{"EC without coordinates", "ES256", point(nil, nil), false},
		{"EC infinity", "ES256", point(new(big.Int), new(big.Int)), false},
		{"EC off the curve", "ES256", point(x, new(big.Int).Add(y, big.NewInt(1))), false},
		{"EC negative", "ES256", point(x, new(big.Int).Neg(y)), false},
		{"EC coordinate plus prime", "ES256", point(new(big.Int).Add(x, elliptic.P256().Params().P), y), false},

		{"RSA as RS256", "RS256", rsaPub(), true},
		{"RSA as PS256", "PS256", rsaPub(), true},
		{"RSA under ES256", "ES256", rsaPub(), false},
		{"RSA by value", "RS256", *rsaPub(), false},
		{"RSA private", "RS256", rsaKey(), false},
		{"RSA nil", "RS256", (*rsa.PublicKey)(nil), false},
		{"RSA without modulus", "RS256", &rsa.PublicKey{E: 65537}, false},
		{"RSA negative modulus", "RS256", &rsa.PublicKey{N: new(big.Int).Neg(rsaPub().N), E: 65537}, false},
		{"RSA 2047 bits", "RS256", &rsa.PublicKey{N: modulus(2047), E: 65537}, false},
		{"RSA 2048 bits", "RS256", &rsa.PublicKey{N: modulus(2048), E: 65537}, true},
		{"RSA 8192 bits", "RS256", &rsa.PublicKey{N: modulus(8192), E: 65537}, true},
		{"RSA 8193 bits", "RS256", &rsa.PublicKey{N: modulus(8193), E: 65537}, false},
		{"RSA even modulus", "RS256", &rsa.PublicKey{N: even, E: 65537}, false},
		{"RSA exponent 0", "RS256", &rsa.PublicKey{N: rsaPub().N}, false},
		{"RSA exponent -3", "RS256", &rsa.PublicKey{N: rsaPub().N, E: -3}, false},
		{"RSA exponent 1", "RS256", &rsa.PublicKey{N: rsaPub().N, E: 1}, false},
		{"RSA exponent 2", "RS256", &rsa.PublicKey{N: rsaPub().N, E: 2}, false},
		{"RSA exponent 3", "RS256", &rsa.PublicKey{N: rsaPub().N, E: 3}, true},
		{"RSA exponent even", "RS256", &rsa.PublicKey{N: rsaPub().N, E: 65536}, false},
		{"RSA exponent 2^31-1", "RS256", &rsa.PublicKey{N: rsaPub().N, E: 1<<31 - 1}, true},

		{"Ed25519", "EdDSA", ed, true},
		{"Ed25519 under its RFC 9864 name", "Ed25519", ed, false},
		{"Ed25519 under ES256", "ES256", ed, false},
		{"Ed25519 pointer", "EdDSA", &ed, false},
		{"Ed25519 private", "EdDSA", edKey(), false},
		{"Ed25519 as bytes", "EdDSA", []byte(ed), false},
		{"Ed25519 nil", "EdDSA", ed25519.PublicKey(nil), false},
		{"Ed25519 31 bytes", "EdDSA", ed[:31], false},
		{"Ed25519 33 bytes", "EdDSA", append(bytes.Clone(ed), 0), false},
		{"Ed25519 negated", "EdDSA", flip(ed), true},
		{"Ed25519 order 1", "EdDSA", le(big.NewInt(1), 0), false},
		{"Ed25519 order 1, sign set", "EdDSA", le(big.NewInt(1), 1), false},
		{"Ed25519 order 2", "EdDSA", le(offset(-1), 0), false},
		{"Ed25519 order 2, sign set", "EdDSA", le(offset(-1), 1), false},
		{"Ed25519 order 4", "EdDSA", le(new(big.Int), 0), false},
		{"Ed25519 order 4, sign set", "EdDSA", le(new(big.Int), 1), false},
		{"Ed25519 order 8, first", "EdDSA", ed25519.PublicKey(order8a), false},
		{"Ed25519 order 8, first negated", "EdDSA", flip(order8a), false},
		{"Ed25519 order 8, second", "EdDSA", ed25519.PublicKey(order8b), false},
		{"Ed25519 order 8, second negated", "EdDSA", flip(order8b), false},
		{"Ed25519 y = p", "EdDSA", le(p, 0), false},
		{"Ed25519 y = p+1", "EdDSA", le(offset(1), 0), false},
		{"Ed25519 y = p+3, canonical form is a point", "EdDSA", le(offset(3), 0), false},
		{"Ed25519 y = 3, a point", "EdDSA", le(big.NewInt(3), 0), true},
		{"Ed25519 y = 2, not a point", "EdDSA", le(big.NewInt(2), 0), false},

		{"no algorithm", "", ecPub(), false},
		{"none", "none", ecPub(), false},
		{"HS256", "HS256", []byte("0123456789abcdef0123456789abcdef"), false},
		{"lower case", "es256", ecPub(), false},
		{"nil", "ES256", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := jwk.CheckPublic(tc.alg, tc.pub)
			if tc.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, jwk.ErrUnusable)
		})
	}
}

// TestCheckPublicGenerated: the curve equation of the check agrees with real
// keys, of which half have each sign.
func TestCheckPublicGenerated(t *testing.T) {
	t.Parallel()
	for range 64 {
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		require.NoError(t, err)
		before := bytes.Clone(pub)
		require.NoError(t, jwk.CheckPublic("EdDSA", pub))
		require.Equal(t, before, []byte(pub), "the key must not be written to")
	}
}
