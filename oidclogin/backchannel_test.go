package oidclogin_test

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/oidclogin"
)

// A logout token of typ JWT needs an option.
func TestLogoutTypeJWT(t *testing.T) {
	for _, insecure := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, newOP(t), func(c *oidclogin.Config[user]) { c.InsecureLogoutTypeJWT = insecure })
			b := s.browser(t)
			require.Equal(t, http.StatusOK, b.open(siteURL+"/oidc/login").StatusCode, s.log.String())
			s.signedIn(t, b)

			now := s.op.now()
			token := signAs(t, "JWT", s.op.keyID, s.op.key, map[string]any{
				"iss": opURL, "aud": clientID, "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": rand.Text(), "sid": s.op.session,
				"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
			})
			answer := newBrowser(t, s.hosts).request(http.MethodPost, siteURL+"/oidc/backchannel-logout", "", url.Values{"logout_token": {token}})
			if insecure {
				require.Equal(t, http.StatusOK, answer.StatusCode)
				s.signedOut(t, b)
				require.EqualValues(t, 1, s.login.Metrics()["oidclogin_logouts_total"])
				return
			}
			require.Equal(t, http.StatusBadRequest, answer.StatusCode)
			s.signedIn(t, b)
			require.EqualValues(t, 1, s.login.Metrics()["oidclogin_logouts_refused_total"])
			require.Contains(t, s.log.String(), "logout: the typ")
		})
	}
}
