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

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
)

type authorityClaims = sessiontoken.Claims[struct{}]

var keysStatus = command{
	name: "keys status", summary: "Shows the keys of the ring, which secret seals each, and the next change",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		where, secrets := addSite(fs), addSecrets(fs)
		return func(ctx context.Context, c *call) error {
			if err := c.checkArgs(0, 0, "no arguments"); err != nil {
				return err
			}
			given, err := secrets.readAny(c)
			if err != nil {
				return err
			}
			return where.do(ctx, c, func(ctx context.Context, s *site) (*result, error) { return s.keyReport(ctx, given) })
		}
	},
}

var keysRotate = command{
	name: "keys rotate", summary: "Makes the next key current as soon as every verifier has it",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		where, secrets, alg := addSite(fs), addSecrets(fs), addAlgorithm(fs)
		return func(ctx context.Context, c *call) error {
			return changeKeys(ctx, c, where, secrets, func(ctx context.Context, s *site, given []secret, a *sealing, st keys.Status) (*result, error) {
				ring, err := s.changer(a, alg.of(st))
				if err != nil {
					return nil, err
				}
				when, err := ring.Rotate(ctx)
				if err != nil {
					return nil, unchanged(err)
				}
				r, report, err := s.reportAfter(ctx, given)
				if err != nil {
					return nil, fmt.Errorf("the rotation is acknowledged by the store, and the ring cannot be read again: %w", err)
				}
				report.Rotates = &when
				r.lines = append([]string{"Acknowledged. The next key becomes current " + at(when, s.now(st)) + ". Other replicas follow within " + ringBound.String() + ".", ""}, r.lines...)
				return r, nil
			})
		}
	},
}

var keysReseal = command{
	name: "keys reseal", summary: "Seals every private key with the first secret, so that older ones can be removed",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		where, secrets := addSite(fs), addSecrets(fs)
		return func(ctx context.Context, c *call) error {
			return changeKeys(ctx, c, where, secrets, func(ctx context.Context, s *site, given []secret, a *sealing, st keys.Status) (*result, error) {
				ring, err := s.changer(a, (&algorithmFlag{}).of(st))
				if err != nil {
					return nil, err
				}
				if err := ring.Reseal(ctx); err != nil {
					return nil, unchanged(err)
				}
				r, _, err := s.reportAfter(ctx, given)
				if err != nil {
					return nil, fmt.Errorf("the keys are sealed again, as the store has acknowledged, and the ring cannot be read again: %w", err)
				}
				r.lines = append([]string{"Acknowledged. Every private key is sealed with " + given[0].place + ". It also makes the refresh tokens: remove the older secrets when MaxSession has passed since every replica has had this one first.", ""}, r.lines...)
				return r, nil
			})
		}
	},
}

var keysRevoke = command{
	name: "keys revoke", args: "kid...", summary: "Revokes keys in the ring and in the list, and waits until every replica refuses their tokens",
	setup: func(fs *flag.FlagSet) func(context.Context, *call) error {
		where, secrets, alg := addSite(fs), addSecrets(fs), addAlgorithm(fs)
		ringOnly := fs.Bool("ring-only", false, "revoke in the ring alone, for a file: store, whose list of revocations is elsewhere")
		noWait := fs.Bool("no-wait", false, "return when the store has acknowledged the revocation")
		return func(ctx context.Context, c *call) error {
			if err := c.checkArgs(1, -1, "the ids of keys, which 'sessiontoken keys status' lists"); err != nil {
				return err
			}
			given, err := secrets.read(c)
			if err != nil {
				return err
			}
			kids := slices.Compact(slices.Sorted(slices.Values(c.args)))
			done, err := bounded(ctx, *where.timeout, func(ctx context.Context) (*revokedKeys, error) {
				s, err := where.open(ctx, c)
				if err != nil {
					return nil, err
				}
				defer s.close()
				return s.revokeKeys(ctx, given, alg, kids, *ringOnly)
			})
			if err != nil {
				return err
			}
			if !c.json {
				if err := c.print(&result{lines: done.lines()}); err != nil {
					return err
				}
			}
			if !*noWait {
				if err := done.wait(ctx, c, where); err != nil {
					return err
				}
			}
			if c.json {
				return c.print(&result{object: done})
			}
			return nil
		}
	},
}

