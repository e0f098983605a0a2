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

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

var stop func()

var single = sync.OnceValues(func() (s *servers.Server, err error) {
	if s, err = servers.StartPostgres(); err == nil {
		stop = s.Stop
	}
	return s, err
})

// shared returns the PostgreSQL that most tests use, each a part of its own. It
// skips the test where there is none, but in CI.
func shared(t *testing.T) *servers.Server {
	t.Helper()
	s, err := single()
	installed(t, err)
	return s
}

// installed skips the test where there is no server, but in CI.
func installed(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: the server is not installed")
	}
	require.NoError(t, err)
}

func TestMain(m *testing.M) {
	if faults.Main(func(place string) (faults.Store, error) {
		d, at, _ := strings.Cut(place, " ")
		return sqlstore.New(sqlstore.Config{DB: openAt(sqlstore.Dialect(d), at), Dialect: sqlstore.Dialect(d)})
	}) {
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
	dsn := servers.PostgresDSN(shared(t).Addr)
	admin := must(postgres.DB(dsn))
	defer admin.Close()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	must(admin.Exec("CREATE DATABASE " + name))
	return strings.Replace(dsn, "/postgres?", "/"+name+"?", 1)
}

// newSchema returns the connection string of a new, empty schema, which is made
// sooner than a database.
func newSchema(t *testing.T) string {
	t.Helper()
	dsn := servers.PostgresDSN(shared(t).Addr)
	admin := must(postgres.DB(dsn))
	defer admin.Close()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	must(admin.Exec("CREATE SCHEMA " + name))
	return dsn + "&search_path=" + name
}

// connector returns what opens connections to one new, empty database.
func connector(t *testing.T, d sqlstore.Dialect) func() *sql.DB {
	t.Helper()
	at := emptyPlace(t, d)
	return func() *sql.DB {
		db := openAt(d, at)
		db.SetMaxOpenConns(10)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
}

func openAt(d sqlstore.Dialect, at string) *sql.DB {
	if d == sqlstore.Postgres {
		return must(postgres.DB(at))
	}
	return must(sqlite.DB(at))
}

// openDB returns two stores on one new database, each with connections of its
// own, and other connections to it.
func openDB(t *testing.T, d sqlstore.Dialect) (a, b *sqlstore.Store, db *sql.DB) {
	t.Helper()
	connect := connector(t, d)
	var stores []*sqlstore.Store
	for range 2 {
		s := must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d}))
		require.NoError(t, s.CreateSchema(t.Context()))
		stores = append(stores, s)
	}
	return stores[0], stores[1], connect()
}

func open(t *testing.T, d sqlstore.Dialect) (a, b *sqlstore.Store) {
	t.Helper()
	a, b, _ = openDB(t, d)
	return a, b
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

// A transaction that is slow to commit has a smaller number than those after
// it.
func TestCursorPassesNoWriter(t *testing.T) {
	a, b, db := openDB(t, sqlstore.Postgres)
	tx, err := db.Begin()
	require.NoError(t, err)
	must(tx.Exec(insertOne, digest("slow"), time.Now().Add(time.Hour).UnixMilli(), none))

	cursor := ""
	look := func() (digests [][]byte) {
		page := must(b.Since(t.Context(), cursor))
		require.False(t, page.More)
		cursor = page.Next
		for _, e := range page.Entries {
			digests = append(digests, e.Digest[:])
		}
		return digests
	}
	for i := range 10 {
		require.NoError(t, a.Append(t.Context(), entry(fmt.Sprint(i))))
		require.Equal(t, [][]byte{digest(fmt.Sprint(i))}, look(), "the slow one delays no other, and nothing is read twice")
	}
	require.NoError(t, tx.Commit())
	require.Equal(t, [][]byte{digest("slow")}, look())
	require.Empty(t, look())
}

func entry(value string) revoke.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return revoke.Entry{Scope: revoke.Session, Digest: revoke.Session.Digest(value), Before: now, Until: now.Add(time.Hour)}
}

// insert is what adds a row of SQL's own.
const insert = `INSERT INTO sessiontoken_revocations (tag, namespace, scope, digest, spared, before_ms, until_ms, skip) `

// insertOne adds the row of a session, which is over at $2, with the digest $1.
const insertOne = insert + `VALUES (1, '', 'session', $1, $3, 1, $2, 0)`

func digest(value string) []byte { d := revoke.Session.Digest(value); return d[:] }

