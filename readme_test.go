package sessiontoken_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReadmeProgramBuilds compiles the README's first Go block as a program in
// a module of its own, as a newcomer would.
func TestReadmeProgramBuilds(t *testing.T) {
	block := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindSubmatch(readme(t))
	require.NotNil(t, block, "the README has no program")
	build(t, block[1])
}

// TestReadmeFragmentsBuild does so for the parts on browsers, native clients and
// metrics, within a program that has what they take as given.
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

func build(t *testing.T, program []byte) {
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
	cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", filepath.Join(dir, "newcomer"), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
