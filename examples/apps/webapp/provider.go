package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/keys"
)

// provider is a small OpenID provider, so that the example runs by itself: one
// client, sessions in memory, and the same people with the same password. It is
// no model of one.
type provider struct {
	issuer, client, secret string
	callback, signedOut    string // of the client
	logout                 string // of the client: takes logout tokens
	key                    *keys.SigningKey
	isUser                 func(name, password string) bool

	mu       sync.Mutex
	sessions map[string]login // by the cookie
	codes    map[string]code
}

// login is a session at the provider.
type login struct {
	id, subject string
	at          time.Time
}

type code struct {
	login
	nonce, challenge string
	expires          time.Time
}

const providerCookie = "provider"

func newProvider(issuer, site string, isUser func(name, password string) bool) (*provider, error) {
	key, err := keys.GenerateKey(keys.ES256)
	if err != nil {
		return nil, err
	}
	return &provider{
		issuer: issuer, client: "webapp", secret: rand.Text(),
		callback: site + oidcPath + "callback", signedOut: site + oidcPath + "signed-out", logout: site + oidcPath + "backchannel-logout",
		key: key, isUser: isUser, sessions: map[string]login{}, codes: map[string]code{},
	}, nil
}

func (p *provider) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /authorize", p.prove)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /end", func(w http.ResponseWriter, _ *http.Request) { showProvider(w, http.StatusOK, "end", "") })
	mux.HandleFunc("POST /end", p.end)
	return http.NewCrossOriginProtection().Handler(mux)
}

func (p *provider) discovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token",
		"jwks_uri": p.issuer + "/keys", "end_session_endpoint": p.issuer + "/end",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"}, "token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
		"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported": true, "backchannel_logout_session_supported": true,
	})
}

func (p *provider) keys(w http.ResponseWriter, _ *http.Request) {
	set, err := keys.NewSet(p.key.Public())
	if err != nil {
		http.Error(w, "no keys", http.StatusInternalServerError)
		return
	}
	answer(w, set)
}

// isRequest reports whether a login is one of the client, with PKCE.
func (p *provider) isRequest(q url.Values) bool {
	return q.Get("client_id") == p.client && q.Get("redirect_uri") == p.callback && q.Get("response_type") == "code" &&
		q.Get("code_challenge_method") == "S256" && q.Get("code_challenge") != ""
}

// authorize sends a browser with a session back at once, unless the client wants
// the user to prove it anew.
func (p *provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !p.isRequest(q) {
		showProvider(w, http.StatusBadRequest, "wrong", "")
		return
	}
	in, ok := p.session(r)
	age, err := strconv.Atoi(q.Get("max_age"))
	tooOld := err == nil && time.Since(in.at) > time.Duration(age)*time.Second
	if !ok || tooOld || q.Get("prompt") == "login" {
		showProvider(w, http.StatusOK, "login", "")
		return
	}
	p.sendBack(w, r, in)
}

// prove takes the form.
func (p *provider) prove(w http.ResponseWriter, r *http.Request) {
	name := strings.ToLower(strings.TrimSpace(r.PostFormValue("user")))
	switch {
	case !p.isRequest(r.URL.Query()):
		showProvider(w, http.StatusBadRequest, "wrong", "")
		return
	case !p.isUser(name, r.PostFormValue("password")):
		showProvider(w, http.StatusUnauthorized, "login", "That user and password do not go together.")
		return
	}
	in, ok := p.session(r)
	if !ok || in.subject != name {
		in.id = rand.Text()
	}
	in.subject, in.at = name, time.Now()
	cookie := rand.Text()
	p.mu.Lock()
	p.sessions[cookie] = in
	p.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: providerCookie, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	p.sendBack(w, r, in)
}

