package sessiontoken

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
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

// Limits of RemoteKeys that are not settings.
const (
	remoteTimeout      = 5 * time.Second // of one fetch with all its redirects
	remoteMinRefresh   = time.Minute     // what the server's max-age cannot go below
	remoteRefreshEvery = 10 * time.Minute
	remoteMaxStale     = 24 * time.Hour
	remoteMaxBody      = 1 << 20 // bytes
	remoteMaxRedirects = 3

	remoteWait      = 2 * time.Second        // of a call, for a fetch
	remoteShortWait = 200 * time.Millisecond // of a call, after a fetch that failed quickly
	remoteIdle      = time.Minute            // without a fetch, at least, for a set to be stale only because nothing asked
	remotePause     = time.Second            // after the first failed fetch; it doubles
	remoteMaxPause  = 30 * time.Second

	// Fetches for unknown kids: one every remoteLookEvery, and two can be saved
	// up. The second begins remoteLookAgain after the first, when the copies of
	// caches on the way are over, which the server has allowed one second.
	remoteLookEvery = 2 * time.Second
	remoteLooks     = 2
	remoteLookAgain = 1200 * time.Millisecond
	remoteMaxLooks  = 1024 // calls that wait for one

	// A kid that was asked for remoteSettled before a fetch that did not bring it
	// needs no fetch of its own while that is not older than remoteFresh.
	remoteSettled  = 3200 * time.Millisecond
	remoteFresh    = 10 * time.Second
	remoteMaxAsked = 256 // kids that are remembered
	remoteMaxKid   = 128 // bytes of such a kid
)

// RemoteKeysConfig configures [NewRemoteKeys].
type RemoteKeysConfig struct {
	// URL of the JWK set (RFC 7517 section 5). Required. It is https, or http
	// on a loopback host (127.0.0.0/8, ::1, localhost), and has neither user
	// information nor a fragment. It is fixed here: nothing in a token changes
	// where keys come from.
	URL string

	// Client sends the requests. Only its Transport and its Timeout are used:
	// cookies are neither kept nor sent, redirects are followed by the rules of
	// [RemoteKeys], and a Timeout of 0 or over 5 s means 5 s, for a fetch with
	// all its redirects. A nil Client, or a nil Transport, means a transport of
	// its own that uses no proxy, whatever the environment says. A Transport
	// should return when the context of the request ends: of those that do not,
	// three leave later fetches alone, and no fourth one is started.
	Client *http.Client

	// RefreshEvery is the longest time between two fetches while all is well.
	// The server's max-age (RFC 9111 section 5.2.2.1) shortens it, to no less
	// than a minute, or than RefreshEvery if that is shorter. It also bounds how
	// long a key that was removed at the server still verifies here, while fetches
	// succeed, plus the time that one takes. 0 = 10 min.
	RefreshEvery time.Duration

	// MaxStale is how long the last good set serves while fetches fail, counted
	// from the start of the fetch that brought it. After that KeySet fails. An
	// attacker who can cut this verifier off from the server can keep a removed
	// key alive for as long. At least RefreshEvery. 0 = 24 h.
	MaxStale time.Duration

	// Logger is told when fetches begin to fail (Warn) and when they work again
	// (Info), once each, and at most once a minute that there is no set to serve
	// or that unknown kids come faster than the set may be fetched (Warn).
	// nil = slog.Default().
	Logger *slog.Logger
}

// RemoteKeys is a KeySource that fetches the JWK set of another service and
// keeps it fresh. It is safe for concurrent use; make it with [NewRemoteKeys].
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
// that is empty, holds a private or symmetric key, uses a kid twice or has more
// than 100 keys is refused as a whole; a key that cannot be used here is
// skipped. A failed fetch leaves the last good set in place for MaxStale, then
// RemoteKeys fails closed.
//
// A fetch has a connection of its own, takes at most 5 s and 1 MiB, wants status
// 200, and follows at most three redirects, none of which may leave the scheme,
// host and port of the URL.
type RemoteKeys struct {
	url          *url.URL
	transport    http.RoundTripper
	timeout      time.Duration
	refreshEvery time.Duration
	maxStale     time.Duration
	log          *slog.Logger
	loud         *loud.Log
	clock        *clock.Clock
	made         clock.Instant

	fetches *flight.Group
	good    atomic.Pointer[remoteSet]   // the last good set, or nil
	last    atomic.Pointer[remoteFetch] // the last fetch that began, or nil
	wanted  atomic.Bool                 // a call waits for a kid that the set lacks
	looking atomic.Int64                // calls that do

	mu    sync.Mutex
	asked map[string]clock.Instant // when unknown kids were asked for first

	ended, failed atomic.Uint64 // fetches
	undecided     atomic.Uint64 // calls of KeySet that failed
	failing       bool          // the last one failed; for ended alone
}

