package authority_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

func newHost(t testing.TB, store authority.Store) *authority.Host {
	t.Helper()
	h, err := authority.NewHost(store, nil, quiet)
	require.NoError(t, err)
	return h
}

// in puts an authority into a host.
func in(h *authority.Host, namespace string) func(*cfg) {
	return func(c *cfg) {
		c.Store, c.Host, c.Namespace = nil, h, namespace
		c.Issuer = "https://" + namespace + ".example"
	}
}

func newTenant(t testing.TB, h *authority.Host, namespace string, changes ...func(*cfg)) *replica {
	t.Helper()
	return newReplica(t, nil, append([]func(*cfg){in(h, namespace), with(secret(1))}, changes...)...)
}

// runHost starts Run, which ends with the test or when stop is called.
func runHost(t testing.TB, h *authority.Host) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.Equal(t, context.Canceled, <-done)
	})
	t.Cleanup(stop)
	return stop
}

// hosts are two replicas on one store, with Run, and their tenants by name.
func hosts(t *testing.T, store authority.Store, names ...string) (a, b map[string]*replica) {
	t.Helper()
	a, b = map[string]*replica{}, map[string]*replica{}
	for _, of := range []map[string]*replica{a, b} {
		h := newHost(t, store)
		for _, name := range names {
			of[name] = newTenant(t, h, name)
		}
		runHost(t, h)
	}
	time.Sleep(2 * time.Second)
	return a, b
}

func heapInUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// goroutines returns those that run code of this module, but for those of tests.
func goroutines() (stacks []string) {
	buf := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "github.com/sessiontoken/sessiontoken") && !strings.Contains(stack, "testing.tRunner(") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// TestThousandTenants: 1,000 tenants of which each had a sign-in and a request
// take at most 32 MiB of memory, no goroutine without Run and three with it.
func TestThousandTenants(t *testing.T) {
	const tenants = 1000
	// Outside of the bubble: what is made once a process.
	newTenant(t, newHost(t, authority.Memory()), "warm").native(t)
	before := heapInUse()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, authority.Memory())
		all := make([]*authority.Authority[state], tenants)
		for i := range all {
			name := fmt.Sprintf("tenant-%d", i)
			a, err := authority.New(config(nil, in(h, name), with(secret(1)), func(c *cfg) { c.Algorithm = keys.ES256 }))
			require.NoError(t, err)
			all[i] = a
			s, site := a.Sessions(), "https://"+name+".example"
			w := httptest.NewRecorder()
			_, err = s.SignIn(w, httptest.NewRequest("POST", site+"/sign-in", nil), sessiontoken.Start{Subject: "ada"}, state{"Ada", "guest"})
			require.NoError(t, err)
			req := httptest.NewRequest("GET", site+"/page", nil)
			for _, c := range w.Result().Cookies() {
				req.AddCookie(c)
			}
			w = httptest.NewRecorder()
			s.Require(http200).ServeHTTP(w, req)
			require.Equal(t, 200, w.Code)
		}
		synctest.Wait()
		require.Empty(t, goroutines(), "without Run")
		cached := int(all[0].Verifier().Metrics()["cache_bytes"])
		require.GreaterOrEqual(t, all[0].Verifier().Metrics()["cache_entries"], float64(tenants))
		inUse := heapInUse() - before
		t.Logf("%d bytes a tenant, of which %d are cached tokens", inUse/tenants, cached/tenants)
		require.LessOrEqual(t, inUse-cached, 32<<20)

		stop := runHost(t, h)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, goroutines(), 3, "with Run, of which one is its caller's")
		inUse = heapInUse() - before
		t.Logf("%d bytes a tenant with Run", inUse/tenants)
		require.LessOrEqual(t, inUse-cached, 32<<20)
		stop()
		synctest.Wait()
		require.Empty(t, goroutines())
		runtime.KeepAlive(all)
	})
}

// counted is a network that counts its readings.
type counted struct {
	*network
	since, revisions, loads atomic.Int64
	takes                   atomic.Int64 // how long Since takes, in nanoseconds
}

func (c *counted) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	c.since.Add(1)
	time.Sleep(time.Duration(c.takes.Load()))
	return c.network.Since(ctx, cursor)
}

