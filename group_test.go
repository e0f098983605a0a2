package sessiontoken_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestGroupOf: a group is a digest of all three values, each with its length, so
// that no two triples are taken for each other.
func TestGroupOf(t *testing.T) {
	var b []byte
	for _, s := range []string{"oidc session", "https://login.example", "08a5019c-17e1-4977-8f42-65a12843ea02"} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	sum := sha256.Sum256(b)
	want := base64.RawURLEncoding.EncodeToString(sum[:12])
	require.Len(t, want, 16)
	require.Equal(t, sessiontoken.Group(want), sessiontoken.GroupOf("oidc session", "https://login.example", "08a5019c-17e1-4977-8f42-65a12843ea02"))
	require.Equal(t, sessiontoken.Group("_Cn80z-2Lj2vWNsM"), sessiontoken.GroupOf("sid", "https://login.example", "1"), "written in tokens: it never changes")

	seen := map[sessiontoken.Group]bool{}
	for _, c := range [][3]string{
		{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"a", "b", ""}, {"", "", ""}, {"", "", "abc"}, {"c", "b", "a"}, {"a", "b", "c\x00"},
		{"A", "b", "c"}, {"a", "b", strings.Repeat("c", 1000)}, {"a", "b", strings.Repeat("c", 1001)}, {"\xff", "b", "c"},
	} {
		g := sessiontoken.GroupOf(c[0], c[1], c[2])
		require.Regexp(t, `^[A-Za-z0-9_-]{16}$`, string(g))
		require.False(t, seen[g], "%q", c)
		seen[g] = true
	}
}

// TestGroupsAreAPartOfTheSessionID: in the order of Start, before the random part.
func TestGroupsAreAPartOfTheSessionID(t *testing.T) {
	source, list := staticSource(t, keys.EdDSA), &revocations{}
	onIssuer, onVerifier := withList(list)
	issuer := newIssuer[attackState](t, source, onIssuer)
	a, b := sessiontoken.GroupOf("sid", "i", "1"), sessiontoken.GroupOf("sub", "i", "2")
	for _, groups := range [][]sessiontoken.Group{nil, {}, {a}, {b, a}, {a, b, a, b}} {
		token, c, err := issuer.Begin(t.Context(), sessiontoken.Start{Subject: "user-1", Groups: groups}, attackState{})
		require.NoError(t, err)
		parts := strings.Split(c.SessionID, ".")
		require.Len(t, parts, len(groups)+1)
		for i, g := range groups {
			require.Equal(t, string(g), parts[i])
		}
		require.Regexp(t, `^[A-Za-z0-9_-]{22}$`, parts[len(groups)], "as random as without groups")
		require.Equal(t, c.SessionID, list.begun[len(list.begun)-1].SessionID, "the list is asked about its groups")
		read, err := newVerifier[attackState](t, source, onVerifier).Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, c.SessionID, read.SessionID)
		require.Equal(t, c.SessionID, list.asked.SessionID)
		q, err := issuer.Identify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, revoke.Question{SessionID: c.SessionID, Subject: "user-1", KeyID: c.KeyID, Began: c.Began}.Prepared(), q, "with the groups and the key")
	}
	calls := len(list.begun)
	for _, tt := range []struct {
		name   string
		groups []sessiontoken.Group
	}{
		{"five", []sessiontoken.Group{a, a, a, a, a}}, {"empty", []sessiontoken.Group{""}}, {"short", []sessiontoken.Group{a[1:]}}, {"long", []sessiontoken.Group{a + "A"}}, {"a dot", []sessiontoken.Group{a[1:] + "."}}, {"two in one", []sessiontoken.Group{a + "." + b}}, {"not base64url", []sessiontoken.Group{a[1:] + "+"}}, {"one good", []sessiontoken.Group{a, "x"}},
	} {
		err := errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "user-1", Groups: tt.groups}, attackState{}))
		require.ErrorContains(t, err, "Start.Groups", tt.name)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid, tt.name)
	}
	require.Len(t, list.begun, calls)
}

