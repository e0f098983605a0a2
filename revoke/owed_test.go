package revoke_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// A sign-out that failed is owed: it is neither live nor revoked, the
// repetition writes it again, and nil means that the store has it.
func TestFailedRevocationIsOwed(t *testing.T) {
	began := func() time.Time { return time.Now().Add(-time.Minute) }
	for _, row := range []struct {
		name   string
		revoke func(*revoke.List, context.Context) error
		q      func() revoke.Question // that it reaches
		spared func() revoke.Question // that it does not
	}{
		{"session", func(l *revoke.List, ctx context.Context) error { return l.RevokeSession(ctx, "sid") },
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: time.Now().Add(time.Hour)}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: "other", Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			}},
		{"subject", func(l *revoke.List, ctx context.Context) error { return l.RevokeSubject(ctx, "ada") },
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: time.Now().Add(time.Hour)}.Prepared()
			}},
		{"others", func(l *revoke.List, ctx context.Context) error { return l.RevokeOthers(ctx, "ada", "mine") },
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: "mine", Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			}},
		{"group", func(l *revoke.List, ctx context.Context) error { return l.RevokeGroup(ctx, groupA) },
			func() revoke.Question {
				return revoke.Question{SessionID: inGroups(groupB, groupA), Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: inGroups(groupA), Subject: "ada", KeyID: "kid", Began: time.Now().Add(time.Hour)}.Prepared()
			}},
		{"sibling of a group", func(l *revoke.List, ctx context.Context) error { return l.RevokeGroup(ctx, groupA) },
			func() revoke.Question {
				return revoke.Question{SessionID: inGroups(groupA), Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: inGroups(groupB), Subject: "ada", KeyID: "kid", Began: began()}.Prepared()
			}},
		{"key", func(l *revoke.List, ctx context.Context) error { return l.RevokeKey(ctx, "kid", time.Time{}) },
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: time.Now().Add(time.Hour)}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid-2", Began: began()}.Prepared()
			}},
		{"all", func(l *revoke.List, ctx context.Context) error { return l.RevokeAll(ctx, began()) },
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: began().Add(-time.Hour)}.Prepared()
			},
			func() revoke.Question {
				return revoke.Question{SessionID: "sid", Subject: "ada", KeyID: "kid", Began: time.Now()}.Prepared()
			}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				a, b := newList(t, s), running(t, s)
				time.Sleep(2 * time.Hour) // all of that is long after the birth
				at, spared := row.q(), row.spared()
				require.NoError(t, a.Check(t.Context(), &at))

				s.writes.Store(down)
				require.ErrorIs(t, row.revoke(a, t.Context()), errDown)
				for range 3 {
					err := a.Check(t.Context(), &at)
					require.ErrorIs(t, err, revoke.ErrOwed)
					require.NotErrorIs(t, err, revoke.ErrRevoked)
					require.NoError(t, a.Check(t.Context(), &spared))
					require.Equal(t, 1, a.Status().Owed)
					require.EqualValues(t, 1, a.Metrics()["revocation_owed"])
					require.Error(t, row.revoke(a, t.Context()), "repeated")
				}
				require.Empty(t, revocations(t, &s.MemStore))

				s.writes.Store(good)
				require.NoError(t, row.revoke(a, t.Context()), "at once")
				require.NotEmpty(t, revocations(t, &s.MemStore))
				require.Zero(t, a.Status().Owed)
				time.Sleep(time.Second)
				for _, l := range []*revoke.List{a, b} {
					require.Equal(t, revoke.ErrRevoked, l.Check(t.Context(), &at))
					require.NoError(t, l.Check(t.Context(), &spared))
				}
			})
		})
	}
}

