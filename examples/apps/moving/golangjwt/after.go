package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// State is what each token holds. The user can read it.
type State struct{ Name, Role string }

// load reads the state of a user, at each renewal and each refresh.
func load(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
	person, ok := site.Find(old.Subject)
	if !ok {
		return State{}, sessionhttp.ErrSessionOver
	}
	return State{Name: person.Name, Role: person.Role}, nil
}

func newAuthority(issuer string, store authority.Store) (*authority.Authority[State], error) {
	return authority.New(authority.Config[State]{
		Issuer: issuer, Audience: []string{"site"}, Store: store, Load: load,
	})
}

// app is the client without cookies.
var app = sessionhttp.Device{ClientID: "app", Label: "the app"}

// newAfter is the site with package authority.
func newAfter(a *authority.Authority[State]) http.Handler {
	s := a.Sessions()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		person, ok := site.CheckPassword(user, r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
			return
		}
		state := State{Name: person.Name, Role: person.Role}
		if _, err := s.SignIn(w, r, sessiontoken.Start{Subject: user}, state); err != nil {
			s.Refuse(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /api/token", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		person, ok := site.CheckPassword(user, r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
			return
		}
		state := State{Name: person.Name, Role: person.Role}
		tokens, err := s.SignInNative(r, app, sessiontoken.Start{Subject: user}, state)
		if err != nil {
			s.Refuse(w, r, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(tokens)
	})
	mux.Handle("POST /api/refresh", s.RefreshHandler())
	mux.Handle("POST /api/sign-out", s.RevokeHandler())
	mux.Handle("GET /{$}", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "Hello %s, %s.\n", c.State.Name, c.State.Role)
	})))
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := s.SignOut(w, r); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.Handle("/.well-known/", a.WellKnown())
	return mux
}
