package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Families tests a store of the families of refresh tokens.
func Families(t *testing.T, open func(t *testing.T) (a, b refresh.Store)) {
	run := cases(t, "Families", open)
	const space = "tenant"
	in := func(d time.Duration) time.Time { return clock.Here().Now().Truncate(time.Millisecond).Add(d) }
	record := func(id, subject string) refresh.Record {
		return refresh.Record{
			Namespace: space, ID: id, Subject: subject, SessionID: "sid-" + id,
			Version: 1, Until: in(time.Hour), Data: []byte("data of " + id),
		}
	}
	next := func(r refresh.Record, data string) refresh.Record {
		r.Version++
		r.Data = []byte(data)
		return r
	}
	same := func(t *testing.T, got, want refresh.Record) {
		t.Helper()
		switch {
		case got.Namespace != want.Namespace, got.ID != want.ID, got.Subject != want.Subject, got.SessionID != want.SessionID, got.Version != want.Version:
			t.Fatalf("%+v came back as %+v", want, got)
		case !got.Until.Equal(want.Until):
			t.Fatalf("Until came back as %v, not %v", got.Until, want.Until)
		case !bytes.Equal(got.Data, want.Data):
			t.Fatalf("Data came back as %q, not %q", got.Data, want.Data)
		}
	}
	find := func(t *testing.T, s refresh.Store, id string) refresh.Record {
		t.Helper()
		r, err := s.Find(t.Context(), space, id)
		check(t, err)
		return r
	}
	gone := func(t *testing.T, s refresh.Store, ids ...string) {
		t.Helper()
		for _, id := range ids {
			_, err := s.Find(t.Context(), space, id)
			refused(t, err, refresh.ErrNotFound)
		}
	}
	// count returns how many records a list has. It fails if one is of another
	// subject or namespace.
	count := func(t *testing.T, s refresh.Store, namespace, subject string) int {
		t.Helper()
		list, err := s.List(t.Context(), namespace, subject)
		check(t, err)
		ids := map[string]bool{}
		for _, r := range list {
			if r.Namespace != namespace || r.Subject != subject {
				t.Fatalf("the list of %q in %q holds one of %q in %q", subject, namespace, r.Subject, r.Namespace)
			}
			ids[r.ID] = true
		}
		if len(ids) != len(list) {
			t.Fatal("a record is listed twice")
		}
		return len(list)
	}

	run("what is created is found", "every field comes back as it was", func(t *testing.T, a, b refresh.Store) {
		for i, value := range hostile {
			r := record(fmt.Sprint("id-", i), value)
			r.Namespace, r.SessionID, r.Version = value, value, 1<<40
			check(t, a.Create(t.Context(), r))
			got, err := b.Find(t.Context(), value, r.ID)
			check(t, err)
			same(t, got, r)
			if n := count(t, b, value, value); n != 1 {
				t.Fatalf("%d records of %q", n, value)
			}
		}
		r := record("no namespace", "ada")
		r.Namespace = ""
		check(t, a.Create(t.Context(), r))
		got, err := b.Find(t.Context(), "", r.ID)
		check(t, err)
		same(t, got, r)
		r = record("any bytes", "ada\x00\xff'\\")
		r.SessionID = "sid\x00\xfe"
		check(t, a.Create(t.Context(), r))
		same(t, find(t, b, r.ID), r)
		if n := count(t, b, space, r.Subject); n != 1 {
			t.Fatalf("%d records of a subject of any bytes", n)
		}
		check(t, a.DeleteSession(t.Context(), space, r.SessionID))
		gone(t, b, r.ID)
	})
	run("data is any bytes", "Data of up to 4 KiB comes back as it was, whatever it holds", func(t *testing.T, a, b refresh.Store) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		for name, data := range map[string][]byte{
			"none": nil, "empty": {}, "zero": {0}, "every byte": every, "no UTF-8": {0xff, 0xfe, 0xc0, 0x80},
			"full": bytes.Repeat(every, refresh.MaxData/len(every)), "full of zeros": make([]byte, refresh.MaxData),
		} {
			r := record(name, "ada")
			r.Data = data
			check(t, a.Create(t.Context(), r))
			same(t, find(t, b, name), r)
			r = next(r, string(data)+"2")
			r.Data = r.Data[:min(len(r.Data), refresh.MaxData)]
			check(t, b.Swap(t.Context(), r))
			same(t, find(t, a, name), r)
		}
	})
	run("slices are copied", "a store keeps no slice that it is given, and returns none that it keeps", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		check(t, a.Create(t.Context(), r))
		want := r
		want.Data = bytes.Clone(r.Data)
		r.Data[0]++
		find(t, b, "x").Data[0]++
		list, err := b.List(t.Context(), space, "ada")
		check(t, err)
		list[0].Data[0]++
		same(t, find(t, a, "x"), want)
		r = next(r, "swapped")
		check(t, a.Swap(t.Context(), r))
		r.Data[0]++
		if got := find(t, a, "x"); string(got.Data) != "swapped" {
			t.Fatalf("Data is %q", got.Data)
		}
	})
	run("what is not there", "a record that is not there is ErrNotFound or ErrConflict, and deleting it is no error", func(t *testing.T, a, _ refresh.Store) {
		gone(t, a, "unknown")
		refused(t, a.Swap(t.Context(), next(record("unknown", "ada"), "")), refresh.ErrConflict)
		check(t, a.Delete(t.Context(), space, "unknown"))
		check(t, a.DeleteSession(t.Context(), space, "unknown"))
		check(t, a.DeleteSubject(t.Context(), space, "unknown", ""))
		check(t, a.DeleteSubject(t.Context(), space, "unknown", "sid-unknown"))
		if n := count(t, a, space, "unknown"); n != 0 {
			t.Fatal("a list of nothing")
		}
	})
	run("swap wants the version before", "Swap replaces the record of the version before, and no other", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		check(t, a.Create(t.Context(), r))
		for _, version := range []uint64{0, 1, 3, 1 << 40} {
			bad := next(r, "wrong")
			bad.Version = version
			refused(t, b.Swap(t.Context(), bad), refresh.ErrConflict)
		}
		same(t, find(t, a, "x"), r)
		r = next(r, "next")
		check(t, b.Swap(t.Context(), r))
		same(t, find(t, a, "x"), r)
		refused(t, a.Swap(t.Context(), r), refresh.ErrConflict)
	})
	run("creating again changes nothing", "a caller repeats Create after an error: it changes nothing, also after a Swap", func(t *testing.T, a, b refresh.Store) {
		first := record("x", "ada")
		check(t, a.Create(t.Context(), first))
		second := next(first, "next")
		check(t, b.Swap(t.Context(), second))
		check(t, a.Create(t.Context(), first))
		same(t, find(t, b, "x"), second)
	})
	run("a caller that gives up", "a write that timed out may have happened, and can be repeated", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		hasty(t, func(ctx context.Context) error { return a.Create(ctx, r) })
		same(t, find(t, b, "x"), r)
		for i := range 10 {
			r = next(r, fmt.Sprint(i))
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
		hasty(t, func(ctx context.Context) error { return a.Delete(ctx, space, "x") })
		gone(t, b, "x")
		check(t, a.Create(t.Context(), record("y", "ada")))
		hasty(t, func(ctx context.Context) error { return a.DeleteSession(ctx, space, "sid-y") })
		gone(t, b, "y")
		check(t, a.Create(t.Context(), record("z", "ada")))
		hasty(t, func(ctx context.Context) error { return a.DeleteSubject(ctx, space, "ada", "sid-other") })
		if n := count(t, b, space, "ada"); n != 0 {
			t.Fatal("something is left")
		}
	})
	run("what is over may be forgotten, and no more", "a store keeps a record until its Until, which Swap moves", func(t *testing.T, a, b refresh.Store) {
		over := record("over", "ada")
		over.Until = in(-48 * time.Hour)
		check(t, a.Create(t.Context(), over))
		if _, err := b.Find(t.Context(), space, "over"); err != nil && !errors.Is(err, refresh.ErrNotFound) {
			t.Fatal(err)
		}
		// The Until of a record is moved before it passes. If a slow machine is
		// too late for that, try again with a longer one.
		var r refresh.Record
		var passed time.Time
		for d := time.Second; ; d *= 2 {
			r = record(fmt.Sprint("x", d), "ada")
			passed = in(d)
			r.Until = passed
			check(t, a.Create(t.Context(), r))
			r = next(r, "longer")
			r.Until = in(time.Hour)
			err := a.Swap(t.Context(), r)
			if err == nil {
				break
			}
			refused(t, err, refresh.ErrConflict)
			if d > time.Minute || in(0).Before(passed) {
				t.Fatal("a record was forgotten before its Until")
			}
		}
		for in(0).Before(passed.Add(100 * time.Millisecond)) {
			time.Sleep(50 * time.Millisecond)
		}
		for i := range 20 { // a store may forget when it writes
			other := record(fmt.Sprint("other-", i), "bob")
			other.Until = in(-time.Hour)
			check(t, b.Create(t.Context(), other))
		}
		same(t, find(t, b, r.ID), r)
		if n := count(t, b, space, "ada"); n < 1 {
			t.Fatal("the list lacks it")
		}
	})
	run("lists and deletes", "a list has the subject's records alone; what is deleted stays away", func(t *testing.T, a, b refresh.Store) {
		for i := range 10 {
			check(t, a.Create(t.Context(), record(fmt.Sprint("a", i), "ada")))
			check(t, a.Create(t.Context(), record(fmt.Sprint("b", i), "bob")))
		}
		left := func(ada, bob int) {
			t.Helper()
			if n, m := count(t, b, space, "ada"), count(t, b, space, "bob"); n != ada || m != bob {
				t.Fatalf("%d and %d records, not %d and %d", n, m, ada, bob)
			}
		}
		left(10, 10)
		check(t, a.Delete(t.Context(), space, "a3"))
		check(t, a.Delete(t.Context(), space, "a3"))
		left(9, 10)
		check(t, a.DeleteSubject(t.Context(), space, "ada", ""))
		check(t, a.DeleteSubject(t.Context(), space, "ada", ""))
		left(0, 10)
		gone(t, b, "a1")
		refused(t, b.Swap(t.Context(), next(record("a1", "ada"), "")), refresh.ErrConflict)
	})
	run("all of a session", "DeleteSession removes every record of the session, and no other", func(t *testing.T, a, b refresh.Store) {
		for i := range 3 {
			for _, sid := range []string{"one", "two"} {
				r := record(fmt.Sprint(sid, i), "ada")
				r.SessionID = sid
				check(t, a.Create(t.Context(), r))
			}
		}
		r := record("moved on", "ada")
		r.SessionID = "one"
		check(t, a.Create(t.Context(), r))
		check(t, a.Swap(t.Context(), next(r, "next")))
		check(t, b.DeleteSession(t.Context(), space, "one"))
		check(t, b.DeleteSession(t.Context(), space, "one"))
		gone(t, a, "one0", "one1", "one2", "moved on")
		if n := count(t, a, space, "ada"); n != 3 {
			t.Fatalf("%d records are left, not 3", n)
		}
	})
	run("all of a subject but one session", "DeleteSubject spares the records of one session, and that subject's alone", func(t *testing.T, a, b refresh.Store) {
		for i := range 4 {
			for _, subject := range []string{"ada", "bob"} {
				r := record(fmt.Sprint(subject, i), subject)
				r.SessionID = fmt.Sprint("sid-", i/2)
				check(t, a.Create(t.Context(), r))
			}
		}
		check(t, a.DeleteSubject(t.Context(), space, "ada", "sid-1"))
		gone(t, b, "ada0", "ada1")
		find(t, b, "ada2")
		find(t, b, "ada3")
		if n := count(t, b, space, "bob"); n != 4 {
			t.Fatalf("%d records of another subject, not 4", n)
		}
		check(t, a.DeleteSubject(t.Context(), space, "ada", "sid-other"))
		if n := count(t, b, space, "ada"); n != 0 {
			t.Fatalf("%d records are left", n)
		}
	})
	run("namespaces are apart", "no call reads or changes a record of another namespace", func(t *testing.T, a, b refresh.Store) {
		spaces := []string{"", space, "tenant:x", "ten", "ant"}
		records := map[string]refresh.Record{}
		for _, ns := range spaces {
			r := record("x", "ada")
			r.Namespace, r.SessionID, r.Data = ns, "sid", []byte("of "+ns)
			check(t, a.Create(t.Context(), r))
			records[ns] = r
		}
		all := func() {
			t.Helper()
			for ns, want := range records {
				got, err := b.Find(t.Context(), ns, "x")
				check(t, err)
				same(t, got, want)
				if n := count(t, b, ns, "ada"); n != 1 {
					t.Fatalf("%d records in %q", n, ns)
				}
			}
		}
		all()
		records["ten"] = next(records["ten"], "next")
		check(t, a.Swap(t.Context(), records["ten"]))
		all()
		for _, remove := range []func() error{
			func() error { return a.Delete(t.Context(), "other", "x") },
			func() error { return a.DeleteSession(t.Context(), "other", "sid") },
			func() error { return a.DeleteSubject(t.Context(), "other", "ada", "") },
			func() error { delete(records, "ten"); return a.Delete(t.Context(), "ten", "x") },
			func() error { delete(records, "ant"); return a.DeleteSession(t.Context(), "ant", "sid") },
			func() error { delete(records, space); return a.DeleteSubject(t.Context(), space, "ada", "") },
			func() error { delete(records, ""); return a.DeleteSubject(t.Context(), "", "ada", "another") },
		} {
			check(t, remove())
			all()
		}
		gone(t, b, "x")
	})
	run("a context that has ended", "a context that has ended ends the call, and nothing is written", func(t *testing.T, a, _ refresh.Store) {
		r := record("kept", "ada")
		check(t, a.Create(t.Context(), r))
		refused(t, a.Create(over(t), record("x", "ada")), context.Canceled)
		_, err := a.Find(over(t), space, "kept")
		refused(t, err, context.Canceled)
		refused(t, a.Swap(over(t), next(r, "next")), context.Canceled)
		refused(t, a.Delete(over(t), space, "kept"), context.Canceled)
		refused(t, a.DeleteSession(over(t), space, "sid-kept"), context.Canceled)
		refused(t, a.DeleteSubject(over(t), space, "ada", ""), context.Canceled)
		_, err = a.List(over(t), space, "ada")
		refused(t, err, context.Canceled)
		gone(t, a, "x")
		same(t, find(t, a, "kept"), r)
	})
	run("one of many swaps wins", "of several Swaps of one version one succeeds", func(t *testing.T, a, b refresh.Store) {
		r := record("x", "ada")
		check(t, a.Create(t.Context(), r))
		for range 20 {
			r = next(r, "")
			var wg sync.WaitGroup
			var mu sync.Mutex
			var won []string
			for w := range 16 {
				wg.Go(func() {
					s, mine := a, r
					if w%2 == 1 {
						s = b
					}
					mine.Data = fmt.Append(nil, "of ", w)
					switch err := s.Swap(t.Context(), mine); {
					case err == nil:
						mu.Lock()
						won = append(won, string(mine.Data))
						mu.Unlock()
					case !errors.Is(err, refresh.ErrConflict):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if len(won) != 1 {
				t.Fatalf("%d of 16 swaps won", len(won))
			}
			if got := find(t, b, "x"); string(got.Data) != won[0] || got.Version != r.Version {
				t.Fatal("the record is not that of the Swap that won")
			}
		}
	})
	run("a delete among swaps", "what was deleted while others swap it stays away", func(t *testing.T, a, b refresh.Store) {
		for i := range 20 {
			r := record(fmt.Sprint("x", i), "ada")
			check(t, a.Create(t.Context(), r))
			var wg sync.WaitGroup
			wg.Go(func() {
				mine := r
				for err := error(nil); err == nil; {
					mine = next(mine, "next")
					if err = a.Swap(t.Context(), mine); err != nil && !errors.Is(err, refresh.ErrConflict) {
						t.Error(err)
					}
				}
			})
			var err error
			switch i % 3 {
			case 0:
				err = b.Delete(t.Context(), space, r.ID)
			case 1:
				err = b.DeleteSession(t.Context(), space, r.SessionID)
			case 2:
				err = b.DeleteSubject(t.Context(), space, "ada", "")
			}
			wg.Wait()
			check(t, err)
			gone(t, a, r.ID)
			if n := count(t, b, space, "ada"); n != 0 {
				t.Fatalf("%d records are left", n)
			}
		}
	})
	run("a person is forgotten among sign-ins", "after Forget there is no family of a session that was begun before it, whatever replicas were about to write", func(t *testing.T, a, b refresh.Store) {
		var log revoke.MemStore
		var managers []*refresh.Manager
		var lists []*revoke.List
		for _, s := range []refresh.Store{a, b} {
			list, err := revoke.NewList(revoke.Config{Store: &log})
			check(t, err)
			m, err := refresh.NewManager(refresh.Config{Store: s, Namespace: space, Secrets: [][]byte{make([]byte, 32)}, Revocations: list, MaxPerSubject: 1000})
			check(t, err)
			managers, lists = append(managers, m), append(lists, list)
		}
		for i := range 20 {
			var signingIn sync.WaitGroup
			for n := range 8 {
				signingIn.Go(func() {
					began, err := lists[n%2].Begin(t.Context(), revoke.Question{Subject: "ada"})
					if err != nil {
						t.Error(err)
						return
					}
					f := refresh.Family{Subject: "ada", SessionID: fmt.Sprintf("sid-%d-%d", i, n), Label: "Ada's phone", Began: began}
					if _, _, err := managers[n%2].Start(t.Context(), f, ""); err != nil && !errors.Is(err, refresh.ErrInvalid) && !errors.Is(err, revoke.ErrOwed) {
						t.Error(err)
					}
				})
			}
			check(t, managers[i%2].Forget(t.Context(), "ada"))
			signingIn.Wait()
			for _, list := range lists {
				check(t, list.Sync(t.Context()))
			}
			records, err := a.List(t.Context(), space, "ada")
			check(t, err)
			live, err := managers[0].List(t.Context(), "ada")
			check(t, err)
			if len(records) != len(live) {
				t.Fatalf("%d families are in the store, and %d of them are of live sessions", len(records), len(live))
			}
		}
		check(t, managers[0].Forget(t.Context(), "ada"))
		if n := count(t, b, space, "ada"); n != 0 {
			t.Fatalf("%d families are left", n)
		}
	})
}

// AllFamilies tests ListAll of a store of the families of refresh tokens.
func AllFamilies(t *testing.T, open func(t *testing.T) (a, b refresh.AllLister)) {
	run := cases(t, "AllFamilies", open)
	until := clock.Here().Now().Truncate(time.Millisecond).Add(time.Hour)
	all := func(t *testing.T, s refresh.AllLister, namespace string) map[string]refresh.Record {
		t.Helper()
		found := map[string]refresh.Record{}
		for next := ""; ; {
			page, after, err := s.ListAll(t.Context(), namespace, next)
			check(t, err)
			for _, r := range page {
				if r.Namespace != namespace {
					t.Fatalf("the list of %q holds a record of %q", namespace, r.Namespace)
				}
				found[r.ID] = r
			}
			if next = after; next == "" {
				return found
			}
		}
	}
	run("every record is listed", "each record of the namespace is in a page, as it is now, and none of another", func(t *testing.T, a, b refresh.AllLister) {
		if n := len(all(t, b, "nothing")); n != 0 {
			t.Fatalf("%d records of an empty namespace", n)
		}
		const many = 1100 // more than a page
		for i := range many {
			check(t, a.Create(t.Context(), refresh.Record{
				Namespace: "tenant", ID: fmt.Sprint("id-", i), Subject: fmt.Sprint("subject-", i%7), SessionID: fmt.Sprint("sid-", i),
				Version: 1, Until: until, Data: fmt.Append(nil, "data of ", i),
			}))
		}
		check(t, a.Swap(t.Context(), refresh.Record{Namespace: "tenant", ID: "id-9", Version: 2, Until: until, Data: []byte("next")}))
		check(t, a.Delete(t.Context(), "tenant", "id-8"))
		found := all(t, b, "tenant")
		if len(found) != many-1 {
			t.Fatalf("%d of %d records are listed", len(found), many-1)
		}
		for id, r := range found {
			want, err := b.Find(t.Context(), "tenant", id)
			check(t, err)
			if r.Subject != want.Subject || r.SessionID != want.SessionID || r.Version != want.Version || !r.Until.Equal(want.Until) || !bytes.Equal(r.Data, want.Data) {
				t.Fatalf("%+v is listed as %+v", want, r)
			}
		}
	})
	run("namespaces are any text", "no character of a namespace has a meaning", func(t *testing.T, a, b refresh.AllLister) {
		spaces := append([]string{"", "*", "t?nant", "[t]enant", "tenant\\*", "^", "tenant:"}, hostile...)
		for _, space := range spaces {
			check(t, a.Create(t.Context(), refresh.Record{Namespace: space, ID: "id of " + space, Subject: "ada", SessionID: "sid", Version: 1, Until: until}))
		}
		for _, space := range spaces {
			if found := all(t, b, space); len(found) != 1 || found["id of "+space].Subject != "ada" {
				t.Fatalf("%q has %d records", space, len(found))
			}
		}
	})
	run("errors", "a context that is over ends the call", func(t *testing.T, a, _ refresh.AllLister) {
		_, _, err := a.ListAll(over(t), "tenant", "")
		refused(t, err, context.Canceled)
	})
}
