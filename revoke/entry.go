package revoke

import (
	"context"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/digest"
)

// Scope is the kind of an [Entry]: what it revokes.
type Scope string

// The scopes. An entry of a session or a key revokes it whenever the session
// began. Those of a subject, a group or all revoke the sessions that began by
// Entry.Before.
const (
	Session Scope = "session" // the session with this id (sid)
	Subject Scope = "subject" // sessions of this subject (sub)
	Group   Scope = "group"   // sessions of this group (in the sid)
	Key     Scope = "key"     // every token signed with this key (kid)
	All     Scope = "all"     // all sessions
	Birth   Scope = "birth"   // revokes nothing: the store has lost no entry since Entry.Before
	Changed Scope = "changed" // revokes nothing: the state of this subject (sub) has changed
)

// Digest names a session, a subject, a group or a key in stores and lists,
// which do not hold the name itself.
type Digest [16]byte

// Digest returns the digest of a value of this scope, such as a session's id:
// the first 128 bits of SHA-256 over the scope and the value, each after its
// length in 8 bytes, big-endian. No secret is hashed with them, so that every
// list and tool computes the same digest.
func (s Scope) Digest(value string) Digest {
	return digest.Of(string(s), value)
}

// Entry is one revocation. Adding it twice has the same effect as once.
type Entry struct {
	Namespace string    // of the list that wrote it: Config.Namespace
	Scope     Scope     // what Digest names
	Digest    Digest    // Scope.Digest of the value; for Changed Subject.Digest; for Birth a random id; for All zero
	Except    Digest    // the session that a Subject entry does not revoke; zero: none
	Before    time.Time // in whole milliseconds of the store's time: sessions that began later are not revoked. Of Birth: when the store was born. Of Changed: its number
	Until     time.Time // in whole milliseconds of the store's time: when the entry may be dropped
	Skip      bool      // a list that does not know Scope ignores the entry; if false, such a list fails closed
}

// Page is the result of [Store].Since.
type Page struct {
	// Entries are entries of all namespaces, in the order in which they were
	// added.
	Entries []Entry
	// Next is the cursor of the next page.
	Next string
	// More reports whether the store has further entries that were added before
	// the call. Next then differs from the cursor of the call.
	More bool
	// Reset reports whether the store does not know the cursor, which was not
	// empty. This is then the first page of all entries.
	Reset bool
	// Time is the time of the store's clock at this reading, never zero. The
	// clock is that of the server, or of the host for a store without a server.
	Time time.Time
}

// Store keeps entries for all replicas. It holds no logic; package storetest
// tests a store.
//
// What every implementation promises:
//
//   - Absence: an empty store returns a page without entries, with a cursor and
//     the time. A store that cannot read its entries returns an error.
//   - Success: when Append has returned nil, every Since that begins later
//     returns its entries, on every replica, after the entries of earlier
//     Appends.
//   - Primary: Since reads the copy that Append writes to. A copy that may lag
//     is an error.
//   - Size: Append takes any number of entries. A page has at most 10,000, so
//     that it is read within one reading's limit. Namespace and Scope are valid
//     UTF-8 without a NUL.
//   - Repetition: after an error the first few entries may have been added. The
//     caller repeats the call, so that Since may return an entry twice.
//   - Cursors: for a cursor that the store does not know, such as one of
//     another store or from before a loss of data, Since returns all entries,
//     with Reset. Entries that were added before the call are complete with the
//     page without More.
//   - Aliasing: slices are copied. The caller may change what it passed to
//     Append, and what Since returned.
//   - Expiry: a store may drop an entry past its Until by the store's own
//     clock, and no other.
//   - Concurrency: all methods may be called from any number of goroutines and
//     processes. A cursor is never after an entry whose Append has not returned
//     yet, in whatever order Appends return.
//   - Cancellation: a ctx that is done before the call ends it with ctx's error
//     and without a change. One that ends during the call ends it soon.
type Store interface {
	// Append adds entries, in this order.
	Append(ctx context.Context, entries ...Entry) error

	// Since returns a page of the entries after cursor, which is the Next of an
	// earlier page. An empty cursor means all entries.
	Since(ctx context.Context, cursor string) (Page, error)

	// Wait blocks until there may be entries after cursor, and then returns nil,
	// so that a list reads them before SyncEvery has passed. It returns an error
	// when ctx ends. A store that cannot wait returns at once an error that
	// matches [errors.ErrUnsupported]: a list then reads it every SyncEvery and
	// does not call Wait again.
	Wait(ctx context.Context, cursor string) error
}
