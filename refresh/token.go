package refresh

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

// keys are the HMAC keys that are derived from one secret. Their labels hold
// the namespace, so that two namespaces with one secret have different keys.
type keys struct{ token, record []byte }

func deriveKeys(secret []byte, namespace string) (k keys, err error) {
	derive := func(label string) []byte {
		key, e := hkdf.Key(sha256.New, secret, nil, label+"\x00"+namespace, sha256.Size)
		if e != nil {
			err = e
		}
		return key
	}
	k = keys{derive("sessiontoken refresh token 1"), derive("sessiontoken refresh record 1")}
	return k, err
}

func mac(key []byte, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	return h.Sum(nil)
}

// The form of a token: a version, the family's id, the position, and the HMAC of
// those three, in base64url.
const (
	version   = 1
	idSize    = 16
	macAt     = 1 + idSize + 8
	tokenSize = macAt + sha256.Size
)

var encoding = base64.RawURLEncoding.Strict()

// token returns the token of a family at a position. id is what parse or Start
// returned.
func (m *Manager) token(id [idSize]byte, counter uint64) string {
	b := make([]byte, 0, tokenSize)
	b = append(append(b, version), id[:]...)
	b = binary.BigEndian.AppendUint64(b, counter)
	return encoding.EncodeToString(append(b, mac(m.keys[0].token, b)...))
}

// parse returns the family and the position that a token names. If no secret
// authenticates the token, it returns ErrInvalid.
func (m *Manager) parse(token string) (id [idSize]byte, counter uint64, err error) {
	if len(m.keys) == 0 {
		return id, 0, errZero
	}
	if len(token) != encoding.EncodedLen(tokenSize) {
		return id, 0, ErrInvalid
	}
	b, err := encoding.DecodeString(token)
	if err != nil || len(b) != tokenSize || b[0] != version {
		return id, 0, ErrInvalid
	}
	genuine := false
	for _, k := range m.keys {
		genuine = hmac.Equal(mac(k.token, b[:macAt]), b[macAt:]) || genuine
	}
	if !genuine {
		return id, 0, ErrInvalid
	}
	counter = binary.BigEndian.Uint64(b[1+idSize : macAt])
	if counter == 0 || counter == 1<<64-1 {
		return id, 0, ErrInvalid
	}
	return [idSize]byte(b[1:]), counter, nil
}