var none = make([]byte, 16) // no exception

// many adds the sessions sid-1 to sid-n to the table, many at once.
func many(t *testing.T, d sqlstore.Dialect, db *sql.DB, n int) {
	t.Helper()
	tx := must(db.Begin())
	defer tx.Rollback()
	const rows = 1000
	until := time.Now().Add(time.Hour).UnixMilli()
	for i := 1; i <= n; {
		var values strings.Builder
		for range rows {
			if i <= n {
				blob := "x'%x'"
				if d == sqlstore.Postgres {
					blob = `'\x%x'::bytea`
				}
				fmt.Fprintf(&values, ",(%d,'','session',"+blob+","+blob+",1,%d,0)", i, digest(fmt.Sprint("sid-", i)), none, until)
			}
			i++
		}
		must(tx.Exec(insert + "VALUES " + values.String()[1:]))
	}
	require.NoError(t, tx.Commit())
}

// What is read in pages misses nothing of what is written meanwhile.
func TestPages(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		s, b, db := openDB(t, d)
		many(t, d, db, 25_000)
		var slow *sql.Tx
		if d == sqlstore.Postgres { // SQLite has one writer at a time
			slow = must(db.Begin())
			must(slow.Exec(insertOne, digest("slow"), time.Now().Add(time.Hour).UnixMilli(), none))
		}
		many(t, d, db, 5_000) // the same ids again, and rows of their own
		seen, cursor, pages := map[string]bool{}, "", 0
		read := func() (n int) {
			for more := true; more; pages++ {
				page := must(b.Since(t.Context(), cursor))
				require.False(t, page.Reset)
				cursor, more = page.Next, page.More
				for _, e := range page.Entries {
					seen[string(e.Digest[:])] = true
				}
				n += len(page.Entries)
				if slow != nil {
					require.NoError(t, slow.Commit())
					slow, seen[string(digest("slow"))] = nil, false
				}
				if more {
					require.NoError(t, s.Append(t.Context(), entry(fmt.Sprint("new-", pages))))
				}
			}
			return n
		}
		n := read()
		require.Equal(t, 4, pages)
		n += read()
		require.Len(t, seen, 25_000+3+map[sqlstore.Dialect]int{sqlstore.Postgres: 1}[d])
		require.True(t, d == sqlstore.SQLite || seen[string(digest("slow"))])
		require.LessOrEqual(t, n, 30_000+3+1+3+1, "what was added meanwhile may come twice")
		require.Zero(t, read())
	})
}

// A million revoked sessions are known to a replica that starts, in pages that
// fit their time.
func TestReplicaStartsWithMany(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		_, b, db := openDB(t, d)
		n := faults.Many()
		many(t, d, db, n)
		faults.Starts(t, b, n)
	})
}

// Replicas that start at once create the tables once.
func TestCreateSchemaAtOnce(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		for range 10 {
			connect := connector(t, d)
			var starting sync.WaitGroup
			for range 8 {
				s := must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d}))
				starting.Go(func() {
					if err := s.CreateSchema(t.Context()); err != nil {
						t.Error(err)
					}
					if err := s.CreateSchema(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			starting.Wait()
		}
	})
}

