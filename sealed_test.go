package sessiontoken_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

func withSecrets(secrets ...string) (func(*sessiontoken.IssuerConfig), func(*sessiontoken.VerifierConfig)) {
	var list [][]byte
	for _, s := range secrets {
		list = append(list, []byte(strings.Repeat(s, 32)[:32]))
	}
	return func(c *sessiontoken.IssuerConfig) { c.StateSecrets = list }, func(c *sessiontoken.VerifierConfig) { c.StateSecrets = list }
}

func leaveSealed(c *sessiontoken.VerifierConfig) { c.LeaveSealed = true }

// forge signs a payload with the key of source and the header of token.
func forge(t testing.TB, source *keys.Static, token, payload string) string {
	t.Helper()
	key, err := source.SigningKey(t.Context())
	require.NoError(t, err)
	header, _, _ := strings.Cut(token, ".")
	signed := header + "." + jws.Encode([]byte(payload))
	sig, err := key.Sign(t.Context(), []byte(signed))
	require.NoError(t, err)
	return signed + "." + jws.Encode(sig)
}

type profile struct {
	City  string
	Phone sessiontoken.Sealed[string]
}

// sealedEverywhere has sealed fields in each place that can be sealed.
type sealedEverywhere struct {
	Role    string
	Mail    sessiontoken.Sealed[string]
	Born    sessiontoken.Sealed[time.Time]
	Tags    sessiontoken.Sealed[[]string]
	Profile profile
	Second  *profile `json:"second/~"`
	Others  []profile
	ByName  map[string]sessiontoken.Sealed[int]
	Any     sessiontoken.Sealed[any]
	Maybe   sessiontoken.Sealed[*string] `json:",omitzero"`
	HasPhone
}

type HasPhone struct{ Mobile sessiontoken.Sealed[string] }

func everywhere() sealedEverywhere {
	return sealedEverywhere{
		Role: "admin", Mail: sessiontoken.Seal("ada@example.com"), Born: sessiontoken.Seal(time.Unix(1e9, 0).UTC()), Tags: sessiontoken.Seal([]string{"x", "y"}),
		Profile: profile{"London", sessiontoken.Seal("1")}, Second: &profile{"Paris", sessiontoken.Seal("2")},
		Others: []profile{{"Rome", sessiontoken.Seal("3")}, {"Oslo", sessiontoken.Seal("")}},
		ByName: map[string]sessiontoken.Sealed[int]{"a/b": sessiontoken.Seal(1), "é\"": sessiontoken.Seal(0)},
		Any:    sessiontoken.Seal[any](map[string]any{"k": 1.0}), HasPhone: HasPhone{sessiontoken.Seal("4")},
	}
}

// TestSealed: a sealed field is read back wherever it can be, at first and from
// the cache, and by load at each renewal.
func TestSealed(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withSecrets("a")
	issuer := newIssuer[sealedEverywhere](t, source, onIssuer)
	token, claims, err := issuer.Issue(t.Context(), "u", everywhere())
	require.NoError(t, err)
	require.Equal(t, everywhere(), claims.State)
	for _, bytes := range []int{-1, 0} {
		v := newVerifier[sealedEverywhere](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = bytes })
		for range 3 {
			claims, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, everywhere(), claims.State)
			tags, err := claims.State.Tags.Open()
			require.NoError(t, err)
			tags[0] = "changed by one caller"
		}
		require.Zero(t, v.Config().StateSecrets)
	}
	require.Zero(t, issuer.Config().StateSecrets)
	load := func(_ context.Context, old *sessiontoken.Claims[sealedEverywhere]) (sealedEverywhere, error) {
		require.Equal(t, everywhere(), old.State)
		return old.State, nil
	}
	renewed, claims, err := issuer.Renew(t.Context(), token, load)
	require.NoError(t, err)
	require.Equal(t, everywhere(), claims.State)
	state, err := newVerifier[sealedEverywhere](t, source, onVerifier).Verify(t.Context(), renewed)
	require.NoError(t, err)
	require.Equal(t, everywhere(), state.State)
	claims, err = issuer.Reload(t.Context(), claims, load)
	require.NoError(t, err)
	require.Equal(t, everywhere(), claims.State)
	_, resumed, err := issuer.Resume(t.Context(), sessiontoken.Resumption{SessionID: claims.SessionID, Subject: "u", Began: claims.Began},
		func(context.Context, *sessiontoken.Claims[sealedEverywhere]) (sealedEverywhere, error) {
			return everywhere(), nil
		})
	require.NoError(t, err)
	require.Equal(t, everywhere(), resumed.State)
}

