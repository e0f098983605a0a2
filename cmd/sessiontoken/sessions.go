package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/sid"
	"github.com/sessiontoken/sessiontoken/revoke"
)

var sessionsRevoke = command{
	name: "sessions revoke", args: "session-id...", summary: "Revokes sessions, by the sid of their tokens",
	setup: sessionsSetup(1, -1, "the ids of sessions", func(ctx context.Context, s *site, list *revoke.List, args []string) (*mark, error) {
		for _, id := range args {
			if !isSessionID(id) {
				return nil, usageError{"an argument is not the id of a session, such as inspect and 'devices list' show; nothing was revoked"}
			}
		}
		m := &mark{What: "sessions", Names: args}
		for i, id := range args {
			if err := list.RevokeSession(ctx, id); err != nil {
				return nil, unacknowledged(i, len(args), err)
			}
			m.tidy(s.all.DeleteSession(ctx, s.namespace, id))
		}
		return m, nil
	}),
}

var sessionsRevokeSubject = command{
	name: "sessions revoke-subject", args: "subject", summary: "Revokes every session that a user has begun by now",
	setup: sessionsSetup(1, 1, "one subject, the sub of its tokens", func(ctx context.Context, s *site, list *revoke.List, args []string) (*mark, error) {
		families, err := s.all.List(ctx, s.namespace, args[0])
		if err != nil {
			return nil, fmt.Errorf("nothing was revoked: %w", err)
		}
		devices := len(families)
		m := &mark{What: "every session of the subject", Names: args, Devices: &devices}
		if err := list.RevokeSubject(ctx, args[0]); err != nil {
			return nil, unacknowledged(0, 1, err)
		}
		m.tidy(s.all.DeleteSubject(ctx, s.namespace, args[0], ""))
		return m, nil
	}),
}

var sessionsForget = command{
	name: "sessions forget", args: "subject", summary: "Erases what the store has of a person: revokes every session and deletes the devices",
	setup: sessionsSetup(1, 1, "one subject, the sub of its tokens", func(ctx context.Context, s *site, list *revoke.List, args []string) (*mark, error) {
		if err := list.RevokeSubject(ctx, args[0]); err != nil {
			return nil, unacknowledged(0, 1, err)
		}
		if err := s.all.DeleteSubject(ctx, s.namespace, args[0], ""); err != nil {
			return nil, fmt.Errorf("every session of the subject is revoked, but its devices could not be deleted: repeat the command: %w", err)
		}
		left, err := s.all.List(ctx, s.namespace, args[0])
		switch {
		case err != nil:
			return nil, fmt.Errorf("every session of the subject is revoked, and its devices were deleted, but that could not be checked: repeat the command: %w", err)
		case len(left) > 0:
			return nil, errors.New("a device of the subject has signed in meanwhile: delete the account first, and then repeat the command")
		}
		return &mark{What: "every session of the subject, with its devices erased", Names: args}, nil
	}),
}

var sessionsRevokeGroup = command{
	name: "sessions revoke-group", args: "group", summary: "Revokes every session of a group that has begun by now, such as one of a login provider",
	setup: sessionsSetup(1, 1, "one group, 16 characters of a session's id before a dot", func(ctx context.Context, _ *site, list *revoke.List, args []string) (*mark, error) {
		if !sid.IsGroup(args[0]) {
			return nil, usageError{"the argument is no group, which has 16 characters of base64url; nothing was revoked"}
		}
		if err := list.RevokeGroup(ctx, args[0]); err != nil {
			return nil, unacknowledged(0, 1, err)
		}
		return &mark{What: "every session of the group", Names: args}, nil
	}),
}

var sessionsRevokeAll = command{
	name: "sessions revoke-all", summary: "Revokes every session that has begun by now: all users sign in again",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		yes := fs.Bool("yes", false, "confirm that all users sign in again")
		do := sessionsSetup(0, 0, "no arguments", func(ctx context.Context, _ *site, list *revoke.List, _ []string) (*mark, error) {
			if err := list.Sync(ctx); err != nil {
				return nil, fmt.Errorf("nothing was revoked: %w", err)
			}
			now, err := list.Now(ctx)
			if err != nil {
				return nil, fmt.Errorf("nothing was revoked: %w", err)
			}
			if err := list.RevokeAll(ctx, now); err != nil {
				return nil, unacknowledged(0, 1, err)
			}
			return &mark{What: "every session that began by " + now.Format("2006-01-02 15:04:05.000 MST")}, nil
		})(fs)
		return func(ctx context.Context, c *call) error {
			if !*yes {
				return usageError{"it signs all users of the authority out; set --yes to confirm that"}
			}
			return do(ctx, c)
		}
	},
}

