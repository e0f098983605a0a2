package oidclogin_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The package imports of this library what its place permits, and links of
// others the two libraries for OpenID, the JSON that the root module uses, and
// what these need.
func TestArrows(t *testing.T) {
	const module = "github.com/sessiontoken/sessiontoken"
	list := func(args ...string) []string {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
		out, err := cmd.Output()
		require.NoError(t, err)
		return strings.Fields(string(out))
	}
	ours := []string{"", "/sessionhttp", "/revoke", "/keys", "/internal/arg", "/internal/clock", "/internal/flight", "/internal/jws", "/internal/loud", "/internal/strictjson", "/internal/tally"}
	others := []string{"github.com/coreos/go-oidc/v3/oidc", "github.com/go-jose/go-jose/v4", "github.com/go-json-experiment/json", "github.com/go-json-experiment/json/jsontext", "golang.org/x/oauth2"}
	seen := 0
	for _, i := range list("-f", `{{join .Imports "\n"}}`, ".") {
		rest, own := strings.CutPrefix(i, module)
		switch {
		case own:
			require.Contains(t, ours, rest)
			seen++
		case strings.Contains(strings.SplitN(i, "/", 2)[0], "."):
			require.Contains(t, others, i)
			seen++
		}
	}
	require.Greater(t, seen, 8)

	linked := []string{
		module, "github.com/coreos/go-oidc/v3", "github.com/go-jose/go-jose/v4", "golang.org/x/oauth2",
		"github.com/golang-jwt/jwt/v5", "github.com/go-json-experiment/json", "github.com/maypok86/otter/v2", "github.com/lestrrat-go/jwx/v2",
		"github.com/lestrrat-go/blackmagic", "github.com/lestrrat-go/httpcc", "github.com/lestrrat-go/httprc", "github.com/lestrrat-go/iter",
		"github.com/lestrrat-go/option", "github.com/segmentio/asm", "github.com/decred/dcrd/dcrec/secp256k1/v4", "golang.org/x/crypto", "golang.org/x/sys",
	}
	for _, p := range list("-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, ".") {
		require.True(t, slices.ContainsFunc(linked, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") }), "%s is linked", p)
	}
}
