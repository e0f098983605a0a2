package sessiontoken_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

var errBoom = errors.New("boom")

func staticSource(t testing.TB, alg keys.Algorithm) *keys.Static {
	t.Helper()
	key, err := keys.GenerateKey(alg)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	return source
}

func newIssuer[T any](t testing.TB, source sessiontoken.SigningKeySource, change ...func(*sessiontoken.IssuerConfig)) *sessiontoken.Issuer[T] {
	t.Helper()
	cfg := sessiontoken.IssuerConfig{Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: source}
	for _, f := range change {
		f(&cfg)
	}
	i, err := sessiontoken.NewIssuer[T](cfg)
	require.NoError(t, err)
	return i
}

func newVerifier[T any](t testing.TB, source sessiontoken.KeySource, change ...func(*sessiontoken.VerifierConfig)) *sessiontoken.Verifier[T] {
	t.Helper()
	cfg := sessiontoken.VerifierConfig{Issuer: "https://issuer.example", Audience: "api", Keys: source}
	for _, f := range change {
		f(&cfg)
	}
	v, err := sessiontoken.NewVerifier[T](cfg)
	require.NoError(t, err)
	return v
}

// revocations is a list that tests write.
type revocations struct {
	sid      string        // the session that was revoked
	err      error         // of Check
	timeErr  error         // of Now
	beginErr error         // of Begin
	ahead    time.Duration // how far the store's clock is ahead of this machine's
	mark     time.Time     // the newest mark
	calls    int           // of Check
	times    int           // of Now
	begun    []revoke.Question
	asked    revoke.Question // the last one
	before   func()
}

func (r *revocations) Check(_ context.Context, q *revoke.Question) error {
	r.calls++
	if r.before != nil {
		r.before()
	}
	r.asked = *q
	switch {
	case q.Subject == "" || q.KeyID == "" || q.SessionID == "" || q.Began.IsZero():
		return errors.New("not told enough")
	case r.err != nil:
		return r.err
	case r.sid == q.SessionID:
		return revoke.ErrRevoked
	}
	return nil
}

func (r *revocations) Now(context.Context) (time.Time, error) {
	r.times++
	if r.timeErr != nil {
		return time.Time{}, r.timeErr
	}
	return time.Now().Add(r.ahead), nil
}

func (r *revocations) Begin(_ context.Context, q revoke.Question) (time.Time, error) {
	r.begun = append(r.begun, q)
	switch {
	case r.beginErr != nil:
		return time.Time{}, r.beginErr
	case !q.Began.IsZero() && !r.mark.Before(q.Began):
		return time.Time{}, revoke.ErrRevoked
	case !q.Began.IsZero():
		return q.Began, nil
	}
	now := time.Now().Add(r.ahead).Truncate(time.Millisecond)
	if !r.mark.Before(now) {
		return r.mark.Add(time.Millisecond), nil
	}
	return now, nil
}

func (*revocations) Mark(context.Context, *revoke.Question) (int64, error) { return 0, nil }

func (*revocations) MaxTTL() time.Duration { return 30 * 24 * time.Hour }

func (*revocations) RetainFor() time.Duration { return 30 * 24 * time.Hour }

func always(s attackState) func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
	return func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) { return s, nil }
}

