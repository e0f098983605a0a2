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

// tokenType is the typ of every token made here (RFC 8725 section 3.11), so
// that no other kind of token signed with the same keys passes for a session.
const tokenType = "session+jwt"

const (
	defaultVerifyBytes = 8192
	defaultMaxTTL      = 24 * time.Hour
	defaultCacheBytes  = 16 << 20
	maxLeeway          = 60 * time.Second
	// clockAhead is how far another machine's clock may be ahead of ours.
	clockAhead = 60 * time.Second
)

// KeySource is where verification keys come from: a [keys.Ring] in the process
// that issues, the Keys of package remote anywhere else, a [keys.Set] that never
// changes.
//
// KeySet returns the current set, which is immutable: a new pointer is a new
// generation. The kid may be anything, since it comes from a token that is not
// verified yet, and may be empty: a source whose set lacks it may refresh,
// within limits of its own that no flood of made-up ids exceeds. An error means
// that the source cannot tell, and never that the token is at fault. KeySet is
// called concurrently, and once for each token.
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
	// Keys is where the issuer's keys come from. Required. It must be a source
	// of that issuer's keys alone.
	Keys KeySource
	// Revocations is asked last, whether the session was revoked; it also says
	// what time it is. If nil, nothing ends a token before its exp, and the time
	// is the machine's. If it cannot answer, Verify fails. It must remember what
	// was revoked for MaxTTL at least.
	Revocations revoke.Checker
	// Leeway is how long past exp, and how long before nbf, a token is still
	// accepted, for clocks that differ. From 1 s to 60 s; 0 means none.
	Leeway time.Duration
	// MaxTTL refuses tokens whose exp is further from their iat than this. At
	// least 1 s. 0 means 24 h, or as long as Revocations remembers if that is shorter.
	MaxTTL time.Duration
	// MaxBytes refuses longer tokens before any decoding. 0 means 8192.
	MaxBytes int
	// CacheBytes bounds the memory of the verified-token cache, in bytes: a
	// token that is presented again costs a lookup instead of a signature, and
	// no check is left out. 0 means 16 MiB, room for some 7,000 tokens of 1 KB;
	// a negative value turns the cache off.
	CacheBytes int
	// Cache is memory that the verifier shares with others, instead of one of
	// its own of CacheBytes: for many verifiers in one process. Optional.
	Cache *Cache
}

// Verifier reads sessions of state type T from tokens. It is safe for concurrent
// use; what it was configured with does not change.
type Verifier[T any] struct {
	cfg      VerifierConfig // with defaults
	reader   tokenReader
	states   *stateDecoder[T]
	cache    *cache[T]    // nil if turned off
	list     *revoke.List // cfg.Revocations, if it is a List itself and not a wrapper
	now      timeSource
	outcomes outcomes // last: what it writes stays off what every call reads
}

