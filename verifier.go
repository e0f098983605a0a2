package sessiontoken

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// tokenType is the typ of every session token (RFC 8725 section 3.11), so that
// no other kind of token that the same keys sign is accepted as one.
const tokenType = "session+jwt"

const (
	defaultVerifyBytes = 8192
	defaultMaxTTL      = 24 * time.Hour
	defaultCacheBytes  = 16 << 20
	maxLeeway          = 60 * time.Second
	// clockAhead is how far another machine's clock may be ahead of ours.
	clockAhead = 60 * time.Second
)

// KeySource gives the keys that verify tokens: a [keys.Ring] in the process
// that issues, the Keys of package remote in any other, or a [keys.Set] that
// never changes.
//
// KeySet returns the current set. A set is immutable: a source whose keys have
// changed returns another pointer. kid comes from a token that is not verified
// yet: it may be any string, also an empty one. A source whose set lacks kid
// may fetch a new set, within a limit that no number of made-up ids exceeds. An
// error means that the source cannot answer, and never that the token is at
// fault. KeySet is called concurrently, once for each token.
type KeySource interface {
	KeySet(ctx context.Context, kid string) (*keys.Set, error)
}

// VerifierConfig says which tokens a [Verifier] accepts.
type VerifierConfig struct {
	// Issuer is the only iss accepted, byte for byte. Required.
	Issuer string
	// Audience must be among the token's aud, byte for byte. Required: it is
	// what keeps a token made for one API from another that trusts the same
	// issuer (RFC 8725 section 3.9).
	Audience string
	// Keys gives the issuer's keys. Required. It must give no other issuer's.
	Keys KeySource
	// Revocations knows what was revoked, and the time. Verify asks it last. If
	// it fails, Verify fails. It must remember a revocation for at least
	// MaxTTL. If nil, a token is valid until its exp and the time is the
	// machine's.
	Revocations revoke.Checker
	// Leeway is how long past exp, and how long before nbf, a token is still
	// accepted, for clocks that differ. From 1 s to 60 s; 0 means none.
	Leeway time.Duration
	// MaxTTL is the longest time from the iat to the exp of a token that is
	// accepted. At least 1 s, and at most the MaxTTL of Revocations. 0 means 24
	// h, or as long as Revocations remembers if that is shorter.
	MaxTTL time.Duration
	// MaxBytes is the longest token that is accepted. A longer one is refused
	// before it is decoded. 0 means 8192.
	MaxBytes int
	// CacheBytes bounds the memory of the cache of verified tokens, in bytes. A
	// token in the cache costs a lookup instead of the verification of a
	// signature; its times, its key and its revocation are checked all the
	// same. 0 means 16 MiB, which holds about 7,000 tokens of 1 KB. A negative
	// value turns the cache off.
	CacheBytes int
	// Cache is memory for verified tokens that many verifiers of one process
	// share. If it is set, CacheBytes must be 0. Optional.
	Cache *Cache
	// StateSecrets open the [Sealed] fields of the state: those of
	// [IssuerConfig]. Required if T has a Sealed field, unless LeaveSealed is
	// set.
	StateSecrets [][]byte
	// LeaveSealed makes a verifier without StateSecrets read the other fields.
	// A Sealed field is then not checked, and its Open returns [ErrSealed].
	LeaveSealed bool
}

// Verifier reads sessions of state type T from tokens. It is safe for
// concurrent use. Its configuration does not change.
type Verifier[T any] struct {
	cfg      VerifierConfig // with defaults
	reader   tokenReader
	states   *stateDecoder[T]
	cache    *cache[T]    // nil if turned off
	list     *revoke.List // cfg.Revocations, if it is a List itself and not a wrapper
	now      timeSource
	outcomes outcomes // last, since it is written often: apart from fields that every call reads
}

// timeSource gives the time: the list's, which is that of the store that all
// machines share, or this machine's if there is no list.
type timeSource struct {
	list  revoke.Checker // or nil
	clock *clock.Clock
}

func (s *timeSource) now(ctx context.Context) (time.Time, error) {
	if s.list == nil {
		return s.clock.Now(), nil
	}
	now, err := s.list.Now(ctx)
	if err != nil {
		return time.Time{}, &undecided{"the time is not known", err}
	}
	return now, nil
}

