package sessionhttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	name        = "__Host-session"
	refreshName = "__Secure-session-refresh"
	binderName  = "__Host-session-binder"
)

type state struct {
	Name string `json:"name"`
	Rev  int64  `json:"rev"`
}

// ada is who signs in.
var ada = sessiontoken.Start{Subject: "ada"}

var errDown = errors.New("the database is down")

// site is what replicas share, and what tests turn.
type site struct {
	t        testing.TB
	key      *keys.SigningKey
	source   *keys.Static
	revoked  flaky
	families refresh.MemStore
	loads    atomic.Int64
	loadErr  atomic.Pointer[error]
	slow     atomic.Int64 // nanoseconds of a load
	big      atomic.Int64 // bytes of name
}

func newSite(t testing.TB) *site {
	key, err := keys.GenerateKey(keys.EdDSA)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	return &site{t: t, key: key, source: source}
}

func (s *site) fail(err error) {
	if err == nil {
		s.loadErr.Store(nil)
		return
	}
	s.loadErr.Store(&err)
}

func (s *site) load(ctx context.Context, old *sessiontoken.Claims[state]) (state, error) {
	rev := s.loads.Add(1)
	time.Sleep(time.Duration(s.slow.Load()))
	if err := s.loadErr.Load(); err != nil {
		return state{}, *err
	}
	return state{Name: "Ada" + strings.Repeat("x", int(s.big.Load())), Rev: rev}, ctx.Err()
}

// flaky is a store of revocations whose writes can fail, or take their time.
type flaky struct {
	revoke.MemStore
	down    atomic.Bool
	slow    atomic.Int64 // nanoseconds of a write
	written atomic.Int64
}

func (f *flaky) Append(ctx context.Context, entries ...revoke.Entry) error {
	if d := time.Duration(f.slow.Load()); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.down.Load() {
		return errDown
	}
	for _, e := range entries {
		if e.Scope != revoke.Birth {
			f.written.Add(1)
		}
	}
	return f.MemStore.Append(ctx, entries...)
}

// replica is one server of the site.
type replica struct {
	*sessionhttp.Sessions[state]
	list     *revoke.List
	issuer   *sessiontoken.Issuer[state]
	verifier *sessiontoken.Verifier[state]
	manager  *refresh.Manager
	mu       sync.Mutex
	refused  []error
	mux      *http.ServeMux
}

func (r *replica) lastRefusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.refused) == 0 {
		return nil
	}
	return r.refused[len(r.refused)-1]
}

// parts are what a replica is made of, for tests that change them.
type parts struct {
	list     revoke.Config
	verifier sessiontoken.VerifierConfig
	issuer   sessiontoken.IssuerConfig
	manager  refresh.Config
	http     func(*sessionhttp.Config[state])
}

var quiet = slog.New(slog.DiscardHandler)

func (s *site) replica(change ...func(*sessionhttp.Config[state])) *replica {
	return s.with(func(p *parts) {
		p.http = func(c *sessionhttp.Config[state]) {
			for _, f := range change {
				f(c)
			}
		}
	})
}

func (s *site) with(change func(*parts)) *replica {
	s.t.Helper()
	r := &replica{mux: http.NewServeMux()}
	p := parts{
		list:     revoke.Config{Store: &s.revoked, Logger: quiet},
		verifier: sessiontoken.VerifierConfig{Issuer: "https://a.example", Audience: "web", Keys: s.source},
		issuer:   sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source, MaxBytes: 8000},
		manager:  refresh.Config{Store: &s.families, Secrets: [][]byte{bytes.Repeat([]byte{7}, 32)}, Logger: quiet},
	}
	if change != nil {
		change(&p)
	}
	var err error
	r.list, err = revoke.NewList(p.list)
	require.NoError(s.t, err)
	p.verifier.Revocations, p.issuer.Revocations, p.manager.Revocations = r.list, r.list, r.list
	verifier, err := sessiontoken.NewVerifier[state](p.verifier)
	require.NoError(s.t, err)
	r.verifier = verifier
	r.issuer, err = sessiontoken.NewIssuer[state](p.issuer)
	require.NoError(s.t, err)
	r.manager, err = refresh.NewManager(p.manager)
	require.NoError(s.t, err)
	cfg := sessionhttp.Config[state]{
		Verifier: verifier, Issuer: r.issuer, Load: s.load, Revocations: r.list, Refresh: r.manager, Logger: quiet,
		OnRefused: func(_ *http.Request, err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused = append(r.refused, err)
		},
	}
	if p.http != nil {
		p.http(&cfg)
	}
	r.Sessions, err = sessionhttp.New(cfg)
	require.NoError(s.t, err)
	r.routes(s)
	return r
}

