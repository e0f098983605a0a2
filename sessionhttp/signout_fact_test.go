package sessionhttp_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// A sign-out that could not be written is 503 with the cookie kept, and its
// repetition writes it.
func TestFailedSignOutIsRepeated(t *testing.T) {
	for _, path := range []string{"/out", "/everywhere"} {
		for _, native := range []bool{true, false} {
			bubble(t, func(t *testing.T) {
				s := newSite(t)
				a, b := s.month(), s.month()
				tokens, browser := a.native(t), a.browse(t)
				auth := bearer(tokens.AccessToken)
				send := func(r *replica) *http.Response {
					if native {
						return r.do(request("POST", path, "", auth...))
					}
					return r.send(browser, "POST", path)
				}
				s.revoked.down.Store(true)
				for range 3 {
					resp := send(a)
					require.Equal(t, 503, resp.StatusCode)
					require.Empty(t, resp.Cookies(), "kept")
					require.Equal(t, "1", resp.Header.Get("Retry-After"))
				}
				if native {
					require.Equal(t, 503, a.status(request("GET", "/who", "", auth...)), "it is owed")
				} else {
					require.Equal(t, 503, a.send(browser, "GET", "/who").StatusCode)
					require.Equal(t, 503, a.send(browser, "POST", "/in").StatusCode, "neither can the user sign in over it")
				}
				s.revoked.down.Store(false)
				time.Sleep(5 * time.Second)
				old := *browser
				status := send(a).StatusCode
				require.Contains(t, []int{200, 401}, status)
				require.NotZero(t, s.revoked.written.Load())
				time.Sleep(2 * time.Minute)
				if native {
					require.Equal(t, 401, b.status(request("GET", "/who", "", auth...)))
					require.Equal(t, 400, b.status(refreshRequest(grant(tokens.RefreshToken))))
				} else {
					require.Equal(t, 401, b.send(&old, "GET", "/who").StatusCode)
					require.Equal(t, 401, b.send(&old, "POST", "/session/refresh").StatusCode)
				}
			})
		}
	}
}

// A native client whose token has long expired signs out its whole session.
func TestIdleSignOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newSite(t).month()
		tokens := r.native(t)
		time.Sleep(61 * time.Minute)
		require.Equal(t, 200, r.status(request("POST", "/out", "", bearer(tokens.AccessToken)...)))
		require.Equal(t, 400, r.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// A browser of which only the refresh cookie counts signs out that session.
func TestIdleBrowserSignOut(t *testing.T) {
	for _, path := range []string{"/session/out", "/session/everywhere"} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			r := s.month()
			b, other := r.browse(t), r.browse(t)
			old := *b
			time.Sleep(3 * time.Hour) // longer than IdleTimeout
			require.Equal(t, 200, r.send(b, "POST", path).StatusCode)
			require.Equal(t, browser{}, *b)
			time.Sleep(time.Minute)
			require.Equal(t, 401, r.send(&old, "POST", "/session/refresh").StatusCode)
			want := 204
			if path == "/session/everywhere" {
				want = 401
			}
			require.Equal(t, want, r.send(other, "POST", "/session/refresh").StatusCode)
		})
	}
}

// Who leaves does not depend on the state: a replica of a release with another
// state type signs out as well, also everywhere.
func TestSignOutWithAnotherStateType(t *testing.T) {
	for _, path := range []string{"/out", "/everywhere", "/others"} {
		for _, native := range []bool{true, false} {
			bubble(t, func(t *testing.T) {
				s := newSite(t)
				r := s.replica()
				type other struct {
					Name []string `json:"name"`
				}
				issuer, err := sessiontoken.NewIssuer[other](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: s.source})
				require.NoError(t, err)
				time.Sleep(time.Minute)
				elsewhere := r.signIn(t)
				token, _, err := issuer.Issue(t.Context(), "ada", other{[]string{"Ada"}})
				require.NoError(t, err)
				req := request("POST", path, token)
				if native {
					req = request("POST", path, "", bearer(token)...)
				}
				require.Equal(t, 200, r.status(req))
				require.EqualValues(t, 1, s.revoked.written.Load())
				want := 401
				if path == "/out" {
					want = 200
				}
				require.Equal(t, want, r.status(request("GET", "/who", elsewhere)))
				if path != "/others" {
					require.Equal(t, 401, r.status(request("POST", "/everywhere", "", bearer(token)...)))
				}
			})
		}
	}
}

