package revoke_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/revoke"
)

func benchmarked(b *testing.B, n int) *revoke.List {
	s := &made{make: func(i int) revoke.Entry { return sessionEntry(fmt.Sprintf("sid-%018d", i)) }, n: n}
	l, err := revoke.NewList(revoke.Config{Store: s, MaxStale: time.Hour, SyncEvery: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	q := revoke.Question{Began: time.Now()}.Prepared()
	for l.Status().Synced.IsZero() {
		_ = l.Check(b.Context(), &q)
	}
	return l
}

// BenchmarkCheck is the question that each verification asks, and the time that
// it needs.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{0, 1_000_000} {
		l := benchmarked(b, n)
		questions := make([]revoke.Question, 1024)
		for i := range questions {
			questions[i] = revoke.Question{SessionID: fmt.Sprintf("sid-%018d", 5_000_000+i), Subject: "user-42", KeyID: "key-1", Began: time.Now().Add(time.Minute)}.Prepared()
		}
		ctx := b.Context()
		b.Run(fmt.Sprint(n, " entries"), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if err := l.Check(ctx, &questions[i%len(questions)]); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint(n, " entries, with Now"), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if err := l.Check(ctx, &questions[i%len(questions)]); err != nil {
					b.Fatal(err)
				}
				if _, err := l.Now(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPrepared(b *testing.B) {
	b.ReportAllocs()
	now := time.Now()
	for b.Loop() {
		_ = revoke.Question{SessionID: "sid-000000000000000042", Subject: "user-42", KeyID: "key-1", Began: now}.Prepared()
	}
}

// BenchmarkRevoke adds one entry to a million.
func BenchmarkRevoke(b *testing.B) {
	l := benchmarked(b, 1_000_000)
	ctx := b.Context()
	i := 0
	for b.Loop() {
		i++
		if err := l.RevokeSession(ctx, fmt.Sprint("new-", i)); err != nil {
			b.Fatal(err)
		}
	}
}
