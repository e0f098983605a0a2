package jwk

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	jwxjwk "github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// element holds the members of one JWK that are read, undecoded, so that an
// absent member, null and a value of the wrong type are different. Every other
// member is ignored (RFC 7517 section 4).
type element struct {
	Kty    jsontext.Value `json:"kty"`
	Crv    jsontext.Value `json:"crv"`
	X      jsontext.Value `json:"x"`
	Y      jsontext.Value `json:"y"`
	N      jsontext.Value `json:"n"`
	E      jsontext.Value `json:"e"`
	Kid    jsontext.Value `json:"kid"`
	Use    jsontext.Value `json:"use"`
	KeyOps jsontext.Value `json:"key_ops"`
	Alg    jsontext.Value `json:"alg"`

	// Members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2 and
	// 6.4.1, RFC 8037 section 2). A JWK that has one is refused.
	D   jsontext.Value `json:"d"`
	P   jsontext.Value `json:"p"`
	Q   jsontext.Value `json:"q"`
	DP  jsontext.Value `json:"dp"`
	DQ  jsontext.Value `json:"dq"`
	QI  jsontext.Value `json:"qi"`
	Oth jsontext.Value `json:"oth"`
	K   jsontext.Value `json:"k"`
}

// Parse reads one JWK object (RFC 7517 section 4) by the same rules as
// [ParseSet]. It returns [ErrMalformed], [ErrPrivate], or an error that
// matches [ErrUnusable] where ParseSet would skip the key.
func Parse(data []byte) (Key, error) {
	if err := checkDocument(data); err != nil {
		return Key{}, err
	}
	el, err := readElement(data)
	if err != nil {
		return Key{}, err
	}
	if el.private() {
		return Key{}, ErrPrivate
	}
	return el.key()
}

// ParseSet reads a JWK Set (RFC 7517 section 5) and returns its usable keys in
// the order of the document. skipped has one text for each other key: which one
// it is, with at most 40 characters of its kid, and the reason.
//
// The whole set is refused with [ErrMalformed] if it is not strict JSON of
// at most 16 levels, an object with an array member "keys" of objects; with
// [ErrTooManyKeys] above MaxKeys elements, which are counted while they are
// read; with [ErrPrivate] if any element is symmetric or has a private member,
// whatever its value; with [ErrEmpty] and the first reasons if no key is usable.
// One byte order mark before the document is ignored (RFC 8259 section 8.1).
//
// A key is skipped if its kty, crv, use, key_ops or alg is not one for
// verifying ES256, EdDSA (Ed25519), PS256 or RS256; if it has no kid of 1 to
// 128 bytes; if a value is not canonical base64url of the exact length; or if
// CheckPublic refuses it. Members that are not known are ignored.
//
// An EC or OKP key without alg gets the one algorithm of its curve. An RSA key
// without alg gets RS256 if its use is "sig", as the keys of some providers are
// published: it then verifies that one padding and no other. Without such a use
// it is skipped, since it may be for encryption, where a padding oracle makes
// signatures.
//
// A kid names one key. A kid that a usable key shares with unusable ones names
// the usable one. A kid of several usable keys names none of them, whatever
// their algorithms: the header of a token must not choose. One key under two
// algorithms (RFC 8725 section 3.1) is not used under either. An element that
// repeats another one in all of that is skipped alone.
//
// The caller limits the length of data.
func ParseSet(data []byte) (keys []Key, skipped []string, err error) {
	elements, err := readElements(bytes.TrimPrefix(data, []byte("\ufeff")))
	if err != nil {
		return nil, nil, err
	}
	if slices.ContainsFunc(elements, element.private) {
		return nil, nil, ErrPrivate
	}
	found, reasons := make([]Key, len(elements)), make([]string, len(elements))
	for i, el := range elements {
		k, err := el.key()
		if err != nil {
			reasons[i] = strings.TrimPrefix(err.Error(), ErrUnusable.Error()+": ")
		}
		found[i] = k
	}
	conflicts := ambiguous(found)
	for i, el := range elements {
		switch reason := cmp.Or(reasons[i], conflicts[i]); {
		case reason == "":
			keys = append(keys, found[i])
		default:
			skipped = append(skipped, el.describe(i+1)+": "+reason)
		}
	}
	if len(keys) == 0 {
		return nil, nil, noneUsable(skipped)
	}
	return keys, skipped, nil
}

