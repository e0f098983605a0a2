package revoke_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// Groups, and the ids of sessions that have them.
var (
	groupA = strings.Repeat("A", 16)
	groupB = "09azAZ-_09azAZ-_"
	groupC = strings.Repeat("C", 16)
)

func inGroups(groups ...string) string { return strings.Join(append(groups, "random"), ".") }

// beginIn returns when a session of a subject in groups begins.
func beginIn(t *testing.T, l *revoke.List, subject string, groups ...string) time.Time {
	t.Helper()
	begun, err := l.Begin(t.Context(), revoke.Question{Subject: subject, SessionID: inGroups(groups...)})
	require.NoError(t, err)
	return begun
}

// A group's end reaches its sessions that have begun by then, of any subject and
// whatever other groups they have, at every list; and no others.
func TestRevokeGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		time.Sleep(time.Hour)
		before := time.Now()
		time.Sleep(time.Minute)
		require.NoError(t, a.RevokeGroup(t.Context(), groupA))
		now, after := time.Now(), time.Now().Add(time.Millisecond)
		for _, l := range []*revoke.List{a, b} {
			for _, c := range []struct {
				name, sid string
				began     time.Time
				want      bool
			}{
				{"in the group", inGroups(groupA), before, true},
				{"the same moment", inGroups(groupA), now, true},
				{"begun later", inGroups(groupA), after, false},
				{"in two", inGroups(groupB, groupA), before, true},
				{"in four", inGroups(groupC, groupB, groupB, groupA), before, true},
				{"a sibling of another group", inGroups(groupB), before, false},
				{"without a group", "random", before, false},
				{"the group is the random part", groupA, before, false},
				{"the group is the random part behind one", groupB + "." + groupA, before, false},
				{"no random part", groupA + ".", before, false},
				{"five groups are none", inGroups(groupA, groupA, groupA, groupA, groupA), before, false},
				{"beside what is no group", inGroups("x", groupA), before, false},
				{"in other letters", inGroups(strings.ToLower(groupA)), before, false},
				{"garbage", groupA + "..random", before, false},
				{"empty", "", before, false},
			} {
				require.Equal(t, c.want, revoked(t, l, c.sid, "ada", "kid", c.began), c.name)
			}
			require.False(t, revoked(t, l, "sid", groupA, "kid", before), "a subject of that name")
			require.False(t, l.KeyRevoked(groupA))
			require.Equal(t, 1, l.Status().Entries)
			require.EqualValues(t, 1, l.Metrics()["revocation_entries"])
			time.Sleep(time.Second) // the bound on the others
		}
		log := revocations(t, s)
		require.Len(t, log, 1)
		require.Equal(t, revoke.Group, log[0].Scope)
		require.Equal(t, revoke.Group.Digest(groupA), log[0].Digest)
		require.False(t, log[0].Skip, "a list that does not know groups fails closed")
		require.Zero(t, log[0].Except)

		for _, bad := range []string{"", "x", groupA[1:], groupA + "A", groupA + ".", inGroups(groupA), groupA[1:] + "=", groupA[1:] + "é"} {
			require.Error(t, a.RevokeGroup(t.Context(), bad), "it would revoke nothing: %q", bad)
			begun, err := a.Begin(t.Context(), revoke.Question{Subject: "ada", SessionID: inGroups(groupA, bad), Began: before})
			require.NoError(t, err, "an id of another form has no groups: %q", bad)
			require.Equal(t, before.UnixMilli(), begun.UnixMilli())
		}
		require.Len(t, revocations(t, s), 1)
	})
}

// The next sign-in in a group that was revoked is accepted, at any list and
// within the same millisecond; what had begun before it is not.
func TestBeginAfterAGroupsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		a, b := running(t, s), running(t, s)
		lists := []*revoke.List{a, b}
		for i := range 20 {
			one, other := lists[i%2], lists[1-i%2]
			old := beginIn(t, other, "ada", groupB, groupA)
			time.Sleep(10 * time.Millisecond)
			require.NoError(t, one.RevokeGroup(t.Context(), groupA))
			fresh := beginIn(t, other, "ada", groupA, groupB) // no time has passed
			require.True(t, fresh.After(old))
			for _, l := range lists {
				beginIn(t, l, "another") // it has read the store
				require.True(t, revoked(t, l, inGroups(groupB, groupA), "ada", "kid", old))
				require.False(t, revoked(t, l, inGroups(groupA, groupB), "ada", "kid", fresh))
			}
			// A login that began before the mark ends with it.
			_, err := other.Begin(t.Context(), revoke.Question{Subject: "ada", SessionID: inGroups(groupB, groupA), Began: old})
			require.ErrorIs(t, err, revoke.ErrRevoked)
			begun, err := other.Begin(t.Context(), revoke.Question{Subject: "ada", SessionID: inGroups(groupB), Began: old})
			require.NoError(t, err, "of another group")
			require.Equal(t, old, begun)
		}
	})
}

