package sessiontoken

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/internal/sid"
)

// Group is what else a session belongs to beside its subject, such as a session
// of the provider where the user signed in. The groups of a session are a part
// of its id, so that all its tokens and refresh tokens have them, and
// [revoke.List.RevokeGroup] revokes all sessions of one. [GroupOf] makes one: 16
// base64url characters.
type Group string

// GroupOf returns the group for a value, such as the sid of a provider's session,
// of an issuer, such as the provider. label keeps values of two kinds apart. The
// group is the first 96 bits of SHA-256 over the three, each after its length in
// 8 bytes, big-endian: any server computes the same. It is readable in every
// token of the session, as a digest.
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
