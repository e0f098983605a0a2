// Command root issues a session token and verifies it.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

type state struct{ Role string }

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func main() {
	ctx := context.Background()
	ring := must(keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)}))
	issuer := must(sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{
		Issuer: "https://auth.example", Audience: []string{"orders"}, Keys: ring}))
	verifier := must(sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{
		Issuer: "https://auth.example", Audience: "orders", Keys: ring}))
	token, _, err := issuer.Issue(ctx, "user-42", state{"admin"})
	if err != nil {
		log.Fatal(err)
	}
	claims := must(verifier.Verify(ctx, token))
	fmt.Println(claims.Subject, claims.State.Role)
}
