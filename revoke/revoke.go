package revoke

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/sid"
)

// All Revoke methods have a limit of 5 s, and the end of ctx does not cancel
// them: a user who has left is signed out all the same. They return nil when
// the store has acknowledged the entry. After an error the entry is owed: the
// list writes it again by itself, and at once if the call is repeated.

// RevokeSession revokes one session: at once here, and at every other replica
// after SyncEvery and one reading of the store at most. If the store has
// acknowledged that already, RevokeSession writes nothing.
func (l *List) RevokeSession(ctx context.Context, sessionID string) error {
	if sessionID == "" {
		return errors.New("revoke: RevokeSession names no session")
	}
	return l.revoke(ctx, Entry{Scope: Session, Digest: Session.Digest(sessionID)}, event.Event{Session: sessionID, Reason: "session"})
}

// RevokeSubject revokes every session that a subject has begun by now, such as
// for "sign out everywhere", a changed password or a blocked user. A session
// that begins after it has returned is not revoked.
//
// The store gets a digest of the subject and not its name. To erase a person,
// whose name the families of refresh tokens hold, call Forget of package
// refresh or authority.
func (l *List) RevokeSubject(ctx context.Context, subject string) error {
	if subject == "" {
		return errors.New("revoke: RevokeSubject names no subject")
	}
	return l.revoke(ctx, Entry{Scope: Subject, Digest: Subject.Digest(subject)}, event.Event{Subject: subject, Reason: "subject"})
}

// RevokeGroup revokes every session of a group that has begun by now, such as
// for a sign-out at a login provider. A session that begins after it has
// returned is not revoked, even if it has the same group.
func (l *List) RevokeGroup(ctx context.Context, group string) error {
	if !sid.IsGroup(group) {
		return errGroup
	}
	return l.revoke(ctx, Entry{Scope: Group, Digest: Group.Digest(group)}, event.Event{Reason: "group"})
}

// RevokeOthers revokes every session that a subject has begun by now except
// one, such as for "sign out everywhere else". If that one was revoked
// otherwise, it stays revoked.
func (l *List) RevokeOthers(ctx context.Context, subject, sessionID string) error {
	if subject == "" || sessionID == "" {
		return errors.New("revoke: RevokeOthers names no subject, or no session to spare")
	}
	return l.revoke(ctx, Entry{Scope: Subject, Digest: Subject.Digest(subject), Except: Session.Digest(sessionID)},
		event.Event{Subject: subject, Session: sessionID, Reason: "others"})
}

// RevokeKey revokes every token that was signed with a key, at every verifier
// that has a list, even if its key set still has the key. Revoke of the key
// ring is needed too: it makes another key current. The entry is kept until
// keepUntil, and for at least 60 days.
func (l *List) RevokeKey(ctx context.Context, kid string, keepUntil time.Time) error {
	if kid == "" {
		return errors.New("revoke: RevokeKey names no key")
	}
	return l.revoke(ctx, Entry{Scope: Key, Digest: Key.Digest(kid), Until: keepUntil}, event.Event{Kind: event.KeyRevoked, KeyID: kid, Reason: "list"})
}

// RevokeAll revokes every session that began by a time, such as that of Now, or
// the one at which a breach was closed. A time in the future, by the store's
// clock, is an error: no session could begin until then.
func (l *List) RevokeAll(ctx context.Context, begunBy time.Time) error {
	if begunBy.IsZero() {
		return errors.New("revoke: RevokeAll: the time is zero")
	}
	return l.revoke(ctx, Entry{Scope: All, Before: begunBy}, event.Event{Reason: "all"})
}

// revoke revokes what an entry says, and sends the event of that.
func (l *List) revoke(ctx context.Context, e Entry, told event.Event) error {
	if l.syncing == nil {
		return errZero
	}
	if l.isReadOnly() {
		return errReadOnly
	}
	entered, err := l.enter(ctx, e)
	if entered {
		if told.Kind == "" {
			told.Kind = event.Revoked
		}
		told.Owed = err != nil
		l.events.Send(ctx, told)
	}
	return err
}

