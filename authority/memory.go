package authority

import (
	"crypto/rand"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

type (
	keyStore        = keys.MemStore
	revocationStore = revoke.MemStore
	familyStore     = refresh.MemStore
)

// memory is the store that [Memory] returns. New recognises it by its type: a
// store that wraps one is treated as any other.
type memory struct {
	keyStore
	revocationStore
	familyStore
	grantStore
	// secret returns the secret that replaces Config.Secrets. It is a function,
	// so that %+v prints an address and not the secret.
	secret func() []byte
	epoch  string    // of this store, in the cursors of its feed
	born   time.Time // when it was made
}

// Memory returns an empty store in the memory of this process, for one process
// or for tests. Several authorities in the process can share it. When the
// process ends, all sessions end with it.
//
// It has a random secret of its own, so that Config.Secrets can be left out. It
// is an oidclogin.GrantStore too, by a type assertion.
func Memory() Store {
	secret := make([]byte, arg.MinSecret)
	rand.Read(secret)
	return &memory{
		secret: func() []byte { return secret }, epoch: rand.Text()[:16], born: clock.Here().Now().Truncate(time.Millisecond),
	}
}
