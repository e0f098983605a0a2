// Package browser has a browser for the tests below examples/apps/moving. It
// needs no network, so that it runs in a bubble of package testing/synctest.
package browser

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
)

// Browser keeps the cookies of one site.
type Browser struct {
	Site    http.Handler
	Cookies map[string]string
	Fetch   string // Sec-Fetch-Site; empty means same-origin, "-" that it is not sent
}

// New returns a browser without cookies.
func New(site http.Handler) *Browser {
	return &Browser{Site: site, Cookies: map[string]string{}}
}

// At returns a browser with the same cookies on another handler, such as that
// of another replica. The cookies are not shared.
func (b *Browser) At(site http.Handler) *Browser {
	other := New(site)
	for name, value := range b.Cookies {
		other.Cookies[name] = value
	}
	return other
}

// Get opens a page, and returns the status and the text.
func (b *Browser) Get(path string) (int, string) { return b.do(http.MethodGet, path, nil) }

// Post sends a form of names and values.
func (b *Browser) Post(path string, form ...string) (int, string) {
	values := url.Values{}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	return b.do(http.MethodPost, path, values)
}

func (b *Browser) do(method, path string, form url.Values) (int, string) {
	r := httptest.NewRequest(method, "https://site.example"+path, strings.NewReader(form.Encode()))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	switch b.Fetch {
	case "":
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	case "-":
	default:
		r.Header.Set("Sec-Fetch-Site", b.Fetch)
	}
	if b.Fetch != "-" {
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
	}
	for name, value := range b.Cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	b.Site.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.MaxAge < 0 {
			delete(b.Cookies, c.Name)
		} else {
			b.Cookies[c.Name] = c.Value
		}
	}
	body, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(body)
}
