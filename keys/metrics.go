package keys

import (
	"time"

)

// Metrics returns how the ring stands and what it has done since it was made.
// The names are fixed, and those that end in _total only grow:
//
//	ring_age_seconds                since the start of the last good reading of
//	                                the store; before the first, since NewRing
//	ring_keys                       keys that are published; 0 if none can be,
//	                                since the store was not read for MaxStale
//	ring_current_key_ends_seconds   until the current key retires; 0 if there is
//	                                none, or none can be published
//	ring_rotations_total            changes of the current key, planned or not,
//	                                seen when the store is read; the first key
//	                                is none
//	ring_syncs_total                readings of the store that have ended; those
//	                                of Rotate and Revoke are not counted
//	ring_sync_failures_total        those of them that failed
//
// It answers from memory. Every value is finite, and none says which key it was.
// The map is the caller's: [expvar.Func] can publish it as it is.
func (r *Ring) Metrics() map[string]float64 {
	now := time.Now()
	syncs, failures := r.syncs.Load()
	m := map[string]float64{
		"ring_age_seconds":              clockElapsed(r.made, now).Seconds(),
		"ring_keys":                     0,
		"ring_current_key_ends_seconds": 0,
		"ring_rotations_total":          float64(r.rotations.Load()),
		"ring_syncs_total":              float64(syncs),
		"ring_sync_failures_total":      float64(failures),
	}
	s := r.state.Load()
	if s == nil {
		return m
	}
	age := clockElapsed(s.synced, now)
	m["ring_age_seconds"] = age.Seconds()
	if age >= r.cfg.MaxStale {
		return m
	}
	m["ring_keys"] = float64(len(s.set.keys))
	if i := current(s.doc, now); i >= 0 {
		m["ring_current_key_ends_seconds"] = s.doc.Keys[i].SignsUntil.Sub(now).Seconds()
	}
	return m
}
