package redisstore_test

import (
	"context"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// One store for all that replicas share, on one Redis, behind Sentinel or on a
// Cluster: the client decides. This one needs a server, and does not run here.
func Example() {
	ctx := context.Background()
	var sealing, refreshing [32]byte // random, from where you keep secrets

	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: []string{"redis.internal:6379"}, ContextTimeoutEnabled: true,
	})
	defer client.Close()
	store := must(redisstore.New(redisstore.Config{Client: client, WaitReplicas: 1})) // 0 where there are no replicas
	if err := store.CheckPersistence(ctx); err != nil {
		log.Fatal(err) // or go on: it is logged before the first write all the same
	}

	ring := must(keys.NewRing(keys.RingConfig{Store: keys.Sealed(store, must(keys.NewAESGCM(sealing[:])))}))
	revocations := must(revoke.NewList(revoke.Config{Store: store}))
	manager := must(refresh.NewManager(refresh.Config{Store: store, Secrets: [][]byte{refreshing[:]}, Revocations: revocations}))
	go ring.Run(ctx)
	go revocations.Run(ctx)
	_ = manager // for sessionhttp.Config.Refresh
}