// ambiguous returns for each key the reason why it cannot be used together with
// the others, or "". A zero Key is an unusable key, which is ignored.
func ambiguous(keys []Key) []string {
	reasons := make([]string, len(keys))
	for i, k := range keys {
		for j, other := range keys[:i] {
			if k.KeyID == "" || other.KeyID == "" {
				continue
			}
			sameKid, sameKey := k.KeyID == other.KeyID, equal(k.Public, other.Public)
			switch {
			case sameKey && k.Algorithm != other.Algorithm:
				reasons[i], reasons[j] = twoAlgorithms, twoAlgorithms
			case sameKid && !sameKey:
				reasons[i], reasons[j] = cmp.Or(reasons[i], oneKid), cmp.Or(reasons[j], oneKid)
			}
		}
	}
	for i, k := range keys {
		for _, other := range keys[:i] {
			if reasons[i] == "" && k.KeyID != "" && k.KeyID == other.KeyID {
				reasons[i] = "the same key again"
			}
		}
	}
	return reasons
}

const (
	oneKid        = "another usable key has the same kid"
	twoAlgorithms = "the same key under two algorithms"
)

// noneUsable returns ErrEmpty with the first three reasons.
func noneUsable(skipped []string) error {
	const most = 3
	if len(skipped) == 0 {
		return ErrEmpty
	}
	text := strings.Join(skipped[:min(most, len(skipped))], "; ")
	if more := len(skipped) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return fmt.Errorf("%w: %s", ErrEmpty, text)
}

// readElements reads the elements of a set. It stops at the first one beyond
// MaxKeys.
func readElements(data []byte) (elements []element, err error) {
	if strictjson.TooDeep(data) {
		return nil, ErrMalformed
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(data)) // it refuses duplicate names and invalid UTF-8
	if !reads(dec, '{') {
		return nil, ErrMalformed
	}
	found := false
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, ErrMalformed
		}
		if name.String() != "keys" {
			if dec.SkipValue() != nil {
				return nil, ErrMalformed
			}
			continue
		}
		found = true
		if elements, err = readArray(dec); err != nil {
			return nil, err
		}
	}
	if !found || !reads(dec, '}') {
		return nil, ErrMalformed
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, ErrMalformed
	}
	return elements, nil
}

func readArray(dec *jsontext.Decoder) (elements []element, err error) {
	if !reads(dec, '[') {
		return nil, ErrMalformed
	}
	for dec.PeekKind() == '{' {
		if len(elements) == MaxKeys {
			return nil, ErrTooManyKeys
		}
		v, err := dec.ReadValue()
		if err != nil {
			return nil, ErrMalformed
		}
		el, err := readElement(v)
		if err != nil {
			return nil, err
		}
		elements = append(elements, el)
	}
	if !reads(dec, ']') {
		return nil, ErrMalformed
	}
	return elements, nil
}

// reads reports whether the next JSON token has a kind.
func reads(dec *jsontext.Decoder, kind jsontext.Kind) bool {
	t, err := dec.ReadToken()
	return err == nil && t.Kind() == kind
}

// checkDocument reports whether data is one JSON text with unique names and
// valid UTF-8 everywhere, of bounded depth.
func checkDocument(data []byte) error {
	if strictjson.TooDeep(data) || !jsontext.Value(data).IsValid() {
		return ErrMalformed
	}
	return nil
}

func readElement(v jsontext.Value) (element, error) {
	var el element
	if v.Kind() != '{' {
		return element{}, ErrMalformed
	}
	if err := json.Unmarshal(v, &el); err != nil {
		return element{}, ErrMalformed
	}
	return el, nil
}

// private reports whether el has a private member or is symmetric.
func (el element) private() bool {
	for _, v := range []jsontext.Value{el.D, el.P, el.Q, el.DP, el.DQ, el.QI, el.Oth, el.K} {
		if v != nil {
			return true
		}
	}
	kty, _ := text(el.Kty)
	return kty == "oct"
}

// key builds the key of el, which is not private.
func (el element) key() (Key, error) {
	kid, ok := text(el.Kid)
	if !ok {
		return Key{}, fmt.Errorf("%w: no key id", ErrUnusable)
	}
	if err := checkKeyID(kid); err != nil {
		return Key{}, err
	}
	if !el.verifies() {
		return Key{}, fmt.Errorf("%w: use or key_ops is not for verifying signatures", ErrUnusable)
	}
	minimal, alg, err := el.material()
	if err != nil {
		return Key{}, err
	}
	pub, err := build(minimal)
	if err != nil {
		return Key{}, err
	}
	if err := CheckPublic(alg, pub); err != nil {
		return Key{}, err
	}
	return Key{KeyID: kid, Algorithm: alg, Public: pub}, nil
}

