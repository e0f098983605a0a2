package refresh_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestZeroManager: a manager that no constructor made fails at each call as a
// server at fault, and does not panic.
func TestZeroManager(t *testing.T) {
	var m refresh.Manager
	ctx, presented := t.Context(), refresh.Presented{Token: strings.Repeat("A", 76)}
	f := refresh.Family{Subject: "s", SessionID: "sid", Began: time.Now()}
	for _, tt := range []struct {
		name string
		call func() error
	}{
		{"Start", func() error { _, _, err := m.Start(ctx, f, ""); return err }},
		{"Exchange", func() error {
			_, _, err := m.Exchange(ctx, presented, func(context.Context, refresh.Family) error { return nil })
			return err
		}},
		{"Find", func() error { _, err := m.Find(ctx, presented); return err }},
		{"Revoke", func() error { return m.Revoke(ctx, presented) }},
		{"RevokeFamily", func() error { return m.RevokeFamily(ctx, "s", strings.Repeat("A", 22)) }},
		{"DeleteSession", func() error { return m.DeleteSession(ctx, "sid") }},
		{"DeleteSubject", func() error { return m.DeleteSubject(ctx, "s", "") }},
		{"List", func() error { _, err := m.List(ctx, "s"); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.call()
			require.ErrorContains(t, err, "make it with NewManager")
			require.NotErrorIs(t, err, refresh.ErrInvalid)
		})
	}
	require.Zero(t, m.Config())
	require.NotEmpty(t, m.Metrics())
}

// TestBareNumbers: what looks like seconds and is nanoseconds is asked about.
func TestBareNumbers(t *testing.T) {
	for _, tt := range []struct {
		field  string
		change func(*refresh.Config)
	}{
		{"IdleTimeout", func(c *refresh.Config) { c.IdleTimeout = 3600 }},
		{"MaxSession", func(c *refresh.Config) { c.MaxSession = 3600 }},
		{"RetryWindow", func(c *refresh.Config) { c.RetryWindow = 3600 }},
	} {
		cfg := refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, Revocations: newList(t, new(revoke.MemStore))}
		tt.change(&cfg)
		_, err := refresh.NewManager(cfg)
		require.ErrorContains(t, err, "refresh: Config."+tt.field+" is 3.6µs")
		require.ErrorContains(t, err, "(did you mean 3600 * time.Second?)")
	}
}
