package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

const iPhone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"

// holds waits until an expression is true in a page, which may be loading.
func holds(t *testing.T, ctx context.Context, js string) {
	t.Helper()
	require.NoError(t, ctx.Err())
	var got bool
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = chromedp.Run(ctx, chromedp.Evaluate("Boolean("+js+")", &got)); err == nil && got {
			return
		}
	}
	require.NoError(t, err)
	require.Fail(t, "it did not become true: "+js)
}

// console collects what is red in the console of a page.
type console struct {
	mu  sync.Mutex
	red []string
}

func listen(t *testing.T, ctx context.Context) *console {
	t.Helper()
	c := new(console)
	add := func(format string, args ...any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.red = append(c.red, fmt.Sprintf(format, args...))
	}
	chromedp.ListenTarget(ctx, func(ev any) {
		switch e := ev.(type) {
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.LevelError || e.Entry.Level == cdplog.LevelWarning {
				add("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			add("exception: %s", e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			add("console.%s", e.Type)
		}
	})
	do(t, ctx, cdplog.Enable(), runtime.Enable())
	return c
}

func (c *console) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.red...)
}

// faults are what is wrong with the look of a page: each line of it names an
// element and what is the matter.
const faults = `(() => {
	const out = [], doc = document.documentElement;
	const seen = (el) => el.checkVisibility() && !el.closest(".hidden");
	if (doc.scrollWidth > doc.clientWidth) out.push("the page is " + doc.scrollWidth + " wide in a window of " + doc.clientWidth);
	for (const el of document.querySelectorAll("body *")) {
		const card = el.parentElement.closest(".card, header, body");
		if (seen(el) && el.getBoundingClientRect().right > card.getBoundingClientRect().right + 1) out.push("out of its card: " + el.outerHTML.slice(0, 60));
	}
	const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const luminance = (c) => {
		const [r, g, b] = c.match(/[\d.]+/g).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (el) => {
		for (; el; el = el.parentElement) {
			const c = getComputedStyle(el).backgroundColor;
			if (c !== "rgba(0, 0, 0, 0)") return c;
		}
		return "rgb(255, 255, 255)";
	};
	for (let n = words.nextNode(); n; n = words.nextNode()) {
		const el = n.parentElement;
		if (!seen(el) || !n.data.trim()) continue;
		const style = getComputedStyle(el);
		const [a, b] = [luminance(style.color), luminance(behind(el))].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 4.5) out.push("contrast of " + ((a + 0.05) / (b + 0.05)).toFixed(1) + ": " + n.data.trim().slice(0, 40));
		if (el.closest("code, pre, textarea")) continue;
		for (const m of n.data.matchAll(/\S+/g)) {
			const range = document.createRange();
			range.setStart(n, m.index);
			range.setEnd(n, m.index + m[0].length);
			const tops = new Set([...range.getClientRects()].map((r) => Math.round(r.top)));
			if (tops.size > 1 && !/[-\/]/.test(m[0])) out.push("a broken word: " + m[0]);
		}
	}
	for (const el of document.querySelectorAll("input:not([type=hidden]), textarea, button, a")) {
		const name = el.labels && el.labels.length ? el.labels[0].innerText : el.getAttribute("aria-label") || el.innerText;
		if (!name || !name.trim()) out.push("no name: " + el.outerHTML.slice(0, 60));
		if (!seen(el)) continue;
		const box = el.getBoundingClientRect();
		if (box.height < 16 || box.width < 16) out.push("too small to hit: " + el.outerHTML.slice(0, 60));
	}
	const ids = [...document.querySelectorAll("[id]")].map((el) => el.id);
	for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) out.push("twice: #" + id);
	if (document.querySelectorAll("h1").length < 1 || !document.title || !document.documentElement.lang) out.push("no heading, title or language");
	return out;
})()`

// shift is how far a page has moved while it was loaded.
const shift = `new Promise((done) => {
	let sum = 0;
	const count = (list) => { for (const e of list.getEntries()) sum += e.value };
	const observer = new PerformanceObserver(count);
	observer.observe({ type: "layout-shift", buffered: true });
	requestAnimationFrame(() => requestAnimationFrame(() => { for (const e of observer.takeRecords()) sum += e.value; done(sum) }));
})`

