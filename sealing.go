package sessiontoken

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// sealedLabel stands before the sid, of which a session's key is made.
const sealedLabel = "sessiontoken state 1\x00"

// stateSecrets are the secrets of sealed fields.
type stateSecrets struct{ all []*stateSecret }

// stateSecret is a secret after HKDF-Extract (RFC 5869).
type stateSecret struct {
	extracted []byte
	macs      sync.Pool // of HMACs under it
	seed      maphash.Seed
	// The keys of sessions that were seen last, by a hash of the sid: a new
	// token of a session needs the key of the one before.
	sessions [sessionKeys]atomic.Pointer[sessionKey]
}

// sessionKeys is how many keys a secret remembers, of about 1.4 KB each.
const sessionKeys = 128

type sessionKey struct {
	sid  string
	aead cipher.AEAD
}

// newStateSecrets returns nil for no secrets. field is the name for errors.
func newStateSecrets(field string, secrets [][]byte) (*stateSecrets, error) {
	if len(secrets) == 0 {
		return nil, nil
	}
	if err := arg.Secrets("sessiontoken: "+field, secrets); err != nil {
		return nil, err
	}
	s := new(stateSecrets)
	for i, secret := range secrets {
		extracted, err := hkdf.Extract(sha256.New, secret, nil)
		if err != nil {
			return nil, fmt.Errorf("sessiontoken: %s[%d]: %w", field, i, err)
		}
		s.all = append(s.all, &stateSecret{extracted: extracted, seed: maphash.MakeSeed(), macs: sync.Pool{New: func() any { return hmac.New(sha256.New, extracted) }}})
	}
	return s, nil
}

// aead returns AES-256-GCM with the key that the secret gives to a session. It
// writes a random nonce before the ciphertext.
func (s *stateSecret) aead(sid string) (cipher.AEAD, error) {
	slot := &s.sessions[maphash.String(s.seed, sid)%sessionKeys]
	if known := slot.Load(); known != nil && known.sid == sid {
		return known.aead, nil
	}
	aead, err := s.derive(sid)
	if err == nil {
		slot.Store(&sessionKey{sid, aead})
	}
	return aead, err
}

func (s *stateSecret) derive(sid string) (cipher.AEAD, error) {
	// HKDF-Expand of one block.
	var room [128]byte
	info := append(append(append(room[:0], sealedLabel...), sid...), 1)
	mac := s.macs.Get().(hash.Hash)
	mac.Reset()
	mac.Write(info)
	key := mac.Sum(info[:0])
	s.macs.Put(mac)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// appendAssociated appends what a sealed value is bound to. pointer is its
// place in the state.
func appendAssociated[S string | []byte](dst []byte, p *payload, pointer S) []byte {
	for _, text := range [...]string{p.Issuer, p.Subject, p.SessionID} {
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(text))), text...)
	}
	dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(pointer))), pointer...)
	return binary.BigEndian.AppendUint32(dst, p.Version.written)
}

// sealer seals the fields of one token.
type sealer struct {
	aead     cipher.AEAD
	payload  payload
	traits   stateTraits // of the state
	pointers []string    // of what it has sealed
	buf      []byte
}

// seal returns the JSON string for the value at pointer, whose JSON is plain.
// The result is valid until the next call.
func (s *sealer) seal(pointer string, plain []byte) []byte {
	s.pointers = append(s.pointers, pointer)
	s.buf = appendAssociated(s.buf[:0], &s.payload, pointer)
	associated := len(s.buf)
	s.buf = s.aead.Seal(s.buf, nil, plain, s.buf)
	sealed := len(s.buf)
	s.buf = append(jws.AppendEncode(append(s.buf, '"'), s.buf[associated:]), '"')
	return s.buf[sealed:]
}

// writeSealed appends the JSON of a state to body, with its fields sealed. It
// returns their places.
func (d *stateDecoder[T]) writeSealed(body *bytes.Buffer, p *payload, state *T) ([]string, error) {
	aead, err := d.secrets.all[0].aead(p.SessionID)
	if err != nil {
		return nil, err
	}
	// A coding has one sealer, and the encoder is slow with options that it has
	// not seen.
	c, _ := d.sealing.Get().(*coding)
	if c == nil {
		c = newCoding(d.fields)
		c.sealer = new(sealer)
	}
	defer d.sealing.Put(c)
	*c.sealer = sealer{aead: aead, payload: *p, traits: d.traits, buf: c.sealer.buf}
	err = json.MarshalWrite(body, state, c.options)
	pointers := c.sealer.pointers
	c.sealer.payload, c.sealer.aead, c.sealer.pointers = payload{}, nil, nil
	return pointers, err
}

// checkSealed is checkWritten for a state in which n values are sealed. All of
// them must be read back as Sealed: an any cannot hold one.
func (d *stateDecoder[T]) checkSealed(raw []byte, n int) error {
	if d.traits == (stateTraits{}) {
		return nil
	}
	left := 0
	c := newCoding(d.fields)
	c.leave, c.leftover = true, &left
	if err := d.checkStrict(raw); err != nil {
		return err
	}
	if err := readBack[T](raw, d.traits, c); err != nil {
		return err
	}
	if left != n {
		return errors.New("sessiontoken: state: a Sealed is where it is not read back, such as in an any: give it a field of its own")
	}
	return nil
}