// NewVerifier checks the configuration and T, as [NewIssuer] does, and returns
// the verifier for them. An error names the field at fault. It does no I/O.
func NewVerifier[T any](cfg VerifierConfig) (*Verifier[T], error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("sessiontoken: VerifierConfig.Issuer is required")
	case cfg.Audience == "":
		return nil, errors.New("sessiontoken: VerifierConfig.Audience is required")
	case arg.IsNil(cfg.Keys):
		return nil, errors.New("sessiontoken: VerifierConfig.Keys is required")
	case arg.IsUnmade(cfg.Keys):
		return nil, fmt.Errorf("sessiontoken: VerifierConfig.Keys is a zero %T: make it with its constructor", cfg.Keys)
	case cfg.Revocations != nil && arg.IsNil(cfg.Revocations):
		return nil, errors.New("sessiontoken: VerifierConfig.Revocations holds a nil pointer")
	case arg.IsUnmade(cfg.Revocations):
		return nil, fmt.Errorf("sessiontoken: VerifierConfig.Revocations is a zero %T: make it with its constructor", cfg.Revocations)
	case cfg.Leeway < 0 || cfg.Leeway > maxLeeway:
		return nil, fmt.Errorf("sessiontoken: VerifierConfig.Leeway is %v; it must be from 0 to %v", cfg.Leeway, maxLeeway)
	case cfg.MaxBytes < 0:
		return nil, errors.New("sessiontoken: VerifierConfig.MaxBytes is negative")
	case arg.IsUnmade(cfg.Cache):
		return nil, errors.New("sessiontoken: VerifierConfig.Cache is a zero Cache: make it with NewCache")
	case cfg.Cache != nil && cfg.CacheBytes != 0:
		return nil, errors.New("sessiontoken: VerifierConfig.CacheBytes must be left out beside Cache, which has its own bound")
	case cfg.LeaveSealed && len(cfg.StateSecrets) > 0:
		return nil, errors.New("sessiontoken: VerifierConfig.LeaveSealed must be left out beside StateSecrets, which open the fields")
	}
	if err := arg.Duration("sessiontoken: VerifierConfig.Leeway", cfg.Leeway, time.Second); err != nil {
		return nil, err
	}
	if err := arg.Duration("sessiontoken: VerifierConfig.MaxTTL", cfg.MaxTTL, time.Second); err != nil {
		return nil, err
	}
	if cfg.Revocations != nil {
		kept, marks := cfg.Revocations.RetainFor(), cfg.Revocations.MaxTTL()
		if cfg.MaxTTL == 0 {
			cfg.MaxTTL = min(defaultMaxTTL, kept, marks)
		}
		if cfg.MaxTTL > kept || kept <= 0 {
			return nil, fmt.Errorf("sessiontoken: VerifierConfig.MaxTTL is %v, but Revocations forgets what was revoked after %v: the token could be accepted again", cfg.MaxTTL, kept)
		}
		if cfg.MaxTTL > marks || marks <= 0 {
			return nil, fmt.Errorf("sessiontoken: VerifierConfig.MaxTTL is %v; it must not exceed the MaxTTL of Revocations, which is %v: a token with a state that has changed could be accepted again", cfg.MaxTTL, marks)
		}
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = defaultMaxTTL
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultVerifyBytes
	}
	if cfg.CacheBytes == 0 && cfg.Cache == nil {
		cfg.CacheBytes = defaultCacheBytes
	}
	states, err := newStateCodec[T]("VerifierConfig", cfg.StateSecrets, cfg.LeaveSealed)
	if err != nil {
		return nil, err
	}
	cfg.StateSecrets = nil // states has what is made of them
	v := &Verifier[T]{
		cfg:    cfg,
		reader: tokenReader{issuer: cfg.Issuer, audience: []string{cfg.Audience}, keys: cfg.Keys, maxBytes: cfg.MaxBytes},
		states: states,
		now:    timeSource{cfg.Revocations, clock.Here()},
	}
	v.list, _ = cfg.Revocations.(*revoke.List)
	if cfg.Cache != nil {
		v.cache = newCache[T](cfg.Cache)
	} else {
		v.cache = newCache[T](NewCache(cfg.CacheBytes))
	}
	return v, nil
}

// Config returns the configuration with its defaults filled in, and without
// StateSecrets.
func (v *Verifier[T]) Config() VerifierConfig { return v.cfg }

// Now returns the time that Verify compares with: that of
// VerifierConfig.Revocations, or of the machine's clock if that is nil. An
// error means that the time is not known; Verify fails then.
func (v *Verifier[T]) Now(ctx context.Context) (time.Time, error) { return v.now.now(ctx) }

