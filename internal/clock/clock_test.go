package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

func TestAgeIsTheLarger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(clock.Clock)
		at := c.Read()
		time.Sleep(time.Minute)
		require.Equal(t, time.Minute, c.Age(at))
		c.SetAhead(8 * time.Hour) // the machine was suspended, or its clock was set
		require.Equal(t, 8*time.Hour+time.Minute, c.Age(at))
		require.Equal(t, time.Minute, c.Steady(at))
		c.SetAhead(-8 * time.Hour)
		require.Equal(t, time.Minute, c.Age(at))
		require.Equal(t, time.Now().UTC().Add(-8*time.Hour), c.Now())
	})
}

func TestAs(t *testing.T) {
	other := new(clock.Clock)
	clock.As(other, func() { require.Same(t, other, clock.Here()) })
	require.NotSame(t, other, clock.Here())
}

func TestView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(clock.Clock)
		v := clock.NewView(c)
		_, ok := v.Now()
		require.False(t, ok)
		store := func() time.Time { return time.Now().UTC().Add(-time.Hour) }
		read := func(told time.Time) {
			asked := c.Read()
			time.Sleep(100 * time.Millisecond)
			v.Tell(told, asked, c.Read())
		}
		now := func() time.Time { n, ok := v.Now(); require.True(t, ok); return n }
		upper := func() time.Time { n, ok := v.Upper(); require.True(t, ok); return n }

		first := store()
		read(first)
		require.Equal(t, first, now())
		require.Equal(t, first.Add(100*time.Millisecond), upper())
		time.Sleep(time.Second)
		require.Equal(t, first.Add(time.Second), now())
		c.SetAhead(32 * 24 * time.Hour) // moves nothing
		require.Equal(t, first.Add(time.Second), now())
		require.Equal(t, first.Add(1100*time.Millisecond), upper())
		lower, ok := v.Lower() // a second ago, two right clocks were a millisecond less apart
		require.True(t, ok)
		require.Equal(t, now().Add(-time.Millisecond), lower)
		ahead, trip, _ := v.Offset()
		require.Equal(t, time.Hour+100*time.Millisecond, ahead)
		require.Equal(t, 100*time.Millisecond, trip)

		// A clock that is a little behind: Now stands still until it has caught up.
		before := now()
		read(store().Add(-120 * time.Millisecond))
		at := now()
		require.False(t, at.Before(before))
		time.Sleep(time.Millisecond)
		require.Equal(t, at, now())
		time.Sleep(time.Second)
		require.Equal(t, store().Add(-220*time.Millisecond), now())

		// A store that took over and is an hour behind: nobody notices.
		before = now()
		read(store().Add(-time.Hour))
		require.Equal(t, before.Add(100*time.Millisecond), now())
		time.Sleep(time.Minute)
		require.Equal(t, before.Add(time.Minute+100*time.Millisecond), now())

		// The newest entry is a floor.
		v.AtLeast(now().Add(5 * time.Second))
		at = now()
		time.Sleep(3 * time.Second)
		require.Equal(t, at, now())
		time.Sleep(3 * time.Second)
		require.Equal(t, at.Add(time.Second), now())
		require.False(t, upper().Before(now()))
	})
}
