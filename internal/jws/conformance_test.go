package jws_test

import (
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// vectors reads one file of published test vectors into v. Their folder is
// named by SESSIONTOKEN_VECTORS: unset, the test is skipped; set and not
// readable, it fails.
func vectors(t *testing.T, v any, path ...string) {
	t.Helper()
	dir := os.Getenv("SESSIONTOKEN_VECTORS")
	if dir == "" {
		t.Skip("SESSIONTOKEN_VECTORS is not set: name a folder that holds testvectors_v1 of " +
			"github.com/C2SP/wycheproof as wycheproof/, github.com/ietf-jose/cookbook as ietf-jose-cookbook/, " +
			"and own/rfc-examples.json")
	}
	data, err := os.ReadFile(filepath.Join(append([]string{dir}, path...)...))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, v))
}

// withMembers returns a JWK with the given members added where it has none.
func withMembers(t *testing.T, key jsontext.Value, add map[string]string) []byte {
	t.Helper()
	var members map[string]jsontext.Value
	require.NoError(t, json.Unmarshal(key, &members))
	for name, value := range add {
		if _, ok := members[name]; !ok {
			quoted, err := jsontext.AppendQuote(nil, value)
			require.NoError(t, err)
			members[name] = quoted
		}
	}
	out, err := json.Marshal(members)
	require.NoError(t, err)
	return out
}

// accepts is a strict verifier of any header on the byte layer: one alg, equal
// to the key's; the key's kid, if the header names one; no crit and no b64.
func accepts(token string, key jwk.Key) bool {
	h, p, s, err := jws.Split(token)
	if err != nil {
		return false
	}
	header, err := jws.Decode(h)
	if err != nil {
		return false
	}
	if _, err := jws.Decode(p); err != nil {
		return false
	}
	sig, err := jws.Decode(s)
	if err != nil {
		return false
	}
	var fields struct {
		Alg  string         `json:"alg"`
		Kid  *string        `json:"kid"`
		Crit jsontext.Value `json:"crit"`
		B64  jsontext.Value `json:"b64"`
	}
	if json.Unmarshal(header, &fields) != nil || fields.Alg != key.Algorithm || fields.Crit != nil || fields.B64 != nil ||
		fields.Kid != nil && *fields.Kid != key.KeyID {
		return false
	}
	return jws.Verify(key.Algorithm, key.Public, h+"."+p, sig) == nil
}

