package main

import (
	"fmt"
	"net/http"

	"github.com/gorilla/sessions"

	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// newBefore is the site with gorilla/sessions.
func newBefore(store *sessions.CookieStore) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		person, ok := site.CheckPassword(user, r.FormValue("password"))
		if !ok {
			http.Error(w, "wrong name or password", http.StatusUnauthorized)
			return
		}
		session, _ := store.Get(r, "site")
		session.Values["user"] = user
		session.Values["name"] = person.Name
		session.Values["role"] = person.Role
		session.AddFlash("Welcome back. ")
		if err := session.Save(r, w); err != nil {
			http.Error(w, "no session", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		session, _ := store.Get(r, "site")
		name, ok := session.Values["name"].(string)
		if !ok {
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		role, _ := session.Values["role"].(string)
		theme, _ := session.Values["theme"].(string)
		flash := ""
		if flashes := session.Flashes(); len(flashes) > 0 {
			flash, _ = flashes[0].(string)
			if err := session.Save(r, w); err != nil {
				http.Error(w, "no session", http.StatusInternalServerError)
				return
			}
		}
		_, _ = fmt.Fprintf(w, "%sHello %s, %s. Theme %q.\n", flash, name, role, theme)
	})
	mux.HandleFunc("POST /theme", func(w http.ResponseWriter, r *http.Request) {
		session, _ := store.Get(r, "site")
		session.Values["theme"] = r.FormValue("theme")
		if err := session.Save(r, w); err != nil {
			http.Error(w, "not saved", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		session, _ := store.Get(r, "site")
		session.Options.MaxAge = -1
		if err := session.Save(r, w); err != nil {
			http.Error(w, "not signed out", http.StatusInternalServerError)
		}
	})
	return mux
}
