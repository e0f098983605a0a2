package refresh

import (
	"context"
	"sync"
	"time"
)

// MemStore keeps records in memory: for one process, and for tests. The zero
// value is an empty store. It is safe for concurrent use.
type MemStore struct {
	mu      sync.Mutex
	records map[string]Record
	sweepAt int
}

// Create adds a record, unless there is one with its id.
func (s *MemStore) Create(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = make(map[string]Record)
	}
	if len(s.records) >= max(s.sweepAt, 1024) {
		now := time.Now()
		for id, r := range s.records {
			if !now.Before(r.Until) {
				delete(s.records, id)
			}
		}
		s.sweepAt = 2 * len(s.records)
	}
	if _, there := s.records[r.ID]; !there {
		s.records[r.ID] = r
	}
	return nil
}

// Find returns the record with an id, or [ErrNotFound].
func (s *MemStore) Find(ctx context.Context, id string) (Record, error) {
	if err := ctx.Err(); err != nil {
		return Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[id]
	if !ok {
		return Record{}, ErrNotFound
	}
	return r, nil
}

// Swap replaces the record of the version before, or returns [ErrConflict].
func (s *MemStore) Swap(ctx context.Context, r Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.records[r.ID]; !ok || old.Version+1 != r.Version {
		return ErrConflict
	}
	s.records[r.ID] = r
	return nil
}

// Delete removes a record, if it is there.
func (s *MemStore) Delete(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, id)
	return nil
}

// DeleteSubject removes all records of a subject.
func (s *MemStore) DeleteSubject(ctx context.Context, subject string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.records {
		if r.Subject == subject {
			delete(s.records, id)
		}
	}
	return nil
}

// List returns the records of a subject.
func (s *MemStore) List(ctx context.Context, subject string) ([]Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Record
	for _, r := range s.records {
		if r.Subject == subject {
			out = append(out, r)
		}
	}
	return out, nil
}
