package keys

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
)

var (
	// ErrUnknownKey is returned by [Ring.Revoke] for an id that is neither that
	// of a key of the ring nor that of a revoked one. Nothing was revoked.
	ErrUnknownKey = errors.New("keys: no such key in the ring")
	// ErrNoRing is returned by Rotate, Revoke and Reseal if the store has no
	// ring of that name. Nothing was changed.
	ErrNoRing = errors.New("keys: the store has no ring of this name")
	// ErrNotRead is [Status].Err before the first reading of the store.
	ErrNotRead = errors.New("keys: the store has not been read yet")
	// ErrClock means that this machine's clock and the store's are further
	// apart than RingConfig.MaxSkew. This ring then changes nothing.
	ErrClock = errors.New("keys: this machine's clock disagrees with the store's")
	// ErrUnseal means that private keys of the ring cannot be unsealed here.
	// This ring then changes nothing.
	ErrUnseal = errors.New("keys: private keys of the ring cannot be unsealed here")
	// ErrLost means that the store acknowledged a write and a later reading
	// does not show it.
	ErrLost = errors.New("keys: the store has acknowledged a write and does not show it")
	// ErrConflict means that a [Store] has another revision than the rev of
	// Save. Nothing was written. It is normal when another process has saved
	// first: load the document again and repeat the change.
	ErrConflict = errors.New("keys: the stored document has changed")

	errZeroRing = errors.New("keys: the Ring is a zero value: make it with NewRing")
)

const (
	// maxWait is how long a call waits for a key at most.
	maxWait = 2 * time.Second
	// changeTime is how long Rotate, Revoke and Reseal wait at most.
	changeTime = 5 * time.Second
	// checkEvery is how often all published keys are looked up in
	// RingConfig.Revoked while the ring is used.
	checkEvery = time.Second
	// settled is how long a process must have lived before it destroys anything
	// by its own clock, which may be wrong just after the machine has started.
	settled = 5 * time.Minute
)

// Ring makes, publishes and rotates the keys of an issuer, together with any
// number of replicas that share its store. It is a source of verification and
// signing keys for package sessiontoken. It is safe for concurrent use. Make it
// with [NewRing]: every call of a zero Ring fails.
//
// It reads the store at the first call, and with Run every SyncEvery. Without
// Run, calls cause the readings: in the background shortly before SyncEvery has
// passed, and before the call returns after that.
//
// While the store fails, a ring uses what it has read for at most MaxStale. If
// the store comes back empty, or with an older document or that of another
// ring, each replica writes back the keys that the store lacks. A key that a
// replica knows as revoked stays revoked, whatever the store holds.
//
// The time of a ring is the store's, if the store has a clock of its own. A
// ring changes nothing while the clock of its machine is further than MaxSkew
// from it, or while it cannot unseal the private keys. It reads, verifies, and
// signs with the keys that it has, and reports the reason in the log,
// [Ring.Status] and [Ring.Metrics].
type Ring struct {
	cfg    RingConfig
	plan   schedule
	sealed *sealedStore
	clock  *clock.Clock
	view   *clock.View // of the store's time
	loud   *loud.Log
	events *notify.Sender
	made   clock.Instant

	reading   *flight.Group // of the store
	writing   *flight.Group // of what is due
	unsealing *flight.Group // of the private keys that were read
	changing  atomic.Int32  // calls of Rotate, Revoke and Reseal that have not ended

	adopting sync.Mutex // guards changes of state
	state    atomic.Pointer[ringState]
	decoded  atomic.Pointer[decoded]
	offset   atomic.Pointer[clockOffset]
	outcomes outcomes

	looking sync.Mutex
	next    *look // the one whose reading has not begun
	looked  clock.Instant

	noting    sync.Mutex
	signing   string // id of the last key that was seen to be current
	logged    string // id of the last one that was logged to be
	rotations atomic.Uint64
}

// ringState is the state of a ring in this process. It is immutable.
type ringState struct {
	doc     *document
	set     *Set              // nil if there is nothing to publish
	signers map[string]signer // of the keys whose private half was unsealed, or tried to be
	began   clock.Instant     // when the reading that it is from began
	owed    bool              // a write is due
	checked *atomic.Int64     // its age when Revoked was last asked for all keys
}

// signer is an unsealed private half, or the error of unsealing it.
type signer struct {
	key *SigningKey
	err error
}

