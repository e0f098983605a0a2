// Command gorilla is one site three times: with github.com/gorilla/sessions,
// with package authority, and in between.
//
//	export SESSION_KEY=$(openssl rand -base64 32)
//	go run ./moving/gorilla before
//	go run ./moving/gorilla during 2026-01-02T03:04:05Z
//	go run ./moving/gorilla after
//
// The time is when exchanges begin. README.md has the differences.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gorilla/sessions"

	"github.com/sessiontoken/sessiontoken/authority"
)

// newStore is the configuration of gorilla/sessions.
func newStore(key []byte) *sessions.CookieStore {
	store := sessions.NewCookieStore(key)
	store.Options.HttpOnly = true
	store.Options.SameSite = http.SameSiteLaxMode
	store.MaxAge(int(week / time.Second)) // of the cookie, and of its signature
	return store
}

func main() {
	key := []byte(os.Getenv("SESSION_KEY"))
	if len(key) < 32 {
		log.Fatal("SESSION_KEY is not set: export SESSION_KEY=$(openssl rand -base64 32)")
	}
	a, err := newAuthority("http://localhost:8080", authority.Memory())
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = a.Run(context.Background()) }()
	var handler http.Handler
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "before":
		handler = newBefore(newStore(key))
	case len(args) == 2 && args[0] == "during":
		from, err := time.Parse(time.RFC3339, args[1])
		if err != nil {
			log.Fatal("the second argument is not a time such as 2026-01-02T03:04:05Z")
		}
		handler = newDuring(newStore(key), a, from)
	case len(args) == 1 && args[0] == "after":
		handler = newAfter(a)
	default:
		log.Fatal("usage: gorilla before | during TIME | after")
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler))
}
