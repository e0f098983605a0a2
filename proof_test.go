package sessiontoken_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestProofIsWritten: how the user proved who they are is in the token, in one
// order; what the server keeps is not.
func TestProofIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.ES256)
		issuer := newIssuer[attackState](t, source)
		now := time.Now().UTC()
		amr, secret := []string{"pwd", "otp"}, []byte("tenant 7")
		start := sessiontoken.Start{
			Subject: "ada", AuthTime: now.Add(-time.Hour), ACR: "urn:example:gold", AMR: amr, Context: secret,
			Actor: &sessiontoken.Actor{Subject: "admin", SessionID: "admin-1", Began: now.Add(-time.Minute + 1500*time.Microsecond)},
		}
		token, c, err := issuer.Begin(t.Context(), start, attackState{Name: "Ada"})
		require.NoError(t, err)
		require.Contains(t, payloadOf(t, token), `,"begun":946684800000,"auth_time":946681200,"acr":"urn:example:gold","amr":["pwd","otp"],"act":{"sub":"admin","sid":"admin-1","begun":946684740001},"state":{`)
		require.Equal(t, []byte("tenant 7"), c.Context())
		require.NotContains(t, payloadOf(t, token), "tenant")
		require.Equal(t, &sessiontoken.Actor{Subject: "admin", SessionID: "admin-1", Began: now.Add(-time.Minute + time.Millisecond)}, c.Actor())

		read, err := newVerifier[attackState](t, source).Verify(t.Context(), token)
		require.NoError(t, err)
		require.Nil(t, read.Context(), "never from a token")
		amr[0], secret[0] = "x", 'x'
		require.Equal(t, []string{"pwd", "otp"}, c.AMR(), "the claims are the caller's own")
		require.Equal(t, []byte("tenant 7"), c.Context(), "the claims are the caller's own")

		start.AMR, start.Context = []string{"pwd", "otp"}, nil
		token, c, err = issuer.Begin(t.Context(), start, attackState{Name: "Ada", Roles: []string{}})
		require.NoError(t, err)
		read, err = newVerifier[attackState](t, source).Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, c, read)

		for _, none := range []sessiontoken.Start{{Subject: "ada"}, {Subject: "ada", AMR: []string{}, Context: []byte{}}} {
			token, c, err = issuer.Begin(t.Context(), none, attackState{})
			require.NoError(t, err)
			for _, name := range []string{"auth_time", "acr", "amr", "act"} {
				require.NotContains(t, payloadOf(t, token), `"`+name+`"`)
			}
			require.Zero(t, c.AuthTime)
			require.Nil(t, c.AMR())
			require.Nil(t, c.Actor())
			read, err = newVerifier[attackState](t, source).Verify(t.Context(), token)
			require.NoError(t, err)
			require.True(t, read.AuthTime.IsZero())
			require.Nil(t, read.AMR())
			require.Nil(t, read.Actor())
		}
	})
}

