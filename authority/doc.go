// Package authority makes a whole issuing server: keys that rotate, sign-in and
// sign-out, refresh tokens, and the published documents with which others
// verify the tokens.
//
// [New] makes all of it from one store, one list of secrets and one set of
// limits. Start [Authority.Run] in one goroutine and use what the site needs:
//
//   - [Authority.Sessions] signs users in and out, and has the middleware for
//     handlers that need a session.
//   - [Authority.WellKnown] publishes the keys and, with Config.FeedTokens,
//     tells APIs what was revoked.
//   - [Authority.Ready] is for a load balancer's health check.
//   - [Authority.RenewHandler] renews cookies for pages whose API cannot.
//
// All replicas are configured alike and share one store. A sign-out at one is
// mostly known at the others within a second. [Memory] is a store for one
// process. For several, use one of the modules sqlstore and redisstore.
//
// [Authority.RevokeKeys] revokes keys that have leaked. For less common needs
// there are [Authority.Issuer], [Authority.Verifier], [Authority.Ring],
// [Authority.Revocations] and [Authority.Refresh].
//
// A process with many tenants makes one [Host] of the store, and an authority for
// each tenant with Config.Host: they share the store's readings, one budget of
// memory for verified tokens, and one [Host.Run].
//
// # What follows from what
//
// New makes all parts, so that they share one list of revocations, one key
// ring, one issuer name and one audience: with parts that do not belong
// together, a sign-out would revoke nothing. Their times follow from [Limits].
// Private keys are always sealed. Names in the store hold the namespace, and
// keys are derived from the secrets with the issuer, so that several
// authorities can share a store, and even a secret.
//
// # What this package does not do
//
// It checks no passwords: call SignIn after the user has proven who they are.
// For an API that has neither the store nor the secrets, and verifies with the
// published keys, use package remote.
package authority
