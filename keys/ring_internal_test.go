package keys

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A known key costs no allocation.
func TestKeySetAllocatesNothing(t *testing.T) {
	r, err := NewRing(RingConfig{Store: new(MemStore), Revoked: func(string) bool { return false }})
	require.NoError(t, err)
	key, err := r.SigningKey(t.Context())
	require.NoError(t, err)
	kid := key.Public().KeyID()
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = r.KeySet(t.Context(), kid) }))
	require.Zero(t, testing.AllocsPerRun(100, func() { _, _ = r.SigningKey(t.Context()) }))
}
