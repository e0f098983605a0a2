package sessionhttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Account is what the application keeps in its sessions.
type Account struct{ Name, Role string }

// exampleSessions are those of a site whose stores are in memory.
func exampleSessions() *sessionhttp.Sessions[Account] {
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	revocations, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	if err != nil {
		log.Fatal(err)
	}
	issuer, err := sessiontoken.NewIssuer[Account](sessiontoken.IssuerConfig{
		Issuer: "https://shop.example", Audience: []string{"shop"}, Keys: ring, Revocations: revocations,
	})
	if err != nil {
		log.Fatal(err)
	}
	verifier, err := sessiontoken.NewVerifier[Account](sessiontoken.VerifierConfig{
		Issuer: "https://shop.example", Audience: "shop", Keys: ring, Revocations: revocations,
	})
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := sessionhttp.New(sessionhttp.Config[Account]{
		Verifier: verifier, Issuer: issuer, Revocations: revocations,
		Load: func(_ context.Context, old *sessiontoken.Claims[Account]) (Account, error) {
			return Account{"Ada", "admin"}, nil // from the database, by old.Subject
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	return sessions
}

// A site with a sign-in, a sign-out, and a page that needs a session.
func Example() {
	sessions := exampleSessions()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		// Once the password is checked:
		if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "user-42"}, Account{"Ada", "admin"}); err != nil {
			sessions.Refuse(w, r, err)
			return
		}
		fmt.Fprint(w, "welcome")
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := sessions.SignOut(w, r); err != nil {
			sessions.Refuse(w, r, err)
			return
		}
		fmt.Fprint(w, "goodbye")
	})
	mux.Handle("GET /account", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := sessions.FromContext(r.Context())
		fmt.Fprintf(w, "%s is %s", claims.State.Name, claims.State.Role)
	})))

	site := httptest.NewTLSServer(mux)
	defer site.Close()
	browser := site.Client()
	browser.Jar, _ = cookiejar.New(nil)
	visit := func(method, path string) {
		r, err := http.NewRequest(method, site.URL+path, nil)
		if err != nil {
			log.Fatal(err)
		}
		r.Header.Set("Sec-Fetch-Site", "same-origin") // as a form of the site has it
		answer, err := browser.Do(r)
		if err != nil {
			log.Fatal(err)
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		fmt.Println(path, answer.StatusCode, strings.TrimSpace(string(body)))
	}
	visit("POST", "/sign-in")
	visit("GET", "/account")
	visit("POST", "/sign-out")
	visit("GET", "/account")
	// Output:
	// /sign-in 200 welcome
	// /account 200 Ada is admin
	// /sign-out 200 goodbye
	// /account 401 Unauthorized
}
