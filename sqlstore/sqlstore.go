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
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

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
	return &Store{db: cfg.DB, dialect: cfg.Dialect, ring: cfg.Ring}, nil
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

// Schema returns the statements that create the tables, for your own migrations.
// They can be run again. The names of all tables begin with sessiontoken_.
func Schema(d Dialect) string {
	blob, number := "BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT"
	xid := ""
	if d == Postgres {
		blob, number = "bytea", "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
		xid = "\n\txid xid8 NOT NULL DEFAULT pg_current_xact_id(),"
	}
	schema := strings.NewReplacer("BLOB", blob, "NUMBER", number, "\n\tXID", xid).Replace(`CREATE TABLE IF NOT EXISTS sessiontoken_ring (
	name text PRIMARY KEY,
	doc BLOB NOT NULL,
	rev text NOT NULL
);
CREATE TABLE IF NOT EXISTS sessiontoken_ended (
	seq NUMBER,
	XID
	scope text NOT NULL,
	value BLOB NOT NULL,
	before_us bigint NOT NULL,
	until_us bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS sessiontoken_ended_until ON sessiontoken_ended (until_us);
CREATE TABLE IF NOT EXISTS sessiontoken_families (
	id text PRIMARY KEY,
	subject BLOB NOT NULL,
	version bigint NOT NULL,
	data text NOT NULL,
	until_us bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS sessiontoken_families_subject ON sessiontoken_families (subject);
CREATE INDEX IF NOT EXISTS sessiontoken_families_until ON sessiontoken_families (until_us);
`)
	if d == Postgres {
		schema += "CREATE INDEX IF NOT EXISTS sessiontoken_ended_xid ON sessiontoken_ended (xid);\n"
	}
	return schema
}

// CreateSchema runs [Schema], for programs that have no migrations of their own.
func (s *Store) CreateSchema(ctx context.Context) error {
	for _, statement := range strings.Split(Schema(s.dialect), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			return s.explain(ctx, "create the tables", err)
		}
	}
	return nil
}

// explain says what to do about an error, where that is known. The errors of the
// drivers hold no values.
func (s *Store) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("sqlstore: %s: %w", doing, ctx.Err())
	}
	var state interface{ SQLState() string }
	missing := strings.Contains(err.Error(), "no such table")
	if errors.As(err, &state) && state.SQLState() == "42P01" {
		missing = true
	}
	if missing {
		return fmt.Errorf("sqlstore: %s: the tables are not there; call CreateSchema, or run Schema in a migration: %w", doing, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", doing, err)
}

// Both dialects know $1.

// exec returns how many rows a statement changed.
func (s *Store) exec(ctx context.Context, doing, query string, args ...any) (int64, error) {
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

const maxDocument = 1 << 20

// Load returns the ring's document. It is part of keys.Store.
func (s *Store) Load(ctx context.Context) (doc []byte, rev string, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT doc, rev FROM sessiontoken_ring WHERE name = $1`, s.ring).Scan(&doc, &rev)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", s.explain(ctx, "load the ring", err)
	}
	if len(doc) == 0 || rev == "" {
		return nil, "", errors.New("sqlstore: load the ring: the row is empty")
	}
	return doc, rev, nil
}

// Save replaces the ring's document. It is part of keys.Store.
func (s *Store) Save(ctx context.Context, doc []byte, rev string) (string, error) {
	if len(doc) == 0 || len(doc) > maxDocument {
		return "", fmt.Errorf("sqlstore: save the ring: a document of %d bytes; it must have 1 to %d", len(doc), maxDocument)
	}
	next := rand.Text() // no revision comes twice, also if the row is lost and made anew
	var n int64
	var err error
	if rev == "" {
		n, err = s.exec(ctx, "save the ring", `INSERT INTO sessiontoken_ring (name, doc, rev) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, s.ring, doc, next)
	} else {
		n, err = s.exec(ctx, "save the ring", `UPDATE sessiontoken_ring SET doc = $2, rev = $3 WHERE name = $1 AND rev = $4`, s.ring, doc, next, rev)
	}
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", keys.ErrConflict
	}
	return next, nil
}

// sweepEvery is after how many writes of this process what is over is deleted.
const sweepEvery = 512

func (s *Store) sweep(ctx context.Context, table string) {
	if s.writes.Add(1)%sweepEvery == 0 {
		// An hour late, for clocks that differ. If it fails, the next one does it.
		_, _ = s.exec(ctx, "delete what is over", `DELETE FROM `+table+` WHERE until_us < $1`, time.Now().Add(-time.Hour).UnixMicro())
	}
}

// Append adds an ended session. It is part of revoke.Store.
func (s *Store) Append(ctx context.Context, e revoke.Entry) error {
	_, err := s.exec(ctx, "write what was ended", `INSERT INTO sessiontoken_ended (scope, value, before_us, until_us) VALUES ($1, $2, $3, $4)`,
		string(e.Scope), []byte(e.Value), e.Before.UnixMicro(), e.Until.UnixMicro())
	if err != nil {
		return err
	}
	s.sweep(ctx, "sessiontoken_ended")
	return nil
}

