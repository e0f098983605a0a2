package sessiontoken_test

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// programs returns the Go blocks of the README that are whole programs.
func programs(t *testing.T) (blocks [][]byte) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindAllSubmatch(readme(t), -1) {
		blocks = append(blocks, m[1])
	}
	require.NotEmpty(t, blocks, "the README has no program")
	return blocks
}

// TestReadmeProgramsAreShort: the first program, a whole site, has 45 lines. Each
// has at most 12 statements in main, and one goroutine to remember. A function
// that main hands on counts with the statement that it is in.
func TestReadmeProgramsAreShort(t *testing.T) {
	require.LessOrEqual(t, bytes.Count(programs(t)[0], []byte("\n")), 45)
	for _, src := range programs(t) {
		formatted, err := format.Source(src)
		require.NoError(t, err)
		require.Equal(t, string(formatted), string(src), "gofmt")
		statements, goroutines := wiring(t, src)
		require.LessOrEqual(t, statements, 12)
		require.Equal(t, 1, goroutines)
	}
}

// wiring counts the statements of main, and the goroutines that a program starts.
func wiring(t *testing.T, src []byte) (statements, goroutines int) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", src, parser.SkipObjectResolution)
	require.NoError(t, err)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Name.Name == "main" {
				statements = len(n.Body.List)
			}
		case *ast.GoStmt:
			goroutines++
		}
		return true
	})
	require.NotZero(t, statements)
	return statements, goroutines
}

// TestReadmeProgramCompiles checks the README's programs, each in a module of its
// own.
func TestReadmeProgramCompiles(t *testing.T) {
	for _, program := range programs(t) {
		newcomer(t, program, "vet", "-mod=mod", ".")
	}
}

// TestReadmeProgramRuns builds the README's first program in a module of its own,
// as a newcomer would, starts it, signs in, reads the page, signs out and is
// refused, and reads the keys.
func TestReadmeProgramRuns(t *testing.T) {
	long(t)
	name := build(t, programs(t)[0])
	free, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	require.NoError(t, free.Close())
	var log bytes.Buffer
	cmd := exec.Command(name)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.TempDir(), append(os.Environ(), "PORT="+port), &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := &http.Client{Jar: loopbackJar{jar}, Timeout: 10 * time.Second}
	site := "http://localhost:" + port
	ask := func(method, path string, form url.Values) (status int, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, site+path, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(text)
	}
	require.Eventually(t, func() bool { status, _ := ask("GET", "/", nil); return status == 401 }, 20*time.Second, 50*time.Millisecond)
	status, _ := ask("POST", "/sign-in", url.Values{"name": {"ada"}})
	require.Equal(t, 200, status)
	status, page := ask("GET", "/", nil)
	require.Equal(t, 200, status)
	require.Equal(t, "Hello Ada, admin!\n", page)
	status, _ = ask("POST", "/sign-out", nil)
	require.Equal(t, 200, status)
	status, _ = ask("GET", "/", nil)
	require.Equal(t, 401, status)
	status, jwks := ask("GET", "/.well-known/jwks.json", nil)
	require.Equal(t, 200, status)
	set, err := keys.ParseSet([]byte(jwks))
	require.NoError(t, err)
	require.Len(t, set.Keys(), 2)
}

// loopbackJar is a jar that takes plain http on this machine for secure, as
// browsers do.
type loopbackJar struct{ http.CookieJar }

func (j loopbackJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.CookieJar.SetCookies(secured(u), cookies)
}

func (j loopbackJar) Cookies(u *url.URL) []*http.Cookie { return j.CookieJar.Cookies(secured(u)) }

func secured(u *url.URL) *url.URL {
	https := *u
	https.Scheme = "https"
	return &https
}

// TestReadmeFragmentsBuild compiles the parts on browsers, native clients and
// metrics within a program that has what they take as given.
func TestReadmeFragmentsBuild(t *testing.T) {
	long(t)
	const program = `package main

import (
	"context"
	"expvar"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type State struct{ Name, Role string }

type database struct{}

func (database) LoadState(context.Context, string) (State, error) { return State{}, nil }

var (
	ctx      = context.Background()
	db       database
	store    revoke.Store
	revocations *revoke.List
	sessions *sessionhttp.Sessions[State]
	families refresh.Store
	secret   []byte
	verifier *sessiontoken.Verifier[State]
	issuer   *sessiontoken.Issuer[State]
	orders   http.Handler
	load     func(context.Context, *sessiontoken.Claims[State]) (State, error)
	_        = time.Hour
	_        refresh.Config
	_        expvar.Func
)

func answer(http.ResponseWriter, sessionhttp.Tokens, error) {}

func main() {
	var err error
	FRAGMENT
	_ = err
}
`
	for _, heading := range []string{"### Browser\n", "### Native client\n", "## Metrics\n"} {
		_, rest, ok := strings.Cut(string(readme(t)), heading)
		require.True(t, ok, heading)
		_, rest, _ = strings.Cut(rest, "```go\n")
		fragment, _, _ := strings.Cut(rest, "```")
		require.LessOrEqual(t, strings.Count(fragment, "\n"), 15, "%s is too long", heading)
		build(t, []byte(strings.Replace(program, "FRAGMENT", fragment, 1)))
	}
}

func readme(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	return text
}

// build compiles a program in a module of its own, and returns the binary.
func build(t *testing.T, program []byte) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "newcomer.exe") // a name that Windows runs too
	newcomer(t, program, "build", "-mod=mod", "-o", binary, ".")
	return binary
}

// newcomer runs the go command in a new module that has a program.
func newcomer(t *testing.T, program []byte, args ...string) {
	t.Helper()
	root, err := os.Getwd()
	require.NoError(t, err)
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	sum, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	const module = "github.com/sessiontoken/sessiontoken"
	text := strings.Replace(string(mod), "module "+module, "module newcomer", 1) +
		"\nrequire " + module + " v0.0.0\nreplace " + module + " => " + root + "\n"

	dir := t.TempDir()
	for name, content := range map[string][]byte{"main.go": program, "go.mod": []byte(text), "go.sum": sum} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
