package keys

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Stored is the result of [Store].Load. Doc is nil and Rev is "" if there is no
// document.
type Stored struct {
	Doc []byte
	Rev string
	// Time is the time of the store's own clock at the reading. It is zero for
	// a store that has no clock of its own, such as a file or memory.
	Time time.Time
}

// Store keeps opaque documents, one for each name, and replaces them by
// compare-and-swap. A document is the state of the [Ring] of that name. All
// rotation logic lives in the Ring; a Store only stores.
//
// What every implementation promises:
//
//   - Names are separate: two different names never have one document, whatever
//     characters they hold. The empty string is a name too. A name has at most
//     256 bytes and is valid UTF-8 without a NUL.
//   - Absence: a document that was never saved is a Stored without Doc and Rev,
//     not an error. A store that does not know whether there is a document (no
//     connection, no permission, a truncated or empty file) returns an error
//     and never absence: absence makes a Ring create new keys.
//   - Primary: Load reads the copy that Save writes to. A copy that may lag is
//     an error.
//   - Size: a document has 1 byte to 1 MiB. Save refuses any other and
//     changes nothing.
//   - Repetition: Save is not idempotent. A Save that is repeated with the same
//     rev after it succeeded is a conflict, unless it saves the bytes of that
//     revision.
//   - Revisions are opaque, never empty for a document that exists, and only
//     compared for equality. The same bytes may have the same revision again,
//     so a caller for whom that matters puts a counter into the document.
//   - Concurrency: all methods may be called from any number of goroutines
//     and, as far as the store is shared, processes. Of several Saves with the
//     same rev and different documents, one at most succeeds. A Load that
//     begins after a Save returned sees that Save's document or a later one,
//     and always a whole document.
//   - Aliasing: slices are copied. The caller may change what it passed to
//     Save, and what Load returned, without changing the stored document.
//   - Cancellation: a ctx that is done before the call ends it with ctx's
//     error and without a change. One that ends during the call ends it soon.
//   - Time: a store that is shared over a network returns the time of its own
//     clock with each reading, also when there is no document, and never that
//     of the reading process.
//
// A process that can write to a store decides which keys are trusted. Unless
// the document is sealed, a process that can read it can sign.
type Store interface {
	// Load returns the document of that name, its revision, and the time.
	Load(ctx context.Context, name string) (Stored, error)

	// Save replaces the document of that name if its revision still is rev,
	// where "" means that it does not exist yet, and returns the new revision.
	// Otherwise the error matches [ErrConflict] and nothing has changed. After
	// any other error the write may have taken effect: the caller loads again.
	Save(ctx context.Context, name string, doc []byte, rev string) (newRev string, err error)
}

// isLocal reports whether a store's document stays on this host. A Ring refuses
// to keep unsealed private keys in any other store. A type that embeds one of
// these two is another store.
func isLocal(s Store) bool {
	switch s.(type) {
	case *MemStore, *FileStore:
		return true
	}
	return false
}

// maxDocument is how many bytes a stored document has at most.
const maxDocument = 1 << 20

// checkDocument returns an error for a document that no store accepts.
func checkDocument(doc []byte) error {
	if len(doc) == 0 {
		return errors.New("keys: an empty document cannot be saved")
	}
	if len(doc) > maxDocument {
		return fmt.Errorf("keys: a document of %d bytes is over the limit of %d", len(doc), maxDocument)
	}
	return nil
}
