package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/internal/derive"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// siteFlags are the flags that name an authority in a store.
type siteFlags struct {
	store             *storeFlags
	timeout           *time.Duration
	issuer, namespace string
}

const (
	issuerEnv    = "SESSIONTOKEN_ISSUER"
	namespaceEnv = "SESSIONTOKEN_NAMESPACE"
)

func addSite(fs *flag.FlagSet) *siteFlags {
	f := &siteFlags{store: addStore(fs), timeout: addTimeout(fs)}
	f.addNames(fs)
	return f
}

func (f *siteFlags) addNames(fs *flag.FlagSet) {
	fs.StringVar(&f.issuer, "issuer", "", "`URL` of the authority, the iss of its tokens; or "+issuerEnv)
	fs.StringVar(&f.namespace, "namespace", "", "`name` of the authority in the store, if it is not the issuer; or "+namespaceEnv)
}

// site is an authority in an open store.
type site struct {
	*openedStore
	issuer, namespace string
}

// names returns the site without its store.
func (f *siteFlags) names(c *call) (*site, error) {
	s := &site{issuer: f.issuer, namespace: f.namespace}
	if s.issuer == "" {
		s.issuer = c.getenv(issuerEnv)
	}
	if s.namespace == "" {
		s.namespace = c.getenv(namespaceEnv)
	}
	if s.namespace == "" {
		s.namespace = s.issuer
	}
	if s.namespace == "" {
		return nil, usageError{"no authority is named; set --issuer or " + issuerEnv}
	}
	return s, nil
}

// open opens the store, and returns the authority that the flags name.
func (f *siteFlags) open(ctx context.Context, c *call) (*site, error) {
	s, err := f.names(c)
	if err != nil {
		return nil, err
	}
	s.openedStore, err = f.store.open(ctx, c)
	return s, err
}

// result is what a command prints: lines of text, or one JSON object.
type result struct {
	object any
	lines  []string
}

