// Package keys holds the keys of a token issuer and rotates them.
//
// For an issuer with any number of replicas, use [NewRing] over a [Store] and
// run [Ring.Run]. A ring makes its keys, publishes each before it signs, retires
// it on schedule and destroys its private half then. For a key held by a KMS or
// an HSM, wrap its [crypto.Signer] with [NewSigningKey] and publish it with
// [NewStatic]. To verify with keys that are at hand, use [NewSet]; to read them
// from a JWKS document, [ParseSet].
//
// # The life of a key
//
// A key is next (published, signs nothing), then current (exactly one is), then
// retired (its private half destroyed, its public half still published for the
// tokens that live), then gone. Replicas agree on that schedule through the
// store alone, by compare-and-swap: there is no leader and no lock, and no
// replica signs with a key that it has not read back from the store.
//
// A verifier has to fetch the key set again, at least when it meets an unknown
// key id. One that loads the set once knows the current key and the next: it
// refuses all new tokens from the second rotation on, 30 to 60 days later by
// default.
//
// A key that was revoked stays revoked, whatever a store that fell back to an
// older document says: each replica that knew it takes it out again. One that a
// store lost is written back by each replica that has it.
//
// # Secrets at rest
//
// [Sealed] encrypts private keys in the stored document and leaves the public
// halves readable. A ring refuses a store that may be shared over a network
// unless it is sealed. No error or log line of this package holds key material.
//
// # What this package does not do
//
// It does not sign or parse tokens: package sessiontoken does. It does not fetch
// key sets from elsewhere: package remote does. A key found in a [Set] says that
// the set's owner published it, not that a token naming it is genuine.
package keys
