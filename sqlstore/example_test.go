package sqlstore_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

type state struct{ Name string }

// One store for all that replicas share. What is the same on every replica, the
// database's file (or connection string) and the secrets, comes from outside.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var sealing, refreshing [32]byte // random, from where you keep secrets

	store, err := sqlite.Open(ctx, filepath.Join(dir, "sessions.db")) // or postgres.Open(ctx, "postgres://…")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	ring := must(keys.NewRing(keys.RingConfig{Store: keys.Sealed(store, must(keys.NewAESGCM(sealing[:])))}))
	revocations := must(revoke.NewList(revoke.Config{Store: store}))
	manager := must(refresh.NewManager(refresh.Config{Store: store, Secrets: [][]byte{refreshing[:]}, Revocations: revocations}))
	go ring.Run(ctx)
	go revocations.Run(ctx)

	issuer := must(sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
		Issuer: "https://auth.example", Audience: []string{"orders"}, Keys: ring, Revocations: revocations}))
	verifier := must(sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{
		Issuer: "https://auth.example", Audience: "orders", Keys: ring, Revocations: revocations}))

	token, claims, err := issuer.Issue(ctx, "user-42", state{"Ada"})
	if err != nil {
		log.Fatal(err)
	}
	_, err = verifier.Verify(ctx, token)
	fmt.Println("before:", err)

	if err := revocations.RevokeSession(ctx, claims.SessionID); err != nil { // its refresh tokens too
		log.Fatal(err)
	}
	_ = manager.DeleteSession(ctx, claims.SessionID) // tidies up
	_, err = verifier.Verify(ctx, token)
	fmt.Println("after:", err)
	// Output:
	// before: <nil>
	// after: sessiontoken: invalid token: revoked
}
