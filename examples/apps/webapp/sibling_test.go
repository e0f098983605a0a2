package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// sibling is a site at app.a.example with an attacker at evil.a.example, who has
// an account of their own: grace. To a browser the two are one site.
type sibling struct {
	server  *httptest.Server
	port    string
	sockets atomic.Int64 // upgrades that reached a handler of the site
	planted atomic.Pointer[[]string]
	page    atomic.Pointer[string]
}

func (s *sibling) app() string  { return "https://app.a.example:" + s.port }
func (s *sibling) evil() string { return "https://evil.a.example:" + s.port }

func newSibling(t *testing.T) *sibling {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	dir := t.TempDir()
	shared, err := newShared(ctx, issuerName, "sqlite:"+filepath.Join(dir, "webapp.db"), filepath.Join(dir, "secret"))
	require.NoError(t, err)
	t.Cleanup(shared.close)
	replica, err := newReplica(ctx, "A", shared, time.Minute)
	require.NoError(t, err)
	s := new(sibling)
	app := http.NewServeMux()
	app.Handle("/", replica.routes())
	app.Handle("/socket", replica.sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.sockets.Add(1)
		w.WriteHeader(http.StatusNoContent)
	})))
	evil := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cookies := s.planted.Load(); cookies != nil {
			for _, c := range *cookies {
				w.Header().Add("Set-Cookie", c)
			}
		}
		w.Header().Set("Content-Type", "text/html")
		if page := s.page.Load(); page != nil {
			_, _ = fmt.Fprint(w, *page)
		}
	})
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "evil.") {
			evil.ServeHTTP(w, r)
			return
		}
		app.ServeHTTP(w, r)
	}))
	t.Cleanup(s.server.Close)
	at, err := url.Parse(s.server.URL)
	require.NoError(t, err)
	s.port = at.Port()
	return s
}

// credentials are the cookies that the attacker's own sign-in brings, with their
// paths, as the site set them.
func (s *sibling) credentials(t *testing.T) []*http.Cookie {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext:     s.server.Client().Transport.(*http.Transport).DialContext,
	}}
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.server.URL+"/sign-in", strings.NewReader("user=grace&password=demo"))
	require.NoError(t, err)
	req.Host = "app.a.example:" + s.port
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusSeeOther, resp.StatusCode)
	require.GreaterOrEqual(t, len(resp.Cookies()), 3, "session, refresh token and binder")
	return resp.Cookies()
}

// neighbour is a browser in which *.a.example is the test's server.
func neighbour(t *testing.T) context.Context {
	t.Helper()
	bin := chromium(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.NoSandbox,
		chromedp.Flag("host-resolver-rules", "MAP *.a.example 127.0.0.1"), chromedp.Flag("ignore-certificate-errors", true))
	alloc, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	do(t, ctx)
	return ctx
}

func (s *sibling) visitEvil(t *testing.T, ctx context.Context, page string) {
	t.Helper()
	s.page.Store(&page)
	do(t, ctx, chromedp.Navigate(s.evil()+"/"))
}

// who is the user whom the site takes the browser for; empty if it takes it for
// no one.
func (s *sibling) who(t *testing.T, ctx context.Context) string {
	t.Helper()
	var body string
	do(t, ctx, chromedp.Navigate(s.app()+"/style.css"),
		chromedp.Evaluate(`fetch("/api/me").then(r => r.ok ? r.text() : "")`, &body, awaited))
	if body == "" {
		return ""
	}
	var me struct{ Subject string }
	require.NoError(t, json.Unmarshal([]byte(body), &me))
	return me.Subject
}

// refresh asks for a new session as the site's own page does.
func (s *sibling) refresh(t *testing.T, ctx context.Context) int {
	t.Helper()
	do(t, ctx, chromedp.Navigate(s.app()+"/style.css"))
	return status(t, ctx, "POST", "/session/refresh")
}

