//go:build !race

package sessionhttp_test

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// heapNow returns the bytes of the heap after a collection.
func heapNow() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLiveMemory: a connection takes at most 400 bytes and no goroutine: its
// context, its done channel, its watch, its places in the index and its
// deadline. The claims and the context of the request are not counted. What
// package context allocates for a parent that can end comes on top.
func TestLiveMemory(t *testing.T) {
	n := 20_000
	if os.Getenv("SESSIONTOKEN_LONG") != "" || os.Getenv("SESSIONTOKEN_FULL") != "" {
		n = 100_000
	}
	s := newSite(t)
	r := s.local()
	require.NoError(t, r.list.Sync(t.Context()))
	claims := make([]*sessiontoken.Claims[state], n)
	_, first, err := r.issuer.Issue(t.Context(), "ada", state{Name: "Ada"})
	require.NoError(t, err)
	for i := range claims {
		c := *first
		c.SessionID, c.Subject = sid(i), subjectOf(i/3)
		c.Expires = c.Expires.Add(time.Duration(i%600) * time.Second)
		claims[i] = &c
	}
	for round, test := range []struct {
		name   string
		parent func() (context.Context, context.CancelFunc)
		most   int64
	}{
		{"a parent that cannot end", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, 400},
		{"a request", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, 880},
	} {
		t.Run(test.name, func(t *testing.T) {
			parents, ends := make([]context.Context, n), make([]context.CancelFunc, n)
			all := make([]*sessionhttp.Live[state], n)
			for i := range parents {
				parents[i], ends[i] = test.parent()
				parents[i].Done()
			}
			routines, before := runtime.NumGoroutine(), heapNow()
			for i := range all {
				l, err := r.Live(parents[i], claims[i], sessionhttp.LiveOptions{})
				require.NoError(t, err)
				l.Done()
				all[i] = l
			}
			each := (heapNow() - before) / int64(n)
			t.Logf("%d bytes a connection, of %d", each, n)
			require.LessOrEqual(t, each, test.most)
			require.LessOrEqual(t, runtime.NumGoroutine(), routines+10, "what else the process does")
			// One subject with three of them.
			require.NoError(t, r.list.RevokeSubject(t.Context(), subjectOf(1000+round)))
			for i, l := range all {
				if (i/3 == 1000+round) != (l.Err() != nil) {
					t.Fatalf("connection %d of subject %d: %v", i, i/3, l.Err())
				}
			}
			for i := range 3 { // for the next round
				claims[3*(1000+round)+i].Subject = "another"
			}
			for i := range all {
				all[i].Stop()
				all[i] = nil
			}
			for i := range ends {
				ends[i]() // a parent keeps its map of children until it ends
			}
			left := (heapNow() - before) / int64(n)
			require.Less(t, left, int64(8))
			runtime.KeepAlive(parents)
		})
	}
	runtime.KeepAlive(claims)
}

func sid(i int) string       { return "sid-" + strconv.Itoa(i) }
func subjectOf(i int) string { return "user-" + strconv.Itoa(i) }
