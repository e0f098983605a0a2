package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// The limits of the library's verifier, with its defaults.
const (
	maxTokenBytes = 8192
	maxTTL        = 24 * time.Hour
	clockAhead    = time.Minute
	maxDate       = 253402300799 // the end of the year 9999
)

// node is a JSON value that is read leniently: members that stand there twice
// are all kept, in their order.
type node struct {
	kind    jsontext.Kind // of jsontext: '"', '0', '{', '[', 't', 'f', 'n'
	text    string        // of a string
	raw     jsontext.Value
	names   []string // of an object
	members []*node  // of an object or an array
	note    string   // if set, it is shown instead of the value
}

// member returns the first member of that name, or nil.
func (n *node) member(name string) *node {
	if n == nil || n.kind != '{' {
		return nil
	}
	if i := slices.Index(n.names, name); i >= 0 {
		return n.members[i]
	}
	return nil
}

// lenient are the options that read what strict readers refuse.
var lenient = jsontext.Options(json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)))

// parseJSON reads one JSON value, or returns nil.
func parseJSON(raw []byte) *node {
	if strictjson.TooDeep(raw) {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewReader(raw), lenient)
	n := readNode(dec)
	if n == nil || dec.PeekKind() != 0 || len(bytes.TrimSpace(dec.UnreadBuffer())) > 0 {
		return nil
	}
	return n
}

