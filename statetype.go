package sessiontoken

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/strictjson"
)

// stateTraits says which values in a state depend on more than its type.
type stateTraits struct {
	writes bool // something that encodes itself
	reads  bool // something that decodes itself
	any    bool // an any
}

// checkStateType returns what it has found in a state's type. A type of which
// some value cannot be written, or not be read back, is an error that names the
// field by its path and says what to write instead.
func checkStateType(t reflect.Type) (stateWalk, error) {
	w := stateWalk{seen: map[reflect.Type]bool{}}
	err := w.walk(t, "State")
	if err == nil && w.stateTraits == (stateTraits{}) {
		err = tryZero(t, newCoding(w.fieldTypes))
	}
	if err != nil {
		return w, fmt.Errorf("sessiontoken: %v cannot be a state: %w", t, err)
	}
	return w, nil
}

// tryZero checks that the zero value of a type can be written and read back.
func tryZero(t reflect.Type, c *coding) error {
	raw, err := json.Marshal(reflect.Zero(t).Interface(), c.options)
	if err == nil {
		err = json.Unmarshal(raw, reflect.New(t).Interface(), c.options)
	}
	if err != nil {
		return fmt.Errorf("its zero value is not read back: %w", reasonOf(err))
	}
	if strictjson.TooDeep(slices.Concat([]byte(`{"state":`), raw, []byte{'}'})) {
		return fmt.Errorf("it is nested deeper than a verifier takes: %d levels with the payload", strictjson.MaxDepth)
	}
	return nil
}

// reasonOf returns the cause of a decoder's error, without the position.
func reasonOf(err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) && semantic.Err != nil {
		return semantic.Err
	}
	return err
}

// stateWalk visits a type and all types in it, each of them once.
type stateWalk struct {
	seen       map[reflect.Type]bool
	sealed     string        // the path of the first sealed field
	fieldTypes []sealedField // one of each type of sealed fields
	stateTraits
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	rawType      = reflect.TypeFor[jsontext.Value]()
	anyType      = reflect.TypeFor[any]()
)

func (w *stateWalk) walk(t reflect.Type, path string) error {
	if w.seen[t] {
		return nil
	}
	w.seen[t] = true
	switch t {
	case timeType, rawType:
		return nil
	case durationType:
		return fmt.Errorf("%s is a time.Duration, which has no form in JSON: write whole seconds as an int64, or a type with MarshalText and UnmarshalText", path)
	case anyType:
		w.any = true
		return nil
	}
	if plain := plainOf(t); plain != nil {
		w.fieldTypes = append(w.fieldTypes, reflect.New(t).Interface().(sealedField))
		return w.sealedField(plain, path)
	}
	if both, err := w.methods(t, path); both || err != nil {
		return err
	}
	switch t.Kind() {
	case reflect.Interface:
		return fmt.Errorf("%s is a %v, and what is read back does not say of which type it was: write a type that is not an interface, or any", path, t)
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return fmt.Errorf("%s is a %v, which JSON cannot hold: leave it out, with the tag `json:\"-\"`", path, t)
	case reflect.Pointer:
		if plainOf(t.Elem()) != nil {
			return fmt.Errorf("%s is a pointer to a Sealed: write a Sealed of a pointer, or the option omitzero", path)
		}
		return w.walk(t.Elem(), path)
	case reflect.Slice, reflect.Array:
		if plainOf(t.Elem()) != nil {
			return fmt.Errorf("%s has elements that are Sealed: write a Sealed of the whole, or a struct around each", path)
		}
		return w.walk(t.Elem(), path+"[]")
	case reflect.Map:
		if err := w.key(t.Key(), path); err != nil {
			return err
		}
		return w.walk(t.Elem(), path+"[]")
	case reflect.Struct:
		return w.fields(t, path)
	}
	return nil
}

// sealedField checks a sealed field that holds a plain.
func (w *stateWalk) sealedField(plain reflect.Type, path string) error {
	switch {
	case path == "State":
		return errors.New("a Sealed must be a field of the state")
	case holdsSealed(plain, map[reflect.Type]bool{}):
		return fmt.Errorf("%s is a Sealed that holds a Sealed: seal it once", path)
	}
	if w.sealed == "" {
		w.sealed = path
	}
	return w.walk(plain, path)
}

