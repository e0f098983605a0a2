package keys_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

func TestRingMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := newRing(t, n)
		want := func(metrics map[string]float64) {
			t.Helper()
			for name, v := range metrics {
				require.Equal(t, v, r.Metrics()[name], name)
			}
		}
		time.Sleep(time.Second)
		want(map[string]float64{"ring_age_seconds": 1, "ring_keys": 0, "ring_current_key_ends_seconds": 0,
			"ring_rotations_total": 0, "ring_syncs_total": 0, "ring_sync_failures_total": 0})

		current(t, r)
		status := r.Status()
		want(map[string]float64{"ring_age_seconds": 0, "ring_keys": 2, "ring_rotations_total": 0, "ring_syncs_total": 1,
			"ring_current_key_ends_seconds": time.Until(status.Keys[0].SignsUntil).Seconds()})
		time.Sleep(10 * time.Second)
		want(map[string]float64{"ring_age_seconds": 10, "ring_syncs_total": 1,
			"ring_current_key_ends_seconds": time.Until(status.Keys[0].SignsUntil).Seconds()})

		time.Sleep(time.Minute)
		n.set(func() { n.err = errors.New("boom") })
		_, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		want(map[string]float64{"ring_age_seconds": 70, "ring_keys": 2, "ring_syncs_total": 2, "ring_sync_failures_total": 1})
		time.Sleep(12 * time.Hour)
		want(map[string]float64{"ring_keys": 0, "ring_current_key_ends_seconds": 0, "ring_age_seconds": 70 + 12*3600})
		n.set(func() { n.err = nil })
		current(t, r)
		want(map[string]float64{"ring_age_seconds": 0, "ring_keys": 2, "ring_syncs_total": 3, "ring_sync_failures_total": 1, "ring_rotations_total": 0})
	})
}

// TestRingCountsRotations: the planned ones, those asked for and those after a
// revocation, once on each replica that follows; a key that goes for any other
// reason is none.
func TestRingCountsRotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		hourly := func(c *keys.RingConfig) { c.SyncEvery = time.Hour }
		r, other := running(t, n, hourly), running(t, n, hourly, func(c *keys.RingConfig) { c.VerifyOnly = true })
		time.Sleep(time.Hour)
		want := func(rotations float64) {
			t.Helper()
			require.Equal(t, rotations, r.Metrics()["ring_rotations_total"])
			require.Equal(t, rotations, other.Metrics()["ring_rotations_total"])
			require.Positive(t, other.Metrics()["ring_current_key_ends_seconds"])
		}
		want(0)
		time.Sleep(29 * day)
		want(0)
		time.Sleep(2 * day)
		want(1)
		at, err := r.Rotate(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Until(at) + time.Hour)
		want(2)
		require.NoError(t, r.Revoke(t.Context(), r.Status().Keys[len(r.Status().Keys)-1].KeyID)) // the next
		time.Sleep(time.Hour)
		want(2)
		require.NoError(t, r.Revoke(t.Context(), current(t, r)))
		time.Sleep(time.Hour)
		want(3)
	})
}
