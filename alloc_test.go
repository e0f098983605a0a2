//go:build !race

package sessiontoken_test

import (
	"crypto/fips140"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// TestAllocations holds the exact number of allocations of the paths that every
// request takes, for a state without pointers: the standard library's
// signatures make most of them (10 of 14 for ES256).
func TestAllocations(t *testing.T) {
	for _, c := range []struct {
		alg                     keys.Algorithm
		first, repeated, issued float64
	}{
		{keys.ES256, 14, 1, 63},
		{keys.EdDSA, 3, 1, 4},
		{keys.RS256, 15, 1, 9},
	} {
		t.Run(string(c.alg), func(t *testing.T) {
			if c.alg == keys.RS256 && fips140.Enabled() {
				c.first, c.issued = c.first+1, c.issued+1 // crypto/rsa makes one more
			}
			source := staticSource(t, c.alg)
			issuer := newIssuer[plainState](t, source)
			token, _, err := issuer.Issue(t.Context(), "user-1", plain)
			require.NoError(t, err)
			cold := newVerifier[plainState](t, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = -1 })
			warm := newVerifier[plainState](t, source)
			shared := newVerifier[plainState](t, source, sharing(sessiontoken.NewCache(0)))
			count := func(f func() error) float64 {
				return testing.AllocsPerRun(100, func() {
					if err := f(); err != nil {
						t.Error(err)
					}
				})
			}
			require.LessOrEqual(t, count(func() error { _, err := cold.Verify(t.Context(), token); return err }), c.first)
			require.LessOrEqual(t, count(func() error { _, err := warm.Verify(t.Context(), token); return err }), c.repeated)
			require.LessOrEqual(t, count(func() error { _, err := shared.Verify(t.Context(), token); return err }), c.repeated)
			require.LessOrEqual(t, count(func() error { _, _, err := issuer.Issue(t.Context(), "user-1", plain); return err }), c.issued)
		})
	}
}

// TestAllocationsWithList: a list costs a hit no allocation, and a first
// verification the question alone.
func TestAllocationsWithList(t *testing.T) {
	for _, c := range []struct {
		alg             keys.Algorithm
		first, repeated float64
	}{
		{keys.ES256, 15, 1},
		{keys.EdDSA, 4, 1},
	} {
		t.Run(string(c.alg), func(t *testing.T) {
			source := staticSource(t, c.alg)
			onIssuer, onVerifier := withList(memoryList(t, 10))
			token, _, err := newIssuer[plainState](t, source, onIssuer).Issue(t.Context(), "user-1", plain)
			require.NoError(t, err)
			for _, tt := range []struct {
				bytes int
				most  float64
			}{{-1, c.first}, {0, c.repeated}} {
				v := newVerifier[plainState](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
				allocs := testing.AllocsPerRun(100, func() {
					if _, err := v.Verify(t.Context(), token); err != nil {
						t.Error(err)
					}
				})
				require.LessOrEqual(t, allocs, tt.most)
			}
		})
	}
}

// TestAllocationsOfSlices: a slice of the state costs one allocation, however
// long it is, and a string one if it is not among the last ones decoded.
func TestAllocationsOfSlices(t *testing.T) {
	type listState struct {
		Roles       []string `json:"roles"`
		Permissions []string `json:"permissions"`
	}
	source := staticSource(t, keys.EdDSA)
	token, _, err := newIssuer[listState](t, source).Issue(t.Context(), "user-1", listState{
		Roles:       []string{"member", "editor", "billing", "auditor", "owner"},
		Permissions: []string{"read", "write", "share", "pay", "invite", "audit", "deploy", "approve"},
	})
	require.NoError(t, err)
	for _, tt := range []struct {
		name  string
		bytes int
	}{{"first", -1}, {"repeated", 0}} {
		v := newVerifier[listState](t, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := v.Verify(t.Context(), token); err != nil {
				t.Error(err)
			}
		})
		require.LessOrEqual(t, allocs, map[string]float64{"first": 5, "repeated": 3}[tt.name], tt.name)
	}
}

// TestAllocationsOfProof: groups, acr, amr and act cost a hit nothing. A first
// verification pays once for all of them, and for the questions about the groups
// and the actor.
func TestAllocationsOfProof(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withList(memoryList(t, 10))
	issuer := newIssuer[plainState](t, source, onIssuer)
	_, admin, err := issuer.Issue(t.Context(), "admin", plain)
	require.NoError(t, err)
	groups := []sessiontoken.Group{sessiontoken.GroupOf("sid", "i", "1"), sessiontoken.GroupOf("sub", "i", "2")}
	actor := &sessiontoken.Actor{Subject: "admin", SessionID: admin.SessionID, Began: admin.Began}
	for _, c := range []struct {
		name            string
		start           sessiontoken.Start
		first, repeated float64
	}{
		{"nothing", sessiontoken.Start{}, 4, 1},
		{"groups and acr", sessiontoken.Start{Groups: groups, ACR: "aal2"}, 6, 1},
		{"amr", sessiontoken.Start{AMR: []string{"pwd", "otp"}}, 6, 1},
		{"act", sessiontoken.Start{Actor: actor}, 6, 1},
		{"all", sessiontoken.Start{Groups: groups, ACR: "aal2", AMR: []string{"pwd", "otp"}, Actor: actor}, 8, 1},
	} {
		c.start.Subject = "user-1"
		token, _, err := issuer.Begin(t.Context(), c.start, plain)
		require.NoError(t, err)
		for _, tt := range []struct {
			bytes int
			most  float64
		}{{-1, c.first}, {0, c.repeated}} {
			v := newVerifier[plainState](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
			allocs := testing.AllocsPerRun(100, func() {
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
			})
			require.Equal(t, tt.most, allocs, "%s, cache %d", c.name, tt.bytes)
		}
	}
}
