// Package storetest tests a store of packages keys, revoke, refresh and
// oidclogin for what its interface promises:
//
//	func TestStore(t *testing.T) {
//		storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t) })
//		storetest.Revocations(t, func(t *testing.T) (a, b revoke.Store) { return open(t) })
//		storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t) })
//		storetest.Grants(t, open)
//	}
//
// The function opens a new, empty store twice: two values that share it as two
// processes would. For a store in memory both are the same. A case that fails
// logs the rule of the interface that it tests.
package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// hostile are strings that a store must keep unchanged.
var hostile = []string{
	"plain", "with space", `quote"quote'quote`, "'; DROP TABLE sessions; --", "%_\\", "{braces}:colon*[x]?", "new\nline\ttab",
	"Renée Östergård", "日本語", "\U0001F600", "-1", "0", "null", strings.Repeat("long", 64),
}

// cases returns a function that runs one case, with a new store.
func cases[S any](t *testing.T, of string, open func(t *testing.T) (a, b S)) func(name, rule string, f func(t *testing.T, a, b S)) {
	return func(name, rule string, f func(t *testing.T, a, b S)) {
		t.Run(of+"/"+name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Log("the rule: " + rule)
				}
			})
			a, b := open(t)
			f(t, a, b)
		})
	}
}

// hasty calls f with a context that ends soon, a little later each time, until
// f succeeds. A call that failed may have written.
func hasty(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	for patience := 20 * time.Microsecond; ; patience = patience * 5 / 4 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if patience > time.Minute {
			t.Fatal(err)
		}
	}
}

// check fails the test unless err is nil.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused fails the test unless err matches want.
func refused(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("the error is %v; it must match %v", err, want)
	}
}

// over returns a context that has ended.
func over(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
