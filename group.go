package sessiontoken

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/sid"
)

// Group names a set of sessions that can be revoked together, such as all those
// begun by one session at an OpenID provider. [revoke.List.RevokeGroup] revokes
// all sessions of a group. The groups of a session are written into its id, so
// that all its tokens and refresh tokens carry them. A group has 16 base64url
// characters; [GroupOf] makes it.
type Group string

// GroupOf returns the group of a value, such as the sid of a session at an
// OpenID provider. issuer is who gave the value, such as that provider's URL.
// label separates values of different kinds. The group is the first 96 bits of
// SHA-256 over the three strings, each after its length in 8 bytes, big-endian,
// so that every server computes the same. A holder of a token of the session
// can read the group, which is a digest, and not the value.
func GroupOf(label, issuer, value string) Group {
	var room [256]byte
	b := room[:0]
	for _, s := range []string{label, issuer, value} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	return Group(jws.Encode(sum[:sid.GroupSize/4*3]))
}
