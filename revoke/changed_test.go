package revoke_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// tokenOf returns the question about a token that was made now, with the number
// of a mark.
func tokenOf(subject string, number int64) *revoke.Question {
	q := revoke.Question{SessionID: "sid", Subject: subject, KeyID: "kid", Began: time.Now(), IssuedAt: time.Now().Truncate(time.Second), Changed: number}.Prepared()
	return &q
}

// markOf returns the number for a token of a subject that is renewed now.
func markOf(t testing.TB, l *revoke.List, subject string) int64 {
	t.Helper()
	n, err := l.Mark(t.Context(), &revoke.Question{Subject: subject, IssuedAt: time.Now()})
	require.NoError(t, err)
	return n
}

// isStale reports whether a token is stale, at a list that knows.
func isStale(t testing.TB, l *revoke.List, q *revoke.Question) bool {
	t.Helper()
	_, live := l.Live(q)
	err := l.Check(t.Context(), q)
	if err != nil {
		require.Equal(t, revoke.ErrChanged, err)
	}
	require.False(t, live && err != nil, "Live says more than Check")
	return err != nil
}

// read has a list read its store.
func read(t testing.TB, l *revoke.List) {
	t.Helper()
	_, err := l.Begin(t.Context(), revoke.Question{Subject: "reader"})
	require.NoError(t, err)
}

// A token is stale if its state was read before the mark, at every replica, and
// is not if it was read afterwards, also within one millisecond.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := newList(t, s), newList(t, s)
		read(t, a)
		read(t, b)
		time.Sleep(time.Hour + 300*time.Millisecond)
		for range 20 { // no time passes
			before := []*revoke.Question{tokenOf("ada", markOf(t, a, "ada")), tokenOf("ada", markOf(t, b, "ada"))}
			require.NoError(t, a.Changed(t.Context(), "ada"))
			require.NotZero(t, markOf(t, a, "ada"))
			read(t, b)
			require.Equal(t, markOf(t, a, "ada"), markOf(t, b, "ada"))
			after := tokenOf("ada", markOf(t, b, "ada"))
			for _, l := range []*revoke.List{a, b} {
				for _, q := range before {
					require.True(t, isStale(t, l, q))
				}
				require.False(t, isStale(t, l, after))
				require.False(t, isStale(t, l, tokenOf("bob", 0)))
				require.Zero(t, markOf(t, l, "bob"))
				// The session is not revoked, whenever it began.
				require.NoError(t, ask(t, l, "sid", "ada", "kid", time.Now().Add(-time.Hour+time.Second)))
			}
		}
		require.Error(t, a.Changed(t.Context(), ""))
		for _, e := range revocations(t, &s.MemStore) {
			require.Equal(t, revoke.Changed, e.Scope)
			require.True(t, e.Skip, "a list that does not know the scope ignores the entry")
			require.Equal(t, revoke.Subject.Digest("ada"), e.Digest)
			require.False(t, e.Before.Before(time.Now().Truncate(time.Millisecond)))
		}
	})
}

// A token without a number is stale if its iat is not after the second of the
// mark.
func TestChangedWithoutANumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newList(t, new(faulty))
		read(t, l)
		time.Sleep(time.Hour + 700*time.Millisecond)
		second := time.Now().Truncate(time.Second)
		require.NoError(t, l.Changed(t.Context(), "ada"))
		for _, tt := range []struct {
			name   string
			issued time.Time
			stale  bool
		}{
			{"long before", second.Add(-time.Hour), true},
			{"the second before", second.Add(-time.Second), true},
			{"the same second", second, true},
			{"the next second", second.Add(time.Second), false},
			{"not asked", time.Time{}, false},
		} {
			q := revoke.Question{SessionID: "sid", Subject: "ada", Began: second, IssuedAt: tt.issued}.Prepared()
			require.Equal(t, tt.stale, isStale(t, l, &q), tt.name)
		}
	})
}

// Revoked and owed come before stale.
func TestRevokedBeforeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		l := newList(t, s)
		q := tokenOf("ada", 0)
		require.NoError(t, l.Changed(t.Context(), "ada"))
		require.Equal(t, revoke.ErrChanged, l.Check(t.Context(), q))
		s.writes.Store(down)
		require.Error(t, l.RevokeSession(t.Context(), "sid"))
		require.Equal(t, revoke.ErrOwed, l.Check(t.Context(), q))
		s.writes.Store(good)
		require.NoError(t, l.RevokeSession(t.Context(), "sid"))
		require.Equal(t, revoke.ErrRevoked, l.Check(t.Context(), q))
	})
}

