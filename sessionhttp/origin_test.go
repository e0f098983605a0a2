package sessionhttp_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
	"github.com/stretchr/testify/require"
)

func TestCrossSiteRequests(t *testing.T) {
	r := newSite(t).replica(func(c *sessionhttp.Config[state]) { c.TrustedOrigins = []string{"https://app.example"} })
	cookie := r.signIn(t)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} {
		safe := method == "GET" || method == "HEAD" || method == "OPTIONS"
		for _, tt := range []struct {
			header []string
			same   bool
		}{
			{nil, true}, // neither header: not a browser
			{[]string{"Sec-Fetch-Site", "same-origin"}, true},
			{[]string{"Sec-Fetch-Site", "none"}, true},
			{[]string{"Sec-Fetch-Site", "same-site"}, false},
			{[]string{"Sec-Fetch-Site", "cross-site"}, false},
			{[]string{"Sec-Fetch-Site", "else"}, false},
			{[]string{"Origin", "https://a.example"}, true},
			{[]string{"Origin", "https://evil.example"}, false},
			{[]string{"Origin", "null"}, false},
			{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example"}, true},
			{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "http://app.example"}, false},
			{[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://app.example:444"}, false},
		} {
			want := 403
			if safe || tt.same {
				want = 200
			}
			require.Equal(t, want, r.do(request(method, "/who", cookie, tt.header...)).StatusCode, "%s %v", method, tt.header)
			require.Equal(t, 200, r.do(request(method, "/who", "", append(tt.header, "Authorization", "Bearer "+cookie)...)).StatusCode, "a header is no ambient credential")
			if method == "POST" && want == 403 {
				for _, path := range []string{"/in", "/out", "/everywhere"} {
					resp := r.do(request(method, path, cookie, tt.header...))
					require.Equal(t, 403, resp.StatusCode, "%s %v", path, tt.header)
					require.Empty(t, resp.Header["Set-Cookie"])
				}
			}
		}
	}
	require.Equal(t, 200, r.do(request("GET", "/who", cookie)).StatusCode, "none of it signed the user out")
}

// A request to switch protocols is one that can change something: a page of a
// neighbour opens no WebSocket with the user's cookie.
func TestUpgradeChecksTheOrigin(t *testing.T) {
	r := newSite(t).replica()
	cookie := r.signIn(t)
	for _, tt := range []struct {
		name   string
		header []string
		status int
	}{
		{"a neighbour's socket", []string{"Upgrade", "websocket", "Connection", "Upgrade", "Origin", "https://evil.a.example"}, 403},
		{"with Sec-Fetch-Site", []string{"Upgrade", "websocket", "Connection", "Upgrade", "Sec-Fetch-Site", "same-site"}, 403},
		{"Connection alone", []string{"Connection", "keep-alive, Upgrade", "Origin", "https://evil.a.example"}, 403},
		{"Upgrade alone", []string{"Upgrade", "h2c", "Origin", "https://evil.a.example"}, 403},
		{"Origin: null", []string{"Upgrade", "websocket", "Connection", "upgrade", "Origin", "null"}, 403},
		{"our own page's", []string{"Upgrade", "websocket", "Connection", "Upgrade", "Origin", "https://a.example"}, 200},
		{"no browser's", []string{"Upgrade", "websocket", "Connection", "Upgrade"}, 200},
		{"no upgrade", []string{"Connection", "keep-alive", "Origin", "https://evil.a.example"}, 200},
	} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			require.Equal(t, tt.status, r.status(request(method, "/who", cookie, tt.header...)), tt.name)
		}
		require.Equal(t, 200, r.status(request("GET", "/who", "", append(tt.header, bearer(cookie)...)...)), "a header is no ambient credential")
	}
	w := httptest.NewRecorder()
	r.Require(http.NotFoundHandler()).ServeHTTP(w, request("CONNECT", "/who", cookie, "Origin", "https://evil.a.example"))
	require.Equal(t, 403, w.Code, "over HTTP/2")
}

