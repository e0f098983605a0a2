package bench_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/bench"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestInteropOtherLanguages: PyJWT and npm's jose, without leeway, accept each
// token at once, while the state of its subject is marked 200 times a second. Both
// refuse one whose iat is in the future.
func TestInteropOtherLanguages(t *testing.T) {
	for _, other := range []struct{ name, installed, how, program, script string }{
		{"PyJWT", "/usr/lib/python3/dist-packages/jwt", "install python3-jwt and python3-cryptography", "/usr/bin/python3", "pyjwt.py"},
		{"jose", "testdata/others/node_modules/jose", "run npm ci in testdata/others", "node", "jose.mjs"},
	} {
		t.Run(other.name, func(t *testing.T) {
			if _, err := os.Stat(other.installed); err != nil {
				require.Empty(t, os.Getenv("CI"), other.how)
				t.Skip("NOT RUN: " + other.how)
			}
			list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
			require.NoError(t, err)
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			key, err := keys.NewSigningKey(keys.ES256, private)
			require.NoError(t, err)
			static, err := keys.NewStatic(key)
			require.NoError(t, err)
			issuer, err := sessiontoken.NewIssuer[bench.State](sessiontoken.IssuerConfig{Issuer: bench.Issuer, Audience: []string{bench.Audience}, Keys: static, Revocations: list})
			require.NoError(t, err)
			token, _, err := issuer.Issue(t.Context(), bench.Subject, bench.SampleState())
			require.NoError(t, err)

			verify := verifierOf(t, static, other.program, other.script, bench.Audience)
			for range 600 {
				time.Sleep(5 * time.Millisecond)
				require.NoError(t, list.Changed(t.Context(), bench.Subject))
				token, _, err = issuer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[bench.State]) (bench.State, error) {
					return bench.SampleState(), nil
				})
				require.NoError(t, err)
				require.Equal(t, "ok", verify(token))
			}
			for _, ahead := range []time.Duration{-time.Minute, 3 * time.Minute} {
				now := time.Now().Add(ahead)
				other := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"aud": bench.Audience, "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()})
				other.Header["kid"], other.Header["typ"] = key.Public().KeyID(), "session+jwt"
				signed, err := other.SignedString(private)
				require.NoError(t, err)
				if answer := verify(signed); ahead > 0 {
					require.Contains(t, answer, "iat")
				} else {
					require.Equal(t, "ok", answer)
				}
			}
		})
	}
}

// verifierOf starts a program that verifies tokens with the keys of source.
func verifierOf(t *testing.T, source sessiontoken.KeySource, program, script string, args ...string) func(token string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append([]string{script}, args...)...)
	cmd.Dir, cmd.Stderr = "testdata/others", os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	answers := bufio.NewScanner(out)
	send := func(line []byte) {
		_, err := in.Write(append(line, '\n'))
		require.NoError(t, err)
	}
	send(published(t, source))
	return func(token string) string {
		send([]byte(token))
		require.True(t, answers.Scan(), "%s has ended", script)
		return answers.Text()
	}
}

// published returns the key set as it is served.
func published(t *testing.T, source sessiontoken.KeySource) []byte {
	t.Helper()
	handler, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "https://example.com/.well-known/jwks.json", nil)
	handler.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
	return w.Body.Bytes()
}