// changeKeys reads the secrets and the ring, checks that the ring can be
// changed, and calls change.
func changeKeys(ctx context.Context, c *call, where *siteFlags, secrets *secretFlags,
	change func(context.Context, *site, []secret, *sealing, keys.Status) (*result, error)) error {
	if err := c.checkArgs(0, 0, "no arguments"); err != nil {
		return err
	}
	given, err := secrets.read(c)
	if err != nil {
		return err
	}
	return where.do(ctx, c, func(ctx context.Context, s *site) (*result, error) {
		a, st, err := s.unsealed(ctx, given)
		if err != nil {
			return nil, err
		}
		return change(ctx, s, given, a, st)
	})
}

// unchanged says of an error whether the ring may have been changed.
func unchanged(err error) error {
	if errors.Is(err, keys.ErrNoRing) || errors.Is(err, keys.ErrClock) || errors.Is(err, keys.ErrUnseal) || errors.Is(err, keys.ErrUnknownKey) {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	return fmt.Errorf("the store has not acknowledged the change, which may have been made: repeat the command: %w", err)
}

// algorithmFlag is --algorithm.
type algorithmFlag struct{ name string }

func addAlgorithm(fs *flag.FlagSet) *algorithmFlag {
	f := &algorithmFlag{}
	fs.StringVar(&f.name, "algorithm", "", "the Config.Algorithm of the program: `ES256`, EdDSA, PS256 or RS256; by default that of the ring's newest key")
	return f
}

// of returns the algorithm of new keys.
func (f *algorithmFlag) of(st keys.Status) keys.Algorithm {
	if f.name != "" {
		return keys.Algorithm(f.name)
	}
	for _, k := range slices.Backward(st.Keys) {
		if k.Phase != "retired" && k.Algorithm != "" {
			return k.Algorithm
		}
	}
	return ""
}

// changer returns the ring that changes the document.
func (s *site) changer(a *sealing, alg keys.Algorithm) (*keys.Ring, error) {
	ring, err := keys.NewRing(keys.RingConfig{Store: keys.Sealed(s.ring, a.AEAD), Name: s.namespace, Algorithm: alg, Logger: discard})
	if err != nil {
		return nil, usageError{strings.NewReplacer("keys: RingConfig.Algorithm", "--algorithm", "keys: RingConfig.Name", "--namespace").Replace(err.Error())}
	}
	return ring, nil
}

// ringBound is how long after a change of the ring a replica that reads the
// store may not know of it: SyncEvery of the rings, and one reading. ringStale
// is how long a replica that cannot read it goes on.
const (
	ringBound = time.Minute + 10*time.Second
	ringStale = 12 * time.Hour
)

// now returns the time of the ring's clock.
func (s *site) now(st keys.Status) time.Time { return time.Now().Add(-st.ClockOffset) }

// keyJSON is one key in the output.
type keyJSON struct {
	KeyID      string         `json:"kid"`
	Algorithm  keys.Algorithm `json:"alg,omitempty"`
	Phase      string         `json:"phase"`
	Published  time.Time      `json:"published"`
	SignsFrom  time.Time      `json:"signs_from"`
	SignsUntil time.Time      `json:"signs_until"`
	KeptUntil  time.Time      `json:"kept_until"`
	Private    bool           `json:"private"`
	SealedBy   string         `json:"sealed_by,omitempty"` // the place of a secret, or the id of another sealing key
}

// secretJSON is one secret in the output.
type secretJSON struct {
	Place string `json:"secret"`
	Seals int    `json:"seals"`
}

// ringJSON is a ring in the output.
type ringJSON struct {
	Name       string       `json:"name"`
	Keys       []keyJSON    `json:"keys"`
	Secrets    []secretJSON `json:"secrets,omitempty"`
	Unsealed   int          `json:"unsealed"`
	Sealed     int          `json:"sealed_otherwise"` // with another secret than those given
	NextChange *time.Time   `json:"next_change,omitempty"`
	Change     string       `json:"change,omitempty"`
	Rotates    *time.Time   `json:"rotates,omitempty"`
	ClockAhead float64      `json:"clock_ahead_seconds"`
	ClockErr   string       `json:"clock_error,omitempty"`
}

func (s *site) keyReport(ctx context.Context, given []secret) (*result, error) {
	r, _, err := s.reportAfter(ctx, given)
	return r, err
}

// reportAfter reads the ring and reports it.
func (s *site) reportAfter(ctx context.Context, given []secret) (*result, *ringJSON, error) {
	// Without a secret, ids of sealing keys are still in the document.
	a := &sealing{}
	var err error
	if len(given) > 0 {
		a, err = s.sealingOf(given)
	} else {
		a.AEAD, err = keys.NewAESGCM(make([]byte, 32)) // seals nothing, and names the ids
	}
	if err != nil {
		return nil, nil, err
	}
	st, err := s.status(ctx, a.AEAD)
	if err != nil {
		return nil, nil, err
	}
	report := s.ringReport(given, a, st)
	return &result{object: report, lines: s.ringLines(report, given, st)}, report, nil
}

func (s *site) ringReport(given []secret, a *sealing, st keys.Status) *ringJSON {
	report := &ringJSON{Name: s.namespace, Unsealed: st.Unsealed, ClockAhead: st.ClockOffset.Seconds()}
	if st.ClockErr != nil {
		report.ClockErr = st.ClockErr.Error()
	}
	for _, g := range given {
		report.Secrets = append(report.Secrets, secretJSON{Place: g.place})
	}
	sealed := 0
	for _, k := range st.Keys {
		out := keyJSON{k.KeyID, k.Algorithm, k.Phase, k.Published, k.SignsFrom, k.SignsUntil, k.KeptUntil, k.Private, k.SealingKey}
		if i := slices.Index(a.ids, k.SealingKey); k.Private && i >= 0 {
			out.SealedBy = given[i].place
			report.Secrets[i].Seals++
			sealed++
		}
		if k.Private {
			report.Sealed++
		}
		report.Keys = append(report.Keys, out)
	}
	report.Sealed -= sealed + st.Unsealed
	now := s.now(st)
	for _, k := range st.Keys {
		for _, change := range []struct {
			at   time.Time
			what string
		}{{k.SignsFrom, "key " + k.KeyID + " becomes current"}, {k.KeptUntil, "key " + k.KeyID + " is gone"}} {
			if change.at.After(now) && (report.NextChange == nil || change.at.Before(*report.NextChange)) {
				report.NextChange, report.Change = &change.at, change.what
			}
		}
	}
	return report
}

func (s *site) ringLines(report *ringJSON, given []secret, st keys.Status) []string {
	r, now := &result{}, s.now(st)
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tPHASE\tALG\tSIGNS FROM\tSIGNS UNTIL\tKEPT UNTIL\tPRIVATE HALF")
	day := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }
	for _, k := range report.Keys {
		private := "destroyed"
		switch {
		case k.Private && k.SealedBy == "":
			private = "not sealed by a secret"
		case k.Private && !slices.ContainsFunc(given, func(g secret) bool { return g.place == k.SealedBy }):
			private = "sealed with a secret that is not given (" + k.SealedBy + ")"
		case k.Private:
			private = "sealed with " + k.SealedBy
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.KeyID, k.Phase, k.Algorithm, day(k.SignsFrom), day(k.SignsUntil), day(k.KeptUntil), private)
	}
	_ = w.Flush()
	r.lines = strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n")
	r.add("")
	for _, sec := range report.Secrets {
		r.add("%s seals %d private keys of the ring.", sec.Place, sec.Seals)
	}
	if report.Sealed > 0 {
		r.add("%d private keys are sealed with secrets that are not given here.", report.Sealed)
	}
	if report.Unsealed > 0 {
		r.add("%d private keys are not sealed: run 'sessiontoken keys reseal'.", report.Unsealed)
	}
	if report.NextChange != nil {
		r.add("Next change: %s, %s.", report.Change, at(*report.NextChange, now))
	}
	if st.ClockErr != nil {
		r.add("This machine's clock disagrees with the store's by %v: set it, and run NTP.", st.ClockOffset.Round(time.Millisecond))
	}
	return r.lines
}

