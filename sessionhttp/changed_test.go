package sessionhttp_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// company is a site whose users have a role, and its database. A role is a
// number that only grows.
type company struct {
	*site
	role   atomic.Int64
	marked atomic.Int64 // the newest role whose mark is acknowledged
	loads  atomic.Int64
	slow   time.Duration // of a load, after it has read the role
}

func newCompany(t testing.TB) *company { return &company{site: newSite(t)} }

func (c *company) load(ctx context.Context, _ *sessiontoken.Claims[state]) (state, error) {
	c.loads.Add(1)
	role := c.role.Load()
	time.Sleep(c.slow)
	if err := c.loadErr.Load(); err != nil {
		return state{}, *err
	}
	return state{Rev: role}, ctx.Err()
}

// replica is a replica of the company, whose list runs.
func (c *company) replica(t testing.TB, change ...func(*parts)) *replica {
	t.Helper()
	r := c.with(func(p *parts) {
		p.http = func(h *sessionhttp.Config[state]) {
			h.Load = c.load
			h.RefreshPath = "/session/"
		}
		for _, f := range change {
			f(p)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.list.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	r.mux.Handle("/role", r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		claims, _ := r.FromContext(req.Context())
		_, _ = fmt.Fprint(w, claims.State.Rev)
	})))
	return r
}

// replicasApart returns two replicas on machines whose clocks are two minutes
// apart, and that of the store between them.
func (c *company) replicasApart(t testing.TB) (replicas []*replica) {
	t.Helper()
	_, err := c.revoked.Since(t.Context(), "") // the store keeps the clock of its first call
	require.NoError(t, err)
	for _, ahead := range []time.Duration{-time.Minute, time.Minute} {
		machine := new(clock.Clock)
		machine.SetAhead(ahead)
		clock.As(machine, func() { replicas = append(replicas, c.replica(t)) })
	}
	return replicas
}

// promote changes the role and marks that, at a replica.
func (c *company) promote(t testing.TB, r *replica) {
	t.Helper()
	role := c.role.Add(1)
	require.NoError(t, r.Changed(t.Context(), "ada"))
	raise(&c.marked, role)
}

// raise makes n at least v.
func raise(n *atomic.Int64, v int64) {
	for old := n.Load(); old < v && !n.CompareAndSwap(old, v); old = n.Load() {
	}
}

// askRole returns the role by which a request is served, and the status.
func (r *replica) askRole(t testing.TB, b *browser) (role int64, status int) {
	t.Helper()
	resp := r.send(b, "GET", "/role")
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	role, _ = strconv.ParseInt(string(text), 10, 64)
	return role, resp.StatusCode
}

// wants is askRole for a browser that must be served with a role.
func (r *replica) wants(t testing.TB, b *browser, role int64) {
	t.Helper()
	got, status := r.askRole(t, b)
	require.Equal(t, 200, status, r.lastRefusal())
	require.Equal(t, role, got)
}

// sync has a list read the store, by a reading that begins after the call.
func (r *replica) sync(t testing.TB) {
	t.Helper()
	_, err := r.list.Begin(t.Context(), revoke.Question{Subject: "reader"})
	require.NoError(t, err)
}

// After Changed in one process, a cookie is served with the new role in the
// other one, is loaded once for a mark, and stays signed in; also within one
// second.
func TestChangedCookie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a, b := c.replica(t), c.replica(t)
		time.Sleep(10*time.Second + 300*time.Millisecond)
		user := a.browse(t)
		old := *user
		session := strings.Fields(body(t, a.send(user, "GET", "/who")))[1]
		for mark := range int64(30) { // no time passes
			c.promote(t, a)
			b.sync(t)
			loads := c.loads.Load()
			served := []*replica{a, b}[mark%2]
			before := user.session
			served.wants(t, user, mark+1)
			require.NotEqual(t, before, user.session, "renewed on the way")
			for range 3 {
				a.wants(t, user, mark+1)
				b.wants(t, user, mark+1)
				served.wants(t, &browser{session: before}, mark+1) // a request with the old cookie that was under way
			}
			require.Equal(t, loads+1, c.loads.Load(), "loaded once for a mark")
			require.Equal(t, session, strings.Fields(body(t, served.send(user, "GET", "/who")))[1])
		}
		a.wants(t, &old, 30)
		require.Nil(t, a.lastRefusal())
		require.Nil(t, b.lastRefusal())

		c.role.Add(1)
		require.Error(t, a.Changed(t.Context(), ""))
		require.NoError(t, a.Changed(t.Context(), "bob"))
		a.wants(t, user, 30)
		// "Renew" and "Update" take a stale cookie too.
		c.promote(t, a)
		require.Equal(t, 200, a.send(user, "POST", "/renew").StatusCode)
		a.wants(t, user, 32)
	})
}

