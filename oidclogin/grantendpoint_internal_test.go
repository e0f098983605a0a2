package oidclogin

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

// grantOP is an OpenID provider on loopback that refreshes.
type grantOP struct {
	*httptest.Server
	chain *chain

	mu       sync.Mutex
	metadata members          // further members
	basic    bool             // how the client must authenticate
	claims   members          // changes of the refreshed ID token
	answer   http.HandlerFunc // in place of the token endpoint's
	revokes  int              // the status of the revocation endpoint
}

func newGrantOP(t *testing.T) *grantOP {
	p := &grantOP{chain: newChain(), basic: true, revokes: 200}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.MarshalWrite(w, members{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/jwks",
			"id_token_signing_alg_values_supported": []string{oidc.ES256},
		}.with(p.metadata))
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.MarshalWrite(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: opKeys().p256.Public(), KeyID: opKeyID, Algorithm: oidc.ES256, Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		if !p.isClient(r) || r.PostFormValue("token_type_hint") != "refresh_token" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = p.chain.revoke(r.Context(), r.PostFormValue("token"))
		w.WriteHeader(p.revokes)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *grantOP) isClient(r *http.Request) bool {
	id, secret, _ := r.BasicAuth()
	if !p.basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	return id == "app" && secret == "secret"
}

func (p *grantOP) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answer != nil {
		p.answer(w, r)
		return
	}
	if !p.isClient(r) || r.PostFormValue("grant_type") != "refresh_token" {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"invalid_client"}`)
		return
	}
	a, err := p.chain.refresh(r.Context(), r.PostFormValue("refresh_token"))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
		return
	}
	sum := sha256.Sum256([]byte(a.access))
	now := time.Now().Unix()
	claims := members{
		"iss": p.URL, "sub": ada, "aud": "app", "iat": now, "exp": now + 300, "at_hash": jws.Encode(sum[:16]),
	}.with(p.claims)
	_ = json.MarshalWrite(w, members{
		"access_token": a.access, "token_type": "Bearer", "expires_in": 3600, "refresh_token": a.refresh,
		"id_token": sign(oidc.ES256, headerOf(oidc.ES256, ""), claims.text()),
	})
}

func (p *grantOP) config() GrantsConfig {
	cfg := grantsConfig(memoryStore())
	cfg.Issuer = p.URL
	return cfg
}

// login is one whose ID token has a nonce and an auth_time.
func (p *grantOP) login() *Login {
	return &Login{
		Issuer: p.URL, Subject: ada, payload: []byte(members{"nonce": "n-1", "auth_time": 1_700_000_000}.text()),
		Token: &oauth2.Token{AccessToken: "access-0", RefreshToken: "refresh-0", Expiry: clock.Here().Now()},
	}
}

func (p *grantOP) begin(t *testing.T) *Grants {
	t.Helper()
	g, err := NewGrants(p.config())
	require.NoError(t, err)
	require.NoError(t, g.Save(t.Context(), p.login()))
	return g
}

// TestGrantOverHTTP refreshes at a provider, by each way of authenticating.
func TestGrantOverHTTP(t *testing.T) {
	for _, row := range []struct {
		name    string
		methods []string
		basic   bool
	}{
		{"nothing said", nil, true},
		{"both", []string{"client_secret_post", "client_secret_basic"}, true},
		{"post", []string{"client_secret_post"}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newGrantOP(t)
			p.basic = row.basic
			if row.methods != nil {
				p.metadata = members{"token_endpoint_auth_methods_supported": row.methods}
			}
			g := p.begin(t)
			require.Equal(t, "access-1", accessOf(t, g))
			require.Equal(t, "access-1", accessOf(t, g))
			asked, _ := p.chain.count()
			require.Equal(t, 1, asked, "one request, whatever the way")
		})
	}
}

// TestGrantClientKey: a key signs in the place of a secret.
func TestGrantClientKey(t *testing.T) {
	p := newGrantOP(t)
	key, err := keys.GenerateKey(keys.ES256)
	require.NoError(t, err)
	p.answer = func(w http.ResponseWriter, r *http.Request) {
		_, _, basic := r.BasicAuth()
		if basic || r.PostFormValue("client_secret") != "" || r.PostFormValue("client_id") != "app" || r.PostFormValue("client_assertion") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"a"}`)
	}
	cfg := p.config()
	cfg.ClientSecret, cfg.ClientKey = "", key
	g, err := NewGrants(cfg)
	require.NoError(t, err)
	require.NoError(t, g.Save(t.Context(), p.login()))
	require.Equal(t, "a", accessOf(t, g))
}

