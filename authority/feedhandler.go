package authority

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	feedPath = "/.well-known/session-revocations"

	maxFeedWait    = 25 * time.Second
	maxFeedWaiters = 20_000
	maxFeedAnswers = 64       // pages over bigPage that are written at once
	bigPage        = 64 << 10 // bytes
	maxFeedPage    = 3 << 20  // bytes of a page
	maxFeedCursor  = 2048     // bytes of a cursor
	maxFeedQuery   = 8 << 10  // bytes of a query
	maxFeedNonce   = 64       // bytes of a nonce
	maxScope       = 64       // bytes of a scope
	feedWriteLimit = 10 * time.Second
)

// feedHandler serves the revocations of one authority.
type feedHandler struct {
	log       *feedLog
	namespace string
	birth     *revoke.Entry // precedes all entries, or nil
	keys      []feedKey     // the first encrypts
	cipher    cipher.Block
	tokens    [][sha256.Size]byte
	check     func(*http.Request) bool
	plainHTTP bool
	clock     *clock.Clock
	loud      *loud.Log
	pages     *flight.Keyed[feedCursor, *feedPage]
	waiters   atomic.Int64
	answers   atomic.Int64 // big pages that are being written
	counted   feedCounters
}

// feedPage is a page as it is served, without what differs between readers.
type feedPage struct {
	*storePage
	body []byte // a JSON object without its opening brace
	more bool   // the reader has something to read
}

// newFeedHandler makes the feed of a configuration that was checked.
func newFeedHandler[T any](cfg *Config[T], log *feedLog) (*feedHandler, error) {
	h := &feedHandler{
		log: log, namespace: cfg.Namespace, check: cfg.FeedCheck, plainHTTP: cfg.HTTP.TLSInFront, clock: clock.Here(), loud: loud.New(cfg.Logger),
		pages: flight.NewKeyed[feedCursor, *feedPage](flight.KeyedConfig{
			Limit: readLimit, Pause: 100 * time.Millisecond, MaxPause: time.Second, MaxRuns: 2 * feedRuns, MaxKept: feedPages,
		}),
	}
	h.log.serve(cfg.Namespace)
	if m, ok := h.log.store.(memoryFeed); ok {
		birth := m.birth()
		h.birth = &birth
	}
	for _, token := range cfg.FeedTokens {
		h.tokens = append(h.tokens, sha256.Sum256([]byte(token)))
	}
	var err error
	if h.keys, err = newFeedKeys(cfg.Secrets, cfg.Issuer); err != nil {
		return nil, err
	}
	h.cipher, err = aes.NewCipher(h.keys[0].key)
	return h, err
}

// permits reports whether a request has a credential of the feed. It takes the
// same steps for every token and for none: it compares hashes of one length,
// and compares all of them.
func (h *feedHandler) permits(r *http.Request) bool {
	presented := sha256.Sum256([]byte(bearerOf(r)))
	same := 0
	for i := range h.tokens {
		same |= subtle.ConstantTimeCompare(presented[:], h.tokens[i][:])
	}
	return same == 1 || h.check != nil && h.check(r)
}

// bearerOf returns the bearer token of a request, or "" if it has none, several
// or one that is too long. No token of a feed is as short as that.
func bearerOf(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || len(token) > maxFeedToken {
		return ""
	}
	return token
}

func (h *feedHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	arrived := h.clock.Read()
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	switch {
	case r.Method != http.MethodGet:
		header.Set("Allow", http.MethodGet)
		http.Error(w, "GET only", http.StatusMethodNotAllowed)
		return
	case r.TLS == nil && !h.plainHTTP && !arg.IsLocalPeer(r.RemoteAddr):
		h.counted.plainHTTP.Add(1)
		h.loud.Warn("feed_plain_http", "authority: the feed of revocations is served over https only, and a request from another host came over plain http; if a proxy there ends TLS, set Config.HTTP.TLSInFront")
		http.Error(w, "served over https only", http.StatusForbidden)
		return
	case !h.permits(r):
		h.counted.unauthorized.Add(1)
		h.loud.Warn("feed_unauthorized", "authority: a request for the feed of revocations has no credential of Config.FeedTokens; check the FeedToken of the APIs")
		header.Set("WWW-Authenticate", `Bearer realm="session-revocations"`)
		http.Error(w, "a credential of the feed is required", http.StatusUnauthorized)
		return
	}
	q, err := parseFeedQuery(r.URL.RawQuery)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writes := http.NewResponseController(w)
	_ = writes.SetWriteDeadline(clock.In(q.wait + readLimit + feedWriteLimit)) // not supported: the server has its own
	defer func() {
		_ = writes.Flush()
		_ = writes.SetWriteDeadline(time.Time{})
	}()
	switch {
	case q.key != "":
		h.serveKey(w, q)
	case q.waits:
		h.serveNews(w, r, q)
	default:
		h.servePage(w, r, q, arrived)
	}
}