// Many requests at once with one cookie share the Load of a mark.
func TestOneLoadForParallelRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a := c.replica(t)
		cookie := a.browse(t).session
		c.slow = 50 * time.Millisecond
		for mark := range int64(5) {
			c.promote(t, a)
			loads := c.loads.Load()
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					role, status := a.askRole(t, &browser{session: cookie})
					if status != 200 || role != mark+1 {
						t.Errorf("%d with role %d", status, role)
					}
				})
			}
			wg.Wait()
			require.Equal(t, loads+1, c.loads.Load())
		}
	})
}

// A mark that comes while Load runs costs one more renewal, and the request is
// served with the later state.
func TestMarkWhileLoadRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a, b := c.replica(t), c.replica(t)
		browser := a.browse(t)
		c.slow = 100 * time.Millisecond
		c.promote(t, a)
		go func() {
			time.Sleep(50 * time.Millisecond)
			c.promote(t, a)
		}()
		a.wants(t, browser, 2)
		require.EqualValues(t, 2, c.loads.Load())
		b.sync(t)
		a.wants(t, browser, 2)
		b.wants(t, browser, 2)
		require.EqualValues(t, 2, c.loads.Load())

		// Renew and Update do not fail for it, and the next request renews.
		a.mux.HandleFunc("/update", func(w http.ResponseWriter, req *http.Request) {
			if _, err := a.Update(w, req, func(*state) error { return nil }); err != nil {
				a.Refuse(w, req, err)
			}
		})
		for _, path := range []string{"/renew", "/update"} {
			role := c.role.Load()
			go func() {
				time.Sleep(50 * time.Millisecond)
				c.promote(t, a)
			}()
			require.Equal(t, 200, a.send(browser, "POST", path).StatusCode, a.lastRefusal())
			synctest.Wait()
			a.wants(t, browser, role+1)
		}
	})
}

// With 200 marks a second on one subject and two replicas behind a balancer,
// nothing loops, each request is served, and no state is older than the last
// mark that its replica knew when the request came.
func TestManyMarksASecond(t *testing.T) {
	for _, slow := range []time.Duration{0, 3 * time.Millisecond, 30 * time.Millisecond} {
		t.Run(slow.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCompany(t)
				replicas := []*replica{c.replica(t), c.replica(t)}
				clients := make([]*browser, 4)
				for i := range clients {
					clients[i] = replicas[i%2].browse(t)
				}
				c.slow = slow
				const marks = 600
				var known [2]atomic.Int64 // the role that a replica's list knows of
				var over atomic.Bool
				var wg, others sync.WaitGroup
				wg.Go(func() {
					for range marks {
						time.Sleep(5 * time.Millisecond)
						at := rand.IntN(2)
						c.promote(t, replicas[at])
						raise(&known[at], c.marked.Load())
					}
				})
				for i, r := range replicas {
					others.Go(func() {
						for !over.Load() {
							time.Sleep(20 * time.Millisecond)
							role := c.marked.Load()
							r.sync(t)
							raise(&known[i], role)
						}
					})
				}
				var requests atomic.Int64
				for _, client := range clients {
					others.Go(func() {
						for !over.Load() {
							at := rand.IntN(2)
							least := known[at].Load()
							role, status := replicas[at].askRole(t, client)
							if status != 200 || role < least {
								t.Errorf("%d with role %d, of at least %d: %v", status, role, least, replicas[at].lastRefusal())
								return
							}
							requests.Add(1)
							time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
						}
					})
				}
				wg.Wait()
				over.Store(true)
				others.Wait()
				require.LessOrEqual(t, c.loads.Load(), int64(2*marks*len(clients)))
				require.LessOrEqual(t, c.loads.Load(), 2*requests.Load(), "at most two for a request")
				for _, r := range replicas {
					r.sync(t)
				}
				for _, client := range clients {
					replicas[0].wants(t, client, marks)
				}
				loads := c.loads.Load()
				for range 10 {
					for _, client := range clients {
						for _, r := range replicas {
							r.wants(t, client, marks)
						}
					}
				}
				require.Equal(t, loads, c.loads.Load(), "no loop")
			})
		})
	}
}