func (c *counted) Revisions(ctx context.Context, names ...string) ([]string, time.Time, error) {
	c.revisions.Add(1)
	return c.network.Revisions(ctx, names...)
}

func (c *counted) Load(ctx context.Context, name string) (keys.Stored, error) {
	c.loads.Add(1)
	return c.network.Load(ctx, name)
}

func (c *counted) readings() int64 { return c.since.Load() + c.revisions.Load() + c.loads.Load() }

// TestReadingsDoNotGrowWithTenants: 1,000 tenants that are all in use have the
// store read as often as ten, with Run and without.
func TestReadingsDoNotGrowWithTenants(t *testing.T) {
	tenants := manyTenants
	if os.Getenv("SESSIONTOKEN_LONG") == "" {
		tenants = 100
	}
	perMinute := func(tenants int, run, used bool) (n int64) {
		synctest.Test(t, func(t *testing.T) {
			store := &counted{network: newNetwork()}
			h := newHost(t, store)
			all := make([]*replica, tenants)
			tokens := make([]string, tenants)
			for i := range all {
				a, err := authority.New(config(nil, in(h, fmt.Sprint("t", i)), with(secret(1)), func(c *cfg) { c.Limits.TTL = time.Hour }))
				require.NoError(t, err)
				all[i] = &replica{Authority: a}
				tokens[i], _, err = a.Issuer().Issue(t.Context(), "ada", state{})
				require.NoError(t, err)
			}
			if run {
				runHost(t, h)
			}
			const minutes = 2
			for minute := range minutes + 1 {
				if minute == 1 {
					n = -store.readings()
				}
				for range 60 {
					time.Sleep(time.Second)
					for i, a := range all {
						if used {
							_, err := a.Verifier().Verify(t.Context(), tokens[i])
							require.NoError(t, err)
						}
					}
				}
			}
			synctest.Wait()
			n = (n + store.readings()) / minutes
		})
		return n
	}
	for _, tt := range []struct {
		name      string
		run, used bool
		most      int64 // a minute
	}{
		{"with Run", true, true, 75},
		{"with Run, at rest", true, false, 75},
		{"without Run", false, true, 75},
		{"without Run, at rest", false, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			few, many := perMinute(10, tt.run, tt.used), perMinute(tenants, tt.run, tt.used)
			t.Logf("%d a minute with 10 tenants, %d with %d", few, many, tenants)
			require.LessOrEqual(t, many, tt.most)
			require.InDelta(t, few, many, 5)
		})
	}
}

// TestSignInsShareReadings: sign-ins of one moment at many tenants have the store
// read once or twice when they begin, and once or twice after their families are
// written, each by a reading that began after it.
func TestSignInsShareReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &counted{network: newNetwork()}
		h := newHost(t, store)
		var all []*replica
		for i := range 50 {
			all = append(all, newTenant(t, h, fmt.Sprint("t", i)))
			all[i].native(t)
		}
		time.Sleep(time.Minute)
		store.takes.Store(int64(time.Millisecond)) // so that those who ask meanwhile share the next one
		release := store.hangs()                   // so that all are there before one is answered
		before := store.since.Load()
		var signing sync.WaitGroup
		for _, a := range all {
			signing.Go(func() { a.native(t) })
		}
		synctest.Wait()
		release()
		signing.Wait()
		require.LessOrEqual(t, store.since.Load()-before, int64(5))
	})
}

