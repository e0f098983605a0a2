package sessiontoken

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
	"github.com/sessiontoken/sessiontoken/internal/sid"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	defaultTTL         = 5 * time.Minute
	defaultIdleTimeout = time.Hour
	defaultMaxSession  = 24 * time.Hour
	defaultIssueBytes  = 3584
)

// SigningKeySource is a [KeySource] that also signs: a [keys.Ring], or a
// [keys.Static] for a key held by a KMS or an HSM.
//
// SigningKey returns the key that signs now, whose public half is in the set
// that KeySet returns. It is called concurrently, and once for each token.
//
// RetainFor returns how long a key verifies after its last signature; 0 means
// for ever. It does no I/O. [NewIssuer] checks that no token can outlive its
// key.
type SigningKeySource interface {
	KeySource
	SigningKey(ctx context.Context) (*keys.SigningKey, error)
	RetainFor() time.Duration
}

// IssuerConfig says what an [Issuer] writes. The defaults of its times keep to
// NIST SP 800-63B-4 section 2.2.3 (AAL2): at most 24 h overall, at most 1 h
// idle.
type IssuerConfig struct {
	// Issuer is the iss of every token, by custom the https URL of the issuer.
	// Required.
	Issuer string
	// Audience is the aud of every token: the APIs that it is for. Required.
	Audience []string
	// Keys signs, and verifies for Renew and Identify. Required. If it is a
	// [keys.Identifier], as a [keys.Ring] is, Identify also accepts tokens of
	// retired keys.
	Keys SigningKeySource
	// TTL is how long a token is valid, which bounds how old its state gets.
	// Whole seconds. 0 means 5 min, or IdleTimeout or MaxSession if that is set
	// and shorter.
	TTL time.Duration
	// IdleTimeout is how long after its iat a token can be renewed. A session
	// that is not used for that long ends. At least TTL. 0 means 1 h, or
	// MaxSession if that is shorter.
	IdleTimeout time.Duration
	// MaxSession is how long a session lasts at most, counted from its
	// beginning. Renewal does not extend it, and no token is valid beyond it.
	// At least IdleTimeout. 0 means 24 h.
	MaxSession time.Duration
	// MaxBytes is the largest token that is issued. A browser drops a cookie
	// whose name and value exceed 4096 bytes, and all cookies of a site share
	// one header. 0 means 3584. A verifier's default limit is 8192.
	MaxBytes int
	// Revocations knows the time and what was revoked. Begin asks it when the
	// session begins; Renew and Resume ask it whether the session was revoked.
	// It must remember a revocation for at least MaxSession, and its MaxTTL
	// must be at least TTL. If it fails, no token is issued. If nil, the time
	// is the machine's, no session can be revoked, and no state can be marked
	// as changed.
	Revocations revoke.Checker
	// StateSecrets encrypt the [Sealed] fields of the state: at least 32 random
	// bytes each, the same on every server that reads these fields. The first
	// seals, and all open. Required if T has a Sealed field.
	//
	// To replace a secret, finish each step everywhere before the next: append
	// the new one; move it to the front; remove the old one when IdleTimeout
	// has passed. A token whose secret is gone is [ErrClaims]: its session has
	// to begin again.
	StateSecrets [][]byte
	// Logger gets a line when a token takes over 90 % of MaxBytes, at most one a
	// minute. It names the heaviest claims and holds no value. Nil means
	// slog.Default().
	Logger *slog.Logger
	// OnEvent gets an event for each session that begins, for each renewal, and
	// for each token over 90 % of MaxBytes: see [event.Func]. Optional.
	OnEvent event.Func
	// InsecureEventNames lets the events name subjects and sessions as they
	// are, and not by hashes.
	InsecureEventNames bool
}

// Issuer writes tokens that carry a state of type T. T is any type whose values
// JSON can write and read back. It is written by the rules of encoding/json/v2:
// names match exactly, and a nil slice or map is written as an empty one. An
// Issuer is immutable and safe for concurrent use.
//
// [NewIssuer] and [NewVerifier] refuse a T that cannot be written or cannot be
// read back, such as one with an interface other than any, a channel, a
// time.Duration or a type that has MarshalJSON and no UnmarshalJSON. A value
// that cannot be read back is an error when it is issued. So is a number in an
// any that would be read back as another number, since an any reads numbers as
// float64. A type with an UnmarshalJSON may keep and change the bytes that it
// is given.
type Issuer[T any] struct {
	cfg    IssuerConfig // with defaults
	reader tokenReader
	states *stateDecoder[T] // of tokens to renew
	now    timeSource
	events *notify.Sender
	header atomic.Pointer[keyHeader] // of the key that signed last
	budget budget
}