// TestSealedZero: a zero Sealed holds a zero P, and is the same as a sealed zero.
func TestSealedZero(t *testing.T) {
	var s sessiontoken.Sealed[int]
	v, err := s.Open()
	require.NoError(t, err)
	require.Zero(t, v)
	require.Equal(t, s, sessiontoken.Seal(0))
	onIssuer, onVerifier := withSecrets("a")
	source := staticSource(t, keys.EdDSA)
	token, _, err := newIssuer[sealedState](t, source, onIssuer).Issue(t.Context(), "u", sealedState{})
	require.NoError(t, err)
	claims, err := newVerifier[sealedState](t, source, onVerifier).Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, sealedState{}, claims.State)
}

// TestSealedSize: a sealed field of 60 bytes makes a token at most 105 bytes
// longer, and is one claim of the report, which holds nothing of it.
func TestSealedSize(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, _ := withSecrets("a")
	issuer := newIssuer[sealedState](t, source, onIssuer, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = 100 })
	open, err := newIssuer[openState](t, source).Size(t.Context(), "u", withOpen)
	require.NoError(t, err)
	sealed, err := issuer.Size(t.Context(), "u", withSealed)
	require.NoError(t, err)
	require.LessOrEqual(t, sealed.Bytes, open.Bytes+105)
	n := 0
	for _, c := range sealed.Claims {
		if strings.HasPrefix(c.Path, "state.Mail") {
			n++
		}
	}
	require.Equal(t, 1, n)
	_, _, err = issuer.Issue(t.Context(), "u", withSealed)
	require.Error(t, err)
	for _, text := range []string{sealed.String(), err.Error(), fmt.Sprintf("%+v", err)} {
		require.NotContains(t, text, address)
	}
}

