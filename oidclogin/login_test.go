package oidclogin_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/oidclogin"
)

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) {
			c.Scopes = []string{"email"}
			c.Ask = oidclogin.Ask{MaxAge: time.Hour, ACRValues: []string{"gold", "silver"}, Prompt: "select_account", LoginHint: "ada"}
		})
		s.op.acr = "silver"
		b := s.browser(t)
		p := b.open(siteURL + "/oidc/login?return=/private%3Fx=1")
		require.Equal(t, http.StatusOK, p.StatusCode, p.body)
		require.Equal(t, siteURL+"/private?x=1", p.url.String())
		require.Contains(t, p.body, "user-subject-1 ada@example.com")
		require.Equal(t, []string{"__Host-session"}, b.cookies())
		require.Empty(t, s.log.String())
		require.Equal(t, 1, s.op.count("/token"))
		require.EqualValues(t, 1, s.login.Metrics()["oidclogin_sign_ins_total"])

		q := s.op.asked
		require.Equal(t, "code", q.Get("response_type"))
		require.Equal(t, "openid email", q.Get("scope"))
		require.Equal(t, siteURL+"/oidc/callback", q.Get("redirect_uri"))
		require.Equal(t, "S256", q.Get("code_challenge_method"))
		require.Equal(t, []string{"3600", "gold silver", "select_account", "ada"}, []string{q.Get("max_age"), q.Get("acr_values"), q.Get("prompt"), q.Get("login_hint")})
		require.Len(t, q.Get("code_challenge"), 43)
		require.GreaterOrEqual(t, len(q.Get("nonce")), 26)
		require.Empty(t, q.Get("response_mode"))

		// What the session knows of the login.
		require.Len(t, s.logins, 1)
		l := s.logins[0]
		require.Equal(t, opURL, l.Issuer)
		require.Equal(t, "subject-1", l.Subject)
		require.Len(t, l.Start.Groups, 2)
		require.Equal(t, "silver", l.Start.ACR)
		require.False(t, l.Start.AuthTime.IsZero())
		require.False(t, l.Start.Earliest.IsZero())
		require.NotEmpty(t, l.Token.AccessToken)
		require.Equal(t, siteURL+"/private?x=1", p.url.String())
		require.Error(t, l.Claims(new(int)))
	})
}

func TestClientAuthentication(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	es256, err := keys.NewSigningKey(keys.ES256, p256)
	require.NoError(t, err)
	rs256, err := keys.NewSigningKey(keys.RS256, rsa2048)
	require.NoError(t, err)
	for _, tt := range []struct {
		name  string
		op    func(*fakeOP)
		site  func(*oidclogin.Config[user])
		basic bool
	}{
		{"basic by default", func(p *fakeOP) {
			p.metadata = func(m map[string]any) { delete(m, "token_endpoint_auth_methods_supported") }
		}, nil, true},
		{"basic where both are known", nil, nil, true},
		{"post where basic is not known", func(p *fakeOP) {
			p.metadata = func(m map[string]any) { m["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"} }
		}, nil, false},
		{"ES256 key", func(p *fakeOP) { p.clientKey = p256.Public() }, func(c *oidclogin.Config[user]) { c.ClientSecret, c.ClientKey = "", es256 }, false},
		{"RS256 key", func(p *fakeOP) { p.clientKey = rsa2048.Public() }, func(c *oidclogin.Config[user]) { c.ClientSecret, c.ClientKey = "", rs256 }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				op := newOP(t)
				if tt.op != nil {
					tt.op(op)
				}
				basic := false
				s := newSite(t, op, func(c *oidclogin.Config[user]) {
					if tt.site != nil {
						tt.site(c)
					}
					next := c.Client.Transport
					c.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						if _, _, ok := r.BasicAuth(); ok {
							basic = true
						}
						return next.RoundTrip(r)
					})}
				})
				for range 2 { // an assertion is used once
					p := s.browser(t).open(siteURL + "/oidc/login?return=/private")
					require.Equal(t, http.StatusOK, p.StatusCode, s.log.String())
				}
				require.Equal(t, 2, op.count("/token"), "a code is sent once")
				require.Equal(t, tt.basic, basic)
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A client that the provider does not know is a mistake of the configuration,
// and told with its remedy.
func TestUnknownClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) { c.ClientSecret = "another secret" })
		b := s.browser(t)
		p := b.open(siteURL + "/oidc/login")
		require.Equal(t, http.StatusServiceUnavailable, p.StatusCode)
		s.loggedOnce(t, b, "ClientSecret")
		require.Equal(t, 1, s.op.count("/token"))
	})
}

func TestReturnPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		for given, want := range map[string]string{
			"": "/", "/": "/", "/a": "/a", "/a?b=c&d=%2F": "/a?b=c&d=%2F", "/a//b": "/a//b", "/a:b": "/a:b", "/%2F/evil.example": "/%2F/evil.example",
			"//evil.example": "/", "///evil.example": "/", `/\evil.example`: "/", `\\evil.example`: "/", `/a\b`: "/",
			"https://evil.example": "/", "https:evil.example": "/", "http:/a": "/", "javascript:alert(1)": "/", "evil.example": "/", "a": "/",
			"/\t/evil.example": "/", "/\n/evil.example": "/", " /a": "/", "/a b": "/", "\t//evil.example": "/", "/a\x00": "/", "/a\x7f": "/", "/é": "/", "/a#b": "/",
			"/%zz": "/", "/oidc/login": "/", "/oidc/login?return=/a": "/", "/oidc/sign-out": "/", "/oidc/callback?state=1": "/", "/oidc/other": "/oidc/other",
			"/" + strings.Repeat("a", 999): "/" + strings.Repeat("a", 999), "/" + strings.Repeat("a", 1000): "/",
			"/../..//evil.example": "/../..//evil.example", // stays on this site: the redirect names it
		} {
			b := s.browser(t)
			p := b.request(http.MethodGet, siteURL+"/oidc/login?return="+url.QueryEscape(given), "", nil)
			for range 2 {
				p = b.request(http.MethodGet, p.to(), opURL, nil)
			}
			require.Equal(t, http.StatusSeeOther, p.StatusCode)
			require.Equal(t, siteURL+want, p.Header.Get("Location"), "%q", given)
		}
	})
}

// The cookies of a login: for this host alone, not for scripts, and not longer
// than the login.
func TestCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) { c.IDTokenHint = true })
		b := s.browser(t)
		p := b.request(http.MethodGet, siteURL+"/oidc/login?return=/private", "", nil)
		all := p.Cookies()
		for p.to() != siteURL+"/private" {
			p = b.request(http.MethodGet, p.to(), opURL, nil)
			all = append(all, p.Cookies()...)
		}
		p = b.request(http.MethodPost, siteURL+"/oidc/sign-out", siteURL, nil)
		all = append(all, p.Cookies()...)
		kinds := map[string]int{}
		for _, c := range all {
			require.True(t, strings.HasPrefix(c.Name, "__Host-"), c.Name)
			require.True(t, c.Secure, c.Name)
			require.True(t, c.HttpOnly, c.Name)
			require.Equal(t, http.SameSiteLaxMode, c.SameSite, c.Name)
			require.Equal(t, "/", c.Path, c.Name)
			require.Empty(t, c.Domain, c.Name)
			require.LessOrEqual(t, len(c.Name)+len(c.Value), 4096)
			for _, kind := range []string{"login", "out", "hint"} {
				if strings.HasPrefix(c.Name, "__Host-oidc-") && strings.Contains(c.Name[len("__Host-oidc-"):], kind) {
					kinds[kind]++
					switch {
					case c.Value == "":
						require.Negative(t, c.MaxAge, c.Name)
					case kind == "hint":
						require.Zero(t, c.MaxAge)
					default:
						require.Equal(t, 600, c.MaxAge, c.Name)
					}
				}
			}
		}
		require.Equal(t, map[string]int{"login": 2, "out": 1, "hint": 2}, kinds)
		for _, value := range b.seen {
			require.NotContains(t, value, s.op.asked.Get("nonce"))
		}
	})
}

func TestThreeTabs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		begin := func(path string) *page {
			time.Sleep(time.Second)
			return b.follow(b.request(http.MethodGet, siteURL+"/oidc/login?return="+path, "", nil), siteURL+"/oidc/callback")
		}
		tabs := []*page{begin("/a"), begin("/b"), begin("/c")}
		require.Len(t, b.cookies(), 3)
		for _, i := range []int{1, 0, 2} {
			p := b.open(tabs[i].to())
			require.Equal(t, http.StatusOK, p.StatusCode, p.body)
			require.Equal(t, siteURL+"/"+string("abc"[i]), p.url.String())
		}
		s.signedIn(t, b)
		require.Equal(t, []string{"__Host-session"}, b.cookies())

		// A fourth login removes the oldest.
		tabs = []*page{begin("/a"), begin("/b"), begin("/c"), begin("/d")}
		require.Len(t, b.cookies(), 1+3)
		require.Equal(t, http.StatusBadRequest, b.open(tabs[0].to()).StatusCode)
		for i := 3; i > 0; i-- {
			require.Equal(t, http.StatusOK, b.open(tabs[i].to()).StatusCode)
		}
	})
}

