package authority_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

type roles struct{ Roles []string }

// A site with sign-in, a page and sign-out. With more than one replica, Store
// is one of the module sqlstore or redisstore, and Secrets come from where
// secrets are kept.
func Example() {
	users := map[string]roles{"ada": {[]string{"admin"}}}
	a, err := authority.New(authority.Config[roles]{
		Issuer:   "https://auth.example",
		Audience: []string{"site"},
		Store:    authority.Memory(),
		Load: func(_ context.Context, old *sessiontoken.Claims[roles]) (roles, error) {
			user, ok := users[old.Subject]
			if !ok {
				return user, sessionhttp.ErrSessionOver
			}
			return user, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = a.Run(ctx) }()

	s, mux := a.Sessions(), http.NewServeMux()
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.SignIn(w, r, sessiontoken.Start{Subject: "ada"}, users["ada"]); err != nil { // once the password is checked
			s.Refuse(w, r, err)
		}
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := s.SignOut(w, r); err != nil {
			s.Refuse(w, r, err)
		}
	})
	mux.Handle("GET /{$}", s.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := s.FromContext(r.Context())
		fmt.Println(c.Subject, c.State.Roles)
	})))
	mux.Handle("/.well-known/", a.WellKnown())
	mux.Handle("/ready", a.Ready())

	server := httptest.NewTLSServer(mux)
	defer server.Close()
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	for _, step := range []struct{ method, path string }{
		{"GET", "/"}, {"POST", "/sign-in"}, {"GET", "/"}, {"POST", "/sign-out"}, {"GET", "/"}, {"GET", "/.well-known/jwks.json"}, {"GET", "/ready"},
	} {
		req, err := http.NewRequest(step.method, server.URL+step.path, nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(step.method, step.path, resp.StatusCode)
	}
	// Output:
	// GET / 401
	// POST /sign-in 200
	// ada [admin]
	// GET / 200
	// POST /sign-out 200
	// GET / 401
	// GET /.well-known/jwks.json 200
	// GET /ready 200
}

// A process with many tenants: one Host, and an authority for each, that share
// the store and nothing else. A token of one tenant is none of another.
func ExampleNewHost() {
	host, err := authority.NewHost(authority.Memory(), sessiontoken.NewCache(64<<20), nil)
	if err != nil {
		log.Fatal(err)
	}
	tenants := map[string]*authority.Authority[roles]{}
	for _, name := range []string{"red", "green"} {
		tenants[name], err = authority.New(authority.Config[roles]{
			Issuer:    "https://" + name + ".example",
			Audience:  []string{"site"},
			Host:      host,
			Namespace: name,
			Load: func(_ context.Context, old *sessiontoken.Claims[roles]) (roles, error) {
				return old.State, nil
			},
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = host.Run(ctx) }() // for all of them

	token, _, err := tenants["red"].Issuer().Issue(ctx, "ada", roles{[]string{"admin"}})
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"red", "green"} {
		_, err := tenants[name].Verifier().Verify(ctx, token)
		fmt.Println(name, err == nil)
	}
	// Output:
	// red true
	// green false
}
