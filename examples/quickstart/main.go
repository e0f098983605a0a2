// Command quickstart tells the whole story of a session token on loopback: an
// issuer with a key file and a JWKS endpoint, and two API replicas that get
// their keys from the URL of that endpoint alone.
//
// Each step checks what it says; the program exits with a failure if one does
// not hold. The steps are in steps.go, the servers in servers.go.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
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
	// The story takes some ten seconds; nothing in it may hang.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	dir, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // the private keys are in there

	auth, err := startAuthority(ctx, filepath.Join(dir, "keys.json"))
	if err != nil {
		return err
	}
	defer auth.stop()
	s := &story{out: out, authority: auth}
	for _, name := range []string{"A", "B"} {
		replica, err := startReplica(ctx, name, auth.url, auth.jwksURL)
		if err != nil {
			return err
		}
		defer replica.stop()
		s.replicas = append(s.replicas, replica)
	}

	for i, step := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"The issuer makes its first keys, in a file, and publishes their public halves", s.firstKey},
		{"Ada signs in: the session's state goes into the token, nothing stays on a server", s.signIn},
		{"Two replicas, which know the issuer by its key set, read the session", s.read},
		{"The key rotates, and every session goes on", s.rotate},
		{"Ada becomes an admin; the token is renewed from the database", s.renew},
		{"A state that is too big is not issued", s.tooBig},
		{"A token is changed", s.tamper},
		{"A token expires, and the session goes on", s.expire},
		{"The current key has leaked, and is revoked", s.revoke},
	} {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, step.title)
		if err := step.tell(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	fmt.Fprintln(out, "\nEverything held. The servers stop now, and the key file is removed.")
	return nil
}

// story is what the steps hand on to each other.
type story struct {
	out       io.Writer
	authority *authority
	replicas  []*replica

	token  string // Ada's, as a browser or an app would hold it
	claims *sessiontoken.Claims[State]
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

// everywhere presents a token to each replica and checks what they answer.
func (s *story) everywhere(ctx context.Context, what, token string, want answer) error {
	for _, r := range s.replicas {
		got, err := r.me(ctx, token)
		if err != nil {
			return err
		}
		if err := s.check(got == want, "replica %s, %s: %s", r.name, what, got); err != nil {
			return err
		}
	}
	return nil
}

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

// sleepUntil waits until a little after t: the timer is not the clock that the
// keys and tokens go by.
func sleepUntil(ctx context.Context, t time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(t) + 20*time.Millisecond):
		return nil
	}
}
