package keys_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// TestParseSetTellsWhatItSkips: what cannot be used safely does not take the rest
// of the set with it, and is told with its reason.
func TestParseSetTellsWhatItSkips(t *testing.T) {
	element := func(alg keys.Algorithm) (id, text string) {
		k, err := keys.GenerateKey(alg)
		require.NoError(t, err)
		set, err := keys.NewSet(k.Public())
		require.NoError(t, err)
		require.Empty(t, set.Skipped())
		doc, err := set.MarshalJSON()
		require.NoError(t, err)
		return k.Public().KeyID(), string(doc[strings.IndexByte(string(doc), '[')+1 : len(doc)-2])
	}
	id, good := element(keys.ES256)
	_, rs := element(keys.RS256)
	_, ed := element(keys.EdDSA)
	rsID := strings.Split(strings.Split(rs, `"kid":"`)[1], `"`)[0]
	edID := strings.Split(strings.Split(ed, `"kid":"`)[1], `"`)[0]
	for _, tt := range []struct {
		name    string
		others  string
		left    []string // ids, besides the good one's
		skipped []string
	}{
		{"one key under two algorithms", rs + "," + strings.Replace(strings.Replace(rs, "RS256", "PS256", 1), rsID, "other", 1), nil, []string{"two algorithms", "two algorithms"}},
		{"one kid for two keys", rs + "," + strings.Replace(ed, edID, rsID, 1), nil, []string{"same kid", "same kid"}},
		{"one kid for sig and enc", rs + "," + strings.Replace(strings.Replace(ed, edID, rsID, 1), `"sig"`, `"enc"`, 1), []string{rsID}, []string{"not for verifying"}},
		{"RSA without alg", strings.Replace(rs, `,"alg":"RS256"`, "", 1), []string{rsID}, nil},
		{"RSA without alg and use", strings.Replace(rs, `,"use":"sig","alg":"RS256"`, "", 1), nil, []string{"RSA without alg"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := keys.ParseSet([]byte("\ufeff" + `{"keys":[` + tt.others + "," + good + `]}`))
			require.NoError(t, err)
			var left []string
			for _, k := range set.Keys() {
				if k.KeyID() != id {
					left = append(left, k.KeyID())
				}
			}
			require.Equal(t, tt.left, left)
			require.Len(t, set.Keys(), len(tt.left)+1)
			skipped := set.Skipped()
			require.Len(t, skipped, len(tt.skipped))
			for i, reason := range tt.skipped {
				require.Contains(t, skipped[i], reason)
				skipped[i] = ""
				require.NotEmpty(t, set.Skipped()[i], "the slice is the caller's")
			}
			if len(tt.left) == 0 {
				_, err = keys.ParseSet([]byte(`{"keys":[` + tt.others + `]}`))
				require.ErrorContains(t, err, "no usable key: "+set.Skipped()[0])
			}
		})
	}
}

// TestParseSetCountsWhileItReads: refusing a document of very many keys takes no
// memory for each of them.
func TestParseSetCountsWhileItReads(t *testing.T) {
	data := []byte(`{"keys":[` + strings.Repeat("{},", 340_000) + `{}]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := keys.ParseSet(data)
	runtime.ReadMemStats(&after)
	require.ErrorContains(t, err, "too many keys")
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(len(data)/2))
}
