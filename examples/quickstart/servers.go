package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	audience = "orders"

	// The times of a real deployment are the defaults: 24 h, 10 min, 12 h, 2 h.
	publishBefore = 3 * time.Second
	refreshEvery  = 500 * time.Millisecond
)

// authority is the service that signs users in. It alone has private keys.
type authority struct {
	ring       *keys.Ring
	issuer     *sessiontoken.Issuer[State]
	shortLived *sessiontoken.Issuer[State]
	verifier   *sessiontoken.Verifier[State]
	db         map[string]State
	jwksURL    string
	stop       func()
}

func startAuth(ctx context.Context, keyFile string) (*authority, error) {
	store, err := keys.NewFileStore(keyFile)
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(keys.RingConfig{
		Store:         store,
		RotateEvery:   time.Hour,
		PublishBefore: publishBefore,
		SyncEvery:     200 * time.Millisecond,
		MaxStale:      time.Second,
		ClientRefresh: refreshEvery,
		MaxSkew:       50 * time.Millisecond,
		Logger:        slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	a := &authority{ring: ring, db: map[string]State{"user-42": {
		Name: "Ada", Tenant: "analytical-engines", Role: "editor",
		Permissions: []string{"orders:read", "orders:write", "invoices:read"},
	}}}

	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring, MaxAge: time.Second})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/jwks.json", jwks)
	url, closeServer, err := serve(mux)
	if err != nil {
		return nil, err
	}
	a.jwksURL = url + "/.well-known/jwks.json"

	cfg := sessiontoken.IssuerConfig{Issuer: issuerName, Audience: []string{audience}, Keys: ring}
	if a.issuer, err = sessiontoken.NewIssuer[State](cfg); err != nil {
		return nil, errors.Join(err, closeServer())
	}
	cfg.TTL = time.Second
	if a.shortLived, err = sessiontoken.NewIssuer[State](cfg); err != nil {
		return nil, errors.Join(err, closeServer())
	}
	a.verifier, err = sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{Issuer: issuerName, Audience: audience, Keys: ring})
	if err != nil {
		return nil, errors.Join(err, closeServer())
	}
	a.stop = background(ctx, ring.Run, closeServer)
	return a, nil
}

const issuerName = "https://auth.example"

// replica is an API server. All that it knows of the issuer is a URL.
type replica struct {
	name, url string
	stop      func()
}

func startReplica(ctx context.Context, name, jwksURL string) (*replica, error) {
	source, err := sessiontoken.NewRemoteKeys(sessiontoken.RemoteKeysConfig{URL: jwksURL, RefreshEvery: refreshEvery})
	if err != nil {
		return nil, err
	}
	verifier, err := sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{Issuer: issuerName, Audience: audience, Keys: source})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		claims, err := verifier.Verify(r.Context(), token)
		switch {
		case errors.Is(err, sessiontoken.ErrInvalid):
			// A real API gives no reason; this one tells a story.
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "try again", http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, "%s (%s) of %s", claims.State.Name, claims.State.Role, claims.State.Tenant)
		}
	})
	url, closeServer, err := serve(mux)
	if err != nil {
		return nil, err
	}
	return &replica{name: name, url: url, stop: background(ctx, source.Run, closeServer)}, nil
}

// me asks the replica who the bearer of a token is.
func (r *replica) me(ctx context.Context, token string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/me", nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(text)), err
}

func serve(h http.Handler) (url string, closeServer func() error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends with Close
	return "http://" + listener.Addr().String(), server.Close, nil
}

// background runs what a service runs, and returns what ends it.
func background(ctx context.Context, run func(context.Context) error, closeServer func() error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run(ctx) // it returns when ctx ends
	}()
	return func() {
		cancel()
		<-done
		_ = closeServer()
	}
}
