package revoke

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/sid"
)

var (
	// ErrRevoked means that a session is revoked and the store has acknowledged
	// that, or that no session can begin at the time asked for. Check and Begin
	// return it unwrapped: an error that wraps it, such as one of a store, does
	// not mean that a session is revoked.
	ErrRevoked = errors.New("revoke: the session is revoked")
	// ErrOwed means that a session was revoked here and the store has not
	// acknowledged it yet. Other replicas may not know of the revocation.
	ErrOwed = errors.New("revoke: the revocation of this session is not acknowledged by the store yet")
	// ErrChanged means that a session is live and that the state in its token
	// may be older than the last call of [List.Changed]. Check returns it
	// unwrapped.
	ErrChanged = errors.New("revoke: the state of the token has changed")
	// ErrNotRead is [Status].Err before the first reading of the store.
	ErrNotRead = errors.New("revoke: the store has not been read yet")
)

// Question asks about one session and the token that names it. A question that
// is asked more than once is made with Prepared, so that its values are hashed
// once.
type Question struct {
	SessionID, Subject, KeyID string    // sid, sub and kid of the token; empty ones ask nothing
	Began                     time.Time // when the session began
	IssuedAt                  time.Time // iat of the token; zero: Check does not ask whether the state has changed
	Changed                   int64     // chg of the token: what Mark returned before its state was read; 0: it has none

	session, subject, key Digest
	groups                []Digest // of the session; nil if it has none
	began                 int64    // Unix milliseconds
	fresh                 int64    // the state has changed if a mark has a greater number
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
	switch {
	case q.IssuedAt.IsZero():
		q.fresh = math.MaxInt64
	case q.Changed != 0:
		q.fresh = q.Changed
	default:
		q.fresh = q.IssuedAt.Unix()*1000 - 1 // any mark of that second or a later one
	}
	return q
}

// Checker is what issuers, verifiers and managers ask. A [*List] is one.
type Checker interface {
	// Check returns nil for a live session alone. It returns [ErrRevoked] itself,
	// and no error that wraps it, for a session that is revoked. Any other error
	// means that the checker does not know: the token must not be accepted, and
	// the session is not known to be revoked. Such an error matches [ErrOwed]
	// while the store has not acknowledged the revocation of the session.
	//
	// If q.IssuedAt is set, Check returns [ErrChanged] itself for a live
	// session whose token may hold a state from before the last change.
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
	// Mark returns the number that a token records as its Question.Changed if
	// its state is read after the call: the greatest of the marks of q.Subject
	// and of q.Changed. q.IssuedAt and q.Changed are those of the token that it
	// replaces, and are used as they are in a prepared question too. Without an
	// IssuedAt there is no such token, such as for a refresh token, and the
	// checker has the store read first: the client may come from a replica that
	// knows of a mark already. 0 means that no mark lives. An error means that
	// the number is not known.
	Mark(ctx context.Context, q *Question) (int64, error)
	// MaxTTL returns how long a token may be valid at most, so that marks are
	// remembered for as long as a token from before them.
	MaxTTL() time.Duration
	// RetainFor returns how long revocations are remembered. No session may
	// outlive that.
	RetainFor() time.Duration
}

var _ Checker = (*List)(nil)
