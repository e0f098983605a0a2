package sessiontoken_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestReload: the new claims are those of a token that is issued now, of the same
// session and the same key, and load is given a copy of the old ones.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, staticSource(t, keys.EdDSA), new(revoke.MemStore))
		o.read(t)
		token, _, err := o.issuer.Begin(t.Context(), sessiontoken.Start{
			Subject: "ada", AuthTime: time.Now(), ACR: "urn:two", AMR: []string{"pwd", "otp"}, Renewal: sessiontoken.Renewable,
		}, attackState{Name: "Ada", Roles: []string{"member"}})
		require.NoError(t, err)
		old, err := o.v.Verify(t.Context(), token)
		require.NoError(t, err)
		for range 3 {
			time.Sleep(time.Hour) // long past exp and IdleTimeout
			o.read(t)
			c, err := o.issuer.Reload(t.Context(), old, func(_ context.Context, given *sessiontoken.Claims[attackState]) (attackState, error) {
				require.Equal(t, old, given)
				given.State.Roles[0], given.AMR()[0], given.Subject = "admin", "none", "eve"
				return attackState{Roles: []string{"editor"}}, nil
			})
			require.NoError(t, err)
			want := *old
			want.State = attackState{Roles: []string{"editor"}}
			want.IssuedAt = time.Now().UTC().Truncate(time.Second)
			want.Expires = want.IssuedAt.Add(5 * time.Minute)
			require.Equal(t, &want, c)
			require.Equal(t, []string{"pwd", "otp"}, old.AMR())
			old = c
		}
		time.Sleep(time.Until(old.Began.Add(24*time.Hour - time.Minute)))
		o.read(t)
		c, err := o.issuer.Reload(t.Context(), old, always(attackState{}))
		require.NoError(t, err)
		require.Equal(t, old.Began.Add(24*time.Hour).Truncate(time.Second), c.Expires, "not beyond the end of the session")
		time.Sleep(time.Minute)
		o.read(t)
		_, err = o.issuer.Reload(t.Context(), old, never(t))
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
		require.Error(t, errorOfReload(o.issuer.Reload(t.Context(), nil, always(attackState{}))))
		require.Error(t, errorOfReload(o.issuer.Reload(t.Context(), old, nil)))
	})
}

func errorOfReload[T any](_ *sessiontoken.Claims[T], err error) error { return err }

// never is a load that must not be called.
func never(t *testing.T) func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
	return func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
		t.Error("load was called")
		return attackState{}, nil
	}
}

// TestReloadRevoked: a session that is revoked, of a key that is revoked or of
// whose actor's session is revoked is not reloaded, nor one that is revoked while
// load runs.
func TestReloadRevoked(t *testing.T) {
	for _, test := range []struct {
		name   string
		revoke func(ctx context.Context, o *office, c *sessiontoken.Claims[attackState]) error
	}{
		{"the session", func(ctx context.Context, o *office, c *sessiontoken.Claims[attackState]) error {
			return o.list.RevokeSession(ctx, c.SessionID)
		}},
		{"the subject", func(ctx context.Context, o *office, c *sessiontoken.Claims[attackState]) error {
			return o.list.RevokeSubject(ctx, c.Subject)
		}},
		{"the key", func(ctx context.Context, o *office, c *sessiontoken.Claims[attackState]) error {
			return o.list.RevokeKey(ctx, c.KeyID, time.Time{})
		}},
		{"the actor", func(ctx context.Context, o *office, c *sessiontoken.Claims[attackState]) error {
			return o.list.RevokeSession(ctx, c.Actor().SessionID)
		}},
	} {
		for _, when := range []string{"before", "while load runs"} {
			t.Run(test.name+", "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := new(revoke.MemStore)
					o := newOffice(t, staticSource(t, keys.EdDSA), store)
					o.read(t)
					_, staff, err := o.issuer.Issue(t.Context(), "eve", attackState{})
					require.NoError(t, err)
					token, _, err := o.issuer.Begin(t.Context(), sessiontoken.Start{
						Subject: "ada", Actor: &sessiontoken.Actor{Subject: "eve", SessionID: staff.SessionID, Began: staff.Began},
					}, attackState{})
					require.NoError(t, err)
					c, err := o.v.Verify(t.Context(), token)
					require.NoError(t, err)
					// Another key signs now.
					o = newOffice(t, staticSource(t, keys.EdDSA), store)
					o.read(t)
					c, err = o.issuer.Reload(t.Context(), c, always(attackState{}))
					require.NoError(t, err)
					load := func(ctx context.Context, _ *sessiontoken.Claims[attackState]) (attackState, error) {
						return attackState{}, test.revoke(ctx, o, c)
					}
					if when == "before" {
						require.NoError(t, test.revoke(t.Context(), o, c))
						load = never(t)
					}
					_, err = o.issuer.Reload(t.Context(), c, load)
					require.ErrorIs(t, err, sessiontoken.ErrRevoked)
				})
			})
		}
	}
}

// TestReloadChanged: the question of the claims knows the marks from before load
// began, and none that came later.
func TestReloadChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, staticSource(t, keys.EdDSA), new(revoke.MemStore))
		o.read(t)
		_, c, err := o.issuer.Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		stale := func() error { q := c.Question(); return o.list.Check(t.Context(), &q) }
		require.NoError(t, stale())
		for range 3 { // no time passes
			require.NoError(t, o.list.Changed(t.Context(), "ada"))
			require.Equal(t, revoke.ErrChanged, stale())
			c, err = o.issuer.Reload(t.Context(), c, always(attackState{}))
			require.NoError(t, err)
			require.NoError(t, stale())
		}
		c, err = o.issuer.Reload(t.Context(), c, func(ctx context.Context, _ *sessiontoken.Claims[attackState]) (attackState, error) {
			return attackState{}, o.list.Changed(ctx, "ada")
		})
		require.NoError(t, err)
		require.Equal(t, revoke.ErrChanged, stale())
		down := errors.New("down")
		_, err = o.issuer.Reload(t.Context(), c, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			return attackState{}, down
		})
		require.ErrorIs(t, err, down)
	})
}
