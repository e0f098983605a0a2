package keys

import "github.com/sessiontoken/sessiontoken/internal/clock"

// Metrics returns the state of the ring and the counts since it was made. The
// names are fixed, and those that end in _total only grow:
//
//	ring_age_seconds                 since the start of the last good reading of
//	                                 the store; before the first, since NewRing
//	ring_keys                        keys that are published; 0 if none can be,
//	                                 since the store was not read for MaxStale
//	ring_current_key_ends_seconds    until the current key retires; 0 if there is
//	                                 none, or none can be published
//	ring_locked_keys                 private keys that cannot be unsealed here: no
//	                                 replica with the same sealing keys can sign
//	                                 with them
//	ring_clock_offset_seconds        how far this machine's clock was ahead of the
//	                                 store's at the last reading; 0 if the store
//	                                 has none
//	ring_write_due                   1 while a change of the document is due and
//	                                 was not written; for long, it is a fault
//	ring_rotations_total             changes of the current key, planned or not,
//	                                 seen when the store is read; the first key
//	                                 is none
//	ring_syncs_total                 readings of the store that have ended; those
//	                                 of a write are not counted
//	ring_sync_failures_total         those of them that failed
//	ring_write_failures_total        writes of what was due that failed
//	ring_unseal_failures_total       attempts to unseal private keys that failed
//	ring_clock_disagreements_total   readings at which the clocks were further
//	                                 apart than MaxSkew
//	ring_older_documents_total       readings that found no document, an older or
//	                                 a foreign one
//
// Metrics does no I/O. Every value is finite, and none names a key. The map is
// the caller's: [expvar.Func] can publish it as it is.
func (r *Ring) Metrics() map[string]float64 {
	if r.reading == nil {
		return nil
	}
	failures := r.outcomes.failed.Load() // first: it is never more than those that ended
	counts := r.loud.Counts()
	m := map[string]float64{
		"ring_age_seconds":               r.clock.Age(r.made).Seconds(),
		"ring_keys":                      0,
		"ring_current_key_ends_seconds":  0,
		"ring_locked_keys":               0,
		"ring_clock_offset_seconds":      0,
		"ring_write_due":                 0,
		"ring_rotations_total":           float64(r.rotations.Load()),
		"ring_syncs_total":               float64(r.outcomes.ended.Load()),
		"ring_sync_failures_total":       float64(failures),
		"ring_write_failures_total":      float64(r.outcomes.writes.Load()),
		"ring_unseal_failures_total":     float64(r.outcomes.unseals.Load()),
		"ring_clock_disagreements_total": float64(counts["ring_clock"]),
		"ring_older_documents_total":     float64(counts["ring_older"]),
	}
	if o := r.offset.Load(); o != nil {
		m["ring_clock_offset_seconds"] = o.ahead.Seconds()
	}
	s := r.state.Load()
	if s == nil {
		return m
	}
	for _, k := range s.signers {
		if k.err != nil {
			m["ring_locked_keys"]++
		}
	}
	if s.owed {
		m["ring_write_due"] = 1
	}
	age := r.clock.Age(s.began)
	m["ring_age_seconds"] = age.Seconds()
	if age >= r.cfg.MaxStale || s.set == nil {
		return m
	}
	m["ring_keys"] = float64(len(s.set.keys))
	now := r.moment().now
	if i := current(s.doc, now); i >= 0 {
		m["ring_current_key_ends_seconds"] = clock.Between(now, s.doc.Keys[i].SignsUntil).Seconds()
	}
	return m
}
