package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// newDeploy returns a small site in the middle of a deploy, in which the state
// of a session changes from State1 to State. It has two replicas. A form on its
// page chooses how many of them run the second release: 0, 1 or 2. A session
// meets both releases in turn, goes on at either, and shows the same values.
func newDeploy(ctx context.Context, s *shared, ttl time.Duration) (http.Handler, error) {
	first := release[State1]{name: "1", of: before, show: after}
	second := release[State]{name: "2", of: same, show: same}
	var old, next []*url.URL
	for _, replica := range []string{"A", "B"} {
		u, err := first.start(ctx, replica, s, ttl)
		if err != nil {
			return nil, err
		}
		old = append(old, u)
		if u, err = second.start(ctx, replica, s, ttl); err != nil {
			return nil, err
		}
		next = append(next, u)
	}
	steps := []http.Handler{balance(old), balance([]*url.URL{old[0], next[1]}), balance(next)}
	var step atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) { steps[step.Load()].ServeHTTP(w, req) })
	mux.HandleFunc("POST /deploy", func(w http.ResponseWriter, req *http.Request) {
		n, err := strconv.Atoi(req.PostFormValue("second"))
		if err != nil || n < 0 || n >= len(steps) {
			http.Error(w, "second must be from 0 to 2", http.StatusBadRequest)
			return
		}
		step.Store(int64(n))
		http.Redirect(w, req, "/?second="+strconv.Itoa(n), http.StatusSeeOther)
	})
	for _, name := range []string{"draft.js", "icon.svg", "sign-in.js", "style.css"} {
		mux.HandleFunc("GET /"+name, file(name))
	}
	return http.NewCrossOriginProtection().Handler(mux), nil
}

// before returns the state of a user as the first release has it.
func before(s State) State1 { return State1{s.Name, strings.Join(s.Roles, " "), s.Theme, s.Mail} }

// after returns what the first release's state means.
func after(s State1) State { return State{s.FullName, strings.Fields(s.Roles), s.Theme, s.Mail} }

func same(s State) State { return s }

// release is a release of the site whose sessions have states of type S.
type release[S any] struct {
	name string
	of   func(State) S // makes the state of a user
	show func(S) State // returns what a page shows of it
}

// start starts a replica of the release. It returns when the replica is ready.
func (r release[S]) start(ctx context.Context, replica string, s *shared, ttl time.Duration) (*url.URL, error) {
	a, err := authority.New(authority.Config[S]{
		Issuer: s.issuer, Audience: []string{audience}, Store: s.store, Secrets: [][]byte{s.secret},
		Load: func(ctx context.Context, old *sessiontoken.Claims[S]) (S, error) {
			state, err := s.current(old.Subject)
			return r.of(state), err
		},
		Limits: authority.Limits{TTL: ttl, RefreshIdle: 24 * time.Hour},
		HTTP: sessionhttp.Config[S]{
			RefreshPath: "/session/", DeviceLabel: device, Unauthorized: http.RedirectHandler("/sign-in", http.StatusSeeOther),
		},
	})
	if err != nil {
		return nil, err
	}
	go func() { _ = a.Run(ctx) }()
	sessions, mux := a.Sessions(), http.NewServeMux()
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, req *http.Request) {
		signInPage(w, req, http.StatusOK, "", false)
	})
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, req *http.Request) {
		user, state, ok := s.check(req)
		if !ok {
			signInPage(w, req, http.StatusUnauthorized, "That user and password do not go together.", false)
		} else if _, err := sessions.SignIn(w, req, sessiontoken.Start{Subject: user}, r.of(state)); err != nil {
			sessions.Refuse(w, req, err)
		} else {
			http.Redirect(w, req, "/", http.StatusSeeOther)
		}
	})
	mux.HandleFunc("POST /session/sign-out", func(w http.ResponseWriter, req *http.Request) {
		if err := sessions.SignOut(w, req); err != nil {
			sessions.Refuse(w, req, err)
			return
		}
		http.Redirect(w, req, "/sign-in", http.StatusSeeOther)
	})
	mux.Handle("POST /session/refresh", sessions.RefreshHandler())
	mux.Handle("GET /{$}", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := sessions.FromContext(req.Context())
		render(w, http.StatusOK, "deploy.html", map[string]any{
			"Release": r.name, "Replica": replica, "Subject": c.Subject, "Session": c.SessionID, "State": r.show(c.State),
			"InToken": stateIn(req), "Renewed": w.Header().Get("Set-Cookie") != "", "Second": req.URL.Query().Get("second"),
		})
	})))
	mux.Handle("GET /api/me", sessions.Require(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, _ := sessions.FromContext(req.Context())
		state := r.show(c.State)
		mail, _ := state.Mail.Open()
		answer(w, map[string]any{"release": r.name, "session": c.SessionID, "name": state.Name, "roles": state.Roles, "theme": state.Theme, "mail": mail})
	})))
	mux.Handle("GET /ready", a.Ready())
	u, err := serve(ctx, "127.0.0.1:0", mux)
	if err != nil {
		return nil, err
	}
	return u, waitReady(ctx, u)
}

// waitReady waits until a replica is ready, for at most a minute. A balancer does
// so before it sends requests there.
func waitReady(ctx context.Context, replica *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", replica.JoinPath("/ready").String(), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("webapp: a replica is not ready: look at its log: %w", err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stateIn returns the JSON of the state in the token that has come with a
// request. Nothing was verified: it is only for people to look at.
func stateIn(req *http.Request) string {
	c, err := req.Cookie("__Host-session")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(c.Value, ".")
	payload, _, _ := strings.Cut(rest, ".")
	raw, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		State json.RawMessage `json:"state"`
	}
	_ = json.Unmarshal(raw, &claims)
	return string(claims.State)
}
