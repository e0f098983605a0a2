// Package sessiontest is for tests of handlers behind the middleware of package
// sessionhttp: it gives a request a session, without keys and stores.
//
// Only a test binary can use it. In any other program [With] panics, and
// package sessionhttp does not look for such sessions.
package sessiontest

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"testing"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/testhook"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// contextKey is different for each Sessions.
type contextKey struct{ sessions any }

func init() {
	if testing.Testing() {
		testhook.Claims = func(ctx context.Context, sessions any) any { return ctx.Value(contextKey{sessions}) }
	}
}

// Claims returns the claims of a session that begins now as start says, as
// [sessiontoken.Issuer.Begin] returns them. Issuer is "https://issuer.example".
// It is for tests of what only start can set: ACR, AMR, Actor and Context.
func Claims[T any](t testing.TB, start sessiontoken.Start, state T) sessiontoken.Claims[T] {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal("sessiontest: ", err)
	}
	key, err := keys.NewSigningKey(keys.EdDSA, private)
	if err != nil {
		t.Fatal("sessiontest: ", err)
	}
	source, err := keys.NewStatic(key)
	if err != nil {
		t.Fatal("sessiontest: ", err)
	}
	secret := make([]byte, 32) // for the sealed fields of a token that is dropped
	issuer, err := sessiontoken.NewIssuer[T](sessiontoken.IssuerConfig{Issuer: "https://issuer.example", Audience: []string{"test"}, Keys: source, StateSecrets: [][]byte{secret}})
	if err != nil {
		t.Fatal("sessiontest: ", err)
	}
	_, c, err := issuer.Begin(t.Context(), start, state)
	if err != nil {
		t.Fatal("sessiontest: ", err)
	}
	return *c
}

// With returns r with a session of s. Check, Require and Optional of s, and of
// no other Sessions, accept it as they do a valid cookie, and FromContext
// returns c. The credentials of r are ignored. Its origin is checked, and
// RequireFresh compares c.AuthTime with this machine's clock.
//
// Each request gets a copy of c, which shares the memory that State points to.
// The session has no token: SignOut, Renew and Update do not find it. A context
// of Live ends with that of the request, and does not end otherwise.
//
// With panics in a program that is not a test.
func With[T any](s *sessionhttp.Sessions[T], r *http.Request, c sessiontoken.Claims[T]) *http.Request {
	if !testing.Testing() {
		panic("sessiontest: With is for tests")
	}
	return r.WithContext(context.WithValue(r.Context(), contextKey{s}, c))
}
