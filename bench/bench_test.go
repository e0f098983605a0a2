package bench_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/bench"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// floorName is the floor's name in benchmark names and metrics.
const floorName = "floor"

// contestant is one line of a benchmark: a verification or an issue.
type contestant struct {
	name string
	run  func() error
}

// prepare returns the key set, a token of its current key for alg, and the floor
// over that token.
func prepare(b *testing.B, alg bench.Algorithm) (*bench.Fixture, string, *bench.Floor) {
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
	return f, token, floor
}

// verifiers returns the floor, first, and every peer that offers alg, all of
// them about to verify the same token.
func verifiers(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	f, token, floor := prepare(b, alg)
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
	f, _, floor := prepare(b, alg)
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

// refusers is the same for a token whose signature is another's.
func refusers(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	f := newFixture(b)
	key := f.Current(alg)
	token, _, err := bench.GoodToken(key)
	if err != nil {
		b.Fatal(err)
	}
	other, _, err := bench.GoodToken(key)
	if err != nil {
		b.Fatal(err)
	}
	forged := token[:strings.LastIndexByte(token, '.')] + other[strings.LastIndexByte(other, '.'):]
	floor, err := bench.NewFloor(key, forged)
	if err != nil {
		b.Fatal(err)
	}
	refuse := func(verify func() error) func() error {
		return func() error {
			if verify() == nil {
				return errors.New("a forged token was accepted")
			}
			return nil
		}
	}
	out := []contestant{{floorName, refuse(floor.Verify)}}
	for name, c := range contenders(b, f, alg) {
		out = append(out, contestant{name, refuse(func() error {
			_, err := c.Verify(forged)
			return err
		})})
	}
	return out
}

// plainState is a state without slices: a hit copies it and nothing else.
type plainState struct {
	UserID, Tenant, Name, Locale string
	Plan, Seats                  int
	MFA, Staff                   bool
}

// sessions returns the ways of reading a session that the server has seen
// before, and the floor of ES256.
func sessions(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	_, _, floor := prepare(b, alg)
	out := []contestant{{floorName, floor.Verify}}
	servers, ways := readers(b)
	subjects := make([]string, 100)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("user-%08d", i)
	}
	for _, way := range ways {
		o, err := way.Open(servers, subjects, bench.TokenTTL)
		if err != nil {
			b.Fatalf("%s: %v", way.Name, err)
		}
		b.Cleanup(o.Close)
		next := 0
		out = append(out, contestant{way.Name, func() error {
			next++
			_, _, err := o.Read(context.Background(), o.Presented[next%len(o.Presented)])
			return err
		}})
	}
	verify := repeated(b)
	return append(out, contestant{"sessiontoken-repeated-plain", verify})
}

// repeated is a verification of a token of a plain state that was seen before.
func repeated(b *testing.B) func() error {
	b.Helper()
	issuer, verifier, err := bench.SessiontokenPair[plainState](keys.ES256, bench.TokenTTL, 0)
	if err != nil {
		b.Fatal(err)
	}
	s := bench.SampleState()
	token, _, err := issuer.Issue(context.Background(), bench.Subject, plainState{s.UserID, s.Tenant, s.Name, s.Locale, s.PlanLevel, s.SeatCount, s.MFA, s.Staff})
	if err != nil {
		b.Fatal(err)
	}
	return func() error {
		_, err := verifier.Verify(context.Background(), token)
		return err
	}
}

// keySets returns first verifications with a set of one key and with one of a
// hundred, over the floor.
func keySets(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	f, token, floor := prepare(b, alg)
	out := []contestant{{floorName, floor.Verify}}
	signing, err := keys.NewSigningKey(keys.ES256, f.Current(alg).Signer)
	if err != nil {
		b.Fatal(err)
	}
	public := []*keys.PublicKey{signing.Public()}
	for _, n := range []int{1, 100} {
		for len(public) < n {
			k, err := keys.GenerateKey(keys.ES256)
			if err != nil {
				b.Fatal(err)
			}
			public = append(public, k.Public())
		}
		set, err := keys.NewSet(public...)
		if err != nil {
			b.Fatal(err)
		}
		v, err := sessiontoken.NewVerifier[bench.State](sessiontoken.VerifierConfig{Issuer: bench.Issuer, Audience: bench.Audience, Keys: set, CacheBytes: -1})
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, contestant{fmt.Sprintf("%d-keys", n), func() error {
			_, err := v.Verify(context.Background(), token)
			return err
		}})
	}
	return out
}

