package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/faults"
	"github.com/sessiontoken/sessiontoken/internal/servers"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/storetest"
)

var stop func()

var postgres = sync.OnceValues(func() (dsn string, err error) {
	dsn, stop, err = servers.Postgres()
	return dsn, err
})

func TestMain(m *testing.M) {
	if place := os.Getenv(faults.ExchangeVariable); place != "" {
		d, at, _ := strings.Cut(place, " ")
		db := must(sqlstore.OpenSQLite(at))
		if sqlstore.Dialect(d) == sqlstore.Postgres {
			db = must(sqlstore.OpenPostgres(at))
		}
		faults.ServeExchange(must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Dialect(d)})))
		return
	}
	code := m.Run()
	if stop != nil {
		stop()
	}
	os.Exit(code)
}

var databases atomic.Int64

// newDatabase returns the connection string of a new, empty one.
func newDatabase(t *testing.T) string {
	t.Helper()
	dsn, err := postgres()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: PostgreSQL is not installed")
	}
	require.NoError(t, err)
	admin := must(sqlstore.OpenPostgres(dsn))
	defer admin.Close()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	_, err = admin.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	return strings.Replace(dsn, "/postgres?", "/"+name+"?", 1)
}

// open returns two stores on one new database, each with connections of its own.
func open(t *testing.T, d sqlstore.Dialect) (a, b *sqlstore.Store) {
	t.Helper()
	var dsn string
	connect := func() *sql.DB { return must(sqlstore.OpenPostgres(dsn)) }
	if d == sqlstore.SQLite {
		path := filepath.Join(t.TempDir(), "sessions 100%.db")
		connect = func() *sql.DB { return must(sqlstore.OpenSQLite(path)) }
	} else {
		dsn = newDatabase(t)
	}
	var stores []*sqlstore.Store
	for range 2 {
		db := connect()
		db.SetMaxOpenConns(10)
		t.Cleanup(func() { _ = db.Close() })
		s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: d}))
		require.NoError(t, s.CreateSchema(t.Context()))
		stores = append(stores, s)
	}
	return stores[0], stores[1]
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func each(t *testing.T, f func(t *testing.T, d sqlstore.Dialect)) {
	for _, d := range []sqlstore.Dialect{sqlstore.SQLite, sqlstore.Postgres} {
		t.Run(string(d), func(t *testing.T) { f(t, d) })
	}
}

func TestStore(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t, d) })
		storetest.Ended(t, func(t *testing.T) (a, b revoke.Store) { return open(t, d) })
		storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t, d) })
	})
}

// A transaction that is slow to commit has a smaller number than those after it.
func TestCursorPassesNobody(t *testing.T) {
	a, b := open(t, sqlstore.Postgres)
	dsn, err := postgres()
	require.NoError(t, err)
	db := must(sqlstore.OpenPostgres(strings.Replace(dsn, "/postgres?", fmt.Sprintf("/test_%d?", databases.Load()), 1)))
	defer db.Close()
	tx, err := db.Begin()
	require.NoError(t, err)
	until := time.Now().Add(time.Hour).UnixMicro()
	_, err = tx.Exec(`INSERT INTO sessiontoken_ended (scope, value, before_us, until_us) VALUES ('session', 'slow', 1, $1)`, until)
	require.NoError(t, err)

	seen, cursor := map[string]bool{}, ""
	look := func() {
		entries, next, err := b.Since(t.Context(), cursor)
		require.NoError(t, err)
		cursor = next
		for _, e := range entries {
			seen[e.Value] = true
		}
	}
	for i := range 10 {
		require.NoError(t, a.Append(t.Context(), revoke.Entry{Scope: revoke.Session, Value: fmt.Sprint(i), Before: time.Now(), Until: time.Now().Add(time.Hour)}))
		look()
		require.Len(t, seen, i+1, "nobody waits for the slow one")
	}
	require.NoError(t, tx.Commit())
	look()
	require.True(t, seen["slow"])
	entries, _, err := b.Since(t.Context(), cursor)
	require.NoError(t, err)
	look()
	again, _, err := b.Since(t.Context(), cursor)
	require.NoError(t, err)
	require.Empty(t, again, "%d entries were read again", len(entries))
}

func TestMissingTables(t *testing.T) {
	db := must(sqlstore.OpenSQLite(filepath.Join(t.TempDir(), "x.db")))
	defer db.Close()
	s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite}))
	_, _, err := s.Load(t.Context())
	require.ErrorContains(t, err, "CreateSchema")

	pg := must(sqlstore.OpenPostgres(newDatabase(t)))
	defer pg.Close()
	s = must(sqlstore.New(sqlstore.Config{DB: pg, Dialect: sqlstore.Postgres}))
	_, _, err = s.Since(t.Context(), "")
	require.ErrorContains(t, err, "CreateSchema")
}

func TestUnreachable(t *testing.T) {
	db := must(sqlstore.OpenPostgres("postgres://nobody:hunter2@127.0.0.1:1/none?sslmode=disable"))
	defer db.Close()
	s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres}))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, _, err := s.Load(ctx)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
}

func TestNewNamesTheField(t *testing.T) {
	_, err := sqlstore.New(sqlstore.Config{})
	require.ErrorContains(t, err, "Config.DB")
	_, err = sqlstore.New(sqlstore.Config{DB: new(sql.DB), Dialect: "mysql"})
	require.ErrorContains(t, err, "Config.Dialect")
}

func TestHowSoon(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		a, b := open(t, d)
		faults.HowSoon(t, a, b, 20*time.Millisecond, 70*time.Millisecond)
	})
}

func TestFirstStart(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		faults.FirstStart(t, func(t *testing.T) keys.Store { a, _ := open(t, d); return a })
	})
}

func TestRefreshRaces(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at := filepath.Join(t.TempDir(), "races.db")
		db := must(sqlstore.OpenSQLite(at))
		if d == sqlstore.Postgres {
			at = newDatabase(t)
			db = must(sqlstore.OpenPostgres(at))
		}
		t.Cleanup(func() { _ = db.Close() })
		s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: d}))
		require.NoError(t, s.CreateSchema(t.Context()))
		faults.RefreshRaces(t, s, string(d)+" "+at)
	})
}

func TestFaults(t *testing.T) {
	server, err := servers.StartPostgres()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: PostgreSQL is not installed")
	}
	require.NoError(t, err)
	defer server.Stop()
	faults.Ended(t, faults.Engine{Server: server, Open: func(t *testing.T, addr string) revoke.Store {
		db := must(sqlstore.OpenPostgres(servers.PostgresDSN(addr)))
		t.Cleanup(func() { _ = db.Close() })
		s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres}))
		require.NoError(t, s.CreateSchema(t.Context()))
		return s
	}})
}
