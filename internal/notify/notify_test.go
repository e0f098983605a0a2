package notify_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestNames: names are the digests that rows of a store have, or as they are if
// that was asked for. A field that is empty stays empty.
func TestNames(t *testing.T) {
	hash := func(d revoke.Digest) string { return hex.EncodeToString(d[:]) }
	plain := event.Event{Kind: event.Begun, Subject: "ada", Session: "s-1", Actor: "root", KeyID: "k", Reason: "token"}
	hashed := plain
	hashed.Subject, hashed.Session, hashed.Actor = hash(revoke.Subject.Digest("ada")), hash(revoke.Session.Digest("s-1")), hash(revoke.Subject.Digest("root"))
	for _, tt := range []struct {
		name     string
		insecure bool
		in, want event.Event
	}{
		{"hashes", false, plain, hashed},
		{"as they are", true, plain, plain},
		{"empty", false, event.Event{Kind: event.Refused}, event.Event{Kind: event.Refused}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []event.Event
			s := notify.New(func(_ context.Context, e event.Event) { got = append(got, e) }, tt.insecure, loud.New(nil))
			s.Send(t.Context(), tt.in)
			require.Equal(t, []event.Event{tt.want}, got)
		})
	}
}

// TestNone: without a function nothing is sent, hashed or allocated.
func TestNone(t *testing.T) {
	s := notify.New(nil, false, loud.New(nil))
	require.Nil(t, s)
	e := event.Event{Kind: event.Begun, Subject: "ada"}
	require.Zero(t, testing.AllocsPerRun(100, func() { s.Send(t.Context(), e) }))
}

// TestPanic: a panic goes no further and is logged without its value.
func TestPanic(t *testing.T) {
	var b bytes.Buffer
	s := notify.New(func(context.Context, event.Event) { panic("the secret") }, false, loud.New(slog.New(slog.NewTextHandler(&b, nil))))
	require.NotPanics(t, func() { s.Send(t.Context(), event.Event{Kind: event.Revoked}) })
	require.Contains(t, b.String(), "reason=event_panic")
	require.Contains(t, b.String(), "kind=revoked")
	require.NotContains(t, b.String(), "the secret")
}

// TestContext: the function's context has the values of the call's and does not
// end with it.
func TestContext(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), key{}, "trace"), time.Now())
	cancel()
	called := false
	notify.New(func(ctx context.Context, _ event.Event) {
		called = true
		require.Equal(t, "trace", ctx.Value(key{}))
		require.NoError(t, ctx.Err())
	}, false, loud.New(nil)).Send(ctx, event.Event{})
	require.True(t, called)
}
