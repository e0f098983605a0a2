package refresh

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Family is one sign-in with refresh tokens: a device in the user's list.
type Family struct {
	ID        string // not a secret: it is not a token
	Subject   string // sub of its session tokens
	SessionID string // sid of its session tokens
	ClientID  string // the client it is bound to; empty if to none
	Label     string // for the user's list of devices, such as "Firefox on Linux"

	Began    time.Time // when the session began, as Claims.Began; whole milliseconds
	AuthTime time.Time // when the user last proved who they are; zero if not known
	LastUsed time.Time // when it was exchanged last
	Ends     time.Time // its absolute end; no exchange changes it

	ACR string   // how strong that proof was, as Claims.ACR; at most 64 bytes
	AMR []string // how the user proved it, as Claims.AMR; at most 10 names of at most 64 bytes

	// ActorSubject, ActorSessionID and ActorBegan are the session of the actor, as
	// Claims.Actor: all of them, or none.
	ActorSubject, ActorSessionID string
	ActorBegan                   time.Time // whole milliseconds

	Context []byte // data of the application, as Claims.Context; at most 512 bytes
}

// Presented holds the credentials of a request.
type Presented struct {
	Token    string // the refresh token
	ClientID string // of the authenticated or public client; empty if none was named
	Binder   string // of a browser, from its own cookie; empty if there is none
}

// Manager issues and exchanges refresh tokens. It is safe for concurrent use.
// Make it with [NewManager]: every call of a zero Manager fails.
type Manager struct {
	cfg     Config // without Secrets
	keys    []keys // of the secrets, in their order
	clock   *clock.Clock
	loud    *loud.Log
	events  *notify.Sender
	counted counts
}

// now returns the list's time, or this machine's if there is no list.
func (m *Manager) now(ctx context.Context) (time.Time, error) {
	if m.cfg.Store == nil {
		return time.Time{}, errZero
	}
	if m.cfg.Revocations == nil {
		return m.clock.Now(), nil
	}
	now, err := m.cfg.Revocations.Now(ctx)
	if err != nil {
		return time.Time{}, &undecided{err}
	}
	return now.Round(0).UTC(), nil
}

// window returns RetryWindow. Without a list it is longer by the skew of two
// machines.
func (m *Manager) window() time.Duration {
	if m.cfg.Revocations == nil {
		return m.cfg.RetryWindow + skew
	}
	return m.cfg.RetryWindow
}

const (
	maxLabel    = 256
	maxClientID = 256
	maxText     = 64 // of ACR, and of each name in AMR
	maxMethods  = 10
	maxContext  = 512
	minBinder   = 32
)

