// Package remote reads the sessions of an authority elsewhere, with nothing but
// its URL: no database and no secret.
//
// For an API, use [New] with the issuer's URL and the API's own audience, run
// [Remote.Run], and put [Remote.Sessions] before the handlers. It finds the key
// set by discovery, follows its rotation, and fails closed when it cannot. To
// name the URL of the key set oneself, use [NewKeys] and hand the keys to
// [sessiontoken.NewVerifier].
//
// # What this package does not do
//
// It does not know which sessions were revoked at the authority: until a token's
// exp, it reads the session of a user who has signed out elsewhere. A key that
// was revoked at the authority is known here within RefreshEvery, or with the
// first token of the key that replaced it.
//
// It neither begins nor renews sessions: that is the authority's. A cookie whose
// token has expired is no session here.
//
// Nothing in a token changes where keys come from. No error or log line holds a
// token, or more than the first characters of a key's id.
package remote