// TestSealedIsBound: a sealed value that was moved to another session, subject,
// issuer, field or version, or changed, is ErrClaims, and is not renewed.
func TestSealedIsBound(t *testing.T) {
	type state struct {
		A, B  sessiontoken.Sealed[string]
		Plain string
	}
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withSecrets("a")
	issuer := newIssuer[state](t, source, onIssuer)
	s := state{A: sessiontoken.Seal("a"), B: sessiontoken.Seal("b"), Plain: "p"}
	token, claims, err := issuer.Issue(t.Context(), "u", s)
	require.NoError(t, err)
	other, otherClaims, err := issuer.Issue(t.Context(), "u", s)
	require.NoError(t, err)
	type wire struct {
		State struct{ A, B, Plain string }
		Sld   any
	}
	parse := func(token string) (w wire) {
		require.NoError(t, json.Unmarshal([]byte(payloadOf(t, token)), &w))
		return w
	}
	is, isOther, payload := parse(token), parse(other), payloadOf(t, token)
	require.Equal(t, []any{"/A", "/B"}, is.Sld)
	raw, err := jws.Decode(is.State.A)
	require.NoError(t, err)
	bit := bytes.Clone(raw)
	bit[13] ^= 1

	for _, tt := range []struct {
		name, old, new string
		reason         error // nil: accepted
	}{
		{"as it was", "", "", nil},
		{"another sid", claims.SessionID, otherClaims.SessionID, sessiontoken.ErrClaims},
		{"another token's value", is.State.A, isOther.State.A, sessiontoken.ErrClaims},
		{"another sub", `"sub":"u"`, `"sub":"v"`, sessiontoken.ErrClaims},
		{"another iss", "https://issuer.example", "https://other.example", sessiontoken.ErrClaims},
		{"another field", is.State.A, is.State.B, sessiontoken.ErrClaims},
		{"another version", `"state":`, `"stv":[1,0],"state":`, sessiontoken.ErrClaims},
		{"one bit", is.State.A, jws.Encode(bit), sessiontoken.ErrClaims},
		{"shorter", is.State.A, jws.Encode(raw[:len(raw)-1]), sessiontoken.ErrClaims},
		{"empty", is.State.A, "", sessiontoken.ErrClaims},
		{"nonce alone", is.State.A, jws.Encode(raw[:12]), sessiontoken.ErrClaims},
		{"padded", is.State.A, is.State.A + "=", sessiontoken.ErrClaims},
		{"no string", `"` + is.State.A + `"`, `["` + is.State.A + `"]`, sessiontoken.ErrClaims},
		{"sld of a field that is open", `["/A","/B"]`, `["/A","/B","/Plain"]`, sessiontoken.ErrClaims},
		{"sld of nothing", `["/A","/B"]`, `["/A","/B","/C"]`, sessiontoken.ErrClaims},
		{"sld twice", `["/A","/B"]`, `["/A","/B","/B"]`, sessiontoken.ErrClaims},
		{"sld without a field", `["/A","/B"]`, `"/A"`, sessiontoken.ErrState},
		{"no sld", `,"sld":["/A","/B"]`, ``, sessiontoken.ErrState},
		{"sld of another type", `["/A","/B"]`, `7`, sessiontoken.ErrClaims},
		{"escaped", `"` + is.State.A, fmt.Sprintf(`"\u%04x`, is.State.A[0]) + is.State.A[1:], nil},
		{"spaces", `"state":{`, "\"state\" : {\n\t", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			moved := forge(t, source, token, strings.ReplaceAll(payload, tt.old, tt.new))
			if tt.old == "" {
				moved = token
			}
			v := newVerifier[state](t, source, onVerifier)
			issuer := issuer
			if tt.name == "another iss" {
				v = newVerifier[state](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.Issuer = tt.new })
				issuer = newIssuer[state](t, source, onIssuer, func(c *sessiontoken.IssuerConfig) { c.Issuer = tt.new })
			}
			for range 2 {
				got, err := v.Verify(t.Context(), moved)
				if tt.reason == nil {
					require.NoError(t, err)
					require.Equal(t, s, got.State)
					continue
				}
				require.ErrorIs(t, err, tt.reason)
				require.Equal(t, tt.reason == sessiontoken.ErrState, errors.Is(err, sessiontoken.ErrState))
			}
			_, _, err := issuer.Renew(t.Context(), moved, func(context.Context, *sessiontoken.Claims[state]) (state, error) { return s, nil })
			if tt.reason == sessiontoken.ErrClaims {
				require.ErrorIs(t, err, sessiontoken.ErrClaims)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

// TestSealedRotation: secrets are replaced in the order that StateSecrets says,
// with replicas half-way at each step, and each replica reads the tokens of each
// other. A token whose secret is gone is ErrClaims.
func TestSealedRotation(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	steps := [][]string{{"a"}, {"a", "b"}, {"b", "a"}, {"b"}}
	for i := range steps[1:] {
		for _, writer := range steps[i : i+2] {
			for _, reader := range steps[i : i+2] {
				onIssuer, _ := withSecrets(writer...)
				token, _, err := newIssuer[sealedState](t, source, onIssuer).Issue(t.Context(), "u", withSealed)
				require.NoError(t, err)
				// The last step begins when no token of the old secret is left.
				if writer[0] == "a" && reader[0] == "b" && len(reader) == 1 {
					continue
				}
				onIssuer, onVerifier := withSecrets(reader...)
				v := newVerifier[sealedState](t, source, onVerifier)
				claims, err := v.Verify(t.Context(), token)
				require.NoError(t, err)
				require.Equal(t, withSealed, claims.State)
				require.Equal(t, writer[0] != reader[0], v.Metrics()["state_old_secret_total"] == 1)
				_, _, err = newIssuer[sealedState](t, source, onIssuer).Renew(t.Context(), token, func(_ context.Context, c *sessiontoken.Claims[sealedState]) (sealedState, error) {
					require.Equal(t, withSealed, c.State)
					return c.State, nil
				})
				require.NoError(t, err)
			}
		}
	}
	onIssuer, _ := withSecrets("a")
	token, _, err := newIssuer[sealedState](t, source, onIssuer).Issue(t.Context(), "u", withSealed)
	require.NoError(t, err)
	_, onVerifier := withSecrets("b")
	_, err = newVerifier[sealedState](t, source, onVerifier).Verify(t.Context(), token)
	require.ErrorIs(t, err, sessiontoken.ErrClaims)
	require.NotErrorIs(t, err, sessiontoken.ErrState)
}

// TestLeaveSealed: a replica without the secrets reads the other fields, and says
// that the sealed ones are closed. What it has read cannot be issued.
func TestLeaveSealed(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, _ := withSecrets("a")
	token, _, err := newIssuer[sealedEverywhere](t, source, onIssuer).Issue(t.Context(), "u", everywhere())
	require.NoError(t, err)
	v := newVerifier[sealedEverywhere](t, source, leaveSealed)
	for range 2 {
		claims, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		s := claims.State
		require.Equal(t, "admin", s.Role)
		require.Equal(t, "London", s.Profile.City)
		for _, closed := range []interface{ Open() (string, error) }{s.Mail, s.Profile.Phone, s.Second.Phone, s.Others[1].Phone, s.Mobile} {
			text, err := closed.Open()
			require.ErrorIs(t, err, sessiontoken.ErrSealed)
			require.Empty(t, text)
		}
		_, err = s.ByName["a/b"].Open()
		require.ErrorIs(t, err, sessiontoken.ErrSealed)
		_, _, err = newIssuer[sealedEverywhere](t, source, onIssuer).Issue(t.Context(), "u", s)
		require.ErrorIs(t, err, sessiontoken.ErrSealed)
	}
	// A flat state is copied from the cache, closed too.
	token, _, err = newIssuer[sealedState](t, source, onIssuer).Issue(t.Context(), "u", withSealed)
	require.NoError(t, err)
	flat := newVerifier[sealedState](t, source, leaveSealed)
	for range 2 {
		claims, err := flat.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, withSealed.Name, claims.State.Name)
		_, err = claims.State.Mail.Open()
		require.ErrorIs(t, err, sessiontoken.ErrSealed)
	}
	// A type that has the field open must not read the sealed text as its value;
	// one that does not have the field may.
	_, err = newVerifier[openState](t, source).Verify(t.Context(), token)
	require.ErrorIs(t, err, sessiontoken.ErrState)
	_, err = newVerifier[struct{ Name string }](t, source).Verify(t.Context(), token)
	require.NoError(t, err)
	_, onVerifier := withSecrets("a")
	claims, err := newVerifier[openState](t, source, onVerifier).Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, withOpen, claims.State)
}

// TestOldTokenIsNotSealed: a token that was made before a field was sealed is
// ErrState, so that it is renewed.
func TestOldTokenIsNotSealed(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withSecrets("a")
	token, _, err := newIssuer[openState](t, source).Issue(t.Context(), "u", withOpen)
	require.NoError(t, err)
	for _, change := range []func(*sessiontoken.VerifierConfig){onVerifier, leaveSealed} {
		_, err = newVerifier[sealedState](t, source, change).Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrState)
	}
	_, _, err = newIssuer[sealedState](t, source, onIssuer).Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[sealedState]) (sealedState, error) {
		return withSealed, nil
	})
	require.NoError(t, err)
}

