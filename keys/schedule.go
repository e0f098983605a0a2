package keys

import (
	"crypto/rand"
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
	identifyFor   time.Duration
	// unseen is how long a replica may act on a document that was replaced:
	// MaxStale, and the time that a slow write may take.
	unseen  time.Duration
	maxSkew time.Duration
	newKey  func() (documentKey, error)
}

// moment is the time at which a document is looked at, and what it permits.
type moment struct {
	now     time.Time
	destroy bool // what is over by this clock may be destroyed
	sure    bool // the clock is the store's, and this machine's agrees with it
}

// keepUntil is when a key whose last signature is at t, by any replica's
// clock, may go: its last token lives for retainFor, and the clock that counts
// that may be ahead of the one that signed, as may the one that deletes.
func (s *schedule) keepUntil(t time.Time) time.Time { return t.Add(s.retainFor + 2*s.maxSkew) }

// identifyUntil is when the public half of a key may be forgotten.
func (s *schedule) identifyUntil(k *documentKey) time.Time {
	return later(k.KeptUntil, k.SignsUntil.Add(s.identifyFor+2*s.maxSkew))
}

// revokedUntil is when a revocation of k may be forgotten: no replica can have
// a document any more in which the key is still kept.
func (s *schedule) revokedUntil(k *documentKey, now time.Time) time.Time {
	longest := 2 * (s.rotateEvery + s.publishBefore + s.retainFor + s.unseen)
	return later(s.identifyUntil(k), now.Add(longest+s.identifyFor))
}

func (s *schedule) setWindow(k *documentKey, from, until time.Time) {
	k.SignsFrom, k.SignsUntil = from, until
	k.KeptUntil = later(k.KeptUntil, s.keepUntil(until))
}

// timesFor is how long a document remembers the times of a replica's
// configuration beyond the time that the replica may go on without writing.
const timesFor = 48 * time.Hour

// note records this configuration's times in the document, and reports whether
// that changed it.
func (s *schedule) note(d *document, now time.Time) bool {
	own := configTimes{
		PublishBefore: int64(s.publishBefore), RetainFor: int64(s.retainFor), IdentifyFor: int64(s.identifyFor),
		Unseen: int64(s.unseen), MaxSkew: int64(s.maxSkew),
	}
	i := slices.IndexFunc(d.Times, own.same)
	if i >= 0 && now.Add(s.unseen+timesFor/2).Before(d.Times[i].Until) {
		return false
	}
	own.Until = now.Add(s.unseen + timesFor)
	if i >= 0 {
		own.Unknown = d.Times[i].Unknown
		d.Times[i] = own
	} else {
		d.Times = append(d.Times, own)
	}
	return true
}

// longest returns the schedule with the longest times of all replicas that may
// act on the document.
func (s *schedule) longest(d *document, now time.Time) *schedule {
	l := *s
	for _, t := range d.Times {
		if !now.Before(t.Until) {
			continue
		}
		for _, v := range []struct {
			mine  *time.Duration
			other int64
		}{
			{&l.publishBefore, t.PublishBefore}, {&l.retainFor, t.RetainFor}, {&l.identifyFor, t.IdentifyFor},
			{&l.unseen, t.Unseen}, {&l.maxSkew, t.MaxSkew},
		} {
			*v.mine = max(*v.mine, min(time.Duration(v.other), maxDuration))
		}
	}
	// A replica that has just read may sign for MaxStale without reading again.
	l.rotateEvery = max(l.rotateEvery, l.publishBefore)
	return &l
}

