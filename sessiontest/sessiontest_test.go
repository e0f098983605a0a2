package sessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/sessiontoken/sessiontoken/sessiontest"
)

type state struct{ Role string }

var errDown = errors.New("down")

// deadKeys and deadLog are a site's stores, of which a test has none.
type deadKeys struct{ keys.Store }

func (deadKeys) Load(context.Context, string) (keys.Stored, error) {
	return keys.Stored{}, errDown
}

type deadLog struct{ revoke.Store }

func (deadLog) Since(context.Context, string) (revoke.Page, error) { return revoke.Page{}, errDown }
func (deadLog) Append(context.Context, ...revoke.Entry) error      { return errDown }

// newSessions is what a program makes for itself, with stores that are not there.
func newSessions(t testing.TB) *sessionhttp.Sessions[state] {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	ring, err := keys.NewRing(keys.RingConfig{Store: deadKeys{}, InsecureUnsealed: true, Logger: quiet})
	require.NoError(t, err)
	list, err := revoke.NewList(revoke.Config{Store: deadLog{}, Logger: quiet})
	require.NoError(t, err)
	issuer, err := sessiontoken.NewIssuer[state](sessiontoken.IssuerConfig{Issuer: "https://a.example", Audience: []string{"web"}, Keys: ring, Revocations: list})
	require.NoError(t, err)
	verifier, err := sessiontoken.NewVerifier[state](sessiontoken.VerifierConfig{Issuer: "https://a.example", Audience: "web", Keys: ring, Revocations: list})
	require.NoError(t, err)
	s, err := sessionhttp.New(sessionhttp.Config[state]{
		Verifier: verifier, Issuer: issuer, Revocations: list, Logger: quiet,
		Load: func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{}, errDown },
	})
	require.NoError(t, err)
	return s
}

var admin = sessiontoken.Claims[state]{Subject: "ada", SessionID: "s", State: state{Role: "admin"}}

func status(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// Handlers behind Require, Optional, RequireFresh and Check see the claims as the
// test gives them, though neither keys nor stores are there.
func TestWith(t *testing.T) {
	s := newSessions(t)
	seen := func(want sessiontoken.Claims[state]) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c, ok := s.FromContext(r.Context())
			require.True(t, ok)
			require.Equal(t, want, *c)
			c.State.Role = "changed" // of this request alone
		})
	}
	fresh := admin
	fresh.AuthTime = time.Now()
	for _, tt := range []struct {
		name string
		h    http.Handler
		c    sessiontoken.Claims[state]
		want int
	}{
		{"Require", s.Require(seen(admin)), admin, 200},
		{"Optional", s.Optional(seen(admin)), admin, 200},
		{"RequireFresh", s.RequireFresh(time.Minute, seen(fresh)), fresh, 200},
		{"RequireFresh, not known", s.RequireFresh(time.Minute, seen(admin)), admin, 401},
		{"RequireACR, not known", s.RequireACR([]string{"aal2"}, seen(admin)), admin, 401},
		{"the zero value", s.Require(seen(sessiontoken.Claims[state]{})), sessiontoken.Claims[state]{}, 200},
	} {
		for range 2 {
			require.Equal(t, tt.want, status(tt.h, sessiontest.With(s, httptest.NewRequest("POST", "/", nil), tt.c)), tt.name)
		}
	}
	c, err := s.Check(httptest.NewRecorder(), sessiontest.With(s, httptest.NewRequest("GET", "/", nil), admin))
	require.NoError(t, err)
	require.Equal(t, admin, *c)
	w := httptest.NewRecorder()
	s.Require(seen(admin)).ServeHTTP(w, sessiontest.With(s, httptest.NewRequest("GET", "/", nil), admin))
	require.Equal(t, "private, no-store", w.Header().Get("Cache-Control"), "as any answer is")
	require.Equal(t, 403, status(s.Require(seen(admin)), sessiontest.With(s, crossSite(), admin)))
}

