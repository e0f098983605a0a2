package remote

import "maps"

// Metrics returns the state of the key set and the counts of its fetches. The
// names are fixed, and those that end in _total only grow:
//
//	jwks_age_seconds            since the start of the fetch of the current set;
//	                            before there is one, since NewKeys
//	jwks_keys                   keys that are served; 0 if there is no set, or it
//	                            is older than MaxStale: then KeySet fails
//	jwks_keys_skipped           keys of that set which cannot be used safely
//	jwks_fetches_total          fetches that have ended
//	jwks_fetch_failures_total   those of them that failed
//	jwks_undecided_total        calls of KeySet that failed
//
// Metrics does no I/O. Every value is finite. The map is the caller's:
// [expvar.Func] can publish it as it is.
func (k *Keys) Metrics() map[string]float64 {
	m := map[string]float64{
		"jwks_age_seconds":          0,
		"jwks_keys":                 0,
		"jwks_keys_skipped":         0,
		"jwks_fetches_total":        0,
		"jwks_fetch_failures_total": 0,
		"jwks_undecided_total":      0,
	}
	if !k.isMade() {
		return m
	}
	since := k.made
	if s := k.good.Load(); s != nil {
		since = s.fetch.began
	}
	if s, _ := k.usable(); s != nil {
		m["jwks_keys"] = float64(len(s.keys.Keys()))
		m["jwks_keys_skipped"] = float64(len(s.skipped))
	}
	m["jwks_age_seconds"] = k.clock.Age(since).Seconds()
	m["jwks_fetch_failures_total"] = float64(k.failed.Load()) // first: never more than those that have ended
	m["jwks_fetches_total"] = float64(k.ended.Load())
	m["jwks_undecided_total"] = float64(k.undecided.Load())
	return m
}

// Metrics returns the metrics of the keys, of the verifier, of the sessions and,
// with Config.FeedToken, of the list of revocations in one map, which is the
// caller's.
func (r *Remote[T]) Metrics() map[string]float64 {
	m := r.keys.Metrics()
	if r.revocations != nil {
		maps.Copy(m, r.revocations.Metrics())
	}
	maps.Copy(m, r.verifier.Metrics())
	maps.Copy(m, r.sessions.Metrics())
	return m
}
