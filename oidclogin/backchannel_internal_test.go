package oidclogin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

var errStoreDown = errors.New("the store is down")

// countingStore counts the entries that were written, and can be down. It has a
// birth, as every store but a MemStore of one process.
type countingStore struct {
	mem         revoke.MemStore
	down        atomic.Bool // all of it
	writesDown  atomic.Bool
	refuseAfter atomic.Int64 // entries; 0: none are refused
	appended    atomic.Int64 // calls of Append that succeeded
}

func (s *countingStore) Append(ctx context.Context, entries ...revoke.Entry) error {
	if s.down.Load() || s.writesDown.Load() {
		return errStoreDown
	}
	if n := s.refuseAfter.Load(); n > 0 && int64(len(s.entries())) >= n {
		return errStoreDown
	}
	s.appended.Add(1)
	return s.mem.Append(ctx, entries...)
}

func (s *countingStore) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if s.down.Load() {
		return revoke.Page{}, errStoreDown
	}
	return s.mem.Since(ctx, cursor)
}

func (s *countingStore) Wait(ctx context.Context, cursor string) error { return errors.ErrUnsupported }

// entries returns what the store holds, but for births.
func (s *countingStore) entries() []revoke.Entry {
	p, err := s.mem.Since(context.Background(), "")
	if err != nil {
		panic(err)
	}
	var out []revoke.Entry
	for _, e := range p.Entries {
		if e.Scope != revoke.Birth {
			out = append(out, e)
		}
	}
	return out
}

// replica is one server of a site: a list, an issuer and a handler of logout
// tokens.
type replica struct {
	list    *revoke.List
	issuer  *sessiontoken.Issuer[struct{}]
	handler *logoutReceiver
	log     *bytes.Buffer
}

// siteKey is the signing key of all replicas of all tests.
var siteKey = sync.OnceValue(func() *keys.Static {
	key, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		panic(err)
	}
	s, err := keys.NewStatic(key)
	if err != nil {
		panic(err)
	}
	return s
})

func newReplica(t *testing.T, store revoke.Store, change ...func(*revoke.Config)) *replica {
	t.Helper()
	cfg := revoke.Config{Store: store, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	list, err := revoke.NewList(cfg)
	require.NoError(t, err)
	issuer, err := sessiontoken.NewIssuer[struct{}](sessiontoken.IssuerConfig{
		Issuer: "https://site.example", Audience: []string{"https://site.example"}, Keys: siteKey(), Revocations: list,
		MaxSession: cfg.MaxSession,
	})
	require.NoError(t, err)
	log := new(bytes.Buffer)
	h := &logoutReceiver{
		provider: func(context.Context) (oidc.KeySet, logoutRules, error) {
			r := rulesOfLogout()
			r.now = time.Time{}
			return opKeySet(), r, nil
		},
		revocations: list, counted: new(counters), loud: loud.New(slog.New(slog.NewTextHandler(log, nil))), clock: clock.Here(),
	}
	return &replica{list, issuer, h, log}
}

// run runs the list until the test ends.
func (r *replica) run(t *testing.T) *replica {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = r.list.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	synctest.Wait()
	return r
}

// post sends a logout token as a provider does.
func (r *replica) post(t *testing.T, raw string) *httptest.ResponseRecorder {
	t.Helper()
	return r.postBody(t, "application/x-www-form-urlencoded", url.Values{"logout_token": {raw}}.Encode())
}

func (r *replica) postBody(t *testing.T, contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://site.example/oidc/backchannel-logout", strings.NewReader(body))
	req.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	return w
}

// begin begins a session as a login with these claims does.
func (r *replica) begin(t *testing.T, sub, sid string, earliest time.Time) (revoke.Question, error) {
	t.Helper()
	s := withSubject(startOf(&idToken{issuer: opIssuer, subject: sub, sessionID: sid}, earliest, time.Now()))
	_, claims, err := r.issuer.Begin(t.Context(), s, struct{}{})
	if err != nil {
		return revoke.Question{}, err
	}
	return claims.Question(), nil
}

// began is begin of a login that must succeed.
func (r *replica) began(t *testing.T, sub, sid string) revoke.Question {
	t.Helper()
	q, err := r.begin(t, sub, sid, time.Time{})
	require.NoError(t, err)
	return q
}

func (r *replica) revoked(t *testing.T, q revoke.Question) bool {
	t.Helper()
	err := r.list.Check(t.Context(), &q)
	if err != revoke.ErrRevoked {
		require.NoError(t, err)
	}
	return err != nil
}

// logoutNow returns a logout token that was made now.
func logoutNow(changes members) string {
	now := time.Now().Unix()
	timed := members{"iat": now, "exp": now + 120}
	maps.Copy(timed, changes)
	return logoutRaw(timed)
}

func TestBackChannelLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		a, b := newReplica(t, s).run(t), newReplica(t, s).run(t)
		time.Sleep(time.Hour)
		q := func(sub, sid string) revoke.Question { return a.began(t, sub, sid) }
		one, other, without, stranger := q("ada", "p1"), q("ada", "p2"), q("ada", ""), q("bob", "p3")
		require.Empty(t, s.entries(), "a login writes nothing")
		time.Sleep(time.Second)

		w := b.post(t, logoutNow(members{"sub": "ada", "sid": "p1"}))
		require.Equal(t, http.StatusOK, w.Code)
		require.Empty(t, w.Body.String())
		time.Sleep(time.Second) // the bound on the others
		for _, r := range []*replica{a, b} {
			require.True(t, r.revoked(t, one))
			for _, q := range []revoke.Question{other, without, stranger} {
				require.False(t, r.revoked(t, q))
			}
		}
		require.Len(t, s.entries(), 2, "the session, and the token")

		w = a.post(t, logoutNow(members{"jti": "logout-2", "sub": "ada", "sid": nil}))
		require.Equal(t, http.StatusOK, w.Code)
		time.Sleep(time.Second)
		for _, r := range []*replica{a, b} {
			for _, q := range []revoke.Question{one, other, without} {
				require.True(t, r.revoked(t, q))
			}
			require.False(t, r.revoked(t, stranger))
		}
		require.Len(t, s.entries(), 4)
		require.Empty(t, a.log.String()+b.log.String())

		again := a.began(t, "ada", "p1")
		require.False(t, a.revoked(t, again), "a login after the logout, with the provider's same session")
	})
}