func TestNewIssuerNamesTheField(t *testing.T) {
	source := staticSource(t, keys.ES256)
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), RetainFor: 30 * time.Minute})
	require.NoError(t, err)
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)}) // which remembers for 24 h
	require.NoError(t, err)
	for _, tt := range []struct {
		name   string
		field  string
		change func(*sessiontoken.IssuerConfig)
	}{
		{"no issuer", "Issuer", func(c *sessiontoken.IssuerConfig) { c.Issuer = "" }},
		{"issuer not UTF-8", "Issuer", func(c *sessiontoken.IssuerConfig) { c.Issuer = "\xff" }},
		{"no audience", "Audience", func(c *sessiontoken.IssuerConfig) { c.Audience = nil }},
		{"empty audience", "Audience", func(c *sessiontoken.IssuerConfig) { c.Audience = []string{"a", ""} }},
		{"no keys", "Keys", func(c *sessiontoken.IssuerConfig) { c.Keys = nil }},
		{"nil keys", "Keys", func(c *sessiontoken.IssuerConfig) { c.Keys = (*keys.Ring)(nil) }},
		{"nil revocations", "Revocations", func(c *sessiontoken.IssuerConfig) { c.Revocations = (*revocations)(nil) }},
		{"negative TTL", "TTL", func(c *sessiontoken.IssuerConfig) { c.TTL = -time.Second }},
		{"part of a second", "TTL", func(c *sessiontoken.IssuerConfig) { c.TTL = 1500 * time.Millisecond }},
		{"TTL over idle", "TTL", func(c *sessiontoken.IssuerConfig) { c.TTL, c.IdleTimeout = time.Hour, time.Minute }},
		{"negative idle", "IdleTimeout", func(c *sessiontoken.IssuerConfig) { c.IdleTimeout = -1 }},
		{"idle over session", "IdleTimeout", func(c *sessiontoken.IssuerConfig) { c.IdleTimeout, c.MaxSession = 2*time.Hour, time.Hour }},
		{"negative session", "MaxSession", func(c *sessiontoken.IssuerConfig) { c.MaxSession = -1 }},
		{"negative bytes", "MaxBytes", func(c *sessiontoken.IssuerConfig) { c.MaxBytes = -1 }},
		{"TTL over ring", "TTL", func(c *sessiontoken.IssuerConfig) {
			c.Keys, c.TTL, c.IdleTimeout = ring, 30*time.Minute, 30*time.Minute
		}},
		{"idle over ring", "IdleTimeout", func(c *sessiontoken.IssuerConfig) { c.Keys = ring }},
		{"session over list", "MaxSession", func(c *sessiontoken.IssuerConfig) {
			c.Revocations, c.MaxSession = list, 24*time.Hour+time.Second
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := sessiontoken.IssuerConfig{Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: source}
			tt.change(&cfg)
			_, err := sessiontoken.NewIssuer[attackState](cfg)
			require.ErrorContains(t, err, "sessiontoken: IssuerConfig."+tt.field)
		})
	}
	for _, tt := range []struct {
		name string
		c    sessiontoken.IssuerConfig
	}{
		{"AAL1", sessiontoken.IssuerConfig{MaxSession: 30 * 24 * time.Hour}}, {"AAL3", sessiontoken.IssuerConfig{MaxSession: 12 * time.Hour, IdleTimeout: 15 * time.Minute}},
		{"a short session alone", sessiontoken.IssuerConfig{MaxSession: time.Minute}}, {"a long TTL alone", sessiontoken.IssuerConfig{TTL: 2 * time.Hour}},
	} {
		tt.c.Issuer, tt.c.Audience, tt.c.Keys = "https://issuer.example", []string{"api"}, source
		_, err := sessiontoken.NewIssuer[attackState](tt.c)
		require.NoError(t, err, tt.name)
	}
}

func TestIssueWritesEveryClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.ES256)
		issuer := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Audience = []string{"api", "web"} })
		token, claims, err := issuer.Issue(t.Context(), "user-1", attackState{Name: "<Ada> & ümlaut", Roles: []string{"a"}})
		require.NoError(t, err)
		parts := strings.Split(token, ".")
		raw, err := jws.Decode(parts[1])
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(raw, &m))
		now := float64(time.Now().Unix())
		require.Equal(t, map[string]any{
			"iss": "https://issuer.example", "sub": "user-1", "aud": []any{"api", "web"}, "iat": now, "exp": now + 300, "begun": 1000 * now, "auth_time": now, "rnw": true,
			"jti": claims.TokenID, "sid": claims.SessionID, "state": map[string]any{"name": "<Ada> & ümlaut", "roles": []any{"a"}},
		}, m)
		require.Len(t, claims.TokenID, 22)
		require.Len(t, claims.SessionID, 22)
		got, err := newVerifier[attackState](t, source).Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, claims, got)
		_, err = newVerifier[attackState](t, source, func(c *sessiontoken.VerifierConfig) { c.Audience = "other" }).Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrClaims)

		ids := map[string]bool{}
		issued := 2000
		if isLong() {
			issued = 20000
		}
		for range issued {
			_, c, err := issuer.Issue(t.Context(), "user-1", attackState{})
			require.NoError(t, err)
			require.False(t, ids[c.TokenID] || ids[c.SessionID] || c.TokenID == c.SessionID)
			ids[c.TokenID], ids[c.SessionID] = true, true
		}
	})
}

