package flight

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

var (
	// ErrBusy means that MaxRuns runs are under way.
	ErrBusy = errors.New("flight: too many runs are under way")
	// ErrRemembered means that a result of the key is remembered.
	ErrRemembered = errors.New("flight: something is remembered of the key")
)

// KeyedConfig says how a [Keyed] runs its functions.
type KeyedConfig struct {
	// Limit is how long a run may take. Required.
	Limit time.Duration
	// Pause is how long after a failed run of a key no other one of that key
	// starts. It doubles with each further failure, up to MaxPause, and is
	// lengthened at random by up to a quarter. Required.
	Pause, MaxPause time.Duration
	// MaxRuns is how many runs of all keys are under way at once. Up to twice
	// as many abandoned ones may hang. Required.
	MaxRuns int
	// MaxKept is how many results are remembered. Required.
	MaxKept int
}

// Keyed is a [Group] for each of many keys, with limits for all of them
// together. A successful result is remembered for as long as its function
// returns, and further callers of the key get it.
//
// After three runs in a row have passed their limit, of any keys, only one run
// at a time is started, with a pause in between, until one of those runs
// returns. A function that heeds its context returns at its limit: it delays
// its own key and no other.
//
// It is safe for concurrent use. Make it with [NewKeyed]; it must not be
// copied.
type Keyed[K comparable, V any] struct {
	cfg   KeyedConfig
	clock *clock.Clock

	mu        sync.Mutex
	entries   map[K]*keyedEntry[V]
	swept     clock.Instant
	running   int           // under way
	abandoned int           // past their limit, and not returned yet
	late      int           // runs that passed their limit since one returned
	lateAt    clock.Instant // when the last one did
}

// keyedEntry is the state of one key. Keyed.mu guards it.
type keyedEntry[V any] struct {
	run       *keyedRun[V] // under way, or nil
	started   uint64
	abandoned int

	last   keyedOutcome[V] // of the last shared run
	ended  clock.Instant
	fails  int           // in a row
	paused time.Duration // after it, if it failed
}

type keyedRun[V any] struct {
	number  uint64
	alone   bool // other callers do not get its failure
	over    bool // it has a result; Keyed.mu
	done    chan struct{}
	outcome keyedOutcome[V] // set before done is closed
}

// NewKeyed returns an empty Keyed.
func NewKeyed[K comparable, V any](cfg KeyedConfig) *Keyed[K, V] {
	return &Keyed[K, V]{cfg: cfg, clock: clock.Here(), entries: map[K]*keyedEntry[V]{}}
}

// Func is the function of a run. It returns a value and how long that is
// remembered; 0 means not at all.
type Func[V any] func(ctx context.Context) (value V, keep time.Duration, err error)

// Do returns, in this order: the remembered value of a key; the result of the
// run of the key that is under way; the result of a run of fn, which it starts.
// It waits until ctx ends and for at most atMost. A caller that gives up, with
// [ErrWaited] or ctx's error, does not cancel the run. In the pause after a
// failed run it returns the error of that run at once.
//
// The context of fn has the values of ctx and ends with the limit.
func (g *Keyed[K, V]) Do(ctx context.Context, key K, atMost time.Duration, fn Func[V]) (V, error) {
	return g.share(ctx, key, atMost, fn, false)
}

// After is Do with a run that begins after the call. If a result of the key is
// remembered when that run would start, After returns [ErrRemembered].
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
		case r.alone && err != nil: // only its own caller gets that
		case !after || r.number > seen:
			return v, err
		}
		g.mu.Lock()
	}
}

// Alone waits until no run of a key is under way, and then runs fn while other
// callers of the key wait. They get a successful result too. Only this caller
// gets a failure, which causes no pause. Otherwise it does as After does.
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

// Last follows remembered values: it reads the value of key, makes a key of it
// with next, and repeats that until no value is remembered. It returns the last
// value, which is then remembered for all those keys, each for as long as the
// value that it replaces. ok is false if no value of the first key is
// remembered.
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

// Runs returns how many runs are under way, and how many abandoned ones hang.
func (g *Keyed[K, V]) Runs() (running, abandoned int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running, g.abandoned
}

// Kept returns how many keys have an entry.
func (g *Keyed[K, V]) Kept() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.entries)
}

// entry returns the entry of a key. It makes one if there is none. g.mu is
// held, as for all that follow.
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

// sweep drops entries that are no longer used. If there are still too many, it
// drops others.
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

// remembers reports whether the last result of a key is remembered.
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

// keyedOutcome is the result of a run.
type keyedOutcome[V any] struct {
	value V
	keep  time.Duration
	err   error
}

// end records the result of a run: that of the function, or ErrLate.
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

// wait returns the result of the run. If there is one, it is returned even if
// the context has ended.
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