// Start begins a family and returns its first refresh token. Subject, SessionID
// and Began of f are required: they are those of the claims of the new session.
// Start sets ID, LastUsed and Ends. The other fields are optional. A Label is
// cut to 256 bytes of valid UTF-8; another field that is too long is an error.
//
// The family ends MaxSession after its session or that of its actor began,
// whichever was earlier. Its tokens can be exchanged while both sessions are
// live.
//
// A family with a binder is a browser's: its tokens are accepted only with the
// binder. The binder is a secret of at least 256 random bits, encoded in at
// least 32 bytes. The store holds its hash. The empty string means no binder.
//
// If the subject now has more than MaxPerSubject families, the sessions of
// those used longest ago are revoked. Start logs a failure of that and returns
// no error.
//
// After the family is written, Start has the list read its store once more. A
// session that was revoked by then, such as by [Manager.Forget], is
// [ErrInvalid].
func (m *Manager) Start(ctx context.Context, f Family, binder string) (token string, _ Family, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	now, err := m.now(ctx)
	if err != nil {
		return "", Family{}, err
	}
	latest := now.Add(skew)
	f.Began = f.Began.Round(0).UTC().Truncate(time.Millisecond)
	f.AuthTime = f.AuthTime.Round(0).UTC()
	f.ActorBegan = f.ActorBegan.Round(0).UTC().Truncate(time.Millisecond)
	f.LastUsed, f.Ends = now, f.Began.Add(m.cfg.MaxSession)
	if f.ActorSessionID != "" && f.ActorBegan.Before(f.Began) {
		f.Ends = f.ActorBegan.Add(m.cfg.MaxSession)
	}
	f.Label = cut(f.Label)
	switch {
	case f.Subject == "":
		return "", Family{}, errors.New("refresh: Start: Subject is required")
	case f.SessionID == "":
		return "", Family{}, errors.New("refresh: Start: SessionID is required")
	case f.Began.Unix() <= 0 || f.Began.After(latest):
		return "", Family{}, errors.New("refresh: Start: Began is required, and not in the future")
	case (f.ActorSubject != "") != (f.ActorSessionID != "") || (f.ActorSubject != "") != (f.ActorBegan.Unix() > 0) || f.ActorBegan.After(latest):
		return "", Family{}, errors.New("refresh: Start: ActorSubject, ActorSessionID and ActorBegan, which must not be in the future, go together")
	case !now.Before(f.Ends):
		return "", Family{}, errors.New("refresh: Start: Began, or ActorBegan, is longer ago than MaxSession")
	case !f.AuthTime.IsZero() && (f.AuthTime.Unix() <= 0 || f.AuthTime.After(latest)):
		return "", Family{}, errors.New("refresh: Start: AuthTime is in the future, or before 1970")
	case len(f.ClientID) > maxClientID || !utf8.ValidString(f.ClientID) || strings.ContainsFunc(f.ClientID, unicode.IsControl):
		return "", Family{}, errors.New("refresh: Start: ClientID is longer than 256 bytes, or not plain text")
	case len(f.ACR) > maxText || !utf8.ValidString(f.ACR):
		return "", Family{}, errors.New("refresh: Start: ACR is longer than 64 bytes, or not valid UTF-8")
	case len(f.AMR) > maxMethods || slices.ContainsFunc(f.AMR, func(s string) bool { return s == "" || len(s) > maxText || !utf8.ValidString(s) }):
		return "", Family{}, errors.New("refresh: Start: AMR has more than 10 names, or one that is empty, longer than 64 bytes or not valid UTF-8")
	case len(f.Context) > maxContext:
		return "", Family{}, errors.New("refresh: Start: Context is longer than 512 bytes")
	case binder != "" && len(binder) < minBinder:
		return "", Family{}, errors.New("refresh: Start: the binder is shorter than 32 bytes")
	}
	var id [idSize]byte
	rand.Read(id[:])
	f.ID = encoding.EncodeToString(id[:])
	e := entry{Family: f, position: position{Counter: 1, Rotated: now}, version: 1}
	if binder != "" {
		e.binder = hash(binder)
	}
	r, err := m.encode(e)
	if err != nil {
		return "", Family{}, err
	}
	if err := m.checkRevoked(ctx, e); err != nil { // also if the list does not know: the store may be another environment's
		return "", Family{}, err
	}
	if err := m.cfg.Store.Create(ctx, r); err != nil {
		return "", Family{}, fmt.Errorf("refresh: %w", err)
	}
	done := make(chan struct{})
	go func() { // revoking has a limit of its own, which is not the sign-in's
		defer close(done)
		m.makeRoom(ctx, f, now)
	}()
	refused := m.checkWritten(ctx, e)
	select {
	case <-done:
	case <-ctx.Done():
	}
	if refused != nil {
		return "", Family{}, refused
	}
	return m.token(id, e.Counter), f, nil
}

// cut returns at most maxLabel bytes of s, in valid UTF-8.
func cut(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 4*maxLabel)], "\uFFFD")
	if len(s) <= maxLabel {
		return s
	}
	n := maxLabel
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func hash(binder string) []byte {
	sum := sha256.Sum256([]byte(binder))
	return sum[:]
}

