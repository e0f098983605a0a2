package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
)

// explain adds to an error what to do about it, if that is known. The errors of
// the drivers hold no values and no password.
func (s *Store) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("sqlstore: %s: %w", doing, ctx.Err())
	}
	if advice := advice(doing, err); advice != "" {
		return fmt.Errorf("sqlstore: %s: %s: %w", doing, advice, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", doing, err)
}

const (
	notThere   = "the tables are not there; call CreateSchema, or run Schema in a migration"
	isFull     = "there is no room left on the database's disk"
	cannotOpen = "the database's file cannot be opened; check its path and permissions"
	prepared   = "a pooler gives each transaction another connection, and statements were prepared on one; open the store with package sqlstore/postgres, without default_query_exec_mode in the connection string, or set that to exec"
)

// creating names what CreateSchema does, for error texts.
const creating = "create the tables"

// adviceOf says what to do about an SQLSTATE of PostgreSQL.
var adviceOf = map[string]string{
	"3F000": "the connection's search_path names no schema that is there and that the user may use; create the schema, grant the user USAGE on it, and name it in search_path",
	"42P01": notThere + "; if they are there, name their schema in the connection's search_path, and grant the user USAGE on it",
	"42703": "the tables are not what this version makes; run Schema in an empty database",
	"42501": "the database's user may not do that; grant it SELECT, INSERT, UPDATE and DELETE on the tables that begin with sessiontoken_, and USAGE on their schema",
	"42P05": prepared,
	"26000": prepared,
	"28P01": "the database refuses the user or the password; check the connection string",
	"28000": "the database refuses the user; check the connection string, and the server's pg_hba.conf",
	"3D000": "there is no such database; create it, or check the connection string",
	"25006": "the server only reads, as a standby does; connect to the primary (target_session_attrs=read-write)",
	"53100": isFull,
	"53300": "the server has no connection left; lower SetMaxOpenConns, or raise its max_connections",
}

// mayNotCreate is the advice for 42501 in CreateSchema.
const mayNotCreate = "the database's user may not create tables in the first schema of its search_path; run sqlstore.Schema as a user who may, and grant this one SELECT, INSERT, UPDATE and DELETE on the tables that begin with sessiontoken_, and USAGE on their schema; or grant it CREATE on the schema"

// adviceOfCode says what to do about a result code of SQLite, by its low byte.
var adviceOfCode = map[int]string{
	busy: "another process holds the database's lock for too long",
	8:    "the database's file cannot be written; check its permissions, and those of its folder",
	11:   "the database's file is damaged; restore it from a backup",
	13:   isFull,
	14:   cannotOpen,
	26:   "the file is not a SQLite database; check its path",
}

// busy is SQLite's code for a lock that another connection holds.
const busy = 5

// isBusy reports whether SQLite says so.
func isBusy(err error) bool {
	var code interface{ Code() int }
	return errors.As(err, &code) && code.Code()&0xff == busy
}

// isNotThere reports whether an error says that a table does not exist.
func isNotThere(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return state.SQLState() == "42P01"
	}
	return strings.Contains(err.Error(), "no such table")
}

func advice(doing string, err error) string {
	if errors.Is(err, errStandby) {
		return "a standby answers, whose copy may lag; connect to the primary (target_session_attrs=read-write)"
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		switch {
		case state.SQLState() == "42501" && doing == creating:
			return mayNotCreate
		case strings.Contains(err.Error(), "unsupported startup parameter"):
			return "the pooler does not pass on a parameter of the connection string; set it for the user or the database instead (ALTER ROLE … SET), or permit it in the pooler"
		}
		return adviceOf[state.SQLState()]
	}
	var code interface{ Code() int }
	if errors.As(err, &code) {
		if strings.Contains(err.Error(), "no such table") {
			return notThere
		}
		return adviceOfCode[code.Code()&0xff]
	}
	var file *fs.PathError
	if errors.As(err, &file) {
		return cannotOpen
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return "the database cannot be reached; check that it runs, and its address"
	}
	return ""
}
