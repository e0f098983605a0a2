package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/bench"
	"github.com/sessiontoken/sessiontoken/keys"
)

// account is a state whose open fields a gateway reads.
type account struct {
	Name    string `json:"name"`
	Level   int    `json:"level"`
	Address struct {
		City string                      `json:"city"`
		Mail sessiontoken.Sealed[string] `json:"mail"`
	} `json:"address"`
}

// TestSealedHAProxy: HAProxy verifies the signature of a token with the public
// key of the JWK set, and hands the open fields of the state to the application.
// Of a sealed field it hands on the encrypted text. It refuses a forged token,
// and replaces headers that the client has sent.
func TestSealedHAProxy(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	key, err := keys.NewSigningKey(keys.ES256, private)
	require.NoError(t, err)
	static, err := keys.NewStatic(key)
	require.NoError(t, err)
	ask := haproxy(t, publicPEM(t, static))

	state := account{Name: "Ada Lovelace", Level: 3}
	state.Address.City, state.Address.Mail = "Zürich", sessiontoken.Seal("ada@example.com")
	token := sealedToken(t, static, make([]byte, 32), state)
	code, got := ask(token)
	require.Equal(t, 200, code)
	require.Equal(t, "usér", got.Get("X-Session-Subject"))
	require.Equal(t, "Ada Lovelace", got.Get("X-Session-Name"))
	require.Equal(t, "Zürich", got.Get("X-Session-City"))
	require.Equal(t, "3", got.Get("X-Session-Level"))
	sealed, err := base64.RawURLEncoding.DecodeString(got.Get("X-Session-Mail"))
	require.NoError(t, err)
	// nonce, the JSON string, tag
	require.Len(t, sealed, 12+len(`"ada@example.com"`)+16)
	require.NotContains(t, string(sealed), "ada")

	parts := strings.Split(token, ".")
	sign := func(typ string, change func(jwt.MapClaims)) string {
		now := time.Now()
		claims := jwt.MapClaims{"iss": bench.Issuer, "aud": bench.Audience, "sub": "eve", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "state": map[string]any{"name": "Eve"}}
		change(claims)
		other := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
		other.Header["kid"], other.Header["typ"] = key.Public().KeyID(), typ
		signed, err := other.SignedString(private)
		require.NoError(t, err)
		return signed
	}
	code, got = ask(sign("session+jwt", func(jwt.MapClaims) {}))
	require.Equal(t, 200, code, "what is changed below is what is refused")
	require.Equal(t, "Eve", got.Get("X-Session-Name"))
	require.Empty(t, got.Get("X-Session-Mail"), "a header of the client")
	foreign, err := keys.GenerateKey(keys.ES256)
	require.NoError(t, err)
	another, err := keys.NewStatic(foreign)
	require.NoError(t, err)
	for _, tt := range []struct{ name, token string }{
		{"no token", ""},
		{"no signature", parts[0] + "." + parts[1] + "."},
		{"another key", sealedToken(t, another, make([]byte, 32), state)},
		{"claims of another token", parts[0] + "." + strings.Split(sealedToken(t, another, make([]byte, 32), state), ".")[1] + "." + parts[2]},
		{"none", encoded(`{"alg":"none","typ":"session+jwt"}`) + "." + parts[1] + "."},
		{"HS256", encoded(`{"alg":"HS256","typ":"session+jwt"}`) + "." + parts[1] + "." + parts[2]},
		{"another typ", sign("JWT", func(jwt.MapClaims) {})},
		{"another issuer", sign("session+jwt", func(c jwt.MapClaims) { c["iss"] = "https://evil.example" })},
		{"another audience", sign("session+jwt", func(c jwt.MapClaims) { c["aud"] = "another" })},
		{"expired", sign("session+jwt", func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() })},
		{"no exp", sign("session+jwt", func(c jwt.MapClaims) { delete(c, "exp") })},
	} {
		code, got := ask(tt.token)
		require.Equal(t, 401, code, tt.name)
		require.Empty(t, got, tt.name)
	}
}

// haproxy starts HAProxy with testdata/others/haproxy.cfg and a public key. The
// function that it returns sends a request with a token in the cookie, and
// returns the X-Session headers that the application has got.
func haproxy(t *testing.T, public []byte) (ask func(token string) (int, http.Header)) {
	t.Helper()
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		bin = "/usr/sbin/haproxy"
		if _, err := os.Stat(bin); err != nil {
			require.Empty(t, os.Getenv("CI"), "install haproxy")
			t.Skip("NOT RUN: install haproxy")
		}
	}
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			if strings.HasPrefix(name, "X-Session-") {
				w.Header()[name] = values
			}
		}
	}))
	t.Cleanup(application.Close)
	config, err := filepath.Abs("testdata/others/haproxy.cfg")
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "") // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "session.pem"), public, 0o600))
	cmd := exec.CommandContext(t.Context(), bin, "-db", "-f", config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, t.Output(), t.Output()
	cmd.Env = append(os.Environ(), "ISSUER="+bench.Issuer, "AUDIENCE="+bench.Audience, "APPLICATION="+application.Listener.Addr().String())
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "front.sock"))
	}
	require.Eventually(t, func() bool {
		conn, err := dial(t.Context())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, time.Minute, 20*time.Millisecond)
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}}
	t.Cleanup(client.CloseIdleConnections)
	return func(token string) (int, http.Header) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://app.example/", nil)
		require.NoError(t, err)
		req.Header.Set("Cookie", "__Host-session="+token)
		req.Header.Set("X-Session-Name", "root")
		req.Header.Set("X-Session-Mail", "root@example.com")
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		got := http.Header{}
		for name, values := range resp.Header {
			if strings.HasPrefix(name, "X-Session-") {
				got[name] = values
			}
		}
		return resp.StatusCode, got
	}
}

// publicPEM returns the one key of the published set in PEM.
func publicPEM(t *testing.T, source sessiontoken.KeySource) []byte {
	t.Helper()
	set, err := keys.ParseSet(published(t, source))
	require.NoError(t, err)
	require.Len(t, set.Keys(), 1)
	der, err := x509.MarshalPKIXPublicKey(set.Keys()[0].Key())
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
