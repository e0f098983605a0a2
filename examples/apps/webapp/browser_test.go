package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// ttl is short, so that the tests see tokens expire in real time, as a browser
// does.
const ttl = 4 * time.Second

// issuerName is the issuer of tests that do not start the whole site.
const issuerName = "http://localhost"

// site starts the program on a port of its own.
func site(t *testing.T) string {
	t.Helper()
	return start(t, ttl, newSite)
}

// start starts a site on a port of its own.
func start(t *testing.T, ttl time.Duration, newSite func(context.Context, *shared, time.Duration) (http.Handler, error)) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan string, 1)
	failed := make(chan error, 1)
	store := os.Getenv("SESSIONTOKEN_WEBAPP_STORE")
	if store == "" { // the default, in a folder of its own
		store = "sqlite:" + filepath.Join(t.TempDir(), "webapp.db")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	go func() {
		failed <- run(ctx, "localhost:0", ttl, store, secret, newSite, func(url string) { ready <- url })
	}()
	select {
	case u := <-ready:
		t.Cleanup(func() { // before its folder goes
			cancel()
			require.NoError(t, <-failed)
		})
		return u
	case err := <-failed:
		cancel()
		require.NoError(t, err)
		return ""
	}
}

// chromium returns the path of the browser. Without one the test is left out,
// unless CI is set.
func chromium(t *testing.T) string {
	t.Helper()
	var bin string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			bin = path
			break
		}
	}
	if bin == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("Chromium is not installed")
		}
		t.Skip("NOT RUN: Chromium is not installed")
	}
	return bin
}

// chrome is the Chromium of all tests that need no flags of their own.
var chrome struct {
	once  sync.Once
	ctx   context.Context
	err   error
	close []func()
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, end := range slices.Backward(chrome.close) {
		end()
	}
	os.Exit(code)
}

// browser is a window that shares no cookies with those of other tests.
func browser(t *testing.T) context.Context {
	t.Helper()
	bin := chromium(t)
	chrome.once.Do(func() {
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.NoSandbox,
			chromedp.WindowSize(1180, 860), chromedp.Flag("lang", "en"))
		alloc, end := chromedp.NewExecAllocator(context.Background(), options...)
		chrome.close = append(chrome.close, end)
		chrome.ctx, end = chromedp.NewContext(alloc)
		chrome.close = append(chrome.close, end)
		chrome.err = chromedp.Run(chrome.ctx) // starts it
	})
	require.NoError(t, chrome.err)
	ctx, cancel := context.WithTimeout(window(t, chrome.ctx), 5*time.Minute)
	t.Cleanup(cancel)
	do(t, ctx)
	return ctx
}

// window is a window of its own in a browser, for another user: it shares no
// cookies with the others.
func window(t *testing.T, ctx context.Context) context.Context {
	t.Helper()
	var own cdp.BrowserContextID
	do(t, ctx, inBrowser(func(ctx context.Context) (err error) {
		own, err = target.CreateBrowserContext().Do(ctx)
		return err
	}))
	t.Cleanup(func() {
		do(t, chrome.ctx, inBrowser(func(ctx context.Context) error { return target.DisposeBrowserContext(own).Do(ctx) }))
	})
	return attach(t, ctx, target.CreateTarget("about:blank").WithBrowserContextID(own).WithNewWindow(true))
}

// tab is another tab of the same window.
func tab(t *testing.T, ctx context.Context) context.Context {
	t.Helper()
	var own cdp.BrowserContextID
	do(t, ctx, inBrowser(func(b context.Context) error {
		info, err := target.GetTargetInfo().WithTargetID(chromedp.FromContext(ctx).Target.TargetID).Do(b)
		if err == nil {
			own = info.BrowserContextID
		}
		return err
	}))
	return attach(t, ctx, target.CreateTarget("about:blank").WithBrowserContextID(own))
}

func attach(t *testing.T, ctx context.Context, how *target.CreateTargetParams) context.Context {
	t.Helper()
	var id target.ID
	do(t, ctx, inBrowser(func(ctx context.Context) (err error) {
		id, err = how.Do(ctx)
		return err
	}))
	other, cancel := chromedp.NewContext(ctx, chromedp.WithTargetID(id))
	t.Cleanup(cancel)
	return other
}

// inBrowser is a command to the browser, not to a page.
func inBrowser(f func(context.Context) error) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		return f(cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser))
	})
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	require.NoError(t, chromedp.Run(ctx, actions...))
}

// picture keeps a screenshot where SESSIONTOKEN_SCREENSHOTS says.
func picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("SESSIONTOKEN_SCREENSHOTS")
	if dir == "" {
		return
	}
	var png []byte
	do(t, ctx, chromedp.FullScreenshot(&png, 100))
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644))
}

