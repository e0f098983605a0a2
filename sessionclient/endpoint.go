package sessionclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
)

const (
	maxAnswer     = 64 << 10 // bytes of an answer of an endpoint
	attempts      = 3        // requests of one exchange
	attemptLimit  = 10 * time.Second
	maxRetryAfter = 5 * time.Second // the longest Retry-After that is waited for
)

var errRefused = fmt.Errorf("%w: the server has refused the refresh token", ErrSignIn)

// ownRequest marks the context of a request to an endpoint. Transport does not
// add an access token to it, which would wait for itself.
type ownRequest struct{}

// failure is a request to an endpoint that failed. Its text is of this package:
// that of the cause may quote the answer.
type failure struct {
	text  string
	cause error
	lost  bool          // the request may have had an effect
	again bool          // the same request may succeed
	after time.Duration // of Retry-After; negative if there is none
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// exchange uses up a refresh token. The keeper's lock is held.
func (c *Client) exchange(ctx context.Context, refresh string) (*grant, error) {
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
	var g *grant
	err := c.repeat(ctx, func(ctx context.Context) error {
		if err := c.probe(ctx, refresh); err != nil {
			return err
		}
		at := c.clock.Read()
		body, err := c.post(ctx, c.cfg.TokenURL, form)
		if err == nil {
			var t Tokens
			if t, err = parseTokens(body); err == nil {
				g = newGrant(t, at)
			}
		}
		var f *failure
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case errors.Is(err, ErrSignIn):
			c.ended = refresh
		case errors.As(err, &f) && f.lost:
			c.lost = refresh
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the token endpoint: %w", err)
	}
	return g, nil
}

// probe does nothing unless an earlier answer to a refresh token was lost. It
// then returns an error unless the endpoint answers a form of an unknown
// grant_type with an error of RFC 6749, which changes nothing.
func (c *Client) probe(ctx context.Context, refresh string) error {
	c.mu.Lock()
	lost := c.lost == refresh
	c.mu.Unlock()
	if !lost {
		return nil
	}
	status, _, body, err := c.send(ctx, c.cfg.TokenURL, url.Values{"grant_type": {"none"}})
	if err != nil {
		return err
	}
	if status/100 != 4 || errorCode(body) == "" {
		return &failure{text: fmt.Sprintf("status %d, after an answer was lost", status), again: true, after: -1}
	}
	c.mu.Lock()
	c.lost = ""
	c.mu.Unlock()
	return nil
}

// revoke revokes the session of a refresh token.
func (c *Client) revoke(ctx context.Context, refresh string) error {
	err := c.repeat(ctx, func(ctx context.Context) error {
		_, err := c.post(ctx, c.cfg.RevokeURL, url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}})
		return err
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrSignIn): // which it is not: the record stays
		return errors.New("the revocation endpoint has refused the refresh token")
	}
	return fmt.Errorf("the revocation endpoint: %w", err)
}

// repeat calls once up to attempts times, while it fails in a way that may pass.
func (c *Client) repeat(ctx context.Context, once func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, ownRequest{}, c), exchangeLimit)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := once(ctx)
		var f *failure
		if err == nil || !errors.As(err, &f) || !f.again || attempt == attempts || f.after > maxRetryAfter {
			return err
		}
		if f.after < 0 {
			pause := firstPause << (attempt - 1)
			f.after = pause + rand.N(pause)
		}
		if !sleep(ctx, f.after) {
			return err
		}
	}
}

// sleep waits, and reports whether ctx is not done. It does not wait beyond the
// deadline of ctx.
func sleep(ctx context.Context, d time.Duration) bool {
	if left, ok := clock.Left(ctx); ok && left <= d {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// post sends a form and returns the body of an answer with status 200.
func (c *Client) post(ctx context.Context, to string, form url.Values) ([]byte, error) {
	if c.cfg.ClientID != "" {
		form.Set("client_id", c.cfg.ClientID)
	}
	status, header, body, err := c.send(ctx, to, form)
	if err != nil {
		return nil, err
	}
	code := errorCode(body)
	switch {
	case status == http.StatusOK:
		return body, nil
	case status == http.StatusUnauthorized, status == http.StatusBadRequest && code == "invalid_grant":
		return nil, errRefused
	}
	text := fmt.Sprintf("status %d", status)
	if code != "" {
		text += " " + code
	}
	f := &failure{text: text, after: -1}
	switch status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		f.again = true
		if d, ok := retryAfter(header, c.clock.Now()); ok {
			f.after = d
		}
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		f.again, f.lost = true, true // a proxy may have lost the answer
	}
	return nil, f
}

// send sends a form and reads the answer.
func (c *Client) send(ctx context.Context, to string, form url.Values) (status int, header http.Header, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, nil, errors.New("the request could not be made")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, lostRequest(ctx, "the request failed", err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, nil, nil, lostRequest(ctx, "the answer could not be read", err)
	case len(body) > maxAnswer:
		return 0, nil, nil, &failure{text: fmt.Sprintf("an answer over %d bytes", maxAnswer), lost: true, again: true, after: -1}
	}
	return resp.StatusCode, resp.Header, body, nil
}

// lostRequest describes a request without an answer by one of a few fixed causes.
func lostRequest(ctx context.Context, what string, err error) *failure {
	f := &failure{text: what, cause: err, lost: true, again: true, after: -1}
	var (
		op   *net.OpError
		cert *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &cert):
		f.text, f.lost, f.again = what+": the certificate is not trusted", false, false
	case errors.As(err, &op) && op.Op == "dial":
		f.text, f.lost = what+": no connection", false
	case ctx.Err() != nil:
		f.text, f.cause = what+": timeout", ctx.Err()
	}
	return f
}

// parseTokens returns the tokens of an answer with status 200.
func parseTokens(body []byte) (Tokens, error) {
	var t Tokens
	err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &t)
	switch {
	case err != nil:
		err = errors.New("the answer is not the JSON of tokens")
	case t.TokenType == "":
		err = errors.New("the answer has no token_type")
	case t.ExpiresIn < 1:
		err = errors.New("the answer has no expires_in")
	default:
		err = t.check()
	}
	if err != nil {
		return Tokens{}, &failure{text: err.Error(), lost: true, again: true, after: -1}
	}
	return t, nil
}

// errorCodes are those of RFC 6749 section 5.2 and RFC 7009, and of this library.
var errorCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
	"invalid_scope", "unsupported_token_type", "temporarily_unavailable", "server_error",
}

// errorCode returns the error code of an answer, or "" if it has none that is
// known.
func errorCode(body []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil || !slices.Contains(errorCodes, e.Error) {
		return ""
	}
	return e.Error
}

// retryAfter returns the time of a Retry-After header (RFC 9110 section 10.2.3).
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	s := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	t, err := http.ParseTime(s)
	if err != nil {
		return 0, false
	}
	return max(0, clock.Between(now, t)), true
}