// The pages fit into narrow windows and wide ones, light and dark, and break no
// word. What is there to read can be read, what is there to use has a name.
func TestPagesFit(t *testing.T) {
	site, ctx := site(t), browser(t)
	look := func(name string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{340, 768, 1280} {
				var found []string
				do(t, ctx,
					emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
					emulation.SetDeviceMetricsOverride(width, 800, 1, false),
					chromedp.Evaluate(faults, &found))
				require.Empty(t, found, "%s, %s, %d px", name, scheme, width)
				if (width == 768) == (scheme == "dark") {
					picture(t, ctx, fmt.Sprintf("%s-%d", name, width))
				}
			}
		}
		do(t, ctx, emulation.ClearDeviceMetricsOverride())
	}
	still := func() {
		t.Helper()
		var moved float64
		do(t, ctx, chromedp.Evaluate(shift, &moved, awaited))
		require.Less(t, moved, 0.1, "what Web Vitals call good; a busy machine shows fonts late")
	}
	do(t, ctx, chromedp.Navigate(site+"/sign-in"), chromedp.WaitVisible("#password"))
	still()
	do(t, ctx, chromedp.SendKeys("#user", "margaret"), chromedp.SendKeys("#password", "wrong\r"), chromedp.WaitVisible(".problem"))
	look("1-sign-in")

	other := window(t, ctx)
	do(t, other, emulation.SetUserAgentOverride(iPhone))
	signIn(t, other, site, "margaret")
	signIn(t, ctx, site, "margaret")
	becomes(t, ctx, "#live", "Live")
	still()
	do(t, ctx, chromedp.SendKeys("#note", "The priority display saved the landing."))
	look("2-session")
	do(t, ctx, chromedp.Navigate(site+"/verify"), chromedp.WaitVisible("#summary.good", chromedp.ByQuery))
	becomes(t, ctx, "#live", "Live")
	still()
	look("3-verify")
	do(t, ctx, chromedp.Navigate(site+"/people?saved=ada"))
	becomes(t, ctx, "#live", "Live")
	still()
	look("4-people")
	do(t, other, chromedp.Click("#everywhere"), chromedp.WaitVisible("#password"))
	do(t, ctx, chromedp.WaitVisible("#gone"))
	look("5-signed-out-elsewhere")
	signIn(t, other, site, "grace")
	do(t, other, chromedp.Navigate(site+"/people"))
	becomes(t, other, "#live", "Live")
	ctx = other
	look("6-for-administrators")
}