// sealedReader reads the sealed values of one state. It replaces each by what it
// holds.
type sealedReader struct {
	secrets *stateSecrets // if nil, it opens none
	payload payload
	older   bool // of an older version than that of T: the places are not known

	secret  int    // that has opened the last value
	pointer []byte // of the value at hand
	out     []byte
	copied  int // the state up to here is in out
	found   int // of payload.Sealed
	buf     []byte
}

// read returns the state with its sealed values replaced. at is the place of
// the whole state. If no secret is there, a value is left as it is, or in an
// older state replaced by null.
func (r *sealedReader) read(at *place) ([]byte, error) {
	raw := []byte(r.payload.State)
	if !jsontext.Value(raw).IsValid() {
		return nil, withDetail(ErrState, "not valid JSON")
	}
	room := make([]byte, 512+len(raw))
	r.pointer, r.buf, r.out = room[:0:64], room[64:64:512], room[512:512]
	if _, err := r.value(0, at); err != nil {
		return nil, err
	}
	if r.found < len(r.payload.Sealed) {
		return nil, withDetail(ErrClaims, "sld names a value that is not there")
	}
	return append(r.out, raw[r.copied:]...), nil
}

// unused is the place of a member that T does not have.
var unused = new(place)

// value reads the value that begins at i, and returns the index after it.
func (r *sealedReader) value(i int, at *place) (int, error) {
	raw := r.payload.State
	i = skipSpace(raw, i)
	switch isSealed := at != nil && at.sealed; {
	case r.isListed():
		return r.sealed(i, at)
	case isSealed:
		return i, withDetail(ErrState, "a sealed field is not sealed")
	case raw[i] == '{':
		return r.members(i, at)
	case raw[i] == '[':
		return r.elements(i, at)
	}
	return endOfValue(raw, i), nil
}

func (r *sealedReader) isListed() bool {
	for _, pointer := range r.payload.Sealed {
		if string(r.pointer) == pointer {
			return true
		}
	}
	return false
}

func (r *sealedReader) members(i int, at *place) (_ int, err error) {
	raw, above, expected := r.payload.State, len(r.pointer), 0
	for i = skipSpace(raw, i+1); raw[i] != '}'; i = skipSpace(raw, i) {
		if raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
		end := endOfValue(raw, i)
		var value *place
		value, expected = at.member(raw[i:end], expected)
		r.pointer = appendToken(r.pointer[:above], raw[i:end])
		if i, err = r.value(skipSpace(raw, end)+1, value); err != nil {
			return i, err
		}
	}
	r.pointer = r.pointer[:above]
	return i + 1, nil
}

func (r *sealedReader) elements(i int, at *place) (_ int, err error) {
	raw, above, n := r.payload.State, len(r.pointer), int64(0)
	if at != nil && at != unused {
		at = at.elements
	}
	for i = skipSpace(raw, i+1); raw[i] != ']'; i = skipSpace(raw, i) {
		if raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
		r.pointer = strconv.AppendInt(append(r.pointer[:above], '/'), n, 10)
		n++
		if i, err = r.value(i, at); err != nil {
			return i, err
		}
	}
	r.pointer = r.pointer[:above]
	return i + 1, nil
}

// member returns the place of a member, whose name is quoted, and the index
// that the next one probably has.
func (p *place) member(quoted []byte, expected int) (*place, int) {
	switch {
	case p == nil || p == unused:
		return p, 0
	case p.object == nil:
		return p.elements, 0
	}
	i := p.object.find(quoted, expected)
	if i < 0 {
		return unused, expected
	}
	return p.object.members[i].value, i + 1
}

// appendToken appends a name, which is quoted, to a JSON pointer.
func appendToken(pointer, quoted []byte) []byte {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted)
	}
	pointer = append(pointer, '/')
	for _, c := range name {
		switch c {
		case '~':
			pointer = append(pointer, "~0"...)
		case '/':
			pointer = append(pointer, "~1"...)
		default:
			pointer = append(pointer, c)
		}
	}
	return pointer
}

// sealed reads a sealed value.
func (r *sealedReader) sealed(i int, at *place) (int, error) {
	raw := r.payload.State
	end := endOfValue(raw, i)
	r.found++
	switch {
	case r.secrets != nil:
		r.out = append(r.out, raw[r.copied:i]...)
		if !r.open(raw[i:end]) {
			return i, withDetail(ErrClaims, "a sealed value cannot be opened")
		}
	case r.older:
		r.out = append(append(r.out, raw[r.copied:i]...), "null"...)
	case at == unused || at != nil && at.sealed:
		return end, nil
	default:
		return i, withDetail(ErrState, "a value is sealed, and its field is not")
	}
	r.copied = end
	return end, nil
}

// open appends to out what a sealed value holds. The value is quoted.
func (r *sealedReader) open(quoted []byte) bool {
	if quoted[0] != '"' {
		return false
	}
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		text, _ = jsontext.AppendUnquote(nil, quoted)
	}
	r.buf = appendAssociated(r.buf[:0], &r.payload, r.pointer)
	associated := r.buf
	blob, err := jws.AppendDecode(associated, string(text))
	if err != nil {
		return false
	}
	r.buf, blob = blob, blob[len(associated):]
	for n := range r.secrets.all {
		secret := (r.secret + n) % len(r.secrets.all)
		aead, err := r.secrets.all[secret].aead(r.payload.SessionID)
		if err != nil {
			return false
		}
		if out, err := aead.Open(r.out, nil, blob, associated); err == nil {
			r.out, r.secret = out, secret
			return true
		}
	}
	return false
}