// Verify checks a token completely and returns its claims. It stops at the
// first fault, in this order:
//
//   - the size, the form and the header;
//   - the signature over the received bytes;
//   - the claims, of which iss, sub, aud, exp, iat, jti, sid, begun and state
//     are required;
//   - iss and aud, which must be this verifier's;
//   - the times;
//   - the session and that of its actor, which must not be revoked;
//   - the state, which must not have changed ([ErrChanged]).
//
// An error that matches [ErrInvalid] is the token's fault. Any other error
// means that the server could not decide. With an error, Verify returns no
// claims.
//
// The claims mean that the issuer vouched for this state at IssuedAt. They do
// not mean that the state is still true: only a change that the application
// marks is noticed ([revoke.List.Changed]). Nor do they mean that the client
// that presents the token is the one that it was given to.
func (v *Verifier[T]) Verify(ctx context.Context, token string) (*Claims[T], error) {
	if v.cache != nil && len(token) <= v.cfg.MaxBytes {
		if e, ok := v.cache.get(token); ok {
			set, err := v.reader.keySet(ctx, e.key.KeyID())
			if err != nil {
				return nil, v.outcomes.failed(err)
			}
			if e.isOf(set) {
				c, err := v.verifyCached(ctx, token, e)
				if err != nil {
					return nil, v.outcomes.failed(err)
				}
				v.outcomes.hits.Add(c)
				return c, nil
			}
			v.cache.drop(token)
		}
	}
	c, err := v.verifyUncached(ctx, token)
	if err != nil {
		return nil, v.outcomes.failed(err)
	}
	v.outcomes.firsts.Add(1)
	return c, nil
}

// verifyUncached is Verify for a token that is not in the cache.
func (v *Verifier[T]) verifyUncached(ctx context.Context, token string) (*Claims[T], error) {
	p, signedBy, err := v.reader.read(ctx, token)
	if err != nil {
		return nil, err
	}
	// The list is asked after the signature is verified, so that a forged token
	// never waits for it.
	now, err := v.now.now(ctx)
	if err != nil {
		return nil, err
	}
	if err := v.checkTimes(&p, now); err != nil {
		return nil, err
	}
	c, err := v.states.claims(&p, signedBy.key.KeyID())
	if err != nil {
		return nil, err
	}
	var session, actor *revoke.Question
	if v.cfg.Revocations != nil {
		session, actor = stateQuestionOf(&p, signedBy.key.KeyID()), actorQuestionOf(&p)
		if err := checkRevoked(ctx, v.cfg.Revocations, session, actor); err != nil {
			return nil, err
		}
	}
	if v.cache != nil {
		from, until := v.window(&p)
		v.cache.put(token, &cached[T]{payload: p, claims: *c, session: session, actor: actor, key: signedBy.key, from: from, until: until}, signedBy.set)
	}
	return c, nil
}

// verifyCached is Verify for a token in the cache whose key is in the current
// set. It checks the times and the revocation again.
func (v *Verifier[T]) verifyCached(ctx context.Context, token string, e *cached[T]) (*Claims[T], error) {
	if v.list != nil {
		if now, live := v.list.Live(e.session); live && e.timesHold(now) && v.actorIsLive(e) {
			return v.claimsOf(e)
		}
	}
	now, err := v.now.now(ctx)
	if err != nil {
		return nil, err
	}
	if !e.timesHold(now) {
		if err := v.checkTimes(&e.payload, now); err != nil {
			v.cache.drop(token)
			return nil, err
		}
	}
	if err := checkRevoked(ctx, v.cfg.Revocations, e.session, e.actor); err != nil {
		return nil, err
	}
	return v.claimsOf(e)
}

// actorIsLive reports whether there is no actor, or the list knows from memory
// that the actor's session is live.
func (v *Verifier[T]) actorIsLive(e *cached[T]) bool {
	if e.actor == nil {
		return true
	}
	_, live := v.list.Live(e.actor)
	return live
}

// claimsOf returns claims that share no memory that a caller can change.
func (v *Verifier[T]) claimsOf(e *cached[T]) (*Claims[T], error) {
	if v.cache.copies.able {
		claims := e.claims
		v.cache.copies.unshare(&claims.State, &e.claims.State)
		return &claims, nil
	}
	c := claimsOf[T](&e.payload, e.key.KeyID())
	if v.states.decode(e.payload.State, &c.State) != nil {
		return nil, withDetail(ErrState, "it is not read twice") // not reached: it was read before
	}
	return c, nil
}