// NewIssuer checks the configuration and T and returns the issuer for them. An
// error names the field at fault. It does no I/O.
func NewIssuer[T any](cfg IssuerConfig) (*Issuer[T], error) {
	cfg.Audience = slices.Clone(cfg.Audience)
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	states, err := newStateCodec[T]("IssuerConfig", cfg.StateSecrets, false)
	if err != nil {
		return nil, err
	}
	cfg.StateSecrets = nil // states has what is made of them
	log := loud.New(cfg.Logger)
	return &Issuer[T]{
		cfg:    cfg,
		states: states,
		events: notify.New(cfg.OnEvent, cfg.InsecureEventNames, log),
		// Renew also reads tokens that were issued under an earlier, larger
		// limit.
		reader: tokenReader{issuer: cfg.Issuer, audience: cfg.Audience, keys: cfg.Keys, maxBytes: max(cfg.MaxBytes, defaultVerifyBytes)},
		now:    timeSource{cfg.Revocations, clock.Here()},
		budget: budget{loud: log},
	}, nil
}

// Config returns a copy of the configuration with its defaults filled in, and
// without StateSecrets.
func (i *Issuer[T]) Config() IssuerConfig {
	cfg := i.cfg
	cfg.Audience = slices.Clone(cfg.Audience)
	return cfg
}

// Now returns the time that the issuer compares with and writes into tokens:
// that of IssuerConfig.Revocations, or of the machine's clock if that is nil.
// An error means that the time is not known; no token is issued then.
func (i *Issuer[T]) Now(ctx context.Context) (time.Time, error) { return i.now.now(ctx) }

func (cfg *IssuerConfig) setDefaults() error {
	switch {
	case cfg.Issuer == "" || !utf8.ValidString(cfg.Issuer):
		return errors.New("sessiontoken: IssuerConfig.Issuer is required, in valid UTF-8")
	case len(cfg.Audience) == 0:
		return errors.New("sessiontoken: IssuerConfig.Audience is required")
	case slices.ContainsFunc(cfg.Audience, func(a string) bool { return a == "" || !utf8.ValidString(a) }):
		return errors.New("sessiontoken: IssuerConfig.Audience holds an empty name, or one that is not valid UTF-8")
	case arg.IsNil(cfg.Keys):
		return errors.New("sessiontoken: IssuerConfig.Keys is required")
	case arg.IsUnmade(cfg.Keys):
		return fmt.Errorf("sessiontoken: IssuerConfig.Keys is a zero %T: make it with its constructor", cfg.Keys)
	case cfg.Revocations != nil && arg.IsNil(cfg.Revocations):
		return errors.New("sessiontoken: IssuerConfig.Revocations holds a nil pointer")
	case arg.IsUnmade(cfg.Revocations):
		return fmt.Errorf("sessiontoken: IssuerConfig.Revocations is a zero %T: make it with its constructor", cfg.Revocations)
	case cfg.MaxBytes < 0:
		return errors.New("sessiontoken: IssuerConfig.MaxBytes is negative")
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"TTL", cfg.TTL}, {"IdleTimeout", cfg.IdleTimeout}, {"MaxSession", cfg.MaxSession}} {
		field := "sessiontoken: IssuerConfig." + d.field
		if err := arg.Duration(field, d.value, time.Second); err != nil {
			return err
		}
		if d.value%time.Second != 0 {
			return fmt.Errorf("%s is %v; it must be a whole number of seconds", field, d.value)
		}
	}
	if cfg.MaxSession == 0 {
		cfg.MaxSession = defaultMaxSession
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = min(max(defaultIdleTimeout, cfg.TTL), cfg.MaxSession)
	}
	if cfg.TTL == 0 {
		cfg.TTL = min(defaultTTL, cfg.IdleTimeout)
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultIssueBytes
	}
	if cfg.IdleTimeout > cfg.MaxSession {
		return fmt.Errorf("sessiontoken: IssuerConfig.IdleTimeout is %v; it must not exceed MaxSession, which is %v", cfg.IdleTimeout, cfg.MaxSession)
	}
	if cfg.TTL > cfg.IdleTimeout {
		return fmt.Errorf("sessiontoken: IssuerConfig.TTL is %v; it must not exceed IdleTimeout, which is %v", cfg.TTL, cfg.IdleTimeout)
	}
	if kept := cfg.Keys.RetainFor(); kept != 0 { // 0: for ever
		if kept < cfg.TTL+maxLeeway {
			return fmt.Errorf("sessiontoken: IssuerConfig.TTL is %v, and with a leeway of %v its keys must be retained as long: Keys retains them for %v", cfg.TTL, maxLeeway, kept)
		} else if kept < cfg.IdleTimeout {
			return fmt.Errorf("sessiontoken: IssuerConfig.IdleTimeout is %v, but Keys retains a key only for %v after its last signature: its tokens could not be renewed", cfg.IdleTimeout, kept)
		}
	}
	if cfg.Revocations != nil {
		if kept := cfg.Revocations.RetainFor(); kept < cfg.MaxSession {
			return fmt.Errorf("sessiontoken: IssuerConfig.MaxSession is %v, but Revocations forgets what was revoked after %v: the session could be renewed again", cfg.MaxSession, kept)
		}
		if most := cfg.Revocations.MaxTTL(); cfg.TTL > most {
			return fmt.Errorf("sessiontoken: IssuerConfig.TTL is %v; it must not exceed the MaxTTL of Revocations, which is %v: a token with a state that has changed could be accepted again", cfg.TTL, most)
		}
	}
	return nil
}