// feedQuery is what a reader asks for.
type feedQuery struct {
	nonce  string // repeated in the answer, by which the reader knows that it is not an old one
	cursor string
	key    string        // the id of a key
	waits  bool          // the reader asks for news, and not for a page
	wait   time.Duration // how long at most
	age    time.Duration // how old a page may be; negative if the reader does not say
}

// parseFeedQuery parses a query. A parameter that it does not know is ignored.
func parseFeedQuery(raw string) (q feedQuery, err error) {
	if len(raw) > maxFeedQuery {
		return q, errors.New("the query is too long")
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, errors.New("the query is malformed")
	}
	q.age = -1
	for name, value := range values {
		known := true
		switch name {
		case "nonce":
			q.nonce = value[0]
			err = checkText(name, q.nonce, maxFeedNonce)
		case "key":
			q.key = value[0]
			err = checkText(name, q.key, maxFeedNonce)
		case "cursor":
			if q.cursor = value[0]; len(q.cursor) > maxFeedCursor {
				err = errors.New("cursor is too long")
			}
		case "wait":
			q.waits = true
			q.wait, err = milliseconds(name, value[0])
			q.wait = min(q.wait, maxFeedWait)
		case "age":
			q.age, err = milliseconds(name, value[0])
		default:
			known = false
		}
		if known && len(value) > 1 {
			err = fmt.Errorf("%s is there more than once", name)
		}
		if err != nil {
			return feedQuery{}, err
		}
	}
	if q.nonce == "" {
		return feedQuery{}, errors.New("nonce is required")
	}
	return q, nil
}

// checkText returns an error unless a value is a short word, which can be part
// of an answer as it is.
func checkText(name, value string, most int) error {
	if value == "" || len(value) > most || strings.Trim(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Errorf("%s must have 1 to %d characters of base64url", name, most)
	}
	return nil
}

func milliseconds(name, value string) (time.Duration, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s must be a number of milliseconds", name)
	}
	return time.Duration(n) * time.Millisecond, nil
}

// serveKey answers with a key by its id.
func (h *feedHandler) serveKey(w http.ResponseWriter, q feedQuery) {
	for _, k := range h.keys {
		if k.id == q.key {
			h.write(w, `{"nonce":"`+q.nonce+`","id":"`+k.id+`","key":"`+base64.RawURLEncoding.EncodeToString(k.key)+`"}`, nil)
			return
		}
	}
	http.Error(w, "no such key", http.StatusNotFound)
}

// serveNews answers when there is something to read after the cursor, or when
// the time is over. It serves no page: a page after a long wait could not prove
// that it is fresh.
func (h *feedHandler) serveNews(w http.ResponseWriter, r *http.Request, q feedQuery) {
	if h.waiters.Add(1) > maxFeedWaiters {
		h.waiters.Add(-1)
		h.counted.busy.Add(1)
		h.refuse(w, "too many readers wait", 5)
		return
	}
	defer h.waiters.Add(-1)
	news, total := h.log.state(h.namespace)
	p, err := h.page(r.Context(), feedCursor{q.cursor, total, ""})
	if err != nil {
		h.unavailable(w, err)
		return
	}
	changed := p.more
	if !changed {
		changed, err = h.log.await(r.Context(), h.namespace, p.Next, news, q.wait)
	}
	if err != nil {
		h.unavailable(w, err)
		return
	}
	h.counted.news.Add(1)
	h.write(w, `{"nonce":"`+q.nonce+`","news":`+strconv.FormatBool(changed)+`}`, nil)
}

// servePage answers with the page after the cursor. Its age is how long before
// the request arrived the reading of the store began. The reader counts it from
// the moment at which it sent the request, so that no delay on the way makes
// the page look fresher than it is.
func (h *feedHandler) servePage(w http.ResponseWriter, r *http.Request, q feedQuery, arrived clock.Instant) {
	_, total := h.log.state(h.namespace)
	p, err := h.page(r.Context(), feedCursor{q.cursor, total, ""})
	if err == nil && q.age >= 0 && clock.AgeBetween(p.asked, arrived) > q.age {
		p, err = h.page(r.Context(), feedCursor{q.cursor, total, q.nonce})
	}
	if err != nil {
		h.unavailable(w, err)
		return
	}
	if len(p.body) > bigPage {
		if h.answers.Add(1) > maxFeedAnswers {
			h.answers.Add(-1)
			h.counted.busy.Add(1)
			h.refuse(w, "too many pages are being sent", 1)
			return
		}
		defer h.answers.Add(-1)
	}
	h.counted.pages.Add(1)
	age := max(0, clock.AgeBetween(p.asked, arrived)+time.Millisecond-1)
	h.write(w, `{"nonce":"`+q.nonce+`","age":`+strconv.FormatInt(age.Milliseconds(), 10)+`,`, p.body)
}

