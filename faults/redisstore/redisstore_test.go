package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

var stops []func()

var single = sync.OnceValues(func() (string, error) {
	addr, stop, err := servers.Redis(servers.Durable...)
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
	return addrs, servers.JoinRedisCluster(addrs, 0)
})

// quiet says nothing of servers that are gone on purpose.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	if faults.Main(func(place string) (faults.Store, error) { return storeAt(place) }) {
		return
	}
	code := m.Run()
	for _, stop := range stops {
		stop()
	}
	os.Exit(code)
}

// storeAt opens the store at a place: "one PREFIX ADDR", "cluster PREFIX ADDRS"
// or "sentinel PREFIX ADDRS", with addresses as "ADDR" or "ADDR=PROXY". With
// WAIT before the prefix, each write waits for a replica.
func storeAt(place string) (*redisstore.Store, error) {
	field := strings.Fields(place)
	cfg := redisstore.Config{Prefix: field[1]}
	if prefix, ok := strings.CutPrefix(field[1], "WAIT"); ok {
		cfg.Prefix, cfg.WaitReplicas, cfg.WaitTimeout = prefix, 1, 300*time.Millisecond
	}
	options := &redis.UniversalOptions{ContextTimeoutEnabled: true, PoolSize: 20, MaxRetries: 1}
	through := map[string]string{}
	for addr := range strings.SplitSeq(field[2], ",") {
		addr, proxy, _ := strings.Cut(addr, "=")
		options.Addrs = append(options.Addrs, addr)
		through[addr] = proxy
	}
	options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if proxy := through[addr]; proxy != "" {
			addr = proxy
		}
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, addr)
	}
	switch field[0] {
	case "cluster":
		options.IsClusterMode = true
	case "sentinel":
		options.MasterName = "main"
	}
	cfg.Client = redis.NewUniversalClient(options)
	return redisstore.New(cfg)
}

func connect(t *testing.T, addrs ...string) redis.UniversalClient {
	t.Helper()
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: addrs, IsClusterMode: len(addrs) > 1, ContextTimeoutEnabled: true, PoolSize: 20})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var prefixes atomic.Int64

// kinds are the servers that every test runs on: one alone, and a Cluster of
// three.
var kinds = map[string]func() ([]string, error){
	"one":     func() ([]string, error) { addr, err := single(); return []string{addr}, err },
	"cluster": cluster,
}

// each runs f on each kind, with a place in it that nothing uses.
func each(t *testing.T, f func(t *testing.T, place string)) {
	for kind, addrs := range kinds {
		t.Run(kind, func(t *testing.T) {
			at, err := addrs()
			installed(t, err)
			f(t, fmt.Sprintf("%s test-%d %s", kind, prefixes.Add(1), strings.Join(at, ",")))
		})
	}
}

// installed skips the test where there is no server, but in CI.
func installed(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, servers.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: redis-server is not installed")
	}
	require.NoError(t, err)
}

// alone is a client of the one server.
func alone(t *testing.T) redis.UniversalClient {
	t.Helper()
	addr, err := single()
	installed(t, err)
	return connect(t, addr)
}

// open opens two stores at a place, under a new prefix.
func open(t *testing.T, place string) (a, b *redisstore.Store) {
	t.Helper()
	field := strings.Fields(place)
	field[1] = fmt.Sprint("test-", prefixes.Add(1))
	at := strings.Join(field, " ")
	return must(storeAt(at)), must(storeAt(at))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func entry(value string) revoke.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return revoke.Entry{Scope: revoke.Session, Digest: revoke.Session.Digest(value), Before: now, Until: now.Add(time.Hour)}
}

func digest(value string) string { d := revoke.Session.Digest(value); return string(d[:]) }

// row is an entry of a log as this version writes it.
func row(value string) []any {
	return []any{"namespace", "", "scope", "session", "digest", digest(value), "except", make([]byte, 16),
		"before", 1, "until", time.Now().Add(time.Hour).UnixMilli(), "skip", 0, "tag", value}
}

// A Cluster does what storetest asks of a store. The store's own module asks the
// same of one server.
func TestStoreInACluster(t *testing.T) {
	addrs, err := cluster()
	installed(t, err)
	open := func(t *testing.T) (a, b *redisstore.Store) { return open(t, "cluster - "+strings.Join(addrs, ",")) }
	storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t) })
	storetest.Revocations(t, func(t *testing.T) (a, b revoke.Store) { return open(t) })
	storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t) })
	storetest.Grants(t, open)
}

