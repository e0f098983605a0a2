package flight_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/flight"
)

var errKeyed = errors.New("down")

func newKeyed() *flight.Keyed[int, string] {
	return flight.NewKeyed[int, string](flight.KeyedConfig{
		Limit: 5 * time.Second, Pause: time.Second, MaxPause: 8 * time.Second, MaxRuns: 20, MaxKept: 100,
	})
}

func brings(v string, keep time.Duration) flight.Func[string] {
	return func(context.Context) (string, time.Duration, error) { return v, keep, nil }
}

func fails(n *int) flight.Func[string] {
	return func(context.Context) (string, time.Duration, error) { *n++; return "x", time.Hour, errKeyed }
}

func TestKeyedRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		do := func(key int, f flight.Func[string]) string {
			v, err := g.Do(t.Context(), key, time.Second, f)
			require.NoError(t, err)
			return v
		}
		require.Equal(t, "a", do(1, brings("a", time.Minute)))
		require.Equal(t, "a", do(1, brings("b", time.Minute)), "remembered")
		require.Equal(t, "c", do(2, brings("c", 0)), "another key")
		require.Equal(t, "d", do(2, brings("d", 0)), "not remembered")
		_, err := g.After(t.Context(), 1, time.Second, brings("e", time.Minute))
		require.ErrorIs(t, err, flight.ErrRemembered)
		_, err = g.Alone(t.Context(), 1, time.Second, brings("e", time.Minute))
		require.ErrorIs(t, err, flight.ErrRemembered)
		require.Equal(t, "a", do(1, brings("f", time.Minute)), "still")
		v, err := g.After(t.Context(), 2, time.Second, brings("e", time.Minute))
		require.NoError(t, err)
		require.Equal(t, "e", v)
		require.Equal(t, "e", do(2, brings("f", time.Minute)))
		time.Sleep(time.Minute)
		require.Equal(t, "g", do(1, brings("g", time.Minute)), "for as long as it says")
	})
}

// After does not take a run that began before it.
func TestKeyedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		slow := func(context.Context) (string, time.Duration, error) {
			time.Sleep(time.Second)
			return "old", time.Hour, nil
		}
		unkept := func(context.Context) (string, time.Duration, error) {
			time.Sleep(time.Second)
			return "old", 0, nil
		}
		go func() { _, _ = g.Do(t.Context(), 1, time.Minute, slow) }()
		synctest.Wait()
		_, err := g.After(t.Context(), 1, 500*time.Millisecond, brings("new", 0))
		require.ErrorIs(t, err, flight.ErrWaited)
		_, err = g.After(t.Context(), 1, time.Minute, brings("new", time.Hour))
		require.ErrorIs(t, err, flight.ErrRemembered, "of the run under way at the call")

		go func() { _, _ = g.Do(t.Context(), 2, time.Minute, unkept) }()
		synctest.Wait()
		v, err := g.After(t.Context(), 2, time.Minute, brings("new", time.Hour))
		require.NoError(t, err)
		require.Equal(t, "new", v)
		v, err = g.Do(t.Context(), 2, time.Minute, slow)
		require.NoError(t, err)
		require.Equal(t, "new", v)
	})
}

func TestKeyedShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		var runs atomic.Int64
		type key struct{}
		slow := func(ctx context.Context) (string, time.Duration, error) {
			runs.Add(1)
			time.Sleep(time.Second)
			return ctx.Value(key{}).(string), 0, ctx.Err()
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), 500*time.Millisecond)
				defer cancel()
				_, err := g.Do(ctx, 1, time.Minute, slow)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				v, err := g.Do(t.Context(), 1, 200*time.Millisecond, slow)
				if !errors.Is(err, flight.ErrWaited) {
					t.Error(v, err)
				}
			})
		}
		time.Sleep(900 * time.Millisecond)
		v, err := g.Do(t.Context(), 1, time.Minute, slow)
		require.NoError(t, err)
		require.Equal(t, "value", v, "the values of the first caller's context, and not its end")
		wg.Wait()
		require.EqualValues(t, 1, runs.Load())
	})
}

