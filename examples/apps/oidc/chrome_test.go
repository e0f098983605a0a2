package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// chrome is the Chromium of all tests.
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

// tab is one tab of a window.
type tab struct {
	context.Context
	t *testing.T
}

// window opens a window that shares no cookies with others. Without Chromium the
// test is left out, unless CI is set.
func window(t *testing.T) tab {
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
	chrome.once.Do(func() {
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.Flag("lang", "en"))
		alloc, end := chromedp.NewExecAllocator(context.Background(), options...)
		chrome.close = append(chrome.close, end)
		chrome.ctx, end = chromedp.NewContext(alloc)
		chrome.close = append(chrome.close, end)
		chrome.err = chromedp.Run(chrome.ctx) // starts it
	})
	require.NoError(t, chrome.err)
	ctx, cancel := context.WithTimeout(chrome.ctx, 5*time.Minute)
	t.Cleanup(cancel)
	var own cdp.BrowserContextID
	require.NoError(t, chromedp.Run(ctx, inBrowser(func(ctx context.Context) (err error) {
		own, err = target.CreateBrowserContext().Do(ctx)
		return err
	})))
	t.Cleanup(func() {
		require.NoError(t, chromedp.Run(chrome.ctx, inBrowser(func(ctx context.Context) error {
			return target.DisposeBrowserContext(own).Do(ctx)
		})))
	})
	return attach(t, ctx, own)
}

// another opens another tab of the same window.
func (w tab) another() tab {
	w.t.Helper()
	var own cdp.BrowserContextID
	w.do(inBrowser(func(b context.Context) error {
		info, err := target.GetTargetInfo().WithTargetID(chromedp.FromContext(w).Target.TargetID).Do(b)
		if err == nil {
			own = info.BrowserContextID
		}
		return err
	}))
	return attach(w.t, w.Context, own)
}

func attach(t *testing.T, ctx context.Context, own cdp.BrowserContextID) tab {
	t.Helper()
	var id target.ID
	require.NoError(t, chromedp.Run(ctx, inBrowser(func(ctx context.Context) (err error) {
		id, err = target.CreateTarget("about:blank").WithBrowserContextID(own).WithNewWindow(true).Do(ctx)
		return err
	})))
	other, cancel := chromedp.NewContext(ctx, chromedp.WithTargetID(id))
	t.Cleanup(cancel)
	return tab{other, t}
}

// inBrowser is a command to the browser, not to a page.
func inBrowser(f func(context.Context) error) chromedp.Action {
	return chromedp.ActionFunc(func(ctx context.Context) error {
		return f(cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser))
	})
}

func (w tab) do(actions ...chromedp.Action) {
	w.t.Helper()
	require.NoError(w.t, chromedp.Run(w, actions...))
}

// open opens an address and waits for an element of the page.
func (w tab) open(address, element string) {
	w.t.Helper()
	w.do(chromedp.Navigate(address))
	w.sees(element)
}

// click clicks an element and waits for one of the next page.
func (w tab) click(element, next string) {
	w.t.Helper()
	w.do(chromedp.Click(element))
	w.sees(next)
}

// sees waits for an element, while pages may still be changing.
func (w tab) sees(element string) {
	w.t.Helper()
	w.until(fmt.Sprintf("document.querySelector(%q) !== null", element), true)
}

// shows waits until an element has a text.
func (w tab) shows(element, want string) {
	w.t.Helper()
	w.until(fmt.Sprintf(`(document.querySelector(%q) || {}).innerText || ""`, element), want)
}

func (w tab) until(js string, want any) {
	w.t.Helper()
	var got any
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err := chromedp.Run(w, chromedp.Evaluate(js, &got)); err == nil && got == want {
			return
		}
	}
	require.Equal(w.t, want, got, "%s\n%s", js, w.html())
}

// html returns the page.
func (w tab) html() (page string) {
	w.t.Helper()
	w.do(chromedp.Evaluate("location.href + '\\n' + document.documentElement.outerHTML", &page))
	return page
}

// text returns the text of an element.
func (w tab) text(element string) (text string) {
	w.t.Helper()
	w.do(chromedp.Text(element, &text, chromedp.ByQuery))
	return text
}

// status fetches a path of the page's own origin as a script does.
func (w tab) status(path string) (code int) {
	w.t.Helper()
	js := fmt.Sprintf(`fetch(%q, {redirect: "manual"}).then(r => r.status)`, path)
	w.do(chromedp.Evaluate(js, &code, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return code
}

// reload reloads the page and waits for an element.
func (w tab) reload(element string) tab {
	w.t.Helper()
	w.do(chromedp.Reload())
	w.sees(element)
	return w
}
