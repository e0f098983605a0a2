// Command oidc is a site whose users sign in with an OpenID provider: pages that
// need a recent sign-in or a second factor, both ways of signing out, a page
// that notices its end, and a job that acts for the user without a session.
//
//	go -C examples/apps/oidc run . -issuer https://login.example -client site
//
// The secret of the client is the environment variable OIDC_SECRET. The site
// listens on http://localhost:8080. Register at the provider:
//
//	http://localhost:8080/oidc/callback            as redirect URI
//	http://localhost:8080/oidc/signed-out          as post-logout redirect URI
//	http://localhost:8080/oidc/backchannel-logout  as back-channel logout URI
//
// A provider on another machine cannot reach the last one on localhost: put the
// site at an address of its own, with TLS in front.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/oidclogin"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "where to listen; a loopback address")
	issuer := flag.String("issuer", "", "the provider's issuer")
	client := flag.String("client", "", "the id of this site at the provider")
	api := flag.String("api", "", "a URL at which the provider accepts its access tokens, for the job")
	offline := flag.Bool("offline", false, "ask for offline access, for the job")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, config{
		issuer: *issuer, client: *client, secret: os.Getenv("OIDC_SECRET"), offline: *offline, api: *api,
		address: "http://" + *addr, store: authority.Memory().(store), recent: 5 * time.Minute,
	}); err != nil {
		log.Fatal(err)
	}
}

// run serves the site until ctx ends.
func run(ctx context.Context, addr string, cfg config) error {
	s, err := newSite(cfg)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("open", cfg.address)
	return s.serve(ctx, l)
}

// store is what replicas share: sessions, and grants for offline access.
type store interface {
	authority.Store
	oidclogin.GrantStore
}

// config is what replicas of the site have in common.
type config struct {
	issuer, client, secret string // of the provider
	address                string // of the site: "http://localhost:8080"
	store                  store
	secrets                [][]byte      // nil: of this process alone
	recent                 time.Duration // how long ago a sign-in may be for a payment
	formPost               bool
	offline                bool
	api                    string // what the job asks with the user's access token
	logger                 *slog.Logger
}

// serve serves the site on l until ctx ends.
func (s *site) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	go func() {
		_ = s.authority.Run(ctx) // until ctx ends
		_ = server.Close()
	}()
	if err := server.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}
