package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// opened opens a store at a place with its engine's Open, as programs do.
func opened(t *testing.T, d sqlstore.Dialect, at string) *sqlstore.Store {
	t.Helper()
	open := sqlite.Open
	if d == sqlstore.Postgres {
		open = postgres.Open
	}
	s, err := open(t.Context(), at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// emptyPlace is a place without tables.
func emptyPlace(t *testing.T, d sqlstore.Dialect) string {
	t.Helper()
	if d == sqlstore.Postgres {
		return newSchema(t)
	}
	return filepath.Join(t.TempDir(), "sessions 100%.db")
}

// A program that opens its store has the tables, and what it wrote is there for
// the next one. What is closed is an error.
func TestOpen(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at := emptyPlace(t, d)
		s := opened(t, d, at)
		rev, err := s.Save(t.Context(), "", []byte("x"), "")
		require.NoError(t, err)
		require.NoError(t, s.Close())
		_, err = s.Load(t.Context(), "")
		require.Error(t, err)
		require.Equal(t, rev, must(opened(t, d, at).Load(t.Context(), "")).Rev)
	})
}

// A handle of one engine with the dialect of another is told at the first call,
// of whatever kind, also where the other engine's tables are there.
func TestWrongDialect(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		wrong := map[sqlstore.Dialect]sqlstore.Dialect{sqlstore.SQLite: sqlstore.Postgres, sqlstore.Postgres: sqlstore.SQLite}[d]
		for _, tables := range []bool{false, true} {
			at := emptyPlace(t, d)
			db := openAt(d, at)
			defer db.Close()
			if tables {
				createSchema(t, d, at)
			}
			for name, call := range map[string]func(s *sqlstore.Store) error{
				"CreateSchema": func(s *sqlstore.Store) error { return s.CreateSchema(t.Context()) },
				"Load":         func(s *sqlstore.Store) error { _, err := s.Load(t.Context(), ""); return err },
				"Revisions":    func(s *sqlstore.Store) error { _, _, err := s.Revisions(t.Context(), ""); return err },
				"Append":       func(s *sqlstore.Store) error { return s.Append(t.Context(), entry("x")) },
				"Since":        func(s *sqlstore.Store) error { _, err := s.Since(t.Context(), ""); return err },
				"Find":         func(s *sqlstore.Store) error { _, err := s.Find(t.Context(), "", "x"); return err },
			} {
				err := call(must(sqlstore.New(sqlstore.Config{DB: db, Dialect: wrong})))
				require.ErrorContains(t, err, fmt.Sprintf("Config.Dialect is %q", wrong), name)
				require.ErrorContains(t, err, "package sqlstore/"+string(d), name)
			}
		}
	})
}

// A store that is opened prepares nothing by name, unless the connection string
// says how statements are sent.
func TestPostgresPreparesNothing(t *testing.T) {
	dsn := newSchema(t)
	prepared := func(dsn string) (n int) {
		db := must(postgres.DB(dsn))
		defer db.Close()
		db.SetMaxOpenConns(1)
		s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres}))
		require.NoError(t, s.CreateSchema(t.Context()))
		require.NoError(t, everyCall(t.Context(), s, fmt.Sprint("x", databases.Add(1))))
		require.NoError(t, db.QueryRow("SELECT count(*) FROM pg_prepared_statements").Scan(&n))
		return n
	}
	require.Zero(t, prepared(dsn))
	require.Greater(t, prepared(dsn+"&default_query_exec_mode=cache_statement"), 5, "the test would notice")
}

