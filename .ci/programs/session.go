package main

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

type state struct{ Role string }

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// session begins a session whose keys, revocations and refresh tokens are in one
// store, and revokes it.
func session(ctx context.Context, store interface {
	keys.Store
	revoke.Store
	refresh.Store
}) {
	secret := make([]byte, 32)
	ring := must(keys.NewRing(keys.RingConfig{Store: keys.Sealed(store, must(keys.NewAESGCM(secret)))}))
	revocations := must(revoke.NewList(revoke.Config{Store: store}))
	manager := must(refresh.NewManager(refresh.Config{Store: store, Secrets: [][]byte{secret}, Revocations: revocations}))
	issuer := must(sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
		Issuer: "https://auth.example", Audience: []string{"orders"}, Keys: ring, Revocations: revocations}))
	verifier := must(sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{
		Issuer: "https://auth.example", Audience: "orders", Keys: ring, Revocations: revocations}))

	token, claims, err := issuer.Issue(ctx, "user-42", state{"admin"})
	if err != nil {
		log.Fatal(err)
	}
	must(verifier.Verify(ctx, token))
	family := refresh.Family{Subject: claims.Subject, SessionID: claims.SessionID, Began: claims.Began}
	if _, _, err := manager.Start(ctx, family, ""); err != nil {
		log.Fatal(err)
	}
	if err := revocations.RevokeSession(ctx, claims.SessionID); err != nil {
		log.Fatal(err)
	}
	if _, err := verifier.Verify(ctx, token); !errors.Is(err, sessiontoken.ErrRevoked) {
		log.Fatal("after the sign-out: ", err)
	}
	fmt.Println(claims.Subject, claims.State.Role, "and out again")
}
