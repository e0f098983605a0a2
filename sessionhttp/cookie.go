package sessionhttp

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
)

const (
	// maxCookie is how many bytes of name and value together browsers keep (RFC
	// 6265bis section 5.6); a longer cookie is dropped without a word.
	maxCookie = 4096
	// maxCookieAge is the longest Max-Age that browsers keep to (RFC 6265bis
	// section 5.5).
	maxCookieAge = 400 * 24 * time.Hour
	// maxLooked is how many cookies of one name are looked at in a request.
	// Verifying costs time, and a neighbour can plant many.
	maxLooked = 4
	// maxSimple is how many other cookies a simple header has at most; net/http
	// counts those of the others.
	maxSimple = 100
	// maxFamilies is how many refresh cookies are looked at beside a binder. A
	// made up one costs an HMAC, and a genuine one a reading of the store.
	maxFamilies = 32
)

// errCookieSize is permanent: the same state makes the same cookie.
var errCookieSize = errors.New("sessionhttp: the cookie is longer than browsers keep")

// keeping is what a sign-in was told about how long the browser keeps its cookies.
// A browser does not send back a cookie's attributes, so it stands behind the value
// of the session cookie and of the binder, for the cookies that follow. A user
// who changes it changes what their own browser keeps.
type keeping string

const (
	keepUntold  keeping = ""   // the session cookie until the window is closed, the refresh cookie until its family ends
	keepAll     keeping = "~r" // after the window is closed, too
	keepNothing keeping = "~f" // when the window is closed
)

// cutKeeping returns what stands before a keeping, and the keeping.
func cutKeeping(value string) (string, keeping) {
	for _, k := range []keeping{keepAll, keepNothing} {
		if before, ok := strings.CutSuffix(value, string(k)); ok {
			return before, k
		}
	}
	return value, keepUntold
}

// keepingOf returns the keeping of the session cookie with a token.
func (s *Sessions[T]) keepingOf(r *http.Request, token string) keeping {
	for _, c := range r.CookiesNamed(s.cookie) {
		if t, k := cutKeeping(c.Value); t == token {
			return k
		}
	}
	return keepUntold
}

// sessionCookie has no Max-Age: it goes when the browser is closed. What ends the
// session is the token, not the cookie.
func (s *Sessions[T]) sessionCookie(value string) *http.Cookie {
	return &http.Cookie{
		Name: s.cookie, Value: value, Path: "/", Domain: s.cfg.CookieDomain,
		Secure: true, HttpOnly: true, SameSite: s.cfg.SameSite, Partitioned: s.cfg.Partitioned,
	}
}

// refreshCookie holds a refresh token. It outlives the browser's window, and is
// sent to the refresh path alone. A path rules out the prefix "__Host-", so any
// neighbour can plant it; it counts only beside its binder.
func (s *Sessions[T]) refreshCookie(token string) *http.Cookie {
	return &http.Cookie{
		Name: s.refresh, Value: token, Path: s.cfg.RefreshPath,
		Secure: true, HttpOnly: true, SameSite: s.refreshSameSite(), Partitioned: s.cfg.Partitioned,
	}
}

// binderCookie proves that the browser got the refresh cookie from this host:
// no other one can set a "__Host-" cookie.
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

// fits is asked before anything is written or used up.
func (s *Sessions[T]) fits(token string, k keeping) error {
	if n := len(s.cookie) + len(token) + len(k); n > maxCookie {
		return fmt.Errorf("%w: %d B of %d B; lower IssuerConfig.MaxBytes", errCookieSize, n, maxCookie)
	}
	return nil
}

// setSession sets the session cookie. One that outlives the window does so for as
// long as its token can be renewed.
func (s *Sessions[T]) setSession(w http.ResponseWriter, token string, claims *sessiontoken.Claims[T], k keeping) {
	c := s.sessionCookie(token + string(k))
	if k == keepAll {
		c.MaxAge = seconds(min(s.issuer.IdleTimeout, clock.Between(claims.IssuedAt, claims.Began.Add(s.issuer.MaxSession))))
	}
	setCookie(w, c)
}

// setRefresh sets the refresh cookie and its binder, both until the family ends.
func (s *Sessions[T]) setRefresh(w http.ResponseWriter, token, binder string, left time.Duration, k keeping) {
	for _, c := range []*http.Cookie{s.refreshCookie(token), s.binderCookie(binder + string(k))} {
		if k != keepNothing {
			c.MaxAge = seconds(left)
		}
		setCookie(w, c)
	}
}

// seconds returns a Max-Age: rounded down, and at least a second, since 0 would
// mean that there is none.
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

// clearAll removes all that SignIn sets.
func (s *Sessions[T]) clearAll(w http.ResponseWriter, r *http.Request) {
	s.clearSession(w, r)
	if s.cfg.RefreshPath != "" {
		clearCookie(w, s.refreshCookie(""))
		clearCookie(w, s.binderCookie(""))
	}
}

// clearVariants removes the cookies of our names that another configuration once
// set, which would be sent beside ours: those of the host and of the domains above
// it with another CookieDomain, and those of the other kind with Partitioned.
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

// cookieTokens returns the values of the cookies of a name that can be tokens,
// each without its keeping and once, no more than most of them. found reports
// whether there is any cookie of the name, all whether no value was left out.
func cookieTokens(r *http.Request, name string, most int, canBe func(string) bool) (tokens []string, found, all bool) {
	seen := map[string]bool{}
	for _, c := range r.CookiesNamed(name) {
		found = true
		value, _ := cutKeeping(c.Value)
		if seen[value] || !canBe(value) {
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

// onlyToken is cookieTokens for the header of nearly all requests, without an
// allocation: one line, in which the name stands once, before a token. ok is false
// for every other header, which may hold a token all the same.
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

// isJWS reports whether a value has the form of a token: three parts in
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

// isOpaque reports whether a value can be a refresh token or a binder.
func isOpaque(s string) bool {
	return s != "" && len(s) <= maxCookie/4 && isToken68(s)
}
