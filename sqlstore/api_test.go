package sqlstore_test

import (
	"bytes"
	"flag"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write testdata/api.txt")

// TestAPI holds the exported names to testdata/api.txt: a difference is a
// change of the API, to be reviewed as one and written with -update.
func TestAPI(t *testing.T) {
	var all strings.Builder
	for _, dir := range []string{".", "postgres", "sqlite"} {
		all.WriteString("package " + dir + "\n\t" + strings.Join(exported(t, dir), "\n\t") + "\n")
	}
	const golden = "testdata/api.txt"
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(all.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), all.String())
}

// exported returns what a package exports. Each name has a comment.
func exported(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if !strings.HasSuffix(path, "_test.go") {
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
			require.NoError(t, err)
			files = append(files, file)
		}
	}
	pkg, err := doc.NewFromFiles(fset, files, "x")
	require.NoError(t, err)
	require.NotEmpty(t, pkg.Doc)
	text := func(node any) string {
		var b bytes.Buffer
		require.NoError(t, format.Node(&b, fset, node))
		return strings.Join(strings.Fields(b.String()), " ")
	}
	values := func(list []*doc.Value) {
		for _, v := range list {
			require.NotEmpty(t, v.Doc, v.Names)
			for _, name := range v.Names {
				names = append(names, v.Decl.Tok.String()+" "+name)
			}
		}
	}
	funcs := func(list []*doc.Func) {
		for _, f := range list {
			require.NotEmpty(t, f.Doc, f.Name)
			f.Decl.Doc, f.Decl.Body = nil, nil
			names = append(names, text(f.Decl))
		}
	}
	values(pkg.Consts)
	values(pkg.Vars)
	funcs(pkg.Funcs)
	for _, ty := range pkg.Types {
		require.NotEmpty(t, ty.Doc, ty.Name)
		names = append(names, "type "+ty.Name)
		values(ty.Consts)
		values(ty.Vars)
		funcs(ty.Funcs)
		funcs(ty.Methods)
		for _, spec := range ty.Decl.Specs {
			if fields, ok := spec.(*ast.TypeSpec).Type.(*ast.StructType); ok {
				for _, field := range fields.Fields.List {
					for _, name := range field.Names {
						if name.IsExported() {
							names = append(names, "field "+ty.Name+"."+name.Name+" "+text(field.Type))
						}
					}
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
