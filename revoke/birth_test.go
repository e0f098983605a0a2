package revoke_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// server is a store that can lose its data, fall back to a backup, and be another
// one: a log with an id, as real stores have it.
type server struct {
	mu         sync.Mutex
	id         int
	log        []revoke.Entry
	ids        int
	before     time.Duration // how far its clock is behind
	unread     bool          // reading fails
	unwritten  bool          // writing fails
	everyOther bool          // every other write fails
	appends    int
}

func (s *server) Append(ctx context.Context, entries ...revoke.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.appends++; s.unwritten || s.everyOther && s.appends%2 == 0 {
		return errDown
	}
	s.log = append(s.log, entries...)
	return nil
}

func (s *server) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return revoke.Page{}, err
	}
	if s.unread {
		return revoke.Page{}, errDown
	}
	id, at, _ := strings.Cut(cursor, ":")
	from, err := strconv.Atoi(at)
	p := revoke.Page{Time: time.Now().Add(-s.before)}
	if id != strconv.Itoa(s.id) || err != nil || from > len(s.log) {
		from, p.Reset = 0, cursor != ""
	}
	to := min(len(s.log), from+7) // pages, to see that none is passed over
	p.Entries = append(p.Entries, s.log[from:to]...)
	p.Next, p.More = fmt.Sprintf("%d:%d", s.id, to), to < len(s.log)
	return p, nil
}

func (*server) Wait(context.Context, string) error { return errors.ErrUnsupported }

// stumble makes every other write fail, or none.
func (s *server) stumble(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.everyOther = yes
}

// fail makes calls of the store fail, or not.
func (s *server) fail(reads, writes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread, s.unwritten = reads, writes
}

// become makes the store hold another log, and returns the one that it held.
func (s *server) become(log []revoke.Entry) (was []revoke.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, s.log = s.log, append([]revoke.Entry(nil), log...)
	s.ids++
	s.id = s.ids
	return was
}

func (s *server) copy() []revoke.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]revoke.Entry(nil), s.log...)
}

func births(log []revoke.Entry) (out []revoke.Entry) {
	for _, e := range log {
		if e.Scope == revoke.Birth {
			out = append(out, e)
		}
	}
	return out
}

// site is five lists on a store, with something revoked of every kind.
type site struct {
	*server
	lists []*revoke.List
	begun time.Time // of all sessions
}

func newSite(t *testing.T) *site {
	s := &site{server: new(server)}
	for range 5 {
		s.lists = append(s.lists, running(t, s.server))
	}
	time.Sleep(time.Hour)
	s.begun = begin(t, s.lists[0], "ada")
	time.Sleep(time.Minute)
	for i := range 30 {
		require.NoError(t, s.lists[i%5].RevokeSession(t.Context(), fmt.Sprint("out ", i)))
	}
	require.NoError(t, s.lists[1].RevokeSubject(t.Context(), "eve"))
	require.NoError(t, s.lists[2].RevokeOthers(t.Context(), "bob", "spared"))
	require.NoError(t, s.lists[2].RevokeOthers(t.Context(), "bob", "spared too"))
	require.NoError(t, s.lists[2].RevokeOthers(t.Context(), "cat", "spared"))
	require.NoError(t, s.lists[3].RevokeKey(t.Context(), "leaked", time.Time{}))
	require.NoError(t, s.lists[3].RevokeGroup(t.Context(), groupA))
	require.NoError(t, s.lists[4].RevokeAll(t.Context(), s.begun.Add(-time.Minute)))
	time.Sleep(time.Minute)
	return s
}

// questions are about what was revoked, and about what was not.
func (s *site) questions() (dead, live []revoke.Question) {
	for i := range 30 {
		dead = append(dead, revoke.Question{SessionID: fmt.Sprint("out ", i), Subject: "ada", KeyID: "kid", Began: s.begun}.Prepared())
	}
	dead = append(dead,
		revoke.Question{SessionID: "sid", Subject: "eve", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "sid", Subject: "bob", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "spared", Subject: "bob", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "spared too", Subject: "bob", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "sid", Subject: "cat", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "leaked", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: s.begun.Add(-time.Hour)}.Prepared(),
		revoke.Question{SessionID: inGroups(groupB, groupA), Subject: "ada", KeyID: "kid", Began: s.begun}.Prepared(),
	)
	return dead, []revoke.Question{
		revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: "spared", Subject: "cat", KeyID: "kid", Began: s.begun}.Prepared(),
		revoke.Question{SessionID: inGroups(groupB), Subject: "ada", KeyID: "kid", Began: s.begun}.Prepared(),
	}
}

