package remote

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/keys"
)

const (
	minRefresh = time.Minute // a shorter max-age of the server counts as this

	firstPause = time.Second // after the first failed fetch; it doubles
	maxPause   = 30 * time.Second

	// Fetches for unknown kids: one every lookEvery, and up to savedLooks saved
	// ones. The second begins lookAgain after the first, when the s-maxage of 1
	// s of copies in caches has passed.
	lookEvery  = 2 * time.Second
	savedLooks = 2
	lookAgain  = 1200 * time.Millisecond
)

// fetchedSet is a set with the data of its fetch. It is immutable.
type fetchedSet struct {
	keys    *keys.Set
	skipped []string      // of its document
	fetch   *attempt      // that brought it
	refresh time.Duration // age at which to fetch again
}

// has reports whether the set holds kid. It holds the empty kid always.
func (s *fetchedSet) has(kid string) bool {
	if kid == "" {
		return true
	}
	_, ok := s.keys.Key(kid)
	return ok
}

// attempt is a fetch that has begun.
type attempt struct {
	began  clock.Instant
	before clock.Instant // start of the fetch before it
	saved  time.Duration // credit for further fetches for unknown kids
	idle   bool          // the set was stale because no call was made for a while
	failed atomic.Bool
}

// proves reports whether this is at least the second fetch since asked: a kid
// that it lacks was not published then, even if a cache answered the first.
func (f *attempt) proves(asked clock.Instant) bool {
	return !f.before.IsZero() && clock.SteadyBetween(asked, f.before) >= 0 &&
		clock.SteadyBetween(asked, f.began) >= lookAgain
}

// Run keeps the set fresh until ctx ends and returns ctx.Err(). It is optional:
// without it the first call of KeySet, and the first after a pause, waits for a
// fetch. Run logs failures and does not return them. It fetches again as [Keys]
// says.
func (k *Keys) Run(ctx context.Context) error {
	if !k.isMade() {
		return errNotMade
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		wait := k.untilRefresh()
		if wait <= 0 && ctx.Err() == nil {
			_, _ = k.fetches.Try(ctx, 0)
			wait = k.untilRefresh()
		}
		if wait <= 0 { // it failed
			pause, _ := k.fetches.Failing()
			wait = max(pause, firstPause)
		}
		timer.Reset(min(wait, time.Minute)) // a timer stands still while the machine is suspended
	}
}

// untilRefresh returns the time until the set is due. It is at most 0 if the
// set is due or there is none.
func (k *Keys) untilRefresh() time.Duration {
	s := k.good.Load()
	if s == nil {
		return 0
	}
	return s.refresh - k.clock.Age(s.fetch.began)
}

// refresh makes one fetch and stores the result.
func (k *Keys) refresh(ctx context.Context, run *flight.Run) error {
	if k.wanted.Load() {
		if err := k.waitForTurn(ctx); err != nil {
			return err
		}
		if !run.Commit(func() {}) { // the fetch has the limit for itself
			return flight.ErrLate
		}
	}
	this := k.begin()
	succeeded := false
	defer func() { this.failed.Store(!succeeded) }()
	ctx, cancel := context.WithTimeout(ctx, k.client.timeout)
	defer cancel()
	looks := k.wanted.Swap(false)
	u, err := k.locate(ctx, run, looks)
	if err != nil {
		return err
	}
	body, header, err := k.client.get(ctx, u, request{accept: "application/jwk-set+json, application/json", noCache: looks, maxBody: maxSetBody})
	if err != nil {
		return err
	}
	set, err := keys.ParseSet(body)
	if err != nil {
		return fmt.Errorf("the body is refused: %w", err) // it quotes no more than kids, shortened
	}
	next := &fetchedSet{keys: set, skipped: set.Skipped(), fetch: this, refresh: k.lifetime(remainingMaxAge(header))}
	old := k.good.Load()
	if old != nil && old.keys.Equal(set) {
		next.keys = old.keys
	}
	if !run.Commit(func() { k.good.Store(next) }) {
		return flight.ErrLate
	}
	succeeded = true
	if old == nil || !slices.Equal(old.skipped, next.skipped) {
		k.logSkipped(next.skipped)
	}
	return nil
}

