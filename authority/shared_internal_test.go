package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

// everything is a sharedLog as a store of all its namespaces.
type everything struct{ *namespaceLog }

func (e everything) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if err := e.log.await(ctx, e.log.clock.Read()); err != nil {
		return revoke.Page{}, err
	}
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	var all []numbered
	for _, of := range e.log.known.names {
		all = append(all, of...)
	}
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.number, b.number) })
	p := e.log.known.page(all, cursor)
	p.Time = e.log.last.time
	return p, nil
}

// TestSharedLogIsAStore: it keeps the contract of the store that it reads.
func TestSharedLogIsAStore(t *testing.T) {
	storetest.Revocations(t, func(*testing.T) (a, b revoke.Store) {
		s := Memory()
		of := func() revoke.Store { return everything{&namespaceLog{log: newSharedLog(s)}} }
		return of(), of()
	})
}

// latestRings is a store whose every Load shares readings.
type latestRings struct{ *sharedRings }

func (s latestRings) Load(ctx context.Context, name string) (keys.Stored, error) {
	s.mu.Lock()
	known := slices.Contains(s.names, name)
	s.mu.Unlock()
	if !known {
		s.add(name)
	}
	stored, _, _, err := s.LoadAfter(ctx, name, s.clock.Read())
	return stored, err
}

// TestSharedRingsAreAStore: both ways to load keep the contract.
func TestSharedRingsAreAStore(t *testing.T) {
	storetest.Ring(t, func(*testing.T) (a, b keys.Store) {
		s := Memory()
		return newSharedRings(s), newSharedRings(s)
	})
	storetest.Ring(t, func(*testing.T) (a, b keys.Store) {
		s := Memory()
		of := func() keys.Store {
			r := newSharedRings(s)
			r.apart = 0
			return latestRings{r}
		}
		return of(), of()
	})
}

// counting is a store that counts its readings, and can fail, hang, and be
// another one.
type counting struct {
	Store
	since, revisions, loads atomic.Int64
	down                    atomic.Bool
	slow                    atomic.Int64 // how long a reading takes
}

var errDown = errors.New("the store is down")

func (c *counting) read(ctx context.Context, n *atomic.Int64) error {
	n.Add(1)
	wait(ctx, time.Duration(c.slow.Load()))
	if c.down.Load() {
		return errDown
	}
	return ctx.Err()
}

func (c *counting) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if err := c.read(ctx, &c.since); err != nil {
		return revoke.Page{}, err
	}
	return c.Store.Since(ctx, cursor)
}

func (c *counting) Revisions(ctx context.Context, names ...string) ([]string, time.Time, error) {
	if err := c.read(ctx, &c.revisions); err != nil {
		return nil, time.Time{}, err
	}
	return c.Store.Revisions(ctx, names...)
}

func (c *counting) Load(ctx context.Context, name string) (keys.Stored, error) {
	if err := c.read(ctx, &c.loads); err != nil {
		return keys.Stored{}, err
	}
	return c.Store.Load(ctx, name)
}

func entry(namespace, value string) revoke.Entry {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return revoke.Entry{Namespace: namespace, Scope: revoke.Session, Digest: revoke.Session.Digest(value), Before: now, Until: now.Add(time.Hour)}
}

// TestSharedLogKeepsNamespacesApart: each sees its own entries alone, by cursors
// of its own.
func TestSharedLogKeepsNamespacesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newSharedLog(Memory())
		names := []string{"a", "b", "", "a\nb"}
		cursors := make([]string, len(names))
		for round := range 5 {
			for i, name := range names {
				n := &namespaceLog{log: log, namespace: name}
				for j := range i + round {
					require.NoError(t, n.Append(t.Context(), entry(name, fmt.Sprint(round, j))))
				}
			}
			for i, name := range names {
				p, err := (&namespaceLog{log: log, namespace: name}).Since(t.Context(), cursors[i])
				require.NoError(t, err)
				require.Len(t, p.Entries, i+round)
				require.False(t, p.Reset)
				for _, e := range p.Entries {
					require.Equal(t, name, e.Namespace)
				}
				cursors[i] = p.Next
			}
		}
		p, err := (&namespaceLog{log: log, namespace: "stranger"}).Since(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, p.Entries)
	})
}

// TestSharedLogForgets: what is over leaves the memory.
func TestSharedLogForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newSharedLog(Memory())
		n := &namespaceLog{log: log, namespace: "a"}
		require.NoError(t, n.Append(t.Context(), entry("a", "x"), entry("b", "y")))
		p, err := n.Since(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, log.known.names, 2)
		time.Sleep(2 * time.Hour)
		_, err = n.Since(t.Context(), p.Next)
		require.NoError(t, err)
		require.Empty(t, log.known.names)
	})
}

