// Package flight runs one function at a time for many callers, and not too often.
//
// It is what stands between a flood of callers and a slow or hostile far side: a key server, a store.
// Callers that come while a run is under way share its outcome; callers that come soon after it are held off
// by a cooldown that counts from the start of the run and does not care how the run ended.
package flight

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrPanic is the outcome of a run whose function panicked or ended its goroutine. It does not say with what: the
// value may hold what must not be logged.
var ErrPanic = errors.New("flight: the function panicked")

// Group runs one function at a time. Callers that come while it runs share its outcome, and [Group.Try] and
// [Group.Go] start it at most once per cooldown however it ends. A Group is safe for concurrent use; it is made
// by [New] and must not be copied.
type Group struct {
	timeout, cooldown time.Duration
	fn                func(ctx context.Context) error

	mu    sync.Mutex
	run   *run      // the run under way, or nil
	began time.Time // start of the last run; zero if there was none
	err   error     // outcome of the last finished run
}

// run is one call of the function. err is written before done is closed.
type run struct {
	done chan struct{}
	err  error
}

// New returns a Group for fn. Each run of fn gets a context of its own that ends after timeout (0 or less = never);
// no caller's context reaches it. fn should return when its context ends: until it does, no other run starts.
// cooldown is the least time between the starts of two runs by [Group.Try] and [Group.Go] (0 or less = none).
func New(timeout, cooldown time.Duration, fn func(ctx context.Context) error) *Group {
	return &Group{timeout: timeout, cooldown: cooldown, fn: fn}
}

// Do starts the function, or joins the run under way, and waits for its end or for the end of ctx. It ignores the
// cooldown, but what it starts counts for the cooldown of the other calls.
//
// It returns the run's error, or ctx.Err(): a caller that gives up neither stops the run nor fails the
// others. A panic in the function becomes [ErrPanic]. A joined run may have begun before the call of Do: what it
// read may be older than the call.
func (g *Group) Do(ctx context.Context) error {
	g.mu.Lock()
	r := g.run
	if r == nil {
		r = g.start()
	}
	g.mu.Unlock()
	return r.wait(ctx)
}

// Try is [Group.Do] held to the cooldown. If no run is under way and the last one began less than the cooldown
// ago, it returns at once with started == false and the error of that last run. Otherwise it starts or joins a run
// and returns started == true with what Do would have returned.
func (g *Group) Try(ctx context.Context) (started bool, err error) {
	g.mu.Lock()
	r := g.run
	if r == nil {
		if g.cooling() {
			err = g.err
			g.mu.Unlock()
			return false, err
		}
		r = g.start()
	}
	g.mu.Unlock()
	return true, r.wait(ctx)
}

// Go starts a run in the background if none is under way and the cooldown allows it. It never blocks.
func (g *Group) Go() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.run == nil && !g.cooling() {
		g.start()
	}
}

// cooling reports whether the last run began less than the cooldown ago. g.mu is held.
func (g *Group) cooling() bool {
	return !g.began.IsZero() && time.Since(g.began) < g.cooldown
}

// start begins a run. g.mu is held and no run is under way.
func (g *Group) start() *run {
	r := &run{done: make(chan struct{}), err: ErrPanic}
	g.run, g.began = r, time.Now()
	go g.call(r)
	return r
}

// call runs the function and records its outcome, which stays ErrPanic unless the function returned.
func (g *Group) call(r *run) {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if g.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
	}
	defer func() {
		_ = recover() // its value is dropped on purpose: see ErrPanic
		cancel()
		g.mu.Lock()
		g.run, g.err = nil, r.err
		g.mu.Unlock()
		close(r.done)
	}()
	r.err = g.fn(ctx)
}

// wait returns the outcome of the run. An outcome that is there wins over a context that has ended too.
func (r *run) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	default:
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
