package revoke_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		l, other := newList(t, s), newList(t, s)
		want := func(age time.Duration, entries, reads, readFailures, ended, writeFailures float64) {
			t.Helper()
			require.Equal(t, map[string]float64{
				"revocation_age_seconds": age.Seconds(), "revocation_entries": entries,
				"revocation_reads_total": reads, "revocation_read_failures_total": readFailures,
				"revocations_total": ended, "revocation_write_failures_total": writeFailures,
			}, l.Metrics())
		}
		ask := func() { _, _ = l.Revoked(t.Context(), "sid", "sub", "kid", time.Now()); synctest.Wait() }

		time.Sleep(time.Second)
		want(time.Second, 0, 0, 0, 0, 0)
		ask()
		want(0, 0, 1, 0, 0, 0)
		time.Sleep(time.Second)
		require.NoError(t, other.EndSession(t.Context(), "theirs"))
		require.Error(t, l.EndSession(t.Context(), ""), "nothing is named")
		require.NoError(t, l.EndSession(t.Context(), "sid-1"))
		require.NoError(t, l.EndAll(t.Context(), time.Now()))
		want(time.Second, 2, 1, 0, 2, 0)
		time.Sleep(2 * time.Second)
		ask() // in the background
		want(0, 3, 2, 0, 2, 0)

		s.mode.Store(down)
		require.Error(t, l.EndKey(t.Context(), "kid-1"))
		want(0, 4, 2, 0, 2, 1)
		time.Sleep(31 * time.Second)
		ask()
		want(31*time.Second, 4, 2+1, 1, 2, 1)
		s.mode.Store(good)
		time.Sleep(time.Second)
		ask()
		want(0, 4, 4, 1, 2, 1)
	})
}
