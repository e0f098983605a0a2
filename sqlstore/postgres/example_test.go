package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore/postgres"
)

// dsn comes from outside, with the password.
var dsn = "postgres://sessions@db.internal/sessions?sslmode=verify-full"

// Any number of machines open the same database, directly or through a pooler.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := postgres.Open(ctx, dsn)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	list, err := revoke.NewList(revoke.Config{Store: store})
	if err != nil {
		log.Fatal(err)
	}
	began, err := list.Begin(ctx, revoke.Question{Subject: "user-42"})
	if err != nil {
		log.Fatal(err)
	}
	if err := list.RevokeSubject(ctx, "user-42"); err != nil {
		log.Fatal(err)
	}
	question := revoke.Question{SessionID: "sid", Subject: "user-42", KeyID: "kid", Began: began}.Prepared()
	fmt.Println(errors.Is(list.Check(ctx, &question), revoke.ErrRevoked))
}
