package main

import (
	"encoding/base64"
	"net/http"
	"time"

	"github.com/gorilla/sessions"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/exchange"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// newDuring is the site with gorilla/sessions until a time, and with package
// authority from then on: old sessions are exchanged.
func newDuring(store *sessions.CookieStore, a *authority.Authority[State], from time.Time) http.Handler {
	return exchange.New(exchange.Config[State]{
		Authority: a, From: from, Before: newBefore(store), After: newAfter(a),
		Find: func(r *http.Request) (old exchange.Old[State], ok bool, err error) {
			session, err := store.New(r, "site")
			if err != nil || session.IsNew {
				return old, false, nil // no cookie, or none of ours
			}
			c, _ := r.Cookie("site")
			// A cookie has several spellings in base64. Its bytes are the name.
			id, err := base64.URLEncoding.DecodeString(c.Value)
			if err != nil {
				return old, false, nil
			}
			user, _ := session.Values["user"].(string)
			theme, _ := session.Values["theme"].(string)
			person, ok := site.Find(user)
			return exchange.Old[State]{
				ID:    string(id),
				Start: sessiontoken.Start{Subject: user},
				State: State{Name: person.Name, Role: person.Role, Theme: theme},
			}, ok, nil
		},
		Drop: func(w http.ResponseWriter, _ *http.Request) {
			options := *store.Options
			options.MaxAge = -1
			http.SetCookie(w, sessions.NewCookie("site", "", &options))
		},
	})
}
