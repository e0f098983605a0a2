package sessiontoken_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// TestBudgetIsWatched: the metrics have the largest token and its heaviest claim,
// and a token over 90 % of the limit is one line a minute, which holds no value.
func TestBudgetIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		issuer := newIssuer[attackState](t, staticSource(t, keys.EdDSA), func(c *sessiontoken.IssuerConfig) {
			c.MaxBytes, c.Logger = 1000, slog.New(slog.NewTextHandler(&log, nil))
		})
		require.Zero(t, issuer.Largest())
		issue := func(letters int) error {
			_, _, err := issuer.Issue(t.Context(), "u", attackState{Name: strings.Repeat("q", letters), Roles: []string{"r"}})
			return err
		}
		metric := func(name string) int { return int(issuer.Metrics()[name]) }
		sizeOf := func(letters int) int {
			r, err := issuer.Size(t.Context(), "u", attackState{Name: strings.Repeat("q", letters), Roles: []string{"r"}})
			require.NoError(t, err)
			return r.Bytes
		}
		require.NoError(t, issue(10))
		require.NoError(t, issue(5))
		require.Equal(t, []int{2, 0, 0, 1000}, []int{metric("issued_total"), metric("issued_near_budget_total"), metric("refused_size_total"), metric("token_bytes_limit")})
		require.Equal(t, sizeOf(10), metric("token_bytes_largest"))
		require.Equal(t, sizeOf(10), issuer.Largest().Bytes)
		require.Empty(t, log.String())

		near := 10
		for 10*sizeOf(near) <= 9*1000 {
			near++
		}
		require.NoError(t, issue(near-1))
		require.Empty(t, log.String(), "at 90 % it is quiet")
		for range 3 {
			require.NoError(t, issue(near))
		}
		require.Equal(t, 3, metric("issued_near_budget_total"))
		require.Equal(t, 1, strings.Count(log.String(), "reason=near_budget"), log.String())
		require.Contains(t, log.String(), "state.name")
		require.NotContains(t, log.String(), "qqq")
		require.Equal(t, "state.name", issuer.Largest().Claims[0].Path)
		require.Equal(t, issuer.Largest().Claims[0].Bytes, metric("token_bytes_heaviest"))

		time.Sleep(2 * time.Minute)
		require.NoError(t, issue(near))
		require.Equal(t, 2, strings.Count(log.String(), "reason=near_budget"))

		var size *sessiontoken.SizeError
		require.ErrorAs(t, issue(1000), &size)
		require.Equal(t, []int{6 + 1, 1}, []int{metric("issued_total"), metric("refused_size_total")})
		require.Equal(t, size.Report, issuer.Largest())
		require.Equal(t, 2, strings.Count(log.String(), "reason=near_budget"), "a token that was not issued has an error")

		r := issuer.Largest()
		r.Claims[0].Path = "changed"
		require.Equal(t, "state.name", issuer.Largest().Claims[0].Path, "the report is the caller's")
	})
}

// TestBudgetAtOnce: of tokens that are issued at once the largest is kept.
func TestBudgetAtOnce(t *testing.T) {
	issuer := newIssuer[attackState](t, staticSource(t, keys.EdDSA))
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			_, _, _ = issuer.Issue(context.Background(), "u", attackState{Name: strings.Repeat("q", i)})
		})
	}
	all.Wait()
	want, err := issuer.Size(t.Context(), "u", attackState{Name: strings.Repeat("q", 99)})
	require.NoError(t, err)
	require.Equal(t, want.Bytes, issuer.Largest().Bytes)
	require.EqualValues(t, 100, issuer.Metrics()["issued_total"])
}