// remoteSet is a fetched set. It does not change once it is published.
type remoteSet struct {
	keys    *keys.Set
	fetch   *remoteFetch  // that brought it
	refresh time.Duration // age at which to fetch again
}

// has reports whether the set answers a question for kid; any set does for none.
func (s *remoteSet) has(kid string) bool {
	if kid == "" {
		return true
	}
	_, ok := s.keys.Key(kid)
	return ok
}

// remoteFetch is a fetch that has begun.
type remoteFetch struct {
	began  clock.Instant
	before clock.Instant // start of the fetch before it
	saved  time.Duration // towards further fetches for unknown kids
	idle   bool          // the set was stale only because nothing had asked
	failed atomic.Bool
}

// proves reports whether this is the second fetch since asked, or a later one:
// what it did not bring was not published then, whatever caches there are.
func (f *remoteFetch) proves(asked clock.Instant) bool {
	return !f.before.IsZero() && clock.SteadyBetween(asked, f.before) >= 0 &&
		clock.SteadyBetween(asked, f.began) >= remoteLookAgain
}

// NewRemoteKeys returns a source of the keys at the configured URL. It does no
// I/O and starts no goroutine: the first call of KeySet, or Run, fetches. An
// error names the field at fault.
func NewRemoteKeys(config RemoteKeysConfig) (*RemoteKeys, error) {
	u, err := parseRemoteURL(config.URL)
	if err != nil {
		return nil, err
	}
	r := &RemoteKeys{
		url:          u,
		refreshEvery: config.RefreshEvery,
		maxStale:     config.MaxStale,
		log:          config.Logger,
		clock:        clock.Here(),
		timeout:      remoteTimeout,
		asked:        map[string]clock.Instant{},
	}
	switch {
	case config.RefreshEvery < 0:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.RefreshEvery must not be negative")
	case config.MaxStale < 0:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.MaxStale must not be negative")
	case config.Client != nil && config.Client.Timeout < 0:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.Client must not have a negative Timeout")
	case config.Client != nil && config.Client.Transport != nil && arg.IsNil(config.Client.Transport):
		return nil, errors.New("sessiontoken: RemoteKeysConfig.Client has a Transport that is a nil pointer")
	}
	if r.refreshEvery == 0 {
		r.refreshEvery = remoteRefreshEvery
	}
	if r.maxStale == 0 {
		r.maxStale = remoteMaxStale
	}
	if r.maxStale < r.refreshEvery {
		return nil, errors.New("sessiontoken: RemoteKeysConfig.MaxStale must be at least RefreshEvery")
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	if c := config.Client; c != nil {
		r.transport = c.Transport
		if c.Timeout > 0 {
			r.timeout = min(r.timeout, c.Timeout)
		}
	}
	if r.transport == nil {
		r.transport = newRemoteTransport()
	}
	r.loud, r.made = loud.New(r.log), r.clock.Read()
	r.fetches = flight.New(flight.Config{
		Limit:    remoteLookEvery + r.timeout, // a fetch waits for its turn first
		Pause:    remotePause,
		MaxPause: remoteMaxPause,
		Ended:    r.fetchEnded,
	}, r.refresh)
	return r, nil
}

// parseRemoteURL checks a configured URL. Its errors do not repeat it: it may
// hold a password that should not be there.
func parseRemoteURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("sessiontoken: RemoteKeysConfig.URL is required")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("sessiontoken: RemoteKeysConfig.URL is not an absolute URL with a host")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("sessiontoken: RemoteKeysConfig.URL must be https")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, errors.New("sessiontoken: RemoteKeysConfig.URL must be https, or http on a loopback host")
	case u.User != nil:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.URL must not have user information")
	case strings.Contains(raw, "#"):
		return nil, errors.New("sessiontoken: RemoteKeysConfig.URL must not have a fragment")
	}
	return u, nil
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.IsLoopback()
}

