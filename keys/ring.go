package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/tally"
)

// ErrUnknownKey is returned by [Ring.Revoke] for an id that is neither in the
// ring nor among those revoked lately. Nothing was revoked then.
var ErrUnknownKey = errors.New("keys: no such key in the ring")

// RingConfig says how a [Ring] rotates. All replicas that share a store should
// be configured alike; while a change of times is rolled out, the longer ones
// hold.
type RingConfig struct {
	// Store is where the ring is kept. Required. A store that is neither a
	// [MemStore] nor a [FileStore] must be [Sealed].
	Store Store
	// InsecureUnsealed permits a store that may be shared over a network to
	// hold private keys in the clear: whoever reads it can sign.
	InsecureUnsealed bool
	// Name tells rings apart whose keys are sealed with one sealing key: a key
	// cannot be moved between names. The empty string is a name too.
	Name string
	// VerifyOnly is for a replica that never signs: it only reads the store, and
	// the private keys may be sealed with a secret it does not have.
	VerifyOnly bool

	// Algorithm is that of the keys made from now on. Empty means ES256.
	Algorithm Algorithm
	// RotateEvery is how long a key signs. 0 means 30 days.
	RotateEvery time.Duration
	// PublishBefore is how long a key is published before it signs. It must
	// cover the time in which verifiers may not have seen it: MaxStale,
	// ClientRefresh, MaxSkew and SyncEvery together, and the JWKS max-age (see
	// [Ring.MaxAge]). 0 means 24 h.
	PublishBefore time.Duration
	// RetainFor is how long a key is kept after its last signature: at least
	// the longest time in which one of its tokens may be verified or renewed,
	// and at most 25 times RotateEvery. 0 means 24 h.
	RetainFor time.Duration

	// SyncEvery is the longest time between two readings of the store while it
	// answers: every replica knows of a change by then. One reading may take half
	// of it, and never more than 10 s. 0 means 1 min.
	SyncEvery time.Duration
	// MaxStale is how long a replica goes on without having read the store:
	// after that it neither signs nor verifies, since keys may have been
	// revoked. 0 means 12 h.
	MaxStale time.Duration
	// ClientRefresh is how long the verifiers that fetch the JWKS may keep a
	// key set beyond its max-age. 0 means 2 h, which the gateways of the large
	// clouds need.
	ClientRefresh time.Duration
	// MaxSkew is the largest difference between the clocks of any two replicas.
	// 0 means 1 min.
	MaxSkew time.Duration

	// Logger is told when the store fails and recovers, and when a key begins
	// to sign. Nil means slog.Default().
	Logger *slog.Logger
}

// Ring makes the keys of an issuer, publishes and rotates them, together with
// any number of replicas that share its store. It is a source of verification
// and signing keys for package sessiontoken. It is safe for concurrent use.
//
// It reads the store when it is first asked for a key. Run keeps it in step
// afterwards. Without Run, it syncs when it is used: in the background when
// SyncEvery is nearly over, and before it answers when that has passed.
//
// When the store fails, a ring goes on with what it has read, for at most
// MaxStale. A store that comes back empty or with an older document is given
// the newest one that any replica has.
type Ring struct {
	cfg    RingConfig
	plan   schedule
	sealed *sealedStore

	syncing *flight.Group
	turn    chan struct{} // held by whoever is in update
	state   atomic.Pointer[ringState]
	last    atomic.Pointer[syncOutcome]

	made      time.Time
	syncs     tally.Runs
	signing   string        // id of the last key that was seen to be current; for whoever has the turn
	rotations atomic.Uint64 // changes of it
}

// ringState is what was last read from the store.
type ringState struct {
	doc     *document
	set     *Set
	signers map[string]signer // of the keys that still have a private half
	synced  time.Time         // when that reading began
}

type signer struct {
	key *SigningKey
	err error
}

// syncOutcome is that of the last sync.
type syncOutcome struct {
	err   error
	ended time.Time
}

// maxRaces is how many compare-and-swaps a sync may lose before it gives up
// until the next one.
const maxRaces = 64

