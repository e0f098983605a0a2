// Package sessiontoken keeps a session's state in a signed JWT instead of on
// the server: an [Issuer] signs it with a key that rotates, [JWKSHandler]
// publishes the keys, and a [Verifier] on any replica reads the session from the
// token alone.
//
// # Where to begin
//
// To issue, make a [keys.Ring], hand it to [NewIssuer], and mount [JWKSHandler]
// at /.well-known/jwks.json. To verify in the same process, hand the ring to
// [NewVerifier]; in any other, a [RemoteKeys] with the URL of the key set. When
// a token nears its end, exchange it with [Issuer.Renew], which reads the state
// again from wherever it is kept. To hold the state to a budget in a test of
// your own, use [Issuer.Size].
//
// Over HTTP, package sessionhttp does all of that: cookies for browsers, bearer
// tokens for the rest, renewal on the way, sign-in and sign-out. It stands on
// package revoke, which ends sessions early, and on package refresh, which keeps
// them going with refresh tokens.
//
// # What a token says
//
// Claims that [Verifier.Verify] returns were signed by the issuer, for this
// audience, and are within their time. State was true at IssuedAt; a copy in a
// token goes out of date, and IssuerConfig.TTL bounds how far.
//
// # What this package does not do
//
// A token cannot be called back. Until its exp, only a [RevocationChecker]
// knows better (the List of package revoke is one), and only the verifiers that
// ask one.
//
// A token is signed, not encrypted. Whoever holds it reads the state: put
// nothing there that the client must not see.
//
// A token is a bearer token: whoever presents it is taken for its owner. Send
// it over TLS alone, keep it from scripts and logs, and keep its life short.
//
// An ID token of an OpenID provider proves a login; it can start a session and
// never be one. It is refused here, by its typ, as is an access token.
//
// # Threats, and what stands against them
//
//   - A forged or altered token: the algorithm belongs to the key and is only
//     compared with the header; there is no "none" and no HMAC; nothing in the
//     header is ever used as a key or fetched; the signature is checked over the
//     received bytes before a claim is read.
//   - Two readings of one token: one spelling is accepted. Padding, line breaks,
//     spare bits, duplicate names, names in another case, invalid UTF-8 and
//     unknown header parameters are refused.
//   - A token from elsewhere: iss, aud and typ must be this verifier's.
//   - A stolen key: [keys.Ring.Revoke] drops it at once and replaces it;
//     [keys.Ring.MaxAge] and [RemoteKeysConfig] bound how long a verifier
//     elsewhere goes on trusting it.
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
// An error that matches [ErrInvalid] is the token's fault (401). Any other means
// that the server could not tell (503). No error or log line holds a token, a
// key or a part of one.
package sessiontoken
