package sessionhttp_test

import (
	"context"
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
	const n = 100_000
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
	for _, test := range []struct {
		name   string
		parent func() (context.Context, context.CancelFunc)
		most   int64
	}{
		{"a parent that cannot end", func() (context.Context, context.CancelFunc) { return context.Background(), func() {} }, 400},
		{"a request", func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }, 800},
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
			each := (heapNow() - before) / n
			t.Logf("%d bytes a connection", each)
			require.LessOrEqual(t, each, test.most)
			require.LessOrEqual(t, runtime.NumGoroutine(), routines+2)
			for i := range all {
				all[i].Stop()
				all[i] = nil
			}
			left := (heapNow() - before) / n
			require.Less(t, left, int64(8))
			for i := range ends {
				ends[i]()
			}
			runtime.KeepAlive(parents)
		})
	}
	runtime.KeepAlive(claims)
}

func sid(i int) string       { return "sid-" + strconv.Itoa(i) }
func subjectOf(i int) string { return "user-" + strconv.Itoa(i) }
