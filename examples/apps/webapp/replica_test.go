package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// failing are stores that can be down.
type failing struct {
	refresh.MemStore
	revoked revoke.MemStore
	down    atomic.Bool
}

var errDown = errors.New("the store is down")

func (f *failing) Find(ctx context.Context, namespace, id string) (refresh.Record, error) {
	if f.down.Load() {
		return refresh.Record{}, errDown
	}
	return f.MemStore.Find(ctx, namespace, id)
}

// failingLog is a store of revocations that is down with the others.
type failingLog struct {
	*revoke.MemStore
	down *atomic.Bool
}

func (f failingLog) Append(ctx context.Context, entries ...revoke.Entry) error {
	if f.down.Load() {
		return errDown
	}
	return f.MemStore.Append(ctx, entries...)
}

// one is a replica alone, with stores that can be down, and a user who is signed in.
type one struct {
	*replica
	failing *failing
	cookies []*http.Cookie
}

func newOne(t *testing.T) *one {
	t.Helper()
	shared, err := newShared(t.Context(), issuerName, "memory", filepath.Join(t.TempDir(), "secret"))
	require.NoError(t, err)
	f := new(failing)
	shared.store = struct {
		*keys.MemStore
		*failing
		failingLog
	}{new(keys.MemStore), f, failingLog{&f.revoked, &f.down}}
	r, err := newReplica(t.Context(), "A", shared, time.Minute)
	require.NoError(t, err)
	o := &one{replica: r, failing: f}
	resp := o.post("/sign-in", url.Values{"user": {"ada"}, "password": {"demo"}})
	require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	o.cookies = resp.Cookies()
	return o
}

func (f *failing) List(ctx context.Context, namespace, subject string) ([]refresh.Record, error) {
	if f.down.Load() {
		return nil, errDown
	}
	return f.MemStore.List(ctx, namespace, subject)
}

func (f failingLog) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	if f.down.Load() {
		return revoke.Page{}, errDown
	}
	return f.MemStore.Since(ctx, cursor)
}

func (o *one) post(path string, form url.Values) *http.Response { return o.ask("POST", path, form) }

func (o *one) ask(method, path string, form url.Values) *http.Response {
	req := httptest.NewRequest(method, "https://app.example"+path, strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range o.cookies {
		req.AddCookie(c)
	}
	w := httptest.NewRecorder()
	o.routes().ServeHTTP(w, req)
	return w.Result()
}

// A device that is not there is 404. A store that is down is 503: the device may
// be signed in still.
func TestEndDeviceTellsNoneFromDown(t *testing.T) {
	o := newOne(t)
	devices, err := o.authority.Refresh().List(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, devices, 1)
	device := url.Values{"id": {devices[0].ID}}
	none := url.Values{"id": {strings.Repeat("A", len(devices[0].ID))}}

	require.Equal(t, 404, o.post("/devices/end", none).StatusCode)
	require.Equal(t, 404, o.post("/devices/end", url.Values{"id": {"x"}}).StatusCode)
	o.failing.down.Store(true)
	require.Equal(t, 503, o.post("/devices/end", none).StatusCode)
	require.Equal(t, 503, o.post("/devices/end", device).StatusCode)
	o.failing.down.Store(false)
	require.Equal(t, http.StatusSeeOther, o.post("/devices/end", device).StatusCode)
	require.Equal(t, 401, o.post("/api/page-tokens", nil).StatusCode, "which was this one")
}

// A store that is down decides nothing: what needs it is 503, and never 404 or 401;
// what does not goes on. When nothing is known any more, all of it is 503, until the
// store is back.
func TestStoreThatIsDownIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOne(t)
		time.Sleep(time.Second)
		o.failing.down.Store(true)
		require.Equal(t, 503, o.ask("GET", "/", nil).StatusCode, "the list of devices")
		require.Equal(t, 200, o.ask("GET", "/api/me", nil).StatusCode)
		require.Equal(t, 200, o.post("/api/page-tokens", nil).StatusCode)
		time.Sleep(45 * time.Second)
		for _, path := range []string{"/api/page-tokens", "/devices/end", "/note", "/session/sign-out"} {
			resp := o.post(path, url.Values{"id": {"x"}})
			require.Equal(t, 503, resp.StatusCode, path)
			require.Empty(t, resp.Cookies(), path)
		}
		require.Equal(t, 503, o.ask("GET", "/api/me", nil).StatusCode)
		o.failing.down.Store(false)
		time.Sleep(20 * time.Second)
		require.Equal(t, 401, o.ask("GET", "/api/me", nil).StatusCode, "the sign-out was owed, and is written")
	})
}

// The tokens for the page have the state of now, and not that of the session's
// token; for a user who is blocked there are none.
func TestPageTokensHaveTheStateOfNow(t *testing.T) {
	o := newOne(t)
	roles := func() (all [][]string) {
		resp := o.post("/api/page-tokens", nil)
		require.Equal(t, 200, resp.StatusCode)
		var tokens []string
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&tokens))
		for _, token := range tokens {
			payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
			require.NoError(t, err)
			var claims struct{ State struct{ Roles []string } }
			require.NoError(t, json.Unmarshal(payload, &claims))
			all = append(all, claims.State.Roles)
		}
		return all
	}
	for _, r := range roles() {
		require.Equal(t, []string{"author", "editor"}, r)
	}
	o.shared.mu.Lock()
	o.shared.users["ada"].Roles = []string{"reader"}
	o.shared.mu.Unlock()
	now := roles()
	require.Len(t, now, 4)
	for _, r := range now {
		require.Equal(t, []string{"reader"}, r)
	}
	o.shared.mu.Lock()
	o.shared.users["ada"].Blocked = true
	o.shared.mu.Unlock()
	require.Equal(t, 401, o.post("/api/page-tokens", nil).StatusCode)
}
