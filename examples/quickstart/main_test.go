package main

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// temporary gives the program a folder of its own for temporary files: it writes none.
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
	require.Empty(t, left, "keys or tokens were written to disk")
}

// TestQuickstart runs the story in real time: each of its steps checks itself.
func TestQuickstart(t *testing.T) {
	dir := temporary(t)
	var out bytes.Buffer
	err := run(t.Context(), &out)
	require.NoError(t, err, "%s", out.String())
	require.Contains(t, out.String(), "\n10. ")
	require.Contains(t, out.String(), "Everything held.")
	require.NotRegexp(t, `eyJ[\w-]{20}`, out.String(), "a token was printed")
	requireEmpty(t, dir)
}

// TestInterrupted: Ctrl-C ends it soon, and leaves nothing behind either.
func TestInterrupted(t *testing.T) {
	dir := temporary(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := run(ctx, writerFunc(func(p []byte) (int, error) {
		if bytes.HasPrefix(p, []byte("\n7. ")) { // a step that waits
			cancel()
		}
		return len(p), nil
	}))
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, dir)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
