package keys

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/jwk"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// document is what a ring keeps in its store. Replicas of different versions
// may share one, so members that are not known are ignored and a version that
// is not known is refused.
type document struct {
	Version int           `json:"version"`
	Serial  int64         `json:"serial"` // grows with each write: of two documents, the higher is the newer
	Keys    []documentKey `json:"keys"`   // by SignsFrom; their windows do not overlap
	Revoked []revokedKey  `json:"revoked,omitempty"`
}

const documentVersion = 1

// documentKey is one key. Its phase follows from the time alone, so that every
// replica knows beforehand when it changes, and none needs the store then.
type documentKey struct {
	Public  jsontext.Value `json:"jwk"`
	Private []byte         `json:"private,omitempty"` // PKCS #8, sealed or not; empty once destroyed
	Sealed  bool           `json:"sealed,omitempty"`

	Published  time.Time `json:"published"`   // when it entered the document
	SignsFrom  time.Time `json:"signs_from"`  // it is next before,
	SignsUntil time.Time `json:"signs_until"` // current until, and then retired
	KeptUntil  time.Time `json:"kept_until"`  // and then gone

	public *PublicKey
}

// revokedKey remembers a revocation, so that repeating it is not an error.
type revokedKey struct {
	KeyID string    `json:"kid"`
	Until time.Time `json:"until"`
}

// signsAt says whether t is in the key's window.
func (k *documentKey) signsAt(t time.Time) bool {
	return !t.Before(k.SignsFrom) && t.Before(k.SignsUntil)
}

func (d *document) clone() *document {
	c := *d
	c.Keys = slices.Clone(d.Keys)
	c.Revoked = slices.Clone(d.Revoked)
	return &c
}

func (d *document) encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, errors.New("keys: the ring's document cannot be encoded")
	}
	return b, nil
}

// decodeDocument reads a stored document; an absent one is empty. Its errors
// say what is wrong and hold nothing of the document, which has secrets.
func decodeDocument(raw []byte) (*document, error) {
	if raw == nil {
		return &document{Version: documentVersion}, nil
	}
	var d document
	if strictjson.TooDeep(raw) || json.Unmarshal(raw, &d) != nil {
		return nil, errors.New("keys: the stored document is not a ring's; restore it from a backup, or name another place in the store (it is left as it is)")
	}
	if d.Version != documentVersion {
		return nil, fmt.Errorf("keys: the stored document has version %d, and this program reads version %d: use a release that reads it", d.Version, documentVersion)
	}
	if len(d.Keys) == 0 || len(d.Keys) > jwk.MaxKeys || d.Serial < 1 {
		return nil, errors.New("keys: the stored document holds no usable list of keys")
	}
	for i := range d.Keys {
		k := &d.Keys[i]
		parsed, err := jwk.Parse(k.Public)
		if err != nil {
			return nil, fmt.Errorf("keys: key %d of the stored document: %w", i, err)
		}
		k.public = &PublicKey{id: parsed.KeyID, alg: Algorithm(parsed.Algorithm), key: parsed.Public}
		if !k.SignsFrom.Before(k.SignsUntil) || k.KeptUntil.Before(k.SignsUntil) ||
			i > 0 && k.SignsFrom.Before(d.Keys[i-1].SignsUntil) {
			return nil, fmt.Errorf("keys: the times of key %d of the stored document are out of order", i)
		}
	}
	return &d, nil
}

// set returns the published keys.
func (d *document) set() (*Set, error) {
	pub := make([]*PublicKey, len(d.Keys))
	for i := range d.Keys {
		pub[i] = d.Keys[i].public
	}
	return NewSet(pub...)
}

// newDocumentKey makes a key that has no times yet.
func newDocumentKey(alg Algorithm, ring string, seal *sealedStore) (documentKey, error) {
	key, err := GenerateKey(alg)
	if err != nil {
		return documentKey{}, err
	}
	pub := key.Public()
	secret, err := x509.MarshalPKCS8PrivateKey(key.Signer())
	if err != nil {
		return documentKey{}, errors.New("keys: the private key cannot be encoded")
	}
	k := documentKey{Private: secret, public: pub}
	if seal != nil {
		if k.Private, err = seal.seal(ring, pub.id, alg, secret); err != nil {
			return documentKey{}, err
		}
		k.Sealed = true
	}
	if k.Public, err = jwk.Marshal(jwk.Key{KeyID: pub.id, Algorithm: string(alg), Public: pub.key}); err != nil {
		return documentKey{}, fmt.Errorf("keys: %w", err)
	}
	return k, nil
}

// signingKey returns the key with its private half, which must be that of its
// public one.
func (k *documentKey) signingKey(ring string, seal *sealedStore) (*SigningKey, error) {
	if k.Sealed != (seal != nil) {
		return nil, errors.New("keys: the stored private key is sealed and the ring's store is not, or the reverse")
	}
	secret := k.Private
	if seal != nil {
		var err error
		if secret, err = seal.unseal(ring, k.public.id, k.public.alg, k.Private); err != nil {
			return nil, err
		}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(secret)
	if err != nil {
		return nil, errors.New("keys: the stored private key is malformed")
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok || !sameKey(k.public.key, signer.Public()) {
		return nil, errors.New("keys: the stored private key is not that of its public key")
	}
	key, err := NewSigningKey(k.public.alg, signer)
	if err != nil {
		return nil, err
	}
	key.public = k.public
	return key, nil
}
