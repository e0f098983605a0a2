package sessiontoken_test

import (
	"bytes"
	"fmt"
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
	"path"
	"path/filepath"
	"regexp"
	"strconv"
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

// TestReadmeProgramsAreShort: the first program, a whole site, has at most 45 lines
// with its imports. Each program has at most 12 statements in main and one goroutine
// to remember, and nothing else in it calls this library: what stands outside of main
// is the application's own.
func TestReadmeProgramsAreShort(t *testing.T) {
	all := programs(t)
	require.Len(t, all, 2)
	require.LessOrEqual(t, bytes.Count(all[0], []byte("\n")), 45)
	for _, src := range all {
		formatted, err := format.Source(src)
		require.NoError(t, err)
		require.Equal(t, string(formatted), string(src), "gofmt")
		statements, goroutines, outside := wiring(t, src)
		require.LessOrEqual(t, statements, 12)
		require.Equal(t, 1, goroutines)
		require.Empty(t, outside, "calls of this library outside of main")
	}
}

// TestReadmeSecondProgramIsAFile: the README's second program is the one that the
// module sqlstore compiles and runs.
func TestReadmeSecondProgramIsAFile(t *testing.T) {
	require.Equal(t, document(t, "sqlstore/testdata/site/main.go"), string(programs(t)[1]))
}

// TestReadmeRemoteIsShort: a second process needs six lines.
func TestReadmeRemoteIsShort(t *testing.T) {
	for _, fragment := range fragments(t) {
		if strings.Contains(fragment, "remote.New[") {
			require.Equal(t, 6, strings.Count(fragment, "\n"))
			require.Equal(t, 1, strings.Count(fragment, "go "))
			return
		}
	}
	t.Fatal("the README has no remote.New")
}

// wiring counts what a reader has to write, beside the application's own, to have
// sessions:
//
//   - statements: those that stand in main itself, each with all that is in it. A
//     handler that is handed on counts with the statement that hands it on, and a
//     check of an error is one statement.
//   - goroutines: every go statement, wherever it stands.
//   - outside: calls of this library's functions in other functions than main.
func wiring(t *testing.T, src []byte) (statements, goroutines int, outside []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", src, parser.SkipObjectResolution)
	require.NoError(t, err)
	ours := map[string]bool{}
	for _, i := range file.Imports {
		if at, _ := strconv.Unquote(i.Path.Value); strings.HasPrefix(at, module) {
			ours[path.Base(at)] = true
		}
	}
	require.NotEmpty(t, ours)
	for _, decl := range file.Decls {
		inMain := false
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "main" {
			inMain, statements = true, len(f.Body.List)
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				goroutines++
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || inMain {
					return true
				}
				if from, ok := f.X.(*ast.Ident); ok && ours[from.Name] {
					outside = append(outside, from.Name+"."+f.Sel.Name)
				}
			}
			return true
		})
	}
	require.NotZero(t, statements)
	return statements, goroutines, outside
}

// TestReadmeProgramCompiles checks the README's first program in a module of its
// own. The module sqlstore does so with the second one.
func TestReadmeProgramCompiles(t *testing.T) {
	newcomer(t, programs(t)[0], "vet", "-mod=mod", ".")
}

// TestReadmeProgramRuns builds the README's first program in a module of its own,
// as a newcomer would, starts it, is refused with a wrong password, signs in, reads
// the page, signs out and is refused, and reads the keys. Only its port is another
// one.
func TestReadmeProgramRuns(t *testing.T) {
	long(t)
	free, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(free.Addr().String())
	require.NoError(t, err)
	require.NoError(t, free.Close())
	source := programs(t)[0]
	require.Equal(t, 2, bytes.Count(source, []byte("localhost:8080")))
	name := build(t, bytes.ReplaceAll(source, []byte("localhost:8080"), []byte("localhost:"+port)))
	var log bytes.Buffer
	cmd := exec.Command(name)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), &log, &log
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
	for _, wrong := range []url.Values{
		nil, {"name": {"ada"}}, {"name": {"ada"}, "password": {"Demo"}}, {"password": {"demo"}}, {"name": {"grace"}, "password": {"demo"}},
	} {
		status, _ := ask("POST", "/sign-in", wrong)
		require.Equal(t, 401, status, wrong)
		status, _ = ask("GET", "/", nil)
		require.Equal(t, 401, status, wrong)
	}
	status, _ := ask("POST", "/sign-in", url.Values{"name": {"ada"}, "password": {"demo"}})
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

// fragments returns the Go blocks of the documents that are no whole programs.
func fragments(t *testing.T) (blocks []string) {
	t.Helper()
	for _, name := range []string{"README.md", "OPERATING.md", "SECURITY.md"} {
		for _, m := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(document(t, name), -1) {
			if !strings.HasPrefix(m[1], "package ") {
				blocks = append(blocks, m[1])
			}
		}
	}
	require.Greater(t, len(blocks), 5)
	return blocks
}

// given is a program that has what the fragments take as given.
const given = `package main

import (
	"context"
	"crypto"
	"errors"
	"expvar"
	"log"
	"log/slog"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionclient"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type State struct {
	Name, Theme string
	Roles       []string
}

type database struct{}

func (database) LoadState(context.Context, string) (State, error)  { return State{}, nil }
func (database) SetRole(context.Context, string, string) error { return nil }

var (
	ctx           = context.Background()
	db            database
	site          *authority.Authority[State]
	s             *sessionhttp.Sessions[State]
	w             http.ResponseWriter
	r             *http.Request
	store         authority.Store
	secret        []byte
	newest, older []byte
	token         string
	tokens        sessionclient.Tokens
	signer        crypto.Signer
	orders        http.Handler
	load          func(context.Context, *sessiontoken.Claims[State]) (State, error)
	_             = time.Hour
	_             refresh.Config
	_             expvar.Func
	_             remote.Config
	_             revoke.Config
	_             = errors.Is
	_             = log.Print
	_             keys.RingConfig
)

func stream(http.ResponseWriter, context.Context)            {}
func credential(context.Context) (string, error)            { return "", nil }
func answer(http.ResponseWriter, sessionhttp.Tokens, error) {}

func main() {}
`

// TestReadmeFragmentsBuild compiles each part of a program in the documents, which
// has at most 15 lines, in a function of its own.
func TestReadmeFragmentsBuild(t *testing.T) {
	long(t)
	program := []byte(given)
	for _, fragment := range fragments(t) {
		require.LessOrEqual(t, strings.Count(fragment, "\n"), 15, "%s is too long", fragment)
		program = fmt.Appendf(program, "\nfunc _() {\n%s%s}\n", fragment, used(t, fragment))
	}
	build(t, program)
}

// used returns statements that use what a fragment defines and leaves to its
// reader.
func used(t *testing.T, fragment string) (statements string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc _() {\n"+fragment+"}\n", parser.SkipObjectResolution)
	require.NoError(t, err, fragment)
	for _, s := range file.Decls[0].(*ast.FuncDecl).Body.List {
		if a, ok := s.(*ast.AssignStmt); ok && a.Tok == token.DEFINE {
			for _, name := range a.Lhs {
				statements += "_ = " + name.(*ast.Ident).Name + "\n"
			}
		}
	}
	return statements
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