// enter makes an entry take effect and writes it. entered is false if nothing
// has changed: the entry is refused, or was acknowledged before.
func (l *List) enter(ctx context.Context, e Entry) (entered bool, err error) {
	began := l.clock.Read()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeLimit)
	defer cancel()
	e.Namespace = l.cfg.Namespace
	if e.Scope == Session && l.alreadyRevoked(e.Digest) {
		return false, nil
	}
	// Read the store first, so that the mark is later than all marks of the
	// subject in it, and that nothing is written to another store.
	stamped, unread := l.readTime(ctx)
	if e.Scope == All {
		if !stamped {
			return false, fmt.Errorf("revoke: the store's time is not known, and nothing was revoked: %w", reasonOf(unread))
		}
		if upper, _ := l.view.Upper(); e.Before.UnixMilli() > millisUp(upper) {
			return false, errors.New("revoke: RevokeAll: the time is in the future")
		}
	}
	if stamped {
		l.stamp(&e)
	}
	w, version := l.owed.put(e, stamped)
	if w == nil {
		return false, errFull
	}
	defer l.tellSoon(e)()
	defer l.owed.done(w)
	l.wakeWriter()
	if !stamped {
		return true, fmt.Errorf("%w: %w", errStale, reasonOf(unread))
	}
	l.apply(e)
	if err := l.writeNow(ctx, began, w, version); err != nil {
		return true, fmt.Errorf("revoke: the store has not acknowledged the revocation: %w", err)
	}
	return true, nil
}

// writeNow writes an owed entry, within revokeLimit after began.
func (l *List) writeNow(ctx context.Context, began clock.Instant, w *owedEntry, version uint64) error {
	seen, retried := l.writes.Load(), false
	for {
		err := l.writing.Do(ctx, max(1, revokeLimit-l.clock.Steady(began)))
		if l.owed.hasWritten(w, version) {
			return nil
		}
		if err != nil && !retried && l.writes.Load() == seen {
			retried = true // that write began before this call
			continue
		}
		if err != nil {
			return err
		}
	}
}

// readTime reads the store, and reports whether its time is known.
func (l *List) readTime(ctx context.Context) (known bool, unread error) {
	unread = l.syncing.After(ctx, beginLimit)
	if unread != nil && !l.knowsTime() {
		unread = l.syncing.Do(ctx, beginLimit) // without the pause after a failure
	}
	return l.knowsTime(), unread
}

// alreadyRevoked reports whether the store has acknowledged the revocation of a
// session, and cannot have lost it since.
func (l *List) alreadyRevoked(session Digest) bool {
	if l.owed.holds(owedName{Session, session}) {
		return false
	}
	if _, ok := l.tables.sessions.get(session); !ok {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.state.Load()
	return l.restore.Load() == nil && l.reset == nil && st != nil && !st.foreign
}

// knowsTime reports whether the time of the store was read within MaxStale.
func (l *List) knowsTime() bool {
	at := l.timed.Load()
	return at != nil && l.clock.Age(at.at) <= l.cfg.MaxStale
}

// stamp sets the times of an entry. A mark is not before the store's time now.
// It is also later than each other mark of its sessions, since a session that
// begins after such a mark begins 1 ms after it. The sessions of a subject may
// be of any group, and those of a group of any subject and other group.
func (l *List) stamp(e *Entry) {
	at, _ := l.view.Upper()
	now := millisUp(at)
	keep := l.cfg.MaxSession
	switch e.Scope {
	case All:
		e.Before = timeOf(e.Before.UnixMilli())
	case Subject, Group:
		newest := max(l.tables.newestOf(e.Scope, e.Digest), l.tables.newestOf(All, Digest{}))
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
	case Changed:
		e.Before = timeOf(max(now, l.numberOf(e.Digest)+1, e.Before.UnixMilli()))
	case Key:
		e.Before, keep = timeOf(now), max(keep, keepKeys)
	default:
		e.Before = timeOf(now)
	}
	until := timeOf(now).Add(keep + margin + l.cfg.MaxSkew)
	if e.Scope == Changed {
		until = e.Before.Add(l.keepMarks())
	}
	if e.Until.IsZero() || e.Until.Before(until) {
		e.Until = until
	}
	e.Until = timeOf(millisUp(e.Until))
}

// apply applies an entry to this list.
func (l *List) apply(e Entry) {
	if at, ok := l.view.Upper(); ok {
		l.seen(latestOf([]Entry{e}, at.Add(l.cfg.MaxSkew)))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables.apply([]Entry{e})
}
