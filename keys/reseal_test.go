package keys_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
)

// sealedWith seals with the first of the keys, each of one repeated byte.
func sealedWith(t *testing.T, n *network, list ...byte) func(*keys.RingConfig) {
	t.Helper()
	var secrets [][]byte
	for _, b := range list {
		secrets = append(secrets, bytes.Repeat([]byte{b}, 32))
	}
	aead, err := keys.NewAESGCM(secrets...)
	require.NoError(t, err)
	return func(c *keys.RingConfig) { c.Store, c.SyncEvery = keys.Sealed(shared{n}, aead), 10*time.Minute }
}

// A ring with the wrong sealing key among right ones changes nothing, and says
// so wherever that is looked for.
func TestWrongSealingKeyChangesNothing(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *network) func(*keys.RingConfig)
	}{
		{"another key", func(t *testing.T, n *network) func(*keys.RingConfig) { return sealedWith(t, n, 2) }},
		{"not sealed", func(_ *testing.T, n *network) func(*keys.RingConfig) {
			return func(c *keys.RingConfig) { c.SyncEvery = 10 * time.Minute }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(network)
				var logged logBuffer
				first := newRing(t, n, sealedWith(t, n, 1))
				kid := current(t, first)
				before := n.get(t)
				wrong := running(t, n, tt.change(t, n), func(c *keys.RingConfig) {
					c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
				})
				require.True(t, published(t, wrong, kid))
				_, err := wrong.SigningKey(t.Context())
				require.ErrorIs(t, err, keys.ErrUnseal)
				require.ErrorIs(t, wrong.Revoke(t.Context(), kid), keys.ErrUnseal)
				_, err = wrong.Rotate(t.Context())
				require.ErrorIs(t, err, keys.ErrUnseal)
				require.Error(t, wrong.Reseal(t.Context()))

				st := wrong.Status()
				require.NoError(t, st.Err)
				require.ErrorIs(t, st.UnsealErr, keys.ErrUnseal)
				for _, k := range st.Keys {
					require.True(t, k.Private)
					require.ErrorIs(t, k.Err, keys.ErrUnseal)
				}
				require.EqualValues(t, 2, wrong.Metrics()["ring_locked_keys"])
				require.Positive(t, wrong.Metrics()["ring_unseal_failures_total"])
				require.Contains(t, logged.String(), "reason=ring_unseal")
				require.NotContains(t, logged.String(), "current key")
				require.Equal(t, before, n.get(t))

				time.Sleep(29*day + 12*time.Hour) // for weeks it alone runs
				require.Equal(t, before, n.get(t))
				second := newRing(t, n, sealedWith(t, n, 1))
				require.Equal(t, kid, current(t, second))
				require.NoError(t, second.Revoke(t.Context(), kid))
				require.NoError(t, second.Status().UnsealErr)
				time.Sleep(10 * time.Minute)
				require.False(t, published(t, wrong, kid), "it verifies like the others")
			})
		})
	}
}

// Keys that are sealed with a newer sealing key than a ring has are the same.
func TestNewerSealingKeyChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		old := newRing(t, n, sealedWith(t, n, 1))
		kid := current(t, old)
		fresh := newRing(t, n, sealedWith(t, n, 2, 1))
		require.Equal(t, kid, current(t, fresh))
		require.NoError(t, fresh.Revoke(t.Context(), fresh.Status().Keys[1].KeyID)) // the next, now sealed with 2
		time.Sleep(10 * time.Minute)
		require.Equal(t, kid, current(t, old), "it signs with what it can")
		require.ErrorIs(t, old.Revoke(t.Context(), kid), keys.ErrUnseal)
		require.ErrorIs(t, old.Status().UnsealErr, keys.ErrUnseal)
		require.NoError(t, old.Status().Keys[0].Err)
		require.Error(t, old.Status().Keys[1].Err)
	})
}

