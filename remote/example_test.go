package remote_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
)

// An API needs nothing but the URL of the authority and its own name.
func ExampleNew() {
	authority, token := exampleAuthority()
	defer authority.Close()

	sessions, err := remote.New[Cart](remote.Config{Issuer: authority.URL, Audience: "orders", Client: authority.Client()})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go sessions.Run(ctx)
	api := sessions.Sessions().Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := sessions.Sessions().FromContext(r.Context())
		fmt.Fprint(w, claims.Subject, " has ", claims.State.Items)
	}))

	server := httptest.NewServer(api)
	defer server.Close()
	for _, presented := range []string{token, "made-up"} {
		req, err := http.NewRequest("GET", server.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+presented)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			log.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			body = nil
		}
		fmt.Println(resp.StatusCode, string(body))
	}
	// Output:
	// 200 user-42 has [lamp desk]
	// 401
}

// Where there is no discovery document, the URL of the key set is configured.
func ExampleNewKeys() {
	authority, token := exampleAuthority()
	defer authority.Close()

	source, err := remote.NewKeys(remote.KeysConfig{URL: authority.URL + "/.well-known/jwks.json", Client: authority.Client()})
	if err != nil {
		log.Fatal(err)
	}
	// go source.Run(ctx) keeps the set fresh while nothing asks for it.
	verifier, err := sessiontoken.NewVerifier[Cart](sessiontoken.VerifierConfig{Issuer: authority.URL, Audience: "orders", Keys: source})
	if err != nil {
		log.Fatal(err)
	}
	claims, err := verifier.Verify(context.Background(), token)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.State.Items)
	// Output: [lamp desk]
}

// Cart is what the application keeps in its sessions.
type Cart struct{ Items []string }

// exampleAuthority is a server that issues, with a token of it.
func exampleAuthority() (*httptest.Server, string) {
	mux := http.NewServeMux()
	server := httptest.NewTLSServer(mux)
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring})
	if err != nil {
		log.Fatal(err)
	}
	discovery, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{Issuer: server.URL, Keys: ring})
	if err != nil {
		log.Fatal(err)
	}
	mux.Handle("/.well-known/jwks.json", jwks)
	mux.Handle("/.well-known/openid-configuration", discovery)
	issuer, err := sessiontoken.NewIssuer[Cart](sessiontoken.IssuerConfig{Issuer: server.URL, Audience: []string{"orders"}, Keys: ring})
	if err != nil {
		log.Fatal(err)
	}
	token, _, err := issuer.Issue(context.Background(), "user-42", Cart{Items: []string{"lamp", "desk"}})
	if err != nil {
		log.Fatal(err)
	}
	return server, token
}
