package jwk_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
)

// TestParseElement: each row is one element. Alone, Parse gives its error;
// in a set beside a good key, an unusable element is skipped and any other
// refuses the set.
func TestParseElement(t *testing.T) {
	t.Parallel()
	ec, ed, rs := ecMembers("k"), edMembers("k"), rsaMembers("k")
	x, y, edX, n := ec["x"].(string), ec["y"].(string), ed["x"].(string), rs["n"].(string)
	zeroPadded := func(s string) string {
		return b64(append([]byte{0}, must(base64.RawURLEncoding.DecodeString(s))...))
	}
	// A 32-byte value has two spare bits in its last character.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	spareBits := func(s string) string {
		return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])+1])
	}
	_, ecY := coordinates()
	otherY := b64(new(big.Int).Xor(ecY, big.NewInt(1)).FillBytes(make([]byte, 32)))

	for _, tc := range []struct {
		name string
		m    members
		alg  string // of the key, when there is no error
		err  error
	}{
		{"EC", ec, "ES256", nil},
		{"EC without alg", ec.without("alg"), "ES256", nil},
		{"EC without use", ec.without("use"), "ES256", nil},
		{"EC with other members", ec.with("n", 1).with("x5c", []int{1}).with("x5u", "https://example.com").with("iat", 5).with("D", "x").with("KEYS", members{"k": 1}), "ES256", nil},
		{"OKP", ed, "EdDSA", nil},
		{"OKP without alg", ed.without("alg"), "EdDSA", nil},
		{"OKP with the RFC 9864 name", ed.with("alg", "Ed25519"), "EdDSA", nil},
		{"RSA PS256", rs, "PS256", nil},
		{"RSA RS256", rs.with("alg", "RS256"), "RS256", nil},
		{"RSA without alg, use sig", rs.without("alg"), "RS256", nil},
		{"key_ops verify", ec.with("key_ops", []string{"verify"}), "ES256", nil},
		{"key_ops with verify", ec.with("key_ops", []string{"wrapKey", "verify"}), "ES256", nil},
		{"kid of 128 bytes", ec.with("kid", strings.Repeat("k", 128)), "ES256", nil},

		{"kty unknown", ec.with("kty", "AKP"), "", jwk.ErrUnusable},
		{"kty absent", ec.without("kty"), "", jwk.ErrUnusable},
		{"kty null", ec.with("kty", nil), "", jwk.ErrUnusable},
		{"kty lower case", ec.with("kty", "ec"), "", jwk.ErrUnusable},
		{"kty array", ec.with("kty", []string{"EC"}), "", jwk.ErrUnusable},
		{"kty of another type", ec.with("kty", "RSA"), "", jwk.ErrUnusable},
		{"crv unknown", ec.with("crv", "P-384"), "", jwk.ErrUnusable},
		{"crv secp256k1", ec.with("crv", "secp256k1"), "", jwk.ErrUnusable},
		{"crv absent", ec.without("crv"), "", jwk.ErrUnusable},
		{"crv number", ec.with("crv", 256), "", jwk.ErrUnusable},
		{"crv X25519", ed.with("crv", "X25519").without("alg"), "", jwk.ErrUnusable},
		{"crv Ed448", ed.with("crv", "Ed448").without("alg"), "", jwk.ErrUnusable},
		{"use enc", ec.with("use", "enc"), "", jwk.ErrUnusable},
		{"use empty", ec.with("use", ""), "", jwk.ErrUnusable},
		{"use null", ec.with("use", nil), "", jwk.ErrUnusable},
		{"use array", ec.with("use", []string{"sig"}), "", jwk.ErrUnusable},
		{"key_ops empty", ec.with("key_ops", []string{}), "", jwk.ErrUnusable},
		{"key_ops sign", ec.with("key_ops", []string{"sign"}), "", jwk.ErrUnusable},
		{"key_ops string", ec.with("key_ops", "verify"), "", jwk.ErrUnusable},
		{"key_ops null", ec.with("key_ops", nil), "", jwk.ErrUnusable},
		{"key_ops with a number", ec.with("key_ops", []any{"verify", 1}), "", jwk.ErrUnusable},
		{"alg ES384", ec.with("alg", "ES384"), "", jwk.ErrUnusable},
		{"alg ES256K", ec.with("alg", "ES256K"), "", jwk.ErrUnusable},
		{"alg of another key type", ec.with("alg", "RS256"), "", jwk.ErrUnusable},
		{"alg none", ec.with("alg", "none"), "", jwk.ErrUnusable},
		{"alg empty", ec.with("alg", ""), "", jwk.ErrUnusable},
		{"alg null", ec.with("alg", nil), "", jwk.ErrUnusable},
		{"alg number", ec.with("alg", 1), "", jwk.ErrUnusable},
		{"OKP alg ES256", ed.with("alg", "ES256"), "", jwk.ErrUnusable},
		{"OKP alg Ed448", ed.with("alg", "Ed448"), "", jwk.ErrUnusable},
		{"RSA without alg and use", rs.without("alg").without("use"), "", jwk.ErrUnusable},
		{"RSA without alg, key_ops verify", rs.without("alg").without("use").with("key_ops", []string{"verify"}), "", jwk.ErrUnusable},
		{"RSA without alg, use enc", rs.without("alg").with("use", "enc"), "", jwk.ErrUnusable},
		{"RSA alg RS384", rs.with("alg", "RS384"), "", jwk.ErrUnusable},
		{"RSA alg RSA-OAEP", rs.with("alg", "RSA-OAEP"), "", jwk.ErrUnusable},
		{"kid absent", ec.without("kid"), "", jwk.ErrUnusable},
		{"kid null", ec.with("kid", nil), "", jwk.ErrUnusable},
		{"kid empty", ec.with("kid", ""), "", jwk.ErrUnusable},
		{"kid number", ec.with("kid", 7), "", jwk.ErrUnusable},
		{"kid of 129 bytes", ec.with("kid", strings.Repeat("k", 129)), "", jwk.ErrUnusable},

		{"x absent", ec.without("x"), "", jwk.ErrUnusable},
		{"y absent", ec.without("y"), "", jwk.ErrUnusable},
		{"x empty", ec.with("x", ""), "", jwk.ErrUnusable},
		{"x number", ec.with("x", 5), "", jwk.ErrUnusable},
		{"x too long", ec.with("x", zeroPadded(x)), "", jwk.ErrUnusable},
		{"x too short", ec.with("x", x[:42]), "", jwk.ErrUnusable},
		{"x padded", ec.with("x", x+"="), "", jwk.ErrUnusable},
		{"x with spare bits", ec.with("x", spareBits(x)), "", jwk.ErrUnusable},
		{"x with a line feed", ec.with("x", x[:20]+"\n"+x[20:]), "", jwk.ErrUnusable},
		{"x with CR LF at the end", ec.with("x", x+"\r\n"), "", jwk.ErrUnusable},
		{"x with a line feed in its length", ec.with("x", x[:42]+"\n"), "", jwk.ErrUnusable},
		{"x with a space", ec.with("x", " "+x), "", jwk.ErrUnusable},
		{"x of the standard alphabet", ec.with("x", strings.Repeat("/", 42)+"8"), "", jwk.ErrUnusable},
		{"x very long", ec.with("x", strings.Repeat("A", 1<<16)), "", jwk.ErrUnusable},
		{"not on the curve", ec.with("y", otherY), "", jwk.ErrUnusable},
		{"coordinates exchanged", ec.with("x", y).with("y", x), "", jwk.ErrUnusable},
		{"point at infinity", ec.with("x", b64(make([]byte, 32))).with("y", b64(make([]byte, 32))), "", jwk.ErrUnusable},
		{"Ed25519 too short", ed.with("x", edX[:42]), "", jwk.ErrUnusable},
		{"Ed25519 too long", ed.with("x", zeroPadded(edX)), "", jwk.ErrUnusable},
		{"Ed25519 padded", ed.with("x", edX+"="), "", jwk.ErrUnusable},
		{"Ed25519 with spare bits", ed.with("x", spareBits(edX)), "", jwk.ErrUnusable},
		{"Ed25519 low order", ed.with("x", b64(make([]byte, 32))), "", jwk.ErrUnusable},
		{"Ed25519 not canonical", ed.with("x", b64(bytes.Repeat([]byte{0xff}, 32))), "", jwk.ErrUnusable},

		{"n absent", rs.without("n"), "", jwk.ErrUnusable},
		{"e absent", rs.without("e"), "", jwk.ErrUnusable},
		{"e number", rs.with("e", 65537), "", jwk.ErrUnusable},
		{"n with a leading zero", rs.with("n", zeroPadded(n)), "", jwk.ErrUnusable},
		{"n padded", rs.with("n", n+"=="), "", jwk.ErrUnusable},
		{"n with a line feed", rs.with("n", n[:9]+"\n"+n[9:]), "", jwk.ErrUnusable},
		{"n of 2047 bits", rs.with("n", b64(modulus(2047).Bytes())), "", jwk.ErrUnusable},
		{"n of 1024 bits", rs.with("n", b64(modulus(1024).Bytes())), "", jwk.ErrUnusable},
		{"n of 8192 bits", rs.with("n", b64(modulus(8192).Bytes())), "PS256", nil},
		{"n of 8193 bits", rs.with("n", b64(modulus(8193).Bytes())), "", jwk.ErrUnusable},
		{"n of 65536 bits", rs.with("n", b64(modulus(65536).Bytes())), "", jwk.ErrUnusable},
		{"n even", rs.with("n", b64(new(big.Int).Lsh(big.NewInt(1), 2047).Bytes())), "", jwk.ErrUnusable},
		{"e 3", rs.with("e", "Aw"), "PS256", nil},
		{"e with a leading zero", rs.with("e", b64([]byte{0, 1, 0, 1})), "", jwk.ErrUnusable},
		{"e empty", rs.with("e", ""), "", jwk.ErrUnusable},
		{"e 0", rs.with("e", "AA"), "", jwk.ErrUnusable},
		{"e 1", rs.with("e", "AQ"), "", jwk.ErrUnusable},
		{"e even", rs.with("e", b64([]byte{1, 0, 0})), "", jwk.ErrUnusable},
		{"e 2^31-1", rs.with("e", b64([]byte{0x7f, 0xff, 0xff, 0xff})), "PS256", nil},
		{"e 2^31+1", rs.with("e", b64([]byte{0x80, 0, 0, 1})), "", jwk.ErrUnusable},
		{"e 2^32-1", rs.with("e", b64([]byte{0xff, 0xff, 0xff, 0xff})), "", jwk.ErrUnusable},
		{"e of five octets", rs.with("e", b64([]byte{1, 0, 0, 0, 1})), "", jwk.ErrUnusable},
		{"e with spare bits", rs.with("e", "Ax"), "", jwk.ErrUnusable},

		{"oct", octMembers("k").with("k", "AAAA"), "", jwk.ErrPrivate},
		{"oct without value", octMembers("k"), "", jwk.ErrPrivate},
		{"oct without anything", members{"kty": "oct"}, "", jwk.ErrPrivate},
		{"k in an EC key", ec.with("k", "AAAA"), "", jwk.ErrPrivate},
		{"d in an EC key", ec.with("d", "AAAA"), "", jwk.ErrPrivate},
		{"d null", ec.with("d", nil), "", jwk.ErrPrivate},
		{"d empty", ec.with("d", ""), "", jwk.ErrPrivate},
		{"d number", ec.with("d", 0), "", jwk.ErrPrivate},
		{"d in an Ed25519 key", ed.with("d", "AAAA"), "", jwk.ErrPrivate},
		{"d in an unknown key", members{"kty": "AKP", "d": "AAAA"}, "", jwk.ErrPrivate},
		{"d without kty", members{"d": "AAAA"}, "", jwk.ErrPrivate},
		{"d in an RSA key", rs.with("d", "AAAA"), "", jwk.ErrPrivate},
		{"p", rs.with("p", "AAAA"), "", jwk.ErrPrivate},
		{"q", rs.with("q", "AAAA"), "", jwk.ErrPrivate},
		{"dp", rs.with("dp", "AAAA"), "", jwk.ErrPrivate},
		{"dq", rs.with("dq", "AAAA"), "", jwk.ErrPrivate},
		{"qi", rs.with("qi", "AAAA"), "", jwk.ErrPrivate},
		{"oth", rs.with("oth", []members{}), "", jwk.ErrPrivate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			k, err := jwk.Parse(tc.m.json())
			if tc.err == nil {
				require.NoError(t, err)
				require.Equal(t, tc.alg, k.Algorithm)
				require.Equal(t, tc.m["kid"], k.KeyID)
				require.NoError(t, jwk.CheckPublic(k.Algorithm, k.Public))
			} else {
				require.ErrorIs(t, err, tc.err)
				require.Zero(t, k)
			}

			keys, skipped, err := jwk.ParseSet(set(tc.m, edMembers("beside")))
			switch tc.err {
			case nil:
				require.NoError(t, err)
				require.Len(t, keys, 2)
				require.True(t, equal(k, keys[0]))
				require.Empty(t, skipped)
			case jwk.ErrUnusable:
				require.NoError(t, err)
				require.Len(t, keys, 1)
				require.Equal(t, "beside", keys[0].KeyID)
				require.Len(t, skipped, 1)
				_, _, err = jwk.ParseSet(set(tc.m))
				require.ErrorIs(t, err, jwk.ErrEmpty)
				require.ErrorContains(t, err, skipped[0])
			default:
				require.ErrorIs(t, err, tc.err)
				require.Nil(t, keys)
			}
		})
	}
}