// A token that was received once writes nothing, at any replica, until it is too
// old to be accepted: a session that began since is not revoked.
func TestReplayedLogoutToken(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*revoke.Config)
	}{
		{"the defaults", func(*revoke.Config) {}},
		{"sessions of a second", func(c *revoke.Config) { c.MaxSession = time.Second }},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(countingStore)
				a, b := newReplica(t, s, c.change).run(t), newReplica(t, s, c.change).run(t)
				time.Sleep(time.Minute)
				ahead := time.Now().Add(maxAhead).Unix() // the provider's clock is as far ahead as it may be
				raw := logoutRaw(members{"iat": ahead, "exp": ahead + 3600})
				require.Equal(t, http.StatusOK, a.post(t, raw).Code)
				require.Len(t, s.entries(), 2)
				written := s.appended.Load()

				q := a.began(t, opSubject, opSession)
				require.Equal(t, http.StatusOK, b.post(t, raw).Code)
				require.Equal(t, written, s.appended.Load(), "b has not read the store by itself")
				require.False(t, a.revoked(t, q))
				refused := time.Time{}
				for i := 0; refused.IsZero() && i < 100; i++ {
					time.Sleep(10 * time.Second)
					for _, r := range []*replica{a, b, newReplica(t, s, c.change)} {
						switch code := r.post(t, raw).Code; code {
						case http.StatusBadRequest:
							refused = time.Now()
						default:
							require.Equal(t, http.StatusOK, code)
						}
					}
					require.Equal(t, written, s.appended.Load(), "nothing is written")
				}
				require.False(t, refused.IsZero(), "not for ever")
				require.WithinDuration(t, time.Unix(ahead, 0).Add(maxLogoutAge), refused, 11*time.Second)

				now := time.Now().Unix()
				require.Equal(t, http.StatusOK, a.post(t, logoutRaw(members{"iat": now, "exp": now + 120, "jti": "another"})).Code)
				require.Greater(t, len(s.entries()), 1, "another token is none that was received")
			})
		})
	}
}

