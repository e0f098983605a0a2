// Command sqlite keeps a session in the SQLite file that it is given.
package main

import (
	"context"
	"log"
	"os"

	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func open(_ context.Context, path string) (*sqlstore.Store, error) {
	db, err := sqlstore.OpenSQLite(path)
	if err != nil {
		return nil, err
	}
	return sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
}

func main() {
	ctx := context.Background()
	store := must(open(ctx, os.Args[1]))
	if err := store.CreateSchema(ctx); err != nil {
		log.Fatal(err)
	}
	session(ctx, store)
}
