package sessiontoken_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// payloadOf returns the payload of a token as text.
func payloadOf(t testing.TB, token string) string {
	t.Helper()
	raw, err := jws.Decode(strings.Split(token, ".")[1])
	require.NoError(t, err)
	return string(raw)
}

// withList makes both issuers and verifiers ask a list.
func withList(list revoke.Checker) (func(*sessiontoken.IssuerConfig), func(*sessiontoken.VerifierConfig)) {
	return func(c *sessiontoken.IssuerConfig) { c.Revocations = list }, func(c *sessiontoken.VerifierConfig) { c.Revocations = list }
}

func TestBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(1234567 * time.Microsecond) // to 1.234567 s
		now := time.Now().UTC()
		second, milli := now.Truncate(time.Second), now.Truncate(time.Millisecond)
		source := staticSource(t, keys.EdDSA)
		for _, c := range []struct {
			name            string
			start           sessiontoken.Start
			began, authTime time.Time
			renewable       bool
		}{
			{"plain", sessiontoken.Start{}, milli, time.Time{}, false},
			{"renewable", sessiontoken.Start{Renewal: sessiontoken.Renewable}, milli, time.Time{}, true},
			{"an earlier start", sessiontoken.Start{Earliest: now.Add(-5 * time.Minute)}, milli.Add(-5 * time.Minute), time.Time{}, false},
			{"a start in the future", sessiontoken.Start{Earliest: now.Add(time.Hour)}, milli, time.Time{}, false},
			{"an earlier proof", sessiontoken.Start{AuthTime: now.Add(-time.Hour)}, milli, second.Add(-time.Hour), false},
			{"a proof in the future", sessiontoken.Start{AuthTime: now.Add(time.Hour)}, milli, second, false},
		} {
			c.start.Subject = "user-1"
			token, claims, err := newIssuer[attackState](t, source).Begin(t.Context(), c.start, attackState{})
			require.NoError(t, err, c.name)
			require.Equal(t, c.began, claims.Began, c.name)
			require.Equal(t, c.authTime, claims.AuthTime, c.name)
			require.Equal(t, second, claims.IssuedAt, c.name)
			require.Equal(t, c.renewable, claims.Renewable, c.name)
			require.Equal(t, keyIDOf(t, source), claims.KeyID, c.name)
			require.Equal(t, c.renewable, strings.Contains(payloadOf(t, token), `"rnw":true,"state":`), c.name)
			require.Equal(t, c.renewable, strings.Contains(payloadOf(t, token), "rnw"), c.name)
			require.Equal(t, !c.authTime.IsZero(), strings.Contains(payloadOf(t, token), "auth_time"), c.name)
			read, err := newVerifier[attackState](t, source).Verify(t.Context(), token)
			require.NoError(t, err, c.name)
			claims.State.Roles = []string{} // as JSON has it
			require.Equal(t, claims, read, c.name)
		}
		for _, c := range []struct {
			text  string
			start sessiontoken.Start
		}{
			{"subject", sessiontoken.Start{}},
			{"Start.Renewal", sessiontoken.Start{Subject: "u", Renewal: -1}},
			{"Start.Renewal", sessiontoken.Start{Subject: "u", Renewal: 2}},
			{"Start.Earliest", sessiontoken.Start{Subject: "u", Earliest: time.Unix(0, 0)}},
			{"Start.AuthTime", sessiontoken.Start{Subject: "u", AuthTime: time.Unix(-5, 0)}},
			{"its end", sessiontoken.Start{Subject: "u", Earliest: now.Add(-24 * time.Hour)}},
			{"its end", sessiontoken.Start{Subject: "u", Earliest: now.Add(-25 * time.Hour)}},
		} {
			require.ErrorContains(t, errorOf(newIssuer[attackState](t, source).Begin(t.Context(), c.start, attackState{})), c.text)
		}
	})
}

func keyIDOf(t testing.TB, source sessiontoken.SigningKeySource) string {
	t.Helper()
	key, err := source.SigningKey(t.Context())
	require.NoError(t, err)
	return key.Public().KeyID()
}

