package oidclogin

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

const (
	// reposted marks the second POST, which comes from our own page.
	reposted = "reposted"
	// submit is the whole script of the page.
	submit = "document.forms[0].submit()"
)

// repostFields are the parameters that the page posts again.
var repostFields = []string{"state", "code", "iss", "error"}

// postedCallback ends a login whose answer comes in the body of a POST. The
// provider's POST comes from another site, and a browser does not send a cookie
// with SameSite=Lax with it. So it is answered with a page that posts the same
// to us again, and the browser sends the cookie with that. The second POST is
// marked: without its cookie it is refused.
func (p *Provider[T]) postedCallback(w http.ResponseWriter, r *http.Request) {
	raw, values, err := readPosted(w, r)
	if err != nil {
		p.refuse(w, r, nil, err)
		return
	}
	if values.Has(reposted) {
		p.finish(w, r, raw)
		return
	}
	if _, err := parseAnswer(raw); err != nil {
		p.refuse(w, r, nil, err)
		return
	}
	p.repost(w, r, values)
}

// readPosted reads a form. A parameter of the URL does not count.
func readPosted(w http.ResponseWriter, r *http.Request) (string, url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", nil, errAnswer
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuery))
	if err != nil {
		return "", nil, errAnswer
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return "", nil, errAnswer
	}
	return string(body), values, nil
}

// repost writes the page. Its policy permits this one script, and a form that
// goes to this site, or from there to the provider if the login starts again.
func (p *Provider[T]) repost(w http.ResponseWriter, r *http.Request, values url.Values) {
	targets := "'self'"
	if m, err := p.discover(r.Context()); err == nil {
		if u, err := url.Parse(m.AuthorizationEndpoint); err == nil {
			targets += " " + u.Scheme + "://" + u.Host
		}
	}
	var fields strings.Builder
	for _, name := range repostFields {
		if values.Has(name) {
			fmt.Fprintf(&fields, "<input type=\"hidden\" name=\"%s\" value=\"%s\">\n", name, html.EscapeString(values.Get(name)))
		}
	}
	sum := sha256.Sum256([]byte(submit))
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'; base-uri 'none'; form-action "+targets+"; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin") // with no-referrer the form would have an Origin of null
	var b strings.Builder
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sign-in</title></head>\n<body>\n<form method=\"post\" action=\"%s\">\n%s<input type=\"hidden\" name=\"%s\" value=\"1\">\n<noscript><button>Continue</button></noscript>\n</form>\n<script>%s</script>\n</body></html>\n",
		html.EscapeString(p.base+pathCallback), fields.String(), reposted, submit)
	_, _ = w.Write([]byte(b.String())) // the browser has gone
}
