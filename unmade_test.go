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

// sourceFunc and checkerMap implement what constructors take on a func and a map.
type sourceFunc func() (*keys.Set, *keys.SigningKey, error)

func (f sourceFunc) KeySet(context.Context, string) (*keys.Set, error) {
	set, _, err := f()
	return set, err
}

func (sourceFunc) RetainFor() time.Duration { return 0 }

func (f sourceFunc) SigningKey(context.Context) (*keys.SigningKey, error) {
	_, key, err := f()
	return key, err
}

type checkerMap map[string]revoke.Checker

func (m checkerMap) Check(ctx context.Context, q *revoke.Question) error {
	return m["list"].Check(ctx, q)
}
func (m checkerMap) Begin(ctx context.Context, q revoke.Question) (time.Time, error) {
	return m["list"].Begin(ctx, q)
}
func (m checkerMap) Now(ctx context.Context) (time.Time, error) { return m["list"].Now(ctx) }
func (m checkerMap) Mark(ctx context.Context, q *revoke.Question) (int64, error) {
	return m["list"].Mark(ctx, q)
}
func (m checkerMap) MaxTTL() time.Duration    { return 24 * time.Hour }
func (m checkerMap) RetainFor() time.Duration { return 24 * time.Hour }

// zeroSource is a source of its own that needs nothing: its zero value is good.
type zeroSource struct{}

func (*zeroSource) KeySet(context.Context, string) (*keys.Set, error) { return nil, nil }

// TestZeroValuesAreRefused: what would panic at the first request is an error of
// the constructor, which names the field.
func TestZeroValuesAreRefused(t *testing.T) {
	signing := map[string]sessiontoken.SigningKeySource{
		"none":       nil,
		"nil ring":   (*keys.Ring)(nil),
		"zero ring":  new(keys.Ring),
		"nil fixed":  (*keys.Static)(nil),
		"zero fixed": new(keys.Static),
		"nil func":   sourceFunc(nil),
	}
	verifying := map[string]sessiontoken.KeySource{
		"nil set":  (*keys.Set)(nil),
		"zero set": new(keys.Set),
	}
	lists := map[string]revoke.Checker{
		"nil list":  (*revoke.List)(nil),
		"zero list": new(revoke.List),
		"nil map":   checkerMap(nil),
	}
	for name, source := range signing {
		verifying[name] = source
		_, err := sessiontoken.NewIssuer[attackState](sessiontoken.IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: source})
		require.ErrorContains(t, err, "IssuerConfig.Keys", name)
	}
	for name, source := range verifying {
		_, err := sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: source})
		require.ErrorContains(t, err, "VerifierConfig.Keys", name)
		_, err = sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: source})
		require.ErrorContains(t, err, "JWKSConfig.Keys", name)
		_, err = sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: "https://a.example", Keys: source})
		require.ErrorContains(t, err, "DiscoveryConfig.Keys", name)
	}
	key, err := keys.GenerateKey(keys.EdDSA)
	require.NoError(t, err)
	static, err := keys.NewStatic(key)
	require.NoError(t, err)
	for name, list := range lists {
		_, err := sessiontoken.NewIssuer[attackState](sessiontoken.IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: static, Revocations: list})
		require.ErrorContains(t, err, "IssuerConfig.Revocations", name)
		_, err = sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: static, Revocations: list})
		require.ErrorContains(t, err, "VerifierConfig.Revocations", name)
	}

	// A zero value of another type may be good. What it returns is checked.
	v, err := sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: new(zeroSource)})
	require.NoError(t, err)
	issuer := newIssuer[attackState](t, static)
	token, _, err := issuer.Issue(t.Context(), "ada", attackState{})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), token)
	require.Error(t, err)
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	empty := newIssuer[attackState](t, sourceFunc(func() (*keys.Set, *keys.SigningKey, error) { return nil, nil, nil }))
	_, _, err = empty.Issue(t.Context(), "ada", attackState{})
	require.Error(t, err)
	_, _, err = issuer.Renew(t.Context(), token, nil)
	require.Error(t, err)
}
