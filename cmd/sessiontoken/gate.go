package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// The headers of an answer of 200. It has each of them exactly once, so that a
// proxy which copies all of them leaves nothing that a client sent under these
// names.
const (
	headerSubject  = "X-Session-Subject"
	headerSession  = "X-Session-Id"
	headerAudience = "X-Session-Audience"
	headerState    = "X-Session-State"
)

// maxState is how long the value of X-Session-State may be, in bytes. Proxies
// refuse an answer whose headers do not fit their buffer.
const maxState = 4096

// gate answers a proxy that asks whether a request may pass:
//
//   - 200 with the headers above: it has a session;
//   - 401 with WWW-Authenticate: it has none, or --acr wants another sign-in;
//   - 403: it has the cookie, can change something, and comes from a page of
//     another origin;
//   - 503 with Retry-After: the gate does not know;
//   - 500: the proxy is not configured as it should be, or the state does not
//     fit into a header.
type gate struct {
	sessions  *sessionhttp.Sessions[openState]
	audience  string
	cookie    string   // with its prefix
	members   []string // of the state, for X-Session-State
	acr       []string
	anonymous bool
	envoy     bool
	renewals  *renewals // nil if expired cookies are refused
	log       limitedLog

	answers [len(statuses)]atomic.Uint64
}

var statuses = [...]int{200, 401, 403, 500, 503}

// answer counts the status of an answer, and writes 401 for 400: of the statuses
// of 4xx, auth_request of nginx knows 401 and 403 alone.
type answer struct {
	http.ResponseWriter
	g *gate
}

func (a answer) WriteHeader(status int) {
	if status == http.StatusBadRequest {
		status = http.StatusUnauthorized
	}
	if i := slices.Index(statuses[:], status); i >= 0 {
		a.g.answers[i].Add(1)
	}
	a.ResponseWriter.WriteHeader(status)
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w = answer{w, g}
	o, err := g.original(r)
	if err != nil {
		g.misconfigured(w, err)
		return
	}
	c, err := g.sessions.Check(w, o)
	if g.renewals != nil && isRenewable(err) && !hasBearer(o) {
		var renewed *http.Request
		if renewed, err = g.renewCookie(w, o, err); err == nil {
			o = renewed
			c, err = g.sessions.Check(w, o)
		}
	}
	switch {
	case err != nil:
		g.sessions.Refuse(w, o, err)
	case !g.anonymous && strings.HasPrefix(c.Subject, "anonymous:"):
		g.sessions.Refuse(w, o, sessionhttp.ErrNoSession)
	case len(g.acr) > 0:
		g.sessions.RequireACR(g.acr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { g.pass(w, c) })).ServeHTTP(w, o)
	default:
		g.pass(w, c)
	}
}

// pass answers 200.
func (g *gate) pass(w http.ResponseWriter, c *sessiontoken.Claims[openState]) {
	state, err := c.State.choose(g.members)
	if err != nil {
		g.misconfigured(w, err)
		return
	}
	h := w.Header()
	h.Set(headerSubject, escape(c.Subject))
	h.Set(headerSession, c.SessionID)
	h.Set(headerAudience, g.audience)
	h.Set(headerState, state)
	w.WriteHeader(http.StatusOK)
}

// misconfigured answers 500. The error holds nothing of the request.
func (g *gate) misconfigured(w http.ResponseWriter, err error) {
	g.log.warn("serve: a request was refused with 500: " + err.Error())
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

var (
	errMethod = errors.New("the proxy must send the method of the original request in one X-Forwarded-Method, in place of the client's; set that in the proxy, or --envoy for Envoy")
	errHost   = errors.New("the proxy must send the host of the original request in one X-Forwarded-Host, in place of the client's; set that in the proxy")
	errState  = fmt.Errorf("the members of --state take more than %d bytes; choose fewer", maxState)
)

// copied are the headers of the original request that decide, and no others.
var copied = []string{"Authorization", "Cookie", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest"}

// original returns the request that the proxy asks about, as far as the session
// depends on it.
//
// A proxy need not pass on Upgrade, with which a page opens a WebSocket. A
// browser then sends Origin, as it does with all requests that a page of another
// origin can read. So every request with an Origin is checked as one that
// changes something.
func (g *gate) original(r *http.Request) (*http.Request, error) {
	o := (&http.Request{
		Method: r.Method, Host: r.Host, URL: r.URL, RemoteAddr: r.RemoteAddr,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, len(copied)), Body: http.NoBody,
	}).WithContext(r.Context())
	if !g.envoy {
		methods, hosts := r.Header["X-Forwarded-Method"], r.Header["X-Forwarded-Host"]
		switch {
		case len(methods) != 1 || !isMethod(methods[0]):
			return nil, errMethod
		case len(hosts) > 1 || len(hosts) == 1 && strings.ContainsAny(hosts[0], ", \t"):
			return nil, errHost
		}
		o.Method, o.Host = methods[0], ""
		if len(hosts) == 1 {
			o.Host = hosts[0]
		}
	}
	for _, name := range copied {
		if values := r.Header[name]; len(values) > 0 {
			o.Header[name] = values
		}
	}
	if len(r.Header["Origin"]) > 0 || len(r.Header["Upgrade"]) > 0 {
		o.Header["Upgrade"] = []string{"yes"}
	}
	return o, nil
}

// isMethod reports whether a text is one method (RFC 9110 section 9.1), which
// is a token.
func isMethod(s string) bool {
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool {
		return r >= 0x80 || r <= ' ' || strings.ContainsRune("\x7f\"(),/:;<=>?@[\\]{}", r)
	})
}

