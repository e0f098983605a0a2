package keys_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
)

// timed is a store with a clock of its own, which is ahead of the right one.
type timed struct {
	shared
	ahead time.Duration
	trip  time.Duration
}

func (s *timed) Load(ctx context.Context, name string) (keys.Stored, error) {
	stored, err := s.shared.Load(ctx, name)
	stored.Time = time.Now().UTC().Add(s.ahead)
	time.Sleep(s.trip)
	return stored, err
}

func withTime(n *network) func(*keys.RingConfig) {
	return func(c *keys.RingConfig) { c.Store, c.SyncEvery = &timed{shared: shared{n}}, 10*time.Minute }
}

// onMachine makes a ring on a machine whose clock is ahead.
func onMachine(t *testing.T, n *network, ahead time.Duration, change ...func(*keys.RingConfig)) (r *keys.Ring, c *clock.Clock) {
	c = new(clock.Clock)
	c.SetAhead(ahead)
	clock.As(c, func() { r = newRing(t, n, append([]func(*keys.RingConfig){withTime(n)}, change...)...) })
	return r, c
}

// A machine whose clock disagrees with the store's changes no key, says so, and
// goes on reading, verifying and signing with what there is.
func TestClockThatDisagreesChangesNothing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ahead time.Duration
	}{
		{"32 days ahead", 32 * day}, {"26 h ahead", 26 * time.Hour}, {"10 min ahead", 10 * time.Minute}, {"a day behind", -day}, {"61 s ahead", 61 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				var logged logBuffer
				logs := func(c *keys.RingConfig) { c.Logger = slog.New(slog.NewTextHandler(&logged, nil)) }

				first, _ := onMachine(t, n, tt.ahead, logs)
				_, err := first.SigningKey(t.Context())
				require.ErrorIs(t, err, keys.ErrClock, "not the first document either")
				require.Nil(t, n.get(t))

				right := running(t, n, withTime(n))
				kid := current(t, right)
				before := n.get(t)
				wrong, c := onMachine(t, n, tt.ahead, logs)
				require.Equal(t, kid, current(t, wrong), "it signs with what there is")
				require.True(t, published(t, wrong, kid))
				require.ErrorIs(t, wrong.Revoke(t.Context(), kid), keys.ErrClock)
				_, err = wrong.Rotate(t.Context())
				require.ErrorIs(t, err, keys.ErrClock)
				require.Equal(t, before, n.get(t), "nothing was changed")
				require.True(t, published(t, right, kid))

				require.ErrorIs(t, wrong.Status().ClockErr, keys.ErrClock)
				require.Equal(t, tt.ahead, wrong.Status().ClockOffset)
				require.InDelta(t, tt.ahead.Seconds(), wrong.Metrics()["ring_clock_offset_seconds"], 1e-6)
				require.Positive(t, wrong.Metrics()["ring_clock_disagreements_total"])
				require.Equal(t, 2, strings.Count(logged.String(), "reason=ring_clock"), "one line a ring and minute")
				require.Equal(t, 2, strings.Count(logged.String(), "set the clock (NTP)"), "with the remedy")
				require.NoError(t, right.Status().ClockErr)
				require.Zero(t, right.Metrics()["ring_clock_offset_seconds"])

				// Over the next rotation nothing changes but by the right one.
				time.Sleep(30*day + 20*time.Minute)
				require.Equal(t, current(t, right), current(t, wrong))
				require.NotEqual(t, kid, current(t, wrong))
				require.True(t, published(t, wrong, kid))

				c.SetAhead(0)
				require.NoError(t, wrong.Revoke(t.Context(), kid))
				require.NoError(t, wrong.Status().ClockErr)
			})
		})
	}
}

// A wall clock that jumps under a running ring moves nothing.
func TestClockThatJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r, c := onMachine(t, n, 0)
		kid := current(t, r)
		next := r.Status().Keys[1].KeyID
		for _, ahead := range []time.Duration{32 * day, -400 * day, 0, 30 * time.Second} {
			c.SetAhead(ahead)
			require.Equal(t, kid, current(t, r))
			require.True(t, published(t, r, next))
			require.Equal(t, []string{"current", "next"}, phases(r))
			time.Sleep(10 * time.Minute)
			require.Equal(t, kid, current(t, r))
		}
		require.NoError(t, r.Status().ClockErr, "30 s are within MaxSkew")
	})
}

// The time of a slow reading counts as a difference that the clocks may have.
func TestClockOfASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		slow := &timed{shared: shared{n}, ahead: -59600 * time.Millisecond, trip: 300 * time.Millisecond}
		r := newRing(t, n, func(c *keys.RingConfig) { c.Store = slow })
		_, err := r.SigningKey(t.Context())
		require.ErrorIs(t, err, keys.ErrClock)
		slow.trip = 0
		time.Sleep(time.Minute)
		current(t, r)
	})
}

// A store whose clock was ahead when it made the ring and was set right since
// keeps no replica from signing.
func TestStoreClockWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		both, _ := onMachine(t, n, 40*day, func(c *keys.RingConfig) { c.Store = &timed{shared: shared{n}, ahead: 40 * day} })
		first := current(t, both)
		r := running(t, n, withTime(n))
		kid := current(t, r)
		require.NotEqual(t, first, kid)
		require.True(t, published(t, r, first))
	})
}

// By the machine's own clock, nothing is destroyed in the first five minutes.
func TestYoungProcessDestroysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		kid := current(t, newRing(t, n))
		c := new(clock.Clock)
		c.SetAhead(32 * day)
		var young *keys.Ring
		clock.As(c, func() { young = newRing(t, n) })
		current(t, young)
		time.Sleep(4 * time.Minute)
		current(t, young)
		require.True(t, published(t, young, kid), "nor left out")
		c.SetAhead(0)
		r := newRing(t, n)
		require.Equal(t, kid, current(t, r))
		require.True(t, published(t, r, kid))
	})
}
