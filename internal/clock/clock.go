// Package clock reads this machine's clocks, and is the one place in which
// times are subtracted: a test forbids time.Now, time.Since, time.Until and
// Time.Sub everywhere else in what ships.
//
// There are two clocks. The wall clock can be wrong by any amount, and it can
// jump. The steady clock is the monotonic one: it never jumps, and it stands
// still while the machine is suspended.
package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// Clock is the clock of one machine. A zero Clock is that of this machine. A
// constructor keeps the Clock that [Here] returns.
type Clock struct {
	wrong atomic.Int64 // how far the wall clock is ahead, in nanoseconds; tests alone set it
}

// Instant is a reading of both clocks. The zero Instant is before all others.
type Instant struct {
	steady time.Time // with its monotonic reading; never shifted
	wall   int64     // Unix nanoseconds
}

var (
	machine Clock
	using   sync.Mutex
	here    atomic.Pointer[Clock]
)

// Here returns this machine's clock.
func Here() *Clock {
	if c := here.Load(); c != nil {
		return c
	}
	return &machine
}

// As runs f while [Here] returns c, so that objects that f constructs keep c.
// It is for tests of machines whose clocks differ.
func As(c *Clock, f func()) {
	using.Lock()
	defer using.Unlock()
	defer here.Store(here.Swap(c))
	f()
}

// SetAhead makes the wall clock jump to d ahead of this machine's.
func (c *Clock) SetAhead(d time.Duration) { c.wrong.Store(int64(d)) }

// Now returns the time of the wall clock in UTC, without a monotonic reading.
func (c *Clock) Now() time.Time {
	return time.Now().Round(0).UTC().Add(time.Duration(c.wrong.Load()))
}

// Read reads both clocks.
func (c *Clock) Read() Instant {
	now := time.Now()
	return Instant{now, now.UnixNano() + c.wrong.Load()}
}

// IsZero reports whether i is the zero Instant.
func (i Instant) IsZero() bool { return i.steady.IsZero() }

// Wall returns the time of the wall clock at i, or the zero time for the zero
// Instant.
func (i Instant) Wall() time.Time {
	if i.IsZero() {
		return time.Time{}
	}
	return time.Unix(0, i.wall).UTC()
}

// Steady returns the time since i by the steady clock alone.
func (c *Clock) Steady(i Instant) time.Duration { return time.Since(i.steady) }

// Age returns the time since i, by the clock that gives the longer time: the
// steady clock stands still while the machine is suspended, and the wall clock
// can be set back.
func (c *Clock) Age(i Instant) time.Duration { return AgeBetween(i, c.Read()) }

// AgeBetween returns the time from a to b, by the clock that gives the longer
// time.
func AgeBetween(a, b Instant) time.Duration {
	return max(SteadyBetween(a, b), time.Duration(b.wall-a.wall))
}

// SteadyBetween returns the time from a to b by the steady clock alone.
func SteadyBetween(a, b Instant) time.Duration { return b.steady.Sub(a.steady) }

// Between returns the time from a to b, which come from one clock: two claims
// of one token, two times of one store.
func Between(a, b time.Time) time.Duration { return b.Round(0).Sub(a.Round(0)) }
