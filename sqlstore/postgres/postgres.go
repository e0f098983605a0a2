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
// URL or as keywords and values. It creates the tables in the first schema of
// the connection's search_path unless they are there. Close closes it.
//
// It prepares no statements, so that it works behind a pooler that gives each
// transaction another connection, unless the connection string has a
// default_query_exec_mode. At most 20 connections are open.
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
	// maxConns is how many connections a handle has: of a server's 100, what
	// leaves room for other replicas.
	maxConns = 20
	maxIdle  = 5 * time.Minute
)

// execMode is what says in a connection string how pgx sends statements.
const execMode = "default_query_exec_mode"

// DB returns the handle that Open uses, for sqlstore.New: for a program that
// creates the tables by a migration, or changes the handle's settings. It
// connects to nothing. An error does not quote dsn, which may hold a password.
func DB(dsn string) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, unreadable(err)
	}
	// pgx's own default prepares statements by name, on a connection that the
	// next transaction may not get.
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

// unreadable explains why a connection string cannot be read. The error of pgx
// may quote a part of it, and is not passed on, but for that of a file that it
// names.
func unreadable(err error) error {
	const text = "sqlstore/postgres: dsn cannot be read; it must be a connection string such as postgres://user@host:5432/database"
	var file *fs.PathError
	if errors.As(err, &file) {
		return fmt.Errorf("%s: %w", text, file)
	}
	return errors.New(text)
}
