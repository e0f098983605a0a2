// Package oauth2client shows package sessionclient beside golang.org/x/oauth2:
// a program that has code for the one can use the other.
package oauth2client

import (
	"context"
	"time"

	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken/sessionclient"
)

// Source is an [oauth2.TokenSource] that returns the access tokens of a client.
// The client renews them and keeps its refresh token to itself.
type Source struct{ Client *sessionclient.Client }

// Token implements [oauth2.TokenSource].
func (s Source) Token() (*oauth2.Token, error) {
	access, expires, err := s.Client.Token(context.Background())
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: access, TokenType: "Bearer", Expiry: expires}, nil
}

// Adopt signs a client in with a token that x/oauth2 has got. From then on the
// client alone may use its refresh token, which works once.
func Adopt(ctx context.Context, c *sessionclient.Client, t *oauth2.Token) error {
	left := int64(time.Until(t.Expiry) / time.Second) // negative without an expiry: it is renewed first
	return c.SignIn(ctx, sessionclient.Tokens{
		AccessToken: t.AccessToken, TokenType: t.TokenType, ExpiresIn: max(0, left), RefreshToken: t.RefreshToken,
	})
}