// methods checks the methods by which a type encodes and decodes itself. both
// reports whether it does both: its fields are then not checked.
func (w *stateWalk) methods(t reflect.Type, path string) (both bool, err error) {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface {
		return false, nil // a decoder asks what they point to
	}
	writesJSON := has[json.MarshalerTo](t) || has[json.Marshaler](t)
	writesText := has[encoding.TextAppender](t) || has[encoding.TextMarshaler](t)
	readsJSON := has[json.UnmarshalerFrom](t) || has[json.Unmarshaler](t)
	reads := readsJSON || has[encoding.TextUnmarshaler](t)
	switch {
	case writesJSON && !readsJSON:
		return false, fmt.Errorf("%s is a %v, which has MarshalJSON and no UnmarshalJSON: add that, or it may not be read back", path, t)
	case writesText && !reads:
		return false, fmt.Errorf("%s is a %v, which has MarshalText and no UnmarshalText: add that, or it may not be read back", path, t)
	}
	writes := writesJSON || writesText
	if (writes || reads) && holdsSealed(t, map[reflect.Type]bool{}) {
		return false, fmt.Errorf("%s is a %v, which encodes itself and holds a Sealed: write a field of its own for that, which is not embedded", path, t)
	}
	w.writes, w.reads = w.writes || writes, w.reads || reads
	return writes && reads, nil
}

// decodesItself reports whether a decoder calls a method of a type.
func decodesItself(t reflect.Type) bool {
	return has[json.UnmarshalerFrom](t) || has[json.Unmarshaler](t) || has[encoding.TextUnmarshaler](t)
}

// has reports whether a pointer to a t, and so an addressable t, is an I.
func has[I any](t reflect.Type) bool { return reflect.PointerTo(t).Implements(reflect.TypeFor[I]()) }

// key checks the type of a map's keys.
func (w *stateWalk) key(t reflect.Type, path string) error {
	both, err := w.methods(t, path+", by its keys,")
	if both || err != nil {
		return err
	}
	if t.Kind() != reflect.Interface && t.Kind() != reflect.Pointer && (t.Kind() == reflect.String || readsKey(t)) {
		return nil
	}
	return fmt.Errorf("%s has keys of the type %v, which are not read back as they were: write string, an integer, or a type with MarshalText and UnmarshalText", path, t)
}

// readsKey tries one key.
func readsKey(t reflect.Type) bool {
	key, none := reflect.Zero(t), reflect.ValueOf(struct{}{})
	m := reflect.MakeMap(reflect.MapOf(t, none.Type()))
	m.SetMapIndex(key, none)
	back := reflect.New(m.Type())
	raw, err := json.Marshal(m.Interface())
	return err == nil && json.Unmarshal(raw, back.Interface()) == nil && back.Elem().MapIndex(key).IsValid()
}

// stateField is a field that is a member of its struct's JSON object.
type stateField struct {
	path   string // from the struct
	name   string // of the member; empty for a field that holds all others
	field  reflect.StructField
	tagged bool
	depth  int // of embedding
	// optional says that it is in a struct that is embedded by a pointer, which
	// may be nil.
	optional bool
}

func (w *stateWalk) fields(t reflect.Type, path string) error {
	list, err := membersOf(t, path)
	if err != nil {
		return err
	}
	if !decodesItself(t) {
		// If the decoder refuses the struct itself, it does so before it reads
		// the first member.
		if err := json.Unmarshal([]byte("{}"), reflect.New(t).Interface()); err != nil {
			return fmt.Errorf("%s is a %v that JSON cannot hold: %w", path, t, reasonOf(err))
		}
	}
	for _, f := range list {
		if f.name == "" && holdsSealed(f.field.Type, map[reflect.Type]bool{}) {
			return fmt.Errorf("%s%s takes all other members, which cannot be Sealed: write a map", path, f.path)
		}
		if plainOf(f.field.Type) != nil && (hasOption(f.field, "string") || hasOption(f.field, "case")) {
			return fmt.Errorf("%s%s is a Sealed, which takes no option but omitzero", path, f.path)
		}
		if hasOption(f.field, "string") && !isNumber(f.field.Type) {
			return fmt.Errorf("%s%s has the option `string`, which is for numbers: leave it out", path, f.path)
		}
		if err := w.walk(f.field.Type, path+f.path); err != nil {
			return err
		}
	}
	return nil
}

// membersOf returns the members of a struct and of its embedded structs, by the
// rules of Go and of JSON v2. Of two members with one name the shallower one is
// used, then the one whose tag gives the name. If two are left, a decoder would
// leave both out, and membersOf returns an error.
func membersOf(t reflect.Type, path string) ([]stateField, error) {
	type embedded struct {
		t     reflect.Type
		path  string
		depth int
		again bool

		optional bool
	}
	var all []stateField
	queue, seen := []embedded{{t: t}}, map[reflect.Type]bool{t: true}
	for len(queue) > 0 {
		e := queue[0]
		queue = queue[1:]
		for i := range e.t.NumField() {
			f := e.t.Field(i)
			tag := f.Tag.Get("json")
			if tag == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			at := e.path + "." + f.Name
			if hasOption(f, "format") {
				return nil, fmt.Errorf("%s%s has a `format`, which is no part of JSON v2: write a type with MarshalText and UnmarshalText, or for a time.Duration whole seconds as an int64", path, at)
			}
			name, _, _ := strings.Cut(tag, ",")
			in := f.Type
			if in.Kind() == reflect.Pointer && in.Name() == "" {
				in = in.Elem()
			}
			if (f.Anonymous || hasOption(f, "embed")) && plainOf(in) != nil {
				return nil, fmt.Errorf("%s%s is a Sealed that is embedded: give the field a name", path, at)
			}
			switch {
			case hasOption(f, "embed") && in.Kind() != reflect.Struct:
				f.Type = in
				all = append(all, stateField{path: at, field: f, depth: e.depth, optional: true})
			case hasOption(f, "embed"), f.Anonymous && name == "" && in.Kind() == reflect.Struct:
				if f.Type.Kind() == reflect.Pointer && !f.IsExported() {
					return nil, fmt.Errorf("%s%s embeds a pointer to a struct that is not exported, and cannot be set when it is read back: embed the struct itself", path, at)
				}
				if !e.again {
					queue = append(queue, embedded{in, at, e.depth + 1, seen[in], e.optional || f.Type.Kind() == reflect.Pointer})
				}
				seen[in] = true
			default:
				tagged := name != ""
				if !tagged {
					name = f.Name
				}
				all = append(all, stateField{at, name, f, tagged, e.depth, e.optional})
			}
		}
	}
	return dominant(all, path)
}

