// Package flight runs one function for many callers: one run at a time, at a
// limited rate, and with a limit on how long each caller waits.
//
// It protects a slow or hostile server, such as a store or a key server, from
// many callers, and the callers from the server:
//
//   - Callers share the result of the run that is under way.
//   - A caller sets how long it waits at most, even if the function hangs.
//   - A run past its limit has failed, for every caller. If its function does
//     not return, the run is abandoned, and up to three abandoned runs do not
//     keep a new one from starting.
//   - The result of an abandoned run is dropped: see [Run.Commit].
//   - After a failure there is a pause, in which callers get the last error at
//     once. It grows with each further failure and has jitter.
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
	// ErrPanic is the result of a run whose function panicked or ended its
	// goroutine. It does not hold the value of the panic, which may be a
	// secret.
	ErrPanic = errors.New("flight: the function panicked")
	// ErrLate is the result of a run that passed its limit.
	ErrLate = errors.New("flight: no answer within the limit")
	// ErrWaited means that the caller has waited for its time and the run goes
	// on.
	ErrWaited = errors.New("flight: no answer yet")
	// ErrStuck means that no run was started, since too many earlier ones hang.
	ErrStuck = errors.New("flight: earlier runs hang")
)

const (
	// maxAbandoned is how many runs may hang while another one is started.
	maxAbandoned = 3
	// reportTime is how long callers wait for Ended at most.
	reportTime = 100 * time.Millisecond
	// maxUnreported is how many results are kept while Ended hangs.
	maxUnreported = 100
)

// Config says how a [Group] runs its function.
type Config struct {
	// Limit is how long a run may take, from its start or its last Commit.
	// Required.
	Limit time.Duration
	// Cooldown is the least time between the starts of two runs, for Try and
	// Go. 0 means none.
	Cooldown time.Duration
	// Pause is how long after a failed run only Do starts another one. It
	// doubles with each further failure, up to MaxPause, and is lengthened at
	// random by up to a quarter. 0 means none.
	Pause, MaxPause time.Duration
	// Ended is called with each result once, in the order of the runs and
	// before the callers return, for logs and metrics. The result of an
	// abandoned run is ErrLate. An Ended that hangs delays callers by 100 ms.
	// Up to 100 results are kept meanwhile, and passed to it later. A panic in
	// it is dropped. Optional.
	Ended func(err error)
}

// Group runs one function. It is safe for concurrent use. Make it with [New];
// it must not be copied.
type Group struct {
	cfg   Config
	clock *clock.Clock
	fn    func(ctx context.Context, r *Run) error

	mu         sync.Mutex
	run        *Run          // the run under way, or nil
	started    uint64        // number of the last run
	ended      uint64        // number of the last run that has a result
	began      clock.Instant // start of the last run
	wanted     clock.Instant // the last call of After
	failed     clock.Instant // end of the last run, if it failed
	pause      time.Duration // after that failure
	failures   int           // in a row
	abandoned  int           // functions that have not returned
	err        error         // result of the run numbered ended
	unreported []outcome     // results that cfg.Ended was not called with yet
	reporting  bool          // a goroutine calls cfg.Ended
}

// outcome is the result of a run. release lets its callers return.
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
	over   bool  // it has a result; group.mu
}

// New returns a Group for fn. The context of fn ends with the limit, and is not
// that of a caller.
func New(cfg Config, fn func(ctx context.Context, r *Run) error) *Group {
	return &Group{cfg: cfg, clock: clock.Here(), fn: fn}
}

// Commit calls f, which publishes what the run has read so far, and restarts
// the run's limit. If the run was abandoned, Commit returns false and does not
// call f: a later run may have read something newer. f must not block or use
// the Group.
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

// Wanted returns when After was last called before the run began, or the zero
// Instant. A function that shares its readings with others may return a reading
// that began after that, and none that began before.
func (r *Run) Wanted() clock.Instant { return r.wanted }

// Do joins the run under way or starts one, also in the cooldown and the pause.
// It waits for the result, until ctx ends and for at most atMost (0 means no
// limit). A caller that gives up, with [ErrWaited] or ctx's error, does not
// cancel the run. A joined run may have begun before the call.
func (g *Group) Do(ctx context.Context, atMost time.Duration) error {
	g.mu.Lock()
	r, err := g.join()
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return r.wait(ctx, atMost)
}

// Try is [Group.Do] that respects cooldown and pause: if no run is under way
// and none may start, it returns at once with started == false and the result
// of the last run.
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

// After waits for the result of a run that begins after the call. Concurrent
// callers share it. It ignores the cooldown. It returns an error at once in the
// pause after a failure, and when the run that was under way at the call fails.
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

// Failing returns how long the pause still lasts, and the error of the last
// run: nil if it succeeded, or there was none.
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

// pausing returns how long the pause after a failure still lasts.
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

// call runs the function. The result is ErrPanic unless the function returns.
func (g *Group) call(ctx context.Context, r *Run) {
	err := ErrPanic
	defer func() {
		_ = recover() // its value is dropped on purpose: see ErrPanic
		g.end(r, err, true)
	}()
	err = g.fn(ctx, r)
}

// end records the result of a run: that of the function, or ErrLate.
func (g *Group) end(r *Run, err error, returned bool) {
	g.mu.Lock()
	switch {
	case r.over:
		if returned {
			g.abandoned--
		}
		g.mu.Unlock()
		return
	case !returned && g.clock.Steady(r.since) < g.cfg.Limit: // Commit came before the timer
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
	if g.cfg.Ended == nil || len(g.unreported) == maxUnreported {
		g.mu.Unlock()
		r.cancel()
		close(r.done)
		return
	}
	release := sync.OnceFunc(func() { close(r.done) })
	late := time.AfterFunc(reportTime, release)
	g.unreported = append(g.unreported, outcome{err, func() { late.Stop(); release() }})
	g.mu.Unlock()
	r.cancel()
	g.report()
}

// pauseAfter returns the pause after a failure that follows failures in a row.
// It doubles from first up to most, and is lengthened at random.
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

// report calls cfg.Ended with the results that it was not called with yet,
// unless another goroutine does.
func (g *Group) report() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reporting {
		return
	}
	g.reporting = true
	defer func() { g.reporting = false }() // also if Ended ends its goroutine
	for len(g.unreported) > 0 {
		o := g.unreported[0]
		g.unreported = g.unreported[1:]
		func() {
			g.mu.Unlock()
			defer g.mu.Lock()
			defer o.release()
			defer func() { _ = recover() }()
			g.cfg.Ended(o.err)
		}()
	}
}

// wait returns the result of the run. If there is one, it is returned even if
// the context has ended.
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
