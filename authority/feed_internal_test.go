package authority

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFeedTokensAreComparedAlike: no token of a request, and none of the
// configuration, takes another way than the others: one loop over all hashes,
// without an end before the last.
func TestFeedTokensAreComparedAlike(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "feedhandler.go", nil, 0)
	require.NoError(t, err)
	loops, compares := 0, 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "permits" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.RangeStmt:
				loops++
				require.Len(t, n.Body.List, 1)
				ast.Inspect(n.Body, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.BranchStmt, *ast.ReturnStmt, *ast.IfStmt, *ast.SwitchStmt:
						t.Errorf("a branch in the loop: %T", n)
					case *ast.SelectorExpr:
						if n.Sel.Name == "ConstantTimeCompare" {
							compares++
						}
					}
					return true
				})
			case *ast.IfStmt, *ast.SwitchStmt, *ast.BranchStmt:
				t.Errorf("a branch: %T", n)
			}
			return true
		})
	}
	require.Equal(t, 1, loops)
	require.Equal(t, 1, compares)
}

// FuzzFeedQuery: no query ends the handler, and one that is taken is within its
// bounds.
func FuzzFeedQuery(f *testing.F) {
	for _, q := range []string{"", "nonce=n", "nonce=n&cursor=5&age=0", "nonce=n&wait=1", "nonce=n&key=k", "nonce=%zz", "nonce=a;b", "nonce=n&cursor=%00%ff", "nonce=n&wait=99999999999", "nonce=n&nonce=n"} {
		f.Add(q)
	}
	const token = "0123456789abcdef0123456789abcdef"
	cfg := Config[struct{}]{Issuer: "https://auth.example", Namespace: "https://auth.example", Store: Memory(), Secrets: [][]byte{[]byte(token)}, FeedTokens: []string{token}}
	h, err := newFeedHandler(&cfg, newFeedLog(cfg.Store))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := parseFeedQuery(raw)
		if err == nil {
			require.NotEmpty(t, q.nonce)
			require.LessOrEqual(t, len(q.nonce), maxFeedNonce)
			require.LessOrEqual(t, len(q.cursor), maxFeedCursor)
			require.LessOrEqual(t, q.wait, maxFeedWait)
			require.Empty(t, strings.Trim(q.nonce, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
		}
		if q.waits { // it would wait
			return
		}
		r := httptest.NewRequest(http.MethodGet, "https://auth.example"+feedPath, nil)
		r.URL.RawQuery = raw
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if err != nil {
			require.Equal(t, http.StatusBadRequest, w.Code)
		} else {
			require.Contains(t, []int{http.StatusOK, http.StatusNotFound, http.StatusServiceUnavailable}, w.Code)
		}
	})
}
