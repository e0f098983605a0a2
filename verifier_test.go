package sessiontoken_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

func TestNewVerifierNamesTheField(t *testing.T) {
	for _, tt := range []struct {
		name   string
		field  string
		change func(*sessiontoken.VerifierConfig)
	}{
		{"no issuer", "Issuer", func(c *sessiontoken.VerifierConfig) { c.Issuer = "" }},
		{"no audience", "Audience", func(c *sessiontoken.VerifierConfig) { c.Audience = "" }},
		{"no keys", "Keys", func(c *sessiontoken.VerifierConfig) { c.Keys = nil }},
		{"nil keys", "Keys", func(c *sessiontoken.VerifierConfig) { c.Keys = (*keys.Set)(nil) }},
		{"nil revocations", "Revocations", func(c *sessiontoken.VerifierConfig) { c.Revocations = (*revocations)(nil) }},
		{"negative leeway", "Leeway", func(c *sessiontoken.VerifierConfig) { c.Leeway = -1 }},
		{"61 s of leeway", "Leeway", func(c *sessiontoken.VerifierConfig) { c.Leeway = 61 * time.Second }},
		{"negative life", "MaxTTL", func(c *sessiontoken.VerifierConfig) { c.MaxTTL = -1 }},
		{"negative bytes", "MaxBytes", func(c *sessiontoken.VerifierConfig) { c.MaxBytes = -1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sessiontoken.VerifierConfig{Issuer: "i", Audience: "a", Keys: staticSource(t, keys.EdDSA)}
			tt.change(&cfg)
			_, err := sessiontoken.NewVerifier[attackState](cfg)
			require.ErrorContains(t, err, "sessiontoken: VerifierConfig."+tt.field)
		})
	}
}

// changing is a key source that tests change.
type changing struct {
	mu  sync.Mutex
	set *keys.Set
	err error
}

func (c *changing) KeySet(context.Context, string) (*keys.Set, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.set, c.err
}

func (c *changing) put(set *keys.Set, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set, c.err = set, err
}

// both runs a test with the cache off and on: nothing may differ.
func both(t *testing.T, f func(t *testing.T, cache func(*sessiontoken.VerifierConfig))) {
	for _, tt := range []struct {
		name  string
		bytes int
	}{{"without cache", -1}, {"with cache", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f(t, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = tt.bytes })
			})
		})
	}
}

func TestVerifyTimes(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.EdDSA)
		now := time.Now().Unix()
		at := func(nbf, iat, exp int64) string {
			changes := []claim{{"iat", itoa(now + iat)}, {"exp", itoa(now + exp)}, {"begun", itoa(1000 * (now - 600))}, {"auth_time", itoa(now - 600)}}
			if nbf != 0 {
				changes = append(changes, claim{"nbf", itoa(now + nbf)})
			}
			return s.sign(t, []byte(payload(changes...)))
		}
		for _, c := range []struct {
			name   string
			leeway time.Duration
			token  string
			want   error
		}{
			{"a second left", 0, at(0, 0, 1), nil},
			{"at exp", 0, at(0, -60, 0), sessiontoken.ErrExpired},
			{"past exp, within the leeway", 30 * time.Second, at(0, -60, -29), nil},
			{"past exp, at the leeway", 30 * time.Second, at(0, -60, -30), sessiontoken.ErrExpired},
			{"60 s of leeway", time.Minute, at(0, -600, -59), nil},
			{"nbf now", 0, at(-1, 0, 60), nil},
			{"nbf ahead", 0, at(2, 0, 60), sessiontoken.ErrClaims},
			{"nbf ahead, within the leeway", 10 * time.Second, at(10, 0, 60), nil},
			{"nbf ahead, beyond the leeway", 10 * time.Second, at(11, 0, 60), sessiontoken.ErrClaims},
			{"iat 10 s ahead", 0, at(0, 10, 60), nil},
			{"iat 60 s ahead", 0, at(0, 60, 90), nil},
			{"iat 61 s ahead", 0, at(0, 61, 90), sessiontoken.ErrClaims},
			{"iat 61 s ahead, with leeway", time.Minute, at(0, 61, 90), sessiontoken.ErrClaims},
			{"as long as it gets", 0, at(0, 0, 86400), nil},
			{"longer", 0, at(0, 0, 86401), sessiontoken.ErrClaims},
		} {
			v := newVerifier[attackState](t, mustSet(t, s.key.Public()), cache, func(v *sessiontoken.VerifierConfig) { v.Leeway = c.leeway })
			for range 2 {
				claims, err := v.Verify(t.Context(), c.token)
				if c.want == nil {
					require.NoError(t, err, c.name)
				} else {
					require.ErrorIs(t, err, c.want, c.name)
					require.Nil(t, claims)
				}
			}
		}
		v := newVerifier[attackState](t, mustSet(t, s.key.Public()), cache)
		token := at(0, 0, 300)
		_, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		time.Sleep(300*time.Second - 1)
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err, "the last moment")
		time.Sleep(time.Nanosecond)
		_, err = v.Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
	})
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestVerifyAudienceForms(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.EdDSA)
		v := newVerifier[attackState](t, mustSet(t, s.key.Public()), cache)
		for _, tt := range []struct {
			aud string
			ok  bool
		}{
			{`"api"`, true}, {`["api"]`, true}, {`["web","api"]`, true}, {`["api","web"]`, true}, {`[ "api" , "web" ]`, true}, {`"\u0061pi"`, true}, {`["x","\u0061pi"]`, true},
			{`["apix"]`, false}, {`["xapi","web"]`, false}, {`"api,web"`, false}, {`["api,web"]`, false}, {`["\"api\""]`, false},
		} {
			_, err := v.Verify(t.Context(), s.sign(t, []byte(payload(claim{"aud", tt.aud}))))
			if tt.ok {
				require.NoError(t, err, tt.aud)
			} else {
				require.ErrorIs(t, err, sessiontoken.ErrClaims, tt.aud)
				require.Equal(t, strings.Contains(err.Error(), "does not name"), errors.Is(err, sessiontoken.ErrAudience), tt.aud)
			}
		}
		// Claims that are not known are ignored, in any order and with any white space.
		_, err := v.Verify(t.Context(), s.sign(t, []byte(" {\n"+`"scope": "x", "nbf":1,`+strings.TrimPrefix(payload(), "{")+" ")))
		require.NoError(t, err)
	})
}

