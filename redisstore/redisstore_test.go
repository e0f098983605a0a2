package redisstore_test

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/faults"
	"github.com/sessiontoken/sessiontoken/internal/servers"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

var stops []func()

var single = sync.OnceValues(func() (string, error) {
	addr, stop, err := servers.Redis("--appendonly", "yes", "--appendfsync", "always")
	if err == nil {
		stops = append(stops, stop)
	}
	return addr, err
})

// cluster is one of three nodes.
var cluster = sync.OnceValues(func() ([]string, error) {
	var addrs []string
	for range 3 {
		addr, stop, err := servers.Redis("--cluster-enabled", "yes", "--cluster-require-full-coverage", "yes")
		if err != nil {
			return nil, err
		}
		stops = append(stops, stop)
		addrs = append(addrs, addr)
	}
	return addrs, servers.JoinRedisCluster(addrs)
})

func TestMain(m *testing.M) {
	if addr := os.Getenv(faults.ExchangeVariable); addr != "" {
		s, err := redisstore.New(redisstore.Config{Client: redis.NewUniversalClient(&redis.UniversalOptions{Addrs: []string{addr}}), Prefix: "races"})
		if err != nil {
			panic(err)
		}
		faults.ServeExchange(s)
		return
	}
	code := m.Run()
	for _, stop := range stops {
		stop()
	}
	os.Exit(code)
}

func connect(t *testing.T, addrs ...string) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, IsClusterMode: len(addrs) > 1, ContextTimeoutEnabled: true, PoolSize: 20})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var prefixes atomic.Int64

// each runs f with a Redis alone and with a Cluster of three.
func each(t *testing.T, f func(t *testing.T, open func(t *testing.T) (a, b *redisstore.Store))) {
	for name, addrs := range map[string]func() ([]string, error){
		"single":  func() ([]string, error) { addr, err := single(); return []string{addr}, err },
		"cluster": cluster,
	} {
		t.Run(name, func(t *testing.T) {
			at, err := addrs()
			if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
				t.Skip("NOT RUN: redis-server is not installed")
			}
			require.NoError(t, err)
			f(t, func(t *testing.T) (a, b *redisstore.Store) {
				prefix := fmt.Sprint("test-", prefixes.Add(1))
				open := func() *redisstore.Store {
					s, err := redisstore.New(redisstore.Config{Client: connect(t, at...), Prefix: prefix})
					require.NoError(t, err)
					return s
				}
				return open(), open()
			})
		})
	}
}

func TestStore(t *testing.T) {
	each(t, func(t *testing.T, open func(t *testing.T) (a, b *redisstore.Store)) {
		storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t) })
		storetest.Ended(t, func(t *testing.T) (a, b revoke.Store) { return open(t) })
		storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t) })
	})
}

func TestHowSoon(t *testing.T) {
	each(t, func(t *testing.T, open func(t *testing.T) (a, b *redisstore.Store)) {
		a, b := open(t)
		faults.HowSoon(t, a, b, time.Second, 10*time.Millisecond)
	})
}

func TestFirstStart(t *testing.T) {
	each(t, func(t *testing.T, open func(t *testing.T) (a, b *redisstore.Store)) {
		faults.FirstStart(t, func(t *testing.T) keys.Store { a, _ := open(t); return a })
	})
}

func TestPersistence(t *testing.T) {
	addr, err := single()
	require.NoError(t, err)
	s, err := redisstore.New(redisstore.Config{Client: connect(t, addr)})
	require.NoError(t, err)
	require.NoError(t, s.CheckPersistence(t.Context()))
	plain, stop, err := servers.Redis()
	require.NoError(t, err)
	defer stop()
	s, err = redisstore.New(redisstore.Config{Client: connect(t, plain)})
	require.NoError(t, err)
	require.ErrorContains(t, s.CheckPersistence(t.Context()), "appendonly")
}

// A write that too few replicas have is no success.
func TestWaitReplicas(t *testing.T) {
	addr, err := single()
	require.NoError(t, err)
	s, err := redisstore.New(redisstore.Config{Client: connect(t, addr), Prefix: "wait", WaitReplicas: 1, WaitTimeout: 100 * time.Millisecond})
	require.NoError(t, err)
	e := revoke.Entry{Scope: revoke.Session, Value: "x", Before: time.Now(), Until: time.Now().Add(time.Hour)}
	require.ErrorContains(t, s.Append(t.Context(), e), "0 of 1 replicas")

	_, port := servers.Split(addr)
	_, stop, err := servers.Redis("--replicaof", "127.0.0.1 "+port)
	require.NoError(t, err)
	defer stop()
	require.Eventually(t, func() bool { return s.Append(t.Context(), e) == nil }, 10*time.Second, 50*time.Millisecond)
}

func TestUnreachable(t *testing.T) {
	s, err := redisstore.New(redisstore.Config{Client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", Password: "hunter2", MaxRetries: -1})})
	require.NoError(t, err)
	_, _, err = s.Load(t.Context())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "hunter2")
}

func TestNewNamesTheField(t *testing.T) {
	_, err := redisstore.New(redisstore.Config{Client: redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}}), WaitReplicas: 1})
	require.ErrorContains(t, err, "Config.WaitReplicas")
	ok := redisstore.Config{Client: redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})}
	for field, change := range map[string]func(*redisstore.Config){
		"Client":       func(c *redisstore.Config) { c.Client = nil },
		"Prefix":       func(c *redisstore.Config) { c.Prefix = "{a}" },
		"KeepEnded":    func(c *redisstore.Config) { c.KeepEnded = -1 },
		"WaitReplicas": func(c *redisstore.Config) { c.WaitReplicas = -1 },
		"WaitTimeout":  func(c *redisstore.Config) { c.WaitTimeout = -1 },
	} {
		cfg := ok
		change(&cfg)
		_, err := redisstore.New(cfg)
		require.ErrorContains(t, err, "Config."+field)
	}
}

func TestRefreshRaces(t *testing.T) {
	addr, err := single()
	require.NoError(t, err)
	s, err := redisstore.New(redisstore.Config{Client: connect(t, addr), Prefix: "races"})
	require.NoError(t, err)
	faults.RefreshRaces(t, s, addr)
}

func TestFaults(t *testing.T) {
	server, err := servers.StartRedis("--appendonly", "yes", "--appendfsync", "always")
	require.NoError(t, err)
	defer server.Stop()
	faults.Ended(t, faults.Engine{Server: server, Open: func(t *testing.T, addr string) revoke.Store {
		s, err := redisstore.New(redisstore.Config{Client: connect(t, addr)})
		require.NoError(t, err)
		return s
	}})
}
