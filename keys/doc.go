// Package keys holds the keys of a token issuer and rotates them.
//
// For an issuer with any number of replicas, use [NewRing] over a [Store] and
// run [Ring.Run]. A ring makes its keys, publishes each before it signs,
// retires it on schedule and then destroys its private half. For a key in a KMS
// or an HSM, wrap its [crypto.Signer] with [NewSigningKey] and publish it with
// [NewStatic]. To verify with fixed keys, use [NewSet]; to read them from a
// JWKS document, [ParseSet].
//
// # The life of a key
//
// A key has four phases:
//
//   - next: it is published and does not sign;
//   - current: it signs; one key is current at a time;
//   - retired: its private half is destroyed, and its public half is published
//     until its last token has expired;
//   - gone.
//
// Replicas agree on the schedule through the store alone, by compare-and-swap.
// There is no leader and no lock. No replica signs with a key before it has
// read that key from the store.
//
// A verifier must fetch the key set again, at least for an unknown key id. One
// that fetches it once has the current key and the next one alone: from the
// second rotation on, 30 to 60 days later by default, it refuses all new
// tokens.
//
// A revoked key stays revoked, even if the store falls back to an older
// document: each replica that knows of the revocation removes the key again. A
// key that the store has lost is written back by each replica that has it.
//
// # Secrets at rest
//
// [Sealed] encrypts private keys in the stored document and leaves the public
// halves readable. A ring refuses a store that may be shared over a network
// unless it is sealed. No error or log line of this package holds key material.
//
// # What this package does not do
//
// It does not sign or parse tokens: package sessiontoken does. It does not
// fetch key sets: package remote does. A key in a [Set] was published by the
// owner of the set. That does not mean that a token that names it was signed
// with it.
package keys
