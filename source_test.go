package sessiontoken_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// mapSource is a source of a kind that can be nil without being a pointer.
type mapSource map[string]*keys.Static

func (m mapSource) KeySet(ctx context.Context, kid string) (*keys.Set, error) {
	return m[""].KeySet(ctx, kid)
}

func (m mapSource) SigningKey(ctx context.Context) (*keys.SigningKey, error) {
	return m[""].SigningKey(ctx)
}

func (mapSource) RetainFor() time.Duration { return 0 }

// funcSource is another.
type funcSource func() (*keys.SigningKey, error)

func (f funcSource) KeySet(context.Context, string) (*keys.Set, error) {
	k, err := f()
	if err != nil || k == nil {
		return nil, err
	}
	return keys.NewSet(k.Public())
}

func (f funcSource) SigningKey(context.Context) (*keys.SigningKey, error) { return f() }
func (funcSource) RetainFor() time.Duration                               { return 0 }

// TestConfigurationsThatCannotBeMeant: bare numbers, nil pointers, maps and
// funcs, and zero values are the constructors' errors.
func TestConfigurationsThatCannotBeMeant(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	for _, tt := range []struct {
		name   string
		change func(*sessiontoken.IssuerConfig)
		text   string
	}{
		{"TTL", func(c *sessiontoken.IssuerConfig) { c.TTL = 300 }, "IssuerConfig.TTL is 300ns; it must be at least 1s (did you mean 300 * time.Second?)"},
		{"IdleTimeout", func(c *sessiontoken.IssuerConfig) { c.IdleTimeout = 3600 }, "IssuerConfig.IdleTimeout is 3.6µs; it must be at least 1s (did you mean 3600 * time.Second?)"},
		{"MaxSession", func(c *sessiontoken.IssuerConfig) { c.MaxSession = 86400 }, "IssuerConfig.MaxSession is 86.4µs; it must be at least 1s (did you mean 86400 * time.Second?)"},
		{"half a second", func(c *sessiontoken.IssuerConfig) { c.TTL = 500 * time.Millisecond }, "IssuerConfig.TTL is 500ms; it must be at least 1s"},
		{"zero Ring", func(c *sessiontoken.IssuerConfig) { c.Keys = new(keys.Ring) }, "IssuerConfig.Keys is a zero *keys.Ring"},
		{"zero Static", func(c *sessiontoken.IssuerConfig) { c.Keys = new(keys.Static) }, "IssuerConfig.Keys is a zero *keys.Static"},
		{"nil map", func(c *sessiontoken.IssuerConfig) { c.Keys = mapSource(nil) }, "IssuerConfig.Keys is required"},
		{"nil func", func(c *sessiontoken.IssuerConfig) { c.Keys = funcSource(nil) }, "IssuerConfig.Keys is required"},
		{"zero List", func(c *sessiontoken.IssuerConfig) { c.Revocations = new(revoke.List) }, "Revocations is a zero *revoke.List"},
		{"a wrapper's zero Ring", func(c *sessiontoken.IssuerConfig) { c.Keys = traced{new(keys.Ring)} }, ""},
	} {
		t.Run("issuer, "+tt.name, func(t *testing.T) {
			cfg := sessiontoken.IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: source}
			tt.change(&cfg)
			i, err := sessiontoken.NewIssuer[struct{}](cfg)
			if tt.text != "" {
				require.ErrorContains(t, err, tt.text)
				return
			}
			// What a wrapper hides fails at each call, as a server at fault.
			require.NoError(t, err)
			_, _, err = i.Issue(t.Context(), "user-1", struct{}{})
			require.ErrorContains(t, err, "make it with NewRing")
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		})
	}
	for _, tt := range []struct {
		name   string
		change func(*sessiontoken.VerifierConfig)
		text   string
	}{
		{"Leeway", func(c *sessiontoken.VerifierConfig) { c.Leeway = 30 }, "VerifierConfig.Leeway is 30ns; it must be at least 1s (did you mean 30 * time.Second?)"},
		{"MaxTTL", func(c *sessiontoken.VerifierConfig) { c.MaxTTL = 86400 }, "VerifierConfig.MaxTTL is 86.4µs; it must be at least 1s (did you mean 86400 * time.Second?)"},
		{"zero Ring", func(c *sessiontoken.VerifierConfig) { c.Keys = new(keys.Ring) }, "VerifierConfig.Keys is a zero *keys.Ring"},
		{"zero Static", func(c *sessiontoken.VerifierConfig) { c.Keys = new(keys.Static) }, "VerifierConfig.Keys is a zero *keys.Static"},
		{"zero Set", func(c *sessiontoken.VerifierConfig) { c.Keys = new(keys.Set) }, "VerifierConfig.Keys is a zero *keys.Set"},
		{"nil map", func(c *sessiontoken.VerifierConfig) { c.Keys = mapSource(nil) }, "VerifierConfig.Keys is required"},
		{"zero List", func(c *sessiontoken.VerifierConfig) { c.Revocations = new(revoke.List) }, "Revocations is a zero *revoke.List"},
	} {
		t.Run("verifier, "+tt.name, func(t *testing.T) {
			cfg := sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: source}
			tt.change(&cfg)
			_, err := sessiontoken.NewVerifier[struct{}](cfg)
			require.ErrorContains(t, err, tt.text)
		})
	}
	err := failure2(newIssuer[struct{}](t, source).Renew(t.Context(), "", nil))
	require.ErrorContains(t, err, "load is required")
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
}

