package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

var serveCommand = command{
	name:    "serve",
	summary: "Answers a proxy whether a request has a session",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		var o serveOptions
		o.flags(fs)
		return func(ctx context.Context, c *call) error { return serve(ctx, c, o) }
	},
}

const feedVariable = "SESSIONTOKEN_FEED_TOKEN"

type serveOptions struct {
	issuer, audience string
	feedTokenFile    string
	noFeed           bool
	cookie, domain   string
	origins          list
	acr, state       list
	anonymous        bool
	renew            string
	envoy            bool
	listen, admin    string
	anyAddress       bool
	plainHTTP        bool
}

func (o *serveOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.issuer, "issuer", "", "the `URL` of the authority, as its tokens have it in iss (required)")
	fs.StringVar(&o.audience, "audience", "", "the `name` of the service behind the proxy, in the aud of the tokens (required)")
	fs.StringVar(&o.feedTokenFile, "feed-token-file", "", "the `file` with the credential of the feed of revocations, read again at each use; without it the environment variable "+feedVariable+" has the credential")
	fs.BoolVar(&o.noFeed, "no-feed", false, "do not read the feed: a session that was revoked passes until its token expires")
	fs.StringVar(&o.cookie, "cookie", "", "the `name` of the session cookie without its prefix (default session)")
	fs.StringVar(&o.domain, "cookie-domain", "", "the `domain` of the session cookie, if the authority sets one")
	fs.Var(&o.origins, "trusted-origin", "an `origin`, such as https://app.example, whose pages may send requests with the cookie, beside the service's own; can be repeated")
	fs.Var(&o.acr, "acr", "let only sessions pass that have one of these `values` of acr, separated by commas, the preferred one first")
	fs.BoolVar(&o.anonymous, "anonymous", false, "let sessions pass that began before the user has signed in")
	fs.Var(&o.state, "state", "the `members` of the state that the header X-Session-State holds, separated by commas")
	fs.StringVar(&o.renew, "renew", "", "the `URL` of the authority's renew endpoint, to which expired cookies are sent; without it they are refused")
	fs.BoolVar(&o.envoy, "envoy", false, "take method and host from the proxy's request itself, as Envoy sends them, and not from X-Forwarded-Method and X-Forwarded-Host")
	fs.StringVar(&o.listen, "listen", "127.0.0.1:4180", "the `address` for the proxy")
	fs.StringVar(&o.admin, "admin", "127.0.0.1:4181", "the `address` of /healthz and /metrics; empty for none")
	fs.BoolVar(&o.anyAddress, "any-address", false, "permit addresses that are not loopback; use it only in a network that the proxy alone can reach")
	fs.BoolVar(&o.plainHTTP, "insecure-plain-http", false, "permit an http issuer on a loopback host, for development")
}

// list is a flag with several values.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v == "" {
			return errors.New("an empty value")
		}
		*l = append(*l, v)
	}
	return nil
}

