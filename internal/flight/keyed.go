package flight

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

var (
	// ErrBusy says that as many runs are under way as may be.
	ErrBusy = errors.New("flight: too many runs are under way")
	// ErrRemembered says that something is remembered of the key.
	ErrRemembered = errors.New("flight: something is remembered of the key")
)

// KeyedConfig says how a [Keyed] runs its functions.
type KeyedConfig struct {
	// Limit is how long a run may take. Required.
	Limit time.Duration
	// Pause is how long after a failed run no other one of the same key starts.
	// It doubles with each further failure, up to MaxPause, and is lengthened at
	// random by up to a quarter. Required.
	Pause, MaxPause time.Duration
	// MaxRuns is how many runs of all keys are under way at once. Twice as many
	// may have been abandoned without having returned. Required.
	MaxRuns int
	// MaxKept is how many outcomes are remembered. Required.
	MaxKept int
}

// Keyed is a [Group] for each of many keys, with bounds for all of them
// together. A good outcome is remembered for as long as its function says, and
// answers further callers of its key.
//
// Once three runs in a row have passed their limit, of whatever keys, only one
// run at a time is started, with a pause in between, until one of all returns. A
// function that heeds its context returns at its limit: it is slow for its own
// key, and holds up no other.
//
// It is safe for concurrent use; it is made by [NewKeyed] and must not be
// copied.
type Keyed[K comparable, V any] struct {
	cfg   KeyedConfig
	clock *clock.Clock

	mu        sync.Mutex
	entries   map[K]*keyedEntry[V]
	swept     clock.Instant
	running   int           // under way
	abandoned int           // past their limit, and not returned yet
	late      int           // runs past their limit, since one returned
	lateAt    clock.Instant // when the last one was
}

// keyedEntry is what is known of one key. Keyed.mu guards it.
type keyedEntry[V any] struct {
	run       *keyedRun[V] // under way, or nil
	started   uint64
	abandoned int

	last   keyedOutcome[V] // of the last run that others share
	ended  clock.Instant
	fails  int           // in a row
	paused time.Duration // after it, if it failed
}

type keyedRun[V any] struct {
	number  uint64
	alone   bool // no other caller has its failure
	over    bool // it has an outcome; Keyed.mu
	done    chan struct{}
	outcome keyedOutcome[V] // set before done is closed
}

// NewKeyed returns a Keyed that has run nothing.
func NewKeyed[K comparable, V any](cfg KeyedConfig) *Keyed[K, V] {
	return &Keyed[K, V]{cfg: cfg, clock: clock.Here(), entries: map[K]*keyedEntry[V]{}}
}

// Func is what is run for a key. It returns with its value how long that is
// remembered; 0 means not at all.
type Func[V any] func(ctx context.Context) (value V, keep time.Duration, err error)

// Do returns the remembered value of a key, or else the outcome of its run under
// way, or else that of a run of fn, which it starts. It waits no longer than
// atMost and ctx, and gives up with [ErrWaited] or ctx's error, which stops
// nothing. In the pause after a failed run it returns that run's error at once.
//
// fn has the values of ctx, and a limit of its own.
func (g *Keyed[K, V]) Do(ctx context.Context, key K, atMost time.Duration, fn Func[V]) (V, error) {
	return g.share(ctx, key, atMost, fn, false)
}

// After is Do with a run that begins after the call. If something is remembered of
// the key when that would start, it is [ErrRemembered].
func (g *Keyed[K, V]) After(ctx context.Context, key K, atMost time.Duration, fn Func[V]) (V, error) {
	return g.share(ctx, key, atMost, fn, true)
}

func (g *Keyed[K, V]) share(ctx context.Context, key K, atMost time.Duration, fn Func[V], after bool) (V, error) {
	var none V
	began := g.clock.Read()
	g.mu.Lock()
	seen := g.entry(key).started
	for {
		left := atMost - g.clock.Steady(began)
		e := g.entry(key)
		switch {
		case left <= 0:
			g.mu.Unlock()
			return none, ErrWaited
		case e.run != nil || !g.remembers(e):
		case after:
			g.mu.Unlock()
			return none, ErrRemembered
		default:
			defer g.mu.Unlock()
			return e.last.value, nil
		}
		r, err := g.join(ctx, e, fn)
		g.mu.Unlock()
		if err != nil {
			return none, err
		}
		v, err := r.wait(ctx, left)
		switch {
		case errors.Is(err, ErrWaited) || ctx.Err() != nil:
			return v, err
		case r.alone && err != nil: // which is its caller's
		case !after || r.number > seen:
			return v, err
		}
		g.mu.Lock()
	}
}

// Alone waits until no run of a key is under way, and then runs fn for this
// caller: others wait for its end. A good outcome answers them too. A failure is
// this caller's alone, and makes no pause. Otherwise it is as After.
func (g *Keyed[K, V]) Alone(ctx context.Context, key K, atMost time.Duration, fn Func[V]) (V, error) {
	var none V
	began := g.clock.Read()
	for {
		left := atMost - g.clock.Steady(began)
		if left <= 0 {
			return none, ErrWaited
		}
		g.mu.Lock()
		e := g.entry(key)
		before := e.run
		if before == nil && g.remembers(e) {
			g.mu.Unlock()
			return none, ErrRemembered
		}
		r, err := g.join(ctx, e, fn)
		if err == nil && before == nil {
			r.alone = true
		}
		g.mu.Unlock()
		if err != nil {
			return none, err
		}
		v, err := r.wait(ctx, left)
		switch {
		case before == nil:
			return v, err
		case ctx.Err() != nil:
			return none, ctx.Err()
		}
	}
}

