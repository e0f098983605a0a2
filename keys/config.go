package keys

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken/internal/arg"
)

// maxDuration keeps sums of times from overflowing.
const maxDuration = 10 * 365 * 24 * time.Hour

// maxName is how many bytes the name of a document may have.
const maxName = 256

// maxIdentified is how many retired keys a ring may keep for IdentifyFor; well
// under what a document may hold.
const maxIdentified = 400

// RingConfig says how a [Ring] rotates. All replicas that share a store should
// be configured alike. While a change of times is rolled out, the longer of
// PublishBefore, RetainFor, IdentifyFor, MaxStale and MaxSkew hold for all, until
// no replica has used them for two days and its MaxStale. Those of a VerifyOnly
// replica do not count, since it writes nothing.
type RingConfig struct {
	// Store is where the ring is kept. Required. A store that is neither a
	// [MemStore] nor a [FileStore] must be [Sealed].
	Store Store
	// InsecureUnsealed permits a store that may be shared over a network to
	// hold private keys in the clear: a process that reads it can sign.
	InsecureUnsealed bool
	// Name is the name of the ring's document in the store, so that one store
	// keeps any number of rings. A sealed key is bound to it and cannot be moved
	// to another name. The empty string is a name too.
	Name string
	// VerifyOnly is for a replica that never signs: it only reads the store, and
	// the private keys may be sealed with a secret it does not have.
	VerifyOnly bool

	// Algorithm is that of the keys made from now on. Empty means ES256.
	Algorithm Algorithm
	// RotateEvery is how long a key signs. 0 means 30 days.
	RotateEvery time.Duration
	// PublishBefore is how long a key is published before it signs. It must
	// cover the time in which verifiers may not have seen it: MaxStale,
	// ClientRefresh, MaxSkew and SyncEvery together, and the JWKS max-age (see
	// [Ring.MaxAge]). 0 means 24 h.
	PublishBefore time.Duration
	// RetainFor is how long a key is kept after its last signature: at least
	// the longest time in which one of its tokens may be verified or renewed,
	// and at most 25 times RotateEvery. 0 means 24 h.
	RetainFor time.Duration
	// IdentifyFor is how long the public half of a key is kept, unpublished,
	// after its last signature, for [Ring.IdentifyKey] alone: as long as a token
	// of it may be presented to sign out, which is the issuer's MaxSession. It is
	// never less than RetainFor. 0 means RetainFor.
	IdentifyFor time.Duration
	// Revoked reports whether a key was revoked elsewhere, such as in a list of
	// revocations. It must answer from memory. A key for which it returns true is
	// no longer published nor signs, and is revoked in the store too. Nil means
	// that no key was.
	Revoked func(kid string) bool

	// SyncEvery is the longest time between two readings of the store while it
	// answers: every replica knows of a change by then. One reading may take half
	// of it, at least 2 s and never more than 10 s. 0 means 1 min.
	SyncEvery time.Duration
	// MaxStale is how long a replica goes on without having read the store:
	// after that it neither signs nor verifies, since keys may have been
	// revoked. 0 means 12 h.
	MaxStale time.Duration
	// ClientRefresh is how long the verifiers that fetch the JWKS may keep a
	// key set beyond its max-age. 0 means 2 h, which the gateways of the large
	// clouds need.
	ClientRefresh time.Duration
	// MaxSkew is how far a replica's clock may be from the store's, where the
	// store has one, and from any other replica's where it has none. A replica
	// that is further off changes nothing in the ring. 0 means 1 min.
	MaxSkew time.Duration

	// Logger is told when the store fails and recovers, when something keeps the
	// ring from changing or a key from signing, and when a key begins to sign.
	// Nil means slog.Default().
	Logger *slog.Logger
}

func (cfg *RingConfig) setDefaults() error {
	if arg.IsNil(cfg.Store) {
		return errors.New("keys: RingConfig.Store is required")
	}
	switch s := cfg.Store.(type) {
	case *sealedStore:
		if s.Store == nil || s.aead == nil {
			return errors.New("keys: RingConfig.Store is sealed, but without a store or an AEAD")
		}
	case *MemStore, *FileStore: // by their types: what wraps one may be shared over a network
	default:
		if !cfg.InsecureUnsealed && !cfg.VerifyOnly {
			return errors.New("keys: RingConfig.Store may be shared over a network and is not Sealed; set InsecureUnsealed to keep private keys in the clear all the same")
		}
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
		name  string
		field *time.Duration
		zero  time.Duration
	}{
		{"RotateEvery", &cfg.RotateEvery, 30 * 24 * time.Hour},
		{"PublishBefore", &cfg.PublishBefore, 24 * time.Hour},
		{"RetainFor", &cfg.RetainFor, 24 * time.Hour},
		{"IdentifyFor", &cfg.IdentifyFor, 1},
		{"SyncEvery", &cfg.SyncEvery, time.Minute},
		{"MaxStale", &cfg.MaxStale, 12 * time.Hour},
		{"ClientRefresh", &cfg.ClientRefresh, 2 * time.Hour},
		{"MaxSkew", &cfg.MaxSkew, time.Minute},
	} {
		if *d.field < 0 || *d.field > maxDuration {
			return fmt.Errorf("keys: RingConfig.%s is %v; it must be from 0 to %v", d.name, *d.field, maxDuration)
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

// storeTimeout bounds one reading of the store, and one write.
func (cfg *RingConfig) storeTimeout() time.Duration {
	return max(min(cfg.SyncEvery/2, 10*time.Second), maxWait)
}
