package refresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Config says how a [Manager] works. All replicas that share a store should be
// configured alike.
type Config struct {
	// Store is shared by all replicas. Required.
	Store Store
	// Namespace separates managers that share a store. All replicas have the
	// same. Optional.
	Namespace string
	// Secrets are at least 32 random bytes each. Tokens and records are made
	// with the first one and accepted with any of them. Required.
	//
	// To replace a secret while replicas roll, take three steps, and finish each
	// one on every replica before the next begins:
	//
	//  1. Append the new secret. Every replica now accepts it.
	//  2. Move it to the front. Every replica now makes tokens with it.
	//  3. When MaxSession has passed, remove the old secret.
	//
	// A new secret that is put in front at once signs users out: a replica that
	// does not have it yet refuses the tokens that the others make.
	Secrets [][]byte
	// Revocations is the list that is asked before a token is exchanged, and in
	// which the session of a family is revoked. Its time is the manager's time.
	// It must remember a revocation for at least MaxSession. Required, unless
	// InsecureSessionsLiveOn is set.
	Revocations *revoke.List
	// InsecureSessionsLiveOn permits a manager without Revocations. The session
	// tokens of a revoked family are then valid until they expire. The time is
	// each machine's own: the clocks must agree within a minute, and
	// RetryWindow is one minute longer.
	InsecureSessionsLiveOn bool

	// IdleTimeout is how long after it was handed out a refresh token can be
	// used. At least 1 s. 0 means 1 h, or MaxSession if that is shorter.
	IdleTimeout time.Duration
	// MaxSession is how long after the beginning of the session its family
	// ends. At least IdleTimeout, and no longer than the issuer's MaxSession. 0
	// means 24 h, or IdleTimeout if that is longer.
	MaxSession time.Duration
	// RetryWindow is how long after it was exchanged a token can be presented
	// again: it then gets the same successor. From 1 s to 1 min. 0 means 30 s.
	RetryWindow time.Duration
	// MaxPerSubject is how many families a subject can have. If Start makes one
	// more, the session of the family that was used longest ago is revoked.
	// Families past IdleTimeout are counted apart, with a limit of ten times
	// MaxPerSubject. 0 means 100.
	MaxPerSubject int

	// OnReuse is called when a token of a family was used twice. It runs within
	// the request. Its context ends after 5 s, and not when the client goes
	// away. Optional.
	OnReuse func(ctx context.Context, f Family)
	// Logger gets a line for each reuse and each failure, at most one a reason
	// and minute. Nil means slog.Default().
	Logger *slog.Logger
	// OnEvent gets an event for each refresh token that was used twice: see
	// [event.Func]. Optional.
	OnEvent event.Func
	// InsecureEventNames lets the events name subjects and sessions as they
	// are, and not by hashes.
	InsecureEventNames bool
}

const (
	// skew is how far the clocks of two machines may be apart.
	skew = time.Minute
	// limit is how long a call takes at most, and a revocation that outlives
	// its request.
	limit = 5 * time.Second
)

// NewManager checks the configuration and returns the manager for it. An error
// names the field at fault. It does no I/O.
func NewManager(cfg Config) (*Manager, error) {
	switch {
	case arg.IsNil(cfg.Store):
		return nil, errors.New("refresh: Config.Store is required")
	case !utf8.ValidString(cfg.Namespace) || strings.ContainsRune(cfg.Namespace, 0):
		return nil, errors.New("refresh: Config.Namespace must be valid UTF-8, without a NUL")
	case len(cfg.Secrets) == 0:
		return nil, errors.New("refresh: Config.Secrets is required")
	case slices.ContainsFunc(cfg.Secrets, func(s []byte) bool { return len(s) < 32 }):
		return nil, errors.New("refresh: Config.Secrets holds one of fewer than 32 bytes")
	case cfg.Revocations == nil && !cfg.InsecureSessionsLiveOn:
		return nil, errors.New("refresh: Config.Revocations is required; set InsecureSessionsLiveOn to let the session tokens of a revoked family live on")
	case cfg.MaxPerSubject < 0:
		return nil, errors.New("refresh: Config.MaxPerSubject is negative")
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"IdleTimeout", cfg.IdleTimeout}, {"MaxSession", cfg.MaxSession}, {"RetryWindow", cfg.RetryWindow}} {
		if err := arg.Duration("refresh: Config."+d.field, d.value, time.Second); err != nil {
			return nil, err
		}
	}
	if cfg.RetryWindow > time.Minute {
		return nil, fmt.Errorf("refresh: Config.RetryWindow is %v; it must not exceed 1m", cfg.RetryWindow)
	}
	if cfg.MaxSession == 0 {
		cfg.MaxSession = max(24*time.Hour, cfg.IdleTimeout)
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = min(time.Hour, cfg.MaxSession)
	}
	if cfg.RetryWindow == 0 {
		cfg.RetryWindow = 30 * time.Second
	}
	if cfg.MaxPerSubject == 0 {
		cfg.MaxPerSubject = 100
	}
	if cfg.IdleTimeout > cfg.MaxSession {
		return nil, fmt.Errorf("refresh: Config.IdleTimeout is %v; it must not exceed MaxSession, which is %v", cfg.IdleTimeout, cfg.MaxSession)
	}
	if cfg.Revocations != nil {
		if kept := cfg.Revocations.RetainFor(); kept < cfg.MaxSession {
			return nil, fmt.Errorf("refresh: Config.MaxSession is %v, but Revocations forgets a revoked session after %v", cfg.MaxSession, kept)
		}
	}
	m := &Manager{cfg: cfg, clock: clock.Here(), loud: loud.New(cfg.Logger)}
	m.events = notify.New(cfg.OnEvent, cfg.InsecureEventNames, m.loud)
	m.cfg.Secrets = nil
	for _, secret := range cfg.Secrets {
		k, err := deriveKeys(secret, cfg.Namespace)
		if err != nil {
			return nil, fmt.Errorf("refresh: Config.Secrets: %w", err)
		}
		m.keys = append(m.keys, k)
	}
	return m, nil
}

// Config returns the configuration with its defaults filled in, without the
// secrets.
func (m *Manager) Config() Config { return m.cfg }