// After a failure a key has a pause that grows; other keys have none.
func TestKeyedPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		n := 0
		for range 3600 {
			_, err := g.Do(t.Context(), 1, time.Second, fails(&n))
			require.ErrorIs(t, err, errKeyed)
			time.Sleep(100 * time.Millisecond)
		}
		require.GreaterOrEqual(t, n, 36, "at most 10 s apart")
		require.LessOrEqual(t, n, 50)
		v, err := g.Do(t.Context(), 2, time.Second, brings("a", 0))
		require.NoError(t, err)
		require.Equal(t, "a", v)
		time.Sleep(10 * time.Second)
		_, err = g.Do(t.Context(), 1, time.Second, brings("a", 0))
		require.NoError(t, err)
		before := n
		for range 11 {
			_, _ = g.Do(t.Context(), 1, time.Second, fails(&n))
			time.Sleep(100 * time.Millisecond)
		}
		require.LessOrEqual(t, n-before, 2, "the first pause again")
		require.GreaterOrEqual(t, n-before, 1)
	})
}

func TestKeyedPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		_, err := g.Do(t.Context(), 1, time.Second, func(context.Context) (string, time.Duration, error) { panic("secret") })
		require.ErrorIs(t, err, flight.ErrPanic)
		require.NotContains(t, err.Error(), "secret")
	})
}

// What hangs is bounded, for a key and in all; when the far side is well again,
// keys go on though what hung never returns.
func TestKeyedHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		release := make(chan struct{})
		var hanging atomic.Int64
		hang := func(context.Context) (string, time.Duration, error) {
			hanging.Add(1)
			defer hanging.Add(-1)
			<-release
			return "late", time.Hour, nil
		}
		busy := 0
		for key := range 30 {
			_, err := g.Do(t.Context(), key, time.Nanosecond, hang)
			if errors.Is(err, flight.ErrBusy) {
				busy++
				continue
			}
			require.ErrorIs(t, err, flight.ErrWaited)
		}
		require.Equal(t, 10, busy, "20 at once")
		began := time.Now()
		_, err := g.Do(t.Context(), 0, time.Hour, hang)
		require.ErrorIs(t, err, flight.ErrLate)
		require.Equal(t, 5*time.Second, time.Since(began).Round(time.Second), "the limit, for all that wait")
		time.Sleep(time.Second)
		_, abandoned := g.Runs()
		require.Equal(t, 20, abandoned)
		for i := range 3000 {
			_, _ = g.Do(t.Context(), i%30, time.Nanosecond, hang)
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, hanging.Load(), int64(40))
		require.Greater(t, hanging.Load(), int64(20))

		g = newKeyed()
		for range 3 {
			_, err := g.Do(t.Context(), 1, time.Hour, hang)
			require.ErrorIs(t, err, flight.ErrLate)
			time.Sleep(20 * time.Second)
		}
		_, err = g.Do(t.Context(), 1, time.Hour, hang)
		require.ErrorIs(t, err, flight.ErrStuck, "three of one key")
		v, err := g.Do(t.Context(), 2, time.Hour, brings("well", 0))
		require.NoError(t, err)
		require.Equal(t, "well", v)
		close(release)
		synctest.Wait()
		v, err = g.Do(t.Context(), 1, time.Hour, brings("well", 0))
		require.NoError(t, err)
		require.Equal(t, "well", v, "what came too late is dropped")
		time.Sleep(10 * time.Second)
	})
}

func TestKeyedForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		runs := 0
		count := func(context.Context) (string, time.Duration, error) { runs++; return "a", time.Hour, nil }
		for key := range 1000 {
			_, err := g.Do(t.Context(), key, time.Second, count)
			require.NoError(t, err)
		}
		require.LessOrEqual(t, g.Kept(), 100)
		before := runs
		_, err := g.Do(t.Context(), 999, time.Second, count)
		require.NoError(t, err)
		require.Equal(t, before, runs, "the newest is there")
		time.Sleep(2 * time.Hour)
		_, err = g.Do(t.Context(), 5000, time.Second, count)
		require.NoError(t, err)
		require.Equal(t, 1, g.Kept(), "what is over goes")
	})
}