// nested returns a value that adds depth levels where it is put.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestParseSetDocument(t *testing.T) {
	t.Parallel()
	ec, ed := string(ecMembers("ec").json()), string(edMembers("ed").json())
	inKey := func(extra string) string { return `{"keys":[` + strings.TrimSuffix(ec, "}") + "," + extra + `}]}` }

	for _, tc := range []struct {
		name string
		doc  string
		keys int
		err  error
	}{
		{"one key", `{"keys":[` + ec + `]}`, 1, nil},
		{"two keys", `{"keys":[` + ec + `,` + ed + `]}`, 2, nil},
		{"space around", " \r\n{\"keys\" :\t[ " + ec + " ]}\n", 1, nil},
		{"byte order mark", "\ufeff" + `{"keys":[` + ec + `]}`, 1, nil},
		{"other members", `{"next":null,"keys":[` + ec + `],"Keys":[],"k":"AAAA"}`, 1, nil},
		{"escaped name of a member", `{"\u006beys":[` + ec + `]}`, 1, nil},
		{"16 levels in a key", inKey(`"a":` + nested(13)), 1, nil},
		{"17 levels in a key", inKey(`"a":` + nested(14)), 0, jwk.ErrMalformed},
		{"16 levels beside the keys", `{"keys":[` + ec + `],"a":` + nested(15) + `}`, 1, nil},
		{"17 levels beside the keys", `{"keys":[` + ec + `],"a":` + nested(16) + `}`, 0, jwk.ErrMalformed},
		{"17 levels of objects", `{"keys":[` + ec + `],"a":` + strings.Repeat(`{"a":`, 16) + `1` + strings.Repeat(`}`, 16) + `}`, 0, jwk.ErrMalformed},
		{"a million levels", strings.Repeat("[", 1_000_000), 0, jwk.ErrMalformed},
		{"brackets in a string", inKey(`"a":"` + strings.Repeat("[{", 40) + `\"` + strings.Repeat("[", 40) + `\\"`), 1, nil},
		{"brackets side by side", inKey(`"a":[` + strings.Repeat("[],", 40) + `[]]`), 1, nil},

		{"nothing", ``, 0, jwk.ErrMalformed},
		{"space", ` `, 0, jwk.ErrMalformed},
		{"null", `null`, 0, jwk.ErrMalformed},
		{"array", `[` + ec + `]`, 0, jwk.ErrMalformed},
		{"string", `"keys"`, 0, jwk.ErrMalformed},
		{"one key without a set", ec, 0, jwk.ErrMalformed},
		{"empty object", `{}`, 0, jwk.ErrMalformed},
		{"keys in another case", `{"Keys":[` + ec + `]}`, 0, jwk.ErrMalformed},
		{"keys with a Kelvin sign", "{\"\u212aeys\":[" + ec + `]}`, 0, jwk.ErrMalformed},
		{"keys null", `{"keys":null}`, 0, jwk.ErrMalformed},
		{"keys an object", `{"keys":{"a":` + ec + `}}`, 0, jwk.ErrMalformed},
		{"keys a string", `{"keys":"[]"}`, 0, jwk.ErrMalformed},
		{"element null", `{"keys":[` + ec + `,null]}`, 0, jwk.ErrMalformed},
		{"element a number", `{"keys":[` + ec + `,1]}`, 0, jwk.ErrMalformed},
		{"element an array", `{"keys":[[` + ec + `]]}`, 0, jwk.ErrMalformed},
		{"keys twice", `{"keys":[` + ec + `],"keys":[` + ed + `]}`, 0, jwk.ErrMalformed},
		{"keys twice, once escaped", `{"keys":[` + ec + `],"\u006beys":[]}`, 0, jwk.ErrMalformed},
		{"other member twice", `{"a":1,"a":1,"keys":[` + ec + `]}`, 0, jwk.ErrMalformed},
		{"kty twice", inKey(`"kty":"EC"`), 0, jwk.ErrMalformed},
		{"unknown member twice", inKey(`"z":1,"z":1`), 0, jwk.ErrMalformed},
		{"member twice, deep down", inKey(`"z":{"z":[{"a":1,"a":2}]}`), 0, jwk.ErrMalformed},
		{"invalid UTF-8 in a value", inKey("\"z\":\"\xff\""), 0, jwk.ErrMalformed},
		{"invalid UTF-8 in a name", inKey("\"\xc3\":1"), 0, jwk.ErrMalformed},
		{"lone surrogate", inKey(`"z":"\ud800"`), 0, jwk.ErrMalformed},
		{"two byte order marks", "\ufeff\ufeff" + `{"keys":[` + ec + `]}`, 0, jwk.ErrMalformed},
		{"byte order mark at the end", `{"keys":[` + ec + `]}` + "\ufeff", 0, jwk.ErrMalformed},
		{"second document", `{"keys":[` + ec + `]}{}`, 0, jwk.ErrMalformed},
		{"trailing bracket", `{"keys":[` + ec + `]}]`, 0, jwk.ErrMalformed},
		{"trailing NUL", `{"keys":[` + ec + "]}\x00", 0, jwk.ErrMalformed},
		{"cut off", `{"keys":[` + ec + `]`, 0, jwk.ErrMalformed},
		{"trailing comma", `{"keys":[` + ec + `,]}`, 0, jwk.ErrMalformed},
		{"comment", `{"keys":[` + ec + `]/**/}`, 0, jwk.ErrMalformed},
		{"single quotes", `{'keys':[` + ec + `]}`, 0, jwk.ErrMalformed},

		{"no keys", `{"keys":[]}`, 0, jwk.ErrEmpty},
		{"no usable key", `{"keys":[{},{"kty":"AKP","kid":"a"}]}`, 0, jwk.ErrEmpty},
		{"unusable beside usable", `{"keys":[{},` + ec + `,{"kty":"AKP"}]}`, 1, nil},

		{"same kid, private as well", string(set(ecMembers("a"), octMembers("a"))), 0, jwk.ErrPrivate},
		{"kid in another case", string(set(ecMembers("a"), edMembers("A"))), 2, nil},
		{"same number for kid", `{"keys":[` + ec + `,{"kid":1},{"kid":1}]}`, 1, nil},
		{"kty oct, escaped", `{"keys":[` + ec + `,{"kty":"o\u0063t"}]}`, 0, jwk.ErrPrivate},
		{"private member, escaped", inKey(`"\u0064":""`), 0, jwk.ErrPrivate},
		{"private member in another member", inKey(`"z":{"d":""}`), 1, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			keys, _, err := jwk.ParseSet([]byte(tc.doc))
			if tc.err != nil {
				require.ErrorIs(t, err, tc.err)
				require.Nil(t, keys)
				return
			}
			require.NoError(t, err)
			require.Len(t, keys, tc.keys)
		})
	}
}

