package tally_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/tally"
)

// object is of the size of what is counted most.
type object struct {
	_ *object
	_ [192]byte
}

func TestCounterConcurrently(t *testing.T) {
	const each = 10_000
	var c tally.Counter
	require.Zero(t, c.Load())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			before := c.Load()
			for range each {
				c.Add(new(object))
			}
			if c.Load() < before+each {
				t.Error("it went back")
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 4*each, c.Load())
}

func TestCounterAllocatesNothing(t *testing.T) {
	var c tally.Counter
	o := new(object)
	require.Zero(t, testing.AllocsPerRun(100, func() { c.Add(o) }))
}

func TestRuns(t *testing.T) {
	var r tally.Runs
	err := errors.New("no")
	f := r.Of(func(context.Context) error { return err })
	require.ErrorIs(t, f(t.Context()), err)
	err = nil
	require.NoError(t, f(t.Context()))
	require.NoError(t, f(t.Context()))
	require.Panics(t, func() { _ = r.Of(func(context.Context) error { panic("no") })(t.Context()) })
	ended, failed := r.Load()
	require.EqualValues(t, 4, ended)
	require.EqualValues(t, 2, failed)
}

// BenchmarkAdd shows with -cpu 1,2 what counting adds to an allocation.
func BenchmarkAdd(b *testing.B) {
	var striped tally.Counter
	var single atomic.Uint64
	for _, c := range []struct {
		name string
		add  func(*object)
	}{
		{"nothing", func(o *object) { escaped(o) }},
		{"single", func(o *object) { escaped(o); single.Add(1) }},
		{"striped", func(o *object) { striped.Add(o) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.add(new(object))
				}
			})
		})
	}
}

//go:noinline
func escaped(*object) {}