// A bearer client gets a 401 with a description of its own, refreshes, and goes
// on; so does one of an API that only reads, which says so.
func TestChangedBearer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a := c.replica(t)
		api := c.replica(t, func(p *parts) {
			p.http = func(h *sessionhttp.Config[state]) { h.Issuer, h.Load, h.Revocations, h.Refresh = nil, nil, nil, nil }
		})
		tokens, browser := a.native(t), a.browse(t)
		who := func(r *replica) *http.Response {
			return r.do(request("GET", "/role", "", bearer(tokens.AccessToken)...))
		}
		const challenge = `Bearer error="invalid_token", error_description="state changed"`
		for mark := range 3 {
			c.promote(t, a)
			api.sync(t)
			for _, r := range []*replica{a, api} {
				resp := who(r)
				require.Equal(t, 401, resp.StatusCode)
				require.Equal(t, challenge, resp.Header.Get("WWW-Authenticate"))
				require.ErrorIs(t, r.lastRefusal(), sessiontoken.ErrChanged)
			}
			resp := api.send(browser, "GET", "/role")
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, challenge, resp.Header.Get("WWW-Authenticate"))
			require.Empty(t, resp.Cookies(), "the issuer's server renews it")
			resp = a.do(refreshRequest(grant(tokens.RefreshToken)))
			require.Equal(t, 200, resp.StatusCode)
			tokens = tokensIn(t, resp)
			loads := c.loads.Load()
			for _, r := range []*replica{a, api} {
				resp := who(r)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, strconv.Itoa(mark+1), body(t, resp))
			}
			require.Equal(t, loads, c.loads.Load())
			a.wants(t, browser, int64(mark+1))
		}
		require.ErrorContains(t, api.Changed(t.Context(), "ada"), "Config.Issuer")
	})
}

// A bearer client that refreshes at a replica that has not read the mark yet is
// served with its next token, also within the second of the mark.
func TestChangedBearerBehindABalancer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a, b := c.replica(t), c.replica(t)
		tokens := a.native(t)
		b.sync(t)
		time.Sleep(200 * time.Millisecond)
		for mark := range 5 {
			c.promote(t, a)
			require.Equal(t, 401, a.status(request("GET", "/role", "", bearer(tokens.AccessToken)...)))
			resp := b.do(refreshRequest(grant(tokens.RefreshToken)))
			require.Equal(t, 200, resp.StatusCode)
			tokens = tokensIn(t, resp)
			resp = a.do(request("GET", "/role", "", bearer(tokens.AccessToken)...))
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, strconv.Itoa(mark+1), body(t, resp))
			require.EqualValues(t, mark+1, c.loads.Load())
		}
	})
}

// While a mark is owed, its subject is not served with the old state, keeps the
// cookie, and is not signed out. Other subjects notice nothing.
func TestOwedMark(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a, b := c.replica(t), c.replica(t)
		browser, tokens := a.browse(t), a.native(t)
		c.role.Add(1)
		c.revoked.down.Store(true)
		require.Error(t, a.Changed(t.Context(), "ada"))
		for range 3 {
			resp := a.send(browser, "GET", "/role")
			require.Equal(t, 503, resp.StatusCode)
			require.Equal(t, "1", resp.Header.Get("Retry-After"))
			require.Empty(t, resp.Cookies())
			require.Equal(t, 401, a.status(request("GET", "/role", "", bearer(tokens.AccessToken)...)))
			require.Equal(t, 503, a.status(refreshRequest(grant(tokens.RefreshToken))))
		}
		require.Zero(t, c.loads.Load())
		b.wants(t, browser, 0) // which cannot know
		c.revoked.down.Store(false)
		require.NoError(t, a.Changed(t.Context(), "ada"))
		b.sync(t)
		b.wants(t, browser, 1)
		a.wants(t, browser, 1)
		require.Equal(t, 200, a.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// If Load fails, the request is 503: the old state is not served, and the user
// is not signed out.
func TestChangedAndLoadFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a := c.replica(t)
		browser := a.browse(t)
		c.promote(t, a)
		c.fail(errDown)
		for range 3 {
			resp := a.send(browser, "GET", "/role")
			require.Equal(t, 503, resp.StatusCode)
			require.Empty(t, resp.Cookies())
		}
		c.fail(nil)
		time.Sleep(11 * time.Second) // the pause after a failure
		a.wants(t, browser, 1)
		// A Load that ends the session does so.
		c.promote(t, a)
		c.fail(sessionhttp.ErrSessionOver)
		require.Equal(t, 401, a.send(browser, "GET", "/role").StatusCode)
	})
}

