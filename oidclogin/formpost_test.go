package oidclogin_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/oidclogin"
)

var inputs = regexp.MustCompile(`<input (?:type="hidden" )?name="([a-z]+)" value="([^"]*)">`)

// fields returns the fields of the form on a page.
func (p *page) fields() url.Values {
	v := url.Values{}
	for _, m := range inputs.FindAllStringSubmatch(p.body, -1) {
		v.Add(m[1], strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&").Replace(m[2]))
	}
	return v
}

func formPost(c *oidclogin.Config[user]) { c.FormPost = true }

func TestFormPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), formPost)
		b := s.browser(t)
		p := b.follow(b.request(http.MethodGet, siteURL+"/oidc/login?return=/private", "", nil), "")
		require.Equal(t, "form_post", s.op.asked.Get("response_mode"))
		answer := p.fields()

		// The provider's page posts from another site, without cookies.
		p = b.request(http.MethodPost, siteURL+"/oidc/callback", opURL, answer)
		require.Equal(t, 200, p.StatusCode, p.body)
		require.Equal(t, "no-store", p.Header.Get("Cache-Control"))
		require.Empty(t, p.Cookies())
		again := p.fields()
		require.Equal(t, "1", again.Get("reposted"))
		require.Equal(t, answer.Get("code"), again.Get("code"))
		require.Contains(t, p.body, `<form method="post" action="/oidc/callback">`)
		require.Contains(t, p.body, "<noscript><button>")
		script := regexp.MustCompile(`(?s)<script>(.*)</script>`).FindStringSubmatch(p.body)
		sum := sha256.Sum256([]byte(script[1]))
		policy := p.Header.Get("Content-Security-Policy")
		require.Contains(t, policy, "script-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';")
		require.Contains(t, policy, "default-src 'none'")
		require.Contains(t, policy, "form-action 'self' https://op.example;")
		require.NotContains(t, policy, "unsafe")

		p = b.request(http.MethodPost, siteURL+"/oidc/callback", siteURL, again)
		require.Equal(t, 303, p.StatusCode, p.body)
		require.Equal(t, siteURL+"/private", p.to())
		s.signedIn(t, b)
		require.Equal(t, []string{"__Host-session"}, b.cookies())
		require.Empty(t, s.log.String())
	})
}

// The page posts once: without its cookie the second POST is refused, and makes
// no page again. Hostile answers make no page either, and nothing in one is
// taken for HTML.
func TestHostileFormPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), formPost)
		b := s.browser(t)
		begin := func() url.Values {
			return b.follow(b.request(http.MethodGet, siteURL+"/oidc/login?return=/private", "", nil), "").fields()
		}
		post := func(from string, v url.Values, change ...func(*http.Request)) *page {
			return b.request(http.MethodPost, siteURL+"/oidc/callback", from, v, change...)
		}
		answer := begin()

		marked := url.Values{"reposted": {"1"}}
		for name, v := range answer {
			marked[name] = v
		}
		require.Equal(t, 400, post(opURL, marked).StatusCode)
		s.loggedOnce(t, b, "no cookie of this login")

		// A sibling of the site has the user's cookies with it.
		p := post(siteURL, marked, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") })
		require.Equal(t, 403, p.StatusCode)
		s.signedOut(t, b)

		answer = begin()
		hostile := url.Values{"state": answer["state"], "code": {`"><script>alert(1)</script>`}, "x": {"<b>"}}
		p = post(opURL, hostile)
		require.Equal(t, 200, p.StatusCode)
		require.NotContains(t, p.body, "<script>alert")
		require.NotContains(t, p.body, "<b>")
		require.Equal(t, hostile.Get("code"), p.fields().Get("code"))

		s.log = s.newLog()
		for name, tt := range map[string]struct {
			values url.Values
			change func(*http.Request)
		}{
			"no state":   {url.Values{"code": {"x"}}, nil},
			"doubled":    {url.Values{"state": append(answer["state"], answer["state"]...)}, nil},
			"9 KiB":      {url.Values{"state": answer["state"], "x": {strings.Repeat("x", 9<<10)}}, nil},
			"other type": {answer, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }},
			"in the URL": {url.Values{}, func(r *http.Request) { r.URL.RawQuery = answer.Encode() }},
		} {
			change := tt.change
			if change == nil {
				change = func(*http.Request) {}
			}
			p := post(opURL, tt.values, change)
			require.Equal(t, 400, p.StatusCode, name)
			require.NotContains(t, p.body, "<form", name)
		}
		// A GET with the answer in the URL is none.
		p = b.request(http.MethodGet, siteURL+"/oidc/callback?"+answer.Encode(), opURL, nil)
		require.Equal(t, 405, p.StatusCode)
		s.signedOut(t, b)
		s.loggedNoSecret(t, b)
	})
}

// A login that starts again after a POST goes to the provider, which the page's
// policy permits.
func TestFormPostStartsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t), formPost)
		b := s.browser(t)
		once := true
		s.op.onToken = func() {
			if once {
				once = false
				time.Sleep(time.Millisecond)
				require.NoError(t, s.authority.Revocations().RevokeSubject(t.Context(), "user-subject-1"))
			}
		}
		p := b.follow(b.request(http.MethodGet, siteURL+"/oidc/login?return=/private", "", nil), "")
		for range 2 {
			p = b.request(http.MethodPost, siteURL+"/oidc/callback", opURL, p.fields())
			p = b.request(http.MethodPost, siteURL+"/oidc/callback", siteURL, p.fields())
			p = b.follow(p, siteURL+"/private")
		}
		require.Equal(t, siteURL+"/private", p.to(), s.log.String())
		s.signedIn(t, b)
	})
}
