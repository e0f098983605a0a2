package sessionhttp

import (
	"net/http"
	"strings"
)

// What this package says about caching must hold whatever a handler says later
// through whatever writer it has: a framework may keep the writer that it had
// before our middleware ran. All of them share one thing, the header map. So a
// field that must hold is written a second time under its name in small letters,
// which http.Header.Set of a handler does not reach. net/http sends both lines,
// and a cache has to read them as one (RFC 9110 section 5.3), in which no-store
// wins (RFC 9111 section 5.2.2.5).
const (
	heldCacheControl = "cache-control"
	heldVary         = "vary"
)

const vary = "Cookie, Authorization"

// private begins the answer to a request whose credentials decide about it: no
// shared cache may give it to another, nor any cache keep it. A handler may say
// otherwise before it writes.
func private(h http.Header) {
	values := []string{"private, no-store", vary, vary} // in one allocation
	h["Cache-Control"] = values[0:1:1]
	if len(h["Vary"]) == 0 && h[heldVary] == nil {
		h["Vary"], h[heldVary] = values[1:2:2], values[2:3:3]
		return
	}
	varies(h)
}

func varies(h http.Header) {
	//lint:ignore SA1008 a second field is what is wanted: see above
	if h[heldVary] == nil {
		h.Add("Vary", vary)
		h[heldVary] = []string{vary}
	}
}

// noStore holds an answer that sets one of our cookies to Cache-Control:
// no-store.
func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h[heldCacheControl] = []string{"no-store"}
}

// setCookie adds a cookie to an answer, in place of an earlier one of the same
// name, domain, path and kind.
func setCookie(w http.ResponseWriter, c *http.Cookie) {
	h := w.Header()
	line := c.String()
	if line == "" {
		return // cannot be: New has checked names, domain and path
	}
	var kept []string
	for _, other := range h["Set-Cookie"] {
		if !strings.HasPrefix(other, c.Name+"=") || !sameCookie(other, c) {
			kept = append(kept, other)
		}
	}
	h["Set-Cookie"] = append(kept, line)
	noStore(h)
}

func sameCookie(line string, c *http.Cookie) bool {
	other, err := http.ParseSetCookie(line)
	return err == nil && other.Domain == c.Domain && other.Path == c.Path && other.Partitioned == c.Partitioned
}