func TestHowSoon(t *testing.T) {
	each(t, func(t *testing.T, place string) { faults.HowSoon(t, place, time.Second, 10*time.Millisecond) })
}

func TestFirstStart(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		a, _ := open(t, place)
		faults.FirstStart(t, a)
	})
}

func TestKeyRevoked(t *testing.T) {
	each(t, func(t *testing.T, place string) { faults.KeyRevoked(t, place, time.Second) })
}

func TestRefreshRaces(t *testing.T) { each(t, faults.RefreshRaces) }

func TestTamperedRing(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		a, b := open(t, place)
		faults.Tampered(t, a, b)
	})
}

// many adds entries to the log as a writer would, many at once.
func many(t *testing.T, c redis.UniversalClient, prefix string, n int) {
	t.Helper()
	for i := 1; i <= n; {
		_, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for range 1000 {
				if i <= n {
					p.XAdd(t.Context(), &redis.XAddArgs{Stream: "{" + prefix + "}:revocations", Values: row(fmt.Sprint("sid-", i))})
				}
				i++
			}
			return nil
		})
		require.NoError(t, err)
	}
}

// A long list of revoked sessions is known to a replica that starts, in pages
// that fit their time.
func TestReplicaStartsWithMany(t *testing.T) {
	c := alone(t)
	s := must(redisstore.New(redisstore.Config{Client: c, Prefix: "many"}))
	many(t, c, "many", faults.Many())
	faults.Starts(t, s, faults.Many())
	cursor, n := "", 0
	for more := true; more; {
		page := must(s.Since(t.Context(), cursor))
		require.False(t, page.Reset)
		require.LessOrEqual(t, len(page.Entries), 10_000)
		n += len(page.Entries)
		if cursor, more = page.Next, page.More; more {
			require.NoError(t, s.Append(t.Context(), entry(cursor)))
		}
	}
	require.GreaterOrEqual(t, n, faults.Many()+9, "what is written meanwhile is not missed")
	page := must(s.Since(t.Context(), cursor))
	require.Empty(t, page.Entries)
	require.False(t, page.More)
	require.Equal(t, cursor, page.Next)
	require.NoError(t, c.Del(t.Context(), "{many}:revocations").Err())
}

// A server that takes over may lack what another acknowledged last, and its
// clock may be behind: what is added to it is not passed over.
func TestAnotherHistory(t *testing.T) {
	c := alone(t)
	s := must(redisstore.New(redisstore.Config{Client: c, Prefix: "history"}))
	const log = "{history}:revocations"
	add := func(id, value string) {
		require.NoError(t, c.XAdd(t.Context(), &redis.XAddArgs{Stream: log, ID: id, Values: row(value)}).Err())
	}
	add("1000-0", "a")
	add("2000-0", "b")
	add("3000-0", "lost")
	cursor := must(s.Since(t.Context(), "")).Next
	require.Equal(t, "0-0./3000-0.lost", cursor)
	require.NoError(t, c.Del(t.Context(), log).Err())
	add("1000-0", "a")
	add("2000-0", "b")
	add("2500-0", "new, with an id that is behind the cursor")
	add("3500-0", "new, with one that is beyond it")
	page := must(s.Since(t.Context(), cursor))
	require.Len(t, page.Entries, 4)
	require.True(t, page.Reset)
	require.Equal(t, "0-0./3500-0.new, with one that is beyond it", page.Next)

	require.NoError(t, c.Del(t.Context(), log).Err())
	add("3500-0", "of the same id, and another one")
	page = must(s.Since(t.Context(), page.Next))
	require.Len(t, page.Entries, 1)
	require.True(t, page.Reset)
	require.NoError(t, c.Del(t.Context(), log).Err())
	page = must(s.Since(t.Context(), page.Next))
	require.Empty(t, page.Entries)
	require.True(t, page.Reset)
	require.False(t, must(s.Since(t.Context(), page.Next)).Reset)
}