// gated is a store whose calls can be held, before they take effect and after.
type gated struct {
	revoke.Store
	mu     sync.Mutex
	append [2]chan struct{} // closed, or nil: passes
	since  chan struct{}
}

func (g *gated) wait(ctx context.Context, at func() chan struct{}) error {
	g.mu.Lock()
	c := at()
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gated) Append(ctx context.Context, entries ...revoke.Entry) error {
	if err := g.wait(ctx, func() chan struct{} { return g.append[0] }); err != nil {
		return err
	}
	if err := g.Store.Append(ctx, entries...); err != nil {
		return err
	}
	return g.wait(ctx, func() chan struct{} { return g.append[1] })
}

func (g *gated) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if err := g.wait(ctx, func() chan struct{} { return g.since }); err != nil {
		return revoke.Page{}, err
	}
	return g.Store.Since(ctx, cursor)
}

// hold holds calls until the function that it returns is called.
func (g *gated) hold(at *chan struct{}) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{})
	*at = c
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		*at = nil
		close(c)
	}
}

// A number that the store does not have yet is given to no token: another
// replica may give the same one to a later change in the same millisecond. If
// Mark returned it, the state that is read between the two would stay.
func TestNoNumberBeforeTheStoreHasIt(t *testing.T) {
	for _, at := range []int{0, 1} { // held before the store has the mark, and after
		t.Run(strconv.Itoa(at), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(revoke.MemStore)
				g := &gated{Store: s}
				a, b := newList(t, g), newList(t, s)
				read(t, a)
				read(t, b)
				state := 1
				release := g.hold(&g.append[at])
				first := make(chan error, 1)
				go func() { first <- a.Changed(t.Context(), "ada") }()
				synctest.Wait()
				require.True(t, isStale(t, a, tokenOf("ada", 0)), "at once here")

				type loaded struct {
					q     *revoke.Question
					state int
				}
				made := make(chan loaded, 1)
				go func() { // a renewal at a
					number := markOf(t, a, "ada")
					made <- loaded{tokenOf("ada", number), state}
				}()
				synctest.Wait()
				require.Empty(t, made, "the state is not read before the store has the mark")
				state = 2
				require.NoError(t, b.Changed(t.Context(), "ada"))
				release()
				require.NoError(t, <-first)
				token := <-made
				read(t, a)
				read(t, b)
				for _, l := range []*revoke.List{a, b} {
					require.True(t, token.state == 2 || isStale(t, l, token.q))
				}
			})
		})
	}
}

// Changed reads the store first: a mark that another replica has written, and
// that this list has not read, may have a number ahead of the time.
func TestChangedReadsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(revoke.MemStore)
		g := &gated{Store: s}
		a, b := newList(t, g), newList(t, s)
		read(t, a)
		for range 10 { // in one millisecond
			require.NoError(t, b.Changed(t.Context(), "ada"))
		}
		ahead := tokenOf("ada", markOf(t, b, "ada"))
		require.Greater(t, markOf(t, b, "ada"), time.Now().UnixMilli())
		require.NoError(t, a.Changed(t.Context(), "ada"))
		read(t, b)
		require.True(t, isStale(t, a, ahead))
		require.True(t, isStale(t, b, ahead))

		// If it cannot read, it says so, and the repetition is good.
		ahead = tokenOf("ada", markOf(t, a, "ada"))
		release := g.hold(&g.since)
		require.ErrorContains(t, a.Changed(t.Context(), "ada"), "could not be read before it")
		release()
		time.Sleep(time.Minute)
		require.NoError(t, a.Changed(t.Context(), "ada"))
		require.True(t, isStale(t, a, ahead))
		time.Sleep(time.Minute) // what was held ends
	})
}