// A session that begins 1 ms after the mark of one kind is reached by a mark of
// another kind that is made at the same moment, at another list.
func TestMarksReachBeyondEachOther(t *testing.T) {
	subject := func(l *revoke.List, t *testing.T) error { return l.RevokeSubject(t.Context(), "ada") }
	others := func(l *revoke.List, t *testing.T) error { return l.RevokeOthers(t.Context(), "ada", "mine") }
	group := func(name string) func(*revoke.List, *testing.T) error {
		return func(l *revoke.List, t *testing.T) error { return l.RevokeGroup(t.Context(), name) }
	}
	all := func(l *revoke.List, t *testing.T) error { return l.RevokeAll(t.Context(), time.Now()) }
	for _, c := range []struct {
		name          string
		first, second func(*revoke.List, *testing.T) error
	}{
		{"a group, then another", group(groupA), group(groupB)},
		{"a group, then the same", group(groupA), group(groupA)},
		{"a group, then the subject", group(groupA), subject},
		{"a group, then all but one", group(groupA), others},
		{"the subject, then a group", subject, group(groupB)},
		{"all but one, then a group", others, group(groupB)},
		{"everything, then a group", all, group(groupB)},
	} {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprint(c.name, ", the same list ", same), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := new(faulty)
					a, b := running(t, s), running(t, s)
					if same {
						b = a
					}
					time.Sleep(time.Minute)
					for range 5 {
						require.NoError(t, c.first(a, t))
						begun := beginIn(t, a, "ada", groupA, groupB)
						require.NoError(t, c.second(b, t))
						require.True(t, revoked(t, b, inGroups(groupA, groupB), "ada", "kid", begun))
						fresh := beginIn(t, b, "ada", groupA, groupB)
						require.False(t, revoked(t, b, inGroups(groupA, groupB), "ada", "kid", fresh))
					}
				})
			})
		}
	}
}

// Marks do not drive each other ahead of the clock: blocking many subjects in a
// moment makes no mark later than a millisecond after it.
func TestMarksDoNotRunAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		l := running(t, s)
		require.NoError(t, l.RevokeGroup(t.Context(), groupA))
		for i := range 1000 {
			require.NoError(t, l.RevokeSubject(t.Context(), fmt.Sprint("user ", i)))
		}
		for _, e := range revocations(t, s) {
			require.LessOrEqual(t, time.Until(e.Before), time.Millisecond)
		}
	})
}

// An entry of a group whose time is far ahead of the store's clock, as one of a
// clock that was set back, does not move the marks of others.
func TestGroupOfTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(faulty)
		far := time.Now().Add(time.Hour).UTC()
		require.NoError(t, s.Append(t.Context(), revoke.Entry{Scope: revoke.Group, Digest: revoke.Group.Digest(groupA), Before: far, Until: far.Add(time.Hour)}))
		l := running(t, s)
		require.NoError(t, l.RevokeSubject(t.Context(), "ada"))
		require.NoError(t, l.RevokeGroup(t.Context(), groupB))
		for _, e := range revocations(t, s)[1:] {
			require.WithinDuration(t, time.Now(), e.Before, 2*time.Millisecond)
		}
		require.Equal(t, far.Add(time.Millisecond), beginIn(t, l, "ada", groupA))
		require.NoError(t, l.RevokeGroup(t.Context(), groupA))
		require.True(t, revoked(t, l, inGroups(groupA), "ada", "kid", far.Add(time.Millisecond)), "its own marks reach beyond it")
	})
}

// Two lists that know two marks of a group agree on the later one, in whatever
// order they came.
func TestGroupMarksInAnyOrder(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	mark := func(at int) revoke.Entry {
		return revoke.Entry{Scope: revoke.Group, Digest: revoke.Group.Digest(groupA), Before: now.Add(time.Duration(at) * time.Millisecond), Until: now.Add(time.Hour)}
	}
	entries := []revoke.Entry{mark(1), mark(3), mark(2)}
	orders(len(entries), func(order []int) {
		s := new(revoke.MemStore)
		for _, i := range order {
			require.NoError(t, s.Append(t.Context(), entries[i]))
		}
		l := newList(t, s)
		require.True(t, revoked(t, l, inGroups(groupA), "ada", "kid", now.Add(3*time.Millisecond)))
		require.False(t, revoked(t, l, inGroups(groupA), "ada", "kid", now.Add(4*time.Millisecond)))
	})
}

// Asking about a session with groups allocates nothing.
func TestAskingAboutGroupsAllocatesNothing(t *testing.T) {
	l := newList(t, new(revoke.MemStore))
	require.NoError(t, l.RevokeGroup(t.Context(), groupC))
	q := revoke.Question{SessionID: inGroups(groupA, groupB), Subject: "ada", KeyID: "kid", Began: time.Now()}.Prepared()
	err := l.Check(t.Context(), &q)
	require.NoError(t, err)
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		if _, live := l.Live(&q); !live {
			t.Error("not live")
		}
		if err := l.Check(ctx, &q); err != nil {
			t.Error(err)
		}
	})
	require.Zero(t, allocs)
}

// A revocation is remembered for MaxSession, the 10 minutes that a login at a
// provider may take, and MaxSkew, however short MaxSession and however long
// MaxSkew is. An id that is of no session, such as that of a logout token, is
// known for as long.
func TestRememberedBeyondALogin(t *testing.T) {
	for _, c := range []struct {
		name             string
		maxSession, skew time.Duration
	}{
		{"a short session", time.Second, time.Minute},
		{"the defaults", 24 * time.Hour, time.Minute},
		{"clocks far apart", time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(faulty)
				l := running(t, s, func(cfg *revoke.Config) { cfg.MaxSession, cfg.MaxSkew = c.maxSession, c.skew })
				time.Sleep(2 * time.Hour)
				began := time.Now()
				require.NoError(t, l.RevokeGroup(t.Context(), groupA))
				require.NoError(t, l.RevokeSession(t.Context(), groupB))
				time.Sleep(c.maxSession + 10*time.Minute + c.skew - time.Millisecond)
				for _, sid := range []string{inGroups(groupA), groupB} {
					require.True(t, revoked(t, l, sid, "ada", "kid", began), "at the list that revoked it")
					require.True(t, revoked(t, running(t, s), sid, "ada", "kid", began), "at one that starts")
				}
				time.Sleep(3 * time.Minute)
				for _, sid := range []string{inGroups(groupA), groupB} {
					require.False(t, revoked(t, running(t, s), sid, "ada", "kid", began), "not for ever")
				}
			})
		})
	}
}
