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

// document is the stored form of a ring. Replicas of different releases may
// share one: members and keys that a release does not know are kept unchanged,
// and a version that it does not know is an error.
type document struct {
	Version int       `json:"version"`
	Ring    string    `json:"ring"`   // random, made with the first document
	Made    time.Time `json:"made"`   // when that was
	Serial  int64     `json:"serial"` // grows with each write

	Keys    []documentKey  `json:"keys"`              // by SignsFrom; their windows do not overlap
	Retired []documentKey  `json:"retired,omitempty"` // without private halves: published until KeptUntil, then kept to be identified
	Revoked []revokedKey   `json:"revoked,omitempty"`
	Times   []configTimes  `json:"times,omitempty"` // of the replicas that may use this document
	Unknown jsontext.Value `json:",embed"`

	bereft bool // its current key was removed, since it is revoked
}

const documentVersion = 1

// documentKey is one key. Its phase depends on the time alone, so that no
// replica needs the store when the phase changes.
type documentKey struct {
	Public  jsontext.Value `json:"jwk"`
	Private []byte         `json:"private,omitempty"` // PKCS #8, sealed or not; empty once destroyed
	Sealed  bool           `json:"sealed,omitempty"`

	Published  time.Time `json:"published"`   // when it entered the document
	SignsFrom  time.Time `json:"signs_from"`  // next becomes current
	SignsUntil time.Time `json:"signs_until"` // current becomes retired
	KeptUntil  time.Time `json:"kept_until"`  // retired becomes gone

	Unknown jsontext.Value `json:",embed"`

	id       string
	public   *PublicKey // nil for a key that this release cannot use
	restored bool       // written back, since the store lacked it
}

// revokedKey records a revocation, so that the key is never used again.
type revokedKey struct {
	KeyID   string         `json:"kid"`
	Until   time.Time      `json:"until"`
	Unknown jsontext.Value `json:",embed"`
}

// configTimes are the times of one configuration, in nanoseconds.
type configTimes struct {
	PublishBefore int64          `json:"publish_before"`
	RetainFor     int64          `json:"retain_for"`
	IdentifyFor   int64          `json:"identify_for"`
	Unseen        int64          `json:"unseen"`
	MaxSkew       int64          `json:"max_skew"`
	Until         time.Time      `json:"until"` // when no replica uses them any more, unless it is renewed
	Unknown       jsontext.Value `json:",embed"`
}

func (t configTimes) same(o configTimes) bool {
	return t.PublishBefore == o.PublishBefore && t.RetainFor == o.RetainFor && t.IdentifyFor == o.IdentifyFor &&
		t.Unseen == o.Unseen && t.MaxSkew == o.MaxSkew
}

// signsAt reports whether the key is current at t.
func (k *documentKey) signsAt(t time.Time) bool {
	return !t.Before(k.SignsFrom) && t.Before(k.SignsUntil)
}

// retired returns the key without its private half.
func (k documentKey) retired() documentKey {
	k.Private, k.Sealed = nil, false
	return k
}

func (d *document) clone() *document {
	c := *d
	c.Keys = slices.Clone(d.Keys)
	c.Retired = slices.Clone(d.Retired)
	c.Revoked = slices.Clone(d.Revoked)
	c.Times = slices.Clone(d.Times)
	return &c
}

// find returns the key with that id, retired or not, or nil.
func (d *document) find(kid string) *documentKey {
	for _, list := range [][]documentKey{d.Keys, d.Retired} {
		for i := range list {
			if list[i].id == kid {
				return &list[i]
			}
		}
	}
	return nil
}

func (d *document) hasRevoked(kid string) bool {
	return slices.ContainsFunc(d.Revoked, func(r revokedKey) bool { return r.KeyID == kid })
}

func (d *document) encode() ([]byte, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, errors.New("keys: the ring's document cannot be encoded")
	}
	return b, nil
}

// maxSerial is more than the number of writes of any ring, and far from an
// overflow.
const maxSerial = 1 << 60

// maxRetired is how many retired keys a document may hold.
const maxRetired = 1000