// dominant returns the fields that a decoder uses, of those with one name.
func dominant(all []stateField, path string) (list []stateField, err error) {
	rank := func(f stateField) int {
		if f.tagged {
			return 2 * f.depth
		}
		return 2*f.depth + 1
	}
	for i, f := range all {
		counts := true
		for j, o := range all {
			switch {
			case i == j || f.name == "" || f.name != o.name:
			case rank(o) < rank(f):
				counts = false
			case rank(o) == rank(f) && i < j && !slices.ContainsFunc(all, func(s stateField) bool { return s.name == f.name && rank(s) < rank(f) }):
				return nil, fmt.Errorf("%s%s and %s%s have one name in JSON, %q: give one of them another by its tag", path, f.path, path, o.path, f.name)
			}
		}
		if counts {
			list = append(list, f)
		}
	}
	return list, nil
}

// hasOption reports whether the tag of a field has an option.
func hasOption(f reflect.StructField, option string) bool {
	_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	for o := range strings.SplitSeq(options, ",") {
		if name, _, _ := strings.Cut(o, ":"); name == option {
			return true
		}
	}
	return false
}

// isNumber reports whether the option `string` applies to a type: a number, or
// a type that decodes itself.
func isNumber(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != timeType && decodesItself(t) {
		return true
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64:
		return true
	}
	return false
}

// checkWritten checks the JSON of a state whose type has traits. The JSON must
// be strict, be readable as T, and hold no number that an any would change. An
// error names members and holds no value.
func (d *stateDecoder[T]) checkWritten(raw []byte) error {
	if err := d.checkStrict(raw); err != nil {
		return err
	}
	return readBack[T](raw, d.traits, d.coding)
}

func (d *stateDecoder[T]) checkStrict(raw []byte) error {
	if d.traits.writes && !jsontext.Value(raw).IsValid() {
		return errors.New("sessiontoken: state: a type that encodes itself has written one name twice, or text that is not UTF-8")
	}
	return nil
}

// readBack returns an error if the JSON of a value of type T is not read back. c
// may be nil.
func readBack[T any](raw []byte, traits stateTraits, c *coding) error {
	if traits == (stateTraits{}) {
		return nil
	}
	var options []json.Options
	if c != nil {
		options = append(options, c.options)
	}
	if traits.any {
		if options = append(options, json.WithUnmarshalers(exactNumbers)); c != nil {
			options = append(options, c.exact)
		}
	}
	if traits.reads {
		raw = bytes.Clone(raw)
	}
	var back T
	err := json.Unmarshal(raw, &back, options...)
	if err == nil {
		return nil
	}
	at := ""
	if semantic := (*json.SemanticError)(nil); errors.As(err, &semantic) && semantic.JSONPointer != "" {
		at = " at " + strconv.Quote(string(semantic.JSONPointer))
	}
	if errors.Is(err, errInexact) {
		return fmt.Errorf("sessiontoken: state: an any%s holds %w: give it a type of its own, or write it as a string", at, errInexact)
	}
	return fmt.Errorf("sessiontoken: state: what was written%s is not read back", at)
}

var errInexact = errors.New("a number that is read back as another one")

// exactNumbers makes a decoder fail at a number that an any would change, since
// an any reads every number as a float64. An integer must be held exactly; any
// other number must be finite. It decodes nothing.
var exactNumbers = json.UnmarshalFunc(func(raw []byte, _ *any) error {
	dec := jsontext.NewDecoder(bytes.NewReader(raw))
	for {
		token, err := dec.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case token.Kind() == '0' && !isExact(token.String()):
			return errInexact
		}
	}
})

func isExact(number string) bool {
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.ContainsAny(number, ".eE") {
		return err == nil
	}
	return strconv.FormatFloat(f, 'f', 0, 64) == number
}