// What was written long ago leaves the log, by the server's clock. What has to
// be kept for longer than Config.KeepFor is kept apart, until it is over; a
// birth is kept for ever.
func TestKeepFor(t *testing.T) {
	c := alone(t)
	s := must(redisstore.New(redisstore.Config{Client: c, Prefix: "keep", KeepFor: 2 * time.Hour}))
	add := func(ago time.Duration) {
		for i := range 200 { // a node of the log holds at most 100 entries, and goes as a whole
			require.NoError(t, c.XAdd(t.Context(), &redis.XAddArgs{Stream: "{keep}:revocations", ID: fmt.Sprint(time.Now().Add(-ago).UnixMilli(), "-", i+1), Values: row(ago.String())}).Err())
		}
	}
	add(4 * time.Hour)
	add(2*time.Hour + 30*time.Minute)
	now := time.Now().UTC().Truncate(time.Millisecond)
	kept := func(scope revoke.Scope, value string, until time.Duration) revoke.Entry {
		return revoke.Entry{Scope: scope, Digest: scope.Digest(value), Before: now, Until: now.Add(until)}
	}
	birth := kept(revoke.Birth, "born", -48*time.Hour)
	key, session := kept(revoke.Key, "key", 60*24*time.Hour), kept(revoke.Session, "long", 30*24*time.Hour)
	require.NoError(t, s.Append(t.Context(), key, entry("x"), birth, session))
	left := func() map[revoke.Digest]int {
		got, cursor := map[revoke.Digest]int{}, ""
		for more := true; more; {
			page := must(s.Since(t.Context(), cursor))
			for _, e := range page.Entries {
				got[e.Digest]++
			}
			cursor, more = page.Next, page.More
		}
		return got
	}
	got, old := left(), entry("4h0m0s").Digest
	require.Less(t, got[old], 100)
	want := map[revoke.Digest]int{old: got[old], entry("2h30m0s").Digest: 200, key.Digest: 1, entry("x").Digest: 1, birth.Digest: 1, session.Digest: 1}
	require.Equal(t, want, got)
	require.EqualValues(t, 3, c.XLen(t.Context(), "{keep}:kept").Val())

	// Time passes for the key: that is what the server goes by.
	ids := must(c.ZRange(t.Context(), "{keep}:kept-until", 0, -1).Result())
	require.Len(t, ids, 2, "the birth is not to be found there")
	for _, id := range ids {
		require.NoError(t, c.ZAdd(t.Context(), "{keep}:kept-until", redis.Z{Member: id, Score: float64(now.Add(-2 * time.Hour).UnixMilli())}).Err())
	}
	require.NoError(t, s.Append(t.Context(), entry("y")))
	want[entry("y").Digest] = 1
	delete(want, key.Digest)
	require.Equal(t, want, left(), "the key is gone; the session is the last one, which cursors name")
	another := kept(revoke.Key, "another", 60*24*time.Hour)
	require.NoError(t, s.Append(t.Context(), another))
	require.NoError(t, s.Append(t.Context(), entry("y")))
	want[another.Digest], want[entry("y").Digest] = 1, 2
	delete(want, session.Digest)
	require.Equal(t, want, left())
}

// The order of Append is that of Since, also over both logs and several pages.
func TestOrder(t *testing.T) {
	c := alone(t)
	s := must(redisstore.New(redisstore.Config{Client: c, Prefix: "order"}))
	var all []revoke.Entry
	for i := range 12_000 {
		e := entry(fmt.Sprint(i))
		if i%6 == 0 {
			e.Until = e.Until.Add(100 * time.Hour)
		}
		all = append(all, e)
	}
	require.NoError(t, s.Append(t.Context(), all...))
	cursor, n := "", 0
	for more := true; more; {
		page := must(s.Since(t.Context(), cursor))
		require.False(t, page.Reset)
		for _, e := range page.Entries {
			require.Equal(t, all[n], e)
			n++
		}
		cursor, more = page.Next, page.More
	}
	require.Len(t, all, n)
	require.Empty(t, must(s.Since(t.Context(), cursor)).Entries)
}

