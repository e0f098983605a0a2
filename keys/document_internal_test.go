package keys

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FuzzDocument reads whatever a store may hold. What is read can be joined with
// another document, brought up to now and written, and what is written can be
// read again, by a release that knows no more.
func FuzzDocument(f *testing.F) {
	plan := &schedule{
		rotateEvery: 30 * 24 * time.Hour, publishBefore: 24 * time.Hour, retainFor: 24 * time.Hour, identifyFor: 48 * time.Hour,
		unseen: 13 * time.Hour, maxSkew: time.Minute,
		newKey: func() (documentKey, error) { return newDocumentKey(EdDSA, "", nil) },
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	held := &document{Version: documentVersion}
	for i := range 4 {
		_, err := plan.advance(held, moment{now: start.Add(time.Duration(i) * 29 * 24 * time.Hour), destroy: true, sure: true})
		require.NoError(f, err)
		held.Serial++
		raw, err := held.encode()
		require.NoError(f, err)
		f.Add(raw, int64(i)*29*24*3600)
	}
	f.Add([]byte(fmt.Sprintf(`{"version":1,"ring":"x","made":"2026-01-01T00:00:00Z","serial":1000000000000000000,"keys":[{"jwk":{"kty":"AKP","kid":"q"},"published":"0001-01-01T00:00:00Z","signs_from":"0001-01-01T00:00:00Z","signs_until":"9999-01-01T00:00:00Z","kept_until":"9999-12-31T23:59:59Z"}],"times":[{"publish_before":%d,"until":"9999-01-01T00:00:00Z"}],"new":[1]}`, int64(1)<<62)), int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, seconds int64) {
		read, err := decodeDocument(raw)
		if err != nil {
			return
		}
		at := moment{now: start.Add(time.Duration(seconds%(400*24*3600)) * time.Second), destroy: true, sure: seconds%2 == 0}
		for _, other := range []*document{nil, held} {
			out := merge(read, other, nil, at, plan)
			if _, err := out.doc.set(at); err != nil {
				continue // one key under two algorithms
			}
			doc := out.doc.clone()
			if _, err := plan.advance(doc, at); err != nil {
				continue
			}
			doc.Serial++
			written, err := doc.encode()
			if err != nil {
				continue // a time beyond the year 9999
			}
			again, err := decodeDocument(written)
			require.NoError(t, err)
			if other != nil {
				require.False(t, merge(again, doc, nil, at, plan).owed, "what was written lacks nothing")
			}
		}
	})
}
