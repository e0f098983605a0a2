package jwk_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"math/big"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
)

// The keys of these tests are made once, and nothing keeps them.
var (
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	edKey  = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ecPub() *ecdsa.PublicKey  { return &ecKey().PublicKey }
func edPub() ed25519.PublicKey { return edKey().Public().(ed25519.PublicKey) }
func rsaPub() *rsa.PublicKey   { return &rsaKey().PublicKey }
func b64(b []byte) string      { return base64.RawURLEncoding.EncodeToString(b) }
func equal(a, b jwk.Key) bool {
	return a.KeyID == b.KeyID && a.Algorithm == b.Algorithm && samePublic(a.Public, b.Public)
}
func samePublic(a, b any) bool   { return a.(interface{ Equal(crypto.PublicKey) bool }).Equal(b) }
func modulus(bits uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(bits)-1, 1) }

// coordinates returns the point of ecPub.
func coordinates() (x, y *big.Int) {
	b := must(ecPub().Bytes())
	return new(big.Int).SetBytes(b[1:33]), new(big.Int).SetBytes(b[33:])
}

type members map[string]any

// with returns a copy of m with one member set.
func (m members) with(name string, v any) members {
	m = maps.Clone(m)
	m[name] = v
	return m
}

// without returns a copy of m with one member left out.
func (m members) without(name string) members {
	m = maps.Clone(m)
	delete(m, name)
	return m
}

func (m members) json() []byte {
	return must(json.Marshal(map[string]any(m), json.Deterministic(true)))
}

func ecMembers(kid string) members {
	point := must(ecPub().Bytes())
	return members{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:]), "kid": kid, "use": "sig", "alg": "ES256"}
}

func edMembers(kid string) members {
	return members{"kty": "OKP", "crv": "Ed25519", "x": b64(edPub()), "kid": kid, "use": "sig", "alg": "EdDSA"}
}

func rsaMembers(kid string) members {
	return members{"kty": "RSA", "n": b64(rsaPub().N.Bytes()), "e": "AQAB", "kid": kid, "use": "sig", "alg": "PS256"}
}

func octMembers(kid string) members {
	return members{"kty": "oct", "kid": kid, "use": "sig", "alg": "HS256"}
}

// set writes a JWK Set of the given elements.
func set(elements ...members) []byte {
	return must(json.Marshal(map[string]any{"keys": elements}, json.Deterministic(true)))
}

// ownThumbprint is RFC 7638 section 3 done by hand on what Marshal writes.
func ownThumbprint(t testing.TB, k jwk.Key) string {
	t.Helper()
	data, err := jwk.Marshal(k)
	require.NoError(t, err)
	var m map[string]string
	require.NoError(t, json.Unmarshal(data, &m))
	for _, optional := range []string{"kid", "use", "alg"} {
		delete(m, optional)
	}
	canonical, err := json.Marshal(m, json.Deterministic(true))
	require.NoError(t, err)
	sum := sha256.Sum256(canonical)
	return b64(sum[:])
}
