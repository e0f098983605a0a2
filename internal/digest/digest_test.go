package digest_test

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/digest"
)

// TestOf: digests are fixed, since they are in stores, and the two parts cannot
// be shifted into each other.
func TestOf(t *testing.T) {
	d := digest.Of("subject", "ada")
	require.Equal(t, "728a4a1d42b33f0cb6ab583e8fc58116", hex.EncodeToString(d[:]))
	require.NotEqual(t, digest.Of("subjecta", "da"), digest.Of("subject", "ada"))
	require.NotEqual(t, digest.Of("", ""), digest.Of("", "\x00"))
}
