package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// version is the version of the tables and of their rows.
const version = 2

// Schema returns the statements that create the tables, for your own
// migrations. They can be run again. The names of all tables begin with
// sessiontoken_.
func Schema(d Dialect) string {
	blob, number, xid := "BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT", ""
	if d == Postgres {
		blob, number = "bytea", "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
		xid = "\n\txid xid8 NOT NULL DEFAULT pg_current_xact_id(),"
	}
	schema := strings.NewReplacer("BLOB", blob, "NUMBER", number, "\n\tXID", xid).Replace(`CREATE TABLE IF NOT EXISTS sessiontoken_schema (
	version bigint PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS sessiontoken_rings (
	name text PRIMARY KEY,
	doc BLOB NOT NULL,
	rev text NOT NULL
);
CREATE TABLE IF NOT EXISTS sessiontoken_revocations (
	seq NUMBER,
	XID
	tag bigint NOT NULL,
	namespace text NOT NULL,
	scope text NOT NULL,
	digest BLOB NOT NULL,
	spared BLOB NOT NULL,
	before_ms bigint NOT NULL,
	until_ms bigint NOT NULL,
	skip bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS sessiontoken_revocations_until ON sessiontoken_revocations (until_ms);
CREATE TABLE IF NOT EXISTS sessiontoken_families (
	namespace text NOT NULL,
	id text NOT NULL,
	subject BLOB NOT NULL,
	session_id BLOB NOT NULL,
	version bigint NOT NULL,
	data BLOB NOT NULL,
	until_ms bigint NOT NULL,
	PRIMARY KEY (namespace, id)
);
CREATE INDEX IF NOT EXISTS sessiontoken_families_subject ON sessiontoken_families (namespace, subject);
CREATE INDEX IF NOT EXISTS sessiontoken_families_session ON sessiontoken_families (namespace, session_id);
CREATE INDEX IF NOT EXISTS sessiontoken_families_until ON sessiontoken_families (until_ms);
CREATE TABLE IF NOT EXISTS sessiontoken_grants (
	namespace text NOT NULL,
	id text NOT NULL,
	sealed BLOB NOT NULL,
	rev text NOT NULL,
	PRIMARY KEY (namespace, id)
);
`)
	if d == Postgres {
		schema += "CREATE INDEX IF NOT EXISTS sessiontoken_revocations_xid ON sessiontoken_revocations (xid, seq);\n"
	}
	// The last statement: if the version is there, all tables are.
	return schema + fmt.Sprintf("INSERT INTO sessiontoken_schema (version) SELECT %d WHERE NOT EXISTS (SELECT 1 FROM sessiontoken_schema);\n", version)
}

// CreateSchema creates the tables that are not there: it runs [Schema] in one
// transaction, for programs without migrations of their own. Any number of
// processes may call it at once. Tables of another version are an error, and
// are not changed.
func (s *Store) CreateSchema(ctx context.Context) error {
	here := clock.Here()
	began := here.Read()
	for {
		err := s.createSchema(ctx)
		if err == nil || !isBusy(err) || here.Steady(began) > schemaWait {
			return err
		}
		select {
		case <-time.After(schemaPause):
		case <-ctx.Done():
			return err
		}
	}
}

// SQLite does not wait for its busy_timeout while another connection makes a new
// file one with a write-ahead log: CreateSchema tries again for that long.
const (
	schemaWait  = 5 * time.Second
	schemaPause = 50 * time.Millisecond
)

func (s *Store) createSchema(ctx context.Context) error {
	const doing = creating
	if err := s.checkEngine(ctx, doing); err != nil {
		return err
	}
	if found, err := s.foundVersion(ctx); err == nil && found.Valid {
		if err := checkVersion(doing, found); err != nil || !s.lacksGrants(ctx) {
			return err
		}
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.explain(ctx, doing, err)
	}
	defer func() { _ = tx.Rollback() }()
	if s.dialect == Postgres {
		// IF NOT EXISTS does not see tables of transactions that have not
		// committed.
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext('sessiontoken_schema'))`); err != nil {
			return s.explain(ctx, doing, err)
		}
	}
	for statement := range strings.SplitSeq(Schema(s.dialect), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return s.explain(ctx, doing, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return s.explain(ctx, doing, err)
	}
	return s.ready(ctx, doing)
}

// ready returns an error unless the database is of the dialect and has the
// tables of this version. It checks at each call until that is so.
func (s *Store) ready(ctx context.Context, doing string) error {
	if s.checked.Load() {
		return nil
	}
	if err := s.checkEngine(ctx, doing); err != nil {
		return err
	}
	found, err := s.foundVersion(ctx)
	if err != nil {
		return s.explain(ctx, doing, err)
	}
	if err := checkVersion(doing, found); err != nil {
		return err
	}
	s.checked.Store(true)
	return nil
}

// engines has for each dialect a query that only its engine answers.
var engines = map[Dialect]string{
	SQLite:   `SELECT sqlite_version()`,
	Postgres: `SELECT current_setting('server_version_num')`,
}

// checkEngine returns an error unless the database is of the dialect.
func (s *Store) checkEngine(ctx context.Context, doing string) error {
	if s.checked.Load() {
		return nil
	}
	is := func(d Dialect) error {
		var answer string
		return s.db.QueryRowContext(ctx, engines[d]).Scan(&answer)
	}
	err := is(s.dialect)
	if err == nil {
		return nil
	}
	other := map[Dialect]Dialect{SQLite: Postgres, Postgres: SQLite}[s.dialect]
	if ctx.Err() == nil && advice(doing, err) == "" && is(other) == nil {
		return fmt.Errorf("sqlstore: %s: Config.Dialect is %q, and Config.DB is a database of %q; open the store with package sqlstore/%[3]s, or set Dialect", doing, string(s.dialect), string(other))
	}
	return s.explain(ctx, doing, err)
}

// foundVersion checks the version of the tables, and that they are complete.
func (s *Store) foundVersion(ctx context.Context) (found sql.NullInt64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT max(version) FROM sessiontoken_schema`).Scan(&found)
	return found, err
}

// lacksGrants reports whether the table of grants is missing: the first tables
// of this version were made without it, and are the same otherwise.
func (s *Store) lacksGrants(ctx context.Context) bool {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM sessiontoken_grants WHERE namespace IS NULL`).Scan(&n)
	return err != nil && isNotThere(err)
}

func checkVersion(doing string, found sql.NullInt64) error {
	switch {
	case !found.Valid:
		return fmt.Errorf("sqlstore: %s: the tables are not complete; call CreateSchema, or run all of Schema in a migration", doing)
	case found.Int64 != version:
		return fmt.Errorf("sqlstore: %s: the tables are of version %d, and this program reads version %d: use a release that reads them, or another database; or drop the tables that begin with sessiontoken_, which signs all users out", doing, found.Int64, version)
	}
	return nil
}