// describe names the element by its number in the set, and by its kid.
func (el element) describe(number int) string {
	kid, ok := text(el.Kid)
	if !ok || kid == "" {
		return fmt.Sprintf("key %d", number)
	}
	return fmt.Sprintf("key %d (kid %.40q)", number, kid)
}

// signs reports whether use is "sig".
func (el element) signs() bool {
	use, ok := text(el.Use)
	return ok && use == "sig"
}

// verifies reports whether use and key_ops permit verification (RFC 7517
// sections 4.2 and 4.3).
func (el element) verifies() bool {
	if el.Use != nil && !el.signs() {
		return false
	}
	if el.KeyOps == nil {
		return true
	}
	var values []jsontext.Value
	if el.KeyOps.Kind() != '[' || json.Unmarshal(el.KeyOps, &values) != nil {
		return false
	}
	verify := false
	for _, v := range values {
		op, ok := text(v)
		if !ok {
			return false
		}
		verify = verify || op == "verify"
	}
	return verify
}

// material returns the validated public members of el alone, and the algorithm
// of the key.
func (el element) material() (publicJWK, string, error) {
	alg, ok := text(el.Alg)
	if el.Alg != nil && (!ok || alg == "") {
		return publicJWK{}, "", fmt.Errorf("%w: alg", ErrUnusable)
	}
	kty, _ := text(el.Kty)
	crv, _ := text(el.Crv)
	switch {
	case kty == "EC" && crv == "P-256" && (alg == "" || alg == algES256):
		x, okX := octets(el.X, 32, 32)
		y, okY := octets(el.Y, 32, 32)
		if !okX || !okY {
			return publicJWK{}, "", fmt.Errorf("%w: coordinate", ErrUnusable)
		}
		return publicJWK{Kty: kty, Crv: crv, X: encode(x), Y: encode(y)}, algES256, nil

	case kty == "OKP" && crv == "Ed25519" && (alg == "" || alg == algEdDSA || alg == "Ed25519"):
		x, okX := octets(el.X, 32, 32)
		if !okX {
			return publicJWK{}, "", fmt.Errorf("%w: coordinate", ErrUnusable)
		}
		return publicJWK{Kty: kty, Crv: crv, X: encode(x)}, algEdDSA, nil

	case kty == "RSA" && alg == "" && !el.signs():
		return publicJWK{}, "", fmt.Errorf("%w: RSA without alg and without use \"sig\"", ErrUnusable)

	case kty == "RSA" && (alg == "" || alg == algPS256 || alg == algRS256):
		n, okN := octets(el.N, minRSABits/8, maxRSABits/8)
		e, okE := octets(el.E, 1, 4)
		if !okN || !okE || n[0] == 0 || e[0] == 0 {
			return publicJWK{}, "", fmt.Errorf("%w: modulus or exponent", ErrUnusable)
		}
		var wide [4]byte
		copy(wide[4-len(e):], e)
		if binary.BigEndian.Uint32(wide[:]) > maxRSAExponent {
			return publicJWK{}, "", fmt.Errorf("%w: exponent", ErrUnusable)
		}
		return publicJWK{Kty: kty, N: encode(n), E: encode(e)}, cmp.Or(alg, algRS256), nil
	}
	return publicJWK{}, "", fmt.Errorf("%w: kty, crv or alg is not one of ES256, EdDSA, PS256 or RS256", ErrUnusable)
}

// build makes a public key of validated members.
func build(minimal publicJWK) (crypto.PublicKey, error) {
	data, err := json.Marshal(minimal)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be rebuilt", ErrUnusable)
	}
	parsed, err := jwxjwk.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot be parsed", ErrUnusable)
	}
	var pub any
	if err := parsed.Raw(&pub); err != nil {
		return nil, fmt.Errorf("%w: cannot be built", ErrUnusable)
	}
	return pub, nil
}

// text returns the value of a JSON string, and false for anything else.
func text(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	var s string
	if err := json.Unmarshal(v, &s); err != nil {
		return "", false
	}
	return s, true
}

// octets decodes a JSON string of canonical base64url without padding to
// between lo and hi octets. The comparison with the one canonical spelling
// refuses spare bits and the line breaks that the decoder would skip.
func octets(v jsontext.Value, lo, hi int) ([]byte, bool) {
	s, ok := text(v)
	if !ok || len(s) > base64.RawURLEncoding.EncodedLen(hi) {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < lo || len(b) > hi || !bytes.Equal([]byte(encode(b)), []byte(s)) {
		return nil, false
	}
	return b, true
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
