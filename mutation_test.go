package sessiontoken_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

// shop is an issuer and verifiers with one key.
type shop struct {
	key    *keys.SigningKey
	issuer *sessiontoken.Issuer[attackState]
	cold   *sessiontoken.Verifier[attackState] // without a cache
	warm   *sessiontoken.Verifier[attackState] // with the genuine token in it
	token  string
}

func newShop(t testing.TB, alg keys.Algorithm) *shop {
	t.Helper()
	key, err := keys.GenerateKey(alg)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	issuer, err := sessiontoken.NewIssuer[attackState](sessiontoken.IssuerConfig{
		Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: source,
	})
	require.NoError(t, err)
	s := &shop{key: key, issuer: issuer}
	cfg := sessiontoken.VerifierConfig{Issuer: "https://issuer.example", Audience: "api", Keys: source, MaxBytes: 32 << 20}
	s.warm, err = sessiontoken.NewVerifier[attackState](cfg)
	require.NoError(t, err)
	cfg.CacheBytes = -1
	s.cold, err = sessiontoken.NewVerifier[attackState](cfg)
	require.NoError(t, err)
	s.token, _, err = issuer.Issue(t.Context(), "user-1", attackState{Name: "Ada"})
	require.NoError(t, err)
	_, err = s.warm.Verify(t.Context(), s.token)
	require.NoError(t, err)
	return s
}

// sign signs any payload with the shop's key, as only the issuer could.
func (s *shop) sign(t testing.TB, payload []byte) string {
	header, err := jws.Header{Algorithm: string(s.key.Public().Algorithm()), KeyID: s.key.Public().KeyID(), Type: "session+jwt"}.Encode()
	require.NoError(t, err)
	signed := header + "." + jws.Encode(payload)
	sig, err := s.key.Sign(t.Context(), []byte(signed))
	require.NoError(t, err)
	return signed + "." + jws.Encode(sig)
}

// TestMutations: whatever is inserted into, deleted from or changed in a
// genuine token of each algorithm, and wherever: nothing else verifies, with
// the genuine one in the cache or not.
func TestMutations(t *testing.T) {
	const outside = "=+/ \t\r\n\x00\x80\xff\"{~"
	const inside = "AZaz09-_."
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			s := newShop(t, alg)
			tried := 0
			refuse := func(token string) {
				if token == s.token {
					return
				}
				tried++
				for _, v := range []*sessiontoken.Verifier[attackState]{s.cold, s.warm} {
					if claims, err := v.Verify(t.Context(), token); claims != nil || !errors.Is(err, sessiontoken.ErrInvalid) {
						t.Fatalf("accepted, or not said to be invalid: %q: %v", token, err)
					}
				}
			}
			step := 3
			switch {
			case raced:
				step = 7
			case isLong():
				step = 1
			}
			for i := 0; i <= len(s.token); i += step {
				before, after := s.token[:i], s.token[i:]
				refuse(before) // cut
				for _, c := range []byte(outside + inside) {
					refuse(before + string([]byte{c}) + after)
				}
				if after == "" {
					continue
				}
				refuse(before + after[1:])                        // deleted
				refuse(before + after[:1] + after)                // doubled
				refuse(before + flip(after[0], 0x20) + after[1:]) // the other case
				for _, c := range []byte(outside + inside) {
					refuse(before + string([]byte{c}) + after[1:])
				}
			}
			// Every spelling of the last character of each segment.
			for end, c := range s.token + "." {
				if c != '.' {
					continue
				}
				for last := range 256 {
					refuse(s.token[:end-1] + string([]byte{byte(last)}) + s.token[end:])
				}
			}
			for _, around := range []string{" ", "\n", "\r\n", ".", "\x00", "\ufeff", "\"", "Bearer "} {
				refuse(around + s.token)
				refuse(s.token + around)
			}
			refuse(s.token + s.token)
			refuse(s.token + "." + s.token)
			refuse(strings.ToUpper(s.token))
			refuse(strings.ToLower(s.token))
			if alg == keys.ES256 { // the other signature of the pair
				at := strings.LastIndexByte(s.token, '.') + 1
				sig, err := jws.Decode(s.token[at:])
				require.NoError(t, err)
				copy(sig[32:], otherS(sig[32:]))
				refuse(s.token[:at] + jws.Encode(sig))
			}
			for _, v := range []*sessiontoken.Verifier[attackState]{s.cold, s.warm} {
				_, err := v.Verify(t.Context(), s.token)
				require.NoError(t, err, "the original")
			}
			t.Logf("%d bytes, %d changes", len(s.token), tried)
		})
	}
}

func flip(c, bit byte) string { return string([]byte{c ^ bit}) }

