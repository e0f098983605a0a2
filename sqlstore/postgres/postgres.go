// Package postgres opens a [sqlstore.Store] in a PostgreSQL database, version
// 13 or later, also behind a pooler such as PgBouncer. It links the driver pgx.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/sessiontoken/sessiontoken/sqlstore"
)

// Open opens the store in the database that the connection string names, as a
// URL or as keywords and values. If there are no tables, it creates them in the
// first schema of the connection's search_path. Close closes the store.
//
// Unless the connection string has a default_query_exec_mode, the store
// prepares no statements, so that it works behind a pooler that gives each
// transaction another connection. At most 20 connections are open.
func Open(ctx context.Context, dsn string) (*sqlstore.Store, error) {
	db, err := DB(dsn)
	if err != nil {
		return nil, err
	}
	s, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres})
	if err == nil {
		err = s.CreateSchema(ctx)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return s, nil
}

const (
	// maxConns is how many connections a handle has. A server has 100 by
	// default, which other replicas need too.
	maxConns = 20
	maxIdle  = 5 * time.Minute
)

// execMode is the parameter of a connection string that chooses how pgx sends
// statements.
const execMode = "default_query_exec_mode"

// DB returns the handle that Open uses. Pass it to sqlstore.New in a program
// that creates the tables by a migration, or changes the handle's settings. DB
// does not connect. An error does not quote dsn, which may hold a password.
func DB(dsn string) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, unreadable(err)
	}
	// By default pgx prepares named statements on a connection, and behind a
	// pooler the next transaction may get another one.
	params, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, unreadable(err)
	}
	if _, said := params.RuntimeParams[execMode]; !said {
		cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	db.SetConnMaxIdleTime(maxIdle)
	return db, nil
}

// unreadable returns the error for a connection string that cannot be read. It
// does not wrap the error of pgx, which may quote a part of the string, except
// one about a file that the string names.
func unreadable(err error) error {
	const text = "sqlstore/postgres: dsn cannot be read; it must be a connection string such as postgres://user@host:5432/database"
	var file *fs.PathError
	if errors.As(err, &file) {
		return fmt.Errorf("%s: %w", text, file)
	}
	return errors.New(text)
}
