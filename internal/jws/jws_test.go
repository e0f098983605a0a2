package jws_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, token string
		ok          bool
	}{
		{"three segments", "a.b.c", true},
		{"empty payload", "a..c", true},
		{"empty", "", false},
		{"no dot", "abc", false},
		{"one dot", "a.b", false},
		{"no header", ".b.c", false},
		{"no signature", "a.b.", false},
		{"four segments", "a.b.c.d", false},
		{"dots alone", "...", false},
		{"five segments, as an encrypted token", "a.b.c.d.e", false},
		{"trailing dot", "a.b.c.", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, _, err := jws.Split(c.token)
			if c.ok {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, jws.ErrSegments)
			}
		})
	}
	h, p, s, err := jws.Split("aa.bbb.cccc")
	require.NoError(t, err)
	require.Equal(t, []string{"aa", "bbb", "cccc"}, []string{h, p, s})
	many := strings.Repeat(".", 1e6)
	require.Zero(t, testing.AllocsPerRun(10, func() { _, _, _, _ = jws.Split(many) }))
	require.Zero(t, testing.AllocsPerRun(10, func() { _, _, _, _ = jws.Split("a." + many[:0] + "b.c") }))
}

// TestDecodeSpellings: of all strings of up to two characters of any bytes, and
// all endings of a longer one, exactly those decode that encoding gives.
func TestDecodeSpellings(t *testing.T) {
	decoded := 0
	try := func(s string) {
		b, err := jws.Decode(s)
		if err != nil {
			require.ErrorIs(t, err, jws.ErrEncoding)
			return
		}
		decoded++
		require.Equal(t, s, jws.Encode(b))
	}
	for a := range 256 {
		try(string([]byte{byte(a)}))
		try("QUJD" + string([]byte{byte(a)}))
		for b := range 256 {
			try(string([]byte{byte(a), byte(b)}))
			try("QU" + string([]byte{byte(a), byte(b)}))
			try(string([]byte{byte(a)}) + "UJDRA"[:1] + string([]byte{byte(b)}))
		}
	}
	require.Equal(t, 64*4+64*64+64*16, decoded)

	decoded = 0
	for a := range 64 {
		for b := range 256 {
			for c := range 256 {
				s := string([]byte{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[a], byte(b), byte(c)})
				if d, err := jws.Decode(s); err == nil {
					decoded++
					if s != jws.Encode(d) {
						t.Fatalf("%q is another spelling", s)
					}
				}
			}
		}
	}
	require.Equal(t, 1<<16, decoded, "one spelling for each two bytes")
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "QQ", "QR", "QUI", "QUJD", "QUJDRA", "QU\nJD", "QQ==", "QUJ\x80", "----____"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := jws.Decode(s)
		want, wantErr := base64.RawURLEncoding.Strict().DecodeString(s)
		if strings.ContainsAny(s, "\r\n") {
			wantErr = errors.New("skipped by the standard library")
		}
		require.Equal(t, wantErr == nil, err == nil)
		if err == nil {
			require.Equal(t, want, got)
		}
	})
}

