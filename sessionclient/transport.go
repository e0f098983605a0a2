package sessionclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Transport returns a RoundTripper that adds the access token to requests to the
// configured origins, and sends them with base. Nil means
// [http.DefaultTransport].
//
// A request to another origin, also after a redirect, and a request that has an
// Authorization header are passed on as they are. The caller's request is not
// changed.
//
// A request is sent again in two cases, and only if its body can be replayed:
// there is none, or the request has GetBody.
//
//   - The answer is 401 with the error invalid_token of RFC 6750: once, with a
//     renewed token. If that cannot be had, the answer is returned, or the error
//     if it matches [ErrSignIn]. An API that refuses renewed tokens too is not
//     asked again at once: refusals in short succession renew the token at
//     growing intervals, up to 30 s.
//   - The answer is 503 with a Retry-After of at most 5 s, and the method is
//     idempotent: up to twice, after that time, if it ends before the request's
//     context. Otherwise the answer is returned.
func (c *Client) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{c, base}
}

type transport struct {
	client *Client
	base   http.RoundTripper
}

const maxUnavailable = 2 // requests that are sent again after a 503

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := t.client
	if !c.sends(req) {
		return t.base.RoundTrip(req)
	}
	g, err := c.grant(req.Context())
	if err != nil {
		closeBody(req.Body)
		return nil, err
	}
	body, renewed, unavailable := req.Body, false, 0
	for {
		resp, err := t.once(req, body, g.access)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode == http.StatusUnauthorized && isInvalidToken(resp.Header):
			again := c.refuse(g.access)
			if !again || renewed || !canReplay(req) {
				return resp, nil
			}
			renewed = true
			next, err := c.other(req.Context(), g.access)
			if errors.Is(err, ErrSignIn) {
				drain(resp.Body)
				return nil, err
			}
			if err != nil || next.access == g.access {
				return resp, nil
			}
			g = next
		case resp.StatusCode == http.StatusServiceUnavailable && unavailable < maxUnavailable && isIdempotent(req.Method) && canReplay(req):
			d, ok := retryAfter(resp.Header, c.clock.Now())
			if !ok || d > maxRetryAfter || !sleep(req.Context(), d) {
				return resp, nil
			}
			unavailable++
		default:
			return resp, nil
		}
		if body, err = replayed(req); err != nil {
			return resp, nil
		}
		drain(resp.Body)
	}
}

// once sends a copy of req with a body and an access token.
func (t *transport) once(req *http.Request, body io.ReadCloser, access string) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.Body = body
	if r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Authorization", "Bearer "+access)
	resp, err := t.base.RoundTrip(r)
	if resp != nil {
		resp.Request = req // without the token
	}
	return resp, err
}

// sends reports whether the access token belongs into a request.
func (c *Client) sends(req *http.Request) bool {
	return req.URL != nil && req.URL.User == nil && c.origins[origin(req.URL)] &&
		len(req.Header["Authorization"]) == 0 && req.Context().Value(ownRequest{}) != any(c)
}

// origin returns the scheme, the host and the port of a URL.
func origin(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "http":
		port = "80"
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// other returns another grant than that of a refused access token, if it can be
// had.
func (c *Client) other(ctx context.Context, refused string) (g *grant, err error) {
	c.mu.Lock()
	g = c.good()
	c.mu.Unlock()
	if g != nil && g.access != refused {
		return g, nil
	}
	for range 2 { // the first may have begun before the refusal
		if g, err = c.renewed(ctx, 0); err != nil || g.access != refused {
			break
		}
	}
	return g, err
}

// invalidToken matches a challenge of the scheme Bearer with the error
// invalid_token. It may be one of several in a line.
var invalidToken = regexp.MustCompile(`(?i)^(?:.*,)?\s*bearer\s(?:.*[\s,])?error\s*=\s*"?invalid_token"?\s*(?:,|$)`)

func isInvalidToken(h http.Header) bool {
	return slices.ContainsFunc(h.Values("WWW-Authenticate"), invalidToken.MatchString)
}

// isIdempotent reports whether sending a request twice has the effect of sending
// it once (RFC 9110 section 9.2.2).
func isIdempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

func canReplay(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// replayed returns the body of a request that is sent again.
func replayed(req *http.Request) (io.ReadCloser, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return req.Body, nil
	}
	return req.GetBody()
}

func closeBody(b io.ReadCloser) {
	if b != nil {
		b.Close()
	}
}

// drain reads what is left of a short body, so that its connection can be used
// again, and closes it.
func drain(b io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, b, maxAnswer)
	b.Close()
}
