package revoke_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestZeroList: a list that no constructor made fails at each call, and does not
// panic.
func TestZeroList(t *testing.T) {
	var l revoke.List
	ctx := t.Context()
	q := revoke.Question{SessionID: "sid", Subject: "sub", KeyID: "kid", Began: time.Now()}.Prepared()
	for name, call := range map[string]func() error{
		"Check":         func() error { return l.Check(ctx, &q) },
		"Check nil":     func() error { return l.Check(ctx, nil) },
		"Now":           func() error { _, err := l.Now(ctx); return err },
		"Begin":         func() error { _, err := l.Begin(ctx, revoke.Question{Subject: "sub"}); return err },
		"Run":           func() error { return l.Run(ctx) },
		"RevokeSession": func() error { return l.RevokeSession(ctx, "sid") },
		"RevokeSubject": func() error { return l.RevokeSubject(ctx, "sub") },
		"RevokeOthers":  func() error { return l.RevokeOthers(ctx, "sub", "sid") },
		"RevokeKey":     func() error { return l.RevokeKey(ctx, "kid", time.Time{}) },
		"RevokeAll":     func() error { return l.RevokeAll(ctx, time.Now()) },
		"Changed":       func() error { return l.Changed(ctx, "sub") },
		"Mark":          func() error { _, err := l.Mark(ctx, &q); return err },
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, call(), "make it with NewList") })
	}
	_, live := l.Live(&q)
	require.False(t, live)
	require.False(t, l.KeyRevoked("kid"))
	require.Zero(t, l.RetainFor())
	require.Zero(t, l.MaxTTL())
	require.ErrorIs(t, l.Status().Err, revoke.ErrNotRead)
	require.Empty(t, l.Metrics())
}

// TestStatusBeforeTheFirstReading: a list that was never read is not well.
func TestStatusBeforeTheFirstReading(t *testing.T) {
	l := newList(t, new(revoke.MemStore))
	require.ErrorIs(t, l.Status().Err, revoke.ErrNotRead)
	require.Zero(t, l.Status().Synced)
	_, err := l.Now(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Status().Err)
	require.NotZero(t, l.Status().Synced)
	require.Less(t, l.Status().ClockOffset.Abs(), time.Minute)
}

// TestBareNumbers: what looks like seconds and is nanoseconds is asked about.
func TestBareNumbers(t *testing.T) {
	for field, cfg := range map[string]revoke.Config{
		"MaxSession": {MaxSession: 86400}, "MaxTTL": {MaxTTL: 86400}, "SyncEvery": {SyncEvery: 86400}, "MaxStale": {MaxStale: 86400}, "MaxSkew": {MaxSkew: 86400},
	} {
		cfg.Store = new(revoke.MemStore)
		_, err := revoke.NewList(cfg)
		require.ErrorContains(t, err, "revoke: Config."+field+" is 86.4µs")
		require.ErrorContains(t, err, "(did you mean 86400 * time.Second?)")
	}
}
