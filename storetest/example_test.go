package storetest_test

import (
	"fmt"
	"testing"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/storetest"
)

// A store of your own is proven by a test of a few lines.
func Example() {
	// In your package: func TestStore(t *testing.T) {
	test := func(t *testing.T) {
		storetest.Families(t, func(t *testing.T) (a, b refresh.Store) {
			store := new(refresh.MemStore) // yours, new and empty, opened twice
			return store, store
		})
	}
	fmt.Println(passes(test))
	// Output: true
}
