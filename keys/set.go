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

// Set is an immutable set of verification keys, looked up by id. A new pointer
// is a new generation: what was derived from a set holds for as long as the same
// pointer is handed out. It is safe for concurrent use.
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
// ignored. An empty result, a private or symmetric key anywhere and more than
// 100 keys are errors. What it returns says what the document holds, not who
// wrote it.
//
// Keys that cannot be used here are skipped, and [Set.Skipped] tells which:
//
//   - A key of another type, curve, algorithm or use, malformed or weak.
//   - An RSA key that says neither its algorithm nor that it is for signatures.
//     One that says the latter alone (use "sig") verifies RS256 and nothing else.
//   - All usable keys that share a kid, also if their algorithms differ: which of
//     them verifies a token would be for the token to choose. A kid that only one
//     usable key has is that key's.
//   - One key under two algorithms (RFC 8725 section 3.1), under either.
//
// The error for a set without a usable key has the first of these reasons.
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

// Skipped returns one text for each key of the document that [ParseSet] has left
// out: which one it is, with at most 40 characters of its kid, quoted, and the
// reason.
func (s *Set) Skipped() []string { return slices.Clone(s.skipped) }

// Key returns the key with the given id, compared as bytes, and whether there
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
// kid, kty, alg, use "sig" and its public members; nothing else can appear.
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

// KeySet returns the set itself, so that a fixed set is a source of keys. The
// context and the id are not used. Of the zero Set it is an error.
func (s *Set) KeySet(context.Context, string) (*Set, error) {
	if len(s.keys) == 0 {
		return nil, errZeroSet
	}
	return s, nil
}

// Scheduler is a source of keys whose published set changes by a plan, as that of
// a [Ring] does. What wraps such a source keeps the plan only if it has both
// methods.
type Scheduler interface {
	// MaxAge returns the longest time for which a copy of the published set may
	// be used unasked, such that every verifier has a key before it signs.
	MaxAge() time.Duration
	// NextChange returns when the published set will change next by the plan, by
	// this machine's clock, or the zero time if that is not known.
	NextChange() time.Time
}

// Identifier is a source of keys that can also say whose key an old or an
// unknown id was. It serves to find out whose genuine token a sign-out presents,
// and never to accept one.
type Identifier interface {
	// IdentifyKey returns the key with this id, published or retired. It returns
	// nil and no error if, in a reading that began after the call, the store has
	// no such key or has it revoked. It returns an error if that cannot be told.
	IdentifyKey(ctx context.Context, kid string) (*PublicKey, error)
}

// Static is a source of keys that never changes: one key that signs, and the
// public keys to publish beside it. It is how a key held by a KMS or an HSM
// signs, and how tests do. To rotate, publish the new key beside the current
// one everywhere first, then make it current and keep the old one published
// until its last token has ended; a [Ring] does that by itself.
type Static struct {
	current *SigningKey
	set     *Set
}

// NewStatic returns the source whose tokens are signed by current. The keys of
// also are published and verified as well.
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

// RetainFor returns 0: a key is kept for ever.
func (s *Static) RetainFor() time.Duration { return 0 }

// KeySet returns the published keys. It does no I/O.
func (s *Static) KeySet(context.Context, string) (*Set, error) {
	if s.set == nil {
		return nil, errZeroStatic
	}
	return s.set, nil
}

// IdentifyKey implements [Identifier]: a key that is not published is none. It
// does no I/O.
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
