package remote_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKeysMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newKey(t)
		server := &memServer{answer: answerWith(200, document(t, pub, newKey(t)))}
		r := newKeys(t, server)
		undecided := 0.0
		want := func(age time.Duration, served, fetches, failures float64) {
			t.Helper()
			require.Equal(t, map[string]float64{"jwks_age_seconds": age.Seconds(), "jwks_keys": served, "jwks_keys_skipped": 0,
				"jwks_fetches_total": fetches, "jwks_fetch_failures_total": failures, "jwks_undecided_total": undecided}, r.Metrics())
		}
		time.Sleep(time.Minute)
		want(time.Minute, 0, 0, 0)
		requireKey(t, r, pub)
		want(0, 2, 1, 0)
		time.Sleep(time.Minute)
		requireKey(t, r, pub)
		want(time.Minute, 2, 1, 0)

		server.set(answerPanic)
		time.Sleep(9 * time.Minute)
		requireKey(t, r, pub)
		want(10*time.Minute, 2, 2, 1)
		time.Sleep(24*time.Hour - 10*time.Minute)
		want(24*time.Hour, 2, 2, 1)
		time.Sleep(time.Second)
		want(24*time.Hour+time.Second, 0, 2, 1) // nothing is served any more

		server.set(answerWith(200, document(t, pub)))
		requireKey(t, r, pub)
		want(0, 1, 3, 1)

		server.set(answerDown)
		set, err := r.KeySet(t.Context(), "unknown")
		requireUnavailable(t, set, err)
		undecided++
		want(1200*time.Millisecond, 1, 4, 2) // it waited for its turn
	})
}
