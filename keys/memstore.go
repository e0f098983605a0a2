package keys

import (
	"bytes"
	"context"
	"strconv"
	"sync/atomic"
)

// MemStore is a [Store] in the memory of one process: for tests, and for a
// single process whose sessions may all end when it does. Its zero value is
// an empty store, ready for use. It must not be copied after first use.
//
// Two processes with a MemStore each have two unrelated sets of keys, and
// refuse each other's tokens.
type MemStore struct {
	// A pointer to a value that never changes once it is stored. It also
	// keeps private keys out of a careless %+v, which prints an address.
	current atomic.Pointer[memDocument]
}

type memDocument struct {
	doc []byte
	n   uint64 // 1 for the first document saved
}

var (
	_ Store      = (*MemStore)(nil)
	_ localStore = (*MemStore)(nil)
)

// revision of the document; "" for none.
func (d *memDocument) revision() string {
	if d == nil {
		return ""
	}
	return strconv.FormatUint(d.n, 10)
}

// Load implements [Store]. Its only error is ctx's.
func (s *MemStore) Load(ctx context.Context) (doc []byte, rev string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	cur := s.current.Load()
	if cur == nil {
		return nil, "", nil
	}
	return bytes.Clone(cur.doc), cur.revision(), nil
}

// Save implements [Store]. Revisions are a counter, in decimal. An error of
// any kind means that nothing was written.
func (s *MemStore) Save(ctx context.Context, doc []byte, rev string) (newRev string, err error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := checkDocument(doc); err != nil {
		return "", err
	}
	cur := s.current.Load()
	if cur.revision() != rev {
		return "", ErrConflict
	}
	next := &memDocument{doc: bytes.Clone(doc), n: 1}
	if cur != nil {
		next.n = cur.n + 1
	}
	if !s.current.CompareAndSwap(cur, next) {
		return "", ErrConflict
	}
	return next.revision(), nil
}

func (*MemStore) local() {}
