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

// rememberAfter is how long a list waits for others to bring back what a store
// has lost. What is older than the store counts as revoked then.
const rememberAfter = 10 * time.Minute

// Check returns nil for a live session and [ErrRevoked] for a revoked one. Any
// other error means that the list does not know, and the token must not be
// accepted:
//
//   - the store could not be read for MaxStale;
//   - the revocation of this session is not acknowledged yet: [ErrOwed];
//   - the session is older than a store that has lost its data;
//   - the store is another one than before.
//
// It answers from memory. It waits for the store, at most 2 s, only if that was
// never read, or not for MaxStale because nothing was asked. While the store
// fails, it does not wait.
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
		// An older birth mark has arrived, perhaps: that of the replica that began
		// the session, in the first moments of a store.
		if st, _, err = l.current(ctx); err != nil {
			return err
		}
		return l.check(st, q)
	}
	return err
}

// Live reports that a session is live, and the store's time, by one reading of
// the clock and from memory alone. It is Now and Check for the case of nearly all
// requests. False decides nothing: ask Now and Check, which also wait for the
// store, have it read again, and give the reasons.
func (l *List) Live(q *Question) (now time.Time, live bool) {
	st := l.state.Load()
	if q == nil || !q.prepared || st == nil || st.foreign || q.began < st.birth {
		return time.Time{}, false
	}
	at := l.clock.Read()
	switch {
	case clock.AgeBetween(st.synced, at) > 2*l.cfg.SyncEvery: // which is not more than MaxStale
		return time.Time{}, false
	case l.revoked(q) || l.owed.count.Load() > 0: // in the order of check
		return time.Time{}, false
	}
	return l.view.At(at)
}

// mayLook reports whether a question may have the store read once more for an
// older birth mark: once in a second for all questions together.
func (l *List) mayLook() bool {
	last := l.looked.Load()
	if last != nil && l.clock.Age(*last) < time.Second {
		return false
	}
	now := l.clock.Read()
	return l.looked.CompareAndSwap(last, &now)
}

// check is Check by a state of the list.
func (l *List) check(st *state, q *Question) error {
	revoked := l.revoked(q) // before what is owed is looked at: an entry is owed first
	switch {
	case l.owed.count.Load() > 0 && l.owed.concerns(q):
		l.retry()
		return ErrOwed
	case revoked:
		return ErrRevoked
	case q.began >= st.birth:
		return nil
	case l.clock.Steady(st.since) >= rememberAfter:
		return ErrRevoked
	}
	return errBirth
}

func (l *List) revoked(q *Question) bool {
	k := &l.known
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

// KeyRevoked reports whether a key was revoked, from memory alone: false before
// the first reading of the store.
func (l *List) KeyRevoked(kid string) bool {
	_, ok := l.known.keys.get(Key.Digest(kid))
	return ok
}

// Now returns the store's time, as the list knows it: a time that the store's
// clock has reached. It never goes back. It waits and fails as Check does, but
// goes on by itself while the store is another one than before.
func (l *List) Now(ctx context.Context) (time.Time, error) {
	_, at, err := l.current(ctx)
	if err != nil && !errors.Is(err, errForeign) {
		return time.Time{}, err
	}
	now, _ := l.view.At(at)
	return now, nil
}

// Begin returns when a session that begins now has begun: the time that a
// reading told that started after the call, or 1 ms after the newest revocation
// of the subject, of one of the groups or of everything. It waits at most 1 s for
// the reading, which it shares with all calls of that moment. If there is none,
// the time that the list knows counts until MaxStale. While the store is another
// one than before, the time that the list knows counts too: [List.Check] answers
// about that session when the list's own store is back.
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
	if l.bearing() {
		// The session must not be older than the birth that others read.
		_ = l.writing.Do(ctx, max(1, beginLimit-l.clock.Steady(called)))
	}
	var begun int64
	switch {
	case ctx.Err() != nil:
		return time.Time{}, ctx.Err()
	case st != nil && st.foreign: // whose time is not that of the list's own store
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
	newest := l.known.newest(&q)
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

// current returns the state of a list that may answer at the instant that it
// returns too.
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

// answers reports whether the store was read within MaxStale, and has it read
// again in the background when it should have been.
func (l *List) answers(st *state, now clock.Instant) bool {
	age := clock.AgeBetween(st.synced, now)
	if age > 2*l.cfg.SyncEvery && !l.busy.Load() {
		l.syncing.Go() // Run does that, if it runs
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
		l.slow.Store(true) // the next question does not wait for that reading
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

// reasonOf returns the reason that an error of the list wraps: what the store
// failed with, or that it gave no answer. It never matches what the list says of
// a session.
func reasonOf(err error) error {
	switch {
	case err == nil:
		return errors.New("no answer in time")
	case errors.Is(err, ErrRevoked), errors.Is(err, ErrOwed):
		return errors.New(err.Error())
	}
	return err
}
