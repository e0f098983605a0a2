package sessionhttp_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/stretchr/testify/require"
)

func TestNewNamesTheField(t *testing.T) {
	s := newSite(t)
	for i, tt := range []struct {
		field  string
		change func(*sessionhttp.Config[state])
	}{
		{"Verifier", func(c *sessionhttp.Config[state]) { c.Verifier = nil }},
		{"Load", func(c *sessionhttp.Config[state]) { c.Load = nil }},
		{"Revocations", func(c *sessionhttp.Config[state]) { c.Revocations = nil }},
		{"Refresh", func(c *sessionhttp.Config[state]) { c.Issuer = nil }},
		{"SameSite", func(c *sessionhttp.Config[state]) { c.SameSite = http.SameSiteNoneMode }},
		{"SameSite", func(c *sessionhttp.Config[state]) { c.SameSite = 99 }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath = "/" }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath = "session" }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath = "/a;b" }},
		{"RefreshPath", func(c *sessionhttp.Config[state]) { c.RefreshPath, c.Refresh = "/session/", nil }},
		{"CookieName", func(c *sessionhttp.Config[state]) { c.CookieName = "__Host-session" }},
		{"CookieName", func(c *sessionhttp.Config[state]) { c.CookieName = "__secure-session" }},
		{"CookieName", func(c *sessionhttp.Config[state]) { c.CookieName = "a b" }},
		{"CookieDomain", func(c *sessionhttp.Config[state]) { c.CookieDomain = "a b" }},
		{"TrustedOrigins", func(c *sessionhttp.Config[state]) { c.TrustedOrigins = []string{"app.example"} }},
		{"Partitioned", func(c *sessionhttp.Config[state]) { c.Partitioned = true }},
		{"Partitioned", func(c *sessionhttp.Config[state]) { c.Partitioned, c.InsecureSameSiteNone = true, true }},
		{"SameSite", func(c *sessionhttp.Config[state]) { c.Partitioned, c.SameSite = true, http.SameSiteNoneMode }},
		// What would panic at the first request.
		{"Verifier", func(c *sessionhttp.Config[state]) { c.Verifier = new(sessiontoken.Verifier[state]) }},
		{"Issuer", func(c *sessionhttp.Config[state]) { c.Issuer = new(sessiontoken.Issuer[state]) }},
		{"Revocations", func(c *sessionhttp.Config[state]) { c.Revocations = new(revoke.List) }},
		{"Refresh", func(c *sessionhttp.Config[state]) { c.Refresh = new(refresh.Manager) }},
		{"Unauthorized", func(c *sessionhttp.Config[state]) { c.Unauthorized = http.HandlerFunc(nil) }},
		{"Unauthorized", func(c *sessionhttp.Config[state]) { c.Unauthorized = (*http.ServeMux)(nil) }},
	} {
		func() {
			var good sessionhttp.Config[state]
			s.replica(func(c *sessionhttp.Config[state]) { good = *c })
			tt.change(&good)
			_, err := sessionhttp.New(good)
			require.ErrorContains(t, err, "Config."+strings.Split(tt.field, ",")[0], fmt.Sprint(i))
		}()
	}
}

