package authority

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

// readLimit bounds one reading of the store.
const readLimit = 5 * time.Second

// shared makes readings of one kind that many callers share. At most one is
// under way. Make it with newShared.
type shared struct {
	clock   *clock.Clock
	fresh   time.Duration // how old a reading may be for a caller that does not need a new one
	apart   time.Duration // between two readings for callers that do
	reading *flight.Group

	mu   sync.Mutex
	last reading
}

// reading is the time of one reading.
type reading struct {
	asked, got clock.Instant
	time       time.Time // the store's
}

func newShared(fresh, apart time.Duration, read func(ctx context.Context, r *flight.Run) error) *shared {
	return &shared{
		clock: clock.Here(), fresh: fresh, apart: apart,
		reading: flight.New(flight.Config{Limit: readLimit, Cooldown: fresh, Pause: 250 * time.Millisecond, MaxPause: time.Second}, read),
	}
}

// await returns nil when there is a reading that began at after or later. It
// uses the last one if that is such a reading and fresh. In the pause after a
// failed reading it returns the error of that reading.
func (s *shared) await(ctx context.Context, after clock.Instant) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.isBefore(after) {
		return s.awaitNext(ctx, after)
	}
	if s.clock.Age(s.latest().asked) < s.fresh {
		return nil
	}
	if _, err := s.reading.Try(ctx, 0); err != nil {
		return err
	}
	if s.isBefore(after) { // that reading had begun before
		return s.awaitNext(ctx, after)
	}
	return nil
}

// isBefore reports whether the last reading may have begun before an instant.
// By a coarse clock, one at the same instant may have.
func (s *shared) isBefore(i clock.Instant) bool {
	return clock.SteadyBetween(s.latest().asked, i) >= 0
}

// awaitNext waits for a reading that begins after an instant in the past.
func (s *shared) awaitNext(ctx context.Context, after clock.Instant) error {
	if at := s.latest().asked; s.apart > 0 && !at.IsZero() {
		wait(ctx, s.apart-s.clock.Age(at))
		if !s.isBefore(after) {
			return nil // a reading of another caller is new enough
		}
	}
	return s.reading.After(ctx, 0)
}

func (s *shared) latest() reading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// jitter returns a random time up to most, so that replicas that started
// together do not read together.
func jitter(most time.Duration) time.Duration { return rand.N(most + 1) }