// locate returns the URL of the key set. A discovered URL is used for
// RefreshEvery by fetches for unknown kids, and for MaxStale by any fetch while
// the document cannot be read. Half of the fetch's time is left for the set.
func (k *Keys) locate(ctx context.Context, run *flight.Run, looks bool) (*url.URL, error) {
	if k.discovery == nil {
		return k.url, nil
	}
	_, failure := k.fetches.Failing()
	known := k.discovery.found.Load()
	var age time.Duration
	if known != nil {
		age = k.clock.Age(known.began)
	}
	switch {
	case known == nil:
	case age > k.maxStale:
		known = nil
	case looks && failure == nil && age < k.refreshEvery:
		return known.url, nil
	}
	if known != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, k.client.timeout/2)
		defer cancel()
	}
	began := k.clock.Read()
	document, err := k.discovery.read(ctx, k.client, failure != nil)
	before := k.discovery.failure.Swap(&err)
	failedBefore := before != nil && *before != nil
	switch {
	case known == nil && err != nil:
		return nil, err
	case err != nil:
		if !failedBefore {
			k.log.Warn("remote: cannot read the discovery document; the last URL of the key set is used",
				"host", k.host, "served_for_at_most", k.maxStale, "error", err)
		}
		return known.url, nil
	case failedBefore && known != nil:
		k.log.Info("remote: the discovery document can be read again", "host", k.host)
	}
	if !run.Commit(func() { k.discovery.found.Store(&foundURL{document.jwks, began}) }) {
		return nil, flight.ErrLate
	}
	return document.jwks, nil
}

// logSkipped logs the keys that were left out of the set, if there are any.
func (k *Keys) logSkipped(skipped []string) {
	if len(skipped) == 0 {
		return
	}
	k.loud.Warn("jwks_keys_skipped", "remote: keys of the set cannot be used safely and are left out; their tokens are refused, others are not affected",
		"host", k.host, "skipped", len(skipped), "first", strings.Join(skipped[:min(3, len(skipped))], "; "))
}

// waitForTurn waits until a fetch for an unknown kid may begin.
func (k *Keys) waitForTurn(ctx context.Context) error {
	last := k.last.Load()
	if s, _ := k.usable(); s == nil || last == nil {
		return nil
	}
	since := k.clock.Age(last.began)
	again := lookAgain - since
	if first := k.clock.Age(last.before); first-since < lookEvery { // the last one was a second one
		again = min(again, lookEvery-first)
	}
	wait := max(again, lookEvery-last.saved-since)
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
func (k *Keys) begin() *attempt {
	this := &attempt{saved: (savedLooks - 1) * lookEvery}
	last := k.last.Load()
	if s, age := k.usable(); s != nil {
		this.idle = k.overdue(s, age) == callWait
		this.before = last.began
		this.saved = min(last.saved+min(k.clock.Age(last.began), savedLooks*lookEvery), savedLooks*lookEvery)
		this.saved = max(0, this.saved-lookEvery)
	}
	this.began = k.clock.Read()
	k.last.Store(this)
	return this
}

// fetchEnded counts the result of a fetch, and logs a change from success to
// failure or back.
func (k *Keys) fetchEnded(err error) {
	k.ended.Add(1)
	if err != nil {
		k.failed.Add(1)
	}
	failedBefore := k.failing
	k.failing = err != nil
	switch {
	case err != nil && !failedBefore:
		k.log.Warn("remote: cannot fetch the key set",
			"host", k.host, "served_for_at_most", k.maxStale, "have_one", k.good.Load() != nil, "error", err)
	case err == nil && failedBefore:
		k.log.Info("remote: the key set can be fetched again", "host", k.host)
	}
}

// lifetime returns the age at which to fetch again, from the server's max-age
// (negative means none) within the limits. It is 10 to 25 % earlier, at random,
// so that clients that started together do not fetch together.
func (k *Keys) lifetime(maxAge time.Duration) time.Duration {
	d := k.refreshEvery
	if maxAge >= 0 {
		d = min(d, max(maxAge, minRefresh))
	}
	return d/4*3 + time.Duration(0.15*rand.Float64()*float64(d))
}
