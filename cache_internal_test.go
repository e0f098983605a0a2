//go:build !race

package sessiontoken

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// TestCacheUnderLoad: sessions that come back as in the wild (Zipf, 0.99) keep
// their place although half of all requests bring a valid token that never
// comes again, and although there is room for one session in ten.
//
// It drives the cache itself: what enters are tokens that passed every check,
// and a million signatures would prove nothing more about it.
func TestCacheUnderLoad(t *testing.T) {
	if os.Getenv("SESSIONTOKEN_LONG") == "" {
		t.Skip("it takes long; SESSIONTOKEN_LONG=1 runs it")
	}
	const sessions, room, requests = 100_000, 10_000, 1_000_000
	type state struct {
		Name  string   `json:"name"`
		Roles []string `json:"roles"`
	}
	json := fmt.Sprintf(`{"name":"Ada Lovelace","roles":[%s]}`, strings.Repeat(`"editor",`, 40)+`"member"`)
	text := strings.Repeat("x", 900) // a token's length beside what tells it apart
	key := must(keys.GenerateKey(keys.EdDSA)).Public()
	set := must(keys.NewSet(key))
	ours := audience{"api"}
	insert := func(c *cache[state], token string) {
		ids := strings.Clone(token[:60]) // as the scanner makes them: one string
		p := payload{Issuer: "https://issuer.example", Audience: ours, Subject: ids[:12], TokenID: ids[12:36], SessionID: ids[36:], State: []byte(json)}
		c.put(token, &cached[state]{payload: p, claims: *claimsOf[state](&p, key.KeyID()), session: questionOf(&p, key.KeyID()), key: key}, set)
	}
	one := newCache[state](NewCache(1 << 20))
	insert(one, fmt.Sprintf("r%011d%s", 0, text))
	bytes := int(one.tokens.WeightedSize()) * room

	rng := rand.New(rand.NewPCG(1, 2))
	zipf := newZipf(sessions, 0.99)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := newCache[state](NewCache(bytes))
	hits, asked := 0, 0
	for i := range requests {
		token := fmt.Sprintf("o%011d%s", i, text)
		real := i%2 == 0
		if real {
			token = fmt.Sprintf("r%011d%s", zipf(rng), text)
		}
		_, hit := c.get(token)
		if !hit {
			insert(c, token)
		}
		if real && i >= requests/2 { // the first half fills it
			asked++
			if hit {
				hits++
			}
		}
		require.LessOrEqual(t, c.tokens.WeightedSize(), uint64(bytes))
	}
	rate := float64(hits) / float64(asked)
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int(after.HeapAlloc) - int(before.HeapAlloc)
	t.Logf("hit rate of the real sessions %.3f; %d entries; %d of %d bytes by weight, %d of heap", rate, c.tokens.EstimatedSize(), c.tokens.WeightedSize(), bytes, used)
	require.GreaterOrEqual(t, rate, 0.70)
	require.LessOrEqual(t, used, bytes, "the bound is one of memory, not of an estimate")
	require.Greater(t, c.tokens.EstimatedSize(), room*9/10, "it is full")
}

// newZipf returns a source of the ranks 0 to n-1, of which rank r comes with a
// probability in proportion to 1/(r+1)^s. (That of math/rand wants s > 1.)
func newZipf(n int, s float64) func(*rand.Rand) int {
	sums, sum := make([]float64, n), 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -s)
		sums[i] = sum
	}
	return func(rng *rand.Rand) int {
		i, _ := slices.BinarySearch(sums, rng.Float64()*sum)
		return min(i, n-1)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestCopierKnowsItsLimits(t *testing.T) {
	type inner struct{ L []int }
	type hidden struct{ l []int }
	_ = hidden{}.l
	require.True(t, newCopier[string]().able)
	require.True(t, newCopier[struct {
		A []string
		B inner
		C []inner2
	}]().able)
	require.False(t, newCopier[[]string]().able, "no field to reach it by")
	require.False(t, newCopier[struct{ A []inner }]().able, "slices of slices")
	require.False(t, newCopier[struct{ A hidden }]().able, "cannot be set")
	require.False(t, newCopier[struct{ A map[string]string }]().able)
	require.False(t, newCopier[struct{ A *int }]().able)
	require.False(t, newCopier[struct{ A any }]().able)
	require.False(t, newCopier[struct{ A [2][]int }]().able)
}

type inner2 struct{ A, B string }
