package flight_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/flight"
)

const (
	timeout  = 5 * time.Second
	cooldown = 30 * time.Second
)

var errDown = errors.New("down")

// counter is a function that takes a second and ends with what outcome returns for its nth run.
type counter struct {
	runs    atomic.Int32
	outcome func(n int32) error
}

func (c *counter) fn(ctx context.Context) error {
	n := c.runs.Add(1)
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.outcome == nil {
		return nil
	}
	return c.outcome(n)
}

func TestCallersShareARun(t *testing.T) {
	tests := []struct {
		name string
		call func(*flight.Group, context.Context) error
	}{
		{"Do", func(g *flight.Group, ctx context.Context) error { return g.Do(ctx) }},
		{"Try", func(g *flight.Group, ctx context.Context) error {
			started, err := g.Try(ctx)
			if !started {
				return errors.New("not started")
			}
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counter{outcome: func(int32) error { return errDown }}
				g := flight.New(timeout, cooldown, c.fn)
				var shared atomic.Int32
				var wg sync.WaitGroup
				for range 1000 {
					wg.Go(func() {
						if errors.Is(tt.call(g, t.Context()), errDown) {
							shared.Add(1)
						}
					})
				}
				wg.Wait()
				require.EqualValues(t, 1, c.runs.Load())
				require.EqualValues(t, 1000, shared.Load())
			})
		})
	}
}

func TestTryKeepsTheCooldownHoweverTheRunEnded(t *testing.T) {
	tests := []struct {
		name    string
		outcome func(int32) error
		want    error
	}{
		{"success", func(int32) error { return nil }, nil},
		{"failure", func(int32) error { return errDown }, errDown},
		{"panic", func(int32) error { panic("secret") }, flight.ErrPanic},
		{"exit of the goroutine", func(int32) error { runtime.Goexit(); return nil }, flight.ErrPanic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counter{outcome: tt.outcome}
				g := flight.New(timeout, cooldown, c.fn)

				started, err := g.Try(t.Context())
				require.True(t, started)
				require.ErrorIs(t, err, tt.want)

				time.Sleep(cooldown - time.Second - 1) // the run took a second
				started, err = g.Try(t.Context())
				require.False(t, started)
				require.ErrorIs(t, err, tt.want)
				require.EqualValues(t, 1, c.runs.Load())

				time.Sleep(time.Nanosecond)
				started, err = g.Try(t.Context())
				require.True(t, started)
				require.ErrorIs(t, err, tt.want)
				require.EqualValues(t, 2, c.runs.Load())
			})
		})
	}
}

func TestPanicDoesNotTell(t *testing.T) {
	g := flight.New(timeout, 0, func(context.Context) error { panic("secret") })
	err := g.Do(t.Context())
	require.ErrorIs(t, err, flight.ErrPanic)
	require.NotContains(t, err.Error(), "secret")
}

func TestDoIgnoresTheCooldownAndStartsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		g := flight.New(timeout, cooldown, c.fn)
		require.NoError(t, g.Do(t.Context()))
		require.NoError(t, g.Do(t.Context()))
		require.EqualValues(t, 2, c.runs.Load())

		started, err := g.Try(t.Context())
		require.False(t, started)
		require.NoError(t, err)
		g.Go()
		synctest.Wait()
		require.EqualValues(t, 2, c.runs.Load())
	})
}

func TestACallerThatGivesUpDoesNotFailTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		g := flight.New(timeout, cooldown, c.fn)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { first <- g.Do(ctx) }()
		synctest.Wait()
		second := make(chan error, 1)
		go func() { second <- g.Do(t.Context()) }()
		synctest.Wait()

		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		require.NoError(t, <-second)
		require.EqualValues(t, 1, c.runs.Load())
	})
}

func TestARunEndsAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.New(timeout, cooldown, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		begin := time.Now()
		require.ErrorIs(t, g.Do(t.Context()), context.DeadlineExceeded)
		require.Equal(t, timeout, time.Since(begin))
	})
}

func TestNoTimeoutAndNoCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		g := flight.New(0, 0, c.fn)
		for range 3 {
			started, err := g.Try(t.Context())
			require.True(t, started)
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, c.runs.Load())
	})
}

func TestGoNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		g := flight.New(timeout, cooldown, c.fn)
		begin := time.Now()
		for range 100 {
			g.Go()
		}
		require.Zero(t, time.Since(begin))
		started, err := g.Try(t.Context()) // joins
		require.True(t, started)
		require.NoError(t, err)
		require.EqualValues(t, 1, c.runs.Load())

		time.Sleep(cooldown)
		g.Go()
		synctest.Wait()
		require.EqualValues(t, 2, c.runs.Load())
		time.Sleep(time.Second) // let the run end with the bubble
	})
}

// TestOneRunAtATime leaves the fake clock out: goroutines race for real.
func TestOneRunAtATime(t *testing.T) {
	var running, runs atomic.Int32
	g := flight.New(timeout, 0, func(context.Context) error {
		if running.Add(1) != 1 {
			return errors.New("two runs at a time")
		}
		defer running.Add(-1)
		if runs.Add(1)%5 == 0 {
			panic("secret")
		}
		runtime.Gosched()
		return nil
	})
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			for range 500 {
				var err error
				switch i % 3 {
				case 0:
					err = g.Do(t.Context())
				case 1:
					_, err = g.Try(t.Context())
				case 2:
					g.Go()
				}
				if err != nil && !errors.Is(err, flight.ErrPanic) {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
}
