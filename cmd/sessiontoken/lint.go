package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
)

// lintCommand compares a plan of rotation with what gateways are known to do.
var lintCommand = command{
	name:    "lint",
	summary: "Compares a plan of key rotation with what gateways do",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		var p lintPlan
		fs.StringVar(&p.gateways, "gateway", "", "the `names` of gateways and libraries, with commas between, or all; without it the known names are printed")
		fs.StringVar(&p.algorithm, "algorithm", string(keys.ES256), "RingConfig.Algorithm")
		fs.DurationVar(&p.rotateEvery, "rotate-every", 30*24*time.Hour, "RingConfig.RotateEvery")
		fs.DurationVar(&p.publishAhead, "publish-ahead", 24*time.Hour, "RingConfig.PublishBefore: how long a key is published before it signs")
		fs.DurationVar(&p.retain, "retain", 24*time.Hour, "RingConfig.RetainFor: how long a key is published after its last signature")
		fs.DurationVar(&p.maxStale, "max-stale", 12*time.Hour, "RingConfig.MaxStale")
		fs.DurationVar(&p.clientRefresh, "client-refresh", 2*time.Hour, "RingConfig.ClientRefresh")
		fs.DurationVar(&p.maxAge, "max-age", 10*time.Minute, "JWKSConfig.MaxAge")
		fs.DurationVar(&p.ttl, "ttl", 5*time.Minute, "Limits.TTL: how long a token is valid")
		fs.IntVar(&p.keys, "keys", 0, "how many keys are published at once; 0 computes it")
		fs.BoolVar(&p.discovery, "discovery", true, "the discovery document is served")
		fs.DurationVar(&p.revokedWithin, "revoked-within", 2*time.Hour, "how long a revoked key may live in a gateway")
		return p.run
	},
}

type lintPlan struct {
	gateways, algorithm                                                     string
	rotateEvery, publishAhead, retain, maxStale, clientRefresh, maxAge, ttl time.Duration
	keys                                                                    int
	discovery                                                               bool
	revokedWithin                                                           time.Duration
	window                                                                  time.Duration // in which a gateway must fetch to see a rotation in time
}

//go:embed gateways.json
var gatewaysJSON []byte

// gateway is what a gateway or a library is known to do, with its own defaults.
// A fact that is nil is not known.
type gateway struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Date  string `json:"date"` // when the sources were read

	Algorithms *gatewayAlgorithms `json:"algorithms"`
	Keeps      *gatewayKeeps      `json:"keeps"`       // how long it uses a key set
	UnknownKid *gatewayFact       `json:"unknown_kid"` // it fetches the set at an unknown kid
	Cooldown   *gatewayFact       `json:"cooldown"`    // how often at most
	Keys       *gatewayFact       `json:"keys"`        // how many keys it takes
	Bytes      *gatewayFact       `json:"bytes"`       // how large a set it takes
	Discovery  *gatewayFact       `json:"discovery"`   // it needs the discovery document
	Typ        *gatewayFact       `json:"typ"`         // it takes the type of session tokens
}

type gatewayAlgorithms struct {
	Takes      []string `json:"takes"`
	UnlessTold []string `json:"unless_told"` // takes only these unless Setting says more
	Setting    string   `json:"setting"`
	Source     string   `json:"source"`
}

// gatewayKeeps is how long a key set is used. Kind is empty (For), "max-age"
// (that of the answer, from Least to Most), "until-unknown" (until a token with
// an unknown kid comes) or "by-hand" (keys are configured).
type gatewayKeeps struct {
	Kind    string   `json:"kind"`
	For     duration `json:"for"`
	Least   duration `json:"least"`
	Most    duration `json:"most"`
	ByKid   bool     `json:"by_kid"` // keys are kept one by one: a new set drops none
	Setting string   `json:"setting"`
	Source  string   `json:"source"`
}

type gatewayFact struct {
	Is      bool     `json:"is"`
	For     duration `json:"for"`
	Most    int      `json:"most"`
	Setting string   `json:"setting"`
	Source  string   `json:"source"`
}

// duration is a time.Duration that JSON has as a text, such as "10m".
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

func (d duration) String() string { return spoken(time.Duration(d)) }

// readGateways returns the table.
func readGateways(data []byte) (all []gateway, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	err = dec.Decode(&all)
	return all, err
}

// linted is what lint says of one gateway.
type linted struct {
	Name     string        `json:"name"`
	Title    string        `json:"title"`
	Date     string        `json:"date"`
	Facts    []lintFact    `json:"facts"`
	Revoked  string        `json:"revoked_key_lives"`
	Rotation string        `json:"planned_rotation"`
	Findings []lintFinding `json:"findings"`
}