func TestIssueRefuses(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	issuer := newIssuer[any](t, source)
	deep := any(1)
	for range 20 {
		deep = []any{deep}
	}
	for _, tt := range []struct {
		name    string
		subject string
		state   any
	}{
		{"no subject", "", 1}, {"subject not UTF-8", "\xff", 1}, {"unserialisable", "u", make(chan int)},
		{"state not UTF-8", "u", "\xff"}, {"too deep", "u", deep}, {"name twice", "u", struct {
			A int            `json:"a"`
			B map[string]int `json:",embed"`
		}{1, map[string]int{"a": 2}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token, claims, err := issuer.Issue(t.Context(), tt.subject, tt.state)
			require.Error(t, err)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
			require.Empty(t, token)
			require.Nil(t, claims)
			_, err = issuer.Size(t.Context(), tt.subject, tt.state)
			require.Error(t, err)
		})
	}
	broken := newIssuer[any](t, brokenSource{source})
	_, _, err := broken.Issue(t.Context(), "u", 1)
	require.ErrorIs(t, err, errBoom)
	_, err = broken.Size(t.Context(), "u", 1)
	require.ErrorIs(t, err, errBoom)
}

type brokenSource struct{ *keys.Static }

func (brokenSource) SigningKey(context.Context) (*keys.SigningKey, error) { return nil, errBoom }

func roundTrip[T any](t *testing.T, source *keys.Static, state T) {
	t.Helper()
	for _, cache := range []int{-1, 0} {
		token, _, err := newIssuer[T](t, source).Issue(t.Context(), "u", state)
		require.NoError(t, err)
		v := newVerifier[T](t, source, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = cache })
		for range 2 {
			got, err := v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.Equal(t, state, got.State)
		}
	}
}

func TestStatesOfManyTypes(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	type nested struct {
		At   time.Time
		Map  map[string]int
		Ptr  *int
		Raw  []byte
		Next *nested
	}
	one := 1
	roundTrip(t, source, "text")
	roundTrip(t, source, 42)
	roundTrip(t, source, struct{}{})
	roundTrip(t, source, true)
	roundTrip(t, source, []string{"a", "b"})
	roundTrip(t, source, map[string]int{"b": 2, "a": 1})
	roundTrip(t, source, &one)
	roundTrip(t, source, (*int)(nil))
	roundTrip(t, source, [3]int{1, 2, 3})
	roundTrip(t, source, nested{time.Unix(1, 5).UTC(), map[string]int{"x": 1}, &one, []byte{1, 2}, &nested{Map: map[string]int{}, Raw: []byte{}}})
}

// TestRenewProperty renews a session a thousand times at random moments: what
// must not change does not, and no token outlives the session.
func TestRenewProperty(t *testing.T) {
	seeds := uint64(3)
	if isLong() {
		seeds = 20
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			issuer := newIssuer[attackState](t, staticSource(t, keys.EdDSA))
			token, first, err := issuer.Issue(t.Context(), "user-1", attackState{})
			require.NoError(t, err)
			end, renewals := first.Began.Add(24*time.Hour), 0
			ids := map[string]bool{first.TokenID: true}
			for {
				time.Sleep(time.Duration(rng.Int64N(int64(3 * time.Minute))))
				next, c, err := issuer.Renew(t.Context(), token, always(attackState{Name: "new"}))
				if !time.Now().Before(end) {
					require.ErrorIs(t, err, sessiontoken.ErrExpired)
					break
				}
				require.NoError(t, err)
				renewals++
				require.Equal(t, first.SessionID, c.SessionID)
				require.Equal(t, first.Began, c.Began)
				require.Equal(t, first.AuthTime, c.AuthTime)
				require.Equal(t, "user-1", c.Subject)
				require.False(t, c.Expires.After(end))
				require.False(t, ids[c.TokenID])
				ids[c.TokenID] = true
				token = next
			}
			require.Greater(t, renewals, 500)
		})
	}
}

func TestRenewBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.ES256)
		issuer := newIssuer[attackState](t, source)
		verifier := newVerifier[attackState](t, source)
		token, _, err := issuer.Issue(t.Context(), "user-1", attackState{Name: "old"})
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		_, err = verifier.Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
		time.Sleep(55*time.Minute - time.Second)
		renewed, c, err := issuer.Renew(t.Context(), token, func(_ context.Context, old *sessiontoken.Claims[attackState]) (attackState, error) {
			require.Equal(t, "old", old.State.Name)
			return attackState{Name: "from the authority"}, nil
		})
		require.NoError(t, err)
		require.Equal(t, "from the authority", c.State.Name)
		got, err := verifier.Verify(t.Context(), renewed)
		require.NoError(t, err)
		require.Equal(t, "from the authority", got.State.Name)
		time.Sleep(time.Second)
		_, _, err = issuer.Renew(t.Context(), token, always(attackState{}))
		require.ErrorIs(t, err, sessiontoken.ErrExpired, "idle for an hour")
	})
}

func TestRenewRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.ES256)
		list := &revocations{}
		issuer := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Revocations = list })
		token, claims, err := issuer.Issue(t.Context(), "user-1", attackState{Roles: []string{"x"}})
		require.NoError(t, err)
		never := func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			t.Fatal("load was called")
			return attackState{}, nil
		}
		refused := func(i *sessiontoken.Issuer[attackState], token string, load func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error), want error) {
			t.Helper()
			got, c, err := i.Renew(t.Context(), token, load)
			require.ErrorIs(t, err, want)
			require.Empty(t, got)
			require.Nil(t, c)
		}
		_, _, err = issuer.Renew(t.Context(), token, nil)
		require.Error(t, err)
		refused(issuer, "", never, sessiontoken.ErrMalformed)
		refused(issuer, strings.Repeat("A", 9000), never, sessiontoken.ErrMalformed)
		refused(issuer, token[:len(token)-2]+"AA", never, sessiontoken.ErrSignature)
		refused(newIssuer[attackState](t, staticSource(t, keys.ES256)), token, never, sessiontoken.ErrSignature)
		refused(newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Issuer = "https://other.example" }), token, never, sessiontoken.ErrClaims)
		refused(newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Audience = []string{"other"} }), token, never, sessiontoken.ErrClaims)

		refused(issuer, token, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			return attackState{}, errBoom
		}, errBoom)
		_, _, err = issuer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			return attackState{}, errBoom
		})
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)

		list.err = errBoom
		refused(issuer, token, never, errBoom)
		list.err, list.sid = nil, claims.SessionID
		refused(issuer, token, never, sessiontoken.ErrRevoked)
		list.sid = ""
		refused(issuer, token, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			list.sid = claims.SessionID // ended while the state is read
			return attackState{}, nil
		}, sessiontoken.ErrRevoked)
		list.sid = ""

		refused(newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) {
			c.MaxSession, c.TTL, c.IdleTimeout = time.Minute, time.Minute, time.Minute
		}), token,
			func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
				time.Sleep(time.Minute)
				return attackState{}, nil
			}, sessiontoken.ErrExpired)

		var tooBig *sessiontoken.SizeError
		_, _, err = issuer.Renew(t.Context(), token, always(attackState{Name: strings.Repeat("x", 4000)}))
		require.ErrorAs(t, err, &tooBig)
	})
}

