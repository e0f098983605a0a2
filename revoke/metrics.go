package revoke

import "time"

// Status is the state of a list, for health checks. Synced, Err and ClockOffset
// mean the same as in keys.Status.
type Status struct {
	Entries     int           // entries in memory
	Synced      time.Time     // start of the last successful reading of the store, by this machine's clock; zero if never
	Err         error         // of the last reading; nil if it succeeded, ErrNotRead before the first
	ClockOffset time.Duration // how far this machine's clock was ahead of the store's at the last reading
	Owed        int           // entries that the store has not acknowledged
	Foreign     bool          // the store is another one than the list has read before: Check fails
	Restoring   bool          // the store has lost entries, which the list is writing back
	Birth       time.Time     // since when the store has lost no entry, by its own clock; zero if not known
}

// Status returns the state of the list. It does no I/O.
func (l *List) Status() Status {
	status := Status{Entries: l.tables.size(), Err: ErrNotRead, Owed: int(l.owed.count.Load())}
	if o := l.last.Load(); o != nil {
		status.Err = o.err
	}
	if l.view != nil {
		status.ClockOffset, _, _ = l.view.Offset()
	}
	if st := l.state.Load(); st != nil {
		status.Synced, status.Foreign = st.synced.Wall(), st.foreign
		if st.birth != none {
			status.Birth = timeOf(st.birth)
		}
	}
	status.Restoring = l.restore.Load() != nil
	return status
}

// Metrics returns the state of the list and the counts since it was made. The
// names are fixed, and those that end in _total only grow:
//
//	revocation_age_seconds            since the start of the last good reading of
//	                                  the store; before the first, since NewList.
//	                                  What others have revoked since then is not
//	                                  known here
//	revocation_clock_offset_seconds   how far this machine's clock is ahead of the
//	                                  store's
//	revocation_entries                entries that are remembered
//	revocation_owed                   entries that the store has not acknowledged:
//	                                  others may not know of them
//	revocation_watches                watches that have not ended
//	revocation_foreign_store          1 while the store is another one than before
//	revocation_reads_total            readings of the store that have ended
//	revocation_read_failures_total    those of them that failed
//	revocations_total                 what was revoked through this list, and is in
//	                                  the store
//	revocation_write_failures_total   writes that failed
//	revocation_clock_warnings_total   readings that found this machine's clock more
//	                                  than MaxSkew from the store's
//
// Metrics does no I/O. Every value is finite, and none names a user or a
// session. The map is the caller's: [expvar.Func] can publish it as it is.
func (l *List) Metrics() map[string]float64 {
	if l.syncing == nil {
		return nil
	}
	since, foreign := l.made, 0.0
	if st := l.state.Load(); st != nil {
		since = st.synced
		if st.foreign {
			foreign = 1
		}
	}
	failures := l.readFailures.Load() // first: it is never more than the readings
	offset, _, _ := l.view.Offset()
	return map[string]float64{
		"revocation_age_seconds":          l.clock.Age(since).Seconds(),
		"revocation_clock_offset_seconds": offset.Seconds(),
		"revocation_entries":              float64(l.tables.size()),
		"revocation_owed":                 float64(l.owed.count.Load()),
		"revocation_watches":              float64(l.watches.count.Load()),
		"revocation_foreign_store":        foreign,
		"revocation_reads_total":          float64(l.reads.Load()),
		"revocation_read_failures_total":  float64(failures),
		"revocations_total":               float64(l.acknowledged.Load()),
		"revocation_write_failures_total": float64(l.writeFailures.Load()),
		"revocation_clock_warnings_total": float64(l.loud.Counts()["clock_disagrees"]),
	}
}
