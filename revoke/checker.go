package revoke

import (
	"context"
	"errors"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/sid"
)

var (
	// ErrOwed means that a session was revoked here and the store has not
	// acknowledged it yet: it is neither live nor, for other replicas, revoked.
	ErrOwed = errors.New("revoke: the revocation of this session is not acknowledged by the store yet")
	// ErrRevoked means that a session cannot begin at the time asked for, because
	// a revocation reaches it.
	ErrRevoked = errors.New("revoke: revoked since the session began")
)

// Verdict is the answer to a [Question]. The zero Verdict is none: it comes with
// an error.
type Verdict int

// The verdicts.
const (
	Live    Verdict = 1 // not revoked
	Revoked Verdict = 2 // revoked, and the store has acknowledged it
)

// Question asks about one session and the token that names it. What NewQuestion
// returns can be asked again and again, and then hashes nothing.
type Question struct {
	SessionID, Subject, KeyID string    // sid, sub and kid of the token; empty ones ask nothing
	Began                     time.Time // when the session began

	session, subject, key Digest
	groups                []Digest // of the session; nil if it has none
	began                 int64    // Unix milliseconds
	made                  bool
}

// NewQuestion returns q prepared, with the digests of what it names. The groups
// are those of its SessionID.
func NewQuestion(q Question) Question {
	q.session = DigestOf(Session, q.SessionID)
	q.subject = DigestOf(Subject, q.Subject)
	q.key = DigestOf(Key, q.KeyID)
	q.groups = nil
	if groups, n := sid.Groups(q.SessionID); n > 0 {
		q.groups = make([]Digest, n)
		for i, group := range groups[:n] {
			q.groups[i] = DigestOf(Group, group)
		}
	}
	q.began, q.made = q.Began.UnixMilli(), true
	return q
}

// Beginning asks when a session begins.
type Beginning struct {
	// Subject is whose session it is.
	Subject string
	// Groups are those that its id will have, each 16 base64url characters.
	Groups []string
	// Earliest is set if the session began at an earlier step, such as the start
	// of a login at a provider: the session then has begun at that time. A time in
	// the future counts as now.
	Earliest time.Time
}

// Checker is what issuers, verifiers and managers ask. A [*List] is one.
type Checker interface {
	// Check reports whether a session is live or revoked. An error means that it
	// cannot tell; the token must then not be accepted. It matches [ErrOwed] while
	// a revocation of the session is not acknowledged.
	Check(ctx context.Context, q *Question) (Verdict, error)
	// Now returns the store's time. An error means that it is not known.
	Now(ctx context.Context) (time.Time, error)
	// Begin returns when a session that begins now has begun, in whole
	// milliseconds of the store's time: later than every revocation of its
	// subject and of its groups that was acknowledged before the call. It returns
	// [ErrRevoked] if a revocation reaches b.Earliest.
	Begin(ctx context.Context, b Beginning) (time.Time, error)
	// RetainFor returns how long revocations are remembered. No session may
	// outlive that.
	RetainFor() time.Duration
}

var _ Checker = (*List)(nil)
