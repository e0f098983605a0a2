package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

const (
	ada      = "user-42" // the subject: it stays when the name changes
	password = "demo"    // a real site compares hashes, or asks for a passkey

	site = "site"   // the audience of the replicas
	api  = "orders" // that of the API elsewhere

	// refreshEvery is how often the API fetches the keys: 10 min unless told
	// otherwise.
	refreshEvery = time.Second
)

var quiet = slog.New(slog.DiscardHandler)

// database is what is true about users, by subject.
type database struct {
	mu    sync.Mutex
	users map[string]State
}

func (d *database) of(subject string) (State, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	state, ok := d.users[subject]
	return state, ok
}

func (d *database) set(subject string, state State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[subject] = state
}

// load is asked for the state of each renewed token. The old token is never the
// authority on it.
func (d *database) load(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
	state, ok := d.of(old.Subject)
	if !ok {
		return State{}, sessionhttp.ErrSessionOver // and so no new token
	}
	return state, nil
}

// server is what a browser talks to.
type server struct {
	name, url string
	stop      func()
}

// replica is one server of the site. All replicas are made alike, of one store.
type replica struct {
	server
	*authority.Authority[State]
}

func startReplica(ctx context.Context, name string, listener net.Listener, issuer string, store authority.Store, users *database) (*replica, error) {
	a, err := authority.New(authority.Config[State]{
		Issuer:   issuer, // https anywhere but on loopback
		Audience: []string{site, api},
		Store:    store,
		Load:     users.load,
		Logger:   quiet,
	})
	if err != nil {
		return nil, err
	}
	s, mux := a.Sessions(), http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		state, ok := users.of(ada)
		if !ok || r.FormValue("password") != password {
			http.Error(w, "wrong password", http.StatusUnauthorized)
		} else if _, err := s.SignIn(w, r, sessiontoken.Start{Subject: ada}, state); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := s.SignOut(w, r); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.Handle("POST /renew", a.RenewHandler())
	mux.Handle("GET /me", me(s))
	mux.Handle("/.well-known/", a.WellKnown())
	return &replica{serve(ctx, name, listener, mux, a.Run), a}, nil
}

// startAPI starts a server that shares nothing with the replicas: it is told the
// URL of their issuer.
func startAPI(ctx context.Context, name string, listener net.Listener, issuer string) (*server, error) {
	r, err := remote.New[State](remote.Config{
		Issuer: issuer, Audience: api, Logger: quiet,
		RefreshEvery: refreshEvery, InsecurePlainHTTP: true, // for http on loopback
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /me", me(r.Sessions()))
	s := serve(ctx, name, listener, mux, r.Run)
	return &s, nil
}

// me tells whose session it is.
func me(s *sessionhttp.Sessions[State]) http.Handler {
	return s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		fmt.Fprintf(w, "%s (%s) of %s", c.State.Name, strings.Join(c.State.Roles, ", "), c.State.Tenant)
	}))
}

// serve serves on the listener, and runs what follows the store or the keys, until
// stop is called.
func serve(ctx context.Context, name string, listener net.Listener, handler http.Handler, run func(context.Context) error) server {
	ctx, cancel := context.WithCancel(ctx)
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = s.Serve(listener) }) // it returns when the server is closed
	running.Go(func() { _ = run(ctx) })          // it returns when ctx ends
	return server{name: name, url: "http://" + listener.Addr().String(), stop: func() {
		cancel()
		_ = s.Close()
		running.Wait()
	}}
}

// answer is what came back from a server.
type answer struct {
	status int
	text   string // the page, or why there is none
	token  string // of the cookie that it sets, if it does
}

func (a answer) String() string { return strings.TrimSpace(fmt.Sprint(a.status, " ", a.text)) }

// why is the reason in a WWW-Authenticate of RFC 6750.
var why = regexp.MustCompile(`error_description="(.*?)"`)

// ask sends a request with a session's token in the cookie, as a browser does.
func (s *server) ask(ctx context.Context, method, path, token string, form url.Values) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		req.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	got := answer{status: resp.StatusCode, text: strings.TrimSpace(string(text))}
	if m := why.FindStringSubmatch(resp.Header.Get("WWW-Authenticate")); m != nil {
		got.text = m[1]
	}
	for _, c := range resp.Cookies() {
		got.token = c.Value
	}
	return got, err
}
