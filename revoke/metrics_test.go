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
		want := func(age time.Duration, entries, reads, readFailures, acknowledged, owed, writeFailures float64) {
			t.Helper()
			require.Equal(t, map[string]float64{
				"revocation_age_seconds": age.Seconds(), "revocation_entries": entries,
				"revocation_reads_total": reads, "revocation_read_failures_total": readFailures,
				"revocations_total": acknowledged, "revocation_owed": owed, "revocation_write_failures_total": writeFailures,
				"revocation_clock_offset_seconds": 0, "revocation_clock_warnings_total": 0, "revocation_foreign_store": 0, "revocation_watches": 0,
			}, l.Metrics())
		}
		question := func() { _ = ask(t, l, "sid", "sub", "kid", time.Now()); synctest.Wait() }

		time.Sleep(time.Second)
		want(time.Second, 0, 0, 0, 0, 0, 0)
		question()
		want(0, 0, 1, 0, 0, 0, 0)
		time.Sleep(time.Second)
		require.NoError(t, other.RevokeSession(t.Context(), "theirs"))
		require.Error(t, l.RevokeSession(t.Context(), ""), "nothing is named")
		want(time.Second, 0, 1, 0, 0, 0, 0)
		require.NoError(t, l.RevokeSession(t.Context(), "sid-1"))
		require.NoError(t, l.RevokeAll(t.Context(), time.Now()))
		want(0, 3, 3, 0, 2, 0, 0)
		time.Sleep(3 * time.Second)
		question() // in the background
		want(0, 3, 4, 0, 2, 0, 0)

		s.mode.Store(down)
		require.Error(t, l.RevokeKey(t.Context(), "kid-1", time.Time{}))
		want(0, 4, 5, 1, 2, 1, 1)
		time.Sleep(31 * time.Second)
		question()
		want(31*time.Second, 4, 6, 2, 2, 1, 1)
		s.mode.Store(good)
		time.Sleep(5 * time.Second)
		question() // which is not answered, but has the store read and written
		want(0, 4, 7, 2, 3, 0, 1)
	})
}
