package sessionhttp_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// run runs a replica's list until the test ends.
func (r *replica) run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.list.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
}

// open opens a connection by a request through Require.
func (r *replica) open(t testing.TB, ctx context.Context, o sessionhttp.LiveOptions, req *http.Request) *sessionhttp.Live[state] {
	t.Helper()
	var l *sessionhttp.Live[state]
	h := r.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, ok := r.FromContext(req.Context())
		require.True(t, ok)
		var err error
		l, err = r.Live(req.Context(), c, o)
		require.NoError(t, err)
	}))
	h.ServeHTTP(new(discard), req.WithContext(ctx))
	require.NotNil(t, l)
	t.Cleanup(l.Stop)
	require.NoError(t, l.Err())
	return l
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header {
	if d.h == nil {
		d.h = http.Header{}
	}
	return d.h
}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// cause returns why a connection has ended, and requires that it behaves as an
// ended context.
func cause(t testing.TB, l *sessionhttp.Live[state]) error {
	t.Helper()
	select {
	case <-l.Done():
	default:
		require.Fail(t, "the connection has not ended")
	}
	require.Error(t, l.Err())
	require.Error(t, context.Cause(l))
	return context.Cause(l)
}

// live requires that a connection has not ended.
func live(t testing.TB, l *sessionhttp.Live[state]) {
	t.Helper()
	require.NoError(t, context.Cause(l))
	require.NoError(t, l.Err())
	select {
	case <-l.Done():
		require.Fail(t, "Done is closed")
	default:
	}
}

// nothingLeft requires that replicas keep nothing of a connection.
func nothingLeft(t testing.TB, replicas ...*replica) {
	t.Helper()
	for _, r := range replicas {
		require.Zero(t, r.Metrics()["sessionhttp_live_connections"])
		require.Zero(t, r.list.Metrics()["revocation_watches"])
	}
}

type options = sessionhttp.LiveOptions

// two are replicas of one site whose lists run.
func (s *site) two(change func(*parts)) (a, b *replica) {
	s.t.Helper()
	a, b = s.with(change), s.with(change)
	a.run(s.t)
	b.run(s.t)
	time.Sleep(time.Minute) // the store is older than every session
	return a, b
}

// TestLiveEndsWhenRevoked: a connection ends when its session is revoked at
// another replica or at its own, in whatever way, within the time that the list
// needs; and the connections of other sessions go on.
func TestLiveEndsWhenRevoked(t *testing.T) {
	group := sessiontoken.GroupOf("idp-session", "https://idp.example", "s-1")
	for _, test := range []struct {
		name   string
		revoke func(t *testing.T, r *replica, cookie string, c *sessiontoken.Claims[state])
		others bool // the other session of the subject ends too
	}{
		{"signed out", func(t *testing.T, r *replica, cookie string, _ *sessiontoken.Claims[state]) {
			require.Equal(t, 200, r.status(request("POST", "/out", cookie)))
		}, false},
		{"everywhere", func(t *testing.T, r *replica, cookie string, _ *sessiontoken.Claims[state]) {
			require.Equal(t, 200, r.status(request("POST", "/everywhere", cookie)))
		}, true},
		{"its group", func(t *testing.T, r *replica, _ string, _ *sessiontoken.Claims[state]) {
			require.NoError(t, r.list.RevokeGroup(t.Context(), string(group)))
		}, false},
		{"its key", func(t *testing.T, r *replica, _ string, c *sessiontoken.Claims[state]) {
			require.NoError(t, r.list.RevokeKey(t.Context(), c.KeyID, time.Time{}))
		}, true},
		{"all", func(t *testing.T, r *replica, _ string, _ *sessiontoken.Claims[state]) {
			require.NoError(t, r.list.RevokeAll(t.Context(), time.Now()))
		}, true},
	} {
		for _, by := range []string{"cookie", "bearer"} {
			for _, where := range []string{"here", "elsewhere"} {
				t.Run(test.name+" "+where+", by "+by, func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						s := newSite(t)
						a, b := s.two(nil)
						token, _, err := a.issuer.Begin(t.Context(), sessiontoken.Start{Subject: "ada", Groups: []sessiontoken.Group{group}, Renewal: sessiontoken.Renewable}, state{})
						require.NoError(t, err)
						otherCookie := a.signIn(t)
						time.Sleep(time.Second)
						req := request("GET", "/", token)
						if by == "bearer" {
							req = request("GET", "/", "", bearer(token)...)
						}
						l := b.open(t, t.Context(), options{}, req)
						other := b.open(t, t.Context(), options{}, request("GET", "/", otherCookie))
						at := a
						if where == "here" {
							at = b
						}
						test.revoke(t, at, token, l.Claims())
						if where == "elsewhere" {
							time.Sleep(1100 * time.Millisecond)
						}
						require.Equal(t, revoke.ErrRevoked, cause(t, l))
						require.Equal(t, context.Canceled, l.Err())
						if test.others {
							require.Equal(t, revoke.ErrRevoked, cause(t, other))
						} else {
							live(t, other)
						}
						other.Stop()
						nothingLeft(t, a, b)
					})
				})
			}
		}
	}
}

