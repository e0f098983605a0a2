// Package strictjson holds the one thing that JSON v2 leaves open for untrusted
// input: a limit on nesting, checked before anything is decoded.
package strictjson

import "bytes"

// MaxDepth is how many objects and arrays may be open at once.
const MaxDepth = 16

// TooDeep reports whether data opens more than MaxDepth objects and arrays at
// once. Its time is linear, it allocates nothing, and takes data as text that may
// be anything: whether it is JSON is for the decoder to say.
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
