package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// opened is a stream that a client reads until it ends.
type opened struct {
	done   chan struct{}
	answer *httptest.ResponseRecorder
	leave  context.CancelFunc
}

// open opens the stream of a user who has signed in, or of a bearer token.
func (o *one) open(t *testing.T, token string) *opened {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &opened{done: make(chan struct{}), answer: httptest.NewRecorder(), leave: cancel}
	req := httptest.NewRequestWithContext(ctx, "GET", "https://app.example/live", nil)
	req.Header.Set("Accept", "text/event-stream")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	} else {
		for _, c := range o.cookies {
			req.AddCookie(c)
		}
	}
	go func() { defer close(s.done); o.routes().ServeHTTP(s.answer, req) }()
	synctest.Wait()
	return s
}

// events waits until the stream has ended, and returns the kind and the data of
// each event.
func (s *opened) events(t *testing.T) (all [][2]string) {
	t.Helper()
	<-s.done
	require.Equal(t, http.StatusOK, s.answer.Code)
	require.Equal(t, "text/event-stream", s.answer.Header().Get("Content-Type"))
	require.Contains(t, s.answer.Header().Get("Cache-Control"), "no-store")
	for block := range strings.SplitSeq(strings.TrimSuffix(s.answer.Body.String(), "\n\n"), "\n\n") {
		if block == ":" {
			continue
		}
		kind, data, ok := strings.Cut(block, "\n")
		require.True(t, ok, block)
		all = append(all, [2]string{strings.TrimPrefix(kind, "event: "), strings.Trim(strings.TrimPrefix(data, "data: "), `"`)})
	}
	return all
}

// A stream begins with the session. Its last event tells why it has ended, as
// soon as that is so.
func TestStreamTellsWhyItEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kind   string // of the last event; empty: none
		why    string
		within time.Duration
		do     func(*testing.T, *one, *opened)
	}{
		{"signed out", "ended", "revoked", 0, func(t *testing.T, o *one, _ *opened) {
			require.Equal(t, http.StatusSeeOther, o.post("/session/sign-out", nil).StatusCode)
		}},
		{"signed out everywhere", "ended", "revoked", 0, func(t *testing.T, o *one, _ *opened) {
			require.Equal(t, http.StatusSeeOther, o.post("/session/sign-out-everywhere", nil).StatusCode)
		}},
		{"ended from the list of devices", "ended", "revoked", 0, func(t *testing.T, o *one, _ *opened) {
			devices, err := o.authority.Refresh().List(t.Context(), "ada")
			require.NoError(t, err)
			require.Equal(t, http.StatusSeeOther, o.post("/devices/end", url.Values{"id": {devices[0].ID}}).StatusCode)
		}},
		{"blocked", "ended", "revoked", time.Minute, func(t *testing.T, o *one, _ *opened) {
			o.shared.mu.Lock()
			defer o.shared.mu.Unlock()
			o.shared.users["ada"].Blocked = true
		}},
		{"not used", "ended", "idle", time.Hour + time.Second, func(*testing.T, *one, *opened) {}},
		{"the store is down", "undecided", "retry", 45 * time.Second, func(_ *testing.T, o *one, _ *opened) {
			o.failing.down.Store(true)
		}},
		{"the client has gone", "", "", 0, func(_ *testing.T, _ *one, s *opened) { s.leave() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOne(t)
				time.Sleep(2 * time.Second)
				s := o.open(t, "")
				began := time.Now()
				tt.do(t, o, s)
				events := s.events(t)
				require.LessOrEqual(t, time.Since(began), tt.within)
				require.Equal(t, "session", events[0][0])
				var session struct {
					Subject string
					Roles   []string
				}
				require.NoError(t, json.Unmarshal([]byte(events[0][1]), &session))
				require.Equal(t, "ada", session.Subject)
				require.Equal(t, []string{"author", "editor"}, session.Roles)
				if tt.kind == "" {
					require.Len(t, events, 1)
					return
				}
				require.Equal(t, [][2]string{{tt.kind, tt.why}}, events[1:])
			})
		})
	}
}

// A state that has changed is sent at once with a mark, and without one when the
// token would be renewed.
func TestStreamHasTheStateOfNow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		mark   bool
		within time.Duration
	}{{"with a mark", true, 3 * time.Second}, {"without a mark", false, time.Minute}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOne(t)
				time.Sleep(2 * time.Second)
				s := o.open(t, "")
				o.shared.mu.Lock()
				o.shared.users["ada"].Roles = []string{"reader"}
				o.shared.mu.Unlock()
				if tt.mark {
					require.NoError(t, o.sessions.Changed(t.Context(), "ada"))
				}
				time.Sleep(tt.within)
				require.Equal(t, http.StatusSeeOther, o.post("/session/sign-out", nil).StatusCode)
				events := s.events(t)
				require.Len(t, events, 3)
				require.Equal(t, "session", events[1][0])
				var session struct{ Roles []string }
				require.NoError(t, json.Unmarshal([]byte(events[1][1]), &session))
				require.Equal(t, []string{"reader"}, session.Roles)
				require.Equal(t, [2]string{"ended", "revoked"}, events[2])
			})
		})
	}
}