// TestRenewAudience: renewal narrows the audience and never widens it.
func TestRenewAudience(t *testing.T) {
	source := staticSource(t, keys.ES256)
	with := func(aud ...string) *sessiontoken.Issuer[attackState] {
		return newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Audience = aud })
	}
	for _, c := range []struct{ issued, renewed, holds, lacks []string }{
		{[]string{"a"}, []string{"a", "b"}, []string{"a"}, []string{"b"}},
		{[]string{"a", "b"}, []string{"b"}, []string{"b"}, []string{"a"}},
		{[]string{"a", "b", "c"}, []string{"a", "x", "c"}, []string{"a", "c"}, []string{"b", "x"}},
		{[]string{"a", "b"}, []string{"b", "a"}, []string{"a", "b"}, nil},
	} {
		token, _, err := with(c.issued...).Issue(t.Context(), "u", attackState{})
		require.NoError(t, err)
		token, _, err = with(c.renewed...).Renew(t.Context(), token, always(attackState{}))
		require.NoError(t, err)
		for _, aud := range c.holds {
			_, err := newVerifier[attackState](t, source, func(v *sessiontoken.VerifierConfig) { v.Audience = aud }).Verify(t.Context(), token)
			require.NoError(t, err, "%v: %s", c, aud)
		}
		for _, aud := range c.lacks {
			_, err := newVerifier[attackState](t, source, func(v *sessiontoken.VerifierConfig) { v.Audience = aud }).Verify(t.Context(), token)
			require.ErrorIs(t, err, sessiontoken.ErrClaims, "%v: %s", c, aud)
		}
	}
}

func TestSize(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		source := staticSource(t, alg)
		issuer := newIssuer[map[string]string](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = 1 << 20 })
		for range 50 {
			state := map[string]string{}
			for range rng.IntN(20) {
				state[strings.Repeat("k", rng.IntN(20))+string(rune('a'+rng.IntN(26)))] = strings.Repeat("v\"é", rng.IntN(50))
			}
			token, _, err := issuer.Issue(t.Context(), "user-1", state)
			require.NoError(t, err)
			report, err := issuer.Size(t.Context(), "user-1", state)
			require.NoError(t, err)
			require.Equal(t, len(token), report.Bytes)
			require.Equal(t, report.Bytes, report.Header+report.Payload+report.Signature+2)
		}
	}

	type state struct {
		Permissions []string          `json:"permissions"`
		Profile     map[string]string `json:"profile"`
	}
	s := state{Profile: map[string]string{"bio": strings.Repeat("b", 600), "odd name\n": "x"}}
	for range 100 {
		s.Permissions = append(s.Permissions, "orders:00:write")
	}
	source := staticSource(t, keys.ES256)
	issuer := newIssuer[state](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = 1000 })
	token, claims, err := issuer.Issue(t.Context(), "user-1", s)
	require.Empty(t, token)
	require.Nil(t, claims)
	var tooBig *sessiontoken.SizeError
	require.ErrorAs(t, err, &tooBig)
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	require.Equal(t, 1000, tooBig.Report.Limit)
	require.Contains(t, err.Error(), "over the limit of 1000 B; heaviest: state.permissions 2420 B, state.profile ")
	require.NotContains(t, err.Error(), "orders:00")
	report, err := issuer.Size(t.Context(), "user-1", s)
	require.NoError(t, err)
	require.Equal(t, tooBig.Report, report)
	paths := map[string]int{}
	for _, c := range report.Claims {
		paths[c.Path] = c.Bytes
	}
	require.Contains(t, paths, "state.profile.bio")
	require.Contains(t, paths, `state.profile."odd name\n"`)
	require.Contains(t, paths, "iss")
	require.NotContains(t, paths, "state")
	require.Contains(t, report.String(), "state.permissions")

	exact := newIssuer[state](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = report.Bytes })
	token, _, err = exact.Issue(t.Context(), "user-1", s)
	require.NoError(t, err, "exactly at the limit")
	require.Len(t, token, report.Bytes)
	over := newIssuer[state](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = report.Bytes - 1 })
	_, _, err = over.Issue(t.Context(), "user-1", s)
	require.ErrorAs(t, err, &tooBig)
	_, _, err = over.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{}, nil })
	require.NoError(t, err, "a token issued under a larger limit is still renewed")
}