// Three versions of a state: with an address that is open, sealed, and sealed
// with another name and type.
type (
	contactV1 struct{ Name, Mail string }
	contactV2 struct {
		Name string
		Mail sessiontoken.Sealed[string]
	}
	contactV3 struct {
		Name  string
		Mails sessiontoken.Sealed[[]string]
	}
	contactV4 struct{ Name, Mail string }
)

func (contactV1) StateVersion() (int, int)        { return 1, 1 }
func (*contactV1) UpgradeState(int, []byte) error { return errBoom }
func (contactV2) StateVersion() (int, int)        { return 2, 2 }
func (c *contactV2) UpgradeState(_ int, raw []byte) error {
	var old contactV1
	err := json.Unmarshal(raw, &old)
	c.Name, c.Mail = old.Name, sessiontoken.Seal(old.Mail)
	return err
}
func (contactV3) StateVersion() (int, int) { return 3, 3 }
func (c *contactV3) UpgradeState(_ int, raw []byte) error {
	var old contactV1
	err := json.Unmarshal(raw, &old)
	c.Name, c.Mails = old.Name, sessiontoken.Seal([]string{old.Mail})
	return err
}
func (contactV4) StateVersion() (int, int)                { return 4, 4 }
func (c *contactV4) UpgradeState(_ int, raw []byte) error { return json.Unmarshal(raw, c) }

