package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/faults"
	"github.com/sessiontoken/sessiontoken/faults/servers"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/redisstore"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// A replica whose link is cut is never taken for the store.
func TestReplica(t *testing.T) {
	master, err := servers.StartRedis()
	installed(t, err)
	t.Cleanup(master.Stop)
	link := must(servers.StartProxy(master.Addr))
	t.Cleanup(link.Close)
	_, port := servers.Split(link.Addr)
	replica, err := servers.StartRedis("--replicaof", "127.0.0.1 "+port)
	require.NoError(t, err)
	t.Cleanup(replica.Stop)
	a, b := must(storeAt("one lagging "+master.Addr)), must(storeAt("one lagging "+replica.Addr))
	faults.Lagging(t, a, b, func() {
		c := connect(t, replica.Addr)
		require.Eventually(t, func() bool { return c.Exists(t.Context(), "{lagging}:kept").Val() == 1 }, 20*time.Second, 20*time.Millisecond, "it has followed so far")
		link.Cut()
	})
}

// node is the server that has the keys of a place.
func node(t *testing.T, place string) (c *redis.Client, prefix string) {
	t.Helper()
	field := strings.Fields(place)
	all := connect(t, strings.Split(field[2], ",")...)
	prefix = "{" + field[1] + "}:"
	if cluster, ok := all.(*redis.ClusterClient); ok {
		return must(cluster.MasterForKey(t.Context(), prefix)), prefix
	}
	return all.(*redis.Client), prefix
}

// environment is a new prefix whose keys can be taken and put back.
func environment(t *testing.T, place string) faults.Environment {
	t.Helper()
	field := strings.Fields(place)
	field[1] = fmt.Sprint("test-", prefixes.Add(1))
	place = strings.Join(field, " ")
	c, prefix := node(t, place)
	return faults.Environment{
		Open: func() faults.Store { return must(storeAt(place)) },
		Take: func() any {
			dump := map[string]string{}
			for _, key := range must(c.Keys(t.Context(), prefix+"*").Result()) {
				dump[strings.TrimPrefix(key, prefix)] = must(c.Dump(t.Context(), key).Result())
			}
			return dump
		},
		Put: func(copied any) {
			_, err := c.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
				for _, key := range must(c.Keys(t.Context(), prefix+"*").Result()) {
					p.Del(t.Context(), key)
				}
				for key, dump := range copied.(map[string]string) {
					p.Restore(t.Context(), prefix+key, 0, dump)
				}
				return nil
			})
			require.NoError(t, err)
		},
	}
}

func TestReplacedStore(t *testing.T) {
	each(t, func(t *testing.T, place string) { faults.Replaced(t, environment(t, place), environment(t, place)) })
}

func TestBeginnings(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		e := environment(t, place)
		faults.Beginnings(t, e.Open(), e.Open(), e.Open())
	})
}

func TestOrders(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		a, _ := open(t, place)
		faults.Orders(t, a)
	})
}

