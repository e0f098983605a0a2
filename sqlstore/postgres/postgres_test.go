package postgres_test

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/servers"
)

// TestExampleOpen runs the example, with a server of its own.
func TestExampleOpen(t *testing.T) {
	at, stop, err := servers.Postgres()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: PostgreSQL is not installed")
	}
	require.NoError(t, err)
	defer stop()
	said := dsn
	defer func() { dsn = said }()
	dsn = at
	require.Equal(t, "true <nil>\n", printed(t, ExampleOpen))
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
