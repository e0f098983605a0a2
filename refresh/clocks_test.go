package refresh_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// machine returns a manager on a machine whose wall clock is ahead.
func machine(t *testing.T, ahead time.Duration, s refresh.Store, change ...func(*refresh.Config)) (*refresh.Manager, *clock.Clock) {
	c := new(clock.Clock)
	c.SetAhead(ahead)
	var m *refresh.Manager
	clock.As(c, func() { m = newManager(t, s, change...) })
	return m, c
}

// Replicas whose clocks are apart give two tabs the same successor, and sign no
// user out. With a list that holds for any clock, without one for a minute.
func TestClocksApart(t *testing.T) {
	for _, c := range []struct {
		name    string
		ahead   time.Duration
		without bool
	}{
		{"a list, 31 s ahead", 31 * time.Second, false},
		{"a list, a minute behind", -time.Minute, false},
		{"a list, 32 days ahead", 32 * 24 * time.Hour, false},
		{"a list, a day behind", -24 * time.Hour, false},
		{"no list, 31 s ahead", 31 * time.Second, true},
		{"no list, 31 s behind", -31 * time.Second, true},
		{"no list, a minute ahead", time.Minute, true},
		{"no list, a minute behind", -time.Minute, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := new(refresh.MemStore), new(revocations)
				list := on(t, r)
				if c.without {
					list = without
				}
				right, _ := machine(t, 0, s, list)
				wrong, _ := machine(t, c.ahead, s, list)
				token := start(t, right)
				for i := range 100 {
					a, b := right, wrong
					if i%2 == 1 {
						a, b = wrong, right
					}
					first := next(t, a, token)
					time.Sleep(5 * time.Millisecond)
					require.Equal(t, first, next(t, b, token), "two tabs")
					time.Sleep(10 * time.Second)
					require.Equal(t, first, next(t, b, token), "a lost answer")
					token = first
					time.Sleep(5 * time.Minute)
				}
				require.Zero(t, right.Metrics()["refresh_late_retries_total"]+wrong.Metrics()["refresh_late_retries_total"])
				require.Zero(t, r.revoked(t))

				// The wrong one signs in and out like the others.
				token = start(t, wrong, session("sid-2"))
				token = next(t, right, token)
				families, err := wrong.List(t.Context(), "ada")
				require.NoError(t, err)
				require.Len(t, families, 2)
				require.NoError(t, wrong.Revoke(t.Context(), app(token)))
				_, err = exchange(t, wrong, token)
				require.ErrorIs(t, err, refresh.ErrInvalid)
				_, err = exchange(t, right, token)
				require.ErrorIs(t, err, refresh.ErrInvalid)
			})
		})
	}
}

// A wall clock that jumps under a running replica moves nothing.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		m, c := machine(t, 0, s, on(t, r))
		token := start(t, m)
		for _, ahead := range []time.Duration{8 * time.Hour, 32 * 24 * time.Hour, -24 * time.Hour, 0} {
			c.SetAhead(ahead)
			out := next(t, m, token)
			c.SetAhead(-ahead)
			require.Equal(t, out, next(t, m, token))
			token = out
			time.Sleep(time.Minute)
		}
		require.Zero(t, r.revoked(t))
	})
}

// The store in memory goes by the time since it began: no jump forgets a record.
func TestMemStoreClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(clock.Clock)
		s := new(refresh.MemStore)
		clock.As(c, func() { require.NoError(t, s.DeleteSession(t.Context(), "", "x")) })
		r := refresh.Record{ID: "x", Subject: "ada", SessionID: "sid", Version: 1, Until: time.Now().Add(time.Hour)}
		require.NoError(t, s.Create(t.Context(), r))
		c.SetAhead(32 * 24 * time.Hour)
		require.NoError(t, s.Create(t.Context(), refresh.Record{ID: "y"}))
		_, err := s.Find(t.Context(), "", "x")
		require.NoError(t, err)
	})
}

// Sessions that began at the wrong machine are no longer or shorter.
func TestEndsByTheListsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := newList(t, new(revoke.MemStore))
		m, _ := machine(t, 32*24*time.Hour, new(refresh.MemStore), func(c *refresh.Config) { c.Revocations = list })
		_, f, err := m.Start(t.Context(), refresh.Family{Subject: "ada", SessionID: "sid", Began: time.Now()}, "")
		require.NoError(t, err)
		require.Equal(t, time.Now().UTC(), f.LastUsed)
		require.Equal(t, time.Now().UTC().Add(24*time.Hour), f.Ends)
	})
}
