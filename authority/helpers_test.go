package authority_test

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
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	issuer     = "https://auth.example"
	cookieName = "__Host-session"
)

type state struct {
	Name string `json:"name"`
	Role string `json:"role"`
}

var (
	quiet   = slog.New(slog.DiscardHandler)
	errDown = errors.New("the store is down")
)

// http200 is a handler that has nothing to say.
var http200 = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

func secret(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func load(context.Context, *sessiontoken.Claims[state]) (state, error) {
	return state{"Ada", "admin"}, nil
}

// config is a right configuration, with changes.
func config(store authority.Store, changes ...func(*authority.Config[state])) authority.Config[state] {
	cfg := authority.Config[state]{
		Issuer: issuer, Audience: []string{"site", "api"}, Store: store, Algorithm: keys.EdDSA, Load: load, Logger: quiet,
		HTTP: sessionhttp.Config[state]{RefreshPath: "/session/"},
	}
	for _, change := range changes {
		change(&cfg)
	}
	return cfg
}

func with(secrets ...[]byte) func(*authority.Config[state]) {
	return func(c *authority.Config[state]) { c.Secrets = secrets }
}

// replica is one server of a site.
type replica struct {
	*authority.Authority[state]
	mux *http.ServeMux
}

func newReplica(t testing.TB, store authority.Store, changes ...func(*authority.Config[state])) *replica {
	t.Helper()
	a, err := authority.New(config(store, changes...))
	require.NoError(t, err)
	r := &replica{a, http.NewServeMux()}
	s := a.Sessions()
	post := func(path string, f func(http.ResponseWriter, *http.Request) error) {
		r.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, req *http.Request) {
			if err := f(w, req); err != nil {
				s.Refuse(w, req, err)
			}
		})
	}
	post("/sign-in", func(w http.ResponseWriter, req *http.Request) error {
		_, err := s.SignIn(w, req, sessiontoken.Start{Subject: "ada"}, state{"Ada", "guest"})
		return err
	})
	post("/native", func(w http.ResponseWriter, req *http.Request) error {
		tokens, err := s.SignInNative(req, sessionhttp.Device{ClientID: "app", Label: "phone"}, sessiontoken.Start{Subject: "ada"}, state{"Ada", "guest"})
		if err == nil {
			err = json.MarshalWrite(w, tokens)
		}
		return err
	})
	post("/session/sign-out", s.SignOut)
	r.mux.Handle("POST /session/refresh", s.RefreshHandler())
	r.mux.Handle("GET /page", s.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := s.FromContext(req.Context())
		_, _ = fmt.Fprintf(w, "%s %s", c.State.Name, c.State.Role)
	})))
	r.mux.Handle("/renew", a.RenewHandler())
	r.mux.Handle("/ready", a.Ready())
	r.mux.Handle("/", a.WellKnown())
	return r
}