// Since returns what was ended since. It is part of revoke.Store.
//
// In PostgreSQL numbers are not given out in the order in which writers commit,
// so a cursor is a moment: all transactions before it had ended when it was made,
// and all others are read again.
func (s *Store) Since(ctx context.Context, cursor string) ([]revoke.Entry, string, error) {
	from, err := strconv.ParseUint(cursor, 10, 63)
	if err != nil {
		from = 0
	}
	entries, next, err := s.since(ctx, from)
	if err == nil && next < from { // the database was restored, or is another one
		entries, next, err = s.since(ctx, 0)
	}
	if err != nil {
		return nil, "", s.explain(ctx, "read what was ended", err)
	}
	return entries, strconv.FormatUint(next, 10), nil
}

func (s *Store) since(ctx context.Context, from uint64) (entries []revoke.Entry, next uint64, err error) {
	query := `SELECT (SELECT coalesce(max(seq), 0) FROM sessiontoken_ended), e.scope, e.value, e.before_us, e.until_us
		FROM (SELECT 1) one LEFT JOIN sessiontoken_ended e ON e.seq > $1 AND e.until_us > $2`
	args := []any{int64(from), time.Now().UnixMicro()}
	if s.dialect == Postgres {
		query = `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, e.scope, e.value, e.before_us, e.until_us
			FROM (SELECT 1) one LEFT JOIN sessiontoken_ended e ON e.xid >= $1::text::xid8 AND e.until_us > $2`
		args[0] = strconv.FormatUint(from, 10)
	}
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var scope sql.NullString
		var value []byte
		var before, until sql.NullInt64
		if err := rows.Scan(&next, &scope, &value, &before, &until); err != nil {
			return nil, 0, err
		}
		if scope.Valid {
			entries = append(entries, revoke.Entry{Scope: revoke.Scope(scope.String), Value: string(value),
				Before: time.UnixMicro(before.Int64).UTC(), Until: time.UnixMicro(until.Int64).UTC()})
		}
	}
	return entries, next, rows.Err()
}

// Create adds a family. It is part of refresh.Store.
func (s *Store) Create(ctx context.Context, r refresh.Record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("sqlstore: encode a family: %w", err)
	}
	_, err = s.exec(ctx, "create a family", `INSERT INTO sessiontoken_families (id, subject, version, data, until_us) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		r.ID, []byte(r.Subject), int64(r.Version), string(data), r.Until.UnixMicro())
	if err != nil {
		return err
	}
	s.sweep(ctx, "sessiontoken_families")
	return nil
}

// Find returns a family. It is part of refresh.Store.
func (s *Store) Find(ctx context.Context, id string) (refresh.Record, error) {
	var data string
	err := s.db.QueryRowContext(ctx, `SELECT data FROM sessiontoken_families WHERE id = $1`, id).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return refresh.Record{}, refresh.ErrNotFound
	}
	if err != nil {
		return refresh.Record{}, s.explain(ctx, "find a family", err)
	}
	return decode(data)
}

func decode(data string) (r refresh.Record, err error) {
	if err := json.Unmarshal([]byte(data), &r); err != nil {
		return r, errors.New("sqlstore: a family's row is not what this version writes")
	}
	return r, nil
}

// Swap replaces a family. It is part of refresh.Store.
func (s *Store) Swap(ctx context.Context, r refresh.Record) error {
	if r.Version == 0 {
		return refresh.ErrConflict
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("sqlstore: encode a family: %w", err)
	}
	n, err := s.exec(ctx, "change a family", `UPDATE sessiontoken_families SET version = $2, data = $3, until_us = $4 WHERE id = $1 AND version = $5`,
		r.ID, int64(r.Version), string(data), r.Until.UnixMicro(), int64(r.Version-1))
	switch {
	case err != nil:
		return err
	case n == 0:
		return refresh.ErrConflict
	}
	return nil
}

// Delete removes a family. It is part of refresh.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.exec(ctx, "delete a family", `DELETE FROM sessiontoken_families WHERE id = $1`, id)
	return err
}

// DeleteSubject removes all families of a subject. It is part of refresh.Store.
func (s *Store) DeleteSubject(ctx context.Context, subject string) error {
	_, err := s.exec(ctx, "delete families", `DELETE FROM sessiontoken_families WHERE subject = $1`, []byte(subject))
	return err
}

// List returns the families of a subject. It is part of refresh.Store.
func (s *Store) List(ctx context.Context, subject string) ([]refresh.Record, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT data FROM sessiontoken_families WHERE subject = $1`, []byte(subject))
	if err != nil {
		return nil, s.explain(ctx, "list families", err)
	}
	defer rows.Close()
	var out []refresh.Record
	for rows.Next() {
		var data string
		if err := rows.Scan(&data); err != nil {
			return nil, s.explain(ctx, "list families", err)
		}
		r, err := decode(data)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		return nil, s.explain(ctx, "list families", err)
	}
	return out, nil
}
