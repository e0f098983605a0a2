package clock

import (
	"sync"
	"sync/atomic"
	"time"
)

// View is what a process knows of the time of a store that it reads. Between two
// readings it goes on by the steady clock alone, so that no jump of the wall
// clock moves it. It never goes back. It is safe for concurrent use; reading it
// takes no lock.
type View struct {
	clock *Clock
	mu    sync.Mutex // of those that change it
	last  atomic.Pointer[told]
}

// told is a reading: at the instant at, the store's time was from lower to upper.
// All times are Unix nanoseconds.
type told struct {
	at           Instant
	lower, upper int64
	floor        int64 // what Now does not go below
	trip         time.Duration
}

// drift is how much two right clocks may part, as a share of the time between
// two readings; slack is what else may come between.
const (
	drift = 1000 // one in a thousand
	slack = 10 * time.Millisecond
)

// NewView returns a View that knows nothing yet.
func NewView(c *Clock) *View { return &View{clock: c} }

// Tell records that a store asked at one instant, whose answer came at another,
// said that its time was t.
//
// A time that is a little behind the view, as clocks that drift will have it,
// makes Now stand still until the store has caught up. A time that is further
// behind is that of a store whose clock was set back, or of another store: the
// view goes on as if it had not been told.
func (v *View) Tell(t time.Time, asked, got Instant) {
	v.mu.Lock()
	defer v.mu.Unlock()
	trip := SteadyBetween(asked, got)
	n := &told{at: got, lower: t.UnixNano(), trip: trip}
	n.upper = n.lower + int64(trip)
	if old := v.last.Load(); old != nil {
		since := SteadyBetween(old.at, got)
		if since < 0 {
			return // an older answer that came late
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
// UTC, and false if the view knows nothing yet.
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

func (l *told) now(i Instant) int64 {
	return max(l.floor, l.lower+int64(SteadyBetween(l.at, i)))
}

// Lower is Now less what two right clocks may have parted since the last
// reading: for a view that has not been told the time for long.
func (v *View) Lower() (time.Time, bool) {
	l := v.last.Load()
	if l == nil {
		return time.Time{}, false
	}
	since := int64(SteadyBetween(l.at, v.clock.Read()))
	return time.Unix(0, max(l.floor, l.lower+since-since/drift)).UTC(), true
}

// Upper returns a time that the store's clock has certainly not passed, in UTC,
// and false if the view knows nothing yet.
func (v *View) Upper() (time.Time, bool) {
	l := v.last.Load()
	if l == nil {
		return time.Time{}, false
	}
	now := v.clock.Read()
	return time.Unix(0, max(l.now(now), l.upper+int64(SteadyBetween(l.at, now)))).UTC(), true
}

// Offset returns how far the wall clock of this machine is ahead of the store's
// (behind, if it is negative), by the last reading, and how long that took.
func (v *View) Offset() (ahead, trip time.Duration, known bool) {
	l := v.last.Load()
	if l == nil {
		return 0, 0, false
	}
	return time.Duration(l.at.wall - l.lower), l.trip, true
}
