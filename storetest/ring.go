package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
)

// Ring tests a store of a key ring.
func Ring(t *testing.T, open func(t *testing.T) (a, b keys.Store)) {
	run := cases(t, "Ring", open)
	load := func(t *testing.T, s keys.Store) ([]byte, string) {
		t.Helper()
		stored, err := s.Load(t.Context(), "")
		check(t, err)
		return stored.Doc, stored.Rev
	}

	run("absence is no error", "a document that was never saved has neither bytes nor a revision, and an error is never taken for that", func(t *testing.T, a, b keys.Store) {
		for _, s := range []keys.Store{a, b} {
			if doc, rev := load(t, s); doc != nil || rev != "" {
				t.Fatalf("an empty store returns %d bytes and revision %q", len(doc), rev)
			}
		}
	})
	run("names are apart", "a document has a name, the empty one too, and each name has its own revision", func(t *testing.T, a, b keys.Store) {
		names := append([]string{"", "https://login.example/a", "https://login.example/a/", "lock", "tmp", ".lock", "a", "a.lock", "..", "/", strings.Repeat("n", 256)}, hostile...)
		revs := make([]string, len(names))
		for i, name := range names {
			stored, err := b.Load(t.Context(), name)
			check(t, err)
			if stored.Doc != nil || stored.Rev != "" {
				t.Fatalf("%q has the document of another name", name)
			}
			if i > 0 {
				_, err = a.Save(t.Context(), name, []byte("x"), revs[i-1])
				refused(t, err, keys.ErrConflict)
			}
			revs[i], err = a.Save(t.Context(), name, []byte("of "+name), "")
			check(t, err)
		}
		for i, name := range names {
			stored, err := b.Load(t.Context(), name)
			check(t, err)
			if string(stored.Doc) != "of "+name || stored.Rev != revs[i] {
				t.Fatalf("%q came back as %q", name, stored.Doc)
			}
		}
	})
	run("the store's time", "a store with a clock of its own tells it with each reading, and it does not go back; any other tells none", func(t *testing.T, a, b keys.Store) {
		var last time.Time
		for i, s := range []keys.Store{a, b, a, b} {
			if i == 2 {
				_, err := a.Save(t.Context(), "", []byte("x"), "")
				check(t, err)
			}
			stored, err := s.Load(t.Context(), "")
			check(t, err)
			if i > 0 && stored.Time.IsZero() != last.IsZero() {
				t.Fatal("the time is told at some readings and not at others")
			}
			if stored.Time.Before(last) {
				t.Fatalf("the time went back from %v to %v", last, stored.Time)
			}
			last = stored.Time
		}
	})
	run("what is saved is what is loaded", "a Load after a Save returned sees its bytes, on every replica", func(t *testing.T, a, b keys.Store) {
		rev := ""
		for i, doc := range [][]byte{{0}, []byte(`{"a":1}`), {0, 1, 2, 0xff, 0xfe, '\'', '"', '\\', '\n'}, bytes.Repeat([]byte{7}, 1<<20)} {
			next, err := a.Save(t.Context(), "", doc, rev)
			check(t, err)
			if next == "" || next == rev {
				t.Fatalf("the revision went from %q to %q", rev, next)
			}
			rev = next
			if got, gotRev := load(t, b); !bytes.Equal(got, doc) || gotRev != rev {
				t.Fatalf("document %d of %d bytes came back as %d bytes, revision %q for %q", i, len(doc), len(got), gotRev, rev)
			}
		}
	})
	run("another revision is a conflict", "Save replaces the document of that revision, and no other", func(t *testing.T, a, b keys.Store) {
		_, err := a.Save(t.Context(), "", []byte("x"), "never")
		refused(t, err, keys.ErrConflict)
		first, err := a.Save(t.Context(), "", []byte("one"), "")
		check(t, err)
		_, err = b.Save(t.Context(), "", []byte("two"), "")
		refused(t, err, keys.ErrConflict)
		second, err := b.Save(t.Context(), "", []byte("two"), first)
		check(t, err)
		_, err = a.Save(t.Context(), "", []byte("three"), first)
		refused(t, err, keys.ErrConflict)
		if doc, rev := load(t, a); string(doc) != "two" || rev != second {
			t.Fatalf("a conflict changed the document to %q", doc)
		}
	})
	run("sizes", "a document has 1 byte to 1 MiB; any other is refused, and not as a conflict", func(t *testing.T, a, _ keys.Store) {
		for _, doc := range [][]byte{nil, {}, make([]byte, 1<<20+1)} {
			if _, err := a.Save(t.Context(), "", doc, ""); err == nil || errors.Is(err, keys.ErrConflict) {
				t.Fatalf("a document of %d bytes: %v", len(doc), err)
			}
		}
		if doc, rev := load(t, a); doc != nil || rev != "" {
			t.Fatal("something was written")
		}
	})
	run("slices are copied", "the caller may change what it passed and what it got", func(t *testing.T, a, _ keys.Store) {
		doc := []byte("document")
		_, err := a.Save(t.Context(), "", doc, "")
		check(t, err)
		doc[0] = 'X'
		got, _ := load(t, a)
		got[1] = 'X'
		if again, _ := load(t, a); string(again) != "document" {
			t.Fatalf("the stored document became %q", again)
		}
	})
	run("a caller that gives up", "a Save that timed out has happened as a whole or not at all", func(t *testing.T, a, b keys.Store) {
		rev := ""
		for i := range 10 {
			doc := bytes.Repeat([]byte{byte('a' + i)}, 64<<10)
			hasty(t, func(ctx context.Context) error {
				next, err := a.Save(ctx, "", doc, rev)
				if err == nil {
					rev = next
					return nil
				}
				got, gotRev := load(t, b)
				switch {
				case bytes.Equal(got, doc):
					rev = gotRev // it had happened
					return nil
				case gotRev != rev || len(got) > 0 && !bytes.Equal(got, bytes.Repeat([]byte{byte('a' + i - 1)}, 64<<10)):
					t.Fatalf("document %d: %d bytes of revision %q are half of something", i, len(got), gotRev)
				case errors.Is(err, keys.ErrConflict):
					t.Fatalf("document %d: a conflict without another writer", i)
				}
				return err
			})
		}
	})
	run("a context that has ended", "a context that has ended ends the call, and nothing is written", func(t *testing.T, a, _ keys.Store) {
		_, err := a.Save(over(t), "", []byte("x"), "")
		refused(t, err, context.Canceled)
		_, err = a.Load(over(t), "")
		refused(t, err, context.Canceled)
		if doc, _ := load(t, a); doc != nil {
			t.Fatal("something was written")
		}
	})
	run("one of many writers wins", "of several Saves with one revision one succeeds", func(t *testing.T, a, b keys.Store) {
		const writers, rounds = 16, 20
		rev := ""
		for round := range rounds {
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := ""
			for w := range writers {
				wg.Go(func() {
					s := a
					if w%2 == 1 {
						s = b
					}
					next, err := s.Save(t.Context(), "", fmt.Appendf(nil, "round %d writer %d", round, w), rev)
					switch {
					case err == nil:
						mu.Lock()
						defer mu.Unlock()
						if won != "" {
							t.Error("two writers won")
						}
						won = next
					case !errors.Is(err, keys.ErrConflict):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won == "" {
				t.Fatal("no writer won")
			}
			rev = won
		}
	})
	run("no update is lost", "load, change and save, repeated after each conflict, loses no change", func(t *testing.T, a, b keys.Store) {
		const writers, each = 8, 20
		var wg sync.WaitGroup
		for w := range writers {
			s := a
			if w%2 == 1 {
				s = b
			}
			wg.Go(func() {
				for done := 0; done < each; {
					stored, err := s.Load(t.Context(), "")
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(stored.Doc))
					_, err = s.Save(t.Context(), "", []byte(strconv.Itoa(n+1)), stored.Rev)
					switch {
					case err == nil:
						done++
					case !errors.Is(err, keys.ErrConflict):
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if doc, _ := load(t, a); string(doc) != strconv.Itoa(writers*each) {
			t.Fatalf("%d increments came to %s", writers*each, doc)
		}
	})
	run("revisions of many, if it has them", "Revisions returns what Load returns, in the order of names, whatever the names", func(t *testing.T, a, b keys.Store) {
		s, ok := b.(interface {
			Revisions(ctx context.Context, names ...string) (revs []string, now time.Time, err error)
		})
		if !ok {
			t.Log("the store has no Revisions, which authority.Store wants")
			return
		}
		agree := func(names ...string) {
			t.Helper()
			before, err := b.Load(t.Context(), "")
			check(t, err)
			revs, now, err := s.Revisions(t.Context(), names...)
			check(t, err)
			if now.IsZero() != before.Time.IsZero() || now.Before(before.Time) {
				t.Fatalf("the time is %v, and Load told %v before", now, before.Time)
			}
			if len(revs) != len(names) {
				t.Fatalf("%d revisions of %d names", len(revs), len(names))
			}
			for i, name := range names {
				stored, err := b.Load(t.Context(), name)
				check(t, err)
				if revs[i] != stored.Rev {
					t.Fatalf("%q has revision %q, and Load returns %q", name, revs[i], stored.Rev)
				}
			}
		}
		names := append([]string{"", "a", "b", strings.Repeat("n", 256)}, hostile...)
		agree()
		agree(names...)
		revs := map[string]string{}
		for i, name := range names {
			if i%3 == 2 {
				continue // it has no document
			}
			var err error
			revs[name], err = a.Save(t.Context(), name, []byte("of "+name), "")
			check(t, err)
			agree(names...)
		}
		agree("b", "a", "a", "", "nothing") // in another order, twice, and not there
		_, err := a.Save(t.Context(), "a", []byte("another"), revs["a"])
		check(t, err)
		agree(names...)
		many := make([]string, 5000)
		for i := range many {
			many[i] = fmt.Sprint("https://login.example/", i)
		}
		_, err = a.Save(t.Context(), many[4321], []byte("one of many"), "")
		check(t, err)
		found, _, err := s.Revisions(t.Context(), many...)
		check(t, err)
		for i, rev := range found {
			if (rev != "") != (i == 4321) {
				t.Fatalf("%q has revision %q", many[i], rev)
			}
		}
		_, _, err = s.Revisions(over(t), "a")
		refused(t, err, context.Canceled)
	})
}
