package refresh

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rule is what advance is.
type rule func(p position, counter uint64, now time.Time, window time.Duration) (position, step)

// The abstract state of a family that an owner and a thief share. How far each is
// behind is counted up to 3, ages are counted in ticks up to 5: none of the
// rule's limits but a day is further away, and a day only refuses more.
type shared struct {
	owner, thief   int // 0: holds the unused token, 1: its parent, …
	age            int // of Rotated
	streak, late   int // of Streak and Late; -1 if zero
	retried, spent bool
	inWindow       bool // this generation had a retry within the window
}

const (
	tick   = 10 * time.Second
	window = 30 * time.Second
	most   = 5 // ticks
	far    = 3 // generations
)

// move is an edge of the state space.
type move struct {
	to                    shared
	owner, thief          bool // acted
	quiet                 bool // ended a generation without a retry within the window
	generation, afterLong bool // ended a generation; one that was longer than the window
}

var base = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s shared) position(now time.Time) position {
	ago := func(n int) time.Time {
		if n < 0 {
			return time.Time{}
		}
		return now.Add(-time.Duration(n) * tick)
	}
	return position{Counter: 100, Rotated: ago(s.age), Retried: s.retried, Streak: ago(s.streak), Late: ago(s.late), Spent: s.spent}
}

// moves returns what can happen next: a tick passes, or one of the two acts. What
// ends the family has no edge.
func (s shared) moves(r rule) []move {
	later := s
	later.age = min(s.age+1, most)
	if s.streak >= 0 {
		later.streak = min(s.streak+1, most)
	}
	if s.late >= 0 {
		later.late = min(s.late+1, most)
	}
	list := []move{{to: later}}
	for _, who := range []string{"owner", "thief"} {
		behind := s.owner
		if who == "thief" {
			behind = s.thief
		}
		now := base
		p, did := r(s.position(now), uint64(100-behind), now, window)
		if did == reuse {
			continue
		}
		since := func(t time.Time) int {
			if t.IsZero() {
				return -1
			}
			return int(now.Sub(t) / tick)
		}
		to := shared{
			owner: s.owner, thief: s.thief, age: since(p.Rotated), streak: since(p.Streak), late: since(p.Late),
			retried: p.Retried, spent: p.Spent, inWindow: s.inWindow || did == retried && s.age <= int(window/tick),
		}
		m := move{owner: who == "owner", thief: who == "thief"}
		if did == moved {
			m.generation, m.quiet, m.afterLong = true, !s.inWindow, s.age > int(window/tick)
			to.inWindow = false
			to.owner, to.thief = min(to.owner+1, far), min(to.thief+1, far)
		}
		if m.owner {
			to.owner = 0
		} else {
			to.thief = 0
		}
		m.to = to
		list = append(list, m)
	}
	return list
}

// explore returns the whole state space: all that can follow when a thief has
// copied the owner's token.
func explore(r rule) map[shared][]move {
	begin := shared{streak: -1, late: -1}
	space := map[shared][]move{begin: nil}
	for todo := []shared{begin}; len(todo) > 0; {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		space[s] = s.moves(r)
		for _, m := range space[s] {
			if _, seen := space[m.to]; !seen {
				space[m.to] = nil
				todo = append(todo, m.to)
			}
		}
	}
	return space
}