type lintFact struct {
	Fact   string `json:"fact"`
	Value  string `json:"value"` // "unknown" if it is not known
	Source string `json:"source,omitempty"`
}

type lintFinding struct {
	Found  string `json:"found"`
	Remedy string `json:"remedy"`
}

const unknown = "unknown"

func (p *lintPlan) run(_ context.Context, c *call) error {
	if len(c.args) > 0 {
		return usageError{"it takes no arguments; name the gateways with --gateway"}
	}
	all, err := readGateways(gatewaysJSON)
	if err != nil {
		return fmt.Errorf("the table of gateways cannot be read: %w; this is a fault of the program", err)
	}
	if p.gateways == "" {
		for _, g := range all {
			fmt.Fprintf(c.out, "%-18s %s\n", g.Name, g.Title)
		}
		return usageError{"no gateway is named; set --gateway to names from the list, or to all"}
	}
	if err := p.check(); err != nil {
		return err
	}
	chosen, err := choose(all, p.gateways)
	if err != nil {
		return err
	}
	var results []linted
	found := 0
	for i := range chosen {
		r := p.lint(&chosen[i])
		found += len(r.Findings)
		results = append(results, r)
	}
	if err := p.print(c, results); err != nil {
		return err
	}
	if found > 0 {
		return errNot
	}
	return nil
}

// choose returns the gateways that names has, in its order.
func choose(all []gateway, names string) ([]gateway, error) {
	if names == "all" {
		return all, nil
	}
	aliases := map[string]string{"spring": "spring-security", "alb": "aws-alb", "aspnet": "aspnet-core", "coreos-go-oidc": "go-oidc", "npm-jose": "jose"}
	var chosen []gateway
	for name := range strings.SplitSeq(names, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		name = cmp.Or(aliases[name], name)
		i := slices.IndexFunc(all, func(g gateway) bool { return g.Name == name })
		if i < 0 {
			return nil, usageError{"a gateway in --gateway is not known; 'sessiontoken lint' prints the names that are, and what is not in the list is not known at all"}
		}
		if !slices.ContainsFunc(chosen, func(g gateway) bool { return g.Name == name }) {
			chosen = append(chosen, all[i])
		}
	}
	return chosen, nil
}

