package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

// maxCookie is how many bytes of name and value together browsers keep (RFC
// 6265bis section 5.6); a longer cookie is dropped without a word.
const maxCookie = 4096

func (s *Sessions[T]) newCookie(value string) *http.Cookie {
	return &http.Cookie{
		Name: s.cookie, Value: value, Path: "/", Domain: s.cfg.CookieDomain,
		Secure: true, HttpOnly: true, SameSite: s.cfg.SameSite,
		// No Max-Age: it goes when the browser is closed. What ends the session is
		// the token, not the cookie.
	}
}

// fits is asked before any header is written.
func (s *Sessions[T]) fits(token string) error {
	if n := len(s.cookie) + len(token); n > maxCookie {
		return fmt.Errorf("sessionhttp: a cookie of %d B is over the %d B that browsers keep; lower IssuerConfig.MaxBytes", n, maxCookie)
	}
	return nil
}

// set puts the cookie into the response, and clear takes it away. The answer
// must be kept by no cache, whatever the handler says of it.
func (s *Sessions[T]) set(w http.ResponseWriter, token string) http.ResponseWriter {
	http.SetCookie(w, s.newCookie(token))
	return uncached(w)
}

func (s *Sessions[T]) clear(w http.ResponseWriter) http.ResponseWriter {
	c := s.newCookie("")
	c.MaxAge = -1
	http.SetCookie(w, c)
	return uncached(w)
}

// maxCookieAge is the longest Max-Age that browsers keep to (RFC 6265bis section
// 5.5).
const maxCookieAge = 400 * 24 * time.Hour

// refreshCookie holds a refresh token. It outlives the browser's window, and is
// sent to the refresh path alone; a path rules out the prefix "__Host-".
func (s *Sessions[T]) refreshCookie(token string) *http.Cookie {
	return &http.Cookie{
		Name: "__Secure-" + s.cfg.CookieName + "-refresh", Value: token, Path: s.cfg.RefreshPath, Domain: s.cfg.CookieDomain,
		Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
}

func (s *Sessions[T]) setRefresh(w http.ResponseWriter, token string, ends time.Time) {
	c := s.refreshCookie(token)
	// Rounded down, and at least a second: 0 would mean that there is no Max-Age.
	c.MaxAge = max(1, int(min(time.Until(ends), maxCookieAge)/time.Second))
	http.SetCookie(w, c)
}

func (s *Sessions[T]) clearRefresh(w http.ResponseWriter) {
	if s.cfg.RefreshPath != "" {
		c := s.refreshCookie("")
		c.MaxAge = -1
		http.SetCookie(w, c)
	}
}

func uncached(w http.ResponseWriter) http.ResponseWriter {
	w.Header().Set("Cache-Control", "no-store")
	if _, already := w.(*noStore); already {
		return w
	}
	return &noStore{ResponseWriter: w}
}

// noStore holds a response that sets a cookie to Cache-Control: no-store.
type noStore struct {
	http.ResponseWriter
	wrote bool
}

func (w *noStore) begin() {
	if !w.wrote {
		w.wrote = true
		w.Header().Set("Cache-Control", "no-store")
	}
}

func (w *noStore) WriteHeader(status int) {
	if status >= 200 { // before it there may be hints, which do not end the header
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *noStore) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// Flush is http.Flusher, for handlers that do not use http.ResponseController.
func (w *noStore) Flush() {
	w.begin()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController, which may be used before the header is
// written.
func (w *noStore) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// isSecure says whether a cookie may be set in answer to r.
func (s *Sessions[T]) isSecure(r *http.Request) bool {
	if r.TLS != nil || s.cfg.TLSInFront {
		return true
	}
	host := r.Host
	if at, err := netip.ParseAddrPort(host); err == nil {
		return at.Addr().IsLoopback()
	}
	for _, name := range []string{"localhost", "[::1]", "127.0.0.1"} {
		if host == name || len(host) > len(name) && host[:len(name)+1] == name+":" {
			return true
		}
	}
	return false
}

// readCookie verifies a cookie's token, and renews it when half its life is over
// or when it has expired and can still be renewed.
func (s *Sessions[T]) readCookie(w http.ResponseWriter, r *http.Request, token string) (http.ResponseWriter, *sessiontoken.Claims[T], error) {
	ctx := r.Context()
	c, err := s.cfg.Verifier.Verify(ctx, token)
	due := err == nil && !time.Now().Before(dueAt(c)) || errors.Is(err, sessiontoken.ErrExpired)
	if s.cfg.Issuer != nil && due {
		var renewed string
		var fresh *sessiontoken.Claims[T]
		renewErr := ErrInsecure
		if s.isSecure(r) {
			renewed, renewErr = s.renewals.do(ctx, token, s.renew)
		}
		if renewErr == nil {
			// It may have been ended since: what was renewed is verified as it came.
			fresh, renewErr = s.cfg.Verifier.Verify(ctx, renewed)
		}
		switch {
		case renewErr == nil:
			return s.set(w, renewed), fresh, nil
		case isEnd(renewErr) || c == nil:
			c, err = nil, renewErr
		default:
			// It cannot be renewed now, and is still good.
			s.tell(r, renewErr)
		}
	}
	if isEnd(err) {
		w = s.clear(w)
	}
	return w, c, err
}

// dueAt is when half of a token's life is over.
func dueAt[T any](c *sessiontoken.Claims[T]) time.Time {
	return c.IssuedAt.Add(c.Expires.Sub(c.IssuedAt) / 2)
}

// isEnd says whether a session has ended for good. A signature that cannot be
// verified, for one, may be that of a key which is not known here yet.
func isEnd(err error) bool {
	return errors.Is(err, sessiontoken.ErrExpired) || errors.Is(err, sessiontoken.ErrRevoked) || errors.Is(err, ErrSessionOver)
}

// renew exchanges a token for one with the state of now, and says when that one
// is due.
func (s *Sessions[T]) renew(ctx context.Context, token string) (string, time.Time, error) {
	var over *sessiontoken.Claims[T]
	renewed, c, err := s.cfg.Issuer.Renew(ctx, token, func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error) {
		state, err := s.cfg.Load(ctx, old)
		if errors.Is(err, ErrSessionOver) {
			over = old
		}
		return state, err
	})
	if over != nil {
		if err := s.end(ctx, over); err != nil {
			return "", time.Time{}, err
		}
		return "", time.Time{}, ErrSessionOver
	}
	if err != nil {
		return "", time.Time{}, err
	}
	return renewed, dueAt(c), s.fits(renewed)
}
