package revoke

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tellOwedAfter is how long a revocation waits for the store before the
	// watches that it concerns are told that it is owed.
	tellOwedAfter = 200 * time.Millisecond
	// spread is how long after MaxStale the last watch is told at most, so that
	// clients do not reconnect at one moment.
	spread = time.Second
	// spreadSteps is in how many steps the watches are told.
	spreadSteps = 20
	// leastChains is how many chains an index has at least.
	leastChains = 16
	// chainLength is how many watches a chain has on average at most.
	chainLength = 4
)

// Watch calls notify when the answer of [List.Check] to q is no longer nil. The
// error is that of Check:
//
//   - [ErrChanged], once for each mark of the subject, if q.IssuedAt is set.
//     The session goes on, and so does the watch.
//   - [ErrRevoked] if the session, its subject, one of its groups, its key or
//     everything is revoked. The watch has ended.
//   - Any other error if the list no longer knows, such as [ErrOwed] or
//     past MaxStale. The watch has ended.
//
// A revocation that this list makes is told when the store has acknowledged it,
// or after 200 ms as ErrOwed. Past MaxStale the watches are told one after
// another, within a second or MaxStale, whichever is shorter. If the store is
// read in the meantime, the rest are not told.
//
// A watch has no goroutine and does no I/O. It needs Run, or calls of Sync,
// since it does not have the store read. If the answer is not nil at the call,
// notify is called before Watch returns. Otherwise any goroutine calls it, and
// two may at the same time. notify must not block: other watches wait for it.
//
// stop ends the watch. A call of notify that is under way may end after it.
func (l *List) Watch(q *Question, notify func(err error)) (stop func()) {
	switch {
	case l.syncing == nil:
		notify(errZero)
		return func() {}
	case q == nil:
		notify(errNone)
		return func() {}
	case !q.prepared:
		prepared := q.Prepared()
		q = &prepared
	}
	w := &watch{list: l, notify: notify, names: [2]Digest{q.session, q.subject}, began: q.began, fresh: q.fresh}
	if len(q.groups) > 0 {
		groups := q.groups
		w.groups = &groups
	}
	// The watch is added before the list is asked: an entry is applied before
	// the watches that it concerns are looked up.
	l.watches.add(w, q.key)
	l.recheck(w)
	l.watchStaleness()
	return w.stop
}

// watch is one call of Watch. It is in two chains of the index. watches.mu
// guards notify, fresh and links.
type watch struct {
	list   *List
	notify func(error) // nil once the watch has ended
	names  [2]Digest   // of the session and of the subject
	key    *Digest     // shared with other watches
	groups *[]Digest   // nil if there are none
	began  int64
	fresh  int64 // as in Question, or the number of the last mark that was told
	links  [2]struct{ before, after *watch }
}

// The chains of a watch: those of its session and of its subject, with others
// whose digest has the same place in the index.
const (
	bySession = iota
	bySubject
)

// question returns the question of the watch. watches.mu is held.
func (w *watch) question() Question {
	q := Question{session: w.names[bySession], subject: w.names[bySubject], key: *w.key, began: w.began, fresh: w.fresh, prepared: true}
	if w.groups != nil {
		q.groups = *w.groups
	}
	return q
}

func (w *watch) stop() {
	ws := &w.list.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.remove(w)
}

// tell tells the watch what the list answers, unless it has ended or has been
// told.
func (w *watch) tell(err error) {
	ws, number := &w.list.watches, int64(none)
	if err == ErrChanged {
		number = w.list.markOf(w.names[bySubject])
	}
	ws.mu.Lock()
	notify := w.notify
	switch {
	case notify == nil:
	case err != ErrChanged:
		ws.remove(w)
	case number == none: // its number is not known yet
	case number <= w.fresh:
		notify = nil
	default:
		w.fresh = number
	}
	ws.mu.Unlock()
	if notify != nil {
		notify(err)
	}
}

