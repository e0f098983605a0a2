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
	"github.com/sessiontoken/sessiontoken/remote"
)

// A real deployment leaves these out, and has the defaults: 24 h and 10 min.
const (
	publishBefore = 7 * time.Second
	refreshEvery  = time.Second
)

// revokedWithin is RefreshEvery, and the time for some fetches on a busy machine.
const revokedWithin = refreshEvery + 20*time.Second

const audience = "orders" // the API that the tokens are for

var quiet = slog.New(slog.DiscardHandler)

// authority is the service that signs users in. It alone has private keys.
type authority struct {
	url, jwksURL string
	database     map[string]State // by subject; what is true about a user

	ring       *keys.Ring
	issuer     *sessiontoken.Issuer[State]
	shortLived *sessiontoken.Issuer[State] // the same, with tokens of 2 s
	verifier   *sessiontoken.Verifier[State]
	stop       func()
}

func startAuthority(ctx context.Context, keyFile string) (_ *authority, err error) {
	store, err := keys.NewFileStore(keyFile)
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(keys.RingConfig{
		Store:  store,
		Logger: quiet,
		// For the story, days become seconds. The ring refuses times with which
		// a key could sign before every replica has it.
		RotateEvery:   time.Hour,
		PublishBefore: publishBefore,
		SyncEvery:     2 * time.Second,
		MaxStale:      2500 * time.Millisecond,
		ClientRefresh: refreshEvery,
		MaxSkew:       50 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			listener.Close()
		}
	}()
	a := &authority{
		url:  "http://" + listener.Addr().String(), // https anywhere but on loopback
		ring: ring,
		database: map[string]State{ada: {
			Name: "Ada", Tenant: "analytical-engines", Roles: []string{"editor"},
			Permissions: []string{"orders:read", "orders:write", "invoices:read"},
		}},
	}
	a.jwksURL = a.url + "/.well-known/jwks.json"

	cfg := sessiontoken.IssuerConfig{Issuer: a.url, Audience: []string{audience}, Keys: ring}
	if a.issuer, err = sessiontoken.NewIssuer[State](cfg); err != nil {
		return nil, err
	}
	cfg.TTL = 2 * time.Second
	if a.shortLived, err = sessiontoken.NewIssuer[State](cfg); err != nil {
		return nil, err
	}
	// In the process that issues, the ring itself is the source of keys.
	a.verifier, err = sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{Issuer: a.url, Audience: audience, Keys: ring})
	if err != nil {
		return nil, err
	}
	jwks, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring, MaxAge: time.Second})
	if err != nil {
		return nil, err
	}
	discovery, err := sessiontoken.DiscoveryHandler(sessiontoken.DiscoveryConfig{
		Issuer: a.url, JWKSURI: a.jwksURL, Keys: ring,
		InsecurePlainHTTP: true, // for the http URLs: the listener is on loopback
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/jwks.json", jwks)
	mux.Handle("/.well-known/openid-configuration", discovery)
	a.stop = start(ctx, listener, mux, ring.Run)
	return a, nil
}

// load is what Renew asks for the state: the database, never the old token.
func (a *authority) load(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
	state, ok := a.database[old.Subject]
	if !ok {
		return State{}, errors.New("no such user") // and so no new token
	}
	return state, nil
}

// currentKey is the id of the key that signs now.
func (a *authority) currentKey() string {
	for _, k := range a.ring.Status().Keys {
		if k.Phase == "current" {
			return k.KeyID
		}
	}
	return ""
}

// replica is an API server. It shares nothing with the issuer or with other
// replicas: it is told the issuer's name and where its public keys are.
type replica struct {
	name, url string
	stop      func()
}

func startReplica(ctx context.Context, name, issuer, jwksURL string) (*replica, error) {
	source, err := remote.NewKeys(remote.KeysConfig{URL: jwksURL, RefreshEvery: refreshEvery, Logger: quiet})
	if err != nil {
		return nil, err
	}
	verifier, err := sessiontoken.NewVerifier[State](sessiontoken.VerifierConfig{Issuer: issuer, Audience: audience, Keys: source})
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /me", func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		claims, err := verifier.Verify(r.Context(), token)
		switch {
		case errors.Is(err, sessiontoken.ErrInvalid): // the token's fault
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			// A real API keeps the reason to itself; this one tells a story.
			http.Error(w, reason(err), http.StatusUnauthorized)
		case err != nil: // the server's: the token may well be good
			http.Error(w, "try again", http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, "%s (%s) of %s", claims.State.Name, strings.Join(claims.State.Roles, ", "), claims.State.Tenant)
		}
	})
	return &replica{name: name, url: "http://" + listener.Addr().String(), stop: start(ctx, listener, mux, source.Run)}, nil
}

// reason names the error that Verify returned.
func reason(err error) string {
	switch {
	case errors.Is(err, sessiontoken.ErrSignature):
		return "ErrSignature"
	case errors.Is(err, sessiontoken.ErrExpired):
		return "ErrExpired"
	default:
		return "ErrInvalid"
	}
}

// answer is what came back from a server.
type answer struct {
	status int
	text   string
}

func (a answer) String() string { return fmt.Sprint(a.status, " ", a.text) }

func refused(err error) answer { return answer{http.StatusUnauthorized, reason(err)} }

// me asks the replica who the bearer of a token is.
func (r *replica) me(ctx context.Context, token string) (answer, error) {
	return get(ctx, r.url+"/me", token)
}

func get(ctx context.Context, url, bearer string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, strings.TrimSpace(string(text))}, err
}

// start serves on the listener and runs what keeps the server's keys fresh,
// until the returned function is called.
func start(ctx context.Context, listener net.Listener, handler http.Handler, keepFresh func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{}, 2)
	go func() {
		_ = server.Serve(listener) // it returns when the server is closed
		done <- struct{}{}
	}()
	go func() {
		_ = keepFresh(ctx) // it returns when ctx ends
		done <- struct{}{}
	}()
	return func() {
		cancel()
		_ = server.Close()
		<-done
		<-done
	}
}
