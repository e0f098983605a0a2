package keys

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// Status is the state of a ring, for health checks and for operators. Each
// error is a separate condition. All are nil if the ring works.
type Status struct {
	// Keys are the keys of the ring: first those that only verify, then the
	// others in the order in which they sign.
	Keys []KeyStatus
	// Synced is when the store was last read, by this machine's clock. Zero
	// means never: no other field then is about the store.
	Synced time.Time

	// Err is the error of the last reading, or [ErrNotRead] before the first.
	// The ring uses its keys until MaxStale.
	Err error
	// WriteErr is the error of the last write of a due change. The ring uses
	// what it has read all the same.
	WriteErr error
	// ClockErr matches [ErrClock] if this machine's clock is further than
	// MaxSkew from the store's. The ring then changes nothing.
	ClockErr error
	// UnsealErr matches [ErrUnseal] if private keys cannot be unsealed here. The
	// ring then changes nothing, and it cannot sign with those keys.
	UnsealErr error

	// ClockOffset is how far this machine's clock was ahead of the store's at the
	// last reading, 0 if the store has no clock.
	ClockOffset time.Duration
	// SealingKeys counts the sealed private keys by the id of their sealing
	// key, if the AEAD is a [SealingKeys]. Unsealed counts those in the clear.
	SealingKeys map[string]int
	Unsealed    int
}

// KeyStatus is one key of a ring. Its phase depends on the times alone.
type KeyStatus struct {
	KeyID      string    // the kid of its tokens
	Algorithm  Algorithm // empty for a key of a kind that this release cannot use
	Phase      string    // "next", "current" or "retired"
	Published  time.Time // when it was made and published
	SignsFrom  time.Time // when it becomes current
	SignsUntil time.Time // when it retires
	KeptUntil  time.Time // when it is gone

	// Private reports whether the document has the private half of the key.
	Private bool
	// SealingKey is the id of the key that the private half is sealed with, if
	// it is sealed and the AEAD is a [SealingKeys].
	SealingKey string
	// Err is the error of using the private half here. It is nil too if the
	// private half was not used yet, and with VerifyOnly.
	Err error
}

// Status returns the state of the ring. It does no I/O, and holds no secret. The times of the
// keys are by the ring's clock: the store's, if it has one.
func (r *Ring) Status() Status {
	st := Status{Err: ErrNotRead}
	if last := r.outcomes.last(); last != nil {
		st.Err = last.err
	}
	st.WriteErr = r.outcomes.writeErr()
	if o := r.offset.Load(); o != nil {
		st.ClockErr, st.ClockOffset = o.err, o.ahead
	}
	s := r.state.Load()
	if s == nil {
		return st
	}
	st.Synced = s.began.Wall()
	m := r.moment()
	for i := range s.doc.Retired {
		if k := &s.doc.Retired[i]; m.now.Before(k.KeptUntil) {
			st.Keys = append(st.Keys, r.keyStatus(s, k, "retired"))
		}
	}
	for i := range s.doc.Keys {
		k, phase := &s.doc.Keys[i], "retired"
		if m.now.Before(k.SignsFrom) {
			phase = "next"
		} else if k.signsAt(m.now) {
			phase = "current"
		}
		st.Keys = append(st.Keys, r.keyStatus(s, k, phase))
	}
	for i := range s.doc.Keys {
		k := &s.doc.Keys[i]
		if k.public == nil || len(k.Private) == 0 {
			continue
		}
		if known := s.signers[k.id]; known.err != nil && st.UnsealErr == nil {
			st.UnsealErr = known.err
		}
		if !k.Sealed {
			st.Unsealed++
		} else if id := r.sealingKey(k); id != "" {
			if st.SealingKeys == nil {
				st.SealingKeys = map[string]int{}
			}
			st.SealingKeys[id]++
		}
	}
	return st
}

func (r *Ring) keyStatus(s *ringState, k *documentKey, phase string) KeyStatus {
	st := KeyStatus{
		KeyID: k.id, Phase: phase, Private: len(k.Private) > 0, SealingKey: r.sealingKey(k), Err: s.signers[k.id].err,
		Published: k.Published, SignsFrom: k.SignsFrom, SignsUntil: k.SignsUntil, KeptUntil: k.KeptUntil,
	}
	if k.public != nil {
		st.Algorithm = k.public.alg
	}
	return st
}

func (r *Ring) sealingKey(k *documentKey) string {
	if !k.Sealed || r.sealed == nil {
		return ""
	}
	names, ok := r.sealed.aead.(SealingKeys)
	if !ok {
		return ""
	}
	return names.SealingKeyID(k.Private)
}