// Calls share a mark only if it is written after all of them were called: a
// state that was read between two calls is stale after the second one.
func TestConcurrentChangedShareWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(faulty)
		g := &gated{Store: f}
		a, b := newList(t, g), newList(t, f)
		read(t, a)
		release := g.hold(&g.append[1]) // the store has the first mark; the answer is on its way
		var wg sync.WaitGroup
		changed := func() { wg.Go(func() { require.NoError(t, a.Changed(t.Context(), "ada")) }) }
		changed()
		synctest.Wait()
		read(t, b)
		between := tokenOf("ada", markOf(t, b, "ada"))
		require.False(t, isStale(t, b, between))
		for range 50 {
			changed()
		}
		synctest.Wait()
		release()
		wg.Wait()
		read(t, b)
		require.True(t, isStale(t, a, between))
		require.True(t, isStale(t, b, between), "shared with a mark from before it")
		require.Len(t, revocations(t, f), 2, "50 calls share one mark")
	})
}

// A token that replaces no other gets the number of every mark that was in the
// store before the call: its client may come from a replica that knows of it.
// If the store cannot be read, it gets what is known.
func TestMarkWithoutATokenReadsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := newList(t, s), newList(t, s)
		read(t, b)
		for range 3 {
			require.NoError(t, a.Changed(t.Context(), "ada"))
			before := markOf(t, b, "ada")
			require.Less(t, before, markOf(t, a, "ada"))
			number, err := b.Mark(t.Context(), &revoke.Question{Subject: "ada"})
			require.NoError(t, err)
			require.Equal(t, markOf(t, a, "ada"), number)
		}
		s.mode.Store(hung)
		began := time.Now()
		number, err := b.Mark(t.Context(), &revoke.Question{Subject: "ada"})
		require.NoError(t, err)
		require.Equal(t, markOf(t, b, "ada"), number)
		require.LessOrEqual(t, time.Since(began), time.Second)
		lastReading()
	})
}

// An owed mark counts here at once, and for a list that knows no time yet too.
// No token of the subject is made until the store has it.
func TestOwedMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		old := tokenOf("ada", 0)
		s.writes.Store(down)
		require.ErrorIs(t, a.Changed(t.Context(), "ada"), errDown)
		require.True(t, isStale(t, a, old))
		require.False(t, isStale(t, a, tokenOf("bob", 0)))
		require.Equal(t, 1, a.Status().Owed)
		_, err := a.Mark(t.Context(), old)
		require.Equal(t, revoke.ErrOwed, err)
		require.Zero(t, markOf(t, a, "bob"))
		require.False(t, isStale(t, b, old), "nobody else can know")
		require.ErrorIs(t, a.Changed(t.Context(), "ada"), errDown, "repeated")
		require.Equal(t, 1, a.Status().Owed)

		s.writes.Store(good)
		time.Sleep(10 * time.Second) // by itself
		require.Zero(t, a.Status().Owed)
		require.True(t, isStale(t, b, old))
		for _, l := range []*revoke.List{a, b} {
			require.False(t, isStale(t, l, tokenOf("ada", markOf(t, l, "ada"))))
		}
		require.Zero(t, a.Metrics()["revocations_total"], "nothing was revoked")
	})
}

// A call that cannot read the store yet fails, and its mark is owed.
func TestMarkBeforeTheFirstReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		s.mode.Store(down)
		l := newList(t, s)
		require.Error(t, l.Changed(t.Context(), "ada"))
		require.Error(t, l.Changed(t.Context(), "ada"))
		require.Equal(t, 1, l.Status().Owed)
		s.mode.Store(good)
		run(t, l)
		time.Sleep(10 * time.Second)
		require.Zero(t, l.Status().Owed)
		require.Len(t, revocations(t, &s.MemStore), 1)
		require.NotZero(t, markOf(t, l, "ada"))
	})
}

