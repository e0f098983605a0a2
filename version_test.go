package sessiontoken_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// The state of an application over three releases, of which the last is
// Versioned by a pointer.
type (
	userV0 struct {
		Name string `json:"name"`
	}
	// Level was a number in words. Version 1 can read it, and ignores Tags.
	userV2 struct {
		Name  string   `json:"name"`
		Level string   `json:"level"`
		Tags  []string `json:"tags"`
	}
	userV1 struct {
		Name  string `json:"name"`
		Level string `json:"level"`
	}
	userV3 struct {
		Given   string `json:"given"` // was name
		Level   int    `json:"level"`
		Address struct {
			City string `json:"city"`
		} `json:"address"`

		UpgradedFrom int `json:"-"`
	}
)

func (userV1) StateVersion() (version, readableBy int) { return 1, 0 }
func (u *userV1) UpgradeState(_ int, raw []byte) error {
	u.Level = "none"
	return json.Unmarshal(raw, u)
}

func (userV2) StateVersion() (version, readableBy int) { return 2, 1 }
func (u *userV2) UpgradeState(version int, raw []byte) error {
	var old userV1
	if version == 0 {
		return old.UpgradeState(0, raw)
	}
	err := json.Unmarshal(raw, &old)
	u.Name, u.Level, u.Tags = old.Name, old.Level, []string{}
	return err
}

func (*userV3) StateVersion() (version, readableBy int) { return 3, 3 }
func (u *userV3) UpgradeState(version int, raw []byte) error {
	var old userV1 // members that it lacks stay zero
	if err := json.Unmarshal(raw, &old); err != nil {
		return err
	}
	switch old.Name {
	case "panics":
		panic("an upgrade that was not written for this")
	case "fails":
		return errors.New("the name is refused")
	case "not UTF-8":
		old.Name = "\xff"
	}
	levels := map[string]int{"": 0, "none": 0, "one": 1}
	u.Given, u.Level, u.UpgradedFrom = old.Name, levels[old.Level], version
	return nil
}

// readAs verifies a token as a state of type T: at first, and from the cache.
func readAs[T any](t *testing.T, source *keys.Static, token string) (state T, err error) {
	t.Helper()
	v := newVerifier[T](t, source)
	for range 2 {
		var c *sessiontoken.Claims[T]
		if c, err = v.Verify(t.Context(), token); err == nil {
			state = c.State
		}
	}
	return state, err
}

// TestVersions: each release reads the tokens of each other, upgrades them, or
// says that it cannot.
func TestVersions(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	v0, _, err := newIssuer[userV0](t, source).Issue(t.Context(), "u", userV0{"Ada"})
	require.NoError(t, err)
	require.NotContains(t, payloadOf(t, v0), `"stv"`)
	v1, _, err := newIssuer[userV1](t, source).Issue(t.Context(), "u", userV1{"Ada", "one"})
	require.NoError(t, err)
	require.Contains(t, payloadOf(t, v1), `,"stv":[1,0],"state":`)
	v2, _, err := newIssuer[userV2](t, source).Issue(t.Context(), "u", userV2{"Ada", "one", []string{"x"}})
	require.NoError(t, err)
	require.Contains(t, payloadOf(t, v2), `,"stv":[2,1],"state":`)
	v3, _, err := newIssuer[userV3](t, source).Issue(t.Context(), "u", userV3{Given: "Ada", Level: 1})
	require.NoError(t, err)

	refused := func(err error, detail string) {
		t.Helper()
		require.ErrorIs(t, err, sessiontoken.ErrState)
		require.ErrorIs(t, err, sessiontoken.ErrClaims)
		require.ErrorIs(t, err, sessiontoken.ErrInvalid)
		require.ErrorContains(t, err, detail)
		require.NotContains(t, err.Error(), "Ada")
	}
	// By the type without a version.
	s0, err := readAs[userV0](t, source, v1)
	require.NoError(t, err)
	require.Equal(t, userV0{"Ada"}, s0)
	_, err = readAs[userV0](t, source, v2)
	refused(err, "of a newer version, which version 0 cannot read")
	// By version 1.
	s1, err := readAs[userV1](t, source, v0)
	require.NoError(t, err)
	require.Equal(t, userV1{"Ada", "none"}, s1)
	s1, err = readAs[userV1](t, source, v2)
	require.NoError(t, err)
	require.Equal(t, userV1{"Ada", "one"}, s1)
	_, err = readAs[userV1](t, source, v3)
	refused(err, "of a newer version, which version 1 cannot read")
	// By version 2.
	s2, err := readAs[userV2](t, source, v1)
	require.NoError(t, err)
	require.Equal(t, userV2{"Ada", "one", []string{}}, s2)
	// By version 3.
	for token, want := range map[string]userV3{
		v0: {Given: "Ada"}, v1: {Given: "Ada", Level: 1}, v2: {Given: "Ada", Level: 1}, v3: {Given: "Ada", Level: 1},
	} {
		s3, err := readAs[userV3](t, source, token)
		require.NoError(t, err)
		s3.UpgradedFrom = 0
		require.Equal(t, want, s3)
	}
	for name, detail := range map[string]string{
		"panics":    "of an older version, whose upgrade to version 3 panicked",
		"fails":     "of an older version, whose upgrade to version 3 failed",
		"not UTF-8": "its upgrade to version 3 cannot be written",
	} {
		token, _, err := newIssuer[userV1](t, source).Issue(t.Context(), "u", userV1{name, "one"})
		require.NoError(t, err)
		_, err = readAs[userV3](t, source, token)
		refused(err, detail)
	}
}

