package remote

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	crand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/strictjson"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// ErrFeed is what [revoke.Status].Err matches if the feed of revocations cannot
// be used until a configuration changes: the authority names no feed, the feed
// has another origin than the issuer, or it refuses the credential.
var ErrFeed = errors.New("remote: the feed of revocations cannot be used")

const (
	feedSync  = 5 * time.Second  // how often the list reads the feed, if nothing is new
	feedStale = 30 * time.Second // how long the list answers without a reading
	// feedRemembers is the longest MaxSession of an authority.
	feedRemembers = 400 * 24 * time.Hour

	maxFeedBody   = 4 << 20 // bytes of a page
	maxAnswerBody = 4 << 10 // bytes of another answer
	maxFeedCursor = 2048    // bytes
	maxFeedToken  = 4096    // bytes of a credential
	maxFeedKeys   = 16      // keys that are remembered
	maxFeedAge    = time.Hour

	feedRetry     = 250 * time.Millisecond // and up to twice that, before a request that failed is repeated
	feedWait      = 25 * time.Second       // of one long poll at most
	feedWaitEnds  = 500 * time.Millisecond // before the caller's deadline
	feedDiscovery = 10 * time.Minute       // how long a discovered URL is used while the feed answers
	feedURLKept   = 24 * time.Hour         // how long while the document cannot be read
)

// feed is the feed of revocations of an authority, as a store that can be read
// and not written to.
//
// A page is fresh as of a moment at which the authority had not begun to read
// its store yet: the moment at which the request was sent, minus the age that
// the page had when the request arrived. An answer repeats the request's nonce,
// so that an old one, such as that of a cache, is refused.
type feed struct {
	client    client
	token     func(context.Context) (string, error)
	discovery *discovery
	clock     *clock.Clock

	mu     sync.Mutex
	url    *url.URL // of the last valid document, or nil
	found  clock.Instant
	failed bool // the last reading of the feed
	keys   map[string]cipher.Block
}

func newFeed(d *discovery, c client, token func(context.Context) (string, error)) *feed {
	return &feed{client: c, token: token, discovery: d, clock: clock.Here(), keys: map[string]cipher.Block{}}
}

// errNoAppend matches [errors.ErrUnsupported].
var errNoAppend = fmt.Errorf("remote: a feed of revocations is read only: %w", errors.ErrUnsupported)

// ReadOnly tells package revoke that Append always fails.
func (*feed) ReadOnly() {}

// Append returns an error that matches [errors.ErrUnsupported].
func (*feed) Append(ctx context.Context, _ ...revoke.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return errNoAppend
}

// Since returns the entries after a cursor.
func (f *feed) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	p, _, _, err := f.SinceAfter(ctx, cursor, f.clock.Read())
	return p, err
}

// SinceAfter is Since by a reading of the authority's store that may have begun
// before the call, and not before after. It began at asked or later, and ended
// at got or earlier. Package revoke calls it if a store has it.
func (f *feed) SinceAfter(ctx context.Context, cursor string, after clock.Instant) (p revoke.Page, asked, got clock.Instant, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.client.timeout)
	defer cancel()
	p, asked, got, err = f.read(ctx, cursor, after)
	if err != nil && !errors.Is(err, ErrFeed) {
		// The list reads again in feedSync only.
		if pause(ctx, feedRetry+rand.N(feedRetry)); ctx.Err() == nil {
			p, asked, got, err = f.read(ctx, cursor, after)
		}
	}
	f.mu.Lock()
	f.failed = err != nil
	f.mu.Unlock()
	return p, asked, got, err
}

func (f *feed) read(ctx context.Context, cursor string, after clock.Instant) (p revoke.Page, asked, got clock.Instant, err error) {
	values := url.Values{"cursor": {cursor}}
	for range 2 {
		var sent clock.Instant
		var body []byte
		nonce := crand.Text()
		if body, sent, err = f.ask(ctx, nonce, values, maxFeedBody); err != nil {
			return p, asked, got, err
		}
		got = f.clock.Read()
		page, err := parseFeedPage(body, nonce)
		if err != nil {
			return p, asked, got, err
		}
		asked = sent.Before(page.age + page.age/1000)
		if !after.IsZero() && clock.SteadyBetween(after, asked) < 0 {
			values.Set("age", "0") // a page of a reading that begins after the request has arrived
			continue
		}
		block, err := f.key(ctx, page.Key)
		if err != nil {
			return p, asked, got, err
		}
		p, err = page.decrypt(block)
		return p, asked, got, err
	}
	return p, asked, got, errors.New("feed: the page is older than was asked for")
}

