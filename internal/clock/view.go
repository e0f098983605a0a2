package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// View is a process's estimate of a store's time. Between two readings of the
// store it advances by the steady clock alone, so that a jump of the wall clock
// has no effect. It never goes back. It is safe for concurrent use; reading it
// takes no lock.
type View struct {
	clock *Clock
	mu    sync.Mutex // of those that change it
	last  atomic.Pointer[reading]
}

// reading is the result of one reading: at the instant at, the store's time was
// between lower and upper. All times are Unix nanoseconds.
type reading struct {
	at           Instant
	lower, upper int64
	floor        int64 // the least time that Now returns
	trip         time.Duration
}

// drift bounds how fast two correct clocks diverge: by one part in drift of the
// time between two readings. slack is added to that.
const (
	drift = 1000 // one in a thousand
	slack = 10 * time.Millisecond
)

// NewView returns a View before its first reading.
func NewView(c *Clock) *View { return &View{clock: c} }

// Tell records a reading: the store was asked at one instant, answered that its
// time was t, and the answer came at another instant.
//
// If t is a little behind the view, as drift explains, Now stands still until
// the store's time has reached it. If t is further behind, the store's clock
// was set back or it is another store: Tell ignores t.
func (v *View) Tell(t time.Time, asked, got Instant) {
	v.mu.Lock()
	defer v.mu.Unlock()
	trip := SteadyBetween(asked, got)
	n := &reading{at: got, lower: t.UnixNano(), trip: trip}
	n.upper = n.lower + int64(trip)
	if old := v.last.Load(); old != nil {
		since := SteadyBetween(old.at, got)
		if since < 0 {
			return // the answer to an earlier reading
		}
		n.floor = max(old.floor, old.lower+int64(since))
		if n.floor-n.lower > int64(trip+old.trip+since/drift+slack) {
			n.lower, n.upper = n.floor, max(n.upper, old.upper+int64(since))
		}
	}
	v.last.Store(n)
}

// AtLeast records that the store's time is not before t.
func (v *View) AtLeast(t time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.last.Load()
	if old == nil || t.UnixNano() <= old.floor {
		return
	}
	n := *old
	n.floor = t.UnixNano()
	v.last.Store(&n)
}

// Now returns the latest time that the store's clock has certainly reached, in
// UTC, and false before the first reading.
func (v *View) Now() (time.Time, bool) {
	return v.At(v.clock.Read())
}

// At is Now for a caller that has read the clock a moment ago.
func (v *View) At(i Instant) (time.Time, bool) {
	l := v.last.Load()
	if l == nil {
		return time.Time{}, false
	}
	return time.Unix(0, l.now(i)).UTC(), true
}

func (l *reading) now(i Instant) int64 {
	return max(l.floor, l.lower+int64(SteadyBetween(l.at, i)))
}

// Lower is Now minus the drift since the last reading. It is for a view whose
// last reading is long ago.
func (v *View) Lower() (time.Time, bool) {
	l := v.last.Load()
	if l == nil {
		return time.Time{}, false
	}
	since := int64(SteadyBetween(l.at, v.clock.Read()))
	return time.Unix(0, max(l.floor, l.lower+since-since/drift)).UTC(), true
}

// Upper returns a time that the store's clock has certainly not passed, in UTC,
// and false before the first reading.
func (v *View) Upper() (time.Time, bool) {
	l := v.last.Load()
	if l == nil {
		return time.Time{}, false
	}
	now := v.clock.Read()
	return time.Unix(0, max(l.now(now), l.upper+int64(SteadyBetween(l.at, now)))).UTC(), true
}

// Offset returns how far this machine's wall clock was ahead of the store's at
// the last reading (negative: behind), and how long that reading took.
func (v *View) Offset() (ahead, trip time.Duration, known bool) {
	l := v.last.Load()
	if l == nil {
		return 0, 0, false
	}
	return time.Duration(l.at.wall - l.lower), l.trip, true
}
