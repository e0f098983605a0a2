// Package derive derives keys from the secrets of an authority, for package
// authority and for the command.
package derive

import (
	"crypto/hkdf"
	"crypto/sha256"
)

// UseKeys is the use of the AES-256-GCM key that seals private keys.
const UseKeys = "keys"

// Keys returns 32 bytes of each secret for one use by one issuer (HKDF with
// SHA-256, RFC 5869).
func Keys(secrets [][]byte, issuer, use string) (derived [][]byte, err error) {
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "sessiontoken authority 1\x00"+use+"\x00"+issuer, 32)
		if err != nil {
			return nil, err
		}
		derived = append(derived, key)
	}
	return derived, nil
}
