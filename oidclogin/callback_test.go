package oidclogin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/oidclogin"
)

// attempt is a login whose answer is about to come to the callback.
type attempt struct {
	*site
	b   *browser
	tab *page    // whose redirect leads to the callback
	u   *url.URL // of the callback
	q   url.Values
	raw string // replaces q
}

// begun returns a login whose answer is on its way.
func (s *site) begun(t *testing.T, b *browser) *attempt {
	t.Helper()
	tab := b.follow(b.request(http.MethodGet, siteURL+"/oidc/login?return=/private", "", nil), siteURL+"/oidc/callback")
	u, err := url.Parse(tab.to())
	require.NoError(t, err)
	return &attempt{site: s, b: b, tab: tab, u: u, q: u.Query()}
}

// bring brings the answer to the callback.
func (a *attempt) bring(t *testing.T, b *browser) *page {
	t.Helper()
	u := *a.u
	if u.RawQuery = a.q.Encode(); a.raw != "" {
		u.RawQuery = a.raw
	}
	return b.request(http.MethodGet, u.String(), opURL, nil)
}

// loginCookie returns the login cookie of the attempt.
func (a *attempt) loginCookie() (name, value string) {
	u, _ := url.Parse(siteURL)
	for _, c := range a.b.jar.Cookies(u) {
		if strings.HasSuffix(c.Name, a.u.Query().Get("state")) {
			return c.Name, c.Value
		}
	}
	return "", ""
}

// withClaims changes the ID tokens of the provider.
func (a *attempt) withClaims(f func(map[string]any)) { a.op.claims = f }

// altered returns s with another last character.
func altered(s string) string {
	if strings.HasSuffix(s, "A") {
		return s[:len(s)-1] + "Q"
	}
	return s[:len(s)-1] + "A"
}