// Two providers of one site do not share cookies or paths.
func TestTwoProviders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		other, err := oidclogin.New(oidclogin.Config[user]{
			Sessions: s.authority.Sessions(), Revocations: s.authority.Revocations(), Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")},
			Issuer: opURL, ClientID: "another-client", ClientSecret: secret, RedirectURL: siteURL + "/other/callback", Client: s.op.client(),
			User: func(_ contextT, l *oidclogin.Login) (string, user, error) { return "x", user{}, nil },
		})
		require.NoError(t, err)
		s.mux.Handle("/other/", other)
		b := s.browser(t)
		p := b.follow(b.request(http.MethodGet, siteURL+"/oidc/login?return=/a", "", nil), siteURL+"/oidc/callback")
		b.request(http.MethodGet, siteURL+"/other/login", "", nil)
		require.Len(t, b.cookies(), 2)
		// An answer to one login, brought to the other provider's callback.
		q := b.open(strings.Replace(p.to(), "/oidc/", "/other/", 1))
		require.Equal(t, http.StatusBadRequest, q.StatusCode)
		require.Equal(t, http.StatusOK, b.open(p.to()).StatusCode)
	})
}

func TestMethodsAndPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		for _, tt := range []struct {
			method, path string
			status       int
			allow        string
		}{
			{"POST", "/oidc/login", 405, "GET"}, {"POST", "/oidc/callback", 405, "GET"}, {"PUT", "/oidc/signed-out", 405, "GET"},
			{"GET", "/oidc/sign-out", 405, "POST"}, {"GET", "/oidc/backchannel-logout", 405, "POST"},
			{"GET", "/oidc/", 404, ""}, {"GET", "/oidc/login/", 404, ""}, {"GET", "/oidc/other", 404, ""},
		} {
			p := b.request(tt.method, siteURL+tt.path, siteURL, nil)
			require.Equal(t, tt.status, p.StatusCode, tt.path)
			require.Equal(t, tt.allow, p.Header.Get("Allow"), tt.path)
			require.Equal(t, "no-store", p.Header.Get("Cache-Control"), tt.path)
		}
		require.Empty(t, s.log.String())
	})
}

// Without an auth_time it is not known when the user proved who they are: the
// session has none, and is not fresh.
func TestNoAuthTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		s.op.claims = func(c map[string]any) { delete(c, "auth_time") }
		b := s.browser(t)
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
		require.True(t, s.logins[0].Start.AuthTime.IsZero())
		p := b.request(http.MethodGet, siteURL+"/pay", siteURL, nil)
		require.Equal(t, 303, p.StatusCode)
		require.Contains(t, p.to(), "max_age=60")
	})
}

// Many users sign in at once, also while keys rotate.
func TestManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				b := s.browser(t)
				require.Equal(t, 200, b.open(siteURL+"/private").StatusCode)
				require.Equal(t, 303, b.request(http.MethodPost, siteURL+"/oidc/sign-out", siteURL, nil).StatusCode)
				s.signedOut(t, b)
			})
		}
		wg.Wait()
		require.Equal(t, 1, s.op.count("/.well-known/openid-configuration"))
		require.Equal(t, 1, s.op.count("/jwks"))
		require.Equal(t, 20, s.op.count("/token"))
		require.Empty(t, s.log.String())
	})
}

// A login whose cookie no browser would keep is a mistake of the configuration,
// and told.
func TestLoginCookieSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("x", 900)
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) {
			c.Ask = oidclogin.Ask{ACRValues: []string{long}, Prompt: long, LoginHint: long}
		})
		b := s.browser(t)
		require.Equal(t, 500, b.open(siteURL+"/oidc/login?return=/"+long).StatusCode)
		require.Empty(t, b.cookies())
		s.loggedOnce(t, b, "make Ask shorter")
		require.Equal(t, 303, b.request(http.MethodGet, siteURL+"/oidc/login?return=/", "", nil).StatusCode)
	})
}
