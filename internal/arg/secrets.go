package arg

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// MinSecret is how many bytes a secret has at least from which keys are derived.
const MinSecret = 32

// Secrets checks secrets from which keys are derived. name is the package and
// the field for errors, such as "authority: Config.Secrets". An error names a
// secret by its index, and never holds one.
func Secrets(name string, secrets [][]byte) error {
	_, field, _ := strings.Cut(name, ": ")
	seen := make(map[[sha256.Size]byte]int, len(secrets))
	for i, secret := range secrets {
		if len(secret) < MinSecret {
			return fmt.Errorf("%s[%d] has %d bytes; it must have at least %d random ones, such as 'openssl rand -base64 32' prints", name, i, len(secret), MinSecret)
		}
		sum := sha256.Sum256(secret)
		if first, again := seen[sum]; again {
			return fmt.Errorf("%s[%d] is the same as %s[%d]", name, i, field, first)
		}
		seen[sum] = i
	}
	return nil
}
