package revoke

import (
	"maps"
	"math"
	"sync/atomic"
	"time"
)

// shards is how many shards a table has, a power of two. They are in rows of
// rowSize.
const (
	shards  = 4096
	rowSize = 64
)

// fact is the value of a digest in a table. The result of merging facts does
// not depend on their order, or on how often each is merged.
type fact[F any] interface {
	comparable
	merge(F) F
	expired(now int64) bool // it may be dropped
}

// table is a map that is read without a lock. A change replaces whole shards,
// and there is one writer at a time. A shard is small (250 of a million
// entries), so that a change costs little. An empty table has no rows, and a
// row is made with its first entry: a table with one entry takes about 1 KB.
type table[F fact[F]] struct {
	rows atomic.Pointer[[shards / rowSize]atomic.Pointer[row[F]]]
	size atomic.Int64
}

type row[F any] [rowSize]atomic.Pointer[map[Digest]F]

// shardOf returns the number of the shard of a digest. Digests are evenly
// distributed.
func shardOf(d Digest) int { return (int(d[0])<<8 | int(d[1])) % shards }

func (t *table[F]) get(d Digest) (f F, ok bool) {
	if t.rows.Load() == nil {
		return f, false // the usual case
	}
	f, ok = t.shard(shardOf(d))[d]
	return f, ok
}

// change holds the new shards of a change, by number.
type change[F any] map[int]map[Digest]F

// add merges one fact into the change.
func (t *table[F]) add(c change[F], d Digest, f F) {
	n := shardOf(d)
	m := c[n]
	if m == nil {
		m = make(map[Digest]F)
		if old := t.shard(n); old != nil {
			m = maps.Clone(old)
		}
		c[n] = m
	}
	if old, ok := m[d]; ok {
		f = old.merge(f)
	} else {
		t.size.Add(1)
	}
	m[d] = f
}

// store publishes a change.
func (t *table[F]) store(c change[F]) {
	if len(c) == 0 {
		return
	}
	all := t.rows.Load()
	if all == nil {
		all = new([shards / rowSize]atomic.Pointer[row[F]])
		t.rows.Store(all)
	}
	for n, m := range c {
		r := all[n/rowSize].Load()
		if r == nil {
			r = new(row[F])
			all[n/rowSize].Store(r)
		}
		r[n%rowSize].Store(&m)
	}
}

// shard returns one shard, which must not be changed; nil if it is empty.
func (t *table[F]) shard(n int) map[Digest]F {
	all := t.rows.Load()
	if all == nil {
		return nil
	}
	r := all[n/rowSize].Load()
	if r == nil {
		return nil
	}
	if p := r[n%rowSize].Load(); p != nil {
		return *p
	}
	return nil
}

// mergeAll merges all of another table.
func (t *table[F]) mergeAll(other *table[F]) {
	for n := range shards {
		c := change[F]{}
		for d, f := range other.shard(n) {
			if old, ok := t.get(d); !ok || old.merge(f) != old {
				t.add(c, d, f)
			}
		}
		t.store(c)
	}
}

// sweep drops expired facts of one shard.
func (t *table[F]) sweep(n int, now int64) {
	old, gone := t.shard(n), 0
	for _, f := range old {
		if f.expired(now) {
			gone++
		}
	}
	if gone == 0 {
		return
	}
	kept := make(map[Digest]F, len(old)-gone)
	for d, f := range old {
		if !f.expired(now) {
			kept[d] = f
		}
	}
	t.size.Add(int64(len(kept) - len(old)))
	if t.size.Load() == 0 {
		t.rows.Store(nil)
		return
	}
	if len(kept) == 0 {
		t.rows.Load()[n/rowSize].Load()[n%rowSize].Store(nil)
		return
	}
	t.store(change[F]{n: kept})
}

// tables are the facts of one namespace. Times are Unix milliseconds.
type tables struct {
	sessions, keys, groups table[mark]
	subjects               table[marks]
	all                    atomic.Pointer[mark]
	changed                table[mark] // by subject: before is the greatest number of its marks
}

// none is a time before all others.
const none = math.MinInt64

// mark is the fact of a session, a key, a group, or of all: sessions that began
// by before are revoked.
type mark struct{ before, until int64 }

func (m mark) merge(n mark) mark      { return mark{max(m.before, n.before), max(m.until, n.until)} }
func (m mark) expired(now int64) bool { return now >= m.until }

// marks is the fact of a subject: its latest mark, and the latest one with
// another exception. The two revoke all sessions that the marks of the subject
// revoke: the second revokes the session that the first excepts. A time of none
// means no mark.
type marks struct {
	first, second spare
	until         int64
}

// spare is a mark with an exception.
type spare struct {
	before int64
	except Digest
}

