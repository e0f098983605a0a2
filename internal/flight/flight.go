// Package flight runs one function for many callers: one run at a time, not too
// often, and without making a caller wait for longer than it wants to.
//
// It stands between a flood of callers and a slow or hostile far side, such as a
// store or a key server:
//
//   - Callers that come while a run is under way share its outcome.
//   - A caller says how long it waits at most, whatever the function does.
//   - A run past its limit has failed, for every caller. If its function does
//     not return, the run is abandoned, and up to three abandoned runs do not
//     keep a new one from starting.
//   - What an abandoned run brings in the end is dropped: see [Run.Commit].
//   - After a failure a pause begins, which grows with each further failure and
//     has jitter; callers meanwhile get the last error at once.
package flight

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

var (
	// ErrPanic is the outcome of a run whose function panicked or ended its
	// goroutine. It does not say with what: the value may hold a secret.
	ErrPanic = errors.New("flight: the function panicked")
	// ErrLate is the outcome of a run that passed its limit.
	ErrLate = errors.New("flight: no answer within the limit")
	// ErrWaited says that the caller's time is over and the run goes on.
	ErrWaited = errors.New("flight: no answer yet")
	// ErrStuck says that too many runs hang for another one to start.
	ErrStuck = errors.New("flight: earlier runs hang")
)

const (
	// maxAbandoned is how many runs may hang before no other one starts.
	maxAbandoned = 3
	// tellTime is how long callers wait for Ended at most.
	tellTime = 100 * time.Millisecond
	// maxUntold is how many outcomes are kept for an Ended that hangs.
	maxUntold = 100
)

// Config says how a [Group] runs its function.
type Config struct {
	// Limit is how long a run may take, from its start or its last Commit.
	// Required.
	Limit time.Duration
	// Cooldown is the least time between the starts of two runs, whatever their
	// outcome, for Try and Go. 0 means none.
	Cooldown time.Duration
	// Pause is how long after a failed run no other one starts, except by Do. It
	// doubles with each further failure, up to MaxPause, and is lengthened at
	// random by up to a quarter. 0 means none.
	Pause, MaxPause time.Duration
	// Ended is told of each outcome once, in the order of the runs and before the
	// callers are: for logs and metrics. A run that is abandoned has ended with
	// ErrLate. An Ended that hangs delays callers by 100 ms; it is told what it
	// misses meanwhile later, up to 100 outcomes. A panic in it is dropped.
	// Optional.
	Ended func(err error)
}

// Group runs one function. It is safe for concurrent use; it is made by [New]
// and must not be copied.
type Group struct {
	cfg   Config
	clock *clock.Clock
	fn    func(ctx context.Context, r *Run) error

	mu        sync.Mutex
	run       *Run          // the run under way, or nil
	started   uint64        // number of the last run
	ended     uint64        // number of the last run that has an outcome
	began     clock.Instant // start of the last run
	wanted    clock.Instant // the last call of After
	failed    clock.Instant // end of the last run, if it failed
	pause     time.Duration // how long no other one starts then
	failures  int           // in a row
	abandoned int           // functions that have not returned
	err       error         // outcome of the run numbered ended
	untold    []outcome     // what cfg.Ended has still to be told
	telling   bool          // a goroutine tells it
}

// outcome is that of a run, and release tells its callers.
type outcome struct {
	err     error
	release func()
}

// Run is one call of the function.
type Run struct {
	group  *Group
	number uint64
	cancel context.CancelFunc
	limit  *time.Timer
	wanted clock.Instant // the last call of After before its start
	since  clock.Instant // its start, or its last Commit; group.mu
	done   chan struct{}
	err    error // set before done is closed
	over   bool  // it has an outcome; group.mu
}

// New returns a Group for fn. fn is called with a context of its own, which ends
// with the limit; no caller's context reaches it.
func New(cfg Config, fn func(ctx context.Context, r *Run) error) *Group {
	return &Group{cfg: cfg, clock: clock.Here(), fn: fn}
}

// Commit calls f, which makes what the run has read so far count, and grants the
// run its limit anew. It returns false, and does not call f, if the run was
// abandoned: a later one may have read something newer. f must not block, nor
// use the Group.
func (r *Run) Commit(f func()) bool {
	r.group.mu.Lock()
	defer r.group.mu.Unlock()
	if r.over {
		return false
	}
	f()
	r.since = r.group.clock.Read()
	r.limit.Reset(r.group.cfg.Limit)
	return true
}

// Wanted returns when After was last called before the run began, the zero
// Instant for never. A function whose readings are shared with others' may use
// one that is older than its own run, and none that is older than that.
func (r *Run) Wanted() clock.Instant { return r.wanted }

// Do joins the run under way or starts one, ignoring cooldown and pause, and
// waits for its outcome, no longer than atMost (0 means as long as it takes) and
// ctx. A caller that gives up with [ErrWaited] or ctx's error stops nothing. A
// joined run may have begun before the call.
func (g *Group) Do(ctx context.Context, atMost time.Duration) error {
	g.mu.Lock()
	r, err := g.join()
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return r.wait(ctx, atMost)
}

// Try is [Group.Do] held to cooldown and pause: if no run is under way and none
// may start, it returns at once with started == false and the outcome of the
// last run.
func (g *Group) Try(ctx context.Context, atMost time.Duration) (started bool, err error) {
	g.mu.Lock()
	if g.run == nil && (g.cooling() || g.pausing() > 0) {
		err = g.err
		g.mu.Unlock()
		return false, err
	}
	r, err := g.join()
	g.mu.Unlock()
	if err != nil {
		return false, err
	}
	return true, r.wait(ctx, atMost)
}