func readNode(dec *jsontext.Decoder) *node {
	kind := dec.PeekKind()
	if kind != '{' && kind != '[' {
		raw, err := dec.ReadValue()
		if err != nil {
			return nil
		}
		n := &node{kind: kind, raw: raw.Clone()}
		if kind == '"' {
			text, err := jsontext.AppendUnquote(nil, raw)
			if err != nil && !utf8.Valid(raw) {
				text = bytes.ToValidUTF8(text, []byte("\uFFFD"))
			}
			n.text = string(text)
		}
		return n
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	n := &node{kind: kind}
	for end := kind + 2; dec.PeekKind() != end; { // the closing bracket follows by two
		if kind == '{' {
			name := readNode(dec)
			if name == nil {
				return nil
			}
			n.names = append(n.names, name.text)
		}
		member := readNode(dec)
		if member == nil {
			return nil
		}
		n.members = append(n.members, member)
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	return n
}

// parsed is a token that is taken apart and not verified.
type parsed struct {
	segments  []string
	rawHeader []byte
	rawClaims []byte
	signature []byte
	header    *node // nil if it cannot be read
	claims    *node // nil if it cannot be read
}

// broken is a rule of the library that a token breaks.
type broken struct {
	Rule  string `json:"rule"`  // the name of what the rule is about, such as "alg"
	Text  string `json:"text"`  // the rule
	Found string `json:"found"` // what the token has
}

// expectation is what the caller expects in a token. Empty strings expect
// nothing.
type expectation struct {
	issuer, audience string
}

// parseToken takes a token apart and returns the rules that it breaks at a time.
// The token is untrusted, of any form, and not verified.
func parseToken(token string, want expectation, now time.Time) (*parsed, []broken) {
	p := &parsed{segments: strings.Split(token, ".")}
	var rules []broken
	breaks := func(rule, text, format string, args ...any) {
		rules = append(rules, broken{rule, text, fmt.Sprintf(format, args...)})
	}
	if len(token) > maxTokenBytes {
		breaks("size", fmt.Sprintf("a token has at most %d bytes, unless the verifier has another MaxBytes", maxTokenBytes), "it has %d", len(token))
	}
	if len(p.segments) != 3 {
		found := fmt.Sprintf("it has %d", len(p.segments))
		if len(p.segments) == 5 {
			found += ", as an encrypted token (JWE) has"
		}
		breaks("form", "a token has three segments with a dot between", "%s", found)
		if len(p.segments) != 5 && len(p.segments) != 2 {
			return p, rules
		}
	}
	decode := func(i int, name string) []byte {
		if i >= len(p.segments) {
			return nil
		}
		if raw, err := jws.Decode(p.segments[i]); err == nil {
			return raw
		}
		raw, ok := decodeLeniently(p.segments[i])
		found := "it has another spelling of it: padding, line breaks, another alphabet or spare bits"
		if !ok {
			found = "it is not base64"
		}
		breaks("base64", "each segment is canonical base64url without padding", "%s: %s", name, found)
		return raw
	}
	p.rawHeader = decode(0, "the header")
	p.header = readObject(p.rawHeader, "header", breaks)
	checkHeader(p, breaks)
	if len(p.segments) == 5 {
		return p, rules
	}
	p.rawClaims = decode(1, "the payload")
	p.claims = readObject(p.rawClaims, "payload", breaks)
	p.signature = decode(2, "the signature")
	checkSignature(p, breaks)
	if p.claims != nil {
		checkClaims(p.claims, want, now, breaks)
	}
	return p, rules
}

// breakFunc takes a rule that a token breaks.
type breakFunc func(rule, text, format string, args ...any)

// decodeLeniently decodes any spelling of base64.
func decodeLeniently(segment string) ([]byte, bool) {
	plain := strings.Map(func(r rune) rune {
		switch r {
		case '+':
			return '-'
		case '/':
			return '_'
		case '=', '\r', '\n', ' ', '\t':
			return -1
		}
		return r
	}, segment)
	for range 2 {
		if raw, err := jws.Decode(plain); err == nil {
			return raw, true
		}
		if plain == "" {
			return nil, false
		}
		plain = clearSpareBits(plain)
	}
	return nil, false
}

// clearSpareBits clears the bits of the last character that decode to nothing.
func clearSpareBits(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	mask := 63
	switch len(s) % 4 {
	case 2:
		mask = 0x30
	case 3:
		mask = 0x3c
	}
	i := strings.IndexByte(alphabet, s[len(s)-1])
	if i < 0 {
		return s
	}
	return s[:len(s)-1] + string(alphabet[i&mask])
}

// readObject reads the JSON object of a segment, or returns nil.
func readObject(raw []byte, name string, breaks breakFunc) *node {
	if raw == nil {
		return nil
	}
	text := "the " + name + " is one JSON object (RFC 8259)"
	switch n := parseJSON(raw); {
	case strictjson.TooDeep(raw):
		breaks("json", fmt.Sprintf("the %s has at most %d objects and arrays in one another", name, strictjson.MaxDepth), "it has more, and is not shown")
		return nil
	case n == nil:
		breaks("json", text, "it is not JSON")
		return nil
	case n.kind != '{':
		breaks("json", text, "it is another JSON value")
		return nil
	default:
		if !jsontext.Value(raw).IsValid(jsontext.AllowInvalidUTF8(true)) {
			breaks("duplicate", "no object of the "+name+" has a member twice", "%s", duplicates(n))
		}
		if !jsontext.Value(raw).IsValid(jsontext.AllowDuplicateNames(true)) {
			breaks("utf8", "the "+name+" is UTF-8, without lone surrogates", "it has bytes or escapes that are not")
		}
		return n
	}
}

// duplicates names the members that stand twice in an object.
func duplicates(n *node) string {
	var twice []string
	var walk func(n *node)
	walk = func(n *node) {
		seen := map[string]bool{}
		for i, m := range n.members {
			if n.kind == '{' {
				if seen[n.names[i]] && len(twice) < 5 {
					twice = append(twice, shown(n.names[i]))
				}
				seen[n.names[i]] = true
			}
			walk(m)
		}
	}
	walk(n)
	if len(twice) == 0 {
		return "one has"
	}
	return "twice: " + strings.Join(twice, ", ")
}

// tokenAlgorithms are the values of alg that the library accepts.
var tokenAlgorithms = []string{"ES256", "EdDSA", "Ed25519", "PS256", "RS256"}

func checkHeader(p *parsed, breaks breakFunc) {
	if len(p.segments) > 0 && len(p.segments[0]) > jws.MaxHeader {
		breaks("header", fmt.Sprintf("the header segment has at most %d bytes", jws.MaxHeader), "it has %d", len(p.segments[0]))
	}
	if p.header == nil {
		return
	}
	var others []string
	for _, name := range p.header.names {
		if name != "alg" && name != "kid" && name != "typ" && len(others) < 10 {
			others = append(others, shown(name))
		}
	}
	if len(others) > 0 {
		breaks("header", "the header has alg, kid and typ, and no other member: what is not understood is refused (RFC 7515 section 4.1.11), and no key is taken from a token", "it has %s", strings.Join(others, ", "))
	}
	text := func(name, rule string, ok func(string) bool) {
		m := p.header.member(name)
		switch {
		case m == nil:
			breaks(name, rule, "it is missing")
		case m.kind != '"' || !ok(m.text):
			breaks(name, rule, "this one has %s", m.show())
		}
	}
	text("alg", "the algorithm is ES256, EdDSA (Ed25519), PS256 or RS256, and that of the key", func(s string) bool { return slices.Contains(tokenAlgorithms, s) })
	text("kid", fmt.Sprintf("kid names the key, in 1 to %d bytes", jws.MaxKeyID), func(s string) bool { return s != "" && len(s) <= jws.MaxKeyID })
	text("typ", "the type is session+jwt, so that no other token of the same keys passes for a session (RFC 8725 section 3.11)", isSessionType)
}

func isSessionType(typ string) bool {
	const want, prefix = "session+jwt", "application/"
	ascii := strings.IndexFunc(typ, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
	return ascii && (strings.EqualFold(typ, want) || strings.EqualFold(typ, prefix+want))
}

func checkSignature(p *parsed, breaks breakFunc) {
	if len(p.segments) != 3 {
		return
	}
	if len(p.segments[2]) == 0 {
		breaks("signature", "a token is signed", "it has no signature")
		return
	}
	alg := p.header.member("alg")
	if alg == nil || p.signature == nil {
		return
	}
	switch alg.text {
	case "ES256", "EdDSA", "Ed25519":
		if len(p.signature) != 64 {
			breaks("signature", "a signature of "+alg.text+" has 64 bytes", "it has %d", len(p.signature))
		}
	case "PS256", "RS256":
		if len(p.signature) < 256 {
			breaks("signature", "a signature of "+alg.text+" has at least 256 bytes (an RSA key of 2048 bits)", "it has %d", len(p.signature))
		}
	}
	if !jws.IsCanonical(alg.text, p.signature) {
		breaks("signature", "an ES256 signature has the smaller of the two values of s, so that a token has one spelling", "it has the larger")
	}
}

// claimKind is the form of a registered claim.
type claimKind struct {
	name     string
	required bool
	text     string // the form
	ok       func(*node) bool
}

var claimKinds = []claimKind{
	{"iss", true, "a string", isText},
	{"sub", true, "a string that is not empty", isText},
	{"aud", true, "a string, or an array of strings, none of them empty", isTexts},
	{"exp", true, "a whole number of seconds since 1970", isDate},
	{"iat", true, "a whole number of seconds since 1970", isDate},
	{"nbf", false, "a whole number of seconds since 1970", isDate},
	{"jti", true, "a string that is not empty", isText},
	{"sid", true, "a string that is not empty", isText},
	{"begun", true, "a whole number of milliseconds since 1970", isMilliDate},
	{"auth_time", false, "a whole number of seconds since 1970", isDate},
	{"acr", false, "a string of 1 to 64 bytes", isShortText},
	{"amr", false, "an array of 1 to 10 strings of 1 to 64 bytes", func(n *node) bool {
		return n.kind == '[' && len(n.members) >= 1 && len(n.members) <= 10 && !slices.ContainsFunc(n.members, func(m *node) bool { return !isShortText(m) })
	}},
	{"act", false, "an object of exactly sub, sid and begun", isActor},
	{"rnw", false, "true, or absent", func(n *node) bool { return n.kind == 't' }},
	{"chg", false, "a whole number from 1", isMilliDate},
	{"stv", false, "an array of two numbers: the version, from 1 to 1000000, and the oldest that can read it", isVersion},
	{"state", true, "any JSON value", func(*node) bool { return true }},
	{"sld", false, "a string, or an array of strings, none of them empty", func(n *node) bool { return isTexts(n) || n.kind == '[' && len(n.members) == 0 }},
}

func isText(n *node) bool { return n.kind == '"' && n.text != "" }

func isShortText(n *node) bool { return isText(n) && len(n.text) <= 64 }

func isTexts(n *node) bool {
	if n.kind == '[' {
		return len(n.members) > 0 && !slices.ContainsFunc(n.members, func(m *node) bool { return !isText(m) })
	}
	return isText(n)
}

func isDate(n *node) bool { return isWhole(n, maxDate) }

func isMilliDate(n *node) bool { return isWhole(n, maxDate*1000+999) }

func isWhole(n *node, most int64) bool {
	v, ok := n.whole()
	return ok && v >= 1 && v <= most
}

// whole returns the value of a number that is written without a fraction and an
// exponent.
func (n *node) whole() (int64, bool) {
	if n == nil || n.kind != '0' {
		return 0, false
	}
	v, err := strconv.ParseInt(string(n.raw), 10, 64)
	return v, err == nil
}

func isActor(n *node) bool {
	sub, sid, begun := n.member("sub"), n.member("sid"), n.member("begun")
	return n.kind == '{' && len(n.names) == 3 && sub != nil && sid != nil && begun != nil && isText(sub) && isText(sid) && isMilliDate(begun)
}

func isVersion(n *node) bool {
	if n.kind != '[' || len(n.members) != 2 {
		return false
	}
	written, ok1 := n.members[0].whole()
	oldest, ok2 := n.members[1].whole()
	return ok1 && ok2 && written >= 1 && written <= 1_000_000 && oldest >= 0 && oldest <= written
}

func checkClaims(claims *node, want expectation, now time.Time, breaks breakFunc) {
	for _, k := range claimKinds {
		switch m := claims.member(k.name); {
		case m == nil && k.required:
			breaks(k.name, k.name+" is there: "+k.text, "it is missing")
		case m != nil && !k.ok(m):
			breaks(k.name, k.name+" is "+k.text, "this one is %s", m.show())
		}
	}
	if iss := claims.member("iss"); want.issuer != "" && iss != nil && isText(iss) && iss.text != want.issuer {
		breaks("iss", "iss is the expected issuer, byte for byte: "+shown(want.issuer), "it is %s", iss.show())
	}
	if aud := claims.member("aud"); want.audience != "" && aud != nil && isTexts(aud) && !slices.Contains(aud.texts(), want.audience) {
		breaks("aud", "aud names the expected audience, byte for byte: "+shown(want.audience), "it has %s", aud.show())
	}
	date := func(name string) (int64, bool) {
		m := claims.member(name)
		if m == nil || !isDate(m) {
			return 0, false
		}
		v, _ := m.whole()
		return v, true
	}
	exp, hasExp := date("exp")
	iat, hasIat := date("iat")
	if hasExp && hasIat {
		switch {
		case exp <= iat:
			breaks("lifetime", "exp is after iat", "it is not")
		case exp-iat > int64(maxTTL/time.Second):
			breaks("lifetime", "exp is at most 24 h after iat, unless the verifier has another MaxTTL", "it is %s", spoken(time.Duration(min(exp-iat, 1<<32))*time.Second))
		}
	}
	if hasExp && !now.Before(time.Unix(exp, 0)) {
		breaks("exp", "exp is in the future", "it expired %s", relative(time.Unix(exp, 0), now))
	}
	if nbf, ok := date("nbf"); ok && now.Before(time.Unix(nbf, 0)) {
		breaks("nbf", "nbf is not in the future", "it is %s", relative(time.Unix(nbf, 0), now))
	}
	if !hasIat {
		return
	}
	if time.Unix(iat, 0).After(now.Add(clockAhead)) {
		breaks("iat", "iat is not in the future, by more than 1 min", "it is %s", relative(time.Unix(iat, 0), now))
	}
	ahead := int64(clockAhead / time.Second)
	if at, ok := date("auth_time"); ok && at > iat+ahead {
		breaks("auth_time", "auth_time is not after iat", "it is %s later", spoken(time.Duration(min(at-iat, 1<<32))*time.Second))
	}
	for _, of := range []struct {
		name  string
		begun *node
	}{{"begun", claims.member("begun")}, {"act", claims.member("act").member("begun")}} {
		if ms, ok := of.begun.whole(); ok && isMilliDate(of.begun) && ms > (iat+1+ahead)*1000 {
			breaks(of.name, "begun is not after iat", "it is %s later", spoken(time.Duration(min(ms-iat*1000, 1<<42))*time.Millisecond))
		}
	}
}

// texts returns the strings of a claim that is one or an array of them.
func (n *node) texts() []string {
	if n == nil {
		return nil
	}
	if n.kind == '"' {
		return []string{n.text}
	}
	var all []string
	for _, m := range n.members {
		if m.kind == '"' {
			all = append(all, m.text)
		}
	}
	return all
}

// looksLikeToken reports whether text holds a token of compact form, or
// something as long and as random as a secret. It has false alarms.
func looksLikeToken(text string) bool {
	if i := strings.Index(text, "eyJ"); i >= 0 && strings.Contains(text[i:], ".") {
		return true
	}
	run, upper, lower, digit := 0, false, false, false
	for i := range len(text) {
		c := text[i]
		switch {
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z':
			lower = true
		case '0' <= c && c <= '9':
			digit = true
		case c != '-' && c != '_' && c != '.' && c != '+' && c != '=':
			run, upper, lower, digit = 0, false, false, false
			continue
		}
		if run++; run >= 40 && upper && lower && digit {
			return true
		}
	}
	return false
}

// shown returns a text that is quoted and cut, and can be printed on a terminal.
func shown(text string) string {
	const most = 200
	if len(text) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		return strconv.Quote(text[:cut]) + fmt.Sprintf("… (%d bytes)", len(text))
	}
	return strconv.Quote(text)
}

// hide returns what is shown instead of a string that may be a token, or "".
func hide(text string) string {
	if looksLikeToken(text) && strings.Contains(text, "eyJ") {
		return fmt.Sprintf("(a token of %d bytes, not shown)", len(text))
	}
	return ""
}

// show returns a value on one line, much as JSON. Strings are quoted for a
// terminal and may be cut. Strings that may be tokens are not shown.
func (n *node) show() string {
	var b strings.Builder
	n.appendTo(&b, true)
	return b.String()
}

// json returns a value as JSON. Members that stand twice are written twice, with
// a number after the later name.
func (n *node) json() jsontext.Value {
	if n == nil {
		return jsontext.Value("null")
	}
	var b strings.Builder
	n.appendTo(&b, false)
	return jsontext.Value(b.String())
}

func (n *node) appendTo(b *strings.Builder, terminal bool) {
	quote := func(text string) {
		hidden := cmp.Or(n.note, hide(text))
		switch {
		case terminal && hidden != "":
			b.WriteString(hidden)
		case terminal:
			b.WriteString(shown(text))
		default:
			if hidden != "" {
				text = hidden
			}
			quoted, _ := jsontext.AppendQuote(nil, strings.ToValidUTF8(text, "\uFFFD"))
			b.Write(quoted)
		}
	}
	switch {
	case n.kind == '"' || n.note != "":
		quote(n.text)
	case n.kind == '{' || n.kind == '[':
		b.WriteByte(byte(n.kind))
		seen := map[string]int{}
		for i, member := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			if n.kind == '{' {
				name := n.names[i]
				if seen[name]++; seen[name] > 1 && !terminal {
					name = fmt.Sprintf("%s (%d)", name, seen[name])
				}
				quote(name)
				b.WriteByte(':')
			}
			member.appendTo(b, terminal)
		}
		b.WriteByte(byte(n.kind) + 2)
	default:
		if raw := string(n.raw); terminal && len(raw) > 200 {
			fmt.Fprintf(b, "%s… (%d bytes)", raw[:200], len(raw))
		} else {
			b.WriteString(raw)
		}
	}
}

// spoken returns a duration in its two largest units, such as "3 min 2 s".
func spoken(d time.Duration) string {
	d = d.Abs()
	units := []struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.unit && i < len(units)-1 {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.unit, u.name)
		if i < len(units)-1 {
			if rest := d % u.unit / units[i+1].unit; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, units[i+1].name)
			}
		}
		return text
	}
	return "" // not reached
}

// relative returns when t is, seen from now: "in 3 min 2 s" or "3 min 2 s ago".
func relative(t, now time.Time) string {
	if d := t.Sub(now); d >= 0 {
		return "in " + spoken(d)
	} else {
		return spoken(d) + " ago"
	}
}