func TestHostileAnswers(t *testing.T) {
	const (
		form, state, cookie, sealed = "parameters are too long", "state is missing", "no cookie of this login", "cookie of the login was changed"
		iss, code, nonce            = "of another provider", "did not accept the code", "the nonce is not"
	)
	same := func(a *attempt) *browser { return a.b }
	for _, tt := range []struct {
		name string
		// change changes the attempt, and returns the browser that brings it.
		change func(t *testing.T, a *attempt) *browser
		reason string
		status int
	}{
		{"state missing", func(t *testing.T, a *attempt) *browser { a.q.Del("state"); return a.b }, state, 400},
		{"state empty", func(t *testing.T, a *attempt) *browser { a.q.Set("state", ""); return a.b }, state, 400},
		{"state altered", func(t *testing.T, a *attempt) *browser { a.q.Set("state", altered(a.q.Get("state"))); return a.b }, cookie, 400},
		{"state in another case", func(t *testing.T, a *attempt) *browser {
			a.q.Set("state", strings.ToLower(a.q.Get("state")))
			return a.b
		}, state, 400},
		{"state of another form", func(t *testing.T, a *attempt) *browser { a.q.Set("state", a.q.Get("state")+"x"); return a.b }, state, 400},
		{"state doubled", func(t *testing.T, a *attempt) *browser { a.q.Add("state", a.q.Get("state")); return a.b }, form, 400},
		{"state of another tab", func(t *testing.T, a *attempt) *browser {
			a.q.Set("state", a.site.begun(t, a.b).q.Get("state"))
			return a.b
		}, code, 400},
		{"state of another browser", func(t *testing.T, a *attempt) *browser {
			a.q.Set("state", a.site.begun(t, a.site.browser(t)).q.Get("state"))
			return a.b
		}, cookie, 400},
		{"brought by another browser", func(t *testing.T, a *attempt) *browser { return a.site.browser(t) }, cookie, 400},
		{"brought by another browser that has a login", func(t *testing.T, a *attempt) *browser {
			other := a.site.browser(t)
			a.site.begun(t, other)
			return other
		}, cookie, 400},
		{"replayed", func(t *testing.T, a *attempt) *browser {
			require.Equal(t, 303, a.bring(t, a.b).StatusCode)
			a.b.request(http.MethodPost, siteURL+"/sign-out", siteURL, nil)
			return a.b
		}, cookie, 400},
		{"replayed with the cookie", func(t *testing.T, a *attempt) *browser {
			name, value := a.loginCookie()
			require.Equal(t, 303, a.bring(t, a.b).StatusCode)
			a.b.request(http.MethodPost, siteURL+"/sign-out", siteURL, nil)
			a.b.setCookie(name, value)
			return a.b
		}, code, 400},
		{"expired", func(t *testing.T, a *attempt) *browser { time.Sleep(10*time.Minute + time.Second); return a.b }, cookie, 400},
		{"expired, with the cookie", func(t *testing.T, a *attempt) *browser {
			name, value := a.loginCookie()
			time.Sleep(10*time.Minute + time.Second)
			a.b.setCookie(name, value)
			return a.b
		}, "over 10 minutes", 400},

		{"cookie missing", func(t *testing.T, a *attempt) *browser {
			name, _ := a.loginCookie()
			a.b.jar.SetCookies(a.u, []*http.Cookie{{Name: name, Path: "/", Secure: true, MaxAge: -1}})
			return a.b
		}, cookie, 400},
		{"cookie altered", func(t *testing.T, a *attempt) *browser {
			name, value := a.loginCookie()
			a.b.setCookie(name, value[:40]+altered(value[:41])[40:]+value[41:])
			return a.b
		}, sealed, 400},
		{"cookie cut", func(t *testing.T, a *attempt) *browser {
			name, value := a.loginCookie()
			a.b.setCookie(name, value[:20])
			return a.b
		}, sealed, 400},
		{"cookie empty", func(t *testing.T, a *attempt) *browser {
			name, _ := a.loginCookie()
			a.b.setCookie(name, "")
			return a.b
		}, sealed, 400},
		{"cookie that is no base64url", func(t *testing.T, a *attempt) *browser {
			name, value := a.loginCookie()
			a.b.setCookie(name, value+"=")
			return a.b
		}, sealed, 400},
		{"cookie of another tab", func(t *testing.T, a *attempt) *browser {
			name, _ := a.loginCookie()
			_, value := a.site.begun(t, a.b).loginCookie()
			a.b.setCookie(name, value)
			return a.b
		}, sealed, 400},
		{"cookie of another browser", func(t *testing.T, a *attempt) *browser {
			name, _ := a.loginCookie()
			_, value := a.site.begun(t, a.site.browser(t)).loginCookie()
			a.b.setCookie(name, value)
			return a.b
		}, sealed, 400},
		{"cookie doubled", func(t *testing.T, a *attempt) *browser {
			name, value := a.loginCookie()
			a.b.jar.SetCookies(a.u, []*http.Cookie{{Name: name, Value: value, Path: "/oidc/callback", Secure: true}})
			return a.b
		}, cookie, 400},
		{"session token as the cookie", func(t *testing.T, a *attempt) *browser {
			token, _, err := a.site.authority.Issuer().Issue(t.Context(), "user-subject-1", user{})
			require.NoError(t, err)
			name, _ := a.loginCookie()
			a.b.setCookie(name, token)
			return a.b
		}, sealed, 400},

		{"nonce missing", func(t *testing.T, a *attempt) *browser {
			a.withClaims(func(c map[string]any) { delete(c, "nonce") })
			return a.b
		}, nonce, 400},
		{"nonce altered", func(t *testing.T, a *attempt) *browser {
			a.withClaims(func(c map[string]any) { c["nonce"] = altered(c["nonce"].(string)) })
			return a.b
		}, nonce, 400},
		{"nonce of another tab", func(t *testing.T, a *attempt) *browser {
			a.site.begun(t, a.b)
			other := a.op.asked.Get("nonce")
			a.withClaims(func(c map[string]any) { c["nonce"] = other })
			return a.b
		}, nonce, 400},
		{"ID token of another login, replayed", func(t *testing.T, a *attempt) *browser {
			require.Equal(t, 303, a.bring(t, a.b).StatusCode)
			a.b.request(http.MethodPost, siteURL+"/sign-out", siteURL, nil)
			tokens := a.op.secrets()
			first := tokens[len(tokens)-1]
			*a = *a.site.begun(t, a.b)
			a.op.answer = func(w http.ResponseWriter) {
				writeJSON(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": first})
			}
			return a.b
		}, nonce, 400},

		{"iss missing", func(t *testing.T, a *attempt) *browser { a.q.Del("iss"); return a.b }, iss, 400},
		{"iss empty", func(t *testing.T, a *attempt) *browser { a.q.Set("iss", ""); return a.b }, iss, 400},
		{"iss of another provider", func(t *testing.T, a *attempt) *browser { a.q.Set("iss", "https://evil.example"); return a.b }, iss, 400},
		{"iss in another spelling", func(t *testing.T, a *attempt) *browser { a.q.Set("iss", opURL+"/"); return a.b }, iss, 400},
		{"iss doubled", func(t *testing.T, a *attempt) *browser { a.q.Add("iss", opURL); return a.b }, form, 400},
		{"iss of the ID token", func(t *testing.T, a *attempt) *browser {
			a.withClaims(func(c map[string]any) { c["iss"] = "https://evil.example" })
			return a.b
		}, "login: ", 400},

		{"PKCE challenge missing", func(t *testing.T, a *attempt) *browser { a.grant(func(g *grant) { g.challenge = "" }); return a.b }, code, 400},
		{"PKCE challenge altered", func(t *testing.T, a *attempt) *browser {
			a.grant(func(g *grant) { g.challenge = altered(g.challenge) })
			return a.b
		}, code, 400},
		{"code injected from another browser", func(t *testing.T, a *attempt) *browser {
			a.q.Set("code", a.site.begun(t, a.site.browser(t)).q.Get("code"))
			return a.b
		}, code, 400},
		{"redirect URI of another client", func(t *testing.T, a *attempt) *browser {
			a.grant(func(g *grant) { g.redirectURI = "https://other.example/oidc/callback" })
			return a.b
		}, code, 400},

		{"code missing", func(t *testing.T, a *attempt) *browser { a.q.Del("code"); return a.b }, "no code", 400},
		{"code altered", func(t *testing.T, a *attempt) *browser { a.q.Set("code", altered(a.q.Get("code"))); return a.b }, code, 400},
		{"code too old", func(t *testing.T, a *attempt) *browser { time.Sleep(2 * time.Minute); return a.b }, code, 400},
		{"code doubled", func(t *testing.T, a *attempt) *browser { a.q.Add("code", "x"); return a.b }, form, 400},
		{"code of 5 KiB", func(t *testing.T, a *attempt) *browser { a.q.Set("code", strings.Repeat("x", 5<<10)); return a.b }, form, 400},
		{"code beside an error", func(t *testing.T, a *attempt) *browser { a.q.Set("error", "access_denied"); return a.b }, form, 400},
		{"query of 9 KiB", func(t *testing.T, a *attempt) *browser { a.q.Set("x", strings.Repeat("x", 9<<10)); return a.b }, form, 400},
		{"30 parameters", func(t *testing.T, a *attempt) *browser {
			for i := range 30 {
				a.q.Set("p"+string(rune('a'+i)), "1")
			}
			return a.b
		}, form, 400},
		{"query that is none", func(t *testing.T, a *attempt) *browser { a.raw = a.q.Encode() + ";x=1"; return a.b }, form, 400},
		{"no query", func(t *testing.T, a *attempt) *browser { a.q = url.Values{}; return a.b }, state, 400},

		{"no ID token", func(t *testing.T, a *attempt) *browser {
			a.op.answer = func(w http.ResponseWriter) { writeJSON(w, map[string]any{"access_token": "x", "token_type": "Bearer"}) }
			return a.b
		}, "no ID token", 400},
		{"ID token that is an object", func(t *testing.T, a *attempt) *browser {
			a.op.answer = func(w http.ResponseWriter) {
				writeJSON(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": map[string]any{}})
			}
			return a.b
		}, "no ID token", 400},
		{"ID token of another key", func(t *testing.T, a *attempt) *browser {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			a.op.forger = key
			return a.b
		}, "login: ", 400},
		{"access token of another login", func(t *testing.T, a *attempt) *browser {
			a.withClaims(func(c map[string]any) { c["at_hash"] = altered(c["at_hash"].(string)) })
			return a.b
		}, "at_hash", 400},
		{"another client's ID token", func(t *testing.T, a *attempt) *browser {
			a.withClaims(func(c map[string]any) { c["aud"] = "another-client" })
			return a.b
		}, "login: ", 400},

		{"error of the provider", func(t *testing.T, a *attempt) *browser {
			a.q.Del("code")
			a.q.Set("error", "invalid_scope")
			return same(a)
		}, "ended the login with an error", 400},
		{"failure of the provider", func(t *testing.T, a *attempt) *browser {
			a.q.Del("code")
			a.q.Set("error", "server_error")
			return a.b
		}, "an error of its own", 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				s.mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
					require.NoError(t, s.authority.Sessions().SignOut(w, r))
				})
				b := s.browser(t)
				a := s.begun(t, b)
				brings := tt.change(t, a)
				require.Empty(t, s.log.String())
				name, _ := a.loginCookie()
				p := a.bring(t, brings)
				require.Equal(t, tt.status, p.StatusCode, p.body)
				require.Equal(t, "no-store", p.Header.Get("Cache-Control"))
				s.signedOut(t, brings)
				s.loggedOnce(t, brings, tt.reason)
				for _, secret := range append(s.op.secrets(), a.q.Get("state")) {
					if secret != "" {
						require.NotContains(t, p.body, secret)
					}
				}
				// What was consulted for this state is used up.
				if used := a.q.Get("state") != "" && tt.reason != form && tt.reason != cookie && tt.reason != state; used && brings == b && a.raw == "" {
					for _, c := range p.Cookies() {
						require.Negative(t, c.MaxAge)
					}
					require.NotEmpty(t, p.Cookies(), name)
				}
				// The next login succeeds.
				s.op.claims, s.op.answer, s.op.forger = nil, nil, nil
				time.Sleep(6 * time.Second)
				require.Equal(t, 200, s.browser(t).open(siteURL+"/oidc/login?return=/private").StatusCode)
			})
		})
	}
}

