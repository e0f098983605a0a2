package sessiontoken

import (
	"fmt"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// Types that encode themselves and do not decode themselves as they encode.
type (
	writesJSON   struct{ S string }
	writesJSONTo struct{ S string }
	writesText   struct{ S string }
	appendsText  struct{ S string }
	mixed        struct{ S string }
)

func (w writesJSON) MarshalJSON() ([]byte, error)               { return json.Marshal(w.S) }
func (w *writesJSONTo) MarshalJSONTo(e *jsontext.Encoder) error { return json.MarshalEncode(e, w.S) }
func (w writesText) MarshalText() ([]byte, error)               { return []byte(w.S), nil }
func (w appendsText) AppendText(b []byte) ([]byte, error)       { return append(b, w.S...), nil }
func (m mixed) MarshalJSON() ([]byte, error)                    { return json.Marshal(m.S) }
func (m *mixed) UnmarshalText(b []byte) error                   { m.S = string(b); return nil }

type hiddenStruct struct{ X int }

// HasX and HasX2 are embedded side by side.
type (
	HasX  struct{ X int }
	HasX2 struct{ X int }
)

type tree struct {
	Left, Right *tree
	Others      []tree
	ByName      map[string]tree
	Last        fmt.Stringer
}

// of returns what is wrong with a type.
func of[T any]() error {
	_, err := checkStateType(reflect.TypeFor[T]())
	return err
}

// TestStateTypesThatCannotWork: they are refused by the path of the field, with
// what to write instead.
func TestStateTypesThatCannotWork(t *testing.T) {
	type owner struct{ S fmt.Stringer }
	type retries struct{ Wait time.Duration }
	for _, tt := range []struct {
		name          string
		err           error
		path, instead string
	}{
		{"interface", of[struct{ Owner owner }](), "State.Owner.S is a fmt.Stringer", "or any"},
		{"the state itself", of[fmt.Stringer](), "State is a fmt.Stringer", "or any"},
		{"error", of[struct{ Err error }](), "State.Err is a error", "or any"},
		{"interface in a slice", of[struct{ List []owner }](), "State.List[].S", "or any"},
		{"interface in a map", of[map[string][2]owner](), "State[][].S", "or any"},
		{"interface behind pointers", of[**struct{ P *owner }](), "State.P.S", "or any"},
		{"interface in a recursion", of[tree](), "State.Last", "or any"},
		{"interface in an embedded", of[struct{ tree }](), "State.tree.Left.Last", "or any"},
		{"MarshalJSON alone", of[struct{ W writesJSON }](), "State.W", "no UnmarshalJSON: add that"},
		{"MarshalJSONTo alone", of[struct{ W []*writesJSONTo }](), "State.W[]", "no UnmarshalJSON: add that"},
		{"MarshalText alone", of[struct{ W writesText }](), "State.W", "no UnmarshalText: add that"},
		{"AppendText alone", of[struct{ W appendsText }](), "State.W", "no UnmarshalText: add that"},
		{"MarshalJSON, UnmarshalText", of[struct{ W mixed }](), "State.W", "no UnmarshalJSON: add that"},
		{"chan", of[struct{ C chan int }](), "State.C is a chan int", "leave it out"},
		{"func", of[struct{ F func() }](), "State.F is a func()", "leave it out"},
		{"complex", of[struct{ C complex128 }](), "State.C is a complex128", "leave it out"},
		{"unsafe pointer", of[struct{ P unsafe.Pointer }](), "State.P is a unsafe.Pointer", "leave it out"},
		{"duration", of[struct{ R []retries }](), "State.R[].Wait is a time.Duration", "whole seconds as an int64"},
		{"duration as a map's element", of[map[string]time.Duration](), "State[] is a time.Duration", "whole seconds as an int64"},
		{"duration with a format", of[struct {
			Wait time.Duration `json:"wait,format:sec"`
		}](), "State.Wait has a `format`", "whole seconds as an int64"},
		{"an unknown format", of[struct {
			At time.Time `json:"at,omitzero,format:sometimes"`
		}](), "State.At has a `format`", "MarshalText"},
		{"two embedded fields of one name", of[struct {
			HasX
			HasX2
		}](), "State.HasX.X and State.HasX2.X have one name in JSON, \"X\"", "give one of them another"},
		{"an embedded pointer to a hidden struct", of[struct{ *hiddenStruct }](), "State.hiddenStruct", "embed the struct itself"},
		{"no exported fields", of[struct{ M struct{ n int } }](), "State.M", "no exported fields"},
		{"a tag that is malformed", of[struct {
			//lint:ignore SA5008 the mistake is the case
			A string `json:"a,omitEmpty"`
		}](), "State is a", "specify `omitempty` instead"},
		{"string for a bool", of[struct {
			B bool `json:",string"`
		}](), "State.B", "for numbers"},
		{"string for a time", of[struct {
			//lint:ignore SA5008 the mistake is the case
			B *time.Time `json:",string"`
		}](), "State.B", "for numbers"},
		{"keys of structs", of[map[hiddenStruct]int](), "State has keys of the type sessiontoken.hiddenStruct", "write string"},
		{"keys of pointers", of[struct{ M map[*int]int }](), "State.M has keys of the type *int", "write string"},
		{"keys of interfaces", of[map[any]int](), "State has keys of the type interface {}", "write string"},
		{"keys of bools", of[map[bool]int](), "State has keys of the type bool", "write string"},
		{"keys that only text", of[map[writesText]int](), "State, by its keys,", "add that"},
		{"too deep", of[[1][1][1][1][1][1][1][1][1][1][1][1][1][1][1][1]int](), "nested deeper", "16 levels"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			require.Error(t, tt.err)
			require.ErrorContains(t, tt.err, "sessiontoken: ")
			require.ErrorContains(t, tt.err, " cannot be a state: ")
			require.ErrorContains(t, tt.err, tt.path)
			require.ErrorContains(t, tt.err, tt.instead)
		})
	}
}

// TestStateTypesThatVetRefuses: what go vet finds in a struct's tags, the
// constructors find too.
func TestStateTypesThatVetRefuses(t *testing.T) {
	text := reflect.TypeFor[string]()
	for _, tt := range []struct {
		name   string
		fields []reflect.StructField
		want   string
	}{
		{"two fields of one name",
			[]reflect.StructField{{Name: "A", Type: text, Tag: `json:"x"`}, {Name: "B", Type: text, Tag: `json:"x"`}},
			`State.A and State.B have one name in JSON, "x": give one of them another by its tag`,
		},
		{"a name by a tag and one by itself",
			[]reflect.StructField{{Name: "A", Type: text}, {Name: "B", Type: text, Tag: `json:"A"`}}, "conflict over JSON object name",
		},
		{"a tag on a hidden field",
			[]reflect.StructField{{Name: "A", Type: text}, {Name: "b", PkgPath: "p", Type: text, Tag: `json:"b"`}}, "unexported Go struct field b",
		},
	} {
		_, err := checkStateType(reflect.StructOf(tt.fields))
		require.ErrorContains(t, err, tt.want, tt.name)
	}
}