// A token that comes many times at once ends what had begun by then, and nothing
// that begins when all have been answered.
func TestLogoutTokenManyTimesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		site := []*replica{newReplica(t, s).run(t), newReplica(t, s).run(t)}
		time.Sleep(time.Minute)
		q := site[0].began(t, opSubject, opSession)
		raw := logoutNow(nil)
		codes := make([]int, 10)
		var sending sync.WaitGroup
		for i := range codes {
			sending.Go(func() { codes[i] = site[i%2].post(t, raw).Code })
		}
		sending.Wait()
		for _, code := range codes {
			require.Equal(t, http.StatusOK, code)
		}
		n := len(s.entries())
		require.LessOrEqual(t, n, 2*len(codes))
		later := site[1].began(t, opSubject, opSession)
		for i, r := range site {
			require.Equal(t, http.StatusOK, r.post(t, raw).Code)
			time.Sleep(time.Second)
			require.True(t, r.revoked(t, q), i)
			require.False(t, r.revoked(t, later), i)
		}
		require.Len(t, s.entries(), n, "nothing is written")
	})
}

// What revokes every session says nothing about a logout token.
func TestLogoutAfterAllWereRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		a := newReplica(t, s).run(t)
		time.Sleep(time.Hour)
		now, err := a.list.Now(t.Context())
		require.NoError(t, err)
		require.NoError(t, a.list.RevokeAll(t.Context(), now))
		time.Sleep(time.Second)
		q := a.began(t, opSubject, opSession)
		raw := logoutNow(nil)
		require.Equal(t, http.StatusOK, a.post(t, raw).Code)
		require.True(t, a.revoked(t, q))
		require.Len(t, s.entries(), 3)

		time.Sleep(time.Second)
		now, err = a.list.Now(t.Context())
		require.NoError(t, err)
		require.NoError(t, a.list.RevokeAll(t.Context(), now))
		q = a.began(t, opSubject, opSession)
		require.Equal(t, http.StatusOK, a.post(t, raw).Code)
		require.False(t, a.revoked(t, q), "a replay")
		require.Len(t, s.entries(), 4)
	})
}

// A store that was empty a moment ago has no effect on a logout.
func TestLogoutAtBirth(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, 11 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(countingStore)
				a := newReplica(t, s).run(t)
				time.Sleep(after)
				q := a.began(t, opSubject, opSession)
				raw := logoutNow(nil)
				require.Equal(t, http.StatusOK, a.post(t, raw).Code)
				require.True(t, a.revoked(t, q))
				require.Len(t, s.entries(), 2)
				require.Equal(t, http.StatusOK, a.post(t, raw).Code)
				require.Len(t, s.entries(), 2, "a replay")
			})
		})
	}
}

// A login that began before the logout does not end in a session after it. One
// that begins again does.
func TestLogoutDuringALogin(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes members
	}{
		{"of the provider's session", nil},
		{"of the subject", members{"sid": nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(countingStore)
				a, b := newReplica(t, s, brief).run(t), newReplica(t, s, brief).run(t)
				time.Sleep(time.Minute)
				earliest, err := a.list.Now(t.Context())
				require.NoError(t, err)
				time.Sleep(10 * time.Second)
				require.Equal(t, http.StatusOK, b.post(t, logoutNow(c.changes)).Code)
				for range 9 {
					_, err = a.begin(t, opSubject, opSession, earliest)
					require.ErrorIs(t, err, sessiontoken.ErrRevoked)
					_, err = a.begin(t, "bob", "p3", earliest)
					require.NoError(t, err, "of another subject")
					time.Sleep(time.Minute)
				}
				earliest, err = a.list.Now(t.Context())
				require.NoError(t, err)
				_, err = a.begin(t, opSubject, opSession, earliest)
				require.NoError(t, err)
			})
		})
	}
}

// brief makes sessions hardly longer than a login may take.
func brief(c *revoke.Config) { c.MaxSession = 12 * time.Minute }

func TestHostileLogoutTokensWriteNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(opNow))
		s := new(countingStore)
		a := newReplica(t, s).run(t)
		q := a.began(t, opSubject, opSession)
		for _, h := range hostileLogoutTokens() {
			w := a.post(t, h.make(logoutMembers(), headerOf(oidc.ES256, "logout+jwt")))
			require.Equal(t, http.StatusBadRequest, w.Code, h.name)
			require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			var body map[string]string
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), h.name)
			require.Equal(t, "invalid_request", body["error"])
			if len(h.claims) == 0 || h.want != errSize {
				require.Equal(t, string(h.want), body["error_description"], h.name)
			}
		}
		for _, h := range hostileIDTokens() {
			if h.want == errType && h.text != nil {
				continue // a logout token that is accepted as one
			}
			require.Equal(t, http.StatusBadRequest, a.post(t, h.make(idClaims(), headerOf(oidc.ES256, "JWT"))).Code, h.name)
		}
		require.Empty(t, s.entries())
		require.False(t, a.revoked(t, q))
		require.Zero(t, a.list.Status().Owed)
		require.NotContains(t, a.log.String(), opSubject)
		require.NotContains(t, a.log.String(), opSession)
		require.NotContains(t, a.log.String(), "eyJ")

		require.Equal(t, http.StatusOK, a.post(t, logoutRaw(nil)).Code, "what the rows change is accepted")
		require.True(t, a.revoked(t, q))
	})
}

// One line a reason and minute.
func TestRefusedLogoutIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(opNow))
		a := newReplica(t, new(countingStore)).run(t)
		for range 5 {
			require.Equal(t, http.StatusBadRequest, a.post(t, logoutRaw(members{"nonce": "n"})).Code)
			require.Equal(t, http.StatusBadRequest, a.post(t, logoutRaw(members{"jti": nil})).Code)
		}
		require.Equal(t, http.StatusOK, a.post(t, logoutRaw(nil)).Code)
		require.Equal(t, 2, strings.Count(a.log.String(), "\n"), a.log.String())
		require.EqualValues(t, 10, a.handler.counted.logoutsRefused.Load())
		require.EqualValues(t, 1, a.handler.counted.logouts.Load())
		require.Contains(t, a.log.String(), string(errHasNonce))
		require.Contains(t, a.log.String(), string(errTokenID))
	})
}

func TestLogoutRequests(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		a := newReplica(t, s).run(t)
		raw := logoutNow(nil)
		good := "logout_token=" + raw
		for _, c := range []struct {
			name, kind, body string
			want             int
		}{
			{"no body", form, "", 400},
			{"no token", form, "token=" + raw, 400},
			{"an empty token", form, "logout_token=", 400},
			{"two tokens", form, good + "&" + good, 400},
			{"not a form", form, good + "&a=%zz", 400},
			{"a semicolon", form, good + ";a=b", 400},
			{"too long", form, good + "&a=" + strings.Repeat("x", maxLogoutBody), 400},
			{"JSON", "application/json", `{"logout_token":"` + raw + `"}`, 400},
			{"a form in JSON's name", "application/json", good, 400},
			{"multipart", "multipart/form-data; boundary=x", good, 400},
			{"text", "text/plain", good, 400},
			{"no type", "", good, 400},
			{"a broken type", form + ";", good + "&", 200},
			{"a charset", form + "; charset=UTF-8", good, 200},
			{"another parameter", form, "a=b&" + good, 200},
		} {
			w := a.postBody(t, c.kind, c.body)
			require.Equal(t, c.want, w.Code, c.name)
			if c.want != 200 {
				require.Empty(t, s.entries(), c.name)
			}
		}
	})
}

func TestLogoutMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		a := newReplica(t, s).run(t)
		raw := logoutNow(nil)
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions, "QUERY"} {
			req := httptest.NewRequestWithContext(t.Context(), method, "/oidc/backchannel-logout?logout_token="+raw, strings.NewReader("logout_token="+raw))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			a.handler.ServeHTTP(w, req)
			require.Equal(t, http.StatusMethodNotAllowed, w.Code)
			require.Equal(t, http.MethodPost, w.Header().Get("Allow"))
			require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oidc/backchannel-logout?logout_token="+raw, nil)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		a.handler.ServeHTTP(w, req)
		require.Equal(t, http.StatusBadRequest, w.Code, "a parameter of the URL does not count")
		require.Empty(t, s.entries())
	})
}