// tend brings a document up to now and reports whether that changed it.
func (s *schedule) tend(d *document, m moment) (changed bool, err error) {
	if d.Ring == "" {
		d.Ring, d.Made = rand.Text(), m.now
	}
	changed = s.note(d, m.now)
	s = s.longest(d, m.now)
	cur := current(d, m.now)
	if cur < 0 && s.mayRevive(d, m) {
		if cur, err = s.revive(d, m.now); err != nil {
			return false, err
		}
		d.bereft, changed = false, true
	}
	s.republish(d, m.now)
	if cur >= 0 && cur == len(d.Keys)-1 {
		if err := s.addNext(d, m.now); err != nil {
			return false, err
		}
		changed = true
	}
	if n := len(d.Keys); n > 0 { // made by a replica with shorter times
		last := &d.Keys[n-1]
		if until := last.SignsFrom.Add(s.publishBefore); m.now.Before(last.SignsUntil) && last.SignsUntil.Before(until) {
			s.setWindow(last, last.SignsFrom, until)
			changed = true
		}
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		if k.public == nil { // it is for the release that made it
			continue
		}
		// A replica whose clock is behind may still be signing for maxSkew.
		if m.destroy && len(k.Private) > 0 && !m.now.Before(k.SignsUntil.Add(s.maxSkew)) {
			k.Private, k.Sealed, changed = nil, false, true
		}
		if want := s.keepUntil(k.SignsUntil); k.KeptUntil.Before(want) { // RetainFor was raised
			k.KeptUntil, changed = want, true
		}
	}
	return m.destroy && s.forget(d, m.now) || changed, nil
}

// forget removes what is over, and reports whether there was anything. A key is
// kept unpublished for as long as it may have to be identified.
func (s *schedule) forget(d *document, now time.Time) bool {
	before := len(d.Keys) + len(d.Revoked) + len(d.Times)
	d.Keys = slices.DeleteFunc(d.Keys, func(k documentKey) bool {
		if now.Before(k.KeptUntil) {
			return false
		}
		if now.Before(s.identifyUntil(&k)) && len(d.Retired) < maxRetired {
			d.Retired = append(d.Retired, k.retired())
		}
		return true
	})
	d.Revoked = slices.DeleteFunc(d.Revoked, func(r revokedKey) bool { return !now.Before(r.Until) })
	d.Times = slices.DeleteFunc(d.Times, func(t configTimes) bool { return !now.Before(t.Until) })
	retired := len(d.Retired)
	d.Retired = slices.DeleteFunc(d.Retired, func(k documentKey) bool { return !now.Before(s.identifyUntil(&k)) })
	return len(d.Keys)+len(d.Revoked)+len(d.Times) != before || len(d.Retired) != retired
}

// current is the index of the key whose window now is in, or -1.
func current(d *document, now time.Time) int {
	return slices.IndexFunc(d.Keys, func(k documentKey) bool {
		return k.signsAt(now) && (len(k.Private) > 0 || k.public == nil)
	})
}

// mayRevive reports whether a document without a current key should get one:
//
//   - at the first start,
//   - when the ring was neglected for so long that its last key's time is over,
//   - when the key whose time it is has lost its private half or was revoked,
//   - when all windows are in the future, but only by a clock that is surely
//     right: otherwise it is this clock that is wrong, and nothing is done.
func (s *schedule) mayRevive(d *document, m moment) bool {
	return m.sure || d.bereft || len(d.Keys) == 0 || !m.now.Before(d.Keys[0].SignsFrom)
}

