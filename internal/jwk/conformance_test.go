package jwk_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
)

// vectors reads one file of published test vectors into v. Their folder is
// named by SESSIONTOKEN_VECTORS: unset, the test is skipped; set and not
// readable, it fails.
func vectors(t *testing.T, v any, path ...string) {
	t.Helper()
	dir := os.Getenv("SESSIONTOKEN_VECTORS")
	if dir == "" {
		t.Skip("SESSIONTOKEN_VECTORS is not set: name a folder that holds testvectors_v1 of " +
			"github.com/C2SP/wycheproof as wycheproof/, ed25519 of github.com/C2SP/CCTV as cctv-ed25519/, " +
			"github.com/ietf-jose/cookbook as ietf-jose-cookbook/, and own/rfc-examples.json")
	}
	data, err := os.ReadFile(filepath.Join(append([]string{dir}, path...)...))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

// TestWycheproofSets: a key set that the file calls invalid is refused as a
// set. The exception is tcId 7, a modulus with the structure that the ROCA
// attack uses: it is not tested for, since it needs a fingerprint of its own
// and no key has been made that way since 2017. Valid sets of symmetric keys
// are refused as well, because no symmetric algorithm is offered.
func TestWycheproofSets(t *testing.T) {
	t.Parallel()
	const roca, rs256 = 7, 5
	var file struct {
		TestGroups []struct {
			Public  jsontext.Value `json:"public"`
			Private jsontext.Value `json:"private"` // the set to verify with where there is no public one
			Tests   []struct {
				TcID   int    `json:"tcId"`
				Result string `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	vectors(t, &file, "wycheproof", "json_web_key_test.json")

	symmetric := []int{1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 25, 26}
	var invalid, refusedInvalid, valid, refusedValid int
	for _, g := range file.TestGroups {
		data := g.Public
		if data == nil {
			data = g.Private
		}
		for _, tc := range g.Tests {
			keys, _, err := jwk.ParseSet(data)
			if tc.Result == "invalid" {
				invalid++
			} else {
				valid++
			}
			switch {
			case tc.TcID == rs256:
				require.NoError(t, err, "tcId %d", tc.TcID)
				require.Len(t, keys, 1)
				require.Equal(t, "RS256", keys[0].Algorithm)
				require.Equal(t, "kid-rsa-sign", keys[0].KeyID)
				continue
			case tc.TcID == roca:
				require.NoError(t, err, "tcId %d", tc.TcID)
				continue
			case slices.Contains(symmetric, tc.TcID):
				require.ErrorIs(t, err, jwk.ErrPrivate, "tcId %d", tc.TcID)
			default:
				require.ErrorIs(t, err, jwk.ErrEmpty, "tcId %d", tc.TcID)
			}
			if tc.Result == "invalid" {
				refusedInvalid++
			} else {
				refusedValid++
			}
		}
	}
	require.Equal(t, 21, invalid)
	require.Equal(t, 20, refusedInvalid)
	require.Equal(t, 5, valid)
	require.Equal(t, 4, refusedValid)
	t.Logf("invalid: %d of %d refused (the other is ROCA); valid: %d of %d refused (symmetric)",
		refusedInvalid, invalid, refusedValid, valid)
}

// TestCCTVEd25519Keys: keys of low order and keys in a spelling that is not
// canonical are refused, every other one is accepted.
func TestCCTVEd25519Keys(t *testing.T) {
	t.Parallel()
	var cases []struct {
		Number int      `json:"number"`
		Key    string   `json:"key"`
		Flags  []string `json:"flags"`
	}
	vectors(t, &cases, "cctv-ed25519", "ed25519vectors.json")

	var low, nonCanonical, refused, accepted int
	for _, tc := range cases {
		key, err := hex.DecodeString(tc.Key)
		require.NoError(t, err)
		err = jwk.CheckPublic("EdDSA", ed25519.PublicKey(key))
		isLow := slices.Contains(tc.Flags, "low_order_A")
		isNonCanonical := slices.Contains(tc.Flags, "non_canonical_A")
		if isLow {
			low++
		}
		if isNonCanonical {
			nonCanonical++
		}
		if isLow || isNonCanonical {
			refused++
			require.ErrorIs(t, err, jwk.ErrUnusable, "case %d", tc.Number)
			continue
		}
		accepted++
		require.NoError(t, err, "case %d", tc.Number)
	}
	require.Equal(t, 914, len(cases))
	require.Equal(t, 526, low)
	require.Equal(t, 226, nonCanonical)
	t.Logf("refused %d: %d of low order, %d not canonical; accepted %d", refused, low, nonCanonical, accepted)
	require.Positive(t, accepted)
}

// TestRFCThumbprints: the thumbprints printed in RFC 7638 and RFC 8037.
func TestRFCThumbprints(t *testing.T) {
	t.Parallel()
	var file struct {
		Thumbprints []struct {
			Source string  `json:"source"`
			JWK    members `json:"jwk"`
			SHA256 string  `json:"sha256"`
		} `json:"thumbprints"`
	}
	vectors(t, &file, "own", "rfc-examples.json")
	require.Len(t, file.Thumbprints, 2)
	for _, tc := range file.Thumbprints {
		k, err := jwk.Parse(tc.JWK.with("kid", "k").json())
		require.NoError(t, err, tc.Source)
		got, err := jwk.Thumbprint(k.Public)
		require.NoError(t, err, tc.Source)
		require.Equal(t, tc.SHA256, got, tc.Source)
	}
	t.Logf("%d thumbprints match", len(file.Thumbprints))
}

// TestCookbookKeys: the keys of RFC 7520 section 3. The RSA key, which has no alg
// and the use "sig", is one for RS256, or for the algorithm that it is given.
func TestCookbookKeys(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, file string
		err        error
	}{
		{"P-521", "3_1.ec_public_key.json", jwk.ErrUnusable},
		{"RSA without alg", "3_3.rsa_public_key.json", nil},
		{"symmetric, MAC", "3_5.symmetric_key_mac_computation.json", jwk.ErrPrivate},
		{"symmetric, encryption", "3_6.symmetric_key_encryption.json", jwk.ErrPrivate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var m members
			vectors(t, &m, "ietf-jose-cookbook", "jwk", tc.file)
			k, err := jwk.Parse(m.json())
			require.ErrorIs(t, err, tc.err)
			if m["kty"] == "RSA" {
				require.Equal(t, "RS256", k.Algorithm)
				for _, alg := range []string{"RS256", "PS256"} {
					k, err := jwk.Parse(m.with("alg", alg).json())
					require.NoError(t, err)
					require.Equal(t, alg, k.Algorithm)
				}
			}
		})
	}
}
