package authority_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// recorder keeps the events that it gets.
type recorder struct {
	mu   sync.Mutex
	list []event.Event
}

func (r *recorder) add(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e)
}

// take returns the events since the last call.
func (r *recorder) take() []event.Event {
	synctest.Wait() // those of the ring come from goroutines of their own
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

func (r *recorder) record(c *authority.Config[state]) { c.OnEvent = r.add }

// hashOf is how events name a subject or a session.
func hashOf(s revoke.Scope, value string) string {
	d := s.Digest(value)
	return hex.EncodeToString(d[:])
}

// TestEvents: each kind of event is sent once for what it reports, with names
// that are hashes, in the order in which things happen.
func TestEvents(t *testing.T) {
	for _, insecure := range []bool{false, true} {
		t.Run(fmt.Sprintf("insecure names %v", insecure), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				name := hashOf
				if insecure {
					name = func(_ revoke.Scope, value string) string { return value }
				}
				subject := func(s string) string { return name(revoke.Subject, s) }
				var rec recorder
				r := newReplica(t, authority.Memory(), rec.record, func(c *authority.Config[state]) { c.InsecureEventNames = insecure })
				r.run(t)
				time.Sleep(2 * time.Second)
				require.Empty(t, rec.take(), "the first key is no rotation")

				// Begun and renewed.
				b := browser{}
				require.Equal(t, 200, b.status(r, "POST", "/sign-in"))
				claims, err := r.Verifier().Verify(t.Context(), b[cookieName])
				require.NoError(t, err)
				session := name(revoke.Session, claims.SessionID)
				require.Equal(t, []event.Event{{Kind: event.Begun, Subject: subject("ada"), Session: session}}, rec.take())
				require.Equal(t, 204, b.status(r, "POST", "/renew"))
				require.Equal(t, []event.Event{{Kind: event.Renewed, Reason: "token", Subject: subject("ada"), Session: session}}, rec.take())
				require.Equal(t, 204, b.status(r, "POST", "/session/refresh", "Sec-Fetch-Site", "same-origin"))
				require.Equal(t, []event.Event{{Kind: event.Renewed, Reason: "refresh", Subject: subject("ada"), Session: session}}, rec.take())

				// A request without a credential is none, and neither is a hit.
				require.Equal(t, 401, browser{}.status(r, "GET", "/page"))
				require.Equal(t, 200, b.status(r, "GET", "/page"))
				require.Empty(t, rec.take())
				require.Equal(t, 401, r.status(bearer("/page", "not.a.token")))
				require.Equal(t, []event.Event{{Kind: event.Refused, Reason: "malformed"}}, rec.take())
				require.Equal(t, 403, b.status(r, "POST", "/session/sign-out", "Origin", "https://evil.example"))
				require.Equal(t, []event.Event{{Kind: event.Refused, Reason: "cross_origin"}}, rec.take())

				// Revoked, and refused since.
				old := b.clone()
				require.Equal(t, 200, b.status(r, "POST", "/session/sign-out"))
				require.Equal(t, []event.Event{{Kind: event.Revoked, Reason: "session", Session: session}}, rec.take())
				require.Equal(t, 401, old.clone().status(r, "GET", "/page"))
				require.Equal(t, []event.Event{{Kind: event.Refused, Reason: "revoked"}}, rec.take())
				require.Equal(t, 200, old.clone().status(r, "POST", "/session/sign-out"))
				require.Empty(t, rec.take(), "it was revoked before")

				// The other scopes.
				list := r.Revocations()
				require.NoError(t, list.RevokeSubject(t.Context(), "ada"))
				require.NoError(t, list.RevokeOthers(t.Context(), "ada", "s-1"))
				require.NoError(t, list.RevokeGroup(t.Context(), string(adminGroup)))
				require.NoError(t, list.RevokeAll(t.Context(), time.Now().Add(-time.Hour)))
				require.NoError(t, list.Changed(t.Context(), "bob"))
				require.Equal(t, []event.Event{
					{Kind: event.Revoked, Reason: "subject", Subject: subject("ada")},
					{Kind: event.Revoked, Reason: "others", Subject: subject("ada"), Session: name(revoke.Session, "s-1")},
					{Kind: event.Revoked, Reason: "group"},
					{Kind: event.Revoked, Reason: "all"},
					{Kind: event.Changed, Subject: subject("bob")},
				}, rec.take())

				// A refresh token that is used twice.
				time.Sleep(time.Second)
				first := r.native(t)
				c, err := r.Verifier().Verify(t.Context(), first.AccessToken)
				require.NoError(t, err)
				session = name(revoke.Session, c.SessionID)
				second := tokensOf(t, r.do(refreshRequest(first.RefreshToken)))
				_ = tokensOf(t, r.do(refreshRequest(second.RefreshToken)))
				_ = rec.take()
				require.Equal(t, 400, r.status(refreshRequest(first.RefreshToken)))
				require.Equal(t, []event.Event{
					{Kind: event.Revoked, Reason: "session", Session: session},
					{Kind: event.RefreshReused, Subject: subject("ada"), Session: session},
					{Kind: event.Refused, Reason: "reused"},
				}, rec.take())

				// Keys.
				kid := c.KeyID
				require.NoError(t, r.RevokeKeys(t.Context(), kid))
				got := rec.take()
				require.Contains(t, got, event.Event{Kind: event.KeyRevoked, Reason: "list", KeyID: kid})
				require.Contains(t, got, event.Event{Kind: event.KeyRevoked, Reason: "ring", KeyID: kid})
				current := r.Ring().Status().Keys[0].KeyID
				require.Contains(t, got, event.Event{Kind: event.KeyRotated, KeyID: current})
				require.Len(t, got, 3)
			})
		})
	}
}

