package oidclogin_test

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newOP(t))
		b := s.browser(t)
		p := b.open(siteURL + "/oidc/login?return=/private%3Fx=1")
		require.Equal(t, http.StatusOK, p.StatusCode, p.body)
		require.Equal(t, siteURL+"/private?x=1", p.url.String())
		require.Contains(t, p.body, "user-subject-1 ada@example.com")
		require.Equal(t, []string{"__Host-session"}, b.cookies())
		require.Empty(t, s.log.String())
		require.Equal(t, 1, s.op.count("/token"))
		require.EqualValues(t, 1, s.login.Metrics()["oidclogin_sign_ins_total"])
	})
}
