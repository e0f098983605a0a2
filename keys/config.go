package keys

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/arg"
)

// maxDuration keeps sums of times from overflowing.
const maxDuration = 10 * 365 * 24 * time.Hour

// least is the least value of SyncEvery, MaxStale, ClientRefresh and MaxSkew.
// That of the other times is a second.
const least = 10 * time.Millisecond

// maxName is how many bytes the name of a document may have.
const maxName = 256

// maxIdentified is how many retired keys a ring may keep for IdentifyFor. A
// document can hold many more.
const maxIdentified = 400

// RingConfig says how a [Ring] rotates. All replicas that share a store should
// be configured alike. While a change of PublishBefore, RetainFor, IdentifyFor,
// MaxStale or MaxSkew is rolled out, all replicas use the longest value, until
// no replica has used it for two days and MaxStale. The values of a VerifyOnly
// replica are not used by others, since it writes nothing.
//
// SyncEvery, MaxStale, ClientRefresh and MaxSkew are at least 10 ms, all other
// times at least 1 s.
type RingConfig struct {
	// Store keeps the ring's document. Required. A store that is neither a
	// [MemStore] nor a [FileStore] itself must be [Sealed].
	Store Store
	// InsecureUnsealed permits private keys in the clear in a store that may be
	// shared over a network. A process that reads the store can then sign.
	InsecureUnsealed bool
	// Name is the name of the ring's document in the store. One store keeps any
	// number of rings. A sealed key is bound to the name, and cannot be
	// unsealed under another one. The empty string is a name too.
	Name string
	// VerifyOnly is for a replica that never signs. It only reads the store,
	// and does not need the secret with which private keys are sealed. A
	// [FileStore] may then be a mounted file: see there.
	VerifyOnly bool

	// Algorithm is the algorithm of new keys. Empty means ES256. The next key,
	// which is already published, keeps its own: [Ring.Rotate] says how to
	// change the algorithm soon.
	Algorithm Algorithm
	// RotateEvery is how long a key signs. 0 means 30 days.
	RotateEvery time.Duration
	// PublishBefore is how long a key is published before it signs. It must be
	// at least the time after which every verifier has the key: the sum of
	// MaxStale, ClientRefresh, MaxSkew, SyncEvery and the JWKS max-age (see
	// [Ring.MaxAge]). 0 means 24 h.
	PublishBefore time.Duration
	// RetainFor is how long a key is kept after its last signature: at least
	// the longest time in which one of its tokens may be verified or renewed,
	// and at most 25 times RotateEvery. 0 means 24 h.
	RetainFor time.Duration
	// IdentifyFor is how long the public half of a key is kept, unpublished,
	// after its last signature, for [Ring.IdentifyKey] alone. It should be the
	// issuer's MaxSession, since a token of the key may be presented to sign
	// out for that long. A value below RetainFor counts as RetainFor. 0 means
	// RetainFor.
	IdentifyFor time.Duration
	// Revoked reports whether a key was revoked outside of the ring, such as in
	// a list of revocations. It must do no I/O. The ring no longer publishes or
	// uses a key for which it returns true, and revokes the key in the store
	// too. Optional.
	Revoked func(kid string) bool

	// SyncEvery is the longest time between two readings of the store while it
	// answers. Every replica knows of a change after that time. The limit of
	// one reading is half of SyncEvery, but at least 2 s and at most 10 s. 0
	// means 1 min.
	SyncEvery time.Duration
	// MaxStale is how long a replica uses its keys without a reading of the
	// store. After that it neither signs nor verifies, since keys may have been
	// revoked. 0 means 12 h.
	MaxStale time.Duration
	// ClientRefresh is how long verifiers that fetch the JWKS may use a key set
	// beyond its max-age. 0 means 2 h, which the gateways of the large clouds
	// need.
	ClientRefresh time.Duration
	// MaxSkew is how far a replica's clock may be from the store's or, if the
	// store has no clock, from another replica's. A replica whose clock is
	// further from the store's changes nothing in the ring. 0 means 1 min.
	MaxSkew time.Duration

	// Logger gets a line when the store fails and when it answers again, when
	// the ring cannot be changed or a key cannot sign, and when a key begins to
	// sign. Nil means slog.Default().
	Logger *slog.Logger
	// OnEvent gets an event when another key becomes current and when a key was
	// revoked, here or at another replica: see [event.Func]. The first reading
	// of the store is none. Optional.
	OnEvent event.Func
}

