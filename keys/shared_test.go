package keys_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
)

// sharing is a store whose readings may be shared: old is served to those that
// are content with it.
type sharing struct {
	keys.MemStore
	clock  clock.Clock
	stored keys.Stored
	asked  clock.Instant
	loads  int
	err    error
}

func (s *sharing) LoadAfter(ctx context.Context, name string, after clock.Instant) (keys.Stored, clock.Instant, clock.Instant, error) {
	if s.err != nil {
		return keys.Stored{}, s.asked, s.asked, s.err
	}
	if s.asked.IsZero() || clock.SteadyBetween(s.asked, after) >= 0 {
		s.loads++
		s.asked = s.clock.Read()
		var err error
		if s.stored, err = s.MemStore.Load(ctx, name); err != nil {
			return s.stored, s.asked, s.asked, err
		}
	}
	return s.stored, s.asked, s.asked, nil
}

// TestRingOfSharedReadings: Sync is content with an older reading, whose age
// counts; a key that the ring does not know has the store read anew, and so has
// all that the ring writes.
func TestRingOfSharedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Error(t, new(keys.Ring).Sync(t.Context()))
		aead, err := keys.NewAESGCM(make([]byte, 32))
		require.NoError(t, err)
		store := new(sharing)
		ring := func() *keys.Ring {
			r, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(store, aead), Algorithm: keys.EdDSA})
			require.NoError(t, err)
			return r
		}
		a, b := ring(), ring()
		require.NoError(t, a.Sync(t.Context()))
		require.Equal(t, 1, store.loads)
		first, err := a.SigningKey(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, store.loads)
		time.Sleep(time.Second)
		store.asked = clock.Instant{}
		require.NoError(t, b.Sync(t.Context()))
		require.Equal(t, 2, store.loads)

		time.Sleep(20 * time.Second)
		require.NoError(t, b.Sync(t.Context()))
		require.Equal(t, 2, store.loads)
		require.InDelta(t, 20, b.Metrics()["ring_age_seconds"], 0.1)

		require.NoError(t, a.Revoke(t.Context(), first.Public().KeyID()))
		second, err := a.SigningKey(t.Context())
		require.NoError(t, err)
		set, err := b.KeySet(t.Context(), second.Public().KeyID())
		require.NoError(t, err)
		_, found := set.Key(second.Public().KeyID())
		require.True(t, found)
		_, found = set.Key(first.Public().KeyID())
		require.False(t, found)

		store.err = errors.New("the store is down")
		require.ErrorIs(t, b.Sync(t.Context()), store.err)
		require.ErrorIs(t, b.Status().Err, store.err)
		store.err = nil
		require.NoError(t, b.Sync(t.Context()))
		require.NoError(t, b.Status().Err)
	})
}
