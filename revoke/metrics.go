package revoke

import "time"

// Metrics returns how the list stands and what it has done since it was made.
// The names are fixed, and those that end in _total only grow:
//
//	revocation_age_seconds            since the start of the last good reading of
//	                                  the store; before the first, since NewList.
//	                                  What others have ended since then is not
//	                                  known here
//	revocation_entries                entries that are remembered
//	revocation_reads_total            readings of the store that have ended
//	revocation_read_failures_total    those of them that failed
//	revocations_total                 what was ended through this list, and is in
//	                                  the store
//	revocation_write_failures_total   what was ended here, and the store did not
//	                                  acknowledge: others may not know of it
//
// It answers from memory. Every value is finite, and none says whose session it
// was. The map is the caller's: [expvar.Func] can publish it as it is.
func (l *List) Metrics() map[string]float64 {
	since := l.made
	if synced := l.synced.Load(); synced != nil {
		since = *synced
	}
	reads, failures := l.reads.Load()
	return map[string]float64{
		"revocation_age_seconds":          clockElapsed(since, time.Now()).Seconds(),
		"revocation_entries":              float64(l.entries()),
		"revocation_reads_total":          float64(reads),
		"revocation_read_failures_total":  float64(failures),
		"revocations_total":               float64(l.ended.Load()),
		"revocation_write_failures_total": float64(l.writeFailures.Load()),
	}
}
