package revoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/sid"
)

// All Revoke methods run under a limit of their own, 5 s, whatever becomes of
// ctx: a user who has left is signed out all the same. They return nil when the
// store has acknowledged the entry. After an error the entry is owed: repeating
// the call writes it at once, and otherwise the list does so by itself.

// RevokeSession revokes one session: at once here, and everywhere within
// SyncEvery and one reading of the store. If the store has acknowledged that
// already, nothing is written.
func (l *List) RevokeSession(ctx context.Context, sessionID string) error {
	if sessionID == "" {
		return errors.New("revoke: RevokeSession names no session")
	}
	return l.revoke(ctx, Entry{Scope: Session, Digest: Session.Digest(sessionID)})
}

// RevokeSubject revokes every session that a subject has begun by now: for "sign
// out everywhere", a changed password, a blocked user. A session that begins when
// it has returned is not touched.
func (l *List) RevokeSubject(ctx context.Context, subject string) error {
	if subject == "" {
		return errors.New("revoke: RevokeSubject names no subject")
	}
	return l.revoke(ctx, Entry{Scope: Subject, Digest: Subject.Digest(subject)})
}

// RevokeGroup revokes every session of a group that has begun by now: for a
// sign-out at the provider of a login. A session that begins when it has returned
// is not touched, also one of the same group.
func (l *List) RevokeGroup(ctx context.Context, group string) error {
	if !sid.IsGroup(group) {
		return errGroup
	}
	return l.revoke(ctx, Entry{Scope: Group, Digest: Group.Digest(group)})
}

// RevokeOthers revokes every session that a subject has begun by now but one: for
// "sign out everywhere else". It does not bring that one back if it was revoked
// otherwise.
func (l *List) RevokeOthers(ctx context.Context, subject, sessionID string) error {
	if subject == "" || sessionID == "" {
		return errors.New("revoke: RevokeOthers names no subject, or no session to spare")
	}
	return l.revoke(ctx, Entry{Scope: Subject, Digest: Subject.Digest(subject), Except: Session.Digest(sessionID)})
}

// RevokeKey revokes every token that was signed with a key, at every verifier
// that asks a list, whatever key set it holds. A key ring's own Revoke is still
// needed: it makes another key sign. The key is remembered until keepUntil, and
// for 60 days at least.
func (l *List) RevokeKey(ctx context.Context, kid string, keepUntil time.Time) error {
	if kid == "" {
		return errors.New("revoke: RevokeKey names no key")
	}
	return l.revoke(ctx, Entry{Scope: Key, Digest: Key.Digest(kid), Until: keepUntil})
}

// RevokeAll revokes every session that had begun by a time, such as the one that
// Now returns, or the moment in which a breach was closed. A time in the future,
// by the store's clock, is refused: no sign-in would work until then.
func (l *List) RevokeAll(ctx context.Context, begunBy time.Time) error {
	if begunBy.IsZero() {
		return errors.New("revoke: RevokeAll wants a time")
	}
	return l.revoke(ctx, Entry{Scope: All, Before: begunBy})
}

func (l *List) revoke(ctx context.Context, e Entry) error {
	if l.syncing == nil {
		return errZero
	}
	began := l.clock.Read()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
	defer cancel()
	e.Namespace = l.cfg.Namespace
	if e.Scope == Session && l.alreadyRevoked(e.Digest) {
		return nil
	}
	// A reading first: the mark is then later than all that is known of the
	// subject, and nothing is written to another store than before.
	unread := l.syncing.After(ctx, beginLimit)
	if unread != nil && !l.knowsTime() {
		unread = l.syncing.Do(ctx, beginLimit) // without the pause after a failure
	}
	stamped := l.knowsTime()
	if e.Scope == All {
		if !stamped {
			return fmt.Errorf("revoke: the store's time is not known, and nothing was revoked: %w", reasonOf(unread))
		}
		if upper, _ := l.view.Upper(); e.Before.UnixMilli() > millisUp(upper) {
			return errors.New("revoke: RevokeAll wants a time that is not in the future")
		}
	}
	if stamped {
		l.stamp(&e)
	}
	w, version := l.owed.put(e, stamped)
	if w == nil {
		return errFull
	}
	defer l.owed.done(w)
	l.wakeWriter()
	if !stamped {
		return fmt.Errorf("%w: %w", errStale, reasonOf(unread))
	}
	l.apply(e)
	seen, again := l.writes.Load(), false
	for {
		err := l.writing.Do(ctx, max(1, revokeLimit-l.clock.Steady(began)))
		if l.owed.hasWritten(w, version) {
			return nil
		}
		if err != nil && !again && l.writes.Load() == seen {
			again = true // that was a write from before this call
			continue
		}
		if err != nil {
			return fmt.Errorf("revoke: the store has not acknowledged the revocation: %w", err)
		}
	}
}

// alreadyRevoked reports whether the store has acknowledged that a session is
// revoked. One whose entry it may have lost is not.
func (l *List) alreadyRevoked(session Digest) bool {
	if l.owed.holds(owedName{Session, session}) {
		return false
	}
	if _, ok := l.known.sessions.get(session); !ok {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.state.Load()
	return l.restore.Load() == nil && l.reset == nil && st != nil && !st.foreign
}

// knowsTime reports whether the view may be used.
func (l *List) knowsTime() bool {
	at := l.told.Load()
	return at != nil && l.clock.Age(at.at) <= l.cfg.MaxStale
}

// stamp gives an entry its times. A mark is not before the store's time now, and
// later than every mark that it could have to reach beyond: a session that began
// after one of those has begun 1 ms after it. The sessions of a subject may be of
// any group, and those of a group of any subject and other group.
func (l *List) stamp(e *Entry) {
	at, _ := l.view.Upper()
	now := millisUp(at)
	keep := l.cfg.MaxSession
	switch e.Scope {
	case All:
		e.Before = timeOf(e.Before.UnixMilli())
	case Subject, Group:
		newest := max(l.known.newestOf(e.Scope, e.Digest), l.known.newestOf(All, Digest{}))
		if latest := l.latest.Load(); latest != nil && e.Scope == Group {
			newest = max(newest, latest.mark)
		} else if latest != nil {
			newest = max(newest, latest.group)
		}
		before := now
		if newest != none {
			before = max(before, newest+1)
		}
		e.Before = timeOf(before)
	case Key:
		e.Before, keep = timeOf(now), max(keep, keepKeys)
	default:
		e.Before = timeOf(now)
	}
	until := timeOf(now).Add(keep + margin)
	if e.Until.IsZero() || e.Until.Before(until) {
		e.Until = until
	}
	e.Until = timeOf(millisUp(e.Until))
}

// apply makes an entry count here.
func (l *List) apply(e Entry) {
	if at, ok := l.view.Upper(); ok {
		l.seen(latestOf([]Entry{e}, at.Add(l.cfg.MaxSkew)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known.apply([]Entry{e})
}
