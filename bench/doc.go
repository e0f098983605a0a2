// Package bench compares sessiontoken with other Go libraries that sign and
// read JSON Web Tokens. It is a module of its own so that none of those
// libraries reaches the module graph of someone who imports sessiontoken.
//
// Each library is a [Peer] in a file of its own. All of them work for the
// same [Fixture]: one set of keys, one issuer, one audience, one session
// state. The tests of this package prove, before anything is timed, that every
// peer reads the same bytes into the same [Session] and refuses the same
// hostile tokens; a library that does less work than the others fails there.
// [Floor] is the bare signature of the standard library over the same bytes,
// the cost that no library can go below on its first sight of a token.
package bench
