package main

import (
	"fmt"
	"net/http"

	"github.com/alexedwards/scs/v2"

	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// newBefore is the site with scs.
func newBefore(sm *scs.SessionManager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		person, ok := site.CheckPassword(user, r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
			return
		}
		if err := sm.RenewToken(r.Context()); err != nil {
			http.Error(w, "no session", http.StatusInternalServerError)
			return
		}
		sm.Put(r.Context(), "user", user)
		sm.Put(r.Context(), "name", person.Name)
		sm.Put(r.Context(), "role", person.Role)
		sm.Put(r.Context(), "flash", "Welcome back. ")
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if !sm.Exists(r.Context(), "user") {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		sm.Put(r.Context(), "visits", sm.GetInt(r.Context(), "visits")+1)
		flash := sm.PopString(r.Context(), "flash")
		_, _ = fmt.Fprintf(w, "%sHello %s, %s. Visit %d, theme %q.\n", flash, sm.GetString(r.Context(), "name"),
			sm.GetString(r.Context(), "role"), sm.GetInt(r.Context(), "visits"), sm.GetString(r.Context(), "theme"))
	})
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) {
		sm.Put(r.Context(), "theme", r.FormValue("theme"))
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := sm.Destroy(r.Context()); err != nil {
			http.Error(w, "not signed out", http.StatusInternalServerError)
		}
	})
	return sm.LoadAndSave(mux)
}