// What was acknowledged is not written twice, and repeating is nil.
func TestAcknowledgedIsNotWrittenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := newList(t, s), newList(t, s)
		for range 3 {
			require.NoError(t, a.RevokeSession(t.Context(), "sid"))
		}
		require.False(t, revoked(t, b, "x", "", "", time.Now()))
		require.NoError(t, b.RevokeSession(t.Context(), "sid"), "also if another replica wrote it")
		require.Len(t, revocations(t, s), 1)
		s.mode.Store(down)
		require.NoError(t, a.RevokeSession(t.Context(), "sid"))
	})
}

// Calls that revoke one session at once share one write.
func TestConcurrentRevocationsShareAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowWrites{takes: 300 * time.Millisecond}
		l := newList(t, s)
		require.False(t, revoked(t, l, "sid", "", "", time.Now()))
		synctest.Wait()
		time.Sleep(time.Second)
		before := s.appends.Load()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := l.RevokeSession(t.Context(), "sid"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, s.appends.Load()-before)
		require.Len(t, revocations(t, s), 1)
	})
}

// slowWrites is a store that takes its time to write.
type slowWrites struct {
	faulty
	takes time.Duration
}

func (s *slowWrites) Append(ctx context.Context, entries ...revoke.Entry) error {
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.faulty.Append(ctx, entries...)
}

// A user who signs out and closes the tab is signed out.
func TestRevokingOutlivesTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowWrites{takes: 300 * time.Millisecond}
		l := newList(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.NoError(t, l.RevokeSession(ctx, "sid"))
		require.Len(t, revocations(t, s), 1)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		require.NoError(t, l.RevokeSubject(ended, "ada"))
		require.Len(t, revocations(t, s), 2)
	})
}

// What is owed is written again by Run, and by questions alone if it does not
// run; in between a pause that grows.
func TestOwedIsWrittenAgain(t *testing.T) {
	for _, runs := range []bool{true, false} {
		t.Run(fmt.Sprint("run ", runs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l, b := newList(t, s), running(t, s)
				if runs {
					run(t, l)
				}
				require.False(t, revoked(t, l, "other", "", "", time.Now()))
				synctest.Wait()
				s.writes.Store(down)
				require.Error(t, l.RevokeSession(t.Context(), "sid"))
				require.Error(t, l.RevokeSubject(t.Context(), "ada"))
				before := s.appends.Load()
				for range 60 { // questions about another session
					require.False(t, revoked(t, l, "other", "", "", time.Now()))
					time.Sleep(time.Second)
				}
				n := s.appends.Load() - before
				require.Greater(t, n, int64(10))
				require.Less(t, n, int64(30), "a pause that grows")
				s.writes.Store(good)
				for range 8 {
					require.False(t, revoked(t, l, "other", "", "", time.Now()))
					time.Sleep(time.Second)
				}
				require.Zero(t, l.Status().Owed)
				require.True(t, revoked(t, b, "sid", "", "", time.Now()))
				require.Len(t, revocations(t, s), 2)
			})
		})
	}
}

// The repetition does not wait for the pause after a failure, not even if the
// list has not read its store for long.
func TestRepeatedAtOnceAfterAnOutage(t *testing.T) {
	for _, runs := range []bool{true, false} {
		t.Run(fmt.Sprint("run ", runs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l := newList(t, s)
				if runs {
					run(t, l)
				}
				require.False(t, revoked(t, l, "sid", "", "", time.Now()))
				synctest.Wait()
				s.mode.Store(down)
				for range 60 {
					require.Error(t, l.RevokeSession(t.Context(), "sid"))
					time.Sleep(time.Second)
				}
				s.mode.Store(good)
				require.NoError(t, l.RevokeSession(t.Context(), "sid"))
				require.True(t, revoked(t, l, "sid", "", "", time.Now()))
			})
		})
	}
}

