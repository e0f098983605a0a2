// Package jws reads and writes the compact serialization of RFC 7515 in one
// strict form, and signs and verifies bytes. It knows nothing of claims.
package jws

import (
	"encoding/base64"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// What is wrong with a token's form. None of these texts holds a part of it.
var (
	ErrSegments = errors.New("not three base64url segments")
	ErrEncoding = errors.New("a segment is not canonical base64url")
	ErrHeader   = errors.New("the header is not an object of exactly alg, kid and typ")
)

// MaxKeyID is the longest kid, in bytes, that a header may name.
const MaxKeyID = 128

var b64 = base64.RawURLEncoding.Strict()

// Encode returns b in unpadded base64url (RFC 7515 section 2).
func Encode(b []byte) string { return b64.EncodeToString(b) }

// EncodedLen is the length of n bytes in unpadded base64url.
func EncodedLen(n int) int { return b64.EncodedLen(n) }

// Split cuts a token into its three segments (RFC 7515 section 7.1). Every byte
// outside the base64url alphabet is refused here, before anything is decoded:
// the standard library's decoder would skip CR and LF. It allocates nothing.
func Split(token string) (header, payload, signature string, err error) {
	first, second := -1, -1
	for i := 0; i < len(token); i++ {
		switch c := token[i]; {
		case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		case c == '.' && first < 0:
			first = i
		case c == '.' && second < 0:
			second = i
		default: // a third dot, or a byte that no token holds
			return "", "", "", ErrSegments
		}
	}
	if first <= 0 || second <= first+1 || second == len(token)-1 {
		return "", "", "", ErrSegments
	}
	return token[:first], token[first+1 : second], token[second+1:], nil
}

// Decode returns the bytes of one segment that Split returned. Spare bits that
// are not zero, padding and impossible lengths are refused, so that no two
// spellings decode to the same bytes.
func Decode(segment string) ([]byte, error) {
	b, err := b64.DecodeString(segment)
	if err != nil || strings.ContainsAny(segment, "\r\n") {
		return nil, ErrEncoding
	}
	return b, nil
}

// Header is the protected header of a token: exactly these three parameters.
type Header struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// Encode returns the header as the segment that this library writes.
func (h Header) Encode() (string, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return "", ErrHeader
	}
	return Encode(b), nil
}

// ParseHeader reads a header strictly: a JSON object with the members alg, kid
// and typ, each a string that is not empty, and no other. So crit in any form
// (RFC 7515 section 4.1.11: no extension is understood here), b64 (RFC 7797),
// zip, enc, and every parameter that carries or points to a key (jwk, jku, x5c,
// x5u) are refused rather than ignored.
func ParseHeader(raw []byte) (Header, error) {
	var h Header
	// A null would leave a Go string empty, and empty is refused; that raw is
	// an object and not null is checked by its first byte.
	if strictjson.TooDeep(raw) || jsontext.Value(raw).Kind() != '{' ||
		json.Unmarshal(raw, &h, json.RejectUnknownMembers(true)) != nil ||
		h.Algorithm == "" || h.KeyID == "" || h.Type == "" || len(h.KeyID) > MaxKeyID {
		return Header{}, ErrHeader
	}
	return h, nil
}