// revokedKeys is the result of keys revoke.
type revokedKeys struct {
	KeyIDs       []string  `json:"revoked"`
	Current      string    `json:"current"` // the key that signs now
	Acknowledged time.Time `json:"acknowledged"`
	Everywhere   time.Time `json:"everywhere"` // when every replica refuses their tokens
	Within       float64   `json:"within_seconds"`
	Waited       bool      `json:"waited"` // that time has passed, and the ring was read again
	RingOnly     bool      `json:"ring_only,omitempty"`

	bound time.Duration
}

func (s *site) revokeKeys(ctx context.Context, given []secret, alg *algorithmFlag, kids []string, ringOnly bool) (*revokedKeys, error) {
	if s.all == nil && !ringOnly {
		return nil, errors.New("a file: store holds a key ring alone, and verifiers with an older key set go on until the list of revocations has the key: call RevokeKeys of the program's authority, or set --ring-only to revoke in the ring alone")
	}
	sealer, st, err := s.unsealed(ctx, given)
	if err != nil {
		return nil, err
	}
	done := &revokedKeys{KeyIDs: kids, RingOnly: ringOnly}
	if ringOnly {
		ring, err := s.changer(sealer, alg.of(st))
		if err != nil {
			return nil, err
		}
		if err := ring.Revoke(ctx, kids...); err != nil {
			return nil, notRevoked(err)
		}
		done.bound = ringBound
	} else {
		if err := s.checkList(ctx, s.all); err != nil {
			return nil, err
		}
		a, err := s.authority(given, alg.of(st), authority.Limits{})
		if err != nil {
			return nil, err
		}
		if err := a.RevokeKeys(ctx, kids...); err != nil {
			return nil, notRevoked(err)
		}
		_, done.bound = a.Revocations().Staleness()
	}
	done.Acknowledged = time.Now().UTC()
	done.Everywhere, done.Within = done.Acknowledged.Add(done.bound), done.bound.Seconds()
	if done.Current, err = s.notInRing(ctx, kids); err != nil {
		return nil, err
	}
	return done, nil
}