// newRemoteTransport has no proxy, and no compression: the body limit is then
// also what goes over the wire.
func newRemoteTransport() http.RoundTripper {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: remoteTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    remoteTimeout,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

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
// [ErrInvalid].
func (r *RemoteKeys) KeySet(ctx context.Context, kid string) (*keys.Set, error) {
	s, age := r.usable()
	if s != nil && s.has(kid) {
		wait := r.overdue(s, age)
		if wait > 0 {
			_, _ = r.fetches.Try(ctx, wait)
			if s, _ = r.usable(); s == nil {
				return nil, r.unavailable(nil)
			}
		} else if age >= s.refresh {
			r.fetches.Go()
		}
		return s.keys, nil // a key that was removed meanwhile is known to be
	}
	asked := r.clock.Read()
	if s == nil {
		err := r.try(ctx, remoteWait)
		if s, _ = r.usable(); s == nil {
			return nil, r.unavailable(err)
		}
	}
	return r.look(ctx, kid, asked)
}

// overdue returns how long to wait for a fetch before a set of this age may
// answer. It is 0 unless the set is stale only because nothing asked for it: then
// each call may wait until 2 s after the start of the fetch.
func (r *RemoteKeys) overdue(s *remoteSet, age time.Duration) time.Duration {
	if age < r.refreshEvery {
		return 0
	}
	last := r.last.Load()
	since := r.clock.Age(last.began)
	switch {
	case last == s.fetch, since >= max(r.refreshEvery, remoteIdle):
		return remoteWait
	case last.idle && !last.failed.Load():
		return max(0, remoteWait-since)
	}
	return 0
}

// try joins the fetch under way or starts one, and waits for it: not at all if
// the last one took too long, and briefly if it failed in another way.
func (r *RemoteKeys) try(ctx context.Context, atMost time.Duration) error {
	if _, err := r.fetches.Failing(); err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, flight.ErrLate) {
			r.fetches.Go()
			return err
		}
		atMost = min(atMost, remoteShortWait)
	}
	_, err := r.fetches.Try(ctx, atMost)
	return err
}

// look returns a set that has kid, or one that proves that the server does not
// publish it.
func (r *RemoteKeys) look(ctx context.Context, kid string, asked clock.Instant) (*keys.Set, error) {
	if r.looking.Add(1) > remoteMaxLooks {
		r.looking.Add(-1)
		return nil, r.owed(errRemoteBusy)
	}
	defer r.looking.Add(-1)
	first := r.firstAsked(kid, asked)
	for {
		s, age := r.usable()
		switch {
		case s == nil:
			return nil, r.unavailable(nil)
		case s.has(kid), s.fetch.proves(asked), age <= remoteFresh && clock.SteadyBetween(first, s.fetch.began) >= remoteSettled:
			return s.keys, nil
		}
		left := remoteWait - r.clock.Steady(asked)
		if left <= 0 {
			return nil, r.owed(flight.ErrWaited)
		}
		r.wanted.Store(true)
		if err := r.try(ctx, left); err != nil {
			if s, _ = r.usable(); s != nil && s.has(kid) {
				return s.keys, nil
			}
			return nil, r.owed(err)
		}
	}
}