// makeRoom revokes the families of f's subject that were used longest ago, if
// there are too many. It spares the session of f. It runs in a goroutine of its
// own and recovers a panic of the store, which would end the process.
func (m *Manager) makeRoom(ctx context.Context, f Family, now time.Time) {
	err := errPanic
	defer func() {
		_ = recover() // its value may hold what must not be logged
		if err != nil {
			m.loud.Warn("cap", "refresh: the families of a subject could not be counted, or those above MaxPerSubject could not be revoked: "+
				"its next sign-in tries again; check the store", "subject", f.Subject, "err", err)
		}
	}()
	err = m.evict(ctx, f, now)
}

var errPanic = errors.New("the store panicked")

// maxIdle times MaxPerSubject is how many families past IdleTimeout a subject
// can have. They are kept for a sign-out.
const maxIdle = 10

func (m *Manager) evict(ctx context.Context, f Family, now time.Time) error {
	list, err := m.kept(ctx, f.Subject, now)
	if err != nil {
		return err
	}
	var idle, live []entry
	for _, e := range list {
		if now.Before(m.ends(e.Family)) {
			live = append(live, e)
		} else {
			idle = append(idle, e)
		}
	}
	if err := m.evictFrom(ctx, live, m.cfg.MaxPerSubject, f.SessionID); err != nil {
		return err
	}
	return m.evictFrom(ctx, idle, maxIdle*m.cfg.MaxPerSubject, f.SessionID)
}

// evictFrom revokes families of a list until a number is left, those used
// longest ago first. It spares one session.
func (m *Manager) evictFrom(ctx context.Context, list []entry, most int, spared string) error {
	tooMany := len(list) - most
	list = slices.DeleteFunc(list, func(e entry) bool { return e.SessionID == spared })
	slices.SortFunc(list, func(a, b entry) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), a.Began.Compare(b.Began), strings.Compare(a.ID, b.ID))
	})
	for _, e := range list[:max(0, min(tooMany, len(list)))] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := m.revokeSession(ctx, e.SessionID); err != nil {
			return err
		}
		m.counted.evicted.Add(1)
	}
	return nil
}

// ends returns when a family ends: its idle or its absolute end, whichever is
// earlier.
func (m *Manager) ends(f Family) time.Time {
	idle := f.LastUsed.Add(m.cfg.IdleTimeout)
	if idle.After(f.Ends) {
		return f.Ends
	}
	return idle
}

// encode returns the record of e under the first secret. Its Until is the
// absolute end of the family and not its idle end: the session may be renewed
// by its cookie, and a sign-out has to find the family. Until is a little
// later, since the store's clock may be ahead.
func (m *Manager) encode(e entry) (Record, error) {
	until := e.Ends.Add(skew + time.Millisecond).Truncate(time.Millisecond)
	return encode(m.keys[0].record, m.cfg.Namespace, e, until)
}

// decode returns the entry of a record. It logs a record that does not
// authenticate.
func (m *Manager) decode(r Record) (entry, error) {
	accepted := make([][]byte, len(m.keys))
	for i, k := range m.keys {
		accepted[i] = k.record
	}
	e, err := decode(accepted, r)
	if err != nil {
		m.counted.unauthenticated.Add(1)
		m.loud.Warn("record", "refresh: a family's record does not authenticate, so its tokens cannot be exchanged: "+
			"append to Config.Secrets the secret that another replica has, or find out who writes to the store; "+
			"to remove it, delete the subject's records", "family", r.ID, "subject", r.Subject)
	}
	return e, err
}

// find returns the family with an id, or ErrInvalid if there is none.
func (m *Manager) find(ctx context.Context, id string) (entry, error) {
	if m.cfg.Store == nil {
		return entry{}, errZero
	}
	r, err := m.cfg.Store.Find(ctx, m.cfg.Namespace, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return entry{}, ErrInvalid
	case err != nil:
		return entry{}, fmt.Errorf("refresh: %w", err)
	case r.ID != id || r.Namespace != m.cfg.Namespace:
		return entry{}, errors.New("refresh: the store returned another record")
	}
	return m.decode(r)
}