// TestParseSetSkips: a kid names one key, a key has one algorithm, and what is
// left out is told with its reason.
func TestParseSetSkips(t *testing.T) {
	t.Parallel()
	const (
		oneKid = "another usable key has the same kid"
		twoAlg = "the same key under two algorithms"
		again  = "the same key again"
		noUse  = "use or key_ops is not for verifying signatures"
		other  = "kty, crv or alg is not one of ES256, EdDSA, PS256 or RS256"
	)
	ec, ed, rs := ecMembers("a"), edMembers("a"), rsaMembers("a")
	rs2 := rs.with("n", b64(modulus(2048).Bytes()))
	long := strings.Repeat("k", 128)
	for _, tc := range []struct {
		name     string
		elements []members
		keys     string // algorithms and kids of what is left
		skipped  []string
	}{
		{"one kid, two types", []members{ec, ed}, "", []string{`key 1 (kid "a"): ` + oneKid, `key 2 (kid "a"): ` + oneKid}},
		{"one kid, two keys of one algorithm", []members{rs, rs2}, "", []string{`key 1 (kid "a"): ` + oneKid, `key 2 (kid "a"): ` + oneKid}},
		{"one kid, two keys, beside another", []members{ec, rs.with("kid", "b"), ed}, "PS256 b", []string{`key 1 (kid "a"): ` + oneKid, `key 3 (kid "a"): ` + oneKid}},
		{"one kid for sig and enc", []members{rs, rs2.with("use", "enc").with("alg", "RSA-OAEP")}, "PS256 a", []string{`key 2 (kid "a"): ` + noUse}},
		{"one kid for enc and sig, one key", []members{rs.with("use", "enc").without("alg"), rs}, "PS256 a", []string{`key 1 (kid "a"): ` + noUse}},
		{"one kid, one key, several algorithms of which one is offered", []members{rs.with("alg", "RS512"), rs.with("alg", "RS256"), rs.with("alg", "PS384")}, "RS256 a", []string{`key 1 (kid "a"): ` + other, `key 3 (kid "a"): ` + other}},
		{"one kid, one key, two algorithms", []members{rs, rs.with("alg", "RS256")}, "", []string{`key 1 (kid "a"): ` + twoAlg, `key 2 (kid "a"): ` + twoAlg}},
		{"two kids, one key, two algorithms, beside another", []members{rs, ec.with("kid", "c"), rs.with("alg", "RS256").with("kid", "b")}, "ES256 c", []string{`key 1 (kid "a"): ` + twoAlg, `key 3 (kid "b"): ` + twoAlg}},
		{"two kids, one key, one algorithm", []members{rs, rs.with("kid", "b")}, "PS256 a PS256 b", nil},
		{"two kids, one key, PS256 and without alg", []members{rs, rs.with("kid", "b").without("alg")}, "", []string{`key 1 (kid "a"): ` + twoAlg, `key 2 (kid "b"): ` + twoAlg}},
		{"one element twice", []members{ec, ec}, "ES256 a", []string{`key 2 (kid "a"): ` + again}},
		{"one element three times", []members{ec, ec.without("alg"), ec.without("use")}, "ES256 a", []string{`key 2 (kid "a"): ` + again, `key 3 (kid "a"): ` + again}},
		{"one element twice, and the same kid", []members{rs, rs, ec}, "", []string{`key 1 (kid "a"): ` + oneKid, `key 2 (kid "a"): ` + oneKid, `key 3 (kid "a"): ` + oneKid}},
		{"one element twice, and another algorithm", []members{rs, rs, rs.with("alg", "RS256").with("kid", "b")}, "", []string{`key 1 (kid "a"): ` + twoAlg, `key 2 (kid "a"): ` + twoAlg, `key 3 (kid "b"): ` + twoAlg}},
		{"the same kid of unusable keys alone", []members{{"kid": "b"}, {"kid": "b"}, ec}, "ES256 a", []string{`key 1 (kid "b"): ` + other, `key 2 (kid "b"): ` + other}},
		{"no kid", []members{ec, ed.without("kid")}, "ES256 a", []string{`key 2: no key id`}},
		{"RSA without alg and use", []members{ec, rs.without("alg").without("use").with("kid", "b")}, "ES256 a", []string{`key 2 (kid "b"): RSA without alg and without use "sig"`}},
		{"long kid", []members{ec, ed.with("kid", long).with("use", "enc")}, "ES256 a", []string{`key 2 (kid "` + long[:40] + `"): ` + noUse}},
		{"kid that is not for a terminal", []members{ec, ed.with("kid", "\x1b[2J\n\u202e").with("use", "enc")}, "ES256 a", []string{`key 2 (kid "\x1b[2J\n\u202e"): ` + noUse}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			keys, skipped, err := jwk.ParseSet(set(tc.elements...))
			if tc.keys == "" {
				require.ErrorIs(t, err, jwk.ErrEmpty)
				require.Equal(t, jwk.ErrEmpty.Error()+": "+strings.Join(tc.skipped, "; "), err.Error())
				require.Nil(t, keys)
				return
			}
			require.NoError(t, err)
			var left []string
			for _, k := range keys {
				left = append(left, k.Algorithm+" "+k.KeyID)
			}
			require.Equal(t, tc.keys, strings.Join(left, " "))
			require.Equal(t, tc.skipped, skipped)
		})
	}
}

