// Command quickstart tells the whole story of a session token on loopback: an
// issuer with a key file and a JWKS endpoint, and two API replicas that know
// nothing but the URL of the key set.
//
// Each step checks what it says; the program exits with a failure if one does
// not hold.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

// State is what this application keeps in its sessions.
type State struct {
	Name        string   `json:"name"`
	Tenant      string   `json:"tenant"`
	Role        string   `json:"role"`
	Permissions []string `json:"permissions"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart failed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	s := &story{out: out}
	auth, err := startAuth(ctx, filepath.Join(dir, "keys.json"))
	if err != nil {
		return err
	}
	defer auth.stop()
	for _, name := range []string{"A", "B"} {
		replica, err := startReplica(ctx, name, auth.jwksURL)
		if err != nil {
			return err
		}
		defer replica.stop()
		s.replicas = append(s.replicas, replica)
	}

	for _, step := range []func(context.Context, *authority) error{
		s.firstKey, s.signIn, s.rotate, s.renew, s.tooBig, s.tamper, s.expire, s.revoke,
	} {
		if err := step(ctx, auth); err != nil {
			return err
		}
	}
	s.say("\nEverything held. The key file and the servers are gone again.")
	return nil
}

// story is what the steps hand on to each other.
type story struct {
	out      io.Writer
	steps    int
	replicas []*replica
	token    string
	claims   *sessiontoken.Claims[State]
}

func (s *story) title(text string) {
	s.steps++
	fmt.Fprintf(s.out, "\n%d. %s\n", s.steps, text)
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// check says what holds, or returns what does not.
func (s *story) check(holds bool, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if !holds {
		return errors.New("this does not hold: " + text)
	}
	s.say("   ✓ %s", text)
	return nil
}

// everywhere asks each replica who a token is, and checks the answers.
func (s *story) everywhere(ctx context.Context, what, token string, status int, body string) error {
	for _, r := range s.replicas {
		gotStatus, gotBody, err := r.me(ctx, token)
		if err != nil {
			return err
		}
		if err := s.check(gotStatus == status && strings.Contains(gotBody, body),
			"replica %s, %s: %d %s", r.name, what, gotStatus, gotBody); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) firstKey(ctx context.Context, a *authority) error {
	s.title("The issuer makes its first keys, in a file, and publishes their public halves")
	if _, err := a.ring.KeySet(ctx, ""); err != nil {
		return err
	}
	for _, k := range a.ring.Status().Keys {
		s.say("     %-8s %s  kid %s", k.Phase, k.Algorithm, k.KeyID)
	}
	s.say("     published at %s", a.jwksURL)
	st := a.ring.Status().Keys
	return s.check(len(st) == 2 && st[0].Phase == "current" && st[1].Phase == "next", "one key signs, the next is published ahead of its turn")
}

func (s *story) signIn(ctx context.Context, a *authority) (err error) {
	s.title("Ada signs in; the session's state goes into the token, nothing stays on a server")
	s.token, s.claims, err = a.issuer.Issue(ctx, "user-42", a.db["user-42"])
	if err != nil {
		return err
	}
	report, err := a.issuer.Size(ctx, "user-42", a.db["user-42"])
	if err != nil {
		return err
	}
	s.say("     subject %s, session %s, until %s", s.claims.Subject, s.claims.SessionID, s.claims.Expires.Format(time.TimeOnly))
	s.say("     %s", indent(report.String(), 4))
	if err := s.check(report.Bytes == len(s.token), "Size foretold the %d bytes of the token", len(s.token)); err != nil {
		return err
	}
	return s.everywhere(ctx, "which has only the URL of the key set", s.token, 200, "Ada (editor)")
}

func (s *story) rotate(ctx context.Context, a *authority) error {
	s.title("The key rotates")
	at, err := a.ring.Rotate(ctx)
	if err != nil {
		return err
	}
	s.say("     a key is published before it signs: 24 h as a rule, %v here; so this takes %v", publishBefore, time.Until(at).Round(100*time.Millisecond))
	if err := sleep(ctx, time.Until(at)+50*time.Millisecond); err != nil {
		return err
	}
	fresh, _, err := a.issuer.Issue(ctx, "user-42", a.db["user-42"])
	if err != nil {
		return err
	}
	if err := s.check(kid(a) != "" && header(fresh) != header(s.token), "a new token names the new key, %s", kid(a)); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "new token", fresh, 200, "Ada"); err != nil {
		return err
	}
	return s.everywhere(ctx, "token of the old key", s.token, 200, "Ada")
}

func (s *story) renew(ctx context.Context, a *authority) error {
	s.title("Ada becomes an admin, and the token is renewed from the database")
	state := a.db["user-42"]
	state.Role = "admin"
	a.db["user-42"] = state
	renewed, claims, err := a.issuer.Renew(ctx, s.token, func(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
		return a.db[old.Subject], nil // the authority, never the old token
	})
	if err != nil {
		return err
	}
	if err := s.check(claims.SessionID == s.claims.SessionID && claims.AuthTime.Equal(s.claims.AuthTime),
		"same session, which began when it began: its end has not moved"); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "old token, stale until it expires", s.token, 200, "Ada (editor)"); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "renewed token", renewed, 200, "Ada (admin)"); err != nil {
		return err
	}
	s.token = renewed
	return nil
}

func (s *story) tooBig(ctx context.Context, a *authority) error {
	s.title("A state that is too big is not issued")
	state := a.db["user-42"]
	for i := range 200 {
		state.Permissions = append(state.Permissions, fmt.Sprintf("orders:%03d:write", i))
	}
	_, _, err := a.issuer.Issue(ctx, "user-42", state)
	var tooBig *sessiontoken.SizeError
	if err := s.check(errors.As(err, &tooBig), "refused: %v", err); err != nil {
		return err
	}
	return s.check(strings.HasPrefix(tooBig.Report.Claims[0].String(), "state.permissions "), "the error names the heaviest claim")
}

func (s *story) tamper(ctx context.Context, _ *authority) error {
	s.title("Somebody changes the token")
	parts := strings.Split(s.token, ".")
	changed := []byte(parts[1])
	i := len(changed) / 2
	if changed[i] == 'A' {
		changed[i] = 'B'
	} else {
		changed[i] = 'A'
	}
	return s.everywhere(ctx, "one byte of the payload changed", parts[0]+"."+string(changed)+"."+parts[2], 401, "signature")
}

func (s *story) expire(ctx context.Context, a *authority) error {
	s.title("A token of 1 s expires")
	short, claims, err := a.shortLived.Issue(ctx, "user-42", a.db["user-42"])
	if err != nil {
		return err
	}
	if err := sleep(ctx, time.Until(claims.Expires)+50*time.Millisecond); err != nil {
		return err
	}
	if err := s.everywhere(ctx, "after its exp", short, 401, "expired"); err != nil {
		return err
	}
	renewed, _, err := a.shortLived.Renew(ctx, short, func(_ context.Context, old *sessiontoken.Claims[State]) (State, error) {
		return a.db[old.Subject], nil
	})
	if err := s.check(err == nil, "within IdleTimeout it can still be renewed"); err != nil {
		return err
	}
	return s.everywhere(ctx, "renewed", renewed, 200, "Ada")
}

func (s *story) revoke(ctx context.Context, a *authority) error {
	s.title("The current key has leaked, and is revoked")
	leaked := kid(a)
	if err := a.ring.Revoke(ctx, leaked); err != nil {
		return err
	}
	if err := s.check(kid(a) != leaked, "a key that is new to everyone signs at once: %s", kid(a)); err != nil {
		return err
	}
	if _, err := a.verifier.Verify(ctx, s.token); !errors.Is(err, sessiontoken.ErrSignature) {
		return fmt.Errorf("the issuer itself still takes the revoked key: %v", err)
	}
	began := time.Now()
	for _, r := range s.replicas {
		for status := 200; status != 401; {
			if time.Since(began) > refreshEvery+2*time.Second {
				return fmt.Errorf("replica %s still takes the revoked key", r.name)
			}
			var err error
			if status, _, err = r.me(ctx, s.token); err != nil {
				return err
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}
	if err := s.check(time.Since(began) <= refreshEvery+2*time.Second, "its tokens are refused everywhere after %v (RefreshEvery is %v here, 10 min as a rule)",
		time.Since(began).Round(10*time.Millisecond), refreshEvery); err != nil {
		return err
	}
	again, _, err := a.issuer.Issue(ctx, "user-42", a.db["user-42"])
	if err != nil {
		return err
	}
	return s.everywhere(ctx, "signed in again", again, 200, "Ada (admin)")
}

// kid is the id of the key that signs now.
func kid(a *authority) string {
	for _, k := range a.ring.Status().Keys {
		if k.Phase == "current" {
			return k.KeyID
		}
	}
	return ""
}

func header(token string) string { return token[:strings.IndexByte(token, '.')] }

func indent(text string, by int) string {
	return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", by))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
