// Package refresh keeps sessions going beyond the life of their tokens, for
// native clients and for long sessions: a refresh token is exchanged for a new
// session token and its own successor (RFC 6749 section 6), and is used once
// (RFC 9700 section 4.14.2).
//
// A refresh token is opaque. It names a family, the sign-in that it descends
// from, and a position in it, and carries an HMAC over both under a secret of
// the server. The store holds the family's record and nothing that could be
// presented: whoever reads it has no token.
//
// Each exchange moves the family on by one. The token just replaced may come
// again within RetryWindow (an answer that was lost, two tabs at once) and gets
// the same successor. Anything older, or later, means that two parties hold the
// family's tokens: it ends, with its session, and OnReuse is told.
//
// What this cannot see is a thief who presents each token within RetryWindow of
// its owner and no more often: that is what two tabs look like. The absolute
// end of the family bounds it.
package refresh

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
)

// Reasons for which a refresh token is refused. Each of them matches [ErrInvalid],
// which is the invalid_grant of RFC 6749 section 5.2; any other error means that
// the server could not tell. No text holds a token.
var (
	ErrInvalid = errors.New("refresh: the refresh token is not valid")
	// ErrExpired: its family has reached its idle or its absolute end.
	ErrExpired error = reason("refresh: the refresh token has expired")
	// ErrReused: it was used before. Its family and its session were ended.
	ErrReused error = reason("refresh: the refresh token was used before")
)

type reason string

func (r reason) Error() string        { return string(r) }
func (r reason) Is(target error) bool { return target == ErrInvalid }

// What a [Store] returns.
var (
	// ErrNotFound: there is no record with this id.
	ErrNotFound = errors.New("refresh: no such family")
	// ErrConflict: the record is not of the expected version, or gone.
	ErrConflict = errors.New("refresh: the record was changed by another")
)

// Family is one sign-in that is kept going: a device, in a list of them.
type Family struct {
	ID        string // not a secret: with it alone nobody can do anything
	Subject   string
	SessionID string // sid of its session tokens
	ClientID  string // the client it is bound to; empty if to none
	Label     string // the caller's, such as "Firefox on Linux"

	Created  time.Time // when the user signed in: the session's auth_time
	LastUsed time.Time // when it was exchanged last
	Ends     time.Time // its absolute end, which no exchange moves
}

// Record is what a store keeps of a family.
type Record struct {
	Family
	Version uint64    // of the record: one more with each change
	Counter uint64    // position of the only token that is unused
	Rotated time.Time // when that token was first handed out
	Retried bool      // the token before that was presented again
	Retries time.Time // since when each token was presented again, without a pause; zero if it was not
	Until   time.Time // when the store may forget the record
}

// Store keeps records for all replicas. It holds no logic; package storetest
// shows what it has to do. All methods are
// called concurrently, and repeated after an error: all of them must be safe to
// repeat.
type Store interface {
	// Create adds a record with a new id. Creating it again changes nothing, also
	// if it was swapped since.
	Create(ctx context.Context, r Record) error
	// Find returns the record with an id, or ErrNotFound.
	Find(ctx context.Context, id string) (Record, error)
	// Swap replaces the record whose version is one less than that of r, or
	// returns ErrConflict.
	Swap(ctx context.Context, r Record) error
	// Delete removes a record. That there is none is no error.
	Delete(ctx context.Context, id string) error
	// DeleteSubject removes all records of a subject.
	DeleteSubject(ctx context.Context, subject string) error
	// List returns the records of a subject, in any order.
	List(ctx context.Context, subject string) ([]Record, error)
}

// SessionEnder ends sessions at their verifiers: a List of package revoke.
type SessionEnder interface {
	EndSession(ctx context.Context, sessionID string) error
	EndSubject(ctx context.Context, subject string) error
}

// Config says how a [Manager] works. All replicas that share a store should be
// configured alike.
type Config struct {
	// Store is shared by all replicas. Required.
	Store Store
	// Secrets are at least 32 random bytes each. The first one makes tokens, all
	// of them are accepted: to rotate, put a new one in front, and take the old
	// one away when MaxAge has passed. Required.
	Secrets [][]byte
	// Sessions ends the session of a family that ends. Without it, session
	// tokens that were issued go on until they end by themselves. Required,
	// unless InsecureSessionsLiveOn says so.
	Sessions               SessionEnder
	InsecureSessionsLiveOn bool

	// IdleTimeout is how long a refresh token can be used after it was handed
	// out. 0 means 1 h, or MaxAge if that is shorter.
	IdleTimeout time.Duration
	// MaxAge is the absolute end of a family, counted from the sign-in. At least
	// IdleTimeout, and no longer than the issuer's MaxSession. 0 means 24 h.
	MaxAge time.Duration
	// RetryWindow is how long the token just replaced gets the same successor
	// again. At most 1 min. 0 means 30 s.
	RetryWindow time.Duration

	// OnReuse is told of a family that was ended because a token was used
	// twice. Optional.
	OnReuse func(ctx context.Context, f Family)
	// Logger is told of reuse (Warn). Nil means slog.Default().
	Logger *slog.Logger
}

