package sessiontoken

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
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
// that issues, a [RemoteKeys] anywhere else, a [keys.Set] that never changes.
//
// KeySet returns the current set, which is immutable: a new pointer is a new
// generation. The kid may be anything, since it comes from a token that nobody
// has verified, and may be empty: a source whose set lacks it may refresh,
// within limits of its own that no flood of made-up ids exceeds. An error means
// that the source cannot tell, and never that the token is at fault. KeySet is
// called concurrently, and once for each token.
type KeySource interface {
	KeySet(ctx context.Context, kid string) (*keys.Set, error)
}

// RevocationChecker says whether a session was ended early. It is asked about
// genuine, unexpired tokens only, once for each; it should answer from memory.
// began is when the session began (auth_time): whoever ends "all sessions of
// this subject until now" compares with it and not with the time of issue, so
// that a token renewed a moment later does not escape. An error means that it
// cannot tell; the token is then not accepted. It is called concurrently.
type RevocationChecker interface {
	Revoked(ctx context.Context, sessionID, subject, keyID string, began time.Time) (bool, error)
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
	// Revocations is asked last. If nil, nothing ends a token before its exp.
	// If it cannot answer, Verify fails.
	Revocations RevocationChecker
	// Leeway is how long past exp, and how long before nbf, a token is still
	// accepted, for clocks that differ. 0 means none; at most 60 s.
	Leeway time.Duration
	// MaxTTL refuses tokens whose exp is further from their iat than this.
	// 0 means 24 h.
	MaxTTL time.Duration
	// MaxBytes refuses longer tokens before any decoding. 0 means 8192.
	MaxBytes int
	// CacheBytes bounds the memory of the verified-token cache, in bytes: a
	// token that is presented again costs a lookup instead of a signature, and
	// no check is left out. 0 means 16 MiB, room for some 7,000 tokens of 1 KB;
	// a negative value turns the cache off.
	CacheBytes int
}

// Verifier reads sessions of state type T from tokens. It is safe for concurrent
// use; what it was configured with does not change.
type Verifier[T any] struct {
	genuine     genuine
	states      *stateDecoder[T]
	cache       *cache[T] // nil if turned off
	revocations RevocationChecker
	leeway      time.Duration
	maxTTL      time.Duration
	outcomes    outcomes // last: what it writes stays off what every call reads
}

