//go:build unix

// Package faults holds what a store has to live through with a real engine behind
// it: processes that issue, verify and revoke sessions while the network and the
// engine fail. The tests in folders redisstore and sqlstore use it. No release tags
// this module.
//
// The processes are the test binary itself, started again: its TestMain calls
// [Main] first.
package faults

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Store is what one value of a backend is.
type Store interface {
	keys.Store
	revoke.Store
	refresh.Store
}

// number is how often something is done: as often as a variable of the environment
// says, or n times.
func number(variable string, n int) int {
	if s := os.Getenv(variable); s != "" {
		m, err := strconv.Atoi(s)
		if err != nil {
			panic(variable + " is not a number")
		}
		return m
	}
	return n
}

// trials is how many measurements or races there are: SESSIONTOKEN_TRIALS, or n.
func trials(n int) int { return number("SESSIONTOKEN_TRIALS", n) }

// Many is how many entries a long list has: SESSIONTOKEN_MANY, or 100,000.
func Many() int { return number("SESSIONTOKEN_MANY", 100_000) }

var quiet = slog.New(slog.DiscardHandler)

// aead seals the keys of all tests.
func aead() keys.AEAD {
	a, err := keys.NewAESGCM(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	return a
}

// Starts checks that a replica that starts knows the n entries of a store, of the
// sessions sid-1 to sid-n.
func Starts(t *testing.T, s revoke.Store, n int) {
	t.Helper()
	begin := time.Now()
	born := begin.UTC().Truncate(time.Millisecond).Add(-time.Hour)
	if err := s.Append(t.Context(), revoke.Entry{Scope: revoke.Birth, Digest: revoke.Birth.Digest("x"), Before: born, Until: born.AddDate(100, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	l, err := revoke.NewList(revoke.Config{Store: s, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	for {
		q := revoke.Question{SessionID: "none", Subject: "ada", KeyID: "kid", Began: begin}.Prepared()
		if err := l.Check(t.Context(), &q); err == nil {
			break
		} else if time.Since(begin) > 10*time.Minute {
			t.Fatal(err)
		}
	}
	took := time.Since(begin)
	if got := l.Status().Entries; got != n {
		t.Fatalf("it knows %d entries of %d", got, n)
	}
	for _, i := range []int{1, n/2 + 1, n} {
		q := revoke.Question{SessionID: fmt.Sprint("sid-", i), Subject: "ada", KeyID: "kid", Began: begin}.Prepared()
		if err := l.Check(t.Context(), &q); !errors.Is(err, revoke.ErrRevoked) {
			t.Fatalf("sid-%d: %v", i, err)
		}
	}
	t.Logf("%s: it starts with %d entries in %v", t.Name(), n, took.Round(time.Millisecond))
}

// FirstStart has three replicas start at once, 50 times, each time with a ring that
// the store does not have yet: they must agree on one, and each must verify what
// any of them signs.
func FirstStart(t *testing.T, store keys.Store) {
	for i := range 50 {
		name := fmt.Sprint("first-", i)
		t.Run(name, func(t *testing.T) { firstStart(t, keys.Sealed(store, aead()), name) })
	}
}

func firstStart(t *testing.T, store keys.Store, name string) {
	rings, kids := make([]*keys.Ring, 3), make([]string, 3)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() {
			ring, err := keys.NewRing(keys.RingConfig{Store: store, Name: name, Logger: quiet})
			if err != nil {
				t.Error(err)
				return
			}
			key, err := ring.SigningKey(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			rings[i], kids[i] = ring, key.Public().KeyID()
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if kids[0] != kids[1] || kids[0] != kids[2] {
		t.Fatalf("three replicas sign with %v", kids)
	}
	for _, ring := range rings {
		set, err := ring.KeySet(t.Context(), kids[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := set.Key(kids[0]); !ok {
			t.Fatal("a replica does not know the key that another signs with")
		}
	}
}

// Tampered changes a ring's document in its store: a ring must refuse it, say
// so, and leave it as it is. a and b share the store.
func Tampered(t *testing.T, a, b keys.Store) {
	t.Helper()
	ring := func(s keys.Store) *keys.Ring {
		r, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(s, aead()), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := ring(a).SigningKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored, err := b.Load(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	good, rev := stored.Doc, stored.Rev
	for name, change := range map[string]func([]byte) []byte{
		"cut in half":     func(doc []byte) []byte { return doc[:len(doc)/2] },
		"another version": func(doc []byte) []byte { return replaced(t, doc, `"version":1`, `"version":9`) },
		"another secret":  func(doc []byte) []byte { return replaced(t, doc, `"private":"`, `"private":"AAAA`) },
		"not sealed":      func(doc []byte) []byte { return replaced(t, doc, `"sealed":true`, `"sealed":false`) },
	} {
		bad := change(append([]byte(nil), good...))
		if rev, err = b.Save(t.Context(), "", bad, rev); err != nil {
			t.Fatal(err)
		}
		if _, err := ring(a).SigningKey(t.Context()); err == nil {
			t.Fatalf("%s: it signs", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
		if now, err := b.Load(t.Context(), ""); err != nil || now.Rev != rev || !bytes.Equal(now.Doc, bad) {
			t.Fatalf("%s: the document was changed (%v)", name, err)
		}
	}
}

func replaced(t *testing.T, doc []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(doc, []byte(old)) {
		t.Fatalf("the document has no %s", old)
	}
	return bytes.Replace(doc, []byte(old), []byte(new), 1)
}