// watches are the watches of a list, and their index.
type watches struct {
	count atomic.Int64

	mu     sync.Mutex
	chains [2][]*watch // by session and by subject
	timer  *time.Timer // of staleness; nil without watches
	steps  int         // how many of spreadSteps are done
	key    *Digest     // of the last watch: most have the same
}

// add adds a watch.
func (ws *watches) add(w *watch, key Digest) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.key == nil || *ws.key != key {
		ws.key = &key
	}
	w.key = ws.key
	n := int(ws.count.Add(1))
	if size := len(ws.chains[bySession]); n > chainLength*size {
		ws.resize(max(leastChains, 2*size))
	}
	ws.link(w)
}

// remove removes a watch, if it has not ended. ws.mu is held.
func (ws *watches) remove(w *watch) {
	if w.notify == nil {
		return
	}
	w.notify = nil
	for by := range w.links {
		l := &w.links[by]
		if l.before != nil {
			l.before.links[by].after = l.after
		} else {
			*ws.chain(by, w.names[by]) = l.after
		}
		if l.after != nil {
			l.after.links[by].before = l.before
		}
		l.before, l.after = nil, nil
	}
	n, size := int(ws.count.Add(-1)), len(ws.chains[bySession])
	switch {
	case n == 0:
		ws.chains, ws.steps, ws.key = [2][]*watch{}, 0, nil
		if ws.timer != nil {
			ws.timer.Stop()
			ws.timer = nil
		}
	case size > leastChains && 4*n < size:
		ws.resize(size / 2)
	}
}

// chain returns the chain of a digest. Digests are evenly distributed.
func (ws *watches) chain(by int, name Digest) **watch {
	chains := ws.chains[by]
	return &chains[int(binary.LittleEndian.Uint32(name[4:]))&(len(chains)-1)]
}

func (ws *watches) link(w *watch) {
	for by := range w.links {
		first := ws.chain(by, w.names[by])
		w.links[by].before, w.links[by].after = nil, *first
		if *first != nil {
			(*first).links[by].before = w
		}
		*first = w
	}
}

// resize gives the index another number of chains, a power of two.
func (ws *watches) resize(size int) {
	all := ws.first(len(ws.chains[bySession]))
	ws.chains = [2][]*watch{make([]*watch, size), make([]*watch, size)}
	for _, w := range all {
		ws.link(w)
	}
}

// first returns the watches of the first n chains of the index by session.
func (ws *watches) first(n int) (found []*watch) {
	for _, w := range ws.chains[bySession][:n] {
		for ; w != nil; w = w.links[bySession].after {
			found = append(found, w)
		}
	}
	return found
}

