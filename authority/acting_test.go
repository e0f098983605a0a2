package authority_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// adminGroup is what a provider's logout revokes.
var adminGroup = sessiontoken.GroupOf("oidc session", "https://op.example", "sid-1")

// office is a replica at which an admin can act for a user.
type office struct {
	*replica
	lives []*sessionhttp.Live[state]
	seen  *sessiontoken.Claims[state] // by the last request that had a session
}

func newOffice(t *testing.T, store authority.Store, changes ...func(*authority.Config[state])) *office {
	t.Helper()
	o := &office{replica: newReplica(t, store, changes...)}
	s := o.Sessions()
	post := func(path string, f func(w http.ResponseWriter, r *http.Request, c *sessiontoken.Claims[state]) error) {
		o.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			c, err := s.Check(w, r)
			if err == nil || errors.Is(err, sessionhttp.ErrNoSession) || path == "/session/admin" {
				err = f(w, r, c)
			}
			if err != nil {
				s.Refuse(w, r, err)
			}
		})
	}
	as := func(c *sessiontoken.Claims[state]) sessiontoken.Start {
		return sessiontoken.Start{Subject: "ada", Actor: &sessiontoken.Actor{Subject: c.Subject, SessionID: c.SessionID, Began: c.Began}}
	}
	post("/session/admin", func(w http.ResponseWriter, r *http.Request, _ *sessiontoken.Claims[state]) error {
		_, err := s.SignIn(w, r, sessiontoken.Start{Subject: "root", Groups: []sessiontoken.Group{adminGroup}}, state{"Root", "admin"})
		return err
	})
	post("/session/act", func(w http.ResponseWriter, r *http.Request, c *sessiontoken.Claims[state]) error {
		if c == nil {
			return sessionhttp.ErrNoSession
		}
		_, err := s.SignIn(w, r, as(c), state{"Ada", "guest"})
		return err
	})
	post("/session/act-on", func(w http.ResponseWriter, r *http.Request, c *sessiontoken.Claims[state]) error {
		_, err := s.SignIn(w, r, sessiontoken.Start{Subject: "bob", Actor: c.Actor()}, state{"Bob", "guest"})
		return err
	})
	post("/act-native", func(w http.ResponseWriter, r *http.Request, c *sessiontoken.Claims[state]) error {
		tokens, err := s.SignInNative(r, sessionhttp.Device{ClientID: "app"}, as(c), state{"Ada", "guest"})
		if err == nil {
			err = json.MarshalWrite(w, tokens)
		}
		return err
	})
	post("/session/everywhere", func(w http.ResponseWriter, r *http.Request, _ *sessiontoken.Claims[state]) error {
		return s.SignOutEverywhere(w, r)
	})
	post("/session/others", func(w http.ResponseWriter, r *http.Request, _ *sessiontoken.Claims[state]) error {
		return s.SignOutOthers(w, r)
	})
	post("/update", func(w http.ResponseWriter, r *http.Request, _ *sessiontoken.Claims[state]) error {
		_, err := s.Update(w, r, func(*state) error { return nil })
		return err
	})
	see := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { o.seen, _ = s.FromContext(r.Context()) })
	o.mux.Handle("GET /who", s.Require(see))
	o.mux.Handle("POST /pay", s.RequireFresh(time.Hour, see))
	o.mux.Handle("GET /live", s.Require(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		l, err := s.Live(t.Context(), c, sessionhttp.LiveOptions{})
		require.NoError(t, err)
		t.Cleanup(l.Stop)
		o.lives = append(o.lives, l)
	})))
	return o
}

// twoOffices are two replicas with Run on one store, and an admin's browser.
func twoOffices(t *testing.T, changes ...func(*authority.Config[state])) (a, b *office, admin browser) {
	t.Helper()
	store := authority.Memory()
	a, b = newOffice(t, store, changes...), newOffice(t, store, changes...)
	a.run(t)
	b.run(t)
	time.Sleep(2 * time.Second)
	admin = browser{}
	require.Equal(t, 200, admin.status(a.replica, "POST", "/session/admin"))
	require.Len(t, admin, 3)
	return a, b, admin
}