// TestTenantsAreApart: of two replicas with three tenants each, all with one
// secret, a token, a mark, a key and a refresh family reach their own tenant on
// both and no other.
func TestTenantsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"red", "green", "blue"}
		a, b := hosts(t, newNetwork(), names...)
		each := func(f func(name, other string)) {
			for _, name := range names {
				for _, other := range names {
					if other != name {
						f(name, other)
					}
				}
			}
		}
		tokens, refreshes, kids := map[string]string{}, map[string]string{}, map[string]string{}
		for _, name := range names {
			app := a[name].native(t)
			tokens[name], refreshes[name] = app.AccessToken, app.RefreshToken
			c, err := b[name].Verifier().Verify(t.Context(), app.AccessToken)
			require.NoError(t, err)
			kids[name] = c.KeyID
		}
		live := func(name string, want int) {
			t.Helper()
			for range 2 { // the second time it would be a cached one
				for _, r := range []*replica{a[name], b[name]} {
					require.Equal(t, want, r.status(bearer("/page", tokens[name])), name)
				}
			}
		}
		for _, name := range names {
			live(name, 200)
		}
		each(func(name, other string) {
			for range 2 {
				for _, r := range []*replica{a[other], b[other]} {
					require.Equal(t, 401, r.status(bearer("/page", tokens[name])))
					require.Equal(t, 400, r.status(refreshRequest(refreshes[name])))
				}
			}
			set, err := b[other].Ring().KeySet(t.Context(), kids[name])
			require.NoError(t, err)
			_, found := set.Key(kids[name])
			require.False(t, found)
			require.ErrorIs(t, a[other].RevokeKeys(t.Context(), kids[name]), keys.ErrUnknownKey)
		})
		for _, name := range names {
			devices, err := b[name].Refresh().List(t.Context(), "ada")
			require.NoError(t, err)
			require.Len(t, devices, 1)
			refreshes[name] = tokensOf(t, b[name].do(refreshRequest(refreshes[name]))).RefreshToken
		}

		within := b["red"].knownWithin()
		require.NoError(t, a["red"].Revocations().RevokeSubject(t.Context(), "ada"))
		now, err := a["red"].Revocations().Now(t.Context())
		require.NoError(t, err)
		require.NoError(t, a["red"].Revocations().RevokeAll(t.Context(), now))
		time.Sleep(within)
		live("red", 401)
		live("green", 200)
		live("blue", 200)
		require.NoError(t, a["green"].RevokeKeys(t.Context(), kids["green"]))
		time.Sleep(within)
		require.NotEqual(t, 200, b["green"].status(bearer("/page", tokens["green"])))
		live("blue", 200)
		require.NoError(t, a["green"].Refresh().DeleteSubject(t.Context(), "ada", ""))
		_ = tokensOf(t, b["blue"].do(refreshRequest(refreshes["blue"])))
		for _, r := range []*replica{a["blue"], b["blue"]} {
			require.False(t, r.Revocations().KeyRevoked(kids["green"]))
			require.Equal(t, kids["blue"], r.Ring().Status().Keys[0].KeyID)
		}
	})
}

// TestHostedRevocationIsKnown: what is revoked at one host is known to the same
// tenant of the other within SyncEvery and a reading.
func TestHostedRevocationIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hosts(t, newNetwork(), "red", "green")
		within := b["red"].knownWithin()
		for range 50 {
			app, other := a["red"].native(t), b["green"].native(t)
			require.Equal(t, 200, b["red"].status(bearer("/page", app.AccessToken)))
			require.Equal(t, 200, a["red"].status(request("POST", "/session/sign-out", "Authorization", "Bearer "+app.AccessToken)))
			require.Equal(t, 401, a["red"].status(bearer("/page", app.AccessToken)))
			time.Sleep(within - 5*time.Second) // the store answers at once
			require.Equal(t, 401, b["red"].status(bearer("/page", app.AccessToken)))
			require.Equal(t, 200, b["green"].status(bearer("/page", other.AccessToken)))
			time.Sleep(137 * time.Millisecond)
		}
	})
}

// TestHostedListsOwe: what the store has not acknowledged to any tenant is
// written again by Run, and for 5 s when its context ends.
func TestHostedListsOwe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		names := []string{"red", "green", "blue"}
		h, a := newHost(t, store), map[string]*replica{}
		for _, name := range names {
			a[name] = newTenant(t, h, name)
		}
		stop := runHost(t, h)
		other, b := newHost(t, store), map[string]*replica{}
		for _, name := range names {
			b[name] = newTenant(t, other, name)
		}
		runHost(t, other)
		time.Sleep(2 * time.Second)
		within := b["red"].knownWithin()
		signOut := func() (tokens map[string]string) {
			tokens = map[string]string{}
			for _, name := range names {
				tokens[name] = a[name].native(t).AccessToken
			}
			store.readOnly.Store(true)
			for _, name := range names {
				out := request("POST", "/session/sign-out", "Authorization", "Bearer "+tokens[name])
				require.Equal(t, 503, a[name].status(out))
				require.Equal(t, 503, a[name].status(bearer("/page", tokens[name])))
				require.NotZero(t, a[name].Revocations().Status().Owed)
			}
			return tokens
		}
		tokens := signOut()
		time.Sleep(time.Minute)
		store.readOnly.Store(false)
		time.Sleep(6*time.Second + within) // the longest pause between writes, and a round
		for _, name := range names {
			require.Zero(t, a[name].Revocations().Status().Owed)
			require.Equal(t, 401, b[name].status(bearer("/page", tokens[name])))
		}

		tokens = signOut()
		time.AfterFunc(2*time.Second, func() { store.readOnly.Store(false) })
		began := time.Now()
		stop()
		require.LessOrEqual(t, time.Since(began), 6*time.Second)
		time.Sleep(within)
		for _, name := range names {
			require.Zero(t, a[name].Revocations().Status().Owed)
			require.Equal(t, 401, b[name].status(bearer("/page", tokens[name])))
		}
	})
}

