package sessionhttp

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
)

const (
	// maxCookie is how many bytes the name and the value of a cookie have
	// together at most (RFC 6265bis section 5.6). A browser silently drops a
	// longer one.
	maxCookie = 4096
	// maxCookieAge is the longest Max-Age that browsers keep to (RFC 6265bis
	// section 5.5).
	maxCookieAge = 400 * 24 * time.Hour
	// maxTried is how many cookies of one name are verified in a request. Each
	// costs time, and another host of the site can plant many.
	maxTried = 4
	// maxSimple is how many other cookies a simple header has at most. net/http
	// reads other headers, and counts their cookies.
	maxSimple = 100
	// maxFamilies is how many refresh cookies are tried with a binder. A forged
	// one costs an HMAC, an authentic one a reading of the store.
	maxFamilies = 32
)

// errCookieSize is permanent: the same state makes the same cookie.
var errCookieSize = errors.New("sessionhttp: the cookie is longer than browsers keep")

// keeping is how long the browser keeps the cookies of a session, as [Remember]
// set it. A browser does not send back the attributes of a cookie. So keeping
// is appended to the values of the session cookie and of the binder, where a
// renewal reads it. A user who changes it changes how long their own browser
// keeps the cookies, and nothing else.
type keeping string

const (
	keepUnset   keeping = ""   // the session cookie until the window is closed, the refresh cookie until its family ends
	keepAll     keeping = "~r" // after the window is closed, too
	keepNothing keeping = "~f" // when the window is closed
)

// cutKeeping splits the value of a cookie into the token or binder and the
// keeping.
func cutKeeping(value string) (string, keeping) {
	for _, k := range []keeping{keepAll, keepNothing} {
		if before, ok := strings.CutSuffix(value, string(k)); ok {
			return before, k
		}
	}
	return value, keepUnset
}

// keepingOf returns the keeping of the session cookie with a token.
func (s *Sessions[T]) keepingOf(r *http.Request, token string) keeping {
	for _, c := range r.CookiesNamed(s.cookie) {
		if t, k := cutKeeping(c.Value); t == token {
			return k
		}
	}
	return keepUnset
}

// sessionCookie returns the session cookie without a Max-Age: the browser
// removes it when it is closed. The token ends the session, and not the cookie.
func (s *Sessions[T]) sessionCookie(value string) *http.Cookie {
	return &http.Cookie{
		Name: s.cookie, Value: value, Path: "/", Domain: s.cfg.CookieDomain,
		Secure: true, HttpOnly: true, SameSite: s.cfg.SameSite, Partitioned: s.cfg.Partitioned,
	}
}

// refreshCookie returns the cookie with a refresh token. It has a Max-Age, and
// is sent to the refresh path alone. A cookie with a path cannot have the
// prefix "__Host-", so that any host of the site can plant one. It is accepted
// only with its binder.
func (s *Sessions[T]) refreshCookie(token string) *http.Cookie {
	return &http.Cookie{
		Name: s.refresh, Value: token, Path: s.cfg.RefreshPath,
		Secure: true, HttpOnly: true, SameSite: s.refreshSameSite(), Partitioned: s.cfg.Partitioned,
	}
}

// binderCookie returns the cookie that proves that the browser got the refresh
// cookie from this host: no other host can set a "__Host-" cookie.
func (s *Sessions[T]) binderCookie(value string) *http.Cookie {
	return &http.Cookie{
		Name: s.binder, Value: value, Path: "/",
		Secure: true, HttpOnly: true, SameSite: s.refreshSameSite(), Partitioned: s.cfg.Partitioned,
	}
}

func (s *Sessions[T]) refreshSameSite() http.SameSite {
	if s.cfg.SameSite == http.SameSiteNoneMode {
		return http.SameSiteNoneMode
	}
	return http.SameSiteStrictMode
}

// fits returns an error if a browser would drop a cookie. It is called before a
// header is written or a refresh token is used up.
func (s *Sessions[T]) fits(token string, k keeping) error {
	if n := len(s.cookie) + len(token) + len(k); n > maxCookie {
		return fmt.Errorf("%w: %d B of %d B; lower IssuerConfig.MaxBytes", errCookieSize, n, maxCookie)
	}
	return nil
}

// setSession sets the session cookie. With keepAll, its Max-Age is the time for
// which the token can be renewed.
func (s *Sessions[T]) setSession(w http.ResponseWriter, token string, claims *sessiontoken.Claims[T], k keeping) {
	c := s.sessionCookie(token + string(k))
	if k == keepAll {
		c.MaxAge = seconds(min(s.issuer.IdleTimeout, clock.Between(claims.IssuedAt, claims.Began.Add(s.issuer.MaxSession))))
	}
	setCookie(w, c)
}

