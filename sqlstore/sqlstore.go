// Package sqlstore keeps key rings, revocations, refresh tokens' families and
// offline grants in a SQL database: SQLite for the processes of one machine,
// PostgreSQL beyond it.
//
// Package sqlstore/sqlite opens a store in a file, and package
// sqlstore/postgres one in a server. Each links the driver of its engine; this
// package links none.
//
// One [Store] is a Store of packages keys, revoke and refresh and a GrantStore
// of package oidclogin at once. It writes each change with one statement or one
// transaction, which is acknowledged when it is durable. Several issuers can
// share one database: the names of their rings and their namespaces separate
// them.
//
// Every reading proves that the primary answered it. A PostgreSQL standby,
// whose copy may lag, is an error. The time of a reading is the PostgreSQL
// server's; for SQLite it is that of the machine.
//
// The document of a ring must be sealed (keys.Sealed): others back up,
// replicate and read a database.
//
// Expired rows are deleted an hour after their Until, by the first write of a
// process and then at most once a minute.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
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

// Config configures [New].
type Config struct {
	// DB is the database. Required. For SQLite use DB of package
	// sqlstore/sqlite, whose settings make writes durable. For PostgreSQL use
	// DB of package sqlstore/postgres, which also works behind poolers.
	DB *sql.DB
	// Dialect is the dialect of DB. Required. With that of another engine every
	// call fails.
	Dialect Dialect
}

// Store keeps its data in one database. It is safe for concurrent use, by any
// number of processes.
type Store struct {
	db      *sql.DB
	dialect Dialect
	clock   *clock.Clock
	turn    chan struct{} // for SQLite: held by the call that writes
	checked atomic.Bool   // the engine is that of the dialect, and the tables of this version

	sweeping sync.Mutex
	swept    map[string]clock.Instant // by table: when expired rows were last deleted
}

var (
	_ keys.Store        = (*Store)(nil)
	_ revoke.Store      = (*Store)(nil)
	_ refresh.AllLister = (*Store)(nil)
)

// New returns the store in a database that the program has opened. An error
// names the field at fault. New does no I/O. The database must have the tables:
// see [Schema] and [Store.CreateSchema].
func New(cfg Config) (*Store, error) {
	if cfg.DB == nil {
		return nil, errors.New("sqlstore: Config.DB is required")
	}
	if cfg.Dialect != SQLite && cfg.Dialect != Postgres {
		return nil, fmt.Errorf("sqlstore: Config.Dialect is %q; it must be SQLite or Postgres", string(cfg.Dialect))
	}
	return &Store{db: cfg.DB, dialect: cfg.Dialect, clock: clock.Here(), turn: make(chan struct{}, 1), swept: map[string]clock.Instant{}}, nil
}

// Close closes the database, Config.DB.
func (s *Store) Close() error { return s.db.Close() }

// Both dialects accept $1.

// exec runs one statement and returns how many rows it changed.
func (s *Store) exec(ctx context.Context, doing, query string, args ...any) (n int64, err error) {
	err = s.write(ctx, doing, func() error {
		res, err := s.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// write calls f, which writes, and explains its error.
func (s *Store) write(ctx context.Context, doing string, f func() error) error {
	if err := s.ready(ctx, doing); err != nil {
		return err
	}
	if s.dialect == SQLite {
		// SQLite has one writer at a time, and waiting ones poll in no order.
		// Within a process they wait in turn.
		select {
		case s.turn <- struct{}{}:
			defer func() { <-s.turn }()
		case <-ctx.Done():
			return s.explain(ctx, doing, ctx.Err())
		}
	}
	if err := f(); err != nil {
		return s.explain(ctx, doing, err)
	}
	return nil
}

// errStandby means that a standby answered a reading.
var errStandby = errors.New("the server is in recovery")

// proof returns columns for a query: whether a standby answers it, and the
// server's time in Unix microseconds. They are scanned into a witness. SQLite
// has no standby and no clock of its own.
func (s *Store) proof() string {
	if s.dialect == Postgres {
		return `pg_is_in_recovery() AS standby, ` + postgresMicros + ` AS now_us`
	}
	return `0 AS standby, 0 AS now_us`
}

const postgresMicros = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

// witness holds whether a standby answered a query, and the server's time.
type witness struct {
	standby bool
	micros  int64
}

// err returns an error unless the primary answered.
func (w *witness) err() error {
	if w.standby {
		return errStandby
	}
	return nil
}

// time returns the server's time, or zero for SQLite.
func (w *witness) time() time.Time {
	if w.micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(w.micros).UTC()
}