// From an unsealed ring to a sealed one, and from one sealing key to the next.
func TestReseal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		plain := newRing(t, n, func(c *keys.RingConfig) { c.SyncEvery = 10 * time.Minute })
		kid := current(t, plain)
		require.Equal(t, 2, plain.Status().Unsealed)
		require.Error(t, plain.Reseal(t.Context()))

		one := newRing(t, n, sealedWith(t, n, 1))
		require.Equal(t, kid, current(t, one))
		require.Equal(t, 2, one.Status().Unsealed)
		require.Zero(t, bytes.Count(n.get(t), []byte(`"sealed":true`)))
		require.NoError(t, one.Revoke(t.Context(), one.Status().Keys[1].KeyID)) // any write
		require.Zero(t, one.Status().Unsealed)
		require.Equal(t, 2, bytes.Count(n.get(t), []byte(`"sealed":true`)))
		require.Equal(t, kid, current(t, one))
		require.Equal(t, kid, current(t, plain), "a replica that is still to be restarted signs on")

		two := newRing(t, n, sealedWith(t, n, 2, 1))
		require.Equal(t, kid, current(t, two))
		require.Len(t, two.Status().SealingKeys, 1)
		require.NoError(t, two.Reseal(t.Context()))
		require.Len(t, two.Status().SealingKeys, 1)
		require.NotEqual(t, one.Status().SealingKeys, two.Status().SealingKeys)
		for _, k := range two.Status().Keys {
			require.Equal(t, 2, two.Status().SealingKeys[k.SealingKey])
		}
		written := n.get(t)
		require.NoError(t, two.Reseal(t.Context()))
		require.Equal(t, written, n.get(t), "nothing is left to do")
		require.Equal(t, kid, current(t, newRing(t, n, sealedWith(t, n, 2))), "the old one is needed no more")
		_, err := newRing(t, n, sealedWith(t, n, 1)).SigningKey(t.Context())
		require.ErrorIs(t, err, keys.ErrUnseal)
	})
}

// edit changes the stored document as another release might have written it.
func edit(t *testing.T, n *network, change func(doc map[string]any)) {
	t.Helper()
	var doc map[string]any
	require.NoError(t, json.Unmarshal(n.get(t), &doc))
	change(doc)
	out, err := json.Marshal(doc)
	require.NoError(t, err)
	n.put(t, out)
}

// Members and keys of a newer release survive a write of this one.
func TestNewerReleaseSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		kid := current(t, newRing(t, n))
		foreign := jsontext.Value(`{"kty":"AKP","alg":"ML-DSA-65","kid":"post-quantum","pub":"AAAA"}`)
		edit(t, n, func(doc map[string]any) {
			doc["made_by"] = map[string]any{"release": "2.0", "number": 12345678901234567}
			list := doc["keys"].([]any)
			list[0].(map[string]any)["note"] = "kept"
			next := list[1].(map[string]any)
			next["jwk"], next["handle"] = foreign, []any{1, "x"}
			doc["keys"] = list
			doc["revoked"] = []any{map[string]any{"kid": "gone", "until": time.Now().Add(day), "why": "leaked"}}
		})
		r := newRing(t, n)
		require.Equal(t, kid, current(t, r), "the rest goes on")
		require.Equal(t, []string{"current", "next"}, phases(r))
		require.Equal(t, "post-quantum", r.Status().Keys[1].KeyID)
		require.Empty(t, r.Status().Keys[1].Algorithm)
		set, err := r.KeySet(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, set.Keys(), 1)
		require.False(t, published(t, r, "post-quantum"))
		_, err = r.IdentifyKey(t.Context(), "post-quantum")
		require.Error(t, err)
		at, err := r.Rotate(t.Context()) // any write
		require.NoError(t, err)
		written := string(n.get(t))
		for _, part := range []string{`"note":"kept"`, `"why":"leaked"`, `"handle":[1,"x"]`, `"kid":"post-quantum"`, `"pub":"AAAA"`, `"release":"2.0"`, `12345678901234567`} {
			require.Contains(t, strings.ReplaceAll(written, " ", ""), part)
		}
		time.Sleep(time.Until(at) + time.Minute)
		_, err = r.SigningKey(t.Context())
		require.Error(t, err, "its turn has come, and this release cannot use it")
		require.True(t, published(t, r, kid))
		require.NoError(t, r.Revoke(t.Context(), "post-quantum"), "by its id it can be revoked")
		current(t, r)
	})
}

// broken is an AEAD that fails to seal.
type broken struct{ keys.AEAD }

func (broken) Encrypt([]byte, []byte) ([]byte, error) { return nil, errors.New("the secret is 42") }

func TestSealingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		r := newRing(t, n, func(c *keys.RingConfig) { c.Store = keys.Sealed(shared{n}, broken{}) })
		_, err := r.SigningKey(t.Context())
		require.Error(t, err)
		require.NotContains(t, err.Error(), "42")
		require.Error(t, r.Status().WriteErr)
		require.Nil(t, n.get(t))
	})
}
