// Package clock tells how old things are.
package clock

import "time"

// Elapsed is the larger of the times between since and now by the monotonic and
// by the wall clock: the first stands still while a machine is suspended, the
// second can be set back.
func Elapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