// TestHostEndsWhileTheStoreFails: Run returns 5 s after its context has ended.
func TestHostEndsWhileTheStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		h := newHost(t, store)
		a := newTenant(t, h, "red")
		stop := runHost(t, h)
		token := a.native(t).AccessToken
		store.readOnly.Store(true)
		require.Equal(t, 503, a.status(request("POST", "/session/sign-out", "Authorization", "Bearer "+token)))
		began := time.Now()
		stop()
		require.InDelta(t, 5, time.Since(began).Seconds(), 0.5)
	})
}

// TestHostedRingsRotate: over a rotation at either host no token is refused, at
// either, and the other one follows.
func TestHostedRingsRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		long := func(c *cfg) { c.Limits.TTL = time.Hour }
		a := newTenant(t, newHost(t, store), "red", long)
		first, err := a.Ring().SigningKey(t.Context())
		require.NoError(t, err)
		time.Sleep(30*24*time.Hour - 3*time.Hour) // without Run, which would take a while here
		h1, h2 := newHost(t, store), newHost(t, store)
		a, b := newTenant(t, h1, "red", long), newTenant(t, h2, "red", long)
		c := newTenant(t, h2, "green", long)
		runHost(t, h1)
		runHost(t, h2)
		rotated, followed := false, false
		var tokens []string
		for range 6 * 60 {
			time.Sleep(time.Minute)
			for i, from := range []*replica{a, b} {
				token, claims, err := from.Issuer().Issue(t.Context(), "ada", state{})
				require.NoError(t, err)
				if claims.KeyID != first.Public().KeyID() {
					rotated, followed = rotated || i == 0, followed || i == 1
				}
				if tokens = append(tokens, token); len(tokens) > 100 {
					tokens = tokens[1:]
				}
			}
			for _, token := range tokens {
				for _, to := range []*replica{a, b} {
					_, err := to.Verifier().Verify(t.Context(), token)
					require.NoError(t, err)
				}
			}
			_, err := c.Verifier().Verify(t.Context(), tokens[len(tokens)-1])
			require.ErrorIs(t, err, sessiontoken.ErrInvalid)
		}
		require.True(t, rotated && followed)
		for _, r := range []*replica{a, b} {
			require.Less(t, r.Ring().Metrics()["ring_age_seconds"], 60.0)
		}
	})
}

// TestHostedUnknownKey: a key that another host has just made is found by a
// reading that began after the request.
func TestHostedUnknownKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &counted{network: newNetwork()}
		a, b := hosts(t, store, "red", "green")
		for range 5 {
			current := a["red"].Ring().Status().Keys[0].KeyID
			require.NoError(t, a["red"].Ring().Revoke(t.Context(), current)) // another one signs at once
			token, claims, err := a["red"].Issuer().Issue(t.Context(), "ada", state{})
			require.NoError(t, err)
			require.NotEqual(t, current, claims.KeyID)
			_, err = b["red"].Verifier().Verify(t.Context(), token)
			require.NoError(t, err)
			time.Sleep(3 * time.Second)
		}
	})
}

