package sqlstore_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sqlstore"
)

// A standby whose replay is paused is never taken for the store.
func TestStandby(t *testing.T) {
	primary := start(t)
	dsn := servers.PostgresDSN(primary.Addr)
	createSchema(t, sqlstore.Postgres, dsn)
	standby, err := servers.StartPostgresStandby(primary)
	require.NoError(t, err)
	t.Cleanup(standby.Stop)
	at := func(dsn string) (*sqlstore.Store, *sql.DB) {
		db := openAt(sqlstore.Postgres, dsn)
		t.Cleanup(func() { _ = db.Close() })
		return must(sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres})), db
	}
	a, _ := at(dsn)
	b, db := at(servers.PostgresDSN(standby.Addr))
	faults.Lagging(t, a, b, func() { must(db.Exec(`SELECT pg_wal_replay_pause()`)) })
}

// environment is a new database whose revocations can be taken and put back.
func environment(t *testing.T, d sqlstore.Dialect) faults.Environment {
	t.Helper()
	connect := connector(t, d)
	admin := connect()
	require.NoError(t, must(sqlstore.New(sqlstore.Config{DB: admin, Dialect: d})).CreateSchema(t.Context()))
	columns, empty := "seq, tag, namespace, scope, digest, spared, before_ms, until_ms, skip", "DELETE FROM sessiontoken_revocations; DELETE FROM sqlite_sequence"
	into := columns
	if d == sqlstore.Postgres {
		columns, into = columns+", xid::text", columns+", xid"
		empty = "TRUNCATE sessiontoken_revocations RESTART IDENTITY"
	}
	return faults.Environment{
		Open: func() faults.Store {
			return must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d}))
		},
		Take: func() any {
			rows := must(admin.Query("SELECT " + columns + " FROM sessiontoken_revocations ORDER BY seq"))
			defer rows.Close()
			var all [][]any
			for rows.Next() {
				row := make([]any, strings.Count(into, ",")+1)
				at := make([]any, len(row))
				for i := range row {
					at[i] = &row[i]
				}
				require.NoError(t, rows.Scan(at...))
				all = append(all, row)
			}
			require.NoError(t, rows.Err())
			return all
		},
		Put: func(copied any) {
			tx := must(admin.Begin())
			defer func() { _ = tx.Rollback() }()
			for statement := range strings.SplitSeq(empty, "; ") {
				must(tx.Exec(statement))
			}
			last := int64(0)
			for _, row := range copied.([][]any) {
				values := "($1, $2, $3, $4, $5, $6, $7, $8, $9)"
				if d == sqlstore.Postgres {
					values = "OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::xid8)"
				} else {
					values = "VALUES " + values
				}
				must(tx.Exec("INSERT INTO sessiontoken_revocations ("+into+") "+values, row...))
				last = row[0].(int64)
			}
			if d == sqlstore.Postgres && last > 0 {
				must(tx.Exec("SELECT setval(pg_get_serial_sequence('sessiontoken_revocations', 'seq'), $1)", last))
			}
			require.NoError(t, tx.Commit())
		},
	}
}

func TestReplacedStore(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) { faults.Replaced(t, environment(t, d), environment(t, d)) })
}

func TestBeginnings(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		e := environment(t, d)
		faults.Beginnings(t, e.Open(), e.Open(), e.Open())
	})
}

func TestOrders(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		a, _ := open(t, d)
		faults.Orders(t, a)
	})
}

func TestGrowth(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		s, _, db := openDB(t, d)
		faults.Growth(t, s, func(subject string, n int, live bool) {
			numbers := `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i < $1) `
			from, blob := ` FROM c`, `CAST($2 AS BLOB), CAST('sid-' || $2 || i AS BLOB)`
			if d == sqlstore.Postgres {
				numbers, from, blob = ``, ` FROM generate_series(1, $1::int) i`, `$2::text::bytea, ('sid-' || $2::text || i)::bytea`
			}
			until := time.Now().Add(time.Hour).UnixMilli()
			insert := numbers + `INSERT INTO sessiontoken_families (namespace, id, subject, session_id, version, data, until_ms) SELECT 'ns', `
			if d == sqlstore.Postgres {
				must(db.Exec(insert+`$2::text || i, `+blob+`, 1, $3::bytea, $4::bigint`+from, n, subject, make([]byte, 300), until))
			} else {
				must(db.Exec(insert+`$2 || i, `+blob+`, 1, $3, $4`+from, n, subject, make([]byte, 300), until))
			}
			if !live {
				require.NoError(t, s.DeleteSubject(t.Context(), "ns", subject, ""))
				many(t, d, db, n)
			}
		})
	})
}

