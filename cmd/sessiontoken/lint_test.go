package main

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestGatewaysTable: each fact has a source, each row a date, and no name is
// there twice.
func TestGatewaysTable(t *testing.T) {
	all, err := readGateways(gatewaysJSON)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 16)
	var names []string
	for _, g := range all {
		names = append(names, g.Name)
		_, err := time.Parse(time.DateOnly, g.Date)
		require.NoError(t, err, g.Name)
		require.NotEmpty(t, g.Title)
		known := 0
		for _, f := range facts(&g) {
			if f.Value == unknown {
				require.Empty(t, f.Source)
				continue
			}
			known++
			u, err := url.Parse(f.Source)
			require.NoError(t, err)
			require.Equal(t, "https", u.Scheme, "%s: %s", g.Name, f.Fact)
			require.NotEmpty(t, u.Host)
		}
		require.Positive(t, known, g.Name)
		if g.Keeps != nil {
			require.Contains(t, []string{"", "max-age", "until-unknown", "by-hand"}, g.Keeps.Kind)
			require.Equal(t, g.Keeps.Kind == "max-age", g.Keeps.Most > 0, g.Name)
		}
	}
	require.True(t, slices.IsSorted(names), "%v", names)
	require.Equal(t, len(names), len(slices.Compact(slices.Clone(names))))
	for _, name := range []string{"envoy", "istio", "aws-http-api", "aws-alb", "krakend", "kong", "traefik", "nginx-plus", "spring-security", "aspnet-core", "jose", "pyjwt", "go-oidc", "jwx", "haproxy", "apisix"} {
		require.Contains(t, names, name)
	}
	_, err = readGateways([]byte(`[{"name":"a","keps":{}}]`))
	require.Error(t, err)
}

// TestLintFindsNothingOnTheDefaults: nothing is found for gateways whose facts
// are known and fit the defaults.
func TestLintFindsNothingOnTheDefaults(t *testing.T) {
	r := runWith(t, "", "lint", "--gateway", "envoy,istio,jose,keyfunc,nginx-plus,pyjwt,pinggateway,jwx")
	require.Equal(t, exitDone, r.code, r.out+r.err)
	require.Contains(t, r.out, "0 found")
	require.NotContains(t, r.out, "FOUND")
	r = runWith(t, "", "lint", "--algorithm", "RS256", "--gateway", "aws-http-api,aws-alb,krakend,aws-rest-api")
	require.Equal(t, exitDone, r.code, r.out+r.err)
}

