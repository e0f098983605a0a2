package live_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/examples/apps/live"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type state struct{}

// store is a store that two authorities share. Revocations may not be written.
type store struct {
	authority.Store
	down atomic.Bool
}

func (s *store) Append(ctx context.Context, entries ...revoke.Entry) error {
	if s.down.Load() {
		return errors.New("the store is down")
	}
	return s.Store.Append(ctx, entries...)
}

// site is two replicas, and a browser that is signed in at both.
type site struct {
	here, elsewhere *httptest.Server
	store           *store
	news            chan string
	browser         *http.Client
}

func newSite(t *testing.T, http2 bool) *site {
	t.Helper()
	s := &site{store: &store{Store: authority.Memory()}, news: make(chan string)}
	replica := func() *httptest.Server {
		a, err := authority.New(authority.Config[state]{
			Issuer: "https://site.example", Audience: []string{"site"}, Store: s.store, Secrets: [][]byte{bytes.Repeat([]byte{7}, 32)},
			Load:   func(context.Context, *sessiontoken.Claims[state]) (state, error) { return state{}, nil },
			Logger: slog.New(slog.DiscardHandler),
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = a.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-done })
		echo := func(subject, message string) string { return subject + ": " + message }
		sessions, mux := a.Sessions(), http.NewServeMux()
		mux.HandleFunc("POST /in", func(w http.ResponseWriter, r *http.Request) {
			if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, state{}); err != nil {
				sessions.Refuse(w, r, err)
			}
		})
		mux.HandleFunc("POST /out", func(w http.ResponseWriter, r *http.Request) {
			if err := sessions.SignOut(w, r); err != nil {
				sessions.Refuse(w, r, err)
			}
		})
		mux.Handle("GET /events", live.Events(sessions, func(context.Context) <-chan string { return s.news }))
		mux.Handle("GET /coder", live.Coder(sessions, echo))
		mux.Handle("GET /gorilla", live.Gorilla(sessions, echo))
		server := httptest.NewUnstartedServer(mux)
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		return server
	}
	s.here, s.elsewhere = replica(), replica()
	s.browser = s.here.Client()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	s.browser.Jar = jar
	require.Equal(t, http.StatusOK, s.post(t, s.here, "/in"))
	return s
}

func (s *site) post(t *testing.T, at *httptest.Server, path string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", at.URL+path, nil)
	require.NoError(t, err)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	browser := *s.browser
	browser.Transport = at.Client().Transport
	resp, err := browser.Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

// end ends the session: by a sign-out at the other replica, or by one here that
// the store does not take.
func (s *site) end(t *testing.T, owed bool) {
	t.Helper()
	if owed {
		s.store.down.Store(true)
		require.Equal(t, http.StatusServiceUnavailable, s.post(t, s.here, "/out"))
		s.store.down.Store(false)
		return
	}
	require.Equal(t, http.StatusOK, s.post(t, s.elsewhere, "/out"))
}

// limit is much longer than a list needs.
const limit = 30 * time.Second

var ends = []struct {
	name string
	owed bool
	code int
	text string
}{
	{"signed out at another replica", false, live.SignedOut, "signed out"},
	{"signed out here, and the store is down", true, live.TryAgainLater, "try again later"},
}

// TestEvents: a stream ends with its session, over HTTP/1.1 and HTTP/2, and its
// last event says why. The browser that connects again is refused.
func TestEvents(t *testing.T) {
	for _, test := range ends {
		for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(test.name+", "+proto, func(t *testing.T) {
				s := newSite(t, proto == "HTTP/2.0")
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				open := func() *http.Response {
					r, err := http.NewRequestWithContext(ctx, "GET", s.here.URL+"/events", nil)
					require.NoError(t, err)
					resp, err := s.browser.Do(r)
					require.NoError(t, err)
					return resp
				}
				resp := open()
				defer resp.Body.Close()
				require.Equal(t, proto, resp.Proto)
				lines := bufio.NewReader(resp.Body)
				next := func() (event string) {
					for {
						line, err := lines.ReadString('\n')
						require.NoError(t, err)
						if line == "\n" {
							return event
						}
						event += line
					}
				}
				require.Equal(t, "event: open\ndata: ada\n", next())
				s.news <- "news"
				require.Equal(t, "event: message\ndata: news\n", next())
				u, err := url.Parse(s.here.URL)
				require.NoError(t, err)
				cookies := s.browser.Jar.Cookies(u)
				s.end(t, test.owed)
				require.Equal(t, "event: end\ndata: "+test.text+"\n", next())
				_, err = lines.ReadByte()
				require.Equal(t, io.EOF, err)
				s.browser.Jar.SetCookies(u, cookies)
				again := open()
				require.NoError(t, again.Body.Close())
				if !test.owed {
					require.Equal(t, http.StatusUnauthorized, again.StatusCode)
				}
			})
		}
	}
}

// TestSockets: a WebSocket of both libraries ends with its session, with a close
// code that says why.
func TestSockets(t *testing.T) {
	for _, test := range ends {
		for _, path := range []string{"/coder", "/gorilla"} {
			t.Run(test.name+", "+path, func(t *testing.T) {
				s := newSite(t, false)
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				conn, _, err := coder.Dial(ctx, s.here.URL+path, &coder.DialOptions{HTTPClient: s.browser, HTTPHeader: http.Header{"Origin": {s.here.URL}}})
				require.NoError(t, err)
				defer func() { _ = conn.CloseNow() }()
				require.NoError(t, conn.Write(ctx, coder.MessageText, []byte("hello")))
				_, message, err := conn.Read(ctx)
				require.NoError(t, err)
				require.Equal(t, "ada: hello", string(message))
				s.end(t, test.owed)
				_, _, err = conn.Read(ctx)
				var closed coder.CloseError
				require.ErrorAs(t, err, &closed)
				require.EqualValues(t, test.code, closed.Code)
				require.Equal(t, test.text, closed.Reason)
			})
		}
	}
}

// TestAnotherOrigin: a page of another origin opens no socket.
func TestAnotherOrigin(t *testing.T) {
	s := newSite(t, false)
	for _, path := range []string{"/coder", "/gorilla"} {
		dialer := gorilla.Dialer{Jar: s.browser.Jar, TLSClientConfig: s.here.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
		address := "wss" + strings.TrimPrefix(s.here.URL, "https") + path
		_, resp, err := dialer.DialContext(t.Context(), address, http.Header{"Origin": {"https://evil.example"}})
		require.ErrorIs(t, err, gorilla.ErrBadHandshake)
		require.Equal(t, http.StatusForbidden, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}
}

// TestReason: each end has a code of its kind.
func TestReason(t *testing.T) {
	for _, test := range []struct {
		why  error
		code int
	}{
		{revoke.ErrRevoked, live.SignedOut},
		{sessionhttp.ErrSessionOver, live.SignedOut},
		{sessionhttp.ErrIdle, live.SignedOut},
		{sessionhttp.ErrMaxSession, live.SignedOut},
		{revoke.ErrChanged, live.Unauthorized},
		{sessiontoken.ErrExpired, live.Unauthorized},
		{sessionhttp.ErrUndecided, live.TryAgainLater},
		{context.Canceled, live.GoingAway},
	} {
		code, text := live.Reason(test.why)
		require.Equal(t, test.code, code, test.why)
		require.NotEmpty(t, text)
	}
}