// slowKeys is a key source that may not know a key yet, as a ring of a replica
// that has not read its store.
type slowKeys struct {
	*keys.Static
	unknown, lacks bool
	slow           time.Duration
}

func (k *slowKeys) KeySet(ctx context.Context, kid string) (*keys.Set, error) {
	select {
	case <-time.After(k.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case k.unknown:
		return nil, errDown
	case k.lacks:
		other, err := keys.GenerateKey(keys.EdDSA)
		if err != nil {
			return nil, err
		}
		return keys.NewSet(other.Public())
	}
	return k.Static.KeySet(ctx, kid)
}

func (k *slowKeys) IdentifyKey(ctx context.Context, kid string) (*keys.PublicKey, error) {
	set, err := k.KeySet(ctx, kid)
	if err != nil {
		return nil, err
	}
	key, _ := set.Key(kid)
	return key, nil
}

// As long as it cannot be told whose token it is, a sign-out is 503. A key that
// the store lacks names no session: the cookie goes, and the user can sign in.
func TestSignOutWithAnUnknownKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		source := &slowKeys{Static: s.source}
		r := s.with(func(p *parts) { p.issuer.Keys, p.verifier.Keys = source, source })
		cookie := r.signIn(t)
		source.unknown = true
		for _, path := range []string{"/out", "/in", "/everywhere", "/others", "/who"} {
			resp := r.do(request("POST", path, cookie))
			require.Equal(t, 503, resp.StatusCode, path)
			require.Empty(t, resp.Cookies())
		}
		require.Equal(t, 503, r.status(request("POST", "/out", "", bearer(cookie)...)))
		require.Zero(t, s.revoked.written.Load())
		source.unknown, source.lacks = false, true
		resp := r.do(request("POST", "/who", cookie))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, -1, resp.Cookies()[0].MaxAge, "a cookie of a key that is long gone is removed")
		require.Equal(t, 401, r.status(request("GET", "/who", "", bearer(cookie)...)))
		resp = r.do(request("POST", "/out", cookie))
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, -1, resp.Cookies()[0].MaxAge)
		require.Equal(t, 200, r.status(request("POST", "/in", cookie)))
	})
}

// The token of a machine whose clock is ahead is revoked all the same.
func TestSignOutOfATokenOfTheFuture(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie, _, err := s.elsewhere(2*time.Minute).Issue(t.Context(), "ada", state{})
		require.NoError(t, err)
		require.Equal(t, 401, r.status(request("GET", "/who", cookie)), "not yet")
		require.Equal(t, 200, r.status(request("POST", "/out", cookie)))
		require.EqualValues(t, 1, s.revoked.written.Load())
		time.Sleep(2 * time.Minute)
		require.Equal(t, 401, r.status(request("GET", "/who", cookie)))
	})
}

// A client that goes away while the store, or the key set, takes its time stops
// nothing.
func TestSignOutAndClose(t *testing.T) {
	for _, path := range []string{"/out", "/everywhere", "/others", "/revoke"} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			source := &slowKeys{Static: s.source}
			r := s.with(func(p *parts) { p.issuer.Keys, p.verifier.Keys = source, source })
			cookie := r.signIn(t)
			source.slow = 300 * time.Millisecond
			s.revoked.slow.Store(int64(300 * time.Millisecond))
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			req := request("POST", path, cookie)
			if path == "/revoke" {
				req = formRequest(path, map[string][]string{"token": {cookie}})
			}
			r.mux.ServeHTTP(httptest.NewRecorder(), req.WithContext(ctx))
			time.Sleep(5 * time.Second)
			require.EqualValues(t, 1, s.revoked.written.Load(), path)
		})
	}
}

