package sessiontoken

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
	"github.com/sessiontoken/sessiontoken/keys"
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
// A source that drops keys should have a method RetainFor() time.Duration, as
// a ring does: how long after its last signature a key still verifies.
// [NewIssuer] then checks that no token can outlive its key.
type SigningKeySource interface {
	KeySource
	SigningKey(ctx context.Context) (*keys.SigningKey, error)
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
	// Keys signs and, for Renew, verifies. Required.
	Keys SigningKeySource
	// TTL is how long a token is valid, and so how old its state can get. Whole
	// seconds. 0 means 5 min, or IdleTimeout or MaxSession if that is set and
	// shorter.
	TTL time.Duration
	// IdleTimeout is how long after its issue a token can still be renewed, and
	// so how long a session may pause. At least TTL. 0 means 1 h, or MaxSession
	// if that is shorter.
	IdleTimeout time.Duration
	// MaxSession is the absolute end of a session, counted from its beginning.
	// Renewal never moves it, and no token is valid beyond it. At least
	// IdleTimeout. 0 means 24 h.
	MaxSession time.Duration
	// MaxBytes is the largest token that is issued. A browser drops a cookie
	// whose name and value exceed 4096 bytes, and all cookies of a site share
	// one header. 0 means 3584. A verifier's own limit is 8192 unless it is
	// told otherwise.
	MaxBytes int
	// Revocations is asked by Renew, before and after it loads the state. If
	// nil, only the times end a session. If it cannot answer, Renew fails. One
	// that forgets should have a method RetainFor() time.Duration, as a list of
	// package revoke does: how long it remembers what was ended, which must not
	// be less than MaxSession.
	Revocations RevocationChecker
}

// Issuer writes tokens that carry a state of type T. T is anything that JSON
// can hold; it is written by the rules of encoding/json/v2, so that names match
// exactly and a nil slice or map is written as empty. It is immutable and safe
// for concurrent use.
type Issuer[T any] struct {
	cfg     IssuerConfig
	genuine genuine
	states  *stateDecoder[T]          // of tokens to renew
	header  atomic.Pointer[keyHeader] // of the key that signed last
}

// NewIssuer checks the configuration and returns the issuer for it. An error
// names the field at fault. It does no I/O.
func NewIssuer[T any](cfg IssuerConfig) (*Issuer[T], error) {
	cfg.Audience = slices.Clone(cfg.Audience)
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	return &Issuer[T]{
		cfg:    cfg,
		states: newStateDecoder[T](),
		// Renew reads tokens that were issued under an earlier, larger limit.
		genuine: genuine{issuer: cfg.Issuer, audience: cfg.Audience, keys: cfg.Keys, maxBytes: max(cfg.MaxBytes, defaultVerifyBytes)},
	}, nil
}

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
	case cfg.Revocations != nil && arg.IsNil(cfg.Revocations):
		return errors.New("sessiontoken: IssuerConfig.Revocations holds a nil pointer")
	case cfg.TTL < 0 || cfg.TTL%time.Second != 0:
		return errors.New("sessiontoken: IssuerConfig.TTL must be a whole number of seconds")
	case cfg.IdleTimeout < 0 || cfg.IdleTimeout%time.Second != 0:
		return errors.New("sessiontoken: IssuerConfig.IdleTimeout must be a whole number of seconds")
	case cfg.MaxSession < 0 || cfg.MaxSession%time.Second != 0:
		return errors.New("sessiontoken: IssuerConfig.MaxSession must be a whole number of seconds")
	case cfg.MaxBytes < 0:
		return errors.New("sessiontoken: IssuerConfig.MaxBytes is negative")
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
	if r, ok := cfg.Keys.(interface{ RetainFor() time.Duration }); ok {
		if kept := r.RetainFor(); kept < cfg.TTL+maxLeeway {
			return fmt.Errorf("sessiontoken: IssuerConfig.TTL is %v, and with a leeway of %v its keys must be retained as long: Keys retains them for %v", cfg.TTL, maxLeeway, kept)
		} else if kept < cfg.IdleTimeout {
			return fmt.Errorf("sessiontoken: IssuerConfig.IdleTimeout is %v, but Keys retains a key only for %v after its last signature: its tokens could not be renewed", cfg.IdleTimeout, kept)
		}
	}
	if r, ok := cfg.Revocations.(interface{ RetainFor() time.Duration }); ok {
		if kept := r.RetainFor(); kept < cfg.MaxSession {
			return fmt.Errorf("sessiontoken: IssuerConfig.MaxSession is %v, but Revocations forgets what was ended after %v: the session could be renewed again", cfg.MaxSession, kept)
		}
	}
	return nil
}

