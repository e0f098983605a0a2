package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/refresh"
)

// Families tests a store of refresh tokens' families.
func Families(t *testing.T, open func(t *testing.T) (a, b refresh.Store)) {
	run := cases(t, "Families", open)
	record := func(id, subject string) refresh.Record {
		now := time.Now().UTC().Truncate(time.Millisecond)
		return refresh.Record{
			Family: refresh.Family{
				ID: id, Subject: subject, SessionID: "sid-" + id, ClientID: "app", Label: "phone",
				Created: now.Add(-time.Minute), LastUsed: now, Ends: now.Add(time.Hour),
			},
			Version: 1, Counter: 1, Rotated: now, Until: now.Add(time.Hour),
		}
	}
	same := func(t *testing.T, got, want refresh.Record) {
		t.Helper()
		for _, x := range []struct{ got, want *time.Time }{
			{&got.Created, &want.Created}, {&got.LastUsed, &want.LastUsed}, {&got.Ends, &want.Ends},
			{&got.Rotated, &want.Rotated}, {&got.Retries, &want.Retries}, {&got.Until, &want.Until},
		} {
			if !x.got.Equal(*x.want) {
				t.Fatalf("a time came back as %v, not %v", x.got, x.want)
			}
			*x.got = *x.want
		}
		if got != want {
			t.Fatalf("%+v came back as %+v", want, got)
		}
	}
	find := func(t *testing.T, s refresh.Store, id string) refresh.Record {
		t.Helper()
		r, err := s.Find(t.Context(), id)
		check(t, err)
		return r
	}

	run("what is created is found", "every field comes back as it was", func(t *testing.T, a, b refresh.Store) {
		for i, value := range hostile {
			r := record(fmt.Sprint("id-", i), value)
			r.ClientID, r.Label, r.SessionID = value, value, value
			r.Retried, r.Retries, r.Counter = i%2 == 0, r.Rotated, 1<<40
			check(t, a.Create(t.Context(), r))
			same(t, find(t, b, r.ID), r)
		}
		r := record("zero", "ada")
		r.ClientID, r.Label = "", ""
		check(t, a.Create(t.Context(), r))
		same(t, find(t, b, "zero"), r)
	})
	run("what is not there", "a record that is not there is ErrNotFound or ErrConflict, and deleting it is no error", func(t *testing.T, a, _ refresh.Store) {
		_, err := a.Find(t.Context(), "nobody")
		refused(t, err, refresh.ErrNotFound)
		r := record("nobody", "ada")
		r.Version = 2
		refused(t, a.Swap(t.Context(), r), refresh.ErrConflict)
		check(t, a.Delete(t.Context(), "nobody"))
		check(t, a.DeleteSubject(t.Context(), "nobody"))
		list, err := a.List(t.Context(), "nobody")
		check(t, err)
		if len(list) != 0 {
			t.Fatal("a list of nothing")
		}
	})
	run("swap wants the version before", "Swap replaces the record of the version before, and no other", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		check(t, a.Create(t.Context(), r))
		for _, version := range []uint64{0, 1, 3, 1 << 40} {
			bad := r
			bad.Version, bad.Label = version, "wrong"
			refused(t, b.Swap(t.Context(), bad), refresh.ErrConflict)
		}
		same(t, find(t, a, "x"), r)
		r.Version, r.Counter, r.Label = 2, 2, "next"
		check(t, b.Swap(t.Context(), r))
		same(t, find(t, a, "x"), r)
		refused(t, a.Swap(t.Context(), r), refresh.ErrConflict)
	})
	run("creating again changes nothing", "a caller repeats Create after an error: it changes nothing, also after a Swap", func(t *testing.T, a, b refresh.Store) {
		first := record("x", "ada")
		check(t, a.Create(t.Context(), first))
		next := first
		next.Version, next.Counter = 2, 2
		check(t, b.Swap(t.Context(), next))
		check(t, a.Create(t.Context(), first))
		same(t, find(t, b, "x"), next)
	})
	run("a caller that gives up", "a write that timed out may have happened, and can be repeated", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		hasty(t, func(ctx context.Context) error { return a.Create(ctx, r) })
		same(t, find(t, b, "x"), r)
		for range 10 {
			r.Version++
			r.Counter++
			hasty(t, func(ctx context.Context) error {
				err := a.Swap(ctx, r)
				if errors.Is(err, refresh.ErrConflict) {
					same(t, find(t, b, "x"), r) // it had happened
					return nil
				}
				return err
			})
			same(t, find(t, b, "x"), r)
		}
		hasty(t, func(ctx context.Context) error { return a.Delete(ctx, "x") })
		check(t, a.Create(t.Context(), record("y", "ada")))
		hasty(t, func(ctx context.Context) error { return a.DeleteSubject(ctx, "ada") })
		list, err := b.List(t.Context(), "ada")
		check(t, err)
		if len(list) != 0 {
			t.Fatal("something is left")
		}
	})
	run("what is over may be forgotten, and no more", "a store keeps a record until its Until, which Swap moves", func(t *testing.T, a, b refresh.Store) {
		over := record("over", "ada")
		over.Until = time.Now().Add(-48 * time.Hour)
		check(t, a.Create(t.Context(), over))
		if _, err := b.Find(t.Context(), "over"); err != nil && !errors.Is(err, refresh.ErrNotFound) {
			t.Fatal(err)
		}
		r := record("x", "ada")
		r.Until = time.Now().UTC().Truncate(time.Millisecond).Add(50 * time.Millisecond)
		check(t, a.Create(t.Context(), r))
		r.Version, r.Until = 2, r.Until.Add(time.Hour)
		check(t, a.Swap(t.Context(), r))
		time.Sleep(100 * time.Millisecond)
		same(t, find(t, b, "x"), r)
		list, err := b.List(t.Context(), "ada")
		check(t, err)
		if n := len(list); n < 1 || n > 2 {
			t.Fatalf("%d records", n)
		}
	})
	run("lists and deletes", "a list has the subject's records alone; what is deleted stays away", func(t *testing.T, a, b refresh.Store) {
		for i := range 10 {
			check(t, a.Create(t.Context(), record(fmt.Sprint("a", i), "ada")))
			check(t, a.Create(t.Context(), record(fmt.Sprint("b", i), "bob")))
		}
		count := func(subject string) int {
			list, err := b.List(t.Context(), subject)
			check(t, err)
			ids := map[string]bool{}
			for _, r := range list {
				if r.Subject != subject {
					t.Fatalf("the list of %s holds one of %s", subject, r.Subject)
				}
				ids[r.ID] = true
			}
			return len(ids)
		}
		if n, m := count("ada"), count("bob"); n != 10 || m != 10 {
			t.Fatal(n, m)
		}
		check(t, a.Delete(t.Context(), "a3"))
		check(t, a.Delete(t.Context(), "a3"))
		if n := count("ada"); n != 9 {
			t.Fatal(n)
		}
		check(t, a.DeleteSubject(t.Context(), "ada"))
		check(t, a.DeleteSubject(t.Context(), "ada"))
		if n, m := count("ada"), count("bob"); n != 0 || m != 10 {
			t.Fatal(n, m)
		}
		_, err := b.Find(t.Context(), "a1")
		refused(t, err, refresh.ErrNotFound)
		gone := record("a1", "ada")
		gone.Version = 2
		refused(t, b.Swap(t.Context(), gone), refresh.ErrConflict)
	})
	run("a context that has ended", "a context that has ended ends the call, and nothing is written", func(t *testing.T, a, _ refresh.Store) {
		r := record("x", "ada")
		refused(t, a.Create(over(t), r), context.Canceled)
		_, err := a.Find(over(t), "x")
		refused(t, err, context.Canceled)
		refused(t, a.Swap(over(t), r), context.Canceled)
		refused(t, a.Delete(over(t), "x"), context.Canceled)
		refused(t, a.DeleteSubject(over(t), "ada"), context.Canceled)
		_, err = a.List(over(t), "ada")
		refused(t, err, context.Canceled)
		if _, err := a.Find(t.Context(), "x"); !errors.Is(err, refresh.ErrNotFound) {
			t.Fatal("something was written")
		}
	})
	run("one of many swaps wins", "of several Swaps of one version one succeeds", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		check(t, a.Create(t.Context(), r))
		for range 20 {
			r.Version++
			r.Counter++
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for w := range 16 {
				wg.Go(func() {
					s := a
					if w%2 == 1 {
						s = b
					}
					switch err := s.Swap(t.Context(), r); {
					case err == nil:
						mu.Lock()
						won++
						mu.Unlock()
					case !errors.Is(err, refresh.ErrConflict):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won != 1 {
				t.Fatalf("%d of 16 swaps won", won)
			}
		}
	})
}
