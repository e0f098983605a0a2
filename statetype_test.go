package sessiontoken_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// Types that encode and decode themselves, or only decode.
type (
	readsText string // validates what it reads, and is written as a string
	byValue   struct{ S string }
	byPointer struct{ S string }
	textual   struct{ s string }
)

func (r *readsText) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		return errBoom
	}
	*r = readsText(b)
	return nil
}

func (v byValue) MarshalJSON() ([]byte, error)  { return json.Marshal(v.S) }
func (v *byValue) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &v.S) }

func (p *byPointer) MarshalJSONTo(e *jsontext.Encoder) error { return json.MarshalEncode(e, p.S) }
func (p *byPointer) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return json.UnmarshalDecode(d, &p.S)
}

func (t textual) MarshalText() ([]byte, error)  { return []byte(t.s), nil }
func (t *textual) UnmarshalText(b []byte) error { t.s = string(b); return nil }

// HasX and HasX2 are embedded.
type (
	HasX  struct{ X int }
	HasX2 struct{ X int }
)

type forest struct {
	Left, Right *forest
	Others      []forest
	ByName      map[string]forest
}

// TestStateTypeOfConstructors: both constructors refuse a type, and name it.
func TestStateTypeOfConstructors(t *testing.T) {
	type owner struct{ S fmt.Stringer }
	type state struct{ Owner owner }
	source := staticSource(t, keys.EdDSA)
	want := "sessiontoken: sessiontoken_test.state cannot be a state: State.Owner.S is a fmt.Stringer, and what is read back does not say of which type it was: write a type that is not an interface, or any"
	_, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: source})
	require.EqualError(t, err, want)
	_, err = sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: source})
	require.EqualError(t, err, want)
}

// TestStateTypesThatWork: types that encode and decode themselves are taken as
// they are, and so is all that can be read back.
func TestStateTypesThatWork(t *testing.T) {
	type outer struct { // of two fields of one name the outer one counts, as in Go
		HasX
		X string
	}
	type tagged struct {
		HasX
		*HasX2
		Y string `json:"X"`
	}
	type state struct {
		V       byValue
		P       byPointer
		PP      **byPointer
		T       textual
		R       readsText
		Texts   map[textual]textual
		Reads   map[readsText]int
		Numbers map[int8]map[float64]string
		Bytes   map[[2]byte]bool
		Addrs   map[netip.Addr]*big.Int
		Forest  forest
		Outer   outer
		Tagged  tagged
		Raw     jsontext.Value
		Any     any
		Level   int64    `json:",string"`
		No      chan int `json:"-"`
		no      func()
	}
	roundTrip(t, staticSource(t, keys.EdDSA), state{
		V: byValue{"v"}, P: byPointer{"p"}, PP: new(&byPointer{"pp"}), T: textual{"t"}, R: "r",
		Texts: map[textual]textual{{"k"}: {"v"}}, Reads: map[readsText]int{"k": 1},
		Numbers: map[int8]map[float64]string{-1: {1.5: "x"}}, Bytes: map[[2]byte]bool{{1, 2}: true},
		Addrs:  map[netip.Addr]*big.Int{netip.MustParseAddr("::1"): new(big.Int).Lsh(big.NewInt(1), 80)},
		Forest: forest{Left: &forest{Others: []forest{}, ByName: map[string]forest{}}, Others: []forest{}, ByName: map[string]forest{}},
		Outer:  outer{X: "outer"}, Tagged: tagged{Y: "tagged"},
		Raw: jsontext.Value(`{"a":[1]}`), Any: map[string]any{"a": []any{"b", 1.5, nil, true}}, Level: math.MaxInt64,
	})
	var s state
	require.Nil(t, s.no)
}

// liar writes what it is told to, whatever the encoder thinks of it.
type liar string

func (l liar) MarshalJSONTo(e *jsontext.Encoder) error {
	return json.MarshalEncode(e, jsontext.Value(l), jsontext.AllowDuplicateNames(true))
}

func (l *liar) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var raw jsontext.Value
	err := json.UnmarshalDecode(d, &raw, jsontext.AllowDuplicateNames(true))
	*l = liar(raw)
	return err
}

// TestWrittenStateIsStrict: what a type that encodes itself has written is
// checked before it is signed.
func TestWrittenStateIsStrict(t *testing.T) {
	issuer := newIssuer[map[string]liar](t, staticSource(t, keys.EdDSA))
	for _, tt := range []struct {
		name string
		text liar
	}{
		{"one name twice", `{"a":1,"a":2}`}, {"deep below", `[[{"b":{"a":1,"\u0061":2}}]]`}, {"too deep", "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]"},
	} {
		_, _, err := issuer.Issue(t.Context(), "user-1", map[string]liar{"x": tt.text})
		require.ErrorContains(t, err, "sessiontoken: state", tt.name)
		_, err = issuer.Size(t.Context(), "user-1", map[string]liar{"x": tt.text})
		require.Error(t, err, tt.name)
	}
	_, _, err := issuer.Issue(t.Context(), "user-1", map[string]liar{"x": `{"a":1,"b":2}`})
	require.NoError(t, err)
}

// TestWrittenStateIsReadBack: a value that its own type does not read back is
// refused when it is issued, and not at each request.
func TestWrittenStateIsReadBack(t *testing.T) {
	type state struct {
		Roles []readsText `json:"roles"`
	}
	source := staticSource(t, keys.EdDSA)
	issuer := newIssuer[state](t, source)
	_, _, err := issuer.Issue(t.Context(), "user-1", state{[]readsText{"a", ""}})
	require.EqualError(t, err, `sessiontoken: state: what was written at "/roles/1" is not read back`)
	token, _, err := issuer.Issue(t.Context(), "user-1", state{[]readsText{"a"}})
	require.NoError(t, err)
	err = failure2(issuer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[state]) (state, error) {
		return state{[]readsText{""}}, nil
	}))
	require.ErrorContains(t, err, "is not read back")
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid, "it is not the token's fault")
}

