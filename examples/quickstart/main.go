// Command quickstart tells the whole story of a session token on loopback: a site
// of two replicas on package authority, and an API that knows nothing but the site's
// URL.
//
// Each step checks what it says; the program exits with a failure if one does
// not hold. The steps are in steps.go, the servers in servers.go.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
)

// State is what this application keeps in its sessions. It is signed and not
// encrypted: the user may read all of it.
type State struct {
	Name        string   `json:"name"`
	Tenant      string   `json:"tenant"`
	Roles       []string `json:"roles"`
	Permissions []string `json:"permissions"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case interrupted:
		fmt.Fprintln(os.Stderr, "quickstart: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	// The story takes some seconds; nothing in it may hang.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	var at [3]net.Listener
	for i := range at {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		at[i] = l
	}
	issuer := "http://" + at[0].Addr().String()
	s := &story{out: out, issuer: issuer, users: &database{users: map[string]State{ada: {
		Name: "Ada", Tenant: "analytical-engines", Roles: []string{"editor"},
		Permissions: []string{"orders:read", "orders:write", "invoices:read"},
	}}}}
	store := authority.Memory() // sqlite.Open, postgres.Open or redisstore.New beyond one process
	var err error
	if s.a, err = startReplica(ctx, "replica A", at[0], issuer, store, s.users); err != nil {
		return err
	}
	defer s.a.stop()
	if s.b, err = startReplica(ctx, "replica B", at[1], issuer, store, s.users); err != nil {
		return err
	}
	defer s.b.stop()
	if s.api, err = startAPI(ctx, "the API", at[2], issuer); err != nil {
		return err
	}
	defer s.api.stop()
	if s.ring, err = startRing(ctx); err != nil {
		return err
	}

	for i, step := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"Two replicas start on one store: they make the keys and publish them", s.firstKeys},
		{"Ada signs in: the session's state goes into the token, nothing stays on a server", s.signIn},
		{"Any replica reads the session, and an API that knows only the site's URL", s.read},
		{"Ada becomes an admin; the token is renewed from the database", s.renew},
		{"A state that is too big is not issued", s.tooBig},
		{"A token is changed", s.tamper},
		{"A token expires, and the session goes on", s.expire},
		{"Ada signs out", s.signOut},
		{"The current key has leaked, and is revoked", s.revoke},
		{"A key rotates as planned", s.rotate},
	} {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, step.title)
		if err := step.tell(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	fmt.Fprintln(out, "\nEverything held. The servers stop now, and the keys are gone with them.")
	return nil
}

// story is what the steps hand on to each other.
type story struct {
	out    io.Writer
	issuer string
	users  *database
	a, b   *replica
	api    *server
	ring   *keys.Ring // of the last step

	token string // Ada's, as her browser holds it
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, "     "+format+"\n", args...) }

// check says what holds, or returns what does not.
func (s *story) check(holds bool, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if !holds {
		return fmt.Errorf("this does not hold: %s", text)
	}
	fmt.Fprintf(s.out, "   ✓ %s\n", text)
	return nil
}

// me presents a token to servers and checks what they answer.
func (s *story) me(ctx context.Context, what, token, want string, servers ...*server) error {
	for _, server := range servers {
		got, err := server.ask(ctx, "GET", "/me", token, nil)
		if err != nil {
			return err
		}
		if err := s.check(got.String() == want, "%s, %s: %s", server.name, what, got); err != nil {
			return err
		}
	}
	return nil
}

// until presents a token to a server until it answers so, and says how long that
// took. In between it may not be able to tell, which is 503.
func (s *story) until(ctx context.Context, server *server, what, token, want string) error {
	began := time.Now()
	for {
		got, err := server.ask(ctx, "GET", "/me", token, nil)
		switch {
		case err != nil:
			return err
		case got.String() == want:
			return s.check(true, "%s, %s, within %v: %s", server.name, what, time.Since(began).Truncate(10*time.Millisecond)+10*time.Millisecond, got)
		case time.Since(began) > 20*time.Second:
			return s.check(false, "%s, %s: %s", server.name, what, got)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *story) everywhere() []*server { return []*server{&s.a.server, &s.b.server, s.api} }

// short is enough of an id to tell it from others. Nothing here prints a whole
// token: its holder counts as its user.
func short(id string) string { return id[:min(8, len(id))] + "…" }

// show prints the first lines of a size report.
func (s *story) show(report sessiontoken.SizeReport, lines int) {
	for line := range strings.Lines(report.String()) {
		if lines--; lines < 0 {
			break
		}
		s.say("%s", strings.TrimRight(line, "\n"))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
