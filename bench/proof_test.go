package bench_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/bench"
)

var (
	fixture   = sync.OnceValues(bench.NewFixture)
	strangers = sync.OnceValues(bench.NewFixture) // keys that no contender knows
)

func newFixture(t testing.TB) *bench.Fixture {
	t.Helper()
	f, err := fixture()
	require.NoError(t, err)
	return f
}

// eachContender runs f once for every peer and every algorithm it offers.
func eachContender(t *testing.T, f func(t *testing.T, alg bench.Algorithm, c bench.Contender)) {
	for _, peer := range bench.Peers() {
		for _, alg := range peer.Algorithms {
			t.Run(peer.Name+"/"+string(alg), func(t *testing.T) {
				c, err := peer.New(newFixture(t), alg)
				require.NoError(t, err)
				f(t, alg, c)
			})
		}
	}
}

// Every peer reads the same bytes into the same session, under each key of the
// set.
func TestPeersReadTheSameToken(t *testing.T) {
	f := newFixture(t)
	eachContender(t, func(t *testing.T, alg bench.Algorithm, c bench.Contender) {
		for _, key := range f.Of(alg) {
			token, want, err := bench.GoodToken(key)
			require.NoError(t, err)
			got, err := c.Verify(token)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	})
}

// Every peer reads what every other peer writes.
func TestPeersReadEachOther(t *testing.T) {
	f := newFixture(t)
	eachContender(t, func(t *testing.T, alg bench.Algorithm, issuer bench.Contender) {
		before := time.Now().Unix()
		token, err := issuer.Issue(bench.Subject, bench.SampleState())
		require.NoError(t, err)
		token, err = bench.WithSmallerS(alg, token)
		require.NoError(t, err)
		for _, peer := range bench.Peers() {
			if !slices.Contains(peer.Algorithms, alg) {
				continue
			}
			c, err := peer.New(f, alg)
			require.NoError(t, err)
			got, err := c.Verify(token)
			require.NoError(t, err, "read by %s", peer.Name)
			require.Equal(t, bench.Issuer, got.Issuer)
			require.Equal(t, bench.Subject, got.Subject)
			require.NotEmpty(t, got.TokenID)
			require.NotEmpty(t, got.SessionID)
			require.GreaterOrEqual(t, got.IssuedAt, before)
			require.Equal(t, got.IssuedAt, got.AuthTime)
			require.Equal(t, got.IssuedAt, got.Began/1000)
			require.Equal(t, int64(bench.TokenTTL/time.Second), got.Expires-got.IssuedAt)
			require.Equal(t, bench.SampleState(), got.State)
		}
	})
}

// Every peer writes the same claims and header parameters, new identifiers
// each time, and a payload of the same size within 16 bytes.
func TestPeersIssueTheSameClaims(t *testing.T) {
	f := newFixture(t)
	eachContender(t, func(t *testing.T, alg bench.Algorithm, c bench.Contender) {
		key := f.Current(alg)
		ids := make(map[string]bool)
		for range 3 {
			token, err := c.Issue(bench.Subject, bench.SampleState())
			require.NoError(t, err)

			parts := strings.Split(token, ".")
			require.Len(t, parts, 3)
			require.Equal(t, map[string]any{"alg": string(alg), "kid": key.ID, "typ": bench.TokenType}, object(t, parts[0]))

			claims := object(t, parts[1])
			names := make([]string, 0, len(claims))
			for name := range claims {
				names = append(names, name)
			}
			require.ElementsMatch(t, []string{"iss", "sub", "aud", "exp", "iat", "jti", "sid", "begun", "auth_time", "rnw", "state"}, names)
			for _, name := range []string{"jti", "sid"} {
				id := claims[name].(string)
				require.GreaterOrEqual(t, len(id), 22, "128 random bits")
				require.False(t, ids[id], "%s was used before", name)
				ids[id] = true
			}

			// Compared without insignificant whitespace, of which tink-go adds
			// some in some builds.
			good, _, err := bench.GoodToken(key)
			require.NoError(t, err)
			require.InDelta(t, len(compact(t, strings.Split(good, ".")[1])), len(compact(t, parts[1])), 16)
		}
	})
}

func compact(t *testing.T, part string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(part)
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, json.Compact(&out, raw))
	return out.Bytes()
}