// belongs returns an error unless a request has the client and the binder of a
// family.
func belongs(e entry, p Presented) error {
	switch {
	case e.ClientID != p.ClientID:
		return ErrClient
	case len(e.binder) == 0 && p.Binder != "":
		return ErrBinder
	case len(e.binder) != 0 && subtle.ConstantTimeCompare(e.binder, hash(p.Binder)) != 1:
		return ErrBinder
	}
	return nil
}

// Exchange uses up a refresh token and returns its successor. The client and
// the binder must be the family's.
//
// Before the token is used up, Exchange asks the list and then calls issue,
// which loads the state and issues the session token. If issue fails, the
// refresh token is not used up, and Exchange returns the error, wrapped. issue
// is called at most once, and not for a token that is refused before it. The
// exchange can fail after issue has succeeded.
//
// An error that matches [ErrInvalid] is the token's fault. After any other
// error, the token can be presented again.
func (m *Manager) Exchange(ctx context.Context, p Presented, issue func(context.Context, Family) error) (successor string, _ Family, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if issue == nil {
		return "", Family{}, errors.New("refresh: Exchange: issue is required")
	}
	x := exchange{m: m, p: p, issue: issue}
	successor, f, err := x.run(ctx)
	m.counted.exchange(x, err)
	return successor, f, err
}

// exchange is one call of Exchange.
type exchange struct {
	m     *Manager
	p     Presented
	issue func(context.Context, Family) error

	step      step // the last one
	issued    bool
	notIssued bool // issue failed
}

// maxRaces is how many compare-and-swaps an exchange may lose. One token may be
// presented to many replicas at the same moment.
const maxRaces = 64

func (x *exchange) run(ctx context.Context) (string, Family, error) {
	id, counter, err := x.m.parse(x.p.Token)
	if err != nil {
		return "", Family{}, err
	}
	for range maxRaces {
		next, raced, err := x.try(ctx, encoding.EncodeToString(id[:]), counter)
		switch {
		case err != nil:
			return "", Family{}, err
		case !raced:
			return x.m.token(id, next.Counter), next.Family, nil
		}
	}
	return "", Family{}, fmt.Errorf("refresh: lost %d races for the family", maxRaces)
}

// try makes one attempt. raced reports whether another exchange won the swap.
func (x *exchange) try(ctx context.Context, id string, counter uint64) (next entry, raced bool, err error) {
	m := x.m
	e, err := m.find(ctx, id)
	if err != nil {
		return entry{}, false, err
	}
	now, err := m.now(ctx)
	if err != nil {
		return entry{}, false, err
	}
	if err := m.checkRevoked(ctx, e); err != nil {
		return entry{}, false, err
	}
	if err := belongs(e, x.p); err != nil {
		return entry{}, false, err
	}
	if !now.Before(m.ends(e.Family)) {
		return entry{}, false, ErrExpired
	}
	next = e
	next.position, x.step = advance(e.position, counter, now, m.window())
	switch x.step {
	case reuse:
		return entry{}, false, m.reused(ctx, e)
	case moved, late: // a late retry hands out the successor again
		next.LastUsed = now
	}
	var r Record
	changed := next.position != e.position
	if changed {
		next.version++
		if r, err = m.encode(next); err != nil {
			return entry{}, false, err
		}
	}
	if !x.issued {
		x.issued = true
		if err := x.issue(ctx, next.Family); err != nil {
			x.notIssued = true
			return entry{}, false, fmt.Errorf("refresh: %w", err)
		}
	}
	if !changed {
		return next, false, nil
	}
	switch err := m.cfg.Store.Swap(ctx, r); {
	case errors.Is(err, ErrConflict):
		return entry{}, true, nil
	case err != nil:
		return entry{}, false, fmt.Errorf("refresh: %w", err)
	}
	return next, false, nil
}

// check asks the list, which is not nil, about the session of a family and about
// that of its actor. It returns nil if both are live.
func (m *Manager) check(ctx context.Context, f Family) error {
	q := revoke.Question{SessionID: f.SessionID, Subject: f.Subject, Began: f.Began}.Prepared()
	if err := m.cfg.Revocations.Check(ctx, &q); err != nil || f.ActorSessionID == "" {
		return err
	}
	q = revoke.Question{SessionID: f.ActorSessionID, Subject: f.ActorSubject, Began: f.ActorBegan}.Prepared()
	return m.cfg.Revocations.Check(ctx, &q)
}