// TestLiveOthers: "sign out everywhere else" ends the connections of all other
// sessions, and none of the session that does it.
func TestLiveOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSite(t).two(nil)
		mine, second, third := a.signIn(t), a.signIn(t), a.native(t)
		time.Sleep(time.Second)
		tab1 := b.open(t, t.Context(), options{}, request("GET", "/", mine))
		tab2 := a.open(t, t.Context(), options{}, request("GET", "/", mine))
		other := b.open(t, t.Context(), options{}, request("GET", "/", second))
		phone := b.open(t, t.Context(), options{}, request("GET", "/", "", bearer(third.AccessToken)...))
		require.Equal(t, 200, a.status(request("POST", "/others", mine)))
		time.Sleep(1100 * time.Millisecond)
		require.Equal(t, revoke.ErrRevoked, cause(t, other))
		require.Equal(t, revoke.ErrRevoked, cause(t, phone))
		live(t, tab1)
		live(t, tab2)
	})
}

// TestLiveActor: a session in which an actor acts ends with the actor's.
func TestLiveActor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSite(t).two(nil)
		_, staff, err := a.issuer.Issue(t.Context(), "eve", state{})
		require.NoError(t, err)
		token, _, err := a.issuer.Begin(t.Context(), sessiontoken.Start{
			Subject: "ada", Renewal: sessiontoken.Renewable,
			Actor: &sessiontoken.Actor{Subject: staff.Subject, SessionID: staff.SessionID, Began: staff.Began},
		}, state{})
		require.NoError(t, err)
		l := b.open(t, t.Context(), options{}, request("GET", "/", token))
		time.Sleep(10 * time.Minute) // over a renewal
		live(t, l)
		require.Equal(t, "eve", l.Claims().Actor().Subject)
		require.NoError(t, a.list.RevokeSession(t.Context(), staff.SessionID))
		time.Sleep(1100 * time.Millisecond)
		require.Equal(t, revoke.ErrRevoked, cause(t, l))
	})
}

// TestLiveChanged: after a mark, a connection with a cookie has the state that
// Load returns now, after one call; one with EndWhenChanged, with a Bearer token
// or at an API without an issuer ends.
func TestLiveChanged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		a, b := s.two(nil)
		reader := s.replica(func(c *sessionhttp.Config[state]) {
			c.Issuer, c.Load, c.Revocations, c.Refresh = nil, nil, nil, nil
		})
		reader.run(t)
		time.Sleep(2 * time.Second)
		cookie := a.signIn(t)
		tokens := a.native(t)
		l := b.open(t, t.Context(), options{}, request("GET", "/", cookie))
		ends := b.open(t, t.Context(), options{EndWhenChanged: true}, request("GET", "/", cookie))
		phone := b.open(t, t.Context(), options{}, request("GET", "/", "", bearer(tokens.AccessToken)...))
		read := reader.open(t, t.Context(), options{}, request("GET", "/", cookie))
		loads := s.loads.Load()
		for range 3 { // marks within one second share its number at most with their calls
			require.NoError(t, a.Changed(t.Context(), "ada"))
			time.Sleep(1500 * time.Millisecond)
			live(t, l)
			loads++
			require.Equal(t, loads, s.loads.Load())
			require.Equal(t, loads, l.Claims().State.Rev)
		}
		require.Equal(t, revoke.ErrChanged, cause(t, ends))
		require.Equal(t, revoke.ErrChanged, cause(t, phone))
		require.Equal(t, revoke.ErrChanged, cause(t, read))
		require.NoError(t, a.Changed(t.Context(), "bob"))
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, loads, s.loads.Load())
		live(t, l)
	})
}

