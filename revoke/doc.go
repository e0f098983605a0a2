// Package revoke stops sessions before their tokens expire: one session, all of
// a subject, all of a subject but one, all of a group, all tokens of a key, or
// everything.
//
// A token cannot be called back, so every verifier asks a [List] whether its
// session was revoked. The list is a copy in memory of what a [Store] holds: the
// answer costs no I/O. What one replica writes, the others know within SyncEvery
// and one reading of the store. A list that could not read it for MaxStale no
// longer answers, and its verifiers fail closed.
//
// Revoked is a fact: a Revoke method returns nil only when the store has
// acknowledged the entry. Until then the list owes it. It writes it again by
// itself, and answers [ErrOwed] about every session that the entry concerns.
//
// All times are the store's. A list knows them from its readings, and goes on by
// the machine's steady clock in between, so that a wall clock that is wrong or
// jumps moves nothing.
//
// A store may lose its data: a cache that was flushed, a backup that was
// restored. Lists that run write back what they know. A list that starts on such
// a store cannot tell about sessions that are older than it, until that is done.
// A [MemStore] forgets what it holds when the process ends, and says nothing.
//
// The package does not know tokens. It hears of a session by its id, its
// subject, the id of the key that signed the token, and the time at which the
// session began. The groups of a session are a part of its id:
// "group.group.random" has two. An id of any other form has no groups.
package revoke
