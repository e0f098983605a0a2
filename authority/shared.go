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

// shared are readings of one kind that many callers share: at most one is under
// way. It is made by newShared.
type shared struct {
	clock   *clock.Clock
	fresh   time.Duration // how old a reading may be for a caller that is content with an older one
	apart   time.Duration // between two readings for callers that are not
	reading *flight.Group

	mu   sync.Mutex
	last reading
}

// reading is what all that a reading brought have in common.
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

// await returns nil when there is a reading that did not begin before after. The
// last one counts while it is fresh, if it is such a one. In the pause after a
// reading that failed it returns the error of that.
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
	if s.isBefore(after) { // it had begun before
		return s.awaitNext(ctx, after)
	}
	return nil
}

// isBefore reports whether the last reading may have begun before an instant: at
// the same one, by a clock that is coarse, it may.
func (s *shared) isBefore(i clock.Instant) bool {
	return clock.SteadyBetween(s.latest().asked, i) >= 0
}

// awaitNext waits for a reading that begins after an instant, which has passed.
func (s *shared) awaitNext(ctx context.Context, after clock.Instant) error {
	if at := s.latest().asked; s.apart > 0 && !at.IsZero() {
		wait(ctx, s.apart-s.clock.Age(at))
		if !s.isBefore(after) {
			return nil // another caller has had it read meanwhile
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

// jitter is a random time up to most, so that replicas started together spread
// out.
func jitter(most time.Duration) time.Duration { return rand.N(most + 1) }