// Manager hands out refresh tokens and exchanges them. It is safe for
// concurrent use; make it with [NewManager].
type Manager struct {
	cfg     Config
	counted exchanges
}

// NewManager checks the configuration and returns the manager for it. An error
// names the field at fault. It does no I/O.
func NewManager(cfg Config) (*Manager, error) {
	switch {
	case arg.IsNil(cfg.Store):
		return nil, errors.New("refresh: Config.Store is required")
	case len(cfg.Secrets) == 0:
		return nil, errors.New("refresh: Config.Secrets is required")
	case slices.ContainsFunc(cfg.Secrets, func(s []byte) bool { return len(s) < 32 }):
		return nil, errors.New("refresh: Config.Secrets holds one of fewer than 32 bytes")
	case cfg.Sessions != nil && arg.IsNil(cfg.Sessions):
		return nil, errors.New("refresh: Config.Sessions holds a nil pointer")
	case cfg.Sessions == nil && !cfg.InsecureSessionsLiveOn:
		return nil, errors.New("refresh: Config.Sessions is required; set InsecureSessionsLiveOn to let the session tokens of an ended family live on")
	case cfg.IdleTimeout < 0:
		return nil, errors.New("refresh: Config.IdleTimeout is negative")
	case cfg.MaxAge < 0:
		return nil, errors.New("refresh: Config.MaxAge is negative")
	case cfg.RetryWindow < 0 || cfg.RetryWindow > time.Minute:
		return nil, fmt.Errorf("refresh: Config.RetryWindow is %v; it must be from 0 to 1m", cfg.RetryWindow)
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = max(24*time.Hour, cfg.IdleTimeout)
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = min(time.Hour, cfg.MaxAge)
	}
	if cfg.RetryWindow == 0 {
		cfg.RetryWindow = 30 * time.Second
	}
	if cfg.IdleTimeout > cfg.MaxAge {
		return nil, fmt.Errorf("refresh: Config.IdleTimeout is %v; it must not exceed MaxAge, which is %v", cfg.IdleTimeout, cfg.MaxAge)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	secrets := make([][]byte, len(cfg.Secrets))
	for i, s := range cfg.Secrets {
		secrets[i] = slices.Clone(s)
	}
	cfg.Secrets = secrets
	return &Manager{cfg: cfg}, nil
}

// Start begins a family and returns its first refresh token. Of f, Subject,
// SessionID and Created are required and come from the claims of the session
// that was just issued; ClientID and Label are optional; the rest is filled in.
func (m *Manager) Start(ctx context.Context, f Family) (string, Family, error) {
	now := time.Now()
	f.Created = f.Created.Round(0).UTC()
	switch {
	case f.Subject == "":
		return "", Family{}, errors.New("refresh: Start: Subject is required")
	case f.SessionID == "":
		return "", Family{}, errors.New("refresh: Start: SessionID is required")
	case f.Created.IsZero() || f.Created.After(now.Add(time.Minute)):
		return "", Family{}, errors.New("refresh: Start: Created is required, and not in the future")
	}
	var id [16]byte
	rand.Read(id[:])
	f.ID = encoding.EncodeToString(id[:])
	f.LastUsed, f.Ends = now.UTC(), f.Created.Add(m.cfg.MaxAge)
	r := Record{Family: f, Version: 1, Counter: 1, Rotated: now.UTC()}
	r.Until = m.until(r)
	if err := m.cfg.Store.Create(ctx, r); err != nil {
		return "", Family{}, fmt.Errorf("refresh: %w", err)
	}
	return m.token(id, r.Counter), f, nil
}

// until is when a record is of no more use.
func (m *Manager) until(r Record) time.Time {
	idle := r.LastUsed.Add(m.cfg.IdleTimeout)
	if idle.After(r.Ends) {
		idle = r.Ends
	}
	return idle
}

// Exchange uses a refresh token up and returns its successor. clientID is that
// of the authenticated or public client that presents it, and must be the
// family's.
//
// Before anything is used up, it calls issue, which loads the state and issues
// the session token: if that fails, the refresh token is as good as before, and
// Exchange returns the error, wrapped. issue is called at most once, never for
// a token that is refused at first sight; that it was called does not mean that
// the exchange succeeds.
//
// An error that matches [ErrInvalid] is the token's fault. With any other, the
// token can be presented again.
func (m *Manager) Exchange(ctx context.Context, token, clientID string, issue func(context.Context, Family) error) (string, Family, error) {
	notIssued := false
	successor, f, again, err := m.exchange(ctx, token, clientID, func(ctx context.Context, f Family) error {
		err := issue(ctx, f)
		notIssued = err != nil
		return err
	})
	m.counted.ended(err, again, notIssued)
	return successor, f, err
}

// exchange is Exchange. again says that the successor had been handed out before.
func (m *Manager) exchange(ctx context.Context, token, clientID string, issue func(context.Context, Family) error) (successor string, f Family, again bool, err error) {
	id, counter, err := m.parse(token)
	if err != nil {
		return "", Family{}, false, err
	}
	issued := false
	for range maxRaces {
		r, err := m.find(ctx, encoding.EncodeToString(id[:]))
		if err != nil {
			return "", Family{}, false, err
		}
		now := time.Now()
		switch {
		case r.ClientID != clientID:
			return "", Family{}, false, ErrInvalid
		case !now.Before(m.until(r)):
			return "", Family{}, false, ErrExpired
		}
		next, retry, ok := m.advance(r, counter, now)
		if !ok {
			return "", Family{}, false, m.reused(ctx, r)
		}
		if !issued {
			issued = true
			if err := issue(ctx, next.Family); err != nil {
				return "", Family{}, false, fmt.Errorf("refresh: %w", err)
			}
		}
		if retry && next == r {
			return m.token(id, r.Counter), r.Family, true, nil
		}
		next.Version++
		switch err := m.cfg.Store.Swap(ctx, next); {
		case err == nil:
			return m.token(id, next.Counter), next.Family, retry, nil
		case !errors.Is(err, ErrConflict):
			return "", Family{}, false, fmt.Errorf("refresh: %w", err)
		}
	}
	return "", Family{}, false, fmt.Errorf("refresh: lost %d races for the family", maxRaces)
}

// maxRaces is how many compare-and-swaps an exchange may lose: many replicas may
// be given one token at the same moment, and only the first one changes much.
const maxRaces = 64

// advance is what becomes of a record when the token at counter is presented.
// It decides everything about reuse.
//
// A retry is the token just replaced, within RetryWindow of its replacement. One
// alone proves nothing. But where one token after the other is presented again,
// without a pause longer than RetryWindow, two parties are taking turns, and
// RetryWindow bounds that as a whole. (So clients should not exchange tokens
// more often than that; session tokens live longer.)
func (m *Manager) advance(r Record, counter uint64, now time.Time) (next Record, retry, ok bool) {
	next = r
	recent := now.Sub(r.Rotated) <= m.cfg.RetryWindow
	switch {
	case counter+1 == r.Counter && recent:
		next.Retried = true
		if r.Retries.IsZero() {
			next.Retries = now.UTC()
		} else if now.Sub(r.Retries) > m.cfg.RetryWindow {
			return r, false, false
		}
		return next, true, true
	case counter < r.Counter:
		return r, false, false
	}
	// The current token; or a later one, if the store has lost what it had
	// acknowledged: then this one was handed out, and the store catches up.
	next.Counter = counter + 1
	next.Rotated, next.LastUsed = now.UTC(), now.UTC()
	if !recent || !r.Retried {
		next.Retries = time.Time{} // nobody is taking turns
	}
	next.Retried = false
	next.Until = m.until(next)
	return next, false, true
}

// reused ends a family of which a token was used twice.
func (m *Manager) reused(ctx context.Context, r Record) error {
	m.counted.reuse.Add(1)
	m.cfg.Logger.Warn("refresh: a refresh token was used twice; its family and session are ended", "family", r.ID, "subject", r.Subject)
	err := m.end(ctx, r)
	if m.cfg.OnReuse != nil {
		m.cfg.OnReuse(ctx, r.Family)
	}
	if err != nil {
		return fmt.Errorf("refresh: a token was used twice, and its family could not be ended: %w", err)
	}
	return ErrReused
}

// end ends the session first: if that fails the family is still there, and
// presenting the token again tries again.
func (m *Manager) end(ctx context.Context, r Record) error {
	if m.cfg.Sessions != nil {
		if err := m.cfg.Sessions.EndSession(ctx, r.SessionID); err != nil {
			return err
		}
	}
	return m.cfg.Store.Delete(ctx, r.ID)
}

func (m *Manager) find(ctx context.Context, id string) (Record, error) {
	r, err := m.cfg.Store.Find(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return r, ErrInvalid
	case err != nil:
		return r, fmt.Errorf("refresh: %w", err)
	case r.ID != id || r.Counter == 0:
		return r, errors.New("refresh: the store returned another record")
	}
	return r, nil
}

// End ends the family of a refresh token, and its session: a sign-out. A token
// that was used up ends it too (RFC 7009 asks no more than that the client once
// had it); one that is no token of ours, or whose family is gone, is
// [ErrInvalid].
func (m *Manager) End(ctx context.Context, token string) error {
	id, _, err := m.parse(token)
	if err != nil {
		return err
	}
	return m.EndFamily(ctx, "", encoding.EncodeToString(id[:]))
}

// EndFamily ends a family by its id, and its session: one device of a list. If
// subject is not empty, the family must be that subject's; any other, and one
// that is gone, is [ErrInvalid].
func (m *Manager) EndFamily(ctx context.Context, subject, id string) error {
	r, err := m.find(ctx, id)
	if err != nil {
		return err
	}
	if subject != "" && r.Subject != subject {
		return ErrInvalid
	}
	if err := m.end(ctx, r); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}

// EndSession ends the families of one session of a subject, and the session
// itself, also if it has no family.
func (m *Manager) EndSession(ctx context.Context, subject, sessionID string) error {
	if m.cfg.Sessions != nil {
		if err := m.cfg.Sessions.EndSession(ctx, sessionID); err != nil {
			return fmt.Errorf("refresh: %w", err)
		}
	}
	records, err := m.cfg.Store.List(ctx, subject)
	if err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	for _, r := range records {
		if r.SessionID == sessionID {
			if err := m.cfg.Store.Delete(ctx, r.ID); err != nil {
				return fmt.Errorf("refresh: %w", err)
			}
		}
	}
	return nil
}

// EndSubject ends all families of a subject, and all its sessions: for "sign out
// everywhere", a changed password, a blocked user. After an error, repeat it.
func (m *Manager) EndSubject(ctx context.Context, subject string) error {
	if subject == "" {
		return errors.New("refresh: EndSubject: subject is required")
	}
	if m.cfg.Sessions != nil {
		if err := m.cfg.Sessions.EndSubject(ctx, subject); err != nil {
			return fmt.Errorf("refresh: %w", err)
		}
	}
	if err := m.cfg.Store.DeleteSubject(ctx, subject); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	return nil
}

// List returns the families of a subject that have not ended, the last used
// first: "signed in on three devices".
func (m *Manager) List(ctx context.Context, subject string) ([]Family, error) {
	records, err := m.cfg.Store.List(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	now := time.Now()
	var list []Family
	for _, r := range records {
		if r.Subject == subject && now.Before(m.until(r)) {
			list = append(list, r.Family)
		}
	}
	slices.SortFunc(list, func(a, b Family) int { return b.LastUsed.Compare(a.LastUsed) })
	return list, nil
}

// The form of a token: a version, the family's id, the position, and the HMAC of
// those three, in base64url.
const (
	version   = 1
	macAt     = 1 + 16 + 8
	tokenSize = macAt + sha256.Size
	domain    = "sessiontoken refresh token\x00"
)

var encoding = base64.RawURLEncoding.Strict()

func (m *Manager) token(id [16]byte, counter uint64) string {
	b := make([]byte, 0, tokenSize)
	b = append(append(b, version), id[:]...)
	b = binary.BigEndian.AppendUint64(b, counter)
	return encoding.EncodeToString(mac(m.cfg.Secrets[0], b))
}

// mac appends the HMAC of b to it.
func mac(secret, b []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(domain))
	h.Write(b)
	return h.Sum(b)
}

func (m *Manager) parse(token string) (id [16]byte, counter uint64, err error) {
	if len(token) != encoding.EncodedLen(tokenSize) {
		return id, 0, ErrInvalid
	}
	b, err := encoding.DecodeString(token)
	if err != nil || len(b) != tokenSize || b[0] != version {
		return id, 0, ErrInvalid
	}
	genuine := false
	for _, secret := range m.cfg.Secrets {
		want := mac(secret, b[:macAt:macAt])
		genuine = hmac.Equal(want[macAt:], b[macAt:]) || genuine
	}
	if !genuine {
		return id, 0, ErrInvalid
	}
	counter = binary.BigEndian.Uint64(b[17:macAt])
	if counter == 0 || counter == 1<<64-1 {
		return id, 0, ErrInvalid
	}
	return [16]byte(b[1:17]), counter, nil
}