// hasBearer reports whether the session of a request is that of its
// Authorization header, which is never renewed.
func hasBearer(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Authorization"], func(v string) bool {
		scheme, _, _ := strings.Cut(v, " ")
		return strings.EqualFold(scheme, "Bearer")
	})
}

// isRenewable reports whether the authority may renew a refused cookie.
func isRenewable(err error) bool {
	return errors.Is(err, sessiontoken.ErrExpired) || errors.Is(err, sessiontoken.ErrState)
}

// escape returns a text for a header: bytes that are not visible ASCII, and '%',
// are percent-encoded.
func escape(s string) string {
	if isPlain(s) && !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// openState is a state of any type and version, of which no sealed field is
// opened.
type openState struct{ raw []byte }

// StateVersion returns a version that can read all others: UpgradeState takes
// them as they are.
func (openState) StateVersion() (version, readableBy int) { return 1_000_000, 0 }

func (s *openState) UpgradeState(_ int, raw []byte) error { return s.UnmarshalJSON(raw) }

func (s *openState) UnmarshalJSON(raw []byte) error {
	s.raw = slices.Clone(raw)
	return nil
}

func (s openState) MarshalJSON() ([]byte, error) {
	if s.raw == nil {
		return []byte("null"), nil
	}
	return s.raw, nil
}

// choose returns a JSON object in ASCII with those of some members that a state
// has.
func (s openState) choose(members []string) (string, error) {
	if len(members) == 0 {
		return "{}", nil
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(s.raw, &all) != nil {
		return "{}", nil // not an object
	}
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool { return !slices.Contains(members, name) })
	if all == nil {
		return "{}", nil
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return "", errState
	}
	text := ascii(raw)
	if len(text) > maxState {
		return "", errState
	}
	return text, nil
}

// ascii returns JSON whose characters beyond ASCII are escaped. JSON has them in
// strings alone.
func ascii(raw []byte) string {
	var b strings.Builder
	for len(raw) > 0 {
		r, n := utf8.DecodeRune(raw)
		raw = raw[n:]
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		}
	}
	return b.String()
}

// writeMetrics writes the metrics in the text format of Prometheus, with those
// of the sessions, keys and revocations.
func (g *gate) writeMetrics(w http.ResponseWriter, all map[string]float64) {
	maps.Copy(all, g.sessions.Metrics())
	for i, status := range statuses {
		all["serve_answers_"+strconv.Itoa(status)+"_total"] = float64(g.answers[i].Load())
	}
	if g.renewals != nil {
		all["serve_renewals_total"] = float64(g.renewals.renewed.Load())
		all["serve_renewal_failures_total"] = float64(g.renewals.failed.Load())
	}
	all["serve_goroutines"] = float64(runtime.NumGoroutine())
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	all["serve_heap_bytes"] = float64(heap[0].Value.Uint64())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		_, _ = io.WriteString(w, "sessiontoken_"+name+" "+strconv.FormatFloat(all[name], 'g', -1, 64)+"\n")
	}
}

// limitedLog writes at most one line in 10 s.
type limitedLog struct {
	logger *slog.Logger
	quiet  atomic.Bool
}

func (l *limitedLog) warn(text string) {
	if l.quiet.CompareAndSwap(false, true) {
		l.logger.Warn(text)
		time.AfterFunc(10*time.Second, func() { l.quiet.Store(false) })
	}
}
