package refresh

import (
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// lateFor is how long after its replacement a token can be retried at all.
const lateFor = 24 * time.Hour

// position is where a family stands. A generation is the time during which one
// token is the unused one; a retry in it is the parent, presented again.
type position struct {
	Counter uint64    // of the only token that is unused
	Rotated time.Time // when that token was first handed out
	Retried bool      // this generation had a retry
	Streak  time.Time // since when each generation was retried, without a pause; zero if it was not
	Late    time.Time // when a late retry was last forgiven; zero if none was
	Spent   bool      // no generation without any retry has ended since Late
}

// step is what advance decided.
type step int

const (
	reuse step = iota // two parties hold the tokens
	moved             // a new successor
	again             // the same successor
	late              // the same successor, after the window
)

// advance returns what becomes of a position when the token at counter is
// presented. It decides everything about reuse.
//
// A retry within the window proves nothing by itself. But where one generation
// after the other is retried without a pause longer than the window, two parties
// may be taking turns: the window bounds that as a whole. A late retry is
// forgiven once, and again only after a generation without any retry: two
// parties that hold one token cannot both skip a generation.
func advance(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
	age := clock.Between(p.Rotated, now)
	switch {
	case counter >= p.Counter:
		// It is the current token. Or it is a later one, and the store has lost what
		// it had acknowledged: that token was handed out, and the store catches up.
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
		return p, again
	case !p.Late.IsZero() && clock.Between(p.Late, now) <= window:
		return p, again
	case !p.Spent && age <= lateFor:
		p.Late, p.Spent, p.Retried = now, true, true
		return p, late
	default:
		return p, reuse
	}
}
