// Package arg checks what constructors are given.
package arg

import (
	"reflect"
	"slices"
)

// IsNil catches a typed nil in an interface too, a nil func or map among them,
// which would otherwise surface at the first call.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Chan, reflect.Slice:
		return r.IsNil()
	}
	return false
}

// own are the packages of this library whose sources and lists have constructors.
var own = []string{
	"github.com/sessiontoken/sessiontoken",
	"github.com/sessiontoken/sessiontoken/keys",
	"github.com/sessiontoken/sessiontoken/remote",
	"github.com/sessiontoken/sessiontoken/revoke",
}

// IsUnmade reports whether v points to a struct of this library that is a zero
// value, which only its constructor makes usable. The first field of those is set by
// the constructor, and not changed after.
func IsUnmade(v any) bool {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Pointer || r.IsNil() || r.Elem().Kind() != reflect.Struct {
		return false
	}
	t := r.Elem().Type()
	return slices.Contains(own, t.PkgPath()) && t.NumField() > 0 && r.Elem().Field(0).IsZero()
}
