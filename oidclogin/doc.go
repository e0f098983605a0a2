// Package oidclogin signs users in with an OpenID provider and keeps the two
// sessions in step: the provider's logout ends ours on every replica, without
// a table of sessions.
//
// [New] makes a [Provider], which is one [net/http.Handler] for the login, its
// callback, the provider's back-channel logout, and the sign-out at the
// provider. [Provider.Unauthorized] sends a browser that needs a session, or a
// more recent or stronger proof of who its user is, to the provider and back.
// Config.User finds the user of a login.
//
// # What a login is
//
// A login is the authorization code flow with PKCE, state and nonce, in one
// browser. What it needs later is in a sealed cookie of 10 min, so that any
// replica can end it and nothing is stored. The ID token proves the login: it is
// checked once and begins a session, and is never a session itself. The session
// belongs to two groups ([sessiontoken.Group]), of the provider's session and of
// its subject, which the provider's logout revokes.
//
// The session begins at the store's time at which the login began. If the user,
// the application or the provider has revoked it while the code was on its way,
// the login starts again, once.
//
// # What it does not do
//
// It does not keep the provider's tokens in the session: Config.User gets them
// in [Login]. It does not know users: a person is the pair of Login.Issuer and
// Login.Subject, and no other claim identifies a user. A sign-out with
// [sessionhttp.Sessions.SignOut] does not reach the provider, and the next login
// may succeed without a question.
//
// # Errors
//
// A login that is refused gets a page with 400 or 403 and a link to begin again.
// A provider or a store that does not answer is 503, with Retry-After. Each
// reason is one log line a minute, which holds nothing of a token, a code, a
// cookie or a secret.
package oidclogin
