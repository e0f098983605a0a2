package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
	"github.com/sessiontoken/sessiontoken/storetest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNewNamesTheField(t *testing.T) {
	_, err := sqlstore.New(sqlstore.Config{})
	require.ErrorContains(t, err, "Config.DB")
	_, err = sqlstore.New(sqlstore.Config{DB: new(sql.DB), Dialect: "mysql"})
	require.ErrorContains(t, err, "Config.Dialect")
}

// The store does what storetest asks of one, on each engine.
func TestStore(t *testing.T) {
	suite := func(t *testing.T, open func(context.Context, string) (*sqlstore.Store, error), place func(t *testing.T) string) {
		two := func(t *testing.T) (a, b *sqlstore.Store) {
			at := place(t)
			for _, s := range []**sqlstore.Store{&a, &b} {
				var err error
				*s, err = open(t.Context(), at)
				require.NoError(t, err)
				t.Cleanup(func() { _ = (*s).Close() })
			}
			return a, b
		}
		storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return two(t) })
		storetest.Revocations(t, func(t *testing.T) (a, b revoke.Store) { return two(t) })
		storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return two(t) })
		storetest.AllFamilies(t, func(t *testing.T) (a, b refresh.AllLister) { return two(t) })
		storetest.Grants(t, two)
	}
	t.Run("sqlite", func(t *testing.T) {
		suite(t, sqlite.Open, func(t *testing.T) string { return filepath.Join(t.TempDir(), "sessions 100%.db") })
	})
	t.Run("postgres", func(t *testing.T) { suite(t, postgres.Open, newSchema(t)) })
}

// newSchema returns what makes schemas in the PostgreSQL that
// SESSIONTOKEN_POSTGRES names, and returns their connection strings. It skips the
// test where none is named, but in CI.
func newSchema(t *testing.T) func(t *testing.T) string {
	t.Helper()
	dsn := os.Getenv("SESSIONTOKEN_POSTGRES")
	if dsn == "" && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: SESSIONTOKEN_POSTGRES names no server")
	}
	require.NotEmpty(t, dsn, "SESSIONTOKEN_POSTGRES")
	at, err := url.Parse(dsn)
	require.NoError(t, err)
	admin := must(postgres.DB(dsn))
	t.Cleanup(func() { _ = admin.Close() })
	schemas, began := 0, time.Now().UnixNano()
	return func(t *testing.T) string {
		t.Helper()
		schemas++
		name := fmt.Sprintf("test_%d_%d", began, schemas)
		must(admin.Exec("CREATE SCHEMA " + name))
		within := *at
		query := within.Query()
		query.Set("search_path", name)
		within.RawQuery = query.Encode()
		return within.String()
	}
}

// What cannot be opened is an error with advice, and without the password.
func TestOpenErrors(t *testing.T) {
	folder := t.TempDir()
	for _, row := range []struct {
		name, at string
		open     func(context.Context, string) (*sqlstore.Store, error)
		says     string
	}{
		{"no path", "", sqlite.Open, "path is empty"},
		{"memory", ":memory:", sqlite.Open, ":memory:"},
		{"a folder", folder, sqlite.Open, "check its path"},
		{"in a folder that is not there", filepath.Join(folder, "none", "x.db"), sqlite.Open, "check its path"},
		{"no connection string", "postgres://ada:hunter2@127.0.0.1:none/x", postgres.Open, "connection string"},
		{"a password with a bare %", "postgres://ada:hunter2%zz@127.0.0.1/x", postgres.Open, "connection string"},
		{"an unknown mode", "postgres://ada:hunter2@127.0.0.1/x?default_query_exec_mode=hunter2", postgres.Open, "connection string"},
		{"a certificate that is not there", "postgres://ada:hunter2@127.0.0.1/x?sslmode=verify-full&sslrootcert=/none/ca.pem", postgres.Open, "ca.pem"},
		{"no server", "postgres://ada:hunter2@127.0.0.1:1/x?sslmode=disable", postgres.Open, "cannot be reached"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, err := row.open(t.Context(), row.at)
			require.ErrorContains(t, err, row.says)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), "zz")
			require.Nil(t, s)
		})
	}
	info, err := os.Stat(folder)
	require.NoError(t, err)
	require.NotZero(t, info.Mode().Perm()&0o055, "a folder that was named by mistake is left as it is")
}

// A program links the driver of the engine that it opens, and this package
// none.
func TestLinkedDrivers(t *testing.T) {
	for _, row := range []struct {
		pkg   string
		links []string
		not   []string
	}{
		{".", nil, []string{"modernc.org/", "github.com/jackc/", "github.com/stretchr/"}},
		{"./postgres", []string{"github.com/jackc/pgx/v5"}, []string{"modernc.org/", "github.com/stretchr/"}},
		{"./sqlite", []string{"modernc.org/sqlite"}, []string{"github.com/jackc/", "github.com/stretchr/"}},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", row.pkg).Output()
		require.NoError(t, err)
		deps := strings.Fields(string(out))
		for _, want := range row.links {
			require.Contains(t, deps, want, row.pkg)
		}
		for _, dep := range deps {
			for _, not := range row.not {
				require.False(t, strings.HasPrefix(dep, not), "%s links %s", row.pkg, dep)
			}
		}
	}
}
