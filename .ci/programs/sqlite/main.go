// Command sqlite keeps a session in the SQLite file that it is given.
package main

import (
	"context"
	"os"

	"github.com/sessiontoken/sessiontoken/sqlstore"
)

func open(ctx context.Context, path string) (*sqlstore.Store, error) {
	db, err := sqlstore.OpenSQLite(path)
	if err != nil {
		return nil, err
	}
	store, err := sqlstore.New(sqlstore.Config{DB: db, Dialect: sqlstore.SQLite})
	if err != nil {
		return nil, err
	}
	return store, store.CreateSchema(ctx)
}

func main() {
	ctx := context.Background()
	session(ctx, must(open(ctx, os.Args[1])))
}
