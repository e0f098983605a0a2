package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

// inspectCommand shows what a token says, and whether it is verified.
var inspectCommand = command{
	name:    "inspect",
	args:    "[file]",
	summary: "Shows a token, and whether it is verified",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		var in inspectConfig
		fs.StringVar(&in.issuer, "issuer", "", "verify with the keys that this issuer's `URL` publishes")
		fs.StringVar(&in.jwks, "jwks", "", "verify with the JWK set in this `file`")
		fs.StringVar(&in.audience, "audience", "", "the audience that the token must name; its own first `name` if not set")
		fs.StringVar(&in.ca, "ca", "", "trust the certificates in this PEM `file` too, for --issuer")
		fs.BoolVar(&in.plain, "insecure-plain-http", false, "permit an http issuer on a loopback host")
		return in.run
	},
}

type inspectConfig struct {
	issuer, jwks, audience, ca string
	plain                      bool
}

const (
	maxInput = 1 << 20
	// issueBytes is the default of IssuerConfig.MaxBytes.
	issueBytes = 3584
)

// inspection is what inspect prints.
type inspection struct {
	Verified  bool                   `json:"verified"`
	Reason    string                 `json:"reason,omitempty"` // why it is not verified
	Signature string                 `json:"signature"`        // valid, not valid or not checked
	Header    jsontext.Value         `json:"header"`
	Claims    jsontext.Value         `json:"claims"`
	Sealed    []string               `json:"sealed,omitempty"` // JSON pointers in the state
	Times     map[string]inspectTime `json:"times,omitempty"`
	Size      inspectSize            `json:"size"`
	Broken    []broken               `json:"rules_broken"`
	Notes     []string               `json:"notes,omitempty"`
}

type inspectTime struct {
	Time     time.Time `json:"time"`
	Relative string    `json:"relative"`
}

type inspectSize struct {
	Bytes     int              `json:"bytes"`
	Limit     int              `json:"limit"`
	Header    int              `json:"header"`
	Payload   int              `json:"payload"`
	Signature int              `json:"signature"`
	Claims    []inspectClaimed `json:"claims"`
}

type inspectClaimed struct {
	Path  string `json:"path"`
	Bytes int    `json:"bytes"`
}

func (in *inspectConfig) run(ctx context.Context, c *call) error {
	token, err := readToken(c)
	if err != nil {
		return err
	}
	now := time.Now()
	p, rules := parseToken(token, expectation{in.issuer, in.audience}, now)
	out, err := in.verify(ctx, token, p)
	if err == nil && !out.Verified {
		err = errNot
	}
	if printErr := out.print(c, token, p, rules, now); printErr != nil {
		return printErr
	}
	return err
}