// TestBeginAsksTheList: what is signed is what the list says, and what it cannot
// say is not signed.
func TestBeginAsksTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, list := staticSource(t, keys.EdDSA), &revocations{}
		onIssuer, onVerifier := withList(list)
		issuer, v := newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, onVerifier)
		begin := func(s sessiontoken.Start) (string, *sessiontoken.Claims[attackState], error) {
			s.Subject = "user-1"
			return issuer.Begin(t.Context(), s, attackState{})
		}
		// A mark of this very millisecond, of a store that is a little ahead.
		list.mark = time.Now().Add(20 * time.Millisecond)
		token, c, err := begin(sessiontoken.Start{AuthTime: list.mark.Add(time.Millisecond)})
		require.NoError(t, err)
		require.Equal(t, list.mark.Add(time.Millisecond).UTC(), c.Began)
		require.Equal(t, time.Now().UTC(), c.IssuedAt, "iat is never in the future")
		require.Equal(t, time.Now().UTC(), c.AuthTime, "nor is auth_time")
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, c.Began, list.asked.Began)
		require.Equal(t, revoke.Question{Subject: "user-1", SessionID: c.SessionID}, list.begun[0])

		// A sign-in that took a while.
		time.Sleep(time.Minute)
		earliest := time.Now().Add(-30*time.Second + 600*time.Microsecond)
		_, c, err = begin(sessiontoken.Start{Earliest: earliest})
		require.NoError(t, err)
		require.Equal(t, earliest.Truncate(time.Millisecond).UTC(), c.Began)
		require.Equal(t, c.Began, list.begun[1].Began, "the list is asked about what is written")
		list.mark = earliest
		_, _, err = begin(sessiontoken.Start{Earliest: earliest})
		require.ErrorIs(t, err, sessiontoken.ErrRevoked)

		list.beginErr = errBoom
		_, _, err = begin(sessiontoken.Start{})
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		list.beginErr, list.timeErr = nil, errBoom
		_, _, err = begin(sessiontoken.Start{})
		require.ErrorIs(t, err, errBoom)
		list.timeErr = nil

		// A list that is wrong by more than any verifier takes.
		list.mark = time.Now().Add(2 * time.Minute)
		_, _, err = begin(sessiontoken.Start{})
		require.Error(t, err)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	})
}

// TestRenewRefusesWhatIsNotRenewable: a token that was handed out beside a
// refresh token does not renew itself.
func TestRenewRefusesWhatIsNotRenewable(t *testing.T) {
	source := staticSource(t, keys.ES256)
	issuer := newIssuer[attackState](t, source)
	never := func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
		t.Fatal("load was called")
		return attackState{}, nil
	}
	native, first, err := issuer.Begin(t.Context(), sessiontoken.Start{Subject: "user-1"}, attackState{})
	require.NoError(t, err)
	require.False(t, first.Renewable)
	err = errorOf(issuer.Renew(t.Context(), native, never))
	require.ErrorIs(t, err, sessiontoken.ErrNotRenewable)
	require.ErrorIs(t, err, sessiontoken.ErrInvalid)
	_, err = newVerifier[attackState](t, source).Verify(t.Context(), native)
	require.NoError(t, err, "it is good for what it is")

	resumed, _, err := issuer.Resume(t.Context(), sessiontoken.Resumption{Subject: "user-1", SessionID: first.SessionID, Began: first.Began}, always(attackState{}))
	require.NoError(t, err)
	require.ErrorIs(t, errorOf(issuer.Renew(t.Context(), resumed, never)), sessiontoken.ErrNotRenewable)

	// A browser's stays what it is, over all renewals.
	token, _, err := issuer.Issue(t.Context(), "user-1", attackState{})
	require.NoError(t, err)
	for range 3 {
		var c *sessiontoken.Claims[attackState]
		token, c, err = issuer.Renew(t.Context(), token, always(attackState{}))
		require.NoError(t, err)
		require.True(t, c.Renewable)
	}
}

