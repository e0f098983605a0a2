package sessiontoken

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/arg"
)

// stateDecoder decodes states. It gives each slice in T's own structure the
// capacity that the slice needed last time, so that the JSON decoder does not
// grow it step by step. The result is the same as without that.
type stateDecoder[T any] struct {
	slices  []sliceHint
	traits  stateTraits
	members *place
	version versionClaim // of T, if it is Versioned

	fields     []sealedField // one of each type of sealed fields in T
	coding     *coding       // of them; nil if there are none
	sealing    sync.Pool     // of codings that seal
	secrets    *stateSecrets // nil if sealed fields are left closed
	oldSecrets atomic.Uint64 // states that another secret than the first has opened
}

// sliceHint is the length that a slice of the state had last time.
type sliceHint struct {
	field  []int
	length atomic.Int32
}

// newStateCodec checks T and returns its decoder. config is the name of the
// configuration for errors.
func newStateCodec[T any](config string, secrets [][]byte, leave bool) (*stateDecoder[T], error) {
	w, err := checkStateType(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	opened, err := newStateSecrets(config+".StateSecrets", secrets)
	if err != nil {
		return nil, err
	}
	if w.sealed != "" && opened == nil && !leave {
		remedy := ""
		if config == "VerifierConfig" {
			remedy = ", or set LeaveSealed to read the other fields alone"
		}
		return nil, fmt.Errorf("sessiontoken: %s.StateSecrets is required, since %s of %v is a Sealed: at least %d random bytes, the same on every server that reads it%s", config, w.sealed, reflect.TypeFor[T](), arg.MinSecret, remedy)
	}
	version, err := versionOf(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	d := newStateDecoder[T]()
	d.traits, d.version = w.stateTraits, version
	d.members = placeOf(reflect.TypeFor[T](), map[reflect.Type]*place{})
	d.secrets = opened
	if d.fields = w.fieldTypes; len(d.fields) > 0 {
		d.coding = newCoding(d.fields)
		d.coding.leave = leave
	}
	return d, nil
}

// maxHint bounds the capacity that one long slice gives to the next, shorter
// one.
const maxHint = 64

func newStateDecoder[T any]() *stateDecoder[T] {
	d := new(stateDecoder[T])
	for _, field := range sliceFields(reflect.TypeFor[T](), nil) {
		d.slices = append(d.slices, sliceHint{field: field})
	}
	return d
}

// decode reads raw into state, which is zero.
func (d *stateDecoder[T]) decode(raw []byte, state *T) error {
	if len(d.slices) == 0 {
		return d.unmarshal(raw, state)
	}
	v := reflect.ValueOf(state).Elem()
	for i := range d.slices {
		s := &d.slices[i]
		if n := s.length.Load(); n > 0 {
			v.FieldByIndex(s.field).Grow(int(n))
		}
	}
	if err := d.unmarshal(raw, state); err != nil {
		return err
	}
	again := false
	for i := range d.slices {
		s := &d.slices[i]
		f := v.FieldByIndex(s.field)
		n := int32(min(f.Len(), maxHint))
		if n != s.length.Load() {
			s.length.Store(n)
		}
		// Absent, null, or empty? Only a slice without capacity shows which.
		again = again || n == 0 && f.Cap() > 0
	}
	if !again {
		return nil
	}
	var none T
	*state = none
	return d.unmarshal(raw, state)
}

// unmarshal decodes raw. A type with an UnmarshalJSON gets a copy of raw, since
// it may keep the bytes.
func (d *stateDecoder[T]) unmarshal(raw []byte, state *T) error {
	if d.traits.reads {
		raw = bytes.Clone(raw)
	}
	if d.coding != nil {
		return json.Unmarshal(raw, state, d.coding.options)
	}
	return json.Unmarshal(raw, state)
}

// encode returns the JSON of a state. It seals nothing.
func (d *stateDecoder[T]) encode(state *T) ([]byte, error) {
	if d.coding != nil {
		return json.Marshal(state, d.coding.options)
	}
	return json.Marshal(state, json.Deterministic(true))
}

// open returns the state of p with its sealed values opened.
func (d *stateDecoder[T]) open(p *payload) ([]byte, error) {
	r := sealedReader{secrets: d.secrets, payload: *p, older: p.Version.written < d.version.written}
	places := d.members
	if r.older {
		places = nil
	}
	raw, err := r.read(places)
	if err == nil && r.secret > 0 {
		d.oldSecrets.Add(1)
	}
	return raw, err
}

// sliceFields returns the slices that the JSON decoder itself fills: those in t
// and in the structs within it, and none below a type that decodes itself.
func sliceFields(t reflect.Type, at []int) (found [][]int) {
	if decodesItself(t) {
		return nil
	}
	switch t.Kind() {
	case reflect.Slice:
		if len(at) > 0 && t.Elem().Kind() != reflect.Uint8 { // bytes are one base64 string
			found = append(found, slices.Clone(at))
		}
	case reflect.Struct:
		for i := range t.NumField() {
			if t.Field(i).IsExported() {
				found = append(found, sliceFields(t.Field(i).Type, append(at, i))...)
			}
		}
	}
	return found
}