// Renewal says how a token may be renewed.
type Renewal int

// The ways in which a token may be renewed.
const (
	// NotRenewable, the zero value: not at all. It is for a token that is
	// handed out beside a refresh token, since that renews the session.
	NotRenewable Renewal = iota
	// Renewable: by [Issuer.Renew], as package sessionhttp does with a cookie.
	Renewable
)

func (r Renewal) valid() bool { return r == NotRenewable || r == Renewable }

// Start says how a session begins.
type Start struct {
	// Subject is the user, within this issuer. Required.
	Subject string
	// Groups are the groups that the session belongs to, at most 4. Its id
	// holds them. Optional.
	Groups []Group
	// Earliest is when a sign-in in several steps began, such as a login at an
	// OpenID provider: a time that [Issuer.Now] returned. The session then
	// begins at that time, and Begin returns [ErrRevoked] if the subject or a
	// group was revoked since. If zero or in the future, the session begins
	// now.
	Earliest time.Time
	// AuthTime is when the user proved who they are. A time in the future
	// counts as now. Zero means that it is not known: the tokens have no
	// auth_time.
	AuthTime time.Time
	// ACR names how strong that proof was, in at most 64 bytes. Optional.
	ACR string
	// AMR names how the user proved it: at most 10 names of at most 64 bytes
	// each. Optional.
	AMR []string
	// Actor is who acts for the subject, from the verified claims of the
	// actor's own session. That session must be live, and no token of the new
	// session is valid beyond MaxSession after the actor's session began. A
	// session that has an Actor itself cannot be the actor's: pass that Actor.
	// Optional.
	Actor *Actor
	// Renewal says how the session's tokens may be renewed. Zero means not at
	// all.
	Renewal Renewal
	// Context is data of the application for the server's own record of the
	// session, such as the tenant that the user chose, in at most 512 bytes. It
	// is not written into the token. Begin returns it in Claims.Context, and a
	// refresh family stores it. Optional.
	Context []byte
}

// maxContext is how many bytes Context has at most.
const maxContext = 512

// Begin begins a session and returns its first token with its claims. Call it
// after the user has proven who they are, and again at each new proof. Each
// call makes a new session id, so that a token that an attacker planted before
// the sign-in is not of the new session. A session that the new one replaces is
// valid until it ends by itself or is revoked.
//
// With Revocations the session begins after everything that was revoked before
// the call, on any machine: a user who signs in after "sign out everywhere"
// stays signed in.
//
// Read the state right before the call. If a change of it is marked in the
// meantime ([revoke.List.Changed]), the token is stale only if its iat is not
// after the second of the mark: Begin does not know when the state was read.
//
// The token is signed, not encrypted: its holder can read the state, except for
// [Sealed] fields. If the token would be over IssuerConfig.MaxBytes, Begin returns a [*SizeError] and
// signs nothing.
func (i *Issuer[T]) Begin(ctx context.Context, s Start, state T) (string, *Claims[T], error) {
	if err := checkSubject(s.Subject); err != nil {
		return "", nil, err
	}
	groups, err := s.groups()
	if err != nil {
		return "", nil, err
	}
	switch {
	case !s.Renewal.valid():
		return "", nil, errors.New("sessiontoken: Start.Renewal is not one of NotRenewable and Renewable")
	case !s.AuthTime.IsZero() && s.AuthTime.Unix() <= 0:
		return "", nil, errors.New("sessiontoken: Start.AuthTime is before 1970")
	case len(s.Context) > maxContext:
		return "", nil, fmt.Errorf("sessiontoken: Start.Context is longer than %d bytes", maxContext)
	}
	p := i.newPayload(s.Subject)
	if len(groups) > 0 {
		p.SessionID = strings.Join(append(groups, p.SessionID), ".")
	}
	began, err := i.begin(ctx, s, p.SessionID)
	if err != nil {
		return "", nil, err
	}
	now, err := i.Now(ctx)
	if err != nil {
		return "", nil, err
	}
	i.setTimes(&p, now, began)
	p.Renewable = s.Renewal == Renewable
	if !s.AuthTime.IsZero() {
		p.AuthTime = min(numericDate(s.AuthTime.Unix()), p.IssuedAt)
	}
	if err := p.setProof("Start", s.ACR, s.AMR, s.Actor, now); err != nil {
		return "", nil, err
	}
	if err := i.endWithSession(&p, now); err != nil {
		return "", nil, err
	}
	if actor := actorQuestionOf(&p); actor != nil {
		if err := checkRevoked(ctx, i.cfg.Revocations, actor, nil); err != nil {
			return "", nil, err
		}
	}
	token, claims, err := i.sign(ctx, &p, state)
	if err == nil {
		claims.setContext(s.Context)
		i.sendEvent(ctx, event.Begun, "", &p)
	}
	return token, claims, err
}

