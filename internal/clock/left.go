package clock

import (
	"context"
	"time"
)

// Left returns the time until the deadline of ctx, and false if it has none. It
// uses this machine's clock, as deadlines do.
func Left(ctx context.Context) (time.Duration, bool) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0, false
	}
	return time.Until(deadline), true
}