// TestRenewDoesNotNeedTheOldState: a release that changes the type of the state
// signs no user out.
func TestRenewDoesNotNeedTheOldState(t *testing.T) {
	type before struct {
		Roles string `json:"roles"`
	}
	source := staticSource(t, keys.EdDSA)
	token, first, err := newIssuer[before](t, source).Issue(t.Context(), "user-1", before{"a,b"})
	require.NoError(t, err)
	_, err = newVerifier[attackState](t, source).Verify(t.Context(), token)
	require.ErrorIs(t, err, sessiontoken.ErrClaims, "to read it, the state must fit")
	calls := 0
	renewed, c, err := newIssuer[attackState](t, source).Renew(t.Context(), token, func(_ context.Context, old *sessiontoken.Claims[attackState]) (attackState, error) {
		calls++
		require.Equal(t, &sessiontoken.Claims[attackState]{
			Issuer: "https://issuer.example", Subject: "user-1", TokenID: first.TokenID, SessionID: first.SessionID, KeyID: first.KeyID,
			Began: first.Began, AuthTime: first.AuthTime, IssuedAt: first.IssuedAt, Expires: first.Expires, Renewable: true,
		}, old, "all but the state")
		return attackState{Roles: []string{"a", "b"}}, nil
	})
	require.NoError(t, err)
	require.Equal(t, 1, calls)
	require.Equal(t, first.SessionID, c.SessionID)
	read, err := newVerifier[attackState](t, source).Verify(t.Context(), renewed)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, read.State.Roles)

	// What is no JSON, or is not strict, is nothing that an issuer wrote.
	s := newShop(t, keys.EdDSA)
	for _, tt := range []struct{ name, state string }{{"no JSON", `{"name":}`}, {"a name twice", `{"x":1,"x":2}`}, {"not UTF-8", "\"\xff\""}} {
		err := errorOf(s.issuer.Renew(t.Context(), s.sign(t, []byte(payload(claim{"rnw", "true"}, claim{"state", tt.state}, claim{"exp", itoa(time.Now().Unix() + 60)}, claim{"iat", itoa(time.Now().Unix())}, claim{"begun", itoa(time.Now().UnixMilli())}))), always(attackState{})))
		require.ErrorIs(t, err, sessiontoken.ErrClaims, tt.name)
	}
}

// TestSlowClockRenews: a machine that is behind the one that began the session
// signs what verifiers take (exp after iat, iat not in the future), also with a
// short TTL.
func TestSlowClockRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.EdDSA)
		short := func(c *sessiontoken.IssuerConfig) { c.TTL = 30 * time.Second }
		slow := new(clock.Clock)
		slow.SetAhead(-45 * time.Second)
		var behind *sessiontoken.Issuer[attackState]
		var verifiers []*sessiontoken.Verifier[attackState]
		clock.As(slow, func() {
			behind = newIssuer[attackState](t, source, short)
			verifiers = append(verifiers, newVerifier[attackState](t, source))
		})
		minute := func(c *sessiontoken.VerifierConfig) { c.Leeway = time.Minute }
		verifiers = append(verifiers, newVerifier[attackState](t, source, minute))
		token, first, err := newIssuer[attackState](t, source, short).Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		for range 5 {
			var c *sessiontoken.Claims[attackState]
			token, c, err = behind.Renew(t.Context(), token, always(attackState{}))
			require.NoError(t, err)
			require.Equal(t, time.Now().Add(-45*time.Second).UTC(), c.IssuedAt)
			require.Equal(t, c.IssuedAt.Add(30*time.Second), c.Expires)
			require.Equal(t, first.Began, c.Began)
			require.Equal(t, first.AuthTime, c.AuthTime)
			for _, v := range verifiers {
				_, err = v.Verify(t.Context(), token)
				require.NoError(t, err)
			}
			time.Sleep(10 * time.Second)
		}
		// Further behind than anything is accepted: nothing is signed.
		slow.SetAhead(-2 * time.Minute)
		err = errorOf(behind.Resume(t.Context(), sessiontoken.Resumption{Subject: "u", SessionID: "s", Began: time.Now().Add(-time.Minute)}, always(attackState{})))
		require.NoError(t, err)
		for _, ahead := range []time.Duration{90 * time.Second, 62 * time.Second} {
			err = errorOf(behind.Resume(t.Context(), sessiontoken.Resumption{Subject: "u", SessionID: "s", Began: slow.Now().Add(ahead)}, always(attackState{})))
			require.Error(t, err)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		}
	})
}