// What is wrong with a database is said, with what to do about it. Nothing is
// written then.
func TestBadDatabases(t *testing.T) {
	inSQLite := func(prepare func(path string)) func(t *testing.T) (sqlstore.Dialect, *sql.DB) {
		return func(t *testing.T) (sqlstore.Dialect, *sql.DB) {
			path := filepath.Join(t.TempDir(), "x.db")
			prepare(path)
			return sqlstore.SQLite, must(sqlite.DB(path))
		}
	}
	inPostgres := func(prepare string, change ...string) func(t *testing.T) (sqlstore.Dialect, *sql.DB) {
		return func(t *testing.T) (sqlstore.Dialect, *sql.DB) {
			dsn := newDatabase(t)
			db := must(postgres.DB(dsn))
			defer db.Close()
			_, err := db.Exec(prepare)
			require.NoError(t, err)
			return sqlstore.Postgres, must(postgres.DB(strings.NewReplacer(change...).Replace(dsn)))
		}
	}
	tables := func(d sqlstore.Dialect) string { return sqlstore.Schema(d) }
	for _, row := range []struct {
		name string
		open func(t *testing.T) (sqlstore.Dialect, *sql.DB)
		says string
	}{
		{"SQLite without tables", inSQLite(func(string) {}), "CreateSchema"},
		{"SQLite, a file of something else", inSQLite(func(path string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("not a database\n", 400)), 0o600))
		}), "not a SQLite database"},
		{"SQLite in a folder that is not there", inSQLite(func(path string) {
			require.NoError(t, os.RemoveAll(filepath.Dir(path)))
		}), "check its path"},
		{"SQLite of a later version", inSQLite(func(path string) {
			db := must(sqlite.DB(path))
			defer db.Close()
			must(db.Exec(tables(sqlstore.SQLite) + "UPDATE sessiontoken_schema SET version = 7"))
		}), "version 7, and this program reads version 2"},
		{"SQLite, a migration that stopped", inSQLite(func(path string) {
			db := must(sqlite.DB(path))
			defer db.Close()
			must(db.Exec("CREATE TABLE sessiontoken_schema (version bigint PRIMARY KEY)"))
		}), "not complete"},
		{"PostgreSQL without tables", inPostgres(""), "CreateSchema"},
		{"PostgreSQL of a later version", inPostgres(tables(sqlstore.Postgres) + "UPDATE sessiontoken_schema SET version = 7"), "version 7, and this program reads version 2"},
		{"PostgreSQL, a user without rights", inPostgres(tables(sqlstore.Postgres)+"DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN", "bench@", "poor@"), "grant it"},
		{"PostgreSQL, a search_path of no schema", inPostgres(tables(sqlstore.Postgres), "?", "?search_path=nowhere&"), "search_path"},
		{"PostgreSQL, a user who may not use the schema", inPostgres(tables(sqlstore.Postgres)+"DROP ROLE IF EXISTS outside; CREATE ROLE outside LOGIN; REVOKE ALL ON SCHEMA public FROM public", "bench@", "outside@"), "USAGE"},
		{"PostgreSQL, a wrong password", inPostgres("DROP ROLE IF EXISTS locked; CREATE ROLE locked LOGIN PASSWORD 'right'", "bench@", "locked:hunter2@"), "check the connection string"},
		{"PostgreSQL, no such database", inPostgres("", "/test_", "/none_"), "no such database"},
		{"PostgreSQL that only reads", inPostgres(tables(sqlstore.Postgres) + "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET default_transaction_read_only = on'; END $$"), "connect to the primary"},
		{"PostgreSQL, no server there", func(t *testing.T) (sqlstore.Dialect, *sql.DB) {
			return sqlstore.Postgres, must(postgres.DB("postgres://none:hunter2@127.0.0.1:1/none?sslmode=disable"))
		}, "cannot be reached"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, db := row.open(t)
			defer db.Close()
			s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: d}))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err := s.Append(ctx, entry("x"))
			require.ErrorContains(t, err, row.says)
			require.NotContains(t, err.Error(), "hunter2")
			t.Log(err)
			if row.says == "connect to the primary" {
				return // it can be read
			}
			_, err = s.Load(ctx, "")
			require.ErrorContains(t, err, row.says)
			_, err = s.Find(ctx, "", "x")
			require.ErrorContains(t, err, row.says)
			_, err = s.List(ctx, "", "x")
			require.ErrorContains(t, err, row.says)
			_, err = s.Since(ctx, "")
			require.ErrorContains(t, err, row.says)
		})
	}
}

// A user that may not create tables can call it, once they are there.
func TestCreateSchemaWithoutRights(t *testing.T) {
	dsn := newDatabase(t)
	admin := must(postgres.DB(dsn))
	defer admin.Close()
	must(admin.Exec("DROP ROLE IF EXISTS worker; CREATE ROLE worker LOGIN"))
	db := must(postgres.DB(strings.Replace(dsn, "bench@", "worker@", 1)))
	defer db.Close()
	s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres}))
	require.ErrorContains(t, s.CreateSchema(t.Context()), "may not create tables")
	must(admin.Exec(sqlstore.Schema(sqlstore.Postgres)))
	must(admin.Exec("GRANT SELECT, INSERT, UPDATE, DELETE ON sessiontoken_schema, sessiontoken_rings, sessiontoken_revocations, sessiontoken_families TO worker"))
	require.NoError(t, s.CreateSchema(t.Context()))
	require.NoError(t, s.Append(t.Context(), entry("x")))
	_, err := s.Save(t.Context(), "", []byte("x"), "")
	require.NoError(t, err)
}