func object(t *testing.T, part string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(part)
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(raw, &m))
	return m
}

// Every peer refuses every one of these tokens. Each differs in one thing from
// a token that the peer accepts.
func TestPeersRefuse(t *testing.T) {
	f := newFixture(t)

	sign := func(t *testing.T, key bench.Key, h bench.Header, p bench.Payload) string {
		t.Helper()
		token, err := bench.Sign(key, h, p)
		require.NoError(t, err)
		return token
	}
	header := func(key bench.Key) bench.Header {
		return bench.Header{Algorithm: key.Algorithm, KeyID: key.ID, Type: bench.TokenType}
	}
	good := func(t *testing.T, key bench.Key) string {
		return sign(t, key, header(key), bench.GoodPayload())
	}

	// A key of another type has one algorithm only.
	const rsaOnly = "signed by the key of kid with another algorithm of its type"

	cases := []struct {
		name string
		make func(t *testing.T, key, other bench.Key) string
	}{
		{"expired", func(t *testing.T, key, _ bench.Key) string {
			return sign(t, key, header(key), bench.GoodPayload().Shift(-time.Hour))
		}},
		{"no exp", func(t *testing.T, key, _ bench.Key) string {
			p := bench.GoodPayload()
			p.Expires = nil
			return sign(t, key, header(key), p)
		}},
		{"nbf in the future", func(t *testing.T, key, _ bench.Key) string {
			p := bench.GoodPayload()
			nbf := time.Now().Add(4 * time.Minute).Unix()
			p.NotBefore = &nbf
			return sign(t, key, header(key), p)
		}},
		{"wrong iss", func(t *testing.T, key, _ bench.Key) string {
			p := bench.GoodPayload()
			p.Issuer += "."
			return sign(t, key, header(key), p)
		}},
		{"empty iss", func(t *testing.T, key, _ bench.Key) string {
			p := bench.GoodPayload()
			p.Issuer = ""
			return sign(t, key, header(key), p)
		}},
		{"wrong aud", func(t *testing.T, key, _ bench.Key) string {
			p := bench.GoodPayload()
			p.Audience = "apis"
			return sign(t, key, header(key), p)
		}},
		{"unknown kid", func(t *testing.T, key, _ bench.Key) string {
			h := header(key)
			h.KeyID = strings.ToUpper(h.KeyID)
			return sign(t, key, h, bench.GoodPayload())
		}},
		{"kid of another key of the set", func(t *testing.T, key, other bench.Key) string {
			h := header(key)
			h.KeyID = other.ID
			return sign(t, key, h, bench.GoodPayload())
		}},
		{"key outside the set under a kid of the set", func(t *testing.T, key, _ bench.Key) string {
			stranger, err := strangers()
			require.NoError(t, err)
			return sign(t, stranger.Current(key.Algorithm), header(key), bench.GoodPayload())
		}},
		{"first bit of the signature flipped", func(t *testing.T, key, _ bench.Key) string {
			return flip(t, good(t, key), func(sig []byte) { sig[0] ^= 1 })
		}},
		{"last bit of the signature flipped", func(t *testing.T, key, _ bench.Key) string {
			return flip(t, good(t, key), func(sig []byte) { sig[len(sig)-1] ^= 1 })
		}},
		{"no signature", func(t *testing.T, key, _ bench.Key) string {
			token := good(t, key)
			return token[:strings.LastIndexByte(token, '.')+1]
		}},
		{"claims changed after signing", func(t *testing.T, key, _ bench.Key) string {
			parts := strings.Split(good(t, key), ".")
			raw, err := base64.RawURLEncoding.DecodeString(parts[1])
			require.NoError(t, err)
			changed := strings.Replace(string(raw), `"staff":false`, `"staff":true`, 1)
			require.NotEqual(t, string(raw), changed)
			return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(changed)) + "." + parts[2]
		}},
		{"alg of another algorithm of the set", func(t *testing.T, key, _ bench.Key) string {
			return realg(t, good(t, key), string(elsewhere(key.Algorithm)))
		}},
		{"alg none", func(t *testing.T, key, _ bench.Key) string {
			token := realg(t, good(t, key), "none")
			return token[:strings.LastIndexByte(token, '.')+1]
		}},
		{"alg HS256 under the public key", func(t *testing.T, key, _ bench.Key) string {
			token := realg(t, good(t, key), "HS256")
			input := token[:strings.LastIndexByte(token, '.')]
			mac := hmac.New(sha256.New, publicBytes(t, key))
			mac.Write([]byte(input))
			return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
		}},
		{rsaOnly, func(t *testing.T, key, _ bench.Key) string {
			h := header(key)
			h.Algorithm = elsewhere(key.Algorithm)
			return sign(t, key, h, bench.GoodPayload())
		}},
	}

	eachContender(t, func(t *testing.T, alg bench.Algorithm, c bench.Contender) {
		of := f.Of(alg)
		require.GreaterOrEqual(t, len(of), 2)
		for _, tc := range cases {
			if _, ok := of[0].Signer.(*rsa.PrivateKey); !ok && tc.name == rsaOnly {
				continue
			}
			t.Run(tc.name, func(t *testing.T) {
				_, err := c.Verify(good(t, of[0]))
				require.NoError(t, err, "the good twin must pass")
				got, err := c.Verify(tc.make(t, of[0], of[1]))
				require.Error(t, err)
				require.Zero(t, got)
			})
		}
	})
}

