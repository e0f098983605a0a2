package refresh

import (
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// lateFor is how long after its replacement a token can be retried at most.
const lateFor = 24 * time.Hour

// position is the state of a family. A generation is the time in which one
// token is the unused one. A retry is the parent of that token, presented
// again.
type position struct {
	Counter uint64    // of the only token that is unused
	Rotated time.Time // when that token was first handed out
	Retried bool      // this generation had a retry
	Streak  time.Time // since when every generation had a retry, without a pause; zero if this one had none
	Late    time.Time // when a late retry was last accepted; zero if none was
	Spent   bool      // no generation without any retry has ended since Late
}

// step is what advance decided.
type step int

const (
	reuse   step = iota // two parties hold the tokens
	moved               // a new successor
	retried             // the same successor
	late                // the same successor, after the window
)

// advance returns the next position of a family when the token at counter is
// presented. All decisions about reuse are made here.
//
// A retry within the window is accepted. But if every generation has a retry,
// with no pause longer than the window, two parties may be taking turns: after
// one window in total, a further retry is reuse. A late retry is accepted once,
// and another one only after a generation without any retry: two parties that
// hold one token cannot both skip a generation.
func advance(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
	age := clock.Between(p.Rotated, now)
	switch {
	case counter >= p.Counter:
		// It is the current token, or a later one that was handed out before
		// the store lost a write: the record catches up.
		next := position{Counter: counter + 1, Rotated: now, Late: p.Late, Spent: p.Spent && p.Retried}
		if p.Retried && age <= window {
			next.Streak = p.Streak
		}
		return next, moved
	case counter+1 < p.Counter:
		return p, reuse
	case age <= window:
		if p.Streak.IsZero() {
			p.Streak = now
		} else if clock.Between(p.Streak, now) > window {
			return p, reuse
		}
		p.Retried = true
		return p, retried
	case !p.Late.IsZero() && clock.Between(p.Late, now) <= window:
		return p, retried
	case !p.Spent && age <= lateFor:
		p.Late, p.Spent, p.Retried = now, true, true
		return p, late
	default:
		return p, reuse
	}
}