// Parts that do not belong together are refused: with them a sign-out would
// revoke nothing, or every renewal fail.
func TestNewRefusesPartsThatDoNotShare(t *testing.T) {
	type built = sessionhttp.Config[state]
	s, elsewhere := newSite(t), newSite(t)
	verifier := func(c *built, change func(*sessiontoken.VerifierConfig)) {
		cfg := c.Verifier.Config()
		change(&cfg)
		v, err := sessiontoken.NewVerifier[state](cfg)
		require.NoError(t, err)
		c.Verifier = v
	}
	issuer := func(c *built, change func(*sessiontoken.IssuerConfig)) {
		cfg := c.Issuer.Config()
		change(&cfg)
		i, err := sessiontoken.NewIssuer[state](cfg)
		require.NoError(t, err)
		c.Issuer = i
	}
	manager := func(c *built, change func(*refresh.Config)) {
		cfg := refresh.Config{Store: &s.families, Secrets: [][]byte{bytes.Repeat([]byte{7}, 32)}, Revocations: c.Revocations, Logger: quiet}
		change(&cfg)
		m, err := refresh.NewManager(cfg)
		require.NoError(t, err)
		c.Refresh = m
	}
	list := func(max time.Duration) *revoke.List {
		l, err := revoke.NewList(revoke.Config{Store: &s.revoked, MaxSession: max, Logger: quiet})
		require.NoError(t, err)
		return l
	}
	for _, tt := range []struct {
		name   string
		fields []string
		change func(*built)
	}{
		{"verifier without the list", []string{"Config.Verifier", "VerifierConfig.Revocations"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Revocations = nil })
		}},
		{"verifier with another list", []string{"Config.Verifier", "VerifierConfig.Revocations"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Revocations = list(0) })
		}},
		{"issuer without the list", []string{"Config.Issuer", "IssuerConfig.Revocations"}, func(c *built) {
			issuer(c, func(i *sessiontoken.IssuerConfig) { i.Revocations = nil })
		}},
		{"issuer with another list", []string{"Config.Issuer", "IssuerConfig.Revocations"}, func(c *built) {
			issuer(c, func(i *sessiontoken.IssuerConfig) { i.Revocations = list(0) })
		}},
		{"neither", []string{"Config.Verifier", "VerifierConfig.Revocations"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Revocations = nil })
			issuer(c, func(i *sessiontoken.IssuerConfig) { i.Revocations = nil })
		}},
		{"sign-out writes to another list", []string{"Config.Verifier", "Config.Revocations"}, func(c *built) { c.Revocations = list(0) }},
		{"a wrapper of the list", []string{"Config.Verifier", "VerifierConfig.Revocations"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Revocations = wrapped{c.Revocations, nil} })
		}},
		{"another ring", []string{"IssuerConfig.Keys", "VerifierConfig.Keys"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Keys = elsewhere.source })
		}},
		{"another issuer name", []string{"IssuerConfig.Issuer", "VerifierConfig.Issuer"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Issuer = "https://b.example" })
		}},
		{"another audience", []string{"IssuerConfig.Audience", "VerifierConfig.Audience"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.Audience = "api" })
		}},
		{"tokens that live longer than the verifier takes", []string{"IssuerConfig.TTL", "VerifierConfig.MaxTTL"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.MaxTTL = time.Minute })
		}},
		{"tokens larger than the verifier takes", []string{"IssuerConfig.MaxBytes", "VerifierConfig.MaxBytes"}, func(c *built) {
			verifier(c, func(v *sessiontoken.VerifierConfig) { v.MaxBytes = 4000 })
		}},
		{"manager with another list", []string{"Config.Refresh", "refresh.Config.Revocations"}, func(c *built) {
			manager(c, func(m *refresh.Config) { m.Revocations = list(0) })
		}},
		{"manager without a list", []string{"Config.Refresh", "refresh.Config.Revocations"}, func(c *built) {
			manager(c, func(m *refresh.Config) { m.Revocations, m.InsecureSessionsLiveOn = nil, true })
		}},
		{"families that outlive the session", []string{"refresh.Config.MaxSession", "IssuerConfig.MaxSession"}, func(c *built) {
			issuer(c, func(i *sessiontoken.IssuerConfig) { i.MaxSession = 12 * time.Hour })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cfg built
			s.replica(func(c *built) { cfg = *c })
			_, err := sessionhttp.New(cfg)
			require.NoError(t, err)
			tt.change(&cfg)
			_, err = sessionhttp.New(cfg)
			require.Error(t, err)
			for _, field := range tt.fields {
				require.ErrorContains(t, err, field)
			}
		})
	}
}

// wrapped is a checker that cannot be compared.
type wrapped struct {
	revoke.Checker
	more []int
}

// New keeps nothing of the configuration that the caller can change later.
func TestConfigIsCopied(t *testing.T) {
	origins := []string{"https://app.example"}
	r := newSite(t).replica(func(c *sessionhttp.Config[state]) { c.TrustedOrigins = origins })
	origins[0] = "https://evil.example"
	cookie := r.signIn(t)
	require.Equal(t, 200, r.status(request("POST", "/who", cookie, "Origin", "https://app.example")))
	require.Equal(t, 403, r.status(request("POST", "/who", cookie, "Origin", "https://evil.example")))
}
