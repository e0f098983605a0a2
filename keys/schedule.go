package keys

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"
)

// maxKeys is how many keys a ring holds before Rotate fails. A key set can hold
// many more.
const maxKeys = 50

// schedule is the policy of a ring: pure functions of a document and the time.
// Each change is safe for replicas that have not seen it yet.
type schedule struct {
	rotateEvery   time.Duration
	publishBefore time.Duration
	retainFor     time.Duration
	identifyFor   time.Duration
	// unseen is how long a replica may use a document that was replaced:
	// MaxStale and the time of a slow write.
	unseen  time.Duration
	maxSkew time.Duration
	newKey  func() (documentKey, error)
}

// moment is the time of a change of a document, and what that change may do.
type moment struct {
	now     time.Time
	destroy bool // keys that have expired by this clock may be destroyed
	sure    bool // the clock is the store's, and this machine's agrees with it
}

// keepUntil returns the KeptUntil of a key whose last signature is at t, by any
// replica's clock: retainFor after it, and the skew of two other clocks, that
// of the replica that counts and that of the one that deletes.
func (s *schedule) keepUntil(t time.Time) time.Time { return t.Add(s.retainFor + 2*s.maxSkew) }

// identifyUntil returns when the public half of a key may be deleted.
func (s *schedule) identifyUntil(k *documentKey) time.Time {
	return later(k.KeptUntil, k.SignsUntil.Add(s.identifyFor+2*s.maxSkew))
}

// revokedUntil returns when the revocation of k may be deleted: after that no
// replica has a document with the key.
func (s *schedule) revokedUntil(k *documentKey, now time.Time) time.Time {
	longest := 2 * (s.rotateEvery + s.publishBefore + s.retainFor + s.unseen)
	return later(s.identifyUntil(k), now.Add(longest+s.identifyFor))
}

func (s *schedule) setWindow(k *documentKey, from, until time.Time) {
	k.SignsFrom, k.SignsUntil = from, until
	k.KeptUntil = later(k.KeptUntil, s.keepUntil(until))
}

// timesFor is how long a document keeps the times of a replica's configuration,
// beyond the time for which the replica may go without writing.
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
// use the document.
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
	// A replica may sign for MaxStale after its last reading.
	l.rotateEvery = max(l.rotateEvery, l.publishBefore)
	return &l
}

// advance makes all changes of a document that are due by now, and reports
// whether there were any.
func (s *schedule) advance(d *document, m moment) (changed bool, err error) {
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
	if n := len(d.Keys); n > 0 { // it may be from a replica with shorter times
		last := &d.Keys[n-1]
		if until := last.SignsFrom.Add(s.publishBefore); m.now.Before(last.SignsUntil) && last.SignsUntil.Before(until) {
			s.setWindow(last, last.SignsFrom, until)
			changed = true
		}
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		if k.public == nil { // left to the release that made it
			continue
		}
		// A replica whose clock is behind may sign for maxSkew longer.
		if m.destroy && len(k.Private) > 0 && !m.now.Before(k.SignsUntil.Add(s.maxSkew)) {
			k.Private, k.Sealed, changed = nil, false, true
		}
		if want := s.keepUntil(k.SignsUntil); k.KeptUntil.Before(want) { // RetainFor was raised
			k.KeptUntil, changed = want, true
		}
	}
	return m.destroy && s.forget(d, m.now) || changed, nil
}

// forget removes expired keys and revocations, and reports whether there were
// any. A key is kept, unpublished, until its identifyUntil.
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

// current returns the index of the key that is current now, or -1.
func current(d *document, now time.Time) int {
	return slices.IndexFunc(d.Keys, func(k documentKey) bool {
		return k.signsAt(now) && (len(k.Private) > 0 || k.public == nil)
	})
}

// mayRevive reports whether a document without a current key gets one:
//
//   - at the first start,
//   - when the ring was not changed for so long that its last key has retired,
//   - when the key whose window it is has no private half or was revoked,
//   - when all windows are in the future and the clock is sure. If it is not,
//     this clock may be the wrong one.
func (s *schedule) mayRevive(d *document, m moment) bool {
	return m.sure || d.bereft || len(d.Keys) == 0 || !m.now.Before(d.Keys[0].SignsFrom)
}

// revive makes a key current: the last one, which every replica has, until its
// successor has been published for long enough. If the last one cannot sign, a
// new key signs at once. No verifier has it yet, but otherwise no replica could
// sign.
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

// addEmergency adds a key that signs at once, until the next key does, and
// returns its index. Its window begins in the past, for replicas whose clocks
// are behind.
func (s *schedule) addEmergency(d *document, now time.Time) (int, error) {
	k, err := s.newKey()
	if err != nil {
		return -1, err
	}
	from, until, i := now.Add(-s.maxSkew), now.Add(s.rotateEvery), 0
	for i < len(d.Keys) && !now.Before(d.Keys[i].SignsFrom) {
		if d.Keys[i].signsAt(now) { // it has no private half: end its window
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

// addNext adds a key after the last one. If the last one would retire before
// the new one has been published for long enough, it signs for longer.
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

// republish delays keys that are written back after the store has lost them, so
// that each is published for long enough again before it signs. The key before
// signs for longer. Other keys do not change.
func (s *schedule) republish(d *document, now time.Time) {
	for i := 1; i < len(d.Keys); i++ {
		k := &d.Keys[i]
		if !k.restored || !now.Before(k.SignsFrom) {
			continue
		}
		k.restored, k.Published = false, now
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

// rotate ends the window of the current key as soon as the next key has been
// published for long enough, and returns when that is.
func (s *schedule) rotate(d *document, m moment) (time.Time, error) {
	s = s.longest(d, m.now)
	if len(d.Keys) >= maxKeys {
		return time.Time{}, fmt.Errorf("the ring holds %d keys already", len(d.Keys))
	}
	cur := current(d, m.now)
	if cur < 0 { // every window is in the future
		_, err := s.addEmergency(d, m.now)
		return m.now, err
	}
	next := &d.Keys[cur+1] // advance has added it
	at := later(m.now, next.Published.Add(s.publishBefore))
	k := &d.Keys[cur]
	if !at.Before(k.SignsUntil) {
		return k.SignsUntil, nil
	}
	// A replica that does not read this keeps the old schedule for at most
	// unseen.
	kept := k.KeptUntil
	k.SignsUntil = at
	k.KeptUntil = later(s.keepUntil(at), earlier(kept, s.keepUntil(m.now.Add(s.unseen))))
	for i := cur + 1; i < len(d.Keys); i++ {
		s.setWindow(&d.Keys[i], at, at.Add(s.rotateEvery))
		at = d.Keys[i].SignsUntil
	}
	return k.SignsUntil, nil
}

// revoke removes keys at once. If the current key is among them, a new key
// becomes current, and not the next one: a verifier fetches the key set again
// when it meets an unknown id. If the document does not have one of the ids,
// revoke returns that id and changes nothing.
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
	// If the key before the current one was removed, a replica whose clock is
	// behind would have no current key: the window of the current one begins
	// earlier.
	if i := current(d, m.now); i >= 0 {
		from := m.now.Add(-s.maxSkew)
		if i > 0 {
			from = later(from, d.Keys[i-1].SignsUntil)
		}
		d.Keys[i].SignsFrom = earlier(d.Keys[i].SignsFrom, from)
	}
	_, err = s.advance(d, m)
	return "", err
}

// drop removes a key and records its revocation. It reports whether the
// document had the key.
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
