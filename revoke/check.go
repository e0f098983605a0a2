package revoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

var (
	errZero    = errors.New("revoke: the List is a zero value: make it with NewList")
	errStale   = errors.New("revoke: the store has not been read for too long")
	errForeign = errors.New("revoke: the store is not the one that this list has read before")
	errBirth   = errors.New("revoke: the session is older than what the store remembers")
	errNone    = errors.New("revoke: there is no question")
	errGroup   = errors.New("revoke: a group is 16 base64url characters")
)

// rememberAfter is how long a list waits until others have written back what a
// store has lost. After that, sessions that began before the store's birth
// count as revoked.
const rememberAfter = 10 * time.Minute

// Check returns nil for a live session, [ErrRevoked] for a revoked one, and
// [ErrChanged] for a live one whose token is stale: see [List.Changed]. Any
// other error means that the list does not know, and the token must not be
// accepted:
//
//   - the store could not be read for MaxStale;
//   - the revocation of this session is not acknowledged yet: [ErrOwed];
//   - the session is older than a store that has lost its data;
//   - the store is another one than before.
//
// It answers from memory, except that it waits for a reading, at most 2 s, if
// the store was never read, or not for MaxStale because no call was made. While
// the store fails, it does not wait.
func (l *List) Check(ctx context.Context, q *Question) error {
	st, _, err := l.current(ctx)
	if err != nil {
		return err
	}
	if q == nil {
		return errNone
	}
	if !q.prepared {
		prepared := q.Prepared()
		q = &prepared
	}
	err = l.check(st, q)
	if err == errBirth && l.mayLook() && l.syncing.After(ctx, askLimit) == nil {
		// The store may have an older birth mark now: in the first moments of a
		// store, that of the replica that began the session.
		if st, _, err = l.current(ctx); err != nil {
			return err
		}
		return l.check(st, q)
	}
	return err
}

// Live reports whether memory shows that a session is live, and returns the
// store's time. It is a fast path for Now and Check, with one reading of the
// clock. False does not mean that the session is revoked: call Now and Check,
// which also have the store read and return the reasons.
func (l *List) Live(q *Question) (now time.Time, live bool) {
	st := l.state.Load()
	if q == nil || !q.prepared || st == nil || st.foreign || q.began < st.birth {
		return time.Time{}, false
	}
	at := l.clock.Read()
	switch {
	case clock.AgeBetween(st.synced, at) > 2*l.cfg.SyncEvery: // MaxStale is at least that
		return time.Time{}, false
	case l.revoked(q) || l.owed.count.Load() > 0 || l.tables.changedAfter(q): // in this order, as in check
		return time.Time{}, false
	}
	return l.view.At(at)
}

// mayLook reports whether Check may have the store read for an older birth
// mark: once a second for all calls.
func (l *List) mayLook() bool {
	last := l.looked.Load()
	if last != nil && l.clock.Age(*last) < time.Second {
		return false
	}
	now := l.clock.Read()
	return l.looked.CompareAndSwap(last, &now)
}

// check is Check with a state of the list.
func (l *List) check(st *state, q *Question) error {
	revoked := l.revoked(q) // before the owed entries: an entry is owed before it is applied
	owes := l.owed.count.Load() > 0
	switch {
	case owes && l.owed.concerns(q):
		l.retry()
		return ErrOwed
	case revoked:
		return ErrRevoked
	case q.began < st.birth && l.clock.Steady(st.since) >= rememberAfter:
		return ErrRevoked
	case q.began < st.birth:
		return errBirth
	case owes && l.owed.changedAfter(q):
		l.retry()
		return ErrChanged
	case l.tables.changedAfter(q): // after the owed marks: a mark is applied before it is no longer owed
		return ErrChanged
	}
	return nil
}

func (l *List) revoked(q *Question) bool {
	k := &l.tables
	if _, ok := k.sessions.get(q.session); ok {
		return true
	}
	if _, ok := k.keys.get(q.key); ok {
		return true
	}
	if m, ok := k.subjects.get(q.subject); ok && m.revokes(q.session, q.began) {
		return true
	}
	for _, group := range q.groups {
		if m, ok := k.groups.get(group); ok && q.began <= m.before {
			return true
		}
	}
	m := k.all.Load()
	return m != nil && q.began <= m.before
}

// KeyRevoked reports whether a key was revoked. It does no I/O, and returns
// false before the first reading of the store.
func (l *List) KeyRevoked(kid string) bool {
	_, ok := l.tables.keys.get(Key.Digest(kid))
	return ok
}