// TestHostedFloodOfUnknownKeys: made-up ids at all tenants have the store read 20
// times a second at most, of all tenants together.
func TestHostedFloodOfUnknownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds = 10
		store := &counted{network: newNetwork()}
		h := newHost(t, store)
		var flood sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
		defer cancel()
		for i := range 50 {
			a := newTenant(t, h, fmt.Sprint("t", i))
			a.native(t)
			flood.Go(func() {
				time.Sleep(time.Duration(i) * 17 * time.Millisecond)
				for n := 0; ctx.Err() == nil; n++ {
					set, err := a.Ring().KeySet(t.Context(), fmt.Sprint("made-up-", n))
					require.NoError(t, err)
					require.NotEmpty(t, set.Keys())
				}
			})
		}
		before := store.readings()
		flood.Wait()
		n := store.readings() - before
		t.Logf("%d readings in %d s", n, seconds)
		require.LessOrEqual(t, n, int64(20*(seconds+1)))
	})
}

// TestHostedBeginning: who signs in at one host after their sessions were revoked
// at the other has a session that is live at both, and the one of before is not.
func TestHostedBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := hosts(t, newNetwork(), "red", "green")
		for range 10 {
			old := b["red"].native(t)
			require.NoError(t, a["red"].Revocations().RevokeSubject(t.Context(), "ada"))
			app := b["red"].native(t) // at once
			for _, r := range []*replica{a["red"], b["red"]} {
				require.Equal(t, 200, r.status(bearer("/page", app.AccessToken)))
				require.Equal(t, 401, r.status(bearer("/page", old.AccessToken)))
			}
			time.Sleep(313 * time.Millisecond)
		}
	})
}

// TestHostedAuthorityRuns: its own Run is refused, and names what to start.
func TestHostedAuthorityRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := newTenant(t, newHost(t, authority.Memory()), "red").Run(t.Context())
		require.ErrorContains(t, err, "Run of the Host")
		require.Error(t, new(authority.Host).Run(t.Context()))
	})
}

// TestNewHost refuses what cannot work.
func TestNewHost(t *testing.T) {
	for _, store := range []authority.Store{nil, (*network)(nil)} {
		_, err := authority.NewHost(store, nil, nil)
		require.ErrorContains(t, err, "store")
	}
	_, err := authority.NewHost(authority.Memory(), new(sessiontoken.Cache), nil)
	require.ErrorContains(t, err, "cache")
	_, err = authority.NewHost(authority.Memory(), sessiontoken.NewCache(-1), nil)
	require.NoError(t, err)
}

// TestNamespaceIsFreeAgain: an authority that could not be made takes none.
func TestNamespaceIsFreeAgain(t *testing.T) {
	h := newHost(t, authority.Memory())
	_, err := authority.New(config(nil, in(h, "red"), func(c *cfg) { c.Algorithm = "HS256" }))
	require.ErrorContains(t, err, "Config.Algorithm")
	newTenant(t, h, "red")
	_, err = authority.New(config(nil, in(h, "red")))
	require.ErrorContains(t, err, "Config.Namespace")
}

// TestMemoryHost: with a store in memory the secrets can be left out, as without
// a Host.
func TestMemoryHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := authority.Memory()
		one, other := newHost(t, store), newHost(t, store)
		a, b := newTenant(t, one, "red", with()), newTenant(t, other, "red", with())
		app := a.native(t)
		require.Equal(t, 200, b.status(bearer("/page", app.AccessToken)))
		_ = tokensOf(t, b.do(refreshRequest(app.RefreshToken)))
	})
}

type hostHealth struct {
	health
	Tenants []struct {
		Namespace string   `json:"namespace"`
		Reasons   []string `json:"reasons"`
		Warnings  []string `json:"warnings"`
	} `json:"tenants"`
	More int `json:"more"`
}

func hostReady(t *testing.T, h *authority.Host) (status int, body hostHealth, size int) {
	t.Helper()
	w := httptest.NewRecorder()
	began := time.Now()
	h.Ready().ServeHTTP(w, httptest.NewRequest("GET", "https://any.example/ready", nil))
	require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body, json.RejectUnknownMembers(true)))
	require.Equal(t, w.Code == 200, body.Ready)
	return w.Code, body, w.Body.Len()
}

