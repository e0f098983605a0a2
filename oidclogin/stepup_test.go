package oidclogin_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/oidclogin"
)

// A page without a session sends the browser to the provider and back.
func TestUnauthorized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		p := b.open(siteURL + "/private?a=b&c=%20")
		require.Equal(t, 200, p.StatusCode, s.log.String())
		require.Equal(t, siteURL+"/private?a=b&c=%20", p.url.String())
		require.Contains(t, p.body, "user-subject-1")

		// What is no page that a browser opens gets the 401 as it is.
		for name, change := range map[string]func(*http.Request){
			"script":          func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", "cors"); r.Header.Set("Sec-Fetch-Dest", "empty") },
			"frame":           func(r *http.Request) { r.Header.Set("Sec-Fetch-Dest", "iframe") },
			"image":           func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", "no-cors") },
			"API client":      func(r *http.Request) { r.Header.Del("Sec-Fetch-Mode"); r.Header.Set("Accept", "application/json") },
			"nothing":         func(r *http.Request) { r.Header = http.Header{} },
			"Bearer":          func(r *http.Request) { r.Header.Set("Authorization", "Bearer x.y.z") },
			"HEAD":            func(r *http.Request) { r.Method = "HEAD" },
			"script, and old": func(r *http.Request) { r.Header.Del("Sec-Fetch-Mode"); r.Header.Set("Accept", "*/*") },
		} {
			p := s.browser(t).request(http.MethodGet, siteURL+"/private", siteURL, nil, change)
			require.Equal(t, 401, p.StatusCode, name)
			require.NotEmpty(t, p.Header.Get("WWW-Authenticate"), name)
			require.Empty(t, p.Cookies(), name)
			require.Empty(t, p.to(), name)
		}
		// An old browser is sent to the provider, too.
		p = s.browser(t).request(http.MethodGet, siteURL+"/private", "", nil, func(r *http.Request) {
			r.Header.Del("Sec-Fetch-Mode")
			r.Header.Del("Sec-Fetch-Dest")
		})
		require.Equal(t, 303, p.StatusCode)
		require.Empty(t, p.Header.Get("WWW-Authenticate"))

		// The provider is down: 503.
		op := newOP(t)
		op.setDown("*", true)
		s = newSite(t, op)
		p = s.browser(t).open(siteURL + "/private")
		require.Equal(t, 503, p.StatusCode)
		require.Equal(t, "1", p.Header.Get("Retry-After"))
	})
}

// A page that needs a recent proof: the provider is asked for it with max_age,
// the browser comes back to the page, and the new session replaces the old one.
func TestStepUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		before := strings.Fields(b.open(siteURL + "/private").body)[2]
		old := s.browser(t) // has the old session
		name, value := b.cookie("__Host-session")
		old.setCookie(name, value)
		time.Sleep(2 * time.Minute)
		p := b.open(siteURL + "/pay?x=1")
		require.Equal(t, 200, p.StatusCode, s.log.String())
		require.Equal(t, siteURL+"/pay?x=1", p.url.String())
		require.Equal(t, "60", s.op.asked.Get("max_age"))
		after := strings.Fields(p.body)[2]
		require.NotEqual(t, before, after)
		s.signedOut(t, old)
		require.Equal(t, 200, b.open(siteURL+"/pay").StatusCode)
		require.Equal(t, 2, s.op.count("/authorize"))
	})
}

// A provider that does not do what was asked: a page, and no loop.
func TestStepUpThatIsNotReached(t *testing.T) {
	for name, tt := range map[string]struct {
		op     func(*fakeOP)
		reason string
	}{
		"max_age ignored":    {func(p *fakeOP) { p.ignores = true }, "auth_time"},
		"no auth_time":       {func(p *fakeOP) { p.claims = func(c map[string]any) { delete(c, "auth_time") } }, "auth_time"},
		"clock 4 min behind": {func(p *fakeOP) { p.ahead = -4 * time.Minute }, "as recently as a handler needs"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newOP(t))
				b := s.browser(t)
				b.open(siteURL + "/private")
				time.Sleep(20 * time.Minute)
				tt.op(s.op)
				p := b.open(siteURL + "/pay")
				require.Equal(t, 403, p.StatusCode, p.url)
				require.Contains(t, p.body, "Sign in again")
				s.loggedOnce(t, b, tt.reason)
				require.Equal(t, 2, s.op.count("/authorize"))
				s.signedIn(t, b) // the old session is as it was
			})
		})
	}
}