func TestParseHeader(t *testing.T) {
	const good = `{"alg":"ES256","kid":"k","typ":"session+jwt"}`
	h, err := jws.ParseHeader([]byte(good))
	require.NoError(t, err)
	require.Equal(t, jws.Header{Algorithm: "ES256", KeyID: "k", Type: "session+jwt"}, h)
	segment, err := h.Encode()
	require.NoError(t, err)
	require.Equal(t, jws.Encode([]byte(good)), segment)

	for name, raw := range map[string]string{
		"empty": ``, "null": `null`, "array": `[]`, "string": `"x"`, "trailing": good + "x", "two": good + good,
		"no alg": `{"kid":"k","typ":"t"}`, "no kid": `{"alg":"a","typ":"t"}`, "no typ": `{"alg":"a","kid":"k"}`,
		"null alg": `{"alg":null,"kid":"k","typ":"t"}`, "number kid": `{"alg":"a","kid":1,"typ":"t"}`,
		"empty kid":     `{"alg":"a","kid":"","typ":"t"}`,
		"long kid":      `{"alg":"a","kid":"` + strings.Repeat("k", jws.MaxKeyID+1) + `","typ":"t"}`,
		"duplicate":     `{"alg":"a","alg":"a","kid":"k","typ":"t"}`,
		"escaped twin":  `{"alg":"a","\u0061lg":"a","kid":"k","typ":"t"}`,
		"other case":    `{"ALG":"a","alg":"a","kid":"k","typ":"t"}`,
		"crit":          `{"alg":"a","kid":"k","typ":"t","crit":[]}`,
		"b64":           `{"alg":"a","kid":"k","typ":"t","b64":true}`,
		"jwk":           `{"alg":"a","kid":"k","typ":"t","jwk":{}}`,
		"jku":           `{"alg":"a","kid":"k","typ":"t","jku":"https://x"}`,
		"zip":           `{"alg":"a","kid":"k","typ":"t","zip":"DEF"}`,
		"invalid UTF-8": "{\"alg\":\"a\",\"kid\":\"\xff\",\"typ\":\"t\"}",
		"surrogate":     `{"alg":"a","kid":"\ud800","typ":"t"}`,
		"deep":          strings.Repeat(`{"alg":`, 10000),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := jws.ParseHeader([]byte(raw))
			require.ErrorIs(t, err, jws.ErrHeader)
		})
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte(`{"alg":"ES256","kid":"k","typ":"session+jwt"}`))
	f.Add([]byte(`{"typ":"t","kid":"\u006b","alg":"a"}`))
	f.Add([]byte(` { "alg" : "x" , "crit" : [] } `))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := jws.ParseHeader(raw)
		if err != nil {
			require.Zero(t, h)
			return
		}
		segment, err := h.Encode()
		require.NoError(t, err)
		again, err := jws.Decode(segment)
		require.NoError(t, err)
		same, err := jws.ParseHeader(again)
		require.NoError(t, err)
		require.Equal(t, h, same)
	})
}

// hidden is a handle on a key that cannot be got at, as a KMS gives.
type hidden struct {
	signer crypto.Signer
	change func([]byte) ([]byte, error)
}

func (h hidden) Public() crypto.PublicKey { return h.signer.Public() }
func (h hidden) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := h.signer.Sign(r, digest, opts)
	if err == nil && h.change != nil {
		return h.change(sig)
	}
	return sig, err
}

func signers(t testing.TB) map[string]crypto.Signer {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return map[string]crypto.Signer{"ES256": ec, "EdDSA": ed, "PS256": rs, "RS256": rs}
}

func TestSignAndVerify(t *testing.T) {
	all := signers(t)
	for alg, key := range all {
		for name, signer := range map[string]crypto.Signer{"own": key, "hidden": hidden{signer: key}} {
			t.Run(alg+" "+name, func(t *testing.T) {
				sig, err := jws.Sign(alg, signer, []byte("input"))
				require.NoError(t, err)
				require.Len(t, sig, jws.SignatureSize(signer.Public()))
				require.NoError(t, jws.Verify(alg, signer.Public(), "input", sig))
				require.ErrorIs(t, jws.Verify(alg, signer.Public(), "other", sig), jws.ErrSignature)
				require.ErrorIs(t, jws.Verify(alg, signer.Public(), "input", sig[1:]), jws.ErrSignature)
				require.ErrorIs(t, jws.Verify(alg, signer.Public(), "input", append(sig, 0)), jws.ErrSignature)
				require.ErrorIs(t, jws.Verify(alg, signer.Public(), "input", nil), jws.ErrSignature)
				for other := range all {
					if (other == "PS256" || other == "RS256") && (alg == "PS256" || alg == "RS256") {
						continue // one key type: told apart by the signature
					}
					if other != alg {
						_, err := jws.Sign(other, signer, []byte("input"))
						require.ErrorIs(t, err, jws.ErrKey)
						require.ErrorIs(t, jws.Verify(other, signer.Public(), "input", sig), jws.ErrKey)
					}
				}
				for _, none := range []string{"", "none", "None", "HS256", "ES384", "es256", "Ed25519"} {
					_, err := jws.Sign(none, signer, []byte("input"))
					require.ErrorIs(t, err, jws.ErrKey)
					require.ErrorIs(t, jws.Verify(none, signer.Public(), "input", sig), jws.ErrKey)
				}
			})
		}
	}
	sig, err := jws.Sign("RS256", all["RS256"], []byte("input"))
	require.NoError(t, err)
	require.ErrorIs(t, jws.Verify("PS256", all["RS256"].Public(), "input", sig), jws.ErrSignature)

	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, err = jws.Sign("ES256", p384, []byte("input"))
	require.ErrorIs(t, err, jws.ErrKey)
}