// TestSealedUpgrade: a field that was sealed in an older version opens under its
// new name, and an open one can be sealed.
func TestSealedUpgrade(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withSecrets("b", "a")
	v1, _, err := newIssuer[contactV1](t, source).Issue(t.Context(), "u", contactV1{"Ada", "ada@example.com"})
	require.NoError(t, err)
	onOld, _ := withSecrets("a")
	v2, _, err := newIssuer[contactV2](t, source, onOld).Issue(t.Context(), "u", contactV2{"Ada", sessiontoken.Seal("ada@example.com")})
	require.NoError(t, err)
	moved := forge(t, source, v2, strings.ReplaceAll(payloadOf(t, v2), `"sub":"u"`, `"sub":"v"`))
	for _, token := range []string{v1, v2} {
		v := newVerifier[contactV3](t, source, onVerifier)
		for range 2 {
			claims, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, contactV3{"Ada", sessiontoken.Seal([]string{"ada@example.com"})}, claims.State)
		}
		left := newVerifier[contactV3](t, source, leaveSealed)
		for range 2 {
			claims, err := left.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, "Ada", claims.State.Name)
			_, err = claims.State.Mails.Open()
			require.ErrorIs(t, err, sessiontoken.ErrSealed)
		}
		renewed, _, err := newIssuer[contactV3](t, source, onIssuer).Renew(t.Context(), token, func(_ context.Context, c *sessiontoken.Claims[contactV3]) (contactV3, error) {
			return c.State, nil
		})
		require.NoError(t, err)
		claims, err := v.Verify(t.Context(), renewed)
		require.NoError(t, err)
		require.Equal(t, contactV3{"Ada", sessiontoken.Seal([]string{"ada@example.com"})}, claims.State)
	}
	claims, err := newVerifier[contactV2](t, source, onVerifier).Verify(t.Context(), v1)
	require.NoError(t, err)
	require.Equal(t, contactV2{"Ada", sessiontoken.Seal("ada@example.com")}, claims.State)
	unsealed, err := newVerifier[contactV4](t, source, onVerifier).Verify(t.Context(), v2)
	require.NoError(t, err)
	require.Equal(t, contactV4{"Ada", "ada@example.com"}, unsealed.State)
	_, err = newVerifier[contactV3](t, source, onVerifier).Verify(t.Context(), moved)
	require.ErrorIs(t, err, sessiontoken.ErrClaims)
	require.NotErrorIs(t, err, sessiontoken.ErrState)
}

// encodesItself would get what its field holds out by an encoder of its own.
type encodesItself struct{ Mail sessiontoken.Sealed[string] }

func (encodesItself) MarshalJSON() ([]byte, error)  { return []byte("1"), nil }
func (*encodesItself) UnmarshalJSON(_ []byte) error { return nil }

// MailField and AgeField are embedded together, so that neither's methods are
// promoted.
type (
	MailField = sessiontoken.Sealed[string]
	AgeField  = sessiontoken.Sealed[int]
)

type takesOthers struct {
	Others map[string]sessiontoken.Sealed[string] `json:",embed"`
}

// TestSealedPlaces: the constructors refuse a Sealed that has no place of its own,
// or no secret, and name the field.
func TestSealedPlaces(t *testing.T) {
	type text = sessiontoken.Sealed[string]
	onIssuer, onVerifier := withSecrets("a")
	refused := func(want string, errs ...error) {
		t.Helper()
		for _, err := range errs {
			require.ErrorContains(t, err, want)
		}
	}
	refused("a Sealed must be a field of the state", sealedErrors[text](t, onIssuer, onVerifier)...)
	refused("State.P is a pointer to a Sealed", sealedErrors[struct{ P *text }](t, onIssuer, onVerifier)...)
	refused("State.L has elements that are Sealed", sealedErrors[struct{ L []text }](t, onIssuer, onVerifier)...)
	refused("State.L has elements that are Sealed", sealedErrors[struct{ L [2]text }](t, onIssuer, onVerifier)...)
	refused("State.S is a Sealed that holds a Sealed", sealedErrors[struct{ S sessiontoken.Sealed[profile] }](t, onIssuer, onVerifier)...)
	refused("State.E is a sessiontoken_test.encodesItself, which encodes itself and holds a Sealed", sealedErrors[struct{ E encodesItself }](t, onIssuer, onVerifier)...)
	refused("encodes itself and holds a Sealed", sealedErrors[struct{ sessiontoken.Sealed[string] }](t, onIssuer, onVerifier)...)
	refused("State.MailField is a Sealed that is embedded", sealedErrors[struct {
		MailField
		AgeField
	}](t, onIssuer, onVerifier)...)
	refused("State.Y is a Sealed that is embedded", sealedErrors[struct {
		Y text `json:",embed"`
	}](t, onIssuer, onVerifier)...)
	refused("takes all other members, which cannot be Sealed", sealedErrors[takesOthers](t, onIssuer, onVerifier)...)
	refused("State.N is a Sealed, which takes no option but omitzero", sealedErrors[struct {
		N sessiontoken.Sealed[int] `json:",case:ignore"`
	}](t, onIssuer, onVerifier)...)
	refused("State.C is a chan int", sealedErrors[struct{ C sessiontoken.Sealed[chan int] }](t, onIssuer, onVerifier)...)

	none := func(*sessiontoken.IssuerConfig) {}
	errs := sealedErrors[sealedState](t, none, func(*sessiontoken.VerifierConfig) {})
	require.EqualError(t, errs[0], "sessiontoken: IssuerConfig.StateSecrets is required, since State.Mail of sessiontoken_test.sealedState is a Sealed: at least 32 random bytes, the same on every server that reads it")
	require.EqualError(t, errs[1], "sessiontoken: VerifierConfig.StateSecrets is required, since State.Mail of sessiontoken_test.sealedState is a Sealed: at least 32 random bytes, the same on every server that reads it, or set LeaveSealed to read the other fields alone")
	short := [][]byte{make([]byte, 32), make([]byte, 31)}
	errs = sealedErrors[sealedState](t, func(c *sessiontoken.IssuerConfig) { c.StateSecrets = short }, func(c *sessiontoken.VerifierConfig) { c.StateSecrets = short })
	refused("Config.StateSecrets[1] has 31 bytes", errs...)
	twice := [][]byte{make([]byte, 32), make([]byte, 32)}
	errs = sealedErrors[sealedState](t, func(c *sessiontoken.IssuerConfig) { c.StateSecrets = twice }, func(c *sessiontoken.VerifierConfig) { c.StateSecrets = twice })
	refused("Config.StateSecrets[1] is the same as", errs...)
	errs = sealedErrors[sealedState](t, none, func(c *sessiontoken.VerifierConfig) { onVerifier(c); c.LeaveSealed = true })
	refused("VerifierConfig.LeaveSealed must be left out beside StateSecrets", errs[1])
	// Neither does harm without a sealed field.
	source := staticSource(t, keys.EdDSA)
	token, _, err := newIssuer[openState](t, source, onIssuer).Issue(t.Context(), "u", withOpen)
	require.NoError(t, err)
	for _, change := range []func(*sessiontoken.VerifierConfig){onVerifier, leaveSealed} {
		_, err = newVerifier[openState](t, source, change).Verify(t.Context(), token)
		require.NoError(t, err)
	}
}

