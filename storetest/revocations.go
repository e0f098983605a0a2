package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// Revocations tests a store of what was revoked.
func Revocations(t *testing.T, open func(t *testing.T) (a, b revoke.Store)) {
	run := cases(t, "Revocations", open)
	session := func(value string) revoke.Entry {
		now := time.Now().UTC().Truncate(time.Millisecond)
		return revoke.Entry{
			Namespace: "ns", Scope: revoke.Session, Digest: revoke.Session.Digest(value),
			Before: now, Until: now.Add(time.Hour),
		}
	}
	// all reads the entries after cursor, page by page, in order.
	all := func(t *testing.T, s revoke.Store, cursor string) (entries []revoke.Entry, next string, reset bool) {
		t.Helper()
		for first := true; ; first = false {
			p, err := s.Since(t.Context(), cursor)
			check(t, err)
			if p.Time.IsZero() {
				t.Fatal("a page tells no time")
			}
			if len(p.Entries) > 10_000 {
				t.Fatalf("a page has %d entries", len(p.Entries))
			}
			if p.Reset && !first {
				t.Fatal("a cursor of the page before is not known")
			}
			reset = reset || p.Reset
			entries = append(entries, p.Entries...)
			if !p.More {
				return entries, p.Next, reset
			}
			if p.Next == cursor {
				t.Fatal("there is more, and no other cursor to read it with")
			}
			cursor = p.Next
		}
	}
	// distinct drops repeated entries and keeps the order.
	distinct := func(entries []revoke.Entry) (out []revoke.Entry) {
		seen := map[string]bool{}
		for _, e := range entries {
			id := fmt.Sprint(e)
			if !seen[id] {
				seen[id] = true
				out = append(out, e)
			}
		}
		return out
	}
	since := func(t *testing.T, s revoke.Store, cursor string) ([]revoke.Entry, string) {
		t.Helper()
		entries, next, reset := all(t, s, cursor)
		if reset {
			t.Fatalf("the cursor %q, which the store gave, is not known", cursor)
		}
		return distinct(entries), next
	}

	run("empty", "an empty store has a cursor too, and the first entry comes after it", func(t *testing.T, a, _ revoke.Store) {
		got, next := since(t, a, "")
		if len(got) != 0 {
			t.Fatal("an empty store has entries")
		}
		if got, next = since(t, a, next); len(got) != 0 {
			t.Fatal("an empty store has entries")
		}
		check(t, a.Append(t.Context(), session("x")))
		if got, _ = since(t, a, next); len(got) != 1 {
			t.Fatal("the first entry does not follow the cursor of the empty store")
		}
	})
	run("what is added is returned", "every field comes back as it was, times to the millisecond, and in the order of Append", func(t *testing.T, a, b revoke.Store) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		var want []revoke.Entry
		for i, value := range hostile {
			for _, scope := range []revoke.Scope{revoke.Session, revoke.Subject, revoke.Group, revoke.Key, revoke.Birth, "planet"} {
				want = append(want, revoke.Entry{
					Namespace: value, Scope: scope, Digest: scope.Digest(value),
					Before: now.Add(time.Duration(i) * time.Millisecond), Until: now.Add(time.Hour + time.Duration(i)*time.Millisecond),
					Skip: scope == "planet" && i%2 == 0,
				})
			}
		}
		want = append(want,
			revoke.Entry{Namespace: "ns", Scope: revoke.Subject, Digest: revoke.Subject.Digest("ada"), Except: revoke.Session.Digest("s"), Before: now, Until: now.Add(time.Hour)},
			revoke.Entry{Namespace: "ns", Scope: revoke.Subject, Digest: revoke.Subject.Digest("ada"), Except: revoke.Session.Digest("t"), Before: now, Until: now.Add(time.Hour)},
			revoke.Entry{Scope: revoke.All, Before: now, Until: now.Add(time.Hour)},
			revoke.Entry{Namespace: strings.Repeat("n", 255), Scope: revoke.All, Before: now.Add(-time.Hour), Until: now.Add(100 * 365 * 24 * time.Hour)},
		)
		half := len(want) / 2
		check(t, a.Append(t.Context(), want[:half]...))
		for _, e := range want[half:] {
			check(t, a.Append(t.Context(), e))
		}
		got, _ := since(t, b, "")
		if len(got) != len(want) {
			t.Fatalf("%d entries of %d", len(got), len(want))
		}
		for i, w := range want {
			g := got[i]
			if !g.Before.Equal(w.Before) || !g.Until.Equal(w.Until) {
				t.Fatalf("entry %d: %v to %v came back as %v to %v", i, w.Before, w.Until, g.Before, g.Until)
			}
			g.Before, g.Until = w.Before, w.Until
			if !reflect.DeepEqual(g, w) {
				t.Fatalf("entry %d: %+v came back as %+v", i, w, g)
			}
		}
	})
	run("marks of changed states", "an entry that is skipped where its scope is not known is kept, paged and dropped as any other, however far its Before is from the time", func(t *testing.T, a, b revoke.Store) {
		now := time.Now().UTC().Truncate(time.Millisecond)
		mark := func(subject string, number, until time.Time) revoke.Entry {
			return revoke.Entry{Namespace: "ns", Scope: revoke.Changed, Digest: revoke.Subject.Digest(subject), Before: number, Until: until, Skip: true}
		}
		// Numbers are ahead of the time where marks are many: by 1 ms each.
		var want []revoke.Entry
		for i := range 2000 {
			number := now.Add(time.Duration(i) * time.Millisecond)
			want = append(want, mark("busy", number, number.Add(time.Hour)))
		}
		want = append(want,
			mark("past", now.Add(-24*time.Hour), now.Add(time.Minute)),
			mark("ahead", now.Add(30*24*time.Hour), now.Add(31*24*time.Hour)),
			mark("first", time.UnixMilli(1).UTC(), now.Add(time.Hour)),
			mark("last", time.UnixMilli(253402300799999).UTC(), now.Add(time.Hour)),
		)
		over := mark("over", now.Add(30*24*time.Hour), now.Add(-2*time.Hour))
		cursor, seen := "", 0
		for _, part := range [][]revoke.Entry{want[:1], append([]revoke.Entry{over}, want[1:1000]...), want[1000:]} {
			check(t, a.Append(t.Context(), part...))
			var got []revoke.Entry
			got, cursor = since(t, b, cursor)
			for _, g := range got {
				g.Before, g.Until = g.Before.UTC(), g.Until.UTC()
				switch {
				case g.Digest == over.Digest:
				case seen < len(want) && reflect.DeepEqual(g, want[seen]):
					seen++
				case !slices.Contains(want[:seen], g): // it may come again
					t.Fatalf("%d entries came back as they were, and then %+v", seen, g)
				}
			}
		}
		if seen != len(want) {
			t.Fatalf("%d entries of %d", seen, len(want))
		}
		got, _ := since(t, b, "") // as a replica that starts
		n := 0
		for _, g := range got {
			if g.Digest != over.Digest {
				n++
			}
		}
		if n != len(want) {
			t.Fatalf("a replica that starts reads %d entries of %d", n, len(want))
		}
	})
	run("many at once", "Append takes a thousand entries, and keeps their order", func(t *testing.T, a, b revoke.Store) {
		var want []revoke.Entry
		for i := range 1000 {
			want = append(want, session(fmt.Sprint(i)))
		}
		check(t, a.Append(t.Context(), want...))
		check(t, a.Append(t.Context()))
		got, _ := since(t, b, "")
		if len(got) != len(want) {
			t.Fatalf("%d entries of %d", len(got), len(want))
		}
		for i := range want {
			if got[i].Digest != want[i].Digest {
				t.Fatalf("entry %d is another one", i)
			}
		}
	})
	run("pages are bounded", "a page has at most 10,000 entries, and the next one goes on where it ended", func(t *testing.T, a, b revoke.Store) {
		const n = 10_500
		var want []revoke.Entry
		for i := range n {
			want = append(want, session(fmt.Sprint(i)))
		}
		check(t, a.Append(t.Context(), want...))
		got, _ := since(t, b, "")
		if len(got) != n {
			t.Fatalf("%d entries of %d", len(got), n)
		}
		for i := range want {
			if got[i].Digest != want[i].Digest {
				t.Fatalf("entry %d is another one", i)
			}
		}
	})
	run("slices are copied", "the caller may change what it passed and what it got", func(t *testing.T, a, b revoke.Store) {
		entries := []revoke.Entry{session("x"), session("y")}
		want := []revoke.Entry{entries[0], entries[1]}
		check(t, a.Append(t.Context(), entries...))
		clear(entries)
		for range 2 {
			p, err := b.Since(t.Context(), "")
			check(t, err)
			if !reflect.DeepEqual(distinct(p.Entries), want) {
				t.Fatalf("%+v came back as %+v", want, p.Entries)
			}
			clear(p.Entries)
		}
	})
	run("a cursor misses nothing", "when Append has returned, every later Since returns the entry, on every replica", func(t *testing.T, a, b revoke.Store) {
		cursor, seen := "", map[revoke.Digest]bool{}
		for i := range 50 {
			check(t, a.Append(t.Context(), session(fmt.Sprint(i))))
			if i%7 == 0 {
				var got []revoke.Entry
				got, cursor = since(t, b, cursor)
				for _, e := range got {
					seen[e.Digest] = true
				}
				if len(seen) != i+1 {
					t.Fatalf("%d of %d entries", len(seen), i+1)
				}
			}
		}
	})
	run("adding twice", "a caller repeats Append after an error: an entry may be there twice, and means the same", func(t *testing.T, a, _ revoke.Store) {
		e := session("again")
		check(t, a.Append(t.Context(), e, e))
		check(t, a.Append(t.Context(), e))
		if got, _ := since(t, a, ""); len(got) != 1 {
			t.Fatalf("%d entries", len(got))
		}
	})
	run("one digest, several entries", "entries that differ in anything are all kept", func(t *testing.T, a, b revoke.Store) {
		e := session("x")
		later, other, longer := e, e, e
		later.Before = later.Before.Add(time.Millisecond)
		other.Namespace = "other"
		longer.Until = longer.Until.Add(time.Hour)
		want := []revoke.Entry{e, later, other, longer}
		check(t, a.Append(t.Context(), want...))
		if got, _ := since(t, b, ""); len(got) != len(want) {
			t.Fatalf("%d entries of %d", len(got), len(want))
		}
	})
	run("a caller that gives up", "a write that timed out may have happened, and can be repeated", func(t *testing.T, a, b revoke.Store) {
		for i := range 10 {
			e := session(fmt.Sprint(i))
			hasty(t, func(ctx context.Context) error { return a.Append(ctx, e) })
		}
		if got, _ := since(t, b, ""); len(got) != 10 {
			t.Fatalf("%d entries of 10", len(got))
		}
	})
	run("times that differ", "what counts is the order in which entries are added, whatever times they hold", func(t *testing.T, a, b revoke.Store) {
		cursor := ""
		for i, ahead := range []time.Duration{0, time.Hour, -30 * time.Minute, 20 * time.Hour, -time.Second, 0} {
			e := session(fmt.Sprint(i))
			e.Before, e.Until = e.Before.Add(ahead), e.Until.Add(ahead)
			check(t, a.Append(t.Context(), e))
			var got []revoke.Entry
			got, cursor = since(t, b, cursor)
			if len(got) == 0 || got[len(got)-1].Digest != e.Digest {
				t.Fatalf("an entry of a time that is %v ahead is passed over", ahead)
			}
		}
		if got, _ := since(t, b, ""); len(got) != 6 {
			t.Fatalf("%d entries of 6", len(got))
		}
	})
	run("an unknown cursor means all", "a cursor that the store does not know means all, and is told as Reset; an empty one is no reset", func(t *testing.T, a, _ revoke.Store) {
		check(t, a.Append(t.Context(), session("x")))
		for _, cursor := range []string{"garbage", "'; --", "99999999999999999999999999", "1 2", strings.Repeat("9", 300)} {
			got, next, reset := all(t, a, cursor)
			if len(distinct(got)) != 1 || !reset {
				t.Fatalf("cursor %q: %d entries, reset is %v", cursor, len(got), reset)
			}
			if _, _, reset = all(t, a, next); reset {
				t.Fatalf("the cursor %q, which the store gave, is not known", next)
			}
		}
		if _, _, reset := all(t, a, ""); reset {
			t.Fatal("an empty cursor is no reset")
		}
	})
	run("another store's cursor", "a cursor of another store, with more entries in it, is not known", func(t *testing.T, a, _ revoke.Store) {
		other, _ := open(t)
		for i := range 5 {
			check(t, other.Append(t.Context(), session(fmt.Sprint(i))))
		}
		if got, _ := since(t, a, ""); len(got) != 0 {
			t.Log("the function opens one store again and again; nothing can be said")
			return
		}
		_, cursor := since(t, other, "")
		check(t, a.Append(t.Context(), session("x")))
		if got, _, reset := all(t, a, cursor); !reset || len(distinct(got)) != 1 {
			t.Fatalf("%d entries, reset is %v", len(got), reset)
		}
	})
	run("the time is told", "each page tells the store's clock, which is near to ours and does not go back", func(t *testing.T, a, b revoke.Store) {
		var last time.Time
		cursor := ""
		for i := range 20 {
			s := a
			if i%2 == 1 {
				s = b
			}
			before := time.Now()
			p, err := s.Since(t.Context(), cursor)
			check(t, err)
			after := time.Now()
			if p.Time.Before(before.Add(-time.Minute)) || p.Time.After(after.Add(time.Minute)) {
				t.Fatalf("the store says that it is %v; here it is %v", p.Time, after)
			}
			if p.Time.Before(last.Add(-time.Second)) {
				t.Fatalf("the time went back from %v to %v", last, p.Time)
			}
			last, cursor = p.Time, p.Next
			check(t, a.Append(t.Context(), session(fmt.Sprint(i))))
		}
	})
	run("what is over may be forgotten, and no more", "Since may leave out entries past their Until, and no others", func(t *testing.T, a, b revoke.Store) {
		e := session("over")
		e.Until = e.Until.Add(-2 * time.Hour)
		check(t, a.Append(t.Context(), e))
		for i := range 100 {
			check(t, a.Append(t.Context(), session(fmt.Sprint(i))))
		}
		got, _ := since(t, b, "")
		n := 0
		for _, g := range got {
			if g.Digest != e.Digest {
				n++
			}
		}
		if n != 100 {
			t.Fatalf("%d entries of 100", n)
		}
	})
	run("a context that has ended", "a context that has ended ends the call, and nothing is written", func(t *testing.T, a, b revoke.Store) {
		refused(t, a.Append(over(t), session("x")), context.Canceled)
		_, err := a.Since(over(t), "")
		refused(t, err, context.Canceled)
		if got, _ := since(t, b, ""); len(got) != 0 {
			t.Fatal("something was written")
		}
	})
	run("a reader behind 16 writers misses nothing", "a cursor never passes a writer that has not finished, in whatever order writers finish", func(t *testing.T, a, b revoke.Store) {
		const writers, each = 16, 60
		var writing sync.WaitGroup
		var left atomic.Int64
		left.Store(writers)
		for w := range writers {
			s := a
			if w%2 == 1 {
				s = b
			}
			writing.Go(func() {
				defer left.Add(-1)
				for i := range each / 2 {
					if err := s.Append(t.Context(), session(fmt.Sprint(w, "-", i)), session(fmt.Sprint(w, "+", i))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		seen, cursor := map[revoke.Digest]bool{}, ""
		for last := false; !last; {
			last = left.Load() == 0 // one more time after the last one was acknowledged
			var got []revoke.Entry
			got, cursor = since(t, b, cursor)
			for _, e := range got {
				seen[e.Digest] = true
			}
		}
		writing.Wait()
		if len(seen) != writers*each {
			t.Fatalf("the reader saw %d of %d acknowledged entries", len(seen), writers*each)
		}
	})
	run("waiting, if it can", "Wait returns when there may be entries, and when its context ends; or at once with errors.ErrUnsupported", func(t *testing.T, a, b revoke.Store) {
		ended, end := context.WithCancel(t.Context())
		end()
		if err := b.Wait(ended, ""); err == nil {
			t.Fatal("Wait returned nil, and its context had ended")
		}
		_, cursor := since(t, b, "")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- b.Wait(ctx, cursor) }()
		check(t, a.Append(t.Context(), session("news")))
		err := <-done
		if errors.Is(err, errors.ErrUnsupported) {
			t.Log("the store cannot wait, and need not")
			return
		}
		check(t, err)
		_, cursor = since(t, b, "")
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if err := b.Wait(short, cursor); err == nil {
			t.Fatal("there was no news")
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Fatalf("it waited %v, and its context had ended", d)
		}
	})
}
