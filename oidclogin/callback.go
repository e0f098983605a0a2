package oidclogin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	maxQuery  = 8 << 10 // bytes of what the provider sends back
	maxParams = 20
	maxCode   = 4 << 10
	maxShort  = 1 << 10 // bytes of any other parameter that is read
	userLimit = 5 * time.Second
)

// Why a login is refused, beside what its ID token fails.
const (
	errAnswer    refusal = "what the browser brought is not the answer of a provider: its parameters are too long, doubled or malformed"
	errState     refusal = "the state is missing, or not one of ours"
	errNoCookie  refusal = "the browser has no cookie of this login: it did not begin it, has ended it already, or took over 10 minutes"
	errSealed    refusal = "the cookie of the login was changed, is of another login, or was sealed with another secret"
	errLate      refusal = "the login took over 10 minutes"
	errOrigin    refusal = "the answer is of another provider than the login, or does not name its provider (RFC 9207)"
	errNoCode    refusal = "the answer has no code"
	errCode      refusal = "the provider did not accept the code: it was used or is too old, or the PKCE verifier or the redirect URI is another one"
	errNoToken   refusal = "the provider sent no ID token"
	errProvider  refusal = "the provider ended the login with an error, which its own log explains"
	errBroken    refusal = "the provider ended the login with an error of its own, which may pass"
	errUser      refusal = "Config.User refused the user"
	errStepUp    refusal = "the provider did not have the user prove who they are as recently as a handler needs"
	errTwice     refusal = "a sign-out of the user came twice while the login was under way"
	errSignedOut refusal = "a return from a sign-out has no state, or not the one of this browser"
	// errDenied is the user's own choice, which is not logged.
	errDenied refusal = "the user declined"
)

// errCookieSize is a mistake of the configuration.
var errCookieSize = errors.New("oidclogin: the cookie of a login is too long; make Ask shorter")

// answer is what the provider sends back with the browser.
type answer struct {
	state, code, issuer, failure string
	hasIssuer                    bool
}

// parseAnswer reads a query, or a form. It comes before all cryptography.
func parseAnswer(raw string) (a answer, err error) {
	if len(raw) > maxQuery {
		return a, errAnswer
	}
	values, err := url.ParseQuery(raw)
	if err != nil || len(values) > maxParams {
		return a, errAnswer
	}
	for _, v := range values {
		if len(v) != 1 {
			return a, errAnswer
		}
	}
	a = answer{values.Get("state"), values.Get("code"), values.Get("iss"), values.Get("error"), values.Has("iss")}
	switch {
	case len(a.code) > maxCode, len(a.issuer) > maxShort, len(a.failure) > maxShort, a.code != "" && a.failure != "":
		return a, errAnswer
	case !isState(a.state):
		return a, errState
	}
	return a, nil
}

// callback ends a login.
func (p *Provider[T]) callback(w http.ResponseWriter, r *http.Request) {
	p.finish(w, r, r.URL.RawQuery)
}

// finish ends a login with what the provider sent.
func (p *Provider[T]) finish(w http.ResponseWriter, r *http.Request, raw string) {
	a, err := parseAnswer(raw)
	if err != nil {
		p.refuse(w, r, nil, err)
		return
	}
	name := p.cookies.login + a.state
	value, ok := onlyCookie(r, name)
	if !ok {
		p.refuse(w, r, nil, errNoCookie)
		return
	}
	l := new(pending)
	if !p.seal.open(kindLogin, a.state, value, l) {
		removeCookie(w, name)
		p.refuse(w, r, nil, errSealed)
		return
	}
	m, err := p.discover(r.Context())
	if err != nil {
		p.refuse(w, r, l, err) // the login is not used up: a reload continues
		return
	}
	now, err := p.cfg.Revocations.Now(r.Context())
	if err != nil {
		p.refuse(w, r, l, unavailable("the list of revocations", err))
		return
	}
	removeCookie(w, name)
	if err := a.check(l, m, now); err != nil {
		p.refuse(w, r, l, err)
		return
	}
	login, rawToken, err := p.exchange(r, m, l, a.code)
	if err != nil {
		p.refuse(w, r, l, err)
		return
	}
	p.enter(w, r, l, login, rawToken)
}

// check checks what the provider sent, before the code is used.
func (a *answer) check(l *pending, m *metadata, now time.Time) error {
	switch {
	case clock.Between(l.earliest(), now) > loginLife:
		return errLate
	case a.hasIssuer && a.issuer != m.Issuer, !a.hasIssuer && m.SendsIssuer:
		return errOrigin
	}
	switch a.failure {
	case "":
	case "access_denied":
		return errDenied
	case "server_error", "temporarily_unavailable":
		return errBroken
	default:
		return errProvider
	}
	if a.code == "" {
		return errNoCode
	}
	return nil
}

