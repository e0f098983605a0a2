// Package sessiontoken keeps a session's state in a signed JWT instead of on
// the server: an [Issuer] signs it with a key that rotates, [JWKSHandler]
// publishes the keys, and a [Verifier] on any replica reads the session from the
// token alone.
//
// # Where to begin
//
// The shortest way to a site with sessions is package authority, which makes all
// of it of one store. For an API that reads an authority's sessions, package
// remote needs its URL alone.
//
// By hand: to issue, make a [keys.Ring], hand it to [NewIssuer], and mount
// [JWKSHandler] at /.well-known/jwks.json. To verify in the same process, hand
// the ring to [NewVerifier]; in any other, the Keys of package remote. When a
// token nears its end, exchange it with [Issuer.Renew], which reads the state
// again from wherever it is kept. To hold the state to a budget in a test of
// your own, use [Issuer.Size].
//
// Over HTTP, package sessionhttp does the rest: cookies for browsers, bearer
// tokens for other clients, renewal on the way, sign-in and sign-out.
//
// # The packages
//
//   - This one issues, renews and verifies tokens, and publishes key sets.
//   - authority puts a whole issuing server together.
//   - remote reads the sessions of an authority elsewhere: it fetches its keys.
//   - keys makes, rotates and revokes the keys that sign.
//   - revoke has the list of what was revoked early. Every replica follows it.
//   - refresh keeps sessions going with refresh tokens that work once.
//   - sessionhttp puts all of them behind net/http; sessiontest is for tests of
//     handlers behind it.
//   - sessionclient is for programs that call such an API: it renews and keeps
//     their tokens.
//   - sqlstore and redisstore, modules of their own, keep what replicas share;
//     storetest has the tests of a store.
//
// # What a token says
//
// Claims that [Verifier.Verify] returns were signed by the issuer, for this
// audience, and are within their time. State was true at IssuedAt; a copy in a
// token goes out of date, and IssuerConfig.TTL bounds how far.
//
// Beside the registered claims and your state, a token says which session it is
// (sid), when that began, in milliseconds (begun), and whether it can be
// renewed by itself (rnw). A token without rnw was handed out beside a refresh
// token: [Issuer.Renew] refuses it. A revocation is compared with begun: after
// "sign out everywhere", the sessions that began before it are refused and
// those that began after it are not. MaxSession counts from begun too.
//
// A token can also say when and how the user last proved who they are
// (auth_time, acr, amr), and who acts for the user (act). Renewal and refresh
// change none of it. A session can belong to groups ([GroupOf]), which are a
// part of its sid: all sessions of a group can be revoked at once.
//
// The application can mark the state of a subject as changed
// ([revoke.List.Changed]). A token says which mark was the newest that was
// known before its state was read (chg), and is renewed if there is a newer
// one.
//
// # What this package does not do
//
// A token cannot be called back: a verifier without a list accepts it until its
// exp. A verifier that has a list of what was revoked (a [revoke.Checker], such
// as the List of package revoke) refuses the token of a revoked session.
//
// A token is signed, not encrypted. Its holder can read the state: put nothing
// there that the client must not see.
//
// A token is a bearer token: the one who presents it is taken for its owner. Send
// it over TLS alone, keep it from scripts and logs, and keep its life short.
//
// An ID token of an OpenID provider proves a login. It can begin a session, and
// it is never a session token: Verify refuses it by its typ, and an access
// token too.
//
// # Threats, and what stands against them
//
//   - A forged or altered token: the algorithm belongs to the key and is only
//     compared with the header; there is no "none" and no HMAC; nothing in the
//     header is ever used as a key or fetched; the signature is checked over the
//     received bytes before a claim is read.
//   - Two readings of one token: one spelling is accepted. Padding, line breaks,
//     spare bits, duplicate names, names in another case, invalid UTF-8, unknown
//     header parameters and the larger s of an ES256 signature are refused.
//   - A token of one channel renewed through another: a claim marks the tokens
//     that may be renewed, and [Issuer.Renew] refuses the others.
//   - A machine whose clock is wrong: with a list, the time is that of the store
//     which all machines share.
//   - A token of another issuer, for another API or of another kind: iss, aud
//     and typ must be this verifier's.
//   - A stolen key: [keys.Ring.Revoke] drops it at once and replaces it;
//     [keys.Ring.MaxAge] and the RefreshEvery of package remote bound how long a
//     verifier elsewhere goes on trusting it.
//   - Stolen or stale tokens: a short TTL, an idle and an absolute end that no
//     renewal moves, and a state that is never signed again without being read
//     again.
//   - Exhaustion: the size is checked before anything is decoded, nesting before
//     anything is parsed, and made-up key ids share one limited budget of
//     fetches.
//
// What is out of scope, and how to report a flaw, is in SECURITY.md.
//
// # Errors
//
// An error that matches [ErrInvalid] is the token's fault (401). Any other
// error means that the server could not decide (503). No error or log line
// holds a token, a key or a part of one.
package sessiontoken
