// Package loud logs failures: at most one line a reason and minute, with the
// number of events, and a counter for each reason.
package loud

import (
	"log/slog"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// every is the least time between two lines of one reason.
const every = time.Minute

// Log writes the lines of one object. It is safe for concurrent use.
type Log struct {
	logger *slog.Logger
	clock  *clock.Clock

	mu      sync.Mutex
	reasons map[string]*reason
}

type reason struct {
	total  uint64 // ever
	logged uint64 // of those, how many are in the lines so far
	at     clock.Instant
}

// New returns a Log that writes to logger. Nil means slog.Default() at the time
// of each line.
func New(logger *slog.Logger) *Log {
	return &Log{logger: logger, clock: clock.Here(), reasons: map[string]*reason{}}
}

// Warn counts an event and logs it, unless a line with the same reason was
// written within the last minute; the next line has the number of events. name
// is the reason, a fixed word. message says what happened and what to do. args
// are attributes as in slog. No argument may hold a token, a key or a secret. A
// logger that hangs delays one call a minute.
func (l *Log) Warn(name, message string, args ...any) {
	l.mu.Lock()
	r := l.reasons[name]
	if r == nil {
		r = &reason{}
		l.reasons[name] = r
	}
	r.total++
	if !r.at.IsZero() && l.clock.Age(r.at) < every {
		l.mu.Unlock()
		return
	}
	times := r.total - r.logged
	r.logged, r.at = r.total, l.clock.Read()
	l.mu.Unlock()
	logger := l.logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Warn(message, append([]any{"reason", name, "times", times}, args...)...)
}

// Counts returns the number of events for each reason. The map is the caller's.
func (l *Log) Counts() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]uint64{}
	for name, r := range l.reasons {
		counts[name] = r.total
	}
	return counts
}
