package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
)

// Set is an immutable set of verification keys by id. A source whose keys
// change returns a new Set, so that data derived from a Set is valid while the
// source returns the same pointer. It is safe for concurrent use.
type Set struct {
	keys []*PublicKey
	byID map[string]*PublicKey
	json func() ([]byte, error)

	skipped []string // of the document that it was read from
}

// NewSet returns the set of the given keys, in that order. No keys, two keys
// with one id, and one key under two algorithms (RFC 8725 section 3.1) are
// errors.
func NewSet(keys ...*PublicKey) (*Set, error) {
	if len(keys) == 0 {
		return nil, errors.New("keys: a set needs at least one key")
	}
	if len(keys) > jwk.MaxKeys {
		return nil, fmt.Errorf("keys: a set holds at most %d keys", jwk.MaxKeys)
	}
	s := &Set{keys: slices.Clone(keys), byID: make(map[string]*PublicKey, len(keys))}
	for i, k := range s.keys {
		if k == nil || k.key == nil {
			return nil, errors.New("keys: a set cannot hold a nil key")
		}
		if s.byID[k.id] != nil {
			return nil, errors.New("keys: two keys with one id")
		}
		for _, o := range s.keys[:i] {
			if o.alg != k.alg && sameKey(o.key, k.key) {
				return nil, errors.New("keys: one key under two algorithms")
			}
		}
		s.byID[k.id] = k
	}
	s.json = sync.OnceValues(s.marshal)
	return s, nil
}

// ParseSet reads a JWK set (RFC 7517 section 5), strictly: duplicate names,
// invalid UTF-8 and trailing data are errors; a byte order mark before it is
// ignored. A document without a usable key, with a private or symmetric key, or
// with more than 100 keys is an error. ParseSet does not check who wrote the
// document.
//
// ParseSet skips these keys, which [Set.Skipped] lists:
//
//   - A key of another type, curve, algorithm or use, malformed or weak.
//   - An RSA key with neither an algorithm nor the use "sig". One with that use
//     and without an algorithm verifies RS256 alone.
//   - All usable keys that share a kid, even if their algorithms differ: the
//     token would choose which of them verifies it. A kid of one usable key and
//     of unusable ones is the usable key's.
//   - A key with two algorithms (RFC 8725 section 3.1): it is not used with
//     either.
//
// The error for a document without a usable key holds the first of these
// reasons.
func ParseSet(data []byte) (*Set, error) {
	parsed, skipped, err := jwk.ParseSet(data)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	pub := make([]*PublicKey, len(parsed))
	for i, k := range parsed {
		pub[i] = &PublicKey{id: k.KeyID, alg: Algorithm(k.Algorithm), key: k.Public}
	}
	s, err := NewSet(pub...)
	if err != nil {
		return nil, err
	}
	s.skipped = skipped
	return s, nil
}

// Skipped returns one text for each key that [ParseSet] has skipped. It has the
// number of the key, at most 40 characters of its kid, quoted, and the reason.
func (s *Set) Skipped() []string { return slices.Clone(s.skipped) }

// Key returns the key with an id, compared as bytes, and reports whether there
// is one.
func (s *Set) Key(kid string) (*PublicKey, bool) {
	k, ok := s.byID[kid]
	return k, ok
}

// Keys returns the keys in their order.
func (s *Set) Keys() []*PublicKey { return slices.Clone(s.keys) }

// Equal reports whether both sets hold the same keys under the same ids and
// algorithms, in any order.
func (s *Set) Equal(o *Set) bool {
	if s == nil || o == nil {
		return s == o
	}
	if len(s.keys) != len(o.keys) {
		return false
	}
	for _, k := range s.keys {
		if p, ok := o.byID[k.id]; !ok || !k.Equal(p) {
			return false
		}
	}
	return true
}

var errZeroSet = errors.New("keys: the Set is a zero value: make it with NewSet or ParseSet")

// MarshalJSON returns the set as a JWK set (RFC 7517 section 5). Each key has
// kid, kty, alg, use "sig" and its public members, and no others.
func (s *Set) MarshalJSON() ([]byte, error) {
	if s.json == nil {
		return nil, errZeroSet
	}
	b, err := s.json()
	return slices.Clone(b), err
}

func (s *Set) marshal() ([]byte, error) {
	out := make([]jwk.Key, len(s.keys))
	for i, k := range s.keys {
		out[i] = jwk.Key{KeyID: k.id, Algorithm: string(k.alg), Public: k.key}
	}
	b, err := jwk.MarshalSet(out)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return b, nil
}

// KeySet returns the set itself, so that a fixed set is a source of keys. It
// ignores the context and the id. For a zero Set it fails.
func (s *Set) KeySet(context.Context, string) (*Set, error) {
	if len(s.keys) == 0 {
		return nil, errZeroSet
	}
	return s, nil
}

// Scheduler is a source of keys whose published set changes on a schedule, such
// as a [Ring]. A wrapper of such a source must have both methods too.
type Scheduler interface {
	// MaxAge returns the longest max-age with which the set may be published,
	// so that every verifier has a key before it signs.
	MaxAge() time.Duration
	// NextChange returns when the published set changes next on schedule, by
	// this machine's clock, or the zero time if that is not known.
	NextChange() time.Time
}

// Identifier is a source of keys that also returns retired keys. They serve to
// check which session the token of a sign-out belongs to, and never to accept a
// token.
type Identifier interface {
	// IdentifyKey returns the key with this id, published or retired. It
	// returns nil and no error if the store has no such key or has it revoked,
	// by a reading that began after the call. It returns an error if the store
	// cannot be read.
	IdentifyKey(ctx context.Context, kid string) (*PublicKey, error)
}

// Static is a source of keys that never changes: one key that signs, and other
// public keys to publish. It is for a key in a KMS or an HSM, and for tests. To
// rotate: publish the new key on all replicas, then make it current, and
// publish the old one until its last token has expired. A [Ring] does that by
// itself.
type Static struct {
	current *SigningKey
	set     *Set
}

// NewStatic returns a source that signs with current and publishes current and
// the keys of also.
func NewStatic(current *SigningKey, also ...*PublicKey) (*Static, error) {
	if current == nil || current.public == nil {
		return nil, errors.New("keys: current is required")
	}
	set, err := NewSet(append([]*PublicKey{current.public}, also...)...)
	if err != nil {
		return nil, err
	}
	return &Static{current: current, set: set}, nil
}

// RetainFor returns 0, which means for ever.
func (s *Static) RetainFor() time.Duration { return 0 }

// KeySet returns the published keys. It does no I/O.
func (s *Static) KeySet(context.Context, string) (*Set, error) {
	if s.set == nil {
		return nil, errZeroStatic
	}
	return s.set, nil
}

// IdentifyKey implements [Identifier]. It returns published keys alone. It does
// no I/O.
func (s *Static) IdentifyKey(_ context.Context, kid string) (*PublicKey, error) {
	if s.set == nil {
		return nil, errZeroStatic
	}
	return s.set.byID[kid], nil
}

// SigningKey returns the key that signs. It does no I/O.
func (s *Static) SigningKey(context.Context) (*SigningKey, error) {
	if s.current == nil {
		return nil, errZeroStatic
	}
	return s.current, nil
}

var errZeroStatic = errors.New("keys: the Static is a zero value: make it with NewStatic")
