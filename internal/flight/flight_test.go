package flight_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

const (
	limit    = 5 * time.Second
	cooldown = 30 * time.Second
)

var errDown = errors.New("down")

// held is a group with a limit and a cooldown.
var held = flight.Config{Limit: limit, Cooldown: cooldown}

// counter is a function that takes a second and ends with what outcome returns for its nth run.
type counter struct {
	runs    atomic.Int32
	outcome func(n int32) error
}

func (c *counter) fn(ctx context.Context, _ *flight.Run) error {
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

// deaf is a function that ignores its context and returns when it is released.
type deaf struct {
	release chan struct{}
	runs    atomic.Int32
}

func newDeaf() *deaf { return &deaf{release: make(chan struct{})} }

func (d *deaf) fn(context.Context, *flight.Run) error {
	d.runs.Add(1)
	<-d.release
	return nil
}

func TestCallersShareARun(t *testing.T) {
	tests := []struct {
		name string
		call func(*flight.Group, context.Context) error
	}{
		{"Do", func(g *flight.Group, ctx context.Context) error { return g.Do(ctx, 0) }},
		{"Try", func(g *flight.Group, ctx context.Context) error {
			started, err := g.Try(ctx, 0)
			if !started {
				return errors.New("not started")
			}
			return err
		}},
		{"After", func(g *flight.Group, ctx context.Context) error { return g.After(ctx, 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counter{outcome: func(int32) error { return errDown }}
				g := flight.New(held, c.fn)
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
				g := flight.New(held, c.fn)

				started, err := g.Try(t.Context(), 0)
				require.True(t, started)
				require.ErrorIs(t, err, tt.want)

				time.Sleep(cooldown - time.Second - 1) // the run took a second
				started, err = g.Try(t.Context(), 0)
				require.False(t, started)
				require.ErrorIs(t, err, tt.want)
				require.EqualValues(t, 1, c.runs.Load())

				time.Sleep(time.Nanosecond)
				started, err = g.Try(t.Context(), 0)
				require.True(t, started)
				require.ErrorIs(t, err, tt.want)
				require.EqualValues(t, 2, c.runs.Load())
			})
		})
	}
}

// A machine that was suspended, or whose clock was set, has no cooldown to keep.
func TestCooldownGoesByTheClockThatSaysMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := new(clock.Clock)
		c := &counter{}
		var g *flight.Group
		clock.As(machine, func() { g = flight.New(held, c.fn) })
		require.NoError(t, g.Do(t.Context(), 0))
		machine.SetAhead(8 * time.Hour)
		started, err := g.Try(t.Context(), 0)
		require.True(t, started)
		require.NoError(t, err)
		machine.SetAhead(-8 * time.Hour)
		started, err = g.Try(t.Context(), 0)
		require.False(t, started)
		require.NoError(t, err)
		time.Sleep(cooldown)
		started, err = g.Try(t.Context(), 0)
		require.True(t, started, "a clock that was set back holds nothing up")
		require.NoError(t, err)
	})
}

func TestPanicDoesNotTell(t *testing.T) {
	g := flight.New(flight.Config{Limit: limit}, func(context.Context, *flight.Run) error { panic("secret") })
	err := g.Do(t.Context(), 0)
	require.ErrorIs(t, err, flight.ErrPanic)
	require.NotContains(t, err.Error(), "secret")
}

func TestDoIgnoresTheCooldownAndStartsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		g := flight.New(held, c.fn)
		require.NoError(t, g.Do(t.Context(), 0))
		require.NoError(t, g.Do(t.Context(), 0))
		require.EqualValues(t, 2, c.runs.Load())

		started, err := g.Try(t.Context(), 0)
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
		g := flight.New(held, c.fn)
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error, 1)
		go func() { first <- g.Do(ctx, 0) }()
		synctest.Wait()
		second := make(chan error, 1)
		go func() { second <- g.Do(t.Context(), 0) }()
		synctest.Wait()

		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		require.NoError(t, <-second)
		require.EqualValues(t, 1, c.runs.Load())
	})
}

