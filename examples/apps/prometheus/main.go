// Command prometheus is a server that shows what its sessions do: to Prometheus
// at /metrics, and as JSON at /debug/vars. What is worth copying is in
// collector.go, alerts.yml and dashboard.json, which Grafana imports.
//
// It signs in all who ask, so that there is something to count. A real server
// would show its metrics on an address of their own, which users cannot reach.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// State is what a session carries.
type State struct {
	Role string `json:"role"`
}

const (
	issuerName = "https://auth.example"
	audience   = "orders"
)

// program is an issuer and an API in one process.
type program struct {
	ring        *keys.Ring
	remote      *remote.Keys
	revocations *revoke.List
	manager     *refresh.Manager
	issuer      *sessiontoken.Issuer[State]
	verifier    *sessiontoken.Verifier[State] // of the API
	sessions    *sessionhttp.Sessions[State]  // of the issuer
	api         *sessionhttp.Sessions[State]
}

// newProgram makes all that has metrics. jwksURL is where this very program
// publishes its keys: the API reads them there, as one in another process would.
func newProgram(jwksURL string) (p *program, err error) {
	p = new(program)
	if p.ring, err = keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)}); err != nil {
		return nil, err
	}
	if p.remote, err = remote.NewKeys(remote.KeysConfig{URL: jwksURL}); err != nil {
		return nil, err
	}
	if p.revocations, err = revoke.NewList(revoke.Config{Store: new(revoke.MemStore)}); err != nil {
		return nil, err
	}
	secret := make([]byte, 32) // every replica needs the same one: take it from a secret manager
	rand.Read(secret)
	p.manager, err = refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, Revocations: p.revocations})
	if err != nil {
		return nil, err
	}
	p.verifier, err = sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{
		Issuer: issuerName, Audience: audience, Keys: p.remote, Revocations: p.revocations})
	if err != nil {
		return nil, err
	}
	p.issuer, err = sessiontoken.NewIssuer[State](sessiontoken.IssuerConfig{
		Issuer: issuerName, Audience: []string{audience}, Keys: p.ring, Revocations: p.revocations})
	if err != nil {
		return nil, err
	}
	own, err := sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{
		Issuer: issuerName, Audience: audience, Keys: p.ring, Revocations: p.revocations})
	if err != nil {
		return nil, err
	}
	if p.api, err = sessionhttp.New(sessionhttp.Config[State]{Verifier: p.verifier}); err != nil {
		return nil, err
	}
	p.sessions, err = sessionhttp.New(sessionhttp.Config[State]{
		Verifier: own, Issuer: p.issuer, Revocations: p.revocations, Refresh: p.manager,
		Load: func(context.Context, *sessiontoken.Claims[State]) (State, error) { return State{Role: "clerk"}, nil },
	})
	return p, err
}

// sources are what is shown of it: the issuer's, but for its verifier, and the
// API's verifier. In two processes each would show all of its own.
func (p *program) sources() []source {
	return []source{p.verifier, p.remote, p.ring, p.revocations, p.manager, p.issuer, p.sessions}
}

// handler serves the program, and its metrics.
func (p *program) handler() (http.Handler, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(collector(p.sources())); err != nil {
		return nil, err
	}
	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: p.ring})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /debug/vars", expvar.Handler())
	mux.Handle("GET /.well-known/jwks.json", jwks)
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		tokens, err := p.sessions.SignInNative(r, sessionhttp.Device{ClientID: "app", Label: "a phone"}, sessiontoken.Start{Subject: "ada"}, State{Role: "clerk"})
		if err != nil {
			p.sessions.Refuse(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(tokens)
	})
	mux.Handle("POST /token", p.sessions.RefreshHandler())
	mux.Handle("GET /me", p.api.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := p.api.FromContext(r.Context())
		_, _ = fmt.Fprintln(w, claims.Subject, claims.State.Role)
	})))
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := p.sessions.SignOut(w, r); err != nil {
			p.sessions.Refuse(w, r, err)
		}
	})
	return mux, nil
}

func main() {
	address := flag.String("addr", "127.0.0.1:8321", "loopback address to serve on")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	base := "http://" + listener.Addr().String()
	p, err := newProgram(base + "/.well-known/jwks.json")
	if err != nil {
		log.Fatal(err)
	}
	publish("sessiontoken", p.sources()...)
	fmt.Printf(`For Prometheus:      %[1]s/metrics
As JSON:             %[1]s/debug/vars
Something to count:  curl -X POST %[1]s/sign-in
                     curl -H 'Authorization: Bearer <access_token>' %[1]s/me
                     curl -d 'grant_type=refresh_token&client_id=app&refresh_token=<refresh_token>' %[1]s/token
                     curl -X POST -H 'Authorization: Bearer <access_token>' %[1]s/sign-out
`, base)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := p.serve(ctx, listener); err != nil {
		log.Fatal(err)
	}
}

// serve serves the program until ctx ends.
func (p *program) serve(ctx context.Context, listener net.Listener) error {
	handler, err := p.handler()
	if err != nil {
		return err
	}
	go func() { _ = p.ring.Run(ctx) }()
	go func() { _ = p.remote.Run(ctx) }()
	go func() { _ = p.revocations.Run(ctx) }()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
