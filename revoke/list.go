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

	"github.com/sessiontoken/sessiontoken/event"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/loud"
	"github.com/sessiontoken/sessiontoken/internal/notify"
)

// Config configures a [List].
type Config struct {
	// Store is shared by all replicas. Required.
	Store Store
	// Namespace separates lists that share a store: a list reads and writes the
	// entries of its own namespace alone. All replicas have the same. Optional.
	Namespace string
	// MaxSession is the issuer's MaxSession, for which an entry is remembered.
	// At least 1 s. 0 means 24 h.
	MaxSession time.Duration
	// MaxTTL is the longest TTL of issuers and MaxTTL of verifiers that ask the
	// list. Marks of Changed are remembered for that long, for 1 min and for
	// MaxSkew. At least 1 s. 0 means 24 h, or MaxSession if that is shorter.
	MaxTTL time.Duration
	// SyncEvery is how often Run reads the store. Every replica knows of a
	// revocation after SyncEvery and one reading at most. At least 10 ms. 0
	// means 1 s.
	SyncEvery time.Duration
	// MaxStale is how long the list answers without a reading of the store.
	// After that every call of Check, Now and Begin fails. At least twice
	// SyncEvery. 0 means 30 s.
	MaxStale time.Duration
	// MaxSkew is how far this machine's clock may be from the store's before
	// the list logs a warning. An entry whose time is further than MaxSkew
	// ahead of the store's clock does not advance the list's time. At least 1
	// s. 0 means 1 min.
	MaxSkew time.Duration
	// InsecureAnswerWhenStale lets the list answer past MaxStale: a session
	// that another replica has revoked since is then accepted, for as long as
	// the store cannot be read. Before the first reading the list fails all the
	// same.
	InsecureAnswerWhenStale bool
	// Logger gets a line for each failure, at most one a reason and minute, and
	// one when the store can be read again. Nil means slog.Default().
	Logger *slog.Logger
	// OnEvent gets an event for each call that revokes something or marks a
	// state as changed: see [event.Func]. Optional.
	OnEvent event.Func
	// InsecureEventNames lets the events name subjects and sessions as they
	// are, and not by hashes.
	InsecureEventNames bool
}

const (
	// margin is how much longer than MaxSession and MaxSkew an entry is kept. A
	// login at a provider may take that long, and asks about its groups at its
	// end. Entries that are of no session, such as that of a logout token, are
	// kept for as long.
	margin = 10 * time.Minute
	// keepKeys is how long the revocation of a key is kept at least. That is
	// longer than its tokens live: a thief can make new ones, and a verifier
	// that cannot fetch the key set trusts the key for a while.
	keepKeys = 60 * 24 * time.Hour
	// applyAtOnce is about how many entries are applied at once. Each time,
	// every shard with a new entry is copied.
	applyAtOnce = 100_000
	// askLimit is how long Check and Now wait for a reading, if there was none
	// yet or no call was made for long.
	askLimit = 2 * time.Second
	// beginLimit is how long Begin and a revocation wait for a reading.
	beginLimit = time.Second
	// revokeLimit is how long a revocation takes at most, and how long Run
	// writes after its context has ended.
	revokeLimit = 5 * time.Second
	// longestReading is how long the reading of one page takes at most, for
	// every configuration.
	longestReading = 5 * time.Second
	// writeLimit is how long one write takes at most.
	writeLimit = 4 * time.Second
)

// List holds what was revoked. It is a [Checker]. It is safe for concurrent
// use. Make it with [NewList]: every call of a zero List fails.
type List struct {
	cfg     Config
	logger  *slog.Logger
	local   bool // the store is memory of this process, which has no birth mark
	clock   *clock.Clock
	made    clock.Instant
	view    *clock.View
	loud    *loud.Log
	events  *notify.Sender
	syncing *flight.Group // readings
	writing *flight.Group // writes

	tables tables
	state  atomic.Pointer[state]   // nil before the first complete reading
	timed  atomic.Pointer[timed]   // nil before the first page
	latest atomic.Pointer[latest]  // of all entries that were read or made; nil before the first
	last   atomic.Pointer[outcome] // of the last reading

	mu      sync.Mutex // guards changes of tables, and the fields below
	cursor  string
	pending []Entry // read, and not applied yet
	swept   int     // the next shard to sweep
	sweptAt clock.Instant
	births  births
	reset   *reset                  // a reading of all entries that is under way
	restore atomic.Pointer[restore] // the writing back of lost entries
	newborn atomic.Pointer[Entry]   // a birth mark that the store has not acknowledged

	untold  []Entry // applied, and not told to watches yet; mu guards it
	watches watches

	owed    owed
	wake    chan struct{} // wakes Run for an owed entry
	waiting atomic.Bool   // a call of the store's Wait is under way

	cannotWait atomic.Bool // the store's Wait is not supported

	looked atomic.Pointer[clock.Instant] // when Check last had the store read for a birth mark

	busy atomic.Bool // a page is being applied
	slow atomic.Bool // a call has waited for the reading under way in vain

	writes                      atomic.Uint64 // writes that were started
	reads, readFailures         atomic.Uint64
	acknowledged, writeFailures atomic.Uint64
}

// state is the result of the last complete reading.
type state struct {
	synced  clock.Instant // its start
	since   clock.Instant // the start of the first complete reading
	time    int64         // the store's time
	birth   int64         // the store may lack revocations of sessions that began before; none: it lacks none
	foreign bool          // the store is not the one that was read before
}

// timed is when the page was read whose time the view has.
type timed struct{ at clock.Instant }

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
		{"MaxTTL", &cfg.MaxTTL, 24 * time.Hour, time.Second},
		{"SyncEvery", &cfg.SyncEvery, time.Second, 10 * time.Millisecond},
		{"MaxStale", &cfg.MaxStale, 30 * time.Second, 20 * time.Millisecond},
		{"MaxSkew", &cfg.MaxSkew, time.Minute, time.Second},
	} {
		if err := arg.Duration("revoke: Config."+d.name, *d.field, d.least); err != nil {
			return nil, err
		}
		if *d.field == 0 {
			*d.field = d.zero
			if d.field == &cfg.MaxTTL {
				cfg.MaxTTL = min(cfg.MaxTTL, cfg.MaxSession)
			}
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
	l.events = notify.New(cfg.OnEvent, cfg.InsecureEventNames, l.loud)
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

// RetainFor returns how long the list remembers a revocation: MaxSession. An
// issuer checks at construction that its sessions last no longer.
func (l *List) RetainFor() time.Duration { return l.cfg.MaxSession }

// MaxTTL returns Config.MaxTTL with its default filled in.
func (l *List) MaxTTL() time.Duration { return l.cfg.MaxTTL }

// Staleness returns how long after a revocation at another replica this list
// may not know of it, with Run under way. healthy, SyncEvery and one reading,
// is the bound while the store answers. most is MaxStale: after that the list
// fails, unless InsecureAnswerWhenStale is set.
func (l *List) Staleness() (healthy, most time.Duration) {
	return l.cfg.SyncEvery + l.readLimit(), l.cfg.MaxStale
}

// readLimit returns the limit of reading one page.
func (l *List) readLimit() time.Duration { return min(l.cfg.MaxStale/2, longestReading) }