func TestACallerWaitsAtMostAsLongAsItSays(t *testing.T) {
	calls := map[string]func(*flight.Group, context.Context) error{
		"Do": func(g *flight.Group, ctx context.Context) error { return g.Do(ctx, 200*time.Millisecond) },
		"Try": func(g *flight.Group, ctx context.Context) error {
			_, err := g.Try(ctx, 200*time.Millisecond)
			return err
		},
		"After": func(g *flight.Group, ctx context.Context) error { return g.After(ctx, 200*time.Millisecond) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeaf()
				g := flight.New(held, d.fn)
				begin := time.Now()
				require.ErrorIs(t, call(g, t.Context()), flight.ErrWaited)
				require.Equal(t, 200*time.Millisecond, time.Since(begin))
				require.ErrorIs(t, call(g, t.Context()), flight.ErrWaited)
				require.Equal(t, 400*time.Millisecond, time.Since(begin))
				require.EqualValues(t, 1, d.runs.Load())
				close(d.release)
				require.NoError(t, call(g, t.Context()))
			})
		})
	}
}

func TestARunEndsAtItsLimit(t *testing.T) {
	functions := map[string]func(*deaf) func(context.Context, *flight.Run) error{
		"heeds its context": func(*deaf) func(context.Context, *flight.Run) error {
			return func(ctx context.Context, _ *flight.Run) error { <-ctx.Done(); return ctx.Err() }
		},
		"ignores its context": func(d *deaf) func(context.Context, *flight.Run) error { return d.fn },
	}
	for name, fn := range functions {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeaf()
				defer close(d.release)
				g := flight.New(flight.Config{Limit: limit}, fn(d))
				begin := time.Now()
				var wg sync.WaitGroup
				var late atomic.Int32
				for i := range 100 {
					wg.Go(func() {
						time.Sleep(time.Duration(i) * time.Millisecond)
						if errors.Is(g.Do(t.Context(), 0), flight.ErrLate) && time.Since(begin) == limit {
							late.Add(1)
						}
					})
				}
				wg.Wait()
				require.EqualValues(t, 100, late.Load(), "the run is late for all of its callers")
				pause, err := g.Failing()
				require.ErrorIs(t, err, flight.ErrLate)
				require.Zero(t, pause)
			})
		})
	}
}

func TestAbandonedRunsDoNotKeepThreeOthersFromStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeaf()
		var ended []error
		g := flight.New(flight.Config{Limit: limit, Ended: func(err error) { ended = append(ended, err) }}, d.fn)
		before := runtime.NumGoroutine()
		for range 3 {
			begin := time.Now()
			require.ErrorIs(t, g.Do(t.Context(), 0), flight.ErrLate)
			require.Equal(t, limit, time.Since(begin))
		}
		begin := time.Now()
		for range 100 {
			require.ErrorIs(t, g.Do(t.Context(), 0), flight.ErrStuck)
			require.ErrorIs(t, g.After(t.Context(), 0), flight.ErrStuck)
			started, err := g.Try(t.Context(), 0)
			require.False(t, started)
			require.ErrorIs(t, err, flight.ErrStuck)
			g.Go()
		}
		require.Zero(t, time.Since(begin), "at once")
		require.EqualValues(t, 3, d.runs.Load())
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine()-before, 13, "three, and what else the process does; not 100")
		require.Equal(t, []error{flight.ErrLate, flight.ErrLate, flight.ErrLate}, ended, "each outcome is told once")

		close(d.release)
		synctest.Wait()
		require.NoError(t, g.Do(t.Context(), 0))
		_, err := g.Failing()
		require.NoError(t, err)
		require.Len(t, ended, 4)
	})
}

func TestALateCommitIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		var value []int32
		committed := map[int32]bool{}
		g := flight.New(flight.Config{Limit: limit}, func(_ context.Context, r *flight.Run) error {
			n := n.Add(1)
			if n == 1 {
				time.Sleep(time.Minute) // whatever its context does
			}
			committed[n] = r.Commit(func() { value = append(value, n) })
			return nil
		})
		require.ErrorIs(t, g.Do(t.Context(), 0), flight.ErrLate)
		require.NoError(t, g.Do(t.Context(), 0))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []int32{2}, value, "what is newer stays")
		require.Equal(t, map[int32]bool{1: false, 2: true}, committed)
		_, err := g.Failing()
		require.NoError(t, err, "a run that was abandoned changes no outcome")
	})
}

func TestCommitGrantsTheLimitAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.New(flight.Config{Limit: limit}, func(_ context.Context, r *flight.Run) error {
			for range 10 {
				time.Sleep(limit - 1)
				if !r.Commit(func() {}) {
					return errors.New("not committed")
				}
			}
			time.Sleep(limit + 1)
			return nil
		})
		begin := time.Now()
		require.ErrorIs(t, g.Do(t.Context(), 0), flight.ErrLate)
		require.Equal(t, 11*limit-10, time.Since(begin))
		time.Sleep(time.Second)
	})
}

// A commit at the very moment of the limit is either refused or grants the limit.
func TestCommitAtTheLimit(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			var granted bool
			g := flight.New(flight.Config{Limit: limit}, func(_ context.Context, r *flight.Run) error {
				time.Sleep(limit)
				granted = r.Commit(func() {})
				time.Sleep(limit - 1)
				return nil
			})
			err := g.Do(t.Context(), 0)
			time.Sleep(limit)
			synctest.Wait()
			if granted {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, flight.ErrLate)
			}
		})
	}
}

func TestThePauseGrowsAndHasJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		fn := func(context.Context, *flight.Run) error {
			if down.Load() {
				return errDown
			}
			return nil
		}
		cfg := flight.Config{Limit: limit, Pause: time.Second, MaxPause: 30 * time.Second}
		g := flight.New(cfg, fn)
		seen := map[time.Duration]bool{}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			want *= time.Second
			started, err := g.Try(t.Context(), 0)
			require.True(t, started)
			require.ErrorIs(t, err, errDown)
			pause, err := g.Failing()
			require.ErrorIs(t, err, errDown)
			require.GreaterOrEqual(t, pause, want)
			require.LessOrEqual(t, pause, want*5/4)
			seen[pause-want] = true

			time.Sleep(pause - 1)
			started, err = g.Try(t.Context(), 0)
			require.False(t, started, "held to the pause")
			require.ErrorIs(t, err, errDown, "callers get the last error at once")
			require.ErrorIs(t, g.After(t.Context(), 0), errDown)
			time.Sleep(time.Nanosecond)
		}
		require.Greater(t, len(seen), 1, "jitter")
		require.ErrorIs(t, g.Do(t.Context(), 0), errDown, "Do ignores the pause")
		down.Store(false)
		require.NoError(t, g.Do(t.Context(), 0))
		pause, err := g.Failing()
		require.NoError(t, err)
		require.Zero(t, pause)
		down.Store(true)
		require.ErrorIs(t, g.Do(t.Context(), 0), errDown)
		pause, _ = g.Failing()
		require.LessOrEqual(t, pause, time.Second*5/4, "from the start again")
	})
}

func TestNoPauseOverflows(t *testing.T) {
	for _, cfg := range []flight.Config{
		{Limit: limit, Pause: 1, MaxPause: math.MaxInt64 / 2},
		{Limit: limit, Pause: 24 * time.Hour, MaxPause: 1000 * 24 * time.Hour},
		{Limit: limit, Pause: time.Second},
		{Limit: limit, MaxPause: time.Second},
	} {
		t.Run(fmt.Sprint(cfg.Pause, cfg.MaxPause), func(t *testing.T) {
			g := flight.New(cfg, func(context.Context, *flight.Run) error { return errDown })
			for range 100 {
				require.ErrorIs(t, g.Do(t.Context(), 0), errDown)
				pause, _ := g.Failing()
				require.GreaterOrEqual(t, pause, time.Duration(0))
			}
		})
	}
}

func TestAfterWaitsForARunThatBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began []time.Time
		var mu sync.Mutex
		g := flight.New(held, func(context.Context, *flight.Run) error {
			mu.Lock()
			began = append(began, time.Now())
			mu.Unlock()
			time.Sleep(time.Second)
			return nil
		})
		start := time.Now()
		g.Go()
		time.Sleep(500 * time.Millisecond)
		var wg sync.WaitGroup
		var wrong atomic.Int32
		for range 1000 {
			wg.Go(func() {
				if g.After(t.Context(), 0) != nil || time.Since(start) != 2*time.Second {
					wrong.Add(1)
				}
			})
		}
		wg.Wait()
		require.Zero(t, wrong.Load())
		require.Equal(t, []time.Time{start, start.Add(time.Second)}, began, "shared, whatever the cooldown is")
	})
}

func TestAfterAndTheRunBeforeIt(t *testing.T) {
	tests := []struct {
		name  string
		first error
		call  func(g *flight.Group, ctx context.Context) error
		want  error
		took  time.Duration
		runs  int32
	}{
		{"it fails", errDown, func(g *flight.Group, ctx context.Context) error { return g.After(ctx, 0) }, errDown, 500 * time.Millisecond, 1},
		{"the time is over before it ends", nil, func(g *flight.Group, ctx context.Context) error { return g.After(ctx, 400*time.Millisecond) }, flight.ErrWaited, 400 * time.Millisecond, 1},
		{"the time is over after it", nil, func(g *flight.Group, ctx context.Context) error { return g.After(ctx, 700*time.Millisecond) }, flight.ErrWaited, 700 * time.Millisecond, 2},
		{"the time is over with it", nil, func(g *flight.Group, ctx context.Context) error { return g.After(ctx, 500*time.Millisecond) }, flight.ErrWaited, 500 * time.Millisecond, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counter{outcome: func(n int32) error {
					if n == 1 {
						return tt.first
					}
					return nil
				}}
				g := flight.New(flight.Config{Limit: limit, Pause: time.Second}, c.fn)
				g.Go()
				time.Sleep(500 * time.Millisecond)
				begin := time.Now()
				require.ErrorIs(t, tt.call(g, t.Context()), tt.want)
				require.Equal(t, tt.took, time.Since(begin))
				synctest.Wait()
				require.Equal(t, tt.runs, c.runs.Load())
				time.Sleep(2 * time.Second)
			})
		})
	}
}

// A context that ends together with a run that began before the call must not
// make that run the answer.
func TestAfterIsNeverAnsweredByAnEarlierRun(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			g := flight.New(flight.Config{Limit: limit}, func(context.Context, *flight.Run) error {
				time.Sleep(time.Second)
				cancel()
				return nil
			})
			g.Go()
			synctest.Wait()
			require.ErrorIs(t, g.After(ctx, 0), context.Canceled)
			synctest.Wait()
		})
	}
}

func TestWhatIsThereWinsOverAContextThatHasEnded(t *testing.T) {
	g := flight.New(flight.Config{Limit: limit}, func(context.Context, *flight.Run) error { return nil })
	for range 1000 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Do(ctx, 0); err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
	}
	require.NoError(t, g.Do(t.Context(), 0))
}

func TestGoNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		g := flight.New(held, c.fn)
		begin := time.Now()
		for range 100 {
			g.Go()
		}
		require.Zero(t, time.Since(begin))
		started, err := g.Try(t.Context(), 0) // joins
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

func TestEndedIsToldInOrderBeforeTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{outcome: func(n int32) error { return fmt.Errorf("run %d", n) }}
		var told []string
		g := flight.New(flight.Config{Limit: limit, Ended: func(err error) { told = append(told, err.Error()) }}, c.fn)
		for n := range 10 {
			require.Error(t, g.Do(t.Context(), 0))
			require.Len(t, told, n+1)
			require.Equal(t, fmt.Sprintf("run %d", n+1), told[n])
		}
	})
}

