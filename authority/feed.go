package authority

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	// feedKeeps is how long a page is served again to readers with its cursor.
	feedKeeps = 200 * time.Millisecond
	// feedReads is how many readings of the store a second the feed makes at
	// most, and feedRuns how many at once.
	feedReads = 500
	feedRuns  = 8
	// feedPages is how many pages are kept at most.
	feedPages = 16
	// feedWatch is how long one run of the watch takes, and feedPoll how often
	// it reads a store that cannot wait.
	feedWatch = 10 * time.Second
	feedPoll  = 250 * time.Millisecond
	// feedApart is the least time between two items of news: entries that come
	// faster share one.
	feedApart = 20 * time.Millisecond
)

var errFeedRate = errors.New("the feed reads the store too often")

// feedLog reads the log of a store for the readers of feeds. It is shared by
// the authorities of a Host.
//
// Readers with one cursor share a reading. Waiting readers share the watch: one
// run that waits for the store's next entry, on behalf of all of them. It
// counts the entries of each namespace, its news.
type feedLog struct {
	store revoke.Store
	clock *clock.Clock
	pages *flight.Keyed[feedCursor, *storePage]
	watch *flight.Group

	mu         sync.Mutex
	watched    string            // the cursor of the watch; empty if it has none
	total      uint64            // the news of all namespaces
	news       map[string]uint64 // by namespace, of those that serve a feed
	newsAt     clock.Instant     // of the last item
	cannotWait bool              // the store does not support Wait
	here       chan struct{}     // gets a value when this process has added entries
	second     clock.Instant     // in which readings are counted
	readings   int
}

// feedCursor is a cursor with the total of news when it was asked for: a page
// that was read before the last news is not served again.
type feedCursor struct {
	cursor string
	total  uint64
	only   string // not empty: of one request, which shares no reading
}

// storePage is a page of the store. The reading began at asked.
type storePage struct {
	revoke.Page
	asked clock.Instant
}

func newFeedLog(store Store) *feedLog {
	f := &feedLog{store: store, clock: clock.Here(), news: map[string]uint64{}, here: make(chan struct{}, 1)}
	if m, ok := store.(*memory); ok {
		f.store = memoryFeed{m}
	}
	f.pages = flight.NewKeyed[feedCursor, *storePage](flight.KeyedConfig{
		Limit: readLimit, Pause: 100 * time.Millisecond, MaxPause: time.Second, MaxRuns: feedRuns, MaxKept: feedPages,
	})
	f.watch = flight.New(flight.Config{Limit: feedWatch + 2*readLimit, Pause: 100 * time.Millisecond, MaxPause: time.Second}, f.runWatch)
	return f
}

// serve adds a namespace whose news is counted.
func (f *feedLog) serve(namespace string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.news[namespace] = 0
}

// state returns the news of a namespace and of all.
func (f *feedLog) state(namespace string) (news, total uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.news[namespace], f.total
}

// page returns the page after a cursor, by a reading that no news came after.
func (f *feedLog) page(ctx context.Context, key feedCursor) (*storePage, error) {
	return f.pages.Do(ctx, key, readLimit, func(ctx context.Context) (*storePage, time.Duration, error) {
		if !f.mayRead() {
			return nil, 0, errFeedRate
		}
		p := &storePage{asked: f.clock.Read()}
		var err error
		p.Page, err = f.store.Since(ctx, key.cursor)
		switch {
		case err != nil:
			return nil, 0, err
		case p.Time.IsZero():
			return nil, 0, errors.New("the store returned no time")
		}
		return p, feedKeeps, nil
	})
}

// mayRead counts a reading, and reports whether it may be made.
func (f *feedLog) mayRead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.second.IsZero() || f.clock.Age(f.second) >= time.Second {
		f.second, f.readings = f.clock.Read(), 0
	}
	f.readings++
	return f.readings <= feedReads
}

// await waits until a namespace has other news than before, and reports whether
// it has. next is the cursor of a reading at which it had that news.
func (f *feedLog) await(ctx context.Context, namespace, next string, before uint64, atMost time.Duration) (bool, error) {
	began := f.clock.Read()
	for {
		f.mu.Lock()
		news := f.news[namespace]
		if f.watched == "" {
			f.watched = next
		}
		f.mu.Unlock()
		left := atMost - f.clock.Steady(began)
		if news != before || left <= 0 {
			return news != before, nil
		}
		switch started, err := f.watch.Try(ctx, left); {
		case errors.Is(err, flight.ErrWaited):
		case err != nil:
			return false, err
		case !started:
			return false, flight.ErrLate
		}
	}
}

// runWatch waits for the store's next entry of a namespace that serves a feed,
// for feedWatch at most.
func (f *feedLog) runWatch(ctx context.Context, r *flight.Run) error {
	began := f.clock.Read()
	for {
		f.mu.Lock()
		cursor, newsAt, cannotWait := f.watched, f.newsAt, f.cannotWait
		f.mu.Unlock()
		if cursor == "" {
			return nil // the readers know one
		}
		if !newsAt.IsZero() {
			wait(ctx, feedApart-f.clock.Age(newsAt))
		}
		p, err := f.read(ctx, cursor)
		if err != nil {
			return err
		}
		news := false
		if !r.Commit(func() { news = f.take(cursor, p) }) {
			return flight.ErrLate
		}
		left := feedWatch - f.clock.Steady(began)
		switch {
		case p.More:
			continue
		case news, left <= 0:
			return nil
		case cannotWait:
			f.awaitHere(ctx, min(left, feedPoll))
		default:
			f.awaitStore(ctx, p.Next, left)
		}
	}
}

