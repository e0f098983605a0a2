package revoke

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
)

// Config says how a [List] follows its store.
type Config struct {
	// Store is shared by all replicas. Required.
	Store Store
	// Namespace keeps lists apart that share a store: a list knows and writes the
	// entries of its own alone. All replicas have the same. Optional.
	Namespace string
	// MaxSession is the longest that a session can last, the issuer's: how long
	// an entry has to be remembered. At least 1 s. 0 means 24 h.
	MaxSession time.Duration
	// SyncEvery is how often Run reads the store, and so how soon, with one
	// reading of it, every replica knows. At least 10 ms. 0 means 1 s.
	SyncEvery time.Duration
	// MaxStale is how long the list answers without having read the store: after
	// that every answer is an error. At least twice SyncEvery. 0 means 30 s.
	MaxStale time.Duration
	// MaxSkew is how far the clock of this machine may be from the store's before
	// the list warns, and how far an entry may be ahead of the store's clock to
	// count as its time. At least 1 s. 0 means 1 min.
	MaxSkew time.Duration
	// InsecureAnswerWhenStale lets the list answer from what it has past
	// MaxStale: what others have revoked since is then not revoked here, for as
	// long as the store cannot be read. A list that was never read fails all the
	// same.
	InsecureAnswerWhenStale bool
	// Logger is told what fails, once a reason and minute, and that the store can
	// be read again. Nil means slog.Default().
	Logger *slog.Logger
}

const (
	// margin is how much longer than MaxSession an entry lives.
	margin = 5 * time.Minute
	// keepKeys is how long a key is remembered at least. It outlives every token
	// that was signed with it: a thief makes more, and a verifier that is cut off
	// from the key set goes on trusting it for a while.
	keepKeys = 60 * 24 * time.Hour
	// batch is about how many entries are applied at once: a shard is copied for
	// each batch with an entry in it.
	batch = 100_000
	// askLimit is how long an answer waits for a reading, if there was none yet or
	// nothing was asked for long.
	askLimit = 2 * time.Second
	// beginLimit is how long a beginning or a revocation waits for a reading.
	beginLimit = time.Second
	// revokeLimit is how long a revocation takes at most, and how long Run writes
	// on when it ends.
	revokeLimit = 5 * time.Second
	// writeLimit is how long one write takes at most.
	writeLimit = 4 * time.Second
)

// List knows what was revoked. It is a [Checker]. It is safe for concurrent use;
// make it with [NewList]. Of the zero value every call fails.
type List struct {
	cfg     Config
	logger  *slog.Logger
	local   bool // the store is memory of this process: it has no birth
	clock   *clock.Clock
	made    clock.Instant
	view    *clock.View
	loud    *loud.Log
	syncing *flight.Group // readings
	writing *flight.Group // writes

	known  tables
	state  atomic.Pointer[state]   // nil before the first complete reading
	told   atomic.Pointer[told]    // nil before the first page
	latest atomic.Pointer[latest]  // of all entries that were read or made; nil before
	last   atomic.Pointer[outcome] // of the last reading

	mu      sync.Mutex // of what changes known, and of all that follows
	cursor  string
	pending []Entry // read, and not applied yet
	swept   int     // the next shard to sweep
	sweptAt clock.Instant
	births  births
	reset   *reset                  // a reading of everything that is under way
	restore atomic.Pointer[restore] // what a store that lost data lacks
	newborn atomic.Pointer[Entry]   // a birth that the store has not acknowledged

	owed    owed
	wake    chan struct{} // tells Run that something is owed
	waiting atomic.Bool   // a call of the store's Wait is under way

	cannotWait atomic.Bool // the store's Wait is not supported

	looked atomic.Pointer[clock.Instant] // when a question had the store read for a birth mark

	busy atomic.Bool // a page is being applied
	slow atomic.Bool // a question has waited for the reading under way in vain

	writes                      atomic.Uint64 // that were started
	reads, readFailures         atomic.Uint64
	acknowledged, writeFailures atomic.Uint64
}

// state is what the last complete reading brought.
type state struct {
	synced  clock.Instant // its start
	since   clock.Instant // the first complete reading
	time    int64         // the store's time that it told
	birth   int64         // what is known of sessions that began before is not all; none: of all sessions
	foreign bool          // the store is not the one that was read before
}

// told is when a page told the time that the view goes on from.
type told struct{ at clock.Instant }

type outcome struct{ err error }

// NewList checks the configuration and returns the list for it. An error names
// the field at fault. It does no I/O and starts no goroutine.
func NewList(cfg Config) (*List, error) {
	if arg.IsNil(cfg.Store) {
		return nil, errors.New("revoke: Config.Store is required")
	}
	if !utf8.ValidString(cfg.Namespace) || strings.ContainsRune(cfg.Namespace, 0) {
		return nil, errors.New("revoke: Config.Namespace must be valid UTF-8, without a NUL")
	}
	for _, d := range []struct {
		name        string
		field       *time.Duration
		zero, least time.Duration
	}{
		{"MaxSession", &cfg.MaxSession, 24 * time.Hour, time.Second},
		{"SyncEvery", &cfg.SyncEvery, time.Second, 10 * time.Millisecond},
		{"MaxStale", &cfg.MaxStale, 30 * time.Second, 20 * time.Millisecond},
		{"MaxSkew", &cfg.MaxSkew, time.Minute, time.Second},
	} {
		if err := arg.Duration("revoke: Config."+d.name, *d.field, d.least); err != nil {
			return nil, err
		}
		if *d.field == 0 {
			*d.field = d.zero
		}
	}
	if cfg.MaxStale < 2*cfg.SyncEvery {
		return nil, fmt.Errorf("revoke: Config.MaxStale is %v; it must be at least twice SyncEvery, which is %v", cfg.MaxStale, cfg.SyncEvery)
	}
	c := clock.Here()
	l := &List{cfg: cfg, logger: cfg.Logger, clock: c, made: c.Read(), view: clock.NewView(c), loud: loud.New(cfg.Logger)}
	if l.logger == nil {
		l.logger = slog.Default()
	}
	_, l.local = cfg.Store.(*MemStore)
	l.wake = make(chan struct{}, 1)
	l.owed.entries = map[owedName][]*owedEntry{}
	l.syncing = flight.New(flight.Config{
		Limit: l.readLimit(), Cooldown: cfg.SyncEvery / 2,
		Pause: min(cfg.SyncEvery/4, time.Second), MaxPause: min(cfg.SyncEvery, 4*time.Second),
		Ended: l.readingEnded,
	}, l.read)
	l.writing = flight.New(flight.Config{Limit: writeLimit, Pause: firstPause, MaxPause: lastPause, Ended: l.writingEnded}, l.write)
	return l, nil
}

// RetainFor returns how long the list remembers what was revoked: MaxSession. An
// issuer checks at construction that none of its sessions can outlive that.
func (l *List) RetainFor() time.Duration { return l.cfg.MaxSession }

// Staleness returns the bound that this configuration states: how long after
// another replica's revocation this list may still not know of it, with Run under
// way. While the store answers it is the first, SyncEvery and one reading. Past
// the second, no list answers any more, unless it is told to.
func (l *List) Staleness() (healthy, most time.Duration) {
	return l.cfg.SyncEvery + l.readLimit(), l.cfg.MaxStale
}

// readLimit bounds the reading of one page.
func (l *List) readLimit() time.Duration { return min(l.cfg.MaxStale/2, 5*time.Second) }
