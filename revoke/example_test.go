package revoke_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// Two replicas follow one store: what one of them revokes, the other refuses.
func ExampleList() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store := new(revoke.MemStore) // for one process; sqlstore and redisstore are for more
	replica := func() *revoke.List {
		list, err := revoke.NewList(revoke.Config{Store: store})
		if err != nil {
			log.Fatal(err)
		}
		return list
	}
	here, there := replica(), replica()

	// At a sign-in. Issuer.Begin does this if it has the list.
	began, err := here.Begin(ctx, revoke.Question{Subject: "user-42"})
	if err != nil {
		log.Fatal(err)
	}
	question := revoke.Question{SessionID: "session-1", Subject: "user-42", KeyID: "key-1", Began: began}.Prepared()
	fmt.Println("signed in:", there.Check(ctx, &question) == nil)

	// At a sign-out. It is a fact once there is no error.
	if err := here.RevokeSession(ctx, "session-1"); err != nil {
		log.Fatal(err)
	}
	// The others read the store every SyncEvery, in Run; this one starts now, and
	// reads it first.
	there = replica()
	go there.Run(ctx)
	fmt.Println("signed out:", errors.Is(there.Check(ctx, &question), revoke.ErrRevoked))
	// Output:
	// signed in: true
	// signed out: true
}

// After the user has changed the password: all other sessions are over, and this
// one goes on.
func ExampleList_RevokeOthers() {
	ctx := context.Background()
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	began, err := list.Begin(ctx, revoke.Question{Subject: "user-42"})
	if err != nil {
		log.Fatal(err)
	}
	if err := list.RevokeOthers(ctx, "user-42", "this-one"); err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"this-one", "another"} {
		question := revoke.Question{SessionID: id, Subject: "user-42", KeyID: "key-1", Began: began}.Prepared()
		fmt.Println(id, list.Check(ctx, &question))
	}
	// Output:
	// this-one <nil>
	// another revoke: the session is revoked
}

// After the user's role has changed: a token with the state from before is
// stale, and one whose state is read now is not. No session ends.
func ExampleList_Changed() {
	ctx := context.Background()
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	began, err := list.Begin(ctx, revoke.Question{Subject: "user-42"})
	if err != nil {
		log.Fatal(err)
	}
	// Verifiers and issuers ask these questions.
	token := revoke.Question{SessionID: "session-1", Subject: "user-42", Began: began, IssuedAt: began}.Prepared()
	fmt.Println("fresh:", list.Check(ctx, &token) == nil)

	// The change is committed.
	if err := list.Changed(ctx, "user-42"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("stale:", errors.Is(list.Check(ctx, &token), revoke.ErrChanged))
	if token.Changed, err = list.Mark(ctx, &token); err != nil { // before the state is read
		log.Fatal(err)
	}
	token = token.Prepared()
	fmt.Println("renewed:", list.Check(ctx, &token) == nil)
	// Output:
	// fresh: true
	// stale: true
	// renewed: true
}
