package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
)

const namespace = "sessiontoken_"

// alert is a rule of alerts.yml.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Annotations map[string]string `yaml:"annotations"`
}

func readAlerts(t *testing.T) (alerts []alert) {
	t.Helper()
	text, err := os.ReadFile("alerts.yml")
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string  `yaml:"name"`
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	require.NoError(t, yaml.UnmarshalWithOptions(text, &file, yaml.Strict()))
	for _, g := range file.Groups {
		require.NotEmpty(t, g.Name)
		alerts = append(alerts, g.Rules...)
	}
	require.GreaterOrEqual(t, len(alerts), 25)
	return alerts
}

// healthy returns the metrics of a program and of an authority with a feed, after
// what they do in their first moments.
func healthy(t *testing.T) map[string]float64 {
	t.Helper()
	p, err := newProgram("http://127.0.0.1/jwks.json")
	require.NoError(t, err)
	site, err := authority.New(authority.Config[State]{
		Issuer: issuerName, Audience: []string{audience}, Store: authority.Memory(), FeedTokens: []string{strings.Repeat("a", 43)},
		Load: func(context.Context, *sessiontoken.Claims[State]) (State, error) { return State{}, nil },
	})
	require.NoError(t, err)
	_, _, err = site.Issuer().Issue(t.Context(), "ada", State{"clerk"})
	require.NoError(t, err)
	all := site.Metrics()
	maps.Copy(all, p.remote.Metrics())
	require.Contains(t, all, "feed_waiting")
	return all
}

// metricsIn returns the metrics that an expression names. It fails if one does not
// exist, if a counter is not asked for its increase, or if a gauge is.
func metricsIn(t *testing.T, expr string, known map[string]float64) (names []string) {
	t.Helper()
	for _, name := range regexp.MustCompile(namespace+`\w+`).FindAllString(expr, -1) {
		short := strings.TrimPrefix(name, namespace)
		require.Contains(t, known, short, "%s does not exist", name)
		counted := strings.Contains(expr, "rate("+name+"[") || strings.Contains(expr, "increase("+name+"[")
		require.Equal(t, strings.HasSuffix(name, "_total"), counted, "a counter, and no gauge, is asked for its increase: %s", name)
		names = append(names, short)
	}
	require.NotEmpty(t, names, expr)
	return names
}

// TestAlertsAreWellFormed: each alert has a name of its own, is about metrics that
// exist, and says in one sentence what to do.
func TestAlertsAreWellFormed(t *testing.T) {
	known, seen := healthy(t), map[string]bool{}
	for _, a := range readAlerts(t) {
		require.Regexp(t, `^[A-Z][A-Za-z]+$`, a.Alert)
		require.False(t, seen[a.Alert], a.Alert)
		seen[a.Alert] = true
		metricsIn(t, a.Expr, known)
		require.Regexp(t, `^[^.].+[.?]$`, a.Annotations["summary"], a.Alert)
		if a.For != "" {
			_, err := time.ParseDuration(a.For)
			require.NoError(t, err, a.Alert)
		}
	}
}

// TestEachRowHasAnAlert: each row of "What to watch" that says when a metric is
// healthy has an alert about it.
func TestEachRowHasAnAlert(t *testing.T) {
	text, err := os.ReadFile("../../../OPERATING.md")
	require.NoError(t, err)
	_, watch, ok := strings.Cut(string(text), "## What to watch\n")
	require.True(t, ok)
	watch, _, _ = strings.Cut(watch, "\n## ")
	var alerted []string
	for _, a := range readAlerts(t) {
		alerted = append(alerted, metricsIn(t, a.Expr, healthy(t))...)
	}
	rows := 0
	for line := range strings.Lines(watch) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`") || strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			continue
		}
		rows++
		for name := range strings.SplitSeq(cells[1], ", ") {
			before, after, all := strings.Cut(strings.Trim(name, " `"), "…")
			require.True(t, slices.ContainsFunc(alerted, func(k string) bool {
				return k == before && !all || all && strings.HasPrefix(k, before) && strings.HasSuffix(k, after)
			}), "no alert is about %s", name)
		}
	}
	require.GreaterOrEqual(t, rows, 15)
}