// firstAsked returns when a call asked for this unknown kid first, as far as that
// is remembered.
func (r *RemoteKeys) firstAsked(kid string, now clock.Instant) clock.Instant {
	if len(kid) > remoteMaxKid {
		return now
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if first, ok := r.asked[kid]; ok {
		return first
	}
	if len(r.asked) >= remoteMaxAsked {
		for other := range r.asked { // any
			delete(r.asked, other)
			break
		}
	}
	r.asked[strings.Clone(kid)] = now
	return now
}

// owed is the error for a kid that may be published by now.
func (r *RemoteKeys) owed(err error) error {
	r.undecided.Add(1)
	if errors.Is(err, flight.ErrWaited) || errors.Is(err, errRemoteBusy) {
		r.loud.Warn("jwks_unknown_kid", "sessiontoken: tokens with unknown kids come faster than the key set may be fetched, or the fetches are slow; these tokens are undecided, others are not affected",
			"host", r.url.Host)
	}
	return fmt.Errorf("sessiontoken: the key set lacks the key and could not be fetched again: %w", err)
}

// unavailable is the error while there is no set to serve.
func (r *RemoteKeys) unavailable(err error) error {
	r.undecided.Add(1)
	if err == nil {
		err = errRemoteOld
	}
	r.loud.Warn("jwks_unavailable", "sessiontoken: there is no key set to verify with, so no token can be verified; check that the server of RemoteKeysConfig.URL can be reached",
		"host", r.url.Host, "error", err)
	return fmt.Errorf("sessiontoken: there is no key set to serve: %w", err)
}

var (
	errRemoteOld  = errors.New("the key set is too old")
	errRemoteBusy = errors.New("too many calls wait for that")
)

// usable returns the last good set and its age, or nil if there is none or it is
// too old by now.
func (r *RemoteKeys) usable() (*remoteSet, time.Duration) {
	s := r.good.Load()
	if s == nil {
		return nil, 0
	}
	age := r.clock.Age(s.fetch.began)
	if age > r.maxStale {
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
func (r *RemoteKeys) Status() (fetched time.Time, err error) {
	s := r.good.Load()
	if s != nil {
		fetched = s.fetch.began.Wall()
		if r.clock.Age(s.fetch.began) <= r.maxStale {
			return fetched, nil
		}
	}
	switch _, failure := r.fetches.Failing(); {
	case failure != nil:
		err = fmt.Errorf("sessiontoken: there is no key set to serve: %w", failure)
	case s == nil:
		err = errors.New("sessiontoken: no key set was fetched yet")
	default:
		err = fmt.Errorf("sessiontoken: there is no key set to serve: %w", errRemoteOld)
	}
	return fetched, err
}

// Run keeps the set fresh until ctx ends and returns ctx.Err(). It is optional:
// without it KeySet waits for a fetch at first and after a pause. Failures are
// logged, not returned, and tried again as [RemoteKeys] says.
func (r *RemoteKeys) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		wait := r.untilRefresh()
		if wait <= 0 && ctx.Err() == nil {
			_, _ = r.fetches.Try(ctx, 0)
			wait = r.untilRefresh()
		}
		if wait <= 0 { // it failed
			pause, _ := r.fetches.Failing()
			wait = max(pause, remotePause)
		}
		timer.Reset(min(wait, time.Minute)) // a timer stands still while the machine is suspended
	}
}

// untilRefresh is the time left until the set is due: 0 or less if it is, or if
// there is none.
func (r *RemoteKeys) untilRefresh() time.Duration {
	s := r.good.Load()
	if s == nil {
		return 0
	}
	return s.refresh - r.clock.Age(s.fetch.began)
}

// refresh is one fetch with all that follows from it.
func (r *RemoteKeys) refresh(ctx context.Context, run *flight.Run) error {
	if r.wanted.Load() {
		if err := r.waitForTurn(ctx); err != nil {
			return err
		}
		if !run.Commit(func() {}) { // the fetch has the limit for itself
			return flight.ErrLate
		}
	}
	this := r.begin()
	succeeded := false
	defer func() { this.failed.Store(!succeeded) }()
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	set, maxAge, err := r.fetch(ctx, r.wanted.Swap(false))
	if err != nil {
		return err
	}
	if old := r.good.Load(); old != nil && old.keys.Equal(set) {
		set = old.keys
	}
	next := &remoteSet{keys: set, fetch: this, refresh: r.lifetime(maxAge)}
	if !run.Commit(func() { r.good.Store(next) }) {
		return flight.ErrLate
	}
	succeeded = true
	return nil
}

// waitForTurn waits until a fetch for an unknown kid may begin.
func (r *RemoteKeys) waitForTurn(ctx context.Context) error {
	last := r.last.Load()
	if s, _ := r.usable(); s == nil || last == nil {
		return nil
	}
	since := r.clock.Age(last.began)
	again := remoteLookAgain - since
	if first := r.clock.Age(last.before); first-since < remoteLookEvery { // the last one was a second one
		again = min(again, remoteLookEvery-first)
	}
	wait := max(again, remoteLookEvery-last.saved-since)
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// begin records that a fetch begins.
func (r *RemoteKeys) begin() *remoteFetch {
	this := &remoteFetch{saved: (remoteLooks - 1) * remoteLookEvery}
	last := r.last.Load()
	if s, age := r.usable(); s != nil {
		this.idle = r.overdue(s, age) == remoteWait
		this.before = last.began
		this.saved = min(last.saved+min(r.clock.Age(last.began), remoteLooks*remoteLookEvery), remoteLooks*remoteLookEvery)
		this.saved = max(0, this.saved-remoteLookEvery)
	}
	this.began = r.clock.Read()
	r.last.Store(this)
	return this
}

// fetchEnded counts the outcome of a fetch, and logs it if it changes anything.
func (r *RemoteKeys) fetchEnded(err error) {
	r.ended.Add(1)
	if err != nil {
		r.failed.Add(1)
	}
	failedBefore := r.failing
	r.failing = err != nil
	switch {
	case err != nil && !failedBefore:
		r.log.Warn("sessiontoken: cannot fetch the key set",
			"host", r.url.Host, "served_for_at_most", r.maxStale, "have_one", r.good.Load() != nil, "error", err)
	case err == nil && failedBefore:
		r.log.Info("sessiontoken: the key set can be fetched again", "host", r.url.Host)
	}
}

// lifetime turns the server's max-age (negative = none) into the age at which to
// fetch again: within the limits, and earlier by 10 to 25 % at random, so that
// clients that started together do not stay together.
func (r *RemoteKeys) lifetime(maxAge time.Duration) time.Duration {
	d := r.refreshEvery
	if maxAge >= 0 {
		d = min(d, max(maxAge, remoteMinRefresh))
	}
	return d/4*3 + time.Duration(0.15*rand.Float64()*float64(d))
}

// fetch gets the set once. maxAge is what is left of the response's max-age, or
// negative if it has none.
//
// It speaks to the transport and not through http.Client, which would add a
// Referer and credentials from a redirect's URL, and whose errors quote URLs.
func (r *RemoteKeys) fetch(ctx context.Context, noCache bool) (set *keys.Set, maxAge time.Duration, err error) {
	resp, err := r.get(ctx, noCache)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, remoteMaxBody+1))
	if err != nil {
		return nil, 0, transportError(ctx, "the body could not be read", err)
	}
	if len(body) > remoteMaxBody {
		return nil, 0, fmt.Errorf("the body is over %d bytes", remoteMaxBody)
	}
	set, err = keys.ParseSet(body)
	if err != nil {
		return nil, 0, fmt.Errorf("the body is refused: %w", err) // fixed texts: they quote nothing
	}
	return set, remainingMaxAge(resp.Header), nil
}

