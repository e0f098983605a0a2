// Command oidclogin serves a site whose users sign in with an OpenID provider,
// and opens a page of it.
package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

func main() {
	ctx := context.Background()
	store := authority.Memory()
	session(ctx, store)
	var issuer string
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			fmt.Fprint(w, `{"keys":[]}`)
			return
		}
		fmt.Fprintf(w, `{"issuer":%[1]q,"authorization_endpoint":"%[1]s/authorize","token_endpoint":"%[1]s/token","jwks_uri":"%[1]s/jwks"}`, issuer)
	}))
	issuer = provider.URL
	secrets := [][]byte{make([]byte, 32)}
	var login *oidclogin.Provider[state]
	site := must(authority.New(authority.Config[state]{Issuer: "https://auth.example", Audience: []string{"orders"}, Store: store, Secrets: secrets,
		Load: func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{"admin"}, nil },
		HTTP: sessionhttp.Config[state]{Unauthorized: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { login.Unauthorized(w, r) })}}))
	go site.Run(ctx)
	login = must(oidclogin.New(oidclogin.Config[state]{Sessions: site.Sessions(), Revocations: site.Revocations(), Secrets: secrets,
		Issuer: issuer, ClientID: "site", ClientSecret: "secret", RedirectURL: "http://localhost/oidc/callback",
		User: func(_ context.Context, l *oidclogin.Login) (string, state, error) {
			return l.Subject, state{"admin"}, nil
		}}))
	mux := http.NewServeMux()
	mux.Handle("/oidc/", login)
	mux.Handle("/", site.Sessions().Require(http.NotFoundHandler()))
	server := httptest.NewServer(mux)

	page := must(http.NewRequest(http.MethodGet, server.URL, nil))
	page.Header.Set("Accept", "text/html")
	resp := must(http.DefaultTransport.RoundTrip(page))
	to := must(resp.Location())
	fmt.Println("without a session:", resp.Status, to.Path, strings.HasPrefix(to.String(), issuer))
	resp = must(http.PostForm(server.URL+"/oidc/backchannel-logout", url.Values{"logout_token": {"x.y.z"}}))
	fmt.Println("a forged logout token:", resp.Status)
}
