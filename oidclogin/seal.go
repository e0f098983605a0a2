package oidclogin

import (
	"cmp"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/jws"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	loginLife  = 10 * time.Minute // of a login, and of a sign-out at the provider
	maxAlive   = 3                // login cookies of one browser
	maxCookie  = 4096             // bytes of name and value together that browsers keep
	stateTime  = 12               // hex digits
	stateSize  = stateTime + 26   // and what rand.Text returns
	doneFor    = 10 * time.Second // see isLoop
	hostPrefix = "__Host-"
)

// The kinds of sealed cookies. Each has a key of its own.
const (
	kindLogin   = "login"
	kindSignOut = "sign-out"
	kindHint    = "hint"
)

// cookieNames are the names of one provider's cookies. They differ from those
// of the site's other providers. All have the prefix "__Host-": no other host
// can set them.
type cookieNames struct {
	login, signOut string // prefixes, which a state follows
	hint, done     string
}

func newCookieNames(issuer, clientID string) cookieNames {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(issuer), issuer, clientID))
	prefix := hostPrefix + "oidc-" + hex.EncodeToString(sum[:4]) + "-"
	return cookieNames{login: prefix + "login-", signOut: prefix + "out-", hint: prefix + "hint", done: prefix + "done"}
}

// newState returns a value that cannot be guessed, with 130 random bits. It
// begins with the time in milliseconds, so that the order of the names of
// cookies is that of their age.
func newState(now time.Time) string {
	return fmt.Sprintf("%0*x", stateTime, max(0, now.UnixMilli())) + rand.Text()
}

// isState reports whether s has the form of a state.
func isState(s string) bool {
	return len(s) == stateSize && !strings.ContainsFunc(s, func(r rune) bool {
		return !('0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'Z')
	})
}

// sealer encrypts the values of cookies with AES-256-GCM.
type sealer struct{ byKind map[string]keys.AEAD }

func newSealer(secrets [][]byte, issuer, clientID string) (*sealer, error) {
	s := &sealer{byKind: map[string]keys.AEAD{}}
	for _, kind := range []string{kindLogin, kindSignOut, kindHint} {
		aead, err := sealOf(secrets, kind, issuer, clientID)
		if err != nil {
			return nil, err
		}
		s.byKind[kind] = aead
	}
	return s, nil
}

// sealOf returns AES-256-GCM with a key of each secret for one use (HKDF with
// SHA-256, RFC 5869). The first seals, and all open.
func sealOf(secrets [][]byte, use, issuer, clientID string) (keys.AEAD, error) {
	var derived [][]byte
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "sessiontoken oidclogin 1\x00"+use+"\x00"+issuer+"\x00"+clientID, 32)
		if err != nil {
			return nil, err
		}
		derived = append(derived, key)
	}
	return keys.NewAESGCM(derived...)
}

// seal returns v sealed and bound to associated data, in base64url.
func (s *sealer) seal(kind, associated string, v any) (string, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", errors.New("oidclogin: a cookie cannot be written as JSON")
	}
	sealed, err := s.byKind[kind].Encrypt(plain, []byte(associated))
	if err != nil {
		return "", errors.New("oidclogin: a cookie cannot be sealed")
	}
	return jws.Encode(sealed), nil
}

// open reads what seal has made with the same associated data. ok is false for
// anything else.
func (s *sealer) open(kind, associated, value string, v any) (ok bool) {
	if len(value) > maxCookie {
		return false
	}
	sealed, err := jws.Decode(value)
	if err != nil {
		return false
	}
	plain, err := s.byKind[kind].Decrypt(sealed, []byte(associated))
	return err == nil && json.Unmarshal(plain, v) == nil
}

// setCookie sets a cookie of this host alone. A life of 0 means until the
// browser is closed, and a negative one removes the cookie.
func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	c := &http.Cookie{
		Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
		MaxAge: int(life / time.Second),
	}
	if life < 0 {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

func removeCookie(w http.ResponseWriter, name string) { setCookie(w, name, "", -1) }

// removeOldest removes cookies whose names have a prefix, the oldest first,
// until there is room for one more.
func removeOldest(w http.ResponseWriter, r *http.Request, prefix string) {
	var alive []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, prefix) && !slices.Contains(alive, c.Name) {
			alive = append(alive, c.Name)
		}
	}
	slices.SortFunc(alive, func(a, b string) int { return cmp.Compare(a, b) })
	for _, name := range alive[:max(0, len(alive)-(maxAlive-1))] {
		removeCookie(w, name)
	}
}

// onlyCookie returns the value of a cookie. ok is false without one, and with
// several of the name: a browser keeps one.
func onlyCookie(r *http.Request, name string) (value string, ok bool) {
	found := r.CookiesNamed(name)
	if len(found) != 1 {
		return "", false
	}
	return found[0].Value, true
}