// grant changes what the code of the attempt stands for.
func (a *attempt) grant(f func(*grant)) {
	a.op.mu.Lock()
	defer a.op.mu.Unlock()
	g := a.op.codes[a.q.Get("code")]
	f(&g)
	a.op.codes[a.q.Get("code")] = g
}

// A user who declines is no attack: nothing is logged.
func TestDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		s.op.failure = "access_denied"
		b := s.browser(t)
		p := b.open(siteURL + "/oidc/login?return=/private%3Fa=%22b")
		require.Equal(t, http.StatusForbidden, p.StatusCode)
		require.Contains(t, p.body, `<a href="/oidc/login?return=%2F`)
		require.Empty(t, s.log.String())
		require.Empty(t, b.cookies())
		require.EqualValues(t, 1, s.login.Metrics()["oidclogin_denied_total"])
	})
}

// A provider without RFC 9207 sends no iss, and needs none. One that it sends is
// compared.
func TestIssuerOfTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		op := newOP(t)
		op.metadata = func(m map[string]any) { delete(m, "authorization_response_iss_parameter_supported") }
		s := newSite(t, op)
		op.iss = "-"
		require.Equal(t, 200, s.browser(t).open(siteURL+"/oidc/login?return=/private").StatusCode)
		op.iss = "https://evil.example"
		b := s.browser(t)
		require.Equal(t, 400, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
		s.loggedOnce(t, b, "another provider")
	})
}

func TestConfigUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var find func(context.Context, *oidclogin.Login) (string, user, error)
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) {
			c.User = func(ctx context.Context, l *oidclogin.Login) (string, user, error) { return find(ctx, l) }
		})
		b := s.browser(t)
		find = func(context.Context, *oidclogin.Login) (string, user, error) { return "", user{}, oidclogin.ErrNoUser }
		require.Equal(t, 403, b.open(siteURL+"/oidc/login").StatusCode)
		s.signedOut(t, b)
		s.loggedOnce(t, b, "Config.User refused")

		find = func(context.Context, *oidclogin.Login) (string, user, error) {
			return "", user{}, errors.New("the database is down")
		}
		p := b.open(siteURL + "/oidc/login")
		require.Equal(t, 503, p.StatusCode)
		require.Equal(t, "1", p.Header.Get("Retry-After"))
		s.signedOut(t, b)
		s.loggedOnce(t, b, "the database is down")

		find = func(ctx context.Context, _ *oidclogin.Login) (string, user, error) {
			<-ctx.Done() // it ends
			return "", user{}, ctx.Err()
		}
		began := time.Now()
		require.Equal(t, 503, b.open(siteURL+"/oidc/login").StatusCode)
		require.Less(t, time.Since(began), 6*time.Second)

		// The subject is what User returns, and the groups of the login stay.
		group := sessiontoken.GroupOf("team", siteURL, "red")
		find = func(_ context.Context, l *oidclogin.Login) (string, user, error) {
			l.Start.Subject, l.Start.Groups, l.Start.Earliest = "another", []sessiontoken.Group{group}, time.Time{}
			return "user-7", user{"x"}, nil
		}
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
		page := s.signedIn(t, b)
		require.True(t, strings.HasPrefix(page, "user-7 x "), page)
		require.Equal(t, 3, strings.Count(page[len("user-7 x "):], "."), page)
		require.Contains(t, page, string(group))

		// No user without a name.
		find = func(context.Context, *oidclogin.Login) (string, user, error) { return "", user{}, nil }
		require.Equal(t, 500, s.browser(t).open(siteURL+"/oidc/login").StatusCode)
	})
}