// TestRevokingTheActor: whatever revokes the session of an admin ends, on every
// replica within the list's bound, the sessions in which the admin acts for a
// user, with a cookie, with a token and as an open connection.
func TestRevokingTheActor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		revoke func(ctx context.Context, t *testing.T, at *office, admin browser, c *sessiontoken.Claims[state])
		all    bool // the user's own sessions end too
	}{
		{"signed out", func(_ context.Context, t *testing.T, at *office, admin browser, _ *sessiontoken.Claims[state]) {
			require.Equal(t, 200, admin.status(at.replica, "POST", "/session/sign-out"))
		}, false},
		{"signed out everywhere", func(_ context.Context, t *testing.T, at *office, admin browser, _ *sessiontoken.Claims[state]) {
			require.Equal(t, 200, admin.status(at.replica, "POST", "/session/everywhere"))
		}, false},
		{"signed out from another device", func(_ context.Context, t *testing.T, at *office, _ browser, _ *sessiontoken.Claims[state]) {
			other := browser{}
			require.Equal(t, 200, other.status(at.replica, "POST", "/session/admin"))
			require.Equal(t, 200, other.status(at.replica, "POST", "/session/others"))
			require.Equal(t, 200, other.status(at.replica, "GET", "/who"))
		}, false},
		{"signed in again", func(_ context.Context, t *testing.T, at *office, admin browser, _ *sessiontoken.Claims[state]) {
			require.Equal(t, 200, admin.status(at.replica, "POST", "/session/admin"))
		}, false},
		{"the session", func(ctx context.Context, t *testing.T, at *office, _ browser, c *sessiontoken.Claims[state]) {
			require.NoError(t, at.Revocations().RevokeSession(ctx, c.SessionID))
		}, false},
		{"the subject", func(ctx context.Context, t *testing.T, at *office, _ browser, c *sessiontoken.Claims[state]) {
			require.NoError(t, at.Revocations().RevokeSubject(ctx, c.Subject))
		}, false},
		{"the group", func(ctx context.Context, t *testing.T, at *office, _ browser, _ *sessiontoken.Claims[state]) {
			require.NoError(t, at.Revocations().RevokeGroup(ctx, string(adminGroup)))
		}, false},
		{"all", func(ctx context.Context, t *testing.T, at *office, _ browser, _ *sessiontoken.Claims[state]) {
			require.NoError(t, at.Revocations().RevokeAll(ctx, time.Now()))
		}, true},
		{"the key", func(ctx context.Context, t *testing.T, at *office, _ browser, c *sessiontoken.Claims[state]) {
			require.NoError(t, at.RevokeKeys(ctx, c.KeyID))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, admin := twoOffices(t)
				require.Equal(t, 200, admin.status(a.replica, "GET", "/who"))
				own := a.seen
				app := tokensOf(t, a.do(withCookies(admin, request("POST", "/act-native"))))
				acting, user := admin.clone(), browser{}
				require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act"))
				require.Equal(t, 200, user.status(b.replica, "POST", "/sign-in"))
				for _, o := range []*office{a, b} {
					require.Equal(t, 200, acting.status(o.replica, "GET", "/live"))
					require.Equal(t, 200, o.status(bearer("/live", app.AccessToken)))
					require.Equal(t, 200, admin.status(o.replica, "GET", "/who"), "the admin's own session goes on")
					require.Equal(t, 200, acting.status(o.replica, "GET", "/who"))
					require.Equal(t, "ada", o.seen.Subject)
					require.Equal(t, &sessiontoken.Actor{Subject: "root", SessionID: own.SessionID, Began: own.Began}, o.seen.Actor())
					require.Len(t, o.lives, 2)
				}
				time.Sleep(time.Second) // after everything that happened so far
				stolen := admin.clone()
				tt.revoke(t.Context(), t, b, admin, own)
				time.Sleep(a.knownWithin())
				for _, o := range []*office{a, b} {
					for _, l := range o.lives {
						require.ErrorIs(t, context.Cause(l), revoke.ErrRevoked)
					}
					for path, method := range map[string]string{"/who": "GET", "/live": "GET", "/renew": "POST", "/update": "POST", "/session/refresh": "POST", "/session/others": "POST", "/session/act": "POST"} {
						require.Equal(t, 401, acting.clone().status(o.replica, method, path), path)
					}
					require.Equal(t, 401, o.status(bearer("/who", app.AccessToken)))
					require.Equal(t, 401, stolen.clone().status(o.replica, "POST", "/session/act"), "the admin acts no more")
					require.Equal(t, map[bool]int{false: 200, true: 401}[tt.all], user.clone().status(o.replica, "GET", "/page"), "the user's own session")
				}
			})
		})
	}
}