// TestEndOfTheSession: no token is signed whose exp would not be after its iat.
func TestEndOfTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(300 * time.Millisecond) // so that begun is no whole second
		source := staticSource(t, keys.EdDSA)
		issuer := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxSession = time.Minute })
		v := newVerifier[attackState](t, source)
		token, first, err := issuer.Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		require.Equal(t, time.Now().Truncate(time.Second).Add(time.Minute).UTC(), first.Expires)
		for range 60 * 4 {
			time.Sleep(250 * time.Millisecond)
			next, c, err := issuer.Renew(t.Context(), token, always(attackState{}))
			if !time.Now().Before(first.Began.Add(time.Minute).Truncate(time.Second)) {
				require.ErrorIs(t, err, sessiontoken.ErrExpired)
				continue
			}
			require.NoError(t, err)
			require.True(t, c.Expires.After(c.IssuedAt))
			require.False(t, c.Expires.After(first.Began.Add(time.Minute)))
			_, err = v.Verify(t.Context(), next)
			require.NoError(t, err)
		}
	})
}

// TestNowIsTheLists: a machine whose clock is weeks off issues, renews and
// verifies like the others, by the time that the list tells.
func TestNowIsTheLists(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		source := staticSource(t, keys.EdDSA)
		list := &revocations{}
		onIssuer, onVerifier := withList(list)
		right := newIssuer[attackState](t, source, onIssuer)
		rightVerifier := newVerifier[attackState](t, source, onVerifier, cache)
		for _, off := range []time.Duration{32 * 24 * time.Hour, -24 * time.Hour, time.Minute} {
			wrong := new(clock.Clock)
			wrong.SetAhead(off)
			var issuer *sessiontoken.Issuer[attackState]
			var v *sessiontoken.Verifier[attackState]
			clock.As(wrong, func() {
				issuer, v = newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, onVerifier, cache)
			})
			token, c, err := issuer.Issue(t.Context(), "user-1", attackState{})
			require.NoError(t, err)
			require.Equal(t, time.Now().UTC(), c.IssuedAt)
			require.Equal(t, time.Now().UTC(), c.Began)
			_, err = rightVerifier.Verify(t.Context(), token)
			require.NoError(t, err)
			other, _, err := right.Issue(t.Context(), "user-2", attackState{})
			require.NoError(t, err)
			_, err = v.Verify(t.Context(), other)
			require.NoError(t, err)
			_, c, err = issuer.Renew(t.Context(), other, always(attackState{}))
			require.NoError(t, err)
			require.Equal(t, time.Now().UTC(), c.IssuedAt)
			wrong.SetAhead(-off) // it jumps
			_, err = v.Verify(t.Context(), other)
			require.NoError(t, err)
			time.Sleep(5 * time.Minute)
			_, err = v.Verify(t.Context(), other)
			require.ErrorIs(t, err, sessiontoken.ErrExpired)
			for _, now := range []func(context.Context) (time.Time, error){issuer.Now, v.Now} {
				at, err := now(t.Context())
				require.NoError(t, err)
				require.True(t, at.Equal(time.Now()))
			}
		}
		// Without a list it is the machine's own.
		ahead := new(clock.Clock)
		ahead.SetAhead(time.Hour)
		clock.As(ahead, func() {
			at, err := newIssuer[attackState](t, source).Now(t.Context())
			require.NoError(t, err)
			require.Equal(t, time.Now().Add(time.Hour).UTC(), at)
			at, err = newVerifier[attackState](t, source).Now(t.Context())
			require.NoError(t, err)
			require.Equal(t, time.Now().Add(time.Hour).UTC(), at)
		})
	})
}

