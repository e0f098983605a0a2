package oidclogin_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type account struct {
	Name string `json:"name"`
}

// A whole site whose users sign in with an OpenID provider. A page that needs a
// session sends the browser there and back. A sign-out here goes on to the
// provider, and a sign-out there ends the sessions here.
func Example() {
	issuer := startProvider()
	secrets := [][]byte{[]byte("at least 32 random bytes, such as from a secret manager")}
	var login *oidclogin.Provider[account]
	site, err := authority.New(authority.Config[account]{
		Issuer: "https://site.example", Audience: []string{"site"},
		Store:   authority.Memory(), // with more than one replica: sqlstore or redisstore
		Secrets: secrets,
		Load: func(_ context.Context, old *sessiontoken.Claims[account]) (account, error) {
			return old.State, nil // from your database
		},
		HTTP: sessionhttp.Config[account]{
			Unauthorized: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { login.Unauthorized(w, r) }),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	login, err = oidclogin.New(oidclogin.Config[account]{
		Sessions:     site.Sessions(),
		Revocations:  site.Revocations(),
		Secrets:      secrets,
		Issuer:       issuer,
		ClientID:     "site",
		ClientSecret: "from a secret manager",
		RedirectURL:  "https://site.example/oidc/callback",
		Scopes:       []string{"profile"},
		User: func(_ context.Context, l *oidclogin.Login) (string, account, error) {
			var a account
			err := l.Claims(&a)
			return l.Issuer + " " + l.Subject, a, err // the id in your database
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/oidc/", login)
	mux.Handle("/.well-known/", site.WellKnown())
	mux.Handle("GET /{$}", site.Sessions().Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := site.Sessions().FromContext(r.Context())
		fmt.Fprintf(w, `Hello %s <form method="post" action="/oidc/sign-out"><button>Sign out</button></form>`, c.State.Name)
	})))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = site.Run(ctx) }()
	server := httptest.NewServer(mux) // in production: http.ListenAndServeTLS
	defer server.Close()

	resp, err := openPage(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.Status)
	to, _ := resp.Location()
	fmt.Println(to.Path, to.Query().Get("scope"), to.Query().Get("redirect_uri"))
	// Output:
	// 303 See Other
	// /authorize openid profile https://site.example/oidc/callback
}

// startProvider starts a provider that has metadata alone, and returns its
// issuer.
func startProvider() string {
	var issuer string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"issuer":%[1]q,"authorization_endpoint":"%[1]s/authorize","token_endpoint":"%[1]s/token","jwks_uri":"%[1]s/jwks"}`, issuer)
	}))
	issuer = server.URL
	return issuer
}

// openPage opens a page as a browser does, and follows no redirect.
func openPage(url string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/html")
	return http.DefaultTransport.RoundTrip(req)
}
