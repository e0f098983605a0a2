package refresh_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

func ExampleManager_Exchange() {
	secret := make([]byte, 32) // from the secret store, the same on all replicas
	rand.Read(secret)
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	if err != nil {
		panic(err)
	}
	manager, err := refresh.NewManager(refresh.Config{
		Store:       new(refresh.MemStore),
		Secrets:     [][]byte{secret},
		Revocations: list,
		Logger:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()

	// After a sign-in, with what the claims of the session say.
	first, _, err := manager.Start(ctx, refresh.Family{Subject: "ada", SessionID: "sid-1", Label: "phone", Began: time.Now()}, "")
	if err != nil {
		panic(err)
	}

	issue := func(_ context.Context, f refresh.Family) error {
		fmt.Println("a session token for", f.Subject) // load the state, call Issuer.Resume
		return nil
	}
	second, _, err := manager.Exchange(ctx, refresh.Presented{Token: first}, issue)
	if err != nil {
		panic(err)
	}
	third, _, err := manager.Exchange(ctx, refresh.Presented{Token: second}, issue)
	if err != nil {
		panic(err)
	}

	// A thief has copied the first one.
	_, _, err = manager.Exchange(ctx, refresh.Presented{Token: first}, issue)
	fmt.Println(errors.Is(err, refresh.ErrReused))
	_, _, err = manager.Exchange(ctx, refresh.Presented{Token: third}, issue)
	fmt.Println(errors.Is(err, refresh.ErrInvalid))
	// Output:
	// a session token for ada
	// a session token for ada
	// true
	// true
}