// unread is a store of revocations that cannot be read while it is told so.
type unread struct {
	revoke.Store
	down atomic.Bool
}

func (u *unread) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if u.down.Load() {
		return revoke.Page{}, errDown
	}
	return u.Store.Since(ctx, cursor)
}

// TestLiveEndsWhenChangedDespiteARenewal: a renewal that has read the new state
// before the mark of it is known here does not hide the mark.
func TestLiveEndsWhenChangedDespiteARenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		a := s.replica()
		a.run(t)
		cut := &unread{Store: &s.revoked}
		b := s.with(func(p *parts) { p.list.Store, p.list.MaxStale = cut, 10*time.Minute })
		b.run(t)
		time.Sleep(time.Minute)
		cookie := a.signIn(t)
		ends := b.open(t, t.Context(), options{EndWhenChanged: true}, request("GET", "/", cookie))
		cut.down.Store(true)
		require.NoError(t, a.Changed(t.Context(), "ada"))
		time.Sleep(2 * time.Second)
		for loads := s.loads.Load(); s.loads.Load() == loads; { // until it is renewed
			time.Sleep(time.Second)
		}
		live(t, ends)
		cut.down.Store(false)
		time.Sleep(time.Minute)
		require.Equal(t, revoke.ErrChanged, cause(t, ends))
	})
}

// TestLiveRenewed: a handler that waits for other claims is told of each renewal,
// by Load and by a newer token, and of nothing else.
func TestLiveRenewed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		a, b := s.two(nil)
		page := b.open(t, t.Context(), options{}, request("GET", "/", a.signIn(t)))
		closed := func(c <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-c:
				return true
			default:
				return false
			}
		}
		for range 3 {
			renewed, old := page.Renewed(), page.Claims()
			require.NoError(t, a.Changed(t.Context(), "bob"))
			time.Sleep(1500 * time.Millisecond)
			require.False(t, closed(renewed))
			require.NoError(t, a.Changed(t.Context(), "ada"))
			time.Sleep(1500 * time.Millisecond)
			require.True(t, closed(renewed))
			require.NotEqual(t, old, page.Claims())
			require.False(t, closed(page.Renewed()))
		}

		token, _, err := a.issuer.Issue(t.Context(), "eve", state{})
		require.NoError(t, err)
		phone := b.open(t, t.Context(), options{Bearer: true}, request("GET", "/", "", bearer(token)...))
		renewed := phone.Renewed()
		require.NoError(t, phone.Renew(t.Context(), token))
		require.False(t, closed(renewed), "the token that it has")
		time.Sleep(time.Minute)
		token, _, err = a.issuer.Renew(t.Context(), token, s.load)
		require.NoError(t, err)
		require.NoError(t, phone.Renew(t.Context(), token))
		require.True(t, closed(renewed))
	})
}

// TestLiveChangedWhileLoading: a mark that comes while Load runs has it called
// once more.
func TestLiveChangedWhileLoading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		_, b := s.two(nil)
		l := b.open(t, t.Context(), options{}, request("GET", "/", b.signIn(t)))
		loads := s.loads.Load()
		s.slow.Store(int64(time.Second))
		require.NoError(t, b.Changed(t.Context(), "ada"))
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, b.Changed(t.Context(), "ada"))
		time.Sleep(10 * time.Second)
		require.Equal(t, loads+2, s.loads.Load())
		require.Equal(t, loads+2, l.Claims().State.Rev)
		live(t, l)
	})
}