// TestAlertsFire: on a healthy server no alert fires, and each fires on the
// condition that it is for and not right below it.
func TestAlertsFire(t *testing.T) {
	base := healthy(t)
	base["ring_current_key_ends_seconds"] = 86400
	base["jwks_age_seconds"], base["ring_age_seconds"], base["revocation_age_seconds"] = 600, 60, 6
	base["verifications_total"] = 100_000
	alerts := readAlerts(t)
	type values map[string]float64
	// of is one alert: the metrics at which it fires, and those at which it does
	// not. A counter's value is its increase in the range that the rule looks at.
	for _, of := range []struct {
		alert        string
		fires, quiet []values
	}{
		{"RevocationsAreOld", []values{{"revocation_age_seconds": 10.5}}, []values{{"revocation_age_seconds": 10}}},
		{"SignOutsAreNotShared", []values{{"revocation_owed": 1}}, []values{{"revocation_owed": 0}}},
		{"RevocationStoreIsAnother", []values{{"revocation_foreign_store": 1}}, nil},
		{"ClockIsWrong", []values{
			{"revocation_clock_offset_seconds": 61}, {"revocation_clock_offset_seconds": -61},
			{"ring_clock_offset_seconds": 61}, {"ring_clock_offset_seconds": -61},
		}, []values{{"revocation_clock_offset_seconds": -60, "ring_clock_offset_seconds": 60}}},
		{"KeySetIsOld", []values{{"jwks_age_seconds": 1801}}, []values{{"jwks_age_seconds": 1800}}},
		{"RingIsNotSynced", []values{{"ring_age_seconds": 301}}, []values{{"ring_age_seconds": 300}}},
		{"RingCannotSign", []values{{"ring_current_key_ends_seconds": 0}}, []values{{"ring_current_key_ends_seconds": 1}}},
		{"RingIsNotWritten", []values{{"ring_write_due": 1}}, nil},
		{"RingKeysAreLocked", []values{{"ring_locked_keys": 1}}, nil},
		{"RefreshTokenReused", []values{{"refresh_reuse_detections_total": 1}}, nil},
		{"RefreshRecordsDoNotAuthenticate", []values{{"refresh_unauthenticated_records_total": 1}}, nil},
		{"RefreshCannotTell", []values{{"refresh_undecided_total": 31}, {"refresh_issue_failures_total": 31}, {"refresh_undecided_total": 16, "refresh_issue_failures_total": 16}}, []values{{"refresh_undecided_total": 30}}},
		{"VerifierCannotTell", []values{{"undecided_total": 11, "verifications_total": 1000}, {"undecided_total": 1}}, []values{{"undecided_total": 10, "verifications_total": 1000}}},
		{"SessionsAreNotRenewed", []values{{"sessionhttp_renewal_failures_total": 31}, {"sessionhttp_renewals_hung": 1}}, []values{{"sessionhttp_renewal_failures_total": 30}}},
		{"RequestsCannotBeDecided", []values{{"sessionhttp_refused_late_total": 31}, {"sessionhttp_refused_panic_total": 31}, {"sessionhttp_refused_cannot_tell_total": 31}}, []values{{"sessionhttp_refused_late_total": 30}}},
		{"RequestsCanNeverSucceed", []values{{"sessionhttp_refused_too_large_total": 1}, {"sessionhttp_refused_state_unwritable_total": 1}, {"sessionhttp_refused_not_configured_total": 1}}, nil},
		{"KeySetHasUnsafeKeys", []values{{"jwks_keys_skipped": 1}}, nil},
		{"KeySetCannotTell", []values{{"jwks_undecided_total": 31}}, []values{{"jwks_undecided_total": 30}}},
		{"RingStoreWentBack", []values{{"ring_older_documents_total": 1}}, nil},
		{"TokensNearTheirBudget", []values{{"token_bytes_largest": 3226, "token_bytes_limit": 3584}}, []values{{"token_bytes_largest": 3225, "token_bytes_limit": 3584}}},
		{"TokensOverTheirBudget", []values{{"refused_size_total": 1}}, nil},
		{"OldSecretOfStates", []values{{"state_old_secret_total": 1}}, nil},
		{"PlainHTTP", []values{{"sessionhttp_refused_insecure_total": 1}}, nil},
		{"ManyCrossOriginRequests", []values{{"sessionhttp_refused_cross_origin_total": 301}}, []values{{"sessionhttp_refused_cross_origin_total": 300}}},
		{"SignOutsWait", []values{{"sessionhttp_refused_revocation_owed_total": 31}}, []values{{"sessionhttp_refused_revocation_owed_total": 30}}},
		{"LiveConnectionsEnd", []values{{"sessionhttp_live_undecided_total": 11}}, []values{{"sessionhttp_live_undecided_total": 10}}},
		{"RefreshRecordsAreNotDeleted", []values{{"refresh_deletion_failures_total": 1}}, nil},
		{"FeedFails", []values{{"feed_unavailable_total": 7}, {"feed_busy_total": 7}}, []values{{"feed_unavailable_total": 6}}},
		{"FeedRefusesReaders", []values{{"feed_unauthorized_total": 1}, {"feed_plain_http_total": 1}}, nil},
	} {
		t.Run(of.alert, func(t *testing.T) {
			i := slices.IndexFunc(alerts, func(a alert) bool { return a.Alert == of.alert })
			require.GreaterOrEqual(t, i, 0)
			expr := alerts[i].Expr
			alerts = slices.Delete(alerts, i, i+1)
			fires := func(v values) bool {
				now := maps.Clone(base)
				increase := map[string]float64{}
				for name, value := range v {
					if strings.HasSuffix(name, "_total") {
						increase[name] = value
					} else {
						now[name] = value
					}
				}
				return eval(t, expr, now, increase)
			}
			require.False(t, fires(nil), "on a healthy server")
			for _, v := range of.fires {
				require.True(t, fires(v), "%v", v)
			}
			for _, v := range of.quiet {
				require.False(t, fires(v), "%v", v)
			}
		})
	}
	require.Empty(t, alerts, "an alert without a test")
}

