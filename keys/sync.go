package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

const (
	// maxRaces is how many compare-and-swaps an update may lose before it
	// fails.
	maxRaces = 64
	// maxLost is how many acknowledged writes of an update the store may lose
	// before it fails.
	maxLost = 3
	// maxChanging is how many calls of Rotate, Revoke and Reseal may be under
	// way at once.
	maxChanging = 16
)

// reading is what one Load returned.
type reading struct {
	doc    *document
	rev    string
	began  clock.Instant
	moment moment
	clock  error // ErrClock, if the two clocks disagree
}

// clockOffset is the difference of the two clocks at a reading.
type clockOffset struct {
	ahead time.Duration // this machine's, of the store's
	err   error
}

// sharedStore is a Store whose readings several rings share.
type sharedStore interface {
	// LoadAfter is Load from a reading that may have begun before the call, but
	// not before after. asked is its begin and got its end.
	LoadAfter(ctx context.Context, name string, after clock.Instant) (s Stored, asked, got clock.Instant, err error)
}

// load reads the store.
func (r *Ring) load(ctx context.Context) (s Stored, asked, got clock.Instant, err error) {
	asked = r.clock.Read()
	s, err = r.cfg.Store.Load(ctx, r.cfg.Name)
	return s, asked, r.clock.Read(), err
}

// loadAfter is load, or shares a reading that did not begin before after.
func (r *Ring) loadAfter(ctx context.Context, after clock.Instant) (s Stored, asked, got clock.Instant, err error) {
	if r.sealed != nil {
		if shared, ok := r.sealed.Store.(sharedStore); ok {
			return shared.LoadAfter(ctx, r.cfg.Name, after)
		}
	}
	return r.load(ctx)
}

// decodeReading makes a reading of what load returned.
func (r *Ring) decodeReading(stored Stored, asked, got clock.Instant, err error) (*reading, error) {
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	doc, err := r.decode(stored.Doc)
	if err != nil {
		return nil, err
	}
	rd := &reading{doc: doc, rev: stored.Rev, began: asked}
	if !stored.Time.IsZero() {
		rd.clock = r.compareClocks(stored.Time, asked, got)
	}
	rd.moment = r.moment()
	rd.moment.sure = !stored.Time.IsZero() && rd.clock == nil
	return rd, nil
}

// decoded is what was decoded last.
type decoded struct {
	raw []byte
	doc *document
}

// decode is decodeDocument, which it does not call for the same bytes as last
// time.
func (r *Ring) decode(raw []byte) (*document, error) {
	if last := r.decoded.Load(); last != nil && bytes.Equal(last.raw, raw) {
		return last.doc, nil
	}
	doc, err := decodeDocument(raw)
	if err == nil && raw != nil {
		r.decoded.Store(&decoded{raw, doc})
	}
	return doc, err
}

// compareClocks compares the store's time with this machine's, and with the
// ring's estimate of it.
func (r *Ring) compareClocks(t time.Time, asked, got clock.Instant) error {
	r.view.Tell(t, asked, got)
	now, _ := r.view.Now()
	ahead, trip := clock.Between(t, got.Wall()), clock.SteadyBetween(asked, got)
	o := &clockOffset{ahead: ahead}
	if max(ahead, -ahead)+trip > r.cfg.MaxSkew || clock.Between(t, now) > r.cfg.MaxSkew {
		o.err = fmt.Errorf("%w by %v, with a reading that took %v; MaxSkew is %v", ErrClock, ahead.Round(time.Millisecond), trip.Round(time.Millisecond), r.cfg.MaxSkew)
		r.loud.Warn("ring_clock", "keys: this machine's clock disagrees with the store's; this replica changes no key: set the clock (NTP) that is wrong",
			"ahead", ahead.Round(time.Millisecond), "max_skew", r.cfg.MaxSkew)
	}
	r.offset.Store(o)
	return o.err
}

// readOnce is one run of reading.
func (r *Ring) readOnce(ctx context.Context, run *flight.Run) error {
	r.outcomes.begin(r.clock.Read())
	rd, err := r.decodeReading(r.loadAfter(ctx, run.Wanted()))
	if err != nil {
		return err
	}
	if err := r.adopt(rd, run); err != nil {
		return err
	}
	s := r.state.Load()
	if s.doc.Ring == "" && r.cfg.VerifyOnly {
		return ErrNoRing
	}
	if s.owed {
		r.writing.Go()
	} else {
		r.outcomes.wrote(nil)
	}
	if r.toUnseal(s) {
		r.unsealing.Go()
	}
	return nil
}