// TestParseSetErrorIsBounded: the error of a set that cannot be used has the
// first three reasons and the number of the others.
func TestParseSetErrorIsBounded(t *testing.T) {
	t.Parallel()
	var elements []members
	for range jwk.MaxKeys {
		elements = append(elements, members{"kid": strings.Repeat("\U000e0001", 10_000)})
	}
	_, _, err := jwk.ParseSet(set(elements...))
	require.ErrorIs(t, err, jwk.ErrEmpty)
	require.ErrorContains(t, err, "key 3 ")
	require.NotContains(t, err.Error(), "key 4 ")
	require.ErrorContains(t, err, "; and 97 more")
	require.Less(t, len(err.Error()), 3000)
}

// TestParseSetCountsWhileItReads: a document of very many keys is refused without
// memory for each of them.
func TestParseSetCountsWhileItReads(t *testing.T) { // not parallel: it counts what all allocate
	data := []byte(`{"keys":[` + strings.Repeat("{},", 340_000) + `{}]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := jwk.ParseSet(data)
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, jwk.ErrTooManyKeys)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(len(data)/2))
}

func TestParseDocument(t *testing.T) {
	t.Parallel()
	ec := string(ecMembers("ec").json())
	for _, tc := range []struct {
		name, doc string
	}{
		{"nothing", ``},
		{"null", `null`},
		{"array", `[` + ec + `]`},
		{"second document", ec + ec},
		{"member twice", strings.TrimSuffix(ec, "}") + `,"kid":"other"}`},
		{"deep", strings.TrimSuffix(ec, "}") + `,"z":` + nested(16) + `}`},
		{"invalid UTF-8", strings.TrimSuffix(ec, "}") + ",\"z\":\"\xff\"}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := jwk.Parse([]byte(tc.doc))
			require.ErrorIs(t, err, jwk.ErrMalformed)
		})
	}
}

func TestParseSetTooMany(t *testing.T) {
	t.Parallel()
	var elements []members
	for i := range jwk.MaxKeys {
		elements = append(elements, edMembers(fmt.Sprint(i)))
	}
	keys, skipped, err := jwk.ParseSet(set(elements...))
	require.NoError(t, err)
	require.Len(t, keys, jwk.MaxKeys)
	require.Empty(t, skipped)

	// The number decides, before anything is known about the elements.
	for name, extra := range map[string]members{
		"usable": edMembers("extra"), "unusable": {}, "private": octMembers("extra"), "duplicate": edMembers("0"),
	} {
		_, _, err = jwk.ParseSet(set(append(elements, extra)...))
		require.ErrorIs(t, err, jwk.ErrTooManyKeys, name)
	}
}

// TestParseNotShared: a key does not change when the bytes that it was read
// from are used again.
func TestParseNotShared(t *testing.T) {
	t.Parallel()
	data := set(ecMembers("a"), edMembers("b"), rsaMembers("c"))
	keys, _, err := jwk.ParseSet(data)
	require.NoError(t, err)
	clear(data)
	require.Equal(t, "b", keys[1].KeyID)
	require.True(t, samePublic(keys[0].Public, ecPub()))
	require.True(t, samePublic(keys[1].Public, edPub()))
	require.True(t, samePublic(keys[2].Public, rsaPub()))
}

func FuzzParseSet(f *testing.F) {
	f.Add(set(ecMembers("a"), edMembers("b"), rsaMembers("c")))
	f.Add(set(ecMembers("a").without("alg"), edMembers("b").with("alg", "Ed25519").with("use", "enc")))
	f.Add(set(ecMembers("a").with("key_ops", []string{"verify"}).with("x5c", []string{"AAAA"})))
	f.Add(set(ecMembers("a"), octMembers("b").with("k", "AAAA")))
	f.Add(set(rsaMembers("a").with("d", nil)))
	f.Add(set(rsaMembers("a").with("e", "AAEAAQ"), rsaMembers("b").with("e", "Aw")))
	f.Add(set(edMembers("a"), edMembers("a")))
	f.Add([]byte(`{"keys":[]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a\u0000\"\\"}]}`))
	f.Add([]byte(`{"keys":[` + nested(15) + `],"a":"\"[["}`))
	f.Add([]byte(`{"keys":null,"keys":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = jwk.Parse(data)
		keys, skipped, err := jwk.ParseSet(data)
		if err != nil {
			require.Less(t, len(err.Error()), 3000, "it is bounded, whatever the document holds")
			require.Nil(t, keys)
			require.Nil(t, skipped)
			return
		}
		require.NotEmpty(t, keys)
		require.LessOrEqual(t, len(keys), jwk.MaxKeys)
		out, err := jwk.MarshalSet(keys)
		require.NoError(t, err)
		again, skipped, err := jwk.ParseSet(out)
		require.Empty(t, skipped)
		require.NoError(t, err)
		require.Len(t, again, len(keys))
		for i := range keys {
			require.NoError(t, jwk.CheckPublic(keys[i].Algorithm, keys[i].Public))
			require.True(t, equal(keys[i], again[i]))
		}
	})
}