func sealedErrors[T any](t *testing.T, onIssuer func(*sessiontoken.IssuerConfig), onVerifier func(*sessiontoken.VerifierConfig)) []error {
	source := staticSource(t, keys.EdDSA)
	issuer := sessiontoken.IssuerConfig{Issuer: "i", Audience: []string{"a"}, Keys: source}
	verifier := sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: source}
	onIssuer(&issuer)
	onVerifier(&verifier)
	_, issuerErr := sessiontoken.NewIssuer[T](issuer)
	_, verifierErr := sessiontoken.NewVerifier[T](verifier)
	return []error{issuerErr, verifierErr}
}

// TestSealedInAny: a Sealed in an any is never written.
func TestSealedInAny(t *testing.T) {
	type state struct {
		Mail sessiontoken.Sealed[string]
		Any  any
	}
	onIssuer, _ := withSecrets("a")
	issuer := newIssuer[state](t, staticSource(t, keys.EdDSA), onIssuer)
	for _, v := range []any{sessiontoken.Seal("hidden"), []any{sessiontoken.Seal("hidden")}, map[string]any{"k": new(sessiontoken.Seal("hidden"))}, sessiontoken.Seal(7), profile{Phone: sessiontoken.Seal("hidden")}} {
		token, _, err := issuer.Issue(t.Context(), "u", state{Any: v})
		require.Error(t, err)
		require.Empty(t, token)
		require.NotContains(t, err.Error(), "hidden")
	}
}

