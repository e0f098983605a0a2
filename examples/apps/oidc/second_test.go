package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	zitadel "github.com/zitadel/oidc/v3/pkg/op"
)

// second is another provider, the example of zitadel/oidc: it keeps no sessions,
// so that each login is proven, and its ID tokens have neither sid nor acr.
func second(t *testing.T, change func(*config)) *op {
	t.Helper()
	var handler http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	listeners, at := listen(t)
	client := storage.WebClient("site", clientSecret, at[0]+"/oidc/callback")
	handler = exampleop.SetupServer(server.URL, secondStorage{
		storage.NewStorageWithClients(storage.NewUserStore(server.URL), map[string]*storage.Client{"site": client}),
		at[0] + "/oidc/signed-out",
	}, slog.New(slog.DiscardHandler), false)
	p := &op{issuer: server.URL, a: at[0], b: at[1]}
	p.serve(t, listeners, func(c *config) {
		c.api = p.issuer + "/userinfo"
		if change != nil {
			change(c)
		}
	})
	return p
}

// secondStorage registers where a browser may go after a sign-out.
type secondStorage struct {
	*storage.Storage
	signedOut string
}

func (s secondStorage) GetClientByClientID(ctx context.Context, id string) (zitadel.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	return secondClient{c, s.signedOut}, err
}

type secondClient struct {
	zitadel.Client
	signedOut string
}

func (c secondClient) PostLogoutRedirectURIs() []string { return []string{c.signedOut} }

// proveSecond fills in the form of the second provider.
func (w tab) proveSecond() {
	w.t.Helper()
	w.do(
		chromedp.WaitVisible("#username", chromedp.ByQuery),
		chromedp.SetValue("#username", "test-user@127.0.0.1", chromedp.ByQuery),
		chromedp.SetValue("#password", "verysecure", chromedp.ByQuery),
		chromedp.Click("button[type=submit]", chromedp.ByQuery),
	)
}

// TestSecondProvider: another provider's logins, by redirect and by form_post, in
// several tabs at once, end as the first one's do; so do both ways of signing out
// and a job.
func TestSecondProvider(t *testing.T) {
	for name, formPost := range map[string]bool{"redirect": false, "form_post": true} {
		t.Run(name, func(t *testing.T) {
			p := second(t, func(c *config) { c.formPost, c.offline = formPost, true })
			first := window(t)
			tabs := []tab{first, first.another(), first.another()}
			for i, w := range tabs {
				w.open(fmt.Sprintf("%s/tab?n=%d", p.a, i), "#username")
			}
			for _, i := range []int{1, 0, 2} {
				tabs[i].proveSecond()
				tabs[i].shows("#page", fmt.Sprintf("/tab?n=%d", i))
				tabs[i].shows("#subject", "user-id1")
			}
			session := first.reload("#session").text("#session")
			require.Equal(t, 1, strings.Count(session, "."), "in the group of the provider's subject alone")
			first.open(p.b+"/", "#session")
			first.shows("#session", session)

			first.open(p.a+"/pay", "#subject")
			require.Equal(t, 401, first.status("/vault"), "it has no acr")

			resp, err := http.Get(p.b + "/job?user=id1")
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode, string(body))
			require.Contains(t, string(body), `"sub":"id1"`)

			first.click("#sign-out", "#welcome")
			require.Equal(t, 401, first.status("/me"))
			first.click("#sign-in", "#username")
			first.proveSecond()
			first.shows("#subject", "user-id1")
			first.click("#sign-out-all", "#welcome")
			first.until("location.href", p.a+"/welcome")
			require.Equal(t, 401, first.status("/me"))
		})
	}
}