// The failure of a run that is one caller's alone is not others', makes no pause
// and forgets nothing; its good outcome is shared.
func TestKeyedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		after := func(v string, err error) flight.Func[string] {
			return func(context.Context) (string, time.Duration, error) {
				time.Sleep(time.Second)
				return v, time.Minute, err
			}
		}
		alone := make(chan error, 1)
		go func() {
			_, err := g.Alone(t.Context(), 1, time.Minute, after("a", errKeyed))
			alone <- err
		}()
		synctest.Wait()
		_, err := g.Do(t.Context(), 1, 500*time.Millisecond, brings("b", time.Minute))
		require.ErrorIs(t, err, flight.ErrWaited)
		v, err := g.Do(t.Context(), 1, time.Minute, brings("b", time.Minute))
		require.NoError(t, err)
		require.Equal(t, "b", v, "at once: there is no pause")
		require.ErrorIs(t, <-alone, errKeyed)

		var order []string
		var wg sync.WaitGroup
		for _, name := range []string{"first", "second"} {
			wg.Go(func() {
				v, err := g.Alone(t.Context(), 2, time.Minute, func(context.Context) (string, time.Duration, error) {
					order = append(order, name) // the race detector would notice two at once
					time.Sleep(time.Second)
					return name, 0, nil
				})
				if v != name || err != nil {
					t.Error(name, v, err)
				}
			})
			synctest.Wait()
		}
		v, err = g.Do(t.Context(), 2, time.Minute, brings("c", 0))
		require.NoError(t, err)
		require.Equal(t, "first", v, "shared")
		wg.Wait()
		require.Equal(t, []string{"first", "second"}, order)

		go func() { _, _ = g.Do(t.Context(), 3, time.Minute, after("d", nil)) }()
		synctest.Wait()
		_, err = g.Alone(t.Context(), 3, time.Minute, brings("e", 0))
		require.ErrorIs(t, err, flight.ErrRemembered, "of the run that it waited for")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		go func() { _, _ = g.Do(t.Context(), 4, time.Minute, after("d", nil)) }()
		synctest.Wait()
		_, err = g.Alone(ctx, 4, time.Minute, brings("e", 0))
		require.ErrorIs(t, err, context.Canceled)
		_, err = g.Alone(t.Context(), 4, 500*time.Millisecond, brings("e", 0))
		require.ErrorIs(t, err, flight.ErrWaited)
		n := 0
		_, err = g.Do(t.Context(), 5, time.Minute, fails(&n))
		require.ErrorIs(t, err, errKeyed)
		_, err = g.Alone(t.Context(), 5, time.Minute, brings("f", 0))
		require.ErrorIs(t, err, errKeyed, "in the pause of others")
		time.Sleep(time.Minute)
	})
}

// A hung run that is one caller's alone holds up others of its key for its limit.
func TestKeyedAloneHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newKeyed()
		release := make(chan struct{})
		go func() {
			_, _ = g.Alone(t.Context(), 1, time.Minute, func(context.Context) (string, time.Duration, error) {
				<-release
				return "late", time.Minute, nil
			})
		}()
		synctest.Wait()
		began := time.Now()
		v, err := g.Do(t.Context(), 1, time.Minute, brings("a", time.Minute))
		require.NoError(t, err)
		require.Equal(t, "a", v)
		require.Equal(t, 5*time.Second, time.Since(began))
		close(release)
		synctest.Wait()
		v, err = g.Do(t.Context(), 1, time.Minute, brings("b", 0))
		require.NoError(t, err)
		require.Equal(t, "a", v, "what comes late is dropped")
	})
}

// Last leads to the newest value, and remembers it for all before it.
func TestKeyedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := flight.NewKeyed[string, string](flight.KeyedConfig{Limit: time.Second, Pause: time.Second, MaxPause: time.Second, MaxRuns: 20, MaxKept: 100})
		same := func(v string) string { return v }
		link := func(from, to string, keep time.Duration) {
			_, err := g.Do(t.Context(), from, time.Second, brings(to, keep))
			require.NoError(t, err)
		}
		_, ok := g.Last("a", same)
		require.False(t, ok)
		link("a", "b", time.Minute)
		link("b", "c", time.Second)
		link("c", "d", time.Hour)
		v, ok := g.Last("a", same)
		require.True(t, ok)
		require.Equal(t, "d", v)
		time.Sleep(time.Second) // b leads nowhere any more
		v, err := g.Do(t.Context(), "a", time.Second, brings("x", 0))
		require.NoError(t, err)
		require.Equal(t, "d", v)
		_, ok = g.Last("b", same)
		require.False(t, ok)
		time.Sleep(59 * time.Second)
		_, ok = g.Last("a", same)
		require.False(t, ok, "no longer than it was")
		link("e", "e", time.Hour)
		v, ok = g.Last("e", same)
		require.True(t, ok && v == "e", "a circle ends")
	})
}
