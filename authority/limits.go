package authority

import (
	"fmt"
	"time"
)

// Limits are the times of sessions. All other times of an authority follow from
// them. Each is a whole number of seconds, at least 1 s. The defaults meet NIST
// SP 800-63B-4 at AAL2.
type Limits struct {
	// TTL is how long a token is valid, which bounds how old its state gets. At
	// most IdleTimeout. 0 means 5 min, or IdleTimeout if that is shorter.
	TTL time.Duration
	// IdleTimeout is how long after its iat a browser's token can be renewed. A
	// session that is not used for that long ends. At most MaxSession. 0 means
	// 1 h, or TTL if that is longer, or MaxSession if that is shorter.
	IdleTimeout time.Duration
	// MaxSession is how long a session lasts at most, counted from its
	// beginning. No renewal and no refresh token extends it. At most 400 days.
	// 0 means 24 h.
	MaxSession time.Duration
	// RefreshIdle is how long after it was handed out a refresh token can be
	// used. At most MaxSession. 0 means IdleTimeout.
	RefreshIdle time.Duration
}

const (
	// longestSession is how long browsers keep a cookie at most. A key ring can
	// remember keys for longer.
	longestSession = 400 * 24 * time.Hour
	// leeway is the largest Leeway that a verifier can have.
	leeway = time.Minute

	// maxStaleKeys is the MaxStale of the ring.
	maxStaleKeys = 12 * time.Hour
)

// withDefaults returns the limits with their defaults, and checks them against
// each other.
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

// retainKeys returns how long a key verifies after its last signature: for as
// long as one of its tokens can be verified or renewed.
func (l Limits) retainKeys() time.Duration {
	return max(24*time.Hour, l.TTL+leeway, l.IdleTimeout)
}

// maxTTL returns the MaxTTL of the verifier. It is longer than TTL, so that TTL
// can be raised in a rolling update.
func (l Limits) maxTTL() time.Duration {
	return min(max(24*time.Hour, l.TTL), l.MaxSession)
}