func (r *result) add(format string, args ...any) {
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

func (c *call) print(r *result) error {
	if r == nil {
		return nil
	}
	if c.json {
		text, err := json.MarshalIndent(r.object, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "%s\n", text)
		return err
	}
	_, err := fmt.Fprintln(c.out, strings.Join(r.lines, "\n"))
	return err
}

// do opens the site, calls f with a context that --timeout bounds, and prints
// the result. f returns what it has done with an error too.
func (f *siteFlags) do(ctx context.Context, c *call, run func(ctx context.Context, s *site) (*result, error)) error {
	r, err := bounded(ctx, *f.timeout, func(ctx context.Context) (*result, error) {
		s, err := f.open(ctx, c)
		if err != nil {
			return nil, err
		}
		defer s.close()
		return run(ctx, s)
	})
	return errors.Join(err, c.print(r))
}

// grace is how long a call that the end of its context does not cancel has to
// return its own error.
const grace = 200 * time.Millisecond

// bounded calls f, and returns an error when the time is over even if f does
// not return.
func bounded[T any](ctx context.Context, limit time.Duration, f func(ctx context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		value, err := f(ctx)
		answered <- answer{value, err}
	}()
	var late <-chan time.Time
	ended := ctx.Done()
	for {
		select {
		case a := <-answered:
			return a.value, remedied(a.err)
		case <-ended:
			ended, late = nil, time.After(grace)
		case <-late:
			var none T
			return none, remedied(fmt.Errorf("%w: what was asked may have been done; repeat the command when the store answers", ctx.Err()))
		}
	}
}

// noRing is the error for a store without a ring of that name.
func (s *site) noRing(err error) error {
	return fmt.Errorf("the store has no key ring of the name %q: check --issuer and --namespace, and that the store is the one of the program; nothing was changed: %w", s.namespace, err)
}

// status reads the ring and returns its state. It changes nothing. aead may be
// nil; it tells with which secret each key is sealed.
func (s *site) status(ctx context.Context, aead keys.AEAD) (keys.Status, error) {
	store := s.ring
	if aead != nil {
		store = keys.Sealed(store, aead)
	}
	ring, err := keys.NewRing(keys.RingConfig{Store: store, Name: s.namespace, VerifyOnly: true, Logger: discard})
	if err != nil {
		return keys.Status{}, err
	}
	switch err := ring.Sync(ctx); {
	case errors.Is(err, keys.ErrNoRing):
		return keys.Status{}, s.noRing(err)
	case err != nil:
		return keys.Status{}, fmt.Errorf("the key ring cannot be read: %w", err)
	}
	return ring.Status(), nil
}

var discard = slog.New(slog.DiscardHandler)

// sealing is the AEAD of an authority's secrets.
type sealing struct {
	keys.AEAD
	ids []string // of the sealing keys, in the order of the secrets
}

// sealingOf returns the AEAD that package authority makes of the secrets.
func (s *site) sealingOf(secrets []secret) (*sealing, error) {
	if s.issuer == "" {
		return nil, usageError{"no issuer is named, which the keys of the secrets are derived with; set --issuer or " + issuerEnv}
	}
	derived, err := derive.Keys(bytesOf(secrets), s.issuer, derive.UseKeys)
	if err != nil {
		return nil, err
	}
	a := &sealing{}
	for _, key := range derived {
		one, err := keys.NewAESGCM(key)
		if err != nil {
			return nil, err
		}
		a.ids = append(a.ids, one.(keys.SealingKeys).CurrentSealingKeyID())
	}
	a.AEAD, err = keys.NewAESGCM(derived...)
	return a, err
}

// check returns an error unless the secrets open all private keys of the ring,
// and the clocks agree.
func (a *sealing) check(st keys.Status) error {
	if st.ClockErr != nil {
		return fmt.Errorf("the key ring is not changed: set the clock of this machine or of the store, and run NTP: %w", st.ClockErr)
	}
	var others int
	for _, k := range st.Keys {
		if k.Private && !slices.Contains(a.ids, k.SealingKey) {
			others++
		}
	}
	if others > st.Unsealed {
		return fmt.Errorf("%d private keys of the ring are sealed with a secret that is not given: name the secrets and the --issuer of the program; if its secret is the text itself, write %s before that; if it has Config.Seal, run its own code", others-st.Unsealed, asText)
	}
	return nil
}

// opened returns the sealing of the secrets and the state of the ring, if the
// secrets are those of the ring.
func (s *site) unsealed(ctx context.Context, secrets []secret) (*sealing, keys.Status, error) {
	a, err := s.sealingOf(secrets)
	if err != nil {
		return nil, keys.Status{}, err
	}
	st, err := s.status(ctx, a.AEAD)
	if err == nil {
		err = a.check(st)
	}
	return a, st, err
}

// longestSession is the longest MaxSession that an authority can have. That of
// the program is not known here: what the command revokes is remembered for as
// long as any session can last.
const longestSession = 400 * 24 * time.Hour

// authority returns the authority that the program has, for its parts that the
// command uses. Its lists remember a revocation for as long as limits say.
func (s *site) authority(secrets []secret, alg keys.Algorithm, limits authority.Limits) (*authority.Authority[struct{}], error) {
	all, err := s.whole()
	if err != nil {
		return nil, err
	}
	a, err := authority.New(authority.Config[struct{}]{
		Issuer: s.issuer, Namespace: s.namespace, Audience: []string{s.issuer}, Store: all, Secrets: bytesOf(secrets),
		Algorithm: alg, Limits: limits, Logger: discard,
		Load: func(context.Context, *authorityClaims) (struct{}, error) {
			return struct{}{}, errors.New("the command has no states")
		},
	})
	if err != nil {
		return nil, usageError{strings.NewReplacer("authority: Config.Issuer", "--issuer", "authority: Config.Namespace", "--namespace").Replace(err.Error())}
	}
	return a, nil
}

// list returns the list of revocations of the authority, if a list of that name
// has been in the store before: a name that is not the program's would revoke
// nothing.
func (s *site) list(ctx context.Context, maxTTL time.Duration) (*revoke.List, error) {
	all, err := s.whole()
	if err != nil {
		return nil, err
	}
	if err := s.checkList(ctx, all); err != nil {
		return nil, err
	}
	return revoke.NewList(revoke.Config{Store: all, Namespace: s.namespace, MaxSession: longestSession, MaxTTL: maxTTL, Logger: discard})
}

func (s *site) checkList(ctx context.Context, store revoke.Store) error {
	var cursor string
	for {
		page, err := store.Since(ctx, cursor)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(page.Entries, func(e revoke.Entry) bool { return e.Namespace == s.namespace && e.Scope == revoke.Birth }) {
			return nil
		}
		if !page.More {
			return fmt.Errorf("no program with the name %q has used this store for revocations: check --issuer and --namespace, and that the store is the one of the program; nothing was changed", s.namespace)
		}
		cursor = page.Next
	}
}

// checkArgs returns an error unless there are as many arguments as the command
// wants, and none of them looks like a token. The error does not repeat them.
func (c *call) checkArgs(least, most int, what string) error {
	if len(c.args) < least || most >= 0 && len(c.args) > most {
		return usageError{fmt.Sprintf("there are %d arguments; it wants %s", len(c.args), what)}
	}
	for i, arg := range c.args {
		switch {
		case arg == "":
			return usageError{fmt.Sprintf("argument %d is empty; it wants %s", i+1, what)}
		case isToken(arg):
			return usageError{fmt.Sprintf("argument %d looks like a token, which other users of this machine can see now: revoke its session; it wants %s, which 'sessiontoken inspect' reads from a token", i+1, what)}
		}
	}
	return nil
}

// isToken reports whether an argument looks like a token of a session, or like a
// refresh token.
func isToken(arg string) bool {
	if strings.HasPrefix(arg, "eyJ") {
		return true
	}
	return len(arg) == 76 && arg[0] == 'A' && !strings.ContainsAny(arg, ".@ ")
}

// at returns a time as the text output has it, with its distance from now.
func at(t, now time.Time) string {
	return t.UTC().Format("2006-01-02 15:04:05 MST") + " (" + distance(t.Sub(now)) + ")"
}

func distance(d time.Duration) string {
	round := time.Second
	switch {
	case d.Abs() >= 48*time.Hour:
		days := int64(d.Abs().Hours() / 24)
		if d < 0 {
			return fmt.Sprintf("%d days ago", days)
		}
		return fmt.Sprintf("in %d days", days)
	case d.Abs() >= time.Hour:
		round = time.Minute
	}
	text := d.Abs().Round(round).String()
	if round == time.Minute {
		text = strings.TrimSuffix(text, "0s")
	}
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}
