package keys

import (
	"fmt"
	"slices"
	"time"
)

// maxKeys is how many keys a ring holds before it refuses to rotate by hand;
// well under what a key set may hold.
const maxKeys = 50

// schedule is the whole of a ring's policy: pure functions of a document and
// the time. Each change keeps what replicas that have not seen it rely on.
type schedule struct {
	rotateEvery   time.Duration
	publishBefore time.Duration
	retainFor     time.Duration
	// unseen is how long a replica may act on a document that was replaced:
	// MaxStale, and the time that a slow write may take.
	unseen  time.Duration
	maxSkew time.Duration
	newKey  func() (documentKey, error)
}

// keepUntil is when a key whose last signature is at t, by any replica's
// clock, may go: its last token lives for retainFor, and the clock that counts
// that may be ahead of the one that signed, as may the one that deletes.
func (s *schedule) keepUntil(t time.Time) time.Time { return t.Add(s.retainFor + 2*s.maxSkew) }

func (s *schedule) setWindow(k *documentKey, from, until time.Time) {
	k.SignsFrom, k.SignsUntil = from, until
	k.KeptUntil = later(k.KeptUntil, s.keepUntil(until))
}

// tend brings a document up to now and says whether that changed it.
func (s *schedule) tend(d *document, now time.Time) (changed bool, err error) {
	cur := current(d, now)
	if cur < 0 && s.mayRevive(d, now) {
		if cur, err = s.revive(d, now); err != nil {
			return false, err
		}
		changed = true
	}
	if cur >= 0 && cur == len(d.Keys)-1 {
		if err := s.addNext(d, now); err != nil {
			return false, err
		}
		changed = true
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		// Whoever's clock is behind may still be signing for maxSkew.
		if len(k.Private) > 0 && !now.Before(k.SignsUntil.Add(s.maxSkew)) {
			k.Private, k.Sealed, changed = nil, false, true
		}
		if want := s.keepUntil(k.SignsUntil); k.KeptUntil.Before(want) { // RetainFor was raised
			k.KeptUntil, changed = want, true
		}
	}
	before := len(d.Keys) + len(d.Revoked)
	d.Keys = slices.DeleteFunc(d.Keys, func(k documentKey) bool { return !now.Before(k.KeptUntil) })
	d.Revoked = slices.DeleteFunc(d.Revoked, func(r revokedKey) bool { return !now.Before(r.Until) })
	return changed || len(d.Keys)+len(d.Revoked) != before, nil
}

// current is the index of the key whose window now is in, or -1.
func current(d *document, now time.Time) int {
	return slices.IndexFunc(d.Keys, func(k documentKey) bool { return k.signsAt(now) && len(k.Private) > 0 })
}

// mayRevive says whether a document without a current key should get one: at
// the first start, when nobody looked after the ring for so long that its last
// key's time is over, and when the key whose time it is has lost its private
// half to a clock that was far ahead. If all windows are in the future, it is
// this clock that is wrong, and nothing is done.
func (s *schedule) mayRevive(d *document, now time.Time) bool {
	return len(d.Keys) == 0 || !now.Before(d.Keys[0].SignsFrom)
}

// revive makes a key current. The last one, which everybody knows, signs until
// its successor has been published for long enough. If it cannot, a new key
// signs at once: nobody can know it yet, but nobody could sign otherwise.
func (s *schedule) revive(d *document, now time.Time) (int, error) {
	if n := len(d.Keys); n > 0 {
		last := &d.Keys[n-1]
		if len(last.Private) > 0 && !now.Before(last.SignsUntil) && now.Before(last.KeptUntil) {
			s.setWindow(last, last.SignsFrom, now.Add(s.publishBefore))
			return n - 1, nil
		}
	}
	return s.addEmergency(d, now)
}

