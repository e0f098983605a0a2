package redisstore_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/faults"
)

func TestProviderLogouts(t *testing.T) {
	beside(t)
	each(t, func(t *testing.T, place string) {
		open := func() authority.Store { return must(storeAt(place)) }
		field := strings.Fields(place)
		client := connect(t, strings.Split(field[2], ",")...)
		faults.ProviderLogouts(t, open, func() int { return rows(t, client, field[1]) })
	})
}

// rows returns how many items the keys with a prefix have.
func rows(t *testing.T, client redis.UniversalClient, prefix string) int {
	t.Helper()
	var all atomic.Int64
	count := func(ctx context.Context, node *redis.Client) error {
		names, err := node.Keys(ctx, "*"+prefix+"*").Result()
		for _, name := range names {
			kind, err := node.Type(ctx, name).Result()
			if err != nil {
				return err
			}
			n := int64(1)
			switch kind {
			case "stream":
				n, err = node.XLen(ctx, name).Result()
			case "zset":
				n, err = node.ZCard(ctx, name).Result()
			case "set":
				n, err = node.SCard(ctx, name).Result()
			case "list":
				n, err = node.LLen(ctx, name).Result()
			}
			if err != nil {
				return err
			}
			all.Add(n)
		}
		return err
	}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		require.NoError(t, cluster.ForEachMaster(t.Context(), count))
	} else {
		require.NoError(t, count(t.Context(), client.(*redis.Client)))
	}
	return int(all.Load())
}

// kill -9 at each step of an offline refresh.
func TestGrantsKilled(t *testing.T) {
	beside(t)
	each(t, faults.GrantsKilled)
}