// setRefresh sets the refresh cookie and its binder. Both live until the family
// ends.
func (s *Sessions[T]) setRefresh(w http.ResponseWriter, token, binder string, left time.Duration, k keeping) {
	for _, c := range []*http.Cookie{s.refreshCookie(token), s.binderCookie(binder + string(k))} {
		if k != keepNothing {
			c.MaxAge = seconds(left)
		}
		setCookie(w, c)
	}
}

// seconds returns a Max-Age, rounded down. It is at least 1, since net/http
// writes no Max-Age for 0.
func seconds(d time.Duration) int { return max(1, int(min(d, maxCookieAge)/time.Second)) }

func clearCookie(w http.ResponseWriter, c *http.Cookie) {
	c.MaxAge = -1
	setCookie(w, c)
}

// clearSession removes the session cookie.
func (s *Sessions[T]) clearSession(w http.ResponseWriter, r *http.Request) {
	s.clearVariants(w, r)
	clearCookie(w, s.sessionCookie(""))
}

// clearAll removes all cookies that SignIn sets.
func (s *Sessions[T]) clearAll(w http.ResponseWriter, r *http.Request) {
	s.clearSession(w, r)
	s.clearRefresh(w)
}

// clearRefresh removes the refresh cookie and its binder.
func (s *Sessions[T]) clearRefresh(w http.ResponseWriter) {
	if s.cfg.RefreshPath != "" {
		clearCookie(w, s.refreshCookie(""))
		clearCookie(w, s.binderCookie(""))
	}
}

// clearVariants removes cookies of our names that an earlier configuration set,
// which the browser would send too:
//
//   - those of this host and of the domains above it, for another CookieDomain;
//   - those with the other value of Partitioned.
func (s *Sessions[T]) clearVariants(w http.ResponseWriter, r *http.Request) {
	found := len(r.CookiesNamed(s.cookie)) > 0
	if s.cfg.SameSite == http.SameSiteNoneMode && (found || len(r.CookiesNamed(s.binder)) > 0) {
		others := []*http.Cookie{s.sessionCookie("")}
		if s.cfg.RefreshPath != "" {
			others = append(others, s.refreshCookie(""), s.binderCookie(""))
		}
		for _, c := range others {
			c.Partitioned = !c.Partitioned
			clearCookie(w, c)
		}
	}
	if s.cfg.CookieDomain == "" || !found {
		return
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	ours := strings.TrimPrefix(strings.ToLower(s.cfg.CookieDomain), ".")
	domains := []string{""}
	for d := host; strings.Contains(d, ".") && len(domains) <= 8; {
		if d != ours {
			domains = append(domains, d)
		}
		_, d, _ = strings.Cut(d, ".")
	}
	for _, d := range domains {
		c := s.sessionCookie("")
		c.Domain = d
		if c.Valid() == nil {
			clearCookie(w, c)
		}
	}
}

// cookieTokens returns the values of the cookies of a name for which isToken
// returns true, at most most of them. Each is returned once and without its
// keeping. found reports whether the request has a cookie of that name, all
// whether no value was left out.
func cookieTokens(r *http.Request, name string, most int, isToken func(string) bool) (tokens []string, found, all bool) {
	seen := map[string]bool{}
	for _, c := range r.CookiesNamed(name) {
		found = true
		value, _ := cutKeeping(c.Value)
		if seen[value] || !isToken(value) {
			continue
		}
		if len(tokens) == most {
			return tokens, true, false
		}
		seen[value] = true
		tokens = append(tokens, value)
	}
	return tokens, found, true
}

// onlyToken is cookieTokens without an allocation, for the header of nearly all
// requests: one line, in which the name appears once and has the value of a
// token. ok is false for any other header, which may also hold a token.
func onlyToken(h http.Header, name string) (token string, ok bool) {
	lines := h["Cookie"]
	if len(lines) != 1 || strings.Count(lines[0], name) != 1 || strings.Count(lines[0], ";") > maxSimple {
		return "", false
	}
	before, after, _ := strings.Cut(lines[0], name)
	value, ok := strings.CutPrefix(after, "=")
	if !ok || before != "" && !strings.HasSuffix(before, "; ") {
		return "", false
	}
	value, _, _ = strings.Cut(value, ";")
	token, _ = cutKeeping(value)
	return token, isJWS(token)
}

// isJWS reports whether a value has the form of a token: three segments in
// base64url, of which the first is a JSON object.
func isJWS(s string) bool {
	dots := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c == '.':
			dots++
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_':
		default:
			return false
		}
	}
	return dots == 2 && strings.HasPrefix(s, "ey") && len(s) <= maxCookie
}

// isOpaque reports whether a value has the form of a refresh token or a binder.
func isOpaque(s string) bool {
	return s != "" && len(s) <= maxCookie/4 && arg.IsToken68(s)
}