// month is a replica with sessions of 30 days, and browsers that refresh.
func (s *site) month(change ...func(*parts)) *replica {
	const month = 30 * 24 * time.Hour
	return s.with(func(p *parts) {
		p.list.MaxSession, p.issuer.MaxSession = month, month
		p.manager.MaxSession, p.manager.IdleTimeout = month, 14*24*time.Hour
		p.http = func(c *sessionhttp.Config[state]) { c.RefreshPath = "/session/" }
		for _, f := range change {
			f(p)
		}
	})
}

func (r *replica) routes(s *site) {
	who := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, ok := r.FromContext(req.Context())
		if !ok {
			_, _ = io.WriteString(w, "no session")
			return
		}
		if req.URL.Query().Has("public") {
			w.Header().Set("Cache-Control", "public, max-age=600") // a handler's mistake
		}
		_, _ = fmt.Fprintf(w, "%s %s %d", c.Subject, c.SessionID, c.State.Rev)
	})
	r.mux.Handle("/who", r.Require(who))
	r.mux.Handle("/maybe", r.Optional(who))
	r.mux.Handle("/pay", r.RequireFresh(10*time.Minute, who))
	post := func(path string, f func(w http.ResponseWriter, req *http.Request) error) {
		h := func(w http.ResponseWriter, req *http.Request) {
			if err := f(w, req); err != nil {
				r.Refuse(w, req, err)
			}
		}
		r.mux.HandleFunc(path, h)
		r.mux.HandleFunc("/session"+path, h)
	}
	post("/in", func(w http.ResponseWriter, req *http.Request) error {
		_, err := r.SignIn(w, req, ada, state{Name: "Ada" + strings.Repeat("x", int(s.big.Load()))})
		return err
	})
	post("/out", r.SignOut)
	post("/everywhere", r.SignOutEverywhere)
	post("/others", r.SignOutOthers)
	post("/renew", func(w http.ResponseWriter, req *http.Request) error {
		_, err := r.Renew(w, req)
		return err
	})
	post("/password", func(w http.ResponseWriter, req *http.Request) error { // changed it, and stays signed in here
		if err := r.list.RevokeSubject(req.Context(), "ada"); err != nil {
			return err
		}
		_, err := r.SignIn(w, req, ada, state{})
		return err
	})
	r.mux.HandleFunc("/native", func(w http.ResponseWriter, req *http.Request) {
		tokens, err := r.SignInNative(req, sessionhttp.Device{ClientID: "app", Label: "phone"}, ada, state{Name: "Ada"})
		if err != nil {
			r.Refuse(w, req, err)
			return
		}
		_ = json.MarshalWrite(w, tokens)
	})
	r.mux.Handle("/refresh", r.RefreshHandler())
	r.mux.Handle("/session/refresh", r.RefreshHandler())
	r.mux.Handle("/revoke", r.RevokeHandler())
}

// request makes one over https to the site's own host.
func request(method, path, cookie string, header ...string) *http.Request {
	req := httptest.NewRequest(method, "https://a.example"+path, nil)
	if cookie != "" {
		req.Header.Set("Cookie", name+"="+cookie)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return req
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func (r *replica) do(req *http.Request) *http.Response {
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w.Result()
}

func (r *replica) status(req *http.Request) int { return r.do(req).StatusCode }

func (r *replica) signIn(t testing.TB) string {
	t.Helper()
	resp := r.do(request("POST", "/in", ""))
	require.Equal(t, 200, resp.StatusCode)
	return cookieOf(t, resp)
}

func (r *replica) native(t testing.TB) sessionhttp.Tokens {
	t.Helper()
	resp := r.do(request("POST", "/native", ""))
	require.Equal(t, 200, resp.StatusCode)
	return tokensIn(t, resp)
}

func tokensIn(t testing.TB, resp *http.Response) (tokens sessionhttp.Tokens) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body(t, resp)), &tokens))
	return tokens
}

