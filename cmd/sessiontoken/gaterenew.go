package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	renewLimit = 5 * time.Second // of one renewal
	maxRenewed = 64              // renewals at once
)

// renewals sends cookies to the authority's renew endpoint. It keeps nothing:
// the authority remembers what it has renewed.
type renewals struct {
	url     string
	limit   time.Duration // of one renewal
	client  *http.Client
	running chan struct{}

	renewed, failed atomic.Uint64
}

func newRenewals(url string) *renewals {
	return &renewals{
		url: url, limit: renewLimit, running: make(chan struct{}, maxRenewed),
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: maxRenewed, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// renewCookie has the authority renew the cookie of a request that was refused
// with an error. It sets the new cookie in w, and returns the request with it.
func (g *gate) renewCookie(w http.ResponseWriter, o *http.Request, refused error) (*http.Request, error) {
	cookies := o.CookiesNamed(g.cookie)
	if len(cookies) == 0 {
		return nil, refused
	}
	fresh, line, err := g.renewals.send(o, cookies, g.cookie)
	switch {
	case errors.Is(err, errNotRenewed):
		return nil, refused
	case err != nil:
		g.renewals.failed.Add(1)
		if o.Context().Err() == nil {
			g.log.warn("serve: a cookie could not be renewed: " + err.Error())
		}
		return nil, err
	}
	g.renewals.renewed.Add(1)
	w.Header().Add("Set-Cookie", line)
	o = o.Clone(o.Context())
	o.Header.Set("Cookie", g.cookie+"="+fresh)
	return o, nil
}

// errNotRenewed means that the authority has answered 401.
var errNotRenewed = errors.New("the authority does not renew the cookie")

// send returns the value of the new cookie, and the line of Set-Cookie.
//
// The authority decides about the origin of requests that change something. For
// the others the gate has decided, by the rules of package sessionhttp: a link
// on another site may open a page, and opening a page may renew the cookie. So
// the headers about their origin are not sent with the POST: the authority would
// refuse it.
func (r *renewals) send(o *http.Request, cookies []*http.Cookie, name string) (value, line string, err error) {
	select {
	case r.running <- struct{}{}:
		defer func() { <-r.running }()
	default:
		return "", "", fmt.Errorf("%d renewals are under way; check how long the authority takes", maxRenewed)
	}
	ctx, cancel := context.WithTimeout(o.Context(), r.limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, http.NoBody)
	if err != nil {
		return "", "", errors.New("the URL of --renew cannot be used")
	}
	for _, c := range cookies {
		req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
	}
	if len(o.Header["Upgrade"]) > 0 || !isSafe(o.Method) {
		for _, h := range []string{"Origin", "Sec-Fetch-Site"} {
			if values := o.Header[h]; len(values) > 0 {
				req.Header[h] = values
			}
		}
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("the authority's renew endpoint does not answer: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again
	switch resp.StatusCode {
	case http.StatusNoContent, http.StatusOK:
	case http.StatusUnauthorized, http.StatusBadRequest:
		return "", "", errNotRenewed
	case http.StatusForbidden:
		return "", "", fmt.Errorf("%w, for the authority's renew endpoint: name the site in the TrustedOrigins of its Config.HTTP, and set TLSInFront there if --renew is not https", sessionhttp.ErrCrossOrigin)
	default:
		return "", "", fmt.Errorf("the authority's renew endpoint answers %d; check the URL of --renew and the authority", resp.StatusCode)
	}
	for _, line := range resp.Header["Set-Cookie"] {
		if c, err := http.ParseSetCookie(line); err == nil && c.Name == name && c.Value != "" && c.MaxAge >= 0 {
			return c.Value, line, nil
		}
	}
	return "", "", errors.New("the authority's renew endpoint sets no session cookie; check --cookie and --cookie-domain")
}

func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}
