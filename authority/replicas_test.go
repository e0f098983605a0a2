package authority_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/storetest"
)

// pair are two replicas with Run on one store.
func pair(t *testing.T, store authority.Store, changes ...func(*cfg)) (a, b *replica) {
	t.Helper()
	a, b = newReplica(t, store, changes...), newReplica(t, store, changes...)
	a.run(t)
	b.run(t)
	time.Sleep(2 * time.Second)
	return a, b
}

// TestSignedOutEverywhere: who signs in at one replica is known at the other,
// and who signs out there is refused at the first within the list's bound; with
// cookies, with tokens, and with what is left of a browser's cookies.
func TestSignedOutEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, authority.Memory())
		user := browser{}
		require.Equal(t, 200, user.status(a, "POST", "/sign-in"))
		resp := user.ask(b, "GET", "/page")
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "Ada guest", body(t, resp))
		time.Sleep(5 * time.Minute)
		require.Equal(t, "Ada admin", body(t, user.ask(b, "GET", "/page")), "renewed, with what Load says")
		stolen := user.clone()
		require.Equal(t, 200, user.status(b, "POST", "/session/sign-out"))
		require.Empty(t, user)
		require.Equal(t, 401, stolen.status(b, "GET", "/page"))
		time.Sleep(a.knownWithin())
		require.Equal(t, 401, stolen.status(a, "GET", "/page"))
		require.Equal(t, 401, stolen.status(a, "POST", "/session/refresh"))
		require.Equal(t, 401, stolen.status(a, "POST", "/renew"))

		app := a.native(t)
		require.Equal(t, 200, b.status(bearer("/page", app.AccessToken)))
		app = tokensOf(t, b.do(refreshRequest(app.RefreshToken)))
		out := request("POST", "/session/sign-out", "Authorization", "Bearer "+app.AccessToken)
		require.Equal(t, 200, b.status(out))
		time.Sleep(a.knownWithin())
		require.Equal(t, 401, a.status(bearer("/page", app.AccessToken)))
		require.Equal(t, 400, a.status(refreshRequest(app.RefreshToken)))
	})
}

// TestRevokeKeys: a key that is revoked at one replica is refused at the other
// as soon as a session is, and is gone from the ring everywhere; another one
// signs.
func TestRevokeKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		a, b := pair(t, store, with(secret(1)))
		app := b.native(t)
		c, err := b.Verifier().Verify(t.Context(), app.AccessToken)
		require.NoError(t, err)

		require.ErrorIs(t, a.RevokeKeys(t.Context(), c.KeyID, "unknown"), keys.ErrUnknownKey)
		require.Equal(t, 200, a.status(bearer("/page", app.AccessToken)), "then nothing was revoked")
		require.False(t, a.Revocations().KeyRevoked(c.KeyID))
		require.Error(t, a.RevokeKeys(t.Context()))

		require.NoError(t, a.RevokeKeys(t.Context(), c.KeyID))
		late := newReplica(t, store, with(secret(1))).Ring() // whose list has read nothing
		set, err := late.KeySet(t.Context(), "")
		require.NoError(t, err)
		_, found := set.Key(c.KeyID)
		require.False(t, found, "the ring in the store lacks it already")
		require.Equal(t, 401, a.status(bearer("/page", app.AccessToken)))
		time.Sleep(b.knownWithin())
		require.NotEqual(t, 200, b.status(bearer("/page", app.AccessToken)))
		again := b.native(t)
		fresh, err := b.Verifier().Verify(t.Context(), again.AccessToken)
		require.NoError(t, err)
		require.NotEqual(t, c.KeyID, fresh.KeyID)
		time.Sleep(time.Minute)
		require.Equal(t, 401, b.status(bearer("/page", app.AccessToken)))
		for _, r := range []*replica{a, b} {
			require.True(t, r.Revocations().KeyRevoked(c.KeyID))
			for _, k := range r.Ring().Status().Keys {
				require.NotEqual(t, c.KeyID, k.KeyID)
			}
		}
		require.NoError(t, a.RevokeKeys(t.Context(), c.KeyID), "again")
	})
}

// TestRevokeKeysThatTheRingHasRevoked: a key that was revoked in the ring alone
// can still be revoked in the list.
func TestRevokeKeysThatTheRingHasRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pair(t, newNetwork(), with(secret(1)))
		kid := a.Ring().Status().Keys[0].KeyID
		require.NoError(t, a.Ring().Revoke(t.Context(), kid))
		require.False(t, a.Revocations().KeyRevoked(kid))
		require.NoError(t, a.RevokeKeys(t.Context(), kid))
		require.True(t, a.Revocations().KeyRevoked(kid))
	})
}

