package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// State is what each token holds. The user can read it.
type State struct{ Name, Role, Theme string }

// load reads the state of a user. The theme is held by the token alone.
func load(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
	person, ok := site.Find(old.Subject)
	if !ok {
		return State{}, sessionhttp.ErrSessionOver
	}
	return State{Name: person.Name, Role: person.Role, Theme: old.State.Theme}, nil
}

func newAuthority(issuer string, store authority.Store) (*authority.Authority[State], error) {
	return authority.New(authority.Config[State]{
		Issuer: issuer, Audience: []string{"site"}, Store: store, Load: load,
	})
}

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
		site.SetFlash(w, "welcome")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.Handle("GET /{$}", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		visits := site.Visit(c.Subject)
		flash := site.TakeFlash(w, r)
		_, _ = fmt.Fprintf(w, "%sHello %s, %s. Visit %d, theme %q.\n", flash, c.State.Name,
			c.State.Role, visits, c.State.Theme)
	})))
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) {
		_, err := s.Update(w, r, func(state *State) error {
			state.Theme = r.FormValue("theme")
			return nil
		})
		if err != nil {
			s.Refuse(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := s.SignOut(w, r); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.Handle("/.well-known/", a.WellKnown())
	return mux
}