// MaxBytes is the longest token that is looked at, to the byte.
func TestVerifyMaxBytes(t *testing.T) {
	key := must(keys.GenerateKey(keys.ES256))
	source := must(keys.NewStatic(key))
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		issuer := newIssuer[map[string]string](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = 1 << 20 })
		token, _, err := issuer.Issue(t.Context(), "user-1", map[string]string{"a": strings.Repeat("b", 9000)})
		require.NoError(t, err)
		for _, tt := range []struct {
			limit int
			want  error
		}{{len(token), nil}, {len(token) - 1, sessiontoken.ErrMalformed}} {
			v := newVerifier[map[string]string](t, source, cache, func(c *sessiontoken.VerifierConfig) { c.MaxBytes = tt.limit })
			for range 2 {
				_, err := v.Verify(t.Context(), token)
				require.ErrorIs(t, err, tt.want)
			}
			renewer := newIssuer[map[string]string](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = tt.limit })
			_, _, err := renewer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[map[string]string]) (map[string]string, error) {
				return nil, nil
			})
			require.ErrorIs(t, err, tt.want)
		}
	})
}

func TestVerifyHeaderForms(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.EdDSA)
		v := newVerifier[attackState](t, mustSet(t, s.key.Public()), cache)
		for _, tt := range []struct {
			header string
			ok     bool
		}{
			{`{"alg":"EdDSA","kid":"KID","typ":"session+jwt"}`, true},
			{`{"alg":"Ed25519","kid":"KID","typ":"session+jwt"}`, true},
			{`{"typ":"Session+JWT", "kid":"KID", "alg":"EdDSA"}`, true},
			{`{"alg":"EdDSA","kid":"KID","typ":"application/session+jwt"}`, true},
			{`{"alg":"EdDSA","kid":"KID","typ":"APPLICATION/SESSION+JWT"}`, true},
			{`{"alg":"EdDSA","kid":"KID","typ":"application/x+session+jwt"}`, false},
		} {
			signed := jws.Encode([]byte(strings.Replace(tt.header, "KID", s.key.Public().KeyID(), 1))) + "." + jws.Encode([]byte(payload()))
			sig, err := s.key.Sign(t.Context(), []byte(signed))
			require.NoError(t, err)
			_, err = v.Verify(t.Context(), signed+"."+jws.Encode(sig))
			if tt.ok {
				require.NoError(t, err, tt.header)
			} else {
				require.ErrorIs(t, err, sessiontoken.ErrMalformed, tt.header)
			}
		}
	})
}

