package tally

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStripes: one place in memory is one stripe, and of 64 places no stripe has
// most.
func TestStripes(t *testing.T) {
	var c Counter
	place := new([192]byte)
	c.Add(place)
	c.Add(place)
	used := 0
	for i := range c.stripes {
		if c.stripes[i].n.Load() > 0 {
			used++
		}
	}
	require.Equal(t, 1, used)

	var kept []*[8192]byte
	for range 64 {
		place := new([8192]byte)
		kept = append(kept, place)
		c.Add(place)
	}
	runtime.KeepAlive(kept)
	require.EqualValues(t, 66, c.Load())
	for i := range c.stripes {
		require.Less(t, c.stripes[i].n.Load(), uint64(32))
	}
}
