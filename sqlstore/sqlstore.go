// Package sqlstore keeps key rings, ended sessions and refresh tokens' families in
// a SQL database: SQLite for the processes of one machine, PostgreSQL beyond it.
//
// One [Store] is a Store of packages keys, revoke and refresh at once. It writes
// each change with one statement that is acknowledged when it is durable.
//
// The state of a ring has to be sealed (keys.Sealed): a database is a thing that
// is backed up, replicated and read by others.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of OpenPostgres
	_ "modernc.org/sqlite"             // the driver of OpenSQLite

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Dialect is the kind of database.
type Dialect string

// The dialects.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres" // 13 or later
)

// Config says what a [Store] uses.
type Config struct {
	// DB is the database, which the caller opens and closes. Required. For SQLite
	// it should come from [OpenSQLite], which sets what durability needs.
	DB *sql.DB
	// Dialect is that of DB. Required.
	Dialect Dialect
	// Ring is the name of the key ring in the database. Empty means "default".
	Ring string
}

// Store keeps everything in one database. It is safe for concurrent use, by any
// number of processes.
type Store struct {
	db      *sql.DB
	dialect Dialect
	ring    string
	turn    chan struct{} // of a SQLite: held by the one that writes
	checked atomic.Bool   // the tables are of this version
	writes  atomic.Uint64 // after some of which what is over is deleted
}

var (
	_ keys.Store    = (*Store)(nil)
	_ revoke.Store  = (*Store)(nil)
	_ refresh.Store = (*Store)(nil)
)

// New checks the configuration and returns the store for it. An error names the
// field at fault. It does no I/O; the tables must be there: see [Schema] and
// [Store.CreateSchema].
func New(cfg Config) (*Store, error) {
	if cfg.DB == nil {
		return nil, errors.New("sqlstore: Config.DB is required")
	}
	if cfg.Dialect != SQLite && cfg.Dialect != Postgres {
		return nil, fmt.Errorf("sqlstore: Config.Dialect is %q; it must be SQLite or Postgres", string(cfg.Dialect))
	}
	if cfg.Ring == "" {
		cfg.Ring = "default"
	}
	return &Store{db: cfg.DB, dialect: cfg.Dialect, ring: cfg.Ring, turn: make(chan struct{}, 1)}, nil
}

// OpenSQLite opens a database file for several processes of one machine: a
// write-ahead log, synced to disk with each write, and 5 s of patience with other
// writers. The folder must be on a local disk.
func OpenSQLite(path string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"},
		"_txlock": {"immediate"},
	}.Encode()}
	return sql.Open("sqlite", u.String())
}

// OpenPostgres opens a PostgreSQL database by its connection string, with pgx.
func OpenPostgres(dsn string) (*sql.DB, error) { return sql.Open("pgx", dsn) }

// Both dialects know $1.

// exec returns how many rows a statement changed.
func (s *Store) exec(ctx context.Context, doing, query string, args ...any) (int64, error) {
	if err := s.ready(ctx, doing); err != nil {
		return 0, err
	}
	if s.dialect == SQLite {
		// It has one writer at a time, and those that wait for it look again and
		// again, without any order. Within a process they can wait in turn.
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-ctx.Done():
			return 0, s.explain(ctx, doing, ctx.Err())
		}
	}
	res, err := s.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, s.explain(ctx, doing, err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, s.explain(ctx, doing, err)
	}
	return n, nil
}
