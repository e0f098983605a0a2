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
)

var (
	// ErrUnknownKey is returned by [Ring.Revoke] for an id that is neither in the
	// ring nor among those that were revoked. Nothing was revoked then.
	ErrUnknownKey = errors.New("keys: no such key in the ring")
	// ErrNoRing is returned by what changes a ring if the store has none of that
	// name. Nothing was made then.
	ErrNoRing = errors.New("keys: the store has no ring of this name")
	// ErrNotRead is [Status].Err before the first reading of the store.
	ErrNotRead = errors.New("keys: the store has not been read yet")
	// ErrClock reports that this machine's clock and the store's are further apart
	// than RingConfig.MaxSkew, so that this ring changes nothing.
	ErrClock = errors.New("keys: this machine's clock disagrees with the store's")
	// ErrUnseal reports that private keys of the ring cannot be unsealed here, so
	// that this ring changes nothing.
	ErrUnseal = errors.New("keys: private keys of the ring cannot be unsealed here")
	// ErrLost reports that the store acknowledged a write that is not to be seen
	// in it.
	ErrLost = errors.New("keys: the store has acknowledged a write and does not show it")
	// ErrConflict reports that a [Store] holds another revision than the one that
	// Save was told to replace, and that nothing was written. It is the normal
	// answer to the one that loses a race: load again and work from what is there.
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

// Ring makes the keys of an issuer, publishes and rotates them, together with
// any number of replicas that share its store. It is a source of verification
// and signing keys for package sessiontoken. It is safe for concurrent use. Make
// it with [NewRing]; of the zero value every call fails.
//
// It reads the store when it is first asked for a key. Run keeps it in step
// afterwards. Without Run, it syncs when it is used: in the background when
// SyncEvery is nearly over, and before it answers when that has passed.
//
// When the store fails, a ring goes on with what it has read, for at most
// MaxStale. A store that comes back empty, or with an older or a foreign
// document, is given what any replica knows beyond it. A key that a replica
// knows as revoked stays revoked, whatever the store says.
//
// A ring takes its time from the store, if the store has a clock of its own. It
// changes nothing while the clock of its machine disagrees with that, nor while
// it cannot unseal the private keys: it goes on reading, verifying, and signing
// with what it has, and reports the reason in the log, [Ring.Status] and
// [Ring.Metrics].
type Ring struct {
	cfg    RingConfig
	plan   schedule
	sealed *sealedStore
	clock  *clock.Clock
	view   *clock.View // of the store's time
	loud   *loud.Log
	made   clock.Instant

	reading   *flight.Group // of the store
	writing   *flight.Group // of what is due
	unsealing *flight.Group // of the private keys that were read
	changing  atomic.Int32  // calls of Rotate, Revoke and Reseal that have not ended

	adopting sync.Mutex // around changes of state
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

// ringState is what the process knows. It is never changed.
type ringState struct {
	doc     *document
	set     *Set              // nil if there is nothing to publish
	signers map[string]signer // of the keys whose private half was looked at
	began   clock.Instant     // when the reading that it is from began
	owed    bool              // a write is due
	checked *atomic.Int64     // its age when Revoked was last asked for all keys
}

// signer is a private half that was unsealed, or why it could not be.
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

// RetainFor is how long a key is kept after its last signature. An issuer
// checks at construction that none of its tokens can outlive that.
func (r *Ring) RetainFor() time.Duration { return r.cfg.RetainFor }

// IdentifyFor is how long [Ring.IdentifyKey] knows a key after its last
// signature. Package sessionhttp checks at construction that no session can
// outlive that.
func (r *Ring) IdentifyFor() time.Duration { return r.cfg.IdentifyFor }

// MaxAge is the longest max-age with which the key set may be published, such
// that every verifier has a key before it signs: PublishBefore less MaxStale,
// ClientRefresh, MaxSkew and SyncEvery.
func (r *Ring) MaxAge() time.Duration {
	return r.cfg.PublishBefore - r.cfg.MaxStale - r.cfg.ClientRefresh - r.cfg.MaxSkew - r.cfg.SyncEvery
}

// NextChange is when the published set will change next by the plan, by this
// machine's clock, or the zero time if the ring has not read its store. A
// revocation can come sooner.
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

// moment is the time now by the ring's clock, without a claim that it is sure.
func (r *Ring) moment() moment {
	if now, ok := r.view.Now(); ok {
		return moment{now: now, destroy: true}
	}
	return moment{now: r.clock.Now(), destroy: r.clock.Steady(r.made) >= settled}
}

// KeySet returns the published keys: next, current and retired. It answers from
// memory, except that it reads the store
//
//   - before the first answer, and when what it has is older than MaxStale,
//   - when what it has is older than SyncEvery, unless the store is known to
//     fail,
//   - for a kid that the ring has never had, at most once a second for all of
//     them: then the answer is that of a reading that began after the call.
//
// It waits for at most 2 s. It fails if it has nothing that is younger than
// MaxStale, or if a kid is not known and the store cannot be asked in time:
// then it cannot tell whether there is such a key.
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

// Look reads the store, so that KeySet answers with what other processes have
// made and revoked. It waits for that for at most 2 s. In the pause after a
// reading that failed it returns that error at once. How often it is called is
// for the caller to limit; calls of one moment share a reading.
func (r *Ring) Look(ctx context.Context) error {
	if r.reading == nil {
		return errZeroRing
	}
	return r.reading.After(ctx, maxWait)
}

// IdentifyKey implements [Identifier]. It answers from memory for a key that the
// ring has or has had, and reads the store for any other, at most once a second
// for all of them. It waits for at most 2 s. A key of a kind that this release
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

// knows reports whether nothing that the store may say changes the answer for
// kid: it is published, has retired, or was revoked.
func (s *ringState) knows(kid string) bool {
	if s.set != nil {
		if _, ok := s.set.Key(kid); ok {
			return true
		}
	}
	return s.doc.find(kid) != nil || s.doc.hasRevoked(kid)
}

// SigningKey returns the current key. It waits for at most 2 s. It fails if the
// store has not been read for MaxStale or past the time of every key that it
// held, if the private key cannot be unsealed ([ErrUnseal]), and always with
// VerifyOnly. A key for which RingConfig.Revoked returns true is replaced first.
func (r *Ring) SigningKey(ctx context.Context) (*SigningKey, error) {
	if r.cfg.VerifyOnly {
		return nil, errors.New("keys: the ring is VerifyOnly")
	}
	s, left, err := r.fresh(ctx)
	if err != nil {
		return nil, err
	}
	// Usually the first round is the last. A key may have to be made, and then
	// unsealed; the run of either that a round joins may have begun too early to
	// see what is needed.
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

// populated is fresh, for a state that has keys to publish if any can be had.
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

// fresh returns a state that was read less than SyncEvery ago, or, while the
// store fails, less than MaxStale; and how much of maxWait is left then.
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

// orWaited is err, or that there was no answer in time.
func orWaited(err error) error {
	if err == nil {
		return flight.ErrWaited
	}
	return err
}

// checked asks RingConfig.Revoked for all published keys, now and then.
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

// withoutRevoked returns a state without the keys of which RingConfig.Revoked
// reports that they are revoked. If there are any, they are revoked in the store
// too.
func (r *Ring) withoutRevoked(s *ringState) *ringState {
	if !r.plan.dropRevoked(s.doc.clone(), r.cfg.Revoked, r.moment()) {
		return s
	}
	r.adopting.Lock()
	s = r.state.Load()
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
		r.cfg.Logger.Info("keys: a key that was revoked elsewhere is taken out of the ring")
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
		next.set = s.set // the same keys stay the same generation
	}
	return &next, nil
}

// look is one reading for all the callers that wait for it to begin.
type look struct {
	done chan struct{}
	err  error
}

// look waits for a reading of the store that begins after the call. There is at
// most one a second.
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

// Run keeps the ring in step with its store, and rotates it, until ctx ends; it
// then returns ctx.Err(). Failures of the store do not end it. Every replica
// runs it; it does no harm twice.
func (r *Ring) Run(ctx context.Context) error {
	if r.reading == nil {
		return errZeroRing
	}
	pause := r.cooldown()
	for {
		began := r.clock.Read()
		err := r.Sync(ctx)
		// Early enough that no call has to wait for it, and at random, so that
		// replicas started together spread out.
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