func TestVerifyCannotTell(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.ES256)
		source := &changing{err: errBoom}
		list := &revocations{}
		v := newVerifier[attackState](t, source, cache, func(c *sessiontoken.VerifierConfig) { c.Revocations = list })
		cannotTell := func(want error) {
			t.Helper()
			claims, err := v.Verify(t.Context(), s.token)
			require.Error(t, err)
			if want != nil {
				require.ErrorIs(t, err, want)
			}
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
			require.Nil(t, claims)
		}
		cannotTell(errBoom)
		source.put(nil, nil)
		cannotTell(nil)
		source.put(mustSet(t, s.key.Public()), nil)
		list.err = errBoom
		cannotTell(errBoom)
		list.err = nil
		_, err := v.Verify(t.Context(), s.token)
		require.NoError(t, err)
		list.err = errBoom
		cannotTell(errBoom) // also of a token that it has seen
		source.put(nil, errors.New("gone"))
		cannotTell(nil)
	})
}

func TestVerifyRevoked(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.ES256)
		list := &revocations{}
		v := newVerifier[attackState](t, mustSet(t, s.key.Public()), cache, func(c *sessiontoken.VerifierConfig) { c.Revocations = list })
		for range 3 {
			_, err := v.Verify(t.Context(), s.token)
			require.NoError(t, err)
		}
		require.Equal(t, 3, list.calls, "asked once for each token")
		claims, err := v.Verify(t.Context(), s.token)
		require.NoError(t, err)
		list.sid = claims.SessionID
		for range 2 {
			claims, err = v.Verify(t.Context(), s.token)
			require.ErrorIs(t, err, sessiontoken.ErrRevoked)
			require.Nil(t, claims)
		}
		list.calls = 0
		_, err = v.Verify(t.Context(), s.token[:len(s.token)-3]+"AAA")
		require.ErrorIs(t, err, sessiontoken.ErrInvalid)
		time.Sleep(time.Hour)
		_, err = v.Verify(t.Context(), s.token)
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
		require.Zero(t, list.calls, "only about genuine, unexpired tokens")
	})
}

func TestVerifyFollowsTheKeySet(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s, other := newShop(t, keys.ES256), newShop(t, keys.ES256)
		source := &changing{set: mustSet(t, s.key.Public(), other.key.Public())}
		v := newVerifier[attackState](t, source, cache)
		verify := func(want error) {
			t.Helper()
			_, err := v.Verify(t.Context(), s.token)
			if want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, want)
			}
		}
		verify(nil)
		verify(nil)
		// The same keys in a new set: another generation, the same answers.
		data, err := source.set.MarshalJSON()
		require.NoError(t, err)
		again, err := keys.ParseSet(data)
		require.NoError(t, err)
		source.put(again, nil)
		verify(nil)
		verify(nil)
		source.put(mustSet(t, other.key.Public()), nil)
		verify(sessiontoken.ErrSignature)
		verify(sessiontoken.ErrSignature)
		source.put(mustSet(t, s.key.Public()), nil)
		verify(nil)
		// Another key under the same id.
		impostor, err := keys.ParseSet([]byte(strings.Replace(string(mustJSON(t, other.key.Public())), other.key.Public().KeyID(), s.key.Public().KeyID(), 1)))
		require.NoError(t, err)
		source.put(impostor, nil)
		verify(sessiontoken.ErrSignature)
	})
}

func mustJSON(t *testing.T, pub ...*keys.PublicKey) []byte {
	b, err := mustSet(t, pub...).MarshalJSON()
	require.NoError(t, err)
	return b
}

// TestTwoVerifiers: what one accepts and remembers is nothing to another.
func TestTwoVerifiers(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.ES256)
		set := mustSet(t, s.key.Public())
		api := newVerifier[attackState](t, set, cache)
		web := newVerifier[attackState](t, set, cache, func(c *sessiontoken.VerifierConfig) { c.Audience = "web" })
		elsewhere := newVerifier[attackState](t, set, cache, func(c *sessiontoken.VerifierConfig) { c.Issuer = "https://other.example" })
		for range 2 {
			_, err := api.Verify(t.Context(), s.token)
			require.NoError(t, err)
			_, err = web.Verify(t.Context(), s.token)
			require.ErrorIs(t, err, sessiontoken.ErrClaims)
			_, err = elsewhere.Verify(t.Context(), s.token)
			require.ErrorIs(t, err, sessiontoken.ErrClaims)
		}
	})
}

// TestClaimsAreTheCallers: the one who is given claims may change them.
func TestClaimsAreTheCallers(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		type state struct {
			Roles []string
			Map   map[string]int
			Ptr   *int
			Any   any
		}
		one := 1
		source := staticSource(t, keys.EdDSA)
		token, _, err := newIssuer[state](t, source).Issue(t.Context(), "u", state{[]string{"a", "b"}, map[string]int{"x": 1}, &one, []any{"deep"}})
		require.NoError(t, err)
		v := newVerifier[state](t, source, cache)
		want, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		for range 3 {
			got, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, want, got)
			got.State.Roles[0], got.State.Map["x"], *got.State.Ptr, got.State.Any.([]any)[0] = "admin", 9, 9, "changed"
			got.Subject, got.Expires = "root", time.Time{}
		}
	})
}