// maxDuration keeps sums of times from overflowing.
const maxDuration = 10 * 365 * 24 * time.Hour

// NewRing checks the configuration and returns the ring for it. An error names
// the field at fault. It does no I/O and starts no goroutine.
func NewRing(cfg RingConfig) (*Ring, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	r := &Ring{cfg: cfg, turn: make(chan struct{}, 1), made: time.Now()}
	r.sealed, _ = cfg.Store.(*sealedStore)
	r.plan = schedule{
		rotateEvery:   cfg.RotateEvery,
		publishBefore: cfg.PublishBefore,
		retainFor:     cfg.RetainFor,
		unseen:        cfg.MaxStale + cfg.SyncEvery,
		maxSkew:       cfg.MaxSkew,
		newKey:        func() (documentKey, error) { return newDocumentKey(cfg.Algorithm, cfg.Name, r.sealed) },
	}
	sync := r.syncs.Of(r.sync)
	r.syncing = flight.New(flight.Config{Limit: cfg.storeTimeout(), Cooldown: min(cfg.SyncEvery/4*3, time.Second)}, func(ctx context.Context, _ *flight.Run) error { return sync(ctx) })
	return r, nil
}

func (cfg *RingConfig) setDefaults() error {
	if arg.IsNil(cfg.Store) {
		return errors.New("keys: RingConfig.Store is required")
	}
	switch s := cfg.Store.(type) {
	case *sealedStore:
		if s.Store == nil || s.aead == nil {
			return errors.New("keys: RingConfig.Store is sealed, but without a store or an AEAD")
		}
	case localStore:
	default:
		if !cfg.InsecureUnsealed && !cfg.VerifyOnly {
			return errors.New("keys: RingConfig.Store may be shared over a network and is not Sealed; set InsecureUnsealed to keep private keys in the clear all the same")
		}
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = ES256
	}
	if !cfg.Algorithm.valid() {
		return fmt.Errorf("keys: RingConfig.Algorithm: %q is not offered", string(cfg.Algorithm))
	}
	for _, d := range []struct {
		name  string
		field *time.Duration
		zero  time.Duration
	}{
		{"RotateEvery", &cfg.RotateEvery, 30 * 24 * time.Hour},
		{"PublishBefore", &cfg.PublishBefore, 24 * time.Hour},
		{"RetainFor", &cfg.RetainFor, 24 * time.Hour},
		{"SyncEvery", &cfg.SyncEvery, time.Minute},
		{"MaxStale", &cfg.MaxStale, 12 * time.Hour},
		{"ClientRefresh", &cfg.ClientRefresh, 2 * time.Hour},
		{"MaxSkew", &cfg.MaxSkew, time.Minute},
	} {
		if *d.field < 0 || *d.field > maxDuration {
			return fmt.Errorf("keys: RingConfig.%s is %v; it must be from 0 to %v", d.name, *d.field, maxDuration)
		}
		if *d.field == 0 {
			*d.field = d.zero
		}
	}
	if cfg.SyncEvery >= cfg.MaxStale {
		return fmt.Errorf("keys: RingConfig.SyncEvery is %v; it must be less than MaxStale, which is %v", cfg.SyncEvery, cfg.MaxStale)
	}
	if unseen := cfg.MaxStale + cfg.ClientRefresh + cfg.MaxSkew + cfg.SyncEvery; cfg.PublishBefore < unseen {
		return fmt.Errorf("keys: RingConfig.PublishBefore is %v; verifiers may not know a key for MaxStale + ClientRefresh + MaxSkew + SyncEvery, which is %v", cfg.PublishBefore, unseen)
	}
	if cfg.RotateEvery < cfg.PublishBefore+cfg.SyncEvery {
		return fmt.Errorf("keys: RingConfig.RotateEvery is %v; a key could not be published for PublishBefore (%v, and SyncEvery) before its turn", cfg.RotateEvery, cfg.PublishBefore)
	}
	if most := cfg.RotateEvery * (maxKeys / 2); cfg.RetainFor > most {
		return fmt.Errorf("keys: RingConfig.RetainFor is %v; with RotateEvery of %v it must not exceed %v, or the ring would hold too many keys", cfg.RetainFor, cfg.RotateEvery, most)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return nil
}

// storeTimeout bounds one reading of the store with what it leads to.
func (cfg *RingConfig) storeTimeout() time.Duration { return min(cfg.SyncEvery/2, 10*time.Second) }

// RetainFor is how long a key is kept after its last signature. An issuer
// checks at construction that none of its tokens can outlive that.
func (r *Ring) RetainFor() time.Duration { return r.cfg.RetainFor }

// MaxAge is the longest max-age with which the key set may be published, such
// that every verifier has a key before it signs: PublishBefore less MaxStale,
// ClientRefresh, MaxSkew and SyncEvery.
func (r *Ring) MaxAge() time.Duration {
	return r.cfg.PublishBefore - r.cfg.MaxStale - r.cfg.ClientRefresh - r.cfg.MaxSkew - r.cfg.SyncEvery
}

// NextChange is when the published set will change next by the plan, or the
// zero time if the ring has not read its store. A revocation can come sooner.
func (r *Ring) NextChange() time.Time {
	s := r.state.Load()
	if s == nil {
		return time.Time{}
	}
	now := time.Now()
	var next time.Time
	for _, k := range s.doc.Keys {
		// A key is added when the last one begins to sign, and one goes at its end.
		for _, t := range []time.Time{k.SignsFrom, k.KeptUntil} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}

// KeySet returns the published keys: next, current and retired. It answers from
// memory, but waits for the store if it has never been read or not for MaxStale;
// if it has not been read for SyncEvery and that is not because it fails; or if
// kid is not in the set: then at most once in a second for all ids together. It
// fails if the set is too old to be trusted, or if a kid is not known and the
// store cannot be asked.
func (r *Ring) KeySet(ctx context.Context, kid string) (*Set, error) {
	s, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if _, known := s.set.Key(kid); !known && kid != "" {
		if _, err := r.syncing.Try(ctx, 0); err != nil {
			return nil, fmt.Errorf("keys: the store cannot be asked for an unknown key: %w", err)
		}
		s = r.state.Load()
	}
	return s.set, nil
}

// SigningKey returns the current key. It fails if the store has not been read
// for MaxStale or past the time of every key that it held, if the private key
// cannot be unsealed, and always with VerifyOnly.
func (r *Ring) SigningKey(ctx context.Context) (*SigningKey, error) {
	if r.cfg.VerifyOnly {
		return nil, errors.New("keys: the ring is VerifyOnly")
	}
	s, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if k, ok := s.current(time.Now()); ok {
		return k.key, k.err
	}
	if _, err := r.syncing.Try(ctx, 0); err != nil {
		return nil, fmt.Errorf("keys: no key may sign now, and the store cannot be asked for one: %w", err)
	}
	if k, ok := r.state.Load().current(time.Now()); ok {
		return k.key, k.err
	}
	return nil, errors.New("keys: no key may sign now; does this machine's clock agree with the others'?")
}

func (s *ringState) current(now time.Time) (signer, bool) {
	i := current(s.doc, now)
	if i < 0 {
		return signer{}, false
	}
	k, ok := s.signers[s.doc.Keys[i].public.id]
	return k, ok
}

// fresh returns a state that was read less than SyncEvery ago; while the store
// fails, less than MaxStale.
func (r *Ring) fresh(ctx context.Context) (*ringState, error) {
	s := r.state.Load()
	if s != nil {
		old := clockElapsed(s.synced, time.Now())
		if old < r.cfg.SyncEvery/10*9 {
			return s, nil
		}
		if old < r.cfg.SyncEvery || old < r.cfg.MaxStale && r.failedLately() {
			r.syncing.Go()
			return s, nil
		}
	}
	_, err := r.syncing.Try(ctx, 0)
	if s = r.state.Load(); s != nil && clockElapsed(s.synced, time.Now()) < r.cfg.MaxStale {
		return s, nil
	}
	if err == nil {
		err = errors.New("it was not read in time")
	}
	if s == nil {
		return nil, fmt.Errorf("keys: the store has not been read yet: %w", err)
	}
	return nil, fmt.Errorf("keys: the store has not been read for %v: %w", clockElapsed(s.synced, time.Now()).Round(time.Second), err)
}

// failedLately reports whether the last sync failed, and less than SyncEvery ago.
func (r *Ring) failedLately() bool {
	last := r.last.Load()
	return last != nil && last.err != nil && clockElapsed(last.ended, time.Now()) < r.cfg.SyncEvery
}

// Run keeps the ring in step with its store, and rotates it, until ctx ends; it
// then returns ctx.Err(). Failures of the store do not end it. Every replica
// runs it; it does no harm twice.
func (r *Ring) Run(ctx context.Context) error {
	for {
		began := time.Now()
		_ = r.syncing.Do(ctx, 0) // logged by sync, and kept for Status
		// Early enough that no call has to wait for it, and at random, so that
		// replicas started together spread out.
		wait := r.cfg.SyncEvery/4*3 + rand.N(r.cfg.SyncEvery/8+1) - time.Since(began)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (r *Ring) sync(ctx context.Context) error {
	err := r.update(ctx, nil)
	was := r.last.Swap(&syncOutcome{err, time.Now()})
	switch {
	case err != nil && (was == nil || was.err == nil):
		r.cfg.Logger.Warn("keys: the ring cannot be synced with its store; it goes on with what it has", "error", err)
	case err == nil && was != nil && was.err != nil:
		r.cfg.Logger.Info("keys: the ring is in step with its store again")
	}
	return err
}

// Rotate makes the next key current as soon as every verifier can know it, and
// returns when that is: at once if it has been published for PublishBefore, as
// it has been unless the last rotation was shorter ago than that. Tokens of the
// key it replaces stay valid. Other replicas follow within SyncEvery. After an
// error the change may have been written all the same; repeating it is safe.
func (r *Ring) Rotate(ctx context.Context) (at time.Time, err error) {
	err = r.change(ctx, func(d *document, now time.Time) error {
		at, err = r.plan.rotate(d, now)
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("keys: rotate: %w", err)
	}
	return at, nil
}

// Revoke removes keys at once: their tokens stop verifying on this replica when
// it returns, on every other within SyncEvery, and on verifiers that fetch the
// JWKS when they fetch it next. If the current key is among them, a new key
// becomes current at once, without having been published before, so that
// verifiers elsewhere refetch. Whoever could read one key of a store could
// probably read the others: then revoke them all, by the ids that [Ring.Status]
// lists.
//
// An unknown id is [ErrUnknownKey], and nothing is revoked. After another error
// the change may have been written all the same; repeating it is safe.
func (r *Ring) Revoke(ctx context.Context, kids ...string) error {
	err := r.change(ctx, func(d *document, now time.Time) error {
		unknown, err := r.plan.revoke(d, now, kids)
		if unknown != "" {
			return fmt.Errorf("%w: %q", ErrUnknownKey, unknown)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("keys: revoke: %w", err)
	}
	return nil
}

func (r *Ring) change(ctx context.Context, f func(*document, time.Time) error) error {
	if r.cfg.VerifyOnly {
		return errors.New("the ring is VerifyOnly")
	}
	// No caller may hold up the syncs for longer than one of them takes.
	ctx, cancel := context.WithTimeout(ctx, r.cfg.storeTimeout())
	defer cancel()
	return r.update(ctx, f)
}

// update reads the store, brings the document up to now, makes the change if
// there is one, and writes it back if anything changed. Whoever loses the race
// starts again from the winner's document. Nothing is used but what was read.
func (r *Ring) update(ctx context.Context, change func(*document, time.Time) error) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for range maxRaces {
		began := time.Now()
		raw, rev, err := r.cfg.Store.Load(ctx)
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		doc, err := decodeDocument(raw)
		if err != nil {
			return err
		}
		changed := false
		if held := r.state.Load(); held != nil && doc.Serial < held.doc.Serial {
			if r.cfg.VerifyOnly {
				return errors.New("the store holds an older document than it did")
			}
			r.cfg.Logger.Warn("keys: the store holds an older document than it did; the newest known is written back")
			doc, changed = held.doc.clone(), true
		}
		if r.cfg.VerifyOnly {
			return r.adopt(doc, began)
		}
		now := time.Now()
		tended, err := r.plan.tend(doc, now)
		if err != nil {
			return err
		}
		changed = changed || tended
		if change != nil {
			if err := change(doc, now); err != nil {
				return err
			}
			if _, err := r.plan.tend(doc, now); err != nil {
				return err
			}
			changed = true
		}
		if !changed {
			return r.adopt(doc, began)
		}
		doc.Serial++
		out, err := doc.encode()
		if err != nil {
			return err
		}
		if _, err := r.cfg.Store.Save(ctx, out, rev); err == nil {
			change = nil // done; what is left is to read it back
		} else if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("save: %w", err)
		}
	}
	return fmt.Errorf("lost %d races for the stored document", maxRaces)
}

// adopt makes what was read the ring's state. A set with the same keys stays
// the same pointer.
func (r *Ring) adopt(doc *document, began time.Time) error {
	set, err := doc.set()
	if err != nil {
		return err
	}
	held := r.state.Load()
	next := &ringState{doc: doc, set: set, signers: make(map[string]signer), synced: began}
	if held != nil && held.set.Equal(set) {
		next.set = held.set
	}
	for i := range doc.Keys {
		k := &doc.Keys[i]
		if len(k.Private) == 0 || r.cfg.VerifyOnly {
			continue
		}
		if held != nil {
			if s, ok := held.signers[k.public.id]; ok && s.err == nil {
				next.signers[k.public.id] = s
				continue
			}
		}
		key, err := k.signingKey(r.cfg.Name, r.sealed)
		next.signers[k.public.id] = signer{key, err}
	}
	r.state.Store(next)
	r.noteCurrent(doc)
	return nil
}

// noteCurrent counts and logs a key that has begun to sign since the last
// reading. The turn is held.
func (r *Ring) noteCurrent(doc *document) {
	i := current(doc, time.Now())
	if i < 0 {
		return
	}
	k := &doc.Keys[i]
	if k.public.id == r.signing {
		return
	}
	if r.signing != "" {
		r.rotations.Add(1)
	}
	r.signing = k.public.id
	r.cfg.Logger.Info("keys: current key", "kid", k.public.id, "alg", string(k.public.alg), "until", k.SignsUntil)
}

// Status says how a ring stands: for health checks, and to look after it.
type Status struct {
	Keys   []KeyStatus // in the order in which they sign
	Synced time.Time   // when the store was last read; zero if never
	Err    error       // of the last sync; nil if it succeeded
}

// KeyStatus is one key of a ring. Its phase follows from the times.
type KeyStatus struct {
	KeyID      string
	Algorithm  Algorithm
	Phase      string    // "next", "current" or "retired"
	Published  time.Time // when it was made and published
	SignsFrom  time.Time // when it becomes current
	SignsUntil time.Time // when it retires
	KeptUntil  time.Time // when it is gone
}

// Status reports from memory, without I/O. It holds no secret.
func (r *Ring) Status() Status {
	var st Status
	if last := r.last.Load(); last != nil {
		st.Err = last.err
	}
	s := r.state.Load()
	if s == nil {
		return st
	}
	st.Synced = s.synced
	now := time.Now()
	for _, k := range s.doc.Keys {
		phase := "retired"
		if now.Before(k.SignsFrom) {
			phase = "next"
		} else if k.signsAt(now) {
			phase = "current"
		}
		st.Keys = append(st.Keys, KeyStatus{
			KeyID: k.public.id, Algorithm: k.public.alg, Phase: phase,
			Published: k.Published, SignsFrom: k.SignsFrom, SignsUntil: k.SignsUntil, KeptUntil: k.KeptUntil,
		})
	}
	return st
}

func clockElapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