// A session that is used all the time ends after a day.
func TestStreamEndsWithTheLongestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOne(t)
		for range 47 { // 23 h 30 min
			time.Sleep(30 * time.Minute)
			resp := o.ask("GET", "/api/me", nil)
			require.Equal(t, 200, resp.StatusCode)
			for _, c := range resp.Cookies() {
				o.cookies = append(slices.DeleteFunc(o.cookies, func(old *http.Cookie) bool { return old.Name == c.Name }), c)
			}
		}
		events := o.open(t, "").events(t)
		require.Equal(t, [][2]string{{"ended", "longest"}}, events[1:])
	})
}

// The stream of a native client ends with its token.
func TestStreamOfANativeClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOne(t)
		var tokens sessionhttp.Tokens
		resp := o.post("/native/sign-in", url.Values{"user": {"ada"}, "password": {"demo"}})
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&tokens))
		events := o.open(t, tokens.AccessToken).events(t)
		require.Equal(t, [][2]string{{"ended", "expired"}}, events[1:])
	})
}

// A stream without a session tells so in an event, since a page sees no status.
// One that cannot be decided is 503.
func TestStreamWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOne(t)
		signedIn := o.cookies
		o.cookies = nil
		require.Equal(t, [][2]string{{"ended", "signed-out"}}, o.open(t, "").events(t))
		o.cookies = signedIn
		o.failing.down.Store(true)
		time.Sleep(45 * time.Second)
		s := o.open(t, "")
		<-s.done
		require.Equal(t, http.StatusServiceUnavailable, s.answer.Code)
	})
}

// Roles are changed by administrators, and not their own. The user's next
// request has them. A mark that was not written is 503, and the same form sets
// it.
func TestSaveRoles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOne(t)
		form := url.Values{"user": {"grace"}, "role": {"editor", "reader", "emperor"}}
		has := func(user string) []string {
			o.shared.mu.Lock()
			defer o.shared.mu.Unlock()
			return o.shared.users[user].Roles
		}
		require.Equal(t, 403, o.ask("GET", "/people", nil).StatusCode)
		require.Equal(t, 403, o.post("/people/roles", form).StatusCode)
		require.Equal(t, []string{"reader"}, has("grace"))

		resp := o.post("/sign-in", url.Values{"user": {"grace"}, "password": {"demo"}})
		require.Equal(t, http.StatusSeeOther, resp.StatusCode)
		grace := resp.Cookies()
		o.cookies = nil
		resp = o.post("/sign-in", url.Values{"user": {"margaret"}, "password": {"demo"}})
		require.Equal(t, http.StatusSeeOther, resp.StatusCode)
		o.cookies = resp.Cookies()
		require.Equal(t, 200, o.ask("GET", "/people", nil).StatusCode)
		require.Equal(t, 403, o.post("/people/roles", url.Values{"user": {"margaret"}}).StatusCode)
		require.Equal(t, 404, o.post("/people/roles", url.Values{"user": {"charles"}}).StatusCode)
		o.failing.down.Store(true)
		require.Equal(t, 503, o.post("/people/roles", form).StatusCode)
		o.failing.down.Store(false)
		time.Sleep(20 * time.Second)
		require.Equal(t, http.StatusSeeOther, o.post("/people/roles", form).StatusCode)
		require.Equal(t, []string{"reader", "editor"}, has("grace"))
		require.Equal(t, []string{"admin"}, has("margaret"))

		o.cookies = grace // her next request
		var me struct{ Roles []string }
		require.NoError(t, json.NewDecoder(o.ask("GET", "/api/me", nil).Body).Decode(&me))
		require.Equal(t, []string{"reader", "editor"}, me.Roles)
	})
}

// A text that is too long is refused, and does not replace the one before.
func TestNoteThatIsTooLong(t *testing.T) {
	o := newOne(t)
	require.Equal(t, http.StatusSeeOther, o.post("/note", url.Values{"note": {"short"}}).StatusCode)
	require.Equal(t, http.StatusRequestEntityTooLarge, o.post("/note", url.Values{"note": {strings.Repeat("x", 1<<20)}}).StatusCode)
	o.shared.mu.Lock()
	defer o.shared.mu.Unlock()
	require.Equal(t, "short", o.shared.users["ada"].Note)
}
