// Package arg checks what constructors are given.
package arg

import "reflect"

// IsNil catches a typed nil in an interface too, which would otherwise surface at
// the first call: a pointer, a map, a func or a channel.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Func, reflect.Chan:
		return r.IsNil()
	}
	return false
}