// TestTimeThatIsNotKnown: without a time nothing is accepted and nothing signed,
// and neither is the token's fault; and a token that is not genuine is refused
// without asking what time it is.
func TestTimeThatIsNotKnown(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		source := staticSource(t, keys.ES256)
		list := &revocations{}
		onIssuer, onVerifier := withList(list)
		issuer := newIssuer[attackState](t, source, onIssuer)
		v := newVerifier[attackState](t, source, onVerifier, cache)
		token, c, err := issuer.Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		_, err = v.Verify(t.Context(), token)
		require.NoError(t, err)
		list.timeErr = errBoom
		resume := sessiontoken.Resumption{Subject: "user-1", SessionID: c.SessionID, Began: c.Began}
		for _, tt := range []struct {
			name string
			err  error
		}{
			{"Verify", failure(v.Verify(t.Context(), token))}, {"Renew", errorOf(issuer.Renew(t.Context(), token, always(attackState{})))},
			{"Issue", errorOf(issuer.Issue(t.Context(), "u", attackState{}))}, {"Resume", errorOf(issuer.Resume(t.Context(), resume, always(attackState{})))},
		} {
			require.ErrorIs(t, tt.err, errBoom, tt.name)
			require.NotErrorIs(t, tt.err, sessiontoken.ErrInvalid, tt.name)
		}
		list.times, list.calls = 0, 0
		for _, forged := range []string{"", token[:len(token)-4] + "AAAA", token + ".x", strings.Repeat("x", 9000)} {
			require.ErrorIs(t, failure(v.Verify(t.Context(), forged)), sessiontoken.ErrInvalid)
			require.ErrorIs(t, errorOf(issuer.Renew(t.Context(), forged, always(attackState{}))), sessiontoken.ErrInvalid)
		}
		require.Zero(t, list.times+list.calls)
	})
}

// failure returns the error of a call that also returns something else.
func failure[A any](_ A, err error) error { return err }

// TestHitHashesNothing: the question about a token is made once and asked again.
func TestHitHashesNothing(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	list := &pointers{revocations: &revocations{}}
	_, onVerifier := withList(list)
	token, _, err := newIssuer[attackState](t, source).Issue(t.Context(), "user-1", attackState{})
	require.NoError(t, err)
	v := newVerifier[attackState](t, source, onVerifier)
	for range 5 {
		_, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
	}
	require.Len(t, list.asked, 5)
	for _, q := range list.asked {
		require.Same(t, list.asked[0], q)
	}
}

// pointers remembers which questions it was asked.
type pointers struct {
	*revocations
	asked []*revoke.Question
}

func (p *pointers) Check(ctx context.Context, q *revoke.Question) error {
	p.asked = append(p.asked, q)
	return p.revocations.Check(ctx, q)
}

// TestWrappedList: a wrapper is asked at each hit, also if it embeds a list whose
// other methods would answer in its place.
func TestWrappedList(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	require.NoError(t, err)
	wrapper := &countedList{List: list}
	onIssuer, onVerifier := withList(wrapper)
	token, _, err := newIssuer[attackState](t, source, onIssuer).Issue(t.Context(), "user-1", attackState{})
	require.NoError(t, err)
	v := newVerifier[attackState](t, source, onVerifier)
	before := wrapper.checks
	for range 3 {
		require.NoError(t, failure(v.Verify(t.Context(), token)))
	}
	require.Equal(t, 3, wrapper.checks-before)
	require.EqualValues(t, 2, v.Metrics()["cache_hits_total"])
	wrapper.refuses = true
	require.ErrorIs(t, failure(v.Verify(t.Context(), token)), sessiontoken.ErrRevoked)
}

type countedList struct {
	*revoke.List
	checks  int
	refuses bool
}

func (c *countedList) Check(ctx context.Context, q *revoke.Question) error {
	if c.checks++; c.refuses {
		return revoke.ErrRevoked
	}
	return c.List.Check(ctx, q)
}

