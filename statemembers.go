package sessiontoken

import (
	"bytes"
	"reflect"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// place is where a value stands in a state, and what the value must have. A
// nil place takes any value.
type place struct {
	nullable bool
	sealed   bool    // the rest is of what the value holds
	object   *object // of a struct
	elements *place  // of the elements of an array, or the values of a map
}

// object has the members of a struct.
type object struct {
	members  []placeMember
	required int
}

type placeMember struct {
	name     string
	optional bool
	value    *place
}

// placeOf returns the place of values of type t. made holds the places of the
// types that were seen before.
func placeOf(t reflect.Type, made map[reflect.Type]*place) *place {
	if t.Kind() == reflect.Pointer {
		p := placeOf(t.Elem(), made)
		if p == nil {
			return nil
		}
		nullable := *p
		nullable.nullable = true
		return &nullable
	}
	if p, ok := made[t]; ok {
		return p
	}
	if plain := plainOf(t); plain != nil {
		p := &place{nullable: true}
		if open := placeOf(plain, made); open != nil {
			*p = *open
		}
		p.sealed = true
		made[t] = p
		return p
	}
	if t != timeType && (t == rawType || decodesItself(t) || t.Kind() == reflect.Interface) {
		return nil
	}
	p := new(place)
	made[t] = p
	switch {
	case t == timeType:
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Map:
		p.nullable = true
		p.elements = placeOf(t.Elem(), made)
	case t.Kind() == reflect.Array:
		p.elements = placeOf(t.Elem(), made)
	case t.Kind() == reflect.Struct:
		p.object = new(object)
		p.object.fill(t, made)
	}
	return p
}

func (o *object) fill(t reflect.Type, made map[reflect.Type]*place) {
	list, _ := membersOf(t, "") // checkStateType has refused the type if that fails
	for _, f := range list {
		if f.name == "" {
			continue // it takes all other members
		}
		m := placeMember{name: f.name, value: placeOf(f.field.Type, made)}
		m.optional = f.optional || f.field.Type.Kind() == reflect.Pointer ||
			hasOption(f.field, "omitzero") || hasOption(f.field, "omitempty") || hasOption(f.field, "case")
		if !m.optional {
			o.required++
		}
		o.members = append(o.members, m)
	}
}

// fault returns what the value that begins at raw[i] lacks, as a path and a
// text, and the index after the value. raw is valid JSON.
func (p *place) fault(raw []byte, i int) (next int, fault string) {
	i = skipSpace(raw, i)
	switch c := raw[i]; {
	case p == nil:
	case c == 'n' && !p.nullable:
		return i, " is null"
	case c == '{' && p.object != nil:
		return p.object.fault(raw, i)
	case (c == '{' || c == '[') && p.elements != nil:
		return p.elements.eachFault(raw, i)
	}
	return endOfValue(raw, i), ""
}

// fault is that of a JSON object, which begins at raw[i].
func (o *object) fault(raw []byte, i int) (next int, fault string) {
	begin, found, expected := i, 0, 0
	for i = skipSpace(raw, i+1); raw[i] != '}'; i = skipSpace(raw, i) {
		if raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
		end := endOfValue(raw, i)
		at := o.find(raw[i:end], expected)
		i = skipSpace(raw, end) + 1 // the colon
		if at < 0 {
			i = endOfValue(raw, skipSpace(raw, i))
			continue
		}
		m := &o.members[at]
		if i, fault = m.value.fault(raw, i); fault != "" {
			return i, "." + m.name + fault
		}
		if expected = at + 1; !m.optional {
			found++
		}
	}
	if found < o.required {
		return i, "." + o.missing(raw, begin) + " is missing"
	}
	return i + 1, ""
}

// find returns the index of the member with a name, which is quoted, or -1. It
// tries the expected index first.
func (o *object) find(quoted []byte, expected int) int {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name, _ = jsontext.AppendUnquote(nil, quoted)
	}
	if expected < len(o.members) && string(name) == o.members[expected].name {
		return expected
	}
	return slices.IndexFunc(o.members, func(m placeMember) bool { return m.name == string(name) })
}

// missing returns the first required member that the object at raw[i] lacks.
func (o *object) missing(raw []byte, i int) string {
	there := make([]bool, len(o.members))
	for i = skipSpace(raw, i+1); raw[i] != '}'; i = skipSpace(raw, i) {
		if raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
		end := endOfValue(raw, i)
		if at := o.find(raw[i:end], 0); at >= 0 {
			there[at] = true
		}
		i = endOfValue(raw, skipSpace(raw, skipSpace(raw, end)+1))
	}
	for at, m := range o.members {
		if !m.optional && !there[at] {
			return m.name
		}
	}
	return "" // not reached
}

// eachFault is the fault of the elements of the array, or the values of the
// object, that begins at raw[i].
func (p *place) eachFault(raw []byte, i int) (next int, fault string) {
	isObject, end := raw[i] == '{', byte(']')
	if isObject {
		end = '}'
	}
	for i = skipSpace(raw, i+1); raw[i] != end; i = skipSpace(raw, i) {
		if raw[i] == ',' {
			i = skipSpace(raw, i+1)
		}
		if isObject {
			i = skipSpace(raw, endOfValue(raw, i)) + 1 // the colon
		}
		if i, fault = p.fault(raw, i); fault != "" {
			return i, "[]" + fault
		}
	}
	return i + 1, ""
}

func skipSpace(raw []byte, i int) int {
	for raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\n' || raw[i] == '\r' {
		i++
	}
	return i
}

// endOfValue returns the index after the value that begins at raw[i].
func endOfValue(raw []byte, i int) int {
	depth := 0
	for ; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case c == '{' || c == '[':
			depth++
			continue
		case c == '}' || c == ']':
			if depth == 0 {
				return i // after a number or a name
			}
			depth--
		case c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if depth == 0 {
				return i
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return i
}
