package refresh_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// proven is a family with all that a session can have.
func proven(f *refresh.Family) {
	f.AuthTime, f.ACR, f.AMR, f.Context = f.Began.Add(-time.Hour), "urn:example:gold", []string{"pwd", "otp"}, []byte("tenant 7\x00\xff")
	f.ActorSubject, f.ActorSessionID, f.ActorBegan = "admin", "admin-1", f.Began.Add(-time.Minute)
}

// What a family was started with is given to issue and back at every exchange,
// also to another replica; and in the list of devices.
func TestFamilyKeepsTheProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := new(refresh.MemStore), new(revocations)
		a, b := newManager(t, s, on(t, r)), newManager(t, s, on(t, r))
		read(t, a)
		read(t, b)
		time.Sleep(2*time.Hour + 1234567*time.Microsecond)
		want := refresh.Family{Subject: "ada", SessionID: "sid-1", ClientID: "app", Label: "phone", Began: time.Now()}
		proven(&want)
		token := start(t, a, proven)
		want.Began, want.ActorBegan = want.Began.UTC().Truncate(time.Millisecond), want.ActorBegan.UTC().Truncate(time.Millisecond)
		want.AuthTime = want.AuthTime.UTC()
		same := func(f refresh.Family) {
			t.Helper()
			f.ID, f.LastUsed, f.Ends = "", time.Time{}, time.Time{}
			require.Equal(t, want, f)
		}
		for range 50 {
			time.Sleep(time.Minute)
			next, f, err := b.Exchange(t.Context(), app(token), func(_ context.Context, f refresh.Family) error { same(f); return nil })
			require.NoError(t, err)
			same(f)
			list, err := a.List(t.Context(), "ada")
			require.NoError(t, err)
			require.Len(t, list, 1)
			same(list[0])
			found, err := a.Find(t.Context(), app(next))
			require.NoError(t, err)
			same(found)
			token, a, b = next, b, a
		}
	})
}

// A family that no issuer can have begun is refused, and nothing is stored.
func TestStartRefusesAProof(t *testing.T) {
	m := newManager(t, new(refresh.MemStore))
	read(t, m)
	long := strings.Repeat("x", 65)
	for _, c := range []struct {
		name, text string
		change     func(*refresh.Family)
	}{
		{"the most of all", "", func(f *refresh.Family) {
			f.ACR, f.AMR, f.Context = long[1:], strings.Split(strings.Repeat("m", 10), ""), make([]byte, 512)
		}},
		{"nothing", "", func(f *refresh.Family) { *f = refresh.Family{Subject: "ada", SessionID: "sid-1", Began: f.Began} }},
		{"a long ACR", "ACR", func(f *refresh.Family) { f.ACR = long }},
		{"an ACR that is not UTF-8", "ACR", func(f *refresh.Family) { f.ACR = "\xff" }},
		{"eleven in AMR", "AMR", func(f *refresh.Family) { f.AMR = strings.Split(strings.Repeat("m", 11), "") }},
		{"a long one in AMR", "AMR", func(f *refresh.Family) { f.AMR = []string{long} }},
		{"an empty one in AMR", "AMR", func(f *refresh.Family) { f.AMR = []string{""} }},
		{"one in AMR that is not UTF-8", "AMR", func(f *refresh.Family) { f.AMR = []string{"\xff"} }},
		{"a long context", "Context", func(f *refresh.Family) { f.Context = make([]byte, 513) }},
		{"no subject of the actor", "ActorSubject", func(f *refresh.Family) { f.ActorSubject = "" }},
		{"no session of the actor", "ActorSessionID", func(f *refresh.Family) { f.ActorSessionID = "" }},
		{"no beginning of the actor", "ActorBegan", func(f *refresh.Family) { f.ActorBegan = time.Time{} }},
		{"an actor of the future", "ActorBegan", func(f *refresh.Family) { f.ActorBegan = time.Now().Add(time.Hour) }},
		{"a beginning of no actor", "ActorBegan", func(f *refresh.Family) { f.ActorSubject, f.ActorSessionID = "", "" }},
		{"an actor whose session is over", "ActorBegan", func(f *refresh.Family) { f.ActorBegan = f.Began.Add(-25 * time.Hour) }},
		{"an actor that does not fit", "too large", func(f *refresh.Family) { f.ActorSubject = strings.Repeat("a", refresh.MaxData) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := refresh.Family{Subject: "ada", SessionID: "sid-1", Began: time.Now()}
			proven(&f)
			f.ActorBegan = f.Began
			c.change(&f)
			token, _, err := m.Start(t.Context(), f, "")
			if c.text == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.text)
			require.NotErrorIs(t, err, refresh.ErrInvalid)
			require.Empty(t, token)
		})
	}
}

// A family ends with its group, and with the session of its actor: it is exchanged
// no more, and gone from the list of devices. A sibling's goes on.
func TestFamilyEndsWithItsGroupOrActor(t *testing.T) {
	const group = "AAAAAAAAAAAAAAAA"
	for _, c := range []struct {
		name   string
		revoke func(*revoke.List, context.Context) error
	}{
		{"group", func(l *revoke.List, ctx context.Context) error { return l.RevokeGroup(ctx, group) }},
		{"the actor's session", func(l *revoke.List, ctx context.Context) error { return l.RevokeSession(ctx, "admin-1") }},
		{"the actor everywhere", func(l *revoke.List, ctx context.Context) error { return l.RevokeSubject(ctx, "admin") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(refresh.MemStore)
				m := newManager(t, s)
				time.Sleep(2 * time.Hour)
				token := start(t, m, proven, session(group+".random"))
				sibling := start(t, m, session("BBBBBBBBBBBBBBBB.random"))
				time.Sleep(time.Minute)
				token, sibling = next(t, m, token), next(t, m, sibling)
				require.NoError(t, c.revoke(m.Config().Revocations, t.Context()))
				list, err := m.List(t.Context(), "ada")
				require.NoError(t, err)
				require.Len(t, list, 1)
				for range 2 {
					_, _, err := m.Exchange(t.Context(), app(token), func(context.Context, refresh.Family) error {
						t.Error("issued")
						return nil
					})
					require.ErrorIs(t, err, refresh.ErrInvalid)
				}
				require.Len(t, records(t, s), 1, "its record goes")
				next(t, m, sibling)
				f := refresh.Family{Subject: "ada", SessionID: "sid-2", Began: time.Now().Add(-time.Second)}
				proven(&f)
				f.SessionID = group + ".other"
				_, _, err = m.Start(t.Context(), f, "")
				require.ErrorIs(t, err, refresh.ErrInvalid, "none is begun")
			})
		})
	}
}

// The end of a family is that of its actor's session, if that comes first.
func TestFamilyEndsNoLaterThanItsActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, new(refresh.MemStore), func(c *refresh.Config) { c.MaxSession, c.IdleTimeout = 10*time.Hour, 10*time.Hour })
		time.Sleep(24 * time.Hour)
		for _, tt := range []struct {
			ago  time.Duration
			want time.Duration
		}{{time.Hour, 9 * time.Hour}, {9 * time.Hour, time.Hour}, {0, 10 * time.Hour}} {
			f := refresh.Family{Subject: "ada", SessionID: "sid", Began: time.Now(), ActorSubject: "admin", ActorSessionID: "a", ActorBegan: time.Now().Add(-tt.ago)}
			_, f, err := m.Start(t.Context(), f, "")
			require.NoError(t, err)
			require.Equal(t, tt.want, time.Until(f.Ends))
		}
	})
}
