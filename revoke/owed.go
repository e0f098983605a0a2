package revoke

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/flight"
)

const (
	// firstPause and lastPause bound the pause after a write that failed.
	firstPause, lastPause = 250 * time.Millisecond, 4 * time.Second
	// writeAtOnce is about how many entries one Append gets.
	writeAtOnce = 256
	// maxOwed is how many entries a list owes at most: about 300 MB.
	maxOwed = 1 << 20
)

var errFull = errors.New("revoke: the store has not acknowledged a million entries; nothing was revoked")

// owed holds the entries that the store has not acknowledged.
type owed struct {
	count atomic.Int64

	mu      sync.RWMutex
	entries map[owedName][]*owedEntry // entries of one name differ in Except
	urgent  map[*owedEntry]int        // how many calls wait for an entry
}

type owedName struct {
	scope  Scope
	digest Digest
}

type owedEntry struct {
	entry        Entry
	stamped      bool   // the entry has its times
	version      uint64 // grows with each change
	acknowledged uint64 // the newest version that the store has acknowledged
}

// put adds an entry, or merges it into an owed one, and returns that one with
// its version. It returns nil if there are maxOwed entries.
func (o *owed) put(e Entry, stamped bool) (*owedEntry, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	name := owedName{e.Scope, e.Digest}
	for _, w := range o.entries[name] {
		if w.entry.Except == e.Except {
			w.merge(e, stamped)
			o.wait(w)
			return w, w.version
		}
	}
	return o.add(name, e, stamped)
}

// add adds an entry. o.mu is held.
func (o *owed) add(name owedName, e Entry, stamped bool) (*owedEntry, uint64) {
	if o.count.Load() >= maxOwed {
		return nil, 0
	}
	w := &owedEntry{entry: e, stamped: stamped, version: 1}
	o.entries[name] = append(o.entries[name], w)
	o.count.Add(1)
	o.wait(w)
	return w, w.version
}

func (o *owed) wait(w *owedEntry) {
	if o.urgent == nil {
		o.urgent = map[*owedEntry]int{}
	}
	o.urgent[w]++
}

// done records that a call no longer waits for w.
func (o *owed) done(w *owedEntry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.urgent[w]--; o.urgent[w] <= 0 {
		delete(o.urgent, w)
	}
}

// hasWritten reports whether the store has acknowledged a version of w.
func (o *owed) hasWritten(w *owedEntry, version uint64) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return w.acknowledged >= version
}

// merge makes w revoke what e revokes too. An entry of a session does not
// change: it revokes the session whenever that began, so that repeated calls
// share one write.
func (w *owedEntry) merge(e Entry, stamped bool) {
	until := w.entry.Until
	switch {
	case !w.stamped && !stamped:
		return
	case !w.stamped: // the later time revokes the sessions of both calls
		w.entry, w.stamped = e, true
	case w.entry.Scope == Session:
		return
	case !stamped:
		w.stamped = false
	case !e.Before.After(w.entry.Before) && !e.Until.After(until):
		return
	default:
		if e.Before.After(w.entry.Before) {
			w.entry.Before = e.Before
		}
		w.entry.Until = e.Until
	}
	if w.entry.Until.Before(until) {
		w.entry.Until = until
	}
	w.version++
}

// stamp calls f for the entries that have no times yet, and returns them.
func (o *owed) stamp(f func(*Entry)) (stamped []Entry) {
	if o.count.Load() == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ws := range o.entries {
		for _, w := range ws {
			if !w.stamped {
				f(&w.entry)
				w.stamped = true
				w.version++
				stamped = append(stamped, w.entry)
			}
		}
	}
	return stamped
}

// owedVersion is the version of an entry that a write holds.
type owedVersion struct {
	owed    *owedEntry
	version uint64
}

// next returns entries to write: those that calls wait for and, if all is set,
// others.
func (o *owed) next(all bool) (entries []Entry, versions []owedVersion) {
	if o.count.Load() == 0 {
		return nil, nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	add := func(w *owedEntry) bool {
		if w.stamped && w.acknowledged < w.version {
			entries, versions = append(entries, w.entry), append(versions, owedVersion{w, w.version})
		}
		return len(entries) < writeAtOnce
	}
	for w := range o.urgent {
		if !add(w) {
			return entries, versions
		}
	}
	if !all {
		return entries, versions
	}
	for _, ws := range o.entries {
		for _, w := range ws {
			if o.urgent[w] == 0 && !add(w) {
				return entries, versions
			}
		}
	}
	return entries, versions
}

// acknowledge records that the store has acknowledged these versions.
func (o *owed) acknowledge(versions []owedVersion) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range versions {
		v.owed.acknowledged = max(v.owed.acknowledged, v.version)
		if v.owed.acknowledged < v.owed.version {
			continue
		}
		name := owedName{v.owed.entry.Scope, v.owed.entry.Digest}
		ws := o.entries[name]
		for i, w := range ws {
			if w == v.owed {
				ws = append(ws[:i:i], ws[i+1:]...)
				o.count.Add(-1)
				break
			}
		}
		if o.entries[name] = ws; len(ws) == 0 {
			delete(o.entries, name)
		}
	}
}

