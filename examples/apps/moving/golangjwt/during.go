package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/exchange"
	"github.com/sessiontoken/sessiontoken/examples/apps/moving/site"
)

// newDuring is the site with tokens of golang-jwt until a time, and with package
// authority from then on: old tokens are exchanged. That of a cookie is at its
// first request, and an app posts its token to /api/exchange.
func newDuring(secret []byte, a *authority.Authority[State], from time.Time) http.Handler {
	find := func(raw string) (old exchange.Old[State], ok bool, err error) {
		claims, err := parse(secret, raw)
		if err != nil {
			return old, false, nil // no token, or none of ours
		}
		person, ok := site.Find(claims.Subject)
		old = exchange.Old[State]{
			// The signature has several spellings in base64: it is left out.
			ID:    raw[:strings.LastIndexByte(raw, '.')],
			Start: sessiontoken.Start{Subject: claims.Subject},
			State: State{Name: person.Name, Role: person.Role}, // not what the old token says
		}
		if claims.IssuedAt != nil {
			old.Start.AuthTime = claims.IssuedAt.Time
		}
		return old, ok, nil
	}
	x := exchange.New(exchange.Config[State]{
		Authority: a, From: from, Before: newBefore(secret), After: newAfter(a),
		Find: func(r *http.Request) (old exchange.Old[State], ok bool, err error) {
			c, err := r.Cookie("token")
			if err != nil {
				return old, false, nil
			}
			return find(c.Value)
		},
		Drop: func(w http.ResponseWriter, _ *http.Request) {
			http.SetCookie(w, &http.Cookie{Name: "token", Path: "/", MaxAge: -1})
		},
	})
	mux := http.NewServeMux()
	mux.Handle("POST /api/exchange", x.Native(app, func(r *http.Request) (old exchange.Old[State], ok bool, err error) {
		raw, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		return find(raw)
	}))
	mux.Handle("/", x)
	return mux
}
