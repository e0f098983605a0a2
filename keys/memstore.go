package keys

import (
	"bytes"
	"context"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// MemStore is a [Store] in the memory of one process, for tests or for a single
// process: all sessions end with it. Its zero value is an empty store. It must
// not be copied after first use.
//
// Two processes with a MemStore each have two unrelated sets of keys, and
// refuse each other's tokens.
type MemStore struct {
	saving sync.Mutex
	// A pointer to an immutable map, by name. With a pointer, %+v prints an
	// address and not private keys.
	documents atomic.Pointer[map[string]memDocument]
}

type memDocument struct {
	doc []byte
	n   uint64 // 1 for the first document saved
}

var _ Store = (*MemStore)(nil)

// revision of the document; "" for none.
func (d memDocument) revision() string {
	if d.n == 0 {
		return ""
	}
	return strconv.FormatUint(d.n, 10)
}

// Load implements [Store]. Its only error is ctx's. Time is zero: a MemStore
// has no clock of its own.
func (s *MemStore) Load(ctx context.Context, name string) (Stored, error) {
	if err := ctx.Err(); err != nil {
		return Stored{}, err
	}
	cur := s.load()[name]
	return Stored{Doc: bytes.Clone(cur.doc), Rev: cur.revision()}, nil
}

// Revisions returns the revisions of documents, in the order of names: those that
// Load returns. Its only error is ctx's. The time is zero, as that of Load.
func (s *MemStore) Revisions(ctx context.Context, names ...string) (revs []string, now time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return nil, time.Time{}, err
	}
	documents := s.load()
	for _, name := range names {
		revs = append(revs, documents[name].revision())
	}
	return revs, time.Time{}, nil
}

// Save implements [Store]. Revisions are a counter, in decimal. An error of
// any kind means that nothing was written.
func (s *MemStore) Save(ctx context.Context, name string, doc []byte, rev string) (newRev string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkDocument(doc); err != nil {
		return "", err
	}
	s.saving.Lock()
	defer s.saving.Unlock()
	old := s.load()
	if old[name].revision() != rev {
		return "", ErrConflict
	}
	next := memDocument{doc: bytes.Clone(doc), n: old[name].n + 1}
	documents := maps.Clone(old)
	if documents == nil {
		documents = make(map[string]memDocument)
	}
	documents[name] = next
	s.documents.Store(&documents)
	return next.revision(), nil
}

func (s *MemStore) load() map[string]memDocument {
	if documents := s.documents.Load(); documents != nil {
		return *documents
	}
	return nil
}
