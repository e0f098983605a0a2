package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// TestProgram has something of each kind happen, and reads it from both places.
func TestProgram(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	base := "http://" + listener.Addr().String()
	p, err := newProgram(base + "/.well-known/jwks.json")
	require.NoError(t, err)
	publish(base, p.sources()...) // a name that no other run of the test has
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.serve(ctx, listener) }()
	defer func() {
		cancel()
		require.NoError(t, <-done)
	}()
	c := client{t, base}

	tokens := c.signIn()
	require.Equal(t, 200, c.me(tokens.AccessToken))
	require.Equal(t, 200, c.me(tokens.AccessToken), "from the cache")
	require.Equal(t, 401, c.me(tokens.AccessToken+"x"))

	status, next := c.refresh(tokens.RefreshToken)
	require.Equal(t, 200, status)
	status, _ = c.refresh(next.RefreshToken)
	require.Equal(t, 200, status)
	status, _ = c.refresh(tokens.RefreshToken)
	require.Equal(t, 400, status, "the grandparent: used twice, and its session is ended")
	require.Equal(t, 401, c.me(tokens.AccessToken), "revoked")

	require.NoError(t, p.ring.Revoke(t.Context(), p.ring.Status().Keys[0].KeyID))

	want := map[string]float64{
		"verifications_total": 2, "cache_hits_total": 1, "cache_entries": 1,
		"refused_malformed_total": 1, "refused_signature_total": 0, "refused_claims_total": 0,
		"refused_expired_total": 0, "refused_revoked_total": 1, "undecided_total": 0,
		"jwks_keys": 2, "jwks_keys_skipped": 0, "jwks_fetches_total": 1, "jwks_fetch_failures_total": 0, "jwks_undecided_total": 0,
		"ring_keys": 2, "ring_rotations_total": 1, "ring_sync_failures_total": 0,
		"revocation_entries": 1, "revocations_total": 1, "revocation_write_failures_total": 0,
		"revocation_read_failures_total": 0,
		"refresh_exchanges_total":        2, "refresh_retries_total": 0, "refresh_reuse_detections_total": 1,
		"refresh_refused_total": 0, "refresh_issue_failures_total": 0, "refresh_undecided_total": 0,
		"refresh_late_retries_total": 0, "refresh_unauthenticated_records_total": 0, "refresh_deletion_failures_total": 0,
		"refresh_evictions_total": 0,
		"revocation_owed":         0, "revocation_foreign_store": 0, "revocation_watches": 0, "revocation_clock_warnings_total": 0,
		"ring_locked_keys": 0, "ring_write_due": 0, "ring_clock_offset_seconds": 0, "ring_write_failures_total": 0,
		"ring_unseal_failures_total": 0, "ring_clock_disagreements_total": 0, "ring_older_documents_total": 0,
		"sessionhttp_sign_ins_total": 1, "sessionhttp_sign_outs_total": 0, "sessionhttp_refreshes_total": 2,
		"sessionhttp_renewals_total": 0, "sessionhttp_renewal_failures_total": 0, "sessionhttp_renewals_running": 0,
		"sessionhttp_renewals_hung": 0, "sessionhttp_live_connections": 0, "sessionhttp_live_opened_total": 0,
		"sessionhttp_live_undecided_total": 0, "sessionhttp_refused_invalid_credentials_total": 1,
		"state_old_secret_total": 0, "issued_total": 3, "issued_near_budget_total": 0, "refused_size_total": 0, "token_bytes_limit": 3584,
	}
	for _, reason := range []string{"no_session", "client_gone", "cross_origin", "insecure", "too_large", "state_unwritable",
		"not_configured", "revocation_owed", "late", "panic", "cannot_tell"} {
		want["sessionhttp_refused_"+reason+"_total"] = 0
	}
	changing := []string{"cache_bytes", "jwks_age_seconds", "ring_age_seconds", "ring_current_key_ends_seconds", "ring_syncs_total",
		"revocation_age_seconds", "revocation_reads_total", "token_bytes_largest", "token_bytes_heaviest"}
	scraped := c.scrape()
	var vars map[string]json.RawMessage
	require.NoError(t, json.NewDecoder(c.do("GET", "/debug/vars", "", nil).Body).Decode(&vars))
	var published map[string]float64
	require.NoError(t, json.Unmarshal(vars[base], &published))
	for place, got := range map[string]map[string]float64{"/metrics": scraped, "/debug/vars": published} {
		require.Len(t, got, len(want)+len(changing)+1, place)
		require.InDelta(t, 0, got["revocation_clock_offset_seconds"], 1, place)
		for name, value := range want {
			require.Equal(t, value, got[name], "%s: %s", place, name)
		}
		for _, name := range changing {
			require.Positive(t, got[name], "%s: %s", place, name)
		}
	}
}

// TestCollector: the names and types are what Prometheus' own linter asks for, and
// a name cannot be there twice.
func TestCollector(t *testing.T) {
	p, err := newProgram("http://127.0.0.1/jwks.json")
	require.NoError(t, err)
	all := collector(p.sources())
	problems, err := testutil.CollectAndLint(all)
	require.NoError(t, err)
	require.Empty(t, problems)

	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(all))
	require.Error(t, registry.Register(collector{p.verifier}))

	both := prometheus.NewRegistry()
	for _, audience := range []string{"orders", "bills"} {
		labelled := prometheus.WrapRegistererWith(prometheus.Labels{"audience": audience}, both)
		require.NoError(t, labelled.Register(collector{p.verifier}))
	}
	_, err = both.Gather()
	require.NoError(t, err)
}

// client is what presents tokens.
type client struct {
	t    *testing.T
	base string
}

func (c client) do(method, path, bearer string, form url.Values) *http.Response {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(form.Encode()))
	require.NoError(c.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(c.t, err)
	c.t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (c client) signIn() (tokens sessionhttp.Tokens) {
	c.t.Helper()
	require.NoError(c.t, json.NewDecoder(c.do("POST", "/sign-in", "", nil).Body).Decode(&tokens))
	return tokens
}

func (c client) me(token string) (status int) { return c.do("GET", "/me", token, nil).StatusCode }

func (c client) refresh(token string) (status int, tokens sessionhttp.Tokens) {
	c.t.Helper()
	resp := c.do("POST", "/token", "", url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {token}})
	_ = json.NewDecoder(resp.Body).Decode(&tokens)
	return resp.StatusCode, tokens
}

// scrape reads /metrics as Prometheus does, without the namespace.
func (c client) scrape() map[string]float64 {
	c.t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(c.do("GET", "/metrics", "", nil).Body)
	require.NoError(c.t, err)
	out := map[string]float64{}
	for name, f := range families {
		short, ours := strings.CutPrefix(name, "sessiontoken_")
		require.True(c.t, ours, name)
		require.Len(c.t, f.Metric, 1)
		if f.GetType() == dto.MetricType_COUNTER {
			require.True(c.t, strings.HasSuffix(name, "_total"), name)
			out[short] = f.Metric[0].Counter.GetValue()
		} else {
			out[short] = f.Metric[0].Gauge.GetValue()
		}
	}
	return out
}