// NewRing checks the configuration and returns the ring for it. An error names
// the field at fault. It does no I/O and starts no goroutine.
func NewRing(cfg RingConfig) (*Ring, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	c := clock.Here()
	r := &Ring{cfg: cfg, clock: c, view: clock.NewView(c), loud: loud.New(cfg.Logger), made: c.Read()}
	r.events = notify.New(cfg.OnEvent, false, r.loud)
	r.sealed, _ = cfg.Store.(*sealedStore)
	r.plan = schedule{
		rotateEvery:   cfg.RotateEvery,
		publishBefore: cfg.PublishBefore,
		retainFor:     cfg.RetainFor,
		identifyFor:   cfg.IdentifyFor,
		unseen:        cfg.MaxStale + max(cfg.SyncEvery, cfg.storeTimeout()),
		maxSkew:       cfg.MaxSkew,
		newKey:        func() (documentKey, error) { return newDocumentKey(cfg.Algorithm, cfg.Name, r.sealed) },
	}
	group := func(cooldown time.Duration, ended func(error), f func(context.Context, *flight.Run) error) *flight.Group {
		return flight.New(flight.Config{
			Limit: cfg.storeTimeout(), Cooldown: cooldown, Pause: r.cooldown(), MaxPause: r.maxPause(), Ended: ended,
		}, f)
	}
	r.reading = group(r.cooldown(), r.readingEnded, r.readOnce)
	r.writing = group(r.cooldown(), r.writingEnded, func(ctx context.Context, run *flight.Run) error { return r.update(ctx, run, nil) })
	r.unsealing = group(0, r.unsealingEnded, r.unsealOnce)
	return r, nil
}

// cooldown is the least time between two readings that callers ask for, and the
// first pause after a failure.
func (r *Ring) cooldown() time.Duration { return min(r.cfg.SyncEvery/4*3, time.Second) }

// maxPause is the longest pause after a failure.
func (r *Ring) maxPause() time.Duration { return min(r.cfg.SyncEvery/2, 10*time.Second) }

// RetainFor returns how long a key is kept after its last signature. An issuer
// checks at construction that no token outlives its key.
func (r *Ring) RetainFor() time.Duration { return r.cfg.RetainFor }

// IdentifyFor returns how long [Ring.IdentifyKey] returns a key after its last
// signature. Package sessionhttp checks at construction that no session
// outlives that.
func (r *Ring) IdentifyFor() time.Duration { return r.cfg.IdentifyFor }

// MaxAge returns the longest max-age with which the key set may be published,
// so that every verifier has a key before it signs: PublishBefore minus
// MaxStale, ClientRefresh, MaxSkew and SyncEvery.
func (r *Ring) MaxAge() time.Duration {
	return r.cfg.PublishBefore - r.cfg.MaxStale - r.cfg.ClientRefresh - r.cfg.MaxSkew - r.cfg.SyncEvery
}

