package main

import (
	"cmp"
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	audience = "webapp"
	// apiAudience is that of the API which reads sessions alone.
	apiAudience = "webapp-api"
	// pageAudience is that of the tokens which the page may read: the API takes
	// none of them.
	pageAudience = "webapp-page"
)

// shared is what the replicas have in common: a database, a store, and a secret.
type shared struct {
	issuer string // the URL of the site
	store  authority.Store
	close  func()
	secret []byte
	algs   []*keys.Static // one key of each algorithm, for the page that verifies

	provider *provider // nil without one

	mu    sync.Mutex
	users map[string]*user
}

type user struct {
	State
	Blocked bool
	Note    string
}

func newShared(ctx context.Context, issuer, store, secretFile string) (*shared, error) {
	secret, err := readSecret(secretFile)
	if err != nil {
		return nil, err
	}
	s := &shared{issuer: issuer, secret: secret, users: map[string]*user{
		"ada":      {State: State{"Ada Lovelace", []string{"author", "editor"}, "light", sessiontoken.Seal("ada@example.com")}},
		"grace":    {State: State{"Grace Hopper", []string{"reader"}, "light", sessiontoken.Seal("grace@example.com")}},
		"margaret": {State: State{"Margaret Hamilton", []string{"admin"}, "light", sessiontoken.Seal("margaret@example.com")}},
	}}
	if s.store, s.close, err = open(ctx, store); err != nil {
		return nil, err
	}
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		key, err := keys.GenerateKey(alg)
		if err != nil {
			return nil, err
		}
		static, err := keys.NewStatic(key)
		if err != nil {
			return nil, err
		}
		s.algs = append(s.algs, static)
	}
	return s, nil
}

// load is the authority on the state of a session.
func (s *shared) load(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
	return s.current(old.Subject)
}

// current returns what the database says of a user now.
func (s *shared) current(id string) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[id]
	if u == nil || u.Blocked {
		return State{}, sessionhttp.ErrSessionOver
	}
	return u.State, nil
}

// replica is one API server. All it has of its own is memory that it could lose.
type replica struct {
	name      string
	shared    *shared
	authority *authority.Authority[State]
	sessions  *sessionhttp.Sessions[State]
	login     *oidclogin.Provider[State]    // nil without a provider
	recent    time.Duration                 // how long ago a sign-in may be for a payment
	page      []*sessiontoken.Issuer[State] // one for each algorithm
}

func newReplica(ctx context.Context, name string, s *shared, ttl time.Duration) (*replica, error) {
	r := &replica{name: name, shared: s, recent: 5 * ttl}
	var err error
	r.authority, err = authority.New(authority.Config[State]{
		Issuer: s.issuer, Audience: []string{audience, apiAudience}, Store: s.store, Secrets: [][]byte{s.secret}, Load: s.load,
		Limits: authority.Limits{TTL: ttl, RefreshIdle: 24 * time.Hour},
		HTTP: sessionhttp.Config[State]{
			RefreshPath: "/session/", DeviceLabel: device, Unauthorized: http.HandlerFunc(r.unauthorized),
			// The replicas serve plain http: a site of https has a proxy in front.
			TLSInFront: strings.HasPrefix(s.issuer, "https://"),
		},
	})
	if err != nil {
		return nil, err
	}
	r.sessions = r.authority.Sessions()
	if s.provider != nil {
		if r.login, err = r.newLogin(); err != nil {
			return nil, err
		}
	}
	for _, key := range s.algs {
		i, err := sessiontoken.NewIssuer[State](sessiontoken.IssuerConfig{
			Issuer: s.issuer, Audience: []string{pageAudience}, Keys: key, TTL: time.Minute,
			Revocations: r.authority.Revocations(), StateSecrets: r.authority.StateSecrets(),
		})
		if err != nil {
			return nil, err
		}
		r.page = append(r.page, i)
	}
	go func() { _ = r.authority.Run(ctx) }()
	return r, nil
}

//go:embed web
var files embed.FS

var pages = template.Must(template.ParseFS(files, "web/*.html"))