func notRevoked(err error) error {
	if errors.Is(err, keys.ErrUnknownKey) {
		return fmt.Errorf("nothing was revoked: 'sessiontoken keys status' lists the ids: %w", err)
	}
	if errors.Is(err, keys.ErrNoRing) {
		return fmt.Errorf("nothing was revoked: %w", err)
	}
	return fmt.Errorf("the store has not acknowledged all of it, and some keys may be revoked: repeat the command: %w", err)
}

// notInRing reads the ring again, and returns its current key.
func (s *site) notInRing(ctx context.Context, kids []string) (current string, err error) {
	st, err := s.status(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("the keys are revoked, as the store has acknowledged, and the ring cannot be read again: %w", err)
	}
	for _, k := range st.Keys {
		if slices.Contains(kids, k.KeyID) {
			return "", fmt.Errorf("the key %s is in the ring again: a replica has written it back, or the store was restored; repeat the command", k.KeyID)
		}
		if k.Phase == "current" {
			current = k.KeyID
		}
	}
	return current, nil
}

func (d *revokedKeys) lines() []string {
	r := &result{}
	r.add("Revoked, and acknowledged by the store %s: %s.", d.Acknowledged.Format("2006-01-02 15:04:05 MST"), strings.Join(d.KeyIDs, ", "))
	if d.Current != "" {
		r.add("The key %s signs now.", d.Current)
	}
	switch {
	case d.RingOnly:
		r.add("Each replica that reads the store refuses their tokens by %s (%v); one that is cut off from it may accept them for %v.", d.Everywhere.Format("15:04:05 MST"), d.bound, ringStale)
	default:
		r.add("Every replica refuses their tokens by %s (%v), also one that is cut off from the store.", d.Everywhere.Format("15:04:05 MST"), d.bound)
	}
	r.add("A verifier that fetches the key set alone, such as a gateway, accepts them until it fetches that again: see 'sessiontoken lint'.")
	return r.lines
}

// wait waits until every replica can know, and reads the ring again.
func (d *revokedKeys) wait(ctx context.Context, c *call, where *siteFlags) error {
	select {
	case <-time.After(time.Until(d.Everywhere)):
	case <-ctx.Done():
		return fmt.Errorf("the keys are revoked; the wait was interrupted before %s, until when a replica may accept their tokens: %w", d.Everywhere.Format("15:04:05 MST"), ctx.Err())
	}
	_, err := bounded(ctx, *where.timeout, func(ctx context.Context) (string, error) {
		s, err := where.open(ctx, c)
		if err != nil {
			return "", err
		}
		defer s.close()
		return s.notInRing(ctx, d.KeyIDs)
	})
	if err != nil {
		return fmt.Errorf("the keys are revoked, and the time within which every replica knows has passed, but the ring cannot be checked again: %w", err)
	}
	d.Waited = true
	if c.json {
		return nil
	}
	return c.print(&result{lines: []string{"That time has passed, and the ring does not have them: no replica accepts their tokens."}})
}
