package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

type State struct{ Roles []string }

var users = map[string]State{"ada": {[]string{"admin"}}, "grace": {}} // your database

// checkPassword is a stub: compare password hashes, or ask for a passkey.
func checkPassword(name, password string) bool {
	_, ok := users[name]
	return ok && password == "demo"
}

// load is asked for the state at each renewal. A user who is gone is signed out.
func load(_ context.Context, c *sessiontoken.Claims[State]) (State, error) {
	if user, ok := users[c.Subject]; ok {
		return user, nil
	}
	return State{}, sessionhttp.ErrSessionOver
}

func main() {
	store, err := sqlite.Open(context.Background(), "site.db")
	if err != nil {
		log.Fatal(err)
	}
	site, err := authority.New(authority.Config[State]{
		Issuer: "http://localhost:8080", Audience: []string{"site"}, Store: store, Load: load,
		Secrets: [][]byte{[]byte(os.Getenv("SITE_SECRET"))}, // once: export SITE_SECRET=$(openssl rand -base64 32)
	})
	if err != nil {
		log.Fatal(err)
	}
	go site.Run(context.Background())
	s := site.Sessions()
	http.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		name := r.FormValue("name")
		if !checkPassword(name, r.FormValue("password")) {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
		} else if _, err := s.SignIn(w, r, sessiontoken.Start{Subject: name}, users[name]); err != nil {
			s.Refuse(w, r, err)
		}
	})
	http.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := s.SignOut(w, r); err != nil {
			s.Refuse(w, r, err)
		}
	})
	http.Handle("GET /admin", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		if !slices.Contains(c.State.Roles, "admin") {
			http.Error(w, "for admins", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "Hello", c.Subject)
	})))
	http.Handle("/.well-known/", site.WellKnown())
	http.Handle("GET /ready", site.Ready())
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