// A refresh token that is presented again after it was used up ends its session,
// though the client hangs up.
func TestReuseAndClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.month()
		tokens := r.native(t)
		first := tokens.RefreshToken
		for range 3 {
			time.Sleep(time.Hour)
			resp := r.do(refreshRequest(grant(tokens.RefreshToken)))
			require.Equal(t, 200, resp.StatusCode)
			tokens = tokensIn(t, resp)
		}
		s.revoked.slow.Store(int64(300 * time.Millisecond))
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r.mux.ServeHTTP(httptest.NewRecorder(), refreshRequest(grant(first)).WithContext(ctx))
		time.Sleep(time.Second)
		require.EqualValues(t, 1, s.revoked.written.Load())
		require.Equal(t, 400, r.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// A session that Load calls over is refused at once: 503 while its revocation is
// owed, 401 once it is written.
func TestOverMeansOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.month(), s.month()
		cookie, tokens := r.signInCookie(t), r.native(t)
		time.Sleep(3 * time.Minute)
		s.fail(sessionhttp.ErrSessionOver)
		s.revoked.down.Store(true)
		for range 3 {
			require.Equal(t, 503, r.status(request("POST", "/who", cookie)))
			require.Equal(t, 503, r.status(refreshRequest(grant(tokens.RefreshToken))))
		}
		s.revoked.down.Store(false)
		for range 2 { // without Run, it is questions that have the list write what it owes
			time.Sleep(5 * time.Second)
			require.NotEqual(t, 200, r.status(request("POST", "/who", cookie)))
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, 401, r.status(request("POST", "/who", cookie)))
		require.Equal(t, 400, r.status(refreshRequest(grant(tokens.RefreshToken))))
		time.Sleep(time.Minute)
		s.fail(nil)
		require.Equal(t, 401, other.status(request("POST", "/who", cookie)))
		require.Equal(t, 400, other.status(refreshRequest(grant(tokens.RefreshToken))))
	})
}

// One sign-out writes one entry.
func TestOneEntryASignOut(t *testing.T) {
	for _, path := range []string{"/session/out", "/session/everywhere", "/session/others", "native", "revoke"} {
		bubble(t, func(t *testing.T) {
			s := newSite(t)
			r := s.month()
			b, tokens := r.browse(t), r.native(t)
			switch path {
			case "native":
				require.Equal(t, 200, r.status(request("POST", "/out", "", bearer(tokens.AccessToken)...)))
			case "revoke":
				require.Equal(t, 200, r.status(formRequest("/revoke", map[string][]string{"token": {tokens.RefreshToken}, "client_id": {"app"}})))
			default:
				require.Equal(t, 200, r.send(b, "POST", path).StatusCode)
			}
			require.EqualValues(t, 1, s.revoked.written.Load())
		})
	}
}

// After a change of password the user stays signed in here and nowhere else, also
// if all of it happens within one second, and over two replicas.
func TestChangePasswordStaySignedIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.month(), s.month()
		old, elsewhere := r.browse(t), other.browse(t)
		time.Sleep(10*time.Minute + 100*time.Millisecond)
		resp := r.send(old, "POST", "/password")
		require.Equal(t, 200, resp.StatusCode)
		tokens := other.native(t)
		time.Sleep(time.Minute)
		for _, r := range []*replica{r, other} {
			require.Equal(t, 200, r.send(old, "GET", "/who").StatusCode)
			require.Equal(t, 200, r.status(request("GET", "/who", "", bearer(tokens.AccessToken)...)))
			require.Equal(t, 401, r.send(elsewhere, "GET", "/who").StatusCode)
			require.Equal(t, 401, r.send(elsewhere, "POST", "/session/refresh").StatusCode)
		}
	})
	bubble(t, func(t *testing.T) { // everywhere, and in again at once
		s := newSite(t)
		r, other := s.replica(), s.replica()
		for range 20 {
			cookie := r.signIn(t)
			time.Sleep(100 * time.Microsecond)
			require.Equal(t, 200, r.status(request("POST", "/everywhere", cookie)))
			require.Equal(t, 200, r.status(request("GET", "/who", other.signIn(t))))
			require.Equal(t, 401, r.status(request("GET", "/who", cookie)))
		}
	})
}

// SignOutOthers leaves the session of the request alone, whatever else was
// revoked before or after it.
func TestSignOutOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r, other := s.month(), s.month()
		mine, elsewhere, phone := r.browse(t), r.browse(t), r.native(t)
		resp := r.send(mine, "POST", "/others")
		require.Equal(t, 200, resp.StatusCode)
		require.Empty(t, resp.Cookies(), "this one stays")
		time.Sleep(time.Minute)
		for _, r := range []*replica{r, other} {
			require.Equal(t, 200, r.send(mine, "GET", "/who").StatusCode)
			require.Equal(t, 401, r.send(elsewhere, "GET", "/who").StatusCode)
			require.Equal(t, 401, r.send(elsewhere, "POST", "/session/refresh").StatusCode)
			require.Equal(t, 400, r.status(refreshRequest(grant(phone.RefreshToken))))
		}
		require.Equal(t, 204, r.send(mine, "POST", "/session/refresh").StatusCode)
		require.Equal(t, 401, r.send(elsewhere, "POST", "/others").StatusCode, "a session that was revoked revokes no other")
		require.Equal(t, 401, r.send(elsewhere, "POST", "/everywhere").StatusCode)
		require.Equal(t, 200, r.send(mine, "GET", "/who").StatusCode)
		require.Equal(t, 401, r.status(request("POST", "/others", "")))
		require.Equal(t, 200, r.send(mine, "POST", "/out").StatusCode)
	})
}