// revive makes a key current. The last one, which every replica knows, signs
// until its successor has been published for long enough. If it cannot, a new
// key signs at once: no verifier can know it yet, but no replica could sign
// otherwise.
func (s *schedule) revive(d *document, now time.Time) (int, error) {
	if n := len(d.Keys); n > 0 {
		last := &d.Keys[n-1]
		if last.public != nil && len(last.Private) > 0 && !now.Before(last.SignsUntil) && now.Before(last.KeptUntil) {
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

// republish puts off the keys that are written back after the store had lost
// them, so that each is published for long enough again before it signs. The
// one before signs for longer. Nothing changes that is not written back anyway.
func (s *schedule) republish(d *document, now time.Time) {
	for i := 1; i < len(d.Keys); i++ {
		k := &d.Keys[i]
		if !k.again || !now.Before(k.SignsFrom) {
			continue
		}
		k.again, k.Published = false, now
		at := now.Add(s.publishBefore)
		if !k.SignsFrom.Before(at) {
			continue
		}
		s.setWindow(&d.Keys[i-1], d.Keys[i-1].SignsFrom, at)
		for j := i; j < len(d.Keys) && d.Keys[j].SignsFrom.Before(at); j++ {
			s.setWindow(&d.Keys[j], at, later(d.Keys[j].SignsUntil, at.Add(s.rotateEvery)))
			at = d.Keys[j].SignsUntil
		}
	}
}

// rotate ends the current key's time as soon as the next has been published for
// long enough, and returns when that is.
func (s *schedule) rotate(d *document, m moment) (time.Time, error) {
	s = s.longest(d, m.now)
	if len(d.Keys) >= maxKeys {
		return time.Time{}, fmt.Errorf("the ring holds %d keys already", len(d.Keys))
	}
	cur := current(d, m.now)
	if cur < 0 { // tend found every window in the future
		_, err := s.addEmergency(d, m.now)
		return m.now, err
	}
	next := &d.Keys[cur+1] // tend has added one
	at := later(m.now, next.Published.Add(s.publishBefore))
	k := &d.Keys[cur]
	if !at.Before(k.SignsUntil) {
		return k.SignsUntil, nil
	}
	// A replica that does not learn of this goes on with the old plan, but only
	// for as long as it may go unsynced.
	kept := k.KeptUntil
	k.SignsUntil = at
	k.KeptUntil = later(s.keepUntil(at), earlier(kept, s.keepUntil(m.now.Add(s.unseen))))
	for i := cur + 1; i < len(d.Keys); i++ {
		s.setWindow(&d.Keys[i], at, at.Add(s.rotateEvery))
		at = d.Keys[i].SignsUntil
	}
	return k.SignsUntil, nil
}

// revoke removes keys at once. If the current one is among them, a key that is
// new to all takes its place: verifiers elsewhere look for a new key set when
// they meet an id that they do not know. It returns an id that the document
// does not know, if there is one, and then has changed nothing.
func (s *schedule) revoke(d *document, m moment, kids []string) (unknown string, err error) {
	for _, kid := range kids {
		if d.find(kid) == nil && !d.hasRevoked(kid) {
			return kid, nil
		}
	}
	s = s.longest(d, m.now)
	signing := current(d, m.now) >= 0
	for _, kid := range kids {
		s.drop(d, m.now, kid)
	}
	if signing && current(d, m.now) < 0 {
		if _, err := s.addEmergency(d, m.now); err != nil {
			return "", err
		}
	}
	// If the key before the current one is gone, a clock that is behind would
	// find none: the current one's window begins earlier.
	if i := current(d, m.now); i >= 0 {
		from := m.now.Add(-s.maxSkew)
		if i > 0 {
			from = later(from, d.Keys[i-1].SignsUntil)
		}
		d.Keys[i].SignsFrom = earlier(d.Keys[i].SignsFrom, from)
	}
	_, err = s.tend(d, m)
	return "", err
}

// drop removes a key and remembers that it was revoked. It reports whether the
// document had it.
func (s *schedule) drop(d *document, now time.Time, kid string) bool {
	k := d.find(kid)
	if k == nil {
		return false
	}
	if !d.hasRevoked(kid) {
		d.Revoked = append(d.Revoked, revokedKey{KeyID: kid, Until: s.revokedUntil(k, now)})
	}
	if k.signsAt(now) {
		d.bereft = true
	}
	same := func(k documentKey) bool { return k.id == kid }
	d.Keys = slices.DeleteFunc(d.Keys, same)
	d.Retired = slices.DeleteFunc(d.Retired, same)
	return true
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