// The same for a state that the cache copies instead of decoding it afresh.
func TestCopiedClaimsAreTheCallers(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		type inner struct{ Numbers []int }
		type state struct {
			Roles  []string
			Inner  inner
			Pairs  [][2]string
			Bytes  []byte
			Empty  []string
			Absent []string `json:",omitzero"`
			Plain  [2]int
		}
		source := staticSource(t, keys.EdDSA)
		made := state{Roles: []string{"a", "b", "c"}, Inner: inner{[]int{1, 2}}, Pairs: [][2]string{{"x", "y"}}, Bytes: []byte{1}, Empty: []string{}}
		token, _, err := newIssuer[state](t, source).Issue(t.Context(), "u", made)
		require.NoError(t, err)
		v := newVerifier[state](t, source, cache)
		for range 3 {
			got, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, made, got.State)
			other, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			s := &got.State
			_ = append(s.Roles[:1], "admin", "admin", "admin")
			s.Inner.Numbers[0], s.Pairs[0][1], s.Bytes[0], s.Plain[0] = 9, "admin", 9, 9
			mine, theirs := append(s.Empty, "admin"), append(other.State.Empty, "user")
			require.Equal(t, []string{"admin"}, mine)
			require.Equal(t, []string{"user"}, theirs)
			require.Equal(t, made, other.State)
		}
	})
}

func TestVerifyConcurrently(t *testing.T) {
	shops := []*shop{newShop(t, keys.ES256), newShop(t, keys.EdDSA)}
	source := &changing{set: mustSet(t, shops[0].key.Public(), shops[1].key.Public())}
	v := newVerifier[attackState](t, source)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				if i == 0 {
					cancel() // a caller that has gone fails no other
				}
				c, err := v.Verify(ctx, shops[(i+j)%2].token)
				cancel()
				if err != nil || c.Subject != "user-1" {
					t.Errorf("%v", err)
				}
				c.State.Roles = append(c.State.Roles, "x")
				if j%50 == 0 {
					source.put(mustSet(t, shops[1].key.Public(), shops[0].key.Public()), nil)
				}
				_, _ = v.Verify(t.Context(), shops[0].token[:len(shops[0].token)-1])
			}
		})
	}
	wg.Wait()
}

func FuzzVerify(f *testing.F) {
	set, all := readAttacks(f)
	for _, a := range all {
		f.Add(a.token)
	}
	v := attackVerifier(f, set, 0)
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := v.Verify(t.Context(), token)
		if err == nil || claims != nil {
			t.Fatal("accepted: the tokens of the corpus expired in 2000")
		}
		require.ErrorIs(t, err, sessiontoken.ErrInvalid)
	})
}

func FuzzPayload(f *testing.F) {
	s := newShop(f, keys.EdDSA)
	for _, changes := range [][]claim{{}, {{"aud", `["api","x"]`}}, {{"nbf", "1"}}, {{"state", "null"}}, {{"x", "[]"}}, {{"sub", `"\u0061"`}}, {{"rnw", "true"}}, {{"chg", "1"}}, {{"auth_time", ""}}, {{"acr", `"aal2"`}, {"amr", `["pwd"]`}}, {{"act", `{"sub":"a","sid":"s","begun":1}`}}} {
		f.Add([]byte(payload(append(changes, claim{"exp", itoa(time.Now().Unix() + 3600)}, claim{"iat", itoa(time.Now().Unix())})...)))
	}
	issuer, err := sessiontoken.NewIssuer[any](sessiontoken.IssuerConfig{
		Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: must(keys.NewStatic(s.key)),
	})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		token := s.sign(t, body)
		claims, err := s.cold.Verify(t.Context(), token)
		if (err == nil) == (claims == nil) {
			t.Fatal("neither claims nor an error, or both")
		}
		if err == nil {
			require.Equal(t, "https://issuer.example", claims.Issuer)
			require.NotEmpty(t, claims.Subject)
			require.NotEmpty(t, claims.SessionID)
			require.True(t, claims.Expires.After(time.Now()))
			require.False(t, claims.AuthTime.After(claims.IssuedAt.Add(time.Minute)))
			require.False(t, claims.Began.After(claims.IssuedAt.Add(time.Minute+time.Second)))
		} else {
			require.ErrorIs(t, err, sessiontoken.ErrInvalid)
		}
		_, _, err = issuer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[any]) (interface{}, error) { return 1, nil })
		if err != nil {
			require.ErrorIs(t, err, sessiontoken.ErrInvalid)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
