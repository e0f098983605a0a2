package revoke

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Scope is what kind of thing an [Entry] revokes.
type Scope string

// The scopes. Entries of a session and of a key count whenever the session
// began.
const (
	Session Scope = "session" // the session with this id (sid)
	Subject Scope = "subject" // every session of this subject (sub) begun by then
	Group   Scope = "group"   // every session of this group (a part of the sid) begun by then
	Key     Scope = "key"     // every token signed with this key (kid)
	All     Scope = "all"     // every session begun by then
	Birth   Scope = "birth"   // revokes nothing: since when the store has lost no entry
)

// Digest names a session, a subject, a group or a key in the store and in
// memory, where the name itself is not kept.
type Digest [16]byte

// Digest returns the digest of a value of this scope, such as a session's id:
// the first 128 bits of SHA-256 over the scope and the value, each after its
// length in 8 bytes, big-endian. No secret is hashed with them, so that every
// list and tool computes the same digest.
func (s Scope) Digest(value string) Digest {
	var room [256]byte
	b := binary.BigEndian.AppendUint64(room[:0], uint64(len(s)))
	b = append(b, s...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(value)))
	b = append(b, value...)
	sum := sha256.Sum256(b)
	return Digest(sum[:len(Digest{})])
}

// Entry is one thing that was revoked. Adding one twice is the same as once.
type Entry struct {
	Namespace string    // of the list that wrote it: Config.Namespace
	Scope     Scope     // what Digest names
	Digest    Digest    // of Scope and the value; of Birth a random id; zero for All
	Except    Digest    // the digest of the one session that a Subject entry spares; zero: none
	Before    time.Time // whole milliseconds of the store's time: sessions begun later go on. Of Birth: when the store was born
	Until     time.Time // whole milliseconds of the store's time: when the entry may be forgotten
	Skip      bool      // a list that does not know Scope may ignore the entry; otherwise such a list fails closed
}

// Page is a piece of what a store holds.
type Page struct {
	// Entries are those of all namespaces, in the order in which they were
	// added.
	Entries []Entry
	// Next is the cursor to read on with.
	Next string
	// More reports whether entries that were added before the call are left.
	// Next is then another cursor than the one of the call.
	More bool
	// Reset reports that the store does not know the cursor, which was not
	// empty: this is the first page of a reading of everything.
	Reset bool
	// Time is the store's clock at this reading, never zero: that of the
	// server, or of the host for a store without a server.
	Time time.Time
}

// Store keeps entries for all replicas. It holds no logic; package storetest
// tests a store.
//
// What every implementation promises:
//
//   - Absence: an empty store returns a page without entries, with a cursor and
//     the time. A store that cannot tell what it holds answers with an error.
//   - Success: when Append has returned nil, every Since that begins later
//     returns its entries, on every replica, after the entries of earlier
//     Appends.
//   - Primary: Since answers from what Append writes to. A copy that may lag is
//     an error.
//   - Size: Append takes any number of entries. A page has at most 10,000, so
//     that it is read within one reading's limit. Namespace and Scope are valid
//     UTF-8 without a NUL.
//   - Repetition: after an error some entries may have been added, the first
//     ones first. The caller repeats the call, so that an entry may be there
//     twice, and Since may return an entry again.
//   - Cursors: one that the store does not know, such as one of another store
//     or from before it lost data, means all, with Reset. Only a page without
//     More covers all that was added before the call.
//   - Aliasing: slices are copied. The caller may change what it passed to
//     Append, and what Since returned.
//   - Expiry: an entry past its Until by the store's own clock may be left out,
//     and no other.
//   - Concurrency: all methods may be called from any number of goroutines and
//     processes. A cursor never passes an Append that has not returned yet, in
//     whatever order they end.
//   - Cancellation: a ctx that is done before the call ends it with ctx's error
//     and without a change. One that ends during the call ends it soon.
type Store interface {
	// Append adds entries, in this order.
	Append(ctx context.Context, entries ...Entry) error

	// Since returns the entries that were added after those that an earlier
	// page's Next had covered; with an empty cursor, all of them.
	Since(ctx context.Context, cursor string) (Page, error)

	// Wait blocks until there may be entries after cursor, and then returns nil,
	// so that a list reads them before SyncEvery has passed. It returns an error
	// when ctx ends. A store that cannot wait returns at once an error that
	// matches [errors.ErrUnsupported]: a list then reads it every SyncEvery and
	// does not call Wait again.
	Wait(ctx context.Context, cursor string) error
}
