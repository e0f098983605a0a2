package sessiontoken_test

import (
	"context"
	"encoding/json"
	"expvar"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// moved is by how much counters went on.
func moved(before, after map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for name, v := range after {
		if v != before[name] && strings.HasSuffix(name, "_total") {
			out[name] = v - before[name]
		}
	}
	return out
}

func TestVerifierMetrics(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.ES256)
		source := &changing{set: mustSet(t, s.key.Public())}
		list := &revocations{}
		v := newVerifier[attackState](t, source, cache, func(c *sessiontoken.VerifierConfig) { c.Revocations = list })
		var cfg sessiontoken.VerifierConfig
		cache(&cfg)
		cached := 0.0
		if cfg.CacheBytes >= 0 {
			cached = 1
		}
		claims, err := v.Verify(t.Context(), s.token)
		require.NoError(t, err)
		require.Equal(t, cached, v.Metrics()["cache_entries"])
		again := s.sign(t, []byte(payload(claim{"jti", `"another"`})))
		for _, c := range []struct {
			name  string
			token string
			given func()
			want  map[string]float64
		}{
			{"seen before", s.token, nil, map[string]float64{"verifications_total": 1, "cache_hits_total": cached}},
			{"seen first", again, nil, map[string]float64{"verifications_total": 1}},
			{"no token", "x", nil, map[string]float64{"refused_malformed_total": 1}},
			{"too long", strings.Repeat("x", 9000), nil, map[string]float64{"refused_malformed_total": 1}},
			{"altered", s.token[:len(s.token)-3] + "AAA", nil, map[string]float64{"refused_signature_total": 1}},
			{"another issuer", s.sign(t, []byte(payload(claim{"iss", `"x"`}))), nil, map[string]float64{"refused_claims_total": 1}},
			{"another audience", s.sign(t, []byte(payload(claim{"aud", `"x"`}))), nil, map[string]float64{"refused_claims_total": 1}},
			{"the source fails", s.token, func() { source.put(nil, errBoom) }, map[string]float64{"undecided_total": 1}},
			{"it is back", s.token, func() { source.put(mustSet(t, s.key.Public()), nil) }, map[string]float64{"verifications_total": 1, "cache_hits_total": cached}},
			{"the list fails", s.token, func() { list.err = errBoom }, map[string]float64{"undecided_total": 1}},
			{"revoked", s.token, func() { list.err, list.sid = nil, claims.SessionID }, map[string]float64{"refused_revoked_total": 1}},
			{"expired", s.token, func() { time.Sleep(time.Hour) }, map[string]float64{"refused_expired_total": 1}},
		} {
			if c.given != nil {
				c.given()
			}
			before := v.Metrics()
			_, _ = v.Verify(t.Context(), c.token)
			maps.DeleteFunc(c.want, func(_ string, n float64) bool { return n == 0 })
			require.Equal(t, c.want, moved(before, v.Metrics()), c.name)
		}
		m := v.Metrics()
		require.Equal(t, cached, m["cache_entries"], "the expired one has left")
		require.Equal(t, cached == 1, m["cache_bytes"] > 1000, m["cache_bytes"])
	})
}

// TestVerifierMetricsConcurrently: nothing is lost, and hits are never more than
// what was accepted.
func TestVerifierMetricsConcurrently(t *testing.T) {
	s := newShop(t, keys.EdDSA)
	v := newVerifier[attackState](t, mustSet(t, s.key.Public()))
	token, _, err := newIssuer[attackState](t, staticOf(t, s)).Issue(t.Context(), "ada", attackState{})
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
	const each = 500
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range each {
				if _, err := v.Verify(t.Context(), token); err != nil {
					t.Error(err)
				}
				_, _ = v.Verify(t.Context(), "x")
				if m := v.Metrics(); m["cache_hits_total"] > m["verifications_total"] {
					t.Error("more hits than verifications")
				}
			}
		})
	}
	wg.Wait()
	m := v.Metrics()
	require.EqualValues(t, 4*each, m["cache_hits_total"])
	require.EqualValues(t, 4*each+1, m["verifications_total"])
	require.EqualValues(t, 4*each, m["refused_malformed_total"])
}