// While the store is down, a logout is 503 and owed: the session is not
// accepted here, and is revoked when the store is back.
func TestLogoutWhileTheStoreIsDown(t *testing.T) {
	for _, c := range []struct {
		name string
		down func(*countingStore) *atomic.Bool
		wait time.Duration // until the logout comes
	}{
		{"writes fail", func(s *countingStore) *atomic.Bool { return &s.writesDown }, 0},
		{"all fails", func(s *countingStore) *atomic.Bool { return &s.down }, 0},
		{"all fails past MaxStale", func(s *countingStore) *atomic.Bool { return &s.down }, time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(countingStore)
				a := newReplica(t, s).run(t)
				time.Sleep(time.Minute)
				q := a.began(t, opSubject, opSession)
				c.down(s).Store(true)
				time.Sleep(c.wait)
				raw := logoutNow(nil)
				w := a.post(t, raw)
				require.Equal(t, http.StatusServiceUnavailable, w.Code)
				require.Equal(t, "1", w.Header().Get("Retry-After"))
				require.Error(t, a.list.Check(t.Context(), &q), "not accepted here")
				require.NotContains(t, w.Body.String(), "store is down")
				require.Equal(t, 1, strings.Count(a.log.String(), "\n"))
				require.EqualValues(t, 1, a.handler.counted.logoutsUnavailable.Load())

				c.down(s).Store(false)
				time.Sleep(10 * time.Second)
				require.True(t, a.revoked(t, q), "without a second try of the provider")
				require.Equal(t, http.StatusOK, a.post(t, raw).Code, "the second try")
				require.Equal(t, http.StatusOK, a.post(t, raw).Code)
				q = a.began(t, opSubject, opSession)
				require.Equal(t, http.StatusOK, a.post(t, raw).Code)
				require.False(t, a.revoked(t, q))
			})
		})
	}
}

// A crash between the two entries loses no logout: the sessions' comes first.
func TestSessionsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		a := newReplica(t, s).run(t)
		time.Sleep(time.Minute)
		q := a.began(t, opSubject, opSession)
		s.refuseAfter.Store(1)
		raw := logoutNow(nil)
		require.Equal(t, http.StatusServiceUnavailable, a.post(t, raw).Code)
		require.True(t, a.revoked(t, q))
		require.Len(t, s.entries(), 1)
		require.Equal(t, revoke.Group.Digest(string(sessionGroup(opIssuer, opSession))), s.entries()[0].Digest)

		q = a.began(t, opSubject, opSession)
		s.refuseAfter.Store(0)
		require.Equal(t, http.StatusOK, a.post(t, raw).Code)
		require.False(t, a.revoked(t, q), "only the token's entry was missing")
		require.Len(t, s.entries(), 2)
		require.Equal(t, revoke.Session.Digest(logoutID(opIssuer, "logout-1")), s.entries()[1].Digest)
	})
}

// A provider that is down is 503, and the token is looked at afterwards.
func TestLogoutWhileTheProviderIsDown(t *testing.T) {
	errOP := fmt.Errorf("%w: no answer", errUnavailable)
	for _, c := range []struct {
		name     string
		provider func(context.Context) (oidc.KeySet, logoutRules, error)
	}{
		{"no metadata", func(context.Context) (oidc.KeySet, logoutRules, error) { return nil, logoutRules{}, errOP }},
		{"no keys", func(context.Context) (oidc.KeySet, logoutRules, error) {
			return failingKeys{errOP}, rulesOfLogout(), nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := new(countingStore)
				a := newReplica(t, s).run(t)
				good := a.handler.provider
				a.handler.provider = c.provider
				raw := logoutNow(nil)
				require.Equal(t, http.StatusServiceUnavailable, a.post(t, raw).Code)
				require.Empty(t, s.entries())
				a.handler.provider = good
				require.Equal(t, http.StatusOK, a.post(t, raw).Code)
				require.Len(t, s.entries(), 2)
			})
		})
	}
}

// The provider does not wait for our sessions, and they do not wait for it: a
// request that ends does not undo the logout.
func TestLogoutOfARequestThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(countingStore)
		a := newReplica(t, s).run(t)
		q := a.began(t, opSubject, opSession)
		ctx, cancel := context.WithCancel(t.Context())
		token, err := verifyLogoutToken(ctx, opKeySet(), logoutRaw(nil), rulesOfLogout())
		require.NoError(t, err)
		cancel()
		require.NoError(t, a.handler.revoke(ctx, token))
		require.True(t, a.revoked(t, q))
		require.Len(t, s.entries(), 2)
	})
}