// What is wrong with a server is said, with what to do about it.
func TestBadServers(t *testing.T) {
	c := alone(t)
	addr := c.(*redis.Client).Options().Addr
	acl := func(rules ...any) {
		require.NoError(t, c.Do(t.Context(), append([]any{"ACL", "SETUSER"}, rules...)...).Err())
	}
	acl("poor", "on", ">right", "~*", "+@connection")
	acl("reader", "on", ">right", "~*", "+@read", "+@connection", "+time")
	as := func(user, password string) *redis.Options {
		return &redis.Options{Addr: addr, Username: user, Password: password, MaxRetries: -1}
	}
	locked, stop, err := servers.Redis("--requirepass", "right")
	require.NoError(t, err)
	defer stop()
	full, stop, err := servers.Redis("--maxmemory", "1kb")
	require.NoError(t, err)
	defer stop()
	_, port := servers.Split(addr)
	replica, stop, err := servers.Redis("--replicaof", "127.0.0.1 "+port)
	require.NoError(t, err)
	defer stop()
	require.NoError(t, c.Set(t.Context(), "{later}:version", "7", 0).Err())
	require.NoError(t, c.MSet(t.Context(), "{odd}:version", "2", "{odd}:revocations", "x", "{odd}:ring:", "x").Err())
	for _, row := range []struct {
		name    string
		options *redis.Options
		prefix  string
		says    string
		reads   bool // it can be read all the same
	}{
		{"no server there", &redis.Options{Addr: "127.0.0.1:1", Password: "hunter2", MaxRetries: -1}, "", "cannot be reached", false},
		{"no password", &redis.Options{Addr: locked, MaxRetries: -1}, "", "wants a password", false},
		{"a wrong password", &redis.Options{Addr: locked, Password: "hunter2", MaxRetries: -1}, "", "refuses the user or the password", false},
		{"an unknown user", as("unknown", "hunter2"), "", "refuses the user or the password", false},
		{"a user without rights", as("poor", "right"), "", "may not do that", false},
		{"a user who may read", as("reader", "right"), "", "may not do that", true},
		{"a replica", &redis.Options{Addr: replica}, "", "connect to the master", false},
		{"no memory left", &redis.Options{Addr: full}, "", "raise its maxmemory", true},
		{"a later version", &redis.Options{Addr: addr}, "later", "version \"7\", and this program reads version 2", false},
		{"keys of something else", &redis.Options{Addr: addr}, "odd", "use another prefix", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			client := redis.NewClient(row.options)
			defer client.Close()
			s := must(redisstore.New(redisstore.Config{Client: client, Prefix: row.prefix}))
			err := s.Append(t.Context(), entry("x"))
			require.ErrorContains(t, err, row.says)
			require.NotContains(t, err.Error(), "hunter2")
			t.Log(err)
			_, err = s.Save(t.Context(), "", []byte("x"), "")
			require.ErrorContains(t, err, row.says)
			if row.reads {
				_, err = s.Since(t.Context(), "")
				require.NoError(t, err)
				return
			}
			_, err = s.Load(t.Context(), "")
			require.ErrorContains(t, err, row.says)
			_, err = s.Since(t.Context(), "")
			require.ErrorContains(t, err, row.says)
			if row.prefix == "odd" {
				return // it has no families
			}
			_, err = s.Find(t.Context(), "", "x")
			require.ErrorContains(t, err, row.says)
			_, err = s.List(t.Context(), "", "x")
			require.ErrorContains(t, err, row.says)
		})
	}
}

// What a server may lose is named, all of it.
func TestPersistence(t *testing.T) {
	c := alone(t)
	require.NoError(t, must(redisstore.New(redisstore.Config{Client: c})).CheckPersistence(t.Context()))
	const appendonly, appendfsync, policy = `appendonly "no"`, `appendfsync "everysec"`, `maxmemory-policy "allkeys-lru"`
	for _, row := range []struct {
		name    string
		options []string
		says    []string
	}{
		{"the defaults", nil, []string{appendonly, appendfsync}},
		{"a second is lost", []string{"--appendonly", "yes"}, []string{appendfsync}},
		{"full memory", append([]string{"--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"}, servers.Durable...), []string{policy}},
		{"no limit of memory yet", append([]string{"--maxmemory-policy", "allkeys-lru"}, servers.Durable...), []string{policy}},
		{"a cache", []string{"--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"}, []string{appendonly, appendfsync, policy}},
	} {
		t.Run(row.name, func(t *testing.T) {
			addr, stop, err := servers.Redis(row.options...)
			require.NoError(t, err)
			defer stop()
			err = must(redisstore.New(redisstore.Config{Client: connect(t, addr)})).CheckPersistence(t.Context())
			for _, s := range []string{appendonly, appendfsync, policy} {
				if slices.Contains(row.says, s) {
					require.ErrorContains(t, err, s)
				} else {
					require.NotContains(t, err.Error(), s)
				}
			}
		})
	}
}