// timeSource tells the time: the one of the store that all machines share, or
// this machine's if there is no list.
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
	}
	if err := arg.Duration("sessiontoken: VerifierConfig.Leeway", cfg.Leeway, time.Second); err != nil {
		return nil, err
	}
	if err := arg.Duration("sessiontoken: VerifierConfig.MaxTTL", cfg.MaxTTL, time.Second); err != nil {
		return nil, err
	}
	if cfg.Revocations != nil {
		kept := cfg.Revocations.RetainFor()
		if cfg.MaxTTL == 0 {
			cfg.MaxTTL = min(defaultMaxTTL, kept)
		}
		if cfg.MaxTTL > kept || kept <= 0 {
			return nil, fmt.Errorf("sessiontoken: VerifierConfig.MaxTTL is %v, but Revocations forgets what was revoked after %v: the token could be accepted again", cfg.MaxTTL, kept)
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
	states, err := newStateCodec[T]()
	if err != nil {
		return nil, err
	}
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

// Config returns the configuration with its defaults filled in.
func (v *Verifier[T]) Config() VerifierConfig { return v.cfg }

// Now returns the time by which Verify decides: what VerifierConfig.Revocations
// says, or without it the machine's clock. An error means that the time is not
// known; Verify fails then.
func (v *Verifier[T]) Now(ctx context.Context) (time.Time, error) { return v.now.now(ctx) }

// Verify checks everything about a token and returns what it says. It checks,
// in this order and stopping at the first fault: the size; the form; the
// header; the signature over the received bytes; the claims, of which iss, sub,
// aud, exp, iat, jti, sid, begun and state are required; that they are this
// verifier's; the times; and that the session was not revoked, nor that of its
// actor.
//
// An error that matches [ErrInvalid] is the token's fault; any other means that
// the server could not tell. With an error, no claims are returned.
//
// Claims that pass say that the issuer vouched for this state at IssuedAt. They
// do not say that the state is still true, nor that the one who presents the
// token is the one it was given to.
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

// verifyUncached is Verify for a token that the cache does not know.
func (v *Verifier[T]) verifyUncached(ctx context.Context, token string) (*Claims[T], error) {
	p, found, err := v.reader.read(ctx, token)
	if err != nil {
		return nil, err
	}
	// Only now: a forged token never waits for the list.
	now, err := v.now.now(ctx)
	if err != nil {
		return nil, err
	}
	if err := v.checkTimes(&p, now); err != nil {
		return nil, err
	}
	c, err := v.states.claims(&p, found.key.KeyID())
	if err != nil {
		return nil, err
	}
	var session, actor *revoke.Question
	if v.cfg.Revocations != nil {
		session, actor = questionOf(&p, found.key.KeyID()), actorQuestionOf(&p)
		if err := checkRevoked(ctx, v.cfg.Revocations, session, actor); err != nil {
			return nil, err
		}
	}
	if v.cache != nil {
		from, until := v.window(&p)
		v.cache.put(token, &cached[T]{payload: p, claims: *c, session: session, actor: actor, key: found.key, from: from, until: until}, found.set)
	}
	return c, nil
}

// verifyCached is Verify for a token that passed it before, whose key is still
// one of the set: what time and others can have changed is checked again.
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

// actorIsLive reports whether the list says at once that the session of the
// actor is live, if there is an actor.
func (v *Verifier[T]) actorIsLive(e *cached[T]) bool {
	if e.actor == nil {
		return true
	}
	_, live := v.list.Live(e.actor)
	return live
}

// claimsOf returns claims that share nothing that can be changed.
func (v *Verifier[T]) claimsOf(e *cached[T]) (*Claims[T], error) {
	if v.cache.copies.able {
		claims := e.claims
		claims.unshare()
		v.cache.copies.copy(&claims.State, &e.claims.State)
		return &claims, nil
	}
	return v.states.claims(&e.payload, e.key.KeyID())
}

// checkTimes holds the claims to this moment and to the verifier's limits.
func (v *Verifier[T]) checkTimes(p *payload, now time.Time) error {
	if !now.Before(p.Expires.time().Add(v.cfg.Leeway)) {
		return ErrExpired
	}
	if p.NotBefore != 0 && now.Before(p.NotBefore.time().Add(-v.cfg.Leeway)) {
		return because(ErrClaims, "nbf is in the future")
	}
	if clock.Between(p.IssuedAt.time(), p.Expires.time()) > v.cfg.MaxTTL {
		return because(ErrClaims, "exp is further from iat than MaxTTL")
	}
	return p.checkTimes(now)
}

// window returns the first moment at which the times of a token pass checkTimes,
// if they do at some, and the first after that at which they do not.
func (v *Verifier[T]) window(p *payload) (from, until time.Time) {
	from = p.IssuedAt.time().Add(-clockAhead)
	if p.NotBefore != 0 {
		if nbf := p.NotBefore.time().Add(-v.cfg.Leeway); nbf.After(from) {
			from = nbf
		}
	}
	return from, p.Expires.time().Add(v.cfg.Leeway)
}

// checkTimes holds the order of the times to what an issuer can have written.
//
// A session may have begun after the iat of its token, by as much as two clocks
// differ: each issuer takes iat from its own, and begun never changes.
func (p *payload) checkTimes(now time.Time) error {
	const ahead = numericDate(clockAhead / time.Second)
	switch {
	case p.IssuedAt.time().After(now.Add(clockAhead)):
		return because(ErrClaims, "iat is in the future")
	case p.Expires <= p.IssuedAt:
		return because(ErrClaims, "exp is not after iat")
	case p.AuthTime > p.IssuedAt+ahead:
		return because(ErrClaims, "auth_time is after iat")
	case p.Began > milliDate(p.IssuedAt+1+ahead)*1000: // iat is rounded down
		return because(ErrClaims, "begun is after iat")
	case p.Actor.Began > milliDate(p.IssuedAt+1+ahead)*1000:
		return because(ErrClaims, "begun of act is after iat")
	}
	return nil
}

func questionOf(p *payload, kid string) *revoke.Question {
	q := revoke.Question{SessionID: p.SessionID, Subject: p.Subject, KeyID: kid, Began: p.Began.time()}.Prepared()
	return &q
}

// actorQuestionOf returns the question about the actor's session, nil if there is
// no actor. By which key that session's token was signed is not known.
func actorQuestionOf(p *payload) *revoke.Question {
	if p.Actor.isAbsent() {
		return nil
	}
	q := revoke.Question{SessionID: p.Actor.SessionID, Subject: p.Actor.Subject, Began: p.Actor.Began.time()}.Prepared()
	return &q
}

// checkRevoked asks list, if there is one, about a session and, if it is not nil,
// about that of its actor: both have to be live.
func checkRevoked(ctx context.Context, list revoke.Checker, session, actor *revoke.Question) error {
	if list == nil {
		return nil
	}
	if err := checkLive(ctx, list, session); err != nil || actor == nil {
		return err
	}
	return checkLive(ctx, list, actor)
}

func checkLive(ctx context.Context, list revoke.Checker, q *revoke.Question) error {
	switch err := list.Check(ctx, q); err {
	case nil:
		return nil
	case revoke.ErrRevoked: // itself: what wraps it may be an error of the store
		return ErrRevoked
	default:
		return &undecided{"revocation is not known", err}
	}
}
