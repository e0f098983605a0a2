package revoke

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

const (
	// sweepEvery is how often a MemStore drops entries past their Until.
	sweepEvery = time.Minute
	// memPage is how many entries a page of a MemStore has at most.
	memPage = 10_000
)

// MemStore keeps entries in memory, for one process or for tests. The zero
// value is an empty store. It loses its entries when the process ends: a
// session that was revoked is then accepted again. It is safe for concurrent
// use.
type MemStore struct {
	mu      sync.Mutex
	clock   *clock.Clock
	entries []numbered
	last    uint64
	swept   clock.Instant
	news    chan struct{} // closed by the next Append; nil if no call waits
}

type numbered struct {
	number uint64
	entry  Entry
}

// Append adds entries. It fails only if ctx has ended.
func (s *MemStore) Append(ctx context.Context, entries ...Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	for _, e := range entries {
		s.last++
		s.entries = append(s.entries, numbered{s.last, e})
	}
	if s.news != nil && len(entries) > 0 {
		close(s.news)
		s.news = nil
	}
	return nil
}

// Since returns the entries after cursor. It fails only if ctx has ended.
func (s *MemStore) Since(ctx context.Context, cursor string) (Page, error) {
	if err := ctx.Err(); err != nil {
		return Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	after, err := strconv.ParseUint(cursor, 10, 64)
	known := err == nil && after <= s.last
	if !known {
		after = 0
	}
	p := Page{Next: strconv.FormatUint(s.last, 10), Reset: cursor != "" && !known, Time: s.clock.Now()}
	from, _ := slices.BinarySearchFunc(s.entries, after+1, func(n numbered, number uint64) int {
		switch {
		case n.number < number:
			return -1
		case n.number > number:
			return 1
		}
		return 0
	})
	rest := s.entries[from:]
	if len(rest) > memPage {
		rest = rest[:memPage]
		p.More, p.Next = true, strconv.FormatUint(rest[memPage-1].number, 10)
	}
	if len(rest) > 0 {
		p.Entries = make([]Entry, len(rest))
		for i, n := range rest {
			p.Entries[i] = n.entry
		}
	}
	return p, nil
}

// Wait returns when there are entries after cursor, or the cursor is not known.
// It fails only if ctx has ended.
func (s *MemStore) Wait(ctx context.Context, cursor string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	news := s.after(cursor)
	if news == nil {
		return nil
	}
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// after returns a channel that the next Append closes, or nil if cursor is not
// that of the last entry.
func (s *MemStore) after(cursor string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cursor != strconv.FormatUint(s.last, 10) {
		return nil
	}
	if s.news == nil {
		s.news = make(chan struct{})
	}
	return s.news
}

// sweep drops expired entries, at most every sweepEvery. It is called with s.mu
// held.
func (s *MemStore) sweep() {
	if s.clock == nil {
		s.clock = clock.Here()
		s.swept = s.clock.Read()
	}
	if s.clock.Age(s.swept) < sweepEvery {
		return
	}
	now := s.clock.Now()
	s.entries = slices.DeleteFunc(s.entries, func(n numbered) bool { return !now.Before(n.entry.Until) })
	s.swept = s.clock.Read()
}
