package sessiontoken

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Sealed is a field of a state that only servers with the secret can read, such
// as an e-mail address: the token holds it encrypted. Make it with [Seal], and
// read it with Open. The zero value holds a zero P.
//
//	type State struct {
//		Role string                      // everyone who has the token can read it
//		Mail sessiontoken.Sealed[string] // encrypted
//	}
//
// P is any type that can be a state itself and holds no Sealed. A Sealed can be
// a field of the state or of a struct in it, also below pointers, slices and
// maps, and the value of a map. [NewIssuer] and [NewVerifier] refuse it anywhere
// else, such as as the element of a slice: seal the slice instead. They need
// the StateSecrets of [IssuerConfig] and [VerifierConfig].
//
// A Sealed is no secret from the program: any code can call Open. It prints as
// "sealed" with every verb and in slog. Outside a token it cannot be encoded.
// Two of them are not compared with ==. The length of what it holds, and
// whether it is there, can be seen in the token. What it holds must not be
// changed.
//
// The value is bound to the token's iss, sub and sid, to its place and to the
// version of the state. A token in which it was changed or moved is
// [ErrClaims], also for [Issuer.Renew].
//
// Programs in other languages read the open fields as they are, and can open
// the others:
//
//	claim sld   the places of the sealed values in the claim state, as JSON
//	            pointers (RFC 6901): one string, or an array of them
//	value       base64url without padding: nonce (12) || ciphertext || tag (16)
//	cipher      AES-256-GCM; the plaintext is JSON in UTF-8
//	key         HKDF-SHA256 (RFC 5869) of a secret, 32 bytes, without salt;
//	            info is "sessiontoken state 1", a zero byte, and sid
//	associated  iss, sub, sid and the place, each as its length in bytes (4
//	            bytes, big-endian) and its bytes in UTF-8; then the first
//	            number of stv, or 0 if there is no stv (4 bytes, big-endian)
type Sealed[P any] struct {
	_     [0]func() // two pointers to equal values are not ==
	value *P        // nil for a zero P. It is never changed: copies share it
	left  bool      // it was not opened
}

// ErrSealed means that a [Sealed] was not opened, since the verifier has
// VerifierConfig.LeaveSealed.
var ErrSealed = errors.New("sessiontoken: sealed: this verifier leaves sealed fields closed")

// Seal returns a Sealed that holds v. It encrypts nothing: the [Issuer] does,
// for each token.
func Seal[P any](v P) (s Sealed[P]) {
	s.set(&v)
	return s
}

// Open returns what s holds. The error is [ErrSealed] or nil. A slice, map or
// pointer in it is shared with the copies of s.
func (s Sealed[P]) Open() (v P, err error) {
	switch {
	case s.left:
		return v, ErrSealed
	case s.value != nil:
		return *s.value, nil
	}
	return v, nil
}

func (s *Sealed[P]) set(v *P) {
	if s.value = v; reflect.ValueOf(v).Elem().IsZero() {
		s.value = nil
	}
}

// sealedText is what a Sealed prints.
const sealedText = "sealed"

// errNotEncoded is the error of every encoder but that of an Issuer.
var errNotEncoded = errors.New("sessiontoken: a Sealed is encoded in a token alone: call Open for what it holds")

// Format writes "sealed", whatever the verb is.
func (s Sealed[P]) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, sealedText) }

// LogValue returns "sealed".
func (s Sealed[P]) LogValue() slog.Value { return slog.StringValue(sealedText) }

// MarshalJSON returns an error: what s holds must not get out by mistake.
func (s Sealed[P]) MarshalJSON() ([]byte, error) { return nil, errNotEncoded }

// UnmarshalJSON returns an error: read a P, and call [Seal].
func (s *Sealed[P]) UnmarshalJSON([]byte) error { return errNotEncoded }

// MarshalText returns an error, for encoders such as those of XML and YAML.
func (s Sealed[P]) MarshalText() ([]byte, error) { return nil, errNotEncoded }

// UnmarshalText returns an error.
func (s *Sealed[P]) UnmarshalText([]byte) error { return errNotEncoded }