// TestListItself: a hit that a list answers at once is refused as any other when
// the token is over or its session was revoked.
func TestListItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.EdDSA)
		list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore), SyncEvery: time.Hour, MaxStale: 3 * time.Hour})
		require.NoError(t, err)
		onIssuer, onVerifier := withList(list)
		issuer := newIssuer[attackState](t, source, onIssuer)
		v := newVerifier[attackState](t, source, onVerifier)
		again := func(token string) error { return failure(v.Verify(t.Context(), token)) }
		token, claims, err := issuer.Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		require.NoError(t, again(token))
		require.NoError(t, again(token))
		time.Sleep(time.Until(claims.Expires) - time.Nanosecond)
		require.NoError(t, again(token))
		time.Sleep(time.Nanosecond)
		require.ErrorIs(t, again(token), sessiontoken.ErrExpired)

		for _, c := range []struct {
			name   string
			revoke func(*sessiontoken.Claims[attackState]) error
		}{
			{"session", func(c *sessiontoken.Claims[attackState]) error { return list.RevokeSession(t.Context(), c.SessionID) }},
			{"subject", func(c *sessiontoken.Claims[attackState]) error { return list.RevokeSubject(t.Context(), c.Subject) }},
			{"all", func(c *sessiontoken.Claims[attackState]) error { return list.RevokeAll(t.Context(), c.Began) }},
			{"key", func(c *sessiontoken.Claims[attackState]) error {
				return list.RevokeKey(t.Context(), c.KeyID, time.Time{})
			}},
		} {
			token, claims, err := issuer.Issue(t.Context(), "user-"+c.name, attackState{})
			require.NoError(t, err, c.name)
			require.NoError(t, again(token), c.name)
			require.NoError(t, again(token), c.name)
			require.NoError(t, c.revoke(claims), c.name)
			require.ErrorIs(t, again(token), sessiontoken.ErrRevoked, c.name)
		}
	})
}

// TestErrorsThatDecideNothing: only revoke.ErrRevoked itself says that a session is
// revoked, and no error of a list puts the token at fault.
func TestErrorsThatDecideNothing(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	list := &revocations{}
	onIssuer, onVerifier := withList(list)
	issuer, v := newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, onVerifier)
	token, c, err := issuer.Issue(t.Context(), "user-1", attackState{})
	require.NoError(t, err)
	calls := map[string]func() error{
		"Verify, first": func() error {
			return failure(newVerifier[attackState](t, source, onVerifier).Verify(t.Context(), token))
		},
		"Verify, again": func() error { return failure(v.Verify(t.Context(), token)) },
		"Renew":         func() error { return errorOf(issuer.Renew(t.Context(), token, always(attackState{}))) },
		"Resume": func() error {
			return errorOf(issuer.Resume(t.Context(), sessiontoken.Resumption{SessionID: c.SessionID, Subject: c.Subject, Began: c.Began}, always(attackState{})))
		},
		"Begin": func() error {
			return errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "user-1"}, attackState{}))
		},
		"Now": func() error { _, err := v.Now(t.Context()); return err },
	}
	for name, err := range map[string]error{
		"a wrapped ErrRevoked":       fmt.Errorf("the store: %w", revoke.ErrRevoked),
		"ErrOwed":                    revoke.ErrOwed,
		"both":                       errors.Join(revoke.ErrOwed, revoke.ErrRevoked),
		"another token's revocation": fmt.Errorf("the store's own token: %w", sessiontoken.ErrRevoked),
		"another token's end":        sessiontoken.ErrExpired,
		"another token's audience":   sessiontoken.ErrAudience,
		"another error":              errBoom,
	} {
		list.err, list.timeErr, list.beginErr = err, nil, err
		for call, f := range calls {
			if call == "Now" {
				list.err, list.timeErr = nil, err
			}
			got := f()
			list.err, list.timeErr = err, nil
			require.Error(t, got, "%s: %s", call, name)
			for _, reason := range []error{sessiontoken.ErrInvalid, sessiontoken.ErrRevoked, sessiontoken.ErrExpired, sessiontoken.ErrClaims, sessiontoken.ErrAudience} {
				require.NotErrorIs(t, got, reason, "%s: %s", call, name)
			}
			require.ErrorContains(t, got, err.Error(), "%s: %s", call, name)
			require.Equal(t, errors.Is(err, revoke.ErrOwed), errors.Is(got, revoke.ErrOwed), "%s: %s", call, name)
			require.Equal(t, errors.Is(err, errBoom), errors.Is(got, errBoom), "%s: %s", call, name)
		}
	}
	list.err, list.beginErr = revoke.ErrRevoked, revoke.ErrRevoked
	for call, f := range calls {
		if call != "Now" {
			require.ErrorIs(t, f(), sessiontoken.ErrRevoked, call)
		}
	}
}