// TestEventsOfActing: the event of a session in which another acts names both.
func TestEventsOfActing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		a, _, admin := twoOffices(t, rec.record)
		_ = rec.take()
		require.Equal(t, 200, admin.status(a.replica, "POST", "/session/act"))
		c, err := a.Verifier().Verify(t.Context(), admin[cookieName])
		require.NoError(t, err)
		require.Equal(t, event.Event{
			Kind: event.Begun, Subject: hashOf(revoke.Subject, "ada"), Actor: hashOf(revoke.Subject, "root"), Session: hashOf(revoke.Session, c.SessionID),
		}, rec.take()[0])
	})
}

// TestEventsOfOtherReplicas: a rotation and a revoked key are events of every
// replica; sessions are those of the replica that was asked.
func TestEventsOfOtherReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := authority.Memory()
		var rec recorder
		a, b := newReplica(t, store), newReplica(t, store, rec.record)
		a.run(t)
		b.run(t)
		time.Sleep(2 * time.Minute)
		require.Empty(t, rec.take())
		kid := a.Ring().Status().Keys[0].KeyID
		require.NoError(t, a.Revocations().RevokeSubject(t.Context(), "ada"))
		require.NoError(t, a.RevokeKeys(t.Context(), kid))
		time.Sleep(2 * time.Minute)
		require.ElementsMatch(t, []event.Event{
			{Kind: event.KeyRevoked, Reason: "ring", KeyID: kid},
			{Kind: event.KeyRotated, KeyID: a.Ring().Status().Keys[0].KeyID},
		}, rec.take())
	})
}

// TestEventOfAFailedRevocation: while the store is down a sign-out is an event
// that says so.
func TestEventOfAFailedRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var rec recorder
		r := newReplica(t, n, with(secret(1)), rec.record)
		r.run(t)
		time.Sleep(2 * time.Second)
		n.readOnly.Store(true)
		require.Error(t, r.Revocations().RevokeSubject(t.Context(), "ada"))
		require.Error(t, r.Revocations().Changed(t.Context(), "bob"))
		require.Equal(t, []event.Event{
			{Kind: event.Revoked, Reason: "subject", Subject: hashOf(revoke.Subject, "ada"), Owed: true},
			{Kind: event.Changed, Subject: hashOf(revoke.Subject, "bob"), Owed: true},
		}, rec.take())
	})
}

// TestEventNearBudget: a token over 90 % of its budget is an event with its
// size.
func TestEventNearBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		r := newReplica(t, authority.Memory(), rec.record)
		limit := r.Issuer().Config().MaxBytes
		size, err := r.Issuer().Size(t.Context(), "ada", state{})
		require.NoError(t, err)
		large := state{Name: strings.Repeat("x", (limit-size.Bytes)*3/4-20)} // base64url makes 4 of 3
		token, c, err := r.Issuer().Issue(t.Context(), "ada", large)
		require.NoError(t, err)
		require.Greater(t, len(token), limit*9/10)
		names := event.Event{Subject: hashOf(revoke.Subject, "ada"), Session: hashOf(revoke.Session, c.SessionID)}
		near, begun := names, names
		near.Kind, near.Bytes, near.Limit = event.NearBudget, len(token), limit
		begun.Kind = event.Begun
		require.Equal(t, []event.Event{near, begun}, rec.take())
	})
}

