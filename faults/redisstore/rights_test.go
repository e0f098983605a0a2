package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

var quietly = slog.New(slog.DiscardHandler)

var rule = regexp.MustCompile(`\+[a-z|]+`)

// documentedRules are the rules of the package documentation that grant
// commands to every user.
func documentedRules(t *testing.T) (rules []string) {
	t.Helper()
	source, err := os.ReadFile("../../redisstore/redisstore.go")
	require.NoError(t, err)
	for line := range strings.Lines(string(source)) {
		if strings.HasPrefix(line, "//\tACL SETUSER") {
			rules = append(rules, rule.FindAllString(line, -1)...)
		}
	}
	require.Greater(t, len(rules), 15)
	return rules
}

// user makes a user of a server who may do what rules say on the keys of a
// prefix, and returns a client of that user.
func user(t *testing.T, admin *redis.Client, name, prefix string, rules ...string) *redis.Client {
	t.Helper()
	set := []any{"ACL", "SETUSER", name, "reset", "on", ">right", "~{" + prefix + "}:*"}
	for _, r := range rules {
		set = append(set, r)
	}
	require.NoError(t, admin.Do(t.Context(), set...).Err())
	c := redis.NewClient(&redis.Options{Addr: admin.Options().Addr, Username: name, Password: "right", ContextTimeoutEnabled: true, PoolSize: 20})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A user who has the commands that the documentation lists, on the keys of the
// prefix, can do all that a store has to.
func TestDocumentedRightsAreEnough(t *testing.T) {
	admin := alone(t).(*redis.Client)
	rules := documentedRules(t)
	open := func(t *testing.T) (a, b *redisstore.Store) {
		prefix := fmt.Sprint("acl-", prefixes.Add(1))
		c := user(t, admin, "clerk-"+prefix, prefix, rules...)
		s := func() *redisstore.Store {
			return must(redisstore.New(redisstore.Config{Client: c, Prefix: prefix, Logger: quietly}))
		}
		return s(), s()
	}
	storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t) })
	storetest.Revocations(t, func(t *testing.T) (a, b revoke.Store) { return open(t) })
	storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t) })
	storetest.Grants(t, open)
}

// An error says which command a user lacks, and how it is granted: for each one
// of the list, which is as short as it can be.
func TestMissingRights(t *testing.T) {
	admin := alone(t).(*redis.Client)
	rules := documentedRules(t)
	// lacking calls everything as a user who has the rules but one.
	lacking := func(t *testing.T, missing string) error {
		prefix := fmt.Sprint("lacks-", prefixes.Add(1))
		// What is over, so that it is deleted.
		require.NoError(t, admin.ZAdd(t.Context(), "{"+prefix+"}:kept-until", redis.Z{Score: 1, Member: "1-1"}).Err())
		c := user(t, admin, "poor", prefix, slices.DeleteFunc(slices.Clone(rules), func(r string) bool { return r == missing })...)
		return everyCall(t.Context(), must(redisstore.New(redisstore.Config{Client: c, Prefix: prefix, Logger: quietly})))
	}
	require.NoError(t, lacking(t, "nothing"))
	for _, missing := range rules {
		t.Run(missing, func(t *testing.T) {
			// A server that is new does not know the scripts.
			require.NoError(t, admin.ScriptFlush(t.Context()).Err())
			if missing != "+eval" {
				require.NoError(t, everyCall(t.Context(), must(redisstore.New(redisstore.Config{Client: admin, Prefix: "all", Logger: quietly}))))
			}
			err := lacking(t, missing)
			require.ErrorContains(t, err, "may not do that; permit "+missing+" to it")
		})
	}
	t.Run("a key of another prefix", func(t *testing.T) {
		c := user(t, admin, "poor", "theirs", rules...)
		err := everyCall(t.Context(), must(redisstore.New(redisstore.Config{Client: c, Prefix: "ours", Logger: quietly})))
		require.ErrorContains(t, err, "permit "+strings.Join(rules, " ")+" to it in its ACL, on keys that begin with the prefix")
	})
	t.Run("+wait", func(t *testing.T) {
		c := user(t, admin, "poor", "wait", rules...)
		s := must(redisstore.New(redisstore.Config{Client: c, Prefix: "wait", Logger: quietly, WaitReplicas: 1}))
		err := s.Append(t.Context(), entry("x"))
		require.ErrorContains(t, err, "permit +wait to it")
		c = user(t, admin, "poor", "wait", append(rules, "+wait")...)
		s = must(redisstore.New(redisstore.Config{Client: c, Prefix: "wait", Logger: quietly, WaitReplicas: 1, WaitTimeout: time.Millisecond}))
		require.ErrorContains(t, s.Append(t.Context(), entry("x")), "0 of 1 replicas")
	})
	t.Run("+config|get", func(t *testing.T) {
		c := user(t, admin, "poor", "config", rules...)
		err := must(redisstore.New(redisstore.Config{Client: c, Prefix: "config"})).CheckPersistence(t.Context())
		require.ErrorContains(t, err, "ask for appendonly: the server's user may not do that; permit +config|get to it")
		c = user(t, admin, "poor", "config", append(rules, "+config|get")...)
		require.NoError(t, must(redisstore.New(redisstore.Config{Client: c, Prefix: "config"})).CheckPersistence(t.Context()))
	})
}