// TestHostReady: it is 503 if and only if no tenant can be served, and names
// those that cannot.
func TestHostReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		h := newHost(t, store)
		store.down.Store(true)
		status, _, _ := hostReady(t, h)
		require.Equal(t, 503, status, "without tenants")
		store.down.Store(false)
		time.Sleep(2 * time.Second)
		status, body, _ := hostReady(t, h)
		require.Equal(t, 200, status, "without tenants")
		require.Empty(t, body.Tenants)

		var good []*replica
		for i := range 40 {
			good = append(good, newTenant(t, h, fmt.Sprint("good-", i)))
		}
		status, body, _ = hostReady(t, h)
		require.Equal(t, 200, status, "not read yet")
		require.Empty(t, body.Tenants)

		strangers := newHost(t, store) // whose secrets are wrong
		for i := range 30 {
			newTenant(t, h, fmt.Sprint("bad-", i)).native(t)
			newTenant(t, strangers, fmt.Sprint("bad-", i), with(secret(2)))
		}
		status, body, _ = hostReady(t, strangers)
		require.Equal(t, 503, status)
		require.Equal(t, []string{"no_signing_key"}, body.Reasons)
		newTenant(t, strangers, "good-0")
		runHost(t, strangers)
		time.Sleep(2 * time.Minute)
		status, body, size := hostReady(t, strangers)
		require.Equal(t, 200, status, "one tenant can be served")
		require.Equal(t, []string{"no_signing_key"}, body.Reasons)
		require.Len(t, body.Tenants, 20)
		require.Equal(t, 10, body.More)
		require.Equal(t, "bad-0", body.Tenants[0].Namespace)
		require.Equal(t, []string{"no_signing_key"}, body.Tenants[0].Reasons)
		require.Contains(t, body.Tenants[0].Warnings, "keys_locked")
		require.LessOrEqual(t, size, 16<<10)

		stop := runHost(t, h)
		app := good[0].native(t).AccessToken
		time.Sleep(time.Minute)
		store.readOnly.Store(true)
		require.Error(t, good[0].Revocations().RevokeSession(t.Context(), "sid"))
		status, body, _ = hostReady(t, h)
		require.Equal(t, 200, status)
		require.Equal(t, "good-0", body.Tenants[0].Namespace)
		require.Equal(t, []string{"revocations_owed"}, body.Tenants[0].Warnings)
		store.readOnly.Store(false)
		store.down.Store(true)
		time.Sleep(20 * time.Second)
		status, body, _ = hostReady(t, h)
		require.Equal(t, 200, status)
		require.Equal(t, 50, body.More)
		require.Contains(t, body.Warnings, "revocations_unreadable")
		time.Sleep(20 * time.Second)
		status, body, _ = hostReady(t, h)
		require.Equal(t, 503, status)
		require.Equal(t, []string{"revocations_stale"}, body.Reasons)
		require.Equal(t, 503, good[0].status(bearer("/page", app)))
		store.down.Store(false)
		time.Sleep(10 * time.Second)
		status, body, _ = hostReady(t, h)
		require.Equal(t, 200, status)
		require.Empty(t, body.Tenants)
		require.Equal(t, 200, good[0].status(bearer("/page", app)))
		stop()

		w := httptest.NewRecorder()
		h.Ready().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "https://any.example/ready", nil))
		require.Equal(t, 405, w.Code)
	})
}

// TestHostWhileTheStoreHangs: requests of no tenant wait for another's, and Ready
// answers in time.
func TestHostWhileTheStoreHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newNetwork()
		h := newHost(t, store)
		var all []*replica
		var tokens []string
		for i := range 20 {
			all = append(all, newTenant(t, h, fmt.Sprint("t", i)))
			tokens = append(tokens, all[i].native(t).AccessToken)
		}
		runHost(t, h)
		time.Sleep(10 * time.Second)
		release := store.hangs()
		for range 25 {
			time.Sleep(time.Second)
			for i, a := range all {
				began := time.Now()
				require.Equal(t, 200, a.status(bearer("/page", tokens[i])))
				require.Zero(t, time.Since(began))
			}
			status, _, _ := hostReady(t, h)
			require.Equal(t, 200, status)
		}
		release()
		time.Sleep(10 * time.Second)
		status, body, _ := hostReady(t, h)
		require.Equal(t, 200, status)
		require.Empty(t, body.Reasons)
	})
}