// TestLiveRenews: the claims of a connection with a cookie never expire while it
// is used, and end at MaxSession. Load is given the state of the claims before.
func TestLiveRenews(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		var seen atomic.Int64
		a, b := s.two(func(p *parts) {
			p.http = func(c *sessionhttp.Config[state]) {
				c.Load = func(ctx context.Context, old *sessiontoken.Claims[state]) (state, error) {
					seen.Store(old.State.Rev)
					return s.load(ctx, old)
				}
			}
		})
		cookie := a.signIn(t)
		l := b.open(t, t.Context(), options{}, request("GET", "/", cookie))
		first := *l.Claims()
		end := first.Began.Add(24 * time.Hour).Truncate(time.Second)
		for time.Now().Before(end.Add(-time.Minute)) {
			synctest.Wait()
			live(t, l)
			c := l.Claims()
			require.True(t, time.Now().Before(c.Expires), "the claims have expired")
			require.Equal(t, first.SessionID, c.SessionID)
			require.Equal(t, first.KeyID, c.KeyID)
			require.Equal(t, first.Began, c.Began)
			require.Equal(t, first.AuthTime, c.AuthTime)
			if rev := c.State.Rev; rev > 2 {
				require.Equal(t, rev-1, seen.Load())
			}
			l.Used()
			time.Sleep(time.Minute)
		}
		loads := s.loads.Load()
		require.Greater(t, loads, int64(24*60/5))
		require.Less(t, loads, int64(24*60/2))
		time.Sleep(time.Until(end) - time.Millisecond)
		live(t, l)
		time.Sleep(2 * time.Millisecond)
		require.Equal(t, sessionhttp.ErrMaxSession, cause(t, l))
		nothingLeft(t, a, b)
	})
}

// TestLiveIdle: a connection with a cookie ends when it was not used for
// IdleTimeout, and not earlier.
func TestLiveIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSite(t).two(nil)
		l := b.open(t, t.Context(), options{}, request("GET", "/", a.signIn(t)))
		for range 5 {
			time.Sleep(50 * time.Minute)
			live(t, l)
			l.Used()
		}
		time.Sleep(time.Hour)
		live(t, l)
		time.Sleep(1100 * time.Millisecond)
		require.Equal(t, sessionhttp.ErrIdle, cause(t, l))
		nothingLeft(t, a, b)
	})
}

// TestLiveBearer: a connection with a Bearer token, or at an API without an
// issuer, ends when Verify would no longer accept the token, unless a newer one
// is presented.
func TestLiveBearer(t *testing.T) {
	for _, leeway := range []time.Duration{0, 10 * time.Second} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			a, b := s.two(func(p *parts) { p.verifier.Leeway = leeway })
			reader := s.with(func(p *parts) {
				p.verifier.Leeway = leeway
				p.http = func(c *sessionhttp.Config[state]) {
					c.Issuer, c.Load, c.Revocations, c.Refresh = nil, nil, nil, nil
				}
			})
			reader.run(t)
			time.Sleep(2 * time.Second)
			tokens, cookie := a.native(t), a.signIn(t)
			opened := map[string]*sessionhttp.Live[state]{
				"a native client":                    b.open(t, t.Context(), options{}, request("GET", "/", "", bearer(tokens.AccessToken)...)),
				"a cookie's token in a header":       b.open(t, t.Context(), options{}, request("GET", "/", "", bearer(cookie)...)),
				"an option":                          b.open(t, t.Context(), options{Bearer: true}, request("GET", "/", cookie)),
				"a cookie at an API without issuer":  reader.open(t, t.Context(), options{}, request("GET", "/", cookie)),
				"a native client at the same server": reader.open(t, t.Context(), options{}, request("GET", "/", "", bearer(tokens.AccessToken)...)),
			}
			for name, l := range opened {
				token := tokens.AccessToken
				if l.Claims().Renewable {
					token = cookie
				}
				time.Sleep(0)
				require.NoError(t, l.Renew(t.Context(), token), name) // the same one: nothing changes
			}
			renewed := b.open(t, t.Context(), options{}, request("GET", "/", "", bearer(tokens.AccessToken)...))
			exp := renewed.Claims().Expires
			time.Sleep(time.Until(exp.Add(leeway)) - time.Millisecond)
			next := a.refreshed(t, tokens)
			other := a.native(t)
			for name, l := range opened {
				live(t, l)
				require.ErrorIs(t, l.Renew(t.Context(), other.AccessToken), sessionhttp.ErrBadRequest, name)
				require.ErrorIs(t, l.Renew(t.Context(), "x"), sessiontoken.ErrMalformed, name)
				require.Equal(t, exp, l.Claims().Expires, name)
			}
			require.NoError(t, renewed.Renew(t.Context(), next.AccessToken))
			require.NoError(t, renewed.Renew(t.Context(), next.AccessToken))
			time.Sleep(2 * time.Millisecond)
			for name, l := range opened {
				require.Equal(t, sessiontoken.ErrExpired, cause(t, l), name)
				require.ErrorIs(t, l.Renew(t.Context(), next.AccessToken), cause(t, l), name)
			}
			time.Sleep(4 * time.Minute)
			live(t, renewed)
			require.True(t, renewed.Claims().Expires.After(exp))
			time.Sleep(time.Minute + leeway)
			require.Equal(t, sessiontoken.ErrExpired, cause(t, renewed))
			nothingLeft(t, a, b, reader)
		})
	}
}

