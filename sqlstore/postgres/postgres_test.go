package postgres_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExampleOpen runs the example, with the server that SESSIONTOKEN_POSTGRES
// names.
func TestExampleOpen(t *testing.T) {
	at := os.Getenv("SESSIONTOKEN_POSTGRES")
	if at == "" && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: SESSIONTOKEN_POSTGRES names no server")
	}
	require.NotEmpty(t, at, "SESSIONTOKEN_POSTGRES")
	said := dsn
	defer func() { dsn = said }()
	dsn = at
	require.Equal(t, "true\n", printed(t, ExampleOpen))
}

// printed is what a function prints.
func printed(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer file.Close()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	os.Stdout = file
	f()
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	return string(text)
}