func TestStepUpWithACR(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		s.mux.HandleFunc("GET /vault", func(w http.ResponseWriter, r *http.Request) {
			c, err := s.authority.Sessions().Check(w, r)
			switch {
			case err != nil:
				s.authority.Sessions().Refuse(w, r, err)
			case c.ACR() != "gold":
				s.login.StepUp(w, r, oidclogin.Ask{ACRValues: []string{"gold"}, LoginHint: "ada"})
			default:
				_, _ = w.Write([]byte("the gold"))
			}
		})
		b := s.browser(t)
		b.open(siteURL + "/private")
		s.op.acr = "gold"
		p := b.open(siteURL + "/vault?x")
		require.Equal(t, 200, p.StatusCode, s.log.String())
		require.Equal(t, "the gold", p.body)
		require.Equal(t, siteURL+"/vault?x", p.url.String())
		require.Equal(t, []string{"gold", "ada"}, []string{s.op.asked.Get("acr_values"), s.op.asked.Get("login_hint")})

		for _, acr := range []string{"silver", ""} {
			b = s.browser(t)
			s.op.acr = acr
			b.open(siteURL + "/private")
			p = b.open(siteURL + "/vault")
			require.Equal(t, 403, p.StatusCode)
			s.loggedOnce(t, b, "acr")
			s.signedIn(t, b)
			time.Sleep(time.Minute)
		}
		// The middleware asks the same.
		s.mux.Handle("GET /gold", s.authority.Sessions().RequireACR([]string{"gold", "platinum"}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("more gold"))
		})))
		s.op.acr = "platinum"
		require.Equal(t, "more gold", b.open(siteURL+"/gold?y").body, s.log.String())
		require.Equal(t, "gold platinum", s.op.asked.Get("acr_values"))
		s.op.acr = "silver"
		b = s.browser(t)
		b.open(siteURL + "/private")
		require.Equal(t, 403, b.open(siteURL+"/gold").StatusCode)
		s.loggedOnce(t, b, "acr")

		// An Ask that cannot be asked is a 401.
		s.mux.HandleFunc("GET /wrong", func(w http.ResponseWriter, r *http.Request) {
			s.login.StepUp(w, r, oidclogin.Ask{ACRValues: []string{"a b"}})
		})
		require.Equal(t, 401, b.open(siteURL+"/wrong").StatusCode)
	})
}

// The header of RFC 9470 that a middleware sets is asked of the provider.
func TestChallenges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		var challenge []string
		s.mux.HandleFunc("GET /asks", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Www-Authenticate"] = challenge
			s.login.Unauthorized(w, r)
		})
		for _, tt := range []struct {
			challenge   string
			maxAge, acr string
		}{
			{`Bearer error="insufficient_user_authentication", error_description="sign in again", max_age=60`, "60", ""},
			{`Bearer error="insufficient_user_authentication", max_age="60"`, "60", ""},
			{`Bearer error="insufficient_user_authentication", acr_values="gold urn:x:y"`, "", "gold urn:x:y"},
			{`Bearer error="insufficient_user_authentication",max_age=5,acr_values="gold"`, "5", "gold"},
			{`Bearer error="insufficient_user_authentication", max_age=0`, "1", ""},
			{`Bearer error="insufficient_user_authentication", max_age=-1`, "", ""},
			{`Bearer error="insufficient_user_authentication", max_age=x`, "", ""},
			{`Bearer error="insufficient_user_authentication", acr_values="gold`, "", ""},
			{`Bearer error="invalid_token", max_age=60`, "", ""},
			{`Bearer`, "", ""}, {`Basic error="insufficient_user_authentication", max_age=60`, "", ""}, {``, "", ""}, {`Bearer =,=,"`, "", ""},
		} {
			challenge = []string{tt.challenge}
			p := s.browser(t).request(http.MethodGet, siteURL+"/asks", "", nil)
			require.Equal(t, 303, p.StatusCode, tt.challenge)
			u, err := url.Parse(p.to())
			require.NoError(t, err)
			require.Equal(t, tt.maxAge, u.Query().Get("max_age"), tt.challenge)
			require.Equal(t, tt.acr, u.Query().Get("acr_values"), tt.challenge)
		}
	})
}

// A page that refuses every session: the browser is sent to the provider once in
// 10 s.
func TestNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		never := func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			s.login.Unauthorized(w, r)
		}
		s.mux.HandleFunc("GET /never", never)
		s.mux.HandleFunc("GET /never2", never)
		b := s.browser(t)
		p := b.open(siteURL + "/never")
		require.Equal(t, 401, p.StatusCode)
		require.Contains(t, p.body, "Sign in again")
		require.Equal(t, 1, s.op.count("/authorize"))
		require.Equal(t, 401, b.open(siteURL+"/never").StatusCode)
		require.Equal(t, 1, s.op.count("/authorize"))
		b.open(siteURL + "/never2") // another page
		require.Equal(t, 2, s.op.count("/authorize"))
		time.Sleep(11 * time.Second)
		b.open(siteURL + "/never")
		require.Equal(t, 3, s.op.count("/authorize"))
		b.request(http.MethodPost, siteURL+"/oidc/sign-out", siteURL, nil) // the user begins anew
		b.open(siteURL + "/never")
		require.Equal(t, 4, s.op.count("/authorize"))
	})
}

// After a sign-out here alone, single sign-on brings the user back without a
// question, and a page that needs a recent proof goes by the provider's
// auth_time.
func TestLocalSignOutAndSingleSignOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		s.mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
			require.NoError(t, s.authority.Sessions().SignOut(w, r))
		})
		b := s.browser(t)
		b.open(siteURL + "/private")
		proved := s.op.authTime
		time.Sleep(2 * time.Minute)
		b.request(http.MethodPost, siteURL+"/sign-out", siteURL, nil)
		s.signedOut(t, b)
		require.Empty(t, s.op.logouts)
		require.Equal(t, 200, b.open(siteURL+"/private").StatusCode)
		require.Equal(t, proved, s.op.authTime, "the provider asked nothing")
		require.Equal(t, proved.Unix(), s.logins[1].Start.AuthTime.Unix())
		p := b.request(http.MethodGet, siteURL+"/pay", siteURL, nil)
		require.Contains(t, p.to(), "max_age=60")
		require.Equal(t, 200, b.follow(p, "").StatusCode)
		require.NotEqual(t, proved, s.op.authTime)
	})
}
