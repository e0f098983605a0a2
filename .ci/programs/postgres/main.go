// Command postgres keeps a session in the PostgreSQL database that it is given.
package main

import (
	"context"
	"os"

	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func open(ctx context.Context, dsn string) (*sqlstore.Store, error) {
	db, err := sqlstore.OpenPostgres(dsn)
	if err != nil {
		return nil, err
	}
	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres})
	if err != nil {
		return nil, err
	}
	return store, store.CreateSchema(ctx)
}

func main() {
	ctx := context.Background()
	session(ctx, must(open(ctx, os.Args[1])))
}