// sealedField is a *Sealed of any P.
type sealedField interface {
	types() (sealed, plain reflect.Type)
	coders(c *coding) (*json.Marshalers, *json.Unmarshalers)
}

func (s *Sealed[P]) types() (sealed, plain reflect.Type) {
	return reflect.TypeFor[Sealed[P]](), reflect.TypeFor[P]()
}

// coders returns what encodes and decodes fields of this type. It ignores s.
func (s *Sealed[P]) coders(c *coding) (*json.Marshalers, *json.Unmarshalers) {
	return json.MarshalToFunc(func(enc *jsontext.Encoder, s *Sealed[P]) error { return s.encode(enc, c) }),
		json.UnmarshalFromFunc(func(dec *jsontext.Decoder, s *Sealed[P]) error { return s.decode(dec, c) })
}

// plainOf returns the P of a Sealed[P], or nil for any other type, such as one
// that embeds a Sealed.
func plainOf(t reflect.Type) reflect.Type {
	if t.Kind() != reflect.Struct || !has[sealedField](t) {
		return nil
	}
	sealed, plain := reflect.New(t).Interface().(sealedField).types()
	if sealed != t {
		return nil
	}
	return plain
}

// holdsSealed reports whether a value of a type can hold a Sealed, other than
// in an interface.
func holdsSealed(t reflect.Type, seen map[reflect.Type]bool) bool {
	if seen[t] {
		return false
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map: // keys are compared with ==
		return holdsSealed(t.Elem(), seen)
	case reflect.Struct:
		if plainOf(t) != nil {
			return true
		}
		for i := range t.NumField() {
			if holdsSealed(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}

// coding is how a JSON encoder or decoder treats the sealed fields of a type.
// Its options refer to it. A Sealed of a type that the state does not have, such
// as in an any, cannot be encoded with them.
type coding struct {
	options  json.Options
	exact    json.Options // options that also fail at a number that an any would change
	sealer   *sealer      // of an encoder; if nil, it writes what the fields hold
	leave    bool         // of a decoder: if false, it reads what the fields hold
	leftover *int         // how many it has left; or nil
}

// newCoding returns a coding that writes and reads what the fields hold.
func newCoding(fields []sealedField) *coding {
	c := new(coding)
	var write []*json.Marshalers
	var read []*json.Unmarshalers
	for _, f := range fields {
		w, r := f.coders(c)
		write, read = append(write, w), append(read, r)
	}
	unmarshalers := json.JoinUnmarshalers(read...)
	c.options = json.JoinOptions(json.Deterministic(true), json.WithMarshalers(json.JoinMarshalers(write...)), json.WithUnmarshalers(unmarshalers))
	c.exact = json.WithUnmarshalers(json.JoinUnmarshalers(unmarshalers, exactNumbers))
	return c
}

// The errors of an encoder or decoder say nothing of what it has read: that may
// be a part of the plain text.
var (
	errSealedWritten = errors.New("what a Sealed holds cannot be written, or is not read back")
	errSealedRead    = errors.New("what a Sealed holds does not fit its type")
)

func (s *Sealed[P]) encode(enc *jsontext.Encoder, c *coding) error {
	if s.left {
		return ErrSealed
	}
	v := s.value
	if v == nil {
		v = new(P)
	}
	if c.sealer == nil {
		if json.MarshalEncode(enc, v) != nil {
			return errSealedWritten
		}
		return nil
	}
	plain, err := json.Marshal(v, json.Deterministic(true))
	if err != nil || readBack[P](plain, c.sealer.traits, nil) != nil {
		return errSealedWritten
	}
	return enc.WriteValue(c.sealer.seal(string(enc.StackPointer()), plain))
}

func (s *Sealed[P]) decode(dec *jsontext.Decoder, c *coding) error {
	if c.leave {
		s.value, s.left = nil, true
		if c.leftover != nil {
			*c.leftover++
		}
		return dec.SkipValue()
	}
	v := new(P)
	if json.UnmarshalDecode(dec, v) != nil {
		return errSealedRead
	}
	s.set(v)
	return nil
}