// The provider is down at some step: 503, and the next try works.
func TestProviderDown(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		atLogin    bool
	}{
		{"at the start", "/.well-known/openid-configuration", true},
		{"at the token endpoint", "/token", false},
		{"at the keys", "/jwks", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				b := s.browser(t)
				s.op.setDown(tt.path, true)
				p := b.open(siteURL + "/oidc/login?return=/private")
				require.Equal(t, 503, p.StatusCode, p.body)
				require.Equal(t, "1", p.Header.Get("Retry-After"))
				require.Contains(t, p.body, `href="/oidc/login?return=%2Fprivate"`)
				require.Equal(t, tt.atLogin, p.url.Path == "/oidc/login")
				s.signedOut(t, b)
				s.loggedOnce(t, b, "WARN")
				require.Empty(t, b.cookies())
				s.op.setDown(tt.path, false)
				time.Sleep(time.Second)
				require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
				s.signedIn(t, b)
				require.Empty(t, s.log.String())
			})
		})
	}
}

// A provider that is down when the browser comes back to a replica that has not
// read its metadata: the login is not used up, and a reload ends it.
func TestProviderDownAtTheCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		op := newOP(t)
		var cfg oidclogin.Config[user]
		s := newSite(t, op, func(c *oidclogin.Config[user]) { cfg = *c })
		b := s.browser(t)
		a := s.begun(t, b)
		replica, err := oidclogin.New(cfg)
		require.NoError(t, err)
		b.hosts = map[string]http.Handler{"site.example": replica, "op.example": op}
		op.setDown("*", true)
		p := a.bring(t, b)
		require.Equal(t, 503, p.StatusCode)
		require.Equal(t, "1", p.Header.Get("Retry-After"))
		require.Len(t, b.cookies(), 1)
		op.setDown("*", false)
		time.Sleep(time.Second)
		p = a.bring(t, b)
		require.Equal(t, 303, p.StatusCode, p.body)
		require.Equal(t, []string{"__Host-session"}, b.cookies())
	})
}

// An answer of the token endpoint that is none: bounded, 503, and not logged.
func TestHostileTokenEndpoint(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"not JSON": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>token-in-the-page") },
		"empty":    func(http.ResponseWriter) {},
		"300 KB": func(w http.ResponseWriter) {
			writeJSON(w, map[string]any{"access_token": strings.Repeat("x", 300<<10)})
		},
		"no access":  func(w http.ResponseWriter) { writeJSON(w, map[string]any{"id_token": "token-in-the-page"}) },
		"redirect":   func(w http.ResponseWriter) { w.Header().Set("Location", "https://evil.example"); w.WriteHeader(307) },
		"status 500": func(w http.ResponseWriter) { http.Error(w, "token-in-the-page", 500) },
		"other error": func(w http.ResponseWriter) {
			w.WriteHeader(400)
			writeJSON(w, map[string]any{"error": "token-in-the-page"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				s.op.answer = answer
				b := s.browser(t)
				p := b.open(siteURL + "/oidc/login?return=/private")
				require.Equal(t, 503, p.StatusCode)
				require.NotContains(t, s.log.String()+p.body, "token-in-the-page")
				s.loggedOnce(t, b, "token endpoint")
				s.signedOut(t, b)
			})
		})
	}
}

// The provider's clock is behind, as Entra's iat is, or ahead: the session
// lives, also through revocations that came before it.
func TestProvidersClock(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"5 min behind": -5*time.Minute + time.Second, "30 s ahead": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				s.op.ahead = ahead
				require.NoError(t, s.authority.Revocations().RevokeSubject(t.Context(), "user-subject-1"))
				time.Sleep(time.Second)
				b := s.browser(t)
				require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode, s.log.String())
				s.signedIn(t, b)
				l := s.logins[0]
				require.False(t, l.Start.AuthTime.After(time.Now()))
				time.Sleep(time.Minute)
				s.signedIn(t, b)
			})
		})
	}
}

