package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/keys"
)

// ringsApart is the least time between two readings for unknown key ids, for
// all rings together.
const ringsApart = 100 * time.Millisecond

// sharedRings is a keys.Store for many rings. It reads the revisions of all of
// them at once, and loads a document only if its revision has changed.
type sharedRings struct {
	*shared
	store Store

	// shared.mu guards these.
	names []string
	revs  map[string]string // by name, of the last reading
	kept  map[string]document
}

// document is the document that was loaded last.
type document struct {
	doc []byte
	rev string
}

func newSharedRings(store Store) *sharedRings {
	s := &sharedRings{store: store, kept: map[string]document{}}
	s.shared = newShared(syncRings, ringsApart, s.read)
	return s
}

// add adds a ring, whose revision is read from now on.
func (s *sharedRings) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = append(s.names, name)
}

func (s *sharedRings) read(ctx context.Context, r *flight.Run) error {
	s.mu.Lock()
	names := s.names[:len(s.names):len(s.names)]
	s.mu.Unlock()
	asked := s.clock.Read()
	list, now, err := s.store.Revisions(ctx, names...)
	got := s.clock.Read()
	if err != nil {
		return err
	}
	if len(list) != len(names) {
		return errors.New("the store has not told a revision for each ring")
	}
	revs := make(map[string]string, len(names))
	for i, name := range names {
		revs[name] = list[i]
	}
	if !r.Commit(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.revs, s.last = revs, reading{asked, got, now}
	}) {
		return flight.ErrLate
	}
	return nil
}

// Load implements keys.Store.
func (s *sharedRings) Load(ctx context.Context, name string) (keys.Stored, error) {
	stored, err := s.store.Load(ctx, name)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept[name] = document{bytes.Clone(stored.Doc), stored.Rev}
	}
	return stored, err
}

// LoadAfter is Load with a reading that began at after or later. Package keys
// calls it if a store has it.
func (s *sharedRings) LoadAfter(ctx context.Context, name string, after clock.Instant) (stored keys.Stored, asked, got clock.Instant, err error) {
	if err := s.await(ctx, after); err != nil {
		return stored, asked, got, fmt.Errorf("read the revisions of all rings: %w", err)
	}
	if stored, at, ok := s.unchanged(name); ok {
		return stored, at.asked, at.got, nil
	}
	asked = s.clock.Read()
	stored, err = s.Load(ctx, name)
	return stored, asked, s.clock.Read(), err
}

// unchanged returns the document that was loaded last, if the store still has
// its revision.
func (s *sharedRings) unchanged(name string) (stored keys.Stored, at reading, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, isKept := s.kept[name]
	rev, isRead := s.revs[name]
	if !isKept || !isRead || kept.rev != rev {
		return stored, at, false
	}
	return keys.Stored{Doc: bytes.Clone(kept.doc), Rev: rev, Time: s.last.time}, s.last, true
}

// Save implements keys.Store.
func (s *sharedRings) Save(ctx context.Context, name string, doc []byte, rev string) (string, error) {
	return s.store.Save(ctx, name, doc, rev)
}
