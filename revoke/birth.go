package revoke

import (
	"crypto/rand"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// A birth mark says since when a store has lost no entry. The first list that
// reads an empty store writes one; the oldest counts. A list whose store has lost
// its data writes back what it knows, and then the mark that it knew: only then
// does the log say again that it is whole since that time. It waits with the mark
// for long enough that every other list that runs has written back what it alone
// knows.

// foreverYears is how long a birth mark lives.
const foreverYears = 100

// bornLate is how much earlier than the last good reading a mark may be made and
// still count as made after it: two servers of one store have two clocks.
const bornLate = 2 * time.Second

// birth is a birth mark.
type birth struct {
	id Digest
	at int64
}

// births are the birth marks that are known, by id.
type births map[Digest]int64

func (b *births) add(entries []Entry) {
	for i := range entries {
		if e := &entries[i]; e.Scope == Birth {
			b.insert(birth{e.Digest, e.Before.UnixMilli()})
		}
	}
}

func (b *births) insert(n birth) {
	if *b == nil {
		*b = births{}
	}
	if at, ok := (*b)[n.id]; !ok || n.at < at {
		(*b)[n.id] = n.at
	}
}

// oldest returns the oldest mark; there is one.
func (b births) oldest() birth {
	var oldest birth
	first := true
	for id, at := range b {
		if first || at < oldest.at || at == oldest.at && string(id[:]) < string(oldest.id[:]) {
			oldest, first = birth{id, at}, false
		}
	}
	return oldest
}

// shares reports whether a and b have a mark in common.
func (b births) shares(other births) bool {
	for id := range b {
		if _, ok := other[id]; ok {
			return true
		}
	}
	return false
}

func (l *List) birthEntry(b birth) Entry {
	at := timeOf(b.at)
	return Entry{Namespace: l.cfg.Namespace, Scope: Birth, Digest: b.id, Before: at, Until: at.AddDate(foreverYears, 0, 0)}
}

// bear makes a birth mark for a store that has none.
func (l *List) bear(at time.Time) {
	var id Digest
	_, _ = rand.Read(id[:]) // it never fails
	b := birth{id, at.UnixMilli()}
	l.births.insert(b)
	e := l.birthEntry(b)
	l.newborn.Store(&e)
}

// reset is a reading of everything, after the store did not know the cursor.
type reset struct {
	seen    tables
	births  births
	pending []Entry
	latest  latest
}

func newReset() *reset { return &reset{latest: latest{none, none, none}} }

func (r *reset) add(entries []Entry, now time.Time, skew time.Duration) {
	r.births.add(entries)
	r.latest = r.latest.merge(latestOf(entries, now.Add(skew)))
	for _, e := range entries {
		if now.Before(e.Until) {
			r.pending = append(r.pending, e)
		}
	}
	if len(r.pending) >= batch {
		r.apply()
	}
}

func (r *reset) apply() {
	r.seen.apply(r.pending)
	r.pending = nil
}

// endReset judges a store that did not know the cursor. It is the list's own if
// it has a mark that the list knows, or none, or only marks that were made after
// the list's last good reading. What it lacks is then written back. Otherwise
// endReset returns false: it is another store.
func (l *List) endReset(st *state) bool {
	r := l.reset
	l.reset = nil
	r.apply()
	if !l.local && !l.births.shares(r.births) && len(r.births) > 0 && r.births.oldest().at < st.time-bornLate.Milliseconds() {
		return false
	}
	l.known.merge(&r.seen)
	if l.local {
		return true
	}
	lacks := &restore{seen: &r.seen, at: l.clock.Read()}
	if b := l.births.oldest(); !r.births.has(b) {
		lacks.birth = &b
	}
	l.restore.Store(lacks)
	l.newborn.Store(nil) // the mark that is written back is it
	for id, at := range r.births {
		l.births.insert(birth{id, at})
	}
	return true
}

func (b births) has(n birth) bool {
	_, ok := b[n.id]
	return ok
}

// follow looks at the entries of a foreign store: with a mark of the list's own
// store among them, it is read again from the beginning.
func (l *List) follow(entries []Entry) {
	var b births
	b.add(entries)
	if b.shares(l.births) {
		l.cursor, l.reset = "", newReset()
	}
}

// restore is the writing back of what a store has lost.
type restore struct {
	seen  *tables // what the store has
	birth *birth  // what is written last
	at    clock.Instant
	table int // the table to go on with: 0 sessions, 1 keys, 2 groups, 3 subjects, 4 all
	shard int
}

const (
	restoreBirth  = 5   // the value of table when the mark alone is left
	restored      = 6   // and when all is done
	restoreShards = 256 // how many shards are compared at once
)

// nextRestore returns the next entries to write, which may be none, and where to
// go on after that; false while the mark has to wait.
func (l *List) nextRestore(r *restore) (entries []Entry, after restore, ok bool) {
	if r.table == restoreBirth && r.birth != nil && l.clock.Steady(r.at) < 2*l.cfg.SyncEvery {
		return nil, *r, false
	}
	now, _ := l.view.Now()
	after = *r
	for scanned := 0; scanned < restoreShards && len(entries) < writeBatch && after.table < restored; scanned++ {
		if after.table == restoreBirth && r.table != restoreBirth {
			break // by itself
		}
		switch after.table {
		case 0:
			entries = append(entries, l.lackingMarks(Session, &l.known.sessions, &r.seen.sessions, after.shard)...)
		case 1:
			entries = append(entries, l.lackingMarks(Key, &l.known.keys, &r.seen.keys, after.shard)...)
		case 2:
			entries = append(entries, l.lackingMarks(Group, &l.known.groups, &r.seen.groups, after.shard)...)
		case 3:
			entries = append(entries, l.lackingSubjects(&r.seen.subjects, after.shard)...)
		case 4:
			m, seen := l.known.all.Load(), r.seen.all.Load()
			if m != nil && (seen == nil || seen.merge(*m) != *seen) {
				entries = append(entries, l.entryOf(All, Digest{}, *m))
			}
			after.shard = shards
		case restoreBirth:
			if r.birth != nil {
				entries = append(entries, l.birthEntry(*r.birth))
			}
			after.shard = shards
		}
		if after.shard++; after.shard >= shards {
			after.table, after.shard = after.table+1, 0
		}
	}
	out := entries[:0]
	for _, e := range entries {
		if now.Before(e.Until) {
			out = append(out, e)
		}
	}
	return out, after, true
}

func (l *List) entryOf(scope Scope, d Digest, m mark) Entry {
	return Entry{Namespace: l.cfg.Namespace, Scope: scope, Digest: d, Before: timeOf(m.before), Until: timeOf(m.until)}
}

// lackingMarks returns the entries of a shard that the store lacks.
func (l *List) lackingMarks(scope Scope, known, seen *table[mark], n int) (out []Entry) {
	for d, m := range known.shard(n) {
		if s, ok := seen.get(d); !ok || s.merge(m) != s {
			out = append(out, l.entryOf(scope, d, m))
		}
	}
	return out
}

func (l *List) lackingSubjects(seen *table[marks], n int) (out []Entry) {
	for d, m := range l.known.subjects.shard(n) {
		s, ok := seen.get(d)
		for _, one := range []spare{m.first, m.second} {
			if one.before == none || ok && s.merge(marksOf(mark{one.before, m.until}, one.except)) == s {
				continue
			}
			e := l.entryOf(Subject, d, mark{one.before, m.until})
			e.Except = one.except
			out = append(out, e)
		}
	}
	return out
}

// bearing reports whether a birth mark of this list is not in the store yet.
func (l *List) bearing() bool { return l.newborn.Load() != nil }