// realList is a list on a store, with sessions of 30 days.
func realList(t testing.TB, s revoke.Store) *revoke.List {
	t.Helper()
	list, err := revoke.NewList(revoke.Config{Store: s, MaxSession: 30 * 24 * time.Hour, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return list
}

func realManager(t testing.TB, list *revoke.List) *refresh.Manager {
	t.Helper()
	m, err := refresh.NewManager(refresh.Config{
		Store: new(refresh.MemStore), Secrets: [][]byte{bytes.Repeat([]byte{1}, 32)}, Revocations: list,
		MaxSession: 30 * 24 * time.Hour, IdleTimeout: 30 * 24 * time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return m
}

// device is a session with all that can keep it going: a token, what is on
// record, and a refresh token.
type device struct {
	token, refresh string
	claims         *sessiontoken.Claims[attackState]
}

func signIn(t testing.TB, issuer *sessiontoken.Issuer[attackState], m *refresh.Manager, s sessiontoken.Start) *device {
	t.Helper()
	s.Renewal = sessiontoken.Renewable
	d := new(device)
	var err error
	d.token, d.claims, err = issuer.Begin(t.Context(), s, attackState{})
	require.NoError(t, err)
	d.refresh, _, err = m.Start(t.Context(), familyOf(d.claims), "")
	require.NoError(t, err)
	return d
}

func familyOf(c *sessiontoken.Claims[attackState]) refresh.Family {
	f := refresh.Family{Subject: c.Subject, SessionID: c.SessionID, Began: c.Began, AuthTime: c.AuthTime, ACR: c.ACR(), AMR: c.AMR(), Context: c.Context()}
	if a := c.Actor(); a != nil {
		f.ActorSubject, f.ActorSessionID, f.ActorBegan = a.Subject, a.SessionID, a.Began
	}
	return f
}

func resumptionOf(f refresh.Family) sessiontoken.Resumption {
	r := sessiontoken.Resumption{SessionID: f.SessionID, Subject: f.Subject, Began: f.Began, AuthTime: f.AuthTime, ACR: f.ACR, AMR: f.AMR, Context: f.Context, Renewal: sessiontoken.Renewable}
	if f.ActorSubject != "" {
		r.Actor = &sessiontoken.Actor{Subject: f.ActorSubject, SessionID: f.ActorSessionID, Began: f.ActorBegan}
	}
	return r
}

// ways are all the ways in which a session can go on.
func (d *device) ways(t testing.TB, issuer *sessiontoken.Issuer[attackState], m *refresh.Manager, cold, warm *sessiontoken.Verifier[attackState]) map[string]func() error {
	return map[string]func() error{
		"Verify":         func() error { return failure(cold.Verify(t.Context(), d.token)) },
		"Verify, cached": func() error { return failure(warm.Verify(t.Context(), d.token)) },
		"Renew":          func() error { return errorOf(issuer.Renew(t.Context(), d.token, always(attackState{}))) },
		"Resume": func() error {
			return errorOf(issuer.Resume(t.Context(), resumptionOf(familyOf(d.claims)), always(attackState{})))
		},
		"refresh": func() error {
			next, _, err := m.Exchange(t.Context(), refresh.Presented{Token: d.refresh}, func(context.Context, refresh.Family) error { return nil })
			if err == nil {
				d.refresh = next
			}
			return err
		},
	}
}

// TestAfterAGroupsEnd: a session of a group that was revoked goes on in no way; one
// of another group does in all; and so does the next sign-in of the same group.
func TestAfterAGroupsEnd(t *testing.T) {
	for _, subject := range []string{"ada", "bob"} { // of the sibling
		t.Run("a sibling of "+subject, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
				list, other := realList(t, store), realList(t, store)
				onIssuer, onVerifier := withList(list)
				issuer, m := newIssuer[attackState](t, source, onIssuer), realManager(t, list)
				cold := newVerifier[attackState](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = -1 })
				warm := newVerifier[attackState](t, source, onVerifier)
				provider, another := sessiontoken.GroupOf("sid", "https://login.example", "1"), sessiontoken.GroupOf("sid", "https://login.example", "2")
				account := sessiontoken.GroupOf("sub", "https://login.example", "ada")
				holds := func(d *device, want error) {
					t.Helper()
					for name, way := range d.ways(t, issuer, m, cold, warm) {
						err := way()
						if want != nil && name == "refresh" {
							require.ErrorIs(t, err, refresh.ErrInvalid)
							continue
						}
						require.ErrorIs(t, err, want, name)
					}
				}
				start := func(subject string, groups ...sessiontoken.Group) *device {
					t.Helper()
					return signIn(t, issuer, m, sessiontoken.Start{Subject: subject, Groups: groups})
				}
				ended, sibling, plain := start("ada", provider, account), start(subject, another), start("ada")
				for _, d := range []*device{ended, sibling, plain} {
					holds(d, nil)
				}
				earliest := ended.claims.Began
				require.NoError(t, list.RevokeGroup(t.Context(), string(provider)))
				holds(ended, sessiontoken.ErrRevoked)
				holds(sibling, nil)
				holds(plain, nil)

				next := start("ada", provider, account) // no time has passed
				holds(next, nil)
				holds(ended, sessiontoken.ErrRevoked)
				// A login that began before the end of the group is begun again.
				err := errorOf(issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", Groups: []sessiontoken.Group{account, provider}, Earliest: earliest}, attackState{}))
				require.ErrorIs(t, err, sessiontoken.ErrRevoked)

				// The end of another of its groups, at another replica.
				require.NoError(t, other.RevokeGroup(t.Context(), string(account)))
				last := start("ada", provider, account)
				holds(next, sessiontoken.ErrRevoked)
				holds(last, nil)
				holds(sibling, nil)
				holds(plain, nil)
			})
		})
	}
}

// TestGroupOwed: while the end of a group is not acknowledged, its sessions are
// neither live nor revoked.
func TestGroupOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := staticSource(t, keys.EdDSA), new(unwritable)
		list := realList(t, store)
		onIssuer, onVerifier := withList(list)
		issuer, m := newIssuer[attackState](t, source, onIssuer), realManager(t, list)
		cold := newVerifier[attackState](t, source, onVerifier, func(c *sessiontoken.VerifierConfig) { c.CacheBytes = -1 })
		warm := newVerifier[attackState](t, source, onVerifier)
		group := sessiontoken.GroupOf("sid", "https://login.example", "1")
		d := signIn(t, issuer, m, sessiontoken.Start{Subject: "ada", Groups: []sessiontoken.Group{group}})
		require.NoError(t, failure(warm.Verify(t.Context(), d.token)))
		store.down.Store(true)
		require.ErrorIs(t, list.RevokeGroup(t.Context(), string(group)), errBoom)
		for name, way := range d.ways(t, issuer, m, cold, warm) {
			err := way()
			require.ErrorIs(t, err, revoke.ErrOwed, name)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid, name)
		}
		store.down.Store(false)
		require.NoError(t, list.RevokeGroup(t.Context(), string(group)))
		require.ErrorIs(t, failure(warm.Verify(t.Context(), d.token)), sessiontoken.ErrRevoked)
	})
}

// unwritable is a store whose writes can fail.
type unwritable struct {
	revoke.MemStore
	down atomic.Bool
}

func (u *unwritable) Append(ctx context.Context, entries ...revoke.Entry) error {
	if u.down.Load() {
		return errBoom
	}
	return u.MemStore.Append(ctx, entries...)
}
