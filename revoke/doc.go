// Package revoke stops sessions before their tokens expire: one session, all of
// a subject, all of a subject but one, all of a group, all tokens of a key, or
// everything.
//
// It also marks the state of a subject as changed, such as the user's role
// ([List.Changed]): tokens with a state from before are then renewed or
// refreshed, and no session ends.
//
// A token cannot be called back, so that every verifier asks a [List] whether
// the session of a token was revoked. The list is a copy of a [Store] in
// memory, so that an answer needs no I/O. Other replicas know of a revocation
// after SyncEvery and one reading of the store at most. A list that could not
// read the store for MaxStale returns an error for every session: its verifiers
// fail closed.
//
// [List.Watch] tells a connection that lasts when its session is revoked.
//
// A Revoke method returns nil only when the store has acknowledged the entry.
// Until then the list owes the entry to the store: it writes the entry again by
// itself, and returns [ErrOwed] for every session that the entry revokes.
//
// All times are the store's. A list gets the time with each reading, and
// advances it by the machine's monotonic clock in between, so that a wall clock
// that is wrong or jumps has no effect.
//
// A store may lose its data, such as a cache that was flushed or a database
// that was restored from a backup. Running lists write back the entries that
// they have. Until that is done, a list that starts on such a store returns an
// error for sessions that began before the loss. A [MemStore] loses its data
// when the process ends, and no list notices.
//
// The package does not read tokens. A [Question] names a session by its id, its
// subject, the id of the key that signed the token, and the time at which the
// session began. The groups of a session are in its id: "group.group.random"
// has two. An id of another form has no groups.
package revoke