// Issue begins a session and returns its first token, with what it says. Call
// it after the user has proven who they are, and at each new proof: it makes a
// new session id, so that nothing planted before the sign-in becomes the
// session. The session that it replaces goes on until it ends by itself or is
// revoked.
//
// The token is signed, not encrypted: whoever holds it can read the state. A
// token over the limit is a [*SizeError]; nothing is signed then.
func (i *Issuer[T]) Issue(ctx context.Context, subject string, state T) (string, *Claims[T], error) {
	if err := checkSubject(subject); err != nil {
		return "", nil, err
	}
	now := time.Now()
	p := i.newPayload(subject, now)
	return i.sign(ctx, &p, state)
}

// Renew exchanges a token of a session for a new one, with a state that load
// reads afresh from the authority (a database, say): there is no call that
// signs again what a client sent. It verifies the token itself as
// [Verifier.Verify] does, but accepts it past its exp for as long as it is
// within IdleTimeout of its issue and the session within MaxSession; after
// that it is [ErrExpired].
//
// The new token has the same subject, session id and auth_time, so that the end
// of the session never moves; its audience is the old one's, less what
// IssuerConfig.Audience no longer names. load is given the claims of the
// verified token, whose state is the old one. If load fails, because the user
// is blocked for instance, Renew returns its error, wrapped, and no token; load
// is not called for a token that is invalid or revoked.
//
// The old token stays valid until its own exp, and can be renewed again.
func (i *Issuer[T]) Renew(ctx context.Context, token string, load func(context.Context, *Claims[T]) (T, error)) (string, *Claims[T], error) {
	if load == nil {
		return "", nil, errors.New("sessiontoken: Renew: load is required")
	}
	if len(token) > i.genuine.maxBytes {
		return "", nil, because(ErrMalformed, "longer than MaxBytes")
	}
	old, found, err := i.genuine.read(ctx, token)
	if err != nil {
		return "", nil, err
	}
	// The state is at least as fresh as this moment, which becomes the new iat.
	now := time.Now()
	if old.NotBefore != 0 && now.Before(old.NotBefore.time()) {
		return "", nil, because(ErrClaims, "nbf is in the future")
	}
	if err := old.checkTimes(now); err != nil {
		return "", nil, err
	}
	end := old.AuthTime.time().Add(i.cfg.MaxSession)
	if !now.Before(old.IssuedAt.time().Add(i.cfg.IdleTimeout)) {
		return "", nil, because(ErrExpired, "idle for too long to be renewed")
	}
	if !now.Before(end) {
		return "", nil, because(ErrExpired, "the session has reached its end")
	}
	claims, err := i.states.claims(&old)
	if err != nil {
		return "", nil, err
	}
	if err := checkRevoked(ctx, i.cfg.Revocations, &old, found.key.KeyID()); err != nil {
		return "", nil, err
	}
	state, err := load(ctx, claims)
	if err != nil {
		return "", nil, fmt.Errorf("sessiontoken: Renew: load: %w", err)
	}
	// A session that was ended while load ran must not come back.
	if err := checkRevoked(ctx, i.cfg.Revocations, &old, found.key.KeyID()); err != nil {
		return "", nil, err
	}
	p := i.newPayload(old.Subject, now)
	p.Audience = old.Audience
	p.SessionID = old.SessionID
	p.AuthTime = old.AuthTime
	p.IssuedAt = max(p.IssuedAt, p.AuthTime) // a clock that went back
	p.Expires = min(p.Expires, numericDate(end.Unix()))
	if !time.Now().Before(p.Expires.time()) {
		return "", nil, because(ErrExpired, "the session ended while its state was loaded")
	}
	return i.sign(ctx, &p, state)
}

// Resume issues a token of a session that began earlier, by what the server
// itself has on record of it: a refresh token's family, for instance. None of it
// may come from a client; state is what the authority says now. began is the
// session's auth_time, in whole seconds.
//
// The end of the session is where it was: past MaxSession after began it is
// [ErrExpired], and a session that was ended is [ErrRevoked].
func (i *Issuer[T]) Resume(ctx context.Context, subject, sessionID string, began time.Time, state T) (string, *Claims[T], error) {
	if err := checkSubject(subject); err != nil {
		return "", nil, err
	}
	now := time.Now()
	if sessionID == "" || !utf8.ValidString(sessionID) {
		return "", nil, errors.New("sessiontoken: Resume: sessionID is required, in valid UTF-8")
	}
	if began.Unix() <= 0 || began.After(now.Add(clockAhead)) {
		return "", nil, errors.New("sessiontoken: Resume: began is required, and not in the future")
	}
	p := i.newPayload(subject, now)
	p.SessionID = sessionID
	p.AuthTime = numericDate(began.Unix())
	p.IssuedAt = max(p.IssuedAt, p.AuthTime) // another machine's clock
	end := p.AuthTime.time().Add(i.cfg.MaxSession)
	p.Expires = min(p.Expires, numericDate(end.Unix()))
	if !now.Before(end) || p.Expires <= p.IssuedAt {
		return "", nil, because(ErrExpired, "the session has reached its end")
	}
	key, err := i.cfg.Keys.SigningKey(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("sessiontoken: no key to sign with: %w", err)
	}
	if err := checkRevoked(ctx, i.cfg.Revocations, &p, key.Public().KeyID()); err != nil {
		return "", nil, err
	}
	return i.sign(ctx, &p, state)
}

