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

// The limits of Keys that cannot be configured.
const (
	defaultRefreshEvery = 10 * time.Minute
	defaultMaxStale     = 24 * time.Hour

	callWait  = 2 * time.Second        // how long a call waits for a fetch
	shortWait = 200 * time.Millisecond // how long it waits after a fetch that failed quickly
	idleTime  = time.Minute            // how long without a fetch means that no call needed one

	maxLooks = 1024 // calls that wait for an unknown kid

	// A fetch without a kid, begun settledAfter after the first call for that
	// kid, answers later calls for it until it is older than freshFor.
	settledAfter = 3200 * time.Millisecond
	freshFor     = 10 * time.Second
	maxAsked     = 256 // unknown kids that are remembered
	maxKid       = 128 // bytes of a kid that is remembered
)

// KeysConfig configures [NewKeys].
type KeysConfig struct {
	// URL of the JWK set (RFC 7517 section 5). Required. It is https, or http
	// on a loopback host (127.0.0.0/8, ::1, localhost), and has neither user
	// information nor a fragment.
	URL string

	// Client sends the requests. Only its Transport and its Timeout are used.
	// Cookies are neither kept nor sent, and redirects are followed by the
	// rules of [Keys]. Timeout is for a fetch with all its redirects; 0 or more
	// than 5 s means 5 s. A nil Client or Transport means a new transport that
	// uses no proxy, not even one from the environment. A Transport should
	// return when the context of the request ends. While three requests have
	// not returned, no other fetch is started.
	Client *http.Client

	// RefreshEvery is the longest time between two fetches while fetches
	// succeed. The server's max-age (RFC 9111 section 5.2.2.1) shortens it, but
	// not below one minute. While fetches succeed, a key that was removed at
	// the server verifies here for at most RefreshEvery and the time of one
	// fetch. At least 1 s. 0 means 10 min.
	RefreshEvery time.Duration

	// MaxStale is how long the last valid set is used while fetches fail,
	// counted from the start of its fetch. After that KeySet fails. An attacker
	// who can cut this verifier off from the server keeps a removed key valid
	// for that long. At least RefreshEvery. 0 means 24 h.
	MaxStale time.Duration

	// Logger gets these lines:
	//
	//   - when fetches begin to fail (Warn), and when they succeed again
	//     (Info);
	//   - when keys of the set are skipped (Warn), once;
	//   - when there is no set to return, or unknown kids come faster than the
	//     set may be fetched (Warn), at most once a minute.
	//
	// Nil means slog.Default().
	Logger *slog.Logger
}

// Keys is a [sessiontoken.KeySource] that fetches the JWK set of another
// service and keeps it fresh. It is safe for concurrent use. Make it with
// [NewKeys] or [New]: every call of a zero Keys fails.
//
// KeySet returns the set in memory. After 3/4 of RefreshEvery the set is
// fetched again in the background: with Run, or with a steady flow of calls, no
// call waits for that. The first call after a longer pause, or after the
// machine was suspended, waits for a fetch, so that no removed key is used past
// RefreshEvery.
//
// A kid that the set lacks causes a fetch at once, with Cache-Control:
// no-cache. If the new set lacks it too, a second fetch follows 1.2 s later: a
// cache or another replica of the server may have sent an older set. All
// unknown kids together cause at most one fetch in 2 s, except that two unused
// ones are saved up. Tokens with invented kids neither load the server nor slow
// down tokens with known kids.
//
// After a failed fetch the next one waits for 1 s, and longer after each further
// failure, up to 30 s and a random quarter more.
//
// A fetched set replaces the one before it: a removed key stops working. A set
// that has no usable key, holds a private or symmetric key, or has more than
// 100 keys is refused as a whole, and the error holds the first reasons. A key
// that cannot be used safely is skipped, by the rules of [keys.ParseSet]. The
// skipped keys are logged when they change. While fetches fail, the last valid
// set is used until MaxStale; then KeySet fails.
//
// A fetch uses a new connection and takes at most 5 s. The answer must have
// status 200 and at most 1 MiB, with gzip or without. A fetch follows at most
// three redirects, within the scheme, host and port of the URL.
type Keys struct {
	fetches *flight.Group // nil in a zero Keys alone; the first field, by which constructors recognise one

	url       *url.URL   // of the set, or nil if that is discovered
	discovery *discovery // of its URL, or nil
	host      string     // for log lines: the host of the URL, or of the issuer
	setting   string     // for log lines: the field that configures it

	client       client
	refreshEvery time.Duration
	maxStale     time.Duration
	log          *slog.Logger
	loud         *loud.Log
	clock        *clock.Clock
	made         clock.Instant

	good    atomic.Pointer[fetchedSet] // the last valid set, or nil
	last    atomic.Pointer[attempt]    // the last fetch that began, or nil
	wanted  atomic.Bool                // a call waits for a kid that the set lacks
	looking atomic.Int64               // how many calls do

	mu    sync.Mutex
	asked map[string]clock.Instant // when a call asked for an unknown kid first

	ended, failed atomic.Uint64 // fetches
	undecided     atomic.Uint64 // calls of KeySet that failed
	failing       bool          // the last one failed; only fetchEnded uses it
}