// refreshed exchanges a refresh token.
func (r *replica) refreshed(t testing.TB, tokens sessionhttp.Tokens) sessionhttp.Tokens {
	t.Helper()
	resp := r.do(refreshRequest(grant(tokens.RefreshToken)))
	require.Equal(t, 200, resp.StatusCode)
	return tokensIn(t, resp)
}

// TestLiveRenewAfterAChange: a newer token that knows of a mark keeps the
// connection when the mark arrives, and the token from before the mark does not
// bring the old state back.
func TestLiveRenewAfterAChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newSite(t).two(nil)
		tokens := a.native(t)
		l := b.open(t, t.Context(), options{}, request("GET", "/", "", bearer(tokens.AccessToken)...))
		time.Sleep(500 * time.Millisecond)
		require.NoError(t, a.Changed(t.Context(), "ada"))
		next := a.refreshed(t, tokens)
		require.NoError(t, l.Renew(t.Context(), next.AccessToken))
		time.Sleep(3 * time.Second)
		live(t, l)
		require.NoError(t, a.Changed(t.Context(), "ada"))
		time.Sleep(3 * time.Second)
		require.Equal(t, revoke.ErrChanged, cause(t, l))
	})
}

// TestLiveLoad: what Load answers decides about a connection with a cookie.
func TestLiveLoad(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		heals  bool
		want   error
		within time.Duration // after the claims expire; negative: before
	}{
		{"the session is over", sessionhttp.ErrSessionOver, false, revoke.ErrRevoked, -time.Second},
		{"the database is down", errDown, false, sessionhttp.ErrUndecided, time.Second},
		{"an error about another token", sessiontoken.ErrExpired, false, sessionhttp.ErrUndecided, time.Second},
		{"an error about another list", revoke.ErrRevoked, false, sessionhttp.ErrUndecided, time.Second},
		{"the database heals", errDown, true, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newSite(t)
				a, b := s.two(nil)
				l := b.open(t, t.Context(), options{}, request("GET", "/", a.signIn(t)))
				exp := l.Claims().Expires
				s.fail(test.err)
				time.Sleep(time.Until(exp) - 36*time.Second) // it was due before, for certain
				if test.heals {
					s.fail(nil)
					time.Sleep(time.Hour)
					require.ErrorIs(t, cause(t, l), sessionhttp.ErrIdle)
					return
				}
				time.Sleep(36*time.Second + test.within)
				require.ErrorIs(t, cause(t, l), test.want)
				require.Equal(t, test.want == sessionhttp.ErrUndecided, b.Metrics()["sessionhttp_live_undecided_total"] == 1)
				if test.want == sessionhttp.ErrUndecided {
					for _, verdict := range []error{revoke.ErrRevoked, sessiontoken.ErrExpired, sessiontoken.ErrInvalid} {
						require.NotErrorIs(t, cause(t, l), verdict)
					}
				}
				nothingLeft(t, a, b)
			})
		})
	}
}

// TestLiveLoadHangs: a Load that hangs whatever its context says ends the
// connections when their claims expire, and blocks nothing else.
func TestLiveLoadHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		_, b := s.two(nil)
		cookie := b.signIn(t)
		var all []*sessionhttp.Live[state]
		for range 200 {
			all = append(all, b.open(t, t.Context(), options{}, request("GET", "/", cookie)))
		}
		s.slow.Store(int64(time.Hour))
		time.Sleep(5*time.Minute + time.Second)
		for _, l := range all {
			require.ErrorIs(t, cause(t, l), sessionhttp.ErrUndecided)
		}
		nothingLeft(t, b)
		require.EqualValues(t, 200, b.Metrics()["sessionhttp_live_opened_total"])
		require.EqualValues(t, 200, b.Metrics()["sessionhttp_live_undecided_total"])
		time.Sleep(2 * time.Hour)
	})
}

