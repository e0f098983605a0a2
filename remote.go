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
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/tally"
	"github.com/sessiontoken/sessiontoken/keys"
)

// Limits of RemoteKeys that are not settings.
const (
	remoteTimeout      = 5 * time.Second  // of one fetch with all its redirects, and of one wait for it
	remoteCooldown     = 30 * time.Second // between the starts of two fetches
	remoteMinRefresh   = time.Minute      // what the server's max-age cannot go below
	remoteRefreshEvery = 10 * time.Minute
	remoteMaxStale     = 24 * time.Hour
	remoteMaxBody      = 1 << 20 // bytes
	remoteMaxRedirects = 3
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
	// must return when the context of the request ends: a fetch that never ends
	// lets no other one start.
	Client *http.Client

	// RefreshEvery is the longest time between two fetches while all is well.
	// The server's max-age (RFC 9111 section 5.2.2.1) shortens it, to no less
	// than a minute, or than RefreshEvery if that is shorter. It also bounds how
	// long a key that was removed at the server still verifies here, while fetches
	// succeed.
	// 0 = 10 min.
	RefreshEvery time.Duration

	// MaxStale is how long the last good set serves while fetches fail, counted
	// from the start of the fetch that brought it. After that KeySet fails. It is
	// also how long whoever can cut this verifier off from the server can keep a
	// removed key alive. At least RefreshEvery. 0 = 24 h.
	MaxStale time.Duration

	// Logger is told when fetches begin to fail (Warn) and when they work again
	// (Info), once each. nil = slog.Default().
	Logger *slog.Logger
}

// RemoteKeys is a KeySource that fetches the JWK set of another service and
// keeps it fresh. It is safe for concurrent use; make it with [NewRemoteKeys].
//
// KeySet answers from memory. A set that is due is fetched again in the
// background, from 3/4 of RefreshEvery on; with Run, or with a steady flow of
// calls, none of them waits for it. The first call after a longer pause does
// wait, so that no removed key is served past RefreshEvery. A kid that the set lacks causes a fetch too, but all such kids
// together cause at most one in 30 s (or 3/4 of RefreshEvery, if that is
// shorter), whatever the answers are: tokens with invented kids neither load the server
// nor slow down tokens with known ones.
//
// A fetched set replaces the one before it: a removed key stops working. A set
// that is empty, holds a private or symmetric key, uses a kid twice or has more
// than 100 keys is refused as a whole; a key that cannot be used here is
// skipped. A failed fetch leaves the last good set in place for MaxStale, then
// RemoteKeys fails closed.
//
// A fetch takes at most 5 s and 1 MiB, wants status 200, and follows at most
// three redirects, none of which may leave the scheme, host and port of the URL.
type RemoteKeys struct {
	url          *url.URL
	transport    http.RoundTripper
	refreshEvery time.Duration
	maxStale     time.Duration
	cooldown     time.Duration
	log          *slog.Logger
	made         time.Time

	fetches *flight.Group
	counted tally.Runs                  // the fetches
	good    atomic.Pointer[remoteSet]   // the last good set, or nil
	last    atomic.Pointer[remoteFetch] // the last finished fetch, or nil
}

// remoteSet is a fetched set. It does not change once it is published.
type remoteSet struct {
	keys    *keys.Set
	fetched time.Time     // start of the fetch, with its monotonic reading
	refresh time.Duration // age at which to fetch again
}

func (s *remoteSet) age(now time.Time) time.Duration { return clockElapsed(s.fetched, now) }

