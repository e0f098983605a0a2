package oidclogin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

func TestNewNamesTheField(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var good oidclogin.Config[user]
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) { good = *c })
		other := newSite(t, newOP(t))
		key, err := keys.GenerateKey(keys.ES256)
		require.NoError(t, err)
		verifying, err := sessionhttp.New(sessionhttp.Config[user]{Verifier: s.authority.Verifier()})
		require.NoError(t, err)
		type config = oidclogin.Config[user]
		for name, tt := range map[string]struct {
			field  string
			change func(*config)
		}{
			"no sessions":             {"Sessions", func(c *config) { c.Sessions = nil }},
			"sessions that verify":    {"Sessions", func(c *config) { c.Sessions = verifying }},
			"zero sessions":           {"Sessions", func(c *config) { c.Sessions = new(sessionhttp.Sessions[user]) }},
			"no list":                 {"Revocations", func(c *config) { c.Revocations = nil }},
			"zero list":               {"Revocations", func(c *config) { c.Revocations = new(revoke.List) }},
			"another list":            {"Revocations", func(c *config) { c.Revocations = other.authority.Revocations() }},
			"no secrets":              {"Secrets", func(c *config) { c.Secrets = nil }},
			"short secret":            {"Secrets[1]", func(c *config) { c.Secrets = append(c.Secrets[:1:1], make([]byte, 31)) }},
			"a secret twice":          {"Secrets[1]", func(c *config) { c.Secrets = append(c.Secrets[:1:1], c.Secrets[0]) }},
			"no issuer":               {"Issuer", func(c *config) { c.Issuer = "" }},
			"http issuer":             {"Issuer", func(c *config) { c.Issuer = "http://op.example" }},
			"issuer with a query":     {"Issuer", func(c *config) { c.Issuer = opURL + "?a=b" }},
			"issuer with a password":  {"Issuer", func(c *config) { c.Issuer = "https://u:swordfish@op.example" }},
			"issuer without a host":   {"Issuer", func(c *config) { c.Issuer = "https:///x" }},
			"issuer with a fragment":  {"Issuer", func(c *config) { c.Issuer = opURL + "#" }},
			"no client id":            {"ClientID", func(c *config) { c.ClientID = "" }},
			"no client secret":        {"ClientSecret", func(c *config) { c.ClientSecret = "" }},
			"secret and key":          {"ClientKey", func(c *config) { c.ClientKey = key }},
			"zero key":                {"ClientKey", func(c *config) { c.ClientSecret, c.ClientKey = "", new(keys.SigningKey) }},
			"audience without a key":  {"InsecureTokenEndpointAudience", func(c *config) { c.InsecureTokenEndpointAudience = true }},
			"no redirect":             {"RedirectURL", func(c *config) { c.RedirectURL = "" }},
			"http redirect":           {"RedirectURL", func(c *config) { c.RedirectURL = "http://site.example/oidc/callback" }},
			"redirect of another end": {"RedirectURL", func(c *config) { c.RedirectURL = siteURL + "/oidc/back" }},
			"redirect without a path": {"RedirectURL", func(c *config) { c.RedirectURL = siteURL }},
			"redirect with //":        {"RedirectURL", func(c *config) { c.RedirectURL = siteURL + "//callback" }},
			"redirect with escapes":   {"RedirectURL", func(c *config) { c.RedirectURL = siteURL + "/a%2Fb/callback" }},
			"relative redirect":       {"RedirectURL", func(c *config) { c.RedirectURL = "/oidc/callback" }},
			"empty scope":             {"Scopes", func(c *config) { c.Scopes = []string{""} }},
			"scopes in one":           {"Scopes", func(c *config) { c.Scopes = []string{"email profile"} }},
			"max age of 1 ms":         {"Ask.MaxAge", func(c *config) { c.Ask.MaxAge = time.Millisecond }},
			"max age without a unit":  {"Ask.MaxAge", func(c *config) { c.Ask.MaxAge = 3600 }},
			"negative max age":        {"Ask.MaxAge", func(c *config) { c.Ask.MaxAge = -time.Second }},
			"acr with a space":        {"Ask.ACRValues", func(c *config) { c.Ask.ACRValues = []string{"a b"} }},
			"empty acr":               {"Ask.ACRValues", func(c *config) { c.Ask.ACRValues = []string{""} }},
			"prompt of two lines":     {"Ask", func(c *config) { c.Ask.Prompt = "a\nb" }},
			"hint of 2 KB":            {"Ask", func(c *config) { c.Ask.LoginHint = strings.Repeat("x", 2000) }},
			"no user":                 {"User", func(c *config) { c.User = nil }},
			"sign-out elsewhere":      {"AfterSignOut", func(c *config) { c.AfterSignOut = "https://evil.example" }},
			"sign-out to //":          {"AfterSignOut", func(c *config) { c.AfterSignOut = "//evil.example" }},
			"http discovery":          {"InsecureDiscoveryURL", func(c *config) { c.InsecureDiscoveryURL = "http://op.example/x" }},
		} {
			c := good
			tt.change(&c)
			_, err := oidclogin.New(c)
			require.ErrorContains(t, err, "Config."+tt.field, name)
			for _, held := range []string{secret, "0123456789abcdef", "swordfish"} {
				require.NotContains(t, err.Error(), held, name)
			}
		}
		for name, change := range map[string]func(*config){
			"loopback": func(c *config) {
				c.Issuer, c.RedirectURL = "http://127.0.0.1:9000", "http://localhost:8080/callback"
			},
			"slash at the end": func(c *config) { c.Issuer = opURL + "/" },
			"key":              func(c *config) { c.ClientSecret, c.ClientKey = "", key },
			"no client":        func(c *config) { c.Client, c.Logger = nil, nil },
		} {
			c := good
			change(&c)
			_, err := oidclogin.New(c)
			require.NoError(t, err, name)
		}
		require.Zero(t, s.op.count("/.well-known/openid-configuration"), "New does no I/O")
	})
}