// TestLiveRenewalsAreFew: 2,000 connections are not renewed at one moment, never
// more than 64 at once, and all in time.
func TestLiveRenewalsAreFew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		var now, most, all atomic.Int64
		_, b := s.two(func(p *parts) {
			p.http = func(c *sessionhttp.Config[state]) {
				c.Load = func(context.Context, *sessiontoken.Claims[state]) (state, error) {
					all.Add(1)
					n := now.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(time.Second)
					now.Add(-1)
					return state{}, nil
				}
			}
		})
		cookie := b.signIn(t)
		var lives []*sessionhttp.Live[state]
		for range 2000 {
			lives = append(lives, b.open(t, t.Context(), options{}, request("GET", "/", cookie)))
		}
		time.Sleep(2*time.Minute + 29*time.Second)
		require.Zero(t, all.Load())
		time.Sleep(55 * time.Second)
		require.InDelta(t, 1000, all.Load(), 200, "spread")
		time.Sleep(5 * time.Minute)
		for _, l := range lives {
			live(t, l)
		}
		require.Less(t, most.Load(), int64(64))
		// A mark concerns all of them at one moment.
		most.Store(0)
		all.Store(0)
		require.NoError(t, b.Changed(t.Context(), "ada"))
		time.Sleep(40 * time.Second)
		require.EqualValues(t, 64, most.Load())
		require.GreaterOrEqual(t, all.Load(), int64(2000))
		for _, l := range lives {
			l.Stop()
		}
		nothingLeft(t, b)
		time.Sleep(time.Minute)
	})
}

// TestLiveStale: when the list has not read its store for MaxStale, all
// connections end as undecided within a second, and none before. No new one
// opens until the store is back.
func TestLiveStale(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, store := newSite(t), new(unreadable)
		_, b := s.two(func(p *parts) { p.list.Store = store })
		cookie := b.signIn(t)
		c, err := b.verifier.Verify(t.Context(), cookie)
		require.NoError(t, err)
		var all []*sessionhttp.Live[state]
		for range 500 {
			l, err := b.Live(t.Context(), c, options{Bearer: len(all)%2 == 0})
			require.NoError(t, err)
			all = append(all, l)
		}
		store.down.Store(true)
		stale := b.list.Status().Synced.Add(30 * time.Second)
		time.Sleep(time.Until(stale))
		for _, l := range all {
			live(t, l)
		}
		time.Sleep(1100 * time.Millisecond)
		for _, l := range all {
			require.ErrorIs(t, cause(t, l), sessionhttp.ErrUndecided)
			require.ErrorIs(t, cause(t, l), errDown)
		}
		nothingLeft(t, b)
		_, err = b.Live(t.Context(), c, options{})
		require.Error(t, err)
		store.down.Store(false)
		time.Sleep(10 * time.Second)
		l, err := b.Live(t.Context(), c, options{})
		require.NoError(t, err)
		l.Stop()
	})
}

// TestLiveOwed: a sign-out that the store does not acknowledge ends the
// connection all the same. It is not known whether others have heard of it.
func TestLiveOwed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		_, b := s.two(nil)
		cookie := b.signIn(t)
		l := b.open(t, t.Context(), options{}, request("GET", "/", cookie))
		s.revoked.down.Store(true)
		require.Equal(t, 503, b.status(request("POST", "/out", cookie)))
		require.ErrorIs(t, cause(t, l), sessionhttp.ErrUndecided)
		require.ErrorIs(t, cause(t, l), revoke.ErrOwed)
	})
}