func failure2[A, B any](_ A, _ B, err error) error { return err }

// TestNumbersInAny: an any reads numbers as float64. One that would become
// another number is refused when it is issued; any other is read back exactly.
func TestNumbersInAny(t *testing.T) {
	type state struct {
		ID   any            `json:"id,omitzero"`
		Deep map[string]any `json:"deep"`
		N    int64
	}
	source := staticSource(t, keys.EdDSA)
	issuer, v := newIssuer[state](t, source), newVerifier[state](t, source)
	for _, tt := range []struct {
		name  string
		value any
		read  any // nil: refused
	}{
		{"an id beyond 2^53", int64(1147953659032899585), nil},
		{"negative", int64(-1147953659032899585), nil},
		{"2^53 + 1", int64(1<<53 + 1), nil},
		{"the largest uint64", uint64(math.MaxUint64), nil},
		{"1e400", jsontext.Value("1e400"), nil},
		{"-1e400", jsontext.Value("-1e400"), nil},
		{"an integer of 400 digits", jsontext.Value("1" + string(bytes.Repeat([]byte("0"), 400))), nil},
		{"its shortest form", int64(1147953659032899600), nil},
		{"within a struct", struct{ A []int64 }{[]int64{1<<53 + 1}}, nil},
		{"2^53", int64(1 << 53), float64(1 << 53)},
		{"2^60, which a float64 has", int64(1 << 60), float64(1 << 60)},
		{"small", -7, float64(-7)},
		{"zero", 0, float64(0)},
		{"a fraction", 0.1, 0.1},
		{"large", 1.5e300, 1.5e300},
		{"a string", "1147953659032899585", "1147953659032899585"},
		{"null", jsontext.Value("null"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ok := tt.read != nil || tt.name == "null"
			deep := map[string]any{"a": []any{map[string]any{"b": tt.value}}}
			_, _, errDeep := issuer.Issue(t.Context(), "user-1", state{Deep: deep})
			token, _, err := issuer.Issue(t.Context(), "user-1", state{ID: tt.value, Deep: deep, N: math.MaxInt64})
			if !ok {
				require.EqualError(t, err, `sessiontoken: state: an any at "/id" holds a number that is read back as another one: give it a type of its own, or write it as a string`)
				require.ErrorContains(t, errDeep, `an any at "/deep/a" holds`)
				return
			}
			require.NoError(t, err)
			require.NoError(t, errDeep)
			got, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, state{ID: tt.read, Deep: map[string]any{"a": []any{map[string]any{"b": tt.read}}}, N: math.MaxInt64}, got.State)
		})
	}
	_, _, err := newIssuer[any](t, source).Issue(t.Context(), "user-1", int64(1<<53+1))
	require.EqualError(t, err, "sessiontoken: state: an any holds a number that is read back as another one: give it a type of its own, or write it as a string")
}

// keeper keeps the bytes that it is given, as does textKeeper; scribbler writes
// into them.
type keeper struct{ kept []byte }

func (k keeper) MarshalJSON() ([]byte, error)  { return []byte(`"genuine"`), nil }
func (k *keeper) UnmarshalJSON(b []byte) error { k.kept = b; return nil }

type textKeeper struct{ kept []byte }

func (k textKeeper) MarshalText() ([]byte, error)  { return []byte("genuine"), nil }
func (k *textKeeper) UnmarshalText(b []byte) error { k.kept = b; return nil }

type scribbler struct{ text string }

func (s scribbler) MarshalJSON() ([]byte, error) { return []byte(`"genuine"`), nil }
func (s *scribbler) UnmarshalJSON(b []byte) error {
	if s.text = string(b); s.text != `"genuine"` {
		return errors.New("not what was written")
	}
	copy(b[1:], "XXXXXXX")
	return nil
}

// TestTypesThatKeepTheirInput: what a type that decodes itself does to the bytes
// it was given reaches neither the cache nor another caller.
func TestTypesThatKeepTheirInput(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		type state struct {
			JSON  *keeper
			Text  *textKeeper
			Loud  *scribbler
			Map   map[string]*keeper
			Roles []string
		}
		source := staticSource(t, keys.EdDSA)
		issuer := newIssuer[state](t, source)
		token, _, err := issuer.Issue(t.Context(), "user-1", state{&keeper{}, &textKeeper{}, &scribbler{}, map[string]*keeper{"a": {}}, []string{}})
		require.NoError(t, err)
		v := newVerifier[state](t, source, cache)
		var earlier []*sessiontoken.Claims[state]
		for range 4 {
			c, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, `"genuine"`, string(c.State.JSON.kept))
			require.Equal(t, "genuine", string(c.State.Text.kept))
			require.Equal(t, `"genuine"`, string(c.State.Map["a"].kept))
			require.Equal(t, `"genuine"`, c.State.Loud.text)
			for _, e := range earlier {
				require.Equal(t, `"changed"`, string(e.State.JSON.kept), "it is its caller's alone")
			}
			copy(c.State.JSON.kept, `"changed"`)
			copy(c.State.Text.kept, "changed")
			copy(c.State.Map["a"].kept, `"changed"`)
			earlier = append(earlier, c)
		}
		// Renew gives load a copy too.
		for range 2 {
			require.NoError(t, failure2(issuer.Renew(t.Context(), token, func(_ context.Context, old *sessiontoken.Claims[state]) (state, error) {
				require.Equal(t, `"genuine"`, string(old.State.JSON.kept))
				copy(old.State.JSON.kept, `"changed"`)
				return old.State, nil
			})))
		}
	})
}