// remoteFetch is the outcome of a fetch.
type remoteFetch struct {
	err   error
	ended time.Time
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
		made:         time.Now(),
	}
	switch {
	case config.RefreshEvery < 0:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.RefreshEvery must not be negative")
	case config.MaxStale < 0:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.MaxStale must not be negative")
	case config.Client != nil && config.Client.Timeout < 0:
		return nil, errors.New("sessiontoken: RemoteKeysConfig.Client must not have a negative Timeout")
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
	timeout := remoteTimeout
	if c := config.Client; c != nil {
		r.transport = c.Transport
		if c.Timeout > 0 {
			timeout = min(timeout, c.Timeout)
		}
	}
	if r.transport == nil {
		r.transport = newRemoteTransport()
	}
	r.cooldown = min(remoteCooldown, r.refreshEvery/4*3) // a set is never due before that: see lifetime
	fetch := r.counted.Of(r.refresh)
	r.fetches = flight.New(flight.Config{Limit: timeout, Cooldown: r.cooldown}, func(ctx context.Context, _ *flight.Run) error { return fetch(ctx) })
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
		MaxIdleConns:           1,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// KeySet returns the current set: the same pointer for as long as the keys are
// the same. kid comes from an unverified token and may be anything.
//
// It waits for a fetch, no longer than ctx and 5 s, in three cases. There is no
// set yet, or none that is younger than MaxStale. Or the set is RefreshEvery old
// and no fetch has failed in that time: the source was not used lately, or a
// fetch is slow; if this one fails, the set serves on. Or the set lacks kid; the
// returned set may lack it all the same, and then the server did not publish it
// when it was last asked, which is at most 30 s ago and may be by a fetch that
// was under way.
//
// An error means that the server's keys could not be had: there is no set yet,
// the last good one is older than MaxStale, or kid is unknown and the last fetch
// failed or did not end in time. It says nothing about the token and never
// matches [ErrInvalid].
func (r *RemoteKeys) KeySet(ctx context.Context, kid string) (*keys.Set, error) {
	now := time.Now()
	s := r.usable(now)
	if s != nil {
		overdue := r.overdue(s, now)
		if !overdue && s.age(now) >= s.refresh {
			r.fetches.Go()
		}
		if !overdue && s.has(kid) {
			return s.keys, nil
		}
	}

	wait, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	started, err := r.fetches.Try(wait, 0)
	if !started && err == nil && r.usable(time.Now()) == nil {
		// The last fetch was good, and yet its set is too old by now: the machine
		// slept, or the clock was set. The cooldown has nothing to protect here,
		// since this happens once for a good fetch.
		err = r.fetches.Do(wait, 0)
	}
	s = r.usable(time.Now())
	switch {
	case s != nil && (err == nil || s.has(kid)):
		return s.keys, nil
	case err == nil:
		return nil, errors.New("sessiontoken: the fetched key set is too old already")
	case s != nil:
		return nil, fmt.Errorf("sessiontoken: the key set lacks the key and could not be fetched again: %w", err)
	default:
		return nil, fmt.Errorf("sessiontoken: there is no key set to serve: %w", err)
	}
}

// overdue reports whether a set has to be fetched again before it may answer: it
// is RefreshEvery old, and that is not because fetches fail.
func (r *RemoteKeys) overdue(s *remoteSet, now time.Time) bool {
	if s.age(now) < r.refreshEvery {
		return false
	}
	last := r.last.Load()
	return last == nil || last.err == nil || clockElapsed(last.ended, now) >= r.refreshEvery
}

// has reports whether the set answers a question for kid; any set does for none.
func (s *remoteSet) has(kid string) bool {
	if kid == "" {
		return true
	}
	_, ok := s.keys.Key(kid)
	return ok
}

// usable returns the last good set, or nil if there is none or it is too old now.
func (r *RemoteKeys) usable(now time.Time) *remoteSet {
	s := r.good.Load()
	if s == nil || s.age(now) > r.maxStale {
		return nil
	}
	return s
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
		fetched = s.fetched
		if s.age(time.Now()) <= r.maxStale {
			return fetched, nil
		}
	}
	last := r.last.Load()
	switch {
	case last == nil:
		err = errors.New("sessiontoken: no key set was fetched yet")
	case last.err != nil:
		err = fmt.Errorf("sessiontoken: there is no key set to serve: %w", last.err)
	default:
		err = errors.New("sessiontoken: the key set is too old")
	}
	return fetched, err
}

// Run keeps the set fresh until ctx ends and returns ctx.Err(). It is optional:
// without it KeySet waits for a fetch at first and after a pause. Failures are logged, not returned, and tried
// again after 30 to 38 s (or as much less as RefreshEvery asks for).
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
		if wait <= 0 { // it failed; spread those that failed together
			wait = r.cooldown + rand.N(r.cooldown/4+1)
		}
		timer.Reset(wait)
	}
}

// untilRefresh is the time left until the set is due: 0 or less if it is, or if
// there is none.
func (r *RemoteKeys) untilRefresh() time.Duration {
	s := r.good.Load()
	if s == nil {
		return 0
	}
	return s.refresh - s.age(time.Now())
}

// refresh is one fetch with all that follows from it. The flight group lets it
// run once at a time: it is the only writer of r.good and r.last.
func (r *RemoteKeys) refresh(ctx context.Context) error {
	err := flight.ErrPanic // unless fetch returns
	defer func() { r.record(err) }()
	begin := time.Now()
	set, maxAge, fetchErr := r.fetch(ctx)
	if err = fetchErr; err != nil {
		return err
	}
	if old := r.good.Load(); old != nil && old.keys.Equal(set) {
		set = old.keys
	}
	r.good.Store(&remoteSet{keys: set, fetched: begin, refresh: r.lifetime(maxAge)})
	return nil
}

// record keeps the outcome of a fetch, and logs it if it changes anything.
func (r *RemoteKeys) record(err error) {
	before := r.last.Swap(&remoteFetch{err, time.Now()})
	failedBefore := before != nil && before.err != nil
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
func (r *RemoteKeys) fetch(ctx context.Context) (set *keys.Set, maxAge time.Duration, err error) {
	resp, err := r.get(ctx)
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
func (r *RemoteKeys) get(ctx context.Context) (*http.Response, error) {
	u := r.url
	for redirects := 0; ; redirects++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, errors.New("the request could not be made")
		}
		req.Header.Set("Accept", "application/jwk-set+json, application/json")
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

func clockElapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