func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.EdDSA)
		list := &revocations{}
		issuer := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Revocations = list; c.MaxSession = 10 * time.Hour })
		v := newVerifier[attackState](t, source)
		began := time.Now()
		_, first, err := issuer.Issue(t.Context(), "user-1", attackState{Roles: []string{"old"}})
		require.NoError(t, err)
		on := sessiontoken.Resumption{Subject: "user-1", SessionID: first.SessionID, Began: first.Began, AuthTime: first.AuthTime}
		time.Sleep(10*time.Hour - 2*time.Minute)
		token, c, err := issuer.Resume(t.Context(), on, always(attackState{Roles: []string{"new"}}))
		require.NoError(t, err)
		read, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, c, read)
		require.Equal(t, first.SessionID, c.SessionID)
		require.Equal(t, first.Began, c.Began)
		require.Equal(t, first.AuthTime, c.AuthTime)
		require.NotEqual(t, first.TokenID, c.TokenID)
		require.False(t, c.Renewable)
		require.Equal(t, []string{"new"}, c.State.Roles)
		require.Equal(t, began.Add(10*time.Hour).UTC(), c.Expires, "not beyond the end of the session")
		require.Equal(t, first.Began, list.asked.Began)

		renewable := on
		renewable.Renewal = sessiontoken.Renewable
		_, c, err = issuer.Resume(t.Context(), renewable, always(attackState{}))
		require.NoError(t, err)
		require.True(t, c.Renewable)

		for _, tt := range []struct {
			name   string
			change func(*sessiontoken.Resumption)
		}{
			{"subject", func(r *sessiontoken.Resumption) { r.Subject = "" }},
			{"SessionID", func(r *sessiontoken.Resumption) { r.SessionID = "" }},
			{"in valid", func(r *sessiontoken.Resumption) { r.SessionID = "\xff" }},
			{"Began", func(r *sessiontoken.Resumption) { r.Began = time.Time{} }},
			{"Began is required", func(r *sessiontoken.Resumption) { r.Began = time.UnixMilli(0) }},
			{"not in the future", func(r *sessiontoken.Resumption) { r.Began = time.Now().Add(time.Hour) }},
			{"AuthTime", func(r *sessiontoken.Resumption) { r.AuthTime = time.Now().Add(time.Hour) }},
			{"not be before 1970", func(r *sessiontoken.Resumption) { r.AuthTime = time.Unix(-1, 0) }},
			{"NotRenewable and Re", func(r *sessiontoken.Resumption) { r.Renewal = 2 }},
			{"Resumption.ACR", func(r *sessiontoken.Resumption) { r.ACR = strings.Repeat("x", 65) }},
			{"Resumption.AMR", func(r *sessiontoken.Resumption) { r.AMR = []string{""} }},
			{"Resumption.Actor", func(r *sessiontoken.Resumption) { r.Actor = new(sessiontoken.Actor) }},
		} {
			r := on
			tt.change(&r)
			err := errorOf(issuer.Resume(t.Context(), r, always(attackState{})))
			require.ErrorContains(t, err, tt.name)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		}
		list.sid = first.SessionID
		require.ErrorIs(t, errorOf(issuer.Resume(t.Context(), on, always(attackState{}))), sessiontoken.ErrRevoked)
		list.sid, list.err = "", errors.New("down")
		require.ErrorIs(t, errorOf(issuer.Resume(t.Context(), on, always(attackState{}))), list.err)
		list.err = nil
		time.Sleep(2 * time.Minute)
		require.ErrorIs(t, errorOf(issuer.Resume(t.Context(), on, always(attackState{}))), sessiontoken.ErrExpired)
	})
}

// errorOf is the error of a call that also returns a token and claims.
func errorOf(_ string, _ *sessiontoken.Claims[attackState], err error) error { return err }