// lists returns first verifications without a list and with one that holds ten
// thousand revocations, over the floor.
func lists(b *testing.B, alg bench.Algorithm) []contestant {
	b.Helper()
	key := newFixture(b).Current(alg)
	signing, err := keys.NewSigningKey(keys.Algorithm(alg), key.Signer)
	if err != nil {
		b.Fatal(err)
	}
	source, err := keys.NewStatic(signing)
	if err != nil {
		b.Fatal(err)
	}
	issuer, err := sessiontoken.NewIssuer[bench.State](sessiontoken.IssuerConfig{Issuer: bench.Issuer, Audience: []string{bench.Audience}, Keys: source, TTL: bench.TokenTTL})
	if err != nil {
		b.Fatal(err)
	}
	token, _, err := issuer.Issue(b.Context(), bench.Subject, bench.SampleState())
	if err != nil {
		b.Fatal(err)
	}
	floor, err := bench.NewFloor(key, token)
	if err != nil {
		b.Fatal(err)
	}
	set, err := keys.NewSet(signing.Public())
	if err != nil {
		b.Fatal(err)
	}
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore), SyncEvery: time.Hour, MaxStale: 2 * time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		if err := list.RevokeSession(b.Context(), fmt.Sprint("session-", i)); err != nil {
			b.Fatal(err)
		}
	}
	out := []contestant{{floorName, floor.Verify}}
	for _, c := range []struct {
		name string
		list revoke.Checker
	}{{"without-list", nil}, {"with-list", list}} {
		v, err := sessiontoken.NewVerifier[bench.State](sessiontoken.VerifierConfig{Issuer: bench.Issuer, Audience: bench.Audience, Keys: set, Revocations: c.list, CacheBytes: -1})
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, contestant{c.name, func() error {
			_, err := v.Verify(context.Background(), token)
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
//
// Verify is a first verification, Refuse that of a forged signature, Session the
// reading of a session that the server has seen before, in the several ways of
// [bench.Readers], KeySet a first verification with one key and with a hundred,
// and List one with and without a list of revocations.
func BenchmarkInterleaved(b *testing.B) {
	b.Run("Verify", func(b *testing.B) { interleaved(b, verifiers, bench.Algorithms()...) })
	b.Run("Issue", func(b *testing.B) { interleaved(b, issuers, bench.Algorithms()...) })
	b.Run("Refuse", func(b *testing.B) { interleaved(b, refusers, bench.ES256, bench.EdDSA) })
	b.Run("Session", func(b *testing.B) { interleaved(b, sessions, bench.ES256) })
	b.Run("KeySet", func(b *testing.B) { interleaved(b, keySets, bench.ES256) })
	b.Run("List", func(b *testing.B) { interleaved(b, lists, bench.ES256, bench.EdDSA) })
}

func interleaved(b *testing.B, line func(*testing.B, bench.Algorithm) []contestant, algs ...bench.Algorithm) {
	for _, alg := range algs {
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

// BenchmarkCores/<heap>: repeated verifications of one token, by one goroutine
// and by two at once, in turns of 15 ms. It reports
//
//	2-cores/1-core   the median over the rounds of the throughput of two
//	                 goroutines divided by that of one
//
// What bounds it is the garbage collector, which one goroutine leaves a core of
// its own. So it is measured twice: with 64 MB alive, as a server has them, and
// in an empty process, which collects every few thousand calls.
func BenchmarkCores(b *testing.B) {
	if runtime.GOMAXPROCS(0) < 2 {
		b.Skip("one core")
	}
	for _, heap := range []struct {
		name  string
		alive int
	}{{"heap-64MB", 64 << 20}, {"heap-empty", 0}} {
		b.Run(heap.name, func(b *testing.B) {
			alive := make([]byte, heap.alive)
			c := contestant{"repeated", repeated(b)}
			calls := 10 * calibrate(b, c)
			var ratios []float64
			b.ResetTimer()
			for range b.N {
				start := time.Now()
				turn(b, c, calls)
				one := time.Since(start)
				start = time.Now()
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() { turn(b, c, calls) })
				}
				wg.Wait()
				ratios = append(ratios, 2*float64(one)/float64(time.Since(start)))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(ratios), "2-cores/1-core")
			runtime.KeepAlive(alive)
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
			b.Errorf("%s: %v", c.name, err)
			break
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
