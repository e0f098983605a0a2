package sessiontoken_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

type plainState struct {
	Name, Tenant, Role string
	Level              int
	Staff              bool
}

var plain = plainState{"Ada Lovelace", "analytical-engines", "admin", 3, true}

func BenchmarkIssue(b *testing.B) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.RS256} {
		b.Run(string(alg), func(b *testing.B) {
			issuer := newIssuer[plainState](b, staticSource(b, alg))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := issuer.Issue(b.Context(), "user-1", plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.RS256} {
		source := staticSource(b, alg)
		token, _, err := newIssuer[plainState](b, source).Issue(b.Context(), "user-1", plain)
		require.NoError(b, err)
		for _, tt := range []struct {
			name  string
			bytes int
		}{{"first", -1}, {"repeated", 0}} {
			b.Run(string(alg)+"/"+tt.name, func(b *testing.B) {
				v := newVerifier[plainState](b, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Verify(b.Context(), token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkVerifyWithList is BenchmarkVerify with a list in memory that holds a
// thousand revocations.
func BenchmarkVerifyWithList(b *testing.B) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA} {
		source, list := staticSource(b, alg), memoryList(b, 1000)
		onIssuer, onVerifier := withList(list)
		token, _, err := newIssuer[plainState](b, source, onIssuer).Issue(b.Context(), "user-1", plain)
		require.NoError(b, err)
		for _, tt := range []struct {
			name  string
			bytes int
		}{{"first", -1}, {"repeated", 0}} {
			b.Run(string(alg)+"/"+tt.name, func(b *testing.B) {
				v := newVerifier[plainState](b, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
				b.ReportAllocs()
				for b.Loop() {
					if _, err := v.Verify(b.Context(), token); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// memoryList returns a list in memory with n revocations, that is not stale for
// as long as a test takes.
func memoryList(t testing.TB, n int) *revoke.List {
	t.Helper()
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore), SyncEvery: time.Hour, MaxStale: 2 * time.Hour})
	require.NoError(t, err)
	for i := range n {
		require.NoError(t, list.RevokeSession(t.Context(), fmt.Sprint("session-", i)))
	}
	return list
}

// The states of the benchmarks of sealed fields. The address has 60 bytes.
type (
	openState   struct{ Name, Tenant, Role, Mail string }
	sealedState struct {
		Name, Tenant, Role string
		Mail               sessiontoken.Sealed[string]
	}
)

const address = "ada.lovelace.of.the.analytical.engine@difference.example.com"

var (
	withOpen    = openState{"Ada Lovelace", "analytical-engines", "admin", address}
	withSealed  = sealedState{"Ada Lovelace", "analytical-engines", "admin", sessiontoken.Seal(address)}
	stateSecret = [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
)

// BenchmarkSealed is what one sealed field of 60 bytes costs. Each step does the
// same with both states, so that a busy machine disturbs both alike. It reports
// the medians of the two and their ratio.
func BenchmarkSealed(b *testing.B) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA} {
		source := staticSource(b, alg)
		secrets := func(c *sessiontoken.IssuerConfig) { c.StateSecrets = stateSecret }
		openIssuer, sealedIssuer := newIssuer[openState](b, source), newIssuer[sealedState](b, source, secrets)
		openToken, _, err := openIssuer.Issue(b.Context(), "user-1", withOpen)
		require.NoError(b, err)
		sealedToken, _, err := sealedIssuer.Issue(b.Context(), "user-1", withSealed)
		require.NoError(b, err)
		for _, tt := range []struct {
			name  string
			calls int // of one measurement
			bytes int
		}{{"first", 3, -1}, {"repeated", 300, 0}} {
			openVerifier := newVerifier[openState](b, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
			sealedVerifier := newVerifier[sealedState](b, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes, c.StateSecrets = tt.bytes, stateSecret })
			b.Run(string(alg)+"/"+tt.name, func(b *testing.B) {
				interleave(b, tt.calls,
					func() error { _, err := openVerifier.Verify(b.Context(), openToken); return err },
					func() error { _, err := sealedVerifier.Verify(b.Context(), sealedToken); return err })
			})
		}
		b.Run(string(alg)+"/issue", func(b *testing.B) {
			interleave(b, 5,
				func() error { _, _, err := openIssuer.Issue(b.Context(), "user-1", withOpen); return err },
				func() error { _, _, err := sealedIssuer.Issue(b.Context(), "user-1", withSealed); return err })
		})
	}
}

// interleave measures two functions in turn.
func interleave(b *testing.B, calls int, f, g func() error) {
	measure := func(f func() error) float64 {
		before := time.Now()
		for range calls {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return float64(time.Since(before).Nanoseconds()) / float64(calls)
	}
	var fs, gs []float64
	for b.Loop() {
		fs, gs = append(fs, measure(f)), append(gs, measure(g))
	}
	slices.Sort(fs)
	slices.Sort(gs)
	open, sealed := fs[len(fs)/2], gs[len(gs)/2]
	b.ReportMetric(open, "open-ns")
	b.ReportMetric(sealed, "sealed-ns")
	b.ReportMetric(sealed/open, "ratio")
	b.ReportMetric(0, "ns/op")
}
