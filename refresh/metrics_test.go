package refresh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(faulty), new(revocations)
		list := newList(t, r)
		shared := func(c *refresh.Config) { c.Revocations, c.MaxPerSubject = list, 3 }
		m, other := newManager(t, s, shared), newManager(t, s, shared) // counted by the manager that did it
		first := start(t, other)
		second := next(t, other, first)
		twice := start(t, other, session("sid-2"))
		next(t, other, next(t, other, twice))
		cannot := func(context.Context, refresh.Family) error { return refresh.ErrExpired }

		const (
			exchanges = "refresh_exchanges_total"
			retries   = "refresh_retries_total"
			lates     = "refresh_late_retries_total"
			reuse     = "refresh_reuse_detections_total"
			refused   = "refresh_refused_total"
			notIssued = "refresh_issue_failures_total"
			undecided = "refresh_undecided_total"
			records   = "refresh_unauthenticated_records_total"
			deletions = "refresh_deletion_failures_total"
			evictions = "refresh_evictions_total"
		)
		total := map[string]float64{
			exchanges: 0, retries: 0, lates: 0, reuse: 0, refused: 0, notIssued: 0, undecided: 0, records: 0, deletions: 0, evictions: 0,
		}
		for _, c := range []struct {
			name          string
			token, client string
			issue         func(context.Context, refresh.Family) error
			given         func()
			want          []string
		}{
			{"the parent, at once", first, "app", issue, nil, []string{retries}},
			{"the parent, again", first, "app", issue, nil, []string{retries}},
			{"the parent, late", first, "app", issue, func() { time.Sleep(time.Minute) }, []string{lates}},
			{"no token", "x", "app", issue, nil, []string{refused}},
			{"another client", second, "other", issue, nil, []string{refused}},
			{"nothing can be issued", second, "app", cannot, nil, []string{notIssued}},
			{"the store fails to find", second, "app", issue, func() { s.before.Store(1) }, []string{undecided}},
			{"the store fails to swap", second, "app", issue, func() { s.before.Store(2) }, []string{undecided}},
			{"used", second, "app", issue, nil, []string{exchanges}},
			{"used twice, and its record cannot be deleted", first, "app", issue, func() { s.stuck.Store(true) }, []string{reuse, deletions}},
			{"revoked, and its record cannot be deleted", second, "app", issue, nil, []string{refused, deletions}},
			{"revoked", second, "app", issue, func() { s.stuck.Store(false) }, []string{refused}},
			{"the family is gone", second, "app", issue, nil, []string{refused}},
			{"used twice, and the session cannot be revoked", twice, "app", issue, func() { r.down.Store(true) }, []string{reuse, undecided}},
			{"expired", start(t, other, session("sid-3")), "app", issue, func() { r.down.Store(false); time.Sleep(2 * time.Hour) }, []string{refused}},
		} {
			if c.given != nil {
				c.given()
			}
			_, _, _ = m.Exchange(t.Context(), refresh.Presented{Token: c.token, ClientID: c.client}, c.issue)
			for _, name := range c.want {
				total[name]++
			}
			require.Equal(t, total, m.Metrics(), c.name)
		}

		for i := range 4 {
			start(t, m, session(string(rune('a'+i))))
		}
		total[evictions]++
		require.Equal(t, total, m.Metrics())
		left, err := s.List(t.Context(), "", "ada")
		require.NoError(t, err)
		last := left[0]
		last.Version, last.Data = last.Version+1, nil
		require.NoError(t, s.Swap(t.Context(), last))
		require.Error(t, m.RevokeFamily(t.Context(), "ada", last.ID))
		total[records]++
		require.Equal(t, total, m.Metrics())
	})
}