// TestSignerThatLies: what an external signer returns is verified before it is
// used.
func TestSignerThatLies(t *testing.T) {
	boom := errors.New("no connection")
	for alg, key := range signers(t) {
		for name, change := range map[string]func([]byte) ([]byte, error){
			"nothing":   func([]byte) ([]byte, error) { return nil, nil },
			"garbage":   func(s []byte) ([]byte, error) { return make([]byte, len(s)), nil },
			"flipped":   func(s []byte) ([]byte, error) { s[len(s)-1] ^= 1; return s, nil },
			"truncated": func(s []byte) ([]byte, error) { return s[:len(s)-1], nil },
			"longer":    func(s []byte) ([]byte, error) { return append(s, 0), nil },
			"r of zero": func([]byte) ([]byte, error) { return []byte{0x30, 6, 2, 1, 0, 2, 1, 1}, nil },
		} {
			t.Run(alg+" "+name, func(t *testing.T) {
				_, err := jws.Sign(alg, hidden{key, change}, []byte("input"))
				require.Error(t, err)
			})
		}
		_, err := jws.Sign(alg, hidden{key, func([]byte) ([]byte, error) { return nil, boom }}, []byte("input"))
		require.ErrorIs(t, err, boom)
	}
}

// TestES256Length: r and s keep their leading zeros, and two messages never
// share an r.
func TestES256Length(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	seen := map[string]bool{}
	short := 0
	for range 10000 {
		sig, err := jws.Sign("ES256", key, []byte("input"))
		require.NoError(t, err)
		require.Len(t, sig, 64)
		if sig[0] == 0 || sig[32] == 0 {
			short++
			require.NoError(t, jws.Verify("ES256", &key.PublicKey, "input", sig))
		}
		require.False(t, seen[string(sig[:32])])
		seen[string(sig[:32])] = true
	}
	require.NotZero(t, short, "no signature had a leading zero")
}

// TestES256HasTheSmallerS: of the two valid signatures with one r, Sign returns
// the one with the smaller s, whichever a signer made. Verify takes both, and
// IsCanonical tells them apart.
func TestES256HasTheSmallerS(t *testing.T) {
	order := elliptic.P256().Params().N
	half := new(big.Int).Rsh(order, 1)
	other := func(s *big.Int) *big.Int { return new(big.Int).Sub(order, s) }
	type pair struct{ R, S *big.Int }
	// rewrite makes an external signer return the smaller or the larger s.
	rewrite := func(larger bool) func([]byte) ([]byte, error) {
		return func(der []byte) ([]byte, error) {
			var p pair
			if _, err := asn1.Unmarshal(der, &p); err != nil {
				return nil, err
			}
			if (p.S.Cmp(half) > 0) != larger {
				p.S = other(p.S)
			}
			return asn1.Marshal(p)
		}
	}
	key := signers(t)["ES256"]
	for name, signer := range map[string]crypto.Signer{
		"own": key, "external": hidden{signer: key},
		"external, smaller": hidden{key, rewrite(false)}, "external, larger": hidden{key, rewrite(true)},
	} {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				sig, err := jws.Sign("ES256", signer, []byte("input"))
				require.NoError(t, err)
				s := new(big.Int).SetBytes(sig[32:])
				require.LessOrEqual(t, s.Cmp(half), 0)
				require.True(t, jws.IsCanonical("ES256", sig))
				require.NoError(t, jws.Verify("ES256", key.Public(), "input", sig))
				other(s).FillBytes(sig[32:])
				require.False(t, jws.IsCanonical("ES256", sig))
				require.NoError(t, jws.Verify("ES256", key.Public(), "input", sig), "the byte layer takes either")
			}
		})
	}
	for s, want := range map[*big.Int]bool{
		big.NewInt(1): true, half: true, new(big.Int).Add(half, big.NewInt(1)): false, new(big.Int).Sub(order, big.NewInt(1)): false,
	} {
		sig := make([]byte, 64)
		s.FillBytes(sig[32:])
		require.Equal(t, want, jws.IsCanonical("ES256", sig), "%x", s)
	}
	require.True(t, jws.IsCanonical("EdDSA", bytes.Repeat([]byte{0xff}, 64)))
}
