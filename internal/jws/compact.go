// Package jws reads and writes the compact serialization of RFC 7515 in one
// strict form, and signs and verifies bytes. It does not read claims.
package jws

import (
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// The errors of a token's form. No text holds a part of the token.
var (
	ErrSegments = errors.New("not three base64url segments")
	ErrEncoding = errors.New("a segment is not canonical base64url")
	ErrHeader   = errors.New("the header is not an object of exactly alg, kid and typ")
)

// MaxHeader is the longest header segment that is read, in bytes. The longest
// kid fits, even with every byte escaped.
const MaxHeader = 2048

// MaxKeyID is the longest kid, in bytes, that a header may name.
const MaxKeyID = 128

// Split cuts a token into its three segments (RFC 7515 section 7.1). It looks
// for the dots alone: Decode refuses other bytes that are not of a segment.
// Only the payload may be empty. Split does not allocate, however many dots
// there are.
func Split(token string) (header, payload, signature string, err error) {
	first := strings.IndexByte(token, '.')
	second := first + 1 + strings.IndexByte(token[first+1:], '.')
	if first <= 0 || second <= first || second == len(token)-1 ||
		strings.IndexByte(token[second+1:], '.') >= 0 {
		return "", "", "", ErrSegments
	}
	return token[:first], token[first+1 : second], token[second+1:], nil
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