// never fails the test if a list takes a dead session for a live one.
func (s *site) never(t *testing.T, lists ...*revoke.List) {
	t.Helper()
	dead, _ := s.questions()
	for i, l := range lists {
		for _, q := range dead {
			require.Error(t, l.Check(t.Context(), &q), "list %d: %s of %s", i, q.SessionID, q.Subject)
		}
	}
}

// right fails the test unless a list knows what is dead and what is live.
func (s *site) right(t *testing.T, lists ...*revoke.List) {
	t.Helper()
	dead, live := s.questions()
	for i, l := range lists {
		for _, q := range dead {
			require.Equal(t, revoke.ErrRevoked, l.Check(t.Context(), &q), "list %d: %s of %s", i, q.SessionID, q.Subject)
		}
		for _, q := range live {
			require.NoError(t, l.Check(t.Context(), &q), "list %d: %s of %s", i, q.SessionID, q.Subject)
		}
	}
}

// signIn fails the test unless a session can begin at a list and be live there.
func signIn(t *testing.T, l *revoke.List) {
	t.Helper()
	require.False(t, revoked(t, l, "new", "new user", "kid", begin(t, l, "new user")))
}

// A store that lost its data gets back what running lists know, and their
// birth mark last; lists that start meanwhile cannot tell about older sessions,
// and sign-ins go on.
func TestEmptiedStore(t *testing.T) {
	for _, first := range []struct {
		name  string
		waits time.Duration
	}{{"a new list comes first", 0}, {"the running lists come first", 3 * time.Second}} {
		t.Run(first.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t)
				was := births(s.copy())
				// Each list alone knows of a few, which no other has read.
				for i, l := range s.lists {
					require.NoError(t, l.RevokeSession(t.Context(), fmt.Sprint("just now ", i)))
				}
				justNow := func(l *revoke.List) {
					for i := range s.lists {
						require.Error(t, ask(t, l, fmt.Sprint("just now ", i), "x", "kid", s.begun), "just now %d", i)
					}
				}
				s.become(nil)
				time.Sleep(first.waits)
				one := running(t, s.server)
				for range 300 {
					s.never(t, append(s.lists, one)...)
					justNow(one)
					time.Sleep(10 * time.Millisecond)
					signIn(t, one)
					signIn(t, s.lists[0])
				}
				two := running(t, s.server)
				justNow(two)
				time.Sleep(3 * time.Second)
				s.right(t, append(s.lists, one, two)...)
				require.Equal(t, was[0].Before, two.Status().Birth)
				log := s.copy()
				for i, e := range log {
					if e.Digest == was[0].Digest {
						distinct := map[string]bool{}
						for _, e := range log[:i] {
							if e.Scope != revoke.Birth {
								distinct[fmt.Sprint(e)] = true
							}
						}
						require.Len(t, distinct, 30+7+5, "the mark is last")
						break
					}
				}
			})
		})
	}
}

// A list that starts on an emptied store cannot tell about older sessions, for as
// long as others may bring back what they know; then those are revoked. Sign-ins
// never wait.
func TestOlderThanTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		l := running(t, new(server)) // as after all five have crashed

		s.never(t, l)
		_, live := s.questions()
		for range 10 {
			signIn(t, l)
			err := l.Check(t.Context(), &live[0])
			require.Error(t, err, "it cannot tell")
			_, err = l.Begin(t.Context(), revoke.Question{Subject: "ada", Began: s.begun})
			require.ErrorIs(t, err, revoke.ErrRevoked, "a login from before is begun again")
			time.Sleep(time.Minute)
		}
		require.Equal(t, revoke.ErrRevoked, l.Check(t.Context(), &live[0]))
		signIn(t, l)
	})
}

// A backup lacks what was revoked since: running lists bring it back.
func TestRestoredBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		backup := s.copy()[:10]
		require.NotEmpty(t, births(backup))
		s.become(backup)
		time.Sleep(time.Second) // one reading
		one := running(t, s.server)
		s.right(t, append(s.lists, one)...)
		two := running(t, s.server)
		time.Sleep(2 * time.Second)
		s.right(t, append(s.lists, one, two)...)
		require.Len(t, births(s.copy()), 1, "no other mark")
		signIn(t, two)
	})
}

