package sessiontoken_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

func sharing(c *sessiontoken.Cache) func(*sessiontoken.VerifierConfig) {
	return func(cfg *sessiontoken.VerifierConfig) { cfg.Cache = c }
}

// TestSharedCacheKeepsVerifiersApart: a token that one verifier has verified is
// not known to another one that shares its cache, of whatever issuer, audience,
// keys, list or state; and each has its own hits.
func TestSharedCacheKeepsVerifiersApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := sharing(sessiontoken.NewCache(0))
		source, list := staticSource(t, keys.EdDSA), &revocations{}
		token, claims, err := newIssuer[plainState](t, source).Issue(t.Context(), "user-1", plain)
		require.NoError(t, err)
		list.sid = claims.SessionID
		type otherState struct{ Name string }
		verifies := func(v interface{ Metrics() map[string]float64 }, verify func() error, want error) {
			t.Helper()
			for i := range 3 {
				err := verify()
				if want != nil {
					require.ErrorIs(t, err, want)
					require.Zero(t, v.Metrics()["cache_hits_total"])
					continue
				}
				require.NoError(t, err)
				require.Equal(t, float64(i), v.Metrics()["cache_hits_total"])
			}
		}
		first := newVerifier[plainState](t, source, shared)
		verify := func(v *sessiontoken.Verifier[plainState]) func() error {
			return func() error { _, err := v.Verify(t.Context(), token); return err }
		}
		verifies(first, verify(first), nil)
		for name, tt := range map[string]struct {
			change func(*sessiontoken.VerifierConfig)
			want   error
		}{
			"the same":        {func(*sessiontoken.VerifierConfig) {}, nil},
			"another issuer":  {func(c *sessiontoken.VerifierConfig) { c.Issuer = "https://other.example" }, sessiontoken.ErrClaims},
			"other audiences": {func(c *sessiontoken.VerifierConfig) { c.Audience = "other" }, sessiontoken.ErrAudience},
			"other keys":      {func(c *sessiontoken.VerifierConfig) { c.Keys = staticSource(t, keys.EdDSA) }, sessiontoken.ErrSignature},
			"another list":    {func(c *sessiontoken.VerifierConfig) { c.Revocations = list }, sessiontoken.ErrRevoked},
			"other limits":    {func(c *sessiontoken.VerifierConfig) { c.MaxTTL = time.Second }, sessiontoken.ErrClaims},
		} {
			t.Log(name)
			v := newVerifier[plainState](t, source, shared, tt.change)
			verifies(v, verify(v), tt.want)
		}
		other := newVerifier[otherState](t, source, shared)
		verifies(other, func() error {
			c, err := other.Verify(t.Context(), token)
			if err == nil {
				require.Equal(t, "Ada Lovelace", c.State.Name)
			}
			return err
		}, nil)
		require.Equal(t, 3.0, first.Metrics()["cache_entries"], "one each of three verifiers")
		time.Sleep(10 * time.Minute)
		require.ErrorIs(t, verify(first)(), sessiontoken.ErrExpired)
		_, err = other.Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
	})
}

// TestSharedCacheIsOneBudget: all that share it take its bytes together, however
// many they are.
func TestSharedCacheIsOneBudget(t *testing.T) {
	const room, verifiers, each = 64 << 10, 50, 20
	cache := sessiontoken.NewCache(room)
	source := staticSource(t, keys.EdDSA)
	issuer := newIssuer[plainState](t, source)
	var last *sessiontoken.Verifier[plainState]
	for range verifiers {
		last = newVerifier[plainState](t, source, sharing(cache))
		for i := range each {
			token, _, err := issuer.Issue(t.Context(), fmt.Sprint(i), plain)
			require.NoError(t, err)
			_, err = last.Verify(t.Context(), token)
			require.NoError(t, err)
		}
	}
	m := last.Metrics()
	require.LessOrEqual(t, m["cache_bytes"], float64(room))
	require.NotZero(t, m["cache_entries"])
	require.Less(t, m["cache_entries"], float64(verifiers*each)/2)
}

// TestCacheConfig: what cannot be meant is refused, and a negative size turns the
// cache off.
func TestCacheConfig(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	cfg := sessiontoken.VerifierConfig{Issuer: "https://issuer.example", Audience: "api", Keys: source}
	cfg.Cache = new(sessiontoken.Cache)
	_, err := sessiontoken.NewVerifier[plainState](cfg)
	require.ErrorContains(t, err, "VerifierConfig.Cache")
	for _, bytes := range []int{-1, 1 << 20} {
		cfg.Cache, cfg.CacheBytes = sessiontoken.NewCache(0), bytes
		_, err = sessiontoken.NewVerifier[plainState](cfg)
		require.ErrorContains(t, err, "VerifierConfig.CacheBytes")
	}
	token, _, err := newIssuer[plainState](t, source).Issue(t.Context(), "user-1", plain)
	require.NoError(t, err)
	off := newVerifier[plainState](t, source, sharing(sessiontoken.NewCache(-1)))
	on := newVerifier[plainState](t, source, sharing(sessiontoken.NewCache(0)))
	again, err := sessiontoken.NewVerifier[plainState](on.Config())
	require.NoError(t, err, "what Config returns can be used again")
	for range 2 {
		for _, v := range []*sessiontoken.Verifier[plainState]{off, on, again} {
			_, err := v.Verify(t.Context(), strings.Clone(token))
			require.NoError(t, err)
		}
	}
	require.Zero(t, off.Metrics()["cache_hits_total"])
	require.Equal(t, 1.0, on.Metrics()["cache_hits_total"])
	require.Equal(t, 1.0, again.Metrics()["cache_hits_total"])
}