// NextChange returns when the published set changes next on schedule, by this
// machine's clock, or the zero time if the ring has not read its store. A
// revocation can change it sooner.
func (r *Ring) NextChange() time.Time {
	s := r.state.Load()
	if s == nil {
		return time.Time{}
	}
	m := r.moment()
	var next time.Time
	for _, k := range s.doc.published(m) {
		// A key is added when the last one begins to sign, and one goes at its end.
		for _, t := range []time.Time{k.SignsFrom, k.KeptUntil} {
			if t.After(m.now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	if next.IsZero() {
		return next
	}
	return r.clock.Now().Add(clock.Between(m.now, next))
}

// moment returns the present time by the ring's clock, which is not marked as
// sure.
func (r *Ring) moment() moment {
	if now, ok := r.view.Now(); ok {
		return moment{now: now, destroy: true}
	}
	return moment{now: r.clock.Now(), destroy: r.clock.Steady(r.made) >= settled}
}

// KeySet returns the published keys: next, current and retired. It answers from
// memory, except that it reads the store:
//
//   - before the first answer, and past MaxStale,
//   - past SyncEvery, unless the store is known to fail,
//   - for a kid that the ring has never had, at most once a second for all of
//     them. The answer is then from a reading that began after the call.
//
// It waits for at most 2 s. It fails past MaxStale, and if a kid is unknown and
// the store cannot be read in time.
func (r *Ring) KeySet(ctx context.Context, kid string) (*Set, error) {
	s, left, err := r.populated(ctx)
	if err != nil {
		return nil, err
	}
	if kid == "" {
		s = r.withoutRevoked(s)
	} else if !s.knows(kid) {
		if err := r.look(ctx, left); err != nil {
			return nil, err
		}
		s = r.state.Load()
	}
	if s.set == nil {
		return nil, errors.New("keys: the ring has no key that can be published")
	}
	return s.set, nil
}

// Look reads the store, so that KeySet returns what other processes have
// changed. It waits for at most 2 s. In the pause after a failed reading it
// returns that error at once. Concurrent calls share a reading. The caller
// limits how often Look is called.
func (r *Ring) Look(ctx context.Context) error {
	if r.reading == nil {
		return errZeroRing
	}
	return r.reading.After(ctx, maxWait)
}

// IdentifyKey implements [Identifier]. For a key that the ring has or has had
// it answers from memory. For any other it reads the store, at most once a
// second for all of them, and waits for at most 2 s. A key that this release
// cannot use is an error.
func (r *Ring) IdentifyKey(ctx context.Context, kid string) (*PublicKey, error) {
	s, left, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	if !s.knows(kid) {
		if err := r.look(ctx, left); err != nil {
			return nil, err
		}
		s = r.state.Load()
	}
	k := s.doc.find(kid)
	switch {
	case k == nil || r.isRevoked(kid):
		return nil, nil
	case k.public == nil:
		return nil, errors.New("keys: this release cannot use the key with this id")
	}
	return k.public, nil
}

// knows reports whether kid is that of a published, a retired or a revoked key,
// so that no reading changes the answer for it.
func (s *ringState) knows(kid string) bool {
	if s.set != nil {
		if _, ok := s.set.Key(kid); ok {
			return true
		}
	}
	return s.doc.find(kid) != nil || s.doc.hasRevoked(kid)
}

// SigningKey returns the current key. It waits for at most 2 s. It first
// replaces a key for which RingConfig.Revoked returns true. It fails:
//
//   - if the store has not been read for MaxStale, or since every key has
//     retired;
//   - if the private key cannot be unsealed ([ErrUnseal]);
//   - always with VerifyOnly.
func (r *Ring) SigningKey(ctx context.Context) (*SigningKey, error) {
	if r.cfg.VerifyOnly {
		return nil, errors.New("keys: the ring is VerifyOnly")
	}
	s, left, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	// Usually the first round returns. Otherwise a key is made, and then unsealed.
	// A round may join a run of either that began too early to see the need.
	for range 8 {
		if left <= 0 {
			break
		}
		began := r.clock.Read()
		i := current(s.doc, r.moment().now)
		switch {
		case i < 0:
			if _, err = r.writing.Try(ctx, left); err != nil {
				return nil, fmt.Errorf("keys: no key may sign now: %w", err)
			}
			err = errors.New("keys: no key may sign now; does this machine's clock agree with the others'?")
		case r.isRevoked(s.doc.Keys[i].id):
			r.withoutRevoked(s)
			if err = r.writing.After(ctx, left); err != nil {
				return nil, fmt.Errorf("keys: the current key was revoked, and no other could be made: %w", err)
			}
		case s.doc.Keys[i].public == nil:
			return nil, errors.New("keys: this release cannot use the current key; use a release that knows its algorithm")
		default:
			k, ok := s.signers[s.doc.Keys[i].id]
			if ok && k.err == nil {
				return k.key, nil
			}
			if _, err = r.unsealing.Try(ctx, left); err != nil {
				return nil, fmt.Errorf("keys: the current key: %w", err)
			}
			err = k.err
		}
		s, left = r.state.Load(), left-r.clock.Steady(began)
	}
	return nil, orWaited(err)
}

// populated is fresh for a state with published keys. It makes the first keys
// if there are none.
func (r *Ring) populated(ctx context.Context) (s *ringState, left time.Duration, err error) {
	s, left, err = r.fresh(ctx)
	if err != nil || s.set != nil || r.cfg.VerifyOnly || left <= 0 {
		return s, left, err
	}
	began := r.clock.Read()
	if _, err := r.writing.Try(ctx, left); err != nil {
		return nil, 0, fmt.Errorf("keys: the ring has no key: %w", err)
	}
	return r.state.Load(), left - r.clock.Steady(began), nil
}

// fresh returns a state that was read less than SyncEvery ago or, while the
// store fails, less than MaxStale ago, and how much of maxWait is left.
func (r *Ring) fresh(ctx context.Context) (s *ringState, left time.Duration, err error) {
	s = r.state.Load()
	if s != nil {
		age := r.clock.Age(s.began)
		if age < r.cfg.SyncEvery/10*9 {
			return r.checked(s, age), maxWait, nil
		}
		if age < r.cfg.SyncEvery || age < r.cfg.MaxStale && r.failing() {
			r.reading.Go()
			return r.checked(s, age), maxWait, nil
		}
	}
	if r.reading == nil {
		return nil, 0, errZeroRing
	}
	began := r.clock.Read()
	_, err = r.reading.Try(ctx, maxWait)
	left = maxWait - r.clock.Steady(began)
	s = r.state.Load()
	if s == nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrNotRead, orWaited(err))
	}
	age := r.clock.Age(s.began)
	if age < r.cfg.MaxStale {
		return r.checked(s, age), left, nil
	}
	return nil, 0, fmt.Errorf("keys: the store has not been read for %v: %w", age.Round(time.Second), orWaited(err))
}

// orWaited returns err, or flight.ErrWaited if that is nil.
func orWaited(err error) error {
	if err == nil {
		return flight.ErrWaited
	}
	return err
}

// checked calls RingConfig.Revoked for all published keys, at most every
// checkEvery.
func (r *Ring) checked(s *ringState, age time.Duration) *ringState {
	if r.cfg.Revoked == nil {
		return s
	}
	if last := s.checked.Load(); int64(age)-last < int64(checkEvery) || !s.checked.CompareAndSwap(last, int64(age)) {
		return s
	}
	return r.withoutRevoked(s)
}

func (r *Ring) isRevoked(kid string) bool { return r.cfg.Revoked != nil && r.cfg.Revoked(kid) }

// withoutRevoked returns a state without the keys for which RingConfig.Revoked
// returns true. It has them revoked in the store too.
func (r *Ring) withoutRevoked(s *ringState) *ringState {
	if !r.plan.dropRevoked(s.doc.clone(), r.cfg.Revoked, r.moment()) {
		return s
	}
	r.adopting.Lock()
	s = r.state.Load()
	held := s.doc
	m, doc := r.moment(), s.doc.clone()
	dropped := r.plan.dropRevoked(doc, r.cfg.Revoked, m)
	if dropped {
		if next, err := s.with(doc, m); err == nil {
			next.owed = !r.cfg.VerifyOnly
			s = next
			r.state.Store(s)
		}
	}
	r.adopting.Unlock()
	if dropped {
		r.sendRevoked(held, s.doc)
		r.cfg.Logger.Info("keys: a key that was revoked elsewhere is removed from the ring")
		if !r.cfg.VerifyOnly {
			r.writing.Go()
		}
	}
	return s
}

// with returns the state with another document.
func (s *ringState) with(doc *document, m moment) (*ringState, error) {
	next := *s
	next.doc = doc
	set, err := doc.set(m)
	if err != nil {
		return nil, err
	}
	if next.set = set; set != nil && s.set.Equal(set) {
		next.set = s.set // the same pointer for the same keys
	}
	return &next, nil
}

// look is a reading that has not begun, and that its callers wait for.
type look struct {
	done chan struct{}
	err  error
}

// look waits for a reading of the store that begins after the call. There is at
// most one such reading a second.
func (r *Ring) look(ctx context.Context, atMost time.Duration) error {
	if pause, err := r.reading.Failing(); err != nil && pause > 0 {
		return cannotAsk(err)
	}
	r.looking.Lock()
	l := r.next
	if l == nil {
		l = &look{done: make(chan struct{})}
		r.next = l
		go r.runLook(l)
	}
	r.looking.Unlock()
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	select {
	case <-l.done:
		return l.err
	case <-limit.C:
		return cannotAsk(flight.ErrWaited)
	case <-ctx.Done():
		return cannotAsk(ctx.Err())
	}
}

func (r *Ring) runLook(l *look) {
	r.looking.Lock()
	last := r.looked
	r.looking.Unlock()
	if began, _ := r.outcomes.underWay(); last.IsZero() || !began.IsZero() && clock.SteadyBetween(last, began) > 0 {
		last = began
	}
	if !last.IsZero() {
		time.Sleep(r.cooldown() - r.clock.Age(last))
	}
	r.looking.Lock()
	r.next, r.looked = nil, r.clock.Read()
	r.looking.Unlock()
	if err := r.reading.After(context.Background(), maxWait); err != nil {
		l.err = cannotAsk(err)
	}
	close(l.done)
}

func cannotAsk(err error) error {
	return fmt.Errorf("keys: the store cannot be asked: %w", err)
}

// Run reads the store every SyncEvery and rotates the keys, until ctx ends; it
// then returns ctx.Err(). A failure of the store does not end it. Every replica
// runs it. Two calls at once do no harm.
func (r *Ring) Run(ctx context.Context) error {
	if r.reading == nil {
		return errZeroRing
	}
	pause := r.cooldown()
	for {
		began := r.clock.Read()
		err := r.Sync(ctx)
		// Early enough that no call waits for it, and at random, so that
		// replicas that started together do not read together.
		wait := r.cfg.SyncEvery/4*3 + rand.N(r.cfg.SyncEvery/8+1) - r.clock.Steady(began)
		if err == nil {
			pause = r.cooldown()
		} else {
			wait = min(wait, pause+rand.N(pause/4+1))
			pause = min(2*pause, r.maxPause())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// Sync reads the store once, and writes what is due, as Run does each SyncEvery:
// for a program that drives many rings from one goroutine. It returns the error
// of the reading; Status has that of the writing. It waits for as long as both
// take and ctx lasts; a ctx that ends stops neither.
func (r *Ring) Sync(ctx context.Context) error {
	if r.reading == nil {
		return errZeroRing
	}
	err := r.reading.Do(ctx, 0) // logged and kept by readingEnded
	if s := r.state.Load(); err == nil && s != nil && s.owed {
		_, _ = r.writing.Try(ctx, 0) // so does writingEnded
	}
	return err
}