// Size reports how large the token for this subject and state would be, and
// which claims weigh most, without signing: a test of the application can hold
// its state to a budget. Unlike Issue it also reports on a token over the limit.
func (i *Issuer[T]) Size(ctx context.Context, subject string, state T) (SizeReport, error) {
	if err := checkSubject(subject); err != nil {
		return SizeReport{}, err
	}
	p := i.newPayload(subject, time.Now())
	d, err := i.draft(ctx, &p, &state)
	if err != nil {
		return SizeReport{}, err
	}
	defer d.release()
	d.report.weigh(d.body.Bytes())
	return d.report, nil
}

func (i *Issuer[T]) newPayload(subject string, now time.Time) payload {
	iat := numericDate(now.Unix())
	tokenID, sessionID := newIDs()
	return payload{
		Issuer:    i.cfg.Issuer,
		Subject:   subject,
		Audience:  i.cfg.Audience,
		Expires:   iat + numericDate(i.cfg.TTL/time.Second),
		IssuedAt:  iat,
		TokenID:   tokenID,
		SessionID: sessionID,
		AuthTime:  iat,
	}
}

// draft is all of a token but its signature. It must be released.
type draft struct {
	key    *keys.SigningKey
	header string
	body   *bytes.Buffer
	report SizeReport // without the claims
}

// scratch holds the buffers in which payloads are written. What is in them is
// never handed out.
var scratch = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// maxScratch is the largest buffer that is kept.
const maxScratch = 64 << 10

func (d *draft) release() {
	if d.body.Cap() <= maxScratch {
		scratch.Put(d.body)
	}
	d.body = nil
}

func (i *Issuer[T]) draft(ctx context.Context, p *payload, state *T) (d draft, err error) {
	if d.key, err = i.cfg.Keys.SigningKey(ctx); err != nil {
		return d, fmt.Errorf("sessiontoken: no key to sign with: %w", err)
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
	// A map in the order of its keys, so that one state has one size.
	if err := json.MarshalWrite(body, state, json.Deterministic(true)); err != nil {
		return fmt.Errorf("sessiontoken: state: %w", err)
	}
	body.WriteByte('}')
	if strictjson.TooDeep(body.Bytes()) {
		return fmt.Errorf("sessiontoken: state is nested deeper than a verifier takes: %d levels in all", strictjson.MaxDepth)
	}
	return nil
}

// headerOf is the header segment for a key, made once for each.
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

func (i *Issuer[T]) sign(ctx context.Context, p *payload, state T) (string, *Claims[T], error) {
	c := claimsOf[T](p)
	c.State = state
	d, err := i.draft(ctx, p, &c.State)
	if err != nil {
		return "", nil, err
	}
	defer d.release()
	if d.report.Bytes > d.report.Limit {
		d.report.weigh(d.body.Bytes())
		return "", nil, &SizeError{Report: d.report}
	}
	var out strings.Builder // with room for all: what is signed becomes its beginning
	out.Grow(d.report.Bytes)
	out.WriteString(d.header)
	out.WriteByte('.')
	d.body.Grow(jws.EncodedLen(d.body.Len())) // for AvailableBuffer, and for good: it is kept
	out.Write(jws.AppendEncode(d.body.AvailableBuffer(), d.body.Bytes()))
	sig, err := jws.Sign(string(d.key.Public().Algorithm()), d.key.Signer(), out.String())
	if err != nil {
		return "", nil, fmt.Errorf("sessiontoken: %w", err)
	}
	out.WriteByte('.')
	out.Write(jws.AppendEncode(d.body.AvailableBuffer(), sig))
	return out.String(), c, nil
}

func checkSubject(subject string) error {
	if subject == "" || !utf8.ValidString(subject) {
		return errors.New("sessiontoken: subject is required, in valid UTF-8")
	}
	return nil
}