// run starts Run, which ends with the test or when stop is called.
func (r *replica) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.Equal(t, context.Canceled, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func (r *replica) do(req *http.Request) *http.Response {
	w := httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	return w.Result()
}

func (r *replica) status(req *http.Request) int { return r.do(req).StatusCode }

// ready asks Ready.
func (r *replica) ready(t testing.TB) (status int, h health) {
	t.Helper()
	resp := r.do(request("GET", "/ready"))
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	require.NoError(t, json.Unmarshal([]byte(body(t, resp)), &h, json.RejectUnknownMembers(true)))
	require.Equal(t, resp.StatusCode == 200, h.Ready)
	return resp.StatusCode, h
}

type health struct {
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`
	Warnings []string `json:"warnings"`
}

// knownWithin is how soon a replica knows of what another has revoked.
func (r *replica) knownWithin() time.Duration {
	healthy, _ := r.Revocations().Staleness()
	return healthy
}

// native signs in without cookies.
func (r *replica) native(t testing.TB) (tokens sessionhttp.Tokens) {
	t.Helper()
	return tokensOf(t, r.do(request("POST", "/native")))
}

func tokensOf(t testing.TB, resp *http.Response) (tokens sessionhttp.Tokens) {
	t.Helper()
	text := body(t, resp)
	require.Equal(t, 200, resp.StatusCode, text)
	require.NoError(t, json.Unmarshal([]byte(text), &tokens))
	return tokens
}

func body(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(b)
}

// request makes one to the site, with header fields in pairs.
func request(method, path string, header ...string) *http.Request {
	req := httptest.NewRequest(method, issuer+path, nil)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

func bearer(path, token string) *http.Request {
	return request("GET", path, "Authorization", "Bearer "+token)
}

func refreshRequest(token string) *http.Request {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {token}}
	req := httptest.NewRequest("POST", issuer+"/session/refresh", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return req
}

// server answers requests, as a replica does.
type server interface {
	do(*http.Request) *http.Response
}

// browser keeps cookies, by name.
type browser map[string]string

func (b browser) ask(r server, method, path string, header ...string) *http.Response {
	req := request(method, path, header...)
	for name, value := range b {
		if !strings.HasSuffix(name, "-refresh") || strings.HasPrefix(path, "/session/") {
			req.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	}
	resp := r.do(req)
	for _, c := range resp.Cookies() {
		if b[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b, c.Name)
		}
	}
	return resp
}

func (b browser) status(r server, method, path string, header ...string) int {
	return b.ask(r, method, path, header...).StatusCode
}

func (b browser) clone() browser {
	c := browser{}
	for name, value := range b {
		c[name] = value
	}
	return c
}

// network is a store that can be down, or read only, or another one than
// before.
type network struct {
	refresh.Store
	inner    atomic.Pointer[authority.Store]
	down     atomic.Bool
	readOnly atomic.Bool
	hang     atomic.Pointer[chan struct{}] // until it is closed, whatever the context
	written  atomic.Pointer[[]revoke.Entry]
}

func newNetwork() *network {
	s := authority.Memory()
	n := &network{Store: s}
	n.inner.Store(&s)
	n.written.Store(new([]revoke.Entry))
	return n
}

// hangs has all calls hang until release is called.
func (n *network) hangs() (release func()) {
	c := make(chan struct{})
	n.hang.Store(&c)
	return func() {
		n.hang.Store(nil)
		close(c)
	}
}

func (n *network) wait() {
	if c := n.hang.Load(); c != nil {
		<-*c
	}
}

func (n *network) Load(ctx context.Context, name string) (keys.Stored, error) {
	n.wait()
	if n.down.Load() {
		return keys.Stored{}, errDown
	}
	return (*n.inner.Load()).Load(ctx, name)
}

func (n *network) Revisions(ctx context.Context, names ...string) ([]string, time.Time, error) {
	n.wait()
	if n.down.Load() {
		return nil, time.Time{}, errDown
	}
	return (*n.inner.Load()).Revisions(ctx, names...)
}

func (n *network) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	n.wait()
	if n.down.Load() || n.readOnly.Load() {
		return "", errDown
	}
	return (*n.inner.Load()).Save(ctx, name, doc, rev)
}

func (n *network) Append(ctx context.Context, entries ...revoke.Entry) error {
	n.wait()
	if n.down.Load() || n.readOnly.Load() {
		return errDown
	}
	for { // several replicas write at once
		old := n.written.Load()
		all := append(append([]revoke.Entry(nil), *old...), entries...)
		if n.written.CompareAndSwap(old, &all) {
			break
		}
	}
	return (*n.inner.Load()).Append(ctx, entries...)
}

func (n *network) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	n.wait()
	if n.down.Load() {
		return revoke.Page{}, errDown
	}
	return (*n.inner.Load()).Since(ctx, cursor)
}

func (*network) Wait(context.Context, string) error { return errors.ErrUnsupported }
