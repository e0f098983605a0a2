package sessiontoken_test

import (
	"fmt"
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