// decodeDocument decodes a stored document. An absent one gives an empty
// document. An error names the fault and holds nothing of the document, which
// has secrets.
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
	if len(d.Keys) == 0 || len(d.Keys) > jwk.MaxKeys || len(d.Retired) > maxRetired || d.Serial < 1 || d.Serial > maxSerial || d.Ring == "" {
		return nil, errors.New("keys: the stored document holds no usable list of keys")
	}
	seen := make(map[string]bool, len(d.Keys)+len(d.Retired))
	for _, list := range [][]documentKey{d.Keys, d.Retired} {
		for i := range list {
			k := &list[i]
			if err := k.parse(); err != nil {
				return nil, fmt.Errorf("keys: key %d of the stored document: %w", i, err)
			}
			if seen[k.id] {
				return nil, errors.New("keys: the stored document has two keys with one id")
			}
			seen[k.id] = true
			if !k.SignsFrom.Before(k.SignsUntil) || k.KeptUntil.Before(k.SignsUntil) {
				return nil, fmt.Errorf("keys: the times of key %d of the stored document are out of order", i)
			}
		}
	}
	for i := 1; i < len(d.Keys); i++ {
		if d.Keys[i].SignsFrom.Before(d.Keys[i-1].SignsUntil) {
			return nil, fmt.Errorf("keys: the times of key %d of the stored document are out of order", i)
		}
	}
	return &d, nil
}

// parse reads the public half. Of a key that this release cannot use, it reads
// the id alone.
func (k *documentKey) parse() error {
	parsed, err := jwk.Parse(k.Public)
	if err == nil {
		k.id = parsed.KeyID
		k.public = &PublicKey{id: parsed.KeyID, alg: Algorithm(parsed.Algorithm), key: parsed.Public}
		return nil
	}
	var id struct {
		KeyID string `json:"kid"`
	}
	if !errors.Is(err, jwk.ErrUnusable) || json.Unmarshal(k.Public, &id) != nil || id.KeyID == "" {
		return err
	}
	k.id = id.KeyID
	return nil
}

// published returns the keys that are published at m, in the order in which
// they sign.
func (d *document) published(m moment) []*documentKey {
	kept := func(k *documentKey) bool {
		return k.public != nil && (!m.destroy || m.now.Before(k.KeptUntil))
	}
	var list []*documentKey
	for i := range d.Keys {
		if kept(&d.Keys[i]) {
			list = append(list, &d.Keys[i])
		}
	}
	room := jwk.MaxKeys - len(list)
	for i := len(d.Retired) - 1; i >= 0 && room > 0; i-- {
		if kept(&d.Retired[i]) && m.now.Before(d.Retired[i].KeptUntil) {
			list = append(list, &d.Retired[i])
			room--
		}
	}
	slices.SortStableFunc(list, func(a, b *documentKey) int { return a.SignsFrom.Compare(b.SignsFrom) })
	return list
}

// set returns the set of the keys that are published at m, or nil if there are
// none.
func (d *document) set(m moment) (*Set, error) {
	list := d.published(m)
	if len(list) == 0 {
		return nil, nil
	}
	pub := make([]*PublicKey, len(list))
	for i, k := range list {
		pub[i] = k.public
	}
	return NewSet(pub...)
}

// newDocumentKey makes a key without times.
func newDocumentKey(alg Algorithm, ring string, seal *sealedStore) (documentKey, error) {
	key, err := GenerateKey(alg)
	if err != nil {
		return documentKey{}, err
	}
	pub := key.Public()
	secret, err := x509.MarshalPKCS8PrivateKey(key.signer)
	if err != nil {
		return documentKey{}, errors.New("keys: the private key cannot be encoded")
	}
	k := documentKey{Private: secret, id: pub.id, public: pub}
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

// secret returns the private half in the clear. A sealed ring accepts an
// unsealed one too, and seals it when it writes the document next.
func (k *documentKey) secret(ring string, seal *sealedStore) ([]byte, error) {
	if !k.Sealed {
		return k.Private, nil
	}
	if seal == nil {
		return nil, errors.New("keys: the stored private key is sealed, and the ring's store is not")
	}
	return seal.unseal(ring, k.id, k.public.alg, k.Private)
}

// signingKey returns the key with its private half. It fails unless the two
// halves belong together.
func (k *documentKey) signingKey(ring string, seal *sealedStore) (*SigningKey, error) {
	secret, err := k.secret(ring, seal)
	if err != nil {
		return nil, err
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
