package sessionhttp_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// frameworks are ways in which routers wrap a response writer: what our
// middleware is given, and what the handler has, are not the same.
var frameworks = map[string]func(middleware func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler{
	"net/http": func(m func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler { return m(h) },
	"the handler keeps the first writer": func(m func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler { // gin's adapter
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { h(w, r) })).ServeHTTP(w, r)
		})
	},
	"the handler has a writer of its own": func(m func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler { // echo, chi's middleware
		return m(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(struct{ http.ResponseWriter }{w}, r) }))
	},
	"both": func(m func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			own := struct{ http.ResponseWriter }{w}
			m(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { h(own, r) })).ServeHTTP(own, r)
		})
	},
	"http.TimeoutHandler": func(m func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler {
		return http.TimeoutHandler(m(h), time.Minute, "")
	},
	"a recorder that is copied": func(m func(http.Handler) http.Handler, h http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			m(h).ServeHTTP(rec, r)
			maps.Copy(w.Header(), rec.Header())
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
		})
	},
}

// Nothing that sets a cookie of ours can be cached, whatever the handler says and
// through whatever writer, over HTTP/1.1 and HTTP/2; and every answer varies by
// what its request was judged by.
func TestCookieIsNeverCached(t *testing.T) {
	for name, wrap := range frameworks {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			r := s.local()
			public := func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Cache-Control", "public, max-age=600")
				w.Header().Set("Vary", "Accept-Encoding")
				w.WriteHeader(200)
				_, _ = io.WriteString(w, "body")
			}
			after := func(f func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
				return func(w http.ResponseWriter, req *http.Request) {
					if err := f(w, req); err != nil {
						r.Refuse(w, req, err)
						return
					}
					public(w, req)
				}
			}
			bare := func(h http.Handler) http.Handler { return h }
			mux := http.NewServeMux()
			mux.Handle("/public", wrap(r.Require, public))
			mux.Handle("/optional", wrap(r.Optional, public))
			mux.Handle("/in", wrap(bare, after(func(w http.ResponseWriter, req *http.Request) error {
				_, err := r.SignIn(w, req, ada, state{})
				return err
			})))
			mux.Handle("/out", wrap(bare, after(r.SignOut)))
			mux.Handle("/says/nothing", wrap(r.Require, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "body") }))
			server := httptest.NewUnstartedServer(mux)
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			first := server.Client().Transport.(*http.Transport)
			second := first.Clone()
			first = first.Clone()
			first.ForceAttemptHTTP2 = false
			first.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
			first.TLSClientConfig.NextProtos = []string{"http/1.1"}
			for _, tt := range []struct {
				major     int
				transport *http.Transport
			}{{1, first}, {2, second}} {
				do := func(method, path, cookie string) *http.Response {
					req, err := http.NewRequest(method, server.URL+path, nil)
					require.NoError(t, err)
					if cookie != "" {
						req.Header.Set("Cookie", "__Host-session="+cookie)
					}
					resp, err := tt.transport.RoundTrip(req)
					require.NoError(t, err)
					defer resp.Body.Close()
					require.Equal(t, tt.major, resp.ProtoMajor)
					require.Equal(t, 200, resp.StatusCode)
					return resp
				}
				resp := do("POST", "/in", "")
				require.Contains(t, held(resp, "Cache-Control"), "no-store")
				require.Len(t, resp.Cookies(), 1)
				cookie := resp.Cookies()[0].Value
				resp = do("GET", "/says/nothing", cookie)
				require.Empty(t, resp.Cookies())
				require.Equal(t, "private, no-store", held(resp, "Cache-Control"))
				require.Contains(t, held(resp, "Vary"), "Cookie, Authorization")
				cookie = s.dueCookie(t)
				for _, path := range []string{"/public", "/optional"} {
					resp = do("GET", path, cookie)
					require.Len(t, resp.Cookies(), 1, "renewed")
					require.Contains(t, held(resp, "Cache-Control"), "no-store")
					require.Contains(t, held(resp, "Vary"), "Cookie, Authorization")
				}
				resp = do("POST", "/out", cookie)
				require.Equal(t, -1, resp.Cookies()[0].MaxAge)
				require.Contains(t, held(resp, "Cache-Control"), "no-store")
				resp = do("GET", "/optional", "")
				require.Equal(t, "public, max-age=600", held(resp, "Cache-Control"), "the handler's own business")
				require.Contains(t, held(resp, "Vary"), "Cookie, Authorization")
			}
		})
	}
}

func TestAnswersArePrivate(t *testing.T) {
	r := newSite(t).replica()
	cookie := r.signIn(t)
	for _, tt := range []struct {
		name string
		req  *http.Request
	}{
		{"cookie", request("GET", "/who", cookie)},
		{"bearer", request("GET", "/who", "", bearer(cookie)...)},
		{"anonymous", request("GET", "/maybe", "")},
		{"refused", request("GET", "/who", "")},
	} {
		resp := r.do(tt.req)
		require.Contains(t, held(resp, "Cache-Control"), "no-store", tt.name)
		require.Contains(t, resp.Header.Get("Vary"), "Cookie, Authorization", tt.name)
		require.Contains(t, held(resp, "Vary"), "Cookie, Authorization", tt.name)
	}
}

// Two Sessions of one state type, one around the other, give each handler its
// own session.
func TestEachSessionsHasItsOwnContext(t *testing.T) {
	user := newSite(t).replica()
	admin := newSite(t).replica(func(c *sessionhttp.Config[state]) { c.CookieName = "admin" })
	cookie := user.signIn(t)
	for _, wrap := range []func(http.Handler) http.Handler{
		func(h http.Handler) http.Handler { return user.Optional(admin.Optional(h)) },
		func(h http.Handler) http.Handler { return admin.Optional(user.Optional(h)) },
	} {
		w := httptest.NewRecorder()
		wrap(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			_, ok := user.FromContext(req.Context())
			require.True(t, ok)
			_, ok = admin.FromContext(req.Context())
			require.False(t, ok, "no admin")
		})).ServeHTTP(w, request("GET", "/", cookie))
		require.Len(t, w.Header()["Vary"], 1)
	}
}

// What the writer can do behind Require is what it can do without it, also when a
// cookie is renewed: a WebSocket library takes the connection from it.
func TestHijackAfterRenewal(t *testing.T) {
	s := newSite(t)
	r := s.local()
	server := httptest.NewServer(r.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		require.Implements(t, (*http.Flusher)(nil), w)
		set := w.Header()["Set-Cookie"]
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nSet-Cookie: "+set[0]+"\r\n\r\n")
	})))
	defer server.Close()
	cookie := s.dueCookie(t)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: __Host-session="+cookie+"\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, 101, resp.StatusCode)
	require.Len(t, resp.Cookies(), 1)

	w := &plain{header: http.Header{}}
	r.Require(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, can := w.(http.Hijacker)
		require.False(t, can, "only what the underlying writer can")
	})).ServeHTTP(w, request("GET", "/", cookie))
}

// plain is a writer that can do nothing else.
type plain struct{ header http.Header }

func (p *plain) Header() http.Header         { return p.header }
func (p *plain) Write(b []byte) (int, error) { return len(b), nil }
func (p *plain) WriteHeader(int)             {}