// loops returns the moves of each strongly connected part of the space, if only
// moves that keep allows are made: what can go on for ever is made of the moves
// of one of them, and all of its moves can be in it.
func loops(space map[shared][]move, keep func(move) bool) [][]move {
	index, low, part := map[shared]int{}, map[shared]int{}, map[shared]int{}
	var stack []shared
	parts := 0
	type frame struct {
		at   shared
		next int
	}
	for root := range space {
		if index[root] != 0 {
			continue
		}
		frames := []frame{{at: root}}
		for len(frames) > 0 {
			f := &frames[len(frames)-1]
			if f.next == 0 && index[f.at] == 0 {
				index[f.at] = len(index) + 1
				low[f.at] = index[f.at]
				stack = append(stack, f.at)
			}
			moves := space[f.at]
			descended := false
			for f.next < len(moves) {
				m := moves[f.next]
				if !keep(m) {
					f.next++
					continue
				}
				if index[m.to] == 0 {
					frames = append(frames, frame{at: m.to})
					descended = true
					break
				}
				f.next++
				if part[m.to] == 0 {
					low[f.at] = min(low[f.at], low[m.to])
				}
			}
			if descended {
				continue
			}
			if low[f.at] == index[f.at] {
				parts++
				for {
					s := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					part[s] = parts
					if s == f.at {
						break
					}
				}
			}
			frames = frames[:len(frames)-1]
		}
	}
	within := map[int][]move{}
	for s, moves := range space {
		for _, m := range moves {
			if keep(m) && part[s] == part[m.to] {
				within[part[s]] = append(within[part[s]], m)
			}
		}
	}
	return slices.Collect(maps.Values(within))
}

func has(moves []move, f func(move) bool) bool { return slices.ContainsFunc(moves, f) }

// mimicOnly reports whether an owner and a thief who both stay in have every
// generation retried within the window.
func mimicOnly(space map[shared][]move) bool {
	for _, moves := range loops(space, func(move) bool { return true }) {
		if has(moves, func(m move) bool { return m.owner }) && has(moves, func(m move) bool { return m.thief }) &&
			has(moves, func(m move) bool { return m.quiet }) {
			return false
		}
	}
	return true
}

// hurriedEnds reports whether an owner and a thief cannot both stay in if no
// generation is longer than the window.
func hurriedEnds(space map[shared][]move) bool {
	for _, moves := range loops(space, func(m move) bool { return !m.afterLong }) {
		if has(moves, func(m move) bool { return m.generation }) && has(moves, func(m move) bool { return !m.owner && !m.thief }) && // time passes
			has(moves, func(m move) bool { return m.owner }) && has(moves, func(m move) bool { return m.thief }) {
			return false
		}
	}
	return true
}

// Owner and thief both stay only by the documented mimic: every generation is
// retried within RetryWindow, and lasts longer than that now and then.
func TestTheftIsFoundOutButForTheMimic(t *testing.T) {
	began := time.Now()
	space := explore(advance)
	require.True(t, mimicOnly(space))
	require.True(t, hurriedEnds(space))
	require.Less(t, time.Since(began), time.Second)
	t.Logf("%d states", len(space))

	// The mimic is there, and late retries are: the space is not empty.
	both := false
	for _, moves := range loops(space, func(move) bool { return true }) {
		both = both || has(moves, func(m move) bool { return m.owner && m.generation }) && has(moves, func(m move) bool { return m.thief })
	}
	require.True(t, both)
	lates := 0
	for s := range space {
		if s.late >= 0 {
			lates++
		}
	}
	require.NotZero(t, lates)
}

// The search finds what is wrong with rules that forgive more.
func TestLaxRulesLetAThiefStay(t *testing.T) {
	for _, c := range []struct {
		name                   string
		rule                   rule
		mimicOnly, hurriedEnds bool
	}{
		{"late retries are always forgiven", func(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
			p.Spent = false
			return advance(p, counter, now, window)
		}, false, true},
		{"a late retry counts as none", func(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
			next, did := advance(p, counter, now, window)
			if did == late {
				next.Retried = p.Retried
			}
			return next, did
		}, false, true},
		{"a retry within the window counts as none", func(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
			next, did := advance(p, counter, now, window)
			if did == retried {
				next.Retried = p.Retried
			}
			return next, did
		}, false, false},
		{"turns may go on", func(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
			p.Streak = time.Time{}
			return advance(p, counter, now, window)
		}, true, false},
		{"what is two behind is forgiven", func(p position, counter uint64, now time.Time, window time.Duration) (position, step) {
			if counter+2 == p.Counter {
				counter++
			}
			return advance(p, counter, now, window)
		}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			space := explore(c.rule)
			require.Equal(t, c.mimicOnly, mimicOnly(space), "the mimic alone")
			require.Equal(t, c.hurriedEnds, hurriedEnds(space), "those in a hurry")
		})
	}
}