var sessionsChanged = command{
	name: "sessions changed", args: "subject", summary: "Marks the state of a user as changed, so that the tokens are renewed with the new one",
	setup: sessionsSetup(1, 1, "one subject, the sub of its tokens", func(ctx context.Context, _ *site, list *revoke.List, args []string) (*mark, error) {
		if err := list.Changed(ctx, args[0]); err != nil {
			return nil, unacknowledged(0, 1, err)
		}
		return &mark{What: "the state of the subject", Names: args, changed: true}, nil
	}),
}

// mark is what was revoked or marked, as the store has acknowledged.
type mark struct {
	What         string    `json:"what"`
	Names        []string  `json:"names,omitempty"`
	Devices      *int      `json:"devices,omitempty"` // with refresh tokens, before
	Acknowledged time.Time `json:"acknowledged"`
	Healthy      time.Time `json:"known"` // by replicas that read the store
	HealthyIn    float64   `json:"known_within_seconds"`
	Everywhere   time.Time `json:"everywhere"`
	Within       float64   `json:"everywhere_within_seconds"`
	Left         string    `json:"left,omitempty"` // what could not be deleted, which does no harm

	changed bool
}

// tidy notes that families could not be deleted.
func (m *mark) tidy(err error) {
	if err != nil {
		m.Left = "refresh tokens, which are refused, could not be deleted: " + err.Error()
	}
}

// hold notes when a mark that was acknowledged now holds.
func (m *mark) hold(list *revoke.List) {
	healthy, most := list.Staleness()
	m.Acknowledged = time.Now().UTC()
	m.Healthy, m.HealthyIn = m.Acknowledged.Add(healthy), healthy.Seconds()
	m.Everywhere, m.Within = m.Acknowledged.Add(most), most.Seconds()
}

func (m *mark) result() *result {
	r := &result{object: m}
	verb := "revoked"
	if m.changed {
		verb = "marked as changed"
	}
	r.add("%s: %s, and acknowledged by the store %s.", verbFirst(verb), m.What, m.Acknowledged.Format("2006-01-02 15:04:05 MST"))
	if m.Devices != nil {
		r.add("The subject had %d devices with refresh tokens.", *m.Devices)
	}
	r.add("Each replica that reads the store knows it by %s (%v).", m.Healthy.Format("15:04:05 MST"), time.Duration(m.HealthyIn*float64(time.Second)))
	r.add("It holds everywhere at %s (%v): a replica that is cut off from the store refuses all tokens by then.", m.Everywhere.Format("15:04:05 MST"), time.Duration(m.Within*float64(time.Second)))
	if m.changed {
		r.add("A token has the new state after one renewal from then on.")
	} else {
		r.add("A verifier without the list and without the feed accepts a token until its exp.")
	}
	if m.Left != "" {
		r.add("Not done: %s.", m.Left)
	}
	return r
}

func verbFirst(s string) string { return string(s[0]-'a'+'A') + s[1:] }

// sessionsSetup returns the setup of a command that revokes.
func sessionsSetup(least, most int, what string, run func(ctx context.Context, s *site, list *revoke.List, args []string) (*mark, error)) func(*flag.FlagSet) func(context.Context, *call) error {
	return func(fs *flag.FlagSet) func(context.Context, *call) error {
		where := addSite(fs)
		return func(ctx context.Context, c *call) error {
			if err := c.checkArgs(least, most, what); err != nil {
				return err
			}
			return where.do(ctx, c, func(ctx context.Context, s *site) (*result, error) {
				list, err := s.list(ctx, s.maxTTL(ctx))
				if err != nil {
					return nil, err
				}
				m, err := run(ctx, s, list, c.args)
				if err != nil {
					return nil, err
				}
				m.hold(list)
				return m.result(), nil
			})
		}
	}
}

// maxTTL returns a time for which no token lives longer, for marks of changed
// states: for as long as a key of the ring is kept after its last signature. If
// the ring is elsewhere, it is that of the longest session.
func (s *site) maxTTL(ctx context.Context) time.Duration {
	st, err := s.status(ctx, nil)
	if err != nil {
		return longestSession
	}
	var ttl time.Duration
	for _, k := range st.Keys {
		ttl = max(ttl, k.KeptUntil.Sub(k.SignsUntil))
	}
	return min(max(ttl, 24*time.Hour), longestSession)
}

// isSessionID reports whether a text has the form of a session's id.
func isSessionID(id string) bool {
	if len(id) > 128 {
		return false
	}
	for _, c := range id {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return len(id) >= 16
}

// unacknowledged is the error of a revocation that the store has not
// acknowledged, after done of n.
func unacknowledged(done, n int, err error) error {
	if n > 1 {
		return fmt.Errorf("%d of %d are acknowledged by the store, and the next may have been written: repeat the command: %w", done, n, err)
	}
	return fmt.Errorf("it is not acknowledged by the store, and may have been written: repeat the command: %w", err)
}