// TestVerifyBegun: a session may have begun after iat by what two clocks may
// differ, and by the part of a second that iat lacks.
func TestVerifyBegun(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		s := newShop(t, keys.EdDSA)
		v := newVerifier[attackState](t, mustSet(t, s.key.Public()), cache)
		at := time.Now()
		for _, c := range []struct {
			name        string
			begun, auth time.Duration
			want        error
		}{
			{"a year ago", -365 * 24 * time.Hour, -365 * 24 * time.Hour, nil},
			{"within iat's second", 999 * time.Millisecond, 0, nil},
			{"61 s after iat", 61 * time.Second, 0, nil},
			{"a millisecond more", 61*time.Second + time.Millisecond, 0, sessiontoken.ErrClaims},
			{"an hour after iat", time.Hour, 0, sessiontoken.ErrClaims},
			{"auth_time 60 s after iat", 0, time.Minute, nil},
			{"auth_time 61 s after iat", 0, 61 * time.Second, sessiontoken.ErrClaims},
		} {
			for _, extra := range []claim{{"state", `{"name":"","roles":[]}`}, {"unknown", "1"}} { // the fast reader, and the other
				token := s.sign(t, []byte(payload(extra, claim{"iat", itoa(at.Unix())}, claim{"exp", itoa(at.Unix() + 60)},
					claim{"begun", itoa(at.Add(c.begun).UnixMilli())}, claim{"auth_time", itoa(at.Add(c.auth).Unix())})))
				for range 2 {
					claims, err := v.Verify(t.Context(), token)
					require.ErrorIs(t, err, c.want, c.name)
					if c.want == nil {
						require.Equal(t, at.Add(c.begun).UTC(), claims.Began)
					}
				}
			}
		}
	})
}

// TestES256HasOneSpelling: who has a token cannot make another one of it.
func TestES256HasOneSpelling(t *testing.T) {
	s := newShop(t, keys.ES256)
	v := newVerifier[attackState](t, mustSet(t, s.key.Public()))
	for range 200 {
		token, _, err := s.issuer.Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		at := strings.LastIndexByte(token, '.') + 1
		sig, err := jws.Decode(token[at:])
		require.NoError(t, err)
		copy(sig[32:], otherS(sig[32:]))
		twin := token[:at] + jws.Encode(sig)
		for range 2 {
			_, err = v.Verify(t.Context(), token)
			require.NoError(t, err)
			require.ErrorIs(t, failure(v.Verify(t.Context(), twin)), sessiontoken.ErrSignature)
		}
		require.ErrorIs(t, errorOf(s.issuer.Renew(t.Context(), twin, always(attackState{}))), sessiontoken.ErrSignature)
		require.ErrorIs(t, failure(s.issuer.Identify(t.Context(), twin)), sessiontoken.ErrSignature)
	}
	require.EqualValues(t, 200, v.Metrics()["cache_entries"])
}

// TestConfigIsACopy: what Config returns has the defaults and is the caller's.
func TestConfigIsACopy(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	list := &revocations{}
	onIssuer, onVerifier := withList(list)
	issuer, v := newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, onVerifier)
	want := sessiontoken.IssuerConfig{
		Issuer: "https://issuer.example", Audience: []string{"api"}, Keys: source, Revocations: list,
		TTL: 5 * time.Minute, IdleTimeout: time.Hour, MaxSession: 24 * time.Hour, MaxBytes: 3584,
	}
	require.Equal(t, want, issuer.Config())
	issuer.Config().Audience[0] = "changed"
	require.Equal(t, want, issuer.Config())
	require.Equal(t, sessiontoken.VerifierConfig{
		Issuer: "https://issuer.example", Audience: "api", Keys: source, Revocations: list,
		MaxTTL: 24 * time.Hour, MaxBytes: 8192, CacheBytes: 16 << 20,
	}, v.Config())
	_, err := sessiontoken.NewVerifier[attackState](v.Config())
	require.NoError(t, err)
}

