package revoke

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Scope is what kind of thing an [Entry] revokes.
type Scope string

// The scopes. Entries of a session and of a key count whenever the session began.
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

// DigestOf returns the digest of a value: the first 128 bits of SHA-256 over
// scope and value, each after its length in 8 bytes, big-endian. It holds no
// secret, so that every list, tool and write-back computes the same.
func DigestOf(scope Scope, value string) Digest {
	var room [256]byte
	b := binary.BigEndian.AppendUint64(room[:0], uint64(len(scope)))
	b = append(b, scope...)
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
	// Entries are those of all namespaces, in the order in which they were added.
	Entries []Entry
	// Next is the cursor to read on with.
	Next string
	// More reports whether entries that were added before the call are left. Next
	// is then another cursor than the one of the call.
	More bool
	// Reset reports that the store does not know the cursor, which was not empty:
	// this is the first page of a reading of everything.
	Reset bool
	// Time is the store's clock at this reading, never zero: that of the server, or
	// of the host for a store without a server.
	Time time.Time
}

// Store keeps entries for all replicas. It holds no logic; package storetest
// shows what it has to do. All methods are called concurrently.
type Store interface {
	// Append adds entries, in this order.
	//
	//   - Success: when it returns nil, every later Since that starts before it
	//     returns them, on every replica.
	//   - Failure: some may have been added, the first ones first. A caller
	//     repeats the call, and repeating is safe: an entry may be there twice.
	Append(ctx context.Context, entries ...Entry) error

	// Since returns the entries that were added after those that an earlier
	// page's Next had covered; with an empty cursor, all of them.
	//
	//   - Repetition: it may return some again.
	//   - Expiry: it may leave out those past their Until by the store's clock.
	//   - Unknown cursor: one that the store does not know, such as one of
	//     another store or from before it lost data, means all, with Reset.
	//   - Pages: only a page without More covers all that was added before the
	//     call.
	//   - Truth: if what answers is a copy that may lag behind, it is an error.
	Since(ctx context.Context, cursor string) (Page, error)
}

// Waiter is what a [Store] may be too: one that can tell when there is news, so
// that a list need not wait for SyncEvery to pass. It is a hint and nothing more:
// what counts is what Since returns, and when.
type Waiter interface {
	// Wait returns nil when there may be entries after cursor, and an error when
	// ctx ends or it cannot wait.
	Wait(ctx context.Context, cursor string) error
}
