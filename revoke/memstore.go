package revoke

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"
)

// MemStore keeps entries in memory: for one process, and for tests. The zero
// value is an empty store. It is safe for concurrent use.
type MemStore struct {
	mu      sync.Mutex
	entries []numbered
	last    uint64
	sweepAt int
}

type numbered struct {
	number uint64
	entry  Entry
}

// Append adds an entry. It fails only if ctx has ended.
func (s *MemStore) Append(ctx context.Context, e Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) >= max(s.sweepAt, 1024) {
		now := time.Now()
		s.entries = slices.DeleteFunc(s.entries, func(n numbered) bool { return !now.Before(n.entry.Until) })
		s.sweepAt = 2 * len(s.entries)
	}
	s.last++
	s.entries = append(s.entries, numbered{s.last, e})
	return nil
}

// Since returns all entries after cursor. It fails only if ctx has ended.
func (s *MemStore) Since(ctx context.Context, cursor string) ([]Entry, string, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", false, err
	}
	after, err := strconv.ParseUint(cursor, 10, 64)
	if err != nil {
		after = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from, _ := slices.BinarySearchFunc(s.entries, after+1, func(n numbered, number uint64) int {
		switch {
		case n.number < number:
			return -1
		case n.number > number:
			return 1
		}
		return 0
	})
	var out []Entry
	for _, n := range s.entries[from:] {
		out = append(out, n.entry)
	}
	return out, strconv.FormatUint(s.last, 10), false, nil
}