// withCookies adds the cookies that a browser sends to a path outside of the
// refresh path.
func withCookies(b browser, r *http.Request) *http.Request {
	for name, value := range b {
		if !strings.HasSuffix(name, "-refresh") {
			r.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	}
	return r
}

// TestRevokingTheActed: what revokes the user ends the session in which an admin
// acts for the user, and not the admin's own. So does the sign-out of it.
func TestRevokingTheActed(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, a *office, acting browser){
		"the subject": func(t *testing.T, a *office, _ browser) {
			require.NoError(t, a.Revocations().RevokeSubject(t.Context(), "ada"))
		},
		"signed out": func(t *testing.T, a *office, acting browser) {
			require.Equal(t, 200, acting.clone().status(a.replica, "POST", "/session/sign-out"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b, admin := twoOffices(t)
				acting := admin.clone()
				require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act"))
				require.Equal(t, 200, acting.status(a.replica, "GET", "/who"))
				end(t, a, acting)
				time.Sleep(a.knownWithin())
				require.Equal(t, 401, acting.status(b.replica, "GET", "/who"))
				require.Equal(t, 200, admin.status(b.replica, "GET", "/who"))
			})
		})
	}
}

// TestActorOfAnActor: a session in which an admin acts is no actor's, by cookie or
// token: what revokes the admin would not end the next session. Its Actor is.
func TestActorOfAnActor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, admin := twoOffices(t)
		app := tokensOf(t, a.do(withCookies(admin, request("POST", "/act-native"))))
		acting := admin.clone()
		require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act"))
		require.Equal(t, 500, acting.clone().status(a.replica, "POST", "/session/act"))
		require.Equal(t, 500, a.status(withCookies(acting, request("POST", "/act-native"))))
		require.Equal(t, 500, a.status(request("POST", "/act-native", "Authorization", "Bearer "+app.AccessToken)))
		require.Equal(t, 200, acting.status(a.replica, "GET", "/who"), "it is not over")

		require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act-on"))
		require.Equal(t, 200, acting.status(b.replica, "GET", "/who"))
		require.Equal(t, "root", b.seen.Actor().Subject)
		require.Equal(t, "bob", b.seen.Subject)
		require.Equal(t, 200, admin.status(b.replica, "POST", "/session/sign-out"))
		time.Sleep(a.knownWithin())
		require.Equal(t, 401, acting.status(a.replica, "GET", "/who"))
	})
}

// TestActingIsNotRefreshed: a session in which an admin acts has no refresh
// token, in a browser or outside, and the browser loses the admin's. It keeps
// its actor over every renewal, and ends for good when it is idle.
func TestActingIsNotRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, admin := twoOffices(t)
		answer := a.do(withCookies(admin, request("POST", "/act-native")))
		var native map[string]any
		require.NoError(t, json.Unmarshal([]byte(body(t, answer)), &native))
		require.NotContains(t, native, "refresh_token")
		require.Contains(t, native, "access_token")

		before := admin.clone()
		require.Equal(t, 200, admin.status(a.replica, "POST", "/session/act"))
		require.Len(t, admin, 1, "the session cookie alone")
		require.Contains(t, admin, cookieName)
		families, err := a.Refresh().List(t.Context(), "ada")
		require.NoError(t, err)
		require.Empty(t, families)

		// The admin's refresh token, kept elsewhere, is good for the admin alone.
		require.Equal(t, 204, before.status(a.replica, "POST", "/session/refresh"))
		require.Equal(t, 200, before.status(a.replica, "GET", "/who"))
		require.Equal(t, "root", a.seen.Subject)
		require.Nil(t, a.seen.Actor())

		require.Equal(t, 200, admin.status(b.replica, "GET", "/who"))
		first := b.seen
		for _, renew := range []struct{ method, path string }{{"GET", "/who"}, {"POST", "/renew"}, {"POST", "/update"}} {
			for range 3 {
				time.Sleep(20 * time.Minute) // past the token's life
				token := admin[cookieName]
				require.Less(t, admin.status(b.replica, renew.method, renew.path), 300, renew.path)
				require.NotEqual(t, token, admin[cookieName], renew.path)
				require.Equal(t, 200, admin.status(a.replica, "GET", "/who"))
				require.Equal(t, []any{first.SessionID, first.Began, first.Actor()}, []any{a.seen.SessionID, a.seen.Began, a.seen.Actor()})
				require.Equal(t, 401, admin.clone().status(a.replica, "POST", "/session/refresh"))
			}
		}
		require.Len(t, admin, 1)
		time.Sleep(time.Hour)
		require.Equal(t, 401, admin.status(a.replica, "GET", "/who"), "idle")
	})
}

