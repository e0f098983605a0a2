package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/keys"
)

// Limits of Keys that are not settings.
const (
	defaultRefreshEvery = 10 * time.Minute
	defaultMaxStale     = 24 * time.Hour

	callWait  = 2 * time.Second        // of a call, for a fetch
	shortWait = 200 * time.Millisecond // of a call, after a fetch that failed quickly
	idleTime  = time.Minute            // without a fetch, at least, for a set to be stale only because nothing asked

	maxLooks = 1024 // calls that wait for an unknown kid

	// A kid that was asked for settledAfter before a fetch that did not bring it
	// needs no fetch of its own while that is not older than freshFor.
	settledAfter = 3200 * time.Millisecond
	freshFor     = 10 * time.Second
	maxAsked     = 256 // kids that are remembered
	maxKid       = 128 // bytes of such a kid
)

// KeysConfig configures [NewKeys].
type KeysConfig struct {
	// URL of the JWK set (RFC 7517 section 5). Required. It is https, or http
	// on a loopback host (127.0.0.0/8, ::1, localhost), and has neither user
	// information nor a fragment. It is fixed here: nothing in a token changes
	// where keys come from.
	URL string

	// Client sends the requests. Only its Transport and its Timeout are used:
	// cookies are neither kept nor sent, redirects are followed by the rules of
	// [Keys], and a Timeout of 0 or over 5 s means 5 s, for a fetch with all its
	// redirects. A nil Client, or a nil Transport, means a transport of its own
	// that uses no proxy, whatever the environment says. A Transport should
	// return when the context of the request ends: of those that do not, three
	// leave later fetches alone, and no fourth one is started.
	Client *http.Client

	// RefreshEvery is the longest time between two fetches while all is well.
	// The server's max-age (RFC 9111 section 5.2.2.1) shortens it, to no less
	// than a minute, or than RefreshEvery if that is shorter. It also bounds how
	// long a key that was removed at the server still verifies here, while fetches
	// succeed, plus the time that one takes. At least 1 s. 0 = 10 min.
	RefreshEvery time.Duration

	// MaxStale is how long the last good set serves while fetches fail, counted
	// from the start of the fetch that brought it. After that KeySet fails. An
	// attacker who can cut this verifier off from the server can keep a removed
	// key alive for as long. At least RefreshEvery. 0 = 24 h.
	MaxStale time.Duration

	// Logger is told when fetches begin to fail (Warn) and when they work again
	// (Info), once each; once that keys of the set are skipped (Warn); and at most
	// once a minute that there is no set to serve or that unknown kids come faster
	// than the set may be fetched (Warn). nil = slog.Default().
	Logger *slog.Logger
}

// Keys is a [sessiontoken.KeySource] that fetches the JWK set of another service
// and keeps it fresh. It is safe for concurrent use; make it with [NewKeys], or
// with [New]. One that was not made by them fails at each call.
//
// KeySet answers from memory. A set that is due is fetched again in the
// background, from 3/4 of RefreshEvery on; with Run, or with a steady flow of
// calls, no call waits for that. The first call after a longer pause, or after
// the machine was suspended, waits for a fetch, so that no removed key is served
// past RefreshEvery.
//
// A kid that the set lacks causes a fetch at once, which tells caches on the way
// not to answer it, and a second one 1.2 s later if the first did not bring the
// key: a cache or another replica of the server may have answered with the set
// of a moment before. All unknown kids together cause at most one fetch in 2 s,
// besides two that are saved up in quiet times. Tokens with invented kids
// neither load the server nor slow down tokens with known ones.
//
// After a failed fetch the next one waits for 1 s, and longer after each further
// failure, up to 30 s and a random quarter more.
//
// A fetched set replaces the one before it: a removed key stops working. A set
// that has no usable key, holds a private or symmetric key, or has more than 100
// keys is refused as a whole, and the error has the first reasons. A key that
// cannot be used safely is skipped, by the rules of [keys.ParseSet]; which ones
// are is logged when it changes. A failed fetch leaves the last good set in place
// for MaxStale, then Keys fails closed.
//
// A fetch has a connection of its own, takes at most 5 s and 1 MiB, compressed
// with gzip or not, wants status 200, and follows at most three redirects, none
// of which may leave the scheme, host and port of the URL.
type Keys struct {
	fetches *flight.Group // nil in the zero Keys alone, of which constructors look at the first field

	url       *url.URL   // of the set, or nil if that is discovered
	discovery *discovery // of its URL, or nil
	host      string     // to name in log lines: that of the URL, or of the issuer
	setting   string     // the field that has it

	client       client
	refreshEvery time.Duration
	maxStale     time.Duration
	log          *slog.Logger
	loud         *loud.Log
	clock        *clock.Clock
	made         clock.Instant

	good    atomic.Pointer[fetchedSet] // the last good set, or nil
	last    atomic.Pointer[attempt]    // the last fetch that began, or nil
	wanted  atomic.Bool                // a call waits for a kid that the set lacks
	looking atomic.Int64               // calls that do

	mu    sync.Mutex
	asked map[string]clock.Instant // when unknown kids were asked for first

	ended, failed atomic.Uint64 // fetches
	undecided     atomic.Uint64 // calls of KeySet that failed
	failing       bool          // the last one failed; for ended alone
}