// A mark is known after a restart, for as long as a token from before it can be
// accepted, and is forgotten then.
func TestMarksLiveForMaxTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := func(c *revoke.Config) { c.MaxTTL, c.MaxSkew = time.Hour, 10*time.Minute }
		s := new(faulty)
		a := newList(t, s, short)
		for i := range 300 {
			require.NoError(t, a.Changed(t.Context(), strconv.Itoa(i)))
		}
		old := tokenOf("7", 0)
		number := markOf(t, a, "7")
		time.Sleep(time.Hour + 11*time.Minute - time.Second) // MaxTTL, the largest leeway, MaxSkew
		b := newList(t, s, short)
		for _, l := range []*revoke.List{a, b} {
			read(t, l)
			require.True(t, isStale(t, l, old))
			require.Equal(t, number, markOf(t, l, "7"))
			require.Equal(t, 300, l.Status().Entries)
			require.Equal(t, time.Hour, l.MaxTTL())
		}
		time.Sleep(2 * time.Second)
		read(t, a)
		next := revoke.Question{Subject: "7", IssuedAt: time.Now(), Changed: number}.Prepared()
		renewed, err := a.Mark(t.Context(), &next)
		require.NoError(t, err)
		require.Zero(t, renewed, "no number is carried on for ever")
		c := newList(t, s, short)
		read(t, c)
		require.Zero(t, c.Status().Entries)
		for range 70 {
			time.Sleep(time.Minute)
			read(t, a)
		}
		require.Zero(t, a.Status().Entries, "swept")
		require.Equal(t, 24*time.Hour, newList(t, s).MaxTTL(), "the default")
		require.Equal(t, time.Hour, newList(t, s, func(c *revoke.Config) { c.MaxSession = time.Hour }).MaxTTL())
	})
}

// Many marks of one subject take the memory of one, and their numbers do not
// move the time, however far they are ahead of it.
func TestManyMarksOfOneSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := newList(t, s), newList(t, s)
		for range 5000 { // in one millisecond
			require.NoError(t, a.Changed(t.Context(), "ada"))
		}
		read(t, b)
		for _, l := range []*revoke.List{a, b} {
			require.Equal(t, 1, l.Status().Entries)
			now, err := l.Now(t.Context())
			require.NoError(t, err)
			require.False(t, now.After(time.Now()), "iat is never in the future")
			require.Greater(t, markOf(t, l, "ada"), now.Add(4*time.Second).UnixMilli())
		}
	})
}

// A store that has lost its data gets its marks back.
func TestMarksAreWrittenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		a := running(t, s)
		time.Sleep(10 * time.Second)
		old := tokenOf("ada", 0)
		require.NoError(t, a.Changed(t.Context(), "ada"))
		number := markOf(t, a, "ada")
		s.mu.Lock()
		s.id, s.log = s.id+1, nil
		s.mu.Unlock()
		time.Sleep(time.Minute)
		b := running(t, s)
		require.Equal(t, number, markOf(t, b, "ada"))
		require.True(t, isStale(t, b, old))
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.log {
			require.Equal(t, e.Scope == revoke.Changed, e.Skip)
		}
	})
}

// With the clocks of two machines a minute apart, a token is stale if and only
// if its state was read before the mark.
func TestChangedWithClocksApart(t *testing.T) {
	for _, ahead := range []time.Duration{-time.Minute, 0, time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				a, b := listAt(t, new(clock.Clock), ahead, s), listAt(t, new(clock.Clock), -ahead, s)
				lists := []*revoke.List{a, b}
				read(t, a)
				read(t, b)
				for range 100 {
					time.Sleep(rand.N(400 * time.Millisecond))
					at, elsewhere := lists[rand.IntN(2)], lists[rand.IntN(2)]
					issued, err := elsewhere.Now(t.Context())
					require.NoError(t, err)
					require.False(t, issued.After(time.Now()))
					q := revoke.Question{Subject: "ada", Began: issued, IssuedAt: issued.Truncate(time.Second), Changed: markOf(t, elsewhere, "ada")}.Prepared()
					require.NoError(t, at.Changed(t.Context(), "ada"))
					read(t, a)
					read(t, b)
					fresh := revoke.Question{Subject: "ada", Began: issued, IssuedAt: issued.Truncate(time.Second), Changed: markOf(t, elsewhere, "ada")}.Prepared()
					for _, l := range lists {
						require.True(t, isStale(t, l, &q))
						require.False(t, isStale(t, l, &fresh))
					}
				}
			})
		})
	}
}

// An error of the store that looks like a verdict is none.
func TestChangedIsTheListsOwnWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newList(t, failing{})
		err := l.Check(t.Context(), tokenOf("ada", 0))
		require.Error(t, err)
		require.NotErrorIs(t, err, revoke.ErrChanged)
	})
}

type failing struct{}

func (failing) Append(context.Context, ...revoke.Entry) error { return revoke.ErrChanged }

func (failing) Since(context.Context, string) (revoke.Page, error) {
	return revoke.Page{}, errors.Join(revoke.ErrChanged)
}

func (failing) Wait(context.Context, string) error { return errors.ErrUnsupported }
