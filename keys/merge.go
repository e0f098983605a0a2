package keys

import (
	"slices"
	"time"
)

// merged is what a process knows after a reading.
type merged struct {
	doc   *document
	owed  bool // the store lacks something of it
	older bool // the store's document was older than, or foreign to, what was held
}

// merge joins the document that was read with the one that the process held
// before, if there is one, and changes neither. A key leaves a process by
// revocation or by its time, never by absence:
//
//   - Of two rings, the one that was made first counts for signing. Of two
//     documents of one ring, the stored one does, unless it holds nothing that
//     the held one does not know, and less.
//   - The keys of the other document are kept as retired ones, except that the
//     current one goes on signing if the time is free. A key that both have is
//     kept for as long as either needs it.
//   - A key is revoked if any of the two has it revoked, or if revoked reports
//     so.
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
		d.Keys[i].again = out.older && read.find(d.Keys[i].id) == nil
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

// dropRevoked drops the keys of which revoked reports so, and reports whether
// there were any.
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

// isOlder reports whether what was read is to be replaced by what is held.
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
				return false // written since, by a replica that did not know the held one
			}
		}
	}
	return true
}

// isOver reports whether a key that a document lacks has only gone because its
// time was over, by whichever replica's clock.
func (s *schedule) isOver(k *documentKey, now time.Time) bool {
	return !now.Add(2 * s.maxSkew).Before(k.KeptUntil)
}

// mayHaveSigned is until when a key must be kept for a replica that acted on a
// document with k, which is now joined with one that has other times for it.
func (s *schedule) mayHaveSigned(k *documentKey, now time.Time) time.Time {
	switch {
	case now.Before(k.SignsFrom):
		return time.Time{}
	case now.Before(k.SignsUntil):
		return s.keepUntil(now)
	}
	return k.KeptUntil
}

// place returns where a current key belongs among the others, and whether it is
// current and its window is free.
func (d *document) place(k *documentKey, now time.Time) (at int, free bool) {
	if !k.signsAt(now) || len(k.Private) == 0 {
		return 0, false
	}
	for at < len(d.Keys) && !k.SignsFrom.Before(d.Keys[at].SignsUntil) {
		at++
	}
	return at, at == len(d.Keys) || !d.Keys[at].SignsFrom.Before(k.SignsUntil)
}
