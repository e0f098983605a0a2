// Command sqlite keeps a session in the SQLite file that it is given.
package main

import (
	"context"
	"os"

	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

func main() {
	ctx := context.Background()
	session(ctx, must(sqlite.Open(ctx, os.Args[1])))
}
