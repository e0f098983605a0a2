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
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindSubmatch(readme)
	require.NotNil(t, block, "the README has no program")

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
	for name, content := range map[string][]byte{"main.go": block[1], "go.mod": []byte(text), "go.sum": sum} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", filepath.Join(dir, "newcomer"), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
