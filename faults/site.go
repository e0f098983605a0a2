//go:build unix

package faults

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// site is what a process with Role.Serves serves over HTTP. Its users have a
// role, a number that only grows. A file a user is the database of all
// processes.
type site struct {
	*sessionhttp.Sessions[state]
	roles string // the folder of the files
	url   string
	loads atomic.Int64
}

// page is what a site answers a request with a session with.
type page struct {
	Role      int
	SessionID string
}

func (w *worker) serveSite(folder string) error {
	s := &site{roles: folder}
	var err error
	s.Sessions, err = sessionhttp.New(sessionhttp.Config[state]{
		Verifier: w.verifier, Issuer: w.issuer, Refresh: w.manager, Revocations: w.list, Load: s.load, Logger: quiet,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(rw http.ResponseWriter, r *http.Request) {
		subject := r.FormValue("subject")
		role, err := s.role(subject)
		if err == nil {
			_, err = s.SignIn(rw, r, sessiontoken.Start{Subject: subject}, state{Role: role})
		}
		if err != nil {
			s.Refuse(rw, r, err)
		}
	})
	mux.HandleFunc("POST /native", func(rw http.ResponseWriter, r *http.Request) {
		subject := r.FormValue("subject")
		role, err := s.role(subject)
		var tokens sessionhttp.Tokens
		if err == nil {
			tokens, err = s.SignInNative(r, sessionhttp.Device{ClientID: clientID}, sessiontoken.Start{Subject: subject}, state{Role: role})
		}
		if err != nil {
			s.Refuse(rw, r, err)
			return
		}
		_ = json.NewEncoder(rw).Encode(tokens)
	})
	mux.Handle("POST /refresh", s.RefreshHandler())
	mux.HandleFunc("POST /renew", func(rw http.ResponseWriter, r *http.Request) {
		if _, err := s.Renew(rw, r); err != nil {
			s.Refuse(rw, r, err)
		}
	})
	mux.Handle("GET /me", s.Require(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		_ = json.NewEncoder(rw).Encode(page{c.State.Role, c.SessionID})
	})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url, w.site = "http://"+l.Addr().String(), s
	go http.Serve(l, mux)
	return nil
}

func (s *site) load(_ context.Context, old *sessiontoken.Claims[state]) (state, error) {
	s.loads.Add(1)
	role, err := s.role(old.Subject)
	return state{Role: role}, err
}

// role returns the role of a user, which is 0 at first.
func (s *site) role(subject string) (int, error) {
	text, err := os.ReadFile(filepath.Join(s.roles, subject))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

// promote changes the role of a user, and marks that once the change is
// committed.
func (s *site) promote(ctx context.Context, subject string, role int) error {
	f, err := os.CreateTemp(s.roles, "new-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(role))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(s.roles, subject)); err != nil {
		return err
	}
	return s.Changed(ctx, subject)
}
