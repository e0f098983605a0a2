package refresh

import (
	"context"
	"time"
)

// MaxData is how many bytes the Data of a [Record] has at most.
const MaxData = 4 << 10

// Record is the stored form of a family. The manager authenticates all fields
// under its secrets. A store keeps each field exactly as it is.
type Record struct {
	Namespace string    // Config.Namespace of the manager; never changes
	ID        string    // unique in its namespace; never changes
	Subject   string    // never changes
	SessionID string    // sid of its session tokens; never changes
	Version   uint64    // grows by one with each change; below 2^63
	Until     time.Time // when the store may forget the record; whole milliseconds
	Data      []byte    // opaque; at most MaxData bytes
}

// Store keeps records for all replicas. It holds no logic; package storetest
// tests a store.
//
// What every implementation promises:
//
//   - Namespaces are separate: no call reads or changes a record of another
//     namespace. Two namespaces may have records with one id, subject or
//     session.
//   - Absence: without a record, Find returns ErrNotFound, Swap returns
//     ErrConflict, and Delete returns nil. The list of a subject without
//     records is empty. A store that does not know whether there is a record
//     returns another error.
//   - Primary: Find and List read the copy that the other methods write to. A
//     copy that may lag is an error.
//   - Size: Data has at most MaxData bytes. Namespace and ID are valid UTF-8
//     without a NUL; Subject and SessionID are any bytes. The cost of List,
//     DeleteSession and DeleteSubject does not grow with the records of other
//     subjects. Deleting a record frees all that the store keeps of it.
//   - Repetition: after an error the call may have taken effect, and the caller
//     repeats it. A Swap that took effect and is repeated returns ErrConflict.
//   - Aliasing: a store keeps no slice that it is given, and returns none that
//     it keeps.
//   - Expiry: a store keeps a record until its Until has passed by the store's
//     own clock. After that the store may drop it.
//   - Concurrency: all methods may be called from any number of goroutines and
//     processes. Of several Swaps of one version exactly one succeeds. A call
//     sees what any replica has written before it.
//   - Cancellation: a ctx that is done before the call ends it with ctx's error
//     and without a change. One that ends during the call ends it soon.
type Store interface {
	// Create adds a record. If there is one with its namespace and id, Create
	// changes nothing and returns nil: it is the same record, which may have
	// been swapped since.
	Create(ctx context.Context, r Record) error
	// Find returns a record.
	Find(ctx context.Context, namespace, id string) (Record, error)
	// Swap replaces the record whose version is one less than that of r.
	Swap(ctx context.Context, r Record) error
	// Delete removes a record.
	Delete(ctx context.Context, namespace, id string) error
	// DeleteSession removes all records of a session.
	DeleteSession(ctx context.Context, namespace, sessionID string) error
	// DeleteSubject removes all records of a subject, except those of the
	// session exceptSessionID. The empty string spares none.
	DeleteSubject(ctx context.Context, namespace, subject, exceptSessionID string) error
	// List returns the records of a subject, in any order.
	List(ctx context.Context, namespace, subject string) ([]Record, error)
}

// AllLister is a [Store] that can list all records of a namespace, to copy them
// to another store. The stores of this library are.
type AllLister interface {
	Store
	// ListAll returns a page of the records of a namespace, in any order. after
	// is the next of the page before, and empty for the first page. An empty
	// next means that there are no more pages. A record that is there during
	// all calls is in one page or more. A page may be empty. Absence, Primary,
	// Aliasing, Expiry and Cancellation are as in Store.
	ListAll(ctx context.Context, namespace, after string) (page []Record, next string, err error)
}
