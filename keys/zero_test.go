package keys_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// TestZeroValues: a value that no constructor made fails at each call, and does
// not panic.
func TestZeroValues(t *testing.T) {
	var ring keys.Ring
	var static keys.Static
	var set keys.Set
	var file keys.FileStore
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		call func() error
	}{
		{"Ring.KeySet", func() error { return second(ring.KeySet(ctx, "")) }},
		{"Ring.KeySet, a kid", func() error { return second(ring.KeySet(ctx, "kid")) }},
		{"Ring.SigningKey", func() error { return second(ring.SigningKey(ctx)) }},
		{"Ring.IdentifyKey", func() error { return second(ring.IdentifyKey(ctx, "kid")) }},
		{"Ring.Look", func() error { return ring.Look(ctx) }},
		{"Ring.Run", func() error { return ring.Run(ctx) }},
		{"Ring.Rotate", func() error { return second(ring.Rotate(ctx)) }},
		{"Ring.Revoke", func() error { return ring.Revoke(ctx, "kid") }},
		{"Ring.Reseal", func() error { return ring.Reseal(ctx) }},
		{"Ring.Status", func() error { return ring.Status().Err }},
		{"Static.KeySet", func() error { return second(static.KeySet(ctx, "")) }},
		{"Static.SigningKey", func() error { return second(static.SigningKey(ctx)) }},
		{"Static.IdentifyKey", func() error { return second(static.IdentifyKey(ctx, "kid")) }},
		{"Set.KeySet", func() error { return second(set.KeySet(ctx, "")) }},
		{"Set.MarshalJSON", func() error { return second(set.MarshalJSON()) }},
		{"FileStore.Load", func() error { return second(file.Load(ctx, "")) }},
		{"FileStore.Save", func() error { return second(file.Save(ctx, "", []byte("x"), "")) }},
	} {
		t.Run(tt.name, func(t *testing.T) { require.Error(t, tt.call()) })
	}
	require.Empty(t, ring.Metrics())
	require.Zero(t, ring.MaxAge())
	require.Zero(t, ring.NextChange())
	require.Empty(t, set.Keys())
	_, there := set.Key("kid")
	require.False(t, there)
	require.Zero(t, new(keys.PublicKey).KeyID())
	require.Nil(t, new(keys.SigningKey).Public())
}

type nilAEAD struct{}

func (*nilAEAD) Encrypt(plaintext, _ []byte) ([]byte, error)  { return plaintext, nil }
func (*nilAEAD) Decrypt(ciphertext, _ []byte) ([]byte, error) { return ciphertext, nil }

// TestRingRefusesWhatCannotBeMeant: bare numbers, which are nanoseconds, and nil
// pointers.
func TestRingRefusesWhatCannotBeMeant(t *testing.T) {
	aead, err := keys.NewAESGCM(make([]byte, 32))
	require.NoError(t, err)
	times := map[string]func(*keys.RingConfig) *time.Duration{
		"RotateEvery":   func(c *keys.RingConfig) *time.Duration { return &c.RotateEvery },
		"PublishBefore": func(c *keys.RingConfig) *time.Duration { return &c.PublishBefore },
		"RetainFor":     func(c *keys.RingConfig) *time.Duration { return &c.RetainFor },
		"IdentifyFor":   func(c *keys.RingConfig) *time.Duration { return &c.IdentifyFor },
		"SyncEvery":     func(c *keys.RingConfig) *time.Duration { return &c.SyncEvery },
		"MaxStale":      func(c *keys.RingConfig) *time.Duration { return &c.MaxStale },
		"ClientRefresh": func(c *keys.RingConfig) *time.Duration { return &c.ClientRefresh },
		"MaxSkew":       func(c *keys.RingConfig) *time.Duration { return &c.MaxSkew },
	}
	for field, of := range times {
		for _, tt := range []struct {
			bare time.Duration
			text string
		}{
			{1, "(did you mean 1 * time.Second?)"}, {86400, "(did you mean 86400 * time.Second?)"}, {30 * 86400, "(did you mean 2592000 * time.Second?)"},
			{-1, "must not be negative"}, {9 * time.Millisecond, "at least"},
		} {
			cfg := keys.RingConfig{Store: new(keys.MemStore)}
			*of(&cfg) = tt.bare
			_, err := keys.NewRing(cfg)
			require.ErrorContains(t, err, "keys: RingConfig."+field+" is "+tt.bare.String())
			require.ErrorContains(t, err, tt.text)
		}
	}
	for _, tt := range []struct {
		name  string
		store keys.Store
	}{
		{"a nil store", keys.Sealed((*keys.MemStore)(nil), aead)},
		{"a nil AEAD", keys.Sealed(new(keys.MemStore), (*nilAEAD)(nil))},
		{"a nil map of names", mapStore(nil)},
	} {
		_, err := keys.NewRing(keys.RingConfig{Store: tt.store})
		require.ErrorContains(t, err, "keys: RingConfig.Store", tt.name)
	}
	// Times for tests.
	_, err = keys.NewRing(keys.RingConfig{
		Store: new(keys.MemStore), RotateEvery: 2 * time.Second, PublishBefore: time.Second, RetainFor: time.Second,
		SyncEvery: 10 * time.Millisecond, MaxStale: 20 * time.Millisecond, ClientRefresh: 10 * time.Millisecond, MaxSkew: 10 * time.Millisecond,
	})
	require.NoError(t, err)
}

type mapStore map[string]keys.Store

func (m mapStore) Load(ctx context.Context, name string) (keys.Stored, error) {
	return m[name].Load(ctx, name)
}

func (m mapStore) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	return m[name].Save(ctx, name, doc, rev)
}
