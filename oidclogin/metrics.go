package oidclogin

import "sync/atomic"

// counters count logins, and how they ended.
type counters struct {
	logins, signIns, again, denied, refused, unavailable, gone, signOuts atomic.Uint64
	logouts, logoutsRefused, logoutsUnavailable                          atomic.Uint64
}

// Metrics returns the counts since New. The names are fixed, and all of them
// only grow:
//
//	oidclogin_logins_total        logins that were sent to the provider
//	oidclogin_sign_ins_total      sessions that began
//	oidclogin_again_total         logins that started again, since a sign-out
//	                              came while they were under way
//	oidclogin_denied_total        logins that the user declined
//	oidclogin_refused_total       logins that were refused for another reason
//	oidclogin_unavailable_total   requests that failed since the provider, a
//	                              store or Config.User did
//	oidclogin_client_gone_total   browsers that did not wait for the answer
//	oidclogin_sign_outs_total     sign-outs that went on to the provider
//	oidclogin_logouts_total       logout tokens of the provider that were
//	                              accepted, those that it sent again included
//	oidclogin_logouts_refused_total
//	                              logout tokens that were refused
//	oidclogin_logouts_unavailable_total
//	                              logout tokens that were answered with 503
//
// Metrics does no I/O. None of the values names a user or a session. The map is
// the caller's: [expvar.Func] can publish it as it is. With several providers,
// publish each under a name of its own.
func (p *Provider[T]) Metrics() map[string]float64 {
	c := &p.counted
	return map[string]float64{
		"oidclogin_logins_total":      float64(c.logins.Load()),
		"oidclogin_sign_ins_total":    float64(c.signIns.Load()),
		"oidclogin_again_total":       float64(c.again.Load()),
		"oidclogin_denied_total":      float64(c.denied.Load()),
		"oidclogin_refused_total":     float64(c.refused.Load()),
		"oidclogin_unavailable_total": float64(c.unavailable.Load()),
		"oidclogin_client_gone_total": float64(c.gone.Load()),
		"oidclogin_sign_outs_total":   float64(c.signOuts.Load()),

		"oidclogin_logouts_total":             float64(c.logouts.Load()),
		"oidclogin_logouts_refused_total":     float64(c.logoutsRefused.Load()),
		"oidclogin_logouts_unavailable_total": float64(c.logoutsUnavailable.Load()),
	}
}
