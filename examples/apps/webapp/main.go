// Command webapp is a small site with sessions: a sign-in page, a small OpenID
// provider to sign in with, two API replicas behind one origin, a server that only
// reads sessions, and what a browser does with them.
//
//	go -C examples/apps/webapp run .
//	go -C examples/apps/webapp run . -store postgres://user@host/database
//	go -C examples/apps/webapp run . -store redis://host:6379
//	go -C examples/apps/webapp run . -deploy
//
// With -deploy it is a smaller site, of which two releases with different states
// are in use at the same time.
//
// It listens on http://localhost:8080. Chromium treats that as secure enough for
// __Host- cookies, Safari does not; anywhere else, put TLS in front.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"sync/atomic"
	"time"
)

func main() {
	addr := flag.String("addr", "localhost:8080", "where to listen; a loopback address")
	ttl := flag.Duration("ttl", time.Minute, "how long a session token is valid")
	store := flag.String("store", "sqlite:webapp.db", "where replicas share what they must: sqlite:FILE, postgres://…, redis://… or memory")
	secret := flag.String("secret", "webapp.secret", "a file with the secret that seals keys and makes refresh tokens; made if it is not there")
	deploy := flag.Bool("deploy", false, "serve a small site of which two releases are in use at once")
	flag.Parse()
	start := newSite
	if *deploy {
		start = newDeploy
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *addr, *ttl, *store, *secret, start, func(url string) {
		fmt.Printf("open %s and sign in as ada, grace or margaret (an administrator), with the password \"demo\"\n", url)
	}); err != nil {
		log.Fatal(err)
	}
}

// run serves the site that start makes until ctx ends.
func run(ctx context.Context, addr string, ttl time.Duration, store, secret string,
	start func(context.Context, *shared, time.Duration) (http.Handler, error), ready func(url string),
) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	shared, err := newShared(ctx, "http://localhost:"+port, store, secret)
	if err != nil {
		return err
	}
	defer shared.close()
	origin, err := start(ctx, shared, ttl)
	if err != nil {
		return err
	}
	serveOn(ctx, l, origin)
	ready(shared.issuer)
	<-ctx.Done()
	return nil
}

// newSite returns the site: two replicas behind one origin, and a server of that
// origin which only reads sessions. Beside it, it starts an OpenID provider.
func newSite(ctx context.Context, shared *shared, ttl time.Duration) (http.Handler, error) {
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if shared.provider, err = newProvider("http://"+at.Addr().String(), shared.issuer, shared.isUser); err != nil {
		return nil, err
	}
	serveOn(ctx, at, shared.provider.routes())
	var replicas []*url.URL
	for _, name := range []string{"A", "B"} {
		r, err := newReplica(ctx, name, shared, ttl)
		if err != nil {
			return nil, err
		}
		u, err := serve(ctx, "127.0.0.1:0", r.routes())
		if err != nil {
			return nil, err
		}
		replicas = append(replicas, u)
	}
	api, err := newAPI(ctx, shared.issuer)
	if err != nil {
		return nil, err
	}
	reader, err := serve(ctx, "127.0.0.1:0", api)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", balance(replicas))
	mux.Handle("/badge", balance([]*url.URL{reader}))
	return mux, nil
}

// serve serves h until ctx ends.
func serve(ctx context.Context, addr string, h http.Handler) (*url.URL, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	serveOn(ctx, l, h)
	return &url.URL{Scheme: "http", Host: l.Addr().String()}, nil
}

func serveOn(ctx context.Context, l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()
	context.AfterFunc(ctx, func() { _ = server.Close() })
}

// balance sends each request to the next replica: no request may count on the
// one before it having been there.
func balance(replicas []*url.URL) http.Handler {
	var n atomic.Uint64
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(replicas[n.Add(1)%uint64(len(replicas))])
			r.Out.Host = r.In.Host // by which cross-origin requests are told
		},
	}
}