// TestProofRefuses: what no verifier takes is not signed, and is no token's fault.
func TestProofRefuses(t *testing.T) {
	issuer := newIssuer[attackState](t, staticSource(t, keys.EdDSA))
	began := time.Now().Add(-time.Minute)
	good := sessiontoken.Actor{Subject: "admin", SessionID: "s", Began: began}
	actor := func(change func(*sessiontoken.Actor)) *sessiontoken.Actor {
		a := good
		change(&a)
		return &a
	}
	ten := strings.Split(strings.Repeat("m", 10), "")
	long := strings.Repeat("x", 65)
	for _, c := range []struct {
		name, text string
		acr        string
		amr        []string
		actor      *sessiontoken.Actor
	}{
		{"the most of all", "", long[1:], append(ten[:9:9], long[1:]), &good},
		{"a long ACR", ".ACR", long, nil, nil},
		{"an ACR of 33 letters of two bytes", ".ACR", strings.Repeat("é", 33), nil, nil},
		{"an ACR that is not UTF-8", ".ACR", "\xff", nil, nil},
		{"eleven in AMR", ".AMR", "", append(ten[:10:10], "m"), nil},
		{"an empty one in AMR", ".AMR", "", []string{"pwd", ""}, nil},
		{"a long one in AMR", ".AMR", "", []string{"pwd", long}, nil},
		{"one in AMR that is not UTF-8", ".AMR", "", []string{"\xff"}, nil},
		{"an actor without a subject", ".Actor", "", nil, actor(func(a *sessiontoken.Actor) { a.Subject = "" })},
		{"an actor without a session", ".Actor", "", nil, actor(func(a *sessiontoken.Actor) { a.SessionID = "" })},
		{"an actor not in UTF-8", ".Actor", "", nil, actor(func(a *sessiontoken.Actor) { a.Subject = "\xff" })},
		{"an actor's session not in UTF-8", ".Actor", "", nil, actor(func(a *sessiontoken.Actor) { a.SessionID = "\xff" })},
		{"an actor without a beginning", ".Actor.Began", "", nil, actor(func(a *sessiontoken.Actor) { a.Began = time.Time{} })},
		{"an actor of 1970", ".Actor.Began", "", nil, actor(func(a *sessiontoken.Actor) { a.Began = time.UnixMilli(0) })},
		{"an actor of the future", ".Actor.Began", "", nil, actor(func(a *sessiontoken.Actor) { a.Began = time.Now().Add(time.Hour) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "u", ACR: c.acr, AMR: c.amr, Actor: c.actor}, attackState{}))
			resumed := errorOf(issuer.Resume(t.Context(), sessiontoken.Resumption{Subject: "u", SessionID: "s", Began: began, ACR: c.acr, AMR: c.amr, Actor: c.actor},
				func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
					require.Empty(t, c.text, "load was called")
					return attackState{}, nil
				}))
			if c.text == "" {
				require.NoError(t, begun)
				require.NoError(t, resumed)
				return
			}
			require.ErrorContains(t, begun, "Start"+c.text)
			require.ErrorContains(t, resumed, "Resumption"+c.text)
			require.NotErrorIs(t, begun, sessiontoken.ErrInvalid)
			require.NotErrorIs(t, resumed, sessiontoken.ErrInvalid)
		})
	}
	require.NoError(t, errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "u", Context: make([]byte, 512)}, attackState{})))
	require.ErrorContains(t, errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "u", Context: make([]byte, 513)}, attackState{})), "Start.Context")
}

// TestActor: a session in which one acts for another goes on while both sessions
// are live, and ends with the actor's.
func TestActor(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		for _, c := range []struct {
			name string
			end  func(*revoke.List, *device) error
		}{
			{"the actor's session", func(l *revoke.List, admin *device) error { return l.RevokeSession(t.Context(), admin.claims.SessionID) }},
			{"the actor everywhere", func(l *revoke.List, admin *device) error { return l.RevokeSubject(t.Context(), "admin") }},
			{"the actor's group", func(l *revoke.List, admin *device) error {
				return l.RevokeGroup(t.Context(), admin.claims.SessionID[:16])
			}},
			{"everything", func(l *revoke.List, admin *device) error { return l.RevokeAll(t.Context(), admin.claims.Began) }},
		} {
			source := staticSource(t, keys.EdDSA)
			list := realList(t, new(revoke.MemStore))
			onIssuer, onVerifier := withList(list)
			issuer, m := newIssuer[attackState](t, source, onIssuer), realManager(t, list)
			cold := newVerifier[attackState](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = -1 })
			warm := newVerifier[attackState](t, source, onVerifier, cache)
			admin := signIn(t, issuer, m, sessiontoken.Start{Subject: "admin", Groups: []sessiontoken.Group{sessiontoken.GroupOf("sid", "i", "1")}})
			time.Sleep(time.Minute)
			as := &sessiontoken.Actor{Subject: "admin", SessionID: admin.claims.SessionID, Began: admin.claims.Began}
			acting := signIn(t, issuer, m, sessiontoken.Start{Subject: "ada", Actor: as})
			own := signIn(t, issuer, m, sessiontoken.Start{Subject: "ada"})
			for range 2 {
				for name, way := range acting.ways(t, issuer, m, cold, warm) {
					require.NoError(t, way(), "%s: %s", c.name, name)
				}
			}
			require.NoError(t, c.end(list, admin), c.name)
			for name, way := range acting.ways(t, issuer, m, cold, warm) {
				err := way()
				if name == "refresh" {
					require.ErrorIs(t, err, refresh.ErrInvalid, c.name)
					continue
				}
				require.ErrorIs(t, err, sessiontoken.ErrRevoked, "%s: %s", c.name, name)
			}
			require.ErrorIs(t, errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", Actor: as}, attackState{})), sessiontoken.ErrRevoked, c.name)
			for name, way := range own.ways(t, issuer, m, cold, warm) {
				require.NoError(t, way(), "%s: %s of the user's own", c.name, name)
			}
			// The end of the session itself leaves the actor's alone.
			require.NoError(t, list.RevokeSubject(t.Context(), "ada"))
			require.ErrorIs(t, failure(warm.Verify(t.Context(), own.token)), sessiontoken.ErrRevoked)
		}
	})
}

