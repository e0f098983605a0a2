package sessiontoken

import (
	"bytes"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/go-json-experiment/json"
)

// stateDecoder decodes states. A decoder grows each slice from nothing, step by
// step; this one gives the slices of T's own structure the room that they
// needed last time. What it returns is what a decoder without it returns.
type stateDecoder[T any] struct {
	slices []sliceHint
	traits stateTraits
}

// sliceHint is how long a slice of the state was last time.
type sliceHint struct {
	field  []int
	length atomic.Int32
}

// newStateCodec is newStateDecoder for a type that was checked.
func newStateCodec[T any]() (*stateDecoder[T], error) {
	traits, err := checkStateType(reflect.TypeFor[T]())
	if err != nil {
		return nil, err
	}
	d := newStateDecoder[T]()
	d.traits = traits
	return d, nil
}

// maxHint bounds what one long slice makes of the next, shorter one.
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
		// Absent, null, or empty? Only one that had no room can tell.
		again = again || n == 0 && f.Cap() > 0
	}
	if !again {
		return nil
	}
	var none T
	*state = none
	return d.unmarshal(raw, state)
}

// unmarshal gives a type that decodes itself bytes of its own: it may keep them.
func (d *stateDecoder[T]) unmarshal(raw []byte, state *T) error {
	if d.traits.reads {
		raw = bytes.Clone(raw)
	}
	return json.Unmarshal(raw, state)
}

// sliceFields are the slices that a decoder fills by itself: those in t and in
// the structs within it, but none below a type with a method of its own.
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