// TestSiblingPlantsCookies: a host of the same site sets every cookie of ours for
// the whole domain, with the values of its own sign-in, on the paths that count.
func TestSiblingPlantsCookies(t *testing.T) {
	s, ctx := newSibling(t), neighbour(t)
	var planted []string
	for _, c := range s.credentials(t) {
		for _, name := range []string{c.Name, strings.Replace(c.Name, "__Host-", "__Secure-", 1), strings.TrimPrefix(strings.TrimPrefix(c.Name, "__Host-"), "__Secure-")} {
			for _, path := range []string{c.Path, "/", "/session/", "/session", "/api"} {
				planted = append(planted, fmt.Sprintf("%s=%s; Domain=a.example; Path=%s; Secure; HttpOnly; SameSite=Strict", name, c.Value, path))
			}
		}
	}
	s.planted.Store(&planted)
	const page = `<title>evil</title><script>
		for (const name of ["__Host-session", "__Secure-session", "session"]) document.cookie = name + "=x; Domain=a.example; Path=/; Secure";
	</script>`

	// Before the victim has signed in.
	s.visitEvil(t, ctx, page)
	require.Empty(t, s.who(t, ctx), "nobody is signed in as the attacker")
	require.NotEqual(t, http.StatusNoContent, s.refresh(t, ctx), "the page's own refresh does not become the attacker's session")
	require.Empty(t, s.who(t, ctx))

	// The victim signs in all the same, and stays who they are.
	signIn(t, ctx, s.app(), "ada")
	require.Equal(t, "ada", s.who(t, ctx))
	require.Equal(t, http.StatusNoContent, s.refresh(t, ctx), "planted cookies do not keep the genuine one from counting")
	require.Equal(t, "ada", s.who(t, ctx))

	// After it.
	s.visitEvil(t, ctx, page)
	require.Equal(t, "ada", s.who(t, ctx))
	require.Equal(t, http.StatusNoContent, s.refresh(t, ctx))
	require.Equal(t, "ada", s.who(t, ctx))

	// The browser was closed: the refresh token brings back the victim's session.
	do(t, ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		return network.DeleteCookies("__Host-session").WithURL(s.app()).Do(ctx)
	}))
	s.visitEvil(t, ctx, page)
	require.Empty(t, s.who(t, ctx))
	require.Equal(t, http.StatusNoContent, s.refresh(t, ctx))
	require.Equal(t, "ada", s.who(t, ctx))

	// And a sign-out signs out.
	do(t, ctx, chromedp.Navigate(s.app()+"/"), chromedp.WaitVisible("#session"), chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	s.visitEvil(t, ctx, page)
	require.NotEqual(t, http.StatusNoContent, s.refresh(t, ctx))
	require.Empty(t, s.who(t, ctx))
}

// TestSiblingOpensSockets: a WebSocket carries the user's cookie, whatever page
// opens it.
func TestSiblingOpensSockets(t *testing.T) {
	s, ctx := newSibling(t), neighbour(t)
	signIn(t, ctx, s.app(), "ada")
	s.visitEvil(t, ctx, `<title>evil</title>`)
	var said string
	open := fmt.Sprintf(`new Promise(done => {
		const ws = new WebSocket("wss://app.a.example:%s/socket");
		ws.onopen = () => done("open"); ws.onerror = () => done("error");
	})`, s.port)
	do(t, ctx, chromedp.Evaluate(open, &said, awaited))
	require.Equal(t, "error", said)
	require.Zero(t, s.sockets.Load(), "the handler of the socket ran")

	// The site's own page reaches it.
	do(t, ctx, chromedp.Navigate(s.app()+"/style.css"), chromedp.Evaluate(open, &said, awaited))
	require.Equal(t, int64(1), s.sockets.Load())
}

// TestSiblingPostsAndFrames: forms, fetches and frames of a sibling's page carry
// the user's cookie too, for it is the same site.
func TestSiblingPostsAndFrames(t *testing.T) {
	s, ctx := newSibling(t), neighbour(t)
	signIn(t, ctx, s.app(), "ada")
	for _, to := range []string{"/note", "/session/sign-out", "/session/sign-out-everywhere", "/session/refresh", "/sign-in", "/devices/end"} {
		s.visitEvil(t, ctx, fmt.Sprintf(`<title>evil</title><form method="post" action="%s%s"><input name="note" value="pwned"><input name="user" value="grace"><input name="password" value="demo"><button id="go">Win</button></form>`, s.app(), to))
		answer := make(chan int64, 8)
		listen, cancel := context.WithCancel(ctx)
		chromedp.ListenTarget(listen, func(ev any) {
			if e, ok := ev.(*network.EventResponseReceived); ok && e.Type == network.ResourceTypeDocument && strings.HasSuffix(e.Response.URL, to) {
				answer <- e.Response.Status
			}
		})
		do(t, ctx, network.Enable(), chromedp.Click("#go"))
		select {
		case code := <-answer:
			require.Equal(t, int64(http.StatusForbidden), code, to)
		case <-time.After(20 * time.Second):
			t.Fatal("no answer for " + to)
		}
		cancel()
		require.Equal(t, "ada", s.who(t, ctx), to)
	}

	// A fetch can be sent and not read; a frame can be tried and not entered.
	s.visitEvil(t, ctx, fmt.Sprintf(`<title>evil</title><iframe id="f" src="%s/"></iframe>`, s.app()))
	var read string
	do(t, ctx, chromedp.Evaluate(fmt.Sprintf(`fetch("%s/api/me", {credentials: "include"}).then(r => r.text(), e => "refused")`, s.app()), &read, awaited))
	require.Equal(t, "refused", read)
	var changed string
	do(t, ctx, chromedp.Evaluate(fmt.Sprintf(`fetch("%s/note", {method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({note: "pwned"})}).then(r => r.type, e => "refused")`, s.app()), &changed, awaited))
	var framed string
	do(t, ctx, chromedp.Evaluate(`(() => { try { return document.getElementById("f").contentDocument === null ? "closed" : document.getElementById("f").contentDocument.body.innerText } catch (e) { return "closed" } })()`, &framed))
	require.NotContains(t, framed, "Ada")
	var note string
	do(t, ctx, chromedp.Navigate(s.app()+"/"), chromedp.WaitVisible("#session"), chromedp.Value("#note", &note))
	require.Empty(t, note)
}