// TestRevokedKeyIsRemembered: the list remembers a key for as long as the ring
// would have kept it, which for one that was still to sign is more than the
// list's own 60 days.
func TestRevokedKeyIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		a, _ := pair(t, store, with(secret(1)), func(c *cfg) { c.Limits.MaxSession = 30 * 24 * time.Hour })
		all := a.Ring().Status().Keys
		next := all[len(all)-1]
		require.Equal(t, "next", next.Phase)
		require.Greater(t, time.Until(next.KeptUntil), 60*24*time.Hour)
		require.NoError(t, a.RevokeKeys(t.Context(), next.KeyID))
		found := false
		for _, e := range *store.written.Load() {
			if e.Scope == revoke.Key {
				found = true
				require.False(t, e.Until.Before(next.KeptUntil))
			}
		}
		require.True(t, found)
	})
}

// TestRevokeKeysWhileTheStoreIsDown: it is an error, and the key is refused
// here at once. When the store is back the list writes it, and every ring drops
// the key, though nothing repeats the call.
func TestRevokeKeysWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		a, b := pair(t, store, with(secret(1)))
		app := b.native(t)
		c, err := b.Verifier().Verify(t.Context(), app.AccessToken)
		require.NoError(t, err)
		store.down.Store(true)
		began := time.Now()
		require.ErrorIs(t, a.RevokeKeys(t.Context(), c.KeyID), errDown)
		require.Less(t, time.Since(began), 11*time.Second)
		require.NotEqual(t, 200, a.status(bearer("/page", app.AccessToken)))
		store.down.Store(false)
		time.Sleep(2 * time.Minute)
		for _, r := range []*replica{a, b} {
			require.Equal(t, 401, r.status(bearer("/page", app.AccessToken)))
			key, err := r.Ring().SigningKey(t.Context())
			require.NoError(t, err)
			require.NotEqual(t, c.KeyID, key.Public().KeyID())
			status, _ := r.ready(t)
			require.Equal(t, 200, status)
		}
	})
}

// TestRevokeKeysWhileTheStoreHangs: it returns all the same, also to a caller
// that has gone away, and what was revoked counts here.
func TestRevokeKeysWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		a, b := pair(t, store, with(secret(1)))
		app := b.native(t)
		c, err := b.Verifier().Verify(t.Context(), app.AccessToken)
		require.NoError(t, err)
		release := store.hangs()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		require.Error(t, a.RevokeKeys(gone, c.KeyID))
		require.LessOrEqual(t, time.Since(began), 17*time.Second)
		require.NotEqual(t, 200, a.status(bearer("/page", app.AccessToken)))
		release()
		time.Sleep(2 * time.Minute)
		require.Equal(t, 401, b.status(bearer("/page", app.AccessToken)))
	})
}

// TestSecretsRoll: a secret is replaced in the three steps that Config.Secrets
// tells, replica by replica. At every moment each replica signs, and takes the
// tokens of the other; at the end nothing is left of the old secret.
func TestSecretsRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := secret(1), secret(2)
		store := newNetwork()
		short := func(c *cfg) { c.Limits.MaxSession = 10 * time.Minute }
		var before, after *replica
		stop := func() {}
		start := func(secrets [][]byte) (*replica, func()) {
			r := newReplica(t, store, with(secrets...), short)
			return r, r.run(t)
		}
		for _, step := range []struct {
			name          string
			before, after [][]byte
		}{
			{"as it was", [][]byte{old}, [][]byte{old}},
			{"appended at one", [][]byte{old}, [][]byte{old, fresh}},
			{"appended", [][]byte{old, fresh}, [][]byte{old, fresh}},
			{"moved at one", [][]byte{old, fresh}, [][]byte{fresh, old}},
			{"moved", [][]byte{fresh, old}, [][]byte{fresh, old}},
			{"removed at one", [][]byte{fresh, old}, [][]byte{fresh}},
			{"removed", [][]byte{fresh}, [][]byte{fresh}},
		} {
			stop()
			var stopOne, stopOther func()
			before, stopOne = start(step.before)
			after, stopOther = start(step.after)
			stop = func() { stopOne(); stopOther() }
			time.Sleep(2 * time.Second)
			for _, from := range []*replica{before, after} {
				for _, to := range []*replica{before, after} {
					status, h := to.ready(t)
					require.Equal(t, 200, status, "%s: %v", step.name, h)
					app := from.native(t)
					require.Equal(t, 200, to.status(bearer("/page", app.AccessToken)), step.name)
					again := tokensOf(t, to.do(refreshRequest(app.RefreshToken)))
					require.Equal(t, 200, from.status(bearer("/page", again.AccessToken)), step.name)
				}
			}
			if step.name == "moved" {
				require.NoError(t, after.Ring().Reseal(t.Context()))
				app := after.native(t)
				time.Sleep(11 * time.Minute) // MaxSession is over
				require.Equal(t, 400, after.status(refreshRequest(app.RefreshToken)))
			}
		}
		require.Len(t, after.Ring().Status().SealingKeys, 1)
		stranger := newReplica(t, store, with(old))
		status, h := stranger.ready(t)
		require.Equal(t, 503, status)
		require.Equal(t, []string{"no_signing_key"}, h.Reasons)
	})
}

