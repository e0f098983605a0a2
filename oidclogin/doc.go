// Package oidclogin signs users in with an OpenID provider, and keeps the two
// sessions in step: the provider's and ours. An ID token proves a login. It
// begins a session, and is never one.
//
// # A site
//
// [New] makes a [Provider], which is one http.Handler for all paths: the login,
// its callback, the provider's back-channel logout, and the sign-out. Mount it
// at the folder of [Config] RedirectURL:
//
//	var login *oidclogin.Provider[account]
//	site, err := authority.New(authority.Config[account]{
//		Issuer: "https://site.example", Audience: []string{"site"}, Store: store, Secrets: secrets, Load: load,
//		HTTP: sessionhttp.Config[account]{
//			Unauthorized: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { login.Unauthorized(w, r) }),
//		},
//	})
//	login, err = oidclogin.New(oidclogin.Config[account]{
//		Sessions: site.Sessions(), Revocations: site.Revocations(), Secrets: secrets,
//		Issuer: "https://accounts.google.com", ClientID: id, ClientSecret: secret,
//		RedirectURL: "https://site.example/oidc/callback",
//		User: func(ctx context.Context, l *oidclogin.Login) (string, account, error) {
//			return findUser(ctx, l.Issuer, l.Subject) // the id in your database
//		},
//	})
//	mux.Handle("/oidc/", login)
//	mux.Handle("GET /{$}", site.Sessions().Require(page))
//
// A page behind Require sends a browser to the provider and back to that page.
// GET /oidc/login?return=/path begins a login by a link. A form that posts to
// /oidc/sign-out signs out here and then at the provider; SignOut of package
// sessionhttp signs out here alone. Each of several providers has a folder of its
// own.
//
// Register two more URLs at the provider: /oidc/backchannel-logout, so that its
// logout ends the sessions here on every replica, and /oidc/signed-out, where
// it sends the browser after a sign-out.
//
// A login is the authorization code flow with PKCE, state and nonce, in one
// browser. What it needs later is in a sealed cookie of 10 min, so that any
// replica can end it and nothing is stored.
//
// # Who the user is
//
// The pair of Login.Issuer and Login.Subject, and nothing else. An e-mail
// address in the ID token can change hands, and some providers let the user
// choose it.
//
// # The two sessions
//
// A session belongs to two groups: the provider's session (iss, sid) and the
// provider's subject (iss, sub), as two digests in its id, at most 46 bytes of
// a token. A logout token is an entry in the list of revocations for one of
// them, and one more so that it is used once. No login writes a row, and no
// logout looks one up. A logout that comes while a login is under way is not
// escaped: no session begins, and the login starts again, once.
//
// A sign-out here leaves the provider's session as it is. The next login then
// brings a new session of ours, without the user being asked. Its AuthTime is
// the provider's: RequireFresh tells how long ago the user was asked.
//
// RequireFresh and RequireACR of package sessionhttp have the provider ask the
// user again (max_age) or for more (acr_values), and [Provider.StepUp] does so
// from a handler. What comes back is checked. A provider that did not do what was
// asked ends in a page, and never in a loop.
//
// # Without a session
//
// [Grants] keeps refresh tokens of the provider for jobs that act for a user
// while no session is there. They are sealed in a store, and no part of a
// session. [CheckAtRenewal] uses them to end a session whose user the provider
// has locked out, where the provider has no back-channel logout.
//
// # Errors
//
// A login that is refused gets a page with 400 or 403 and a link to begin again.
// A provider or a store that does not answer is 503, with Retry-After. Each
// reason is one log line a minute, which holds nothing of a token, a code, a
// cookie or a secret.
//
// README.md beside this file says what is checked, what happens when something
// fails, and what to do about each log line. PROVIDERS.md says what eight
// providers send.
package oidclogin