// TestGrantRefreshedIDToken: what a refreshed ID token may and may not say
// (OpenID Connect Core 1.0 section 12.2).
func TestGrantRefreshedIDToken(t *testing.T) {
	for _, row := range []struct {
		name   string
		claims members
		over   bool
	}{
		{"no nonce and no auth_time", members{}, false},
		{"those of the login", members{"nonce": "n-1", "auth_time": 1_700_000_000}, false},
		{"another nonce", members{"nonce": "n-2"}, true},
		{"another auth_time", members{"auth_time": 1_700_000_001}, true},
		{"another subject", members{"sub": "eve@op"}, true},
		{"another issuer", members{"iss": "https://other.example"}, true},
		{"another client", members{"aud": "other"}, true},
		{"of another access token", members{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, true},
		{"expired", members{"exp": 1_700_000_000}, true},
		{"a logout token", members{"events": members{logoutEvent: members{}}}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newGrantOP(t)
			p.claims = row.claims
			_, err := p.begin(t).Token(t.Context(), ada)
			if row.over {
				require.ErrorIs(t, err, ErrNoGrant)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// TestGrantRevokeOverHTTP: the provider is told if it has an endpoint, and its
// failure is an error that keeps nothing.
func TestGrantRevokeOverHTTP(t *testing.T) {
	for _, row := range []struct {
		name     string
		endpoint bool
		status   int
	}{{"no endpoint", false, 200}, {"an endpoint", true, 200}, {"one that fails", true, 503}} {
		t.Run(row.name, func(t *testing.T) {
			p := newGrantOP(t)
			p.revokes = row.status
			if row.endpoint {
				p.metadata = members{"revocation_endpoint": p.URL + "/revoke"}
			}
			g := p.begin(t)
			err := g.Revoke(t.Context(), ada)
			require.Equal(t, row.status != 200, err != nil, "%v", err)
			if row.endpoint {
				require.Equal(t, []string{"refresh-0"}, p.chain.revoked)
			}
			_, err = g.Token(t.Context(), ada)
			require.ErrorIs(t, err, ErrNoGrant)
		})
	}
}

// TestParseRefresh: which answers mean that the token was not used.
func TestParseRefresh(t *testing.T) {
	const ok, notUsed, over, unknown = "ok", "not used", "over", "unknown"
	for _, row := range []struct {
		status int
		body   string
		want   string
	}{
		{200, `{"access_token":"a","token_type":"Bearer","expires_in":60,"refresh_token":"r"}`, ok},
		{200, `{"access_token":"a"}`, ok},
		{200, `{"access_token":"a","expires_in":"60","scope":"x","more":{"x":[1]}}`, ok},
		{200, `{}`, unknown},
		{200, ``, unknown},
		{200, `<html>`, unknown},
		{200, `{"access_token":"a","access_token":"b"}`, unknown},
		{200, `{"access_token":1}`, unknown},
		{200, `{"access_token":"a\u0000"}`, unknown},
		{200, `{"access_token":"` + strings.Repeat("a", maxAccess+1) + `"}`, unknown},
		{200, `{"access_token":"a","refresh_token":"` + strings.Repeat("a", maxRefresh+1) + `"}`, unknown},
		{200, `{"access_token":"a","x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `}`, unknown},
		{200, `{"error":"invalid_grant"}`, unknown},
		{302, ``, unknown},
		{400, `{"error":"invalid_grant"}`, over},
		{401, `{"error":"invalid_grant","error_description":"x"}`, over},
		{400, `{"error":"invalid_request"}`, notUsed},
		{401, `{"error":"invalid_client"}`, notUsed},
		{400, `{"error":"interaction_required"}`, notUsed},
		{400, `{"error":"temporarily_unavailable"}`, notUsed},
		{500, `{"error":"temporarily_unavailable"}`, notUsed},
		{400, ``, unknown},
		{403, `<html>`, unknown},
		{408, ``, unknown},
		{429, ``, notUsed},
		{503, `<html>`, notUsed},
		{500, `{"error":"server_error"}`, unknown},
		{500, `{"error":"invalid_grant"}`, unknown},
		{502, ``, unknown},
		{504, ``, unknown},
	} {
		t.Run(fmt.Sprint(row.status, " ", row.body[:min(len(row.body), 60)]), func(t *testing.T) {
			a, err := parseRefresh(row.status, []byte(row.body))
			got := unknown
			switch {
			case err == nil:
				got = ok
				require.NotEmpty(t, a.access)
				require.NotEmpty(t, a.kind)
			case errors.Is(err, errNotUsed):
				got = notUsed
			case errors.Is(err, errInvalidGrant):
				got = over
			}
			require.Equal(t, row.want, got, "%v", err)
			if err != nil {
				require.NotContains(t, err.Error(), "interaction")
			}
		})
	}
}

func FuzzParseRefresh(f *testing.F) {
	f.Add(200, []byte(`{"access_token":"a","token_type":"Bearer","expires_in":60,"refresh_token":"r","id_token":"x"}`))
	f.Add(400, []byte(`{"error":"invalid_grant"}`))
	f.Add(503, []byte(`{"error":"temporarily_unavailable"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a, err := parseRefresh(status, body)
		if (a == nil) == (err == nil) {
			t.Fatal("an answer and an error, or neither")
		}
		if err == nil && (status != 200 || a.access == "" || len(a.access) > maxAccess || len(a.refresh) > maxRefresh || a.lasts < 0) {
			t.Fatalf("it is accepted: %d %q", status, body)
		}
	})
}

// TestGrantNetwork: without a connection the token was not used. Once there was
// one, it may have been, whatever the error.
func TestGrantNetwork(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			go func() { // it reads the request, and closes
				_, _ = c.Read(make([]byte, 4<<10))
				_ = c.Close()
			}()
		}
	}()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	for _, row := range []struct {
		name, url string
		over      bool
	}{
		{"nothing listens", "http://" + closed.Addr().String(), false},
		{"no such host", "http://nowhere.localhost.:1", false},
		{"a certificate that is not trusted", secure.URL, false},
		{"it closes during the TLS handshake", "https://" + silent.Addr().String(), false},
		{"it closes after the request", "http://" + silent.Addr().String(), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newGrantOP(t)
			p.metadata = members{"token_endpoint": row.url}
			_, err := p.begin(t).Token(t.Context(), ada)
			require.Error(t, err)
			require.Equal(t, row.over, errors.Is(err, ErrNoGrant), "%v", err)
			require.NotContains(t, err.Error(), "refresh-0")
		})
	}
	t.Run("a transport that tells of no connection", func(t *testing.T) {
		for _, row := range []struct {
			err  error
			over bool
		}{{&net.OpError{Op: "dial", Err: errors.New("refused")}, false}, {io.EOF, true}} {
			p := newGrantOP(t)
			cfg := p.config()
			cfg.Client = &http.Client{Transport: failing{row.err}}
			g, err := NewGrants(cfg)
			require.NoError(t, err)
			require.NoError(t, g.Save(t.Context(), p.login()))
			_, err = g.Token(t.Context(), ada)
			require.Error(t, err)
			require.Equal(t, row.over, errors.Is(err, ErrNoGrant), "%v", err)
		}
	})
	t.Run("no metadata", func(t *testing.T) {
		p := newGrantOP(t)
		g := p.begin(t)
		p.Close()
		_, err := g.Token(t.Context(), ada)
		require.ErrorIs(t, err, errUnavailable)
	})
}

// TestGrantOwnConnection: no refresh uses a connection again, on which it would
// not be known whether the provider closed it before or after the request.
func TestGrantOwnConnection(t *testing.T) {
	p := newGrantOP(t)
	var mu sync.Mutex
	seen := map[string]int{}
	p.answer = func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.RemoteAddr]++
		_, _ = io.WriteString(w, `{"access_token":"a","expires_in":0}`)
	}
	g := p.begin(t)
	e, ok := g.endpoint.(*endpoint)
	require.True(t, ok)
	for range 5 {
		_, err := e.refresh(t.Context(), "refresh-0")
		require.NoError(t, err)
	}
	require.Len(t, seen, 5)
	require.False(t, http.DefaultTransport.(*http.Transport).DisableKeepAlives, "the program's own transport is left as it is")
}

// failing is a transport that fails at each POST.
type failing struct{ err error }

func (f failing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		return nil, f.err
	}
	return http.DefaultTransport.RoundTrip(r)
}
