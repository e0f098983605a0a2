// Package digest hashes the names of sessions, subjects, groups and keys.
package digest

import (
	"crypto/sha256"
	"encoding/binary"
)

// Of returns the first 128 bits of SHA-256 over a scope and a value, each after
// its length in 8 bytes, big-endian.
func Of(scope, value string) [16]byte {
	var room [256]byte
	b := binary.BigEndian.AppendUint64(room[:0], uint64(len(scope)))
	b = append(b, scope...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(value)))
	b = append(b, value...)
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}