// What the caller changes after New has no effect.
func TestNewCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cfg oidclogin.Config[user]
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) {
			c.Scopes = []string{"email"}
			cfg = *c
		})
		cfg.Scopes[0] = "admin"
		clear(cfg.Secrets[0])
		cfg.Client.Transport = nil
		require.Equal(t, 200, s.browser(t).open(siteURL+"/oidc/login?return=/private").StatusCode)
		require.Equal(t, "openid email", s.op.asked.Get("scope"))
	})
}

func TestHostileMetadata(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"another issuer":           func(m map[string]any) { m["issuer"] = "https://evil.example" },
		"issuer in other case":     func(m map[string]any) { m["issuer"] = "https://OP.example" },
		"issuer with a slash":      func(m map[string]any) { m["issuer"] = opURL + "/" },
		"no issuer":                func(m map[string]any) { delete(m, "issuer") },
		"name in other case":       func(m map[string]any) { m["Issuer"] = m["issuer"]; delete(m, "issuer") },
		"no authorization":         func(m map[string]any) { delete(m, "authorization_endpoint") },
		"http authorization":       func(m map[string]any) { m["authorization_endpoint"] = "http://op.example/authorize" },
		"http loopback token":      func(m map[string]any) { m["token_endpoint"] = "http://127.0.0.1/token" },
		"javascript authorization": func(m map[string]any) { m["authorization_endpoint"] = "javascript:alert(1)" },
		"relative keys":            func(m map[string]any) { m["jwks_uri"] = "/jwks" },
		"keys of no type":          func(m map[string]any) { m["jwks_uri"] = 7 },
		"token with a user":        func(m map[string]any) { m["token_endpoint"] = "https://u:p@op.example/token" },
		"http end of session":      func(m map[string]any) { m["end_session_endpoint"] = "http://op.example/end" },
		"deep":                     func(m map[string]any) { m["x"] = deep(20) },
		"1 MB":                     func(m map[string]any) { m["x"] = strings.Repeat("x", 1<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				s.op.metadata = change
				b := s.browser(t)
				p := b.open(siteURL + "/oidc/login")
				require.Equal(t, 503, p.StatusCode)
				require.Equal(t, "1", p.Header.Get("Retry-After"))
				require.Empty(t, b.cookies())
				if name == "1 MB" {
					require.Contains(t, s.log.String(), "over 262144 bytes")
				}
				s.loggedOnce(t, b, "Config.Issuer")
				require.NotContains(t, p.body, "evil")
				s.op.metadata = nil
				time.Sleep(time.Second)
				require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
			})
		})
	}
}

func deep(n int) any {
	if n == 0 {
		return 1
	}
	return []any{deep(n - 1)}
}

// A document or a key set that does not come: nothing waits for longer than 5 s,
// a redirect is not followed, and many requests make one fetch.
func TestHostileServer(t *testing.T) {
	for name, f := range map[string]roundTripper{
		"hangs": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"ignores its context": func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Minute)
			return nil, io.ErrUnexpectedEOF
		},
		"fails with a document": func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			w.WriteHeader(http.StatusBadGateway)
			newOP(t).serveMetadata(w, r)
			return w.Result(), nil
		},
		"redirects": func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != "op.example" {
				panic("followed")
			}
			h := http.Header{"Location": {"https://evil.example/x"}}
			return &http.Response{StatusCode: 302, Header: h, Body: http.NoBody, Request: r}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var fetches atomic.Int32
				s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) {
					c.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						fetches.Add(1)
						return f(r)
					})}
				})
				b := s.browser(t)
				began := time.Now()
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						require.Equal(t, 503, s.browser(t).request(http.MethodGet, siteURL+"/oidc/login", "", nil).StatusCode)
					})
				}
				wg.Wait()
				require.LessOrEqual(t, time.Since(began), 5*time.Second+100*time.Millisecond)
				require.EqualValues(t, 1, fetches.Load())
				time.Sleep(time.Second)
				s.loggedOnce(t, b, "metadata")
				time.Sleep(2 * time.Minute)
			})
		})
	}
}

