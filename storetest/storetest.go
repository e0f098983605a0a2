// Package storetest holds what a store of packages keys, revoke and refresh has
// to do, as tests: whoever writes one proves it in a few lines.
//
//	func TestStore(t *testing.T) {
//		storetest.Ring(t, func(t *testing.T) (a, b keys.Store) { return open(t) })
//		storetest.Ended(t, func(t *testing.T) (a, b revoke.Store) { return open(t) })
//		storetest.Families(t, func(t *testing.T) (a, b refresh.Store) { return open(t) })
//	}
//
// The function opens a new, empty store twice: two values that share it as two
// processes would. For a store in memory both are the same.
package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// hostile are values that a store must keep as they are.
var hostile = []string{
	"plain", "with space", `quote"quote'quote`, "'; DROP TABLE sessions; --", "%_\\", "{braces}:colon*[x]?", "new\nline\ttab",
	"Renée Östergård", "日本語", "\U0001F600", "-1", "0", "null", strings.Repeat("long", 64),
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

// over is a context that has ended.
func over(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