// upgradeCount counts its upgrades. The map makes every caller's copy a
// decoding.
type upgradeCount struct {
	N int            `json:"n"`
	M map[string]int `json:"m"`
}

var upgrades int

func (upgradeCount) StateVersion() (version, readableBy int) { return 2, 2 }
func (u *upgradeCount) UpgradeState(int, []byte) error {
	upgrades++
	u.N, u.M = 7, map[string]int{"x": 1}
	return nil
}

// TestUpgradeOnce: the cache holds what an upgrade returned, also if each caller
// gets a copy of its own.
func TestUpgradeOnce(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	token, _, err := newIssuer[userV0](t, source).Issue(t.Context(), "u", userV0{"Ada"})
	require.NoError(t, err)
	v := newVerifier[upgradeCount](t, source)
	upgrades = 0
	for range 5 {
		c, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, upgradeCount{7, map[string]int{"x": 1}}, c.State)
		c.State.M["x"] = 2
	}
	require.Equal(t, 1, upgrades)
	require.EqualValues(t, 4, v.Metrics()["cache_hits_total"])
}

type (
	embedsVersioned        struct{ userV1 }
	embedsVersionedPointer struct{ *userV3 }
	negative               struct{}
	beyond                 struct{}
)

func (negative) StateVersion() (version, readableBy int) { return 0, 0 }
func (negative) UpgradeState(int, []byte) error          { return nil }
func (beyond) StateVersion() (version, readableBy int)   { return 1, 2 }
func (beyond) UpgradeState(int, []byte) error            { return nil }

// TestVersionedTypes: a type whose version cannot be meant is refused when an
// issuer or a verifier is made of it.
func TestVersionedTypes(t *testing.T) {
	refused := func(err error, text string) {
		t.Helper()
		require.ErrorContains(t, err, text)
	}
	refused(newVerifierError[*userV1](t), "must not be a pointer: write sessiontoken_test.userV1")
	refused(newVerifierError[*userV3](t), "must not be a pointer")
	refused(newVerifierError[embedsVersioned](t), "it embeds userV1, which is Versioned")
	refused(newVerifierError[embedsVersionedPointer](t), "userV3")
	refused(newVerifierError[negative](t), "StateVersion returns 0 and 0")
	refused(newVerifierError[beyond](t), "StateVersion returns 1 and 2")
	require.NoError(t, newVerifierError[struct{ User userV1 }](t), "a named field is as any other")
}

func newVerifierError[T any](t *testing.T) error {
	source := staticSource(t, keys.EdDSA)
	_, err := sessiontoken.NewVerifier[T](sessiontoken.VerifierConfig{Issuer: "https://issuer.example", Audience: "api", Keys: source})
	_, issuerErr := sessiontoken.NewIssuer[T](sessiontoken.IssuerConfig{Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: source})
	require.Equal(t, err == nil, issuerErr == nil)
	return err
}

