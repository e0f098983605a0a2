package redisstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// addresses are those of one server, of a Cluster's nodes, or of Sentinels.
var addresses = []string{"redis.internal:6379"}

type state struct{ Name string }

// One store for all that replicas share, on one Redis, behind Sentinel or on a
// Cluster: the client decides.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sealing, refreshing [32]byte // random, from where you keep secrets

	client := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addresses, ContextTimeoutEnabled: true})
	defer client.Close()
	store := must(redisstore.New(redisstore.Config{Client: client})) // with replicas: WaitReplicas
	if err := store.CheckPersistence(ctx); err != nil {
		log.Fatal(err) // or go on: it is logged before the first write all the same
	}

	ring := must(keys.NewRing(keys.RingConfig{Store: keys.Sealed(store, must(keys.NewAESGCM(sealing[:])))}))
	revocations := must(revoke.NewList(revoke.Config{Store: store}))
	manager := must(refresh.NewManager(refresh.Config{Store: store, Secrets: [][]byte{refreshing[:]}, Revocations: revocations}))
	go ring.Run(ctx)
	go revocations.Run(ctx)
	_ = manager // for sessionhttp.Config.Refresh

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
	if err := revocations.RevokeSession(ctx, claims.SessionID); err != nil {
		log.Fatal(err)
	}
	_, err = verifier.Verify(ctx, token)
	fmt.Println("after:", err)
}
