package clock

import "time"

// Before returns the instant d before i by both clocks.
func (i Instant) Before(d time.Duration) Instant {
	return Instant{i.steady.Add(-d), i.wall - int64(d)}
}

// In returns the time of this machine's clock in d, for a deadline of a
// connection.
func In(d time.Duration) time.Time { return time.Now().Add(d) }