// browser is what a browser keeps of the site.
type browser struct{ session, refresh, binder string }

func (b *browser) take(resp *http.Response) {
	for _, c := range resp.Cookies() {
		v := c.Value
		if c.MaxAge < 0 {
			v = ""
		}
		switch c.Name {
		case name:
			b.session = v
		case refreshName:
			b.refresh = v
		case binderName:
			b.binder = v
		}
	}
}

// request has the cookies that a browser would send to a path.
func (b *browser) request(method, path string, header ...string) *http.Request {
	req := request(method, path, "", header...)
	if b.session != "" {
		req.AddCookie(&http.Cookie{Name: name, Value: b.session})
	}
	if b.binder != "" {
		req.AddCookie(&http.Cookie{Name: binderName, Value: b.binder})
	}
	if b.refresh != "" && strings.HasPrefix(path, "/session/") {
		req.AddCookie(&http.Cookie{Name: refreshName, Value: b.refresh})
	}
	return req
}

// browse signs a browser in on a replica with a RefreshPath.
func (r *replica) browse(t testing.TB) *browser {
	t.Helper()
	b := new(browser)
	resp := r.do(b.request("POST", "/session/in"))
	require.Equal(t, 200, resp.StatusCode)
	b.take(resp)
	require.NotEmpty(t, b.session)
	require.NotEmpty(t, b.refresh)
	require.NotEmpty(t, b.binder)
	return b
}

func (r *replica) send(b *browser, method, path string, header ...string) *http.Response {
	resp := r.do(b.request(method, path, header...))
	b.take(resp)
	return resp
}

func formRequest(path string, form url.Values, header ...string) *http.Request {
	req := httptest.NewRequest("POST", "https://a.example"+path+"?refresh_token=query&token=query", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

func refreshRequest(form url.Values, header ...string) *http.Request {
	return formRequest("/refresh", form, header...)
}

func grant(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {"app"}}
}

// held returns all lines of a field as a cache reads them: as one, whatever the
// case of its name.
func held(resp *http.Response, field string) string {
	var all []string
	for k, v := range resp.Header {
		if strings.EqualFold(k, field) {
			all = append(all, v...)
		}
	}
	return strings.Join(all, ", ")
}

func cookieOf(t testing.TB, resp *http.Response) string {
	t.Helper()
	require.Len(t, resp.Cookies(), 1)
	require.Equal(t, name, resp.Cookies()[0].Name)
	require.Contains(t, held(resp, "Cache-Control"), "no-store")
	return resp.Cookies()[0].Value
}

func body(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// bubble is a test in simulated time.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// signInCookie is signIn on a replica with a RefreshPath.
func (r *replica) signInCookie(t testing.TB) string { t.Helper(); return r.browse(t).session }

// elsewhere is an issuer of the site on a machine whose clock is ahead by d.
func (s *site) elsewhere(d time.Duration) (issuer *sessiontoken.Issuer[state]) {
	s.t.Helper()
	c := new(clock.Clock)
	c.SetAhead(d)
	var err error
	clock.As(c, func() {
		issuer, err = sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source})
	})
	require.NoError(s.t, err)
	return issuer
}

// local is a replica of a site of one process. Its store, unlike one that
// replicas share, does not mind sessions that began before it was made.
func (s *site) local() *replica {
	s.t.Helper()
	return s.with(func(p *parts) { p.list.Store = &s.revoked.MemStore })
}

// dueCookie returns the token of a session that began some minutes ago, for a
// local replica: it is valid, and it is time to renew it.
func (s *site) dueCookie(t testing.TB) string {
	t.Helper()
	token, _, err := s.elsewhere(-3*time.Minute).Issue(t.Context(), "ada", state{})
	require.NoError(t, err)
	return token
}
