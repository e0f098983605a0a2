package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// Ended tests a store of what was ended early.
func Ended(t *testing.T, open func(t *testing.T) (a, b revoke.Store)) {
	run := cases(t, "Ended", open)
	entry := func(value string) revoke.Entry {
		now := time.Now()
		return revoke.Entry{Scope: revoke.Session, Value: value, Before: now, Until: now.Add(time.Hour)}
	}
	since := func(t *testing.T, s revoke.Store, cursor string) (map[string]revoke.Entry, string) {
		t.Helper()
		out := map[string]revoke.Entry{}
		for {
			entries, next, more, err := s.Since(t.Context(), cursor)
			check(t, err)
			for _, e := range entries {
				out[string(e.Scope)+" "+e.Value] = e
			}
			if !more {
				return out, next
			}
			if next == cursor {
				t.Fatal("there is more, and no other cursor to read it with")
			}
			cursor = next
		}
	}

	run("empty", "an empty store has a cursor too, and the first entry comes after it", func(t *testing.T, a, _ revoke.Store) {
		all, next := since(t, a, "")
		if len(all) != 0 {
			t.Fatal("an empty store has entries")
		}
		check(t, a.Append(t.Context(), entry("x")))
		if got, _ := since(t, a, next); len(got) != 1 {
			t.Fatal("the first entry does not follow the cursor of the empty store")
		}
	})
	run("what is added is returned", "every scope and every value comes back as it was, and a time to the millisecond", func(t *testing.T, a, b revoke.Store) {
		want := map[string]revoke.Entry{}
		for _, scope := range []revoke.Scope{revoke.Session, revoke.Subject, revoke.Key} {
			for _, value := range hostile {
				e := entry(value)
				e.Scope = scope
				want[string(scope)+" "+value] = e
				check(t, a.Append(t.Context(), e))
			}
		}
		e := entry("")
		e.Scope = revoke.All
		want["all "] = e
		check(t, a.Append(t.Context(), e))
		got, _ := since(t, b, "")
		if len(got) != len(want) {
			t.Fatalf("%d entries of %d", len(got), len(want))
		}
		for name, w := range want {
			g, ok := got[name]
			// A second is what counts; a microsecond may be lost, and none gained.
			if !ok || g.Before.After(w.Before) || w.Before.Sub(g.Before) > time.Millisecond || w.Until.Sub(g.Until).Abs() > time.Millisecond {
				t.Fatalf("%q: %+v came back as %+v", name, w, g)
			}
		}
	})
	run("a cursor misses nothing", "when Append has returned, every later Since returns the entry, on every replica", func(t *testing.T, a, b revoke.Store) {
		cursor, seen := "", map[string]bool{}
		for i := range 50 {
			check(t, a.Append(t.Context(), entry(fmt.Sprint(i))))
			if i%7 == 0 {
				var got map[string]revoke.Entry
				got, cursor = since(t, b, cursor)
				for name := range got {
					seen[name] = true
				}
				if len(seen) != i+1 {
					t.Fatalf("%d of %d entries", len(seen), i+1)
				}
			}
		}
	})
	run("adding twice", "a caller repeats Append after an error: an entry may be there twice, and means the same", func(t *testing.T, a, _ revoke.Store) {
		e := entry("again")
		check(t, a.Append(t.Context(), e))
		check(t, a.Append(t.Context(), e))
		if got, _ := since(t, a, ""); len(got) != 1 {
			t.Fatalf("%d entries", len(got))
		}
	})
	run("a caller that gives up", "a write that timed out may have happened, and can be repeated", func(t *testing.T, a, b revoke.Store) {
		for i := range 10 {
			hasty(t, func(ctx context.Context) error { return a.Append(ctx, entry(fmt.Sprint(i))) })
		}
		if got, _ := since(t, b, ""); len(got) != 10 {
			t.Fatalf("%d entries of 10", len(got))
		}
	})
	run("clocks that differ", "what counts is the order in which entries are added, whatever times they hold", func(t *testing.T, a, b revoke.Store) {
		cursor, seen := "", 0
		for i, ahead := range []time.Duration{0, time.Hour, -30 * time.Minute, 20 * time.Hour, -time.Second, 0} {
			e := entry(fmt.Sprint(i))
			e.Before, e.Until = e.Before.Add(ahead), e.Until.Add(ahead)
			check(t, a.Append(t.Context(), e))
			var got map[string]revoke.Entry
			got, cursor = since(t, b, cursor)
			if _, ok := got[fmt.Sprint("session ", i)]; !ok {
				t.Fatalf("an entry of a clock that is %v ahead is passed over", ahead)
			}
			seen++
		}
		if all, _ := since(t, b, ""); len(all) != seen {
			t.Fatalf("%d entries of %d", len(all), seen)
		}
	})
	run("an unknown cursor means all", "a cursor that the store does not know, of another store or another version, means all", func(t *testing.T, a, _ revoke.Store) {
		check(t, a.Append(t.Context(), entry("x")))
		for _, cursor := range []string{"garbage", "'; --", "99999999999999999999999999"} {
			if got, _ := since(t, a, cursor); len(got) != 1 {
				t.Fatalf("cursor %q: %d entries", cursor, len(got))
			}
		}
	})
	run("what is over may be forgotten, and no more", "Since may leave out entries past their Until, and no others", func(t *testing.T, a, b revoke.Store) {
		e := entry("over")
		e.Until = time.Now().Add(-time.Hour)
		check(t, a.Append(t.Context(), e))
		for i := range 100 {
			check(t, a.Append(t.Context(), entry(fmt.Sprint(i))))
		}
		got, _ := since(t, b, "")
		delete(got, "session over")
		if len(got) != 100 {
			t.Fatalf("%d entries of 100", len(got))
		}
	})
	run("a context that has ended", "a context that has ended ends the call, and nothing is written", func(t *testing.T, a, _ revoke.Store) {
		refused(t, a.Append(over(t), entry("x")), context.Canceled)
		_, _, _, err := a.Since(over(t), "")
		refused(t, err, context.Canceled)
	})
	run("a reader behind 16 writers misses nothing", "a cursor passes nobody who is still writing, in whatever order writers finish", func(t *testing.T, a, b revoke.Store) {
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
				for i := range each {
					if err := s.Append(t.Context(), entry(fmt.Sprint(w, "-", i))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		seen, cursor := map[string]bool{}, ""
		for last := false; !last; {
			last = left.Load() == 0 // one more time after the last one was acknowledged
			var got map[string]revoke.Entry
			got, cursor = since(t, b, cursor)
			for name := range got {
				seen[name] = true
			}
		}
		writing.Wait()
		if len(seen) != writers*each {
			t.Fatalf("the reader saw %d of %d acknowledged entries", len(seen), writers*each)
		}
	})
	run("waiting, if it can", "Wait returns when there may be news, and when its context ends", func(t *testing.T, a, b revoke.Store) {
		w, ok := b.(revoke.Waiter)
		if !ok {
			t.Log("the store cannot wait, and need not")
			return
		}
		_, cursor := since(t, b, "")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- w.Wait(ctx, cursor) }()
		check(t, a.Append(t.Context(), entry("news")))
		check(t, <-done)
		_, cursor = since(t, b, "")
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if err := w.Wait(short, cursor); err == nil {
			t.Fatal("there was no news")
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Fatalf("it waited %v, and its context had ended", d)
		}
	})
}
