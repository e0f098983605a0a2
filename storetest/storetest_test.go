package storetest_test

import (
	"path/filepath"
	"testing"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Ring(t, func(*testing.T) (a, b keys.Store) { s := new(keys.MemStore); return s, s })
	storetest.Revocations(t, func(*testing.T) (a, b revoke.Store) { s := new(revoke.MemStore); return s, s })
	storetest.Families(t, func(*testing.T) (a, b refresh.Store) { s := new(refresh.MemStore); return s, s })
	storetest.AllFamilies(t, func(*testing.T) (a, b refresh.AllLister) { s := new(refresh.MemStore); return s, s })
}

func TestFile(t *testing.T) {
	storetest.Ring(t, func(t *testing.T) (a, b keys.Store) {
		path := filepath.Join(t.TempDir(), "ring")
		open := func() keys.Store {
			s, err := keys.NewFileStore(path)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return open(), open()
	})
}
