package sqlite_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/sqlstore/sqlite"
)

// All processes of one machine open the same file.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := sqlite.Open(ctx, filepath.Join(dir, "sessions.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	var sealing [32]byte // random, from where you keep secrets
	aead, err := keys.NewAESGCM(sealing[:])
	if err != nil {
		log.Fatal(err)
	}
	ring, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(store, aead)})
	if err != nil {
		log.Fatal(err)
	}
	set, err := ring.KeySet(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(set.Keys()), "keys: one that signs, and the next one")
	// Output: 2 keys: one that signs, and the next one
}
