package oidclogin

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// The provider and the client of all tests of tokens.
const (
	opIssuer   = "https://op.example"
	opClient   = "our-client"
	opNonce    = "nonce-of-this-login"
	opSession  = "sid-at-the-provider"
	opSubject  = "subject-1"
	opAccess   = "access-token"
	opKeyID    = "k1"
	otherParty = "another-client"
)

// opNow is a whole second.
var opNow = time.Unix(1_800_000_000, 0).UTC()

var opAlgorithms = []string{oidc.RS256, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// opKeys are the provider's keys, made once.
var opKeys = sync.OnceValue(func() (k struct {
	rsa     *rsa.PrivateKey
	p256    *ecdsa.PrivateKey
	p384    *ecdsa.PrivateKey
	p521    *ecdsa.PrivateKey
	ed      ed25519.PrivateKey
	foreign *ecdsa.PrivateKey // of another provider
}) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.p256, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.p521, _ = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	k.foreign, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

// opKeySet is the provider's published keys.
func opKeySet() oidc.KeySet {
	k := opKeys()
	return &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{
		k.rsa.Public(), k.p256.Public(), k.p384.Public(), k.p521.Public(), k.ed.Public(),
	}}
}

// failingKeys is a key set that cannot be had.
type failingKeys struct{ err error }

func (k failingKeys) VerifySignature(context.Context, string) ([]byte, error) { return nil, k.err }

// members is a JSON object. A nil value removes the member when it is merged.
type members map[string]any

func (m members) with(changes members) members {
	m = maps.Clone(m)
	for name, value := range changes {
		if value == nil {
			delete(m, name)
		} else {
			m[name] = value
		}
	}
	return m
}

func (m members) text() string {
	b, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func unmarshal(text string, v any) error { return json.Unmarshal([]byte(text), v) }

// sign signs a header and a payload, both as they are.
func sign(alg, header, payload string) string {
	return signWith(alg, header, payload, opKeys().p256)
}

func signWith(alg, header, payload string, p256 *ecdsa.PrivateKey) string {
	input := jws.Encode([]byte(header)) + "." + jws.Encode([]byte(payload))
	return input + "." + jws.Encode(signature(alg, input, p256))
}

func signature(alg, input string, p256 *ecdsa.PrivateKey) []byte {
	k := opKeys()
	switch alg {
	case oidc.RS256:
		sig, _ := rsa.SignPKCS1v15(rand.Reader, k.rsa, crypto.SHA256, digest(crypto.SHA256, input))
		return sig
	case oidc.ES384:
		return signECDSA(k.p384, crypto.SHA384, input)
	case oidc.ES512:
		return signECDSA(k.p521, crypto.SHA512, input)
	case oidc.EdDSA:
		return ed25519.Sign(k.ed, []byte(input))
	case "HS256": // with the public key as the secret, as a client may have it
		der, _ := x509.MarshalPKIXPublicKey(k.rsa.Public())
		m := hmac.New(sha256.New, der)
		m.Write([]byte(input))
		return m.Sum(nil)
	}
	return signECDSA(p256, crypto.SHA256, input)
}

func digest(h crypto.Hash, input string) []byte {
	d := h.New()
	d.Write([]byte(input))
	return d.Sum(nil)
}

func signECDSA(k *ecdsa.PrivateKey, h crypto.Hash, input string) []byte {
	r, s, _ := ecdsa.Sign(rand.Reader, k, digest(h, input))
	size := (k.Curve.Params().BitSize + 7) / 8
	return append(fill(r, size), fill(s, size)...)
}

func fill(n *big.Int, size int) []byte { return n.FillBytes(make([]byte, size)) }

// headerOf returns a header with a typ, or without one if typ is empty.
func headerOf(alg, typ string) string {
	h := members{"alg": alg, "kid": opKeyID}
	if typ != "" {
		h["typ"] = typ
	}
	return h.text()
}

// idClaims are the claims of an ID token that is accepted.
func idClaims() members {
	return members{
		"iss": opIssuer, "sub": opSubject, "aud": opClient, "nonce": opNonce, "sid": opSession,
		"iat": opNow.Unix(), "exp": opNow.Unix() + 300, "auth_time": opNow.Unix() - 60,
		"acr": "urn:example:mfa", "amr": []string{"pwd", "otp"},
		"at_hash": jws.Encode(digest(crypto.SHA256, opAccess)[:16]),
	}
}

func idRules() idTokenRules {
	return idTokenRules{
		issuer: opIssuer, clientID: opClient, algorithms: opAlgorithms, now: opNow,
		nonce: opNonce, accessToken: opAccess,
	}
}

// logoutMembers are the claims of a logout token that is accepted.
func logoutMembers() members {
	return members{
		"iss": opIssuer, "sub": opSubject, "aud": opClient, "sid": opSession, "jti": "logout-1",
		"iat": opNow.Unix(), "exp": opNow.Unix() + 120,
		"events": members{logoutEvent: members{}},
	}
}

func rulesOfLogout() logoutRules {
	return logoutRules{issuer: opIssuer, clientID: opClient, algorithms: opAlgorithms, now: opNow}
}

func checkID(t *testing.T, raw string, r idTokenRules) (*idToken, error) {
	t.Helper()
	token, err := verifyIDToken(t.Context(), opKeySet(), raw, r)
	if err != nil {
		require.Nil(t, token)
		require.ErrorIs(t, err, errRefused)
		require.NotErrorIs(t, err, errUnavailable)
	}
	return token, err
}