// TestSourceThatReturnsNothing: neither a key nor an error is an error.
func TestSourceThatReturnsNothing(t *testing.T) {
	s := newShop(t, keys.EdDSA)
	for _, tt := range []struct {
		name string
		key  *keys.SigningKey
	}{{"nil", nil}, {"zero", new(keys.SigningKey)}} {
		source := funcSource(func() (*keys.SigningKey, error) { return tt.key, nil })
		i := newIssuer[attackState](t, source)
		require.ErrorContains(t, errorOf(i.Issue(t.Context(), "user-1", attackState{})), "the source returned none", tt.name)
		_, err := i.Size(t.Context(), "user-1", attackState{})
		require.ErrorContains(t, err, "the source returned none", tt.name)
		for _, row := range []struct {
			name string
			err  error
		}{
			{"Verify", failure(newVerifier[attackState](t, source).Verify(t.Context(), s.token))},
			{"Renew", errorOf(i.Renew(t.Context(), s.token, always(attackState{})))},
			{"Identify", failure(i.Identify(t.Context(), s.token))},
		} {
			require.Error(t, row.err, "%s %s", tt.name, row.name)
			require.NotErrorIs(t, row.err, sessiontoken.ErrInvalid, "%s %s", tt.name, row.name)
		}
	}
}

// traced is a ring within a struct of one's own, as one has it for tracing.
type traced struct{ sessiontoken.SigningKeySource }

func (s traced) SigningKey(ctx context.Context) (*keys.SigningKey, error) {
	return s.SigningKeySource.SigningKey(ctx)
}

// TestWrappedRingKeepsItsTimes: a struct that holds a source is held to the
// times of that source.
func TestWrappedRingKeepsItsTimes(t *testing.T) {
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), RetainFor: 30 * time.Minute})
	require.NoError(t, err)
	for _, tt := range []struct {
		name   string
		source sessiontoken.SigningKeySource
	}{{"itself", ring}, {"wrapped", traced{ring}}, {"wrapped twice", traced{traced{ring}}}} {
		cfg := sessiontoken.IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: tt.source}
		_, err := sessiontoken.NewIssuer[struct{}](cfg)
		require.ErrorContains(t, err, "IssuerConfig.IdleTimeout is 1h0m0s, but Keys retains a key only for 30m0s", tt.name)
		cfg.IdleTimeout = 30 * time.Minute
		_, err = sessiontoken.NewIssuer[struct{}](cfg)
		require.NoError(t, err, tt.name)
	}
}
