package refresh

import (
	"context"
	"errors"
	"fmt"

	"github.com/sessiontoken/sessiontoken/revoke"
)

// Forget erases what the stores have of a person, such as when an account is
// deleted. It revokes all sessions that the subject has begun by now, as
// [revoke.List.RevokeSubject] does, and then deletes the subject's families:
// with them its name, the labels of its devices and the Context of its
// sessions.
//
// What stays, and for how long:
//
//   - In the store of the list, the digest of the subject, without its name,
//     until MaxSession of the list, its MaxSkew and 10 min have passed, and
//     then until the store drops what has expired. Without it the old tokens
//     would be accepted again. A mark of [revoke.List.Changed] has the same
//     digest. A reader of the store who guesses the name can find it there.
//   - In the memory of each replica, verified tokens and the results of
//     renewals, until the tokens expire.
//   - Log lines, events, and what the engine and its backups keep of deleted
//     rows. Those are the operator's to erase.
//   - Grants of package oidclogin, which are by the provider's name of the
//     user: call Grants.Revoke too.
//
// A sign-in that is under way at any replica is refused, or leaves nothing: a
// family that is written after Forget has deleted the others is found revoked
// and deleted by the replica that wrote it. If that replica ends or cannot read
// the list at that moment, the family is left, and of no use: call Forget again
// when the replica is well. A session that begins after Forget has returned is
// not touched: delete the account first, so that none begins.
//
// Forget may be repeated, by any replica, also after it has returned nil. After
// an error, or if the process ended meanwhile, repeat it until it returns nil;
// the error says what is left. Each of its two steps has a limit of 5 s. The
// end of ctx does not cancel it.
//
// With InsecureSessionsLiveOn, Forget only deletes the families, and a sign-in
// that is under way may leave one.
func (m *Manager) Forget(ctx context.Context, subject string) error {
	switch {
	case subject == "":
		return errors.New("refresh: Forget: subject is required")
	case m.cfg.Store == nil:
		return errZero
	}
	if m.cfg.Revocations != nil {
		if err := m.cfg.Revocations.RevokeSubject(ctx, subject); err != nil {
			return fmt.Errorf("refresh: Forget: nothing is erased yet, since the revocation of the subject's sessions is not acknowledged; call Forget again: %w", err)
		}
	}
	// The deletion comes last: a family that is written after it was begun
	// before the revocation, and is revoked.
	if err := m.DeleteSubject(ctx, subject, ""); err != nil {
		return fmt.Errorf("refresh: Forget: the subject's sessions are revoked, and families with its name and the labels of its devices are left; call Forget again: %w", err)
	}
	return nil
}

// checkWritten asks the list about the session of a family that has been
// written, by a reading of the list's store that began after that. A Forget
// that has not seen the family has written its revocation before, so that the
// reading shows it. checkWritten deletes a family that it refuses.
//
// If the list cannot be read now, what it has read before counts.
func (m *Manager) checkWritten(ctx context.Context, e entry) error {
	if m.cfg.Revocations == nil {
		return nil
	}
	_, _ = m.cfg.Revocations.Begin(ctx, revoke.Question{Subject: e.Subject}) // for its reading
	err := m.checkRevoked(ctx, e)
	if err != nil && !errors.Is(err, ErrInvalid) { // else it is deleted already
		_ = m.tidy(ctx, func(ctx context.Context) error { return m.cfg.Store.Delete(ctx, m.cfg.Namespace, e.ID) })
	}
	return err
}