// check returns the error of a command line that cannot work.
func (o *serveOptions) check(c *call) error {
	switch {
	case len(c.args) > 0:
		return usageError{"serve takes flags alone; -h shows them"}
	case o.issuer == "":
		return usageError{"--issuer is required: the URL of the authority"}
	case o.audience == "" || !isPlain(o.audience):
		return usageError{"--audience is required: the name of the service behind the proxy, in ASCII without spaces"}
	case o.noFeed && o.feedTokenFile != "":
		return usageError{"--no-feed and --feed-token-file exclude each other; leave one out"}
	case !o.noFeed && o.feedTokenFile == "" && c.getenv(feedVariable) == "":
		return usageError{"a credential of the feed is missing: set --feed-token-file or " + feedVariable + "; with --no-feed a session that was revoked passes until its token expires"}
	}
	for _, a := range []struct{ name, addr string }{{"--listen", o.listen}, {"--admin", o.admin}} {
		if a.addr != "" && !o.anyAddress && !isLoopback(a.addr) {
			return usageError{a.name + " is not a loopback address with a port, such as 127.0.0.1:4180; --any-address permits others"}
		}
	}
	for _, v := range o.acr {
		if len(v) > 64 || !isPlain(v) || strings.ContainsAny(v, `"\`) {
			return usageError{"--acr has a value that is not 1 to 64 bytes of ASCII without spaces, quotes and backslashes"}
		}
	}
	if o.renew != "" {
		u, err := url.Parse(o.renew)
		local := err == nil && u.Scheme == "http" && isLoopback(net.JoinHostPort(u.Hostname(), "80"))
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !local {
			return usageError{"--renew must be an https URL, or an http one on a loopback host, without a user: cookies are sent to it"}
		}
	}
	return nil
}

// isPlain reports whether a text can stand in a header as it is.
func isPlain(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// isLoopback reports whether an address with a port means this machine alone.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// feedToken returns the function that reads the credential of the feed, or nil
// for none.
func (o *serveOptions) feedToken(c *call) (func(context.Context) (string, error), error) {
	if o.noFeed {
		return nil, nil
	}
	if o.feedTokenFile == "" {
		token := strings.TrimSpace(c.getenv(feedVariable))
		return func(context.Context) (string, error) { return token, nil }, nil
	}
	read := func(context.Context) (string, error) {
		text, err := os.ReadFile(o.feedTokenFile)
		if err != nil {
			return "", fmt.Errorf("the credential of the feed cannot be read; check --feed-token-file: %w", err)
		}
		if token := strings.TrimSpace(string(text)); token != "" {
			return token, nil
		}
		return "", errors.New("the file of --feed-token-file is empty; write one of the authority's FeedTokens to it")
	}
	_, err := read(context.Background())
	return read, err
}

// newGate returns the handler for the proxy, and what it reads sessions with.
func (o *serveOptions) newGate(c *call, logger *slog.Logger) (*gate, *remote.Remote[openState], error) {
	token, err := o.feedToken(c)
	if err != nil {
		return nil, nil, err
	}
	r, err := remote.New[openState](remote.Config{
		Issuer: o.issuer, Audience: o.audience, FeedToken: token,
		Logger: logger, InsecurePlainHTTP: o.plainHTTP,
	})
	if err != nil {
		return nil, nil, usageError{"--issuer must be an https URL, exactly as the tokens have it in iss; --insecure-plain-http permits http on a loopback host"}
	}
	sessions, err := sessionhttp.New(sessionhttp.Config[openState]{
		Verifier: r.Verifier(), Revocations: r.Revocations(), Logger: logger,
		CookieName: o.cookie, CookieDomain: o.domain, TrustedOrigins: o.origins,
	})
	if err != nil {
		return nil, nil, usageError{"--cookie, --cookie-domain or --trusted-origin: " + err.Error()}
	}
	g := &gate{
		sessions: sessions, audience: o.audience, members: o.state, acr: o.acr, anonymous: o.anonymous, envoy: o.envoy,
		log: limitedLog{logger: logger}, cookie: cookieName(o.cookie, o.domain),
	}
	if o.renew != "" {
		g.renewals = newRenewals(o.renew)
	}
	return g, r, nil
}

// cookieName returns the name of the session cookie with its prefix.
func cookieName(name, domain string) string {
	if name == "" {
		name = "session"
	}
	if domain != "" {
		return "__Secure-" + name
	}
	return "__Host-" + name
}

// serve answers requests until ctx ends, and then those that have begun.
func serve(ctx context.Context, c *call, o serveOptions) error {
	if err := o.check(c); err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(c.err, nil))
	if c.json {
		logger = slog.New(slog.NewJSONHandler(c.err, nil))
	}
	g, r, err := o.newGate(c, logger)
	if err != nil {
		return err
	}
	at, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("the address of --listen cannot be used; stop what has it, or choose another: %w", err)
	}
	defer at.Close()
	var admin net.Listener
	if o.admin != "" {
		if admin, err = net.Listen("tcp", o.admin); err != nil {
			return fmt.Errorf("the address of --admin cannot be used; stop what has it, or choose another: %w", err)
		}
		defer admin.Close()
	}
	if err := announce(c, at, admin); err != nil {
		return err
	}

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		_ = r.Run(running) // it ends with running alone
	}()
	defer func() { stop(); <-followed }()
	ended := make(chan error, 2)
	start := func(h http.Handler, l net.Listener) *http.Server {
		s := newServer(h, logger)
		go func() { ended <- s.Serve(l) }()
		return s
	}
	servers := []*http.Server{start(g, at)}
	if admin != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /healthz", r.Ready())
		mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) { g.writeMetrics(w, r.Metrics()) })
		servers = append(servers, start(mux, admin))
	}
	select {
	case err := <-ended:
		return fmt.Errorf("the listener failed; start the command again: %w", err)
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
	defer cancel()
	for _, s := range servers {
		if s.Shutdown(late) != nil {
			_ = s.Close()
		}
	}
	return nil
}

// shutdownLimit is how long serve waits for answers that have begun.
const shutdownLimit = 10 * time.Second

// newServer returns a server with limits of time and size. Its read and write
// time-outs are longer than any answer takes: 2 s for the keys, 5 s for a
// renewal, 2 s for a key that is new.
func newServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 20 * time.Second, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(logWriter{logger}, "", 0),
	}
}

// logWriter writes the lines of net/http to the log of the command.
type logWriter struct{ logger *slog.Logger }

func (l logWriter) Write(line []byte) (int, error) {
	l.logger.Warn("serve: " + strings.TrimSpace(string(line)))
	return len(line), nil
}

// announce writes the addresses, of which a port 0 was replaced.
func announce(c *call, at, admin net.Listener) error {
	where := struct {
		Listen string `json:"listen"`
		Admin  string `json:"admin,omitempty"`
	}{Listen: at.Addr().String()}
	if admin != nil {
		where.Admin = admin.Addr().String()
	}
	if c.json {
		return json.NewEncoder(c.out).Encode(where)
	}
	text := "listening on " + where.Listen
	if admin != nil {
		text += "; /healthz and /metrics on " + where.Admin
	}
	_, err := io.WriteString(c.out, text+"\n")
	return err
}