// everyCall calls every method once.
func everyCall(ctx context.Context, s *sqlstore.Store, id string) error {
	record := refresh.Record{Namespace: "ns", ID: id, Subject: id, SessionID: id, Version: 1, Until: time.Now().Add(time.Hour).Truncate(time.Millisecond), Data: []byte("d")}
	changed := record
	changed.Version = 2
	for _, call := range []func() error{
		func() error { return s.Append(ctx, entry(id), entry(id+"'")) },
		func() error { _, err := s.Since(ctx, ""); return err },
		func() error { return s.Create(ctx, record) },
		func() error { return s.Swap(ctx, changed) },
		func() error { _, err := s.Find(ctx, "ns", id); return err },
		func() error { _, err := s.List(ctx, "ns", id); return err },
		func() error { return s.DeleteSubject(ctx, "ns", id, "spared") },
		func() error { return s.DeleteSession(ctx, "ns", id) },
		func() error { return s.Delete(ctx, "ns", id) },
		func() error {
			rev, err := s.Save(ctx, id, []byte("one"), "")
			if err == nil {
				_, err = s.Save(ctx, id, []byte("two"), rev)
			}
			return err
		},
		func() error { _, err := s.Load(ctx, id); return err },
		func() error { _, _, err := s.Revisions(ctx, id, "another"); return err },
	} {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}

// A pooler gives each transaction another connection: with Open no call fails,
// and with a handle that prepares statements the error says what to set.
func TestPgBouncer(t *testing.T) {
	server := shared(t)
	dsn := newDatabase(t)
	pooler, err := servers.StartPgBouncer(server)
	installed(t, err)
	defer pooler.Stop()
	behind := strings.Replace(dsn, server.Addr, pooler.Addr, 1)
	s := opened(t, sqlstore.Postgres, behind)

	const workers, rounds = 20, 10
	run := func(s *sqlstore.Store) (failed int64, last error) {
		var working sync.WaitGroup
		var mu sync.Mutex
		var n atomic.Int64
		for w := range workers {
			working.Go(func() {
				for r := range rounds {
					if err := everyCall(t.Context(), s, fmt.Sprint(databases.Add(1), "-", w, "-", r)); err != nil {
						n.Add(1)
						mu.Lock()
						last = err
						mu.Unlock()
					}
				}
			})
		}
		working.Wait()
		return n.Load(), last
	}
	failed, err := run(s)
	require.NoError(t, err)
	require.Zero(t, failed)

	db := must(sql.Open("pgx", behind)) // as a program has it that opens the database itself
	defer db.Close()
	require.IsType(t, stdlib.GetDefaultDriver(), db.Driver())
	failed, err = run(must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres})))
	require.Positive(t, failed, "the test would notice")
	require.ErrorContains(t, err, "default_query_exec_mode")
	t.Logf("%d of %d rounds failed with statements that are prepared: %v", failed, workers*rounds, err)

	_, err = postgres.Open(t.Context(), behind+"&search_path=public")
	require.ErrorContains(t, err, "ALTER ROLE")
}

// CreateSchema and Open say what is missing where tables cannot be created.
func TestOpenWithoutRights(t *testing.T) {
	dsn := newDatabase(t)
	admin := must(postgres.DB(dsn))
	defer admin.Close()
	must(admin.Exec("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN; CREATE SCHEMA closed"))
	asGuest := strings.Replace(dsn, "bench@", "guest@", 1)
	for _, row := range []struct{ name, dsn, says string }{
		{"no right to create", asGuest, "may not create tables"},
		{"no such schema", dsn + "&search_path=nowhere", "search_path"},
		{"a schema that the user may not use", asGuest + "&search_path=closed", "USAGE"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := postgres.Open(t.Context(), row.dsn)
			require.ErrorContains(t, err, row.says)
			t.Log(err)
		})
	}
	must(admin.Exec(sqlstore.Schema(sqlstore.Postgres)))
	must(admin.Exec("GRANT SELECT, INSERT, UPDATE, DELETE ON sessiontoken_schema, sessiontoken_rings, sessiontoken_revocations, sessiontoken_families TO guest"))
	opened(t, sqlstore.Postgres, asGuest) // a migration made the tables
}

// Two tenants in one database never meet, in any of the three kinds.
func TestTenants(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at := emptyPlace(t, d)
		faults.Tenants(t, opened(t, d, at), opened(t, d, at))
	})
}