// No program has to ask: a store says once what its server may lose.
func TestPersistenceIsLogged(t *testing.T) {
	alone(t) // or skip
	limited, stop, err := servers.Redis("--rename-command", "CONFIG", "")
	require.NoError(t, err)
	defer stop()
	plain, stop, err := servers.Redis()
	require.NoError(t, err)
	defer stop()
	for says, client := range map[string]redis.UniversalClient{
		"":                    alone(t),
		"appendonly":          connect(t, plain),
		"ask for appendonly:": connect(t, limited), // as where a server is managed by others
	} {
		var log bytes.Buffer
		s := must(redisstore.New(redisstore.Config{Client: client, Prefix: "logged", Logger: slog.New(slog.NewTextHandler(&log, nil))}))
		_, err := s.Load(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, log.String(), "reading loses nothing")
		for range 3 {
			require.NoError(t, s.Append(t.Context(), entry("x")))
		}
		if says == "" {
			require.Empty(t, log.String())
			continue
		}
		require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), log.String())
		require.Contains(t, log.String(), says)
	}
}

// A write that too few replicas have is no success.
func TestWaitReplicas(t *testing.T) {
	addr := alone(t).(*redis.Client).Options().Addr
	s := must(storeAt("one WAITwait " + addr))
	require.ErrorContains(t, s.Append(t.Context(), entry("x")), "0 of 1 replicas")
	_, port := servers.Split(addr)
	_, stop, err := servers.Redis("--replicaof", "127.0.0.1 "+port)
	require.NoError(t, err)
	defer stop()
	require.Eventually(t, func() bool { return s.Append(t.Context(), entry("x")) == nil }, 10*time.Second, 50*time.Millisecond)

	at, err := cluster() // whose masters have none
	require.NoError(t, err)
	s = must(storeAt("cluster WAITwait " + strings.Join(at, ",")))
	require.ErrorContains(t, s.Append(t.Context(), entry("x")), "0 of 1 replicas")
}

func TestFaults(t *testing.T) {
	server, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	defer server.Stop()
	proxy := must(servers.StartProxy(server.Addr))
	defer proxy.Close()
	faults.Revoked(t, "one faults "+server.Addr, "one faults "+proxy.Addr, append(faults.Network(proxy), faults.Killed(server), faults.Frozen(server))...)
}

// TestFollowed: an API that has the URL of an authority and a credential.
func TestFollowed(t *testing.T) {
	t.Parallel() // it waits more than it works
	server, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	defer server.Stop()
	faults.Followed(t, "one followed "+server.Addr, faults.Killed(server), faults.Frozen(server))
}

// TestFullDisk: with "appendfsync always" Redis ends when it cannot write,
// rather than to acknowledge what is not on disk.
func TestFullDisk(t *testing.T) {
	disk := faults.SmallDisk(t, 16)
	server, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	defer server.Stop()
	at := "one full " + server.Addr
	faults.Revoked(t, at, at, faults.Full(t, server, disk, "cannot be reached"))
}

// TestFaultsCluster: three masters, and all ways to them fail; then the one
// that has the keys is killed.
func TestFaultsCluster(t *testing.T) {
	nodes, addrs := startCluster(t, 3, 0)
	var through []string
	var proxies []*servers.Proxy
	for _, addr := range addrs {
		proxy := must(servers.StartProxy(addr))
		defer proxy.Close()
		proxies, through = append(proxies, proxy), append(through, addr+"="+proxy.Addr)
	}
	faults.Revoked(t, "cluster faults "+strings.Join(addrs, ","), "cluster faults "+strings.Join(through, ","),
		append(faults.Network(proxies...), faults.Killed(owner(t, nodes, addrs, "{faults}:revocations")))...)
}

// startCluster starts a Cluster that keeps what it acknowledged. It notices a
// node that is gone within a second or two.
func startCluster(t *testing.T, masters, replicas int) (nodes []*servers.Server, addrs []string) {
	t.Helper()
	for range masters * (1 + replicas) {
		node, err := servers.StartRedis(append([]string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1000"}, servers.Durable...)...)
		installed(t, err)
		t.Cleanup(node.Stop)
		nodes, addrs = append(nodes, node), append(addrs, node.Addr)
	}
	require.NoError(t, servers.JoinRedisCluster(addrs, replicas))
	return nodes, addrs
}

// owner is the master that has a key.
func owner(t *testing.T, nodes []*servers.Server, addrs []string, key string) *servers.Server {
	t.Helper()
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	defer c.Close()
	master, err := c.MasterForKey(t.Context(), key)
	require.NoError(t, err)
	i := slices.Index(addrs, master.Options().Addr)
	require.GreaterOrEqual(t, i, 0)
	return nodes[i]
}

// replicated waits until the replicas follow their masters.
func replicated(t *testing.T, place string) {
	t.Helper()
	s := must(storeAt(place))
	require.Eventually(t, func() bool { return s.Append(t.Context(), entry("x")) == nil }, 30*time.Second, 100*time.Millisecond)
}

// between kills a server once it has answered the first write, and sends the
// client to another.
type between struct {
	once   sync.Once
	server *servers.Server
	at     atomic.Pointer[string]
	next   string
}

func (b *between) after(name string) {
	if strings.HasPrefix(name, "eval") {
		b.once.Do(func() {
			b.server.Kill()
			b.at.Store(&b.next)
		})
	}
}

func (b *between) DialHook(next redis.DialHook) redis.DialHook { return next }

func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if err == nil {
			b.after(cmd.Name())
		}
		return err
	}
}