// TestConformanceWycheproofJWS: every group whose key is one of ES256, PS256 or
// RS256 without a difference, but for two labels that no strict verifier can
// meet (a PS256 key under a PS384 header, labelled valid); every other group
// refused whole.
func TestConformanceWycheproofJWS(t *testing.T) {
	var file struct {
		TestGroups []struct {
			Public  jsontext.Value `json:"public"`
			Private jsontext.Value `json:"private"`
			Tests   []struct {
				TcID   int            `json:"tcId"`
				JWS    jsontext.Value `json:"jws"` // a string, or an object in one case
				Result string         `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	vectors(t, &file, "wycheproof", "json_web_signature_test.json")
	unmeetable := []int{346, 350}

	offered, accepted, refused, other := map[string]int{}, 0, 0, 0
	for _, g := range file.TestGroups {
		raw := g.Public
		if raw == nil {
			raw = g.Private
		}
		key, keyErr := jwk.Parse(raw)
		for _, c := range g.Tests {
			var token string
			if c.JWS.Kind() == '"' {
				require.NoError(t, json.Unmarshal(c.JWS, &token))
			} else {
				token = string(c.JWS)
			}
			if keyErr != nil {
				other++
				continue // there is no key to accept anything with
			}
			offered[key.Algorithm]++
			want := c.Result == "valid" && !slices.Contains(unmeetable, c.TcID)
			require.Equal(t, want, accepts(token, key), "tcId %d", c.TcID)
			if want {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("offered %v: %d accepted, %d refused; groups not offered: %d refused", offered, accepted, refused, other)
	require.Equal(t, map[string]int{"ES256": 39, "PS256": 50, "RS256": 233}, offered)
	require.Equal(t, 401, accepted+refused+other)
}

// TestConformanceWycheproofPrimitives: signatures over bytes.
func TestConformanceWycheproofPrimitives(t *testing.T) {
	for _, c := range []struct {
		file, alg  string
		wrongSalts int
	}{
		{"ed25519_test.json", "EdDSA", 0},
		{"ecdsa_secp256r1_sha256_p1363_test.json", "ES256", 0},
		{"rsa_signature_2048_sha256_test.json", "RS256", 0},
		{"rsa_signature_3072_sha256_test.json", "RS256", 0},
		{"rsa_signature_4096_sha256_test.json", "RS256", 0},
		{"rsa_pss_2048_sha256_mgf1_32_test.json", "PS256", 6},
		{"rsa_pss_3072_sha256_mgf1_32_test.json", "PS256", 6},
		{"rsa_pss_4096_sha256_mgf1_32_test.json", "PS256", 6},
	} {
		t.Run(c.file, func(t *testing.T) {
			var file struct {
				NumberOfTests int `json:"numberOfTests"`
				TestGroups    []struct {
					PublicKeyJWK jsontext.Value `json:"publicKeyJwk"`
					KeyJWK       jsontext.Value `json:"keyJwk"`
					PublicKeyDER string         `json:"publicKeyDer"`
					Tests        []struct {
						TcID    int      `json:"tcId"`
						Comment string   `json:"comment"`
						Flags   []string `json:"flags"`
						Msg     string   `json:"msg"`
						Sig     string   `json:"sig"`
						Result  string   `json:"result"`
					} `json:"tests"`
				} `json:"testGroups"`
			}
			vectors(t, &file, "wycheproof", c.file)
			counts, salts := map[string]int{}, 0
			for _, g := range file.TestGroups {
				raw := g.PublicKeyJWK
				if raw == nil {
					raw = g.KeyJWK
				}
				var pub crypto.PublicKey
				if raw != nil {
					key, err := jwk.Parse(withMembers(t, raw, map[string]string{"kid": "k", "alg": c.alg}))
					require.NoError(t, err)
					pub = key.Public
				} else {
					der, err := hex.DecodeString(g.PublicKeyDER)
					require.NoError(t, err)
					pub, err = x509.ParsePKIXPublicKey(der)
					require.NoError(t, err)
					require.NoError(t, jwk.CheckPublic(c.alg, pub))
				}
				for _, v := range g.Tests {
					msg, err := hex.DecodeString(v.Msg)
					require.NoError(t, err)
					sig, err := hex.DecodeString(v.Sig)
					require.NoError(t, err)
					// "acceptable": a DigestInfo without its NULL. We are strict.
					good := jws.Verify(c.alg, pub, string(msg), sig) == nil
					require.Equal(t, v.Result == "valid", good, "tcId %d", v.TcID)
					counts[v.Result]++
					if strings.HasPrefix(v.Comment, "s_len changed to") {
						require.False(t, good)
						salts++
					}
				}
			}
			t.Logf("%v, wrong salt lengths refused: %d", counts, salts)
			require.Equal(t, c.wrongSalts, salts)
			require.Equal(t, file.NumberOfTests, counts["valid"]+counts["invalid"]+counts["acceptable"])
			require.NotZero(t, counts["valid"])
			require.NotZero(t, counts["invalid"])
		})
	}
}

// TestConformanceRFCExamples: the tokens that RFC 7515, 7520, 7797 and 8037
// print, each also with its last payload byte changed.
func TestConformanceRFCExamples(t *testing.T) {
	var own struct {
		JWS []struct {
			Source string         `json:"source"`
			Alg    string         `json:"alg"`
			Key    jsontext.Value `json:"key"`
			JWS    string         `json:"jws"`
		} `json:"jws"`
	}
	vectors(t, &own, "own", "rfc-examples.json")
	verified := map[string]bool{}
	try := func(source, alg, token string, key jsontext.Value) {
		k, err := jwk.Parse(withMembers(t, key, map[string]string{"kid": "k", "alg": alg}))
		if err != nil {
			return // an algorithm that is not offered
		}
		require.True(t, accepts(token, k), source)
		verified[source] = true
		h, p, s, err := jws.Split(token)
		require.NoError(t, err)
		last := byte('A')
		if p[0] == last {
			last = 'B'
		}
		require.False(t, accepts(h+"."+string(last)+p[1:]+"."+s, k), source)
	}
	for _, v := range own.JWS {
		if v.Key.Kind() == '{' {
			try(v.Source, v.Alg, v.JWS, v.Key)
		}
	}
	for _, path := range [][]string{
		{"jws", "4_1.rsa_v15_signature.json"},
		{"jws", "4_2.rsa-pss_signature.json"}, // PS384: not offered
		{"jws", "4_3.ecdsa_signature.json"},   // ES512: not offered
		{"curve25519", "jws.json"},
	} {
		var v struct {
			Input struct {
				Alg string         `json:"alg"`
				Key jsontext.Value `json:"key"`
			} `json:"input"`
			Output struct {
				Compact string `json:"compact"`
			} `json:"output"`
		}
		vectors(t, &v, append([]string{"ietf-jose-cookbook"}, path...)...)
		try(strings.Join(path, "/"), v.Input.Alg, v.Output.Compact, v.Input.Key)
	}
	require.Equal(t, map[string]bool{
		"RFC 7515 A.2": true, "RFC 7515 A.3": true, "RFC 8037 A.4": true,
		"jws/4_1.rsa_v15_signature.json": true, "curve25519/jws.json": true,
	}, verified)
}
