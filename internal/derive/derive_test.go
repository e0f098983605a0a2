package derive_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/derive"
)

// What is derived never changes: it opens what is in users' stores.
func TestKeys(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	keys, err := derive.Keys([][]byte{secret, secret[1:]}, "https://site.example", derive.UseKeys)
	require.NoError(t, err)
	require.Len(t, keys, 2)
	require.Equal(t, "72bbcf59e17131d7f64eb0c141437462738aac6648636b33720d3c58dc90ef10", hex.EncodeToString(keys[0]))
	require.NotEqual(t, keys[0], keys[1])
	for _, other := range [][2]string{{"https://other.example", derive.UseKeys}, {"https://site.example", "refresh"}} {
		o, err := derive.Keys([][]byte{secret}, other[0], other[1])
		require.NoError(t, err)
		require.NotEqual(t, keys[0], o[0])
	}
}
