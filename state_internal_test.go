package sessiontoken

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

type loudList []string // decodes itself, and would notice room

func (l *loudList) UnmarshalJSON(b []byte) error {
	if *l != nil {
		panic("not as the decoder left it")
	}
	*l = loudList{string(b)}
	return nil
}

type embedded struct {
	Scopes []string `json:"scopes"`
}

type manySlices struct {
	Roles    []string             `json:"roles"`
	Matrix   [][]int              `json:"matrix"`
	Groups   []struct{ N []int }  `json:"groups"`
	Bytes    []byte               `json:"bytes"`
	Raw      jsontext.Value       `json:"raw"`
	Loud     loudList             `json:"loud"`
	Inner    struct{ A, B []int } `json:"inner"`
	Pointer  *[]string            `json:"pointer"`
	Map      map[string][]int     `json:"map"`
	Any      []any                `json:"any"`
	Time     time.Time            `json:"time"`
	NotThere []string             `json:"-"`
	private  []string
	embedded
}

func (s *manySlices) use() []string { return s.private }

// TestStateDecoderLeavesNoTrace: whatever was decoded before, a state is what a
// decoder makes of it that never decoded another.
func TestStateDecoderLeavesNoTrace(t *testing.T) {
	list := []string{
		`{"roles":["a","b","c"],"matrix":[[1],[2,3]],"groups":[{"N":[1,2]}],"inner":{"A":[1,2,3]},"scopes":["x"],"any":[1,"a",null]}`,
		`{"roles":[],"matrix":null}`, `{"roles":null}`, `{}`, `{"roles":["a"],"inner":{"B":[]}}`,
		`{"roles":[` + strings.Repeat(`"r",`, 200) + `"r"]}`, `{"roles":["z"]}`,
		`{"loud":["a"],"raw":[1,2],"bytes":"AAEC","pointer":["p"],"map":{"m":[1]}}`, `{"loud":["b"],"raw":null,"pointer":null}`,
		`{"roles":["a",1]}`, `{"roles":"a"}`, `null`, `[]`, `{"roles":["a"],"roles":["b"]}`, `{"matrix":[[1,2],[]],"groups":[{},{"N":null}]}`,
	}
	d := newStateDecoder[manySlices]()
	for _, a := range list {
		for _, b := range list {
			for _, raw := range []string{a, a, b} {
				requireSameState(t, d, []byte(raw))
			}
		}
	}
	var s manySlices
	require.NoError(t, d.decode([]byte(list[0]), &s))
	require.NoError(t, d.decode([]byte(list[0]), new(manySlices)))
	require.Nil(t, s.NotThere)
	require.Nil(t, s.use())
}

func requireSameState[T any](t *testing.T, d *stateDecoder[T], raw []byte) {
	t.Helper()
	var got, want T
	err, wantErr := d.decode(raw, &got), json.Unmarshal(raw, &want)
	require.Equal(t, wantErr == nil, err == nil, "%s", raw)
	if err == nil {
		require.Equal(t, want, got, "%s", raw)
	}
}

// Types that are no struct, or decode themselves, are left to the decoder.
func TestStateDecoderOfOtherTypes(t *testing.T) {
	for range 2 {
		requireSameState(t, newStateDecoder[[]string](), []byte(`["a"]`))
		requireSameState(t, newStateDecoder[map[string]any](), []byte(`{"a":[1]}`))
		requireSameState(t, newStateDecoder[*manySlices](), []byte(`{"roles":["a"]}`))
		requireSameState(t, newStateDecoder[loudList](), []byte(`["a"]`))
		requireSameState(t, newStateDecoder[time.Time](), []byte(`"2000-01-01T00:00:00Z"`))
	}
	type node struct {
		Next *node
		List []string
	}
	require.Len(t, newStateDecoder[node]().slices, 1)
	require.Len(t, newStateDecoder[manySlices]().slices, 7)
}

func FuzzStateDecoder(f *testing.F) {
	f.Add([]byte(`{"roles":["a","b"]}`), []byte(`{"roles":[]}`))
	f.Add([]byte(`{"roles":["a"],"inner":{"A":[1],"B":[2]}}`), []byte(`{"inner":null}`))
	f.Add([]byte(`{"matrix":[[1],[2]],"groups":[{"N":[1]}]}`), []byte(`{"matrix":[[],null],"groups":[{}]}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		d := newStateDecoder[manySlices]()
		for _, raw := range [][]byte{a, b, a, b} {
			requireSameState(t, d, raw)
		}
	})
}