// TestEventsHoldNoCredential: no event holds a token, a cookie, a binder, a
// name of a person or a secret, however it is printed.
func TestEventsHoldNoCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		var mu sync.Mutex
		l := slog.New(slog.NewJSONHandler(&text, nil))
		r := newReplica(t, authority.Memory(), func(c *authority.Config[state]) {
			c.OnEvent = func(_ context.Context, e event.Event) {
				mu.Lock()
				defer mu.Unlock()
				l.Info("session", "event", e)
				_, _ = fmt.Fprintf(&text, "%v %+v %#v\n", e, e, e)
			}
		})
		r.run(t)
		time.Sleep(2 * time.Second)
		b := browser{}
		require.Equal(t, 200, b.status(r, "POST", "/sign-in"))
		signedIn := b.clone()
		require.Equal(t, 204, b.status(r, "POST", "/renew"))
		require.Equal(t, 204, b.status(r, "POST", "/session/refresh", "Sec-Fetch-Site", "same-origin"))
		app := r.native(t)
		next := tokensOf(t, r.do(refreshRequest(app.RefreshToken)))
		require.Equal(t, 401, r.status(bearer("/page", app.AccessToken+"x")))
		require.Equal(t, 200, b.status(r, "POST", "/session/sign-out"))
		synctest.Wait()
		hidden := []string{"ada", "Ada", app.AccessToken, app.RefreshToken, next.AccessToken, next.RefreshToken}
		for _, cookies := range []browser{signedIn, b} {
			for _, value := range cookies {
				hidden = append(hidden, value)
			}
		}
		c, err := r.Verifier().Verify(t.Context(), next.AccessToken)
		require.NoError(t, err)
		hidden = append(hidden, c.SessionID, c.TokenID)
		require.Contains(t, text.String(), `"kind":"begun"`)
		for _, h := range hidden {
			require.NotEmpty(t, h)
			require.NotContains(t, text.String(), h)
		}
	})
}

// TestEventsThatPanic: a function that panics at every event changes nothing of
// what a site does, on the way of a request or in the background.
func TestEventsThatPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		r := newReplica(t, authority.Memory(), func(c *authority.Config[state]) {
			c.OnEvent = func(context.Context, event.Event) { panic("of the application") }
			c.Logger = slog.New(slog.NewTextHandler(&text, nil))
		})
		r.run(t)
		time.Sleep(2 * time.Second)
		b := browser{}
		require.Equal(t, 200, b.status(r, "POST", "/sign-in"))
		require.Equal(t, 200, b.status(r, "GET", "/page"))
		require.Equal(t, 204, b.status(r, "POST", "/renew"))
		require.Equal(t, 204, b.status(r, "POST", "/session/refresh", "Sec-Fetch-Site", "same-origin"))
		require.NoError(t, r.RevokeKeys(t.Context(), r.Ring().Status().Keys[0].KeyID))
		require.Equal(t, 401, b.clone().status(r, "GET", "/page"))
		b = browser{}
		require.Equal(t, 200, b.status(r, "POST", "/sign-in"))
		old := b.clone()
		require.Equal(t, 200, b.status(r, "POST", "/session/sign-out"))
		require.Equal(t, 401, old.status(r, "GET", "/page"))
		synctest.Wait()
		require.Contains(t, text.String(), "event_panic")
		require.NotContains(t, text.String(), "of the application")
	})
}

// TestEventsThatHang: a function that never returns from the events of keys
// keeps no reading of the ring, and no request, from going on.
func TestEventsThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		r := newReplica(t, authority.Memory(), func(c *authority.Config[state]) {
			c.OnEvent = func(_ context.Context, e event.Event) {
				if e.Kind == event.KeyRotated || e.Kind == event.KeyRevoked && e.Reason == "ring" {
					<-release
				}
			}
		})
		r.run(t)
		time.Sleep(2 * time.Second)
		require.NoError(t, r.RevokeKeys(t.Context(), r.Ring().Status().Keys[0].KeyID))
		time.Sleep(13 * time.Hour) // MaxStale of the keys is 12 h
		status, h := r.ready(t)
		require.Equal(t, 200, status, h)
		require.Equal(t, 200, browser{}.status(r, "POST", "/sign-in"))
	})
}

// TestEventsOfAConnection: a connection that outlives its token is renewed, and
// that is an event.
func TestEventsOfAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec recorder
		r := newReplica(t, authority.Memory(), rec.record)
		r.run(t)
		time.Sleep(2 * time.Second)
		_, c, err := r.Issuer().Begin(t.Context(), sessiontoken.Start{Subject: "ada", Renewal: sessiontoken.Renewable}, state{})
		require.NoError(t, err)
		l, err := r.Sessions().Live(t.Context(), c, sessionhttp.LiveOptions{})
		require.NoError(t, err)
		defer l.Stop()
		_ = rec.take()
		time.Sleep(r.Issuer().Config().TTL)
		require.NoError(t, l.Err())
		require.Contains(t, rec.take(), event.Event{
			Kind: event.Renewed, Reason: "connection", Subject: hashOf(revoke.Subject, "ada"), Session: hashOf(revoke.Session, c.SessionID),
		})
	})
}
