package main

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// temporary gives the program a folder of its own for temporary files.
func temporary(t *testing.T) (dir string) {
	dir = t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP"} { // Unix, Windows
		t.Setenv(name, dir)
	}
	return dir
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "the keys were left behind")
}

// TestQuickstart runs the story in real time: each of its steps checks itself.
func TestQuickstart(t *testing.T) {
	dir := temporary(t)
	var out bytes.Buffer
	err := run(t.Context(), &out)
	require.NoError(t, err, "%s", out.String())
	require.Contains(t, out.String(), "\n9. ")
	require.Contains(t, out.String(), "Everything held.")
	require.NotRegexp(t, `eyJ[\w-]{20}`, out.String(), "a token was printed")
	requireEmpty(t, dir)
}

// TestInterrupted: Ctrl-C leaves no keys behind either.
func TestInterrupted(t *testing.T) {
	dir := temporary(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := run(ctx, writerFunc(func(p []byte) (int, error) {
		if bytes.HasPrefix(p, []byte("\n4. ")) { // the step that waits
			cancel()
		}
		return len(p), nil
	}))
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, dir)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
