package sessiontoken

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestClaimsAreSmall: a hit copies the claims, so that their size is its time.
// With a state of 64 bytes they fill an allocation of 256.
func TestClaimsAreSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Claims[[64]byte]{}), uintptr(256))
}