func (r *replica) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, req *http.Request) { signInPage(w, req, http.StatusOK, "", r.login != nil) })
	mux.HandleFunc("POST /sign-in", r.signIn)
	mux.Handle("POST /session/refresh", r.sessions.RefreshHandler())
	mux.HandleFunc("POST /session/sign-out", r.signOut(r.sessions.SignOut))
	mux.HandleFunc("POST /session/sign-out-others", r.stay(r.sessions.SignOutOthers))
	mux.HandleFunc("POST /session/sign-out-everywhere", r.signOut(r.sessions.SignOutEverywhere))
	mux.Handle("GET /{$}", r.require(r.home))
	mux.Handle("GET /verify", r.require(r.verifyPage))
	mux.Handle("GET /payments", r.sessions.RequireFresh(r.recent, r.with(r.payments)))
	mux.Handle("GET /people", r.require(r.people))
	mux.Handle("POST /people/roles", r.require(r.saveRoles))
	mux.Handle("GET /live", r.require(r.live))
	mux.Handle("POST /note", r.require(r.saveNote))
	mux.Handle("POST /devices/end", r.require(r.endDevice))
	mux.Handle("GET /api/me", r.require(r.me))
	mux.Handle("POST /api/page-tokens", r.require(r.pageTokens))
	mux.HandleFunc("POST /native/sign-in", r.nativeSignIn)
	mux.Handle("POST /native/token", r.sessions.RefreshHandler())
	mux.Handle("POST /native/revoke", r.sessions.RevokeHandler())
	mux.Handle("/.well-known/", r.authority.WellKnown())
	mux.Handle("GET /ready", r.authority.Ready())
	mux.HandleFunc("GET /page-keys.json", r.pageKeys)
	for _, name := range []string{"draft.js", "icon.svg", "live.js", "sign-in.js", "style.css", "verify.js"} {
		mux.HandleFunc("GET /"+name, file(name))
	}
	mux.HandleFunc("GET /favicon.ico", file("icon.svg")) // for what is not a page
	forms := "'self'"
	if r.login != nil {
		mux.Handle(oidcPath, r.login)
		forms += " " + r.shared.provider.issuer // where the sign-out there goes on
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action "+forms)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Replica", r.name)
		mux.ServeHTTP(w, req)
	})
}

func file(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) { http.ServeFileFS(w, req, files, "web/"+name) }
}

type handler func(http.ResponseWriter, *http.Request, *sessiontoken.Claims[State])

func (r *replica) require(h handler) http.Handler { return r.sessions.Require(r.with(h)) }

// with calls h with the session that is in the request's context.
func (r *replica) with(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, ok := r.sessions.FromContext(req.Context())
		if !ok {
			http.Error(w, "no session", http.StatusInternalServerError)
			return
		}
		h(w, req, c)
	})
}

// unauthorized asks people to sign in, and tells programs.
func (r *replica) unauthorized(w http.ResponseWriter, req *http.Request) {
	accept := req.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/event-stream"): // an EventSource sees no status
		_ = stream(w).send("ended", "signed-out")
	case !strings.Contains(accept, "text/html"):
		http.Error(w, "not signed in", http.StatusUnauthorized)
	case r.login != nil && needsProof(w):
		r.login.Unauthorized(w, req) // and back to the page
	case req.Method == http.MethodGet:
		http.Redirect(w, req, "/sign-in", http.StatusSeeOther)
	default: // a form, whose text the page has kept
		signInPage(w, req, http.StatusUnauthorized, "You are not signed in any more.", r.login != nil)
	}
}

// view is what every page of a session shows, and what it shows beside.
func (r *replica) view(c *sessiontoken.Claims[State], path string, more map[string]any) map[string]any {
	all := map[string]any{"FromProvider": isFromProvider(c), "Claims": c, "Path": path, "Replica": r.name, "Lifetime": c.Expires.Sub(c.IssuedAt).Milliseconds(), "Needs": ""}
	maps.Copy(all, more)
	return all
}

func render(w http.ResponseWriter, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		log.Print(err)
	}
}

// signInPage lets the page resume the session if the browser has a refresh
// token, unless it comes from that page. The token is in a cookie of another
// path; its binder comes here too.
func signInPage(w http.ResponseWriter, req *http.Request, status int, problem string, provider bool) {
	_, err := req.Cookie("__Host-session-binder")
	render(w, status, "sign-in.html", map[string]any{
		"Problem": problem, "Resume": err == nil && req.Pattern != "POST /sign-in", "Provider": provider,
	})
}

// check is where a real site compares password hashes, or asks for a passkey.
func (s *shared) check(req *http.Request) (name string, state State, ok bool) {
	name = strings.ToLower(strings.TrimSpace(req.PostFormValue("user")))
	if !s.isUser(name, req.PostFormValue("password")) {
		return "", State{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return name, s.users[name].State, true
}

// isUser reports whether a password is that of a user who may sign in.
func (s *shared) isUser(name, password string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[name]
	return subtle.ConstantTimeCompare([]byte(password), []byte("demo")) == 1 && u != nil && !u.Blocked
}

func (r *replica) signIn(w http.ResponseWriter, req *http.Request) {
	name, state, ok := r.shared.check(req)
	if !ok {
		signInPage(w, req, http.StatusUnauthorized, "That user and password do not go together.", r.login != nil)
		return
	}
	if _, err := r.sessions.SignIn(w, req, sessiontoken.Start{Subject: name}, state); err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	http.Redirect(w, req, "/", http.StatusSeeOther)
}

func (r *replica) nativeSignIn(w http.ResponseWriter, req *http.Request) {
	name, state, ok := r.shared.check(req)
	if !ok {
		http.Error(w, "not signed in", http.StatusUnauthorized)
		return
	}
	tokens, err := r.sessions.SignInNative(req, sessionhttp.Device{ClientID: "app", Label: device(req)}, sessiontoken.Start{Subject: name}, state)
	if err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	answer(w, tokens)
}

func (r *replica) signOut(out func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if err := out(w, req); err != nil {
			r.sessions.Refuse(w, req, err)
			return
		}
		http.Redirect(w, req, "/sign-in", http.StatusSeeOther)
	}
}

// stay is signOut for those who go on here.
func (r *replica) stay(out func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if err := out(w, req); err != nil {
			r.sessions.Refuse(w, req, err)
			return
		}
		http.Redirect(w, req, "/", http.StatusSeeOther)
	}
}

