package keys

import (
	"slices"
	"time"
)

// merged is the result of merge.
type merged struct {
	doc   *document
	owed  bool // the store's document lacks a part of it
	older bool // the store's document was older than the held one, or of another ring
}

// merge merges the document that was read with the one that the process held
// before, if there is one, and changes neither. A process drops a key when it
// is revoked or past its KeptUntil, and not because the stored document lacks
// it:
//
//   - Of two rings, the one that was made first signs. Of two documents of one
//     ring, the stored one is used, unless it is an older form of the held one.
//   - The keys of the other document are kept as retired ones, except that its
//     current key signs on if no key of the first signs at that time. A key of
//     both documents is kept until the later of its two KeptUntil.
//   - A key is revoked if it is revoked in one of the two, or if revoked
//     returns true.
func merge(read, held *document, revoked func(kid string) bool, m moment, s *schedule) (out merged) {
	base, other := read, held
	if held == nil || held.Ring == "" {
		other = &document{}
	} else if isOlder(read, held) {
		base, other, out.older, out.owed = held, read, true, true
	}
	d := base.clone()
	out.doc = d
	d.Serial = max(read.Serial, other.Serial, base.Serial)
	s = s.longest(d, m.now)
	for i := range d.Keys {
		d.Keys[i].restored = out.older && read.find(d.Keys[i].id) == nil
	}

	for _, r := range other.Revoked {
		if m.now.Before(r.Until) && !d.hasRevoked(r.KeyID) {
			d.Revoked = append(d.Revoked, r)
			out.owed = true
		}
	}
	for _, r := range d.Revoked {
		if s.drop(d, m.now, r.KeyID) {
			out.owed = true
		}
	}
	for _, list := range [][]documentKey{other.Keys, other.Retired} {
		for _, k := range list {
			if have := d.find(k.id); have != nil {
				if want := s.mayHaveSigned(&k, m.now); have.KeptUntil.Before(want) {
					have.KeptUntil, out.owed = want, true
				}
				continue
			}
			if d.hasRevoked(k.id) || s.isOver(&k, m.now) {
				continue
			}
			if i, free := d.place(&k, m.now); free && !out.older && other.Ring == d.Ring {
				d.Keys = slices.Insert(d.Keys, i, k)
			} else if len(d.Retired) < maxRetired {
				d.Retired = append(d.Retired, k.retired())
			}
			out.owed = true
		}
	}
	for _, t := range other.Times {
		if m.now.Before(t.Until) && !slices.ContainsFunc(d.Times, t.same) {
			d.Times = append(d.Times, t) // not worth a write of its own
		}
	}
	out.owed = s.dropRevoked(d, revoked, m) || out.owed
	return out
}

// dropRevoked drops the keys for which revoked returns true, and reports
// whether there were any.
func (s *schedule) dropRevoked(d *document, revoked func(kid string) bool, m moment) (any bool) {
	if revoked == nil {
		return false
	}
	var kids []string
	for _, list := range [][]documentKey{d.Keys, d.Retired} {
		for i := range list {
			if revoked(list[i].id) {
				kids = append(kids, list[i].id)
			}
		}
	}
	for _, kid := range kids {
		s.drop(d, m.now, kid)
	}
	return len(kids) > 0
}

// isOlder reports whether the document that was read is older than the held
// one.
func isOlder(read, held *document) bool {
	switch {
	case read.Ring == "": // the store was emptied
		return true
	case read.Ring != held.Ring:
		return held.Made.Before(read.Made) || held.Made.Equal(read.Made) && held.Ring < read.Ring
	case read.Serial >= held.Serial:
		return false
	}
	for _, list := range [][]documentKey{read.Keys, read.Retired} {
		for _, k := range list {
			if held.find(k.id) == nil && !held.hasRevoked(k.id) {
				return false // written later, by a replica that did not have the held one
			}
		}
	}
	return true
}

// isOver reports whether a document lacks a key because the key was past its
// KeptUntil, by any replica's clock.
func (s *schedule) isOver(k *documentKey, now time.Time) bool {
	return !now.Add(2 * s.maxSkew).Before(k.KeptUntil)
}

// mayHaveSigned returns until when a key must be kept if a replica used a
// document with k, which is now merged with one that has other times for the
// key.
func (s *schedule) mayHaveSigned(k *documentKey, now time.Time) time.Time {
	switch {
	case now.Before(k.SignsFrom):
		return time.Time{}
	case now.Before(k.SignsUntil):
		return s.keepUntil(now)
	}
	return k.KeptUntil
}

// place returns the index of a current key among the others. free reports whether
// the key is current and no other key signs in its window.
func (d *document) place(k *documentKey, now time.Time) (at int, free bool) {
	if !k.signsAt(now) || len(k.Private) == 0 {
		return 0, false
	}
	for at < len(d.Keys) && !k.SignsFrom.Before(d.Keys[at].SignsUntil) {
		at++
	}
	return at, at == len(d.Keys) || !d.Keys[at].SignsFrom.Before(k.SignsUntil)
}
