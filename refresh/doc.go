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
// A refresh token is opaque. It names a family, which is one sign-in, and a
// position in it, with an HMAC over both. The [Store] holds one [Record] a
// family and no token: an attacker who reads the store cannot refresh a
// session. A record has an HMAC too: an attacker who writes to the store can
// end a session, and cannot make it another user's.
//
// # What counts as theft
//
// Each exchange moves a family to its next position, which begins a new
// generation. A token that is presented after it was used means that two
// parties hold the family's tokens: the session is revoked, and OnReuse is
// called. There are two exceptions, since answers get lost and browsers have
// several tabs. Both are for the parent, the token that was exchanged last,
// while its successor is unused:
//
//   - Within RetryWindow the parent gets the same successor again. If every
//     generation has such a retry, with no pause longer than RetryWindow
//     between, a retry counts as reuse after RetryWindow in total. A client
//     should therefore exchange tokens less often than once in RetryWindow.
//   - Later, but within 24 hours, the parent gets the same successor once. For
//     the next such retry, a generation without any retry must have ended
//     since. Further ones within RetryWindow of it count as the same retry.
//
// # What this does not see
//
// A thief who presents each token within RetryWindow of its owner, in every
// generation, looks like a second tab: reuse is not detected, and the thief has
// the session until MaxSession or a sign-out. A thief who presents a token of
// an owner who never returns looks like the owner. For a browser the binder
// (see [Manager.Start]) makes a stolen refresh token alone useless.
//
// A store that was restored to an earlier state has earlier positions: a token
// that is ahead of its record counts as the current one. An attacker who can
// put an old record back, and has an old token of the same family, can use that
// token again.
//
// The families of a subject are the sessions that have refresh tokens. A session
// without one is neither in [Manager.List] nor counted by MaxPerSubject.
package refresh