// TestActingEndsWithTheActorsSession: however it is renewed, a session in which
// an admin acts is not valid beyond MaxSession after the admin's began; neither
// is an open connection of it.
func TestActingEndsWithTheActorsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, admin := twoOffices(t)
		began := time.Now()
		for time.Since(began) < 23*time.Hour {
			time.Sleep(30 * time.Minute)
			require.Equal(t, 200, admin.status(a.replica, "GET", "/who"))
		}
		acting := admin.clone()
		require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act"))
		require.Equal(t, 200, acting.status(b.replica, "GET", "/live"))
		for time.Since(began) < 24*time.Hour-10*time.Minute {
			time.Sleep(5 * time.Minute)
			require.Equal(t, 200, acting.status(b.replica, "GET", "/who"))
			b.lives[0].Used()
		}
		require.NoError(t, context.Cause(b.lives[0]))
		time.Sleep(10*time.Minute + time.Second)
		require.Equal(t, 401, acting.status(b.replica, "GET", "/who"))
		require.ErrorIs(t, context.Cause(b.lives[0]), sessionhttp.ErrMaxSession)
	})
}

// TestActingIsNoProof: that an admin has signed in says nothing about the user:
// a handler that needs a fresh sign-in refuses the session, by cookie and token.
// A sign-in in its place is of the user who signs in, and revokes it.
func TestActingIsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, admin := twoOffices(t)
		require.Equal(t, 200, admin.status(a.replica, "POST", "/pay"))
		app := tokensOf(t, a.do(withCookies(admin, request("POST", "/act-native"))))
		require.Equal(t, 401, a.status(request("POST", "/pay", "Authorization", "Bearer "+app.AccessToken)))
		acting := admin.clone()
		require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act"))
		resp := acting.ask(a.replica, "POST", "/pay")
		require.Equal(t, 401, resp.StatusCode)
		require.Contains(t, resp.Header.Get("WWW-Authenticate"), "insufficient_user_authentication")
		require.Equal(t, 200, acting.status(a.replica, "GET", "/who"), "it is good for the rest")

		old := acting.clone()
		require.Equal(t, 200, acting.status(a.replica, "POST", "/session/admin"))
		require.Equal(t, 200, acting.status(a.replica, "POST", "/pay"))
		require.Equal(t, "root", a.seen.Subject)
		require.Nil(t, a.seen.Actor())
		time.Sleep(a.knownWithin())
		require.Equal(t, 401, old.status(b.replica, "GET", "/who"))
	})
}

// lines is a log that several goroutines write.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// TestActingIsLogged: each beginning of a session in which an admin acts is one
// line, with both subjects and no token. Other sign-ins are none.
func TestActingIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		a, _, admin := twoOffices(t, func(c *authority.Config[state]) {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
		})
		other := browser{}
		require.Equal(t, 200, other.status(a.replica, "POST", "/session/admin"))
		require.NotContains(t, log.String(), "acting")
		var secrets []string
		for range 3 {
			acting := admin.clone()
			require.Equal(t, 200, acting.status(a.replica, "POST", "/session/act"))
			app := tokensOf(t, a.do(withCookies(admin, request("POST", "/act-native"))))
			secrets = append(secrets, acting[cookieName], app.AccessToken)
		}
		require.Equal(t, 6, strings.Count(log.String(), " acting=root subject=ada "), log.String())
		for _, s := range secrets {
			require.NotContains(t, log.String(), s)
		}
	})
}

// TestActingIsLoggedWithAHost: a Host, which writes few lines of one message for
// all of its tenants, writes each of these.
func TestActingIsLoggedWithAHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		host, err := authority.NewHost(authority.Memory(), nil, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		o := newOffice(t, nil, func(c *authority.Config[state]) {
			c.Host, c.Namespace, c.Logger = host, "tenant 1", nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = host.Run(ctx) }()
		defer func() { cancel(); <-done }()
		time.Sleep(2 * time.Second)
		admin := browser{}
		require.Equal(t, 200, admin.status(o.replica, "POST", "/session/admin"))
		for range 20 {
			require.Equal(t, 200, o.status(withCookies(admin, request("POST", "/act-native"))))
		}
		require.Equal(t, 20, strings.Count(log.String(), ` acting=root subject=ada `), log.String())
	})
}
