package authority

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// Authority is one replica of an issuing server: it has the keys, signs users
// in and out, and publishes the key set. It is safe for concurrent use. Make it
// with [New].
type Authority[T any] struct {
	ring        *keys.Ring
	revocations *revoke.List
	issuer      *sessiontoken.Issuer[T]
	verifier    *sessiontoken.Verifier[T]
	refresh     *refresh.Manager
	sessions    *sessionhttp.Sessions[T]
	wellKnown   map[string]http.Handler
	logger      *slog.Logger
	host        *Host    // or nil
	feed        *feedLog // or nil
	state       [][]byte // the secrets of sealed fields
	sealers     []string // for each secret the id of the key that seals private keys; or nil
	limits      Limits
	made        time.Time     // by the clock of this machine
	running     *atomic.Int32 // calls of Run, or of the Host's, that have not ended
}

// New checks the configuration and returns the authority for it. An error names
// the field at fault, and never holds a secret. New does no I/O, starts no
// goroutine, and copies all that the caller can change.
func New[T any](cfg Config[T]) (*Authority[T], error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	var err error
	if cfg.Limits, err = cfg.Limits.withDefaults(); err != nil {
		return nil, err
	}
	if cfg.Host == nil {
		return assemble(cfg)
	}
	if err := cfg.Host.reserve(cfg.Namespace); err != nil {
		return nil, err
	}
	a, err := assemble(cfg)
	if err != nil {
		cfg.Host.release(cfg.Namespace)
		return nil, err
	}
	cfg.Host.add(&tenant{cfg.Namespace, a.ring, a.revocations})
	return a, nil
}