// concerns reports whether an owed entry revokes the session of q.
func (o *owed) concerns(q *Question) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.entries[owedName{Session, q.session}]) > 0 || len(o.entries[owedName{Key, q.key}]) > 0 {
		return true
	}
	for _, name := range [...]owedName{{Subject, q.subject}, {All, Digest{}}} {
		for _, w := range o.entries[name] {
			if q.session != w.entry.Except && w.reaches(q.began) {
				return true
			}
		}
	}
	for _, group := range q.groups {
		for _, w := range o.entries[owedName{Group, group}] {
			if w.reaches(q.began) {
				return true
			}
		}
	}
	return false
}

// reaches reports whether a mark revokes a session that began at that time, or
// may do so once it has its time.
func (w *owedEntry) reaches(began int64) bool {
	return !w.stamped || began <= w.entry.Before.UnixMilli()
}

// holds reports whether the revocation of a session is owed.
func (o *owed) holds(name owedName) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return len(o.entries[name]) > 0
}

// retry starts a write of the owed entries in the background, unless the last
// write or reading has just failed.
func (l *List) retry() {
	if l.lastErr() == nil && l.unwritten() {
		l.writing.Go()
		l.wakeWriter()
	}
}

func (l *List) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// unwritten reports whether the list has entries to write, and may write them.
func (l *List) unwritten() bool {
	if st := l.state.Load(); st != nil && st.foreign {
		return false
	}
	return l.owed.count.Load() > 0 || l.restore.Load() != nil || l.newborn.Load() != nil
}

// write writes all entries that are to be written, about writeAtOnce at a time.
func (l *List) write(ctx context.Context, r *flight.Run) error {
	l.writes.Add(1)
	for {
		if st := l.state.Load(); st != nil && st.foreign {
			return errForeign
		}
		entries, commit := l.nextWrite()
		if len(entries) == 0 {
			if commit == nil {
				return nil
			}
		} else if err := l.cfg.Store.Append(ctx, entries...); err != nil {
			return err
		}
		l.applyMarks(entries)
		if !r.Commit(commit) {
			return flight.ErrLate
		}
	}
}

// nextWrite returns the entries to write next, and a function to call when the
// store has acknowledged them, or nil if there are none. A store that cannot be
// read may be another one: only entries that a call waits for are then written.
func (l *List) nextWrite() (entries []Entry, commit func()) {
	readable := l.lastErr() == nil
	if entries, versions := l.owed.next(readable); len(entries) > 0 {
		return entries, func() {
			l.owed.acknowledge(versions)
			l.acknowledged.Add(uint64(len(entries) - len(marksIn(entries))))
		}
	}
	if !readable {
		return nil, nil
	}
	// If the store has lost its data again, another restore has replaced this
	// one, and is not changed.
	if r := l.restore.Load(); r != nil {
		entries, after, ok := l.nextRestore(r)
		if !ok {
			return nil, nil
		}
		next := &after
		if after.table == restored {
			next = nil
		}
		return entries, func() { l.restore.CompareAndSwap(r, next) }
	}
	if e := l.newborn.Load(); e != nil {
		return []Entry{*e}, func() { l.newborn.CompareAndSwap(e, nil) }
	}
	return nil, nil
}

// writingEnded is called with the result of each write.
func (l *List) writingEnded(err error) {
	if err == nil {
		return
	}
	l.writeFailures.Add(1)
	l.loud.Warn("store_unwritable", "revoke: the store cannot be written; the list keeps the revocations and writes them again. Their sessions are refused until then. Check the store, its disk, and the right to write", "owed", l.owed.count.Load(), "error", err)
}

// writeOn writes owed entries until ctx ends, and then for at most 5 s.
func (l *List) writeOn(ctx context.Context) {
	tick := min(firstPause, l.cfg.SyncEvery)
	for ctx.Err() == nil {
		if !l.unwritten() {
			select {
			case <-l.wake:
			case <-ctx.Done():
			}
			continue
		}
		if l.lastErr() == nil {
			_, _ = l.writing.Try(ctx, 0)
		}
		wait(ctx, tick)
	}
	ended := l.clock.Read()
	for {
		left := revokeLimit - l.clock.Steady(ended)
		if left <= 0 || !l.unwritten() {
			return
		}
		if l.lastErr() != nil {
			_ = l.syncing.Do(context.Background(), left)
		}
		_, _ = l.writing.Try(context.Background(), left)
		wait(context.Background(), min(left, tick))
	}
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
