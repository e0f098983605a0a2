package oidclogin_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

func TestSignOut(t *testing.T) {
	for name, hinted := range map[string]bool{"without a hint": false, "with a hint": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) { c.IDTokenHint, c.AfterSignOut = hinted, "/goodbye?x" })
				b := s.browser(t)
				b.open(siteURL + "/oidc/login?return=/private")
				_, value := b.cookie("__Host-session")
				p := b.request(http.MethodPost, siteURL+"/oidc/sign-out", siteURL, nil)
				require.Equal(t, 303, p.StatusCode)
				require.Equal(t, "no-store", p.Header.Get("Cache-Control"))
				p = b.follow(p, "")
				require.Equal(t, siteURL+"/goodbye?x", p.url.String())
				require.Len(t, s.op.logouts, 1)
				q := s.op.logouts[0]
				require.Equal(t, clientID, q.Get("client_id"))
				require.Equal(t, siteURL+"/oidc/signed-out", q.Get("post_logout_redirect_uri"))
				tokens := s.op.secrets()
				require.Equal(t, hinted, q.Has("id_token_hint"))
				if hinted {
					require.Equal(t, tokens[len(tokens)-1], q.Get("id_token_hint"))
				}
				require.Empty(t, b.cookies())
				b.setCookie("__Host-session", value) // a copy
				s.signedOut(t, b)
				require.Empty(t, s.log.String())
				require.EqualValues(t, 1, s.login.Metrics()["oidclogin_sign_outs_total"])
			})
		})
	}
}

// The state of a sign-out is bound to the browser.
func TestHostileReturnFromSignOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		begin := func(b *browser) string {
			b.open(siteURL + "/oidc/login")
			p := b.follow(b.request(http.MethodPost, siteURL+"/oidc/sign-out", siteURL, nil), siteURL+"/oidc/signed-out")
			return p.to()
		}
		b, other := s.browser(t), s.browser(t)
		to, its := begin(b), begin(other)
		state := to[strings.Index(to, "=")+1:]
		for name, bad := range map[string]string{
			"missing": siteURL + "/oidc/signed-out", "altered": siteURL + "/oidc/signed-out?state=" + altered(state), "of another browser": its,
			"of a login": siteURL + "/oidc/signed-out?state=x", "long": siteURL + "/oidc/signed-out?state=" + strings.Repeat("x", 9<<10),
		} {
			p := b.request(http.MethodGet, bad, opURL, nil)
			require.Equal(t, 400, p.StatusCode, name)
			require.Empty(t, p.to())
		}
		s.loggedOnce(t, b, "return from a sign-out")
		require.Equal(t, siteURL+"/", b.request(http.MethodGet, to, opURL, nil).to())
		require.Equal(t, 400, b.request(http.MethodGet, to, opURL, nil).StatusCode, "once")

		// The cookie of a login is none of a sign-out.
		a := s.begun(t, b)
		_, value := a.loginCookie()
		name, _ := other.cookie("__Host-oidc-")
		b.setCookie(name, value)
		require.Equal(t, 400, b.request(http.MethodGet, its, opURL, nil).StatusCode)
	})
}

// A sign-out of another site is refused, and nothing is revoked.
func TestCrossSiteSignOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		b.open(siteURL + "/oidc/login")
		p := b.request(http.MethodPost, siteURL+"/oidc/sign-out", "https://evil.example", nil)
		require.Equal(t, 403, p.StatusCode)
		require.Empty(t, s.op.logouts)
		s.signedIn(t, b)
	})
}

// The user is signed out here even if the provider is down, or has no address
// for it.
func TestSignOutWithoutTheProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		op := newOP(t)
		op.metadata = func(m map[string]any) { delete(m, "end_session_endpoint") }
		s := newSite(t, op, func(c *oidclogin.Config[user]) { c.AfterSignOut = "/bye" })
		b := s.browser(t)
		b.open(siteURL + "/oidc/login")
		p := b.open2(http.MethodPost, siteURL+"/oidc/sign-out")
		require.Equal(t, siteURL+"/bye", p.url.String())
		s.loggedOnce(t, b, "end_session_endpoint")
		s.signedOut(t, b)

		s = newSite(t, newOP(t))
		s.op.setDown("*", true)
		b = s.browser(t)
		token, _, err := s.authority.Issuer().Issue(t.Context(), "user-1", user{})
		require.NoError(t, err)
		b.setCookie("__Host-session", token)
		s.signedIn(t, b)
		require.Equal(t, siteURL+"/", b.open2(http.MethodPost, siteURL+"/oidc/sign-out").url.String())
		b.setCookie("__Host-session", token)
		s.signedOut(t, b)
	})
}

// An ID token that does not fit into a cookie is left out.
func TestHintSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) { c.IDTokenHint = true })
		size := 1500
		s.op.claims = func(c map[string]any) { c["x"] = strings.Repeat("x", size) }
		b := s.browser(t)
		b.open(siteURL + "/oidc/login")
		_, value := b.cookie("__Host-oidc-")
		require.NotEmpty(t, value)
		require.LessOrEqual(t, len(value), 4000)
		size = 3000
		require.Equal(t, 200, b.open(siteURL+"/oidc/login?return=/private").StatusCode)
		require.Equal(t, []string{"__Host-session"}, b.cookies())
		s.loggedOnce(t, b, "IDTokenHint")
		b.request(http.MethodPost, siteURL+"/oidc/sign-out", siteURL, nil)
	})
}

// TestRefreshPath: with a refresh cookie, the sign-out has to stand below its path:
// the browser sends it there alone, also when the session cookie is gone.
func TestRefreshPath(t *testing.T) {
	site, err := authority.New(authority.Config[user]{
		Issuer: siteURL, Audience: []string{"site"}, Store: authority.Memory(),
		Load: func(context.Context, *sessiontoken.Claims[user]) (user, error) { return user{}, nil },
		HTTP: sessionhttp.Config[user]{RefreshPath: "/session"},
	})
	require.NoError(t, err)
	for path, right := range map[string]bool{
		"/callback": false, "/oidc/callback": false, "/sessions/callback": false, "/session/callback": true, "/session/oidc/callback": true,
	} {
		_, err := oidclogin.New(oidclogin.Config[user]{
			Sessions: site.Sessions(), Revocations: site.Revocations(), Secrets: [][]byte{make([]byte, 32)},
			Issuer: opURL, ClientID: "site", ClientSecret: "secret", RedirectURL: siteURL + path,
			User: func(context.Context, *oidclogin.Login) (string, user, error) { return "ada", user{}, nil },
		})
		if right {
			require.NoError(t, err, path)
		} else {
			require.ErrorContains(t, err, "Config.RedirectURL must be below", path)
		}
	}
}