// After waits for the outcome of a run that begins after the call, shared with
// all callers of that moment. It ignores the cooldown. It returns an error at
// once in the pause after a failure, and when the run that was under way at the
// call fails.
func (g *Group) After(ctx context.Context, atMost time.Duration) error {
	began := g.clock.Read()
	g.mu.Lock()
	g.wanted = g.clock.Read()
	seen := g.started
	for first := true; ; first = false {
		if g.ended > seen || first && g.run == nil && g.pausing() > 0 {
			err := g.err
			g.mu.Unlock()
			return err
		}
		if err := ctx.Err(); err != nil && !first {
			g.mu.Unlock()
			return err
		}
		left := atMost
		if atMost > 0 {
			if left -= g.clock.Steady(began); left <= 0 {
				g.mu.Unlock()
				return ErrWaited
			}
		}
		r, err := g.join()
		g.mu.Unlock()
		if err != nil {
			return err
		}
		if err = r.wait(ctx, left); err != nil || r.number > seen {
			return err
		}
		g.mu.Lock()
	}
}

// Go starts a run in the background if none is under way and cooldown and pause
// allow it. It never blocks.
func (g *Group) Go() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.run == nil && !g.cooling() && g.pausing() <= 0 {
		_, _ = g.join()
	}
}

// Failing returns how long no other run starts, and the error of the last one: nil
// if it succeeded, or there was none.
func (g *Group) Failing() (pause time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(0, g.pausing()), g.err
}

// cooling reports whether the last run began less than the cooldown ago. g.mu is
// held, as for all that follow.
func (g *Group) cooling() bool {
	return !g.began.IsZero() && g.clock.Age(g.began) < g.cfg.Cooldown
}

// pausing is how much is left of the pause after a failure.
func (g *Group) pausing() time.Duration {
	if g.failed.IsZero() {
		return 0
	}
	return g.pause - g.clock.Age(g.failed)
}

// join returns the run under way, or starts one.
func (g *Group) join() (*Run, error) {
	if g.run != nil {
		return g.run, nil
	}
	if g.abandoned >= maxAbandoned {
		return nil, ErrStuck
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.started++
	g.began = g.clock.Read()
	r := &Run{group: g, number: g.started, cancel: cancel, wanted: g.wanted, since: g.began, done: make(chan struct{})}
	g.run = r
	r.limit = time.AfterFunc(g.cfg.Limit, func() { g.end(r, ErrLate, false) })
	go g.call(ctx, r)
	return r, nil
}

// call runs the function. Its outcome is ErrPanic unless it returned.
func (g *Group) call(ctx context.Context, r *Run) {
	err := ErrPanic
	defer func() {
		_ = recover() // its value is dropped on purpose: see ErrPanic
		g.end(r, err, true)
	}()
	err = g.fn(ctx, r)
}

// end records an outcome: the function's, or that the run is late.
func (g *Group) end(r *Run, err error, returned bool) {
	g.mu.Lock()
	switch {
	case r.over:
		if returned {
			g.abandoned--
		}
		g.mu.Unlock()
		return
	case !returned && g.clock.Steady(r.since) < g.cfg.Limit: // Commit was quicker than the timer
		g.mu.Unlock()
		return
	}
	r.over, r.err = true, err
	g.run, g.ended, g.err = nil, r.number, err
	if !returned {
		g.abandoned++
	}
	if err == nil {
		g.failures, g.failed, g.pause = 0, clock.Instant{}, 0
	} else {
		g.failed, g.pause = g.clock.Read(), pauseAfter(g.failures, g.cfg.Pause, g.cfg.MaxPause)
		g.failures++
	}
	r.limit.Stop()
	if g.cfg.Ended == nil || len(g.untold) == maxUntold {
		g.mu.Unlock()
		r.cancel()
		close(r.done)
		return
	}
	release := sync.OnceFunc(func() { close(r.done) })
	late := time.AfterFunc(tellTime, release)
	g.untold = append(g.untold, outcome{err, func() { late.Stop(); release() }})
	g.mu.Unlock()
	r.cancel()
	g.tell()
}

// pauseAfter returns the pause after one more failure than there were in a row:
// it doubles from first up to most, and is lengthened at random.
func pauseAfter(failures int, first, most time.Duration) time.Duration {
	pause := first
	if pause <= 0 {
		return 0
	}
	for range failures {
		if pause >= most/2 {
			pause = max(first, most)
			break
		}
		pause *= 2
	}
	return pause + rand.N(pause/4+1)
}

// tell tells cfg.Ended what it has not been told, unless another goroutine does.
func (g *Group) tell() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.telling {
		return
	}
	g.telling = true
	defer func() { g.telling = false }() // also if Ended ends its goroutine
	for len(g.untold) > 0 {
		o := g.untold[0]
		g.untold = g.untold[1:]
		func() {
			g.mu.Unlock()
			defer g.mu.Lock()
			defer o.release()
			defer func() { _ = recover() }()
			g.cfg.Ended(o.err)
		}()
	}
}

// wait returns the outcome of the run. One that is there wins over a context
// that has ended too.
func (r *Run) wait(ctx context.Context, atMost time.Duration) error {
	select {
	case <-r.done:
		return r.err
	default:
	}
	var over <-chan time.Time
	if atMost > 0 {
		t := time.NewTimer(atMost)
		defer t.Stop()
		over = t.C
	}
	var err error
	select {
	case <-r.done:
		return r.err
	case <-over:
		err = ErrWaited
	case <-ctx.Done():
		err = ctx.Err()
	}
	select {
	case <-r.done:
		return r.err
	default:
		return err
	}
}
