//go:build unix

package faults

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/refresh"
)

const (
	opURL   = "https://op.example"
	siteURL = "https://site.example"
	// Each provider session has some logins, and each subject some provider
	// sessions.
	opLogins   = 1000
	opSessions = 300
	opSubjects = 100
	opReplicas = 5
)

// provider is an OpenID provider in memory. It is the transport of its clients.
type provider struct {
	key *ecdsa.PrivateKey

	mu    sync.Mutex
	codes map[string]jwt.MapClaims // the ID token that a code stands for
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return &provider{key: key, codes: map[string]jwt.MapClaims{}}
}

func (p *provider) sign(typ string, claims jwt.MapClaims) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["typ"], token.Header["kid"] = typ, "op-1"
	return token.SignedString(p.key)
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	var answer any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer = map[string]any{
			"issuer": opURL, "authorization_endpoint": opURL + "/authorize", "token_endpoint": opURL + "/token", "jwks_uri": opURL + "/jwks",
			"id_token_signing_alg_values_supported": []string{"ES256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"authorization_response_iss_parameter_supported": true, "backchannel_logout_supported": true,
		}
	case "/jwks":
		at, err := p.key.PublicKey.Bytes() // 4, x, y
		if err != nil {
			return nil, err
		}
		coordinate := base64.RawURLEncoding.EncodeToString
		answer = map[string]any{"keys": []any{map[string]any{
			"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "op-1", "x": coordinate(at[1:33]), "y": coordinate(at[33:]),
		}}}
	case "/token":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		claims, ok := p.codes[form.Get("code")]
		delete(p.codes, form.Get("code"))
		p.mu.Unlock()
		if !ok {
			return nil, errors.New("an unknown code")
		}
		token, err := p.sign("JWT", claims)
		if err != nil {
			return nil, err
		}
		answer = map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": token}
	default:
		return nil, fmt.Errorf("nothing at %s", r.URL.Path)
	}
	body, err := json.Marshal(answer)
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r,
	}, err
}

// logoutToken returns a logout token of a session, of a subject, or of both.
func (p *provider) logoutToken(t *testing.T, sub, sid string) string {
	t.Helper()
	now := time.Now().Unix()
	claims := jwt.MapClaims{
		"iss": opURL, "aud": clientID, "iat": now, "exp": now + 120, "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	if sub != "" {
		claims["sub"] = sub
	}
	if sid != "" {
		claims["sid"] = sid
	}
	token, err := p.sign("logout+jwt", claims)
	require.NoError(t, err)
	return token
}

// relying is one replica of a site whose users sign in with the provider.
type relying struct {
	*authority.Authority[struct{}]
	op    *provider
	login *oidclogin.Provider[struct{}]
}