func TestGrowth(t *testing.T) {
	addr, stop, err := servers.Redis() // all is one log that is synced elsewhere
	installed(t, err)
	defer stop()
	s := must(storeAt("one growth " + addr))
	faults.Growth(t, s, func(subject string, n int, live bool) {
		var wg sync.WaitGroup
		const workers = 20
		for w := range workers {
			wg.Go(func() {
				for i := w; i < n && !t.Failed(); i += workers {
					sid := fmt.Sprint("sid-", subject, i)
					err := s.Create(t.Context(), refresh.Record{Namespace: "ns", ID: fmt.Sprint(subject, i), Subject: subject, SessionID: sid, Version: 1, Until: time.Now().Add(time.Hour), Data: make([]byte, 300)})
					if err == nil && !live {
						err = s.DeleteSession(t.Context(), "ns", sid)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if !live {
			many(t, connect(t, addr), "growth", n)
		}
	})
}

// What the server keeps of an account is as large as what lives of it.
func TestSetsAreAsLargeAsWhatLives(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		field := strings.Fields(place)
		s := must(storeAt(place))
		c, prefix := node(t, place)
		record := func(id, sid string, until time.Duration) refresh.Record {
			return refresh.Record{Namespace: field[1], ID: id, Subject: "ada", SessionID: sid, Version: 1, Until: time.Now().Add(until)}
		}
		sizes := func(sid string) (ofSubject, ofSession int64) {
			in := fmt.Sprintf(":%d:%s:", len(field[1]), field[1])
			return c.ZCard(t.Context(), prefix+"subject"+in+"ada").Val(), c.ZCard(t.Context(), prefix+"session"+in+sid).Val()
		}
		families := func() int { return len(must(c.Keys(t.Context(), prefix+"family:*").Result())) }
		for i := range 50 {
			sid := fmt.Sprint("sid-", i)
			require.NoError(t, s.Create(t.Context(), record(fmt.Sprint("a", i), sid, time.Hour)))
			require.NoError(t, s.Create(t.Context(), record(fmt.Sprint("b", i), sid, time.Hour)))
			switch i % 3 {
			case 0:
				require.NoError(t, s.DeleteSession(t.Context(), field[1], sid))
			case 1:
				require.NoError(t, s.Delete(t.Context(), field[1], fmt.Sprint("a", i)))
				require.NoError(t, s.Delete(t.Context(), field[1], fmt.Sprint("b", i)))
			case 2:
				ofSubject, ofSession := sizes(sid)
				require.EqualValues(t, 2, ofSubject)
				require.EqualValues(t, 2, ofSession)
				require.NoError(t, s.DeleteSubject(t.Context(), field[1], "ada", ""))
			}
			ofSubject, ofSession := sizes(sid)
			require.Zero(t, ofSubject)
			require.Zero(t, ofSession)
			require.Zero(t, families())
		}

		// What is over goes too, with the next sign-in.
		long := record("long", "sid", 48*time.Hour)
		require.NoError(t, s.Create(t.Context(), long))
		over := record("over", "sid", -time.Hour+time.Second)
		require.NoError(t, s.Create(t.Context(), over))
		require.Eventually(t, func() bool { return families() == 1 }, 10*time.Second, 50*time.Millisecond, "the server drops it an hour after its Until")
		require.NoError(t, s.Create(t.Context(), record("next", "sid", time.Hour)))
		ofSubject, ofSession := sizes("sid")
		require.EqualValues(t, 2, ofSubject)
		require.EqualValues(t, 2, ofSession)
		for _, key := range must(c.Keys(t.Context(), prefix+"s*").Result()) {
			ttl := c.TTL(t.Context(), key).Val()
			require.Greater(t, ttl, 48*time.Hour, "it lives as long as the longest of them: %s", key)
		}
	})
}

// Times are the server's, whatever the clock of this machine says.
func TestTimes(t *testing.T) {
	each(t, func(t *testing.T, place string) {
		wrong := new(clock.Clock)
		wrong.SetAhead(48 * time.Hour)
		var s *redisstore.Store
		clock.As(wrong, func() { s, _ = open(t, place) })
		require.WithinDuration(t, time.Now(), must(s.Load(t.Context(), "")).Time, time.Minute)
		require.NoError(t, s.Append(t.Context(), entry("x")))
		page := must(s.Since(t.Context(), ""))
		require.WithinDuration(t, time.Now(), page.Time, time.Minute)
		require.Len(t, page.Entries, 1)
	})
}

// A client of the older protocol gets the answers in another form.
func TestProtocol2(t *testing.T) {
	addr := alone(t).(*redis.Client).Options().Addr
	c := redis.NewClient(&redis.Options{Addr: addr, Protocol: 2})
	defer c.Close()
	s := must(redisstore.New(redisstore.Config{Client: c, Prefix: "protocol"}))
	require.NoError(t, s.Append(t.Context(), entry("x")))
	require.Len(t, must(s.Since(t.Context(), "")).Entries, 1)
	require.NotZero(t, must(s.Load(t.Context(), "")).Time)
}

// A birth is seen with all that was written before it, also while it is
// written.
func TestBirthComesLast(t *testing.T) {
	s, reader := open(t, fmt.Sprintf("one x %s", alone(t).(*redis.Client).Options().Addr))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			cursor, n, born := "", 0, false
			for more := true; more && ctx.Err() == nil; {
				page, err := reader.Since(ctx, cursor)
				if err != nil {
					return
				}
				for _, e := range page.Entries {
					if e.Scope == revoke.Birth {
						born = true
					} else if born {
						t.Error("something comes after the birth")
						return
					}
					n++
				}
				cursor, more = page.Next, page.More
			}
			if born && n != 3001 {
				t.Errorf("the birth is seen with %d entries of 3000", n-1)
				return
			}
		}
	})
	var all []revoke.Entry
	for i := range 3000 {
		all = append(all, entry(fmt.Sprint(i)))
	}
	birth := entry("birth")
	birth.Scope = revoke.Birth
	require.NoError(t, s.Append(t.Context(), append(all, birth)...))
	require.Len(t, must(reader.Since(t.Context(), "")).Entries, 3001)
	cancel()
	reading.Wait()
}