// Metadata is fetched again after an hour. While that fails it is used for a day.
func TestStaleMetadata(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		login := func() int {
			p := s.browser(t).request(http.MethodGet, siteURL+"/oidc/login", "", nil)
			synctest.Wait()
			return p.StatusCode
		}
		const path = "/.well-known/openid-configuration"
		for range 10 {
			require.Equal(t, 303, login())
		}
		require.Equal(t, 1, s.op.count(path))
		time.Sleep(59 * time.Minute)
		require.Equal(t, 303, login())
		require.Equal(t, 1, s.op.count(path))
		time.Sleep(2 * time.Minute)
		require.Equal(t, 303, login())
		require.Equal(t, 2, s.op.count(path))
		s.op.setDown(path, true)
		for range 22 {
			time.Sleep(time.Hour)
			require.Equal(t, 303, login())
		}
		require.GreaterOrEqual(t, s.op.count(path), 2+21)
		time.Sleep(2 * time.Hour)
		require.Equal(t, 503, login())
		s.op.setDown(path, false)
		time.Sleep(time.Second)
		require.Equal(t, 303, login())
	})
}

// Keys that were rotated between login and callback are fetched.
func TestRotationBetweenLoginAndCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		require.Equal(t, 200, s.browser(t).open(siteURL+"/oidc/login?return=/private").StatusCode)
		require.Equal(t, 1, s.op.count("/jwks"))
		b := s.browser(t)
		a := s.begun(t, b)
		time.Sleep(5 * time.Second)
		s.op.rotate()
		require.Equal(t, 303, a.bring(t, b).StatusCode, s.log.String())
		require.Equal(t, 2, s.op.count("/jwks"))

		// At once after a fetch it is not known whether the key is new: 503.
		s.op.rotate()
		b = s.browser(t)
		p := b.open(siteURL + "/oidc/login?return=/private")
		require.Equal(t, 503, p.StatusCode)
		s.loggedOnce(t, b, "key_unknown")
		time.Sleep(5 * time.Second)
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)

		// The keys cannot be had while they rotate: 503, and the next try works.
		s.op.rotate()
		time.Sleep(5 * time.Second)
		s.op.setDown("/jwks", true)
		require.Equal(t, 503, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
		s.loggedOnce(t, b, "keys cannot be fetched")
		s.op.setDown("/jwks", false)
		time.Sleep(5 * time.Second)
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
	})
}

// Made-up key ids cause one fetch in 5 s, and known keys go on.
func TestMadeUpKeyIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		require.Equal(t, 200, s.browser(t).open(siteURL+"/oidc/login?return=/private").StatusCode)
		require.Equal(t, 1, s.op.count("/jwks"))
		time.Sleep(10 * time.Second)
		refused := map[int]int{}
		for range 50 {
			refused[s.logoutAs(t, rand.Text(), s.op.key, map[string]any{"sid": "x"})]++
		}
		require.Equal(t, map[int]int{400: 1, 503: 49}, refused)
		require.Equal(t, 2, s.op.count("/jwks"))
		require.Equal(t, 200, s.logout(t, map[string]any{"sid": "x"}))
		require.Equal(t, 2, s.op.count("/jwks"))
	})
}

// While the keys cannot be fetched, tokens do not cause a fetch each.
func TestKeysThatCannotBeFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		s.op.setDown("/jwks", true)
		for range 20 {
			require.Equal(t, 503, s.logout(t, map[string]any{"sid": "x"}))
		}
		require.Equal(t, 1, s.op.count("/jwks"))
		s.op.setDown("/jwks", false)
		time.Sleep(time.Second)
		require.Equal(t, 200, s.logout(t, map[string]any{"sid": "x"}))
	})
}

// A key that the provider has dropped is used for 10 min at most.
func TestDroppedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		require.Equal(t, 200, s.logout(t, map[string]any{"sid": "x"}))
		id, key := s.op.keyID, s.op.key
		s.op.rotate()
		time.Sleep(9 * time.Minute)
		require.Equal(t, 200, s.logoutAs(t, id, key, map[string]any{"sid": "x"}))
		time.Sleep(61 * time.Second)
		require.Equal(t, 400, s.logoutAs(t, id, key, map[string]any{"sid": "x"}))
		require.Equal(t, 200, s.logout(t, map[string]any{"sid": "x"}))
	})
}

