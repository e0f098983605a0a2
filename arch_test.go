package sessiontoken_test

import (
	"bytes"
	"cmp"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

const module = "github.com/sessiontoken/sessiontoken"

type listed struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Standard,Imports,TestImports,XTestImports"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []listed
	for part := range strings.SplitSeq(string(out), "\n}\n") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		var p listed
		require.NoError(t, json.Unmarshal([]byte(part+"}"), &p))
		all = append(all, p)
	}
	return all
}

// TestDependencies: what a user's binary links is the standard library and the
// modules that the README names, with what those need.
func TestDependencies(t *testing.T) {
	allowed := []string{
		module,
		"github.com/golang-jwt/jwt/v5",
		"github.com/go-json-experiment/json",
		"github.com/maypok86/otter/v2",
		"github.com/lestrrat-go/jwx/v2",
		// What jwx's jwk package needs.
		"github.com/lestrrat-go/blackmagic", "github.com/lestrrat-go/httpcc", "github.com/lestrrat-go/httprc", "github.com/lestrrat-go/iter",
		"github.com/lestrrat-go/option", "github.com/segmentio/asm", "github.com/decred/dcrd/dcrec/secp256k1/v4", "golang.org/x/crypto", "golang.org/x/sys",
		"github.com/goccy/go-json", // with the build tag jwx_goccy alone
	}
	for _, p := range goList(t, "-deps", module, module+"/authority", module+"/event", module+"/keys", module+"/refresh", module+"/remote", module+"/revoke", module+"/sessionclient", module+"/sessionhttp", module+"/sessiontest") {
		if p.Standard {
			continue
		}
		require.True(t, slices.ContainsFunc(allowed, func(a string) bool { return p.ImportPath == a || strings.HasPrefix(p.ImportPath, a+"/") }),
			"%s is linked into users' binaries", p.ImportPath)
	}
}

// TestArrows: arrows between packages only point to something smaller, and jwx
// is imported in one place.
func TestArrows(t *testing.T) {
	arrows := map[string][]string{
		"":                     {"event", "keys", "revoke", "internal/arg", "internal/clock", "internal/flight", "internal/jws", "internal/loud", "internal/notify", "internal/sid", "internal/strictjson", "internal/tally"},
		"/event":               {}, // and the standard library
		"/keys":                {"event", "internal/arg", "internal/clock", "internal/flight", "internal/jwk", "internal/jws", "internal/loud", "internal/notify", "internal/strictjson", "internal/tally"},
		"/internal/jws":        {"internal/strictjson"},
		"/internal/jwk":        {"internal/strictjson"},
		"/internal/strictjson": {},
		"/internal/flight":     {"internal/clock"},
		"/internal/loud":       {"internal/clock"},
		"/internal/digest":     {},
		"/internal/notify":     {"event", "internal/digest", "internal/loud"},
		"/internal/arg":        {},
		"/internal/derive":     {},
		"/internal/testhook":   {},
		"/internal/clock":      {},
		"/internal/sid":        {},
		"/internal/tally":      {},
		"/refresh":             {"event", "revoke", "internal/arg", "internal/clock", "internal/loud", "internal/notify", "internal/strictjson"},
		"/authority":           {"", "event", "internal/arg", "internal/clock", "internal/derive", "internal/flight", "internal/loud", "keys", "refresh", "revoke", "sessionhttp"},
		"/remote":              {"", "event", "internal/arg", "internal/clock", "internal/flight", "internal/loud", "internal/strictjson", "keys", "revoke", "sessionhttp"},
		"/revoke":              {"event", "internal/arg", "internal/clock", "internal/digest", "internal/flight", "internal/loud", "internal/notify", "internal/sid"},
		"/sessionclient":       {"internal/arg", "internal/clock", "internal/flight"}, // and the standard library
		"/sessionhttp":         {"", "event", "internal/arg", "internal/clock", "internal/flight", "internal/loud", "internal/notify", "internal/testhook", "refresh", "revoke"},
		"/sessiontest":         {"", "internal/testhook", "keys", "sessionhttp"},
		"/storetest":           {"internal/clock", "keys", "refresh", "revoke"},
		"/examples/quickstart": {"", "authority", "keys", "remote", "sessionhttp"},
	}
	seen := 0
	for _, p := range goList(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		want, ok := arrows[name]
		require.True(t, ok, "a package without a place: %s", p.ImportPath)
		seen++
		for _, i := range p.Imports {
			if rest, ours := strings.CutPrefix(i, module); ours {
				require.Contains(t, want, strings.TrimPrefix(rest, "/"), "%s imports %s", p.ImportPath, i)
			}
			if strings.HasPrefix(i, "github.com/lestrrat-go/") {
				require.Equal(t, "/internal/jwk", name, "jwx is for internal/jwk")
				require.Equal(t, "github.com/lestrrat-go/jwx/v2/jwk", i)
			}
			require.NotContains(t, i, "testify")
			if name == "/sessionclient" && !strings.HasPrefix(i, module) {
				require.NotContains(t, i, ".", "sessionclient needs the standard library alone")
			}
			require.False(t, name == "" && i == "crypto/tls", "the root serves over HTTP, and fetches nothing")
		}
	}
	require.Equal(t, len(arrows), seen)
}

// TestInternalShips: all of internal/ is linked by a package that users import, and
// nothing there is for tests alone.
func TestInternalShips(t *testing.T) {
	var public []string
	inside := map[string]bool{}
	for _, p := range goList(t, "./...") {
		switch {
		case strings.HasPrefix(p.ImportPath, module+"/internal/"):
			inside[p.ImportPath] = true
		case !strings.HasPrefix(p.ImportPath, module+"/examples/"):
			public = append(public, p.ImportPath)
		}
	}
	require.NotEmpty(t, inside)
	for _, p := range goList(t, append([]string{"-deps"}, public...)...) {
		delete(inside, p.ImportPath)
	}
	require.Empty(t, inside)
}

