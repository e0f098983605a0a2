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
	minRefresh = time.Minute // what the server's max-age cannot go below

	firstPause = time.Second // after the first failed fetch; it doubles
	maxPause   = 30 * time.Second

	// Fetches for unknown kids: one every lookEvery, and savedLooks can be saved
	// up. The second begins lookAgain after the first, when the copies of caches on
	// the way are over, which the server has allowed one second.
	lookEvery  = 2 * time.Second
	savedLooks = 2
	lookAgain  = 1200 * time.Millisecond
)

// fetchedSet is a set with what is known of its fetch. It does not change once
// it is published.
type fetchedSet struct {
	keys    *keys.Set
	skipped []string      // of its document
	fetch   *attempt      // that brought it
	refresh time.Duration // age at which to fetch again
}

// has reports whether the set answers a question for kid; any set does for none.
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
	saved  time.Duration // towards further fetches for unknown kids
	idle   bool          // the set was stale only because nothing had asked
	failed atomic.Bool
}

// proves reports whether this is the second fetch since asked, or a later one:
// what it did not bring was not published then, whatever caches there are.
func (f *attempt) proves(asked clock.Instant) bool {
	return !f.before.IsZero() && clock.SteadyBetween(asked, f.before) >= 0 &&
		clock.SteadyBetween(asked, f.began) >= lookAgain
}

// Run keeps the set fresh until ctx ends and returns ctx.Err(). It is optional:
// without it KeySet waits for a fetch at first and after a pause. Failures are
// logged, not returned, and tried again as [Keys] says.
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

// untilRefresh is the time left until the set is due: 0 or less if it is, or if
// there is none.
func (k *Keys) untilRefresh() time.Duration {
	s := k.good.Load()
	if s == nil {
		return 0
	}
	return s.refresh - k.clock.Age(s.fetch.began)
}

// refresh is one fetch with all that follows from it.
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
		k.tellSkipped(next.skipped)
	}
	return nil
}

// locate returns the URL of the key set. One that was discovered serves a fetch
// for an unknown kid for RefreshEvery, and any fetch for MaxStale while the
// document cannot be read; half of the fetch's time is kept for the set then.
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
	u, err := k.discovery.read(ctx, k.client, failure != nil)
	before := k.discovery.failure.Swap(&err)
	failedBefore := before != nil && *before != nil
	switch {
	case known == nil && err != nil:
		return nil, err
	case err != nil:
		if !failedBefore {
			k.log.Warn("remote: cannot read the discovery document, and goes on with the URL that it had before",
				"host", k.host, "served_for_at_most", k.maxStale, "error", err)
		}
		return known.url, nil
	case failedBefore && known != nil:
		k.log.Info("remote: the discovery document can be read again", "host", k.host)
	}
	if !run.Commit(func() { k.discovery.found.Store(&foundURL{u, began}) }) {
		return nil, flight.ErrLate
	}
	return u, nil
}

// tellSkipped logs which keys of the set are left out, if any are.
func (k *Keys) tellSkipped(skipped []string) {
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

// fetchEnded counts the outcome of a fetch, and logs it if it changes anything.
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

// lifetime turns the server's max-age (negative = none) into the age at which to
// fetch again: within the limits, and earlier by 10 to 25 % at random, so that
// clients that started together do not stay together.
func (k *Keys) lifetime(maxAge time.Duration) time.Duration {
	d := k.refreshEvery
	if maxAge >= 0 {
		d = min(d, max(maxAge, minRefresh))
	}
	return d/4*3 + time.Duration(0.15*rand.Float64()*float64(d))
}