// groups returns the groups of s as strings, in a slice with room for one more.
func (s *Start) groups() ([]string, error) {
	if len(s.Groups) == 0 {
		return nil, nil
	}
	if len(s.Groups) > sid.MaxGroups {
		return nil, fmt.Errorf("sessiontoken: Start.Groups has more than %d groups", sid.MaxGroups)
	}
	groups := make([]string, 0, len(s.Groups)+1)
	for _, g := range s.Groups {
		if !sid.IsGroup(string(g)) {
			return nil, errors.New("sessiontoken: Start.Groups has one that GroupOf does not make")
		}
		groups = append(groups, string(g))
	}
	return groups, nil
}

// setProof sets the claims acr, amr and act. of is the name of the type for
// error texts.
func (p *payload) setProof(of, acr string, amr []string, actor *Actor, now time.Time) error {
	switch {
	case acr != "" && !isShortText(acr):
		return fmt.Errorf("sessiontoken: %s.ACR is longer than %d bytes, or not valid UTF-8", of, maxShortText)
	case !areMethods(amr):
		return fmt.Errorf("sessiontoken: %s.AMR has more than %d names, or one that is empty, longer than %d bytes or not valid UTF-8", of, maxMethods, maxShortText)
	}
	p.ACR = shortText(acr)
	if len(amr) > 0 {
		p.AMR = slices.Clone(amr)
	}
	switch {
	case actor == nil:
		return nil
	case actor.Subject == "" || actor.SessionID == "" || !utf8.ValidString(actor.Subject) || !utf8.ValidString(actor.SessionID):
		return fmt.Errorf("sessiontoken: %s.Actor must have a Subject and a SessionID, in valid UTF-8", of)
	case actor.Began.UnixMilli() <= 0 || actor.Began.After(now.Add(clockAhead)):
		return fmt.Errorf("sessiontoken: %s.Actor.Began is required, and not in the future", of)
	}
	p.Actor = actorClaim{actor.Subject, actor.SessionID, milliDate(actor.Began.UnixMilli())}
	return nil
}

// begin returns when the session with this id begins, which is now unless
// s.Earliest says otherwise.
func (i *Issuer[T]) begin(ctx context.Context, s Start, sessionID string) (milliDate, error) {
	earliest := s.Earliest
	if !earliest.IsZero() && earliest.UnixMilli() <= 0 {
		return 0, errors.New("sessiontoken: Start.Earliest is before 1970")
	}
	if i.cfg.Revocations == nil {
		now := i.now.clock.Now()
		if earliest.IsZero() || earliest.After(now) {
			earliest = now
		}
		return milliDate(earliest.UnixMilli()), nil
	}
	if !earliest.IsZero() {
		earliest = milliDate(earliest.UnixMilli()).time() // as it will be written
	}
	began, err := i.cfg.Revocations.Begin(ctx, revoke.Question{Subject: s.Subject, SessionID: sessionID, Began: earliest})
	if err == revoke.ErrRevoked { // itself: what wraps it may be an error of the store
		return 0, withDetail(ErrRevoked, "the subject or a group was revoked during the sign-in")
	}
	if err != nil {
		return 0, &undecided{"no session can begin", err}
	}
	return milliDate(began.UnixMilli()), nil
}

// Issue begins a session of a user who has proven who they are now, and whose
// tokens can be renewed: it is Begin with a subject, an AuthTime of now and
// [Renewable]. To hand out a token beside a refresh token, use Begin.
func (i *Issuer[T]) Issue(ctx context.Context, subject string, state T) (string, *Claims[T], error) {
	return i.Begin(ctx, Start{Subject: subject, AuthTime: future, Renewal: Renewable}, state)
}

// future is the latest time of a token. As an AuthTime, it counts as now.
var future = numericDate(maxNumericDate).time()

