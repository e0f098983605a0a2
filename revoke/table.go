package revoke

import (
	"hash/maphash"
	"maps"
	"sync/atomic"
	"time"
)

// table is a map that is read without a lock: each of its parts is replaced as a
// whole by whoever changes it, of whom there is one at a time. A part stays small
// (250 entries when there are a million), so that a change costs little.
type table struct {
	seed  maphash.Seed
	parts [parts]atomic.Pointer[map[string]mark]
	size  atomic.Int64
}

const parts = 4096

// mark is what is known of one value. Times are in Unix nanoseconds.
type mark struct {
	before int64 // sessions begun later go on
	until  int64 // when to forget it
}

func markOf(e *Entry) mark { return mark{nanos(e.Before), nanos(e.Until)} }

// nanos is held to what an int64 can say: an Until of the year 3000 is for ever.
func nanos(t time.Time) int64 {
	switch {
	case t.Year() > 2200:
		return 1<<63 - 1
	case t.Year() < 1970:
		return 0
	}
	return t.UnixNano()
}

// and is the mark of both: an entry never takes another one back, in whatever
// order they come.
func (m mark) and(n mark) mark { return mark{max(m.before, n.before), max(m.until, n.until)} }

func (m mark) ends(began time.Time) bool { return m.until != 0 && nanos(began) <= m.before }

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

func (t *table) part(value string) *atomic.Pointer[map[string]mark] {
	return &t.parts[maphash.String(t.seed, value)%parts]
}

func (t *table) get(value string) (mark, bool) {
	p := t.part(value).Load()
	if p == nil {
		return mark{}, false
	}
	m, ok := (*p)[value]
	return m, ok
}

// add adds entries, each of one scope. Many at once cost no more than one for
// each part.
func (t *table) add(entries []*Entry) {
	changed := map[*atomic.Pointer[map[string]mark]]map[string]mark{}
	for _, e := range entries {
		p := t.part(e.Value)
		m := changed[p]
		if m == nil {
			m = map[string]mark{}
			if old := p.Load(); old != nil {
				m = maps.Clone(*old)
			}
			changed[p] = m
		}
		old, known := m[e.Value]
		m[e.Value] = old.and(markOf(e))
		if !known {
			t.size.Add(1)
		}
	}
	for p, m := range changed {
		p.Store(&m)
	}
}

// sweep forgets what is over in one part.
func (t *table) sweep(part int, now int64) {
	p := t.parts[part%parts].Load()
	if p == nil {
		return
	}
	kept := make(map[string]mark)
	for value, m := range *p {
		if now < m.until {
			kept[value] = m
		}
	}
	if len(kept) == len(*p) {
		return
	}
	t.size.Add(int64(len(kept) - len(*p)))
	if len(kept) == 0 {
		t.parts[part%parts].Store(nil)
		return
	}
	t.parts[part%parts].Store(&kept)
}
