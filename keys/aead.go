package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// AEAD seals small secrets. It has the methods of Tink's tink.AEAD, so that one
// of those, such as one with a KMS, can be used. [NewAESGCM] makes one from key
// bytes. An AEAD that knows the ids of its keys is a [SealingKeys].
//
// Encrypt returns plaintext encrypted and bound to associatedData, which the
// result does not contain. Decrypt returns the plaintext if the ciphertext and
// associatedData are unchanged, and otherwise an error that holds nothing of
// the plaintext. Neither changes or keeps its arguments, and both may be called
// from several goroutines.
//
// A ciphertext that decrypts was made with the key. It may be an old one that
// was put back.
type AEAD interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// SealingKeys is an [AEAD] that knows the ids of its keys, as that of
// [NewAESGCM] does. [Ring.Status] then counts by sealing key, and [Ring.Reseal]
// writes only keys that are sealed with another one. An id is not a secret.
type SealingKeys interface {
	AEAD
	// SealingKeyID returns the id of the key with which a ciphertext was made,
	// even if the AEAD does not have that key. It returns "" if the ciphertext
	// does not hold the id.
	SealingKeyID(ciphertext []byte) string
	// CurrentSealingKeyID returns the id of the key that Encrypt uses.
	CurrentSealingKeyID() string
}

var _ SealingKeys = (*aesGCM)(nil)

// A blob of aesGCM is
//
//	version (1) || key id (4) || nonce (12) || ciphertext || tag (16)
const (
	blobVersion  = 1
	blobIDSize   = 4
	blobHeader   = 1 + blobIDSize
	blobOverhead = blobHeader + 12 + 16

	aesKeySize = 32
)

// errDecrypt is the only error of Decrypt, whatever the fault is.
var errDecrypt = errors.New("keys: decryption failed")

// aesGCM holds pointers, so that a careless %+v prints addresses and not key
// schedules.
type aesGCM struct {
	keys []*aesKey
}

type aesKey struct {
	header [blobHeader]byte // of every blob made with this key
	gcm    cipher.AEAD
}

// NewAESGCM returns AES-256-GCM (NIST SP 800-38D) over a list of 32-byte
// keys: the first encrypts, every one decrypts, so that the sealing key
// itself can rotate. To rotate it, append the new key everywhere, then move it
// to the front everywhere, call [Ring.Reseal] once, and take the old one away when
// [Ring.Status] counts nothing under it any more.
//
// A key is 32 random bytes from a secret manager or from crypto/rand, and never
// a passphrase: every ciphertext holds four bytes of a hash of the key, with
// which an attacker can test a guess. Nonces are random, so that a key is safe
// for 2^32 encryptions. A Ring makes a few in each rotation period.
//
// It is an error if there is no key, if a key does not have 32 bytes, or if
// one is listed twice; the error names its place in the list, counted from 0.
// The slices are not kept and may be cleared afterwards. The key material
// stays in memory for as long as the AEAD is used.
func NewAESGCM(keys ...[]byte) (AEAD, error) {
	if len(keys) == 0 {
		return nil, errors.New("keys: NewAESGCM: keys is empty")
	}
	a := &aesGCM{}
	seen := make(map[[sha256.Size]byte]int, len(keys))
	for i, key := range keys {
		if len(key) != aesKeySize {
			return nil, fmt.Errorf("keys: NewAESGCM: keys[%d] has %d bytes, want %d", i, len(key), aesKeySize)
		}
		sum := keyDigest(key)
		if first, dup := seen[sum]; dup {
			return nil, fmt.Errorf("keys: NewAESGCM: keys[%d] is the same as keys[%d]", i, first)
		}
		seen[sum] = i
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("keys: NewAESGCM: keys[%d]: %w", i, err)
		}
		// Puts a nonce from crypto/rand in front of each ciphertext.
		gcm, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("keys: NewAESGCM: keys[%d]: %w", i, err)
		}
		k := &aesKey{gcm: gcm}
		k.header[0] = blobVersion
		copy(k.header[1:], sum[:blobIDSize])
		a.keys = append(a.keys, k)
	}
	return a, nil
}

// keyDigest returns a hash of a key, whose first bytes are the key's id. The
// label makes it differ from any other hash of the key.
func keyDigest(key []byte) [sha256.Size]byte {
	const label = "sessiontoken/keys: AES-256-GCM key id\x00"
	return sha256.Sum256(append([]byte(label), key...))
}

// additionalData joins the data that is authenticated and not encrypted. Each
// part follows its length, so that no two pairs give the same bytes.
func additionalData(header, associatedData []byte) []byte {
	out := make([]byte, 0, 8+len(header)+8+len(associatedData))
	out = binary.BigEndian.AppendUint64(out, uint64(len(header)))
	out = append(out, header...)
	out = binary.BigEndian.AppendUint64(out, uint64(len(associatedData)))
	return append(out, associatedData...)
}

// Encrypt implements [AEAD] with the first key. It does not fail.
func (a *aesGCM) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	k := a.keys[0]
	blob := make([]byte, 0, blobOverhead+len(plaintext))
	blob = append(blob, k.header[:]...)
	return k.gcm.Seal(blob, nil, plaintext, additionalData(k.header[:], associatedData)), nil
}

// Decrypt implements [AEAD] with each key that the blob names.
func (a *aesGCM) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	if len(ciphertext) < blobOverhead {
		return nil, errDecrypt
	}
	header, sealed := ciphertext[:blobHeader], ciphertext[blobHeader:]
	for _, k := range a.keys {
		if !bytes.Equal(k.header[:], header) {
			continue
		}
		// Another key can have the same id: try it after a failure.
		if plaintext, err := k.gcm.Open(nil, nil, sealed, additionalData(header, associatedData)); err == nil {
			return plaintext, nil
		}
	}
	return nil, errDecrypt
}

// SealingKeyID implements [SealingKeys].
func (a *aesGCM) SealingKeyID(ciphertext []byte) string {
	if len(ciphertext) < blobOverhead || ciphertext[0] != blobVersion {
		return ""
	}
	return hex.EncodeToString(ciphertext[1:blobHeader])
}

// CurrentSealingKeyID implements [SealingKeys].
func (a *aesGCM) CurrentSealingKeyID() string { return hex.EncodeToString(a.keys[0].header[1:]) }
