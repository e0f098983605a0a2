package authority

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/derive"
	"github.com/sessiontoken/sessiontoken/keys"
)

// The uses of the secrets. Each has a key of its own.
const (
	useKeys    = derive.UseKeys // AES-256-GCM over private keys
	useRefresh = "refresh"      // package refresh derives its own keys from this
	useState   = "state"        // package sessiontoken derives the keys of sealed fields from this
)

// checkSecrets checks the secrets. An error names a secret by its index, and
// never holds one.
func checkSecrets(secrets [][]byte) error {
	if len(secrets) == 0 {
		return errors.New("authority: Config.Secrets is required, unless Store is Memory(): at least 32 random bytes, the same on every replica, such as 'openssl rand -base64 32' prints")
	}
	return arg.Secrets("authority: Config.Secrets", secrets)
}

// derived returns 32 bytes of each secret for one use by one issuer.
func derived(secrets [][]byte, issuer, use string) ([][]byte, error) {
	keys, err := derive.Keys(secrets, issuer, use)
	if err != nil {
		return nil, fmt.Errorf("authority: Config.Secrets: %w", err)
	}
	return keys, nil
}

// sealing returns the AEAD that seals the private keys. It also returns, for
// each secret, the id of the sealing key that it makes, unless Config.Seal is
// set.
func (cfg *Config[T]) sealing() (keys.AEAD, []string, error) {
	if cfg.Seal != nil {
		return cfg.Seal, nil, nil
	}
	sealing, err := derived(cfg.Secrets, cfg.Issuer, useKeys)
	if err != nil {
		return nil, nil, err
	}
	var ids []string
	for _, key := range sealing {
		aead, err := keys.NewAESGCM(key)
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, aead.(keys.SealingKeys).CurrentSealingKeyID())
	}
	aead, err := keys.NewAESGCM(sealing...)
	return aead, ids, err
}

// Secrets returns what still needs each of Config.Secrets.
//
// privateKeys has, for each secret, the ids of the private keys in the store
// that are sealed with it, as this replica has read them last: a call of Reseal
// of [Authority.Ring] seals them with the first secret. With Config.Seal it has
// none.
//
// refreshUntil is when the last refresh token that was made with another secret
// than the first has ended, and statesUntil is when the last state with a
// [sessiontoken.Sealed] that was sealed with another one has. Both are by the
// clock of this machine, and count from the call of [New]: replicas that were
// made before, with another order of the secrets, are not known. So the latest
// times of all replicas count, when each has the new order.
//
// A secret, other than the first, can be removed when it seals no private key
// and both times have passed. Secrets does no I/O, and returns no secret.
func (a *Authority[T]) Secrets() (privateKeys [][]string, refreshUntil, statesUntil time.Time) {
	privateKeys = make([][]string, len(a.state))
	for _, key := range a.ring.Status().Keys {
		if i := slices.Index(a.sealers, key.SealingKey); i >= 0 && key.Private {
			privateKeys[i] = append(privateKeys[i], key.KeyID)
		}
	}
	return privateKeys, a.made.Add(a.limits.MaxSession + leeway), a.made.Add(a.limits.IdleTimeout + leeway)
}