// adopt merges a reading with the state of the process, which it replaces. It
// drops a reading that is older than the state.
func (r *Ring) adopt(rd *reading, run *flight.Run) (err error) {
	var out merged
	kept := run.Commit(func() { out, err = r.join(rd) })
	if !kept {
		return flight.ErrLate
	}
	if err != nil {
		return err
	}
	if out.older {
		r.loud.Warn("ring_older", "keys: the store holds no document, an older one or that of another ring; this replica uses the keys that it has, and writes them back if it may: check whether the store was restored, emptied or replaced")
	}
	r.noteCurrent()
	return nil
}

func (r *Ring) join(rd *reading) (out merged, err error) {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	held := r.state.Load()
	if held == nil {
		held = &ringState{}
	} else if clock.SteadyBetween(rd.began, held.began) > 0 {
		return merged{}, nil
	}
	out = merge(rd.doc, held.doc, r.cfg.Revoked, rd.moment, &r.plan)
	next, err := held.with(out.doc, rd.moment)
	if err != nil {
		return merged{}, err
	}
	next.began, next.checked = rd.began, new(atomic.Int64)
	next.signers = make(map[string]signer)
	for i := range out.doc.Keys {
		k := &out.doc.Keys[i]
		if s, ok := held.signers[k.id]; ok && len(k.Private) > 0 {
			next.signers[k.id] = s
		}
	}
	next.owed = !r.cfg.VerifyOnly && (out.owed || r.isDue(out.doc, rd.moment))
	r.state.Store(next)
	r.sendRevoked(held.doc, out.doc)
	return out, nil
}

// isDue reports whether the schedule requires a change of a document.
func (r *Ring) isDue(d *document, m moment) bool {
	dry := r.plan
	dry.newKey = func() (documentKey, error) { return documentKey{Private: []byte{0}, public: &PublicKey{}}, nil }
	changed, err := dry.advance(d.clone(), m)
	return changed || err != nil
}

// change is a change of a document by Rotate, Revoke or Reseal.
type change struct {
	// apply changes the document, and reports false if there is nothing to do.
	apply func(d *document, m moment) (bool, error)
	// done reports whether a document that was read has the change.
	done func(d *document) bool
}

// update reads the store, makes the due changes and c, if it is not nil, and
// writes the document if anything changed. If another replica's write was
// first, it starts again with that document. It returns nil only after it has
// read what it wrote: the process uses only what was read.
func (r *Ring) update(ctx context.Context, run *flight.Run, c *change) error {
	saved := 0
	for range maxRaces {
		rd, err := r.decodeReading(r.load(ctx))
		if err != nil {
			return err
		}
		if err := r.adopt(rd, run); err != nil {
			return err
		}
		if c != nil && saved > 0 && c.done(rd.doc) {
			c = nil // only due changes are left
		}
		doc, due, err := r.prepare(rd, c)
		if err != nil {
			return err
		}
		if !due {
			if r.toUnseal(r.state.Load()) {
				r.unsealing.Go()
			}
			return nil
		}
		if saved > maxLost {
			return ErrLost
		}
		if err := r.seal(doc); err != nil {
			return err
		}
		doc.Serial++
		out, err := doc.encode()
		if err != nil {
			return err
		}
		if _, err := r.cfg.Store.Save(ctx, r.cfg.Name, out, rd.rev); err == nil {
			saved++
		} else if !errors.Is(err, ErrConflict) {
			return fmt.Errorf("save: %w", err)
		}
	}
	return fmt.Errorf("lost %d races for the stored document", maxRaces)
}