// NewVerifier checks the configuration and returns the verifier for it. An
// error names the field at fault. It does no I/O.
func NewVerifier[T any](cfg VerifierConfig) (*Verifier[T], error) {
	switch {
	case cfg.Issuer == "":
		return nil, errors.New("sessiontoken: VerifierConfig.Issuer is required")
	case cfg.Audience == "":
		return nil, errors.New("sessiontoken: VerifierConfig.Audience is required")
	case arg.IsNil(cfg.Keys):
		return nil, errors.New("sessiontoken: VerifierConfig.Keys is required")
	case cfg.Revocations != nil && arg.IsNil(cfg.Revocations):
		return nil, errors.New("sessiontoken: VerifierConfig.Revocations holds a nil pointer")
	case cfg.Leeway < 0 || cfg.Leeway > maxLeeway:
		return nil, fmt.Errorf("sessiontoken: VerifierConfig.Leeway is %v; it must be from 0 to %v", cfg.Leeway, maxLeeway)
	case cfg.MaxTTL < 0:
		return nil, errors.New("sessiontoken: VerifierConfig.MaxTTL is negative")
	case cfg.MaxBytes < 0:
		return nil, errors.New("sessiontoken: VerifierConfig.MaxBytes is negative")
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = defaultMaxTTL
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultVerifyBytes
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	v := &Verifier[T]{
		genuine:     genuine{issuer: cfg.Issuer, audience: []string{cfg.Audience}, keys: cfg.Keys, maxBytes: cfg.MaxBytes},
		states:      newStateDecoder[T](),
		revocations: cfg.Revocations,
		leeway:      cfg.Leeway,
		maxTTL:      cfg.MaxTTL,
	}
	if cfg.CacheBytes > 0 {
		v.cache = newCache[T](cfg.CacheBytes)
	}
	return v, nil
}

// Verify checks everything about a token and returns what it says. It checks,
// in this order and stopping at the first fault: the size; the form; the
// header; the signature over the received bytes; the claims, of which iss, sub,
// aud, exp, iat, jti, sid, auth_time and state are required; that they are this
// verifier's; the times; and that the session was not revoked.
//
// An error that matches [ErrInvalid] is the token's fault; any other means that
// the server could not tell. With an error, no claims are returned.
//
// Claims that pass say that the issuer vouched for this state at IssuedAt. They
// do not say that the state is still true, nor that whoever presents the token
// is the one it was given to.
func (v *Verifier[T]) Verify(ctx context.Context, token string) (*Claims[T], error) {
	if len(token) > v.genuine.maxBytes {
		return nil, v.outcomes.failed(because(ErrMalformed, "longer than MaxBytes"))
	}
	if v.cache != nil {
		if e, ok := v.cache.tokens.GetIfPresent(token); ok {
			set, err := v.genuine.keySet(ctx, e.key.KeyID())
			if err != nil {
				return nil, v.outcomes.failed(err)
			}
			if e.isOf(set) {
				c, err := v.again(ctx, token, e)
				if err != nil {
					return nil, v.outcomes.failed(err)
				}
				v.outcomes.hits.Add(c)
				return c, nil
			}
			v.cache.tokens.Invalidate(token)
		}
	}
	c, err := v.first(ctx, token)
	if err != nil {
		return nil, v.outcomes.failed(err)
	}
	v.outcomes.firsts.Add(1)
	return c, nil
}

// first is Verify for a token that the cache does not know.
func (v *Verifier[T]) first(ctx context.Context, token string) (*Claims[T], error) {
	p, found, err := v.genuine.read(ctx, token)
	if err != nil {
		return nil, err
	}
	if err := v.checkTimes(&p); err != nil {
		return nil, err
	}
	c, err := v.states.claims(&p)
	if err != nil {
		return nil, err
	}
	if err := checkRevoked(ctx, v.revocations, &p, found.key.KeyID()); err != nil {
		return nil, err
	}
	if v.cache != nil {
		v.cache.put(token, &p, c, found)
	}
	return c, nil
}

// again is Verify for a token that passed it before, whose key is still one of
// the set: what time and others can have changed is checked again.
func (v *Verifier[T]) again(ctx context.Context, token string, e *cached[T]) (*Claims[T], error) {
	if err := v.checkTimes(&e.payload); err != nil {
		v.cache.tokens.Invalidate(token)
		return nil, err
	}
	if err := checkRevoked(ctx, v.revocations, &e.payload, e.key.KeyID()); err != nil {
		return nil, err
	}
	if v.cache.copies.able {
		claims := e.claims
		v.cache.copies.copy(&claims.State, &e.claims.State)
		return &claims, nil
	}
	return v.states.claims(&e.payload)
}

// checkTimes holds the claims to this moment and to the verifier's limits.
func (v *Verifier[T]) checkTimes(p *payload) error {
	now := time.Now()
	if !now.Before(p.Expires.time().Add(v.leeway)) {
		return ErrExpired
	}
	if p.NotBefore != 0 && now.Before(p.NotBefore.time().Add(-v.leeway)) {
		return because(ErrClaims, "nbf is in the future")
	}
	if p.Expires.time().Sub(p.IssuedAt.time()) > v.maxTTL {
		return because(ErrClaims, "exp is further from iat than MaxTTL")
	}
	return p.checkTimes(now)
}

// checkTimes holds the order of the times to what an issuer can have written.
func (p *payload) checkTimes(now time.Time) error {
	switch {
	case p.IssuedAt.time().After(now.Add(clockAhead)):
		return because(ErrClaims, "iat is in the future")
	case p.Expires <= p.IssuedAt:
		return because(ErrClaims, "exp is not after iat")
	case p.AuthTime > p.IssuedAt:
		return because(ErrClaims, "auth_time is after iat")
	}
	return nil
}

func checkRevoked(ctx context.Context, r RevocationChecker, p *payload, kid string) error {
	if r == nil {
		return nil
	}
	revoked, err := r.Revoked(ctx, p.SessionID, p.Subject, kid, p.AuthTime.time())
	if err != nil {
		return fmt.Errorf("sessiontoken: revocation is not known: %w", err)
	}
	if revoked {
		return ErrRevoked
	}
	return nil
}

// genuine reads tokens of one issuer that are meant for any of an audience: the
// form, the signature and the claims. It decides nothing about time.
type genuine struct {
	issuer   string
	audience []string
	keys     KeySource
	maxBytes int
	known    atomic.Pointer[knownHeaders]
}

// knownHeaders are the exact header segments that the keys of a set write,
// recognised without parsing.
type knownHeaders struct {
	set *keys.Set
	key map[string]*keys.PublicKey
}

// found is a key with the set that it was found in.
type found struct {
	key *keys.PublicKey
	set *keys.Set
}

// read returns the claims of a token that is not too long, its audience narrowed
// to the expected ones, and its key.
func (g *genuine) read(ctx context.Context, token string) (p payload, f found, err error) {
	header, body, signature, err := jws.Split(token)
	if err != nil {
		return p, f, because(ErrMalformed, err.Error())
	}
	f, err = g.findKey(ctx, header)
	if err != nil {
		return p, f, err
	}
	// The claims point into this buffer until they are decoded: it is not reused.
	buf := make([]byte, 0, jws.DecodedLen(len(body))+jws.DecodedLen(len(signature)))
	raw, err := jws.AppendDecode(buf, body)
	if err != nil {
		return p, f, because(ErrMalformed, err.Error())
	}
	sig, err := jws.AppendDecode(raw[len(raw):], signature)
	if err != nil {
		return p, f, because(ErrMalformed, err.Error())
	}
	signed := token[:len(header)+1+len(body)]
	if err := jws.Verify(string(f.key.Algorithm()), f.key.Key(), signed, sig); err != nil {
		return p, f, because(ErrSignature, err.Error())
	}
	if p, err = g.claims(raw); err != nil {
		return p, f, err
	}
	return p, f, nil
}

// claims reads the payload of a token whose signature is good.
func (g *genuine) claims(raw []byte) (payload, error) {
	var p payload
	var s scanned
	if scanPayload(raw, &s) {
		p = s.payload(g.issuer, g.audience)
	} else {
		var fault string
		if p, fault = parsePayload(raw); fault != "" {
			return p, because(ErrClaims, fault)
		}
		named := p.Audience
		p.Audience = narrow(g.audience, func(name string) bool { return slices.Contains(named, name) })
	}
	switch {
	case p.Issuer != g.issuer:
		return p, because(ErrClaims, "iss is another issuer")
	case len(p.Audience) == 0:
		return p, ErrAudience
	}
	return p, nil
}

// findKey returns the one key that the header names, if it is of the header's
// algorithm and the header is a session token's.
func (g *genuine) findKey(ctx context.Context, segment string) (found, error) {
	known := g.known.Load()
	if known != nil {
		if k := known.key[segment]; k != nil {
			set, err := g.keySet(ctx, k.KeyID())
			if err != nil {
				return found{}, err
			}
			if set == known.set {
				return found{k, set}, nil
			}
			// Another generation: decided below, by the new set alone.
		}
	}
	if len(segment) > jws.MaxHeader {
		return found{}, because(ErrMalformed, "the header is too long")
	}
	raw, err := jws.Decode(segment)
	if err != nil {
		return found{}, because(ErrMalformed, err.Error())
	}
	h, err := jws.ParseHeader(raw)
	if err != nil {
		return found{}, because(ErrMalformed, err.Error())
	}
	if !isSessionType(h.Type) {
		return found{}, because(ErrMalformed, "typ is not that of a session token")
	}
	set, err := g.keySet(ctx, h.KeyID)
	if err != nil {
		return found{}, err
	}
	if known == nil || known.set != set {
		g.known.Store(recognise(set))
	}
	key, ok := set.Key(h.KeyID)
	if !ok {
		return found{}, because(ErrSignature, "no key has this kid")
	}
	if !algorithmOf(key, h.Algorithm) {
		return found{}, because(ErrSignature, "alg is not the key's")
	}
	return found{key, set}, nil
}

func (g *genuine) keySet(ctx context.Context, kid string) (*keys.Set, error) {
	set, err := g.keys.KeySet(ctx, kid)
	if err != nil {
		return nil, fmt.Errorf("sessiontoken: no key set: %w", err)
	}
	if set == nil {
		return nil, errors.New("sessiontoken: no key set: the source returned none")
	}
	return set, nil
}

func recognise(set *keys.Set) *knownHeaders {
	known := &knownHeaders{set: set, key: make(map[string]*keys.PublicKey)}
	for _, k := range set.Keys() {
		if segment, err := headerOf(k); err == nil {
			known.key[segment] = k
		}
	}
	return known
}

// headerOf is the header segment that tokens of a key are written with.
func headerOf(k *keys.PublicKey) (string, error) {
	return jws.Header{Algorithm: string(k.Algorithm()), KeyID: k.KeyID(), Type: tokenType}.Encode()
}

// algorithmOf says whether alg is the key's. RFC 9864 renames EdDSA with an
// Ed25519 key to Ed25519; both say the same.
func algorithmOf(k *keys.PublicKey, alg string) bool {
	return alg == string(k.Algorithm()) || alg == "Ed25519" && k.Algorithm() == keys.EdDSA
}

// isSessionType compares media types as RFC 7515 section 4.1.9 does: in any
// letter case, with or without "application/".
func isSessionType(typ string) bool {
	const prefix = "application/"
	if len(typ) == len(prefix)+len(tokenType) && equalASCIIFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return equalASCIIFold(typ, tokenType)
}

func equalASCIIFold(s, lower string) bool {
	// Of equal length in bytes, EqualFold can match beyond ASCII only where
	// lower holds a k or an s, whose Unicode folds are longer.
	return len(s) == len(lower) && strings.EqualFold(s, lower)
}
