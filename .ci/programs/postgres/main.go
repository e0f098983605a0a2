// Command postgres keeps a session in the PostgreSQL database that it is given.
package main

import (
	"context"
	"os"

	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
)

func main() {
	ctx := context.Background()
	session(ctx, must(postgres.Open(ctx, os.Args[1])))
}
