// Package tally counts frequent events, which many cores report at once.
package tally

import (
	"context"
	"reflect"
	"sync/atomic"
)

// stripes is how many stripes a Counter has, a power of two.
const stripes = 8

// Counter counts events that many cores report at once. With one atomic number,
// they would wait for one cache line. A Counter has several, and a core mostly
// uses one of them. Its zero value is ready for use; it must not be copied.
type Counter struct{ stripes [stripes]stripe }

// stripe fills two cache lines, since some processors fetch two adjacent lines at
// once.
type stripe struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

// Add counts one event. fresh is a pointer to memory that the caller has just
// allocated. Its address chooses the stripe: each core allocates from 8 KB of
// its own until they are used up, so that a core mostly uses one stripe. A
// random stripe would cost twice as much, and often be on a line that another
// core wrote last.
func (c *Counter) Add(fresh any) {
	c.stripes[reflect.ValueOf(fresh).Pointer()>>13%stripes].n.Add(1)
}

// Load returns how many events were counted. It never decreases.
func (c *Counter) Load() (sum uint64) {
	for i := range c.stripes {
		sum += c.stripes[i].n.Load()
	}
	return sum
}

// Runs counts how often a function was run, and how often it failed. Its zero
// value is ready for use; it must not be copied.
type Runs struct{ ended, failed atomic.Uint64 }

// Of returns f with counting: a run is counted when it has ended. One that
// panics has failed.
func (r *Runs) Of(f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		failed := true
		defer func() {
			r.ended.Add(1)
			if failed {
				r.failed.Add(1)
			}
		}()
		err := f(ctx)
		failed = err != nil
		return err
	}
}

// Load returns how many runs have ended, and how many of those have failed.
func (r *Runs) Load() (ended, failed uint64) {
	failed = r.failed.Load() // first: it is never more than those that ended
	return r.ended.Load(), failed
}
