package redisstore_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestNewNamesTheField(t *testing.T) {
	ok := redisstore.Config{Client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})}
	cluster := func(o redis.ClusterOptions) func(*redisstore.Config) {
		o.Addrs = []string{"127.0.0.1:1"}
		return func(c *redisstore.Config) { c.Client = redis.NewClusterClient(&o) }
	}
	for _, tt := range []struct {
		name   string
		change func(*redisstore.Config)
	}{
		{"ReadOnly", cluster(redis.ClusterOptions{ReadOnly: true})},
		{"RouteByLatency", cluster(redis.ClusterOptions{RouteByLatency: true})},
		{"RouteRandomly", cluster(redis.ClusterOptions{RouteRandomly: true})},
		{"a ring", func(c *redisstore.Config) { c.Client = redis.NewRing(&redis.RingOptions{}) }},
		{"a typed nil", func(c *redisstore.Config) { c.Client = (*redis.ClusterClient)(nil) }},
	} {
		cfg := ok
		tt.change(&cfg)
		_, err := redisstore.New(cfg)
		require.ErrorContains(t, err, "Config.Client", tt.name)
	}
	for _, tt := range []struct {
		field  string
		change func(*redisstore.Config)
	}{
		{"Client", func(c *redisstore.Config) { c.Client = nil }},
		{"Prefix", func(c *redisstore.Config) { c.Prefix = "{a}" }},
		{"KeepFor", func(c *redisstore.Config) { c.KeepFor = -1 }},
		{"WaitReplicas", func(c *redisstore.Config) { c.WaitReplicas = -1 }},
		{"WaitTimeout", func(c *redisstore.Config) { c.WaitTimeout = -1 }},
	} {
		cfg := ok
		tt.change(&cfg)
		_, err := redisstore.New(cfg)
		require.ErrorContains(t, err, "Config."+tt.field)
	}
}

// server returns the address of the server that SESSIONTOKEN_REDIS names. It
// skips the test where none is named, but in CI.
func server(t *testing.T) string {
	t.Helper()
	addr := os.Getenv("SESSIONTOKEN_REDIS")
	if addr == "" && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: SESSIONTOKEN_REDIS names no server")
	}
	require.NotEmpty(t, addr, "SESSIONTOKEN_REDIS")
	return addr
}

// The store does what storetest asks of one. Module faults asks the same of a
// Cluster.
func TestStore(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: server(t), ContextTimeoutEnabled: true, PoolSize: 20})
	defer client.Close()
	stores, began := 0, time.Now().UnixNano()
	open := func(*testing.T) (a, b *redisstore.Store) {
		stores++
		cfg := redisstore.Config{Client: client, Prefix: fmt.Sprint("test-", began, "-", stores)}
		return must(redisstore.New(cfg)), must(redisstore.New(cfg))
	}
	storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t) })
	storetest.Revocations(t, func(t *testing.T) (a, b revoke.Store) { return open(t) })
	storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t) })
	storetest.AllFamilies(t, func(t *testing.T) (a, b refresh.AllLister) { return open(t) })
	storetest.Grants(t, open)
}

// The example runs. Its server must keep what it acknowledges.
func TestExample(t *testing.T) {
	addr := server(t)
	said := addresses
	defer func() { addresses = said }()
	addresses = []string{addr}
	require.Equal(t, "before: <nil>\nafter: sessiontoken: invalid token: revoked\n", printed(t, Example))
}

// printed is what a function prints.
func printed(t *testing.T, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer file.Close()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	os.Stdout = file
	f()
	text, err := os.ReadFile(file.Name())
	require.NoError(t, err)
	return string(text)
}