// CreateSchema adds the table of grants to tables that were made without it,
// which lack nothing else.
func TestCreateSchemaAddsGrants(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		connect := connector(t, d)
		db := connect()
		s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: d}))
		require.NoError(t, s.CreateSchema(t.Context()))
		rev := must(s.Save(t.Context(), "", []byte("x"), ""))
		must(db.Exec("DROP TABLE sessiontoken_grants"))
		_, _, err := s.LoadGrant(t.Context(), "ns", "key")
		require.ErrorContains(t, err, "call CreateSchema")
		for range 2 {
			later := must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d}))
			require.NoError(t, later.CreateSchema(t.Context()))
			require.Equal(t, rev, must(later.Load(t.Context(), "")).Rev)
			_, _, err = later.LoadGrant(t.Context(), "ns", "key")
			require.NoError(t, err)
		}
	})
}

// CreateSchema leaves tables of another version as they are.
func TestCreateSchemaOfAnotherVersion(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		db := connector(t, d)()
		must(db.Exec("CREATE TABLE sessiontoken_schema (version bigint PRIMARY KEY); INSERT INTO sessiontoken_schema VALUES (1)"))
		s := must(sqlstore.New(sqlstore.Config{DB: db, Dialect: d}))
		require.ErrorContains(t, s.CreateSchema(t.Context()), "the tables are of version 1")
		_, err := db.Exec("SELECT 1 FROM sessiontoken_revocations")
		require.Error(t, err, "nothing was created")
	})
}

// A document that was changed in the store is refused, and left as it is.
func TestTamperedRing(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		a, b := open(t, d)
		faults.Tampered(t, a, b)
	})
}

// place returns a place for processes: a new database with the tables in it.
func place(t *testing.T, d sqlstore.Dialect) (place, at string) {
	t.Helper()
	at = emptyPlace(t, d)
	createSchema(t, d, at)
	return string(d) + " " + at, at
}

func createSchema(t *testing.T, d sqlstore.Dialect, at string) {
	t.Helper()
	db := openAt(d, at)
	defer db.Close()
	require.NoError(t, must(sqlstore.New(sqlstore.Config{DB: db, Dialect: d})).CreateSchema(t.Context()))
}

func TestHowSoon(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		faults.HowSoon(t, at, 20*time.Millisecond, 70*time.Millisecond)
	})
}

func TestFirstStart(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		a, _ := open(t, d)
		faults.FirstStart(t, a)
	})
}

func TestKeyRevoked(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		faults.KeyRevoked(t, at, time.Second)
	})
}

func TestRefreshRaces(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		at, _ := place(t, d)
		faults.RefreshRaces(t, at)
	})
}

func TestFaultsPostgres(t *testing.T) {
	server := start(t)
	dsn := servers.PostgresDSN(server.Addr)
	createSchema(t, sqlstore.Postgres, dsn)
	proxy := must(servers.StartProxy(server.Addr))
	defer proxy.Close()
	faults.Revoked(t, "postgres "+dsn, "postgres "+servers.PostgresDSN(proxy.Addr), append(faults.Network(proxy), faults.Killed(server), faults.Frozen(server))...)
}

// TestFollowed: an API that has the URL of an authority and a credential.
func TestFollowed(t *testing.T) {
	t.Parallel() // it waits more than it works
	server := start(t)
	dsn := servers.PostgresDSN(server.Addr)
	createSchema(t, sqlstore.Postgres, dsn)
	faults.Followed(t, "postgres "+dsn, faults.Killed(server), faults.Frozen(server))
}

// TestFullDisk: what cannot be written is refused, and what was revoked before
// is still known.
func TestFullDisk(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		disk := faults.SmallDisk(t, 8)
		path := filepath.Join(disk.Dir, "sessions.db")
		createSchema(t, sqlstore.SQLite, path)
		faults.Revoked(t, "sqlite "+path, "sqlite "+path, faults.Full(t, nil, disk, "no room left"))
	})
	t.Run("postgres", func(t *testing.T) {
		disk := faults.SmallDisk(t, 200)
		server := start(t)
		dsn := servers.PostgresDSN(server.Addr)
		createSchema(t, sqlstore.Postgres, dsn)
		faults.Revoked(t, "postgres "+dsn, "postgres "+dsn, faults.Full(t, server, disk, "no room left"))
	})
}