// Renew exchanges a token of a session for a new one. load reads the state from
// the authority on it, such as a database: no call signs again a state that a
// client sent. Renew verifies the token as [Verifier.Verify] does, with two
// differences. Past its exp, the token is accepted within IdleTimeout of its
// iat and within MaxSession of the session's beginning; after that the error is
// [ErrExpired]. A token whose state has changed ([ErrChanged]) is accepted. A
// token that was issued as [NotRenewable] is [ErrNotRenewable].
//
// The new token has the same subject, session id, begun, auth_time, acr, amr
// and act, so that the end of the session does not move. Its audience is the
// old one's, without the names that IssuerConfig.Audience no longer has.
//
// load is given the claims of the verified token with the old state, which is
// upgraded if it is of an older version. If T cannot read the old state
// ([ErrState]), State is zero. If load fails, such as for a blocked user, Renew returns its error,
// wrapped, and no token. load is not called for a token that is invalid or
// revoked.
//
// The old token stays valid until its own exp, and can be renewed again.
func (i *Issuer[T]) Renew(ctx context.Context, token string, load func(context.Context, *Claims[T]) (T, error)) (string, *Claims[T], error) {
	if load == nil {
		return "", nil, errors.New("sessiontoken: Renew: load is required")
	}
	old, signedBy, err := i.reader.read(ctx, token)
	if err != nil {
		return "", nil, err
	}
	if !old.Renewable {
		return "", nil, ErrNotRenewable
	}
	// The state is at least as fresh as this moment, which becomes the new iat.
	now, err := i.Now(ctx)
	if err != nil {
		return "", nil, err
	}
	if old.NotBefore != 0 && now.Before(old.NotBefore.time()) {
		return "", nil, withDetail(ErrClaims, "nbf is in the future")
	}
	if err := old.checkTimes(now); err != nil {
		return "", nil, err
	}
	if !now.Before(old.IssuedAt.time().Add(i.cfg.IdleTimeout)) {
		return "", nil, withDetail(ErrExpired, "idle for too long to be renewed")
	}
	p := i.newPayload(old.Subject)
	i.setTimes(&p, now, old.Began)
	p.Audience = old.Audience
	p.SessionID = old.SessionID
	p.AuthTime, p.ACR, p.AMR, p.Actor = old.AuthTime, old.ACR, old.AMR, old.Actor
	p.Renewable, p.Changed = old.Renewable, old.Changed
	if err := i.endWithSession(&p, now); err != nil {
		return "", nil, err
	}
	claims, err := i.oldClaims(&old, signedBy.key.KeyID())
	if err != nil {
		return "", nil, err
	}
	state, err := i.load(ctx, "Renew", &p, signedBy.key.KeyID(), claims, load)
	if err != nil {
		return "", nil, err
	}
	token, claims, err = i.sign(ctx, &p, state)
	if err == nil {
		i.sendEvent(ctx, event.Renewed, "token", &p)
	}
	return token, claims, err
}

// oldClaims returns the claims of a token that is to be renewed. The state is
// zero if T cannot read it.
func (i *Issuer[T]) oldClaims(old *payload, kid string) (*Claims[T], error) {
	claims, err := i.states.claims(old, kid)
	switch {
	case err == nil:
		return claims, nil
	case !errors.Is(err, ErrState):
		return nil, err
	case !old.State.IsValid():
		return nil, withDetail(ErrClaims, "state is not JSON")
	}
	return claimsOf[T](old, kid), nil
}

// load calls the load of the application, and checks before and after it that
// the session of claims is live. It sets chg of p. p is the new token, kid is
// the key that signed the old one or will sign the new one, and call is the
// name of the method for error texts.
func (i *Issuer[T]) load(ctx context.Context, call string, p *payload, kid string, claims *Claims[T], load func(context.Context, *Claims[T]) (T, error)) (state T, err error) {
	session, actor := questionOf(p, kid), actorQuestionOf(p)
	if err := checkRevoked(ctx, i.cfg.Revocations, session, actor); err != nil {
		return state, err
	}
	// The number is asked for before the state is read: a mark that comes later
	// makes the new token stale.
	if i.cfg.Revocations != nil {
		replaced := *session
		replaced.IssuedAt, replaced.Changed = claims.IssuedAt, int64(p.Changed)
		mark, err := i.cfg.Revocations.Mark(ctx, &replaced)
		if err != nil {
			return state, &undecided{"the mark of the state is not known", err}
		}
		p.Changed = milliDate(mark)
	}
	if state, err = load(ctx, claims); err != nil {
		return state, fmt.Errorf("sessiontoken: %s: load: %w", call, err)
	}
	// A session that was revoked while load ran must not come back.
	if err := checkRevoked(ctx, i.cfg.Revocations, session, actor); err != nil {
		return state, err
	}
	return state, i.checkNotOver(ctx, p)
}

// Resumption is the server's own record of a session that began earlier, such
// as the family of a refresh token. None of it may come from a client.
type Resumption struct {
	SessionID string    // Required.
	Subject   string    // Required.
	Began     time.Time // the session's Claims.Began. Required.
	AuthTime  time.Time // the session's Claims.AuthTime. Zero if not known.
	ACR       string    // the session's Claims.ACR
	AMR       []string  // the session's Claims.AMR
	Actor     *Actor    // the session's Claims.Actor
	Context   []byte    // the session's Claims.Context: load sees it, and the token has it not
	Renewal   Renewal   // as in [Start]
}

