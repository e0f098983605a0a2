package authority_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// TestRenewHandler: cookie in, 204 and a new cookie out, for a browser of this
// origin that posts.
func TestRenewHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newReplica(t, authority.Memory(), func(c *cfg) { c.HTTP.TrustedOrigins = []string{"https://app.example"} })
		reader, err := sessionhttp.New(sessionhttp.Config[state]{Verifier: a.Verifier(), Logger: quiet}) // an API that only reads
		require.NoError(t, err)
		a.mux.Handle("GET /api", reader.Require(http200))
		user := browser{}
		require.Equal(t, 401, user.status(a, "POST", "/renew"))
		require.Equal(t, 200, user.status(a, "POST", "/sign-in"))
		require.Equal(t, 200, user.status(a, "GET", "/api"))

		time.Sleep(30 * time.Minute)
		require.Equal(t, 401, user.status(a, "GET", "/api"))
		require.Equal(t, 405, user.status(a, "GET", "/renew"))
		require.Equal(t, 403, user.status(a, "POST", "/renew", "Sec-Fetch-Site", "cross-site"))
		require.Equal(t, 403, user.status(a, "POST", "/renew", "Origin", "https://evil.example"))
		require.Equal(t, 401, user.status(a, "GET", "/api"))
		old := user.clone()
		resp := user.ask(a, "POST", "/renew", "Sec-Fetch-Site", "same-origin")
		require.Equal(t, 204, resp.StatusCode)
		require.Empty(t, body(t, resp))
		require.Contains(t, resp.Header.Values("Cache-Control"), "no-store")
		require.NotEqual(t, old[cookieName], user[cookieName])
		require.Equal(t, 200, user.status(a, "GET", "/api"))
		require.Equal(t, "Ada admin", body(t, user.ask(a, "GET", "/page")), "the state is that of Load")
		require.Equal(t, 204, user.status(a, "POST", "/renew", "Origin", "https://app.example"))

		app := a.native(t)
		require.Equal(t, 401, a.status(request("POST", "/renew", "Authorization", "Bearer "+app.AccessToken)))

		time.Sleep(61 * time.Minute)
		require.Equal(t, 401, user.status(a, "POST", "/renew"), "idle for too long")

		require.Equal(t, 200, user.status(a, "POST", "/sign-in"))
		require.NoError(t, a.Revocations().RevokeSubject(t.Context(), "ada"))
		require.Equal(t, 401, user.status(a, "POST", "/renew"))
	})
}