// eval reports whether an expression has a value, with the values of gauges and
// the increase of counters in each range. It knows as much of PromQL as alerts.yml
// has: numbers, metrics, abs, rate, increase, *, +, comparisons and or.
func eval(t *testing.T, expr string, gauges, increase map[string]float64) bool {
	t.Helper()
	p := &promQL{t: t, gauges: gauges, increase: increase}
	p.tokens = regexp.MustCompile(`[a-z]\w*|[0-9.]+[smh]?|==|>|[-+*()\[\]]|\S`).FindAllString(expr, -1)
	_, ok := p.or()
	require.Empty(t, p.tokens, expr)
	return ok
}

type promQL struct {
	t                *testing.T
	tokens           []string
	gauges, increase map[string]float64
}

func (p *promQL) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *promQL) next() (token string) {
	require.NotEmpty(p.t, p.tokens, "the expression ends too soon")
	token, p.tokens = p.tokens[0], p.tokens[1:]
	return token
}

func (p *promQL) expect(token string) { require.Equal(p.t, token, p.next()) }

func (p *promQL) or() (v float64, ok bool) {
	v, ok = p.compare()
	for p.peek() == "or" {
		p.next()
		if w, also := p.compare(); !ok {
			v, ok = w, also
		}
	}
	return v, ok
}

func (p *promQL) compare() (v float64, ok bool) {
	v = p.sum()
	switch p.peek() {
	case ">":
		p.next()
		return v, v > p.sum()+1e-12
	case "==":
		p.next()
		return v, v == p.sum()
	}
	p.t.Fatalf("no comparison, but %q", p.peek())
	return 0, false
}

func (p *promQL) sum() float64 {
	v := p.product()
	for p.peek() == "+" {
		p.next()
		v += p.product()
	}
	return v
}

func (p *promQL) product() float64 {
	v := p.value()
	for p.peek() == "*" {
		p.next()
		v *= p.value()
	}
	return v
}

func (p *promQL) value() float64 {
	switch token := p.next(); token {
	case "abs":
		p.expect("(")
		v := math.Abs(p.sum())
		p.expect(")")
		return v
	case "rate", "increase":
		p.expect("(")
		name := strings.TrimPrefix(p.next(), namespace)
		p.expect("[")
		within, err := time.ParseDuration(p.next())
		require.NoError(p.t, err)
		p.expect("]")
		p.expect(")")
		require.Contains(p.t, p.gauges, name)
		if token == "increase" {
			return p.increase[name]
		}
		return p.increase[name] / within.Seconds()
	default:
		if name, ok := strings.CutPrefix(token, namespace); ok {
			require.Contains(p.t, p.gauges, name)
			return p.gauges[name]
		}
		v, err := strconv.ParseFloat(token, 64)
		require.NoError(p.t, err)
		return v
	}
}

// TestDashboard: dashboard.json is what Grafana imports, its panels have ids of
// their own, lie beside each other, and ask for metrics that exist; what an alert
// is about is on it.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	type grid struct{ H, W, X, Y int }
	var board struct {
		Title, UID    string
		SchemaVersion int
		Panels        []struct {
			ID          int
			Type, Title string
			GridPos     grid
			Targets     []struct{ RefID, Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &board))
	require.Equal(t, "sessiontoken", board.UID)
	require.NotZero(t, board.SchemaVersion)
	known, ids, shown := healthy(t), map[int]bool{}, map[string]bool{}
	places := map[string]bool{}
	for _, p := range board.Panels {
		require.False(t, ids[p.ID], p.ID)
		ids[p.ID] = true
		require.NotEmpty(t, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				place := fmt.Sprint(x, ",", y)
				require.False(t, places[place] || x >= 24, "%s lies over another panel", p.Title)
				places[place] = true
			}
		}
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Targets, p.Title)
		refs := map[string]bool{}
		for _, target := range p.Targets {
			require.False(t, refs[target.RefID], p.Title)
			refs[target.RefID] = true
			for _, name := range metricsIn(t, target.Expr, known) {
				shown[name] = true
			}
		}
	}
	require.GreaterOrEqual(t, len(board.Panels), 20)
	for _, a := range readAlerts(t) {
		for _, name := range metricsIn(t, a.Expr, known) {
			require.True(t, shown[name], "%s of %s is not on the dashboard", name, a.Alert)
		}
	}
}