// TestSealedIsShownNowhere: no verb, logger or encoder outside a token shows what
// a Sealed holds.
func TestSealedIsShownNowhere(t *testing.T) {
	type unexported struct{ mail sessiontoken.Sealed[string] }
	type deep struct {
		P *sealedState
		M map[string]sessiontoken.Sealed[string]
		L []any
	}
	const hidden = "hidden-text"
	s := sessiontoken.Seal(hidden)
	state := sealedState{Mail: s}
	values := []any{s, &s, state, &state, unexported{s}, &unexported{s}, deep{&state, map[string]sessiontoken.Sealed[string]{"k": s}, []any{s, state}}, sessiontoken.Claims[sealedState]{State: state}, []sessiontoken.Sealed[string]{s}}
	for _, v := range values {
		for _, verb := range "vsqdxXtTpbcoOUeEfFgGwz" {
			for _, flag := range []string{"", "+", "#", "-10", ".3"} {
				text := fmt.Sprintf("%"+flag+string(verb), v)
				requireHidden(t, text, hidden)
			}
		}
		var log bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Info("x", "v", v, slog.Group("g", "v", v))
		}
		requireHidden(t, log.String(), hidden)
		var out bytes.Buffer
		_ = gob.NewEncoder(&out).Encode(v)
		_ = json.NewEncoder(&out).Encode(v)
		_ = jsonv2.MarshalWrite(&out, v)
		_ = xml.NewEncoder(&out).Encode(v)
		requireHidden(t, out.String(), hidden)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		require.Equal(t, "sealed", fmt.Sprintf(verb, s))
		require.Equal(t, "sealed", fmt.Sprintf(verb, &s))
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "mail", s)
	require.Contains(t, log.String(), `"mail":"sealed"`)

	for _, encode := range []func() error{
		func() error { _, err := json.Marshal(state); return err },
		func() error { _, err := jsonv2.Marshal(state); return err },
		func() error { return gob.NewEncoder(new(bytes.Buffer)).Encode(s) },
		func() error { _, err := xml.Marshal(state); return err },
		func() error { return json.Unmarshal([]byte(`{"Mail":"x"}`), new(sealedState)) },
		func() error { return json.Unmarshal([]byte(`{"Mail":{}}`), new(sealedState)) },
		func() error { return jsonv2.Unmarshal([]byte(`{"Mail":null}`), new(sealedState)) },
		func() error { return xml.Unmarshal([]byte(`<x><Mail>x</Mail></x>`), new(sealedState)) },
	} {
		require.Error(t, encode())
	}
	text, err := s.Open()
	require.NoError(t, err)
	require.Equal(t, hidden, text)
}

// requireHidden requires that text has nothing of hidden, as it is, in hex or in
// base64 of any alignment, nor in what the text is base64 of.
func requireHidden(t *testing.T, text, hidden string) {
	t.Helper()
	if where := findHidden(text, hidden, 3); where != "" {
		require.Fail(t, "it is shown", where)
	}
}

func findHidden(text, hidden string, layers int) string {
	forms := []string{hidden, fmt.Sprintf("%x", hidden), fmt.Sprintf("%X", hidden)}
	for _, enc := range []*base64.Encoding{base64.RawURLEncoding, base64.RawStdEncoding} {
		for shift := range 3 {
			coded := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + hidden))
			forms = append(forms, coded[(shift*8+5)/6:len(coded)-2])
		}
	}
	for _, form := range forms {
		if strings.Contains(text, form) {
			return form
		}
	}
	if layers == 0 {
		return ""
	}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '-' || r == '_')
	}) {
		if raw, err := jws.Decode(part); err == nil && len(raw) > 8 {
			if where := findHidden(string(raw), hidden, layers-1); where != "" {
				return where
			}
		}
	}
	return ""
}

// TestFindHidden: the search of TestSealedIsHidden finds an open field.
func TestFindHidden(t *testing.T) {
	issuer := newIssuer[openState](t, staticSource(t, keys.EdDSA))
	for i := range 3 {
		token, _, err := issuer.Issue(t.Context(), "u", openState{Name: strings.Repeat("x", i), Mail: address})
		require.NoError(t, err)
		require.NotEmpty(t, findHidden(token, address, 3))
		require.NotEmpty(t, findHidden(base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("y", i)+address)), address, 0))
	}
}

// TestSealedIsHidden: the text of a sealed field is in no layer of a token or
// cookie, and not in a report, metric or error, for 10,000 random states.
func TestSealedIsHidden(t *testing.T) {
	states := 500
	if isLong() {
		states = 10_000
	}
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withSecrets("a")
	issuer := newIssuer[sealedEverywhere](t, source, onIssuer)
	_, onOther := withSecrets("b")
	v, left, other := newVerifier[sealedEverywhere](t, source, onVerifier), newVerifier[sealedEverywhere](t, source, leaveSealed), newVerifier[sealedEverywhere](t, source, onOther)
	rnd := rand.New(rand.NewPCG(1, 2))
	for range states {
		text := make([]byte, 9+rnd.IntN(40))
		for i := range text {
			text[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._ +"[rnd.IntN(67)]
		}
		hidden := string(text)
		s := everywhere()
		s.Role = strings.Repeat("r", rnd.IntN(20))
		s.Mail, s.Tags, s.Profile.Phone, s.Others[1].Phone = sessiontoken.Seal(hidden), sessiontoken.Seal([]string{"x", hidden}), sessiontoken.Seal(hidden), sessiontoken.Seal(hidden)
		s.Any, s.Maybe, s.Mobile = sessiontoken.Seal[any](map[string]any{hidden: hidden}), sessiontoken.Seal(&hidden), sessiontoken.Seal(hidden)
		token, claims, err := issuer.Issue(t.Context(), "u", s)
		require.NoError(t, err)
		read, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, s, read.State)
		closed, err := left.Verify(t.Context(), token)
		require.NoError(t, err)
		_, refused := other.Verify(t.Context(), token)
		require.ErrorIs(t, refused, sessiontoken.ErrClaims)
		report, err := issuer.Size(t.Context(), "u", s)
		require.NoError(t, err)
		for _, text := range []string{
			token, refused.Error(), report.String(), fmt.Sprintf("%+v %#v", report, report), fmt.Sprint(v.Metrics()),
			fmt.Sprintf("%v %+v %#v", claims, *read, *closed), fmt.Sprintf("%+v %#v", read.State, &claims.State),
		} {
			requireHidden(t, text, hidden)
		}
	}
}