func (f *feedLog) read(ctx context.Context, cursor string) (revoke.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	p, err := f.store.Since(ctx, cursor)
	if err == nil && p.More && p.Next == cursor {
		err = errors.New("the store returns the same page again")
	}
	return p, err
}

// appended tells the watch that this process has added entries, so that it does
// not wait for its next reading.
func (f *feedLog) appended() {
	select {
	case f.here <- struct{}{}:
	default: // it is told already
	}
}

// awaitHere waits for entries that this process adds, for at most atMost.
func (f *feedLog) awaitHere(ctx context.Context, atMost time.Duration) {
	t := time.NewTimer(atMost)
	defer t.Stop()
	select {
	case <-f.here:
	case <-t.C:
	case <-ctx.Done():
	}
}

// tellingStore is a store that tells of each Append that succeeded.
type tellingStore struct {
	revoke.Store
	appended func() // or nil
}

func (s tellingStore) Append(ctx context.Context, entries ...revoke.Entry) error {
	err := s.Store.Append(ctx, entries...)
	if err == nil && s.appended != nil {
		s.appended()
	}
	return err
}

// awaitStore waits for the store's next entry, for at most atMost.
func (f *feedLog) awaitStore(ctx context.Context, cursor string, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	switch err := f.store.Wait(ctx, cursor); {
	case err == nil:
		wait(ctx, time.Millisecond) // so that many entries are one item of news
	case errors.Is(err, errors.ErrUnsupported):
		f.mu.Lock()
		f.cannotWait = true
		f.mu.Unlock()
	default:
		wait(ctx, feedPoll)
	}
}

// take counts the news in a page of the watch, and reports whether there is
// some. If the store has lost its data, that is news for all.
func (f *feedLog) take(cursor string, p revoke.Page) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = p.Next
	if p.Reset {
		f.watched = ""
		for namespace := range f.news {
			f.news[namespace]++
		}
		f.total++
		f.newsAt = f.clock.Read()
		return true
	}
	for i := range p.Entries {
		if _, ok := f.news[p.Entries[i].Namespace]; ok {
			f.news[p.Entries[i].Namespace]++
			news = true
		}
	}
	if news {
		f.total++
		f.newsAt = f.clock.Read()
	}
	return news
}

// memoryFeed is the log of a Memory store. Its cursors hold the epoch of the
// store: another process numbers its entries alike.
type memoryFeed struct{ *memory }

func (m memoryFeed) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	number, known := strings.CutPrefix(cursor, m.epoch+".")
	if !known {
		number = ""
	}
	p, err := m.revocationStore.Since(ctx, number)
	p.Reset = p.Reset || cursor != "" && !known
	p.Next = m.epoch + "." + p.Next
	return p, err
}

func (m memoryFeed) Wait(ctx context.Context, cursor string) error {
	number, known := strings.CutPrefix(cursor, m.epoch+".")
	if !known {
		return nil
	}
	return m.revocationStore.Wait(ctx, number)
}

// birth returns a birth mark for a store that has none: a Memory has lost no
// entry since it was made.
func (m memoryFeed) birth() revoke.Entry {
	sum := sha256.Sum256([]byte(m.epoch))
	return revoke.Entry{
		Scope: revoke.Birth, Digest: revoke.Digest(sum[:16]), Before: m.born, Until: m.born.AddDate(100, 0, 0),
	}
}

// feedKey is a key with which the digests in pages are encrypted: a digest is
// one block of AES. Without the key a page names no session and no subject, not
// even to a reader with a list of all names.
type feedKey struct {
	id  string
	key []byte
}

const (
	useFeed   = "feed"    // AES-256 over the digests in the feed
	useFeedID = "feed id" // the public name of that key
)

// newFeedKeys returns the key of each secret.
func newFeedKeys(secrets [][]byte, issuer string) (made []feedKey, err error) {
	feed, err := derived(secrets, issuer, useFeed)
	if err != nil {
		return nil, err
	}
	ids, err := derived(secrets, issuer, useFeedID)
	if err != nil {
		return nil, err
	}
	for i, key := range feed {
		made = append(made, feedKey{base64.RawURLEncoding.EncodeToString(ids[i][:12]), key})
	}
	return made, nil
}

// minFeedToken and maxFeedToken bound the length of a credential.
const (
	minFeedToken = 32
	maxFeedToken = 4096
)

// checkFeedTokens returns an error for a credential that cannot be safe. It
// names the token by its index.
func checkFeedTokens(tokens []string) error {
	seen := map[string]int{}
	for i, token := range tokens {
		switch first, again := seen[token]; {
		case len(token) < minFeedToken || len(token) > maxFeedToken:
			return fmt.Errorf("authority: Config.FeedTokens[%d] has %d characters; it must have at least %d random ones, such as 'openssl rand -hex 32' prints, and at most %d", i, len(token), minFeedToken, maxFeedToken)
		case !arg.IsToken68(token):
			return fmt.Errorf("authority: Config.FeedTokens[%d] has a character that a bearer token cannot have", i)
		case again:
			return fmt.Errorf("authority: Config.FeedTokens[%d] is the same as Config.FeedTokens[%d]", i, first)
		}
		seen[token] = i
	}
	return nil
}