// flip changes the signature of token in place.
func flip(t *testing.T, token string, change func([]byte)) string {
	t.Helper()
	cut := strings.LastIndexByte(token, '.') + 1
	sig, err := base64.RawURLEncoding.DecodeString(token[cut:])
	require.NoError(t, err)
	change(sig)
	return token[:cut] + base64.RawURLEncoding.EncodeToString(sig)
}

// realg changes the alg of token's header and leaves the signature.
func realg(t *testing.T, token, alg string) string {
	t.Helper()
	head, rest, _ := strings.Cut(token, ".")
	m := object(t, head)
	m["alg"] = alg
	raw, err := json.Marshal(m)
	require.NoError(t, err)
	return base64.RawURLEncoding.EncodeToString(raw) + "." + rest
}

// elsewhere is another algorithm, for RSA the other one for RSA keys.
func elsewhere(alg bench.Algorithm) bench.Algorithm {
	switch alg {
	case bench.RS256:
		return bench.PS256
	case bench.PS256:
		return bench.RS256
	case bench.ES256:
		return bench.EdDSA
	default:
		return bench.ES256
	}
}

func publicBytes(t *testing.T, key bench.Key) []byte {
	t.Helper()
	switch signer := key.Signer.(type) {
	case ed25519.PrivateKey:
		return signer.Public().(ed25519.PublicKey)
	case *ecdsa.PrivateKey, *rsa.PrivateKey:
		raw, err := x509.MarshalPKIXPublicKey(key.Signer.Public())
		require.NoError(t, err)
		return raw
	}
	t.Fatal("unknown key type")
	return nil
}

// The state is as large as it says.
func TestStateSize(t *testing.T) {
	raw, err := json.Marshal(bench.SampleState())
	require.NoError(t, err)
	require.InDelta(t, 400, len(raw), 40)
}

// The floor is exempt from the proof above: it checks a signature and nothing
// else. What it must prove is that this signature is really checked.
func TestFloor(t *testing.T) {
	f := newFixture(t)
	for _, alg := range bench.Algorithms() {
		t.Run(string(alg), func(t *testing.T) {
			key := f.Current(alg)
			token, _, err := bench.GoodToken(key)
			require.NoError(t, err)

			floor, err := bench.NewFloor(key, token)
			require.NoError(t, err)
			require.NoError(t, floor.Verify())
			require.NoError(t, floor.Sign())

			forged, err := bench.NewFloor(key, flip(t, token, func(sig []byte) { sig[len(sig)-1] ^= 1 }))
			require.NoError(t, err)
			require.Error(t, forged.Verify())

			other, err := bench.NewFloor(f.Of(alg)[1], token)
			require.NoError(t, err)
			require.Error(t, other.Verify())
		})
	}
}