// TestAuthoritiesAreApart: two issuers in one store, with one secret, share no
// key, no revocation and no refresh token; nor do two namespaces of one issuer.
func TestAuthoritiesAreApart(t *testing.T) {
	for name, other := range map[string]func(*cfg){
		"issuers":    func(c *cfg) { c.Issuer = "https://other.example" },
		"namespaces": func(c *cfg) { c.Namespace = "blue" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newNetwork()
				a, b := newReplica(t, store, with(secret(1))), newReplica(t, store, with(secret(1)), other)
				a.run(t)
				b.run(t)
				time.Sleep(2 * time.Second)
				here, there := a.native(t), b.native(t)
				time.Sleep(2 * time.Second)
				require.Equal(t, 401, b.status(bearer("/page", here.AccessToken)))
				require.Equal(t, 401, a.status(bearer("/page", there.AccessToken)))
				require.Equal(t, 400, b.status(refreshRequest(here.RefreshToken)))
				devices, err := b.Refresh().List(t.Context(), "ada")
				require.NoError(t, err)
				require.Len(t, devices, 1)

				require.NoError(t, a.Revocations().RevokeSubject(t.Context(), "ada"))
				now, err := a.Revocations().Now(t.Context())
				require.NoError(t, err)
				require.NoError(t, a.Revocations().RevokeAll(t.Context(), now))
				time.Sleep(b.knownWithin())
				require.Equal(t, 401, a.status(bearer("/page", here.AccessToken)))
				require.Equal(t, 200, b.status(bearer("/page", there.AccessToken)))
				_ = tokensOf(t, b.do(refreshRequest(there.RefreshToken)))
			})
		})
	}
}

// TestSecretsAreTheIssuers: what follows from a secret is another for each
// issuer, also where two have one namespace by mistake.
func TestSecretsAreTheIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		one := func(c *cfg) { c.Namespace = "one" }
		a := newReplica(t, store, with(secret(1)), one)
		b := newReplica(t, store, with(secret(1)), one, func(c *cfg) { c.Issuer = "https://other.example" })
		app := a.native(t)
		_, err := b.Ring().SigningKey(t.Context())
		require.ErrorIs(t, err, keys.ErrUnseal)
		require.Equal(t, 400, b.status(refreshRequest(app.RefreshToken)))
	})
}

// TestOwedIsWrittenAtTheEnd: when its context ends, Run writes what the store
// has not acknowledged, if it can within 5 s, and returns then.
func TestOwedIsWrittenAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		a, b := newReplica(t, store, with(secret(1))), newReplica(t, store, with(secret(1)))
		stop := a.run(t)
		b.run(t)
		time.Sleep(2 * time.Second)
		app := a.native(t)
		store.readOnly.Store(true)
		require.Equal(t, 503, a.status(request("POST", "/session/sign-out", "Authorization", "Bearer "+app.AccessToken)))
		status, h := a.ready(t)
		require.Equal(t, 200, status)
		require.Contains(t, h.Warnings, "revocations_owed")
		time.AfterFunc(2*time.Second, func() { store.readOnly.Store(false) })
		began := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(began), 6*time.Second)
		time.Sleep(b.knownWithin())
		require.Equal(t, 401, b.status(bearer("/page", app.AccessToken)))
	})
}

// TestMetrics: the map has all that the parts have.
func TestMetrics(t *testing.T) {
	a := newReplica(t, authority.Memory())
	all := a.Metrics()
	n := 0
	for _, part := range []map[string]float64{a.Ring().Metrics(), a.Revocations().Metrics(), a.Refresh().Metrics(), a.Issuer().Metrics(), a.Verifier().Metrics(), a.Sessions().Metrics()} {
		n += len(part)
		require.Subset(t, slices.Collect(maps.Keys(all)), slices.Collect(maps.Keys(part)))
	}
	require.Len(t, all, n)
}

// TestMemory: it is a store of each kind.
func TestMemory(t *testing.T) {
	storetest.Ring(t, func(*testing.T) (a, b keys.Store) { s := authority.Memory(); return s, s })
	storetest.Revocations(t, func(*testing.T) (a, b revoke.Store) { s := authority.Memory(); return s, s })
	storetest.Families(t, func(*testing.T) (a, b refresh.Store) { s := authority.Memory(); return s, s })
	storetest.Grants(t, func(*testing.T) (a, b grantStore) { s := authority.Memory().(grantStore); return s, s })
}

// TestMemoryHasItsOwnSecret: replicas on one Memory take each other's refresh
// tokens without Secrets, and those of another Memory are refused.
func TestMemoryHasItsOwnSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := authority.Memory()
		a, b, stranger := newReplica(t, shared), newReplica(t, shared), newReplica(t, authority.Memory())
		app := a.native(t)
		require.Equal(t, 400, stranger.status(refreshRequest(app.RefreshToken)))
		app = tokensOf(t, b.do(refreshRequest(app.RefreshToken)))
		require.Equal(t, 200, a.status(bearer("/page", app.AccessToken)))
	})
}

// grantStore is oidclogin.GrantStore.
type grantStore interface {
	LoadGrant(ctx context.Context, namespace, key string) (sealed []byte, rev string, err error)
	SaveGrant(ctx context.Context, namespace, key string, sealed []byte, rev string) (newRev string, err error)
}
