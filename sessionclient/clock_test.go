package sessionclient_test

import (
	"testing"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

// clockBack runs f, which makes clients, on a machine whose clock is behind.
func clockBack(t testing.TB, d time.Duration, f func()) {
	t.Helper()
	c := new(clock.Clock)
	c.SetAhead(-d)
	clock.As(c, f)
}
