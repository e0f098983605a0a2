package sessiontoken

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

type fuzzedState struct {
	Name string
	Mail Sealed[string]
	Deep []struct{ Mail Sealed[string] }
}

// FuzzSealed: whatever stands in a state and its sld, the reader of sealed values
// does not panic, changes nothing, and gives out no sealed field that was not
// sealed for this token.
func FuzzSealed(f *testing.F) {
	secrets := [][]byte{bytes.Repeat([]byte{1}, 32)}
	d, err := newStateCodec[fuzzedState]("IssuerConfig", secrets, false)
	require.NoError(f, err)
	left, err := newStateCodec[fuzzedState]("VerifierConfig", nil, true)
	require.NoError(f, err)
	p := payload{Issuer: "i", Subject: "s", SessionID: "d"}
	var body bytes.Buffer
	pointers, err := d.writeSealed(&body, &p, &fuzzedState{Mail: Seal("right"), Deep: []struct{ Mail Sealed[string] }{{Seal("right")}}})
	require.NoError(f, err)
	require.Equal(f, []string{"/Mail", "/Deep/0/Mail"}, pointers)
	f.Add(body.Bytes(), "/Mail", "/Deep/0/Mail", uint32(0))
	f.Add(body.Bytes(), "/Mail", "/Mail", uint32(1))
	for _, raw := range []string{
		`{`, `[`, `"`, ``, `{"Mail"`, `{"Mail":`, `{"Mail":"AAAA"}`, `{"Name":"x","Mail":"AAAA","Deep":[]}`, `[[]]`, ` {"Mail" : [1 , 2] } `, `{"a~/b":{"\u0000":"x"}}`, `{"Mail":"\ud800"}`, `{"Mail":"\`,
	} {
		f.Add([]byte(raw), "/Mail", "", uint32(0))
		f.Add([]byte(raw), "/Name", "/a~0~1b", uint32(7))
	}
	f.Fuzz(func(t *testing.T, raw []byte, first, second string, version uint32) {
		given := payload{Issuer: "i", Subject: "s", SessionID: "d", Version: versionClaim{version % 2, 0}, State: bytes.Clone(raw)}
		for _, pointer := range []string{first, second} {
			if pointer != "" {
				given.Sealed = append(given.Sealed, pointer)
			}
		}
		for _, d := range []*stateDecoder[fuzzedState]{d, left} {
			for _, older := range []bool{false, true} {
				r := sealedReader{secrets: d.secrets, payload: given, older: older}
				if out, err := r.read(nil); err == nil {
					require.True(t, jsontext.Value(out).IsValid())
				}
				require.Equal(t, string(raw), string(given.State))
			}
			read := given
			var state fuzzedState
			if d.read(&read, &state) != nil {
				continue
			}
			sealed := []Sealed[string]{state.Mail}
			for _, e := range state.Deep {
				sealed = append(sealed, e.Mail)
			}
			for _, s := range sealed {
				if text, err := s.Open(); err == nil {
					require.Equal(t, "right", text)
				} else {
					require.ErrorIs(t, err, ErrSealed)
					require.Same(t, left, d)
				}
			}
		}
	})
}

// TestSealedKeys: two sessions have two keys, also those that share a slot of the
// keys that are remembered.
func TestSealedKeys(t *testing.T) {
	s, err := newStateSecrets("", [][]byte{bytes.Repeat([]byte{1}, 32)})
	require.NoError(t, err)
	text := []byte("text")
	sealed := map[string][]byte{}
	for i := range 3 * sessionKeys {
		sid := string(rune('A' + i))
		aead, err := s.all[0].aead(sid)
		require.NoError(t, err)
		sealed[sid] = aead.Seal(nil, nil, text, nil)
	}
	for sid, blob := range sealed {
		for of := range sealed {
			aead, err := s.all[0].aead(of)
			require.NoError(t, err)
			_, err = aead.Open(nil, nil, blob, nil)
			require.Equal(t, of == sid, err == nil)
		}
	}
}