// Resume issues a token of a session that began earlier, with a state that load
// reads from the authority on it as for [Issuer.Renew]. load is given the
// claims of the record, with its Context. Their State, TokenID, KeyID, IssuedAt
// and Expires are zero, since there is no token.
//
// The end of the session does not move: past MaxSession after Began, Resume
// returns [ErrExpired]. For a revoked session it returns [ErrRevoked]. It does
// not call load in either case.
func (i *Issuer[T]) Resume(ctx context.Context, r Resumption, load func(context.Context, *Claims[T]) (T, error)) (string, *Claims[T], error) {
	if load == nil {
		return "", nil, errors.New("sessiontoken: Resume: load is required")
	}
	if err := checkSubject(r.Subject); err != nil {
		return "", nil, err
	}
	// The state is at least as fresh as this moment, which becomes the iat.
	now, err := i.Now(ctx)
	if err != nil {
		return "", nil, err
	}
	switch {
	case r.SessionID == "" || !utf8.ValidString(r.SessionID):
		return "", nil, errors.New("sessiontoken: Resumption.SessionID is required, in valid UTF-8")
	case !r.Renewal.valid():
		return "", nil, errors.New("sessiontoken: Resumption.Renewal is not one of NotRenewable and Renewable")
	case r.Began.UnixMilli() <= 0 || r.Began.After(now.Add(clockAhead)):
		return "", nil, errors.New("sessiontoken: Resumption.Began is required, and not in the future")
	case !r.AuthTime.IsZero() && (r.AuthTime.Unix() <= 0 || r.AuthTime.After(now.Add(clockAhead))):
		return "", nil, errors.New("sessiontoken: Resumption.AuthTime must not be before 1970, nor in the future")
	}
	p := i.newPayload(r.Subject)
	i.setTimes(&p, now, milliDate(r.Began.UnixMilli()))
	p.SessionID = r.SessionID
	p.Renewable = r.Renewal == Renewable
	if !r.AuthTime.IsZero() {
		p.AuthTime = numericDate(r.AuthTime.Unix())
	}
	if err := p.setProof("Resumption", r.ACR, r.AMR, r.Actor, now); err != nil {
		return "", nil, err
	}
	if err := i.endWithSession(&p, now); err != nil {
		return "", nil, err
	}
	key, err := i.signingKey(ctx)
	if err != nil {
		return "", nil, err
	}
	record := claimsOf[T](&p, "")
	record.TokenID, record.IssuedAt, record.Expires = "", time.Time{}, time.Time{}
	record.setContext(r.Context)
	state, err := i.load(ctx, "Resume", &p, key.Public().KeyID(), record, load)
	if err != nil {
		return "", nil, err
	}
	token, claims, err := i.sign(ctx, &p, state)
	if err == nil {
		claims.setContext(r.Context)
		i.sendEvent(ctx, event.Renewed, "refresh", &p)
	}
	return token, claims, err
}

// Reload returns the claims of a session with the state that load reads now. It
// is for a connection that outlives the token that it was opened with: Reload
// makes no token. old are claims that Verify or Reload returned. load is given
// a copy of them.
//
// The new claims have the IssuedAt and Expires of a token that is issued now.
// They keep the TokenID and the KeyID of old: if that key is revoked, so is what
// was opened with it. Errors are those of Renew. IdleTimeout is not checked:
// the caller knows whether the connection is used.
func (i *Issuer[T]) Reload(ctx context.Context, old *Claims[T], load func(context.Context, *Claims[T]) (T, error)) (*Claims[T], error) {
	if old == nil || load == nil {
		return nil, errors.New("sessiontoken: Reload: claims and load are required")
	}
	// The state is at least as fresh as this moment, which becomes the iat.
	now, err := i.Now(ctx)
	if err != nil {
		return nil, err
	}
	given := *old
	raw, err := i.states.encode(&old.State)
	if err == nil {
		var none T
		given.State = none
		err = i.states.decode(raw, &given.State)
	}
	if err != nil {
		return nil, fmt.Errorf("sessiontoken: Reload: the old state: %w", reasonOf(err))
	}
	p := payload{
		Issuer: old.Issuer, Subject: old.Subject, TokenID: old.TokenID, SessionID: old.SessionID,
		AuthTime: numericDate(max(0, old.AuthTime.Unix())), ACR: shortText(old.ACR()), AMR: old.AMR(),
		Renewable: onlyTrue(old.Renewable), Changed: old.changed.date(),
	}
	if a := old.Actor(); a != nil {
		p.Actor = actorClaim{a.Subject, a.SessionID, milliDate(a.Began.UnixMilli())}
	}
	i.setTimes(&p, now, milliDate(old.Began.UnixMilli()))
	if err := i.endWithSession(&p, now); err != nil {
		return nil, err
	}
	state, err := i.load(ctx, "Reload", &p, old.KeyID, &given, load)
	if err != nil {
		return nil, err
	}
	c := claimsOf[T](&p, old.KeyID)
	c.State = state
	c.setContext(old.Context())
	i.sendEvent(ctx, event.Renewed, "connection", &p)
	return c, nil
}

