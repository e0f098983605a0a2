package revoke

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWatchFreesMemory: when the last watch has ended, nothing is left of it, nor
// of the index and the timer.
func TestWatchFreesMemory(t *testing.T) {
	l, err := NewList(Config{Store: new(MemStore)})
	require.NoError(t, err)
	require.NoError(t, l.Sync(t.Context()))
	const n = 3000
	var stops []func()
	told := 0
	for i := range n {
		q := Question{SessionID: "sid-" + strconv.Itoa(i), Subject: "user-" + strconv.Itoa(i%100), Began: time.Now()}
		stops = append(stops, l.Watch(&q, func(error) { told++ }))
	}
	ws := &l.watches
	require.EqualValues(t, n, ws.count.Load())
	require.Len(t, ws.first(len(ws.chains[bySession])), n)
	require.NotNil(t, ws.timer)
	largest := len(ws.chains[bySession])
	require.Less(t, largest, n)
	require.NoError(t, l.RevokeSubject(t.Context(), "user-7")) // ends its own
	require.Equal(t, n/100, told)
	for i, stop := range stops {
		stop()
		stop() // does nothing
		if i == n-20 {
			require.Less(t, len(ws.chains[bySession]), largest/8)
		}
	}
	require.Zero(t, ws.count.Load())
	require.Equal(t, [2][]*watch{}, ws.chains)
	require.Nil(t, ws.timer)
	require.Nil(t, ws.key)
	require.Empty(t, l.untold)
}