func newRelying(t *testing.T, op *provider, s authority.Store) *relying {
	t.Helper()
	secrets := [][]byte{bytes.Repeat([]byte("s"), 32)}
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: siteURL, Audience: []string{siteURL}, Store: s, Secrets: secrets, Logger: quiet,
		Load: func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil },
	})
	require.NoError(t, err)
	login, err := oidclogin.New(oidclogin.Config[struct{}]{
		Sessions: a.Sessions(), Revocations: a.Revocations(), Secrets: secrets, Logger: quiet,
		Issuer: opURL, ClientID: clientID, ClientSecret: "secret", RedirectURL: siteURL + "/oidc/callback",
		Client: &http.Client{Transport: op},
		User: func(_ context.Context, l *oidclogin.Login) (string, struct{}, error) {
			return "user-" + l.Subject, struct{}{}, nil
		},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return &relying{a, op, login}
}

// underWay is a login of which the browser is at the provider.
type underWay struct {
	cookie *http.Cookie
	back   string // the URL to which the provider sends it back
}

// leave begins a login. The provider knows the browser: it has a session.
func (r *relying) leave(sub, sid string) (*underWay, error) {
	w := httptest.NewRecorder()
	r.login.ServeHTTP(w, httptest.NewRequest(http.MethodGet, siteURL+"/oidc/login", nil))
	to, err := url.Parse(w.Header().Get("Location"))
	cookies := w.Result().Cookies()
	if err != nil || !strings.HasPrefix(to.String(), opURL+"/authorize?") || len(cookies) != 1 {
		return nil, fmt.Errorf("the login does not begin: %d", w.Code)
	}
	code, now := rand.Text(), time.Now().Unix()
	r.op.mu.Lock()
	r.op.codes[code] = jwt.MapClaims{
		"iss": opURL, "sub": sub, "aud": clientID, "sid": sid, "nonce": to.Query().Get("nonce"), "iat": now, "exp": now + 300, "auth_time": now,
	}
	r.op.mu.Unlock()
	back := url.Values{"state": {to.Query().Get("state")}, "code": {code}, "iss": {opURL}}
	return &underWay{cookies[0], siteURL + "/oidc/callback?" + back.Encode()}, nil
}

// errAgain means that a login has started again.
var errAgain = errors.New("the browser is sent to the provider again")

// arrive ends a login and returns the session token.
func (r *relying) arrive(u *underWay) (string, error) {
	req := httptest.NewRequest(http.MethodGet, u.back, nil)
	req.AddCookie(u.cookie)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	w := httptest.NewRecorder()
	r.login.ServeHTTP(w, req)
	for _, c := range w.Result().Cookies() {
		if token, _, _ := strings.Cut(c.Value, "~"); strings.Count(token, ".") == 2 {
			return token, nil
		}
	}
	if strings.HasPrefix(w.Header().Get("Location"), opURL) {
		return "", errAgain
	}
	return "", fmt.Errorf("the login does not end: %d", w.Code)
}

func (r *relying) signIn(sub, sid string) (string, error) {
	u, err := r.leave(sub, sid)
	if err != nil {
		return "", err
	}
	return r.arrive(u)
}

// logOut sends a logout token, and returns the status.
func (r *relying) logOut(token string) int {
	req := httptest.NewRequest(http.MethodPost, siteURL+"/oidc/backchannel-logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	r.login.ServeHTTP(w, req)
	return w.Code
}

// lives reports whether a token is accepted. Anything but that and a revocation
// is an error of the test.
func (r *relying) lives(t *testing.T, token string) bool {
	t.Helper()
	_, err := r.Verifier().Verify(t.Context(), token)
	if err != nil {
		require.ErrorIs(t, err, sessiontoken.ErrRevoked)
	}
	return err == nil
}

// opLogin is a session that a login has begun.
type opLogin struct {
	sub, sid, token string
	dead            bool // it must be revoked
}

// ProviderLogouts: five replicas on one engine, and 1,000 sessions that 300
// sessions at an OpenID provider have begun. Whatever logs out there ends
// exactly its sessions, on every replica. rows returns how many rows the engine
// has.
func ProviderLogouts(t *testing.T, open func() authority.Store, rows func() int) {
	op := newProvider(t)
	var site []*relying
	for range opReplicas {
		site = append(site, newRelying(t, op, open()))
	}
	// In its first moments a site makes its keys, and the store's birth mark.
	for _, r := range site {
		wait(t, 10*time.Second, "a replica signs users in", func() bool {
			token, err := r.signIn("first", "first")
			return err == nil && r.lives(t, token)
		})
	}
	wait(t, 10*time.Second, "all know one birth mark, and none writes another", func() bool {
		for _, r := range site {
			if birth := r.Revocations().Status().Birth; birth.IsZero() || !birth.Equal(site[0].Revocations().Status().Birth) {
				return false
			}
		}
		n := rows()
		time.Sleep(200 * time.Millisecond)
		return n == rows()
	})
	bound, _ := site[0].Revocations().Staleness()
	bound += slack

	before, began := rows(), time.Now()
	logins := signInAll(t, site)
	require.Equal(t, before, rows(), "no row is written at login")
	t.Logf("%s: %d logins in %v, and no row", t.Name(), len(logins), time.Since(began).Round(time.Millisecond))
	exactly(t, site, logins)

	families := startFamilies(t, site[0], logins)
	before = rows()

	// One session at the provider.
	gone := opSid(7)
	one := op.logoutToken(t, opSub(7), gone)
	began = time.Now()
	require.Equal(t, http.StatusOK, site[0].logOut(one))
	mark(logins, func(l *opLogin) bool { return l.sid == gone })
	knownWithin(t, bound, site, logins)
	t.Logf("%s: one session at the provider ended everywhere after %v", t.Name(), time.Since(began).Round(time.Millisecond))
	require.Equal(t, before+2, rows(), "an entry for its sessions, and one for the token")

	// Replayed, also after the same session at the provider has begun others.
	later, err := site[2].signIn(opSub(7), gone)
	require.NoError(t, err)
	logins = append(logins, opLogin{sub: opSub(7), sid: gone, token: later})
	for _, r := range site {
		require.Equal(t, http.StatusOK, r.logOut(one))
	}
	require.Equal(t, before+2, rows(), "a replay writes nothing")
	exactly(t, site, logins)

	// One subject, in all its sessions at the provider.
	require.Equal(t, http.StatusOK, site[1].logOut(op.logoutToken(t, opSub(11), "")))
	mark(logins, func(l *opLogin) bool { return l.sub == opSub(11) })
	knownWithin(t, bound, site, logins)
	require.Equal(t, before+4, rows())

	// The refresh tokens of these sessions, at another replica.
	for i, family := range families {
		_, _, err := site[3].Refresh().Exchange(t.Context(), refresh.Presented{Token: family}, func(context.Context, refresh.Family) error { return nil })
		if logins[i].dead {
			require.ErrorIs(t, err, refresh.ErrInvalid)
		} else {
			require.NoError(t, err)
		}
	}

	codesOnTheWay(t, op, site)
	duringSignIns(t, op, site, bound)
	exactly(t, site, logins)
}

func opSid(i int) string { return fmt.Sprint("op-session-", i%opSessions) }

func opSub(i int) string { return fmt.Sprint("op-subject-", i%opSessions%opSubjects) }

// signInAll makes all logins, spread over the replicas.
func signInAll(t *testing.T, site []*relying) []opLogin {
	t.Helper()
	logins, errs := make([]opLogin, opLogins), make([]error, opLogins)
	var signing sync.WaitGroup
	for at := range 40 {
		signing.Go(func() {
			for i := at; i < opLogins; i += 40 {
				token, err := site[i%len(site)].signIn(opSub(i), opSid(i))
				logins[i], errs[i] = opLogin{sub: opSub(i), sid: opSid(i), token: token}, err
			}
		})
	}
	signing.Wait()
	require.NoError(t, errors.Join(errs...))
	return logins
}

// startFamilies gives refresh tokens to some sessions: of the session at the
// provider and of the subject that will log out, and of some others. The tokens
// are by the place of the login.
func startFamilies(t *testing.T, r *relying, logins []opLogin) map[int]string {
	t.Helper()
	tokens := map[int]string{}
	for _, first := range []int{7, 8, 11, 12, 107, 111} {
		for i := first; i < len(logins); i += opSessions {
			c, err := r.Verifier().Verify(t.Context(), logins[i].token)
			require.NoError(t, err)
			tokens[i], _, err = r.Refresh().Start(t.Context(), refresh.Family{Subject: c.Subject, SessionID: c.SessionID, Began: c.Began}, "")
			require.NoError(t, err)
		}
	}
	return tokens
}

func mark(logins []opLogin, dead func(*opLogin) bool) {
	for i := range logins {
		logins[i].dead = logins[i].dead || dead(&logins[i])
	}
}

// wrong returns how many sessions a replica accepts that it must not, and the
// other way round.
func wrong(t *testing.T, r *relying, logins []opLogin) (accepted, refused int) {
	t.Helper()
	for _, l := range logins {
		switch lives := r.lives(t, l.token); {
		case lives && l.dead:
			accepted++
		case !lives && !l.dead:
			refused++
		}
	}
	return accepted, refused
}

func exactly(t *testing.T, site []*relying, logins []opLogin) {
	t.Helper()
	for i, r := range site {
		accepted, refused := wrong(t, r, logins)
		require.Zero(t, accepted, "sessions that have ended, at replica %d", i)
		require.Zero(t, refused, "sessions of others, at replica %d", i)
	}
}

// knownWithin waits until all replicas know, for the bound at most. None may refuse a
// session of others at any time.
func knownWithin(t *testing.T, bound time.Duration, site []*relying, logins []opLogin) {
	t.Helper()
	wait(t, bound, "every replica knows of the logout", func() bool {
		all := 0
		for i, r := range site {
			accepted, refused := wrong(t, r, logins)
			require.Zero(t, refused, "sessions of others, at replica %d", i)
			all += accepted
		}
		return all == 0
	})
}

// codesOnTheWay: a browser is at the provider when the logout comes, at another
// replica. Its login does not end in a session.
func codesOnTheWay(t *testing.T, op *provider, site []*relying) {
	t.Helper()
	for _, of := range []struct{ sub, sid string }{{"", "op-session-way"}, {"op-subject-way", ""}} {
		var ways []*underWay
		for _, r := range site {
			u, err := r.leave("op-subject-way", "op-session-way")
			require.NoError(t, err)
			ways = append(ways, u)
		}
		stranger, err := site[0].leave("op-subject-other", "op-session-other")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, site[4].logOut(op.logoutToken(t, of.sub, of.sid)))
		for i, u := range ways {
			_, err := site[i].arrive(u)
			require.ErrorIs(t, err, errAgain, "replica %d, at once", i)
		}
		_, err = site[0].arrive(stranger)
		require.NoError(t, err)
		again, err := site[1].signIn("op-subject-way", "op-session-way")
		require.NoError(t, err)
		for _, r := range site {
			require.True(t, r.lives(t, again), "the next login")
		}
	}
}

// duringSignIns: logins of one session at the provider go on at all replicas
// while it is logged out. Those that had ended before are revoked, those that
// began afterwards are not, and all replicas agree about the rest.
func duringSignIns(t *testing.T, op *provider, site []*relying, bound time.Duration) {
	t.Helper()
	const sub, sid = "op-subject-busy", "op-session-busy"
	type attempt struct {
		from, to time.Time
		token    string
	}
	var mu sync.Mutex
	var attempts []attempt
	stop := make(chan struct{})
	var errs []error
	var signing sync.WaitGroup
	for _, r := range site {
		for range 2 {
			signing.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					from := time.Now()
					token, err := r.signIn(sub, sid)
					mu.Lock()
					if err == nil {
						attempts = append(attempts, attempt{from, time.Now(), token})
					} else if !errors.Is(err, errAgain) {
						errs = append(errs, err)
					}
					mu.Unlock()
				}
			})
		}
	}
	ended := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(attempts)
	}
	wait(t, time.Minute, "logins have ended", func() bool { return ended() >= 30 })
	sent := time.Now()
	status := site[2].logOut(op.logoutToken(t, "", sid))
	done, n := time.Now(), ended()
	wait(t, time.Minute, "logins have ended", func() bool { return ended() >= n+30 })
	close(stop)
	signing.Wait()
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, errors.Join(errs...))

	earlier, later := 0, 0
	wait(t, bound, "every replica knows of the logout", func() bool {
		for _, a := range attempts {
			for _, r := range site {
				if a.to.Before(sent) && r.lives(t, a.token) {
					return false
				}
			}
		}
		return true
	})
	for _, a := range attempts {
		lives := site[0].lives(t, a.token)
		switch {
		case a.to.Before(sent):
			earlier++
			require.False(t, lives)
		case a.from.After(done):
			later++
			require.True(t, lives, "it began after the logout")
		}
		for _, r := range site {
			require.Equal(t, lives, r.lives(t, a.token), "two replicas disagree")
		}
	}
	require.NotZero(t, earlier)
	require.NotZero(t, later)
	t.Logf("%s: a logout during %d logins of its session: %d earlier, %d later, all as they must be", t.Name(), len(attempts), earlier, later)
}
