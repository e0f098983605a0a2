package keys

import (
	"encoding/binary"
	"errors"
)

// Sealed returns the store for a [Ring] whose private keys are encrypted with
// aead before they reach store: [NewAESGCM], or any AEAD with tink's method
// set, such as one backed by a KMS. Each private key is bound to the name of
// its ring, its id and its algorithm as associated data, so that it cannot be
// moved to another place. Public halves and times stay readable: a replica that
// only verifies (RingConfig.VerifyOnly) reads store as it is and needs no
// secret.
//
// Sealing keeps private keys secret. It does not keep a process that can write
// to the store from adding a public key of its own. Guard writes to the store as
// the keys themselves.
//
// An unsealed ring becomes a sealed one by this alone: what is in the clear is
// sealed at the next write, or by [Ring.Reseal]. A sealed ring does not become an
// unsealed one.
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
		// The text of a foreign AEAD is not passed on: it may quote its input.
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
