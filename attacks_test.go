package sessiontoken_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

var update = flag.Bool("update", false, "write golden files anew")

// The corpus in testdata/attacks is one hostile token a file: a line "expect:"
// with the reason for which it must be refused, a line "comment:", an empty
// line, and the token as a Go string literal. keys.json holds the public keys.
// The private halves were thrown away; -update makes all of it anew. Tokens are
// dated around the first moment of the year 2000, at which synctest starts.
const attacksDir = "testdata/attacks"

var reasons = map[string]error{
	"malformed": sessiontoken.ErrMalformed,
	"signature": sessiontoken.ErrSignature,
	"claims":    sessiontoken.ErrClaims,
	"expired":   sessiontoken.ErrExpired,
}

// attackState is the state of the tokens in the corpus.
type attackState struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
}

func attackVerifier(t testing.TB, set *keys.Set, cacheBytes int) *sessiontoken.Verifier[attackState] {
	v, err := sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{
		Issuer: "https://issuer.example", Audience: "api", Keys: set, CacheBytes: cacheBytes, MaxBytes: 64 << 10,
	})
	require.NoError(t, err)
	return v
}

type attack struct{ name, expect, comment, token string }

func readAttacks(t testing.TB) (*keys.Set, []attack) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(attacksDir, "keys.json"))
	require.NoError(t, err)
	set, err := keys.ParseSet(data)
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(attacksDir, "*.txt"))
	require.NoError(t, err)
	var all []attack
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		head, body, ok := strings.Cut(string(data), "\n\n")
		require.True(t, ok, file)
		a := attack{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for line := range strings.Lines(head) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch name {
			case "expect":
				a.expect = value
			case "comment":
				a.comment = value
			default:
				t.Fatalf("%s: unknown line %q", file, line)
			}
		}
		a.token, err = strconv.Unquote(strings.TrimSpace(body))
		require.NoError(t, err, file)
		all = append(all, a)
	}
	return set, all
}

func TestAttacks(t *testing.T) {
	if *update {
		writeAttacks(t)
	}
	set, all := readAttacks(t)
	count := map[string]int{}
	for _, a := range all {
		count[a.expect]++
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				require.NotEmpty(t, a.comment)
				for _, tt := range []struct {
					name  string
					bytes int
				}{{"cold", -1}, {"warm", 0}} {
					v := attackVerifier(t, set, tt.bytes)
					if tt.name == "warm" { // with the good tokens in the cache
						for _, good := range all {
							if good.expect == "ok" {
								_, err := v.Verify(t.Context(), good.token)
								require.NoError(t, err)
							}
						}
					}
					for range 2 {
						claims, err := v.Verify(t.Context(), a.token)
						if a.expect == "ok" {
							require.NoError(t, err)
							require.Equal(t, "user-1", claims.Subject)
							continue
						}
						require.Nil(t, claims)
						require.ErrorIs(t, err, sessiontoken.ErrInvalid)
						for reason, sentinel := range reasons {
							require.Equal(t, reason == a.expect, errors.Is(err, sentinel), "%s: %v", reason, err)
						}
						requireSilent(t, err, a.token)
					}
				}
			})
		})
	}
	t.Logf("%v", count)
	require.Equal(t, 4, count["ok"], "controls, one for each algorithm")
	require.GreaterOrEqual(t, len(all)-count["ok"], 150)
}

// requireSilent requires that no stretch of 12 bytes of the token is in the
// error's text.
func requireSilent(t testing.TB, err error, token string) {
	t.Helper()
	text := err.Error()
	for i := 0; i+12 <= len(text); i++ {
		require.NotContains(t, token, text[i:i+12])
	}
}
