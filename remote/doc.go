// Package remote reads the sessions of an authority on another server. It needs
// the authority's URL, and neither a database nor a secret.
//
// For an API, call [New] with the issuer's URL and the API's own audience, run
// [Remote.Run], and use the middleware of [Remote.Sessions]. It finds the key
// set by discovery, follows its rotation, and fails closed when it cannot. To
// configure the URL of the key set instead, use [NewKeys] and pass the keys to
// [sessiontoken.NewVerifier].
//
// # Revocations
//
// With Config.FeedToken, a Remote follows the authority's feed of revocations
// over https, as a [revoke.List]. A session that is revoked at the authority is
// refused here, mostly within a second, and a token whose state has changed too.
// No request waits for that: the list is in memory. If the feed cannot be read,
// revocations since the last reading are not known; after 30 s every session is
// refused with 503.
//
// The list only reads. After the authority has lost its data, it accepts no
// session that began before, until the authority has brought back what its
// replicas know. After 10 min such sessions count as revoked.
//
// # What this package does not do
//
// Without Config.FeedToken it does not know which sessions were revoked at the
// authority: a token of a user who has signed out is accepted until its exp. A
// key that was revoked at the authority is refused here after RefreshEvery at
// most, or after the first token of the key that replaced it.
//
// It neither begins nor renews sessions, which the authority does. A request
// with an expired cookie has no session here.
//
// No part of a token is used as a URL or a key. No error or log line holds a
// token, or more than the first characters of a key's id.
package remote