// checkRevoked asks the list whether the session of a family is live. It
// deletes the records of a revoked session.
func (m *Manager) checkRevoked(ctx context.Context, e entry) error {
	if m.cfg.Revocations == nil {
		return nil
	}
	switch err := m.check(ctx, e.Family); err {
	case nil:
		return nil
	case revoke.ErrRevoked: // itself: what wraps it may be an error of the store
		_ = m.DeleteSession(ctx, e.SessionID)
		return ErrInvalid
	default:
		return &undecided{err}
	}
}

// reused revokes the session of a family whose token was used twice.
func (m *Manager) reused(ctx context.Context, e entry) error {
	m.counted.reuse.Add(1)
	m.loud.Warn("reuse", "refresh: a refresh token was used twice, so two parties hold it: the session is revoked, and its user has to sign in again",
		"family", e.ID, "subject", e.Subject)
	err := m.revokeSession(ctx, e.SessionID)
	m.events.Send(ctx, event.Event{Kind: event.RefreshReused, Subject: e.Subject, Session: e.SessionID, Actor: e.ActorSubject, Owed: err != nil})
	if m.cfg.OnReuse != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		m.cfg.OnReuse(ctx, e.Family)
	}
	if err != nil {
		return fmt.Errorf("refresh: a refresh token was used twice, and its session could not be revoked: %w", err)
	}
	return ErrReused
}

// revokeSession revokes a session and deletes its records, under a limit of its
// own. With a list, the entry in it is what revokes: records that could not be
// deleted are logged, and cannot be used. Without a list, the deletion is what
// revokes.
func (m *Manager) revokeSession(ctx context.Context, sessionID string) error {
	if m.cfg.Revocations == nil {
		return m.DeleteSession(ctx, sessionID)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := m.cfg.Revocations.RevokeSession(ctx, sessionID); err != nil {
		return err
	}
	_ = m.DeleteSession(ctx, sessionID)
	return nil
}

// named returns the family that an authentic token names. The token may be used
// up.
func (m *Manager) named(ctx context.Context, p Presented) (entry, error) {
	id, _, err := m.parse(p.Token)
	if err != nil {
		return entry{}, err
	}
	e, err := m.find(ctx, encoding.EncodeToString(id[:]))
	if err != nil {
		return entry{}, err
	}
	return e, belongs(e, p)
}

// Find returns the family that an authentic token names. The token may be used
// up, expired or revoked. Use the result to revoke the session, and for nothing
// else. A token that this manager did not make, or whose record is absent, is
// [ErrInvalid].
func (m *Manager) Find(ctx context.Context, p Presented) (Family, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e, err := m.named(ctx, p)
	if err != nil {
		return Family{}, err
	}
	return e.Family, nil
}

// Revoke revokes the session of a refresh token and deletes its families: a
// sign-out (RFC 7009). The token may be used up. A token that this manager did
// not make, or whose record is absent, is [ErrInvalid]. Nil means that the
// list's store has acknowledged the revocation; Revoke then logs records that
// could not be deleted. After another error, repeat the call.
//
// The end of ctx does not cancel a revocation that has begun, which has a limit
// of its own.
func (m *Manager) Revoke(ctx context.Context, p Presented) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e, err := m.named(ctx, p)
	if err != nil {
		return err
	}
	return m.revokeEntry(ctx, e)
}

func (m *Manager) revokeEntry(ctx context.Context, e entry) error {
	if err := m.revokeSession(ctx, e.SessionID); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}