// TestActorIsAskedAbout: if the list cannot tell about the actor, the token is not
// accepted, and that is not its fault.
func TestActorIsAskedAbout(t *testing.T) {
	source, list := staticSource(t, keys.EdDSA), &aboutActors{revocations: &revocations{}}
	onIssuer, onVerifier := withList(list)
	issuer := newIssuer[attackState](t, source, onIssuer)
	began := time.Now().Add(-time.Minute)
	start := sessiontoken.Start{Subject: "ada", Actor: &sessiontoken.Actor{Subject: "admin", SessionID: "s", Began: began}, Renewal: sessiontoken.Renewable}
	token, _, err := issuer.Begin(t.Context(), start, attackState{})
	require.NoError(t, err)
	require.Equal(t, 1, list.actors)
	v := newVerifier[attackState](t, source, onVerifier)
	for range 3 {
		require.NoError(t, failure(v.Verify(t.Context(), token)))
	}
	require.Equal(t, 4, list.actors, "at each hit too")
	require.Equal(t, "admin", list.last.Subject)
	require.Equal(t, "s", list.last.SessionID)
	require.Equal(t, began.UnixMilli(), list.last.Began.UnixMilli())
	require.NoError(t, errorOf(issuer.Renew(t.Context(), token, always(attackState{}))))
	require.Equal(t, 6, list.actors, "before and after load")
	list.fails = errBoom
	for _, err := range []error{
		failure(v.Verify(t.Context(), token)),
		errorOf(issuer.Renew(t.Context(), token, always(attackState{}))),
		errorOf(issuer.Begin(t.Context(), start, attackState{})),
	} {
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	}
}

// aboutActors is a list that answers about the session "s" by itself.
type aboutActors struct {
	*revocations
	actors int
	last   revoke.Question
	fails  error
}

func (a *aboutActors) Check(ctx context.Context, q *revoke.Question) error {
	if q.SessionID != "s" {
		return a.revocations.Check(ctx, q)
	}
	a.actors, a.last = a.actors+1, *q
	if a.fails != nil {
		return a.fails
	}
	return nil
}

// TestEndOfTheActorsSession: no token is valid beyond MaxSession after the actor's
// session began, however it was made.
func TestEndOfTheActorsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := realList(t, new(revoke.MemStore))
		issuer := newIssuer[attackState](t, staticSource(t, keys.EdDSA), func(c *sessiontoken.IssuerConfig) { c.Revocations, c.MaxSession = list, 10*time.Hour })
		m, err := refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)}, Revocations: list, MaxSession: 10 * time.Hour, IdleTimeout: 10 * time.Hour})
		require.NoError(t, err)
		admin := signIn(t, issuer, m, sessiontoken.Start{Subject: "admin"})
		end := admin.claims.Began.Add(10 * time.Hour)
		time.Sleep(9*time.Hour + 57*time.Minute)
		start := sessiontoken.Start{Subject: "ada", Actor: &sessiontoken.Actor{Subject: "admin", SessionID: admin.claims.SessionID, Began: admin.claims.Began}}
		d := signIn(t, issuer, m, start)
		f, err := m.Find(t.Context(), refresh.Presented{Token: d.refresh})
		require.NoError(t, err)
		require.Equal(t, end, f.Ends)
		require.Equal(t, end, d.claims.Expires)
		_, renewed, err := issuer.Renew(t.Context(), d.token, always(attackState{}))
		require.NoError(t, err)
		require.Equal(t, end, renewed.Expires)
		_, resumed, err := issuer.Resume(t.Context(), resumptionOf(f), always(attackState{}))
		require.NoError(t, err)
		require.Equal(t, end, resumed.Expires)
		time.Sleep(3 * time.Minute)
		require.ErrorIs(t, errorOf(issuer.Begin(t.Context(), start, attackState{})), sessiontoken.ErrExpired)
		require.ErrorIs(t, errorOf(issuer.Renew(t.Context(), d.token, always(attackState{}))), sessiontoken.ErrExpired)
		require.ErrorIs(t, errorOf(issuer.Resume(t.Context(), resumptionOf(f), always(attackState{}))), sessiontoken.ErrExpired)
		_, _, err = m.Exchange(t.Context(), refresh.Presented{Token: d.refresh}, func(context.Context, refresh.Family) error { return nil })
		require.ErrorIs(t, err, refresh.ErrExpired)
	})
}

