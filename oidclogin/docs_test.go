package oidclogin_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReasonsAreDocumented: the table of log lines in README.md has each reason
// that the code gives, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	code := shipped(t)
	var given []string
	for _, m := range regexp.MustCompile(`\.Warn\("([a-z_]+)(: )?"`).FindAllStringSubmatch(code, -1) {
		reason := m[1]
		if m[2] != "" {
			reason += ": …"
		}
		given = append(given, reason)
	}
	slices.Sort(given)
	require.ElementsMatch(t, slices.Compact(given), firstColumn(t, "| reason | then |\n| --- | --- |\n"))
}

// TestMetricsAreDocumented: each metric that README.md names is one.
func TestMetricsAreDocumented(t *testing.T) {
	code := shipped(t)
	names := firstColumn(t, "| metric | healthy | otherwise |\n| --- | --- | --- |\n")
	require.NotEmpty(t, names)
	for _, name := range names {
		require.Contains(t, code, `"`+name+`"`)
	}
}

// firstColumn returns what is in backquotes in the first column of a table.
func firstColumn(t *testing.T, head string) (names []string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(text), head)
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			names = append(names, m[1])
		}
	}
	return names
}

func shipped(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var code strings.Builder
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			raw, err := os.ReadFile(name)
			require.NoError(t, err)
			code.Write(raw)
		}
	}
	return code.String()
}
