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
		s, e := new(faulty), new(ender)
		m := newManager(t, s, func(c *refresh.Config) { c.Sessions = e })
		first := start(t, m)
		second := next(t, newManager(t, s), first) // counted by the manager that did it
		cannot := func(context.Context, refresh.Family) error { return refresh.ErrExpired }

		const (
			exchanges = "refresh_exchanges_total"
			retries   = "refresh_retries_total"
			reuse     = "refresh_reuse_detections_total"
			refused   = "refresh_refused_total"
			notIssued = "refresh_issue_failures_total"
			undecided = "refresh_undecided_total"
		)
		total := map[string]float64{exchanges: 0, retries: 0, reuse: 0, refused: 0, notIssued: 0, undecided: 0}
		for _, c := range []struct {
			name          string
			token, client string
			issue         func(context.Context, refresh.Family) error
			given         func()
			want          []string
		}{
			{"the parent, at once", first, "app", issue, nil, []string{retries}},
			{"the parent, again", first, "app", issue, nil, []string{retries}},
			{"no token", "x", "app", issue, nil, []string{refused}},
			{"another client", second, "other", issue, nil, []string{refused}},
			{"nothing can be issued", second, "app", cannot, nil, []string{notIssued}},
			{"the store fails to find", second, "app", issue, func() { s.before.Store(1) }, []string{undecided}},
			{"the store fails to swap", second, "app", issue, func() { s.before.Store(2) }, []string{undecided}},
			{"used", second, "app", issue, nil, []string{exchanges}},
			{"used twice, and the session cannot be ended", first, "app", issue, func() { e.err = errDown }, []string{reuse, undecided}},
			{"used twice", first, "app", issue, func() { e.err = nil }, []string{reuse}},
			{"the family is gone", second, "app", issue, nil, []string{refused}},
			{"expired", start(t, m), "app", issue, func() { time.Sleep(2 * time.Hour) }, []string{refused}},
		} {
			if c.given != nil {
				c.given()
			}
			_, _, _ = m.Exchange(t.Context(), c.token, c.client, c.issue)
			for _, name := range c.want {
				total[name]++
			}
			require.Equal(t, total, m.Metrics(), c.name)
		}
	})
}