// TestClaimsShareNothing: who changes the claims that they got changes those of no
// one else, whether the state can be copied or not.
func TestClaimsShareNothing(t *testing.T) {
	shareNothing(t, plainState{})
	shareNothing(t, map[string]int{})
}

func shareNothing[T any](t *testing.T, state T) {
	t.Helper()
	source := staticSource(t, keys.EdDSA)
	v := newVerifier[T](t, source)
	start := sessiontoken.Start{Subject: "ada", AMR: []string{"pwd", "otp"}, Actor: &sessiontoken.Actor{Subject: "admin", SessionID: "s", Began: time.Now().Add(-time.Hour)}}
	token, _, err := newIssuer[T](t, source).Begin(t.Context(), start, state)
	require.NoError(t, err)
	for range 5 {
		c, err := v.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, []string{"pwd", "otp"}, c.AMR())
		require.Equal(t, "admin", c.Actor().Subject)
		c.AMR()[0], c.Actor().Subject = "mfa", "root"
		_ = append(c.AMR()[:1], "hwk")
	}
	require.EqualValues(t, 4, v.Metrics()["cache_hits_total"])
}

// TestResumeLoads: load is given what is on record, without a token, and a state
// that it does not give is not signed.
func TestResumeLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, list := staticSource(t, keys.EdDSA), realList(t, new(revoke.MemStore))
		onIssuer, _ := withList(list)
		issuer := newIssuer[attackState](t, source, onIssuer)
		now, err := issuer.Now(t.Context())
		require.NoError(t, err)
		r := sessiontoken.Resumption{
			SessionID: "sid", Subject: "ada", Began: now, AuthTime: now.Add(-time.Minute), ACR: "aal2", AMR: []string{"pwd"}, Context: []byte("tenant 7"),
			Actor: &sessiontoken.Actor{Subject: "admin", SessionID: "s", Began: now}, Renewal: sessiontoken.Renewable,
		}
		calls := 0
		token, c, err := issuer.Resume(t.Context(), r, func(_ context.Context, record *sessiontoken.Claims[attackState]) (attackState, error) {
			calls++
			require.Equal(t, []any{"https://issuer.example", "ada", "", "sid", "", r.Began, r.AuthTime, time.Time{}, time.Time{}, true, attackState{}},
				[]any{record.Issuer, record.Subject, record.TokenID, record.SessionID, record.KeyID, record.Began, record.AuthTime, record.IssuedAt, record.Expires, record.Renewable, record.State})
			require.Equal(t, []any{"aal2", []string{"pwd"}, r.Actor, []byte("tenant 7")}, []any{record.ACR(), record.AMR(), record.Actor(), record.Context()})
			record.AMR()[0], record.Actor().Subject, record.Context()[0] = "x", "x", 'x'
			record.Subject, record.Began = "root", now.Add(time.Hour)
			return attackState{Name: "tenant 7"}, nil
		})
		require.NoError(t, err)
		require.Equal(t, 1, calls)
		require.Equal(t, []byte("tenant 7"), c.Context())
		require.Equal(t, []byte("tenant 7"), r.Context)
		require.NotContains(t, strings.Replace(payloadOf(t, token), `"name":"tenant 7"`, "", 1), "tenant")
		require.Equal(t, "ada", c.Subject)
		require.Equal(t, []string{"pwd"}, c.AMR())
		require.Equal(t, "admin", c.Actor().Subject)
		require.Equal(t, now, c.Began)
		_, err = newVerifier[attackState](t, source).Verify(t.Context(), token)
		require.NoError(t, err)

		err = errorOf(issuer.Resume(t.Context(), r, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			return attackState{}, errBoom
		}))
		require.ErrorIs(t, err, errBoom)
		require.Error(t, errorOf(issuer.Resume(t.Context(), r, nil)))
		err = errorOf(issuer.Resume(t.Context(), r, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			time.Sleep(10 * time.Minute)
			return attackState{}, nil
		}))
		require.Error(t, err, "the state is older than a token can be")
		err = errorOf(issuer.Resume(t.Context(), r, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			return attackState{}, list.RevokeSession(t.Context(), "sid")
		}))
		require.ErrorIs(t, err, sessiontoken.ErrRevoked, "revoked while load ran")
		never := func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			t.Error("load was called")
			return attackState{}, nil
		}
		require.ErrorIs(t, errorOf(issuer.Resume(t.Context(), r, never)), sessiontoken.ErrRevoked)
		r.SessionID, r.Began = "another", now.Add(-25*time.Hour)
		require.ErrorIs(t, errorOf(issuer.Resume(t.Context(), r, never)), sessiontoken.ErrExpired)
	})
}

