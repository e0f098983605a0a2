package moving_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// flat returns code on one line with single spaces.
func flat(code string) string { return strings.Join(strings.Fields(code), " ") }

// TestPages: what a page shows is in the programs. A block is a part of a file,
// and each code of a table's row is in before.go and after.go: of the first
// column in the one, of the second in the other.
func TestPages(t *testing.T) {
	riddles := regexp.MustCompile(`(?i)\b(says? whether|whoever|nobody|somebody|everybody|anybody|of whom|lately|genuine|neighbours?|(can|cannot|could not|does not|do not) tell)\b`)
	code := regexp.MustCompile("`([^`]+)`")
	for _, dir := range []string{"scs", "gorilla", "golangjwt"} {
		t.Run(dir, func(t *testing.T) {
			page := read(t, dir, "README.md")
			require.LessOrEqual(t, strings.Count(page, "\n"), 120)
			require.Empty(t, riddles.FindAllString(page, -1))
			files, err := filepath.Glob(filepath.Join(dir, "*.go"))
			require.NoError(t, err)
			all := ""
			for _, f := range files {
				if !strings.HasSuffix(f, "_test.go") {
					all += flat(read(t, f)) + "\n"
				}
			}
			blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(page, -1)
			require.NotEmpty(t, blocks)
			for _, b := range blocks {
				require.Contains(t, all, flat(b[1]))
			}
			_, table, ok := strings.Cut(page, "| before | after | what changes |\n| --- | --- | --- |\n")
			require.True(t, ok)
			table, _, _ = strings.Cut(table, "\n\n")
			before := flat(read(t, dir, "before.go") + read(t, dir, "main.go"))
			after := flat(read(t, dir, "after.go"))
			rows := 0
			for row := range strings.Lines(table) {
				cells := strings.Split(row, "|")
				require.Len(t, cells, 5, row)
				for i, in := range []string{before, after} {
					for _, m := range code.FindAllStringSubmatch(cells[i+1], -1) {
						require.Contains(t, in, m[1])
						rows++
					}
				}
			}
			require.Greater(t, rows, 8)
		})
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(text)
}
