// Package tally counts what happens often, from many cores at once.
package tally

import (
	"context"
	"reflect"
	"sync/atomic"
)

// stripes is how many parts a Counter has, a power of two.
const stripes = 8

// Counter counts events that many cores report at once. One atomic number would
// have them wait for one cache line; here there are several, and a core mostly
// keeps to one. Its zero value is ready for use; it must not be copied.
type Counter struct{ stripes [stripes]stripe }

// stripe is alone on its cache line, whose neighbour some processors fetch along
// with it, and keeps what is next to the counter off it.
type stripe struct {
	_ [64]byte
	n atomic.Uint64
	_ [56]byte
}

// Add counts one event. fresh is a pointer to what the caller has just allocated.
// It says which core that is, well enough: each of them allocates from 8 KB of
// memory of its own until they are used up. A random stripe would cost twice as
// much, and half of the time a line that the other core wrote last.
func (c *Counter) Add(fresh any) {
	c.stripes[reflect.ValueOf(fresh).Pointer()>>13%stripes].n.Add(1)
}

// Load returns how many events were counted. It never goes back.
func (c *Counter) Load() (sum uint64) {
	for i := range c.stripes {
		sum += c.stripes[i].n.Load()
	}
	return sum
}

// Runs counts how often a function was run, and how often it failed. Its zero
// value is ready for use; it must not be copied.
type Runs struct{ ended, failed atomic.Uint64 }

// Of returns the function, counted when it has ended. One that panics has failed.
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
