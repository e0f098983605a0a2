package refresh

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// MemStore keeps records in memory, for one process or for tests. Its zero
// value is an empty store. It forgets a record within about a minute after its
// Until, and all of them when the process ends. It is safe for concurrent use.
type MemStore struct {
	mu       sync.Mutex
	records  map[name]*kept
	sessions map[name]set  // by session id
	subjects map[name]set  // by subject
	minutes  map[int64]set // by the minute of Until
	swept    int64         // the first minute that was not swept

	clock *clock.Clock
	began clock.Instant
}

// name is an id, a session or a subject in its namespace.
type name struct{ namespace, value string }

type set map[*kept]struct{}

type kept struct {
	Record
	minute int64
}

// begin locks the store and drops expired records. The caller unlocks it.
func (s *MemStore) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.records == nil {
		s.records = map[name]*kept{}
		s.sessions, s.subjects, s.minutes = map[name]set{}, map[name]set{}, map[int64]set{}
		s.clock = clock.Here()
		s.began = s.clock.Read()
		s.swept = minute(s.now())
	}
	s.sweep()
	return nil
}

// now returns the time: the host's when the store was first used, and the
// monotonic clock since, so that a jump of the host's clock has no effect.
func (s *MemStore) now() time.Time { return s.began.Wall().Add(s.clock.Steady(s.began)) }

func minute(t time.Time) int64 { return t.Unix() / 60 }

// sweep drops the records of the minutes that have passed.
func (s *MemStore) sweep() {
	now := minute(s.now())
	if s.swept >= now {
		return
	}
	if now-s.swept > int64(len(s.minutes)) {
		for m, of := range s.minutes {
			if m < now {
				s.dropAll(of)
			}
		}
	} else {
		for m := s.swept; m < now; m++ {
			s.dropAll(s.minutes[m])
		}
	}
	s.swept = now
}

func (s *MemStore) dropAll(of set) {
	for k := range of {
		s.drop(k)
	}
}

func (s *MemStore) drop(k *kept) {
	delete(s.records, name{k.Namespace, k.ID})
	remove(s.sessions, name{k.Namespace, k.SessionID}, k)
	remove(s.subjects, name{k.Namespace, k.Subject}, k)
	remove(s.minutes, k.minute, k)
}

func add[K comparable](index map[K]set, key K, k *kept) {
	of := index[key]
	if of == nil {
		of = set{}
		index[key] = of
	}
	of[k] = struct{}{}
}

func remove[K comparable](index map[K]set, key K, k *kept) {
	of := index[key]
	delete(of, k)
	if len(of) == 0 {
		delete(index, key)
	}
}

// file adds k to the minute in which sweep drops it. A record of a minute that
// was already swept is dropped with the next one.
func (s *MemStore) file(k *kept) {
	k.minute = max(minute(k.Until), s.swept)
	add(s.minutes, k.minute, k)
}

// Create adds a record, unless its namespace has one with its id.
func (s *MemStore) Create(ctx context.Context, r Record) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.records[name{r.Namespace, r.ID}] != nil {
		return nil
	}
	r.Data = slices.Clone(r.Data)
	k := &kept{Record: r}
	s.records[name{r.Namespace, r.ID}] = k
	add(s.sessions, name{r.Namespace, r.SessionID}, k)
	add(s.subjects, name{r.Namespace, r.Subject}, k)
	s.file(k)
	return nil
}

// Find returns a record, or [ErrNotFound].
func (s *MemStore) Find(ctx context.Context, namespace, id string) (Record, error) {
	if err := s.begin(ctx); err != nil {
		return Record{}, err
	}
	defer s.mu.Unlock()
	k := s.records[name{namespace, id}]
	if k == nil {
		return Record{}, ErrNotFound
	}
	return k.copy(), nil
}

func (k *kept) copy() Record {
	r := k.Record
	r.Data = slices.Clone(r.Data)
	return r
}

// Swap replaces the record whose version is one less, or returns [ErrConflict].
func (s *MemStore) Swap(ctx context.Context, r Record) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	k := s.records[name{r.Namespace, r.ID}]
	if k == nil || k.Version+1 != r.Version {
		return ErrConflict
	}
	remove(s.minutes, k.minute, k)
	k.Version, k.Until, k.Data = r.Version, r.Until, slices.Clone(r.Data)
	s.file(k)
	return nil
}

// Delete removes a record, if there is one.
func (s *MemStore) Delete(ctx context.Context, namespace, id string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if k := s.records[name{namespace, id}]; k != nil {
		s.drop(k)
	}
	return nil
}

// DeleteSession removes all records of a session.
func (s *MemStore) DeleteSession(ctx context.Context, namespace, sessionID string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.dropAll(s.sessions[name{namespace, sessionID}])
	return nil
}

// DeleteSubject removes all records of a subject except those of one session.
func (s *MemStore) DeleteSubject(ctx context.Context, namespace, subject, exceptSessionID string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for k := range s.subjects[name{namespace, subject}] {
		if exceptSessionID == "" || k.SessionID != exceptSessionID {
			s.drop(k)
		}
	}
	return nil
}

// List returns the records of a subject.
func (s *MemStore) List(ctx context.Context, namespace, subject string) ([]Record, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var list []Record
	for k := range s.subjects[name{namespace, subject}] {
		list = append(list, k.copy())
	}
	return list, nil
}

// pageSize is how many records a page of ListAll has at most.
const pageSize = 1000

// ListAll returns a page of the records of a namespace, by their ids. It is
// part of [AllLister].
func (s *MemStore) ListAll(ctx context.Context, namespace, after string) (page []Record, next string, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, "", err
	}
	defer s.mu.Unlock()
	var ids []string
	for n := range s.records {
		if n.namespace == namespace && n.value > after {
			ids = append(ids, n.value)
		}
	}
	slices.Sort(ids)
	if len(ids) > pageSize {
		ids = ids[:pageSize]
		next = ids[pageSize-1]
	}
	for _, id := range ids {
		page = append(page, s.records[name{namespace, id}].copy())
	}
	return page, next, nil
}