func signIn(t *testing.T, ctx context.Context, site, user string) {
	t.Helper()
	// The first page sends us to the sign-in page. A replica that does not know yet
	// that the session before has ended still shows it.
	for there := false; !there; {
		do(t, ctx, chromedp.Navigate(site+"/"), chromedp.Evaluate(`document.querySelector("#password") !== null`, &there))
	}
	do(t, ctx,
		chromedp.WaitVisible("#password"),
		chromedp.SendKeys("#user", user+"\t"),
		chromedp.SendKeys("#password", "demo\r"), // keyboard alone
		chromedp.WaitVisible("#session"),
	)
}

func text(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	var s string
	do(t, ctx, chromedp.Text(selector, &s, chromedp.ByQuery))
	return s
}

// becomes waits until an element of the page has a text, while the page itself
// may still be changing.
func becomes(t *testing.T, ctx context.Context, selector, want string) {
	t.Helper()
	var got string
	js := fmt.Sprintf(`(document.querySelector(%q) || {}).innerText || ""`, selector)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err := chromedp.Run(ctx, chromedp.Evaluate(js, &got)); err == nil && got == want {
			return
		}
	}
	require.Equal(t, want, got)
}

func cookies(t *testing.T, ctx context.Context, site string) []*network.Cookie {
	t.Helper()
	var list []*network.Cookie
	do(t, ctx, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		list, err = network.GetCookies().WithURLs([]string{site}).Do(ctx)
		return err
	}))
	return list
}

// cookie returns one of them, or nil.
func cookie(t *testing.T, ctx context.Context, site, name string) *network.Cookie {
	t.Helper()
	for _, c := range cookies(t, ctx, site) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// status fetches a path from within the page, as its script would.
func status(t *testing.T, ctx context.Context, method, path string) int {
	t.Helper()
	var code int
	js := fmt.Sprintf(`fetch(%q, {method: %q, redirect: "manual"}).then(r => r.status)`, path, method)
	do(t, ctx, chromedp.Evaluate(js, &code, awaited))
	return code
}

func TestBrowser(t *testing.T) {
	site, ctx := site(t), browser(t)
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#password"))
	do(t, ctx, chromedp.SendKeys("#user", "ada"), chromedp.SendKeys("#password", "wrong\r"), chromedp.WaitVisible(".problem"))
	require.Empty(t, cookies(t, ctx, site))

	signIn(t, ctx, site, "ada")
	session := text(t, ctx, "#session")
	require.Len(t, cookies(t, ctx, site), 2, "the session, and the binder of the refresh token")
	for _, name := range []string{"__Host-session", "__Host-session-binder"} {
		c := cookie(t, ctx, site, name)
		require.NotNil(t, c, name)
		require.True(t, c.HTTPOnly && c.Secure)
		require.Equal(t, "/", c.Path)
		require.Equal(t, "localhost", c.Domain)
	}
	c := cookie(t, ctx, site, "__Host-session")
	require.True(t, c.Session)
	require.Equal(t, network.CookieSameSiteLax, c.SameSite)
	var visible string
	do(t, ctx, chromedp.Evaluate("document.cookie", &visible))
	require.Empty(t, visible, "no script sees it")

	// It is renewed while its user writes, across its expiry; the session stays.
	first, long := c.Value, strings.Repeat("A long text. ", 200)
	require.Eventually(t, func() bool {
		do(t, ctx, chromedp.SendKeys("#note", "A"))
		return cookie(t, ctx, site, "__Host-session").Value != first
	}, time.Minute, 200*time.Millisecond)
	do(t, ctx, chromedp.SetValue("#note", long), chromedp.Sleep(ttl+time.Second), chromedp.Submit("#note"), chromedp.WaitVisible("#saved"))
	becomes(t, ctx, "#session", session) // the form survives

	// Parallel tabs, all of which come with a cookie that has expired.
	do(t, ctx, chromedp.Navigate("about:blank"), chromedp.Sleep(ttl+time.Second))
	do(t, ctx, chromedp.Navigate(site+"/style.css"))
	var codes []int
	do(t, ctx, chromedp.Evaluate(`Promise.all(Array.from({length: 50}, () => fetch("/api/me").then(r => r.status)))`, &codes, awaited))
	require.Len(t, codes, 50)
	for _, code := range codes {
		require.Equal(t, 200, code)
	}
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#session"))
	becomes(t, ctx, "#session", session)

	// The browser verifies the session itself, for each algorithm.
	do(t, ctx, chromedp.Navigate(site+"/verify"), chromedp.WaitVisible("#summary.good, #summary.problem", chromedp.ByQuery))
	becomes(t, ctx, "#summary", "4 of 4 verified in this browser")

	// The browser was closed: the session's cookie is gone, and the refresh token
	// brings the same session back.
	do(t, ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		return network.DeleteCookies("__Host-session").WithURL(site).Do(ctx)
	}))
	require.Nil(t, cookie(t, ctx, site, "__Host-session"))
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#session"))
	becomes(t, ctx, "#session", session)
	resumed := cookies(t, ctx, site+"/session/")
	require.Len(t, resumed, 3)
	for _, c := range resumed {
		require.True(t, c.HTTPOnly && c.Secure, c.Name)
	}

	// A sign-out is one.
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#session"), chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	require.Equal(t, 401, status(t, ctx, "GET", "/api/me"))
	require.Empty(t, cookies(t, ctx, site))
}