// unreadable writes what it does not read back, and tells it in its errors.
type unreadable string

func (u unreadable) MarshalText() ([]byte, error) {
	if u == "hidden-w" {
		return nil, errors.New("no text for " + string(u))
	}
	return []byte(u), nil
}
func (u *unreadable) UnmarshalText(b []byte) error {
	if *u = unreadable(b); *u == "hidden-r" {
		return fmt.Errorf("%s is not read", b)
	}
	return nil
}

// TestSealedErrors: an error about what a Sealed holds has nothing of it.
func TestSealedErrors(t *testing.T) {
	type state struct {
		U sessiontoken.Sealed[unreadable]
		A sessiontoken.Sealed[any]
		S sessiontoken.Sealed[string]
	}
	onIssuer, _ := withSecrets("a")
	issuer := newIssuer[state](t, staticSource(t, keys.EdDSA), onIssuer)
	for _, s := range []state{
		{U: sessiontoken.Seal[unreadable]("hidden-w")}, {U: sessiontoken.Seal[unreadable]("hidden-r")},
		{A: sessiontoken.Seal[any](map[string]any{"hidden": uint64(1<<63 + 1)})}, {S: sessiontoken.Seal("hidden\xff")},
	} {
		_, _, err := issuer.Issue(t.Context(), "u", s)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hidden")
		claims := sessiontoken.Claims[state]{Issuer: "i", Subject: "u", SessionID: "s", TokenID: "t", Began: time.Now(), AuthTime: time.Now(), State: s}
		if _, err := issuer.Reload(t.Context(), &claims, func(context.Context, *sessiontoken.Claims[state]) (state, error) { return s, nil }); err != nil {
			require.NotContains(t, err.Error(), "hidden")
		}
	}
}

// TestOthersReadTheOpenFields: a JWT library reads a token with a sealed field.
func TestOthersReadTheOpenFields(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, _ := withSecrets("a")
	token, _, err := newIssuer[sealedState](t, source, onIssuer).Issue(t.Context(), "u", withSealed)
	require.NoError(t, err)
	key, err := source.SigningKey(t.Context())
	require.NoError(t, err)
	parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return key.Public().Key(), nil }, jwt.WithValidMethods([]string{"EdDSA"}))
	require.NoError(t, err)
	state := parsed.Claims.(jwt.MapClaims)["state"].(map[string]any)
	require.Equal(t, withSealed.Name, state["Name"])
	require.Len(t, state["Mail"], 120)
	require.Equal(t, "/Mail", parsed.Claims.(jwt.MapClaims)["sld"])
}

// TestSealedConcurrently: many goroutines seal and open with one issuer and one
// verifier, each its own value.
func TestSealedConcurrently(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	onIssuer, onVerifier := withSecrets("a", "b")
	issuer, v := newIssuer[sealedState](t, source, onIssuer), newVerifier[sealedState](t, source, onVerifier)
	var running sync.WaitGroup
	for n := range 8 {
		running.Go(func() {
			for i := range 50 {
				state := sealedState{Mail: sessiontoken.Seal(fmt.Sprint(n, "-", i))}
				token, _, err := issuer.Issue(t.Context(), "u", state)
				if err != nil {
					t.Error(err)
					return
				}
				for range 2 {
					claims, err := v.Verify(t.Context(), token)
					if err != nil || !reflect.DeepEqual(state, claims.State) {
						t.Error("not the own value: ", err)
						return
					}
				}
			}
		})
	}
	running.Wait()
}