type (
	street struct {
		Name   string `json:"name"`
		Number int    `json:"number,omitzero"`
	}
	base struct {
		Tenant string `json:"tenant"`
	}
	manyMembers struct {
		base
		*Floors
		Role  string            `json:"role"`
		Nick  *string           `json:"nick"`
		Since time.Time         `json:"since"`
		Home  street            `json:"home"`
		Work  *street           `json:"work"`
		All   []street          `json:"all"`
		Named map[string]street `json:"named"`
		Pair  [2]street         `json:"pair"`
		Any   any               `json:"any"`
		Raw   json.RawMessage   `json:"raw,omitempty"`
		Next  *manyMembers      `json:"next,omitempty"`
		Loose int               `json:"loose,case:ignore"`
		Wide  int               `json:"größe"`
		//lint:ignore U1000 an unexported field is no member
		hidden int
	}
	Floors struct {
		Floor int `json:"floor"`
	}
)

// TestMissingMembers: a member that the type has and the token lacks is an
// error that names it, at any depth, unless it may be missing.
func TestMissingMembers(t *testing.T) {
	const home, all = `"home":{"name":"h"}`, `"all":[{"name":"a"},{"name":"b","number":1}]`
	const good = `{"tenant":"t","role":"r","nick":null,"since":"2000-01-01T00:00:00Z",` + home + `,"work":null,` + all +
		`,"named":{"x":{"name":"n"}},"pair":[{"name":"1"},{"name":"2"}],"any":null,"größe":1}`
	for _, c := range []struct{ name, old, new, fault string }{
		{"nothing", "", "", ""},
		{"more than the type has", `{"tenant"`, `{"new":[{"a":[1,"]}"]}],"tenant"`, ""},
		{"another order", `"role":"r","nick":null`, `"nick":"n","role":"r"`, ""},
		{"a name with an escape", `"role"`, `"r\u006fle"`, ""},
		{"white space", `,"role":"r",`, " ,\n \"role\" : \"r\"\t, ", ""},
		{"a pointer, null", `"work":null`, `"work":{"name":"w"}`, ""},
		{"a pointer", `"work":null,`, ``, ""},
		{"of an embedded pointer", `{"tenant"`, `{"floor":1,"tenant"`, ""},
		{"a slice, null", all, `"all":null`, ""},
		{"an option", `,"number":1`, ``, ""},
		{"a string", `"role":"r",`, ``, "state.role is missing"},
		{"of an embedded struct", `"tenant":"t",`, ``, "state.tenant is missing"},
		{"another case", `"role"`, `"Role"`, "state.role is missing"},
		{"a name that is not ASCII", `,"größe":1`, ``, "state.größe is missing"},
		{"the same with an escape", `"größe"`, `"gr\u00f6ße"`, ""},
		{"any", `"any":null,`, ``, "state.any is missing"},
		{"a slice", all + `,`, ``, "state.all is missing"},
		{"in a struct", home, `"home":{}`, "state.home.name is missing"},
		{"behind a pointer", `"work":null`, `"work":{"number":1}`, "state.work.name is missing"},
		{"in a slice", `{"name":"b","number":1}`, `{"number":1}`, "state.all[].name is missing"},
		{"in a map", `"x":{"name":"n"}`, `"x":{"name":"n"},"y":{}`, "state.named[].name is missing"},
		{"in an array", `{"name":"2"}`, `{}`, "state.pair[].name is missing"},
		{"a string, null", `"role":"r"`, `"role":null`, "state.role is null"},
		{"a struct, null", home, `"home":null`, "state.home is null"},
		{"a time, null", `"2000-01-01T00:00:00Z"`, `null`, "state.since is null"},
		{"an element, null", `{"name":"b","number":1}`, `null`, "state.all[] is null"},
		{"of the same type within", `{"tenant"`, `{"next":{"tenant":"t"},"tenant"`, "state.next.role is missing"},
	} {
		for _, extra := range []claim{{}, {"unknown", "1"}} { // the fast reader, and the other
			s := newShop(t, keys.EdDSA)
			v := newVerifier[manyMembers](t, mustSet(t, s.key.Public()))
			require.Contains(t, good, c.old, c.name)
			raw, at := strings.Replace(good, c.old, c.new, 1), time.Now().Unix()
			claims := []claim{{"state", raw}, {"iat", itoa(at)}, {"exp", itoa(at + 60)}, {"begun", itoa(at * 1000)}, {"auth_time", itoa(at)}}
			if extra.name != "" {
				claims = append(claims, extra)
			}
			_, err := v.Verify(t.Context(), s.sign(t, []byte(payload(claims...))))
			if c.fault == "" {
				require.NoError(t, err, c.name)
				continue
			}
			require.ErrorIs(t, err, sessiontoken.ErrState, c.name)
			require.ErrorContains(t, err, "state: "+c.fault, c.name)
		}
	}
}