// TestSharedLogOfAnotherStore: when the store no longer knows the cursor, each
// namespace is told, once, and gets all that there is now.
func TestSharedLogOfAnotherStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{Store: Memory()}
		log := newSharedLog(c)
		a, b := &namespaceLog{log: log, namespace: "a"}, &namespaceLog{log: log, namespace: "b"}
		require.NoError(t, a.Append(t.Context(), entry("a", "1"), entry("a", "2"), entry("b", "3")))
		pa, err := a.Since(t.Context(), "")
		require.NoError(t, err)
		pb, err := b.Since(t.Context(), "")
		require.NoError(t, err)
		c.Store = Memory()
		require.NoError(t, a.Append(t.Context(), entry("a", "new")))
		for _, tt := range []struct {
			n      *namespaceLog
			cursor string
			want   int
		}{{a, pa.Next, 1}, {b, pb.Next, 0}} {
			p, err := tt.n.Since(t.Context(), tt.cursor)
			require.NoError(t, err)
			require.True(t, p.Reset)
			require.Len(t, p.Entries, tt.want)
			p, err = tt.n.Since(t.Context(), p.Next)
			require.NoError(t, err)
			require.False(t, p.Reset)
			require.Empty(t, p.Entries)
		}
	})
}

// TestSharedReadings: callers that are content with a reading of a moment ago
// share it, one that is not gets one that began after its call, and while the
// store fails nothing is asked again and again.
func TestSharedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{Store: Memory()}
		log := newSharedLog(c)
		asks := func(after clock.Instant) (asked clock.Instant, err error) {
			_, asked, _, err = (&namespaceLog{log: log, namespace: "a"}).SinceAfter(t.Context(), "", after)
			return asked, err
		}
		for range 1000 {
			_, err := asks(clock.Instant{})
			require.NoError(t, err)
		}
		require.Equal(t, int64(1), c.since.Load())
		time.Sleep(time.Second)
		c.slow.Store(int64(100 * time.Millisecond))
		go func() { _, _ = asks(clock.Instant{}) }() // begins one
		time.Sleep(50 * time.Millisecond)
		called := log.clock.Read()
		asked, err := asks(called)
		require.NoError(t, err)
		require.Positive(t, clock.SteadyBetween(called, asked))
		require.Equal(t, int64(3), c.since.Load(), "the one under way had begun before the call")

		go func() { _, _ = asks(log.clock.Read()) }() // one is under way
		time.Sleep(10 * time.Millisecond)
		began := time.Now()
		_, err = asks(clock.Instant{})
		require.NoError(t, err)
		require.Zero(t, time.Since(began), "nothing to wait for")

		c.down.Store(true)
		time.Sleep(time.Second)
		before := c.since.Load()
		for range 1000 {
			_, err := asks(clock.Instant{})
			require.ErrorIs(t, err, errDown)
			_, err = asks(log.clock.Read())
			require.ErrorIs(t, err, errDown)
		}
		require.LessOrEqual(t, c.since.Load()-before, int64(2))
		c.down.Store(false)
		time.Sleep(2 * time.Second)
		_, err = asks(clock.Instant{})
		require.NoError(t, err)
	})
}

// TestSharedRingsLoadWhatHasChanged, and nothing else; keys that no ring knows
// have the store read ten times a second, of all rings together.
func TestSharedRingsLoadWhatHasChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{Store: Memory()}
		rings := newSharedRings(c)
		revs := map[string]string{}
		for i := range 100 {
			name := fmt.Sprint(i)
			rings.add(name)
			rev, err := c.Save(t.Context(), name, []byte("1"), "")
			require.NoError(t, err)
			revs[name] = rev
		}
		load := func(after func() clock.Instant) (docs string) {
			for i := range 100 {
				s, _, _, err := rings.LoadAfter(t.Context(), fmt.Sprint(i), after())
				require.NoError(t, err)
				docs += string(s.Doc)
			}
			return docs
		}
		never := func() clock.Instant { return clock.Instant{} }
		ones := strings.Repeat("1", 100)
		require.Equal(t, ones, load(never))
		require.Equal(t, int64(100), c.loads.Load())
		require.Equal(t, int64(1), c.revisions.Load())
		time.Sleep(syncRings)
		require.Equal(t, ones, load(never))
		require.Equal(t, int64(100), c.loads.Load())
		require.Equal(t, int64(2), c.revisions.Load())

		_, err := c.Save(t.Context(), "7", []byte("2"), revs["7"])
		require.NoError(t, err)
		began := time.Now()
		require.Equal(t, strings.Repeat("1", 7)+"2"+strings.Repeat("1", 92), load(rings.clock.Read))
		require.Equal(t, int64(101), c.loads.Load())
		require.LessOrEqual(t, c.revisions.Load()-2, 1+int64(time.Since(began)/ringsApart))
	})
}

// TestFewLines: of one message ten lines a minute, of another one ten more.
func TestFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		logger := slog.New(newFewLines(slog.NewTextHandler(&out, nil)))
		for minute := range 2 {
			for i := range 1000 {
				logger.With("namespace", fmt.Sprint("tenant", i)).Warn("the store is down", "minute", minute)
				logger.WithGroup("g").Info("another", "i", i)
			}
			require.Equal(t, 10*(minute+1), strings.Count(out.String(), "the store is down"))
			require.Equal(t, 10*(minute+1), strings.Count(out.String(), "another"))
			time.Sleep(time.Minute)
		}
		require.Contains(t, out.String(), "namespace=tenant9")
	})
}