// After a sign-out everywhere, single sign-on brings a session at once, and it
// lives.
func TestSignOutEverywhereAndSingleSignOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		s.mux.HandleFunc("POST /everywhere", func(w http.ResponseWriter, r *http.Request) {
			require.NoError(t, s.authority.Sessions().SignOutEverywhere(w, r))
		})
		b, other := s.browser(t), s.browser(t)
		b.open(siteURL + "/oidc/login")
		other.open(siteURL + "/oidc/login")
		s.signedIn(t, other)
		require.Equal(t, 200, b.request(http.MethodPost, siteURL+"/everywhere", siteURL, nil).StatusCode)
		s.signedOut(t, b)
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode, s.log.String())
		s.signedIn(t, b)
		s.signedOut(t, other)
		require.Equal(t, s.logins[0].Start.Groups, s.logins[len(s.logins)-1].Start.Groups, "the provider's session is the same")
		time.Sleep(time.Minute)
		s.signedIn(t, b)
	})
}

// A sign-out while the code is on its way: the code brings no session. The login
// starts again, once.
func TestLogoutWhileTheCodeIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		times := 1
		s.op.onToken = func() {
			if times > 0 {
				times--
				time.Sleep(10 * time.Millisecond)
				require.NoError(t, s.authority.Revocations().RevokeSubject(t.Context(), "user-subject-1"))
				s.op.mu.Lock()
				s.op.session = "" // as a provider that signs the user out does
				s.op.mu.Unlock()
			}
		}
		p := b.open(siteURL + "/oidc/login?return=/private%3Fx")
		require.Equal(t, 200, p.StatusCode, s.log.String())
		require.Equal(t, siteURL+"/private?x", p.url.String())
		require.Equal(t, 2, s.op.count("/token"))
		require.Equal(t, 2, s.op.count("/authorize"))
		require.NotEqual(t, s.logins[0].Start.Groups, s.logins[1].Start.Groups)
		require.Equal(t, []string{"__Host-session"}, b.cookies())
		require.EqualValues(t, 1, s.login.Metrics()["oidclogin_again_total"])
		require.Empty(t, s.log.String())

		// Not for ever.
		times = 100
		b = s.browser(t)
		p = b.open(siteURL + "/oidc/login?return=/private")
		require.Equal(t, 403, p.StatusCode)
		require.Equal(t, 4, s.op.count("/token"))
		s.signedOut(t, b)
		s.loggedOnce(t, b, "sign-out of the user came twice")
	})
}

// The same with the provider's own logout, which revokes the group of its
// session.
func TestBackChannelLogoutWhileTheCodeIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		once := true
		s.op.onToken = func() {
			if !once {
				return
			}
			once = false
			time.Sleep(10 * time.Millisecond)
			require.Equal(t, 200, s.logout(t, map[string]any{"sid": s.op.session}))
			s.op.mu.Lock()
			s.op.session = ""
			s.op.mu.Unlock()
		}
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode, s.log.String())
		require.Equal(t, 2, s.op.count("/token"))
		s.signedIn(t, b)

		// And after it: the session ends.
		require.Equal(t, 200, s.logout(t, map[string]any{"sid": s.op.session}))
		s.signedOut(t, b)
	})
}

// logout sends a logout token and returns the status.
func (s *site) logout(t *testing.T, more map[string]any) int {
	t.Helper()
	return s.logoutAs(t, s.op.keyID, s.op.key, more)
}

// logoutAs is logout with another key.
func (s *site) logoutAs(t *testing.T, keyID string, key *ecdsa.PrivateKey, more map[string]any) int {
	t.Helper()
	claims := map[string]any{
		"iss": opURL, "aud": clientID, "iat": s.op.now().Unix(), "exp": s.op.now().Add(2 * time.Minute).Unix(), "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	for name, v := range more {
		claims[name] = v
	}
	token := signAs(t, "logout+jwt", keyID, key, claims)
	op := newBrowser(t, s.hosts)
	return op.request(http.MethodPost, siteURL+"/oidc/backchannel-logout", opURL, url.Values{"logout_token": {token}}).StatusCode
}