// check checks the plan as keys.NewRing does, and computes what follows from it.
func (p *lintPlan) check() error {
	ring, err := keys.NewRing(keys.RingConfig{
		Store: new(keys.MemStore), Algorithm: keys.Algorithm(p.algorithm), RotateEvery: p.rotateEvery, PublishBefore: p.publishAhead,
		RetainFor: p.retain, MaxStale: p.maxStale, ClientRefresh: p.clientRefresh, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return usageError{"a ring refuses this plan: " + err.Error()}
	}
	switch {
	case p.ttl <= 0 || p.maxAge <= 0 || p.revokedWithin <= 0 || p.keys < 0:
		return usageError{"--ttl, --max-age and --revoked-within must be more than 0, and --keys not less"}
	case p.maxAge > ring.MaxAge():
		return usageError{fmt.Sprintf("--max-age is %s; with this plan it must not exceed %s, or a key could sign before every verifier has it: raise --publish-ahead", spoken(p.maxAge), spoken(ring.MaxAge()))}
	case p.retain < p.ttl:
		return usageError{"--retain is less than --ttl: a key would go before its last token: raise --retain"}
	}
	// A replica publishes a key when it has read it: at most MaxStale, SyncEvery
	// and MaxSkew late.
	p.window = ring.MaxAge() + p.clientRefresh
	if p.keys == 0 {
		// The next one, the current one, and those that were current while the
		// tokens of the last one may be in use.
		p.keys = 2 + int((p.retain+p.rotateEvery-1)/p.rotateEvery)
	}
	return nil
}

// setBytes is about how large the published set is.
func (p *lintPlan) setBytes() int {
	one := 230
	switch keys.Algorithm(p.algorithm) {
	case keys.RS256, keys.PS256:
		one = 480
	}
	return 12 + p.keys*one
}

// lint returns what a gateway does with the plan.
func (p *lintPlan) lint(g *gateway) linted {
	r := linted{Name: g.Name, Title: g.Title, Date: g.Date, Facts: facts(g), Findings: []lintFinding{}}
	finding := func(remedy, format string, args ...any) {
		r.Findings = append(r.Findings, lintFinding{fmt.Sprintf(format, args...), remedy})
	}
	p.lintAlgorithm(g, finding)
	r.Revoked = p.revoked(g, finding)
	r.Rotation = p.rotation(g, finding)
	if g.Keys != nil && p.keys > g.Keys.Most {
		finding("rotate more rarely (RotateEvery), or keep keys for a shorter time (RetainFor)", "it takes a set of at most %d keys, and the plan publishes %d", g.Keys.Most, p.keys)
	}
	if g.Bytes != nil && p.setBytes() > g.Bytes.Most {
		finding("rotate more rarely (RotateEvery), keep keys for a shorter time (RetainFor), or take ES256", "it takes a set of at most %d bytes, and the plan publishes about %d", g.Bytes.Most, p.setBytes())
	}
	if g.Discovery != nil && g.Discovery.Is && !p.discovery {
		finding("serve it: WellKnown of an authority does, and DiscoveryHandler at both of DiscoveryPaths", "it finds the key set by the discovery document, which the plan does not serve")
	}
	if g.Typ != nil && !g.Typ.Is {
		finding("set "+g.Typ.Setting, "it refuses the type session+jwt as it comes")
	}
	return r
}

type findingFunc func(remedy, format string, args ...any)

func (p *lintPlan) lintAlgorithm(g *gateway, finding findingFunc) {
	a := g.Algorithms
	switch {
	case a == nil:
	case !slices.Contains(a.Takes, p.algorithm):
		var offered []string
		for _, alg := range a.Takes {
			if keys.Algorithm(alg) == keys.RS256 || len(a.Takes) > 1 {
				offered = append(offered, "keys."+alg)
			}
		}
		finding("set RingConfig.Algorithm to "+strings.Join(offered, " or "), "it does not take %s", p.algorithm)
	case len(a.UnlessTold) > 0 && !slices.Contains(a.UnlessTold, p.algorithm):
		finding("name "+p.algorithm+" in "+a.Setting, "it takes %s alone until it is told", strings.Join(a.UnlessTold, ", "))
	}
}

// revoked returns how long a revoked key lives in a gateway.
func (p *lintPlan) revoked(g *gateway, finding findingFunc) string {
	k := g.Keeps
	if k == nil {
		return unknown
	}
	anyway := "after a revocation, restart each instance"
	if g.UnknownKid != nil && g.UnknownKid.Is && !k.ByKid {
		anyway = "after a revocation, send one request with a new token to each instance, or restart it"
	}
	switch k.Kind {
	case "by-hand":
		finding("take the key out of its configuration when one is revoked, or let it ask 'sessiontoken serve' instead", "a revoked key lives there until it is taken out by hand")
		return "until it is taken out by hand"
	case "until-unknown":
		finding(anyway, "a revoked key lives there until a token of an unknown key comes")
		return "until a token of an unknown key comes"
	}
	lives := p.keepsFor(g)
	if lives > p.revokedWithin {
		remedy := anyway
		if k.Setting != "" {
			remedy = "set " + k.Setting + " to " + spoken(p.revokedWithin) + " or less; " + anyway
		} else if k.Kind == "max-age" {
			remedy = "lower --max-age (JWKSConfig.MaxAge); " + anyway
		}
		finding(remedy, "a revoked key lives there for %s, longer than %s", spoken(lives), spoken(p.revokedWithin))
	}
	if lives == 0 {
		return "until the next request"
	}
	return "at most " + spoken(lives)
}

// keepsFor returns how long a gateway uses a key set that has a time.
func (p *lintPlan) keepsFor(g *gateway) time.Duration {
	if g.Keeps.Kind == "max-age" {
		return min(max(p.maxAge, time.Duration(g.Keeps.Least)), time.Duration(g.Keeps.Most))
	}
	return time.Duration(g.Keeps.For)
}

// rotation returns whether a gateway has a new key before it signs.
func (p *lintPlan) rotation(g *gateway, finding findingFunc) string {
	fetches := g.UnknownKid != nil && g.UnknownKid.Is
	after := ""
	if fetches && g.Cooldown != nil && g.Cooldown.For > 0 {
		after = ", and at most every " + g.Cooldown.For.String()
	}
	k := g.Keeps
	switch {
	case k == nil && fetches:
		return "seen with the first token of the new key" + after
	case k == nil:
		return unknown
	case k.Kind == "by-hand":
		finding("configure each key as soon as 'sessiontoken keys status' shows it as next: there are "+spoken(p.window)+" for it; or let the gateway ask 'sessiontoken serve' instead", "it does not see a rotation: its keys are configured by hand")
		return "not seen"
	case k.Kind != "until-unknown" && p.keepsFor(g) <= p.window:
		return "seen before the new key signs"
	case fetches:
		return "seen with the first token of the new key" + after
	case g.UnknownKid == nil:
		return unknown
	}
	remedy := "raise --publish-ahead (RingConfig.PublishBefore and ClientRefresh)"
	if k.Setting != "" {
		remedy += ", or set " + k.Setting + " to " + spoken(p.window) + " or less"
	}
	finding(remedy, "it may not have a new key when it signs: it keeps a set for %s, and a key is published for sure %s before", spoken(p.keepsFor(g)), spoken(p.window))
	return "not seen in time"
}

// facts returns the table's row, for people.
func facts(g *gateway) (all []lintFact) {
	add := func(fact, value, setting, source string) {
		if setting != "" {
			value += " (" + setting + ")"
		}
		all = append(all, lintFact{fact, value, source})
	}
	missing := func(fact string) { all = append(all, lintFact{Fact: fact, Value: unknown}) }
	if a := g.Algorithms; a != nil {
		value := strings.Join(a.Takes, ", ")
		if len(a.UnlessTold) > 0 {
			value += "; unless told: " + strings.Join(a.UnlessTold, ", ")
		}
		add("algorithms", value, a.Setting, a.Source)
	} else {
		missing("algorithms")
	}
	if k := g.Keeps; k != nil {
		value := k.For.String()
		switch k.Kind {
		case "max-age":
			value = fmt.Sprintf("the answer's max-age, from %s to %s", k.Least, k.Most)
		case "until-unknown":
			value = "until an unknown key comes"
		case "by-hand":
			value = "keys are configured by hand"
		}
		add("keeps the set", value, k.Setting, k.Source)
	} else {
		missing("keeps the set")
	}
	for _, f := range []struct {
		name string
		fact *gatewayFact
		text func(*gatewayFact) string
	}{
		{"unknown key", g.UnknownKid, func(f *gatewayFact) string { return pick(f.Is, "fetches", "does not fetch") }},
		{"fetches at most", g.Cooldown, func(f *gatewayFact) string { return pick(f.For == 0, "each time", "every "+f.For.String()) }},
		{"number of keys", g.Keys, func(f *gatewayFact) string { return fmt.Sprintf("at most %d", f.Most) }},
		{"size of the set", g.Bytes, func(f *gatewayFact) string { return fmt.Sprintf("at most %d bytes", f.Most) }},
		{"discovery", g.Discovery, func(f *gatewayFact) string { return pick(f.Is, "needed", "not needed") }},
		{"session+jwt", g.Typ, func(f *gatewayFact) string { return pick(f.Is, "taken", "refused") }},
	} {
		switch {
		case f.fact != nil:
			add(f.name, f.text(f.fact), f.fact.Setting, f.fact.Source)
		case (f.name == "unknown key" || f.name == "fetches at most") && !g.mayFetch(): // it does not matter
		default:
			missing(f.name)
		}
	}
	return all
}

// mayFetch reports whether a gateway fetches a set at an unknown kid, as far as
// is known, while it has one.
func (g *gateway) mayFetch() bool {
	if k := g.Keeps; k != nil && (k.Kind == "by-hand" || k.Kind == "" && k.For == 0) {
		return false
	}
	return g.UnknownKid == nil || g.UnknownKid.Is
}

func pick(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func (p *lintPlan) print(c *call, results []linted) error {
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(map[string]any{"gateways": results, "keys_published": p.keys, "set_bytes": p.setBytes()}); err != nil {
			return errors.New("the result cannot be written; check where the output goes")
		}
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "plan: %s, a new key every %s, published %s ahead and %s after, %d keys (about %d bytes), max-age %s, tokens of %s\n",
		p.algorithm, spoken(p.rotateEvery), spoken(p.publishAhead), spoken(p.retain), p.keys, p.setBytes(), spoken(p.maxAge), spoken(p.ttl))
	found, unanswered := 0, 0
	for _, r := range results {
		fmt.Fprintf(&b, "\n%s: %s (sources read on %s)\n", r.Name, r.Title, r.Date)
		for _, f := range r.Facts {
			fmt.Fprintf(&b, "  %-17s %s", f.Fact, f.Value)
			if f.Source != "" {
				fmt.Fprintf(&b, "  <%s>", f.Source)
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "  %-17s %s\n  %-17s %s\n", "a revoked key", r.lives(), "planned rotation", r.Rotation)
		for _, f := range r.Findings {
			fmt.Fprintf(&b, "  FOUND %s\n    remedy: %s\n", f.Found, f.Remedy)
		}
		found += len(r.Findings)
		if r.Revoked == unknown || r.Rotation == unknown || r.Facts[0].Value == unknown {
			unanswered++
		}
	}
	fmt.Fprintf(&b, "\n%d found", found)
	if unanswered > 0 {
		fmt.Fprintf(&b, "; of %d it is not known whether all is well: look for what is unknown in their documentation", unanswered)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(c.out, b.String())
	return err
}

func (r *linted) lives() string {
	if r.Revoked == unknown {
		return unknown
	}
	return "lives " + r.Revoked
}
