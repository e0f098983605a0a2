package keys

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestScheduleWithSkew runs the schedule as replicas whose clocks differ by up
// to maxSkew would: each acts on the document that it read last, which may be
// as old as unseen. A bubble of synctest has one clock, so the skew is modelled
// here, where the time is an argument.
func TestScheduleWithSkew(t *testing.T) {
	const (
		skew    = 10 * time.Minute
		publish = 6 * time.Hour
		retain  = 2 * time.Hour
		unseen  = 2 * time.Hour
	)
	for seed := range uint64(12) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 7))
			n := 0
			s := &schedule{rotateEvery: 9 * time.Hour, publishBefore: publish, retainFor: retain, identifyFor: retain, unseen: unseen, maxSkew: skew,
				newKey: func() (documentKey, error) {
					n++
					id := fmt.Sprint("key ", n)
					return documentKey{Private: []byte{1}, id: id, public: &PublicKey{id: id}}, nil
				}}
			type replica struct {
				offset time.Duration // of its clock
				doc    *document
				read   time.Time // by the true clock
			}
			stored := &document{Version: documentVersion}
			replicas := make([]*replica, 5)
			for i := range replicas {
				replicas[i] = &replica{offset: time.Duration(rng.Int64N(int64(skew)))}
			}
			replicas[0].offset, replicas[1].offset = 0, skew
			start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			published := map[string]time.Time{}  // when it was first in the stored document
			lastSigned := map[string]time.Time{} // by anyone, by the true clock
			urgent := map[string]bool{}
			rotations, revocations := 0, 0

			for now := start; now.Before(start.Add(90 * 24 * time.Hour)); now = now.Add(time.Duration(rng.Int64N(int64(20 * time.Minute)))) {
				r := replicas[rng.IntN(len(replicas))]
				clock := moment{now: now.Add(r.offset), destroy: true}
				if rng.Float64() < 0.6 || r.doc == nil || now.Sub(r.read) > unseen { // it syncs
					doc := stored.clone()
					doc.Revoked = nil
					changed, err := s.advance(doc, clock)
					require.NoError(t, err)
					first := len(stored.Keys) == 0
					if rng.Float64() < 0.01 {
						_, err := s.rotate(doc, clock)
						require.NoError(t, err)
						changed = true
						rotations++
					}
					if rng.Float64() < 0.005 {
						at := current(doc, clock.now)
						require.GreaterOrEqual(t, at, 0)
						victim := doc.Keys[rng.IntN(len(doc.Keys))].public.id
						known := map[string]bool{}
						for _, k := range doc.Keys {
							known[k.public.id] = true
						}
						unknown, err := s.revoke(doc, clock, []string{victim})
						require.NoError(t, err)
						require.Empty(t, unknown)
						for _, k := range doc.Keys {
							if !known[k.public.id] && k.signsAt(clock.now) {
								urgent[k.public.id] = true
							}
						}
						delete(lastSigned, victim) // its tokens must not verify
						changed = true
						revocations++
					}
					if changed {
						stored = doc
						for i, k := range stored.Keys {
							if _, ok := published[k.public.id]; !ok {
								published[k.public.id] = now
								if first && i == 0 {
									urgent[k.public.id] = true
								}
							}
						}
					}
					r.doc, r.read = stored, now
				}
				// A replica that is allowed to sign does.
				at := current(r.doc, clock.now)
				if at >= 0 {
					id := r.doc.Keys[at].public.id
					if !urgent[id] {
						require.GreaterOrEqual(t, now.Sub(published[id]), publish-skew, "signed too early")
					}
					stillThere := false
					for _, k := range stored.Keys {
						stillThere = stillThere || k.public.id == id
					}
					if stillThere {
						lastSigned[id] = now
					}
				} else {
					require.NotSame(t, stored, r.doc, "a replica in step has no key to sign with")
				}
				// Every key that signed lately is still published.
				for id, last := range lastSigned {
					if now.Sub(last) > retain {
						delete(lastSigned, id)
						continue
					}
					found := false
					for _, k := range stored.Keys {
						found = found || k.public.id == id
					}
					require.True(t, found, "%s signed %v ago and is gone", id, now.Sub(last))
				}
				// By each clock, exactly one key is current in what is stored.
				for _, r := range replicas {
					count := 0
					for _, k := range stored.Keys {
						if k.signsAt(now.Add(r.offset)) {
							count++
							require.NotEmpty(t, k.Private, "the current key of a slow clock has lost its private half")
						}
					}
					require.Equal(t, 1, count, "current keys by a clock that is %v ahead", r.offset)
				}
				for i := 1; i < len(stored.Keys); i++ {
					require.False(t, stored.Keys[i].SignsFrom.Before(stored.Keys[i-1].SignsUntil), "windows overlap")
				}
			}
			require.NotZero(t, rotations)
			require.NotZero(t, revocations)
		})
	}
}
