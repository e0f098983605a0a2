package oidclogin

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Unauthorized answers a request without a session, or with one that is not
// recent or strong enough. Use it as the Unauthorized of
// [sessionhttp.Config]:
//
//	var login *oidclogin.Provider[State]
//	cfg.Unauthorized = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		login.Unauthorized(w, r)
//	})
//
// A browser that opens a page is sent to the provider, and comes back to that
// page. What the WWW-Authenticate header of the answer asks for (max_age and
// acr_values, RFC 9470) is asked of the provider. Other requests, such as those
// of scripts and of clients with a Bearer token, get the 401 as it is. So does
// a browser that comes back to a page with a new session that is refused again
// for the same reason, within 10 s.
func (p *Provider[T]) Unauthorized(w http.ResponseWriter, r *http.Request) {
	p.StepUp(w, r, askedBy(w.Header().Values("WWW-Authenticate")))
}

// StepUp has the user prove who they are again, as ask says. It answers a
// request as [Provider.Unauthorized] does, whatever the WWW-Authenticate header
// says. The new session replaces the old one. If the provider does not do what
// ask says, the login is refused with a page.
func (p *Provider[T]) StepUp(w http.ResponseWriter, r *http.Request, ask Ask) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if !isNavigation(r) || ask.check("ask") != nil {
		http.Error(w, http.StatusText(http.StatusUnauthorized), http.StatusUnauthorized)
		return
	}
	l := p.asked(ask, r.RequestURI)
	l.StepUp = true
	l.Guard = guardOf(l)
	if p.isLoop(r, l) {
		p.page(w, http.StatusUnauthorized, "This page needs another sign-in.", p.linkTo(l))
		return
	}
	h.Del("WWW-Authenticate")
	h.Set("Referrer-Policy", "no-referrer")
	p.begin(w, r, l)
}

// isNavigation reports whether a browser opens a page in a window. Browsers
// before 2023 do not send Sec-Fetch-Mode.
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet || r.Header.Get("Authorization") != "" {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		dest := r.Header.Get("Sec-Fetch-Dest")
		return mode == "navigate" && (dest == "" || dest == "document")
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// guardOf returns a digest of the page and of what it asks for.
func guardOf(l *pending) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %q", l.Return, l.MaxAge, l.ACRValues))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// isLoop reports whether the browser has just come back from a login that began
// for the same reason. Without this check, a session that a handler refuses
// always would send the browser round without an end.
func (p *Provider[T]) isLoop(r *http.Request, l *pending) bool {
	done, ok := onlyCookie(r, p.cookies.done)
	return ok && done == l.Guard
}

// askedBy reads the challenges of RFC 9470 section 3 that package sessionhttp
// has written. What it cannot read asks for nothing.
func askedBy(challenges []string) (ask Ask) {
	for _, c := range challenges {
		params := authParams(c)
		if params["error"] != "insufficient_user_authentication" {
			continue
		}
		if n, err := strconv.ParseInt(params["max_age"], 10, 32); err == nil && n >= 0 {
			ask.MaxAge = max(1, time.Duration(n)) * time.Second
		}
		ask.ACRValues = append(ask.ACRValues, strings.Fields(params["acr_values"])...)
	}
	return ask
}

// authParams returns the parameters of a challenge of the scheme Bearer (RFC
// 9110 section 11.6.1).
func authParams(challenge string) map[string]string {
	rest, ok := strings.CutPrefix(challenge, "Bearer ")
	if !ok {
		return nil
	}
	params := map[string]string{}
	for rest != "" {
		name, after, ok := strings.Cut(strings.TrimLeft(rest, " ,"), "=")
		if !ok {
			break
		}
		var value string
		if quoted, ok := strings.CutPrefix(after, `"`); ok {
			if value, after, ok = strings.Cut(quoted, `"`); !ok {
				break
			}
		} else if i := strings.IndexAny(after, ", "); i >= 0 {
			value, after = after[:i], after[i:]
		} else {
			value, after = after, ""
		}
		params[name], rest = value, after
	}
	return params
}
