// Command postgres keeps a session in the PostgreSQL database that it is given.
package main

import (
	"context"
	"log"
	"os"

	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func open(_ context.Context, dsn string) (*sqlstore.Store, error) {
	db, err := sqlstore.OpenPostgres(dsn)
	if err != nil {
		return nil, err
	}
	return sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.Postgres})
}

func main() {
	ctx := context.Background()
	store := must(open(ctx, os.Args[1]))
	if err := store.CreateSchema(ctx); err != nil {
		log.Fatal(err)
	}
	session(ctx, store)
}