// A stale credential signs out as any other: itself, all others, everywhere.
func TestSignOutWithAStaleToken(t *testing.T) {
	for _, path := range []string{"/out", "/others", "/everywhere"} {
		for _, native := range []bool{false, true} {
			t.Run(fmt.Sprint(path, native), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := newCompany(t)
					a := c.replica(t)
					browser, tokens := a.browse(t), a.native(t)
					c.promote(t, a)
					req := request("POST", path, browser.session)
					if native {
						req = request("POST", path, "", bearer(tokens.AccessToken)...)
					}
					require.Equal(t, 200, a.status(req))
					theCookie, theNative := 200, 200
					switch {
					case path == "/everywhere":
						theCookie, theNative = 401, 400
					case (path == "/out") == native:
						theNative = 400
					default:
						theCookie = 401
					}
					require.Equal(t, theCookie, a.status(request("GET", "/role", browser.session)))
					require.Equal(t, theNative, a.status(refreshRequest(grant(tokens.RefreshToken))))
				})
			})
		}
	}
	bubble(t, func(t *testing.T) { // RFC 7009
		c := newCompany(t)
		a := c.replica(t)
		tokens := a.native(t)
		c.promote(t, a)
		form := map[string][]string{"token": {tokens.AccessToken}, "client_id": {"app"}}
		require.Equal(t, 200, a.status(formRequest("/revoke", form)))
		require.Equal(t, 400, a.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// A replica that was started after the mark knows it.
func TestChangedAndRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a := c.replica(t)
		browser := a.browse(t)
		c.promote(t, a)
		c.replica(t).wants(t, browser, 1)
		c.replica(t).wants(t, browser, 1)
		require.EqualValues(t, 1, c.loads.Load())
	})
}

// A sign-in within the second of a mark is renewed once, since its state may be
// from before it.
func TestSignInAndChanged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		a := c.replica(t)
		time.Sleep(10*time.Second + 100*time.Millisecond)
		c.promote(t, a)
		browser := a.browse(t)
		a.wants(t, browser, 1)
		a.wants(t, browser, 1)
		require.EqualValues(t, 1, c.loads.Load())
		time.Sleep(time.Second)
		browser = a.browse(t)
		_, status := a.askRole(t, browser)
		require.Equal(t, 200, status)
		require.EqualValues(t, 1, c.loads.Load())
	})
}

// With clocks of the replicas two minutes apart, each mark is seen at both, and
// costs one Load.
func TestChangedWithClocksApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		replicas := c.replicasApart(t)
		browser := replicas[0].browse(t)
		time.Sleep(2 * time.Second)
		for mark := range int64(50) {
			time.Sleep(rand.N(300 * time.Millisecond))
			at := rand.IntN(2)
			loads := c.loads.Load()
			c.promote(t, replicas[at])
			replicas[1-at].sync(t)
			for range 4 {
				replicas[rand.IntN(2)].wants(t, browser, mark+1)
			}
			require.Equal(t, loads+1, c.loads.Load())
		}
	})
}

// With 200 marks a second on one subject, replicas whose clocks are two minutes
// apart and a balancer between them, verifiers of other kinds with the right
// time and without leeway refuse no token for its iat, and each client is
// served with the last state in the end.
func TestIssuedAtWithManyMarks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCompany(t)
		replicas := c.replicasApart(t)
		right := jwt.NewValidator(jwt.WithIssuedAt())
		reads := func(token string) {
			t.Helper()
			var claims jwt.RegisteredClaims
			_, _, err := jwt.NewParser().ParseUnverified(token, &claims)
			require.NoError(t, err)
			require.NoError(t, right.Validate(claims))
		}
		cookie, tokens := replicas[0].browse(t), replicas[1].native(t)
		for mark := range int64(1000) {
			time.Sleep(5 * time.Millisecond)
			at := replicas[rand.IntN(2)]
			c.promote(t, at)
			loads := c.loads.Load()
			at.wants(t, cookie, mark+1)
			reads(cookie.session)
			resp := replicas[rand.IntN(2)].do(refreshRequest(grant(tokens.RefreshToken)))
			require.Equal(t, 200, resp.StatusCode)
			tokens = tokensIn(t, resp)
			reads(tokens.AccessToken)
			resp = at.do(request("GET", "/role", "", bearer(tokens.AccessToken)...))
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, strconv.FormatInt(mark+1, 10), body(t, resp))
			require.Equal(t, loads+2, c.loads.Load(), "one for the cookie, one for the refresh")
		}
		for _, r := range replicas {
			r.sync(t)
			r.wants(t, cookie, 1000)
		}
	})
}
