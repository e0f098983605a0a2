package refresh

import (
	"errors"
	"sync/atomic"
)

// counts counts each exchange once, by its result, and other events.
type counts struct {
	successors, retries, late, reuse, refused, notIssued, undecided atomic.Uint64
	unauthenticated, notDeleted, evicted                            atomic.Uint64
}

func (c *counts) exchange(x exchange, err error) {
	switch {
	case err == nil && x.step == retried:
		c.retries.Add(1)
	case err == nil && x.step == late:
		c.late.Add(1)
	case err == nil:
		c.successors.Add(1)
	case x.notIssued:
		c.notIssued.Add(1)
	case errors.Is(err, ErrReused): // counted when it was detected
	case errors.Is(err, ErrInvalid):
		c.refused.Add(1)
	default:
		c.undecided.Add(1)
	}
}

// Metrics returns the counts since the manager was made. The names are fixed,
// and all values only grow. The first seven are the results of exchanges:
//
//	refresh_exchanges_total                a successor was handed out
//	refresh_retries_total                  the same successor again
//	refresh_late_retries_total             the same, after RetryWindow
//	refresh_reuse_detections_total         a token was used twice: its session
//	                                       was revoked; if that failed, the
//	                                       exchange is undecided too
//	refresh_refused_total                  other tokens that were refused: not
//	                                       valid, expired, revoked, or of another
//	                                       client or browser
//	refresh_issue_failures_total           the token was valid, and issue failed
//	refresh_undecided_total                the server could not decide
//	refresh_unauthenticated_records_total  no secret authenticates a record
//	refresh_deletion_failures_total        records could not be deleted
//	refresh_evictions_total                sessions revoked for MaxPerSubject
//
// Metrics does no I/O. Every value is finite, and none names a user or a token.
// The map is the caller's: [expvar.Func] can publish it as it is.
func (m *Manager) Metrics() map[string]float64 {
	c := &m.counted
	return map[string]float64{
		"refresh_exchanges_total":               float64(c.successors.Load()),
		"refresh_retries_total":                 float64(c.retries.Load()),
		"refresh_late_retries_total":            float64(c.late.Load()),
		"refresh_reuse_detections_total":        float64(c.reuse.Load()),
		"refresh_refused_total":                 float64(c.refused.Load()),
		"refresh_issue_failures_total":          float64(c.notIssued.Load()),
		"refresh_undecided_total":               float64(c.undecided.Load()),
		"refresh_unauthenticated_records_total": float64(c.unauthenticated.Load()),
		"refresh_deletion_failures_total":       float64(c.notDeleted.Load()),
		"refresh_evictions_total":               float64(c.evicted.Load()),
	}
}
