// Package sqlstore keeps key rings, revocations and refresh tokens' families in
// a SQL database: SQLite for the processes of one machine, PostgreSQL beyond
// it.
//
// Package sqlstore/sqlite opens a store in a file, and package
// sqlstore/postgres one in a server. Each links the driver of its engine; this
// package links none.
//
// One [Store] is a Store of packages keys, revoke and refresh at once. It
// writes each change with one statement, or in one transaction, which is
// acknowledged when it is durable. Several issuers share one database: names of
// rings and namespaces keep them apart.
//
// Every reading proves that the primary gave it: a PostgreSQL standby, whose
// copy may lag, is an error. The time that is told with a reading is the
// PostgreSQL server's; SQLite has no clock but that of the machine.
//
// The state of a ring has to be sealed (keys.Sealed): a database is a thing
// that is backed up, replicated and read by others.
//
// What is over is deleted an hour later, by the first write of a process and
// then once a minute at most.
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

// Config is for [New].
type Config struct {
	// DB is the database. Required. For SQLite it should come from DB of
	// package sqlstore/sqlite, which sets what durability needs; for PostgreSQL
	// from that of package sqlstore/postgres, which works behind poolers too.
	DB *sql.DB
	// Dialect is that of DB. Required. With that of another engine every call
	// is an error.
	Dialect Dialect
}

// Store keeps everything in one database. It is safe for concurrent use, by any
// number of processes.
type Store struct {
	db      *sql.DB
	dialect Dialect
	clock   *clock.Clock
	turn    chan struct{} // of a SQLite: held by the one that writes
	checked atomic.Bool   // the engine is that of the dialect, and the tables of this version

	sweeping sync.Mutex
	swept    map[string]clock.Instant // by table: when what is over was last deleted
}

var (
	_ keys.Store    = (*Store)(nil)
	_ revoke.Store  = (*Store)(nil)
	_ refresh.Store = (*Store)(nil)
)

// New returns the store in a database that the program has opened itself. An
// error names the field at fault. It does no I/O; the tables must be there: see
// [Schema] and [Store.CreateSchema].
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

// Both dialects know $1.

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
		// It has one writer at a time, and those that wait for it look again
		// and again, without any order. Within a process they can wait in turn.
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

// errStandby is the error of a reading that a standby answered.
var errStandby = errors.New("the server is in recovery")

// proof returns the columns that prove in a query who answers it, and tell the
// server's time in Unix microseconds. They are scanned into a witness. SQLite
// has no standby and no clock of its own.
func (s *Store) proof() string {
	if s.dialect == Postgres {
		return `pg_is_in_recovery() AS standby, ` + postgresMicros + ` AS now_us`
	}
	return `0 AS standby, 0 AS now_us`
}

const postgresMicros = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

// witness is who answered a query, and when.
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

// time returns the server's time; zero for a SQLite.
func (w *witness) time() time.Time {
	if w.micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(w.micros).UTC()
}