// Now returns the latest time that the store's clock has certainly reached. It
// never goes back. It waits and fails as Check does, except that it does not
// fail while the store is another one than before.
func (l *List) Now(ctx context.Context) (time.Time, error) {
	_, at, err := l.current(ctx)
	if err != nil && !errors.Is(err, errForeign) {
		return time.Time{}, err
	}
	now, _ := l.view.At(at)
	return now, nil
}

// Begin returns the beginning of a session that begins now: the store's time by
// a reading that began after the call, or, if that is later, 1 ms after the
// newest revocation of the subject, of one of the groups or of all. It waits
// for the reading for at most 1 s; concurrent calls share it.
//
// If the reading fails, Begin uses the time that the list has, until MaxStale.
// It also does so while the store is another one than before: [List.Check] then
// fails for the session until the list's own store is back.
//
// If q.Began is set, the session has begun at that time, or now if that is
// earlier. Begin then returns [ErrRevoked] if a revocation is not before that
// time, or if the store has lost data since. q.KeyID is ignored.
func (l *List) Begin(ctx context.Context, q Question) (time.Time, error) {
	if l.syncing == nil {
		return time.Time{}, errZero
	}
	if !q.prepared {
		q = q.Prepared()
	}
	called := l.clock.Read()
	err := l.syncing.After(ctx, beginLimit)
	st := l.state.Load()
	if l.hasNewBirth() {
		// The session must not be older than the birth mark that others read.
		_ = l.writing.Do(ctx, max(1, beginLimit-l.clock.Steady(called)))
	}
	var begun int64
	switch {
	case ctx.Err() != nil:
		return time.Time{}, ctx.Err()
	case st != nil && st.foreign: // the time of another store is not used
		now, _ := l.view.Lower()
		begun = now.UnixMilli()
	case err == nil && st != nil:
		begun = st.time
	case st != nil && l.clock.Age(st.synced) <= l.cfg.MaxStale:
		now, _ := l.view.Now()
		begun = now.UnixMilli()
	default:
		return time.Time{}, fmt.Errorf("%w: %w", errStale, reasonOf(err))
	}
	newest := l.tables.newest(&q)
	if !q.Began.IsZero() {
		begun = min(begun, q.Began.UnixMilli())
		if begun <= newest || begun < st.birth { // a store that lost its data may have lost a revocation
			return time.Time{}, ErrRevoked
		}
		return timeOf(begun), nil
	}
	begun = max(begun, st.birth)
	if newest != none {
		begun = max(begun, newest+1)
	}
	return timeOf(begun), nil
}

// current returns a state that is not stale, and the instant at which it is
// not.
func (l *List) current(ctx context.Context) (*state, clock.Instant, error) {
	if l.syncing == nil {
		return nil, clock.Instant{}, errZero
	}
	st, now := l.state.Load(), l.clock.Read()
	if st == nil || !l.answers(st, now) {
		var err error
		if st, now, err = l.refresh(ctx); err != nil {
			return nil, now, err
		}
	}
	if st.foreign {
		return nil, now, errForeign
	}
	return st, now, nil
}

// answers reports whether the store was read within MaxStale. It starts a
// reading in the background if the last one is older than twice SyncEvery.
func (l *List) answers(st *state, now clock.Instant) bool {
	age := clock.AgeBetween(st.synced, now)
	if age > 2*l.cfg.SyncEvery && !l.busy.Load() {
		l.syncing.Go() // with Run, that has begun already
		l.retry()
	}
	return age <= l.cfg.MaxStale || l.cfg.InsecureAnswerWhenStale
}

// refresh waits for a reading, but not if the last one failed.
func (l *List) refresh(ctx context.Context) (*state, clock.Instant, error) {
	_, err := l.syncing.Failing()
	if err != nil || l.slow.Load() {
		l.syncing.Go()
	} else if _, err = l.syncing.Try(ctx, askLimit); errors.Is(err, flight.ErrWaited) && l.state.Load() != nil {
		l.slow.Store(true) // the next call does not wait for that reading
	}
	st, now := l.state.Load(), l.clock.Read()
	switch {
	case st == nil:
		return nil, now, fmt.Errorf("%w: %w", ErrNotRead, reasonOf(err))
	case !l.answers(st, now):
		return nil, now, fmt.Errorf("%w: %w", errStale, reasonOf(err))
	}
	return st, now, nil
}

// reasonOf returns the error that an error of the list wraps: that of the
// store, or that it gave no answer. It never matches ErrRevoked, ErrOwed or
// ErrChanged, which are about a session.
func reasonOf(err error) error {
	switch {
	case err == nil:
		return errors.New("no answer in time")
	case errors.Is(err, ErrRevoked), errors.Is(err, ErrOwed), errors.Is(err, ErrChanged):
		return errors.New(err.Error())
	}
	return err
}