// NewKeys returns a source of the keys at the configured URL. It does no I/O and
// starts no goroutine: the first call of KeySet, or Run, fetches. An error names
// the field at fault.
func NewKeys(config KeysConfig) (*Keys, error) {
	if config.URL == "" {
		return nil, errors.New("remote: KeysConfig.URL is required")
	}
	u, err := checkURL(config.URL, true)
	if err != nil {
		return nil, fmt.Errorf("remote: KeysConfig.URL %w", err)
	}
	k, err := newKeys("KeysConfig", config)
	if err != nil {
		return nil, err
	}
	k.url, k.host, k.setting = u, u.Host, "KeysConfig.URL"
	return k, nil
}

// newKeys makes Keys from all of a configuration but its URL. Errors name the
// fields as those of a type.
func newKeys(of string, config KeysConfig) (*Keys, error) {
	k := &Keys{
		refreshEvery: config.RefreshEvery,
		maxStale:     config.MaxStale,
		log:          config.Logger,
		clock:        clock.Here(),
		client:       client{timeout: fetchTimeout},
		asked:        map[string]clock.Instant{},
	}
	switch {
	case config.RefreshEvery != 0 && config.RefreshEvery < time.Second:
		return nil, fmt.Errorf("remote: %s.RefreshEvery is %v; it must be at least 1 s", of, config.RefreshEvery)
	case config.MaxStale < 0:
		return nil, fmt.Errorf("remote: %s.MaxStale must not be negative", of)
	case config.Client != nil && config.Client.Timeout < 0:
		return nil, fmt.Errorf("remote: %s.Client must not have a negative Timeout", of)
	case config.Client != nil && config.Client.Transport != nil && arg.IsNil(config.Client.Transport):
		return nil, fmt.Errorf("remote: %s.Client has a Transport that is a nil pointer", of)
	}
	if k.refreshEvery == 0 {
		k.refreshEvery = defaultRefreshEvery
	}
	if k.maxStale == 0 {
		k.maxStale = defaultMaxStale
	}
	if k.maxStale < k.refreshEvery {
		return nil, fmt.Errorf("remote: %s.MaxStale must be at least RefreshEvery", of)
	}
	if k.log == nil {
		k.log = slog.Default()
	}
	if c := config.Client; c != nil {
		k.client.transport = c.Transport
		if c.Timeout > 0 {
			k.client.timeout = min(k.client.timeout, c.Timeout)
		}
	}
	if k.client.transport == nil {
		k.client.transport = newTransport()
	}
	k.loud, k.made = loud.New(k.log), k.clock.Read()
	k.fetches = flight.New(flight.Config{
		Limit:    lookEvery + k.client.timeout, // a fetch waits for its turn first
		Pause:    firstPause,
		MaxPause: maxPause,
		Ended:    k.fetchEnded,
	}, k.refresh)
	return k, nil
}

// isMade reports whether a constructor made k.
func (k *Keys) isMade() bool { return k != nil && k.fetches != nil }

var errNotMade = errors.New("remote: these Keys were not made by NewKeys or New")

// KeySet returns the current set: the same pointer for as long as the keys are
// the same. kid comes from an unverified token and may be anything.
//
// It waits for a fetch, no longer than ctx and 2 s, in three cases:
//
//   - There is no set yet, or none that is younger than MaxStale.
//   - The set is RefreshEvery old only because nothing asked for it. If the fetch
//     fails or takes longer, the set serves on.
//   - The set lacks kid. KeySet returns a set without it only after two fetches
//     since the call began, the second at least 1.2 s after that: the server does
//     not publish the key. A kid that earlier calls asked for in vain is answered
//     at once.
//
// If the last fetch failed, KeySet does not wait for the next one, or for 200 ms
// if the last one failed within its time.
//
// An error means that the server's keys could not be had: there is no set yet,
// the last good one is older than MaxStale, or kid is unknown and the server
// could not be asked in time. It says nothing about the token and never matches
// [sessiontoken.ErrInvalid].
func (k *Keys) KeySet(ctx context.Context, kid string) (*keys.Set, error) {
	if !k.isMade() {
		return nil, errNotMade
	}
	s, age := k.usable()
	if s != nil && s.has(kid) {
		wait := k.overdue(s, age)
		if wait > 0 {
			_, _ = k.fetches.Try(ctx, wait)
			if s, _ = k.usable(); s == nil {
				return nil, k.unavailable(nil)
			}
		} else if age >= s.refresh {
			k.fetches.Go()
		}
		return s.keys, nil // a key that was removed meanwhile is known to be
	}
	asked := k.clock.Read()
	if s == nil {
		err := k.try(ctx, callWait)
		if s, _ = k.usable(); s == nil {
			return nil, k.unavailable(err)
		}
	}
	return k.look(ctx, kid, asked)
}

