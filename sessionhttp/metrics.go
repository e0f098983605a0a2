package sessionhttp

import "sync/atomic"

// counters count sign-ins, sign-outs, renewals, refreshes and refusals.
type counters struct {
	signIns, signOuts, refreshes, renewals, renewalsFailed atomic.Uint64
	livesOpened, livesUndecided                            atomic.Uint64
	faults                                                 [12]atomic.Uint64
}

func (c *counters) refused(f fault) {
	for i := range faults {
		if faults[i] == f {
			c.faults[i].Add(1)
		}
	}
}

// Metrics returns the counts since New. The names are fixed, and those that end
// in _total only grow:
//
//	sessionhttp_sign_ins_total              sessions that began
//	sessionhttp_sign_outs_total             sign-outs of all kinds that succeeded
//	sessionhttp_refreshes_total             refresh tokens that were exchanged
//	sessionhttp_renewals_total              cookies and live connections that
//	                                        were renewed
//	sessionhttp_renewal_failures_total      renewals that failed, Load above all
//	sessionhttp_renewals_running            renewals under way
//	sessionhttp_renewals_hung               renewals that were given up and have
//	                                        not returned
//	sessionhttp_live_connections            connections that Live keeps
//	sessionhttp_live_opened_total           connections that were opened
//	sessionhttp_live_undecided_total        those of them that ended with
//	                                        ErrUndecided
//	sessionhttp_refused_…_total             refusals, one name a reason: those of
//	                                        the log lines, and no_session,
//	                                        invalid_credentials and client_gone
//
// Metrics does no I/O. Every value is finite, and none names a user or a
// session. The map is the caller's: [expvar.Func] can publish it as it is.
func (s *Sessions[T]) Metrics() map[string]float64 {
	running, abandoned := s.renewals.Runs()
	m := map[string]float64{
		"sessionhttp_sign_ins_total":         float64(s.counted.signIns.Load()),
		"sessionhttp_sign_outs_total":        float64(s.counted.signOuts.Load()),
		"sessionhttp_refreshes_total":        float64(s.counted.refreshes.Load()),
		"sessionhttp_renewals_total":         float64(s.counted.renewals.Load()),
		"sessionhttp_renewal_failures_total": float64(s.counted.renewalsFailed.Load()),
		"sessionhttp_renewals_running":       float64(running),
		"sessionhttp_renewals_hung":          float64(abandoned),
		"sessionhttp_live_connections":       float64(s.lives.size()),
		"sessionhttp_live_opened_total":      float64(s.counted.livesOpened.Load()),
		"sessionhttp_live_undecided_total":   float64(s.counted.livesUndecided.Load()),
	}
	for i := range faults {
		m["sessionhttp_refused_"+faults[i].reason+"_total"] = float64(s.counted.faults[i].Load())
	}
	return m
}