// TestFailOver: the primary is killed, and its synchronous standby takes over.
func TestFailOver(t *testing.T) {
	primary := start(t, "synchronous_standby_names=*")
	standby, err := servers.StartPostgresStandby(primary)
	require.NoError(t, err)
	t.Cleanup(standby.Stop)
	dsn := strings.Replace(servers.PostgresDSN(primary.Addr+","+standby.Addr), "?", "?target_session_attrs=read-write&connect_timeout=1&", 1)
	createSchema(t, sqlstore.Postgres, dsn)
	faults.Revoked(t, "postgres "+dsn, "postgres "+dsn, faults.Fault{
		Name:  "the primary is killed, and its standby promoted after 2 s",
		Begin: func() error { primary.Kill(); return nil },
		Lasts: 2 * time.Second, End: standby.Promote, Back: 10 * time.Second,
	})
}

// start starts a PostgreSQL of the test's own.
func start(t *testing.T, options ...string) *servers.Server {
	t.Helper()
	server, err := servers.StartPostgres(options...)
	installed(t, err)
	t.Cleanup(server.Stop)
	return server
}

// TestFaultsSQLite: another process holds the lock for 3 s, and a process is
// killed in the middle of its writes.
func TestFaultsSQLite(t *testing.T) {
	at, path := place(t, sqlstore.SQLite)
	db := openAt(sqlstore.SQLite, path)
	defer db.Close()
	db.SetMaxOpenConns(1)
	var tx *sql.Tx
	locked := faults.Fault{
		Name: "another process holds the lock for 3 s", Lasts: 3 * time.Second,
		Begin: func() (err error) {
			if tx, err = db.Begin(); err == nil {
				_, err = tx.Exec(insertOne, digest("x"), 1, none)
			}
			return err
		},
		End: func() error { return tx.Rollback() },
	}
	var other *faults.Process
	killed := faults.Fault{
		Name: "a writing process is killed 20 times", Lasts: 3 * time.Second,
		Begin: func() error {
			for range 20 {
				other = faults.Start(t, faults.Role{Place: at, SyncEvery: time.Second, MaxStale: 30 * time.Second})
				other.KeepRevoking(150 * time.Millisecond)
				other.Kill()
			}
			return nil
		},
		End: func() error { return nil },
	}
	faults.Revoked(t, at, at, locked, killed)
}

func TestSoak(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		at, _ := place(t, sqlstore.SQLite)
		faults.Soak(t, at, nil)
	})
	t.Run("postgres", func(t *testing.T) {
		server := start(t)
		dsn := servers.PostgresDSN(server.Addr)
		createSchema(t, sqlstore.Postgres, dsn)
		faults.Soak(t, "postgres "+dsn, server)
	})
}

// A cursor of another server means all: its transactions are others'.
func TestAnotherServer(t *testing.T) {
	a, b := open(t, sqlstore.Postgres)
	require.NoError(t, a.Append(t.Context(), entry("x")))
	cursor := must(b.Since(t.Context(), "")).Next
	page := must(b.Since(t.Context(), cursor))
	require.Empty(t, page.Entries)
	require.False(t, page.Reset)
	server, rest, ok := strings.Cut(page.Next, "/")
	require.True(t, ok)
	require.Len(t, server, 16, "the microsecond in which the server started")
	row, snapshot, ok := strings.Cut(rest, "/")
	require.True(t, ok)
	page = must(b.Since(t.Context(), "1764000000000000/"+rest))
	require.Len(t, page.Entries, 1)
	require.True(t, page.Reset)
	require.True(t, strings.HasPrefix(page.Next, server+"/"))
	here := server + "/" + row + "/"
	for _, odd := range []string{
		"/", "//", "/1.1/1:2:", server + "/", here, here + "1:2", here + "1:2:3,", here + "2:1:", here + "x" + snapshot, here + snapshot + "'",
		here + snapshot + "/", here + snapshot + "/1:2:/1/x", here + snapshot + "/1:2:/-1/1", here + snapshot + "/x/1/1",
		here + strings.Repeat("9", 20) + ":" + strings.Repeat("9", 20) + ":", here + "99999999999999999999999:1:", strings.Repeat("/", 1000),
		server + "/1.1/" + snapshot, server + "/x/" + snapshot, server + "/-1.1/" + snapshot,
	} {
		page, err := b.Since(t.Context(), odd)
		if err == nil { // or PostgreSQL says what is wrong with it
			require.Len(t, page.Entries, 1, odd)
			require.True(t, page.Reset, odd)
		}
	}
}