// Identify returns which session a token belongs to, as a question for a
// [revoke.Checker]. It checks the signature, the issuer and the audience alone.
// The token may be expired or revoked, have an iat in the future, be signed by
// a retired key, or hold the state of another release. Use the result to revoke
// that one session, and for nothing else.
//
// An error that matches [ErrInvalid] means that the token names no session. Any
// other error means that the server could not decide: the same token may name a
// session a moment later.
func (i *Issuer[T]) Identify(ctx context.Context, token string) (revoke.Question, error) {
	p, key, err := i.reader.identify(ctx, token)
	if err != nil {
		return revoke.Question{}, err
	}
	return *questionOf(&p, key.KeyID()), nil
}

// Size returns how large the token for this subject and state would be, and
// which claims are the largest. It signs nothing, so that a test of the
// application can hold the state to a budget. Unlike Issue, it also reports on
// a token over the limit.
func (i *Issuer[T]) Size(ctx context.Context, subject string, state T) (SizeReport, error) {
	if err := checkSubject(subject); err != nil {
		return SizeReport{}, err
	}
	now := i.now.clock.Now()
	p := i.newPayload(subject)
	i.setTimes(&p, now, milliDate(now.UnixMilli()))
	p.AuthTime, p.Renewable = p.IssuedAt, true
	d, err := i.draft(ctx, &p, &state)
	if err != nil {
		return SizeReport{}, err
	}
	defer d.release()
	d.report.weigh(d.body.Bytes())
	return d.report, nil
}

// newPayload returns the claims of a token for a new session of a subject, without
// its times.
func (i *Issuer[T]) newPayload(subject string) payload {
	tokenID, sessionID := newIDs()
	return payload{
		Version:   i.states.version,
		Issuer:    i.cfg.Issuer,
		Subject:   subject,
		Audience:  i.cfg.Audience,
		TokenID:   tokenID,
		SessionID: sessionID,
	}
}

// setTimes sets iat, exp and begun of a token that is issued now.
func (i *Issuer[T]) setTimes(p *payload, now time.Time, began milliDate) {
	p.IssuedAt = numericDate(now.Unix())
	p.Expires = p.IssuedAt + numericDate(i.cfg.TTL/time.Second)
	p.Began = began
}

// endOf returns when the session of p ends at the latest: MaxSession after it
// or its actor's session began, whichever is earlier.
func (i *Issuer[T]) endOf(p *payload) time.Time {
	began := p.Began
	if !p.Actor.isAbsent() {
		began = min(began, p.Actor.Began)
	}
	return began.time().Add(i.cfg.MaxSession)
}

// endWithSession makes a token expire no later than its session ends. It fails
// if less than a second is left.
func (i *Issuer[T]) endWithSession(p *payload, now time.Time) error {
	end := i.endOf(p)
	p.Expires = min(p.Expires, numericDate(end.Unix()))
	if !now.Before(end) || p.Expires <= p.IssuedAt {
		return withDetail(ErrExpired, "the session has reached its end")
	}
	return nil
}

// checkSignable refuses times that a verifier would refuse: out of range, or
// from two clocks that are too far apart.
func (p *payload) checkSignable() error {
	if p.IssuedAt <= 0 || p.Began <= 0 || p.AuthTime < 0 || p.Changed < 0 || p.Changed > maxMilliDate || p.Expires > maxNumericDate || p.checkTimes(p.IssuedAt.time()) != nil {
		return errors.New("sessiontoken: the session's beginning and the present time do not fit: a clock is wrong")
	}
	return nil
}

// checkNotOver refuses a token that has expired while it was made.
func (i *Issuer[T]) checkNotOver(ctx context.Context, p *payload) error {
	now, err := i.Now(ctx)
	if err != nil {
		return err
	}
	switch {
	case now.Before(p.Expires.time()):
		return nil
	case !now.Before(i.endOf(p).Truncate(time.Second)):
		return withDetail(ErrExpired, "the session ended while its token was made")
	}
	return errors.New("sessiontoken: making the token took longer than TTL")
}

// draft is a token without its signature. It must be released.
type draft struct {
	key    *keys.SigningKey
	header string
	body   *bytes.Buffer
	report SizeReport // without the claims
}

// scratch holds the buffers in which payloads are written. No caller gets a
// slice of one.
var scratch = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxScratch is the size of the largest buffer that scratch keeps.
const maxScratch = 64 << 10

func (d *draft) release() {
	if d.body.Cap() <= maxScratch {
		scratch.Put(d.body)
	}
	d.body = nil
}

