package authority

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	// logPage is how many entries a page has at most.
	logPage = 10_000
	// sweepLog is how often expired entries are dropped.
	sweepLog = time.Minute
)

// sharedLog reads the log of revocations of a store for all its namespaces. It
// keeps the entries in memory, from which the list of each namespace reads its
// own.
type sharedLog struct {
	*shared
	store revoke.Store

	// shared.mu guards these.
	cursor string
	known  *entries
	next   *entries // the entries so far of a reading of all that is under way
	swept  clock.Instant
}

// entries are the entries of all namespaces, numbered in their order.
type entries struct {
	epoch string // in every cursor of these entries, and in no other
	last  uint64
	names map[string][]numbered
}

type numbered struct {
	number uint64
	revoke.Entry
}

func newEntries() *entries {
	return &entries{epoch: rand.Text()[:16], names: map[string][]numbered{}}
}

func newSharedLog(store revoke.Store) *sharedLog {
	l := &sharedLog{store: store, known: newEntries()}
	l.shared = newShared(syncLists/2, 0, l.read)
	return l
}

// read reads the new entries, page by page.
func (l *sharedLog) read(ctx context.Context, r *flight.Run) error {
	for {
		l.mu.Lock()
		cursor := l.cursor
		l.mu.Unlock()
		asked := l.clock.Read()
		p, err := l.store.Since(ctx, cursor)
		got := l.clock.Read()
		switch {
		case err != nil:
			return err
		case p.Time.IsZero():
			return errors.New("the store returned no time")
		case p.More && p.Next == cursor:
			return errors.New("the store returns the same page again")
		}
		if !r.Commit(func() { l.take(cursor, p, reading{asked, got, p.Time}) }) {
			return flight.ErrLate
		}
		if !p.More {
			return nil
		}
	}
}

// take applies a page. The pages of a reading of all entries are applied when
// it is complete.
func (l *sharedLog) take(cursor string, p revoke.Page, from reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cursor = p.Next
	if p.Reset && cursor != "" {
		l.next = newEntries()
	}
	if l.next == nil {
		l.known.add(p.Entries)
	} else {
		l.next.add(p.Entries)
	}
	if p.More {
		return
	}
	if l.next != nil {
		l.known, l.next = l.next, nil
	}
	l.last = from
	if l.clock.Age(l.swept) >= sweepLog {
		l.known.sweep(p.Time)
		l.swept = l.clock.Read()
	}
}

func (e *entries) add(more []revoke.Entry) {
	for _, entry := range more {
		of := e.names[entry.Namespace]
		if len(of) > 0 {
			entry.Namespace = of[0].Namespace // share one string
		}
		e.last++
		e.names[entry.Namespace] = append(of, numbered{e.last, entry})
	}
}

// sweep drops expired entries.
func (e *entries) sweep(now time.Time) {
	for name, of := range e.names {
		of = slices.DeleteFunc(of, func(n numbered) bool { return !now.Before(n.Until) })
		if e.names[name] = of; len(of) == 0 {
			delete(e.names, name)
		}
	}
}

// cursor returns the cursor after the entry with a number.
func (e *entries) cursor(number uint64) string { return e.epoch + "." + strconv.FormatUint(number, 10) }

// after returns the number in a cursor, and false for a cursor of other
// entries.
func (e *entries) after(cursor string) (number uint64, ok bool) {
	epoch, text, _ := strings.Cut(cursor, ".")
	number, err := strconv.ParseUint(text, 10, 64)
	return number, err == nil && epoch == e.epoch && number <= e.last
}

// page returns a page of entries, which are in order, after a cursor.
func (e *entries) page(of []numbered, cursor string) revoke.Page {
	number, known := e.after(cursor)
	if !known {
		number = 0
	}
	from, _ := slices.BinarySearchFunc(of, number, func(n numbered, number uint64) int {
		if n.number <= number {
			return -1
		}
		return 1
	})
	of = of[from:]
	p := revoke.Page{Next: e.cursor(e.last), Reset: cursor != "" && !known}
	if len(of) > logPage {
		of = of[:logPage]
		p.More, p.Next = true, e.cursor(of[logPage-1].number)
	}
	for _, n := range of {
		p.Entries = append(p.Entries, n.Entry)
	}
	return p
}

// namespaceLog is a revoke.Store with the entries of one namespace of a
// sharedLog.
type namespaceLog struct {
	log       *sharedLog
	namespace string
	appended  func() // is called after each Append that succeeded; or nil
}

// Append implements revoke.Store.
func (n *namespaceLog) Append(ctx context.Context, entries ...revoke.Entry) error {
	return tellingStore{n.log.store, n.appended}.Append(ctx, entries...)
}

// Since implements revoke.Store, with a reading that begins after the call.
func (n *namespaceLog) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	p, _, _, err := n.SinceAfter(ctx, cursor, n.log.clock.Read())
	return p, err
}

// SinceAfter is Since with a reading that began at after or later. Package
// revoke calls it if a store has it.
func (n *namespaceLog) SinceAfter(ctx context.Context, cursor string, after clock.Instant) (p revoke.Page, asked, got clock.Instant, err error) {
	if err := n.log.await(ctx, after); err != nil {
		return p, asked, got, fmt.Errorf("read the revocations of all tenants: %w", err)
	}
	n.log.mu.Lock()
	defer n.log.mu.Unlock()
	p = n.log.known.page(n.log.known.names[n.namespace], cursor)
	p.Time = n.log.last.time
	return p, n.log.last.asked, n.log.last.got, nil
}

// Wait is not supported: it cannot wait for entries of one namespace.
// [Host.Run] has each list read its new entries.
func (n *namespaceLog) Wait(ctx context.Context, cursor string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.ErrUnsupported
}
