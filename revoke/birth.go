package revoke

import (
	"crypto/rand"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// A birth mark is an entry with the time since which a store has lost no entry.
// The first list that reads an empty store writes one; of several, the oldest
// is used. A list whose store has lost its data writes back the entries that it
// has, and then the old birth mark, by which the store is complete again since
// that time. It delays the mark until every other running list has written back
// its own entries too.

// foreverYears is how long a birth mark lives.
const foreverYears = 100

// bornLate is how much earlier than the last successful reading a mark may be,
// and still count as made after it: two servers of one store have two clocks.
const bornLate = 2 * time.Second

// birth is a birth mark.
type birth struct {
	id Digest
	at int64
}

// births are the birth marks that a list has read, by id.
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

// oldest returns the oldest mark. There must be one.
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

// makeBirth makes a birth mark for a store that has none.
func (l *List) makeBirth(at time.Time) {
	var id Digest
	_, _ = rand.Read(id[:]) // never fails
	b := birth{id, at.UnixMilli()}
	l.births.insert(b)
	e := l.birthEntry(b)
	l.newborn.Store(&e)
}

// reset is a reading of all entries, after the store did not know the cursor.
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
	if len(r.pending) >= applyAtOnce {
		r.apply()
	}
}

func (r *reset) apply() {
	r.seen.apply(r.pending)
	r.pending = nil
}

// endReset decides whether a store that did not know the cursor is the list's
// own. It is if it has a mark that the list has read, or no mark, or only marks
// that were made after the list's last successful reading. The entries that it
// lacks are then written back. Otherwise it is another store, and endReset
// returns false.
func (l *List) endReset(st *state) bool {
	r := l.reset
	l.reset = nil
	r.apply()
	if !l.local && !l.births.shares(r.births) && len(r.births) > 0 && r.births.oldest().at < st.time-bornLate.Milliseconds() {
		return false
	}
	l.tables.merge(&r.seen)
	l.hear([]Entry{{Scope: All}})
	if l.local {
		return true
	}
	if l.isReadOnly() {
		l.births = r.births
		return true
	}
	lacks := &restore{seen: &r.seen, at: l.clock.Read()}
	if b := l.births.oldest(); !r.births.has(b) {
		lacks.birth = &b
	}
	l.restore.Store(lacks)
	l.newborn.Store(nil) // the old mark is written back instead
	for id, at := range r.births {
		l.births.insert(birth{id, at})
	}
	return true
}

func (b births) has(n birth) bool {
	_, ok := b[n.id]
	return ok
}

// follow reads the entries of another store. If one is a birth mark of the
// list's own store, that store is back, and it is read again from the
// beginning.
func (l *List) follow(entries []Entry) {
	var b births
	b.add(entries)
	if b.shares(l.births) {
		l.cursor, l.reset = "", newReset()
	}
}

// restore is the state of writing back entries that a store has lost.
type restore struct {
	seen  *tables // the entries that the store has
	birth *birth  // the mark to write last
	at    clock.Instant
	table int // the next table: 0 sessions, 1 keys, 2 groups, 3 subjects, 4 changed, 5 all
	shard int
}

const (
	restoreBirth  = 6   // the value of table when only the mark is left
	restored      = 7   // the value of table when nothing is left
	restoreShards = 256 // how many shards are compared at once
)

// nextRestore returns the next entries to write, which may be none, and the
// state after that. ok is false while the mark must wait.
func (l *List) nextRestore(r *restore) (entries []Entry, after restore, ok bool) {
	if r.table == restoreBirth && r.birth != nil && l.clock.Steady(r.at) < 2*l.cfg.SyncEvery {
		return nil, *r, false
	}
	now, _ := l.view.Now()
	after = *r
	for scanned := 0; scanned < restoreShards && len(entries) < writeAtOnce && after.table < restored; scanned++ {
		if after.table == restoreBirth && r.table != restoreBirth {
			break // the mark is written alone
		}
		switch after.table {
		case 0:
			entries = append(entries, l.lackingMarks(Session, &l.tables.sessions, &r.seen.sessions, after.shard)...)
		case 1:
			entries = append(entries, l.lackingMarks(Key, &l.tables.keys, &r.seen.keys, after.shard)...)
		case 2:
			entries = append(entries, l.lackingMarks(Group, &l.tables.groups, &r.seen.groups, after.shard)...)
		case 3:
			entries = append(entries, l.lackingSubjects(&r.seen.subjects, after.shard)...)
		case 4:
			entries = append(entries, l.lackingMarks(Changed, &l.tables.changed, &r.seen.changed, after.shard)...)
		case 5:
			m, seen := l.tables.all.Load(), r.seen.all.Load()
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
	return Entry{Namespace: l.cfg.Namespace, Scope: scope, Digest: d, Before: timeOf(m.before), Until: timeOf(m.until), Skip: scope == Changed}
}

// lackingMarks returns the entries of a shard that the store does not have.
func (l *List) lackingMarks(scope Scope, known, seen *table[mark], n int) (out []Entry) {
	for d, m := range known.shard(n) {
		if s, ok := seen.get(d); !ok || s.merge(m) != s {
			out = append(out, l.entryOf(scope, d, m))
		}
	}
	return out
}

func (l *List) lackingSubjects(seen *table[marks], n int) (out []Entry) {
	for d, m := range l.tables.subjects.shard(n) {
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

// hasNewBirth reports whether the store has not acknowledged a birth mark of
// this list.
func (l *List) hasNewBirth() bool { return l.newborn.Load() != nil }
