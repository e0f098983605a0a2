package authority

import (
	"fmt"
	"time"
)

// Limits bound sessions. Each is set here and nowhere else; all other times
// follow from them. All are whole seconds, and at least 1 s. The defaults meet
// NIST SP 800-63B-4 at AAL2.
type Limits struct {
	// TTL is how long a token is valid, and so how old its state can get. At
	// most IdleTimeout. 0 means 5 min, or IdleTimeout if that is shorter.
	TTL time.Duration
	// IdleTimeout is how long after its issue a browser's token can still be
	// renewed, and so how long a session may pause. At most MaxSession. 0 means
	// 1 h, or TTL if that is longer, or MaxSession if that is shorter.
	IdleTimeout time.Duration
	// MaxSession is the absolute end of a session, counted from its beginning.
	// No renewal and no refresh token moves it. At most 400 days. 0 means 24 h.
	MaxSession time.Duration
	// RefreshIdle is how long a refresh token can be used after it was handed
	// out. At most MaxSession. 0 means IdleTimeout.
	RefreshIdle time.Duration
}

const (
	// longestSession is how long browsers keep a cookie at most, and well
	// within what a key ring can be made to remember.
	longestSession = 400 * 24 * time.Hour
	// leeway is the largest that a verifier of these tokens can have.
	leeway = time.Minute

	// maxStaleKeys is how long a ring goes on without its store.
	maxStaleKeys = 12 * time.Hour
)

// withDefaults returns the limits with their defaults, checked against each
// other.
func (l Limits) withDefaults() (Limits, error) {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"TTL", l.TTL}, {"IdleTimeout", l.IdleTimeout}, {"MaxSession", l.MaxSession}, {"RefreshIdle", l.RefreshIdle}} {
		if d.value != 0 && (d.value < time.Second || d.value%time.Second != 0) {
			return l, fmt.Errorf("authority: Config.Limits.%s is %v; it must be at least 1s, in whole seconds (a bare number is one of nanoseconds)", d.name, d.value)
		}
	}
	if l.MaxSession == 0 {
		l.MaxSession = 24 * time.Hour
	}
	if l.IdleTimeout == 0 {
		l.IdleTimeout = min(max(time.Hour, l.TTL), l.MaxSession)
	}
	if l.TTL == 0 {
		l.TTL = min(5*time.Minute, l.IdleTimeout)
	}
	if l.RefreshIdle == 0 {
		l.RefreshIdle = l.IdleTimeout
	}
	for _, d := range []struct {
		name, most   string
		value, limit time.Duration
	}{
		{"MaxSession", "400 days", l.MaxSession, longestSession},
		{"IdleTimeout", "MaxSession", l.IdleTimeout, l.MaxSession},
		{"TTL", "IdleTimeout", l.TTL, l.IdleTimeout},
		{"RefreshIdle", "MaxSession", l.RefreshIdle, l.MaxSession},
	} {
		if d.value > d.limit {
			return l, fmt.Errorf("authority: Config.Limits.%s is %v; it must not exceed %s, which is %v", d.name, d.value, d.most, d.limit)
		}
	}
	return l, nil
}

// retainKeys is how long a key verifies after its last signature: for as long
// as a token of it can be verified or renewed.
func (l Limits) retainKeys() time.Duration {
	return max(24*time.Hour, l.TTL+leeway, l.IdleTimeout)
}

// maxTTL is the longest life of a token that the verifier takes. It is longer
// than TTL, so that TTL can be raised while replicas roll.
func (l Limits) maxTTL() time.Duration {
	return min(max(24*time.Hour, l.TTL), l.MaxSession)
}
