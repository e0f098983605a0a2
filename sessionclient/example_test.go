package sessionclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionclient"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// A command-line program that keeps its session in a file.
func Example() {
	server := httptest.NewServer(exampleServer())
	defer server.Close()
	dir, err := os.MkdirTemp("", "session")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	keeper, err := sessionclient.File(filepath.Join(dir, "session")) // as below os.UserConfigDir
	if err != nil {
		log.Fatal(err)
	}
	c, err := sessionclient.New(sessionclient.Config{
		TokenURL:  server.URL + "/token",
		RevokeURL: server.URL + "/revoke",
		ClientID:  "cli",
		Origins:   []string{server.URL},
		Keeper:    keeper,
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: c.Transport(nil)}

	resp, err := client.Get(server.URL + "/api")
	if errors.Is(err, sessionclient.ErrSignIn) {
		fmt.Println("signing in")
		answer, err := http.Post(server.URL+"/sign-in", "", nil) // with a password, or the code of a login provider
		if err != nil {
			log.Fatal(err)
		}
		defer answer.Body.Close()
		var tokens sessionclient.Tokens
		if err := json.NewDecoder(answer.Body).Decode(&tokens); err != nil {
			log.Fatal(err)
		}
		if err := c.SignIn(context.Background(), tokens); err != nil {
			log.Fatal(err)
		}
		resp, err = client.Get(server.URL + "/api")
		if err != nil {
			log.Fatal(err)
		}
	} else if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.StatusCode)
	fmt.Println(c.SignOut(context.Background()))
	// Output:
	// signing in
	// hello, ada
	// 200
	// <nil>
}

func exampleServer() http.Handler {
	a, err := authority.New(authority.Config[state]{
		Issuer: "https://id.example", Audience: []string{"api"}, Store: authority.Memory(),
		Load:   func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{"admin"}, nil },
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	s, mux := a.Sessions(), http.NewServeMux()
	mux.Handle("/token", s.RefreshHandler())
	mux.Handle("/revoke", s.RevokeHandler())
	mux.HandleFunc("/sign-in", func(w http.ResponseWriter, r *http.Request) {
		tokens, err := s.SignInNative(r, sessionhttp.Device{ClientID: "cli"}, sessiontoken.Start{Subject: "ada"}, state{"admin"})
		if err != nil {
			s.Refuse(w, r, err)
			return
		}
		_ = json.NewEncoder(w).Encode(tokens)
	})
	mux.Handle("/api", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		fmt.Println("hello,", c.Subject)
	})))
	return mux
}
