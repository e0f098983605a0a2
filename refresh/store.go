package refresh

import (
	"context"
	"time"
)

// MaxData is the most bytes that the Data of a [Record] has.
const MaxData = 4 << 10

// Record is what a store keeps of a family. The manager authenticates all of it
// under its secrets. A store keeps each field exactly as it is.
type Record struct {
	Namespace string    // of the manager: records of two namespaces never meet
	ID        string    // unique in its namespace
	Subject   string    // never changes, as Namespace, ID and SessionID do not
	SessionID string    // sid of its session tokens
	Version   uint64    // one more with each change; below 2^63
	Until     time.Time // when the store may forget the record; whole milliseconds
	Data      []byte    // opaque; at most MaxData bytes
}

// Store keeps records for all replicas. It holds no logic; package storetest
// tests a store.
//
// What every implementation promises:
//
//   - Namespaces are apart: no call reads or changes a record of another
//     namespace. Two namespaces may have records with one id, subject or
//     session.
//   - Absence: Find returns ErrNotFound for a record that is not there, and
//     Swap returns ErrConflict. To delete what is not there is no error. The
//     list of a subject without records is empty. A store that cannot tell
//     answers with another error.
//   - Primary: Find and List answer from what the others write to. A copy that
//     may lag is an error.
//   - Size: Data has at most MaxData bytes. Namespace and ID are valid UTF-8
//     without a NUL; Subject and SessionID are any bytes. List, DeleteSession
//     and DeleteSubject cost no more if other subjects have many records, and
//     what a store keeps of a record goes with it.
//   - Repetition: a caller repeats every method after an error, since the call
//     may have had its effect. A Swap that is repeated after it had is a
//     conflict.
//   - Aliasing: a store keeps no slice that it is given, and returns none that
//     it keeps.
//   - Expiry: a store keeps a record until its Until has passed by the store's
//     own clock. After that the record may be there or not.
//   - Concurrency: all methods may be called from any number of goroutines and
//     processes. Of several Swaps of one version exactly one succeeds. What one
//     replica has written, the next call of any replica sees.
//   - Cancellation: a ctx that is done before the call ends it with ctx's error
//     and without a change. One that ends during the call ends it soon.
type Store interface {
	// Create adds a record. If there is one with its namespace and id, Create
	// changes nothing: it is the same record, which may have been swapped
	// since.
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
