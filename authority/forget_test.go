package authority_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// TestForget: after a person was forgotten on one replica, no session and no
// token of theirs is accepted on any, the store has no family of theirs, and a
// later sign-in is a new session.
func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := authority.Memory()
		a, b := newReplica(t, store), newReplica(t, store)
		a.run(t)
		b.run(t)
		time.Sleep(2 * time.Second)
		user, app := browser{}, a.native(t)
		require.Equal(t, 200, user.status(b, "POST", "/sign-in"))
		require.Equal(t, 200, user.status(a, "GET", "/page"))
		list, err := a.Refresh().List(t.Context(), "ada")
		require.NoError(t, err)
		require.Len(t, list, 2)
		time.Sleep(time.Second)

		require.NoError(t, a.Forget(t.Context(), "ada"))
		require.NoError(t, b.Forget(t.Context(), "ada"), "repeating is no error")
		records, err := store.List(t.Context(), issuer, "ada")
		require.NoError(t, err)
		require.Empty(t, records)
		time.Sleep(a.knownWithin())
		for _, r := range []*replica{a, b} {
			require.Equal(t, 401, user.clone().status(r, "GET", "/page"))
			require.Equal(t, 401, user.clone().status(r, "POST", "/session/refresh", "Sec-Fetch-Site", "same-origin"))
			require.Equal(t, 401, r.status(bearer("/page", app.AccessToken)))
			require.Equal(t, 400, r.status(refreshRequest(app.RefreshToken)))
		}
		later := browser{}
		require.Equal(t, 200, later.status(a, "POST", "/sign-in"))
		require.Equal(t, 200, later.status(b, "GET", "/page"))
		require.ErrorContains(t, a.Forget(t.Context(), ""), "subject is required")
	})
}

// createHook is a store at whose Create a test can act.
type createHook struct {
	*network
	before atomic.Pointer[func()]
}

func (c *createHook) Create(ctx context.Context, r refresh.Record) error {
	if f := c.before.Swap(nil); f != nil {
		(*f)()
	}
	return c.network.Create(ctx, r)
}

// TestForgetDuringASignIn: a sign-in that is about to write its family while
// another replica forgets the person is refused, sets no cookie, and leaves
// nothing.
func TestForgetDuringASignIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &createHook{network: newNetwork()}
		a, b := newReplica(t, store, with(secret(1))), newReplica(t, store, with(secret(1)))
		time.Sleep(2 * time.Second)
		require.Equal(t, 200, browser{}.status(b, "POST", "/sign-in"))
		forget := func() { require.NoError(t, a.Forget(t.Context(), "ada")) }
		for _, path := range []string{"/sign-in", "/native"} {
			time.Sleep(time.Second)
			store.before.Store(&forget)
			user := browser{}
			require.Equal(t, 401, user.status(b, "POST", path))
			require.Nil(t, store.before.Load())
			require.Empty(t, user)
			records, err := store.List(t.Context(), issuer, "ada")
			require.NoError(t, err)
			require.Empty(t, records)
		}
	})
}

// TestForgetWithoutAStore: while the store cannot be written, Forget says that
// nothing is erased; the person's sessions are refused here. Repeated, it ends.
func TestForgetWithoutAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := newReplica(t, n, with(secret(1)))
		r.run(t)
		time.Sleep(2 * time.Second)
		user := browser{}
		require.Equal(t, 200, user.status(r, "POST", "/sign-in"))
		time.Sleep(time.Second)
		n.readOnly.Store(true)
		err := r.Forget(t.Context(), "ada")
		require.ErrorIs(t, err, errDown)
		require.ErrorContains(t, err, "nothing is erased yet")
		require.NotContains(t, err.Error(), "ada")
		require.Equal(t, 503, user.clone().status(r, "GET", "/page"))
		n.readOnly.Store(false)
		time.Sleep(10 * time.Second)
		require.NoError(t, r.Forget(t.Context(), "ada"))
		require.Equal(t, 401, user.clone().status(r, "GET", "/page"))
		records, err := n.List(t.Context(), issuer, "ada")
		require.NoError(t, err)
		require.Empty(t, records)
	})
}
