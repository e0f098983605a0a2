package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// user is the state of a session.
type user struct {
	Name string `json:"name"`
	// At is the user's name at the provider. The job needs it.
	At string `json:"at"`
}

// site is one replica.
type site struct {
	*http.ServeMux
	cfg       config
	authority *authority.Authority[user]
	sessions  *sessionhttp.Sessions[user]
	login     *oidclogin.Provider[user]
	grants    *oidclogin.Grants // nil without offline access
}

func newSite(cfg config) (*site, error) {
	if cfg.secrets == nil {
		cfg.secrets = [][]byte{make([]byte, 32)}
		rand.Read(cfg.secrets[0])
	}
	s := &site{ServeMux: http.NewServeMux(), cfg: cfg}
	var err error
	s.authority, err = authority.New(authority.Config[user]{
		Issuer: cfg.address, Audience: []string{"site"}, Store: cfg.store, Secrets: cfg.secrets,
		// A real site reads its own database here.
		Load:   func(_ context.Context, old *sessiontoken.Claims[user]) (user, error) { return old.State, nil },
		Logger: cfg.logger,
		HTTP: sessionhttp.Config[user]{
			// A page without a session goes to the provider and comes back.
			Unauthorized: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.login.Unauthorized(w, r) }),
		},
	})
	if err != nil {
		return nil, err
	}
	s.sessions = s.authority.Sessions()
	if cfg.offline {
		s.grants, err = oidclogin.NewGrants(oidclogin.GrantsConfig{
			Store: cfg.store, Secrets: cfg.secrets, Issuer: cfg.issuer, ClientID: cfg.client, ClientSecret: cfg.secret, Rotates: true,
			Logger: cfg.logger,
		})
		if err != nil {
			return nil, err
		}
	}
	login := oidclogin.Config[user]{
		Sessions: s.sessions, Revocations: s.authority.Revocations(), Secrets: cfg.secrets,
		Issuer: cfg.issuer, ClientID: cfg.client, ClientSecret: cfg.secret,
		RedirectURL: cfg.address + "/oidc/callback", Scopes: []string{"profile"}, FormPost: cfg.formPost,
		User: s.user, AfterSignOut: "/welcome", Logger: cfg.logger,
	}
	if cfg.offline {
		login.Scopes, login.Ask.Prompt = append(login.Scopes, "offline_access"), "consent"
	}
	if s.login, err = oidclogin.New(login); err != nil {
		return nil, err
	}
	s.routes()
	return s, nil
}

func (s *site) routes() {
	s.Handle("/", s.sessions.Require(http.HandlerFunc(s.home)))
	s.Handle("GET /pay", s.sessions.RequireFresh(s.cfg.recent, http.HandlerFunc(s.home)))
	s.Handle("GET /vault", s.sessions.RequireACR([]string{"two"}, http.HandlerFunc(s.home)))
	s.Handle("GET /me", s.sessions.Require(http.HandlerFunc(s.me)))
	s.Handle("GET /events", s.sessions.Require(http.HandlerFunc(s.events)))
	s.HandleFunc("GET /welcome", func(w http.ResponseWriter, r *http.Request) { s.show(w, r, page{}) })
	s.HandleFunc("POST /sign-out", s.signOut(s.sessions.SignOut))
	s.HandleFunc("POST /sign-out-everywhere", s.signOut(s.sessions.SignOutEverywhere))
	s.HandleFunc("GET /job", s.job)
	s.Handle("/oidc/", s.login)
}

// user finds the user of a login. A real site looks the pair of issuer and
// subject up in its database, and may refuse it.
func (s *site) user(ctx context.Context, l *oidclogin.Login) (string, user, error) {
	var profile struct {
		Name string `json:"name"`
	}
	if err := l.Claims(&profile); err != nil {
		return "", user{}, err
	}
	if s.grants != nil {
		if err := s.grants.Save(ctx, l); err != nil {
			return "", user{}, err
		}
	}
	return "user-" + l.Subject, user{Name: profile.Name, At: l.Subject}, nil
}

//go:embed page.html
var pageHTML string

var pages = template.Must(template.New("page").Parse(pageHTML))

// page is what a page shows: the path, and the session if there is one.
type page struct {
	Path string
	In   *session
}

type session struct {
	Subject, Name, ID, ACR string
	AuthTime               int64 // seconds; 0 if not known
}

func (s *site) session(r *http.Request) *session {
	c, ok := s.sessions.FromContext(r.Context())
	if !ok {
		return nil
	}
	in := &session{Subject: c.Subject, Name: c.State.Name, ID: c.SessionID, ACR: c.ACR()}
	if !c.AuthTime.IsZero() {
		in.AuthTime = c.AuthTime.Unix()
	}
	return in
}

func (s *site) home(w http.ResponseWriter, r *http.Request) {
	s.show(w, r, page{In: s.session(r)})
}

func (s *site) show(w http.ResponseWriter, r *http.Request, p page) {
	p.Path = r.URL.RequestURI()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = pages.Execute(w, p) // the browser has gone
}

// me answers scripts.
func (s *site) me(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.session(r))
}

// signOut ends sessions here, and not the one at the provider: the next sign-in
// may need no password.
func (s *site) signOut(out func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := out(w, r); err != nil {
			s.sessions.Refuse(w, r, err)
			return
		}
		http.Redirect(w, r, "/welcome", http.StatusSeeOther)
	}
}

// events is a stream that ends with the session.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	c, _ := s.sessions.FromContext(r.Context())
	live, err := s.sessions.Live(r.Context(), c, sessionhttp.LiveOptions{})
	if err != nil {
		s.sessions.Refuse(w, r, err)
		return
	}
	defer live.Stop()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	_, _ = fmt.Fprint(w, "data: open\n\n")
	_ = out.Flush()
	<-live.Done()
	if errors.Is(context.Cause(live), revoke.ErrRevoked) {
		_, _ = fmt.Fprint(w, "event: over\ndata:\n\n")
	}
}

// job does what a job would that acts for a user at an API of the provider. It
// needs no session; a real job is no page.
func (s *site) job(w http.ResponseWriter, r *http.Request) {
	if s.grants == nil {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	token, err := s.grants.Token(ctx, r.URL.Query().Get("user"))
	if err != nil {
		http.Error(w, "no access: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer, err := oauth2.NewClient(ctx, oauth2.StaticTokenSource(token)).Get(s.cfg.api)
	if err != nil {
		http.Error(w, "the provider's API failed", http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, io.LimitReader(answer.Body, 1<<20))
}
