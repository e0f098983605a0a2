package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/refresh"
)

var devicesList = command{
	name: "devices list", args: "subject", summary: "Lists the devices of a user that have refresh tokens",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		where, secrets := addSite(fs), addSecrets(fs)
		return func(ctx context.Context, c *call) error {
			if err := c.checkArgs(1, 1, "one subject, the sub of its tokens"); err != nil {
				return err
			}
			given, err := secrets.read(c)
			if err != nil {
				return err
			}
			return where.do(ctx, c, func(ctx context.Context, s *site) (*result, error) {
				_, families, err := s.devices(ctx, given, c.args[0])
				if err != nil {
					return nil, err
				}
				return deviceLines(families), nil
			})
		}
	},
}

var devicesRevoke = command{
	name: "devices revoke", args: "subject device...", summary: "Revokes the sessions of devices of a user, by the ids that 'devices list' shows",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		where, secrets := addSite(fs), addSecrets(fs)
		return func(ctx context.Context, c *call) error {
			if err := c.checkArgs(2, -1, "one subject, and the ids of devices, which 'sessiontoken devices list' shows"); err != nil {
				return err
			}
			given, err := secrets.read(c)
			if err != nil {
				return err
			}
			return where.do(ctx, c, func(ctx context.Context, s *site) (*result, error) {
				a, families, err := s.devices(ctx, given, c.args[0])
				if err != nil {
					return nil, fmt.Errorf("nothing was revoked: %w", err)
				}
				ids := c.args[1:]
				for _, id := range ids {
					if !slices.ContainsFunc(families, func(f refresh.Family) bool { return f.ID == id }) {
						return nil, errors.New("nothing was revoked: the subject has no device with one of these ids, or it is revoked already: run 'sessiontoken devices list'")
					}
				}
				for i, id := range ids {
					if err := a.Refresh().RevokeFamily(ctx, c.args[0], id); err != nil && !errors.Is(err, refresh.ErrInvalid) { // two devices of one session
						return nil, unacknowledged(i, len(ids), err)
					}
				}
				m := &mark{What: "the sessions of the devices", Names: ids}
				m.hold(a.Revocations())
				return m.result(), nil
			})
		}
	},
}

// devices returns the authority and the devices of a subject.
func (s *site) devices(ctx context.Context, given []secret, subject string) (*authority.Authority[struct{}], []refresh.Family, error) {
	all, err := s.whole()
	if err != nil {
		return nil, nil, err
	}
	// The secrets are those of the ring, or records that they do not
	// authenticate would be left out of the list.
	sealer, err := s.sealingOf(given)
	if err != nil {
		return nil, nil, err
	}
	st, err := s.status(ctx, sealer.AEAD)
	if err != nil {
		return nil, nil, err
	}
	st.ClockErr = nil // the ring is not changed
	if err := sealer.check(st); err != nil {
		return nil, nil, err
	}
	if err := s.checkList(ctx, all); err != nil {
		return nil, nil, err
	}
	a, err := s.authority(given, "", authority.Limits{MaxSession: longestSession, RefreshIdle: longestSession})
	if err != nil {
		return nil, nil, err
	}
	families, err := a.Refresh().List(ctx, subject)
	if err != nil {
		return nil, nil, err
	}
	if n := a.Refresh().Metrics()["refresh_unauthenticated_records_total"]; n > 0 {
		return nil, nil, fmt.Errorf("%.0f devices were made with a secret that is not given, or their records were changed: name all secrets of the program", n)
	}
	return a, families, nil
}

// deviceJSON is one device in the output.
type deviceJSON struct {
	ID        string    `json:"id"`
	SessionID string    `json:"sid"`
	ClientID  string    `json:"client,omitempty"`
	Label     string    `json:"label,omitempty"`
	Began     time.Time `json:"began"`
	LastUsed  time.Time `json:"last_used"` // rounded down to the hour
	Ends      time.Time `json:"ends"`
}

func deviceLines(families []refresh.Family) *result {
	devices := []deviceJSON{}
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tLABEL\tCLIENT\tBEGAN\tLAST USED\tENDS\tSESSION")
	for _, f := range families {
		devices = append(devices, deviceJSON{f.ID, f.SessionID, f.ClientID, f.Label, f.Began, f.LastUsed, f.Ends})
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.ID, printable(f.Label), printable(f.ClientID),
			f.Began.UTC().Format("2006-01-02 15:04"), f.LastUsed.UTC().Format("2006-01-02 15h"), f.Ends.UTC().Format("2006-01-02 15:04"), f.SessionID)
	}
	_ = w.Flush()
	r := &result{object: map[string]any{"devices": devices}, lines: []string{strings.TrimSuffix(table.String(), "\n")}}
	if len(families) == 0 {
		r.lines = []string{"The subject has no devices with refresh tokens."}
	}
	return r
}

// printable returns a text that a client has chosen without what would change
// the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}