// TestLiveParent: a connection ends with its request, for the reason of that,
// and has its values.
func TestLiveParent(t *testing.T) {
	type key struct{}
	errGone := errors.New("the client has gone")
	for _, test := range []struct {
		name   string
		parent func(ctx context.Context) (context.Context, func())
		err    error
		cause  error
	}{
		{"canceled", func(ctx context.Context) (context.Context, func()) {
			ctx, end := context.WithCancel(ctx)
			return ctx, end
		}, context.Canceled, context.Canceled},
		{"with a cause", func(ctx context.Context) (context.Context, func()) {
			ctx, end := context.WithCancelCause(ctx)
			return ctx, func() { end(errGone) }
		}, context.Canceled, errGone},
		{"a deadline", func(ctx context.Context) (context.Context, func()) {
			ctx, end := context.WithTimeout(ctx, time.Minute)
			return ctx, func() { time.Sleep(2 * time.Minute); end() }
		}, context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, b := newSite(t).two(nil)
				cookie := b.signIn(t)
				synctest.Wait()
				before := runtime.NumGoroutine()
				ctx, end := test.parent(t.Context())
				l := b.open(t, context.WithValue(ctx, key{}, "v"), options{}, request("GET", "/", cookie))
				child, cancel := context.WithTimeout(l, time.Hour)
				defer cancel()
				want, has := ctx.Deadline()
				got, ok := l.Deadline()
				require.Equal(t, has, ok)
				require.Equal(t, want, got)
				require.Equal(t, "v", l.Value(key{}))
				live(t, l)
				synctest.Wait()
				for range 20 {
					b.open(t, context.WithValue(ctx, key{}, "v"), options{}, request("GET", "/", cookie))
				}
				synctest.Wait()
				require.Less(t, runtime.NumGoroutine(), before+20, "none each")
				end()
				synctest.Wait()
				require.Equal(t, test.cause, cause(t, l))
				require.Equal(t, test.err, l.Err())
				require.Equal(t, test.cause, context.Cause(child))
				require.Equal(t, "v", l.Value(key{}))
				_, err := b.Live(ctx, l.Claims(), options{})
				require.Equal(t, test.cause, err)
				nothingLeft(t, b)
			})
		})
	}
}

// TestLiveStop: Stop ends the context and frees everything, and what is derived
// from the context ends with the session's cause.
func TestLiveStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, b := newSite(t).two(nil)
		cookie := b.signIn(t)
		l := b.open(t, t.Context(), options{}, request("GET", "/", cookie))
		called := make(chan struct{})
		context.AfterFunc(l, func() { close(called) })
		never := context.AfterFunc(l, func() { t.Error("called after its stop") })
		require.True(t, never())
		require.False(t, never())
		require.EqualValues(t, 1, b.Metrics()["sessionhttp_live_connections"])
		l.Stop()
		l.Stop()
		<-called
		require.Equal(t, context.Canceled, cause(t, l))
		late := make(chan struct{})
		require.False(t, context.AfterFunc(l, func() { close(late) })())
		<-late
		nothingLeft(t, b)
		parent := &counting{Context: t.Context()}
		c, err := b.Live(parent, l.Claims(), options{})
		require.NoError(t, err)
		require.EqualValues(t, 1, parent.n.Load())
		c.Stop()
		require.Zero(t, parent.n.Load(), "the parent keeps it")

		r := b.open(t, t.Context(), options{}, request("GET", "/", cookie))
		type key struct{}
		child, cancel := context.WithCancel(context.WithValue(r, key{}, 2))
		defer cancel()
		require.NoError(t, b.list.RevokeSession(t.Context(), r.Claims().SessionID))
		synctest.Wait()
		require.Equal(t, revoke.ErrRevoked, context.Cause(child))
		require.Equal(t, context.Canceled, child.Err())
	})
}

// counting is a context that counts what it is to call at its end.
type counting struct {
	context.Context
	n atomic.Int64
}

func (c *counting) Value(any) any { return nil } // package context does not look behind it

func (c *counting) AfterFunc(f func()) func() bool {
	c.n.Add(1)
	stop := context.AfterFunc(c.Context, f)
	return func() bool { c.n.Add(-1); return stop() }
}

