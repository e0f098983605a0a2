package revoke

import (
	"context"
	"errors"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/sid"
)

var (
	// ErrRevoked means that a session is revoked and the store has acknowledged
	// it, or that no session can begin at the time asked for. It counts only as
	// the very error that Check or Begin returns: an error that wraps it decides
	// nothing.
	ErrRevoked = errors.New("revoke: the session is revoked")
	// ErrOwed means that a session was revoked here and the store has not
	// acknowledged it yet. Other replicas may not know of the revocation.
	ErrOwed = errors.New("revoke: the revocation of this session is not acknowledged by the store yet")
	// ErrNotRead is [Status].Err before the first reading of the store.
	ErrNotRead = errors.New("revoke: the store has not been read yet")
)

// Question asks about one session and the token that names it. A question that
// is asked more than once is made with Prepared, so that its values are hashed
// once.
type Question struct {
	SessionID, Subject, KeyID string    // sid, sub and kid of the token; empty ones ask nothing
	Began                     time.Time // when the session began

	session, subject, key Digest
	groups                []Digest // of the session; nil if it has none
	began                 int64    // Unix milliseconds
	prepared              bool
}

// Prepared returns q with the digests of what it names: of its session, its
// subject, its key, and the groups of its SessionID. A field that is changed
// afterwards takes effect with another call of Prepared.
func (q Question) Prepared() Question {
	q.session = Session.Digest(q.SessionID)
	q.subject = Subject.Digest(q.Subject)
	q.key = Key.Digest(q.KeyID)
	q.groups = nil
	if groups, n := sid.Groups(q.SessionID); n > 0 {
		q.groups = make([]Digest, n)
		for i, group := range groups[:n] {
			q.groups[i] = Group.Digest(group)
		}
	}
	q.began, q.prepared = q.Began.UnixMilli(), true
	return q
}

// Checker is what issuers, verifiers and managers ask. A [*List] is one.
type Checker interface {
	// Check returns nil for a live session alone. It returns [ErrRevoked] itself,
	// and no error that wraps it, for a session that is revoked. Any other error
	// means that the checker does not know: the token must not be accepted, and
	// the session is not known to be revoked. Such an error matches [ErrOwed]
	// while the store has not acknowledged the revocation of the session.
	Check(ctx context.Context, q *Question) error
	// Now returns the store's time. An error means that it is not known.
	Now(ctx context.Context) (time.Time, error)
	// Begin returns the beginning of a session that begins now, in whole
	// milliseconds of the store's time. It is later than every revocation of
	// q.Subject and of the groups of q.SessionID that was acknowledged before
	// the call. q.KeyID is ignored.
	//
	// q.Began is set if the session began at an earlier step, such as the start
	// of a login at a provider. Begin then returns q.Began, or the present time
	// if that is earlier, and [ErrRevoked] itself if a revocation of the subject
	// or of a group is not before it.
	Begin(ctx context.Context, q Question) (time.Time, error)
	// RetainFor returns how long revocations are remembered. No session may
	// outlive that.
	RetainFor() time.Duration
}

var _ Checker = (*List)(nil)