// checkTimes checks the times of the claims against now and the verifier's
// limits.
func (v *Verifier[T]) checkTimes(p *payload, now time.Time) error {
	if !now.Before(p.Expires.time().Add(v.cfg.Leeway)) {
		return ErrExpired
	}
	if p.NotBefore != 0 && now.Before(p.NotBefore.time().Add(-v.cfg.Leeway)) {
		return withDetail(ErrClaims, "nbf is in the future")
	}
	if clock.Between(p.IssuedAt.time(), p.Expires.time()) > v.cfg.MaxTTL {
		return withDetail(ErrClaims, "exp is further from iat than MaxTTL")
	}
	return p.checkTimes(now)
}

// window returns from when and until when the times of a token pass checkTimes,
// if they ever do. until itself is outside.
func (v *Verifier[T]) window(p *payload) (from, until time.Time) {
	from = p.IssuedAt.time().Add(-clockAhead)
	if p.NotBefore != 0 {
		if nbf := p.NotBefore.time().Add(-v.cfg.Leeway); nbf.After(from) {
			from = nbf
		}
	}
	return from, p.Expires.time().Add(v.cfg.Leeway)
}

// checkTimes checks that the times have an order that an issuer writes.
//
// begun may be after the iat of a token, by as much as the clocks of two
// issuers differ: each takes iat from its own clock, and begun never changes.
func (p *payload) checkTimes(now time.Time) error {
	const ahead = numericDate(clockAhead / time.Second)
	switch {
	case p.IssuedAt.time().After(now.Add(clockAhead)):
		return withDetail(ErrClaims, "iat is in the future")
	case p.Expires <= p.IssuedAt:
		return withDetail(ErrClaims, "exp is not after iat")
	case p.AuthTime > p.IssuedAt+ahead:
		return withDetail(ErrClaims, "auth_time is after iat")
	case p.Began > milliDate(p.IssuedAt+1+ahead)*1000: // iat is rounded down
		return withDetail(ErrClaims, "begun is after iat")
	case p.Actor.Began > milliDate(p.IssuedAt+1+ahead)*1000:
		return withDetail(ErrClaims, "begun of act is after iat")
	}
	return nil
}

// questionOf returns the question about the session of a token alone.
func questionOf(p *payload, kid string) *revoke.Question {
	q := revoke.Question{SessionID: p.SessionID, Subject: p.Subject, KeyID: kid, Began: p.Began.time()}.Prepared()
	return &q
}

// stateQuestionOf returns the question about the session and the state of a
// token.
func stateQuestionOf(p *payload, kid string) *revoke.Question {
	q := revoke.Question{
		SessionID: p.SessionID, Subject: p.Subject, KeyID: kid, Began: p.Began.time(),
		IssuedAt: p.IssuedAt.time(), Changed: int64(p.Changed),
	}.Prepared()
	return &q
}

// actorQuestionOf returns the question about the actor's session, or nil if
// there is no actor. The question has no key, since the key that signed the
// actor's token is not known.
func actorQuestionOf(p *payload) *revoke.Question {
	if p.Actor.isAbsent() {
		return nil
	}
	q := revoke.Question{SessionID: p.Actor.SessionID, Subject: p.Actor.Subject, Began: p.Actor.Began.time()}.Prepared()
	return &q
}

// checkRevoked asks list about a session and about that of its actor. It
// returns nil if both are live and the state has not changed. list and actor
// may be nil: neither is then asked.
//
// A session that is live and stale is ErrChanged only if its actor is live.
func checkRevoked(ctx context.Context, list revoke.Checker, session, actor *revoke.Question) error {
	if list == nil {
		return nil
	}
	err := checkLive(ctx, list, session)
	if err == nil || err == ErrChanged {
		if actor != nil {
			if e := checkLive(ctx, list, actor); e != nil {
				return e
			}
		}
	}
	return err
}

func checkLive(ctx context.Context, list revoke.Checker, q *revoke.Question) error {
	switch err := list.Check(ctx, q); err {
	case nil:
		return nil
	case revoke.ErrRevoked: // itself: what wraps it may be an error of the store
		return ErrRevoked
	case revoke.ErrChanged:
		return ErrChanged
	default:
		return &undecided{"revocation is not known", err}
	}
}