// TestLiveRefusals: a session that is not live opens no connection, and Refuse
// answers as it does for a request.
func TestLiveRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		_, b := s.two(nil)
		status := func(c *sessiontoken.Claims[state], o options) int {
			l, err := b.Live(t.Context(), c, o)
			require.Nil(t, l)
			require.Error(t, err)
			w := httptest.NewRecorder()
			b.Refuse(w, request("GET", "/", ""), err)
			return w.Code
		}
		verified := func(token string) *sessiontoken.Claims[state] {
			c, err := b.verifier.Verify(t.Context(), token)
			require.NoError(t, err)
			return c
		}
		require.Equal(t, 401, status(nil, options{}))
		c := verified(b.signIn(t))
		require.NoError(t, b.list.RevokeSession(t.Context(), c.SessionID))
		require.Equal(t, 401, status(c, options{}))
		c = verified(b.signIn(t))
		time.Sleep(1100 * time.Millisecond)
		require.NoError(t, b.Changed(t.Context(), "ada"))
		require.Equal(t, 401, status(c, options{Bearer: true}))
		require.Equal(t, 401, status(c, options{EndWhenChanged: true}))
		time.Sleep(1100 * time.Millisecond)
		c = verified(b.signIn(t))
		time.Sleep(6 * time.Minute)
		require.Equal(t, 401, status(c, options{Bearer: true}))
		c = verified(b.signIn(t))
		s.revoked.down.Store(true)
		require.Error(t, b.list.RevokeSession(t.Context(), c.SessionID))
		require.Equal(t, 503, status(c, options{}))
		nothingLeft(t, b)

		wrapped := s.with(func(p *parts) {
			p.http = func(c *sessionhttp.Config[state]) {
				v := c.Verifier.Config()
				v.Revocations = checker{c.Revocations}
				verifier, err := sessiontoken.NewVerifier[state](v)
				require.NoError(t, err)
				*c = sessionhttp.Config[state]{Verifier: verifier, Logger: quiet}
			}
		})
		_, err := wrapped.Live(t.Context(), verified(b.signIn(t)), options{})
		require.ErrorContains(t, err, "Watch")
	})
}

// checker is a list without Watch.
type checker struct{ revoke.Checker }

// TestLiveWithoutList: without a list a connection ends when its token expires.
func TestLiveWithoutList(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		verifier, err := sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: "https://a.example", Audience: "web", Keys: s.source})
		require.NoError(t, err)
		sessions, err := sessionhttp.New(sessionhttp.Config[state]{Verifier: verifier, Logger: quiet})
		require.NoError(t, err)
		token, _, err := s.elsewhere(0).Issue(t.Context(), "ada", state{})
		require.NoError(t, err)
		c, err := verifier.Verify(t.Context(), token)
		require.NoError(t, err)
		l, err := sessions.Live(t.Context(), c, options{})
		require.NoError(t, err)
		time.Sleep(time.Until(c.Expires) - time.Millisecond)
		live(t, l)
		time.Sleep(2 * time.Millisecond)
		require.Equal(t, sessiontoken.ErrExpired, cause(t, l))
	})
}

// TestLiveRace: connections that open, are used, renewed and closed while
// sessions are revoked, marked and parents end: each ends, and nothing is left.
func TestLiveRace(t *testing.T) {
	const n = 1000
	s := newSite(t)
	r := s.local()
	require.NoError(t, r.list.Sync(t.Context()))
	var wg sync.WaitGroup
	missed := make(chan string, n)
	for i := range n {
		subject := "user-" + strconv.Itoa(i)
		token, c, err := r.issuer.Issue(t.Context(), subject, state{})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		for _, f := range []func(){
			func() {
				l, err := r.Live(ctx, c, options{})
				if err != nil {
					return // it was revoked before
				}
				_ = l.Renew(t.Context(), token)
				l.Used()
				context.AfterFunc(l, func() {})()
				if i%4 == 3 {
					l.Stop()
				}
				select {
				case <-l.Done():
				case <-time.After(time.Minute):
					missed <- subject
				}
			},
			func() {
				switch i % 4 {
				case 0:
					_ = r.list.RevokeSession(t.Context(), c.SessionID)
				case 1:
					_ = r.list.RevokeSubject(t.Context(), subject)
				case 2:
					cancel()
				case 3:
					_ = r.Changed(t.Context(), subject)
				}
			},
		} {
			wg.Add(1)
			go func() { defer wg.Done(); f() }()
		}
		t.Cleanup(cancel)
	}
	wg.Wait()
	require.Empty(t, missed)
	require.Eventually(t, func() bool {
		return r.Metrics()["sessionhttp_live_connections"] == 0 && r.list.Metrics()["revocation_watches"] == 0
	}, time.Minute, time.Millisecond)
}