// get sends the request, follows redirects within the origin, and returns the
// response with status 200. The caller closes its body.
func (r *RemoteKeys) get(ctx context.Context, noCache bool) (*http.Response, error) {
	u := r.url
	for redirects := 0; ; redirects++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, errors.New("the request could not be made")
		}
		req.Close = true // a connection that died silently would fail each fetch
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
		if noCache {
			req.Header.Set("Cache-Control", "no-cache")
		}
		resp, err := r.transport.RoundTrip(req)
		if err != nil {
			return nil, transportError(ctx, "the request failed", err)
		}
		if resp.Body == nil {
			resp.Body = http.NoBody
		}
		if resp.StatusCode == http.StatusOK {
			return resp, nil
		}
		resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			return nil, fmt.Errorf("the server answered with status %d", resp.StatusCode)
		}
		if redirects == remoteMaxRedirects {
			return nil, fmt.Errorf("more than %d redirects", remoteMaxRedirects)
		}
		next, err := u.Parse(resp.Header.Get("Location"))
		if err != nil || !sameOrigin(r.url, next) {
			return nil, errors.New("a redirect away from the configured origin")
		}
		u = next
	}
}

// sameOrigin compares scheme, host and port, and refuses credentials.
func sameOrigin(a, b *url.URL) bool {
	return b.Opaque == "" && b.User == nil && a.Scheme == b.Scheme &&
		strings.EqualFold(a.Hostname(), b.Hostname()) && portOf(a) == portOf(b)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// remainingMaxAge is the response's max-age (RFC 9111 section 5.2.2.1) less its
// Age, or negative if it has no max-age. What cannot be read counts as no time
// left (section 4.2.1), and of several the smallest counts.
func remainingMaxAge(h http.Header) time.Duration {
	const none = time.Duration(-1)
	left := none
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			if !strings.EqualFold(name, "max-age") {
				continue
			}
			if d := deltaSeconds(strings.Trim(value, `"`)); left == none || d < left {
				left = d
			}
		}
	}
	if left == none {
		return none
	}
	return max(0, left-deltaSeconds(h.Get("Age")))
}

// deltaSeconds reads a number of seconds (RFC 9111 section 1.2.2), 0 if it is
// none, and at most 2^31 of them.
func deltaSeconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		n = 1 << 31
	} else if err != nil {
		return 0
	}
	return time.Duration(min(n, 1<<31)) * time.Second
}

// remoteError is an error whose text is not that of its cause, which may quote
// what the server sent. The cause can be reached by errors.Is and errors.As.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

// transportError describes a failed exchange by what is known to be ours to say:
// a timeout, a name that does not resolve, a connection that is refused or a
// certificate that is not trusted.
func transportError(ctx context.Context, what string, err error) error {
	var (
		dns  *net.DNSError
		op   *net.OpError
		cert *tls.CertificateVerificationError
	)
	switch {
	case ctx.Err() != nil:
		what += ": timeout"
		err = errors.Join(ctx.Err(), err)
	case errors.As(err, &dns):
		what += ": the host cannot be resolved"
	case errors.As(err, &cert):
		what += ": the certificate is not trusted"
	case errors.As(err, &op):
		what += ": " + op.Op + " failed"
	}
	return &remoteError{what, err}
}