// readToken reads the token from the file that is named, or standard input.
func readToken(c *call) (string, error) {
	from := c.stdin
	switch {
	case len(c.args) > 1:
		return "", usageError{"it takes one file at most; put the flags before it, and give the token by standard input"}
	case len(c.args) == 1 && c.args[0] != "-":
		file, err := os.Open(c.args[0])
		if err != nil {
			if looksLikeToken(c.args[0]) {
				return "", usageError{"the argument looks like a token: arguments can be seen by other users of the machine and are kept in the shell's history; give it by standard input or in a file, and revoke its session"}
			}
			var path *os.PathError
			if errors.As(err, &path) {
				err = path.Err
			}
			return "", fmt.Errorf("the file cannot be opened: %w; name a file that holds the token, or give it by standard input", err)
		}
		defer file.Close()
		from = file
	}
	data, err := io.ReadAll(io.LimitReader(from, maxInput+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the token cannot be read: %w; name a file that holds it, or give it by standard input", err)
	case len(data) > maxInput:
		return "", fmt.Errorf("the input has more than %d bytes; give one token alone", maxInput)
	}
	token := strings.TrimSpace(string(data))
	for _, prefix := range []string{"authorization:", "bearer "} {
		if len(token) >= len(prefix) && strings.EqualFold(token[:len(prefix)], prefix) {
			token = strings.TrimSpace(token[len(prefix):])
		}
	}
	token = strings.Trim(token, `"'`)
	if token == "" {
		return "", errors.New("the input is empty; give a token by standard input or in a file")
	}
	return token, nil
}

// verify returns an inspection with Verified, Reason, Signature and Notes. An
// error means that it could not be decided.
func (in *inspectConfig) verify(ctx context.Context, token string, p *parsed) (*inspection, error) {
	out := &inspection{Signature: "not checked"}
	if in.issuer == "" && in.jwks == "" {
		out.Reason = "no keys were given; pass --issuer with the URL of the issuer, or --jwks with a file"
		return out, nil
	}
	issuer, audience := in.issuer, in.audience
	if issuer == "" {
		if iss := p.claims.member("iss"); iss != nil {
			issuer = iss.text
		}
		out.Notes = append(out.Notes, "iss was not compared: pass --issuer with --jwks to compare it")
	}
	if aud := p.claims.member("aud").texts(); audience == "" && len(aud) > 0 {
		audience = aud[0]
		out.Notes = append(out.Notes, "aud was not compared: pass --audience to compare it")
	}
	if issuer == "" || audience == "" {
		out.Reason = "the token names no issuer or no audience"
		return out, nil
	}
	verifier, err := in.verifier(issuer, audience)
	if err != nil {
		out.Reason = "the keys were not read"
		return out, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	_, err = verifier.Verify(ctx, token)
	switch {
	case err == nil:
		out.Verified, out.Signature = true, "valid"
	case errors.Is(err, sessiontoken.ErrState):
		out.Verified, out.Signature = true, "valid"
		out.Notes = append(out.Notes, "the state has a version (stv), and its members were not checked")
	case !errors.Is(err, sessiontoken.ErrInvalid):
		out.Reason = "the issuer's keys cannot be read"
		return out, fmt.Errorf("%w; check the issuer's URL with 'sessiontoken doctor --issuer', or pass --jwks with a file", err)
	default:
		out.Reason = strings.TrimPrefix(err.Error(), sessiontoken.ErrInvalid.Error()+": ")
		switch {
		case errors.Is(err, sessiontoken.ErrSignature):
			out.Signature = "not valid"
		case !errors.Is(err, sessiontoken.ErrMalformed):
			out.Signature = "valid"
		}
	}
	if out.Verified {
		out.Notes = append(out.Notes, "whether its session was revoked was not asked")
	}
	return out, nil
}

func (in *inspectConfig) verifier(issuer, audience string) (*sessiontoken.Verifier[jsontext.Value], error) {
	if in.jwks != "" {
		data, err := os.ReadFile(in.jwks)
		if err != nil {
			return nil, fmt.Errorf("--jwks: %w; name a file that holds a JWK set", err)
		}
		set, err := keys.ParseSet(data)
		if err != nil {
			return nil, fmt.Errorf("--jwks: %w; save what the issuer's jwks_uri answers in the file", err)
		}
		return sessiontoken.NewVerifier[jsontext.Value](sessiontoken.VerifierConfig{Issuer: issuer, Audience: audience, Keys: set, LeaveSealed: true})
	}
	client, err := clientTrusting(in.ca)
	if err != nil {
		return nil, err
	}
	r, err := remote.New[jsontext.Value](remote.Config{
		Issuer: issuer, Audience: audience, Client: client, LeaveSealed: true,
		InsecurePlainHTTP: in.plain, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, usageError{"--issuer: " + err.Error()}
	}
	return r.Verifier(), nil
}

// clientTrusting returns a client that trusts the certificates in a file beside
// those of the system, or nil for no file.
func clientTrusting(file string) (*http.Client, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w; name a PEM file of certificates", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, errors.New("--ca: the file holds no certificate; name a PEM file of certificates")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}, nil
}

// claimTimes are the claims that are times: their unit, and what stands before
// the time when it is past and when it is not.
var claimTimes = []struct {
	name         string
	unit         time.Duration
	past, future string
}{
	{"exp", time.Second, "expired ", "expires "},
	{"iat", time.Second, "issued ", "issued "},
	{"nbf", time.Second, "valid since ", "valid "},
	{"begun", time.Millisecond, "began ", "begins "},
	{"auth_time", time.Second, "", ""},
}

// times returns the times of the claims, relative to now.
func times(claims *node, now time.Time) map[string]inspectTime {
	all := map[string]inspectTime{}
	for _, ct := range claimTimes {
		value, ok := claims.member(ct.name).whole()
		if !ok || value < 0 || value/int64(time.Second/ct.unit) > maxDate {
			continue
		}
		t := time.UnixMilli(value * int64(ct.unit/time.Millisecond)).UTC()
		prefix := ct.future
		if t.Before(now) {
			prefix = ct.past
		}
		all[ct.name] = inspectTime{t, prefix + relative(t, now)}
	}
	return all
}

// markSealed replaces the values to which sld points, and returns where they
// are.
func markSealed(claims *node) (pointers []string) {
	for _, pointer := range claims.member("sld").texts() {
		at := claims.member("state")
		steps := strings.Split(pointer, "/")
		for _, step := range steps[1:] {
			at = at.member(strings.NewReplacer("~1", "/", "~0", "~").Replace(step))
		}
		if at != nil && len(steps) > 1 && at.kind == '"' {
			at.note = fmt.Sprintf("(sealed, %d bytes)", len(at.text))
			pointers = append(pointers, pointer)
		}
	}
	return pointers
}

// sizes returns how large the parts of a token are, as Issuer.Size does.
func sizes(token string, p *parsed) inspectSize {
	s := inspectSize{Bytes: len(token), Limit: issueBytes}
	for i, part := range []*int{&s.Header, &s.Payload, &s.Signature} {
		if i < len(p.segments) {
			*part = len(p.segments[i])
		}
	}
	var weigh func(raw jsontext.Value, prefix string, depth int)
	weigh = func(raw jsontext.Value, prefix string, depth int) {
		dec := jsontext.NewDecoder(bytes.NewReader(raw), lenient)
		if _, err := dec.ReadToken(); err != nil {
			return
		}
		for dec.PeekKind() == '"' {
			name, err := dec.ReadValue()
			if err != nil {
				return
			}
			quoted := len(name)
			text, _ := jsontext.AppendUnquote(nil, name)
			value, err := dec.ReadValue()
			if err != nil {
				return
			}
			path := prefix + pathElement(string(text))
			if path != "state" {
				s.Claims = append(s.Claims, inspectClaimed{path, (4*(quoted+1+len(value)) + 2) / 3})
			}
			if value.Kind() == '{' {
				weigh(value.Clone(), path+".", depth+1)
			}
		}
	}
	if p.claims != nil {
		weigh(p.rawClaims, "", 0)
	}
	slices.SortStableFunc(s.Claims, func(a, b inspectClaimed) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return s
}

// pathElement returns a plain name as it is, and quotes any other.
func pathElement(name string) string {
	for _, c := range name {
		if !(c == '_' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
			return shown(name)
		}
	}
	if name == "" || len(name) > 40 {
		return shown(name)
	}
	return name
}

// print prints the inspection. The output holds neither the token nor its
// signature.
func (out *inspection) print(c *call, token string, p *parsed, rules []broken, now time.Time) error {
	out.Broken = slices.Concat([]broken{}, rules)
	out.Size = sizes(token, p)
	if p.claims != nil {
		out.Sealed = markSealed(p.claims)
		out.Times = times(p.claims, now)
	}
	var b bytes.Buffer
	if c.json {
		out.Header, out.Claims = p.header.json(), p.claims.json()
		for i := range out.Size.Claims {
			out.Size.Claims[i].Path = cmp.Or(hide(out.Size.Claims[i].Path), out.Size.Claims[i].Path)
		}
		if err := json.MarshalWrite(&b, out, jsontext.WithIndent("  "), jsontext.AllowInvalidUTF8(true), json.Deterministic(true)); err != nil {
			return errors.New("the inspection cannot be written as JSON; leave --json out")
		}
		b.WriteByte('\n')
	} else {
		out.printText(&b, p)
	}
	text := b.String()
	for i, segment := range p.segments {
		if i >= 2 && len(segment) >= 16 { // of a JWE: all that is encrypted
			text = strings.ReplaceAll(text, segment, "(not shown)")
		}
	}
	_, err := io.WriteString(c.out, text)
	return err
}

func (out *inspection) printText(b *bytes.Buffer, p *parsed) {
	if out.Verified {
		fmt.Fprintln(b, "VERIFIED")
	} else {
		fmt.Fprintf(b, "NOT VERIFIED: %s\n", out.Reason)
	}
	fmt.Fprintf(b, "signature: %s\n", out.Signature)
	for _, note := range out.Notes {
		fmt.Fprintf(b, "note: %s\n", note)
	}
	object := func(title string, n *node) {
		if n == nil {
			return
		}
		fmt.Fprintf(b, "\n%s\n", title)
		for i, m := range n.members {
			if name := n.names[i]; title == "claims" && name == "state" && m.kind == '{' && len(m.members) > 0 {
				for j, inner := range m.members {
					fmt.Fprintf(b, "  %-10s %s\n", cmp.Or(hide(m.names[j]), "state."+pathElement(m.names[j])), inner.show())
				}
			} else {
				fmt.Fprintf(b, "  %-10s %s", cmp.Or(hide(name), pathElement(name)), m.show())
				if t, ok := out.Times[name]; ok && title == "claims" {
					fmt.Fprintf(b, "  %s, %s", t.Time.Format("2006-01-02 15:04:05 UTC"), t.Relative)
				}
				fmt.Fprintln(b)
			}
		}
	}
	object("header", p.header)
	object("claims", p.claims)
	s := out.Size
	fmt.Fprintf(b, "\nsize\n  %d bytes: header %d, payload %d, signature %d; an issuer's default limit is %d\n", s.Bytes, s.Header, s.Payload, s.Signature, s.Limit)
	for _, claim := range s.Claims[:min(5, len(s.Claims))] {
		fmt.Fprintf(b, "  %6d  %s\n", claim.Bytes, cmp.Or(hide(claim.Path), claim.Path))
	}
	if len(out.Broken) == 0 {
		fmt.Fprintln(b, "\nrules broken: none")
		return
	}
	fmt.Fprintln(b, "\nrules broken")
	for _, r := range out.Broken {
		fmt.Fprintf(b, "  %-10s %s; %s\n", r.Rule, r.Text, r.Found)
	}
}
