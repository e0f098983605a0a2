package bench_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/bench"
	"github.com/sessiontoken/sessiontoken/keys"
)

type address struct {
	City string                      `json:"city"`
	Mail sessiontoken.Sealed[string] `json:"mail/~"`
}

// person is a state of version 7 with sealed fields at some depth.
type person struct {
	Name    string                        `json:"name"`
	Born    sessiontoken.Sealed[int]      `json:"born"`
	Tags    sessiontoken.Sealed[[]string] `json:"täg"`
	Address []address                     `json:"address"`
}

func (person) StateVersion() (version, readableBy int) { return 7, 7 }
func (*person) UpgradeState(int, []byte) error         { return os.ErrInvalid }

// one has one sealed field, and no version.
type one struct {
	Born sessiontoken.Sealed[int] `json:"born"`
}

// TestSealedOtherLanguages: the readers in JavaScript and Python verify a token
// and open its sealed fields, also by the second secret, as the comment of Sealed
// describes. They refuse one that was sealed with another secret, and PyJWT and
// npm's jose read the open fields without any.
func TestSealedOtherLanguages(t *testing.T) {
	first, second, foreign := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 40), bytes.Repeat([]byte{3}, 32)
	for _, other := range []struct{ name, installed, how, program, script string }{
		{"PyJWT", "/usr/lib/python3/dist-packages/jwt", "install python3-jwt and python3-cryptography", "/usr/bin/python3", "sealed.py"},
		{"jose", "testdata/others/node_modules/jose", "run npm ci in testdata/others", "node", "sealed.mjs"},
	} {
		t.Run(other.name, func(t *testing.T) {
			if _, err := os.Stat(other.installed); err != nil {
				require.Empty(t, os.Getenv("CI"), other.how)
				t.Skip("NOT RUN: " + other.how)
			}
			key, err := keys.GenerateKey(keys.ES256)
			require.NoError(t, err)
			static, err := keys.NewStatic(key)
			require.NoError(t, err)
			read := verifierOf(t, static, other.program, other.script, bench.Audience, hex.EncodeToString(first), hex.EncodeToString(second))
			for _, secret := range [][]byte{first, second} {
				token := sealedToken(t, static, secret, person{
					"Ada", sessiontoken.Seal(1815), sessiontoken.Seal([]string{"é", "x"}), []address{{"London", sessiontoken.Seal("a@b.example")}, {"Paris", sessiontoken.Seal("")}},
				})
				require.JSONEq(t, `{"name":"Ada","born":1815,"täg":["é","x"],"address":[{"city":"London","mail/~":"a@b.example"},{"city":"Paris","mail/~":""}]}`, read(token))
				require.JSONEq(t, `{"born":1815}`, read(sealedToken(t, static, secret, one{sessiontoken.Seal(1815)})))
			}
			require.Contains(t, read(sealedToken(t, static, foreign, one{})), "refused: ")
			require.JSONEq(t, `{"name":"Ada"}`, read(sealedToken(t, static, nil, struct {
				Name string `json:"name"`
			}{"Ada"})))
		})
	}
}

func sealedToken[T any](t *testing.T, source *keys.Static, secret []byte, state T) string {
	t.Helper()
	cfg := sessiontoken.IssuerConfig{Issuer: bench.Issuer, Audience: []string{bench.Audience}, Keys: source}
	if secret != nil {
		cfg.StateSecrets = [][]byte{secret}
	}
	issuer, err := sessiontoken.NewIssuer[T](cfg)
	require.NoError(t, err)
	token, _, err := issuer.Issue(context.Background(), "usér", state)
	require.NoError(t, err)
	return token
}