func (i *Issuer[T]) draft(ctx context.Context, p *payload, state *T) (d draft, err error) {
	if d.key, err = i.signingKey(ctx); err != nil {
		return d, err
	}
	if d.header, err = i.headerOf(d.key.Public()); err != nil {
		return d, err
	}
	d.body = scratch.Get().(*bytes.Buffer)
	d.body.Reset()
	if err := i.write(d.body, p, state); err != nil {
		d.release()
		return d, err
	}
	d.report = newSizeReport(d.header, d.body.Bytes(), jws.SignatureSize(d.key.Public().Key()), i.cfg.MaxBytes)
	return d, nil
}

func (i *Issuer[T]) write(body *bytes.Buffer, p *payload, state *T) error {
	head, err := p.append(body.AvailableBuffer())
	if err != nil {
		return errors.New("sessiontoken: a registered claim is not valid UTF-8")
	}
	body.Write(head)
	start := body.Len()
	// Deterministic writes a map in the order of its keys, so that a state has
	// one size.
	var sealed []string
	if i.states.coding != nil {
		sealed, err = i.states.writeSealed(body, p, state)
	} else {
		err = json.MarshalWrite(body, state, json.Deterministic(true))
	}
	if err != nil {
		return fmt.Errorf("sessiontoken: state: %w", err)
	}
	end := body.Len()
	tail, err := appendSealed(body.AvailableBuffer(), sealed)
	if err != nil {
		return errors.New("sessiontoken: state: a name is not valid UTF-8") // not reached: it was written
	}
	body.Write(append(tail, '}'))
	if strictjson.TooDeep(body.Bytes()) {
		return fmt.Errorf("sessiontoken: state is nested deeper than a verifier takes: %d levels in all", strictjson.MaxDepth)
	}
	if i.states.coding != nil {
		return i.states.checkSealed(body.Bytes()[start:end], len(sealed))
	}
	return i.states.checkWritten(body.Bytes()[start:end])
}

// headerOf returns the header segment for a key. It keeps that of the last key.
func (i *Issuer[T]) headerOf(k *keys.PublicKey) (string, error) {
	if h := i.header.Load(); h != nil && h.key == k {
		return h.segment, nil
	}
	segment, err := headerOf(k)
	if err == nil {
		i.header.Store(&keyHeader{k, segment})
	}
	return segment, err
}

type keyHeader struct {
	key     *keys.PublicKey
	segment string
}

func (i *Issuer[T]) signingKey(ctx context.Context) (*keys.SigningKey, error) {
	key, err := i.cfg.Keys.SigningKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("sessiontoken: no key to sign with: %w", err)
	}
	if key == nil || key.Public() == nil {
		return nil, errors.New("sessiontoken: no key to sign with: the source returned none")
	}
	return key, nil
}

func (i *Issuer[T]) sign(ctx context.Context, p *payload, state T) (string, *Claims[T], error) {
	if err := p.checkSignable(); err != nil {
		return "", nil, err
	}
	c := claimsOf[T](p, "")
	c.State = state
	d, err := i.draft(ctx, p, &c.State)
	if err != nil {
		return "", nil, err
	}
	defer d.release()
	c.KeyID = d.key.Public().KeyID()
	if d.report.Bytes > d.report.Limit {
		d.report.weigh(d.body.Bytes())
		i.budget.count(&d.report, nil)
		return "", nil, &SizeError{Report: d.report}
	}
	d.body.Grow(d.report.Bytes) // for AvailableBuffer, and for good: it is kept
	out := append(d.body.AvailableBuffer(), d.header...)
	out = jws.AppendEncode(append(out, '.'), d.body.Bytes())
	sig, err := d.key.Sign(ctx, out)
	if err != nil {
		return "", nil, fmt.Errorf("sessiontoken: not signed: %w", err)
	}
	if err := i.checkNotOver(ctx, p); err != nil {
		return "", nil, err
	}
	i.budget.count(&d.report, d.body.Bytes())
	token := string(jws.AppendEncode(append(out, '.'), sig))
	if i.events != nil && d.report.isNear() {
		e := eventOf(event.NearBudget, p)
		e.Bytes, e.Limit = d.report.Bytes, d.report.Limit
		i.events.Send(ctx, e)
	}
	return token, c, nil
}

// sendEvent sends an event about the session of p.
func (i *Issuer[T]) sendEvent(ctx context.Context, kind event.Kind, reason string, p *payload) {
	if i.events != nil {
		e := eventOf(kind, p)
		e.Reason = reason
		i.events.Send(ctx, e)
	}
}

func eventOf(kind event.Kind, p *payload) event.Event {
	return event.Event{Kind: kind, Subject: p.Subject, Session: p.SessionID, Actor: p.Actor.Subject}
}

func checkSubject(subject string) error {
	if subject == "" || !utf8.ValidString(subject) {
		return errors.New("sessiontoken: subject is required, in valid UTF-8")
	}
	return nil
}