// Signing in and out check the origin whatever the method is.
func TestSignInAndOutCheckTheOriginByEveryMethod(t *testing.T) {
	r := newSite(t).replica()
	cookie := r.signIn(t)
	for _, path := range []string{"/in", "/out", "/everywhere", "/others"} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST"} {
			headers := [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}}
			if method != "POST" {
				headers = append(headers, nil) // a link in a browser of before 2023 looks like that
			}
			for _, header := range headers {
				resp := r.do(request(method, path, cookie, header...))
				require.Equal(t, 403, resp.StatusCode, "%s %s", method, path)
				require.Empty(t, resp.Cookies())
			}
		}
	}
	require.Equal(t, 200, r.status(request("GET", "/who", cookie)))
	require.Equal(t, 200, r.status(request("GET", "/out", "", bearer(cookie)...)), "no browser sends that by itself")
	require.Equal(t, 401, r.status(request("GET", "/who", cookie)))
	require.Equal(t, 200, r.status(request("GET", "/in", "", "Sec-Fetch-Site", "none")), "typed by the user")
	require.Equal(t, 200, r.status(request("GET", "/in", "", "Sec-Fetch-Site", "same-origin")))
}

// A login provider's redirect reaches SignIn only where the handler says so.
func TestCrossSiteCallback(t *testing.T) {
	r := newSite(t).replica()
	r.mux.HandleFunc("/callback", func(w http.ResponseWriter, req *http.Request) {
		if _, err := r.SignIn(w, req, ada, state{}, sessionhttp.InsecureCrossSiteCallback()); err != nil {
			r.Refuse(w, req, err)
		}
	})
	page := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	require.Equal(t, 200, r.status(request("GET", "/callback", "", page...)))
	require.Equal(t, 403, r.status(request("GET", "/in", "", page...)), "not named")
	for _, tt := range []struct {
		name, method string
		header       []string
	}{
		{"a form", "POST", page},
		{"a frame", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}},
		{"an image", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}},
		{"a script", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}},
		{"a socket", "GET", append([]string{"Upgrade", "websocket"}, page...)},
		{"an old browser", "GET", nil},
	} {
		require.Equal(t, 403, r.status(request(tt.method, "/callback", "", tt.header...)), tt.name)
	}
	require.Equal(t, 200, r.status(request("POST", "/callback", "", "Sec-Fetch-Site", "same-origin")))
}

// Without a Host there is nothing to compare an origin with.
func TestOriginWithoutHost(t *testing.T) {
	r := newSite(t).replica()
	cookie := r.signIn(t)
	for _, origin := range []string{"null", "https://evil.example", "https:///", "file://"} {
		req := request("POST", "/who", cookie, "Origin", origin)
		req.Host, req.Proto, req.ProtoMajor, req.ProtoMinor = "", "HTTP/1.0", 1, 0
		require.Equal(t, 403, r.status(req), origin)
	}
	req := request("POST", "/who", cookie)
	req.Host = ""
	require.Equal(t, 200, r.status(req), "not a browser")
}

// Plain http is this machine's own only if peer, Host and Origin are: a proxy
// that sends "Host: 127.0.0.1" does not make the world local.
func TestLocalIsPeerHostAndOrigin(t *testing.T) {
	r := newSite(t).replica()
	for _, tt := range []struct {
		peer, host, origin string
		status             int
	}{
		{"127.0.0.1:5000", "127.0.0.1:8080", "", 200},
		{"[::1]:5000", "localhost:8080", "http://localhost:8080", 200},
		{"[::ffff:127.0.0.1]:5000", "localhost", "", 200},
		{"10.0.0.7:5000", "127.0.0.1:8080", "", 403},
		{"127.0.0.1:5000", "127.0.0.1:8080", "https://a.example", 403},
		{"127.0.0.1:5000", "a.example", "", 403},
		{"@", "localhost", "", 403},
		{"", "localhost", "", 403},
	} {
		for _, path := range []string{"/in", "/native"} {
			req := httptest.NewRequest("POST", path, nil)
			req.Host, req.RemoteAddr = tt.host, tt.peer
			if tt.origin != "" {
				req.Header.Set("Origin", tt.origin)
			}
			if path == "/in" && tt.origin == "https://a.example" {
				req.Header.Set("Sec-Fetch-Site", "same-origin")
			}
			require.Equal(t, tt.status, r.status(req), "%+v", tt)
		}
	}
	tokens := r.native(t)
	req := refreshRequest(grant(tokens.RefreshToken))
	req.TLS = nil
	before := r.Metrics()["sessionhttp_refused_insecure_total"]
	require.Equal(t, 403, r.status(req), "a refresh over plain http")
	require.Equal(t, before+1, r.Metrics()["sessionhttp_refused_insecure_total"])
	require.Equal(t, 200, r.status(refreshRequest(grant(tokens.RefreshToken))), "nothing was used up")
}
