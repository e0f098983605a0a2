package sessiontoken_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTimesAreReadAndSubtractedInOnePlace: in what ships, internal/clock alone
// reads the clock and subtracts times. Elsewhere a time of one machine could be
// compared with one of another, or the time of a suspended machine with itself.
func TestTimesAreReadAndSubtractedInOnePlace(t *testing.T) {
	elsewhere := []string{"bench", "cmd", "examples", "faults", "storetest", "testdata", "internal/clock"}
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if d.IsDir() {
			if slices.Contains(elsewhere, name) || name != "." && strings.HasPrefix(path.Base(name), ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		dir := path.Dir(name)
		seen[dir] = true
		for _, place := range timesIn(t, name) {
			t.Errorf("%s: use internal/clock", place)
		}
		return nil
	})
	require.NoError(t, err)
	for _, dir := range []string{".", "authority", "keys", "oidclogin", "refresh", "remote", "revoke", "sessionclient", "sessiongrpc", "sessionhttp", "sessiontest", "redisstore", "sqlstore", "sqlstore/postgres", "sqlstore/sqlite", "internal/flight"} {
		require.True(t, seen[dir], "%s was not looked at", dir)
	}
}

// timesIn returns where a file reads the clock or subtracts times. A method Sub
// with one argument counts as that of a time.
func timesIn(t *testing.T, name string) (places []string) {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	timeName := ""
	for _, i := range file.Imports {
		if i.Path.Value == `"time"` {
			timeName = "time"
			if i.Name != nil {
				timeName = i.Name.Name
			}
		}
	}
	require.NotEqual(t, ".", timeName, name)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr: // also as a value
			x, ok := n.X.(*ast.Ident)
			if ok && timeName != "" && x.Name == timeName && (n.Sel.Name == "Now" || n.Sel.Name == "Since" || n.Sel.Name == "Until") {
				places = append(places, fset.Position(n.Pos()).String())
			}
		case *ast.CallExpr:
			f, ok := n.Fun.(*ast.SelectorExpr)
			if ok && f.Sel.Name == "Sub" && len(n.Args) == 1 {
				places = append(places, fset.Position(n.Pos()).String())
			}
		}
		return true
	})
	return places
}