func (r *replica) home(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	devices, err := r.authority.Refresh().List(req.Context(), c.Subject)
	if err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	r.shared.mu.Lock()
	note := r.shared.users[c.Subject].Note
	r.shared.mu.Unlock()
	slices.SortStableFunc(devices, func(a, b refresh.Family) int { // this one first
		return cmp.Compare(rank(a, c), rank(b, c))
	})
	render(w, http.StatusOK, "home.html", r.view(c, "/", map[string]any{"Devices": devices, "Note": note, "Saved": req.URL.Query().Has("saved")}))
}

func rank(f refresh.Family, c *sessiontoken.Claims[State]) int {
	if f.SessionID == c.SessionID {
		return 0
	}
	return 1
}

func (r *replica) verifyPage(w http.ResponseWriter, _ *http.Request, c *sessiontoken.Claims[State]) {
	render(w, http.StatusOK, "verify.html", r.view(c, "/verify", nil))
}

func (r *replica) saveNote(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	if !readForm(w, req) {
		return
	}
	note := req.PostForm.Get("note")
	r.shared.mu.Lock()
	r.shared.users[c.Subject].Note = note
	r.shared.mu.Unlock()
	http.Redirect(w, req, "/?saved", http.StatusSeeOther)
}

// readForm reads the form of a request, or answers that it is not one.
func readForm(w http.ResponseWriter, req *http.Request) bool {
	req.Body = http.MaxBytesReader(w, req.Body, 1<<20)
	err := req.ParseForm()
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		http.Error(w, "the text is too long", http.StatusRequestEntityTooLarge)
	case err != nil:
		http.Error(w, "not a form", http.StatusBadRequest)
	}
	return err == nil
}

func (r *replica) endDevice(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	err := r.authority.Refresh().RevokeFamily(req.Context(), c.Subject, req.PostFormValue("id"))
	switch {
	case errors.Is(err, refresh.ErrInvalid):
		http.Error(w, "no such device", http.StatusNotFound)
		return
	case err != nil: // it may be signed in still
		r.sessions.Refuse(w, req, err)
		return
	}
	http.Redirect(w, req, "/", http.StatusSeeOther)
}

// me answers "who am I".
func (r *replica) me(w http.ResponseWriter, _ *http.Request, c *sessiontoken.Claims[State]) {
	answer(w, r.about(c))
}

func (r *replica) about(c *sessiontoken.Claims[State]) map[string]any {
	return map[string]any{
		"subject": c.Subject, "name": c.State.Name, "roles": c.State.Roles, "session": c.SessionID, "replica": r.name,
		"signed_in": c.Began, "issued": c.IssuedAt, "expires": c.Expires,
	}
}

// pageTokens gives the page tokens of the same session that it may read, for
// which no script can use the cookie. They are for an audience of their own, so
// that a stolen one is not the session.
func (r *replica) pageTokens(w http.ResponseWriter, req *http.Request, c *sessiontoken.Claims[State]) {
	tokens := []string{}
	for _, i := range r.page {
		token, err := r.pageToken(req.Context(), i, c)
		if err != nil {
			r.sessions.Refuse(w, req, err)
			return
		}
		tokens = append(tokens, token)
	}
	answer(w, tokens)
}

// pageToken issues one of them, with what the authority says now.
func (r *replica) pageToken(ctx context.Context, i *sessiontoken.Issuer[State], c *sessiontoken.Claims[State]) (string, error) {
	session := sessiontoken.Resumption{
		SessionID: c.SessionID, Subject: c.Subject, Began: c.Began, AuthTime: c.AuthTime,
		ACR: c.ACR(), AMR: c.AMR(), Actor: c.Actor(),
	}
	token, _, err := i.Resume(ctx, session, r.shared.load)
	return token, err
}

// pageKeys is the JWKS of those tokens.
func (r *replica) pageKeys(w http.ResponseWriter, req *http.Request) {
	var all []*keys.PublicKey
	for _, key := range r.shared.algs {
		set, err := key.KeySet(req.Context(), "")
		if err != nil {
			r.sessions.Refuse(w, req, err)
			return
		}
		all = append(all, set.Keys()...)
	}
	set, err := keys.NewSet(all...)
	if err != nil {
		r.sessions.Refuse(w, req, err)
		return
	}
	answer(w, set)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}