func marksOf(m mark, except Digest) marks {
	return marks{spare{m.before, except}, spare{before: none}, m.until}
}

func (m marks) expired(now int64) bool { return now >= m.until }

func (m marks) merge(n marks) marks {
	m.until = max(m.until, n.until)
	m.insert(n.first)
	m.insert(n.second)
	return m
}

func (m *marks) insert(s spare) {
	switch {
	case s.before == none:
		return
	case s.except == m.first.except:
		m.first.before = max(m.first.before, s.before)
	case s.except == m.second.except:
		m.second.before = max(m.second.before, s.before)
	case s.beats(m.second):
		m.second = s
	}
	if m.second.beats(m.first) {
		m.first, m.second = m.second, m.first
	}
}

// beats reports whether s is kept before t: the later one or, of two with one
// time, the one with the smaller exception.
func (s spare) beats(t spare) bool {
	if s.before != t.before {
		return s.before > t.before
	}
	return string(s.except[:]) < string(t.except[:])
}

// revokes reports whether the marks revoke a session that began at that time.
func (m *marks) revokes(session Digest, began int64) bool {
	return began <= m.first.before && session != m.first.except ||
		began <= m.second.before && session != m.second.except
}

// merge merges all of other.
func (k *tables) merge(other *tables) {
	k.sessions.mergeAll(&other.sessions)
	k.keys.mergeAll(&other.keys)
	k.groups.mergeAll(&other.groups)
	k.subjects.mergeAll(&other.subjects)
	k.changed.mergeAll(&other.changed)
	if m := other.all.Load(); m != nil {
		k.mergeMark(*m)
	}
}

func (k *tables) mergeMark(m mark) {
	if old := k.all.Load(); old != nil {
		m = m.merge(*old)
	}
	k.all.Store(&m)
}

// apply adds entries.
func (k *tables) apply(entries []Entry) {
	sessions, keys, groups, subjects, changed := change[mark]{}, change[mark]{}, change[mark]{}, change[marks]{}, change[mark]{}
	for i := range entries {
		e := &entries[i]
		m := mark{e.Before.UnixMilli(), e.Until.UnixMilli()}
		switch e.Scope {
		case Session:
			k.sessions.add(sessions, e.Digest, m)
		case Key:
			k.keys.add(keys, e.Digest, m)
		case Group:
			k.groups.add(groups, e.Digest, m)
		case Subject:
			k.subjects.add(subjects, e.Digest, marksOf(m, e.Except))
		case Changed:
			k.changed.add(changed, e.Digest, m)
		case All:
			k.mergeMark(m)
		}
	}
	k.sessions.store(sessions)
	k.keys.store(keys)
	k.groups.store(groups)
	k.subjects.store(subjects)
	k.changed.store(changed)
}

// sweep drops expired facts of one shard of each table.
func (k *tables) sweep(n int, now int64) {
	k.sessions.sweep(n, now)
	k.keys.sweep(n, now)
	k.groups.sweep(n, now)
	k.subjects.sweep(n, now)
	k.changed.sweep(n, now)
	if m := k.all.Load(); m != nil && m.expired(now) {
		k.all.Store(nil)
	}
}

// size returns how many entries there are. A subject counts as one.
func (k *tables) size() int {
	n := int(k.sessions.size.Load() + k.subjects.size.Load() + k.groups.size.Load() + k.keys.size.Load() + k.changed.size.Load())
	if k.all.Load() != nil {
		n++
	}
	return n
}

// newest returns the latest mark of the subject and the groups of a prepared
// question and of everything, or none.
func (k *tables) newest(q *Question) int64 {
	newest := max(k.newestOf(Subject, q.subject), k.newestOf(All, Digest{}))
	for _, group := range q.groups {
		newest = max(newest, k.newestOf(Group, group))
	}
	return newest
}

// newestOf returns the latest mark of a subject, a group or everything, or none.
func (k *tables) newestOf(scope Scope, d Digest) int64 {
	switch scope {
	case Subject:
		if m, ok := k.subjects.get(d); ok {
			return m.first.before
		}
	case Group:
		if m, ok := k.groups.get(d); ok {
			return m.before
		}
	case All:
		if m := k.all.Load(); m != nil {
			return m.before
		}
	}
	return none
}

// changedAfter reports whether a mark of the subject has a greater number than
// the token of q knows.
func (k *tables) changedAfter(q *Question) bool {
	m, ok := k.changed.get(q.subject)
	return ok && m.before > q.fresh
}

// millisUp returns t in Unix milliseconds, rounded up.
func millisUp(t time.Time) int64 {
	ms := t.UnixMilli()
	if time.UnixMilli(ms).Before(t) {
		ms++
	}
	return ms
}

func timeOf(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