// An Ended that hangs, as a logger on a full disk does, wedges nothing.
func TestAnEndedThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var told atomic.Int32
		var n atomic.Int32
		g := flight.New(flight.Config{Limit: limit, Ended: func(error) { <-release; told.Add(1) }},
			func(ctx context.Context, _ *flight.Run) error {
				if n.Add(1)%2 == 0 {
					<-ctx.Done() // also where the limit ends the run
				}
				return ctx.Err()
			})
		before := runtime.NumGoroutine()
		for i := range 200 {
			begin := time.Now()
			err := g.Do(t.Context(), 0)
			if i%2 == 0 {
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(begin), 100*time.Millisecond)
			} else {
				require.ErrorIs(t, err, flight.ErrLate)
				require.LessOrEqual(t, time.Since(begin), limit+100*time.Millisecond)
			}
		}
		synctest.Wait()
		require.LessOrEqual(t, runtime.NumGoroutine()-before, 10, "one, and what else the process does; not 200")
		close(release)
		synctest.Wait()
		require.EqualValues(t, 101, told.Load(), "the first, and up to 100 others")
		require.NoError(t, g.Do(t.Context(), 0))
		require.EqualValues(t, 102, told.Load())
	})
}

func TestAnEndedThatPanicsOrExits(t *testing.T) {
	for name, f := range map[string]func(){"panics": func() { panic("secret") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := 0
				c := &counter{}
				g := flight.New(flight.Config{Limit: limit, Ended: func(error) { told++; f() }}, c.fn)
				for range 10 {
					require.NoError(t, g.Do(t.Context(), 0))
				}
				synctest.Wait()
				require.Equal(t, 10, told)
			})
		})
	}
}

// Ended may ask the group.
func TestEndedMayUseTheGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{outcome: func(int32) error { return errDown }}
		var g *flight.Group
		g = flight.New(flight.Config{Limit: limit, Cooldown: cooldown, Ended: func(error) {
			_, err := g.Failing()
			if !errors.Is(err, errDown) {
				panic("no error")
			}
			g.Go()
		}}, c.fn)
		require.ErrorIs(t, g.Do(t.Context(), 0), errDown)
	})
}

// TestOneRunAtATime leaves the fake clock out: goroutines race for real.
func TestOneRunAtATime(t *testing.T) {
	var running, runs atomic.Int32
	ended := 0 // Ended is called by one goroutine at a time
	g := flight.New(flight.Config{Limit: time.Minute, Ended: func(error) { ended++ }}, func(_ context.Context, r *flight.Run) error {
		if running.Add(1) != 1 {
			return errors.New("two runs at a time")
		}
		defer running.Add(-1)
		if runs.Add(1)%5 == 0 {
			panic("secret")
		}
		if !r.Commit(runtime.Gosched) {
			return errors.New("no commit")
		}
		return nil
	})
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			for range 500 {
				var err error
				switch i % 4 {
				case 0:
					err = g.Do(t.Context(), time.Minute)
				case 1:
					_, err = g.Try(t.Context(), 0)
				case 2:
					g.Go()
				case 3:
					err = g.After(t.Context(), time.Minute)
				}
				if err != nil && !errors.Is(err, flight.ErrPanic) {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
	for g.Do(t.Context(), 0) != nil { // the last one told has been told
	}
	require.LessOrEqual(t, ended, int(runs.Load()))
}

// TestWanted: a run knows when After was last called before it began, and not of
// calls while it runs.
func TestWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(clock.Clock)
		var wanted []clock.Instant
		g := flight.New(flight.Config{Limit: time.Minute}, func(_ context.Context, r *flight.Run) error {
			wanted = append(wanted, r.Wanted())
			time.Sleep(time.Second)
			return nil
		})
		require.NoError(t, g.Do(t.Context(), 0))
		require.True(t, wanted[0].IsZero(), "nothing was wanted")
		go func() { _ = g.Do(t.Context(), 0) }()
		time.Sleep(100 * time.Millisecond)
		called := c.Read()
		require.NoError(t, g.After(t.Context(), 0))
		require.Len(t, wanted, 3)
		require.True(t, wanted[1].IsZero())
		require.Zero(t, clock.SteadyBetween(called, wanted[2]))
		time.Sleep(time.Hour)
		require.NoError(t, g.Do(t.Context(), 0))
		require.Equal(t, wanted[2], wanted[3], "which every later run can answer")
	})
}