// Wait waits until the authority says that there is something after a cursor.
func (f *feed) Wait(ctx context.Context, cursor string) error {
	for {
		most := feedWait
		if left, ok := clock.Left(ctx); ok {
			most = min(most, left-feedWaitEnds)
		}
		if most < feedWaitEnds || ctx.Err() != nil {
			<-ctx.Done()
			return ctx.Err()
		}
		nonce := crand.Text()
		body, _, err := f.ask(ctx, nonce, url.Values{"cursor": {cursor}, "wait": {strconv.FormatInt(most.Milliseconds(), 10)}}, maxAnswerBody)
		if err != nil {
			if errors.Is(err, ErrFeed) {
				return err
			}
			pause(ctx, feedRetry+rand.N(feedRetry))
			continue
		}
		var answer struct {
			Nonce string `json:"nonce"`
			News  bool   `json:"news"`
		}
		if err := decode(body, &answer, nonce, &answer.Nonce); err != nil {
			return err
		}
		if answer.News {
			return nil
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// key returns the cipher of the key with an id. It asks the authority for a key
// that it does not know.
func (f *feed) key(ctx context.Context, id string) (cipher.Block, error) {
	f.mu.Lock()
	block := f.keys[id]
	f.mu.Unlock()
	if block != nil {
		return block, nil
	}
	nonce := crand.Text()
	body, _, err := f.ask(ctx, nonce, url.Values{"key": {id}}, maxAnswerBody)
	if err != nil {
		return nil, fmt.Errorf("feed: the key of the page: %w", err)
	}
	var answer struct {
		Nonce string `json:"nonce"`
		ID    string `json:"id"`
		Key   string `json:"key"`
	}
	if err := decode(body, &answer, nonce, &answer.Nonce); err != nil {
		return nil, err
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(answer.Key)
	if err != nil || len(raw) != 32 || answer.ID != id {
		return nil, errors.New("feed: the authority sent no key of that page")
	}
	if block, err = aes.NewCipher(raw); err != nil {
		return nil, errors.New("feed: the key of the page cannot be used")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.keys) >= maxFeedKeys {
		clear(f.keys)
	}
	f.keys[id] = block
	return block, nil
}

// ask sends a request to the feed, and returns the answer and when the request
// was sent.
func (f *feed) ask(ctx context.Context, nonce string, values url.Values, maxBody int64) (body []byte, sent clock.Instant, err error) {
	u, err := f.locate(ctx)
	if err != nil {
		return nil, sent, err
	}
	token, err := f.token(ctx)
	switch {
	case err != nil:
		return nil, sent, fmt.Errorf("feed: Config.FeedToken: %w", err)
	case len(token) > maxFeedToken, !arg.IsToken68(token):
		return nil, sent, fmt.Errorf("%w: Config.FeedToken returned no bearer token", ErrFeed)
	case !sameOrigin(f.discovery.url, u): // locate checks it too; without it the credential could leave
		return nil, sent, errFeedOrigin
	}
	with := *u
	values.Set("nonce", nonce)
	with.RawQuery = values.Encode()
	sent = f.clock.Read()
	body, _, err = f.client.get(ctx, &with, request{accept: "application/json", noCache: true, token: token, maxBody: maxBody})
	var status statusError
	switch {
	case errors.As(err, &status) && (status == http.StatusUnauthorized || status == http.StatusForbidden):
		return nil, sent, fmt.Errorf("%w: it refuses the credential: %w", ErrFeed, err)
	case err != nil:
		return nil, sent, fmt.Errorf("feed: %w", err)
	}
	return body, sent, nil
}

var (
	errFeedOrigin = fmt.Errorf("%w: the discovery document names one with another scheme, host or port than Config.Issuer", ErrFeed)
	errNoFeed     = fmt.Errorf("%w: the discovery document names none; set authority.Config.FeedTokens", ErrFeed)
)

// locate returns the URL of the feed. It reads the document again after a
// failure, and every feedDiscovery.
func (f *feed) locate(ctx context.Context) (*url.URL, error) {
	f.mu.Lock()
	known, found, failed := f.url, f.found, f.failed
	f.mu.Unlock()
	if known != nil && !failed && f.clock.Age(found) < feedDiscovery {
		return known, nil
	}
	began := f.clock.Read()
	limited, cancel := context.WithTimeout(ctx, f.client.timeout/2)
	defer cancel()
	document, err := f.discovery.read(limited, f.client, failed)
	if err != nil {
		if known != nil && f.clock.Age(found) < feedURLKept {
			return known, nil
		}
		return nil, err
	}
	u, err := f.check(document.feed)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.url, f.found = u, began
	return u, nil
}

// check parses the URL of a feed.
func (f *feed) check(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errNoFeed
	}
	u, err := checkURL(raw, f.discovery.plain)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: its URL in the discovery document %w", ErrFeed, err)
	case u.RawQuery != "" || u.ForceQuery:
		return nil, fmt.Errorf("%w: its URL in the discovery document has a query", ErrFeed)
	case !sameOrigin(f.discovery.url, u):
		return nil, errFeedOrigin
	}
	return u, nil
}

// decode parses an answer, and checks that it is the one to the request with
// this nonce. Members that this version does not know are ignored.
func decode(body []byte, into any, nonce string, repeated *string) error {
	if strictjson.TooDeep(body) || json.Unmarshal(body, into) != nil {
		return errors.New("feed: the answer is malformed")
	}
	if *repeated != nonce {
		return errors.New("feed: the answer is to another request; is there a cache on the way?")
	}
	return nil
}

// feedPage is a page as it is served.
type feedPage struct {
	Nonce   string      `json:"nonce"`
	Age     int64       `json:"age"` // milliseconds
	Key     string      `json:"key"`
	Time    time.Time   `json:"time"`
	Next    string      `json:"next"`
	More    bool        `json:"more"`
	Reset   bool        `json:"reset"`
	Entries []feedEntry `json:"entries"`

	age time.Duration
}

type feedEntry struct {
	Scope  string `json:"scope"`
	Digest string `json:"digest"` // encrypted, as Except
	Except string `json:"except"`
	Before int64  `json:"before"` // Unix milliseconds, as Until
	Until  int64  `json:"until"`
	Skip   bool   `json:"skip"`
}

// parseFeedPage parses a page, which must be the answer to the request with
// this nonce.
func parseFeedPage(body []byte, nonce string) (*feedPage, error) {
	p := &feedPage{Age: -1}
	if err := decode(body, p, nonce, &p.Nonce); err != nil {
		return nil, err
	}
	switch {
	case p.Age < 0 || p.Age > maxFeedAge.Milliseconds():
		return nil, errors.New("feed: the page has no age")
	case p.Key == "" || len(p.Key) > 64:
		return nil, errors.New("feed: the page names no key")
	case p.Time.IsZero() || !isTime(p.Time.UnixMilli()):
		return nil, errors.New("feed: the page has no time")
	case p.Next == "" || len(p.Next) > maxFeedCursor:
		return nil, errors.New("feed: the page has no cursor")
	case p.Entries == nil:
		return nil, errors.New("feed: the page has no entries")
	}
	p.age = time.Duration(p.Age) * time.Millisecond
	return p, nil
}

// isTime reports whether a time is between the years 1 and 9999.
func isTime(ms int64) bool { return ms >= -62135596800000 && ms <= 253402300799999 }

// decrypt returns the page as a store returns it.
func (p *feedPage) decrypt(block cipher.Block) (revoke.Page, error) {
	page := revoke.Page{Next: p.Next, More: p.More, Reset: p.Reset, Time: p.Time.UTC()}
	if len(p.Entries) > 0 {
		page.Entries = make([]revoke.Entry, len(p.Entries))
	}
	for i := range p.Entries {
		from, e := &p.Entries[i], &page.Entries[i]
		digest, ok := decryptDigest(block, from.Digest)
		if !ok || from.Scope == "" || !isTime(from.Before) || !isTime(from.Until) {
			return revoke.Page{}, errors.New("feed: an entry is malformed")
		}
		*e = revoke.Entry{
			Scope: revoke.Scope(from.Scope), Digest: digest, Skip: from.Skip,
			Before: time.UnixMilli(from.Before).UTC(), Until: time.UnixMilli(from.Until).UTC(),
		}
		if from.Except == "" {
			continue
		}
		if e.Except, ok = decryptDigest(block, from.Except); !ok || e.Except == (revoke.Digest{}) {
			return revoke.Page{}, errors.New("feed: an entry is malformed") // zero would mean no exception
		}
	}
	return page, nil
}

func decryptDigest(block cipher.Block, text string) (d revoke.Digest, ok bool) {
	if len(text) != base64.RawURLEncoding.EncodedLen(len(d)) {
		return d, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(d) { // line breaks are skipped
		return d, false
	}
	block.Decrypt(d[:], raw)
	return d, true
}