func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if err == nil {
			b.after(cmds[0].Name())
		}
		return err
	}
}

// A master writes, and is gone before a replica has it; another takes over,
// with a replica of its own. The write is lost, and must not be acknowledged.
func TestFailOverBetweenWriteAndWait(t *testing.T) {
	first, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	defer first.Stop()
	second, err := servers.StartRedis(servers.Durable...)
	require.NoError(t, err)
	defer second.Stop()
	_, port := servers.Split(second.Addr)
	replica, err := servers.StartRedis("--replicaof", "127.0.0.1 "+port)
	require.NoError(t, err)
	defer replica.Stop()
	replicated(t, "one WAITother "+second.Addr)

	b := &between{server: first, next: second.Addr}
	b.at.Store(&first.Addr)
	client := redis.NewClient(&redis.Options{Addr: "where it is", Dialer: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, *b.at.Load())
	}})
	defer client.Close()
	client.AddHook(b)
	s := must(redisstore.New(redisstore.Config{Client: client, WaitReplicas: 1, WaitTimeout: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)}))
	require.Error(t, s.Append(t.Context(), entry("x")))
	require.Empty(t, must(s.Since(t.Context(), "")).Entries, "it is lost")
	require.Eventually(t, func() bool { return s.Append(t.Context(), entry("x")) == nil }, 30*time.Second, 10*time.Millisecond, "and repeated, until the replica has it")
	require.NotEmpty(t, must(s.Since(t.Context(), "")).Entries)
}

// failsOver is a master that is killed: a replica takes over. Afterwards, end
// is called.
func failsOver(master *servers.Server, after time.Duration, end func() error) faults.Fault {
	return faults.Fault{
		Name:  "the master is killed, and a replica takes over",
		Begin: func() error { master.Kill(); return nil },
		Lasts: after, End: end, Back: 15 * time.Second,
	}
}

// TestFailOverCluster: each write waits for a replica, so the one that takes
// over has it.
func TestFailOverCluster(t *testing.T) {
	nodes, addrs := startCluster(t, 3, 1)
	at := "cluster WAITfaults " + strings.Join(addrs, ",")
	replicated(t, at)
	master := owner(t, nodes, addrs, "{faults}:revocations")
	faults.Revoked(t, at, at, failsOver(master, 4*time.Second, func() error {
		if owner(t, nodes, addrs, "{faults}:revocations") == master {
			return errors.New("no replica took over")
		}
		return master.Start() // as the new one's replica
	}))
}

func TestFailOverSentinel(t *testing.T) {
	master, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	t.Cleanup(master.Stop)
	_, port := servers.Split(master.Addr)
	for range 2 {
		replica, err := servers.StartRedis(append([]string{"--replicaof", "127.0.0.1 " + port}, servers.Durable...)...)
		require.NoError(t, err)
		t.Cleanup(replica.Stop)
	}
	var addrs []string
	for range 3 {
		sentinel, err := servers.StartRedisSentinel("main", master.Addr, 2)
		require.NoError(t, err)
		t.Cleanup(sentinel.Stop)
		addrs = append(addrs, sentinel.Addr)
	}
	at := "sentinel WAITfaults " + strings.Join(addrs, ",")
	replicated(t, at)
	faults.Revoked(t, at, at, failsOver(master, time.Second, func() error { return nil }))
}

func TestSoak(t *testing.T) {
	server, err := servers.StartRedis(servers.Durable...)
	installed(t, err)
	defer server.Stop()
	faults.Soak(t, "one soak "+server.Addr, server)
}
