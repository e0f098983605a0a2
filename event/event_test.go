package event_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/event"
)

// TestLogValue: a logger gets the fields that are set, and no others.
func TestLogValue(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    event.Event
		want string
	}{
		{"a kind alone", event.Event{Kind: event.Refused}, "e.kind=refused"},
		{"names", event.Event{Kind: event.Renewed, Subject: "a1", Session: "b2", Actor: "c3", Reason: "token"}, "e.kind=renewed e.subject=a1 e.session=b2 e.actor=c3 e.reason=token"},
		{"a key", event.Event{Kind: event.KeyRevoked, KeyID: "k", Reason: "ring"}, "e.kind=key_revoked e.key_id=k e.reason=ring"},
		{"owed", event.Event{Kind: event.Changed, Subject: "a1", Owed: true}, "e.kind=changed e.subject=a1 e.owed=true"},
		{"a size", event.Event{Kind: event.NearBudget, Bytes: 3300, Limit: 3584}, "e.kind=near_budget e.bytes=3300 e.limit=3584"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			l := slog.New(slog.NewTextHandler(&b, nil))
			l.Info("session", "e", tt.e)
			require.Contains(t, b.String(), "msg=session "+tt.want+"\n")
		})
	}
}

func ExampleFunc() {
	out := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		},
	}))
	// A queue with room: what finds none is counted and dropped, so that no
	// request waits for the log.
	queue, dropped := make(chan event.Event, 1000), 0
	var onEvent event.Func = func(_ context.Context, e event.Event) {
		select {
		case queue <- e:
		default:
			dropped++ // an atomic counter in a real program
		}
	}

	// The library calls it; authority.Config.OnEvent is where to set it.
	onEvent(context.Background(), event.Event{Kind: event.Revoked, Subject: "6c2d0d1ef2b0c7aa64d0f4a6f1f0c9d3", Reason: "subject"})
	close(queue)

	for e := range queue {
		out.Info("session", "event", e)
	}
	fmt.Println("dropped:", dropped)
	// Output:
	// level=INFO msg=session event.kind=revoked event.subject=6c2d0d1ef2b0c7aa64d0f4a6f1f0c9d3 event.reason=subject
	// dropped: 0
}
