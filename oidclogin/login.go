package oidclogin

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// pending is what a login cookie holds, sealed and bound to the state.
type pending struct {
	Nonce     string   `json:"n"`
	Verifier  string   `json:"v"` // of PKCE
	Return    string   `json:"r"` // a path of this site
	Earliest  int64    `json:"e"` // milliseconds of the store's time
	MaxAge    int64    `json:"m"` // seconds that were asked for; 0: none
	ACRValues []string `json:"a"` // that were asked for
	Prompt    string   `json:"p"`
	LoginHint string   `json:"h"`
	StepUp    bool     `json:"s"` // a handler needs what was asked for
	Guard     string   `json:"g"` // see isLoop; empty: none
	Again     bool     `json:"x"` // the login has started again already

	after time.Time // the login begins at this time at the earliest
}

func (l *pending) earliest() time.Time { return time.UnixMilli(l.Earliest).UTC() }

func (l *pending) maxAge() time.Duration { return time.Duration(l.MaxAge) * time.Second }

// asked returns a pending login that asks for what Config.Ask says, and for what
// more says in its place.
func (p *Provider[T]) asked(more Ask, returnTo string) *pending {
	ask := p.cfg.Ask
	ask.MaxAge = cmp.Or(more.MaxAge, ask.MaxAge)
	ask.Prompt = cmp.Or(more.Prompt, ask.Prompt)
	ask.LoginHint = cmp.Or(more.LoginHint, ask.LoginHint)
	if len(more.ACRValues) > 0 {
		ask.ACRValues = slices.Clone(more.ACRValues)
	}
	return &pending{
		Return: p.returnPath(returnTo), MaxAge: int64(ask.MaxAge / time.Second),
		ACRValues: ask.ACRValues, Prompt: ask.Prompt, LoginHint: ask.LoginHint,
	}
}

// returnPath returns the path to go to after a login. It is "/" unless the path
// is one of this site. It is never one of the Provider's own, which would start
// the login again.
func (p *Provider[T]) returnPath(path string) string {
	path = localPath(path)
	bare, _, _ := strings.Cut(path, "?")
	for _, own := range []string{pathLogin, pathCallback, pathLogout, pathSignOut, pathSignedOut} {
		if bare == p.base+own {
			return "/"
		}
	}
	return path
}

// login begins a login.
func (p *Provider[T]) login(w http.ResponseWriter, r *http.Request) {
	returnTo := ""
	if len(r.URL.RawQuery) <= maxQuery {
		returnTo = r.URL.Query().Get("return")
	}
	p.begin(w, r, p.asked(Ask{}, returnTo))
}

// begin sets the login cookie and sends the browser to the provider.
func (p *Provider[T]) begin(w http.ResponseWriter, r *http.Request, l *pending) {
	to, name, value, err := p.prepare(r.Context(), l)
	if err != nil {
		p.refuse(w, r, l, err)
		return
	}
	removeOldest(w, r, p.cookies.login)
	setCookie(w, name, value, loginLife)
	p.counted.logins.Add(1)
	redirect(w, to)
}

// prepare returns the URL of the provider and the login cookie.
func (p *Provider[T]) prepare(ctx context.Context, l *pending) (to, name, value string, err error) {
	m, err := p.discover(ctx)
	if err != nil {
		return "", "", "", err
	}
	now, err := p.cfg.Revocations.Now(ctx)
	if err != nil {
		return "", "", "", unavailable("the list of revocations", err)
	}
	if now.Before(l.after) {
		now = l.after
	}
	l.Earliest, l.Nonce, l.Verifier = now.UnixMilli(), rand.Text(), oauth2.GenerateVerifier()
	state := newState(now)
	if value, err = p.seal.seal(kindLogin, state, l); err != nil {
		return "", "", "", err
	}
	if name = p.cookies.login + state; len(name)+len(value) > maxCookie {
		return "", "", "", errCookieSize
	}
	options := []oauth2.AuthCodeOption{
		oauth2.S256ChallengeOption(l.Verifier), oauth2.SetAuthURLParam("nonce", l.Nonce),
	}
	add := func(name, value string) {
		if value != "" {
			options = append(options, oauth2.SetAuthURLParam(name, value))
		}
	}
	if l.MaxAge > 0 {
		add("max_age", strconv.FormatInt(l.MaxAge, 10))
	}
	add("acr_values", strings.Join(l.ACRValues, " "))
	add("prompt", l.Prompt)
	add("login_hint", l.LoginHint)
	if p.cfg.FormPost {
		add("response_mode", "form_post")
	}
	return p.oauth(m).AuthCodeURL(state, options...), name, value, nil
}

// oauth returns the client of x/oauth2. Its AuthStyle is never that which tries
// both: a code is sent once.
func (p *Provider[T]) oauth(m *metadata) *oauth2.Config {
	style := oauth2.AuthStyleInHeader
	if p.cfg.ClientKey != nil || slices.Contains(m.AuthMethods, "client_secret_post") && !slices.Contains(m.AuthMethods, "client_secret_basic") {
		style = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret, RedirectURL: p.cfg.RedirectURL,
		Scopes:   append([]string{"openid"}, p.cfg.Scopes...),
		Endpoint: oauth2.Endpoint{AuthURL: m.AuthorizationEndpoint, TokenURL: m.TokenEndpoint, AuthStyle: style},
	}
}

// redirect sends the browser to another URL, with GET.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
