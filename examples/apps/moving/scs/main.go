// Command scs is one site three times: with github.com/alexedwards/scs/v2, with
// package authority, and in between.
//
//	go run ./moving/scs before
//	go run ./moving/scs during 2026-01-02T03:04:05Z
//	go run ./moving/scs after
//
// The time is when exchanges begin. README.md has the differences.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/alexedwards/scs/v2"

	"github.com/sessiontoken/sessiontoken/authority"
)

// newManager is the configuration of scs. Sites with several replicas have a
// store that they share.
func newManager() *scs.SessionManager {
	sm := scs.New()
	sm.Lifetime = 12 * time.Hour
	sm.Cookie.Secure = true
	return sm
}

func main() {
	a, err := newAuthority("http://localhost:8080", authority.Memory())
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = a.Run(context.Background()) }()
	var handler http.Handler
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "before":
		handler = newBefore(newManager())
	case len(args) == 2 && args[0] == "during":
		from, err := time.Parse(time.RFC3339, args[1])
		if err != nil {
			log.Fatal("the second argument is not a time such as 2026-01-02T03:04:05Z")
		}
		handler = newDuring(newManager(), a, from)
	case len(args) == 1 && args[0] == "after":
		handler = newAfter(a)
	default:
		log.Fatal("usage: scs before | during TIME | after")
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler))
}
