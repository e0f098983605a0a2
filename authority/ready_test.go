package authority_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/authority"
)

// TestReadyWhileTheStoreFails: 503 with the reasons by name, if and only if
// sessions cannot be served, and 200 again once the store is back.
func TestReadyWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		store.down.Store(true)
		a := newReplica(t, store, with(secret(1)))
		a.run(t)
		app := ""
		check := func(want int, reasons ...string) {
			t.Helper()
			began := time.Now()
			status, h := a.ready(t)
			require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
			require.Equal(t, want, status)
			require.Equal(t, append([]string{}, reasons...), h.Reasons)
			if app != "" && want == 503 {
				require.Equal(t, 503, a.status(bearer("/page", app)))
			}
		}
		signIn := func() { app = a.native(t).AccessToken }
		page := func() int { return a.status(bearer("/page", app)) }

		check(503, "keys_unread", "revocations_unread")
		time.Sleep(time.Minute)
		check(503, "keys_unread", "revocations_unread")

		store.down.Store(false)
		time.Sleep(15 * time.Second)
		check(200)
		signIn()
		require.Equal(t, 200, page())

		store.down.Store(true)
		time.Sleep(20 * time.Second)
		check(200)
		_, h := a.ready(t)
		require.Contains(t, h.Warnings, "revocations_unreadable")
		require.Equal(t, 200, page())
		time.Sleep(15 * time.Second)
		check(503, "revocations_stale")
		time.Sleep(12 * time.Hour)
		check(503, "keys_stale", "revocations_stale")

		store.down.Store(false)
		time.Sleep(30 * time.Second)
		check(200)
		signIn()
		require.Equal(t, 200, page())
		_, h = a.ready(t)
		require.Empty(t, h.Warnings)
	})
}

// TestReadyWithoutRun: the first question has the store read, so that it need
// not be asked twice. A Run that was forgotten, or has ended, is a warning.
func TestReadyWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newReplica(t, authority.Memory())
		status, h := a.ready(t)
		require.Equal(t, 200, status)
		require.Equal(t, health{Ready: true, Reasons: []string{}, Warnings: []string{"not_running"}}, h)
		stop := a.run(t)
		synctest.Wait()
		_, h = a.ready(t)
		require.Equal(t, health{Ready: true, Reasons: []string{}, Warnings: []string{}}, h)
		stop()
		_, h = a.ready(t)
		require.Equal(t, []string{"not_running"}, h.Warnings)

		host := newHost(t, authority.Memory())
		b := newTenant(t, host, "b")
		_, h = b.ready(t)
		require.Equal(t, []string{"not_running"}, h.Warnings)
		runHost(t, host)
		synctest.Wait()
		_, h = b.ready(t)
		require.Empty(t, h.Warnings)
	})
}

// TestReadyWhileTheStoreHangs: it answers within half a second, and from memory
// once something is known.
func TestReadyWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		release := store.hangs()
		a := newReplica(t, store, with(secret(1)))
		began := time.Now()
		status, h := a.ready(t)
		require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
		require.Equal(t, 503, status)
		require.Equal(t, []string{"keys_unread", "revocations_unread"}, h.Reasons)
		release()
		time.Sleep(5 * time.Second)
		status, _ = a.ready(t)
		require.Equal(t, 200, status)
		release = store.hangs()
		time.Sleep(time.Second)
		began = time.Now()
		status, _ = a.ready(t)
		require.Zero(t, time.Since(began))
		require.Equal(t, 200, status)
		release()
		time.Sleep(time.Minute)
	})
}

// TestReadyOnAnotherStore: a store that is another environment's is told by
// name.
func TestReadyOnAnotherStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		foreign, store := newNetwork(), newNetwork()
		_, _ = newReplica(t, foreign, with(secret(1))).ready(t)
		time.Sleep(time.Hour)
		a := newReplica(t, store, with(secret(1)))
		a.run(t)
		time.Sleep(time.Minute)
		app := a.native(t)
		require.Equal(t, 200, a.status(bearer("/page", app.AccessToken)))
		for range 3 { // so that its cursor is not one of the foreign store
			require.NoError(t, a.Revocations().RevokeSession(t.Context(), "another"+time.Now().String()))
			time.Sleep(time.Second)
		}
		store.inner.Store(foreign.inner.Load())
		time.Sleep(5 * time.Second)
		status, h := a.ready(t)
		require.Equal(t, 503, status)
		require.Equal(t, []string{"revocations_foreign"}, h.Reasons)
		require.Equal(t, 503, a.status(bearer("/page", app.AccessToken)))
	})
}

// TestReadyWarns: what can be served all the same is 200 with a name.
func TestReadyWarns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		a := newReplica(t, store, with(secret(1)))
		a.run(t)
		time.Sleep(2 * time.Second)
		store.readOnly.Store(true)
		require.Error(t, a.Revocations().RevokeSession(t.Context(), "sid"))
		require.Error(t, a.Ring().Revoke(t.Context(), a.Ring().Status().Keys[1].KeyID))
		status, h := a.ready(t)
		require.Equal(t, 200, status)
		require.Contains(t, h.Warnings, "revocations_owed")
	})
}

// TestReadyMethods: it is a page to look at, and nothing to post to.
func TestReadyMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newReplica(t, authority.Memory())
		for method, want := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodPost: 405, http.MethodOptions: 405} {
			require.Equal(t, want, a.status(request(method, "/ready")), method)
		}
	})
}
