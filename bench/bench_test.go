package bench_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/bench"
)

// floorName is the floor's name in benchmark names and metrics.
const floorName = "floor"

// contestant is one line of a benchmark: a verification or an issue.
type contestant struct {
	name string
	run  func() error
}

// verifiers returns the floor, first, and every peer that offers alg, all of
// them about to verify the same token.
func verifiers(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	f := newFixture(b)
	key := f.Current(alg)
	token, _, err := bench.GoodToken(key)
	if err != nil {
		b.Fatal(err)
	}
	floor, err := bench.NewFloor(key, token)
	if err != nil {
		b.Fatal(err)
	}
	out := []contestant{{floorName, floor.Verify}}
	for name, c := range contenders(b, f, alg) {
		out = append(out, contestant{name, func() error {
			_, err := c.Verify(token)
			return err
		}})
	}
	return out
}

// issuers is the same for tokens of one state.
func issuers(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	f := newFixture(b)
	key := f.Current(alg)
	token, _, err := bench.GoodToken(key)
	if err != nil {
		b.Fatal(err)
	}
	floor, err := bench.NewFloor(key, token)
	if err != nil {
		b.Fatal(err)
	}
	state := bench.SampleState()
	out := []contestant{{floorName, floor.Sign}}
	for name, c := range contenders(b, f, alg) {
		out = append(out, contestant{name, func() error {
			_, err := c.Issue(bench.Subject, state)
			return err
		}})
	}
	return out
}

// contenders ranges over the peers that offer alg, in the order of the reports.
func contenders(b *testing.B, f *bench.Fixture, alg bench.Algorithm) func(func(string, bench.Contender) bool) {
	return func(yield func(string, bench.Contender) bool) {
		for _, peer := range bench.Peers() {
			if !slices.Contains(peer.Algorithms, alg) {
				continue
			}
			c, err := peer.New(f, alg)
			if err != nil {
				b.Fatalf("%s: %v", peer.Name, err)
			}
			if !yield(peer.Name, c) {
				return
			}
		}
	}
}

// BenchmarkVerify/<algorithm>/<peer>: one token, verified again and again.
func BenchmarkVerify(b *testing.B) { plain(b, verifiers) }

// BenchmarkIssue/<algorithm>/<peer>: one state, issued again and again.
func BenchmarkIssue(b *testing.B) { plain(b, issuers) }

func plain(b *testing.B, line func(*testing.B, bench.Algorithm) []contestant) {
	for _, alg := range bench.Algorithms() {
		b.Run(string(alg), func(b *testing.B) {
			for _, c := range line(b, alg) {
				b.Run(c.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := c.run(); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		})
	}
}

// slice is how long a contestant runs before the next has its turn: long
// against the clock's resolution and a cache refill, short against a change of
// the machine's speed.
const slice = 1500 * time.Microsecond

// BenchmarkInterleaved/<operation>/<algorithm>: the contestants take turns of
// 1 to 2 ms, in a new order each round, so that whatever slows the machine
// down slows all of them. One operation of the benchmark is one round; ask for
// many with -benchtime=500x. It reports
//
//	<peer>/floor   the median over the rounds of the peer's time per call
//	               divided by the floor's in the same round
//	floor-ns       the median of the floor's time per call, in nanoseconds
func BenchmarkInterleaved(b *testing.B) {
	b.Run("Verify", func(b *testing.B) { interleaved(b, verifiers) })
	b.Run("Issue", func(b *testing.B) { interleaved(b, issuers) })
}

func interleaved(b *testing.B, line func(*testing.B, bench.Algorithm) []contestant) {
	for _, alg := range bench.Algorithms() {
		b.Run(string(alg), func(b *testing.B) {
			contestants := line(b, alg)
			calls := make([]int, len(contestants)) // in one turn
			for i, c := range contestants {
				calls[i] = calibrate(b, c)
			}
			order := make([]int, len(contestants))
			for i := range order {
				order[i] = i
			}
			rng := rand.New(rand.NewPCG(1, 2)) // the same order in each run
			perCall := make([]float64, len(contestants))
			ratios := make([][]float64, len(contestants))
			var floor []float64

			b.ResetTimer()
			for range b.N {
				rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
				for _, i := range order {
					perCall[i] = turn(b, contestants[i], calls[i])
				}
				floor = append(floor, perCall[0])
				for i := range contestants {
					ratios[i] = append(ratios[i], perCall[i]/perCall[0])
				}
			}
			b.StopTimer()

			b.ReportMetric(0, "ns/op") // a round's length means nothing
			b.ReportMetric(median(floor), floorName+"-ns")
			for i, c := range contestants[1:] {
				b.ReportMetric(median(ratios[i+1]), c.name+"/"+floorName)
			}
		})
	}
}

// calibrate returns how many calls fill one turn. The calls it makes also warm
// the contestant up.
func calibrate(b *testing.B, c contestant) int {
	b.Helper()
	for n := 1; ; n *= 2 {
		total := turn(b, c, n) * float64(n)
		if total >= float64(slice) {
			return max(1, int(float64(n)*float64(slice)/total))
		}
	}
}

// turn makes n calls and returns the nanoseconds of one.
func turn(b *testing.B, c contestant, n int) float64 {
	start := time.Now()
	for range n {
		if err := c.run(); err != nil {
			b.Fatalf("%s: %v", c.name, err)
		}
	}
	return float64(time.Since(start)) / float64(n)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