// NewKeys returns a source of the keys at the configured URL. It does no I/O
// and starts no goroutine: the first call of KeySet, or Run, fetches the set.
// An error names the field at fault.
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

// newKeys makes Keys from a configuration without its URL. of is the name of
// the type for error texts.
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

// KeySet returns the current set: the same pointer while the keys are the same.
// kid comes from an unverified token and may be any string.
//
// It waits for a fetch, until ctx ends and for at most 2 s, in three cases:
//
//   - There is no set yet, or it is older than MaxStale.
//   - The set is older than RefreshEvery because no call was made for a while.
//     If the fetch fails or takes longer, KeySet returns the old set.
//   - The set lacks kid. KeySet returns a set without kid only after two
//     fetches, the second at least 1.2 s after the call began, which prove that
//     the server does not publish the key. For a kid that earlier calls asked
//     for in vain, it returns at once.
//
// If the last fetch timed out, KeySet does not wait for the next one. If it
// failed in another way, KeySet waits for at most 200 ms.
//
// An error means that there is no set yet, that the last valid one is older
// than MaxStale, or that kid is unknown and the set could not be fetched in
// time. It says nothing about the token and never matches
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
		return s.keys, nil // also if a concurrent fetch has removed the key
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

// overdue returns how long a call waits for a fetch before it uses a set of
// this age. It is 0, unless the set is stale because no call was made for a
// while: each call then waits until 2 s after the start of the fetch.
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

// try joins the running fetch or starts one, and waits for it. If the last
// fetch timed out it does not wait, and if that failed in another way it waits
// briefly.
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
		return nil, k.undecidedKid(errTooMany)
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
			return nil, k.undecidedKid(flight.ErrWaited)
		}
		k.wanted.Store(true)
		if err := k.try(ctx, left); err != nil {
			if s, _ = k.usable(); s != nil && s.has(kid) {
				return s.keys, nil
			}
			return nil, k.undecidedKid(err)
		}
	}
}

// firstAsked returns when a call asked for this unknown kid first, or now if
// that is not remembered.
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

// undecidedKid returns the error for an unknown kid that the server may publish by
// now.
func (k *Keys) undecidedKid(err error) error {
	k.undecided.Add(1)
	if errors.Is(err, flight.ErrWaited) || errors.Is(err, errTooMany) {
		k.loud.Warn("jwks_unknown_kid", "remote: tokens with unknown kids come faster than the key set may be fetched, or the fetches are slow; these tokens are undecided, others are not affected",
			"host", k.host)
	}
	return fmt.Errorf("remote: the key set lacks the key and could not be fetched again: %w", err)
}

// unavailable returns the error while there is no set to return.
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

// usable returns the last valid set and its age, or nil if there is none or it
// is older than MaxStale.
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

// Status is for health checks. fetched is the start of the fetch of the current
// set, or the zero time if there is none: an age that grows beyond RefreshEvery
// means that fetches fail. err is nil while KeySet returns a set for known
// kids. Otherwise it is the reason, and KeySet fails for every token. Status
// does no I/O, so that it returns an error until the first fetch of KeySet or
// Run.
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
