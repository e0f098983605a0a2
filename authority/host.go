package authority

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	// syncLists is how often a list reads the store. syncRings is how often a
	// Host reads the revisions of its rings.
	syncLists = time.Second
	syncRings = 15 * time.Second
	// ringLimit is how long Run waits for one ring.
	ringLimit = 2 * time.Second
	// flushLimit is how long Run writes owed entries after its context has
	// ended, and flushEvery how often it tries.
	flushLimit = 5 * time.Second
	flushEvery = 250 * time.Millisecond
)

// Host holds what many authorities of one process share, such as those of the
// tenants of a site: one store, its readings, the memory for verified tokens,
// and the goroutines of [Host.Run]. The number of readings a second does not
// grow with the number of authorities. Nothing else is shared: each authority
// has its own keys, revocations, refresh tokens and cached tokens, by its
// Namespace.
//
// An authority cannot be removed from its Host. A Host is safe for concurrent
// use. Make it with [NewHost].
type Host struct {
	store  Store
	cache  *sessiontoken.Cache
	logger *slog.Logger
	clock  *clock.Clock
	log    *sharedLog
	feed   *feedLog
	rings  *sharedRings

	running atomic.Int32 // calls of Run that have not ended

	mu         sync.Mutex
	namespaces map[string]bool
	tenants    []*tenant // only grows
}

// tenant is an authority without the type of its states.
type tenant struct {
	namespace string
	ring      *keys.Ring
	list      *revoke.List
}

// NewHost returns a Host without authorities. cache is the memory for the
// verified tokens of all tenants; nil means 16 MiB. logger gets a line for each
// failure, with the namespace of the tenant, at most ten a message and minute
// for all tenants together; nil means slog.Default(). NewHost does no I/O and
// starts no goroutine.
func NewHost(store Store, cache *sessiontoken.Cache, logger *slog.Logger) (*Host, error) {
	switch {
	case arg.IsNil(store):
		return nil, errors.New("authority: NewHost: store is required")
	case arg.IsUnmade(cache):
		return nil, errors.New("authority: NewHost: cache was not made by NewCache")
	}
	if cache == nil {
		cache = sessiontoken.NewCache(0)
	}
	if logger == nil {
		logger = slog.Default()
	}
	return &Host{
		store: store, cache: cache, logger: slog.New(newFewLines(logger.Handler())), clock: clock.Here(),
		log: newSharedLog(store), feed: newFeedLog(store), rings: newSharedRings(store), namespaces: map[string]bool{},
	}, nil
}

// reserve takes a namespace for one authority.
func (h *Host) reserve(namespace string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.namespaces[namespace] {
		return errors.New("authority: Config.Namespace is that of another authority of Config.Host")
	}
	h.namespaces[namespace] = true
	return nil
}

// release frees the namespace of an authority that could not be made.
func (h *Host) release(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.namespaces, namespace)
}

func (h *Host) add(t *tenant) {
	h.rings.add(t.namespace)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tenants = append(h.tenants, t)
}

// all returns the present tenants.
func (h *Host) all() []*tenant {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tenants
}

// Run is [Authority.Run] for all authorities of the Host, also those that are
// made later. It reads the store once for all of them, rotates their keys, and
// writes what the store has not acknowledged yet. Start it in one goroutine,
// and do not start the Run of an authority. It uses three goroutines for any
// number of authorities.
//
// After ctx has ended, Run writes owed entries for at most 5 s, and returns
// ctx.Err(): wait for it before the process ends. A failure of the store does
// not end it; [Host.Ready] reports it. If Run stops before ctx ends, it logs
// that and returns an error: restart the process.
//
// Without Run, calls of the authorities cause the readings, as without a Host.
// They share these readings too.
func (h *Host) Run(ctx context.Context) error {
	if h.store == nil {
		return errors.New("authority: the Host is a zero value: make it with NewHost")
	}
	h.running.Add(1)
	defer h.running.Add(-1)
	return runAll(ctx, h.logger, part{"the key rings", h.runRings}, part{"the lists of revocations", h.runLists})
}

// runLists reads the log of revocations for all lists. A list starts to write
// its owed entries after each reading.
func (h *Host) runLists(ctx context.Context) error {
	for ctx.Err() == nil {
		began := h.clock.Read()
		_ = h.log.reading.Do(ctx, 0) // each list gets the error, and logs it
		for _, t := range h.all() {
			if ctx.Err() != nil {
				break
			}
			_ = t.list.Sync(ctx)
		}
		wait(ctx, max(syncLists-jitter(syncLists/8)-h.clock.Steady(began), syncLists/4))
	}
	h.flush()
	return ctx.Err()
}

// flush writes the owed entries of all lists, for at most flushLimit.
func (h *Host) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	for ctx.Err() == nil {
		owing := 0
		for _, t := range h.all() {
			if st := t.list.Status(); st.Owed > 0 || st.Restoring {
				owing++
				_ = t.list.Sync(ctx)
			}
		}
		if owing == 0 {
			return
		}
		wait(ctx, flushEvery)
	}
}

// runRings has the rings read their changes from the store, and write the
// changes that are due.
func (h *Host) runRings(ctx context.Context) error {
	for ctx.Err() == nil {
		began := h.clock.Read()
		err := h.rings.reading.Do(ctx, 0)
		for _, t := range h.all() {
			if ctx.Err() != nil {
				break
			}
			h.syncRing(ctx, t.ring)
		}
		every := syncRings
		if err != nil {
			every = ringLimit
		}
		wait(ctx, max(every-jitter(every/8)-h.clock.Steady(began), time.Second))
	}
	return ctx.Err()
}

func (h *Host) syncRing(ctx context.Context, ring *keys.Ring) {
	ctx, cancel := context.WithTimeout(ctx, ringLimit)
	defer cancel()
	_ = ring.Sync(ctx) // the ring logs it, and keeps it for its Status
}

// errHosted is the error of Run of an authority with a Host.
var errHosted = errors.New("authority: Run of an authority of a Host: start Run of the Host instead")