func TestLintFindsEachFault(t *testing.T) {
	for _, tt := range []struct {
		name    string
		args    []string
		finds   string
		remedy  string
		revoked string
	}{
		{"an algorithm that it does not take", []string{"--gateway", "aws-http-api"}, "does not take ES256", "keys.RS256", "at most 2 h"},
		{"EdDSA at HAProxy", []string{"--gateway", "haproxy", "--algorithm", "EdDSA"}, "does not take EdDSA", "keys.ES256", "until it is taken out"},
		{"an algorithm that it is not told", []string{"--gateway", "go-oidc"}, "RS256 alone until it is told", "SupportedSigningAlgs", "until a token of an unknown key"},
		{"a type that it refuses", []string{"--gateway", "spring", "--algorithm", "RS256"}, "refuses the type session+jwt", "DefaultJOSEObjectTypeVerifier", "at most 5 min"},
		{"more keys than it takes", []string{"--gateway", "alb", "--algorithm", "RS256", "--rotate-every", "25h", "--retain", "240h"}, "at most 10 keys, and the plan publishes 12", "RotateEvery", unknown},
		{"a set larger than it takes", []string{"--gateway", "alb", "--algorithm", "RS256", "--keys", "400"}, "at most 153600 bytes", "RetainFor", unknown},
		{"a long life of a revoked key", []string{"--gateway", "aspnet-core"}, "lives there for 12 h, longer than 2 h", "AutomaticRefreshInterval", "at most 12 h"},
		{"longer than it may", []string{"--gateway", "envoy", "--revoked-within", "1m"}, "lives there for 10 min, longer than 1 min", "cache_duration", "at most 10 min"},
		{"keys that are kept one by one", []string{"--gateway", "apisix"}, "lives there for 1 d", "restart each instance", "at most 1 d"},
		{"a max-age that it obeys", []string{"--gateway", "confluent-cloud", "--max-age", "9h"}, "lives there for 9 h", "--max-age", "at most 9 h"},
		{"keys by hand", []string{"--gateway", "kong-jwt"}, "does not see a rotation", "keys status", "until it is taken out"},
		{"a key that signs too soon", []string{"--gateway", "istio", "--publish-ahead", "35m", "--max-stale", "20m", "--client-refresh", "2m"}, "may not have a new key when it signs: it keeps a set for 20 min, and a key is published for sure 13 min before", "--publish-ahead", "at most 20 min"},
		{"no discovery", []string{"--gateway", "kong", "--discovery=false"}, "does not serve", "DiscoveryHandler", "until a token of an unknown key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runWith(t, "", append([]string{"lint"}, tt.args...)...)
			require.Equal(t, exitNot, r.code, r.out+r.err)
			require.Contains(t, r.out, "FOUND ")
			require.Contains(t, r.out, tt.finds)
			require.Contains(t, r.out, "remedy: ")
			require.Contains(t, r.out, tt.remedy)

			r = runWith(t, "", append([]string{"lint", "--json"}, tt.args...)...)
			require.Equal(t, exitNot, r.code)
			var got struct{ Gateways []linted }
			require.NoError(t, json.Unmarshal([]byte(r.out), &got))
			require.Len(t, got.Gateways, 1)
			require.Contains(t, got.Gateways[0].Revoked, tt.revoked)
			require.True(t, slices.ContainsFunc(got.Gateways[0].Findings, func(f lintFinding) bool {
				return strings.Contains(f.Found, tt.finds) && strings.Contains(f.Remedy, tt.remedy)
			}))
		})
	}
}

// TestLintPrintsWhatIsUnknown: what is not in the table is printed as unknown,
// and not as fine.
func TestLintPrintsWhatIsUnknown(t *testing.T) {
	r := runWith(t, "", "lint", "--gateway", "traefik")
	require.Equal(t, exitDone, r.code, r.err)
	for _, line := range []string{"algorithms        unknown", "keeps the set     unknown", "a revoked key     unknown", "planned rotation  unknown", "of 1 it is not known whether all is well"} {
		require.Contains(t, r.out, line)
	}
	all, err := readGateways([]byte(`[{"name":"x","title":"X","date":"2026-01-01","keeps":{"for":"48h","source":"https://x.example"}}]`))
	require.NoError(t, err)
	p := lintPlan{revokedWithin: 72 * time.Hour, window: time.Hour}
	require.Equal(t, unknown, p.lint(&all[0]).Rotation, "whether it fetches is not known")
}

func TestLintRefusesAPlanThatARingRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"published too late", []string{"--publish-ahead", "1h"}, "PublishBefore"},
		{"max-age too long", []string{"--max-age", "20h"}, "--max-age"},
		{"kept too short", []string{"--retain", "1m"}, "--retain"},
		{"no algorithm", []string{"--algorithm", "HS256"}, "Algorithm"},
		{"no gateway of that name", []string{"--gateway", "envoy,nosuch"}, "not known"},
		{"an argument", []string{"envoy"}, "no arguments"},
		{"a negative time", []string{"--ttl", "-1s"}, "more than 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runWith(t, "", append([]string{"lint", "--gateway", "envoy"}, tt.args...)...)
			require.Equal(t, exitUsage, r.code, r.out)
			require.Contains(t, r.err, tt.says)
			require.Empty(t, r.out)
		})
	}
	r := runWith(t, "", "lint")
	require.Equal(t, exitUsage, r.code)
	require.Contains(t, r.out, "envoy")
}