// Nothing is red in the console of a browser that comes for the first time, nor
// on the pages of a session.
func TestConsoleIsQuiet(t *testing.T) {
	site, ctx := site(t), browser(t)
	c := listen(t, ctx)
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#password"))
	var icon int
	do(t, ctx, chromedp.Evaluate(`Promise.all([document.querySelector("link[rel=icon]").href, "/favicon.ico"].map(async (u) => (await fetch(u)).status)).then((all) => Math.max(...all))`, &icon, awaited))
	require.Equal(t, 200, icon)
	require.Empty(t, c.lines())
	signIn(t, ctx, site, "margaret")
	for _, path := range []string{"/", "/verify", "/people", "/sign-in"} { // the last leads back
		do(t, ctx, chromedp.Navigate(site+path))
		becomes(t, ctx, "#live", "Live")
	}
	do(t, ctx, chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	do(t, ctx, chromedp.Navigate(site+"/"), chromedp.WaitVisible("#password"))
	require.Empty(t, c.lines())

	// The test sees what is red.
	require.Equal(t, 404, status(t, ctx, "GET", "/nothing"))
	require.Eventually(t, func() bool { return strings.Contains(strings.Join(c.lines(), "\n"), "404") }, time.Minute, 50*time.Millisecond)
}

// An administrator changes the roles of a user whose page is open. The page
// shows it without a click, the next request has it, and no user signs in again.
func TestRolesChange(t *testing.T) {
	t.Parallel()
	site, grace := site(t), browser(t)
	signIn(t, grace, site, "grace")
	session := text(t, grace, "#session")
	becomes(t, grace, "#live", "Live")
	do(t, grace, chromedp.SendKeys("#note", "half a sentence"))
	forbidden := tab(t, grace)
	do(t, forbidden, chromedp.Navigate(site+"/people"))
	becomes(t, forbidden, "main h1", "For administrators")

	admin := window(t, grace)
	signIn(t, admin, site, "margaret")
	give := func(roles ...string) {
		t.Helper()
		do(t, admin, chromedp.Navigate(site+"/people"))
		for _, role := range roles {
			do(t, admin, chromedp.Click(fmt.Sprintf(`#person-grace input[value=%q]`, role), chromedp.ByQuery))
		}
		do(t, admin, chromedp.Click("#person-grace button", chromedp.ByQuery))
		becomes(t, admin, "#person-grace .good", "Saved.")
	}
	give("editor", "admin")
	becomes(t, grace, "#roles", "reader\neditor\nadmin")
	becomes(t, grace, "#changed", "Your roles have changed.")
	becomes(t, forbidden, "main h1", "People")
	holds(t, grace, `!el("people").hidden`)
	require.Equal(t, session, text(t, grace, "#session"))
	var note string
	do(t, grace, chromedp.Value("#note", &note))
	require.Equal(t, "half a sentence", note)
	do(t, grace, chromedp.Evaluate(`fetch("/api/me").then((r) => r.json()).then((me) => me.session + " " + me.roles)`, &note, awaited))
	require.Equal(t, session+" reader,editor,admin", note)

	give("editor", "admin") // takes both
	becomes(t, grace, "#roles", "reader")
	becomes(t, forbidden, "main h1", "For administrators")
}

// Signed out in one tab, the others show it without a click, and do not ask
// again and again. What was being written comes back in its tab after the next
// sign-in.
func TestSignOutReachesEveryTab(t *testing.T) {
	t.Parallel()
	site, first := site(t), browser(t)
	signIn(t, first, site, "ada")
	becomes(t, first, "#live", "Live")
	const words = "A text of which\nno word may be lost."
	do(t, first, chromedp.SendKeys("#note", words))
	becomes(t, first, "#note-state", "Not saved yet; kept in this tab.")
	second, third := tab(t, first), tab(t, first)
	do(t, second, chromedp.Navigate(site+"/verify"))
	becomes(t, second, "#live", "Live")
	do(t, third, chromedp.Navigate(site+"/"))
	becomes(t, third, "#live", "Live")
	streams := func() (sum int) {
		for _, ctx := range []context.Context{first, second, third} {
			var n int
			do(t, ctx, chromedp.Evaluate(`source === null ? 0 : 1`, &n))
			sum += n
		}
		return sum
	}
	// A tab that becomes visible takes the stream over, and the other one closes
	// its own a moment later.
	for deadline := time.Now().Add(time.Minute); streams() != 1; time.Sleep(50 * time.Millisecond) {
		require.Less(t, time.Now(), deadline, "one for all tabs of a browser")
	}
	do(t, third, chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	for _, ctx := range []context.Context{first, second} {
		becomes(t, ctx, "#gone h1", "You are signed out")
		holds(t, ctx, `document.querySelector("main").hidden && source === null`)
	}
	holds(t, first, `!el("kept").hidden`)
	holds(t, second, `el("kept").hidden`) // it is another tab's
	picture(t, first, "7-draft-kept")

	// The form that is sent without a session is not the end of the text.
	do(t, first, chromedp.Evaluate(`document.querySelector("#note-form").requestSubmit()`, nil))
	becomes(t, first, ".problem", "You are not signed in any more.")
	becomes(t, first, "#kept-for", "ada")
	signInHere := func(ctx context.Context, user string) {
		t.Helper()
		do(t, ctx, chromedp.SendKeys("#user", user), chromedp.SendKeys("#password", "demo\r"), chromedp.WaitVisible("#session"))
		becomes(t, ctx, "#live", "Live")
	}
	signInHere(first, "ada")
	var note string
	do(t, first, chromedp.Value("#note", &note))
	require.Equal(t, words, note)
	becomes(t, first, "#note-state", "Not saved yet; kept in this tab.")
	becomes(t, second, "#live", "Live") // it goes on as well
	holds(t, second, `!ended && el("gone").hidden`)

	// The next user of that tab sees nothing of it, and of no other tab's.
	do(t, third, chromedp.Navigate(site+"/"))
	becomes(t, third, "#live", "Live")
	do(t, third, chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	becomes(t, first, "#gone h1", "You are signed out")
	do(t, first, chromedp.Click("#gone a", chromedp.ByQuery), chromedp.WaitVisible("#password"))
	signInHere(first, "grace")
	do(t, first, chromedp.Value("#note", &note))
	require.Empty(t, note)
	holds(t, first, `draft.read() === null`)
	becomes(t, second, "#subject", "grace")
}

// A server that cannot be asked ends no page. It is asked again, and not all the
// time.
func TestStreamReconnects(t *testing.T) {
	t.Parallel()
	serving, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	shared, err := newShared(serving, issuerName, "memory", filepath.Join(t.TempDir(), "secret"))
	require.NoError(t, err)
	replica, err := newReplica(serving, "A", shared, time.Minute)
	require.NoError(t, err)
	routes := replica.routes()
	var down atomic.Bool
	var mu sync.Mutex
	var asked []time.Time
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() && r.URL.Path == "/live" {
			mu.Lock()
			asked = append(asked, time.Now())
			mu.Unlock()
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		routes.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	ctx := browser(t)
	signIn(t, ctx, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), "ada")
	becomes(t, ctx, "#live", "Live")
	down.Store(true)
	server.CloseClientConnections()
	becomes(t, ctx, "#live", "Reconnecting")
	do(t, ctx, chromedp.SendKeys("#note", "meanwhile"))
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(asked) >= 2
	}, time.Minute, 50*time.Millisecond)
	down.Store(false)
	becomes(t, ctx, "#live", "Live")
	holds(t, ctx, `!ended && note.value === "meanwhile"`)
	mu.Lock()
	defer mu.Unlock()
	for n, at := range asked[1:] {
		require.Greater(t, at.Sub(asked[n]), 400*time.Millisecond)
	}
}

// Who signs out takes the text along, if they want to.
func TestSignOutDiscardsTheDraft(t *testing.T) {
	t.Parallel()
	site, ctx := site(t), browser(t)
	signIn(t, ctx, site, "ada")
	asked := make(chan string, 4)
	answers := make(chan bool, 4)
	chromedp.ListenTarget(ctx, func(ev any) {
		if e, ok := ev.(*page.EventJavascriptDialogOpening); ok {
			asked <- e.Message
			go func() { _ = chromedp.Run(ctx, page.HandleJavaScriptDialog(<-answers)) }()
		}
	})
	do(t, ctx, chromedp.SendKeys("#note", "mine"))
	answers <- false
	do(t, ctx, chromedp.Click("#sign-out"))
	require.Equal(t, "Your text is not saved. Sign out and discard it?", <-asked)
	holds(t, ctx, `!leaving && note.value === "mine" && draft.read().text === "mine"`)
	answers <- true
	do(t, ctx, chromedp.Click("#sign-out"), chromedp.WaitVisible("#password"))
	holds(t, ctx, `sessionStorage.length === 0`)
	holds(t, ctx, `document.getElementById("kept").hidden`)

	// What is saved or discarded is no draft.
	signIn(t, ctx, site, "ada")
	do(t, ctx, chromedp.SendKeys("#note", "\nours"), chromedp.Submit("#note"), chromedp.WaitVisible("#saved"))
	holds(t, ctx, `draft.read() === null && note.value === "\nours" && el("discard").hidden`)
	do(t, ctx, chromedp.SendKeys("#note", " and more"), chromedp.Click("#discard"))
	holds(t, ctx, `draft.read() === null && note.value === "\nours" && el("discard").hidden`)
}
