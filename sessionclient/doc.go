// Package sessionclient is for programs that call an API with session tokens of
// package sessiontoken: command-line programs, desktop and mobile applications,
// and services that act for a user. It needs the standard library alone.
//
// A [Client] keeps an access token, which is a session token, and the
// single-use refresh token for the next one. [Client.Transport] adds the access
// token to requests. [Client.Token] returns it for other protocols, and
// [Client.Renew] renews one that was refused there. [Client.SignIn] takes the
// tokens of a new sign-in, and [Client.SignOut] revokes the session.
//
// # Renewal
//
// The access token is renewed at about 80 % of its life: one exchange for all
// callers. A caller that gives up does not cancel it. The tokens that the server
// returns are saved by the [Keeper] before the first of them is used. A program
// that is killed in between has the old refresh token when it starts again. The
// server accepts that one within its RetryWindow, and later if this happens
// rarely: package refresh says what counts as rare.
//
// If the answer to an exchange was lost, the server may have used the refresh
// token up. The client then presents that token again only after the token
// endpoint has answered a request that changes nothing. An endpoint that hangs
// therefore gets the same refresh token once, and not again and again, which
// would look like theft.
//
// # What it does not do
//
// It does not sign users in: the program sends the password, or the code of a
// login provider, and passes the answer to [Client.SignIn]. It reads no token,
// verifies none, and runs no goroutine between renewals. A record that a thief
// copies is a session: the [Keeper] must protect it.
package sessionclient
