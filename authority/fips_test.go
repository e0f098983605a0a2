package authority_test

import (
	"crypto/fips140"
	"crypto/rand"
	"sync"
)

// A generator of FIPS 140 measures the clock when it is made. In a synctest
// bubble the clock stands still, so that enough of them are made before. Reads
// that take long are under way at once, each with a generator of its own.
func init() {
	if !fips140.Enabled() {
		return
	}
	var reading sync.WaitGroup
	for range 8 {
		reading.Go(func() { _, _ = rand.Read(make([]byte, 32<<20)) })
	}
	reading.Wait()
}