// overdue returns how long to wait for a fetch before a set of this age may
// answer. It is 0 unless the set is stale only because nothing asked for it: then
// each call may wait until 2 s after the start of the fetch.
func (k *Keys) overdue(s *fetchedSet, age time.Duration) time.Duration {
	if age < k.refreshEvery {
		return 0
	}
	last := k.last.Load()
	since := k.clock.Age(last.began)
	switch {
	case last == s.fetch, since >= max(k.refreshEvery, idleTime):
		return callWait
	case last.idle && !last.failed.Load():
		return max(0, callWait-since)
	}
	return 0
}

// try joins the fetch under way or starts one, and waits for it: not at all if
// the last one took too long, and briefly if it failed in another way.
func (k *Keys) try(ctx context.Context, atMost time.Duration) error {
	if _, err := k.fetches.Failing(); err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, flight.ErrLate) {
			k.fetches.Go()
			return err
		}
		atMost = min(atMost, shortWait)
	}
	_, err := k.fetches.Try(ctx, atMost)
	return err
}

// look returns a set that has kid, or one that proves that the server does not
// publish it.
func (k *Keys) look(ctx context.Context, kid string, asked clock.Instant) (*keys.Set, error) {
	if k.looking.Add(1) > maxLooks {
		k.looking.Add(-1)
		return nil, k.owed(errTooMany)
	}
	defer k.looking.Add(-1)
	first := k.firstAsked(kid, asked)
	for {
		s, age := k.usable()
		switch {
		case s == nil:
			return nil, k.unavailable(nil)
		case s.has(kid), s.fetch.proves(asked), age <= freshFor && clock.SteadyBetween(first, s.fetch.began) >= settledAfter:
			return s.keys, nil
		}
		left := callWait - k.clock.Steady(asked)
		if left <= 0 {
			return nil, k.owed(flight.ErrWaited)
		}
		k.wanted.Store(true)
		if err := k.try(ctx, left); err != nil {
			if s, _ = k.usable(); s != nil && s.has(kid) {
				return s.keys, nil
			}
			return nil, k.owed(err)
		}
	}
}

// firstAsked returns when a call asked for this unknown kid first, as far as that
// is remembered.
func (k *Keys) firstAsked(kid string, now clock.Instant) clock.Instant {
	if len(kid) > maxKid {
		return now
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if first, ok := k.asked[kid]; ok {
		return first
	}
	if len(k.asked) >= maxAsked {
		for other := range k.asked { // any
			delete(k.asked, other)
			break
		}
	}
	k.asked[strings.Clone(kid)] = now
	return now
}

// owed is the error for a kid that may be published by now.
func (k *Keys) owed(err error) error {
	k.undecided.Add(1)
	if errors.Is(err, flight.ErrWaited) || errors.Is(err, errTooMany) {
		k.loud.Warn("jwks_unknown_kid", "remote: tokens with unknown kids come faster than the key set may be fetched, or the fetches are slow; these tokens are undecided, others are not affected",
			"host", k.host)
	}
	return fmt.Errorf("remote: the key set lacks the key and could not be fetched again: %w", err)
}

// unavailable is the error while there is no set to serve.
func (k *Keys) unavailable(err error) error {
	k.undecided.Add(1)
	if err == nil {
		err = errTooOld
	}
	k.loud.Warn("jwks_unavailable", "remote: there is no key set to verify with, so no token can be verified; check that the server of "+k.setting+" can be reached and publishes it",
		"host", k.host, "error", err)
	return fmt.Errorf("remote: there is no key set to serve: %w", err)
}

var (
	errTooOld  = errors.New("the key set is too old")
	errTooMany = errors.New("too many calls wait for that")
)

// usable returns the last good set and its age, or nil if there is none or it is
// too old by now.
func (k *Keys) usable() (*fetchedSet, time.Duration) {
	s := k.good.Load()
	if s == nil {
		return nil, 0
	}
	age := k.clock.Age(s.fetch.began)
	if age > k.maxStale {
		return nil, 0
	}
	return s, age
}

// Status is for health checks. fetched is the start of the fetch that brought
// the current set, the zero time if there is none yet: an age beyond RefreshEvery
// that grows means that fetches fail. err is nil if there is a set that serves
// known kids, and else says why there is not; with such an error, KeySet fails
// for every token. Status does no I/O, so it reports an error until the first
// KeySet or Run has fetched.
func (k *Keys) Status() (fetched time.Time, err error) {
	if !k.isMade() {
		return time.Time{}, errNotMade
	}
	s := k.good.Load()
	if s != nil {
		fetched = s.fetch.began.Wall()
		if k.clock.Age(s.fetch.began) <= k.maxStale {
			return fetched, nil
		}
	}
	switch _, failure := k.fetches.Failing(); {
	case failure != nil:
		err = fmt.Errorf("remote: there is no key set to serve: %w", failure)
	case s == nil:
		err = errors.New("remote: no key set was fetched yet")
	default:
		err = fmt.Errorf("remote: there is no key set to serve: %w", errTooOld)
	}
	return fetched, err
}