// Another environment's store is not written to, and not believed; when the right
// one is back, all goes on.
func TestForeignStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		other := new(server)
		theirs := running(t, other)
		time.Sleep(time.Minute)
		require.NoError(t, theirs.RevokeSession(t.Context(), "theirs"))
		time.Sleep(time.Hour)
		require.NoError(t, s.lists[0].RevokeSession(t.Context(), "out 0"))
		time.Sleep(time.Second)

		foreign := other.copy()
		ours := s.become(foreign)
		time.Sleep(1500 * time.Millisecond)
		var meanwhile []time.Time
		for range 60 {
			for _, l := range s.lists {
				s.never(t, l)
				err := ask(t, l, "sid", "ada", "kid", s.begun)
				require.Error(t, err)
				now, err := l.Now(t.Context())
				require.NoError(t, err)
				require.WithinDuration(t, time.Now(), now, 100*time.Millisecond)
				begun := begin(t, l, "grace") // who signs in now can go on when the store is back
				err = ask(t, l, "new", "grace", "kid", begun)
				require.Error(t, err)
				meanwhile = append(meanwhile, begun)
				require.True(t, l.Status().Foreign)
				require.EqualValues(t, 1, l.Metrics()["revocation_foreign_store"])
			}
			require.Error(t, s.lists[0].RevokeSession(t.Context(), "late"))
			require.Error(t, s.lists[1].RevokeSubject(t.Context(), "ada"))
			time.Sleep(time.Second)
		}
		require.Equal(t, foreign, s.copy(), "nothing is written")

		s.become(ours)
		time.Sleep(10 * time.Second)
		require.True(t, revoked(t, s.lists[2], "late", "x", "kid", s.begun), "what was owed is written now")
		require.True(t, revoked(t, s.lists[2], "sid", "ada", "kid", s.begun))
		require.False(t, revoked(t, s.lists[2], "theirs", "x", "kid", s.begun))
		for _, l := range s.lists {
			require.False(t, l.Status().Foreign)
			s.never(t, l)
			signIn(t, l)
			for _, begun := range meanwhile {
				require.False(t, revoked(t, l, "new", "grace", "kid", begun))
			}
		}
	})
}

// What is owed while the store is away is not written to another one that comes
// in its place.
func TestOwedGoesToNoForeignStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		at := time.Now().Add(-time.Hour).UTC().Truncate(time.Millisecond)
		foreign := []revoke.Entry{{Scope: revoke.Birth, Digest: revoke.Digest{1}, Before: at, Until: at.AddDate(100, 0, 0)}}
		s.fail(true, true)
		for i, l := range s.lists {
			time.Sleep(time.Second)
			require.Error(t, l.RevokeSession(t.Context(), fmt.Sprint("late ", i)))
		}
		time.Sleep(10 * time.Second)
		ours := s.become(foreign)
		s.fail(true, false) // it can be written first
		time.Sleep(10 * time.Second)
		require.Equal(t, foreign, s.copy())
		s.fail(false, false)
		time.Sleep(10 * time.Second)
		require.Equal(t, foreign, s.copy())
		s.become(ours)
		time.Sleep(10 * time.Second)
		for _, l := range s.lists {
			for i := range s.lists {
				require.True(t, revoked(t, l, fmt.Sprint("late ", i), "x", "kid", s.begun))
			}
		}
	})
}

// The line says what to do, once a minute.
func TestForeignStoreIsLoud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		var log bytes.Buffer
		l := newList(t, s, func(c *revoke.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		stop := run(t, l)
		time.Sleep(time.Hour)
		at := time.Now().Add(-time.Minute).UTC()
		s.become([]revoke.Entry{{Scope: revoke.Birth, Digest: revoke.Digest{1}, Before: at, Until: at.AddDate(100, 0, 0)}})
		time.Sleep(150 * time.Second)
		stop()
		require.Equal(t, 3, strings.Count(log.String(), "reason=foreign_store"), log.String())
	})
}

// A mark that was made after the list's last good reading is one of a list that
// came first on an emptied store.
func TestYoungStoreIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		was := births(s.copy())[0]
		s.become(nil)
		one := newList(t, s.server) // before any of the five has read
		signIn(t, one)
		synctest.Wait()
		require.NotEqual(t, was.Digest, births(s.copy())[0].Digest)
		time.Sleep(4 * time.Second)
		require.Contains(t, s.copy(), was)
		for _, l := range s.lists {
			require.False(t, l.Status().Foreign)
		}
		time.Sleep(2 * time.Second)
		_ = begin(t, one, "x")
		s.right(t, append(s.lists, one)...)
	})
}

// Lists that start at once on a new store each write a mark; the oldest counts.
// A store in memory has none.
func TestBirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		lists := []*revoke.List{running(t, s), running(t, s), running(t, s)}
		begun := begin(t, lists[2], "ada")
		time.Sleep(time.Second)
		log := births(s.copy())
		require.NotEmpty(t, log)
		for _, l := range lists {
			require.False(t, revoked(t, l, "sid", "ada", "", begun))
			require.Equal(t, lists[0].Status().Birth, l.Status().Birth)
		}
		time.Sleep(time.Hour)
		l := running(t, s)
		require.Equal(t, lists[0].Status().Birth, l.Status().Birth)
		require.Len(t, births(s.copy()), len(log), "no other one")

		m := new(revoke.MemStore)
		l = running(t, m)
		require.False(t, revoked(t, l, "sid", "ada", "", time.Now().Add(-time.Hour)))
		p, err := m.Since(t.Context(), "")
		require.NoError(t, err)
		require.Empty(t, p.Entries)
		require.Zero(t, l.Status().Birth)

		l = running(t, &struct{ revoke.MemStore }{})
		require.False(t, revoked(t, l, "sid", "ada", "", time.Now()))
		require.NotZero(t, l.Status().Birth, "a store that has one in memory is another one, and may be shared")
	})
}

