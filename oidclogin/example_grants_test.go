package oidclogin_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
)

// A job acts for a user at the provider while no session is there. In the site,
// Config.Scopes has "offline_access", and Config.User calls Save:
//
//	User: func(ctx context.Context, l *oidclogin.Login) (string, account, error) {
//		if err := grants.Save(ctx, l); err != nil && !errors.Is(err, oidclogin.ErrNoGrant) {
//			return "", account{}, err
//		}
//		…
func ExampleGrants() {
	grants, err := oidclogin.NewGrants(oidclogin.GrantsConfig{
		Store:        authority.Memory().(oidclogin.GrantStore), // with more than one process: sqlstore or redisstore
		Secrets:      [][]byte{[]byte("at least 32 random bytes, such as from a secret manager")},
		Issuer:       startProvider(),
		ClientID:     "site",
		ClientSecret: "from a secret manager",
	})
	if err != nil {
		log.Fatal(err)
	}
	job := func(ctx context.Context, subject string) error {
		token, err := grants.Token(ctx, subject)
		if errors.Is(err, oidclogin.ErrNoGrant) {
			return err // ask the user to sign in again
		}
		if err != nil {
			return err // try again later
		}
		_ = oauth2.NewClient(ctx, oauth2.StaticTokenSource(token)) // calls the API
		return nil
	}
	fmt.Println(job(context.Background(), "subject-1"))
	// Output: oidclogin: the user has no grant for offline access
}

// Deleting an account: the account first, so that no sign-in begins; then the
// sessions and what the store has of the person; then the grant, which is by
// the provider's name of the user. All of it can be repeated until it succeeds.
func ExampleGrants_Revoke() {
	store := authority.Memory()
	grants, err := oidclogin.NewGrants(oidclogin.GrantsConfig{
		Store:        store.(oidclogin.GrantStore),
		Secrets:      [][]byte{[]byte("at least 32 random bytes, such as from a secret manager")},
		Issuer:       startProvider(),
		ClientID:     "site",
		ClientSecret: "from a secret manager",
	})
	if err != nil {
		log.Fatal(err)
	}
	site, err := authority.New(authority.Config[struct{}]{
		Issuer: "https://site.example", Audience: []string{"site"}, Store: store,
		Load: func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	erase := func(ctx context.Context, user, atProvider string) error {
		// DELETE FROM users WHERE id = user
		if err := site.Forget(ctx, user); err != nil {
			return err // it says what is left
		}
		return grants.Revoke(ctx, atProvider)
	}
	fmt.Println(erase(context.Background(), "user-1", "subject-1"))
	// Output: <nil>
}