func staticOf(t *testing.T, s *shop) *keys.Static {
	t.Helper()
	source, err := keys.NewStatic(s.key)
	require.NoError(t, err)
	return source
}

// TestMetricsAreWhatTheyPromise: the doc comment of each Metrics names what the
// map has, the names follow one convention and are of one type each, and the
// values are such that JSON can hold them.
func TestMetricsAreWhatTheyPromise(t *testing.T) {
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	require.NoError(t, err)
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	require.NoError(t, err)
	manager, err := refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{make([]byte, 32)}, Revocations: list})
	require.NoError(t, err)
	verifier := newVerifier[attackState](t, ring)
	sessions, err := sessionhttp.New(sessionhttp.Config[attackState]{Verifier: verifier})
	require.NoError(t, err)
	fetched, err := remote.NewKeys(remote.KeysConfig{URL: "https://auth.example/jwks.json"})
	require.NoError(t, err)
	seen := map[string]string{}
	for _, c := range []struct {
		file, receiver string
		metrics        func() map[string]float64
	}{
		{"metrics.go", "Verifier", verifier.Metrics},
		{"remote/metrics.go", "Keys", fetched.Metrics},
		{"keys/metrics.go", "Ring", ring.Metrics},
		{"revoke/metrics.go", "List", list.Metrics},
		{"refresh/metrics.go", "Manager", manager.Metrics},
		{"sessionhttp/metrics.go", "Sessions", sessions.Metrics},
	} {
		t.Run(c.receiver, func(t *testing.T) {
			m := c.metrics()
			got := slices.Sorted(maps.Keys(m))
			require.Equal(t, documented(t, c.file, c.receiver), slices.DeleteFunc(slices.Clone(got), func(name string) bool { // one name for all
				return strings.HasPrefix(name, "sessionhttp_refused_") && strings.HasSuffix(name, "_total")
			}))
			for name, value := range m {
				require.Regexp(t, `^[a-z]+(_[a-z]+)+$`, name)
				require.Empty(t, seen[name], "%s is of two types", name)
				seen[name] = c.receiver
				require.False(t, math.IsInf(value, 0) || math.IsNaN(value) || value < 0, name)
			}
			_, err := json.Marshal(m)
			require.NoError(t, err)
			c.metrics()[got[0]] = -1
			require.NotEqual(t, -1.0, c.metrics()[got[0]], "the map is the caller's")
		})
	}
}

// documented is what the doc comment of a Metrics method names, in order.
func documented(t *testing.T, file, receiver string) (names []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^\t([a-z_]+)  `)
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "Metrics" {
			continue
		}
		of := fn.Recv.List[0].Type.(*ast.StarExpr).X
		if generic, ok := of.(*ast.IndexExpr); ok {
			of = generic.X
		}
		if of.(*ast.Ident).Name != receiver {
			continue
		}
		for _, m := range line.FindAllStringSubmatch(fn.Doc.Text(), -1) {
			names = append(names, m[1])
		}
	}
	require.NotEmpty(t, names)
	slices.Sort(names)
	return names
}

// What a verifier counts can be published as it is, here under /debug/vars. A
// ring, a list, a refresh manager and remote keys have the same method.
func ExampleVerifier_Metrics() {
	ctx := context.Background()
	issuer, ring := exampleIssuer()
	verifier, err := sessiontoken.NewVerifier[Cart](sessiontoken.VerifierConfig{
		Issuer: "https://auth.example", Audience: "shop", Keys: ring,
	})
	if err != nil {
		log.Fatal(err)
	}
	expvar.Publish("sessions", expvar.Func(func() any { return verifier.Metrics() }))

	token, _, err := issuer.Issue(ctx, "user-42", Cart{Name: "Ada"})
	if err != nil {
		log.Fatal(err)
	}
	for _, presented := range []string{token, token, token, "made up"} {
		_, _ = verifier.Verify(ctx, presented)
	}
	var shown map[string]float64
	if err := json.Unmarshal([]byte(expvar.Get("sessions").String()), &shown); err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"verifications_total", "cache_hits_total", "refused_malformed_total", "undecided_total"} {
		fmt.Println(name, shown[name])
	}
	// Output:
	// verifications_total 3
	// cache_hits_total 2
	// refused_malformed_total 1
	// undecided_total 0
}