// outcomes holds the results of the ring's runs.
type outcomes struct {
	began, ended atomic.Uint64 // readings
	failed       atomic.Uint64
	start        atomic.Pointer[clock.Instant] // of the last reading
	reading      atomic.Pointer[outcome]
	writing      atomic.Pointer[outcome]
	writes       atomic.Uint64 // writes that failed
	unseals      atomic.Uint64 // attempts to unseal that failed
}

type outcome struct {
	err   error
	ended clock.Instant
}

func (o *outcomes) begin(at clock.Instant) {
	o.start.Store(&at)
	o.began.Add(1)
}

// underWay returns when the last reading began, and whether it is under way.
func (o *outcomes) underWay() (began clock.Instant, goesOn bool) {
	if at := o.start.Load(); at != nil {
		began = *at
	}
	return began, o.began.Load() > o.ended.Load()
}

func (o *outcomes) last() *outcome { return o.reading.Load() }

func (o *outcomes) wrote(err error) { o.writing.Store(&outcome{err: err}) }

func (o *outcomes) writeErr() error {
	if last := o.writing.Load(); last != nil {
		return last.err
	}
	return nil
}

// failing reports whether the store fails:
//
//   - the last reading failed, less than SyncEvery ago or with another one
//     under way; or
//   - the reading under way has taken longer than a call waits.
func (r *Ring) failing() bool {
	began, goesOn := r.outcomes.underWay()
	if goesOn && r.clock.Age(began) >= maxWait {
		return true
	}
	last := r.outcomes.last()
	return last != nil && last.err != nil && (goesOn || r.clock.Age(last.ended) < r.cfg.SyncEvery)
}

func (r *Ring) readingEnded(err error) {
	was := r.outcomes.reading.Swap(&outcome{err, r.clock.Read()})
	if err != nil {
		r.outcomes.failed.Add(1)
	}
	r.outcomes.ended.Add(1)
	switch {
	case err != nil:
		r.loud.Warn("ring_read", "keys: the ring's store cannot be read; the ring uses what it has read until MaxStale: check that the store answers", "error", err)
	case was != nil && was.err != nil:
		r.cfg.Logger.Info("keys: the ring's store can be read again")
	}
}

func (r *Ring) writingEnded(err error) {
	r.outcomes.wrote(err)
	if err == nil {
		return
	}
	r.outcomes.writes.Add(1)
	if !errors.Is(err, ErrClock) && !errors.Is(err, ErrUnseal) { // these two are logged elsewhere
		r.loud.Warn("ring_write", "keys: the ring's document cannot be written; no key is made or replaced: check that this replica may write to the store and that the store has room", "error", err)
	}
}

func (r *Ring) unsealingEnded(err error) {
	if err == nil {
		return
	}
	r.outcomes.unseals.Add(1)
	r.loud.Warn("ring_unseal", "keys: private keys of the ring cannot be unsealed; this replica cannot sign with them and changes nothing in the ring: give it the sealing keys of the others", "error", err)
}

// noteCurrent counts a change of the current key since the last reading, and
// logs the new one as soon as it can sign.
func (r *Ring) noteCurrent() {
	s := r.state.Load()
	i := current(s.doc, r.moment().now)
	if i < 0 {
		return
	}
	k := &s.doc.Keys[i]
	r.noting.Lock()
	if k.id != r.signing {
		if r.signing != "" {
			r.rotations.Add(1)
			r.sendEvent(event.Event{Kind: event.KeyRotated, KeyID: k.id})
		}
		r.signing = k.id
	}
	known, usable := s.signers[k.id]
	log := k.id != r.logged && k.public != nil && (r.cfg.VerifyOnly || usable && known.err == nil)
	if log {
		r.logged = k.id
	}
	r.noting.Unlock()
	if log {
		r.cfg.Logger.Info("keys: current key", "kid", k.id, "alg", string(k.public.alg), "until", k.SignsUntil)
	}
}

// sendRevoked sends the events of the keys that are revoked in a document and
// were not in the one before, unless that is the first one.
func (r *Ring) sendRevoked(before, now *document) {
	if r.events == nil || before == nil || before.Ring == "" {
		return
	}
	for _, k := range now.Revoked {
		if !before.hasRevoked(k.KeyID) {
			r.sendEvent(event.Event{Kind: event.KeyRevoked, KeyID: k.KeyID, Reason: "ring"})
		}
	}
}

// sendEvent sends an event from a goroutine of its own: a function that hangs
// must not keep the ring from being read.
func (r *Ring) sendEvent(e event.Event) {
	if r.events != nil {
		go r.events.Send(context.Background(), e)
	}
}
