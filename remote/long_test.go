package remote_test

import (
	"os"
	"testing"
)

// long skips a test that takes long, unless SESSIONTOKEN_LONG=1 is set, as .ci/run
// sets it.
func long(t *testing.T) {
	t.Helper()
	if !isLong() {
		t.Skip("it takes long; SESSIONTOKEN_LONG=1 runs it")
	}
}

func isLong() bool {
	return os.Getenv("SESSIONTOKEN_LONG") != "" || os.Getenv("SESSIONTOKEN_FULL") != ""
}