func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// Devices are told apart, this one is marked, and the others can be ended.
func TestDevices(t *testing.T) {
	site := site(t)
	laptop := browser(t)
	phone := window(t, laptop)
	do(t, phone, emulation.SetUserAgentOverride(iPhone))
	signIn(t, laptop, site, "ada")
	signIn(t, phone, site, "ada")
	do(t, laptop, chromedp.Reload(), chromedp.WaitVisible("#devices"))
	becomes(t, laptop, "#devices", "Signed in on 2 devices")
	for _, device := range []struct {
		ctx         context.Context
		this, other string
	}{{laptop, "Chrome on Linux", "Safari on iPhone"}, {phone, "Safari on iPhone", "Chrome on Linux"}} {
		becomes(t, device.ctx, ".rows li:first-child b", device.this)
		becomes(t, device.ctx, ".rows li:first-child .tag", "this one")
		becomes(t, device.ctx, ".rows li:last-child b", device.other)
		holds(t, device.ctx, `document.querySelectorAll(".rows .tag").length === 1`)
	}
	do(t, laptop, chromedp.Click(`//li[.//b="Safari on iPhone"]//button`))
	becomes(t, laptop, "#devices", "Signed in on 1 device")
	do(t, phone, chromedp.WaitVisible("#gone"))
	signIn(t, phone, site, "ada")
	do(t, laptop, chromedp.Click("#everywhere"), chromedp.WaitVisible("#password"))
	do(t, phone, chromedp.WaitVisible("#gone"))
}

