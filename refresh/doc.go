// Package refresh keeps sessions going beyond the life of their tokens, for
// native clients and for long sessions: a refresh token is exchanged for a new
// session token and its own successor (RFC 6749 section 6), and is used once
// (RFC 9700 section 4.14.2).
//
// Make a [Manager] with [NewManager], call [Manager.Start] when the user has
// signed in and [Manager.Exchange] when a client presents a refresh token.
//
// # Tokens and records
//
// A refresh token is opaque. It names a family, the sign-in that it descends
// from, and a position in it, and carries an HMAC over both. The [Store] holds
// one [Record] a family and nothing that can be presented: who reads the store
// has no token. The record carries an HMAC too: who writes to the store can end
// a session, but cannot make it another user's.
//
// # What counts as theft
//
// Each exchange moves a family on by one position, to a new generation. A token
// that was used before means that two parties hold the family's tokens: the
// session is revoked, and OnReuse is told. There are two exceptions, since
// answers get lost and browsers have several tabs. Both are about the parent,
// the token just replaced, while its successor is unused:
//
//   - Within RetryWindow the parent gets the same successor again. If one
//     generation after the other is retried, with no pause longer than
//     RetryWindow between, this ends after RetryWindow. So a client should not
//     exchange tokens more often than that.
//   - Later, but within 24 hours, it gets the same successor once: if a
//     generation without any retry has ended since the last time that this was
//     needed. Further ones within RetryWindow of it are the same retry.
//
// # What this does not see
//
// A thief who presents each token within RetryWindow of its owner, in every
// generation, looks like a second tab, and stays until the family reaches its
// absolute end (MaxSession) or the user signs out. A thief who presents a token
// while the owner never comes back looks like the owner. For a browser the
// binder (see [Manager.Start]) makes a stolen refresh token alone useless.
//
// A store that falls back to an earlier state takes the families back with it:
// a token that is ahead of its record counts as the current one. So who can put
// an old record back, and has an old token of the same family, can use it again.
//
// The families of a subject are the sessions that have refresh tokens. A session
// without one is neither in [Manager.List] nor counted by MaxPerSubject.
package refresh
