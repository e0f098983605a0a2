package oidclogin

import (
	"net/http"
	"net/url"
)

// signingOut is what the cookie of a sign-out at the provider holds, sealed and
// bound to the state.
type signingOut struct {
	Began int64 `json:"b"` // milliseconds of the store's time
}

// signOut signs the user out here, and then sends the browser to the provider,
// to sign out there (OpenID Connect RP-Initiated Logout 1.0). If that cannot be
// done, the user is signed out here alone.
func (p *Provider[T]) signOut(w http.ResponseWriter, r *http.Request) {
	if err := p.cfg.Sessions.SignOut(w, r); err != nil {
		p.cfg.Sessions.Refuse(w, r, err)
		return
	}
	removeCookie(w, p.cookies.done)
	hint := p.takeHint(w, r)
	to, ok := p.endSession(w, r, hint)
	if !ok {
		redirect(w, p.site+p.cfg.AfterSignOut)
		return
	}
	p.counted.signOuts.Add(1)
	redirect(w, to)
}

// endSession sets the cookie of a sign-out and returns the URL of the provider.
func (p *Provider[T]) endSession(w http.ResponseWriter, r *http.Request, hint string) (to string, ok bool) {
	m, err := p.discover(r.Context())
	if err != nil {
		return "", false // discovery has logged it
	}
	if m.EndSessionEndpoint == "" {
		p.log.Warn("no_end_session", "oidclogin: the provider has no end_session_endpoint: a sign-out ends the session here, and not the one at the provider; use Sessions.SignOut alone")
		return "", false
	}
	u, err := url.Parse(m.EndSessionEndpoint)
	if err != nil {
		return "", false
	}
	now, err := p.cfg.Revocations.Now(r.Context())
	if err != nil {
		return "", false
	}
	state := newState(now)
	value, err := p.seal.seal(kindSignOut, state, signingOut{now.UnixMilli()})
	if err != nil {
		return "", false
	}
	q := u.Query()
	q.Set("client_id", p.cfg.ClientID)
	q.Set("post_logout_redirect_uri", p.site+p.base+pathSignedOut)
	q.Set("state", state)
	if hint != "" {
		q.Set("id_token_hint", hint)
	}
	u.RawQuery = q.Encode()
	removeOldest(w, r, p.cookies.signOut)
	setCookie(w, p.cookies.signOut+state, value, loginLife)
	return u.String(), true
}

// signedOut is where the provider sends the browser after a sign-out.
func (p *Provider[T]) signedOut(w http.ResponseWriter, r *http.Request) {
	state := ""
	if len(r.URL.RawQuery) <= maxQuery {
		state = r.URL.Query().Get("state")
	}
	if !isState(state) {
		p.refuse(w, r, nil, errSignedOut)
		return
	}
	name := p.cookies.signOut + state
	value, ok := onlyCookie(r, name)
	if !ok || !p.seal.open(kindSignOut, state, value, new(signingOut)) {
		p.refuse(w, r, nil, errSignedOut)
		return
	}
	removeCookie(w, name)
	redirect(w, p.site+p.cfg.AfterSignOut)
}

// hinted is what the cookie of an ID token holds, sealed.
type hinted struct {
	IDToken string `json:"t"`
}

// keepHint keeps the ID token for the sign-out, if Config.IDTokenHint is set.
// The browser removes the cookie when it is closed.
func (p *Provider[T]) keepHint(w http.ResponseWriter, rawToken string) {
	if !p.cfg.IDTokenHint {
		return
	}
	value, err := p.seal.seal(kindHint, "", hinted{rawToken})
	if err != nil || len(p.cookies.hint)+len(value) > maxCookie {
		p.log.Warn("hint_size", "oidclogin: an ID token is too long for Config.IDTokenHint; the sign-out at the provider goes without it")
		removeCookie(w, p.cookies.hint)
		return
	}
	setCookie(w, p.cookies.hint, value, 0)
}

// takeHint returns the ID token that keepHint kept, and removes it.
func (p *Provider[T]) takeHint(w http.ResponseWriter, r *http.Request) string {
	value, ok := onlyCookie(r, p.cookies.hint)
	if !ok {
		return ""
	}
	removeCookie(w, p.cookies.hint)
	h := new(hinted)
	if !p.cfg.IDTokenHint || !p.seal.open(kindHint, "", value, h) {
		return ""
	}
	return h.IDToken
}
