package jwk_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
)

// goodKeys returns one key of each kind, and awkward ones.
func goodKeys(t testing.TB) map[string]jwk.Key {
	t.Helper()
	keys := map[string]jwk.Key{
		"ES256":                {KeyID: "es", Algorithm: "ES256", Public: ecPub()},
		"EdDSA":                {KeyID: "ed", Algorithm: "EdDSA", Public: edPub()},
		"PS256":                {KeyID: "ps", Algorithm: "PS256", Public: rsaPub()},
		"RS256":                {KeyID: "rs", Algorithm: "RS256", Public: rsaPub()},
		"kid of 128 bytes":     {KeyID: strings.Repeat("k", 128), Algorithm: "EdDSA", Public: edPub()},
		"kid to be escaped":    {KeyID: "a\"b\\c\n</script>\u2028é\x00", Algorithm: "EdDSA", Public: edPub()},
		"largest RSA exponent": {KeyID: "e", Algorithm: "RS256", Public: &rsa.PublicKey{N: rsaPub().N, E: 1<<31 - 1}},
		"smallest exponent":    {KeyID: "3", Algorithm: "RS256", Public: &rsa.PublicKey{N: rsaPub().N, E: 3}},
		"largest RSA modulus":  {KeyID: "n", Algorithm: "PS256", Public: &rsa.PublicKey{N: modulus(8192), E: 65537}},
	}
	for i := range 20000 { // about 1 in 128 has a coordinate that begins with a zero octet
		k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		if b := must(k.PublicKey.Bytes()); b[1] == 0 || b[33] == 0 {
			keys["coordinate with a leading zero"] = jwk.Key{KeyID: "z", Algorithm: "ES256", Public: &k.PublicKey}
			break
		}
		require.Less(t, i, 19999)
	}
	return keys
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for name, k := range goodKeys(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := jwk.Marshal(k)
			require.NoError(t, err)
			again, err := jwk.Marshal(k)
			require.NoError(t, err)
			require.Equal(t, string(data), string(again))

			got, err := jwk.Parse(data)
			require.NoError(t, err)
			require.IsType(t, k.Public, got.Public)
			require.True(t, equal(k, got))

			set, err := jwk.MarshalSet([]jwk.Key{k})
			require.NoError(t, err)
			require.Equal(t, `{"keys":[`+string(data)+`]}`, string(set))
			keys, _, err := jwk.ParseSet(set)
			require.NoError(t, err)
			require.Len(t, keys, 1)
			require.True(t, equal(k, keys[0]))
		})
	}
}

// TestMarshalMembers: whatever a key is, only the members of the list are
// written, with the values that the list gives.
func TestMarshalMembers(t *testing.T) {
	t.Parallel()
	want := map[string][]string{
		"ES256": {"kty", "crv", "x", "y", "kid", "use", "alg"},
		"EdDSA": {"kty", "crv", "x", "kid", "use", "alg"},
		"PS256": {"kty", "n", "e", "kid", "use", "alg"},
		"RS256": {"kty", "n", "e", "kid", "use", "alg"},
	}
	for name, k := range goodKeys(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := jwk.Marshal(k)
			require.NoError(t, err)
			var got map[string]string
			require.NoError(t, json.Unmarshal(data, &got))
			require.Equal(t, k.KeyID, got["kid"])
			require.Equal(t, "sig", got["use"])
			require.Equal(t, k.Algorithm, got["alg"])
			order := want[k.Algorithm]
			require.Len(t, got, len(order))
			at := -1
			for _, member := range order {
				require.Contains(t, got, member)
				next := strings.Index(string(data), `"`+member+`":`)
				require.Greater(t, next, at, "order of members")
				at = next
			}
		})
	}
}

func TestMarshalExact(t *testing.T) {
	t.Parallel()
	const x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" // RFC 8037 appendix A.2
	k, err := jwk.Parse([]byte(`{"alg":"Ed25519","x":"` + x + `","kid":"<k>","crv":"Ed25519","kty":"OKP","exp":1,"x5u":"https://example.com/"}`))
	require.NoError(t, err)
	data, err := jwk.Marshal(k)
	require.NoError(t, err)
	require.Equal(t, `{"kty":"OKP","crv":"Ed25519","x":"`+x+`","kid":"<k>","use":"sig","alg":"EdDSA"}`, string(data))
}

func TestMarshalRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		key  jwk.Key
	}{
		{"zero", jwk.Key{}},
		{"no kid", jwk.Key{Algorithm: "ES256", Public: ecPub()}},
		{"kid of 129 bytes", jwk.Key{KeyID: strings.Repeat("k", 129), Algorithm: "ES256", Public: ecPub()}},
		{"kid not UTF-8", jwk.Key{KeyID: "\xff", Algorithm: "ES256", Public: ecPub()}},
		{"no algorithm", jwk.Key{KeyID: "k", Public: ecPub()}},
		{"wrong algorithm", jwk.Key{KeyID: "k", Algorithm: "EdDSA", Public: ecPub()}},
		{"no key", jwk.Key{KeyID: "k", Algorithm: "ES256"}},
		{"ECDSA private key", jwk.Key{KeyID: "k", Algorithm: "ES256", Public: ecKey()}},
		{"Ed25519 private key", jwk.Key{KeyID: "k", Algorithm: "EdDSA", Public: edKey()}},
		{"RSA private key", jwk.Key{KeyID: "k", Algorithm: "RS256", Public: rsaKey()}},
		{"symmetric key", jwk.Key{KeyID: "k", Algorithm: "HS256", Public: []byte("0123456789abcdef0123456789abcdef")}},
		{"weak RSA key", jwk.Key{KeyID: "k", Algorithm: "RS256", Public: &rsa.PublicKey{N: modulus(1024), E: 65537}}},
		{"point not on the curve", jwk.Key{KeyID: "k", Algorithm: "ES256", Public: point(big.NewInt(1), big.NewInt(1))}},
		{"low-order Ed25519 key", jwk.Key{KeyID: "k", Algorithm: "EdDSA", Public: make(ed25519.PublicKey, 32)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			data, err := jwk.Marshal(tc.key)
			require.ErrorIs(t, err, jwk.ErrUnusable)
			require.Empty(t, data)
			good := jwk.Key{KeyID: "good", Algorithm: "ES256", Public: ecPub()}
			data, err = jwk.MarshalSet([]jwk.Key{good, tc.key})
			require.ErrorIs(t, err, jwk.ErrUnusable)
			require.Empty(t, data)
		})
	}
}

func TestMarshalSetBounds(t *testing.T) {
	t.Parallel()
	var keys []jwk.Key
	_, err := jwk.MarshalSet(keys)
	require.ErrorIs(t, err, jwk.ErrEmpty)

	for i := range jwk.MaxKeys {
		keys = append(keys, jwk.Key{KeyID: fmt.Sprint(i), Algorithm: "ES256", Public: ecPub()})
	}
	data, err := jwk.MarshalSet(keys)
	require.NoError(t, err)
	got, _, err := jwk.ParseSet(data)
	require.NoError(t, err)
	require.Len(t, got, jwk.MaxKeys)
	for i := range keys {
		require.True(t, equal(keys[i], got[i]), "the order is kept")
	}

	_, err = jwk.MarshalSet(append(keys, jwk.Key{KeyID: "one more", Algorithm: "ES256", Public: ecPub()}))
	require.ErrorIs(t, err, jwk.ErrTooManyKeys)

	_, err = jwk.MarshalSet([]jwk.Key{
		{KeyID: "same", Algorithm: "ES256", Public: ecPub()},
		{KeyID: "same", Algorithm: "EdDSA", Public: edPub()},
	})
	require.ErrorIs(t, err, jwk.ErrDuplicateKeyID)
}

func TestThumbprint(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, jwk, want string
	}{
		{
			"RFC 8037 appendix A.3",
			`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"k"}`,
			"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			k, err := jwk.Parse([]byte(tc.jwk))
			require.NoError(t, err)
			got, err := jwk.Thumbprint(k.Public)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	for name, k := range goodKeys(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := jwk.Thumbprint(k.Public)
			require.NoError(t, err)
			require.Equal(t, ownThumbprint(t, k), got)
		})
	}
	for _, tc := range []struct {
		name string
		pub  crypto.PublicKey
	}{
		{"nil", nil},
		{"bytes", []byte("0123456789abcdef0123456789abcdef")},
		{"private ECDSA", ecKey()},
		{"private Ed25519", edKey()},
		{"private RSA", rsaKey()},
		{"low order", make(ed25519.PublicKey, 32)},
		{"nil RSA", (*rsa.PublicKey)(nil)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := jwk.Thumbprint(tc.pub)
			require.ErrorIs(t, err, jwk.ErrUnusable)
		})
	}
}