// prepare returns the document to write, and whether it must be written.
func (r *Ring) prepare(rd *reading, c *change) (doc *document, due bool, err error) {
	s := r.state.Load()
	doc = s.doc.clone()
	if c != nil && doc.Ring == "" {
		return nil, false, ErrNoRing
	}
	if c == nil && !s.owed && !r.isDue(doc, rd.moment) {
		return nil, false, nil
	}
	// If the change was already made, neither a clock nor a secret is needed.
	if c != nil && c.done != nil && !s.owed && c.done(rd.doc) {
		return nil, false, nil
	}
	if rd.clock != nil {
		return nil, false, rd.clock
	}
	if err := r.unseal(nil); err != nil {
		return nil, false, err
	}
	if due, err = r.plan.advance(doc, rd.moment); err != nil {
		return nil, false, err
	}
	due = due || s.owed
	if c != nil {
		changed, err := c.apply(doc, rd.moment)
		if err != nil {
			return nil, false, err
		}
		if changed {
			due = true
			if _, err := r.plan.advance(doc, rd.moment); err != nil {
				return nil, false, err
			}
		}
	}
	return doc, due, nil
}

// seal seals the unsealed private keys, if the ring's store is Sealed.
func (r *Ring) seal(d *document) error {
	if r.sealed == nil {
		return nil
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		if k.public == nil || k.Sealed || len(k.Private) == 0 {
			continue
		}
		sealed, err := r.sealed.seal(r.cfg.Name, k.id, k.public.alg, k.Private)
		if err != nil {
			return err
		}
		k.Private, k.Sealed = sealed, true
	}
	return nil
}

// toUnseal reports whether there is a private half that was not unsealed yet.
func (r *Ring) toUnseal(s *ringState) bool {
	if r.cfg.VerifyOnly {
		return false
	}
	return slices.ContainsFunc(s.doc.Keys, func(k documentKey) bool { return s.isLocked(&k) })
}

func (s *ringState) isLocked(k *documentKey) bool {
	if len(k.Private) == 0 || k.public == nil {
		return false
	}
	known, ok := s.signers[k.id]
	return !ok || known.err != nil
}

// unsealOnce is one run of unsealing.
func (r *Ring) unsealOnce(_ context.Context, run *flight.Run) error { return r.unseal(run) }

// unseal unseals the private halves that were not unsealed yet, the current one
// first. It returns an error that matches ErrUnseal if one cannot be used.
func (r *Ring) unseal(run *flight.Run) error {
	s, now := r.state.Load(), r.moment().now
	var locked []*documentKey
	for i := range s.doc.Keys {
		if k := &s.doc.Keys[i]; s.isLocked(k) {
			locked = append(locked, k)
		}
	}
	slices.SortStableFunc(locked, func(a, b *documentKey) int {
		switch {
		case a.signsAt(now):
			return -1
		case b.signsAt(now):
			return 1
		}
		return 0
	})
	failed := 0
	for _, k := range locked {
		key, err := k.signingKey(r.cfg.Name, r.sealed)
		if err != nil {
			failed++
			err = fmt.Errorf("%w: %w", ErrUnseal, err)
		}
		if run == nil {
			r.addSigner(k.id, signer{key, err})
		} else if !run.Commit(func() { r.addSigner(k.id, signer{key, err}) }) {
			return flight.ErrLate
		}
	}
	r.noteCurrent()
	if failed > 0 {
		return fmt.Errorf("%w: %d of %d", ErrUnseal, failed, len(s.doc.Keys))
	}
	return nil
}

func (r *Ring) addSigner(kid string, k signer) {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	next := *r.state.Load()
	signers := make(map[string]signer, len(next.signers)+1)
	for id, s := range next.signers {
		signers[id] = s
	}
	if known, ok := signers[kid]; ok && known.err == nil {
		return
	}
	signers[kid] = k
	next.signers = signers
	r.state.Store(&next)
}

