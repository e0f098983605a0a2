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

	"github.com/sessiontoken/sessiontoken/keys"
)

// grantStore is oidclogin.GrantStore.
type grantStore interface {
	LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error)
	SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error)
}

// Grants tests a store of offline grants, an oidclogin.GrantStore.
func Grants[S grantStore](t *testing.T, open func(t *testing.T) (a, b S)) {
	run := cases(t, "Grants", open)
	load := func(t *testing.T, s S) ([]byte, string) {
		t.Helper()
		sealed, rev, err := s.LoadGrant(t.Context(), "ns", "key")
		check(t, err)
		return sealed, rev
	}
	save := func(t *testing.T, s S, sealed []byte, rev string) string {
		t.Helper()
		next, err := s.SaveGrant(t.Context(), "ns", "key", sealed, rev)
		check(t, err)
		return next
	}
	conflict := func(t *testing.T, s S, sealed []byte, rev string) {
		t.Helper()
		_, err := s.SaveGrant(t.Context(), "ns", "key", sealed, rev)
		refused(t, err, keys.ErrConflict)
	}

	run("absence is no error", "a grant that was never saved has neither bytes nor a revision, and an error is never taken for that", func(t *testing.T, a, b S) {
		for _, s := range []S{a, b} {
			if sealed, rev := load(t, s); sealed != nil || rev != "" {
				t.Fatalf("an empty store returns %d bytes and revision %q", len(sealed), rev)
			}
		}
	})
	run("namespaces and keys are apart", "a grant is found by its namespace and key, and by no others", func(t *testing.T, a, b S) {
		type name struct{ namespace, key string }
		names := []name{{"", "key"}, {"n", "key"}, {"n:key", "key"}, {"n", "key:key"}, {"nk", "ey"}, {"1:n", "key"}, {strings.Repeat("n", 256), strings.Repeat("k", 128)}}
		for _, h := range hostile {
			names = append(names, name{h, "key"}, name{"n", h})
		}
		for i, n := range names {
			sealed, rev, err := b.LoadGrant(t.Context(), n.namespace, n.key)
			check(t, err)
			if sealed != nil || rev != "" {
				t.Fatalf("%q has the grant of another name", n)
			}
			_, err = a.SaveGrant(t.Context(), n.namespace, n.key, fmt.Append(nil, "of ", i), "")
			check(t, err)
		}
		for i, n := range names {
			sealed, rev, err := b.LoadGrant(t.Context(), n.namespace, n.key)
			check(t, err)
			if string(sealed) != fmt.Sprint("of ", i) || rev == "" {
				t.Fatalf("%q came back as %q", n, sealed)
			}
		}
	})
	run("what is saved is what is loaded", "a LoadGrant after a SaveGrant returned sees its bytes, on every replica", func(t *testing.T, a, b S) {
		rev := ""
		for i, sealed := range [][]byte{{0}, {0, 1, 2, 0xff, 0xfe, '\'', '"', '\\', '\n'}, bytes.Repeat([]byte{7}, 64<<10)} {
			next := save(t, a, sealed, rev)
			if next == "" || next == rev {
				t.Fatalf("the revision went from %q to %q", rev, next)
			}
			rev = next
			if got, gotRev := load(t, b); !bytes.Equal(got, sealed) || gotRev != rev {
				t.Fatalf("grant %d of %d bytes came back as %d bytes, revision %q for %q", i, len(sealed), len(got), gotRev, rev)
			}
		}
	})
	run("another revision is a conflict", "SaveGrant replaces the grant of that revision, and no other", func(t *testing.T, a, b S) {
		conflict(t, a, []byte("x"), "never")
		first := save(t, a, []byte("one"), "")
		conflict(t, b, []byte("two"), "")
		second := save(t, b, []byte("two"), first)
		conflict(t, a, []byte("three"), first)
		conflict(t, a, []byte("two"), first)
		if sealed, rev := load(t, a); string(sealed) != "two" || rev != second {
			t.Fatalf("a conflict changed the grant to %q", sealed)
		}
	})
	run("nothing deletes", "an empty grant deletes the one of that revision, and no other; a deleted grant is absent, and its revisions do not come back", func(t *testing.T, a, b S) {
		if rev := save(t, a, nil, ""); rev != "" {
			t.Fatalf("a grant that is not there has revision %q", rev)
		}
		conflict(t, a, nil, "never")
		first := save(t, a, []byte("one"), "")
		conflict(t, b, nil, "")
		conflict(t, b, []byte{}, "never")
		second := save(t, b, []byte("one"), first)
		if first == second {
			t.Fatal("two writes have one revision")
		}
		conflict(t, b, nil, first)
		if sealed, _ := load(t, a); string(sealed) != "one" {
			t.Fatal("a conflict deleted the grant")
		}
		if rev := save(t, b, []byte{}, second); rev != "" {
			t.Fatalf("a deleted grant has revision %q", rev)
		}
		if sealed, rev := load(t, a); sealed != nil || rev != "" {
			t.Fatalf("a deleted grant has %d bytes and revision %q", len(sealed), rev)
		}
		conflict(t, a, []byte("late"), second)
		conflict(t, a, nil, second)
		if third := save(t, a, []byte("new"), ""); third == first || third == second {
			t.Fatal("the revision of a deleted grant came back")
		}
		conflict(t, b, []byte("late"), first)
		conflict(t, b, nil, second)
	})
	run("sizes", "a grant has at most 64 KiB; a longer one is refused, and not as a conflict", func(t *testing.T, a, _ S) {
		if _, err := a.SaveGrant(t.Context(), "ns", "key", make([]byte, 64<<10+1), ""); err == nil || errors.Is(err, keys.ErrConflict) {
			t.Fatalf("a grant of 64 KiB and a byte: %v", err)
		}
		if sealed, rev := load(t, a); sealed != nil || rev != "" {
			t.Fatal("something was written")
		}
	})
	run("slices are copied", "the caller may change what it passed and what it got", func(t *testing.T, a, _ S) {
		sealed := []byte("sealed")
		save(t, a, sealed, "")
		sealed[0] = 'X'
		got, _ := load(t, a)
		got[1] = 'X'
		if again, _ := load(t, a); string(again) != "sealed" {
			t.Fatalf("the stored grant became %q", again)
		}
	})
	run("a caller that gives up", "a SaveGrant that timed out has happened as a whole or not at all", func(t *testing.T, a, b S) {
		rev := ""
		for i := range 10 {
			grant := bytes.Repeat([]byte{byte('a' + i)}, 16<<10)
			hasty(t, func(ctx context.Context) error {
				next, err := a.SaveGrant(ctx, "ns", "key", grant, rev)
				if err == nil {
					rev = next
					return nil
				}
				got, gotRev := load(t, b)
				switch {
				case bytes.Equal(got, grant):
					rev = gotRev // it had happened
					return nil
				case gotRev != rev || len(got) > 0 && !bytes.Equal(got, bytes.Repeat([]byte{byte('a' + i - 1)}, 16<<10)):
					t.Fatalf("grant %d: %d bytes of revision %q are half of something", i, len(got), gotRev)
				case errors.Is(err, keys.ErrConflict):
					t.Fatalf("grant %d: a conflict without another writer", i)
				}
				return err
			})
		}
	})
	run("a context that has ended", "a context that has ended ends the call, and nothing is written", func(t *testing.T, a, _ S) {
		_, err := a.SaveGrant(over(t), "ns", "key", []byte("x"), "")
		refused(t, err, context.Canceled)
		_, _, err = a.LoadGrant(over(t), "ns", "key")
		refused(t, err, context.Canceled)
		rev := save(t, a, []byte("x"), "")
		_, err = a.SaveGrant(over(t), "ns", "key", nil, rev)
		refused(t, err, context.Canceled)
		if sealed, _ := load(t, a); string(sealed) != "x" {
			t.Fatal("something was written")
		}
	})
	run("one of many writers wins", "of several SaveGrants with one revision one succeeds, be it a write or a deletion", func(t *testing.T, a, b S) {
		const writers, rounds = 16, 20
		rev := ""
		for round := range rounds {
			var wg sync.WaitGroup
			var mu sync.Mutex
			won, next := 0, ""
			for w := range writers {
				wg.Go(func() {
					s, sealed := a, fmt.Appendf(nil, "round %d writer %d", round, w)
					if w%2 == 1 {
						s = b
					}
					if w%5 == 4 && rev != "" {
						sealed = nil
					}
					got, err := s.SaveGrant(t.Context(), "ns", "key", sealed, rev)
					switch {
					case err == nil:
						mu.Lock()
						defer mu.Unlock()
						won, next = won+1, got
					case !errors.Is(err, keys.ErrConflict):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won != 1 {
				t.Fatalf("%d writers won", won)
			}
			rev = next
		}
	})
	run("no update is lost", "load, change and save, repeated after each conflict, loses no change", func(t *testing.T, a, b S) {
		const writers, each = 8, 10
		var wg sync.WaitGroup
		for w := range writers {
			s := a
			if w%2 == 1 {
				s = b
			}
			wg.Go(func() {
				for done := 0; done < each; {
					sealed, rev, err := s.LoadGrant(t.Context(), "ns", "key")
					if err != nil {
						t.Error(err)
						return
					}
					n, _ := strconv.Atoi(string(sealed))
					_, err = s.SaveGrant(t.Context(), "ns", "key", []byte(strconv.Itoa(n+1)), rev)
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
		if sealed, _ := load(t, a); string(sealed) != strconv.Itoa(writers*each) {
			t.Fatalf("%d increments came to %s", writers*each, sealed)
		}
	})
}
