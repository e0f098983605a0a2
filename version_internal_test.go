package sessiontoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// upgradedState is version 3 of a state. What its upgrade does, the old state says.
type upgradedState struct {
	Name string
	Mail Sealed[string]
	Any  any `json:",omitempty"`
}

func (*upgradedState) StateVersion() (int, int) { return 3, 2 }

func (s *upgradedState) UpgradeState(version int, raw []byte) error {
	if upgradeSeen != nil {
		upgradeSeen(version, raw)
	}
	var old struct {
		Name, Mail, Do string
		Any            any
	}
	if err := json.Unmarshal(raw, &old); err != nil {
		return err
	}
	s.Name, s.Mail, s.Any = old.Name, Seal(old.Mail), old.Any
	switch old.Do {
	case "panic":
		panic(old)
	case "fail":
		return errors.New(old.Name)
	case "change":
		clear(raw)
	case "func":
		s.Any = func() {}
	case "chan":
		s.Any = map[string]any{"a": make(chan int)}
	}
	return nil
}

// upgradeSeen is told of each upgrade.
var upgradeSeen func(version int, raw []byte)

// FuzzUpgrade: whatever version a token says, and whatever its state holds, the
// caller of UpgradeState does not panic and changes nothing that it was given. It
// calls once, for an older version, with valid JSON. What it accepts is of the
// own version, and can be written and read again.
func FuzzUpgrade(f *testing.F) {
	secrets := [][]byte{bytes.Repeat([]byte{1}, 32)}
	opens, err := newStateCodec[upgradedState]("IssuerConfig", secrets, false)
	require.NoError(f, err)
	leaves, err := newStateCodec[upgradedState]("VerifierConfig", nil, true)
	require.NoError(f, err)
	for _, raw := range []string{
		`{"Name":"a","Mail":"b"}`, `{"Name":"a","Mail":"b","Do":"panic"}`, `{"Name":"a","Do":"fail"}`, `{"Name":"a","Do":"change"}`,
		`{"Do":"func"}`, `{"Do":"chan"}`, `{"Any":[1,1e400,{"a":9007199254740993}]}`, `{"Name":1}`, `{"Name":"\ud800"}`, `{"Name":"a"`, `null`, `[]`, ``, `1 2`,
		`{"Name":"a","Name":"b"}`,
	} {
		for version := range uint32(5) {
			f.Add([]byte(raw), version, version/2)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, written, readableBy uint32) {
		for _, d := range []*stateDecoder[upgradedState]{opens, leaves} {
			calls := 0
			upgradeSeen = func(version int, raw []byte) {
				calls++
				require.Equal(t, written, uint32(version))
				require.Less(t, version, 3)
				require.True(t, jsontext.Value(raw).IsValid())
			}
			p := payload{Issuer: "i", Subject: "s", SessionID: "d", Version: versionClaim{written, readableBy}, State: bytes.Clone(raw)}
			given := p.State
			var state upgradedState
			err := d.read(&p, &state)
			require.Equal(t, string(raw), string(given))
			require.LessOrEqual(t, calls, 1)
			if err != nil {
				require.ErrorIs(t, err, ErrState)
				continue
			}
			if written >= 3 {
				require.Zero(t, calls)
				require.True(t, written == 3 || readableBy <= 3)
				continue
			}
			require.Equal(t, 1, calls)
			require.Equal(t, versionClaim{3, 2}, p.Version)
			if d == leaves {
				_, err := state.Mail.Open()
				require.ErrorIs(t, err, ErrSealed)
			}
		}
	})
}
