package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// explain says what to do about an error, where that is known. The errors of the
// drivers hold no values and no password.
func (s *Store) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("sqlstore: %s: %w", doing, ctx.Err())
	}
	if advice := advice(err); advice != "" {
		return fmt.Errorf("sqlstore: %s: %s: %w", doing, advice, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", doing, err)
}

const (
	notThere = "the tables are not there; call CreateSchema, or run Schema in a migration"
	isFull   = "there is no room left on the database's disk"
)

// adviceOf has what to do about an SQLSTATE of PostgreSQL.
var adviceOf = map[string]string{
	"42P01": notThere,
	"42703": "the tables are not what this version makes; run Schema in an empty database",
	"42501": "the database's user may not do that; grant it SELECT, INSERT, UPDATE and DELETE on the tables that begin with sessiontoken_, and USAGE on their schema",
	"28P01": "the database refuses the user or the password; check the connection string",
	"28000": "the database refuses the user; check the connection string, and the server's pg_hba.conf",
	"3D000": "there is no such database; create it, or check the connection string",
	"25006": "the server only reads, as a standby does; connect to the primary (target_session_attrs=read-write)",
	"53100": isFull,
	"53300": "the server has no connection left; lower SetMaxOpenConns, or raise its max_connections",
}

// What SQLite calls these (the low byte of its result codes).
var adviceOfCode = map[int]string{
	5:  "another process holds the database's lock for too long",
	8:  "the database's file cannot be written; check its permissions, and those of its folder",
	11: "the database's file is damaged; restore it from a backup",
	13: isFull,
	14: "the database's file cannot be opened; check its path and permissions",
	26: "the file is not a SQLite database; check its path",
}

func advice(err error) string {
	if errors.Is(err, errStandby) {
		return "a standby answers, whose copy may lag; connect to the primary (target_session_attrs=read-write)"
	}
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		return adviceOf[state.SQLState()]
	}
	var code interface{ Code() int }
	if errors.As(err, &code) {
		if strings.Contains(err.Error(), "no such table") {
			return notThere
		}
		return adviceOfCode[code.Code()&0xff]
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return "the database cannot be reached; check that it runs, and its address"
	}
	return ""
}