// TestVerifierHoldsWhatTheListRemembers: a token may not outlive the memory of
// its revocation.
func TestVerifierHoldsWhatTheListRemembers(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	with := func(kept, maxTTL time.Duration) (*sessiontoken.Verifier[attackState], error) {
		return sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{
			Issuer: "i", Audience: "a", Keys: source, MaxTTL: maxTTL, Revocations: forgetful{&revocations{}, kept},
		})
	}
	v, err := with(12*time.Hour, 0)
	require.NoError(t, err)
	require.Equal(t, 12*time.Hour, v.Config().MaxTTL, "the default follows")
	v, err = with(48*time.Hour, 0)
	require.NoError(t, err)
	require.Equal(t, 24*time.Hour, v.Config().MaxTTL)
	_, err = with(12*time.Hour, 12*time.Hour)
	require.NoError(t, err)
	for _, kept := range []time.Duration{12*time.Hour - 1, 0, -1} {
		_, err = with(kept, 12*time.Hour)
		require.ErrorContains(t, err, "VerifierConfig.MaxTTL")
	}
	_, err = with(0, 0)
	require.ErrorContains(t, err, "VerifierConfig.MaxTTL")
}

type forgetful struct {
	*revocations
	kept time.Duration
}

func (f forgetful) RetainFor() time.Duration { return f.kept }

// TestRevokedAndBegunWithinAMillisecond: with a real list, a session that begins
// after "sign out everywhere" lives, at any replica and within the same
// millisecond, and those that began before do not.
func TestRevokedAndBegunWithinAMillisecond(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		type replica struct {
			list   *revoke.List
			issuer *sessiontoken.Issuer[attackState]
			v      *sessiontoken.Verifier[attackState]
		}
		var replicas []replica
		for range 2 {
			list, err := revoke.NewList(revoke.Config{Store: store, SyncEvery: time.Second, MaxStale: 5 * time.Second})
			require.NoError(t, err)
			onIssuer, onVerifier := withList(list)
			replicas = append(replicas, replica{list, newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, onVerifier, cache)})
		}
		a, b := replicas[0], replicas[1]
		began := map[time.Time]bool{}
		for range 20 {
			old, c, err := a.issuer.Issue(t.Context(), "ada", attackState{})
			require.NoError(t, err)
			require.NoError(t, a.list.RevokeSubject(t.Context(), "ada"))
			fresh, d, err := b.issuer.Issue(t.Context(), "ada", attackState{}) // no time has passed
			require.NoError(t, err)
			require.True(t, d.Began.After(c.Began))
			require.False(t, began[d.Began])
			began[d.Began] = true
			for _, r := range replicas {
				// As a verifier that has heard of it.
				_, err = r.list.Begin(t.Context(), revoke.Question{Subject: "another"})
				require.NoError(t, err)
				require.ErrorIs(t, failure(r.v.Verify(t.Context(), old)), sessiontoken.ErrRevoked)
				require.ErrorIs(t, errorOf(r.issuer.Renew(t.Context(), old, always(attackState{}))), sessiontoken.ErrRevoked)
				require.NoError(t, failure(r.v.Verify(t.Context(), fresh)))
				next, n, err := r.issuer.Renew(t.Context(), fresh, always(attackState{}))
				require.NoError(t, err)
				require.Equal(t, d.Began, n.Began)
				require.NoError(t, failure(r.v.Verify(t.Context(), next)))
			}
			// A sign-in that began before the mark ends with it.
			require.ErrorIs(t, errorOf(b.issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", Earliest: c.Began}, attackState{})), sessiontoken.ErrRevoked)
		}
	})
}
