package oidclogin

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
)

// refuse answers a login that failed: with 503 if it may succeed later, and
// otherwise with 400 or 403. l is the login, or nil if it is not known. What
// matches errUnavailable was logged where it happened.
func (p *Provider[T]) refuse(w http.ResponseWriter, r *http.Request, l *pending, err error) {
	again := p.base + pathLogin
	if l != nil {
		again = p.linkTo(l)
	}
	var why refusal
	switch {
	case r.Context().Err() != nil:
		p.counted.gone.Add(1)
		p.page(w, http.StatusServiceUnavailable, "The sign-in was not finished.", again)
	case errors.Is(err, errUnavailable):
		p.counted.unavailable.Add(1)
		w.Header().Set("Retry-After", "1")
		p.page(w, http.StatusServiceUnavailable, "Signing in does not work at the moment.", again)
	case errors.As(err, &why) && why == errDenied:
		p.counted.denied.Add(1)
		p.page(w, http.StatusForbidden, "The sign-in was cancelled.", again)
	case errors.As(err, &why):
		p.counted.refused.Add(1)
		p.log.Warn("login: "+string(why), "oidclogin: a login was refused: see reason")
		status := statusOf(why)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		p.page(w, status, "The sign-in did not succeed.", again)
	default:
		p.counted.unavailable.Add(1)
		p.log.Warn("login_failed", "oidclogin: a login can never succeed as it is configured", "err", err)
		p.page(w, http.StatusInternalServerError, "Signing in does not work.", "")
	}
}

// linkTo returns the path that begins a login with the same path to return to.
func (p *Provider[T]) linkTo(l *pending) string {
	return p.base + pathLogin + "?return=" + url.QueryEscape(l.Return)
}

// statusOf returns 403 for a login that is in order and not sufficient, and
// otherwise 400.
func statusOf(why refusal) int {
	switch why {
	case errUser, errStepUp, errACR, errAuthAge, errTwice:
		return http.StatusForbidden
	case errBroken:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// page writes a page with a sentence and, unless it is empty, a link to begin
// again.
func (p *Provider[T]) page(w http.ResponseWriter, status int, sentence, again string) {
	link := ""
	if again != "" {
		link = fmt.Sprintf("<p><a href=\"%s\">Sign in again</a></p>\n", html.EscapeString(again))
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	var b strings.Builder
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sign-in</title></head>\n<body>\n<p>%s</p>\n%s</body></html>\n", sentence, link)
	_, _ = w.Write([]byte(b.String())) // the browser has gone
}
