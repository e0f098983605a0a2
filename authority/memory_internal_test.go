package authority

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMemoryPrintsNoSecret: two of them have two secrets, and print none.
func TestMemoryPrintsNoSecret(t *testing.T) {
	a, b := Memory().(*memory), Memory().(*memory)
	require.NotEqual(t, a.secret(), b.secret())
	part := a.secret()[:4]
	shown := []string{fmt.Sprintf("%v", part), fmt.Sprintf("%#v", part), fmt.Sprintf("%x", part), fmt.Sprintf("%q", part)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		text := fmt.Sprintf(verb, a)
		for _, s := range shown {
			require.NotContains(t, text, strings.Trim(s, `[]"{}`), verb)
		}
	}
}