// write sends an answer in two parts.
func (h *feedHandler) write(w http.ResponseWriter, head string, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(head)+len(body)))
	_, err := w.Write([]byte(head))
	if err == nil && len(body) > 0 {
		_, _ = w.Write(body) // a reader that went away
	}
}

func (h *feedHandler) unavailable(w http.ResponseWriter, err error) {
	if !errors.Is(err, context.Canceled) {
		h.counted.unavailable.Add(1)
		h.loud.Warn("feed_unavailable", "authority: the feed of revocations cannot be served; check the store. APIs that follow it refuse all sessions after 30 s", slog.Any("error", err))
	}
	h.refuse(w, "the revocations cannot be read at the moment", 1)
}

func (h *feedHandler) refuse(w http.ResponseWriter, reason string, after int) {
	w.Header().Set("Retry-After", strconv.Itoa(after))
	http.Error(w, reason, http.StatusServiceUnavailable)
}

// page returns the page after a cursor as it is served.
func (h *feedHandler) page(ctx context.Context, key feedCursor) (*feedPage, error) {
	return h.pages.Do(ctx, key, readLimit, func(ctx context.Context) (*feedPage, time.Duration, error) {
		p, err := h.log.page(ctx, key)
		if err != nil {
			return nil, 0, err
		}
		made, err := h.encode(key.cursor, p)
		if err != nil {
			return nil, 0, err
		}
		return made, max(1, feedKeeps-h.clock.Age(p.asked)), nil
	})
}

// encode returns a page with the entries of the namespace, as JSON.
func (h *feedHandler) encode(cursor string, p *storePage) (*feedPage, error) {
	if len(p.Next) > maxFeedCursor {
		return nil, errors.New("the store's cursor is too long")
	}
	b := []byte(`"key":"` + h.keys[0].id + `","time":"` + p.Time.UTC().Format(time.RFC3339Nano) + `","next":`)
	b, err := jsontext.AppendQuote(b, p.Next)
	if err != nil {
		return nil, errors.New("the store's cursor is not text")
	}
	if p.More {
		b = append(b, `,"more":true`...)
	}
	reset := p.Reset && cursor != ""
	if reset {
		b = append(b, `,"reset":true`...)
	}
	b = append(b, `,"entries":[`...)
	empty := len(b)
	if h.birth != nil && (reset || cursor == "") {
		b = h.appendEntry(b, h.birth)
	}
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Namespace != h.namespace {
			continue
		}
		if len(e.Scope) > maxScope {
			return nil, errors.New("the store holds a scope that is too long")
		}
		if len(b) > empty {
			b = append(b, ',')
		}
		b = h.appendEntry(b, e)
	}
	more := len(b) > empty || reset || p.More
	if b = append(b, `]}`...); len(b) > maxFeedPage {
		return nil, errors.New("the store's page is too long")
	}
	bare := *p
	bare.Entries = nil // they are in the body
	return &feedPage{storePage: &bare, body: b, more: more}, nil
}

// appendEntry appends an entry, whose digests it encrypts.
func (h *feedHandler) appendEntry(b []byte, e *revoke.Entry) []byte {
	b = append(b, `{"scope":`...)
	b, _ = jsontext.AppendQuote(b, string(e.Scope)) // invalid UTF-8 is replaced, and no reader knows such a scope
	b = h.appendDigest(append(b, `,"digest":"`...), e.Digest)
	if e.Except != (revoke.Digest{}) {
		b = h.appendDigest(append(b, `","except":"`...), e.Except)
	}
	b = strconv.AppendInt(append(b, `","before":`...), e.Before.UnixMilli(), 10)
	b = strconv.AppendInt(append(b, `,"until":`...), e.Until.UnixMilli(), 10)
	if e.Skip {
		b = append(b, `,"skip":true`...)
	}
	return append(b, '}')
}

func (h *feedHandler) appendDigest(b []byte, d revoke.Digest) []byte {
	h.cipher.Encrypt(d[:], d[:])
	return base64.RawURLEncoding.AppendEncode(b, d[:])
}
