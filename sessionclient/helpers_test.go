package sessionclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sessionclient"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type state struct{ Role string }

// site is a server with sign-in, a token endpoint and an API.
type site struct {
	*authority.Authority[state]
	mux       *http.ServeMux
	exchanges atomic.Int64 // forms with a refresh token
	probes    atomic.Int64 // other forms at the token endpoint
	calls     atomic.Int64 // of the API
	presented sync.Map     // refresh tokens, for tests that look

	// around wraps the token endpoint, if it is set.
	around atomic.Pointer[func(w http.ResponseWriter, r *http.Request, next http.Handler)]
}

func newSite(t testing.TB) *site {
	t.Helper()
	a, err := authority.New(authority.Config[state]{
		Issuer: "https://id.example", Audience: []string{"api"}, Store: authority.Memory(), Algorithm: keys.EdDSA,
		Load:   func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{"admin"}, nil },
		HTTP:   sessionhttp.Config[state]{TLSInFront: true},
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	s := &site{Authority: a, mux: http.NewServeMux()}
	s.mux.HandleFunc("POST /in", func(w http.ResponseWriter, r *http.Request) {
		tokens, err := a.Sessions().SignInNative(r, sessionhttp.Device{ClientID: "app"}, sessiontoken.Start{Subject: "ada"}, state{"admin"})
		if err != nil {
			a.Sessions().Refuse(w, r, err)
			return
		}
		_ = json.NewEncoder(w).Encode(tokens)
	})
	token := a.Sessions().RefreshHandler()
	s.mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("refresh_token") != "" {
			s.exchanges.Add(1)
		} else {
			s.probes.Add(1)
		}
		if f := s.around.Load(); f != nil {
			(*f)(w, r, token)
			return
		}
		token.ServeHTTP(w, r)
	})
	s.mux.Handle("/revoke", a.Sessions().RevokeHandler())
	s.mux.Handle("/api", a.Sessions().Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		_, _ = io.Copy(w, r.Body)
	})))
	return s
}

// metric returns a metric of the site, which must exist.
func (s *site) metric(t testing.TB, name string) float64 {
	t.Helper()
	require.Contains(t, s.Metrics(), name)
	return s.Metrics()[name]
}

// wrap sets what answers instead of the token endpoint.
func (s *site) wrap(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.around.Store(&f)
}

// unwrap lets the token endpoint answer again.
func (s *site) unwrap() { s.around.Store(nil) }

// piped serves all hosts over pipes, which work in simulated time. A connection
// to https is one without TLS.
func piped(t testing.TB, h http.Handler) *http.Transport {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: h}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case l.conns <- theirs:
			return ours, nil
		case <-l.closed:
			return nil, &net.OpError{Op: "dial", Net: "pipe", Err: net.ErrClosed}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	tr := &http.Transport{DialContext: dial, DialTLSContext: dial}
	t.Cleanup(func() {
		server.Close()
		tr.CloseIdleConnections()
		serving.Wait()
	})
	return tr
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (*pipes) Addr() net.Addr { return &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// memory is a Keeper of this process.
type memory struct {
	locked chan struct{}
	mu     sync.Mutex
	record []byte
	fail   error // of the next Save, which saves nothing
}

func newMemory() *memory { return &memory{locked: make(chan struct{}, 1)} }

func (m *memory) Lock(ctx context.Context) (func(), error) {
	select {
	case m.locked <- struct{}{}:
		return func() { <-m.locked }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (m *memory) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.record...), nil
}

func (m *memory) Save(_ context.Context, record []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.record = append([]byte(nil), record...)
	return nil
}

func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.record)
}

func (m *memory) set(record string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.record = []byte(record)
}

func (m *memory) failing(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

// world is a site and a client of it, over pipes.
type world struct {
	*site
	transport *http.Transport
	keeper    *memory
	client    *sessionclient.Client
	http      *http.Client // with the client's access token
}

const apiURL = "https://api.example/api"

func newWorld(t testing.TB) *world {
	t.Helper()
	s := newSite(t)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	w := &world{site: s, transport: piped(t, s.mux), keeper: newMemory()}
	w.restart(t)
	require.NoError(t, w.client.SignIn(t.Context(), w.signIn(t)))
	return w
}

// restart makes a new client, as a program does that was killed.
func (w *world) restart(t testing.TB) {
	t.Helper()
	c, err := sessionclient.New(sessionclient.Config{
		TokenURL: "https://id.example/token", RevokeURL: "https://id.example/revoke", ClientID: "app", Origins: []string{"https://api.example"},
		Keeper: w.keeper, HTTPClient: &http.Client{Transport: w.transport},
	})
	require.NoError(t, err)
	w.client, w.http = c, &http.Client{Transport: c.Transport(w.transport)}
}

// signIn returns the tokens of a new session.
func (w *world) signIn(t testing.TB) sessionclient.Tokens {
	t.Helper()
	return signIn(t, &http.Client{Transport: w.transport}, "https://id.example/in")
}

func signIn(t testing.TB, c *http.Client, at string) (tokens sessionclient.Tokens) {
	t.Helper()
	resp, err := c.Post(at, "", nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&tokens))
	return tokens
}

// get returns the status of a request to the API.
func (w *world) get(t testing.TB) int {
	t.Helper()
	resp, err := w.http.Get(apiURL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// token returns the access token.
func (w *world) token(t testing.TB) string {
	t.Helper()
	token, _, err := w.client.Token(t.Context())
	require.NoError(t, err)
	return token
}

// requireTryAgain checks an error after which the call can be repeated.
func requireTryAgain(t testing.TB, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, sessionclient.ErrSignIn)
	requireNoToken(t, err.Error())
}

func requireSignIn(t testing.TB, err error) {
	t.Helper()
	require.ErrorIs(t, err, sessionclient.ErrSignIn)
	requireNoToken(t, err.Error())
}

// requireNoToken: session tokens begin as JWTs do; a marker is in all others.
func requireNoToken(t testing.TB, text string) {
	t.Helper()
	for _, secret := range []string{"eyJ", marker} {
		require.NotContains(t, text, secret)
	}
	require.Less(t, len(text), 400)
}

const marker = "hunter2"

var errDisk = errors.New("the disk is full")

func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

func text(s string) io.ReadCloser { return io.NopCloser(strings.NewReader(s)) }