// Run writes what is owed when its context ends.
func TestRunFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		l := newList(t, s)
		stop := run(t, l)
		s.writes.Store(down)
		require.Error(t, l.RevokeSession(t.Context(), "sid"))
		go func() {
			time.Sleep(2 * time.Second)
			s.writes.Store(good)
		}()
		began := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(began), 5*time.Second)
		require.Len(t, revocations(t, s), 1)

		s.writes.Store(swallowed)
		l = newList(t, s)
		stop = run(t, l)
		require.Error(t, l.RevokeSession(t.Context(), "sid-2"))
		began = time.Now()
		stop()
		require.LessOrEqual(t, time.Since(began), 6*time.Second, "and does not wait for ever")
		time.Sleep(13 * time.Hour) // what hangs returns
	})
}

// A write that hangs, whatever becomes of its context, ends for the caller within
// 5 s; it holds up neither the next one, nor more than three goroutines.
func TestWriteThatHangs(t *testing.T) {
	for _, mode := range []int32{hung, swallowed} {
		t.Run(fmt.Sprint("mode ", mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l := newList(t, s)
				before := runtime.NumGoroutine()
				s.writes.Store(mode)
				calls := 2
				if mode == swallowed {
					calls = 1 // two writes hang after that, and three may
				}
				for i := range calls {
					began := time.Now()
					require.Error(t, l.RevokeSession(t.Context(), fmt.Sprint(i)))
					require.LessOrEqual(t, time.Since(began), 5*time.Second)
					require.Positive(t, time.Since(began))
				}
				require.Equal(t, calls, l.Status().Owed)
				s.writes.Store(good)
				require.NoError(t, l.RevokeSession(t.Context(), "0"))
				require.True(t, revoked(t, l, "0", "", "", time.Now()))

				run(t, l)
				s.writes.Store(mode)
				require.Error(t, l.RevokeSession(t.Context(), "2"))
				err := ask(t, l, "2", "", "", time.Now())
				require.ErrorIs(t, err, revoke.ErrOwed)
				require.False(t, revoked(t, l, "x", "", "", time.Now()), "others are not concerned")
				s.writes.Store(mode)
				for i := range 50 {
					_ = l.RevokeSession(t.Context(), fmt.Sprint("more ", i))
					time.Sleep(10 * time.Second)
				}
				require.LessOrEqual(t, runtime.NumGoroutine(), before+10)
				s.writes.Store(good)
				time.Sleep(7 * time.Hour)
				require.Zero(t, l.Status().Owed)
			})
		})
	}
}

// A revocation of a list that does not know the time yet is owed too, and gets
// its time from the first reading.
func TestRevokingBeforeTheFirstReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		b := running(t, s)
		begun := begin(t, b, "ada")
		s.mode.Store(down)
		a := running(t, s)
		require.Error(t, a.RevokeSession(t.Context(), "sid"))
		require.Error(t, a.RevokeSubject(t.Context(), "ada"))
		require.Error(t, a.RevokeOthers(t.Context(), "bob", "mine"))
		require.Error(t, a.RevokeGroup(t.Context(), groupA))
		require.Error(t, a.RevokeAll(t.Context(), time.Now().Add(-time.Hour)))
		require.Equal(t, 4, a.Status().Owed, "without the time, RevokeAll does nothing")
		time.Sleep(time.Minute)
		s.mode.Store(good)
		time.Sleep(10 * time.Second)
		require.Zero(t, a.Status().Owed)
		for _, l := range []*revoke.List{a, b} {
			require.True(t, revoked(t, l, "sid", "", "", time.Now()))
			require.True(t, revoked(t, l, "x", "ada", "", begun))
			require.False(t, revoked(t, l, "mine", "bob", "", begun))
			require.True(t, revoked(t, l, "x", "bob", "", begun))
			require.False(t, revoked(t, l, "x", "ada", "", begin(t, l, "ada")))
			require.True(t, revoked(t, l, inGroups(groupA), "eve", "", begun))
			require.False(t, revoked(t, l, inGroups(groupA), "eve", "", beginIn(t, l, "eve", groupA)))
		}
	})
}
