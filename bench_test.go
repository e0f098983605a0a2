package sessiontoken_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
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
		for name, bytes := range map[string]int{"first": -1, "repeated": 0} {
			b.Run(string(alg)+"/"+name, func(b *testing.B) {
				v := newVerifier[plainState](b, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = bytes })
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
