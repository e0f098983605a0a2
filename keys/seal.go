package keys

import (
	"encoding/binary"
	"errors"
)

// Sealed returns a store for a [Ring] that encrypts private keys with aead
// before it writes them to store. aead is [NewAESGCM], or any AEAD with the
// methods of tink's, such as one with a KMS. Each private key is bound to the
// name of its ring, its id and its algorithm as associated data, so that it
// cannot be used in another place. Public halves and times are not encrypted: a
// replica that only verifies (RingConfig.VerifyOnly) reads store itself and
// needs no secret.
//
// Sealing keeps private keys secret. A process that can write to the store can
// still add a public key of its own. Protect the right to write to the store as
// well as the keys.
//
// An existing ring can be sealed: private keys in the clear are sealed at the
// next write, or by [Ring.Reseal]. A sealed ring cannot be unsealed.
func Sealed(store Store, aead AEAD) Store { return &sealedStore{Store: store, aead: aead} }

type sealedStore struct {
	Store
	aead AEAD
}

var errUnseal = errors.New("keys: the private key cannot be unsealed: wrong sealing key, or it was changed or moved")

func associatedData(ring, kid string, alg Algorithm) []byte {
	ad := []byte("sessiontoken ring key 1")
	for _, part := range []string{ring, kid, string(alg)} {
		ad = binary.BigEndian.AppendUint32(ad, uint32(len(part)))
		ad = append(ad, part...)
	}
	return ad
}

func (s *sealedStore) seal(ring, kid string, alg Algorithm, secret []byte) ([]byte, error) {
	sealed, err := s.aead.Encrypt(secret, associatedData(ring, kid, alg))
	if err != nil {
		// The text of an AEAD's error is dropped: it may quote the input.
		return nil, errors.New("keys: the private key cannot be sealed")
	}
	return sealed, nil
}

func (s *sealedStore) unseal(ring, kid string, alg Algorithm, sealed []byte) ([]byte, error) {
	secret, err := s.aead.Decrypt(sealed, associatedData(ring, kid, alg))
	if err != nil {
		return nil, errUnseal
	}
	return secret, nil
}