func crossSite() *http.Request {
	r := httptest.NewRequest("POST", "/", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	return r
}

// TestLive: a connection of a test's session needs no list, and ends with the
// request.
func TestLive(t *testing.T) {
	s := newSessions(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := sessiontest.With(s, httptest.NewRequest("GET", "/", nil).WithContext(ctx), admin)
	require.Equal(t, 200, status(s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		l, err := s.Live(r.Context(), c, sessionhttp.LiveOptions{})
		require.NoError(t, err)
		l.Used()
		require.NoError(t, l.Err())
		require.Equal(t, "admin", l.Claims().State.Role)
		cancel()
		<-l.Done()
		require.Equal(t, context.Canceled, context.Cause(l))

		_, err = s.Live(t.Context(), c, sessionhttp.LiveOptions{})
		require.Error(t, err, "the context is another one")
	})), r))
}

// It is a session of exactly that Sessions, and of that request.
func TestWithIsForOneSessionsAlone(t *testing.T) {
	s, other := newSessions(t), newSessions(t)
	h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	r := httptest.NewRequest("GET", "/", nil)
	with := sessiontest.With(s, r, admin)
	require.Equal(t, 200, status(s.Require(h), with))
	require.Equal(t, 401, status(other.Require(h), with), "of the same type")
	require.Equal(t, 401, status(s.Require(h), r), "the request itself is as it was")
	_, ok := other.FromContext(with.Context())
	require.False(t, ok)
	both := sessiontest.With(other, with, sessiontoken.Claims[state]{Subject: "grace"})
	c, err := s.Check(httptest.NewRecorder(), both)
	require.NoError(t, err)
	require.Equal(t, "ada", c.Subject)
	c, err = other.Check(httptest.NewRecorder(), both)
	require.NoError(t, err)
	require.Equal(t, "grace", c.Subject)
}

// Nothing that a client sends gives it a session, also in a test binary.
func TestNoRequestGivesItselfASession(t *testing.T) {
	server := httptest.NewServer(newSessions(t).Require(http.NotFoundHandler()))
	defer server.Close()
	r := sessiontest.With(newSessions(t), must(http.NewRequest("GET", server.URL, nil)), admin)
	for _, header := range []string{"", "Authorization", "Cookie", "Sessiontest", "X-Session", "Subject"} {
		if header != "" {
			r.Header.Set(header, fmt.Sprint(admin))
		}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 401, resp.StatusCode, header)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A program that is no test has no use of it: With panics, and package sessionhttp
// has nothing to ask.
func TestOnlyATestCanUseIt(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", "./testdata/program").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, []string{"true", "sessiontest: With is for tests"}, strings.Split(strings.TrimSpace(string(out)), "\n"))
}

// TestClaims: the claims have what only a Start can set.
func TestClaims(t *testing.T) {
	s := newSessions(t)
	actor := &sessiontoken.Actor{Subject: "eve", SessionID: "e", Began: time.Now().Add(-time.Minute).Truncate(time.Millisecond).UTC()}
	c := sessiontest.Claims(t, sessiontoken.Start{
		Subject: "ada", AuthTime: time.Now(), ACR: "gold", AMR: []string{"otp"}, Actor: actor, Context: []byte("tenant 7"),
	}, state{Role: "admin"})
	got, err := s.Check(httptest.NewRecorder(), sessiontest.With(s, httptest.NewRequest("GET", "/", nil), c))
	require.NoError(t, err)
	require.Equal(t, []any{"ada", "gold", []string{"otp"}, actor, []byte("tenant 7"), "admin"},
		[]any{got.Subject, got.ACR(), got.AMR(), got.Actor(), got.Context(), got.State.Role})
	require.NotEmpty(t, got.SessionID)
	require.Equal(t, 200, status(s.RequireFresh(time.Minute, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), sessiontest.With(s, httptest.NewRequest("GET", "/", nil), c)))
}
