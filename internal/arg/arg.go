// Package arg checks the arguments of constructors.
package arg

import (
	"reflect"
	"slices"
)

// IsNil reports whether v is nil or an interface that holds a nil pointer, func
// or map, which would panic at the first call.
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

// own are the packages of this library whose key sources and lists have
// constructors.
var own = []string{
	"github.com/sessiontoken/sessiontoken",
	"github.com/sessiontoken/sessiontoken/keys",
	"github.com/sessiontoken/sessiontoken/remote",
	"github.com/sessiontoken/sessiontoken/revoke",
}

// IsUnmade reports whether v points to the zero value of a struct of this
// library that only its constructor makes usable. It looks at the first field,
// which the constructor sets and nothing changes.
func IsUnmade(v any) bool {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Pointer || r.IsNil() || r.Elem().Kind() != reflect.Struct {
		return false
	}
	t := r.Elem().Type()
	return slices.Contains(own, t.PkgPath()) && t.NumField() > 0 && r.Elem().Field(0).IsZero()
}