// everyCall calls every method once, on a prefix of its own.
func everyCall(ctx context.Context, s *redisstore.Store) error {
	id := fmt.Sprint("id-", prefixes.Add(1))
	record := func(id string) refresh.Record {
		return refresh.Record{Namespace: "ns", ID: id, Subject: "ada", SessionID: "sid-" + id, Version: 1, Until: time.Now().Add(time.Hour), Data: []byte("d")}
	}
	changed := record(id)
	changed.Version = 2
	birth, long := entry("birth"), entry("long")
	birth.Scope, long.Until = revoke.Birth, long.Until.Add(100*time.Hour)
	for _, call := range []func() error{
		func() error { return s.Append(ctx, entry("x"), birth, long) },
		func() error { _, err := s.Since(ctx, ""); return err },
		func() error { return s.Wait(ctx, "0-0./0-0.") }, // the cursor of an empty log
		func() error { return s.Create(ctx, record(id)) },
		func() error { return s.Swap(ctx, changed) },
		func() error { _, err := s.Find(ctx, "ns", id); return err },
		func() error { _, err := s.List(ctx, "ns", "ada"); return err },
		func() error { return s.Delete(ctx, "ns", id) },
		func() error { return s.Create(ctx, record(id+"b")) },
		func() error { return s.DeleteSession(ctx, "ns", "sid-"+id+"b") },
		func() error { return s.Create(ctx, record(id+"c")) },
		func() error { return s.DeleteSubject(ctx, "ns", "ada", "") },
		func() error {
			rev, err := s.Save(ctx, id, []byte("one"), "")
			if err == nil {
				_, err = s.Save(ctx, id, []byte("two"), rev)
			}
			return err
		},
		func() error { _, err := s.Load(ctx, id); return err },
		func() error { _, _, err := s.Revisions(ctx, id, "another"); return err },
	} {
		if err := call(); err != nil {
			return err
		}
	}
	return nil
}

// In a Cluster a user needs the command that the documentation adds for it.
func TestRightsInACluster(t *testing.T) {
	addrs, err := cluster()
	installed(t, err)
	const prefix = "acl-cluster"
	call := func(more ...string) error {
		for _, addr := range addrs {
			user(t, connect(t, addr).(*redis.Client), "clerk", prefix, append(documentedRules(t), more...)...)
		}
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, Username: "clerk", Password: "right", ContextTimeoutEnabled: true})
		defer c.Close()
		return everyCall(t.Context(), must(redisstore.New(redisstore.Config{Client: c, Prefix: prefix, Logger: quietly})))
	}
	require.NoError(t, call("+cluster|slots"))
	require.ErrorContains(t, call(), "permit +cluster|slots to it")
}

// Two tenants with one store never meet, in any of the three kinds.
func TestTenants(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		a, b := open(t, place)
		faults.Tenants(t, a, b)
	})
}
