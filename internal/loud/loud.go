// Package loud says that something fails: at most one log line a reason and
// minute, with how often it happened, and a counter for each reason.
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
	total uint64 // ever
	told  uint64 // of those, how many the lines so far have covered
	at    clock.Instant
}

// New returns a Log on logger, or on what slog.Default() is at each line if that
// is nil.
func New(logger *slog.Logger) *Log {
	return &Log{logger: logger, clock: clock.Here(), reasons: map[string]*reason{}}
}

// Warn counts an event. It logs it unless a line of the same reason was written
// within the last minute; the next line says how many there were. name is the
// reason, a fixed word; message says what happens and what to do, and args are attributes
// as slog has them. Nothing may hold a token, a key or a secret. A logger that
// hangs holds up the one call of that minute, and no other.
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
	times := r.total - r.told
	r.told, r.at = r.total, l.clock.Read()
	l.mu.Unlock()
	logger := l.logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Warn(message, append([]any{"reason", name, "times", times}, args...)...)
}

// Counts returns how often each reason was given. The map is the caller's.
func (l *Log) Counts() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]uint64{}
	for name, r := range l.reasons {
		counts[name] = r.total
	}
	return counts
}