// Rotate makes the next key current as soon as every verifier has it, and
// returns when that is, by the ring's clock. That is at once if the key has
// been published for PublishBefore, which it has unless the last rotation was
// more recent. Tokens of the replaced key stay valid. Other replicas follow
// within SyncEvery.
//
// The next key keeps its algorithm. After a change of RingConfig.Algorithm,
// call Rotate, and call it again at the time that it returned. The second call
// returns when a key of the new algorithm signs, PublishBefore later.
//
// Rotate waits for at most 5 s. The end of ctx does not undo the change. After
// an error other than [ErrNoRing], [ErrClock] and [ErrUnseal] the change may
// have taken effect; repeating the call is safe.
func (r *Ring) Rotate(ctx context.Context) (at time.Time, err error) {
	var kid string
	var until time.Time
	err = r.change(ctx, &change{
		apply: func(d *document, m moment) (bool, error) {
			if i := current(d, m.now); i >= 0 {
				kid = d.Keys[i].id
			}
			var err error
			until, err = r.plan.rotate(d, m)
			return err == nil, err
		},
		done: func(d *document) bool {
			k := d.find(kid)
			return !until.IsZero() && (k == nil || !k.SignsUntil.After(until))
		},
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("keys: rotate: %w", err)
	}
	return until, nil
}

// Revoke removes keys at once: their tokens stop verifying on this replica when
// it returns, on every other within SyncEvery, and on verifiers that fetch the
// JWKS when they fetch it next. If the current key is among them, a new key
// becomes current at once. It was not published before, so that verifiers fetch
// the set again. If an attacker could read one private key in the store, revoke
// all keys, by the ids that [Ring.Status] lists.
//
// Revoke reads the store first, and returns nil only after it has read its
// change back. These are errors, after which nothing was revoked: an unknown id
// ([ErrUnknownKey]), a store without such a ring ([ErrNoRing]), no id,
// [ErrClock] and [ErrUnseal]. After any other error the change may have taken
// effect; repeating the call is safe. Revoke waits for at most 5 s. The end of
// ctx does not undo the change.
func (r *Ring) Revoke(ctx context.Context, kids ...string) error {
	if len(kids) == 0 {
		return errors.New("keys: revoke: no key is named")
	}
	kids = slices.Clone(kids)
	err := r.change(ctx, &change{
		apply: func(d *document, m moment) (bool, error) {
			unknown, err := r.plan.revoke(d, m, kids)
			if unknown != "" {
				return false, fmt.Errorf("%w: %q", ErrUnknownKey, unknown)
			}
			return err == nil, err
		},
		done: func(d *document) bool {
			return !slices.ContainsFunc(kids, func(kid string) bool { return !d.hasRevoked(kid) || d.find(kid) != nil })
		},
	})
	if err != nil {
		return fmt.Errorf("keys: revoke: %w", err)
	}
	return nil
}

// Reseal seals every private key of the ring again, with the key with which the
// ring's AEAD now encrypts, so that older sealing keys can be removed. If the
// AEAD is a [SealingKeys], private keys that are sealed with that key already
// are not changed. The limits and errors are those of [Ring.Revoke].
func (r *Ring) Reseal(ctx context.Context) error {
	written := map[string][]byte{}
	err := r.change(ctx, &change{
		apply: func(d *document, _ moment) (bool, error) {
			if r.sealed == nil {
				return false, errors.New("the ring's store is not Sealed")
			}
			return r.reseal(d, written)
		},
		done: func(d *document) bool {
			for kid, sealed := range written {
				if k := d.find(kid); k != nil && len(k.Private) > 0 && !bytes.Equal(k.Private, sealed) {
					return false
				}
			}
			return len(written) > 0
		},
	})
	if err != nil {
		return fmt.Errorf("keys: reseal: %w", err)
	}
	return nil
}

func (r *Ring) reseal(d *document, written map[string][]byte) (changed bool, err error) {
	clear(written)
	names, _ := r.sealed.aead.(SealingKeys)
	for i := range d.Keys {
		k := &d.Keys[i]
		if k.public == nil || len(k.Private) == 0 || k.Sealed && names != nil && names.SealingKeyID(k.Private) == names.CurrentSealingKeyID() {
			continue
		}
		secret, err := k.secret(r.cfg.Name, r.sealed)
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrUnseal, err)
		}
		if k.Private, err = r.sealed.seal(r.cfg.Name, k.id, k.public.alg, secret); err != nil {
			return false, err
		}
		k.Sealed, written[k.id] = true, k.Private
	}
	return len(written) > 0, nil
}

// change runs an update with a change, under a limit of its own.
func (r *Ring) change(ctx context.Context, c *change) error {
	if r.reading == nil {
		return errZeroRing
	}
	if r.cfg.VerifyOnly {
		return errors.New("the ring is VerifyOnly")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.changing.Add(1) > maxChanging {
		r.changing.Add(-1)
		return flight.ErrStuck
	}
	once := flight.New(flight.Config{Limit: changeTime}, func(ctx context.Context, run *flight.Run) error {
		defer r.changing.Add(-1)
		return r.update(ctx, run, c)
	})
	return once.Do(ctx, changeTime)
}
