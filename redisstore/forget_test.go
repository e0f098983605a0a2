package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestForget: no key and no value names a person who was forgotten.
func TestForget(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: server(t), ContextTimeoutEnabled: true, PoolSize: 20})
	defer client.Close()
	cfg := redisstore.Config{Client: client, Prefix: fmt.Sprint("forget-", time.Now().UnixNano())}
	forget(t, must(redisstore.New(cfg)), must(redisstore.New(cfg)), func() string {
		var all strings.Builder
		keys := client.Scan(t.Context(), 0, "{"+cfg.Prefix+"}*", 1000).Iterator()
		for keys.Next(t.Context()) {
			var value any
			switch key := keys.Val(); must(client.Type(t.Context(), key).Result()) {
			case "string":
				value = must(client.Get(t.Context(), key).Result())
			case "hash":
				value = must(client.HGetAll(t.Context(), key).Result())
			case "zset":
				value = must(client.ZRange(t.Context(), key, 0, -1).Result())
			case "stream":
				value = must(client.XRange(t.Context(), key, "-", "+").Result())
			default:
				t.Fatalf("%s is of another type", key)
			}
			_, _ = fmt.Fprintf(&all, "%s: %v\n", keys.Val(), value)
		}
		require.NoError(t, keys.Err())
		return all.String()
	})
}

// begin begins a session of a subject with a family, whose label and Context
// name a person too.
func begin(t *testing.T, m *refresh.Manager, subject, sessionID string) (token string, began time.Time) {
	t.Helper()
	began, err := m.Config().Revocations.Begin(t.Context(), revoke.Question{Subject: subject})
	require.NoError(t, err)
	token, _, err = m.Start(t.Context(), refresh.Family{Subject: subject, SessionID: sessionID, Label: "phone of " + subject, Context: []byte(subject), Began: began}, "")
	require.NoError(t, err)
	return token, began
}

// forget has one of two replicas forget a subject, and checks that the store
// holds its name nowhere, that its sessions have ended on both, and that another
// subject's go on. names returns all that the store holds.
func forget(t *testing.T, a, b interface {
	refresh.Store
	revoke.Store
}, names func() string) {
	t.Helper()
	const ada, bob = "ada@forgotten.example", "bob@kept.example"
	var managers []*refresh.Manager
	for _, s := range []interface {
		refresh.Store
		revoke.Store
	}{a, b} {
		list, err := revoke.NewList(revoke.Config{Store: s, Namespace: "site"})
		require.NoError(t, err)
		m, err := refresh.NewManager(refresh.Config{Store: s, Namespace: "site", Secrets: [][]byte{make([]byte, 32)}, Revocations: list})
		require.NoError(t, err)
		managers = append(managers, m)
	}
	sync := func() {
		for _, m := range managers {
			require.NoError(t, m.Config().Revocations.Sync(t.Context()))
		}
	}
	first, began := begin(t, managers[0], ada, "sid-1")
	second, _ := begin(t, managers[1], ada, "sid-2")
	other, _ := begin(t, managers[0], bob, "sid-3")
	require.NoError(t, managers[0].Config().Revocations.Changed(t.Context(), ada))
	require.Contains(t, names(), ada)
	require.Contains(t, names(), bob)

	for range 2 {
		require.NoError(t, managers[1].Forget(t.Context(), ada))
		require.NotContains(t, names(), ada)
		require.NotContains(t, names(), "sid-1")
	}
	require.Contains(t, names(), bob)
	sync()
	for _, m := range managers {
		q := revoke.Question{SessionID: "sid-1", Subject: ada, Began: began}
		require.Equal(t, revoke.ErrRevoked, m.Config().Revocations.Check(t.Context(), &q))
		for _, token := range []string{first, second} {
			_, _, err := m.Exchange(t.Context(), refresh.Presented{Token: token}, func(context.Context, refresh.Family) error { return nil })
			require.ErrorIs(t, err, refresh.ErrInvalid)
		}
	}
	_, _, err := managers[1].Exchange(t.Context(), refresh.Presented{Token: other}, func(context.Context, refresh.Family) error { return nil })
	require.NoError(t, err)
	again, _ := begin(t, managers[0], ada, "sid-4")
	sync()
	_, _, err = managers[1].Exchange(t.Context(), refresh.Presented{Token: again}, func(context.Context, refresh.Family) error { return nil })
	require.NoError(t, err, "a session that begins afterwards")
}
