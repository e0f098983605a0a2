// Command golangjwt is one site three times: with tokens of
// github.com/golang-jwt/jwt/v5, with package authority, and in between.
//
//	export TOKEN_SECRET=$(openssl rand -base64 32)
//	go run ./moving/golangjwt before
//	go run ./moving/golangjwt during 2026-01-02T03:04:05Z
//	go run ./moving/golangjwt after
//
// The time is when exchanges begin. README.md has the differences.
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/sessiontoken/sessiontoken/authority"
)

func main() {
	key := []byte(os.Getenv("TOKEN_SECRET"))
	if len(key) < 32 {
		log.Fatal("TOKEN_SECRET is not set: export TOKEN_SECRET=$(openssl rand -base64 32)")
	}
	a, err := newAuthority("http://localhost:8080", authority.Memory())
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = a.Run(context.Background()) }()
	var handler http.Handler
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "before":
		handler = newBefore(key)
	case len(args) == 2 && args[0] == "during":
		from, err := time.Parse(time.RFC3339, args[1])
		if err != nil {
			log.Fatal("the second argument is not a time such as 2026-01-02T03:04:05Z")
		}
		handler = newDuring(key, a, from)
	case len(args) == 1 && args[0] == "after":
		handler = newAfter(a)
	default:
		log.Fatal("usage: golangjwt before | during TIME | after")
	}
	log.Fatal(http.ListenAndServe("localhost:8080", handler))
}