// Every answer of the rule, at its limits.
func TestAdvance(t *testing.T) {
	now := base
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name    string
		p       position
		counter uint64
		want    step
		next    position
	}{
		{"the current token", position{Counter: 7, Rotated: ago(time.Hour)}, 7, moved, position{Counter: 8, Rotated: now}},
		{"a later one: the store fell back", position{Counter: 7, Rotated: ago(time.Hour)}, 9, moved, position{Counter: 10, Rotated: now}},
		{"an older one", position{Counter: 7, Rotated: now}, 5, reuse, position{Counter: 7, Rotated: now}},
		{"the parent, at the end of the window", position{Counter: 7, Rotated: ago(window)}, 6, retried, position{Counter: 7, Rotated: ago(window), Retried: true, Streak: now}},
		{"the parent, by a clock that is behind", position{Counter: 7, Rotated: ago(-window)}, 6, retried, position{Counter: 7, Rotated: ago(-window), Retried: true, Streak: now}},
		{"the parent, after the window", position{Counter: 7, Rotated: ago(window + 1)}, 6, late, position{Counter: 7, Rotated: ago(window + 1), Retried: true, Late: now, Spent: true}},
		{"a day later", position{Counter: 7, Rotated: ago(24 * time.Hour)}, 6, late, position{Counter: 7, Rotated: ago(24 * time.Hour), Retried: true, Late: now, Spent: true}},
		{"more than a day", position{Counter: 7, Rotated: ago(24*time.Hour + 1)}, 6, reuse, position{Counter: 7, Rotated: ago(24*time.Hour + 1)}},
		{"late, and spent", position{Counter: 7, Rotated: ago(time.Hour), Spent: true}, 6, reuse, position{Counter: 7, Rotated: ago(time.Hour), Spent: true}},
		{"the same late one", position{Counter: 7, Rotated: ago(time.Hour), Late: ago(window), Spent: true, Retried: true}, 6, retried, position{Counter: 7, Rotated: ago(time.Hour), Late: ago(window), Spent: true, Retried: true}},
		{"another late one", position{Counter: 7, Rotated: ago(time.Hour), Late: ago(window + 1), Spent: true, Retried: true}, 6, reuse, position{Counter: 7, Rotated: ago(time.Hour), Late: ago(window + 1), Spent: true, Retried: true}},
		{"a generation without a retry ends", position{Counter: 7, Rotated: ago(time.Hour), Late: ago(2 * time.Hour), Spent: true}, 7, moved, position{Counter: 8, Rotated: now, Late: ago(2 * time.Hour)}},
		{"one with a retry ends", position{Counter: 7, Rotated: ago(time.Hour), Late: ago(2 * time.Hour), Spent: true, Retried: true}, 7, moved, position{Counter: 8, Rotated: now, Late: ago(2 * time.Hour), Spent: true}},
		{"a streak goes on", position{Counter: 7, Rotated: ago(time.Second), Retried: true, Streak: ago(window)}, 7, moved, position{Counter: 8, Rotated: now, Streak: ago(window)}},
		{"a streak at its end", position{Counter: 7, Rotated: ago(time.Second), Streak: ago(window)}, 6, retried, position{Counter: 7, Rotated: ago(time.Second), Retried: true, Streak: ago(window)}},
		{"a streak past it", position{Counter: 7, Rotated: ago(time.Second), Streak: ago(window + 1)}, 6, reuse, position{Counter: 7, Rotated: ago(time.Second), Streak: ago(window + 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, did := advance(c.p, c.counter, now, window)
			require.Equal(t, c.want, did)
			require.Equal(t, c.next, next)
		})
	}
}
