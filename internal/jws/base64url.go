package jws

import "encoding/base64"

// decodeTable maps a byte to its six bits, and every byte outside the base64url
// alphabet of RFC 4648 section 5 to a value with a bit above them.
var decodeTable = func() (t [256]uint32) {
	for i := range t {
		t[i] = invalidBits
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		t[c] = uint32(i)
	}
	return t
}()

const invalidBits = 1 << 31

// Encode returns b in unpadded base64url (RFC 7515 section 2).
func Encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// AppendEncode appends the encoding of b to dst.
func AppendEncode(dst, b []byte) []byte { return base64.RawURLEncoding.AppendEncode(dst, b) }

// EncodedLen is the length of n bytes in unpadded base64url.
func EncodedLen(n int) int { return base64.RawURLEncoding.EncodedLen(n) }

// DecodedLen is the number of bytes in a segment of n.
func DecodedLen(n int) int { return base64.RawURLEncoding.DecodedLen(n) }

// Decode returns the bytes of one segment. Every byte outside the alphabet,
// padding and line breaks among them, spare bits that are not zero, and
// impossible lengths are refused, so that no two spellings decode to the same
// bytes. The standard library's decoder is slower, and skips CR and LF.
func Decode(segment string) ([]byte, error) {
	return AppendDecode(make([]byte, 0, DecodedLen(len(segment))), segment)
}

// AppendDecode appends the decoded bytes of one segment to dst, as Decode does.
func AppendDecode(dst []byte, segment string) ([]byte, error) {
	out, s, bad := dst, segment, uint32(0)
	for len(s) >= 4 {
		// The shifts drop the top bit of an invalid byte's value, so that bit
		// is collected separately.
		a, b, c, d := decodeTable[s[0]], decodeTable[s[1]], decodeTable[s[2]], decodeTable[s[3]]
		bad |= a | b | c | d
		v := a<<18 | b<<12 | c<<6 | d
		out = append(out, byte(v>>16), byte(v>>8), byte(v))
		s = s[4:]
	}
	switch len(s) {
	case 1:
		bad |= invalidBits
	case 2: // 12 bits, of which 4 are spare
		a, b := decodeTable[s[0]], decodeTable[s[1]]
		bad |= a | b | b<<28
		out = append(out, byte(a<<2|b>>4))
	case 3: // 18 bits, of which 2 are spare
		a, b, c := decodeTable[s[0]], decodeTable[s[1]], decodeTable[s[2]]
		bad |= a | b | c | c<<30
		out = append(out, byte(a<<2|b>>4), byte(b<<4|c>>2))
	}
	if bad > 63 {
		return dst, ErrEncoding
	}
	return out, nil
}
