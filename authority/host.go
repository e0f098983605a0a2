package authority

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	// syncLists is how often a list reads the store, and syncRings how often the
	// revisions of the rings of a Host are read.
	syncLists = time.Second
	syncRings = 15 * time.Second
	// ringLimit is how long Run waits for one ring.
	ringLimit = 2 * time.Second
	// flushLimit is how long Run goes on to write what is owed, and flushEvery how
	// often it tries.
	flushLimit = 5 * time.Second
	flushEvery = 250 * time.Millisecond
)

// Host is what many authorities of one process share: the tenants of a site, say.
// They share one store, the readings of it, the memory for verified tokens, and
// one goroutine for each of what [Host.Run] does. How often the store is read
// does not grow with their number. Nothing else is shared: each has keys,
// revocations, refresh tokens and cached tokens of its own, by its Namespace.
//
// An authority stays with its Host for as long as the process runs. A Host is
// safe for concurrent use; make it with [NewHost].
type Host struct {
	store  Store
	cache  *sessiontoken.Cache
	logger *slog.Logger
	clock  *clock.Clock
	log    *sharedLog
	rings  *sharedRings

	mu         sync.Mutex
	namespaces map[string]bool
	tenants    []*tenant // appended to alone
}

// tenant is an authority, without the type of its states.
type tenant struct {
	namespace string
	ring      *keys.Ring
	list      *revoke.List
}

// NewHost returns a Host without authorities. cache is the memory for verified
// tokens; nil means one of 16 MiB for all tenants. logger is told of what fails:
// for all tenants together ten lines a message and minute, each with the
// namespace; nil means slog.Default(). NewHost does no I/O and starts no
// goroutine.
func NewHost(store Store, cache *sessiontoken.Cache, logger *slog.Logger) (*Host, error) {
	switch {
	case arg.IsNil(store):
		return nil, errors.New("authority: NewHost wants a store")
	case arg.IsUnmade(cache):
		return nil, errors.New("authority: NewHost wants a cache that NewCache made")
	}
	if cache == nil {
		cache = sessiontoken.NewCache(0)
	}
	if logger == nil {
		logger = slog.Default()
	}
	return &Host{
		store: store, cache: cache, logger: slog.New(newFewLines(logger.Handler())), clock: clock.Here(),
		log: newSharedLog(store), rings: newSharedRings(store), namespaces: map[string]bool{},
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

// release gives a namespace back, of an authority that was not made.
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

// all returns the tenants there are now.
func (h *Host) all() []*tenant {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tenants
}

// Run is [Authority.Run] for all authorities of the Host, those that are made
// later too: it reads the store once for all of them, rotates their keys, and
// writes again what the store has not acknowledged to any of them. Start it in
// one goroutine, and no Run of an authority. It has three goroutines, however
// many authorities there are.
//
// When ctx ends it goes on for up to 5 s, to write what is owed, and returns
// ctx.Err(): wait for it before the process ends. Failures of the store do not
// end it; [Host.Ready] tells of them. Should it stop before ctx ends, it logs
// that and returns an error: then start the process anew.
//
// Without Run the authorities read the store when they are used, as those
// without a Host do, and share those readings too.
func (h *Host) Run(ctx context.Context) error {
	if h.store == nil {
		return errors.New("authority: the Host is a zero value: make it with NewHost")
	}
	return runAll(ctx, h.logger, part{"the key rings", h.runRings}, part{"the lists of revocations", h.runLists})
}

// runLists reads the log of revocations for all lists. What a list owes, it
// starts to write whenever it has seen a reading.
func (h *Host) runLists(ctx context.Context) error {
	for ctx.Err() == nil {
		began := h.clock.Read()
		_ = h.log.reading.Do(ctx, 0) // each list is told of the outcome, and logs it
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

// flush writes what any list owes, for as long as flushLimit.
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

// runRings has the rings see what has changed in the store, and write what is due.
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

// errHosted is the error of an authority's own Run.
var errHosted = errors.New("authority: Run of an authority of a Host: start Run of the Host instead")
