// Package arg checks what constructors are given.
package arg

import "reflect"

// IsNil catches a typed nil in an interface too, which would otherwise surface at
// the first call.
func IsNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v)
	return r.Kind() == reflect.Pointer && r.IsNil()
}
