package authority

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// fewLines is a slog.Handler that passes on at most ten lines of one message a
// minute: a store that fails does so for all tenants. It passes on every line
// that records who acts for whom.
type fewLines struct {
	slog.Handler
	counts *lineCounts
}

const (
	linesPerMinute = 10
	mostMessages   = 1000 // how many different messages are counted
)

// lineCounts counts the lines of this minute by message.
type lineCounts struct {
	clock *clock.Clock
	mu    sync.Mutex
	since clock.Instant
	lines map[string]int
}

func newFewLines(h slog.Handler) *fewLines {
	return &fewLines{h, &lineCounts{clock: clock.Here(), lines: map[string]int{}}}
}

// Handle implements slog.Handler.
func (h *fewLines) Handle(ctx context.Context, r slog.Record) error {
	if !isRecord(r) && !h.counts.pass(r.Message) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// isRecord reports whether a line is one that package sessionhttp writes when a
// session begins with an Actor.
func isRecord(r slog.Record) (found bool) {
	r.Attrs(func(a slog.Attr) bool {
		found = a.Key == "acting"
		return !found
	})
	return found
}

func (c *lineCounts) pass(message string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() || c.clock.Age(c.since) >= time.Minute || len(c.lines) > mostMessages {
		c.since = c.clock.Read()
		clear(c.lines)
	}
	c.lines[message]++
	return c.lines[message] <= linesPerMinute
}

// WithAttrs implements slog.Handler.
func (h *fewLines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &fewLines{h.Handler.WithAttrs(attrs), h.counts}
}

// WithGroup implements slog.Handler.
func (h *fewLines) WithGroup(name string) slog.Handler {
	return &fewLines{h.Handler.WithGroup(name), h.counts}
}