// A page of another site posts to ours with the user's cookie, or would.
func TestCrossSitePost(t *testing.T) {
	site, ctx := site(t), browser(t)
	signIn(t, ctx, site, "ada")
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<title>evil</title><form method="post" action="%s%s"><input name="note" value="pwned"><input name="user" value="grace"><input name="password" value="demo"><button id="go">Win</button></form>`,
			site, r.URL.Query().Get("to"))
	}))
	defer evil.Close() // on 127.0.0.1: another site than localhost
	for _, to := range []string{"/note", "/session/sign-out", "/session/sign-out-everywhere", "/sign-in", "/devices/end"} {
		answer := make(chan int64, 8)
		listen, cancel := context.WithCancel(ctx)
		chromedp.ListenTarget(listen, func(ev any) {
			if e, ok := ev.(*network.EventResponseReceived); ok && e.Type == network.ResourceTypeDocument && strings.HasSuffix(e.Response.URL, to) {
				answer <- e.Response.Status
			}
		})
		do(t, ctx, network.Enable(), chromedp.Navigate(evil.URL+"/?to="+url.QueryEscape(to)), chromedp.Click("#go"))
		select {
		case code := <-answer:
			// SameSite=Lax keeps the cookie away (401), and what comes without one
			// is refused by its origin (403).
			require.Contains(t, []int64{401, 403}, code, to)
		case <-time.After(10 * time.Second):
			t.Fatal("no answer for " + to)
		}
		cancel()
	}
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#session"))
	becomes(t, ctx, "#subject", "ada") // still signed in, as herself
	var note string
	do(t, ctx, chromedp.Value("#note", &note))
	require.Empty(t, note)
}

// A native client keeps no cookies.
func TestNativeClient(t *testing.T) {
	site := site(t)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	post := func(path string, form url.Values) (int, sessionhttp.Tokens) {
		resp, err := client.PostForm(site+path, form)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Empty(t, resp.Header["Set-Cookie"])
		var tokens sessionhttp.Tokens
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		_ = json.Unmarshal(body, &tokens)
		return resp.StatusCode, tokens
	}
	me := func(token string) int {
		req, err := http.NewRequest("GET", site+"/api/me", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	code, tokens := post("/native/sign-in", url.Values{"user": {"ada"}, "password": {"demo"}})
	require.Equal(t, 200, code)
	require.Equal(t, 200, me(tokens.AccessToken))
	require.Eventually(t, func() bool { return me(tokens.AccessToken) == 401 }, 2*ttl, 200*time.Millisecond, "it expires")
	grant := func(token string) url.Values {
		return url.Values{"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {token}}
	}
	code, next := post("/native/token", grant(tokens.RefreshToken))
	require.Equal(t, 200, code)
	require.Equal(t, 200, me(next.AccessToken))
	code, again := post("/native/token", grant(tokens.RefreshToken))
	require.Equal(t, 200, code, "a lost answer")
	require.Equal(t, next.RefreshToken, again.RefreshToken)
	code, third := post("/native/token", grant(next.RefreshToken))
	require.Equal(t, 200, code)
	code, _ = post("/native/token", grant(tokens.RefreshToken))
	require.Equal(t, 400, code, "used before, and not the last one")
	code, _ = post("/native/token", grant(third.RefreshToken))
	require.Equal(t, 400, code, "so the family is over")
	require.Eventually(t, func() bool { return me(third.AccessToken) == 401 }, 2*time.Second, 50*time.Millisecond, "and its session")
}

// The same with curl, as somebody else's client.
func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") == "" {
		t.Skip("NOT RUN: curl is not installed")
	}
	site := site(t)
	curl := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "-w", "\n%{http_code}"}, args...)...).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	out := curl("-d", "user=grace", "-d", "password=demo", site+"/native/sign-in")
	body, _, _ := strings.Cut(out, "\n")
	var tokens sessionhttp.Tokens
	require.NoError(t, json.Unmarshal([]byte(body), &tokens), out)
	require.Contains(t, curl("-H", "Authorization: Bearer "+tokens.AccessToken, site+"/api/me"), `"name":"Grace Hopper"`)
	require.True(t, strings.HasSuffix(curl("-d", "grant_type=refresh_token", "-d", "client_id=app", "-d", "refresh_token="+tokens.RefreshToken, site+"/native/token"), "\n200"))
	require.True(t, strings.HasSuffix(curl("-H", "Authorization: Bearer "+tokens.AccessToken, "-X", "POST", site+"/session/sign-out"), "\n303"))
	require.Eventually(t, func() bool {
		return strings.HasSuffix(curl("-H", "Authorization: Bearer "+tokens.AccessToken, site+"/api/me"), "\n401")
	}, 3*time.Second, 50*time.Millisecond, "on one replica at once, on the other within a second")
}

// A browser drops a cookie of more than 4096 bytes without a word. SignIn says so
// before; up to there, every cookie that it sets is one that the browser keeps.
func TestLargestCookie(t *testing.T) {
	ctx := browser(t)
	ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
	require.NoError(t, err)
	revocations, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	require.NoError(t, err)
	issuer, err := sessiontoken.NewIssuer[string](sessiontoken.IssuerConfig{Issuer: issuerName, Audience: []string{audience}, Keys: ring, MaxBytes: 8000, Revocations: revocations})
	require.NoError(t, err)
	verifier, err := sessiontoken.NewVerifier[string](sessiontoken.VerifierConfig{Issuer: issuerName, Audience: audience, Keys: ring, Revocations: revocations})
	require.NoError(t, err)
	sessions, err := sessionhttp.New(sessionhttp.Config[string]{
		Verifier: verifier, Issuer: issuer, Revocations: revocations,
		Load: func(_ context.Context, old *sessiontoken.Claims[string]) (string, error) { return old.State, nil },
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/in/{bytes}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.PathValue("bytes"))
		if _, err := sessions.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, strings.Repeat("x", n)); err != nil {
			_, _ = io.WriteString(w, "refused")
		}
	})
	mux.Handle("/me", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := sessions.FromContext(r.Context())
		_, _ = fmt.Fprint(w, len(c.State))
	})))
	serving, cancel := context.WithCancel(context.Background())
	defer cancel()
	at, err := serve(serving, "localhost:0", mux)
	require.NoError(t, err)
	origin := "http://localhost:" + at.Port()

	largest := 0
	for n := 2680; ; n++ {
		require.Less(t, n, 2800, "no size was refused")
		var said, kept string
		do(t, ctx, chromedp.Navigate(fmt.Sprintf("%s/in/%d", origin, n)), chromedp.Evaluate("document.body.innerText", &said))
		if said == "refused" {
			break
		}
		do(t, ctx, chromedp.Navigate(origin+"/me"), chromedp.Evaluate("document.body.innerText", &kept))
		require.Equal(t, strconv.Itoa(n), kept, "the browser dropped the cookie")
		c := cookies(t, ctx, origin)[0]
		largest = len(c.Name) + len(c.Value)
	}
	require.GreaterOrEqual(t, largest, 4094)
	t.Logf("the browser kept %d bytes", largest)
}