// concerned returns the watches whose answer entries may change.
func (ws *watches) concerned(entries []Entry) (found []*watch) {
	if ws.count.Load() == 0 {
		return nil
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if len(ws.chains[bySession]) == 0 {
		return nil
	}
	for i := range entries {
		e, by := &entries[i], bySession
		switch e.Scope {
		case Birth:
			continue
		case Session:
		case Subject, Changed:
			by = bySubject
		default:
			return ws.first(len(ws.chains[bySession]))
		}
		for w := *ws.chain(by, e.Digest); w != nil; w = w.links[by].after {
			if w.names[by] == e.Digest {
				found = append(found, w)
			}
		}
	}
	return found
}

// tell tells the watches that entries concern, after they were applied.
func (l *List) tell(entries ...Entry) {
	for _, w := range l.watches.concerned(entries) {
		l.recheck(w)
	}
}

// tellSoon tells the watches that an owed entry concerns when the function that
// it returns is called, which is when the store has acknowledged the entry, and
// after tellOwedAfter at the latest.
func (l *List) tellSoon(e Entry) func() {
	if l.watches.count.Load() == 0 {
		return func() {} // a watch that is added now asks the list, which owes the entry
	}
	late := time.AfterFunc(tellOwedAfter, func() { l.tell(e) })
	return func() {
		late.Stop()
		l.tell(e)
	}
}

// hear records entries that were applied, for tellNews. l.mu is held.
func (l *List) hear(entries []Entry) {
	if l.watches.count.Load() > 0 {
		l.untold = append(l.untold, entries...)
	}
}

// tellNews tells the watches that the entries of a page concern.
func (l *List) tellNews() {
	l.mu.Lock()
	entries := l.untold
	l.untold = nil
	l.mu.Unlock()
	if st := l.state.Load(); st != nil && st.foreign {
		l.watchStalenessNow()
	}
	if found := l.watches.concerned(entries); len(found) > 0 {
		go func() { // so that notify does not delay the next reading
			for _, w := range found {
				l.recheck(w)
			}
		}()
	}
}

// recheck asks the list about a watch, and tells it if the answer is not nil.
func (l *List) recheck(w *watch) {
	l.watches.mu.Lock()
	q := w.question()
	l.watches.mu.Unlock()
	st := l.state.Load()
	err := l.whyUnknown(st)
	if err == nil {
		err = l.check(st, &q)
	}
	if err != nil {
		w.tell(err)
	}
}

// whyUnknown returns why a list with this state fails for every session, or nil.
// Unlike Check, it does not have the store read.
func (l *List) whyUnknown(st *state) error {
	switch {
	case st == nil:
		return fmt.Errorf("%w: %w", ErrNotRead, reasonOf(l.lastErr()))
	case st.foreign:
		return errForeign
	case !l.cfg.InsecureAnswerWhenStale && l.clock.Age(st.synced) > l.cfg.MaxStale:
		return fmt.Errorf("%w: %w", errStale, reasonOf(l.lastErr()))
	}
	return nil
}

// watchStaleness starts the timer, if there is none and there are watches.
func (l *List) watchStaleness() {
	ws := &l.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.count.Load() > 0 && ws.timer == nil {
		ws.timer = time.AfterFunc(l.staleIn(), l.tellStale)
	}
}

// watchStalenessNow lets the timer end now.
func (l *List) watchStalenessNow() {
	ws := &l.watches
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.timer != nil && ws.steps == 0 {
		ws.timer.Reset(0)
	}
}

// staleIn returns when to look next whether the list is stale. It is not much
// later than a second from now, since the timer stands still while the machine
// is suspended.
func (l *List) staleIn() time.Duration {
	soon := max(time.Second, 2*l.cfg.SyncEvery)
	st := l.state.Load()
	if st == nil || l.cfg.InsecureAnswerWhenStale {
		return soon
	}
	return max(1, min(soon, l.cfg.MaxStale-l.clock.Age(st.synced)+1))
}

// tellStale is called when the timer ends. If the list is stale, it tells the
// watches of some chains.
func (l *List) tellStale() {
	ws := &l.watches
	ws.mu.Lock()
	if ws.timer == nil {
		ws.mu.Unlock()
		return
	}
	err := l.whyUnknown(l.state.Load())
	if err == nil {
		ws.steps = 0
		ws.timer.Reset(l.staleIn())
		ws.mu.Unlock()
		return
	}
	ws.steps++
	found := ws.first(len(ws.chains[bySession]) * ws.steps / spreadSteps)
	ws.timer.Reset(min(spread, l.cfg.MaxStale) / spreadSteps)
	if ws.steps == spreadSteps {
		ws.steps = 0
	}
	ws.mu.Unlock()
	for _, w := range found {
		w.tell(err)
	}
}

// markOf returns the greatest number of the marks of a subject, or none if one
// has no number yet, or there is none.
func (l *List) markOf(subject Digest) int64 {
	number := l.numberOf(subject)
	l.owed.mu.RLock()
	defer l.owed.mu.RUnlock()
	for _, w := range l.owed.entries[owedName{Changed, subject}] {
		if !w.stamped {
			return none
		}
		number = max(number, w.entry.Before.UnixMilli())
	}
	return number
}