// TestTaggedModules: a module that a release tags requires no other of ours than
// tagged ones.
func TestTaggedModules(t *testing.T) {
	tagged := regexp.MustCompile(`(?m)^TAGGED='(.+)'$`).FindStringSubmatch(document(t, ".ci/modules"))
	require.NotNil(t, tagged)
	folders := strings.Fields(tagged[1])
	require.Contains(t, folders, "redisstore")
	for _, folder := range folders {
		for _, m := range regexp.MustCompile(module+`(?:/(\S+))? v`).FindAllStringSubmatch(document(t, folder+"/go.mod"), -1) {
			require.Contains(t, folders, cmp.Or(m[1], "."), "%s/go.mod", folder)
		}
	}
}

// TestAPI holds the exported names to testdata/api.txt: a difference is a
// change of the API, to be reviewed as one and written with -update.
func TestAPI(t *testing.T) {
	var out bytes.Buffer
	dirs := []string{".", "authority", "event", "keys", "refresh", "remote", "revoke", "sessionclient", "sessionhttp", "sessiontest", "storetest"}
	for _, dir := range dirs {
		out.WriteString("package " + dir + "\n")
		for _, n := range exported(t, dir) {
			out.WriteString("\t" + n + "\n")
		}
	}
	const golden = "testdata/api.txt"
	if *update {
		require.NoError(t, os.WriteFile(golden, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
}

// TestFewNames bounds the lines in which go doc -short lists a package, of every
// package of every module that a user imports: each line is one more name to
// learn. A group of constants or variables is one line, and methods are none.
func TestFewNames(t *testing.T) {
	long(t)
	most := map[string]int{".": 34, "keys": 30, "authority": 8}
	const others = 14
	seen := 0
	for _, dir := range importable(t) {
		cmd := exec.CommandContext(t.Context(), "go", "doc", "-short")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", dir, out)
		bar, ok := most[dir]
		if !ok {
			bar = others
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		require.LessOrEqual(t, len(lines), bar, "%s has too many names:\n%s", dir, out)
		seen++
	}
	require.GreaterOrEqual(t, seen, 14)
}

// importable returns the directories of the packages that users import. The
// modules bench, examples/apps and faults are never tagged.
func importable(t *testing.T) (dirs []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		name := d.Name()
		if path != "." && (strings.HasPrefix(name, ".") || slices.Contains([]string{"internal", "testdata", "bench", "examples", "faults"}, name)) {
			return filepath.SkipDir
		}
		files, err := filepath.Glob(filepath.Join(path, "*.go"))
		if err != nil {
			return err
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.PackageClauseOnly)
			if err != nil {
				return err
			}
			if file.Name.Name != "main" {
				dirs = append(dirs, path)
			}
			break
		}
		return nil
	}))
	return dirs
}

// specDoc returns the comment of one name within a group of constants or
// variables.
func specDoc(group *ast.GenDecl, name string) string {
	for _, spec := range group.Specs {
		if v, ok := spec.(*ast.ValueSpec); ok && v.Names[0].Name == name {
			return v.Doc.Text() + v.Comment.Text()
		}
	}
	return ""
}

func exported(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	fset := token.NewFileSet()
	var parsed []*ast.File
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || strings.HasSuffix(f, "_windows.go") || strings.HasSuffix(f, "_other.go") {
			continue
		}
		file, err := parser.ParseFile(fset, f, nil, parser.ParseComments)
		require.NoError(t, err)
		parsed = append(parsed, file)
	}
	pkg, err := doc.NewFromFiles(fset, parsed, module)
	require.NoError(t, err)
	text := func(node any) string {
		var b bytes.Buffer
		require.NoError(t, format.Node(&b, fset, node))
		return strings.Join(strings.Fields(b.String()), " ")
	}
	add := func(s string) { names = append(names, s) }
	values := func(kind string, list []*doc.Value) {
		for _, v := range list {
			for _, n := range v.Names {
				if ast.IsExported(n) {
					require.NotEmpty(t, v.Doc+v.Decl.Doc.Text()+specDoc(v.Decl, n), n)
					add(kind + " " + n)
				}
			}
		}
	}
	funcs := func(kind string, list []*doc.Func) {
		for _, f := range list {
			require.NotEmpty(t, f.Doc, "%s has no documentation", f.Name)
			f.Decl.Doc, f.Decl.Body = nil, nil
			add(kind + " " + strings.TrimPrefix(text(f.Decl), "func "))
		}
	}
	values("const", pkg.Consts)
	values("var", pkg.Vars)
	funcs("func", pkg.Funcs)
	for _, ty := range pkg.Types {
		require.NotEmpty(t, ty.Doc, "%s has no documentation", ty.Name)
		add("type " + ty.Name)
		values("const", ty.Consts)
		values("var", ty.Vars)
		funcs("func", ty.Funcs)
		funcs("method", ty.Methods)
		for _, spec := range ty.Decl.Specs {
			var list *ast.FieldList
			switch x := spec.(*ast.TypeSpec).Type.(type) {
			case *ast.StructType:
				list = x.Fields
			case *ast.InterfaceType:
				list = x.Methods
			default:
				continue
			}
			for _, field := range list.List {
				for _, n := range field.Names {
					if ast.IsExported(n.Name) {
						add("field " + ty.Name + "." + n.Name + " " + text(field.Type))
					}
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
