package sessionhttp

import (
	"net/http"
	"strings"
)

// A handler must not be able to overwrite what this package sets about caching.
// Wrapping the ResponseWriter is not enough: a framework may keep the writer
// that it had before our middleware ran. But all writers share the header map.
// So this package sets such a field a second time, under its name in lower
// case, which http.Header.Set does not reach. net/http sends both lines, a
// cache reads them as one list (RFC 9110 section 5.3), and no-store in it wins
// (RFC 9111 section 5.2.2.5).
const (
	heldCacheControl = "cache-control"
	heldVary         = "vary"
)

const vary = "Cookie, Authorization"

// private sets the cache headers of an answer that depends on the credentials:
// no cache may store it. A handler may change Cache-Control before it writes.
func private(h http.Header) {
	values := []string{"private, no-store", vary, vary} // in one allocation
	h["Cache-Control"] = values[0:1:1]
	//lint:ignore SA1008 a second field is what is wanted: see above
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

// noStore sets a Cache-Control of no-store that a handler cannot change, for an
// answer that sets a cookie.
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
		return // impossible: New has checked names, domain and path
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