// A key set is read key by key: what cannot be used is left out, and does not
// keep the others from being used.
func TestHostileKeySets(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		status int
		set    func(good jose.JSONWebKey) any
	}{
		"as it is":              {200, func(k jose.JSONWebKey) any { return []any{k} }},
		"without an alg":        {200, func(k jose.JSONWebKey) any { k.Algorithm = ""; return []any{k} }},
		"without a use":         {200, func(k jose.JSONWebKey) any { k.Use = ""; return []any{k} }},
		"beside unknown ones":   {200, func(k jose.JSONWebKey) any { return []any{map[string]any{"kty": "new"}, 7, "x", nil, k} }},
		"beside another of kid": {200, func(k jose.JSONWebKey) any { o := k; o.Key = p256.Public(); return []any{o, k} }},
		"none":                  {503, func(jose.JSONWebKey) any { return []any{} }},
		"no list":               {503, func(jose.JSONWebKey) any { return "x" }},
		"for encryption":        {503, func(k jose.JSONWebKey) any { k.Use = "enc"; return []any{k} }},
		"of another alg":        {400, func(k jose.JSONWebKey) any { k.Algorithm = "RS256"; return []any{k} }},
		"small RSA":             {503, func(k jose.JSONWebKey) any { k.Key, k.Algorithm = small.Public(), "RS256"; return []any{k} }},
		"secret": {503, func(k jose.JSONWebKey) any {
			k.Key, k.Algorithm = []byte("0123456789abcdef0123456789abcdef"), "HS256"
			return []any{k}
		}},
		"private":  {503, func(k jose.JSONWebKey) any { k.Key = p256; return []any{k} }},
		"101 keys": {503, func(k jose.JSONWebKey) any { return slices.Repeat([]any{k}, 101) }},
		"100 keys": {200, func(k jose.JSONWebKey) any { return slices.Repeat([]any{k}, 100) }},
		"deep":     {503, func(k jose.JSONWebKey) any { return []any{k, deep(20)} }},
		"1 MB":     {503, func(k jose.JSONWebKey) any { return []any{k, strings.Repeat("x", 1<<20)} }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				s.op.set = tt.set
				b := s.browser(t)
				p := b.open(siteURL + "/oidc/login?return=/private")
				require.Equal(t, tt.status, p.StatusCode, s.log.String())
				if tt.status != 200 {
					s.signedOut(t, b)
					s.loggedOnce(t, b, "WARN")
				}
			})
		})
	}
}

// The discovery document may be elsewhere. Its issuer is compared all the same.
func TestDiscoveryURL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		op := newOP(t)
		op.mux.HandleFunc("GET /policy/.well-known/openid-configuration", op.serveMetadata)
		s := newSite(t, op, func(c *oidclogin.Config[user]) {
			c.InsecureDiscoveryURL = opURL + "/policy/.well-known/openid-configuration"
		})
		require.Equal(t, 200, s.browser(t).open(siteURL+"/oidc/login?return=/private").StatusCode)
		require.Zero(t, op.count("/.well-known/openid-configuration"))
	})
}

// A secret that is replaced: cookies of the old one are opened while it is
// listed.
func TestSecretsRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		op := newOP(t)
		var cfg oidclogin.Config[user]
		s := newSite(t, op, func(c *oidclogin.Config[user]) { cfg = *c })
		next := []byte("fedcba9876543210fedcba9876543210")
		for _, tt := range []struct {
			secrets [][]byte
			status  int
		}{{[][]byte{next, cfg.Secrets[0]}, 303}, {[][]byte{next}, 400}} {
			b := s.browser(t)
			a := s.begun(t, b)
			cfg.Secrets = tt.secrets
			replica, err := oidclogin.New(cfg)
			require.NoError(t, err)
			b.hosts = map[string]http.Handler{"site.example": replica}
			require.Equal(t, tt.status, a.bring(t, b).StatusCode)
			cfg.Secrets = [][]byte{next, []byte("0123456789abcdef0123456789abcdef")}
		}
	})
}

// A token endpoint that hangs: 503 after 5 s.
func TestTokenEndpointHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) {
			next := c.Client.Transport
			c.Client = &http.Client{Timeout: time.Hour, Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.URL.Path == "/token" {
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				return next.RoundTrip(r)
			})}
		})
		b := s.browser(t)
		began := time.Now()
		require.Equal(t, 503, b.open(siteURL+"/oidc/login").StatusCode)
		require.Less(t, time.Since(began), 6*time.Second)
		s.loggedOnce(t, b, "token_endpoint")
	})
}
