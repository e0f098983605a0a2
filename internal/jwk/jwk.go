// Package jwk reads and writes public verification keys as JSON Web Keys and
// JWK Sets (RFC 7517, RFC 7518 section 6, RFC 8037 section 2).
//
// It knows four algorithms: ES256, EdDSA with Ed25519, PS256 and RS256. It
// never reads or writes a private or symmetric key. Reading is strict: a key
// has one accepted spelling for each value, and a document with anything
// secret in it is refused whole.
//
// The content of a document does not show who published it: trust comes from
// where it was fetched. Certificate members (x5c, x5u, x5t) are not read.
package jwk

import (
	"crypto"
	_ "crypto/sha256" // Thumbprint hashes with SHA-256.
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf8"

	jwxjwk "github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxKeys is the largest number of elements in one JWK Set, usable or not.
const MaxKeys = 100

const (
	maxKeyIDBytes = 128
)

// The errors of this package. Their texts never hold key material.
var (
	// ErrMalformed is returned for a document that is not one strict JSON
	// text (RFC 8259 with unique names and valid UTF-8), is nested deeper
	// than 16 levels, or has not the shape of a JWK or a JWK Set.
	ErrMalformed = errors.New("jwk: malformed document")
	// ErrUnusable is returned for one key that cannot be used: its type,
	// use, algorithm, key id or value is missing, unknown, weak or not in
	// the one accepted spelling. ParseSet skips such keys instead.
	ErrUnusable = errors.New("jwk: unusable key")
	// ErrPrivate is returned when a document holds a private or symmetric
	// key. Its publisher must treat that key as leaked.
	ErrPrivate = errors.New("jwk: private or symmetric key material")
	// ErrDuplicateKeyID is returned when two keys to write have one key id.
	ErrDuplicateKeyID = errors.New("jwk: duplicate key id")
	// ErrEmpty is returned for a set without a usable key.
	ErrEmpty = errors.New("jwk: no usable key")
	// ErrTooManyKeys is returned for a set of more than MaxKeys elements.
	ErrTooManyKeys = errors.New("jwk: too many keys")
)

// Key is one public verification key read from, or written to, a JWK.
type Key struct {
	// KeyID is the kid member (RFC 7517 section 4.5): 1 to 128 bytes of
	// valid UTF-8.
	KeyID string
	// Algorithm is the alg member: "ES256", "EdDSA", "PS256" or "RS256".
	// The name "Ed25519" of RFC 9864 is read as "EdDSA" and never written.
	Algorithm string
	// Public is an *ecdsa.PublicKey on P-256, an ed25519.PublicKey or an
	// *rsa.PublicKey. What Parse and ParseSet return is not shared.
	Public crypto.PublicKey
}

// publicJWK holds every member that can be written, in the order in which
// they are written.
type publicJWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv,omitzero"`
	X   string `json:"x,omitzero"`
	Y   string `json:"y,omitzero"`
	N   string `json:"n,omitzero"`
	E   string `json:"e,omitzero"`
	Kid string `json:"kid,omitzero"`
	Use string `json:"use,omitzero"`
	Alg string `json:"alg,omitzero"`
}

// Thumbprint returns the RFC 7638 thumbprint of pub with SHA-256, in
// base64url without padding (for Ed25519 as in RFC 8037 appendix A.3). It
// accepts the key types of [Key] and returns an error that matches
// [ErrUnusable] for a key that CheckPublic refuses.
//
// A thumbprint names a key. It does not prove that the private key exists.
func Thumbprint(pub crypto.PublicKey) (string, error) {
	alg, err := algorithmOf(pub)
	if err != nil {
		return "", err
	}
	if err := CheckPublic(alg, pub); err != nil {
		return "", err
	}
	k, err := jwxjwk.FromRaw(pub)
	if err != nil {
		return "", fmt.Errorf("%w: cannot be represented", ErrUnusable)
	}
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("%w: cannot be hashed", ErrUnusable)
	}
	return base64.RawURLEncoding.EncodeToString(sum), nil
}

// Marshal writes k as one public JWK (RFC 7517 section 4). The only members
// it can write are kty, crv, x, y, n, e, kid, use (always "sig") and alg, in
// that order. What it returns is accepted by [Parse] and gives the same key.
//
// It returns an error that matches [ErrUnusable] if the key id is not 1 to
// 128 bytes of valid UTF-8, or if CheckPublic refuses the key; private keys
// are among those.
func Marshal(k Key) ([]byte, error) {
	if err := checkKeyID(k.KeyID); err != nil {
		return nil, err
	}
	if err := CheckPublic(k.Algorithm, k.Public); err != nil {
		return nil, err
	}
	raw, err := jwxjwk.FromRaw(k.Public)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be represented", ErrUnusable)
	}
	encoded, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be encoded", ErrUnusable)
	}
	var out publicJWK
	if err := json.Unmarshal(encoded, &out); err != nil {
		return nil, fmt.Errorf("%w: cannot be encoded", ErrUnusable)
	}
	out.Kid, out.Use, out.Alg = k.KeyID, "sig", k.Algorithm
	data, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be encoded", ErrUnusable)
	}
	// A key is written only if it is read back as the same key.
	back, err := Parse(data)
	if err != nil || back.KeyID != k.KeyID || back.Algorithm != k.Algorithm || !equal(back.Public, k.Public) {
		return nil, fmt.Errorf("%w: does not survive encoding", ErrUnusable)
	}
	return data, nil
}

// MarshalSet writes keys as a JWK Set, {"keys":[...]} (RFC 7517 section 5),
// in the given order.
//
// It returns [ErrEmpty] for no keys, [ErrTooManyKeys] for more than MaxKeys,
// [ErrDuplicateKeyID] when two keys have one key id, and the error of
// [Marshal] for a key that cannot be written.
func MarshalSet(keys []Key) ([]byte, error) {
	if len(keys) == 0 {
		return nil, ErrEmpty
	}
	if len(keys) > MaxKeys {
		return nil, ErrTooManyKeys
	}
	seen := make(map[string]struct{}, len(keys))
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	for i, k := range keys {
		if _, dup := seen[k.KeyID]; dup {
			return nil, ErrDuplicateKeyID
		}
		seen[k.KeyID] = struct{}{}
		data, err := Marshal(k)
		if err != nil {
			return nil, fmt.Errorf("jwk: key %d of the set: %w", i, err)
		}
		set.Keys = append(set.Keys, data)
	}
	data, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("%w: set cannot be encoded", ErrUnusable)
	}
	return data, nil
}

func checkKeyID(kid string) error {
	if len(kid) == 0 || len(kid) > maxKeyIDBytes || !utf8.ValidString(kid) {
		return fmt.Errorf("%w: key id must be 1 to %d bytes of valid UTF-8", ErrUnusable, maxKeyIDBytes)
	}
	return nil
}

// equal reports whether a and b are the same public key.
func equal(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