func (p *provider) session(r *http.Request) (login, bool) {
	c, err := r.Cookie(providerCookie)
	if err != nil {
		return login{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	in, ok := p.sessions[c.Value]
	return in, ok
}

func (p *provider) sendBack(w http.ResponseWriter, r *http.Request, in login) {
	q, one := r.URL.Query(), rand.Text()
	p.mu.Lock()
	p.codes[one] = code{in, q.Get("nonce"), q.Get("code_challenge"), time.Now().Add(time.Minute)}
	p.mu.Unlock()
	back := url.Values{"code": {one}, "state": {q.Get("state")}, "iss": {p.issuer}}
	http.Redirect(w, r, p.callback+"?"+back.Encode(), http.StatusSeeOther)
}

func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	if id != p.client || subtle.ConstantTimeCompare([]byte(secret), []byte(p.secret)) != 1 {
		http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
		return
	}
	one := r.PostFormValue("code")
	p.mu.Lock()
	c, ok := p.codes[one]
	delete(p.codes, one)
	p.mu.Unlock()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || time.Now().After(c.expires) || base64.RawURLEncoding.EncodeToString(sum[:]) != c.challenge || r.PostFormValue("redirect_uri") != p.callback {
		http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
		return
	}
	now := time.Now()
	token, err := p.sign(r.Context(), "JWT", map[string]any{
		"iss": p.issuer, "aud": p.client, "sub": c.subject, "sid": c.id, "nonce": c.nonce,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "auth_time": c.at.Unix(),
	})
	if err != nil {
		http.Error(w, `{"error":"server_error"}`, http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300, "id_token": token})
}

// sign makes a JWT of a type.
func (p *provider) sign(ctx context.Context, kind string, claims map[string]any) (string, error) {
	var parts []string
	for _, part := range []any{map[string]any{"alg": "ES256", "kid": p.key.Public().KeyID(), "typ": kind}, claims} {
		b, err := json.Marshal(part)
		if err != nil {
			return "", err
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(b))
	}
	signed := strings.Join(parts, ".")
	signature, err := p.key.Sign(ctx, []byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), err
}

// end ends the session and tells the client, before it sends the browser back
// there.
func (p *provider) end(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(providerCookie); err == nil {
		p.mu.Lock()
		in, ok := p.sessions[c.Value]
		delete(p.sessions, c.Value)
		p.mu.Unlock()
		if ok {
			if err := p.tell(r.Context(), in); err != nil {
				log.Print("webapp: the provider could not tell the site of a logout: ", err)
			}
		}
	}
	q := r.URL.Query()
	if q.Get("client_id") != p.client || q.Get("post_logout_redirect_uri") != p.signedOut {
		showProvider(w, http.StatusOK, "ended", "")
		return
	}
	http.Redirect(w, r, p.signedOut+"?"+url.Values{"state": {q.Get("state")}}.Encode(), http.StatusSeeOther)
}

// tell sends a logout token to the client.
func (p *provider) tell(ctx context.Context, in login) error {
	now := time.Now()
	token, err := p.sign(ctx, "logout+jwt", map[string]any{
		"iss": p.issuer, "aud": p.client, "sub": in.subject, "sid": in.id, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body := strings.NewReader(url.Values{"logout_token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.logout, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

var providerPages = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>A provider</title></head>
<body style="font: 1rem system-ui; max-width: 24rem; margin: 4rem auto">
{{define "login"}}<h1>Sign in at the provider</h1>
<p id="provider-problem">{{.}}</p>
<form method="post">
<p><label>User <input id="provider-user" name="user" autocomplete="username" required autofocus></label></p>
<p><label>Password <input id="provider-password" name="password" type="password" autocomplete="current-password" required></label></p>
<button>Sign in</button>
</form>{{end}}
{{define "end"}}<h1>Sign out at the provider?</h1>
<form method="post"><button id="provider-end">Sign out</button></form>{{end}}
{{define "ended"}}<h1 id="provider-ended">You are signed out at the provider</h1>{{end}}
{{define "wrong"}}<h1>No site of this provider asked for this</h1>{{end}}
`))

// showProvider writes a page of the provider.
func showProvider(w http.ResponseWriter, status int, page, problem string) {
	var b bytes.Buffer
	if err := cmp.Or(providerPages.ExecuteTemplate(&b, "", nil), providerPages.ExecuteTemplate(&b, page, problem)); err != nil {
		log.Print(err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // the browser has gone
}
