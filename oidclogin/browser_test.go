package oidclogin_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// browser opens pages of handlers without a network, follows redirects, keeps
// cookies, and sends the Sec-Fetch headers of a browser.
type browser struct {
	t     *testing.T
	hosts map[string]http.Handler // by host
	jar   *cookiejar.Jar
	seen  []string // values of all cookies that it was ever given
}

func newBrowser(t *testing.T, hosts map[string]http.Handler) *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &browser{t: t, hosts: hosts, jar: jar}
}

// page is the answer to one request.
type page struct {
	*http.Response
	url  *url.URL
	body string
}

// to returns the URL of a redirect.
func (p *page) to() string {
	loc, err := p.url.Parse(p.Header.Get("Location"))
	if err != nil || p.Header.Get("Location") == "" {
		return ""
	}
	return loc.String()
}

// request sends one request that opens a page. from is the URL of the page that
// has the link or the form, or empty for an address that the user typed.
func (b *browser) request(method, to, from string, form url.Values, change ...func(*http.Request)) *page {
	b.t.Helper()
	u, err := url.Parse(to)
	require.NoError(b.t, err)
	r := httptest.NewRequest(method, to, strings.NewReader(form.Encode()))
	r.RequestURI = u.RequestURI()
	if u.Scheme == "http" {
		r.RemoteAddr = "127.0.0.1:1234"
	}
	site := "none"
	if from != "" {
		f, err := url.Parse(from)
		require.NoError(b.t, err)
		site = "cross-site"
		if f.Host == u.Host {
			site = "same-origin"
		}
		if method == http.MethodPost {
			r.Header.Set("Origin", f.Scheme+"://"+f.Host)
		}
	}
	r.Header.Set("Sec-Fetch-Site", site)
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Accept", "text/html,*/*")
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if method == http.MethodGet || site != "cross-site" { // SameSite=Lax
		for _, c := range b.jar.Cookies(u) {
			r.AddCookie(c)
		}
	}
	for _, f := range change {
		f(r)
	}
	handler := b.hosts[u.Host]
	require.NotNil(b.t, handler, u.Host)
	out := httptest.NewRecorder()
	handler.ServeHTTP(out, r)
	resp := out.Result()
	for _, c := range resp.Cookies() {
		if c.Value != "" {
			b.seen = append(b.seen, c.Value)
		}
	}
	b.jar.SetCookies(u, resp.Cookies())
	body, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	return &page{resp, u, string(body)}
}

// follow follows redirects, and stops before a URL that begins with stop.
func (b *browser) follow(p *page, stop string) *page {
	b.t.Helper()
	for range 20 {
		to := p.to()
		if to == "" || stop != "" && strings.HasPrefix(to, stop) {
			return p
		}
		p = b.request(http.MethodGet, to, opURL, nil)
	}
	b.t.Fatal("redirects without an end")
	return nil
}

// open opens an address that the user typed, and follows redirects.
func (b *browser) open(to string) *page {
	b.t.Helper()
	return b.follow(b.request(http.MethodGet, to, "", nil), "")
}

// cookies returns the names of the cookies that the browser sends to the site.
func (b *browser) cookies() (names []string) {
	u, _ := url.Parse(siteURL)
	for _, c := range b.jar.Cookies(u) {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// cookie returns the value of a cookie whose name begins with a prefix.
func (b *browser) cookie(prefix string) (name, value string) {
	u, _ := url.Parse(siteURL)
	for _, c := range b.jar.Cookies(u) {
		if strings.HasPrefix(c.Name, prefix) {
			return c.Name, c.Value
		}
	}
	return "", ""
}

func (b *browser) setCookie(name, value string) {
	u, _ := url.Parse(siteURL)
	b.jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true}})
}

type user struct{ Email string }

// site is a site whose users sign in with the provider.
type site struct {
	op        *fakeOP
	authority *authority.Authority[user]
	login     *oidclogin.Provider[user]
	mux       *http.ServeMux
	log       *lockedBuffer
	mu        sync.Mutex
	logins    []*oidclogin.Login
	hosts     map[string]http.Handler
}

// newSite returns a site. It must be called in a synctest bubble.
func newSite(t *testing.T, op *fakeOP, change ...func(*oidclogin.Config[user])) *site {
	t.Helper()
	s := &site{op: op, mux: http.NewServeMux(), log: new(lockedBuffer)}
	logger := slog.New(slog.NewTextHandler(s.log, nil))
	secrets := [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
	var err error
	s.authority, err = authority.New(authority.Config[user]{
		Issuer: siteURL, Audience: []string{"site"}, Store: authority.Memory(), Secrets: secrets,
		Load: func(_ context.Context, old *sessiontoken.Claims[user]) (user, error) { return old.State, nil },
		HTTP: sessionhttp.Config[user]{Unauthorized: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.login.Unauthorized(w, r) })},
		// Its lines are not those of the login.
		Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	cfg := oidclogin.Config[user]{
		Sessions: s.authority.Sessions(), Revocations: s.authority.Revocations(), Secrets: secrets,
		Issuer: opURL, ClientID: clientID, ClientSecret: secret, RedirectURL: siteURL + "/oidc/callback",
		Client: op.client(), Logger: logger,
		User: func(_ context.Context, l *oidclogin.Login) (string, user, error) {
			s.mu.Lock()
			s.logins = append(s.logins, l)
			s.mu.Unlock()
			var u struct {
				Email string `json:"email"`
			}
			if err := l.Claims(&u); err != nil {
				return "", user{}, err
			}
			return "user-" + l.Subject, user{u.Email}, nil
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	s.login, err = oidclogin.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.authority.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	sessions := s.authority.Sessions()
	private := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := sessions.FromContext(r.Context())
		_, _ = io.WriteString(w, c.Subject+" "+c.State.Email+" "+c.SessionID)
	})
	s.mux.Handle("/oidc/", s.login)
	s.mux.Handle("GET /private", sessions.Require(private))
	s.mux.Handle("GET /pay", sessions.RequireFresh(time.Minute, private))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "public "+r.URL.RequestURI()) })
	s.hosts = map[string]http.Handler{"site.example": s.mux, "op.example": op}
	return s
}

func (s *site) browser(t *testing.T) *browser { return newBrowser(t, s.hosts) }

// signedIn requires that the browser has a session, and returns its page.
func (s *site) signedIn(t *testing.T, b *browser) string {
	t.Helper()
	p := b.request(http.MethodGet, siteURL+"/private", siteURL, nil)
	require.Equal(t, http.StatusOK, p.StatusCode, p.body)
	return p.body
}

// signedOut requires that the browser has none.
func (s *site) signedOut(t *testing.T, b *browser) {
	t.Helper()
	p := b.request(http.MethodGet, siteURL+"/private", siteURL, nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Mode", "cors") })
	require.Equal(t, http.StatusUnauthorized, p.StatusCode)
}

type contextT = context.Context

// loggedOnce requires one log line, which holds a text, and nothing of a token,
// a code, a state or a cookie. It forgets the line.
func (s *site) loggedOnce(t *testing.T, b *browser, text string) {
	t.Helper()
	s.loggedNoSecret(t, b)
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	log := s.log.b.String()
	s.log.b.Reset()
	require.Equal(t, 1, strings.Count(log, "\n"), log)
	require.Contains(t, log, text)
}

func (s *site) loggedNoSecret(t *testing.T, b *browser) {
	t.Helper()
	log := s.log.String()
	secrets := append(s.op.secrets(), b.seen...)
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if v := s.op.asked.Get(name); v != "" {
			secrets = append(secrets, v)
		}
	}
	for _, secret := range secrets {
		require.NotContains(t, log, secret)
		if parts := strings.Split(secret, "."); len(parts) == 3 {
			require.NotContains(t, log, parts[1])
			require.NotContains(t, log, parts[2])
		}
	}
}

// open2 is open for a form of the site.
func (b *browser) open2(method, to string) *page {
	b.t.Helper()
	return b.follow(b.request(method, to, siteURL, nil), "")
}

// newLog empties the log.
func (s *site) newLog() *lockedBuffer {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.b.Reset()
	return s.log
}
