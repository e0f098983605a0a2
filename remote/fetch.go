package remote

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	fetchTimeout     = 5 * time.Second // of one fetch with all its redirects
	maxSetBody       = 1 << 20         // bytes of a key set
	maxDiscoveryBody = 64 << 10        // bytes of a discovery document
	maxRedirects     = 3
)

// client fetches documents.
//
// It calls the transport and not http.Client, which would add a Referer and the
// credentials of a redirect's URL, and whose errors quote URLs.
type client struct {
	transport http.RoundTripper
	timeout   time.Duration // of one fetch
}

// request holds the options of one fetch.
type request struct {
	accept  string
	noCache bool // send Cache-Control: no-cache
	maxBody int64
	token   string // send this bearer token, and follow no redirect; empty: none
}

// statusError is the status of an answer that has no document.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("the server answered with status %d", int(e))
}

// newTransport returns a transport that uses no proxy and does not request
// compression.
func newTransport() http.RoundTripper {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    fetchTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// get returns the document at u, within the limits. Errors quote no part of the
// response.
func (c client) get(ctx context.Context, u *url.URL, q request) (body []byte, header http.Header, err error) {
	resp, err := c.follow(ctx, u, q)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	r, err := decoded(resp, q.maxBody)
	if err == nil {
		body, err = io.ReadAll(r)
	}
	switch {
	case errors.Is(err, errEncoding):
		return nil, nil, err
	case err != nil:
		return nil, nil, transportError(ctx, "the body could not be read", err)
	case int64(len(body)) > q.maxBody:
		return nil, nil, fmt.Errorf("the body is over %d bytes", q.maxBody)
	}
	return body, resp.Header, nil
}

var errEncoding = errors.New("the body has a Content-Encoding that cannot be read here")

// decoded returns the body without its Content-Encoding, at most one byte more
// than most. It reads gzip, which some servers send although the request did
// not ask for it.
func decoded(resp *http.Response, most int64) (io.Reader, error) {
	r := io.LimitReader(resp.Body, most+1)
	switch strings.ToLower(strings.TrimSpace(strings.Join(resp.Header.Values("Content-Encoding"), ","))) {
	case "", "identity":
		return r, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.LimitReader(z, most+1), nil
	}
	return nil, errEncoding
}

// follow sends the request, follows redirects within the origin, and returns the
// response with status 200. The caller closes its body.
func (c client) follow(ctx context.Context, u *url.URL, q request) (*http.Response, error) {
	origin := u
	for redirects := 0; ; redirects++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, errors.New("the request could not be made")
		}
		req.Close = true // a kept connection that has died would fail each fetch
		req.Header.Set("Accept", q.accept)
		if q.noCache {
			req.Header.Set("Cache-Control", "no-cache")
		}
		if q.token != "" {
			req.Header.Set("Authorization", "Bearer "+q.token)
		}
		resp, err := c.transport.RoundTrip(req)
		if err != nil {
			return nil, transportError(ctx, "the request failed", err)
		}
		if resp.Body == nil {
			resp.Body = http.NoBody
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return nil, statusError(resp.StatusCode)
		}
		if q.token != "" {
			return nil, errors.New("a redirect, which is not followed with a credential")
		}
		if redirects == maxRedirects {
			return nil, fmt.Errorf("more than %d redirects", maxRedirects)
		}
		next, err := u.Parse(resp.Header.Get("Location"))
		if err != nil || !sameOrigin(origin, next) {
			return nil, errors.New("a redirect away from the configured origin")
		}
		u = next
	}
}

// checkURL parses an absolute https URL or, if plain is set, an http URL of a
// loopback host. The error does not repeat the URL, which may hold a password.
func checkURL(raw string, plain bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("is not an absolute URL with a host")
	case u.Scheme == "http" && plain && !isLoopback(u.Hostname()):
		return nil, errors.New("must be https, or http on a loopback host")
	case u.Scheme != "https" && (u.Scheme != "http" || !plain):
		return nil, errors.New("must be https")
	case u.User != nil:
		return nil, errors.New("must not have user information")
	case strings.Contains(raw, "#"):
		return nil, errors.New("must not have a fragment")
	}
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.IsLoopback()
}

// sameOrigin reports whether two URLs have one scheme, host and port, and the
// second has no credentials.
func sameOrigin(a, b *url.URL) bool {
	return b.Opaque == "" && b.User == nil && a.Scheme == b.Scheme &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// remainingMaxAge returns the response's max-age (RFC 9111 section 5.2.2.1)
// minus its Age, or a negative duration if it has no max-age. A malformed
// max-age counts as 0 (section 4.2.1). Of several, the smallest is used.
func remainingMaxAge(h http.Header) time.Duration {
	const none = time.Duration(-1)
	left := none
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			if !strings.EqualFold(name, "max-age") {
				continue
			}
			if d := deltaSeconds(strings.Trim(value, `"`)); left == none || d < left {
				left = d
			}
		}
	}
	if left == none {
		return none
	}
	return max(0, left-deltaSeconds(h.Get("Age")))
}

// deltaSeconds parses a number of seconds (RFC 9111 section 1.2.2). It returns
// 0 for a malformed one, and at most 2^31.
func deltaSeconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		n = 1 << 31
	} else if err != nil {
		return 0
	}
	return time.Duration(min(n, 1<<31)) * time.Second
}

// exchangeError has a text of this package in place of that of its cause, which
// may quote the response. errors.Is and errors.As reach the cause.
type exchangeError struct {
	text  string
	cause error
}

func (e *exchangeError) Error() string { return e.text }
func (e *exchangeError) Unwrap() error { return e.cause }

// transportError describes a failed exchange by one of a few fixed causes: a
// timeout, a name that does not resolve, a connection that is refused or a
// certificate that is not trusted.
func transportError(ctx context.Context, what string, err error) error {
	var (
		dns  *net.DNSError
		op   *net.OpError
		cert *tls.CertificateVerificationError
	)
	switch {
	case ctx.Err() != nil:
		what += ": timeout"
		err = errors.Join(ctx.Err(), err)
	case errors.As(err, &dns):
		what += ": the host cannot be resolved"
	case errors.As(err, &cert):
		what += ": the certificate is not trusted"
	case errors.As(err, &op):
		what += ": " + op.Op + " failed"
	}
	return &exchangeError{what, err}
}