// assemble makes the parts.
func assemble[T any](cfg Config[T]) (*Authority[T], error) {
	a := &Authority[T]{logger: cfg.Logger, host: cfg.Host, running: new(atomic.Int32), limits: cfg.Limits, made: clock.Here().Now()}
	if a.host != nil {
		a.running = &a.host.running
	}
	for _, part := range []func(*Config[T]) error{a.addList, a.addRing, a.addTokens, a.addRefresh, a.addSessions, a.addWellKnown} {
		if err := part(&cfg); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *Authority[T]) addList(cfg *Config[T]) (err error) {
	var appended func()
	if cfg.servesFeed() {
		if a.feed = newFeedLog(cfg.Store); cfg.Host != nil {
			a.feed = cfg.Host.feed
		}
		appended = a.feed.appended
	}
	var store revoke.Store
	if m, ok := cfg.Store.(*memory); ok {
		store = &m.revocationStore // by which the list knows that the store is memory
	} else if cfg.Host != nil {
		store = &namespaceLog{cfg.Host.log, cfg.Namespace, appended}
	} else {
		store = tellingStore{cfg.Store, appended}
	}
	a.revocations, err = revoke.NewList(revoke.Config{
		Store: store, Namespace: cfg.Namespace, SyncEvery: syncLists, MaxSession: cfg.Limits.MaxSession, MaxTTL: cfg.Limits.maxTTL(), Logger: cfg.Logger,
	})
	return within("the list of revocations", err)
}

func (a *Authority[T]) addRing(cfg *Config[T]) error {
	seal, ids, err := cfg.sealing()
	if err != nil {
		return within("Config.Secrets", err)
	}
	a.sealers = ids
	var store keys.Store = cfg.Store
	if cfg.Host != nil {
		store = cfg.Host.rings
	}
	a.ring, err = keys.NewRing(keys.RingConfig{
		Store: keys.Sealed(store, seal), Name: cfg.Namespace, Algorithm: cfg.Algorithm,
		RetainFor: cfg.Limits.retainKeys(), IdentifyFor: cfg.Limits.MaxSession, MaxStale: maxStaleKeys,
		Revoked: a.revocations.KeyRevoked, Logger: cfg.Logger,
	})
	return within("Config.Algorithm", err) // all else is checked already
}

func (a *Authority[T]) addTokens(cfg *Config[T]) (err error) {
	if a.state, err = derived(cfg.Secrets, cfg.Issuer, useState); err != nil {
		return within("Config.Secrets", err)
	}
	a.issuer, err = sessiontoken.NewIssuer[T](sessiontoken.IssuerConfig{
		Issuer: cfg.Issuer, Audience: cfg.Audience, Keys: a.ring, Revocations: a.revocations,
		TTL: cfg.Limits.TTL, IdleTimeout: cfg.Limits.IdleTimeout, MaxSession: cfg.Limits.MaxSession,
		StateSecrets: a.state, Logger: cfg.Logger,
	})
	if err != nil {
		return within("the issuer", err)
	}
	verifier := sessiontoken.VerifierConfig{
		Issuer: cfg.Issuer, Audience: cfg.Audience[0], Keys: a.ring, Revocations: a.revocations, MaxTTL: cfg.Limits.maxTTL(),
		StateSecrets: a.state,
	}
	if cfg.Host != nil {
		verifier.Cache = cfg.Host.cache
	}
	a.verifier, err = sessiontoken.NewVerifier[T](verifier)
	return within("the verifier", err)
}

func (a *Authority[T]) addRefresh(cfg *Config[T]) error {
	secrets, err := derived(cfg.Secrets, cfg.Issuer, useRefresh)
	if err != nil {
		return within("Config.Secrets", err)
	}
	a.refresh, err = refresh.NewManager(refresh.Config{
		Store: cfg.store(), Namespace: cfg.Namespace, Secrets: secrets, Revocations: a.revocations,
		IdleTimeout: cfg.Limits.RefreshIdle, MaxSession: cfg.Limits.MaxSession, Logger: cfg.Logger,
	})
	return within("the refresh manager", err)
}

func (a *Authority[T]) addSessions(cfg *Config[T]) (err error) {
	c := cfg.HTTP
	c.Verifier, c.Issuer, c.Refresh, c.Revocations = a.verifier, a.issuer, a.refresh, a.revocations
	c.Load, c.Logger = cfg.Load, cfg.Logger
	a.sessions, err = sessionhttp.New(c)
	return within("Config.HTTP", err)
}

// within adds the name of a part to its error.
func within(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("authority: %s: %w", part, err)
}

// Sessions returns the sessions of the site: sign-in, sign-out, and the
// middleware for handlers that need a session.
func (a *Authority[T]) Sessions() *sessionhttp.Sessions[T] { return a.sessions }

// Issuer returns the issuer of the tokens.
func (a *Authority[T]) Issuer() *sessiontoken.Issuer[T] { return a.issuer }

// Verifier returns the verifier for the first audience.
func (a *Authority[T]) Verifier() *sessiontoken.Verifier[T] { return a.verifier }

// Ring returns the key ring. To revoke a key, call [Authority.RevokeKeys].
func (a *Authority[T]) Ring() *keys.Ring { return a.ring }

// Revocations returns the list of revocations, such as to block a user.
func (a *Authority[T]) Revocations() *revoke.List { return a.revocations }

// Refresh returns the manager of the refresh tokens, such as for a user's list
// of devices.
func (a *Authority[T]) Refresh() *refresh.Manager { return a.refresh }

// Metrics returns the metrics of all parts in one map: those of [keys.Ring],
// [revoke.List], [refresh.Manager], [sessiontoken.Issuer], [sessiontoken.Verifier]
// and [sessionhttp.Sessions], whose names differ. It does no I/O. The map is the
// caller's: [expvar.Func] can publish it as it is.
func (a *Authority[T]) Metrics() map[string]float64 {
	m := a.ring.Metrics()
	for _, part := range []map[string]float64{a.revocations.Metrics(), a.refresh.Metrics(), a.issuer.Metrics(), a.verifier.Metrics(), a.sessions.Metrics()} {
		maps.Copy(m, part)
	}
	return m
}

// StateSecrets returns the secrets that open the [sessiontoken.Sealed] fields of
// this issuer's states, in the order of Config.Secrets. They are for the
// StateSecrets of package remote on a server that reads these fields. They are
// made of Secrets, which do not follow from them, and they open nothing else.
func (a *Authority[T]) StateSecrets() [][]byte {
	secrets := make([][]byte, len(a.state))
	for i, secret := range a.state {
		secrets[i] = slices.Clone(secret)
	}
	return secrets
}

// RevokeKeys revokes keys by the ids that [keys.Ring.Status] lists. When it
// returns nil, their tokens are refused here, and on every other replica as
// soon as those of a revoked session are. If the current key is among them,
// another key becomes current. If an attacker could read one private key in the
// store, revoke all keys, and all sessions that the attacker may have begun.
//
// RevokeKeys writes to the list of revocations first: every ring revokes the
// keys from there, even if this call then fails. The list remembers a key for
// as long as the ring would have kept it. An unknown id is
// [keys.ErrUnknownKey]; nothing was revoked then. After any other error some
// keys may have been revoked: repeat the call. The list writes what it could
// not write again by itself. RevokeKeys takes at most 17 s. The end of ctx does
// not cancel it.
func (a *Authority[T]) RevokeKeys(ctx context.Context, kids ...string) error {
	if len(kids) == 0 {
		return errors.New("authority: RevokeKeys names no key")
	}
	ctx = context.WithoutCancel(ctx)
	_ = a.ring.Look(ctx) // if it fails, the keys in memory are used
	known := map[string]keys.KeyStatus{}
	for _, k := range a.ring.Status().Keys {
		known[k.KeyID] = k
	}
	others := slices.DeleteFunc(slices.Clone(kids), func(kid string) bool {
		_, ok := known[kid]
		return ok
	})
	if len(others) > 0 { // revoked in the ring already, or unknown ids
		if err := a.ring.Revoke(ctx, others...); err != nil {
			return fmt.Errorf("authority: %w", err)
		}
	}
	errs := make([]error, len(kids)+1)
	var writing sync.WaitGroup
	for i, kid := range kids {
		writing.Go(func() { errs[i] = a.revocations.RevokeKey(ctx, kid, known[kid].KeptUntil) })
	}
	writing.Wait()
	errs[len(kids)] = a.ring.Revoke(ctx, kids...)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return nil
}