// RevokeFamily revokes the session of one family of a subject, such as one
// device of the user's list, and deletes the session's families. A family of
// another subject, or one that is absent, is [ErrInvalid]. Otherwise it does as
// [Manager.Revoke] does.
func (m *Manager) RevokeFamily(ctx context.Context, subject, id string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if subject == "" {
		return errors.New("refresh: RevokeFamily: subject is required")
	}
	if b, err := encoding.DecodeString(id); err != nil || len(b) != idSize {
		return ErrInvalid
	}
	e, err := m.find(ctx, id)
	if err != nil {
		return err
	}
	if e.Subject != subject {
		return ErrInvalid
	}
	return m.revokeEntry(ctx, e)
}

// DeleteSession deletes the records of a session. It does not revoke the
// session: call it after the list has returned nil for the revocation. A
// failure is logged and does no harm, since the list refuses the tokens.
//
// The end of ctx does not cancel it; it has a limit of its own.
func (m *Manager) DeleteSession(ctx context.Context, sessionID string) error {
	if sessionID == "" {
		return errors.New("refresh: DeleteSession: sessionID is required")
	}
	return m.tidy(ctx, func(ctx context.Context) error {
		return m.cfg.Store.DeleteSession(ctx, m.cfg.Namespace, sessionID)
	})
}

// DeleteSubject deletes the records of a subject, except those of the session
// exceptSessionID; the empty string spares none. Otherwise it does as
// [Manager.DeleteSession] does.
func (m *Manager) DeleteSubject(ctx context.Context, subject, exceptSessionID string) error {
	if subject == "" {
		return errors.New("refresh: DeleteSubject: subject is required")
	}
	return m.tidy(ctx, func(ctx context.Context) error {
		return m.cfg.Store.DeleteSubject(ctx, m.cfg.Namespace, subject, exceptSessionID)
	})
}

// tidy deletes records under a limit of its own.
func (m *Manager) tidy(ctx context.Context, remove func(context.Context) error) error {
	if m.cfg.Store == nil {
		return errZero
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := remove(ctx); err != nil {
		m.counted.notDeleted.Add(1)
		m.loud.Warn("deletion", "refresh: records of revoked sessions could not be deleted: they cannot be used and will expire; check the store",
			"err", err)
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}

// List returns the families of a subject that have not ended and are not
// revoked, the one used last first, for the user's list of devices. LastUsed is
// rounded down to the hour: exact times would show a thief when the owner
// refreshes. A record that does not authenticate is logged and left out.
func (m *Manager) List(ctx context.Context, subject string) ([]Family, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	now, err := m.now(ctx)
	if err != nil {
		return nil, err
	}
	entries, err := m.live(ctx, subject, now)
	if err != nil {
		return nil, err
	}
	var list []Family
	for _, e := range entries {
		e.LastUsed = e.LastUsed.Truncate(time.Hour)
		list = append(list, e.Family)
	}
	// The order must not reveal more than the rounded times.
	slices.SortFunc(list, func(a, b Family) int {
		return cmp.Or(b.LastUsed.Compare(a.LastUsed), b.Began.Compare(a.Began), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// live returns the families of a subject whose tokens can be exchanged.
func (m *Manager) live(ctx context.Context, subject string, now time.Time) ([]entry, error) {
	list, err := m.kept(ctx, subject, now)
	return slices.DeleteFunc(list, func(e entry) bool { return !now.Before(m.ends(e.Family)) }), err
}

// kept returns the families of a subject that have not reached their absolute end
// and are not known to be revoked.
func (m *Manager) kept(ctx context.Context, subject string, now time.Time) ([]entry, error) {
	records, err := m.cfg.Store.List(ctx, m.cfg.Namespace, subject)
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	var list []entry
	for _, r := range records {
		if r.Subject != subject || r.Namespace != m.cfg.Namespace {
			return nil, errors.New("refresh: the store returned another subject's record")
		}
		e, err := m.decode(r)
		if err != nil || !now.Before(e.Ends) || m.isRevoked(ctx, e) {
			continue
		}
		list = append(list, e)
	}
	return list, nil
}

// isRevoked reports whether the session of a family is revoked.
func (m *Manager) isRevoked(ctx context.Context, e entry) bool {
	if m.cfg.Revocations == nil {
		return false
	}
	return m.check(ctx, e.Family) == revoke.ErrRevoked
}
