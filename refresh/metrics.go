package refresh

import (
	"errors"
	"sync/atomic"
)

// exchanges counts how they end: each of them once, but for a reuse of which the
// family could not be ended, which is undecided too.
type exchanges struct {
	successors, retries, reuse, refused, notIssued, undecided atomic.Uint64
}

func (e *exchanges) ended(err error, again, notIssued bool) {
	switch {
	case err == nil && again:
		e.retries.Add(1)
	case err == nil:
		e.successors.Add(1)
	case notIssued:
		e.notIssued.Add(1)
	case errors.Is(err, ErrReused): // counted when it was found out
	case errors.Is(err, ErrInvalid):
		e.refused.Add(1)
	default:
		e.undecided.Add(1)
	}
}

// Metrics returns how the exchanges of this manager have ended since it was made.
// The names are fixed, and all of them only grow:
//
//	refresh_exchanges_total          a successor was handed out
//	refresh_retries_total            the same successor was handed out again
//	refresh_reuse_detections_total   a token was used twice: two parties held it,
//	                                 and its family was ended, or could not be
//	                                 and the exchange is undecided too
//	refresh_refused_total            other tokens that were refused: not valid,
//	                                 expired, or of a family that is gone
//	refresh_issue_failures_total     the token was good, and issue failed
//	refresh_undecided_total          other errors: the server could not tell
//
// It answers from memory. Every value is finite, and none says whose token it
// was. The map is the caller's: [expvar.Func] can publish it as it is.
func (m *Manager) Metrics() map[string]float64 {
	e := &m.counted
	return map[string]float64{
		"refresh_exchanges_total":        float64(e.successors.Load()),
		"refresh_retries_total":          float64(e.retries.Load()),
		"refresh_reuse_detections_total": float64(e.reuse.Load()),
		"refresh_refused_total":          float64(e.refused.Load()),
		"refresh_issue_failures_total":   float64(e.notIssued.Load()),
		"refresh_undecided_total":        float64(e.undecided.Load()),
	}
}
