package main

import (
	"log"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/exchange"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// newDuring is the site with scs until a time, and with package authority from
// then on: old sessions are exchanged.
func newDuring(sm *scs.SessionManager, a *authority.Authority[State], from time.Time) http.Handler {
	return exchange.New(exchange.Config[State]{
		Authority: a, From: from, Before: newBefore(sm), After: newAfter(a),
		Find: func(r *http.Request) (old exchange.Old[State], ok bool, err error) {
			c, err := r.Cookie(sm.Cookie.Name)
			if err != nil {
				return old, false, nil
			}
			ctx, err := sm.Load(r.Context(), c.Value)
			if err != nil {
				return old, false, err // the store of scs cannot be read
			}
			user := sm.GetString(ctx, "user")
			person, ok := site.Find(user)
			return exchange.Old[State]{
				ID:    c.Value,
				Start: sessiontoken.Start{Subject: user},
				State: State{Name: person.Name, Role: person.Role, Theme: sm.GetString(ctx, "theme")},
			}, ok, nil
		},
		Drop: func(w http.ResponseWriter, r *http.Request) {
			c, _ := r.Cookie(sm.Cookie.Name)
			ctx, err := sm.Load(r.Context(), c.Value)
			if err == nil {
				err = sm.Destroy(ctx)
			}
			if err != nil { // its exchange is recorded: it is refused all the same
				log.Printf("an exchanged session stays in the store until it expires: %v", err)
			}
			sm.WriteSessionCookie(r.Context(), w, "", time.Time{})
		},
	})
}
