package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQuickstart runs the story: each of its steps checks itself.
func TestQuickstart(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	require.NoError(t, err, "%s", out.String())
	require.Contains(t, out.String(), "\n8. ")
	require.Contains(t, out.String(), "Everything held.")
}