// TestThousandRounds: a thousand renewals and as many refreshes change nothing of
// what a session is: when it began, how its user proved who they are, its groups,
// who acts, and what the server keeps of it.
func TestThousandRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		source, list := staticSource(t, keys.EdDSA), realList(t, new(revoke.MemStore))
		onIssuer, onVerifier := withList(list)
		issuer := newIssuer[attackState](t, source, onIssuer, func(c *sessiontoken.IssuerConfig) { c.MaxSession = 30 * 24 * time.Hour })
		m, v := realManager(t, list), newVerifier[attackState](t, source, onVerifier)
		time.Sleep(1234567 * time.Microsecond)
		admin := signIn(t, issuer, m, sessiontoken.Start{Subject: "admin"})
		time.Sleep(1234567 * time.Microsecond)
		d := signIn(t, issuer, m, sessiontoken.Start{
			Subject: "ada", AuthTime: time.Now().Add(-90 * time.Minute), ACR: "urn:example:gold", AMR: []string{"pwd", "otp"}, Context: []byte("tenant 7\x00\xff"),
			Groups: []sessiontoken.Group{sessiontoken.GroupOf("sid", "i", "1"), sessiontoken.GroupOf("sub", "i", "2")},
			Actor:  &sessiontoken.Actor{Subject: "admin", SessionID: admin.claims.SessionID, Began: admin.claims.Began},
		})
		first := *d.claims
		same := func(c *sessiontoken.Claims[attackState], context []byte) {
			t.Helper()
			require.Equal(t, first.Subject, c.Subject)
			require.Equal(t, first.SessionID, c.SessionID)
			require.Len(t, strings.Split(c.SessionID, "."), 3)
			require.Equal(t, first.Began, c.Began)
			require.Equal(t, first.AuthTime, c.AuthTime)
			require.Equal(t, first.ACR(), c.ACR())
			require.Equal(t, first.AMR(), c.AMR())
			require.Equal(t, first.Actor(), c.Actor())
			require.Equal(t, context, c.Context())
		}
		require.Len(t, first.AMR(), 2)
		require.NotNil(t, first.Actor())
		for range 1000 {
			time.Sleep(time.Duration(r.Int64N(int64(5 * time.Minute))))
			var c *sessiontoken.Claims[attackState]
			var err error
			d.token, c, err = issuer.Renew(t.Context(), d.token, func(_ context.Context, old *sessiontoken.Claims[attackState]) (attackState, error) {
				same(old, nil)
				return attackState{}, nil
			})
			require.NoError(t, err)
			same(c, nil)
			read, err := v.Verify(t.Context(), d.token)
			require.NoError(t, err)
			same(read, nil)
			d.refresh, _, err = m.Exchange(t.Context(), refresh.Presented{Token: d.refresh}, func(ctx context.Context, f refresh.Family) error {
				var err error
				d.token, c, err = issuer.Resume(ctx, resumptionOf(f), func(_ context.Context, record *sessiontoken.Claims[attackState]) (attackState, error) {
					same(record, first.Context())
					return attackState{}, nil
				})
				return err
			})
			require.NoError(t, err)
			same(c, first.Context())
			read, err = v.Verify(t.Context(), d.token)
			require.NoError(t, err)
			same(read, nil)
		}
	})
}

// TestMaxSessionCountsFromBegun: when the user proved who they are moves no end,
// and no revocation counts from it.
func TestMaxSessionCountsFromBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, list := staticSource(t, keys.EdDSA), realList(t, new(revoke.MemStore))
		onIssuer, onVerifier := withList(list)
		issuer, v := newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, onVerifier)
		mark := time.Now()
		require.NoError(t, list.RevokeSubject(t.Context(), "ada"))
		for _, tt := range []struct {
			name string
			auth time.Time
		}{{"long ago", mark.Add(-100 * 24 * time.Hour)}, {"not known", time.Time{}}, {"now", mark}} {
			token, c, err := issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", AuthTime: tt.auth, Renewal: sessiontoken.Renewable}, attackState{})
			require.NoError(t, err, tt.name)
			require.True(t, c.Began.After(mark), tt.name)
			require.Equal(t, c.IssuedAt.Add(5*time.Minute), c.Expires, tt.name)
			require.NoError(t, failure(v.Verify(t.Context(), token)), tt.name)
			require.NoError(t, errorOf(issuer.Renew(t.Context(), token, always(attackState{}))), tt.name)
		}
	})
}