func (cfg *RingConfig) setDefaults() error {
	if arg.IsNil(cfg.Store) {
		return errors.New("keys: RingConfig.Store is required")
	}
	sealed, isSealed := cfg.Store.(*sealedStore)
	switch {
	case isSealed && (arg.IsNil(sealed.Store) || arg.IsNil(sealed.aead)):
		return errors.New("keys: RingConfig.Store is sealed, but without a store or an AEAD")
	case !isSealed && !isLocal(cfg.Store) && !cfg.InsecureUnsealed && !cfg.VerifyOnly:
		return errors.New("keys: RingConfig.Store may be shared over a network and is not Sealed; set InsecureUnsealed to keep private keys in the clear all the same")
	}
	if cfg.VerifyOnly {
		cfg.Store = readOnly(cfg.Store)
	}
	if len(cfg.Name) > maxName || !utf8.ValidString(cfg.Name) || strings.ContainsRune(cfg.Name, 0) {
		return fmt.Errorf("keys: RingConfig.Name must be valid UTF-8 of at most %d bytes, without a NUL", maxName)
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = ES256
	}
	if !cfg.Algorithm.valid() {
		return fmt.Errorf("keys: RingConfig.Algorithm: %q is not offered", string(cfg.Algorithm))
	}
	for _, d := range []struct {
		name        string
		field       *time.Duration
		zero, least time.Duration
	}{
		{"RotateEvery", &cfg.RotateEvery, 30 * 24 * time.Hour, time.Second},
		{"PublishBefore", &cfg.PublishBefore, 24 * time.Hour, time.Second},
		{"RetainFor", &cfg.RetainFor, 24 * time.Hour, time.Second},
		{"IdentifyFor", &cfg.IdentifyFor, 1, time.Second},
		{"SyncEvery", &cfg.SyncEvery, time.Minute, least},
		{"MaxStale", &cfg.MaxStale, 12 * time.Hour, least},
		{"ClientRefresh", &cfg.ClientRefresh, 2 * time.Hour, least},
		{"MaxSkew", &cfg.MaxSkew, time.Minute, least},
	} {
		if err := arg.Duration("keys: RingConfig."+d.name, *d.field, d.least); err != nil {
			return err
		}
		if *d.field > maxDuration {
			return fmt.Errorf("keys: RingConfig.%s is %v; it must not exceed %v", d.name, *d.field, maxDuration)
		}
		if *d.field == 0 {
			*d.field = d.zero
		}
	}
	if cfg.SyncEvery >= cfg.MaxStale {
		return fmt.Errorf("keys: RingConfig.SyncEvery is %v; it must be less than MaxStale, which is %v", cfg.SyncEvery, cfg.MaxStale)
	}
	if unseen := cfg.MaxStale + cfg.ClientRefresh + cfg.MaxSkew + cfg.SyncEvery; cfg.PublishBefore < unseen {
		return fmt.Errorf("keys: RingConfig.PublishBefore is %v; verifiers may not know a key for MaxStale + ClientRefresh + MaxSkew + SyncEvery, which is %v", cfg.PublishBefore, unseen)
	}
	if cfg.RotateEvery < cfg.PublishBefore+cfg.SyncEvery {
		return fmt.Errorf("keys: RingConfig.RotateEvery is %v; a key could not be published for PublishBefore (%v, and SyncEvery) before its turn", cfg.RotateEvery, cfg.PublishBefore)
	}
	if most := cfg.RotateEvery * (maxKeys / 2); cfg.RetainFor > most {
		return fmt.Errorf("keys: RingConfig.RetainFor is %v; with RotateEvery of %v it must not exceed %v, or the ring would hold too many keys", cfg.RetainFor, cfg.RotateEvery, most)
	}
	cfg.IdentifyFor = max(cfg.IdentifyFor, cfg.RetainFor)
	if cfg.IdentifyFor/maxIdentified > cfg.RotateEvery {
		return fmt.Errorf("keys: RingConfig.IdentifyFor is %v; with RotateEvery of %v it must not exceed %v, or the ring would hold too many keys", cfg.IdentifyFor, cfg.RotateEvery, maxIdentified*cfg.RotateEvery)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return nil
}

// storeTimeout returns the limit of one reading or write of the store.
func (cfg *RingConfig) storeTimeout() time.Duration {
	return max(min(cfg.SyncEvery/2, 10*time.Second), maxWait)
}
