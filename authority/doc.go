// Package authority puts a whole issuing server together: keys that rotate,
// sign-in and sign-out, refresh tokens, and what others need to verify the
// tokens.
//
// [New] makes all of it from one store, one list of secrets and one set of
// limits. Start [Authority.Run] in one goroutine and mount what the site needs:
//
//   - [Authority.Sessions] signs users in and out, and stands before handlers
//     that need a session.
//   - [Authority.WellKnown] publishes the keys.
//   - [Authority.Ready] is for a load balancer's health check.
//   - [Authority.RenewHandler] renews cookies for pages whose API only reads
//     them.
//
// All replicas are made alike, of one store: a sign-out at one is known at the
// others within a second, mostly. [Memory] is a store for one process. Beyond
// it, take one of the modules sqlstore and redisstore.
//
// [Authority.RevokeKeys] takes keys away that have leaked. For all that is not
// common there are [Authority.Issuer], [Authority.Verifier], [Authority.Ring],
// [Authority.Revocations] and [Authority.Refresh].
//
// A process with many tenants makes one [Host] of the store, and an authority for
// each tenant with Config.Host: they share the store's readings, one budget of
// memory for verified tokens, and one [Host.Run].
//
// # What follows from what
//
// Parts that do not belong together revoke nothing when a user signs out, so
// they cannot be handed in: New makes each of them, and they share one list of
// revocations, one key ring, one issuer name and one audience. Their times
// follow from [Limits]. Keys are always sealed. Names in the store hold the
// namespace, and what is derived from the secrets holds the issuer, so that
// several authorities can share a store, and even a secret.
//
// # What this package does not do
//
// It checks no passwords: call SignIn after the user has proven who they are.
// An API that has neither the store nor the secrets verifies with the published
// keys alone, and is not made here.
package authority