// addEmergency adds a key that signs at once, until the next one does, and
// returns its index. Its window begins in the past, for replicas whose clocks
// are behind.
func (s *schedule) addEmergency(d *document, now time.Time) (int, error) {
	k, err := s.newKey()
	if err != nil {
		return -1, err
	}
	from, until, i := now.Add(-s.maxSkew), now.Add(s.rotateEvery), 0
	for i < len(d.Keys) && !now.Before(d.Keys[i].SignsFrom) {
		if d.Keys[i].signsAt(now) { // without its private half: it signs no more
			d.Keys[i].SignsUntil = later(now, d.Keys[i].SignsFrom.Add(1))
		}
		from = later(from, d.Keys[i].SignsUntil)
		i++
	}
	if i < len(d.Keys) {
		until = d.Keys[i].SignsFrom
	}
	k.Published = now
	s.setWindow(&k, from, until)
	d.Keys = slices.Insert(d.Keys, i, k)
	return i, nil
}

// addNext adds the key after the last one. If that would end before the new
// one has been published for long enough, it signs for longer.
func (s *schedule) addNext(d *document, now time.Time) error {
	k, err := s.newKey()
	if err != nil {
		return err
	}
	last := &d.Keys[len(d.Keys)-1]
	k.Published = now
	from := later(last.SignsUntil, now.Add(s.publishBefore))
	s.setWindow(last, last.SignsFrom, from)
	s.setWindow(&k, from, from.Add(s.rotateEvery))
	d.Keys = append(d.Keys, k)
	return nil
}

// rotate ends the current key's time as soon as the next has been published for
// long enough, and returns when that is.
func (s *schedule) rotate(d *document, now time.Time) (time.Time, error) {
	if len(d.Keys) >= maxKeys {
		return time.Time{}, fmt.Errorf("the ring holds %d keys already", len(d.Keys))
	}
	cur := current(d, now)
	if cur < 0 { // tend found every window in the future
		_, err := s.addEmergency(d, now)
		return now, err
	}
	next := &d.Keys[cur+1] // tend has added one
	at := later(now, next.Published.Add(s.publishBefore))
	k := &d.Keys[cur]
	if !at.Before(k.SignsUntil) {
		return k.SignsUntil, nil
	}
	// A replica that does not learn of this goes on with the old plan, but only
	// for as long as it may go unsynced.
	kept := k.KeptUntil
	k.SignsUntil = at
	k.KeptUntil = later(s.keepUntil(at), earlier(kept, s.keepUntil(now.Add(s.unseen))))
	for i := cur + 1; i < len(d.Keys); i++ {
		s.setWindow(&d.Keys[i], at, at.Add(s.rotateEvery))
		at = d.Keys[i].SignsUntil
	}
	return k.SignsUntil, nil
}

// revoke removes keys at once. If the current one is among them, a key that is
// new to everyone takes its place: verifiers elsewhere look for a new key set
// when they meet an id that they do not know. It returns an id that the
// document does not know, if there is one, and then has changed nothing.
func (s *schedule) revoke(d *document, now time.Time, kids []string) (unknown string, err error) {
	for _, kid := range kids {
		if !slices.ContainsFunc(d.Keys, func(k documentKey) bool { return k.public.id == kid }) &&
			!slices.ContainsFunc(d.Revoked, func(r revokedKey) bool { return r.KeyID == kid }) {
			return kid, nil
		}
	}
	signing := current(d, now) >= 0
	d.Keys = slices.DeleteFunc(d.Keys, func(k documentKey) bool {
		if !slices.Contains(kids, k.public.id) {
			return false
		}
		d.Revoked = append(d.Revoked, revokedKey{KeyID: k.public.id, Until: k.KeptUntil})
		return true
	})
	if signing && current(d, now) < 0 {
		if _, err := s.addEmergency(d, now); err != nil {
			return "", err
		}
	}
	// If the key before the current one is gone, a clock that is behind would
	// find none: the current one's window begins earlier.
	if i := current(d, now); i >= 0 {
		from := now.Add(-s.maxSkew)
		if i > 0 {
			from = later(from, d.Keys[i-1].SignsUntil)
		}
		d.Keys[i].SignsFrom = earlier(d.Keys[i].SignsFrom, from)
	}
	_, err = s.tend(d, now)
	return "", err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
