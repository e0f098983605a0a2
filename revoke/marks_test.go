package revoke_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// orders calls f with every order of 0..n-1.
func orders(n int, f func([]int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var walk func(k int)
	walk = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			walk(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	walk(0)
}

// Marks of one subject, of everything, and of its sessions, in every order of
// arrival and with duplicates, at one list or in pieces, give the answer that the
// rule gives: a session is revoked if some mark is not before its beginning and
// does not spare it.
func TestOrderDoesNotMatter(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	sids := []string{"A", "B", "C", "D"}
	times := 6
	mark := func(except string, at int) revoke.Entry {
		e := subjectEntry("ada", now.Add(time.Duration(at)*time.Millisecond), now.Add(time.Hour))
		if except != "" {
			e.Except = revoke.Session.Digest(except)
		}
		return e
	}
	rows := map[string][]revoke.Entry{
		"all, all but A, all but B, session": {mark("", 1), mark("A", 3), mark("B", 4), sessionEntry("C")},
		"same times":                         {mark("A", 3), mark("B", 3), mark("C", 3), mark("", 1)},
		"same exception":                     {mark("A", 1), mark("A", 4), mark("B", 2), mark("B", 3)},
		"an old one of all":                  {mark("A", 4), mark("", 3), mark("B", 2), mark("C", 1)},
		"a new one of all":                   {mark("", 5), mark("A", 4), mark("B", 3), mark("", 1)},
		"everything":                         {{Scope: revoke.All, Before: now.Add(2 * time.Millisecond), Until: now.Add(time.Hour)}, {Scope: revoke.All, Before: now, Until: now.Add(time.Hour)}, mark("A", 3), mark("B", 4)},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 60 {
		var row []revoke.Entry
		for range 4 {
			row = append(row, mark([]string{"", "A", "B", "C"}[r.IntN(4)], r.IntN(times)))
		}
		rows[fmt.Sprint("random ", n)] = row
	}
	for name, entries := range rows {
		t.Run(name, func(t *testing.T) {
			right := func(sid string, at int) bool {
				for _, e := range entries {
					reaches := !now.Add(time.Duration(at) * time.Millisecond).After(e.Before)
					switch e.Scope {
					case revoke.Session:
						reaches = e.Digest == revoke.Session.Digest(sid)
					case revoke.Subject:
						reaches = reaches && e.Except != revoke.Session.Digest(sid)
					}
					if reaches {
						return true
					}
				}
				return false
			}
			orders(len(entries), func(order []int) {
				s := new(revoke.MemStore)
				l := newList(t, s)
				for i, n := range order {
					require.NoError(t, s.Append(t.Context(), entries[n]))
					if i%2 == 0 { // it is read in pieces, and some of it twice
						begin(t, l, "x")
						require.NoError(t, s.Append(t.Context(), entries[order[0]]))
					}
				}
				begin(t, l, "x")
				for _, sid := range sids {
					for at := range times + 1 {
						if got, want := revoked(t, l, sid, "ada", "", now.Add(time.Duration(at)*time.Millisecond)), right(sid, at); got != want {
							t.Fatalf("order %v: session %s begun at %d: revoked is %v", order, sid, at, got)
						}
					}
				}
				require.True(t, begin(t, l, "ada").After(now.Add(-time.Millisecond)))
			})
		})
	}
}