// What was revoked is not written again when it is signed in over.
func TestSignInOverWhatWasRevoked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		cookie := r.signIn(t)
		require.NoError(t, r.list.RevokeSubject(t.Context(), "ada"))
		require.Equal(t, 200, r.status(request("POST", "/in", cookie)))
		require.EqualValues(t, 1, s.revoked.written.Load())
	})
}

// A late answer to a request with the old cookie does not remove that of a new
// sign-in, neither here nor at the refresh path.
func TestLateAnswerKeepsTheNewSignIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.month()
		b := r.browse(t)
		time.Sleep(4 * time.Minute)
		old := *b
		require.Equal(t, 200, r.send(b, "POST", "/session/in").StatusCode)
		for _, path := range []string{"/who", "/session/refresh", "/session/renew"} {
			resp := r.do(old.request("POST", path))
			require.Equal(t, 401, resp.StatusCode, path)
			require.Empty(t, resp.Cookies(), path)
			b.take(resp)
		}
		require.Equal(t, 200, r.send(b, "GET", "/who").StatusCode)
		require.Equal(t, 204, r.send(b, "POST", "/session/refresh").StatusCode)
	})
}

// A store of revocations that hangs, heeding its context or not, holds no request up
// for more than 5 s.
func TestSignOutWithAHungStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		store := &deaf{MemStore: &s.revoked.MemStore, hang: make(chan struct{})}
		r := s.with(func(p *parts) { p.list.Store = store })
		cookie := r.signIn(t)
		began := time.Now()
		require.Equal(t, 503, r.status(request("POST", "/out", cookie)))
		require.LessOrEqual(t, time.Since(began), 5*time.Second)
		began = time.Now()
		require.Equal(t, 503, r.status(request("GET", "/who", cookie)), "it is owed")
		require.Less(t, time.Since(began), time.Millisecond)
		close(store.hang)
		time.Sleep(time.Minute)
	})
}

// deaf is a store whose writes hang and ignore their context.
type deaf struct {
	*revoke.MemStore
	hang chan struct{}
}

func (d *deaf) Append(ctx context.Context, entries ...revoke.Entry) error {
	for _, e := range entries {
		if e.Scope != revoke.Birth {
			<-d.hang
		}
	}
	return d.MemStore.Append(ctx, entries...)
}

// A sign-out everywhere removes the cookies, so it also revokes what they name of
// other users.
func TestEverywhereRevokesWhatItRemoves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		r := s.replica()
		ada := r.signIn(t)
		bob, _, err := r.issuer.Issue(t.Context(), "bob", state{})
		require.NoError(t, err)
		also, _, err := r.issuer.Issue(t.Context(), "bob", state{})
		require.NoError(t, err)
		require.Equal(t, 200, r.status(request("POST", "/everywhere", ada, bearer(bob)...)))
		for _, cookie := range []string{ada, bob, also} {
			require.Equal(t, 401, r.status(request("GET", "/who", cookie)))
		}
		require.EqualValues(t, 2, s.revoked.written.Load())
	})
}

// A refresh token that nobody used names its session for as long as that can go
// on, on the strength of its cookie: a browser that was closed has nothing else
// to sign out with. It is no session that could sign out others.
func TestIdleRefreshTokenSignsOut(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newSite(t)
		a, b := s.month(func(p *parts) { p.manager.IdleTimeout = time.Hour }), s.month(func(p *parts) { p.manager.IdleTimeout = time.Hour })
		mine := a.browse(t)
		thief := &browser{session: mine.session}
		for range 3 * 60 / 4 { // the cookie is renewed, and the refresh token is not used
			time.Sleep(4 * time.Minute)
			require.Equal(t, 200, b.send(thief, "GET", "/who").StatusCode)
		}
		mine.session = "" // the browser was closed
		require.Equal(t, 401, a.send(mine, "POST", "/session/refresh").StatusCode, "idle for too long")
		for _, path := range []string{"/session/everywhere", "/session/others"} {
			require.Equal(t, 401, a.send(mine, "POST", path).StatusCode, "it reaches its own session only")
		}
		require.Equal(t, 200, a.send(mine, "POST", "/session/out").StatusCode)
		time.Sleep(time.Minute)
		require.Equal(t, 401, b.send(thief, "GET", "/who").StatusCode)
	})
}
