package sessiontoken_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestVoice: comments of what ships name the one who acts, in the words of the
// field.
func TestVoice(t *testing.T) {
	riddle := regexp.MustCompile(`(?i)\b(says? whether|whoever|nobody|somebody|everybody|anybody|of whom|lately)\b`)
	require.Regexp(t, riddle, "Whoever holds it")
	comments := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || path == "bench" || path == "faults" || len(path) > 1 && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, group := range file.Comments {
			comments++
			require.NotRegexp(t, riddle, group.Text(), "%s", set.Position(group.Pos()))
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, comments, 1000)
}
