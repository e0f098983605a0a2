package revoke

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sessiontoken/sessiontoken/event"
)

// A mark of Changed has a number, in milliseconds, and a list remembers the
// greatest number of each subject. A token records the greatest number that was
// known before its state was read. It is stale if there is a greater one.
//
// A token without a number was made where no mark of the subject was known, or
// its state was read by the caller. It is stale if its iat is not after the
// second of the number: iat is at most the store's time at which Load began,
// and a number is at least the store's time at the call of Changed.
//
// The mark of a call must have a greater number than every token whose state
// was read before the call. Such a token has the number of a mark that was in
// the store before the call: Mark returns no number of a mark that the store
// does not have. So Changed reads the store first, and gives its mark a greater
// number than all that it has read. Two marks with one number do no harm: each
// has a greater number than what was in the store before its own call.

// leeway is the largest Leeway of a verifier.
const leeway = time.Minute

// keepMarks returns how long after its number a mark is remembered: for as long
// as a token from before it can be accepted.
func (l *List) keepMarks() time.Duration { return l.cfg.MaxTTL + leeway + l.cfg.MaxSkew }

// Changed marks the state of a subject as changed, such as after a change of
// the user's role. Call it after the change is committed. Every token of the
// subject whose state was read before the call is then stale: Check returns
// [ErrChanged] for it, and it is renewed or refreshed. No session ends. A token
// whose state is read after the call is not stale.
//
// The mark has effect at once here, and at every other replica after SyncEvery
// and one reading of the store at most.
//
// Changed has a limit of 5 s, and the end of ctx does not cancel it. Nil means
// that the store has acknowledged the mark. After an error, call it again until
// it returns nil. Until the store has acknowledged the mark, tokens of the
// subject are stale here and cannot be renewed here, and the list writes the
// mark again by itself.
func (l *List) Changed(ctx context.Context, subject string) error {
	if subject == "" {
		return errors.New("revoke: Changed names no subject")
	}
	if l.syncing == nil {
		return errZero
	}
	if l.isReadOnly() {
		return errReadOnly
	}
	entered, err := l.mark(ctx, subject)
	if entered {
		l.events.Send(ctx, event.Event{Kind: event.Changed, Subject: subject, Owed: err != nil})
	}
	return err
}

// mark makes a mark take effect and writes it. entered is false if there is no
// room for it.
func (l *List) mark(ctx context.Context, subject string) (entered bool, err error) {
	began := l.clock.Read()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
	defer cancel()
	unread := l.syncing.After(ctx, beginLimit)
	known := l.knowsTime()
	stamp := l.stamp
	if !known {
		stamp = nil
	}
	e := Entry{Namespace: l.cfg.Namespace, Scope: Changed, Digest: Subject.Digest(subject), Skip: true}
	w, version := l.owed.putMark(e, stamp)
	if w == nil {
		return false, errFull
	}
	defer l.tellSoon(e)()
	defer l.owed.done(w)
	l.wakeWriter()
	if !known {
		return true, fmt.Errorf("%w: %w", errStale, reasonOf(unread))
	}
	if err := l.writeNow(ctx, began, w, version); err != nil {
		return true, fmt.Errorf("revoke: the store has not acknowledged the mark: %w", err)
	}
	if unread != nil { // there may be a mark with a greater number
		return true, fmt.Errorf("revoke: the mark is written, but the store could not be read before it: %w", reasonOf(unread))
	}
	return true, nil
}

// numberOf returns the greatest number of the marks of a subject that the store
// has, or none.
func (l *List) numberOf(subject Digest) int64 {
	if m, ok := l.tables.changed.get(subject); ok {
		return m.before
	}
	return none
}

// marksIn returns the marks of Changed among entries.
func marksIn(entries []Entry) []Entry {
	other := func(e Entry) bool { return e.Scope != Changed }
	if !slices.ContainsFunc(entries, func(e Entry) bool { return !other(e) }) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(entries), other)
}

// applyMarks applies the marks of Changed among entries that the store has
// acknowledged.
func (l *List) applyMarks(entries []Entry) {
	if marks := marksIn(entries); len(marks) > 0 {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tables.apply(marks)
	}
}

// Mark returns the number of a token whose state is read after the call: see
// [Checker]. If q.IssuedAt is set, it answers from memory. Otherwise it waits
// for a reading that began after the call, at most 1 s, and answers from memory
// if there is none; concurrent calls share it.
//
// While the store has not acknowledged a mark of the subject that was made
// here, Mark waits for that, at most 1 s, and returns [ErrOwed] if it does not
// happen: a number that the store does not have could be given to another mark.
func (l *List) Mark(ctx context.Context, q *Question) (int64, error) {
	switch {
	case l.syncing == nil:
		return 0, errZero
	case q == nil:
		return 0, errNone
	case !q.prepared:
		prepared := q.Prepared()
		q = &prepared
	}
	if l.owed.count.Load() > 0 && !l.marksWritten(ctx, q.subject) {
		return 0, ErrOwed
	}
	if q.IssuedAt.IsZero() {
		_ = l.syncing.After(ctx, beginLimit)
	}
	now, _ := l.view.Now()
	number := q.Changed // it was known before, at this replica or another one
	if timeOf(number).Add(l.keepMarks()).Before(now) {
		number = 0
	}
	if m, ok := l.tables.changed.get(q.subject); ok && !m.expired(now.UnixMilli()) {
		number = max(number, m.before)
	}
	return number, nil
}

// marksWritten waits until the store has acknowledged the marks of a subject
// that are owed at the call, and reports whether it has.
func (l *List) marksWritten(ctx context.Context, subject Digest) bool {
	w, version := l.owed.mark(subject)
	if w == nil {
		return true
	}
	began := l.clock.Read()
	for range 2 { // the write under way may have begun before
		_, _ = l.writing.Try(ctx, max(1, beginLimit-l.clock.Steady(began)))
		if l.owed.hasWritten(w, version) {
			return true
		}
	}
	return false
}

// putMark adds a mark of Changed, or gives the owed one of its subject a
// greater number, so that a write that is under way does not count for it, and
// calls share one that begins after all of them. stamp is nil if the time is
// not known. putMark returns nil if there are maxOwed entries.
func (o *owed) putMark(e Entry, stamp func(*Entry)) (*owedEntry, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	name := owedName{Changed, e.Digest}
	var w *owedEntry
	if ws := o.entries[name]; len(ws) > 0 {
		w = ws[0] // there is one
		w.version++
		o.wait(w)
	} else if w, _ = o.add(name, e, false); w == nil {
		return nil, 0
	}
	if w.stamped = stamp != nil; w.stamped {
		stamp(&w.entry)
	}
	return w, w.version
}

// mark returns the owed mark of a subject and its version, or nil.
func (o *owed) mark(subject Digest) (*owedEntry, uint64) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if ws := o.entries[owedName{Changed, subject}]; len(ws) > 0 {
		return ws[0], ws[0].version
	}
	return nil, 0
}

// changedAfter reports whether an owed mark has a greater number than the token
// of q knows, or has no number yet.
func (o *owed) changedAfter(q *Question) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, w := range o.entries[owedName{Changed, q.subject}] {
		if w.stamped && w.entry.Before.UnixMilli() > q.fresh || !w.stamped && q.fresh != math.MaxInt64 {
			return true
		}
	}
	return false
}
