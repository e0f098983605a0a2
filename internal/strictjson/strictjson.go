// Package strictjson limits the nesting of untrusted JSON before it is decoded,
// which JSON v2 does not do.
package strictjson

import "bytes"

// MaxDepth is how many objects and arrays may be open at once.
const MaxDepth = 16

// TooDeep reports whether data has more than MaxDepth objects and arrays open
// at once. It takes linear time and does not allocate. data may be any text:
// the decoder checks whether it is JSON.
func TooDeep(data []byte) bool {
	if bytes.Count(data, []byte{'{'})+bytes.Count(data, []byte{'['}) <= MaxDepth {
		return false
	}
	depth, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString:
			switch c {
			case '\\':
				i++
			case '"':
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
