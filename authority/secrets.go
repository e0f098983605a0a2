package authority

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/keys"
)

// The uses of the secrets. Each has a key of its own.
const (
	useKeys    = "keys"    // AES-256-GCM over private keys
	useRefresh = "refresh" // package refresh derives its own keys from this
	useState   = "state"   // package sessiontoken derives the keys of sealed fields from this
)

// checkSecrets checks the secrets. An error names a secret by its index, and
// never holds one.
func checkSecrets(secrets [][]byte) error {
	if len(secrets) == 0 {
		return errors.New("authority: Config.Secrets is required, unless Store is Memory(): at least 32 random bytes, the same on every replica, such as 'openssl rand -base64 32' prints")
	}
	return arg.Secrets("authority: Config.Secrets", secrets)
}

// derive returns 32 bytes of each secret for one use by one issuer (HKDF with
// SHA-256, RFC 5869).
func derive(secrets [][]byte, issuer, use string) (derived [][]byte, err error) {
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "sessiontoken authority 1\x00"+use+"\x00"+issuer, 32)
		if err != nil {
			return nil, fmt.Errorf("authority: Config.Secrets: %w", err)
		}
		derived = append(derived, key)
	}
	return derived, nil
}

// sealing returns the AEAD that seals the private keys.
func (cfg *Config[T]) sealing() (keys.AEAD, error) {
	if cfg.Seal != nil {
		return cfg.Seal, nil
	}
	derived, err := derive(cfg.Secrets, cfg.Issuer, useKeys)
	if err != nil {
		return nil, err
	}
	return keys.NewAESGCM(derived...)
}