// allocated is how many bytes a call allocates, after a first one.
func allocated(f func()) uint64 {
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const runs = 10
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

// TestRefusalIsCheap counts the bytes that hostile tokens make us allocate.
func TestRefusalIsCheap(t *testing.T) {
	s := newShop(t, keys.ES256)
	small, err := sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{
		Issuer: "https://issuer.example", Audience: "api", Keys: mustSet(t, s.key.Public()),
	})
	require.NoError(t, err)
	header := s.token[:strings.IndexByte(s.token, '.')+1]
	deep := `{"a":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + "}"
	for _, c := range []struct {
		name, token string
		v           *sessiontoken.Verifier[attackState]
		reason      error
		most        uint64
	}{
		{"16 MiB", strings.Repeat("A", 16<<20), small, sessiontoken.ErrMalformed, 1 << 10},
		{"a million dots", strings.Repeat(".", 1e6), small, sessiontoken.ErrMalformed, 1 << 10},
		{"a million dots, under the limit", strings.Repeat(".", 1e6), s.cold, sessiontoken.ErrMalformed, 1 << 10},
		{"a million dots behind a good header", header + strings.Repeat("A.", 5e5), s.cold, sessiontoken.ErrMalformed, 1 << 10},
		{"a million dots, cached", header + strings.Repeat("A.", 5e5), s.warm, sessiontoken.ErrMalformed, 1 << 10},
		{"10,000 levels, signed", s.sign(t, []byte(deep)), s.cold, sessiontoken.ErrClaims, 64 << 10},
		{"10,000 levels in the header", jws.Encode([]byte(deep)) + ".e30.AA", s.cold, sessiontoken.ErrMalformed, 1 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.v.Verify(t.Context(), c.token)
			require.ErrorIs(t, err, c.reason)
			got := allocated(func() { _, _ = c.v.Verify(t.Context(), c.token) })
			t.Logf("%d bytes of token: %d bytes allocated", len(c.token), got)
			if !raced {
				require.LessOrEqual(t, got, c.most)
			}
		})
	}
}

func vectorsDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SESSIONTOKEN_VECTORS")
	if dir == "" {
		t.Skip("SESSIONTOKEN_VECTORS is not set: CONTRIBUTING.md says what it names")
	}
	return dir
}

// TestConformanceJSONTestSuite puts each text that no JSON parser may accept
// into a token that is genuine otherwise, as the state and as a claim that
// is not known; and each text that every parser must accept, as the latter.
func TestConformanceJSONTestSuite(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectorsDir(t), "jsontestsuite", "test_parsing", "*.json"))
	require.NoError(t, err)
	s := newShop(t, keys.EdDSA)
	good, err := jws.Decode(strings.Split(s.token, ".")[1])
	require.NoError(t, err)
	any, err := sessiontoken.NewVerifier[jsontext.Value](sessiontoken.VerifierConfig{
		Issuer: "https://issuer.example", Audience: "api", Keys: mustSet(t, s.key.Public()), MaxBytes: 1 << 20,
	})
	require.NoError(t, err)
	state := string(good[strings.Index(string(good), `"state":`)+len(`"state":`) : len(good)-1])
	count := map[byte]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		name := filepath.Base(file)
		count[name[0]]++
		asState := s.sign(t, []byte(strings.Replace(string(good), state, string(text), 1)))
		asClaim := s.sign(t, []byte(strings.TrimSuffix(string(good), "}")+`,"unknown":`+string(text)+"}"))
		_, stateErr := any.Verify(t.Context(), asState)
		_, claimErr := any.Verify(t.Context(), asClaim)
		switch {
		case name[0] == 'n':
			require.ErrorIs(t, stateErr, sessiontoken.ErrClaims, name)
			require.ErrorIs(t, claimErr, sessiontoken.ErrClaims, name)
		case strings.HasPrefix(name, "y_object_duplicated_key"): // two readings: refused
			require.ErrorIs(t, stateErr, sessiontoken.ErrClaims, name)
			require.ErrorIs(t, claimErr, sessiontoken.ErrClaims, name)
		case name[0] == 'y':
			require.NoError(t, stateErr, name)
			require.NoError(t, claimErr, name)
		}
	}
	t.Logf("must reject: %d, must accept: %d, either: %d", count['n'], count['y'], count['i'])
	require.Equal(t, 188, count['n'])
	require.Equal(t, 95, count['y'])
}

// TestConformanceJWE: no encrypted token is taken for a signed one.
func TestConformanceJWE(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(vectorsDir(t), "wycheproof", "json_web_encryption_test.json"))
	require.NoError(t, err)
	var file struct {
		TestGroups []struct {
			Tests []struct {
				JWE jsontext.Value `json:"jwe"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	s := newShop(t, keys.EdDSA)
	count := 0
	for _, g := range file.TestGroups {
		for _, c := range g.Tests {
			token := string(c.JWE)
			if c.JWE.Kind() == '"' {
				require.NoError(t, json.Unmarshal(c.JWE, &token))
			}
			_, err := s.cold.Verify(t.Context(), token)
			require.ErrorIs(t, err, sessiontoken.ErrMalformed)
			count++
		}
	}
	require.Equal(t, 139, count)
}