// The clock of the server is told, and a SQLite has that of its machine.
func TestTimes(t *testing.T) {
	for _, d := range []sqlstore.Dialect{sqlstore.SQLite, sqlstore.Postgres} {
		t.Run(string(d), func(t *testing.T) {
			connect := connector(t, d)
			wrong := new(clock.Clock)
			wrong.SetAhead(48 * time.Hour)
			var s *sqlstore.Store
			clock.As(wrong, func() { s = must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d})) })
			require.NoError(t, s.CreateSchema(t.Context()))
			stored := must(s.Load(t.Context(), ""))
			page := must(s.Since(t.Context(), ""))
			if d == sqlstore.SQLite {
				require.Zero(t, stored.Time)
				require.WithinDuration(t, wrong.Now(), page.Time, time.Minute)
				return
			}
			require.WithinDuration(t, time.Now(), stored.Time, time.Minute)
			require.WithinDuration(t, time.Now(), page.Time, time.Minute)

			// Nor does the wrong clock decide what is over.
			require.NoError(t, s.Append(t.Context(), entry("x")))
			require.Len(t, must(s.Since(t.Context(), "")).Entries, 1)
		})
	}
}

// A process deletes what is over with its first write, however few it makes,
// and again when a minute has passed. The birth of the store and the newest
// entry stay.
func TestSweep(t *testing.T) {
	each(t, func(t *testing.T, d sqlstore.Dialect) {
		connect := connector(t, d)
		db := connect()
		here := new(clock.Clock)
		process := func() (s *sqlstore.Store) {
			clock.As(here, func() { s = must(sqlstore.New(sqlstore.Config{DB: connect(), Dialect: d})) })
			return s
		}
		s := process()
		require.NoError(t, s.CreateSchema(t.Context()))
		over := time.Now().Add(-2 * time.Hour).UnixMilli()
		seed := func() {
			must(db.Exec(insert+`VALUES (1, '', 'birth', $1, $3, 1, $2, 0)`, digest("birth"), over, none))
			for range 100 {
				must(db.Exec(insertOne, digest("x"), over, none))
			}
			for i := range 100 {
				must(db.Exec(`INSERT INTO sessiontoken_families (namespace, id, subject, session_id, version, data, until_ms) VALUES ('ns', $1, $3, $3, 1, $3, $2)`, fmt.Sprint(time.Now().UnixNano(), i), over, none))
			}
		}
		left := func() (revocations, families int) {
			require.NoError(t, db.QueryRow(`SELECT (SELECT count(*) FROM sessiontoken_revocations), (SELECT count(*) FROM sessiontoken_families)`).Scan(&revocations, &families))
			return revocations, families
		}
		write := func(s *sqlstore.Store) {
			require.NoError(t, s.Append(t.Context(), entry("y")))
			id := fmt.Sprint("new-", time.Now().UnixNano())
			require.NoError(t, s.Create(t.Context(), refresh.Record{Namespace: "ns", ID: id, Subject: "ada", SessionID: "sid", Version: 1, Until: time.Now().Add(time.Hour)}))
			require.NoError(t, s.Delete(t.Context(), "ns", id))
		}
		seed()
		write(s)
		revocations, families := left()
		require.Equal(t, 2, revocations, "the birth, and what was just added")
		require.Zero(t, families)

		seed()
		write(s)
		revocations, families = left()
		require.Equal(t, 2+101+1, revocations, "the same process does not sweep again at once")
		require.Equal(t, 100, families)
		write(process()) // another one does
		revocations, families = left()
		require.Equal(t, 2+1+1+1, revocations)
		require.Zero(t, families)

		seed()
		here.SetAhead(2 * time.Minute)
		write(s)
		revocations, families = left()
		require.Equal(t, 5+1+1, revocations)
		require.Zero(t, families)
	})
}
