package authority

import (
	"errors"
	"fmt"

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

// sealing returns the AEAD that seals the private keys.
func (cfg *Config[T]) sealing() (keys.AEAD, error) {
	if cfg.Seal != nil {
		return cfg.Seal, nil
	}
	sealing, err := derived(cfg.Secrets, cfg.Issuer, useKeys)
	if err != nil {
		return nil, err
	}
	return keys.NewAESGCM(sealing...)
}