// exchange exchanges the code for an ID token, checks it, and returns the login.
func (p *Provider[T]) exchange(r *http.Request, m *metadata, l *pending, code string) (*Login, string, error) {
	ctx := r.Context()
	token, err := p.redeem(ctx, m, code, l.Verifier)
	if err != nil {
		return nil, "", err
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return nil, "", errNoToken
	}
	now, err := p.cfg.Revocations.Now(ctx)
	if err != nil {
		return nil, "", unavailable("the list of revocations", err)
	}
	rules := idTokenRules{
		issuer: m.Issuer, clientID: p.cfg.ClientID, nonce: l.Nonce, now: now, maxAge: l.maxAge(),
		acrValues: l.ACRValues, accessToken: token.AccessToken, algorithms: m.algorithms(),
	}
	t, err := verifyIDToken(ctx, p.keys, raw, rules)
	if err != nil {
		return nil, "", err
	}
	start := startOf(t, l.earliest(), now)
	if l.StepUp && l.MaxAge > 0 && (start.AuthTime.IsZero() || clock.Between(start.AuthTime, now) > l.maxAge()) {
		return nil, "", errStepUp // the handler would ask again, without an end
	}
	return &Login{Start: start, Issuer: t.issuer, Subject: t.subject, Token: token, Request: r, payload: t.payload}, raw, nil
}

// Claims decodes the claims of the ID token into v, such as a struct with an
// e-mail address. Names match exactly.
func (l *Login) Claims(v any) error {
	if json.Unmarshal(l.payload, v) != nil {
		return errors.New("oidclogin: the claims of the ID token do not fit the type")
	}
	return nil
}

// enter finds the user, begins the session, and sends the browser to where it
// was.
func (p *Provider[T]) enter(w http.ResponseWriter, r *http.Request, l *pending, login *Login, rawToken string) {
	groups, earliest := slices.Clone(login.Start.Groups), login.Start.Earliest
	subject, state, err := p.user(r.Context(), login)
	if err != nil {
		p.refuse(w, r, l, err)
		return
	}
	start := login.Start // to which Config.User may have added
	start.Subject, start.Earliest = subject, earliest
	for _, g := range start.Groups {
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	start.Groups = groups
	options := append([]sessionhttp.SignInOption{sessionhttp.InsecureCrossSiteCallback(), sessionhttp.AuthTimeUnknown()}, login.Options...)
	_, err = p.cfg.Sessions.SignIn(w, r, start, state, options...)
	switch {
	case errors.Is(err, sessiontoken.ErrRevoked) && !l.Again:
		p.again(w, r, l, start)
		return
	case errors.Is(err, sessiontoken.ErrRevoked):
		p.refuse(w, r, l, errTwice)
		return
	case err != nil:
		p.cfg.Sessions.Refuse(w, r, err)
		return
	}
	p.counted.signIns.Add(1)
	if l.Guard != "" {
		setCookie(w, p.cookies.done, l.Guard, doneFor)
	}
	p.keepHint(w, rawToken)
	redirect(w, p.site+l.Return)
}

// again starts a login again, since the user or the provider has signed out while
// the code was on its way. The provider decides again. The new login begins
// after that sign-out, whose time may be a little ahead of what this replica
// knows of the store's.
func (p *Provider[T]) again(w http.ResponseWriter, r *http.Request, l *pending, start sessiontoken.Start) {
	q := revoke.Question{Subject: start.Subject}
	for _, g := range start.Groups {
		q.SessionID += string(g) + "."
	}
	q.SessionID += "x" // any session of these groups
	after, err := p.cfg.Revocations.Begin(r.Context(), q)
	if err != nil {
		p.refuse(w, r, l, unavailable("the list of revocations", err))
		return
	}
	l.Again, l.after = true, after
	p.counted.again.Add(1)
	p.begin(w, r, l)
}

// user calls Config.User.
func (p *Provider[T]) user(ctx context.Context, login *Login) (subject string, state T, err error) {
	ctx, cancel := context.WithTimeout(ctx, userLimit)
	defer cancel()
	subject, state, err = p.cfg.User(ctx, login)
	switch {
	case errors.Is(err, ErrNoUser):
		return "", state, errUser
	case err != nil:
		p.log.Warn("user", "oidclogin: Config.User failed; check the database that it asks", "err", err)
		return "", state, unavailable("Config.User", err)
	}
	return subject, state, nil
}
