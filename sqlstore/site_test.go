package sqlstore_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReadmeSite runs the README's second program, at another port: a wrong password
// is refused, a session outlives the process, roles count, and a sign-out ends it.
func TestReadmeSite(t *testing.T) {
	source, err := os.ReadFile("testdata/site/main.go")
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count(source, []byte("localhost:8080")))
	free, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	host := free.Addr().String()
	host = "localhost" + host[strings.LastIndex(host, ":"):]
	require.NoError(t, free.Close())
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "site.exe")
	require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(source, []byte("localhost:8080"), []byte(host)), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, file).CombinedOutput()
	require.NoError(t, err, "%s", out)

	var cookie string
	ask := func(method, path string, form url.Values) (status int, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+path, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if cookie != "" {
			req.Header.Set("Cookie", cookie)
		}
		resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		if set := resp.Cookies(); len(set) > 0 {
			cookie = set[0].Name + "=" + set[0].Value
		}
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(text)
	}
	start := func(secret string) (stop func()) {
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SITE_SECRET="+secret)
		require.NoError(t, cmd.Start())
		stop = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		t.Cleanup(stop)
		require.Eventually(t, func() bool { status, _ := ask("GET", "/ready", nil); return status == 200 }, 30*time.Second, 50*time.Millisecond)
		return stop
	}
	status := func(method, path string, form url.Values) int { s, _ := ask(method, path, form); return s }
	user := func(name, password string) url.Values { return url.Values{"name": {name}, "password": {password}} }

	stop := start(strings.Repeat("s", 32))
	require.Equal(t, 401, status("GET", "/admin", nil))
	for _, wrong := range []url.Values{user("ada", "x"), user("eve", "demo"), nil} {
		require.Equal(t, 401, status("POST", "/sign-in", wrong))
		require.Empty(t, cookie)
	}
	require.Equal(t, 200, status("POST", "/sign-in", user("grace", "demo")))
	require.Equal(t, 403, status("GET", "/admin", nil), "she is no admin")
	require.Equal(t, 200, status("POST", "/sign-out", nil))
	cookie = ""
	require.Equal(t, 200, status("POST", "/sign-in", user("ada", "demo")))
	code, body := ask("GET", "/admin", nil)
	require.Equal(t, 200, code)
	require.Equal(t, "Hello ada\n", body)
	kept := cookie
	stop()
	start(strings.Repeat("s", 32))
	require.Equal(t, 200, status("GET", "/admin", nil), "a session outlives the process")
	require.Equal(t, 200, status("POST", "/sign-out", nil))
	cookie = kept
	require.Equal(t, 401, status("GET", "/admin", nil))
	code, body = ask("GET", "/.well-known/jwks.json", nil)
	require.Equal(t, 200, code)
	require.Contains(t, body, `"keys":[`)
}