// A mark that cannot be written is written later.
func TestBirthIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		s.writes.Store(down)
		l := running(t, s)
		signIn(t, l)
		time.Sleep(time.Minute)
		s.writes.Store(good)
		time.Sleep(6 * time.Second)
		p, err := s.Since(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, births(p.Entries), 1)
		require.Equal(t, l.Status().Birth, births(p.Entries)[0].Before)
	})
}

// A store that loses its data while it is written back gets it again.
func TestEmptiedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		for range 20 {
			s.become(nil)
			time.Sleep(137 * time.Millisecond)
		}
		time.Sleep(4 * time.Second)
		l := running(t, s.server)
		s.right(t, append(s.lists, l)...)
	})
}

// distant is a store that is some milliseconds away, now more and now less.
type distant struct{ *server }

func way() { time.Sleep(time.Duration(1+rand.IntN(10)) * time.Millisecond) }

func (d distant) Append(ctx context.Context, entries ...revoke.Entry) error {
	way()
	defer way()
	return d.server.Append(ctx, entries...)
}

func (d distant) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	way()
	defer way()
	return d.server.Since(ctx, cursor)
}

// TestFirstMomentsOfAStore: several replicas read an empty store at once, each
// makes a birth mark, and a user who signs in at one of them is served by all,
// at once and later.
func TestFirstMomentsOfAStore(t *testing.T) {
	for try := range 200 {
		apart := time.Duration(try%10) * time.Millisecond
		t.Run(fmt.Sprint(try), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(lastReading)
				s := distant{new(server)}
				var lists []*revoke.List
				for range 3 {
					l := newList(t, s)
					lists = append(lists, l)
					ctx, cancel := context.WithCancel(t.Context())
					t.Cleanup(cancel)
					go func() { _ = l.Run(ctx) }()
					time.Sleep(apart)
				}
				for i, l := range lists {
					begun, err := l.Begin(t.Context(), revoke.Question{Subject: "ada"})
					require.NoError(t, err)
					q := revoke.Question{SessionID: fmt.Sprint("session-", i), Subject: "ada", KeyID: "k", Began: begun}.Prepared()
					for j, other := range lists {
						require.NoError(t, other.Check(t.Context(), &q), "list %d about a session of list %d", j, i)
					}
				}
			})
		})
	}
}

// TestFirstSignInDoesNotWaitForABirth: a store that cannot be written yet keeps
// no user from signing in.
func TestFirstSignInDoesNotWaitForABirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(faulty)
		f.writes.Store(swallowed)
		l := newList(t, f)
		began := time.Now()
		_, err := l.Begin(t.Context(), revoke.Question{Subject: "ada"})
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 1100*time.Millisecond)
		time.Sleep(24 * time.Hour) // the writes return
	})
}

// What a store lacks is written back in batches, however often that fails in
// between, and the mark after all of it.
func TestWrittenBackInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		const n = 3000
		l := running(t, s)
		for i := range n {
			e := sessionEntry(fmt.Sprint(i))
			if i%3 == 0 {
				e = subjectEntry(fmt.Sprint(i), time.Now().Truncate(time.Millisecond), time.Now().Add(time.Hour).Truncate(time.Millisecond))
				e.Except = revoke.Session.Digest(fmt.Sprint("spared by ", i))
			}
			require.NoError(t, s.Append(t.Context(), e))
		}
		time.Sleep(2 * time.Second)
		require.Equal(t, n, l.Status().Entries)
		was := s.become(s.copy()[:100])
		s.stumble(true)
		time.Sleep(3 * time.Minute)
		s.stumble(false)
		require.Greater(t, l.Metrics()["revocation_write_failures_total"], 5.0)
		require.False(t, l.Status().Restoring)
		distinct := map[string]bool{}
		for _, e := range s.copy() {
			distinct[fmt.Sprint(e)] = true
		}
		require.Len(t, distinct, len(was))

		s.become(nil)
		time.Sleep(5 * time.Second)
		log := s.copy()
		require.Len(t, log, len(was))
		require.Equal(t, revoke.Birth, log[n].Scope)
		for _, e := range log {
			require.True(t, distinct[fmt.Sprint(e)])
		}
	})
}
