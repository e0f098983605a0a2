package jws

import (
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzDER: what is taken as an ASN.1 signature, encoding/asn1 reads as the same
// numbers, and writing it gives the same bytes.
func FuzzDER(f *testing.F) {
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 1})
	f.Add([]byte{0x30, 7, 2, 2, 0, 0x80, 2, 1, 1})
	f.Add([]byte{0x30, 7, 2, 2, 0, 1, 2, 1, 1}) // a zero too many
	f.Add([]byte{0x30, 6, 2, 1, 0xff, 2, 1, 1}) // negative
	f.Add([]byte{0x30, 6, 2, 1, 0, 2, 1, 1})    // zero
	f.Add([]byte{0x30, 0x81, 6, 2, 1, 1, 2, 1, 1})
	f.Fuzz(func(t *testing.T, der []byte) {
		raw, err := rawECDSA(der)
		var v struct{ R, S *big.Int }
		rest, asnErr := asn1.Unmarshal(der, &v)
		good := asnErr == nil && len(rest) == 0 && v.R.Sign() > 0 && v.S.Sign() > 0 && v.R.BitLen() <= 256 && v.S.BitLen() <= 256
		if err != nil {
			// encoding/asn1 takes a structure with further members; a signature has two.
			if good {
				again, err := asn1.Marshal(v)
				require.NoError(t, err)
				require.NotEqual(t, again, der)
			}
			return
		}
		require.True(t, good)
		require.Zero(t, v.R.Cmp(new(big.Int).SetBytes(raw[:32])))
		require.Zero(t, v.S.Cmp(new(big.Int).SetBytes(raw[32:])))
		require.Equal(t, der, appendDER(nil, raw))
	})
}
