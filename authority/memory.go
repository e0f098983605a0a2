package authority

import (
	"crypto/rand"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

type (
	keyStore        = keys.MemStore
	revocationStore = revoke.MemStore
	familyStore     = refresh.MemStore
)

// memory is what [Memory] returns. New knows it by its type alone: a store that
// wraps one counts as any other.
type memory struct {
	keyStore
	revocationStore
	familyStore
	// secret returns what Config.Secrets is if it is left out. A careless print
	// shows an address and not what it returns.
	secret func() []byte
}

// Memory returns an empty store in the memory of this process: for one process,
// and for tests. Several authorities in the process can share it. When the
// process ends, all sessions end with it.
//
// It comes with a random secret of its own, so that Config.Secrets can be left
// out.
func Memory() Store {
	secret := make([]byte, minSecret)
	rand.Read(secret)
	return &memory{secret: func() []byte { return secret }}
}