// Last follows what is remembered from key to key, each made by next of the value
// before it, and returns the last value. From then on that is remembered of all
// keys on the way, for as long as what it replaces. ok is false if nothing is
// remembered of the first key.
func (g *Keyed[K, V]) Last(key K, next func(V) K) (last V, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var way []*keyedEntry[V]
	for len(way) < len(g.entries) {
		e := g.entries[key]
		if e == nil || !g.remembers(e) {
			break
		}
		way = append(way, e)
		last = e.last.value
		key = next(last)
	}
	for _, e := range way {
		e.last.value = last
	}
	return last, len(way) > 0
}

// Runs returns how many runs are under way, and how many were abandoned and have
// not returned.
func (g *Keyed[K, V]) Runs() (running, abandoned int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, g.abandoned
}

// Kept returns of how many keys something is remembered.
func (g *Keyed[K, V]) Kept() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.entries)
}

// entry returns what is known of a key, making room for it. g.mu is held, as for
// all that follow.
func (g *Keyed[K, V]) entry(key K) *keyedEntry[V] {
	if e := g.entries[key]; e != nil {
		return e
	}
	if len(g.entries) >= g.cfg.MaxKept || g.clock.Age(g.swept) > time.Minute {
		g.sweep()
	}
	e := new(keyedEntry[V])
	g.entries[key] = e
	return e
}

// sweep forgets what is of no more use, and more than that if it has to.
func (g *Keyed[K, V]) sweep() {
	g.swept = g.clock.Read()
	for key, e := range g.entries {
		if e.idle() && g.clock.Age(e.ended) >= max(e.last.keep, e.paused) {
			delete(g.entries, key)
		}
	}
	if len(g.entries) < g.cfg.MaxKept {
		return
	}
	for key, e := range g.entries {
		if len(g.entries) <= g.cfg.MaxKept/2 {
			return
		}
		if e.idle() {
			delete(g.entries, key)
		}
	}
}

func (e *keyedEntry[V]) idle() bool { return e.run == nil && e.abandoned == 0 }

// remembers reports whether the last outcome of a key still answers.
func (g *Keyed[K, V]) remembers(e *keyedEntry[V]) bool { return g.clock.Age(e.ended) < e.last.keep }

// join returns the run of a key that is under way, or starts one.
func (g *Keyed[K, V]) join(ctx context.Context, e *keyedEntry[V], fn Func[V]) (*keyedRun[V], error) {
	switch {
	case e.run != nil:
		return e.run, nil
	case e.last.err != nil && g.clock.Age(e.ended) < e.paused:
		return nil, e.last.err
	case e.abandoned >= maxAbandoned, g.abandoned >= 2*g.cfg.MaxRuns:
		return nil, ErrStuck
	case g.running >= g.cfg.MaxRuns:
		return nil, ErrBusy
	case g.late >= maxAbandoned && (g.running > 0 || g.clock.Age(g.lateAt) < g.cfg.MaxPause):
		return nil, ErrStuck
	}
	e.started++
	r := &keyedRun[V]{number: e.started, done: make(chan struct{})}
	e.run = r
	g.running++
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.Limit)
	limit := time.AfterFunc(g.cfg.Limit, func() { g.end(e, r, keyedOutcome[V]{err: ErrLate}, false) })
	go func() {
		o := keyedOutcome[V]{err: ErrPanic}
		defer func() {
			_ = recover() // its value is dropped on purpose: see ErrPanic
			limit.Stop()
			cancel()
			g.end(e, r, o, true)
		}()
		o.value, o.keep, o.err = fn(ctx)
	}()
	return r, nil
}

// keyedOutcome is what a function returned.
type keyedOutcome[V any] struct {
	value V
	keep  time.Duration
	err   error
}

// end records an outcome: the function's, or that the run is late.
func (g *Keyed[K, V]) end(e *keyedEntry[V], r *keyedRun[V], o keyedOutcome[V], returned bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.over {
		if returned {
			e.abandoned--
			g.abandoned--
			g.late = 0
		}
		return
	}
	if o.err != nil {
		o = keyedOutcome[V]{err: o.err}
	}
	now := g.clock.Read()
	r.over, r.outcome = true, o
	e.run = nil
	g.running--
	if returned {
		g.late = 0
	} else {
		e.abandoned++
		g.abandoned++
		g.late++
		g.lateAt = now
	}
	switch {
	case o.err == nil:
		e.ended, e.last = now, o
		e.fails, e.paused = 0, 0
	case !r.alone:
		e.ended, e.last = now, o
		e.paused = pauseAfter(e.fails, g.cfg.Pause, g.cfg.MaxPause)
		e.fails++
	}
	close(r.done)
}

// wait returns the outcome of the run. One that is there wins over a context
// that has ended too.
func (r *keyedRun[V]) wait(ctx context.Context, atMost time.Duration) (V, error) {
	var none V
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-r.done:
	default:
		select {
		case <-r.done:
		case <-t.C:
			return none, ErrWaited
		case <-ctx.Done():
			return none, ctx.Err()
		}
	}
	return r.outcome.value, r.outcome.err
}
