package sessionhttp

import (
	"container/heap"
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/revoke"
)

const (
	// maxReloads is how many connections of a Sessions are renewed at once.
	maxReloads = 64
	// lookEvery is how often the time is looked at: the timer stands still while
	// the machine is suspended.
	lookEvery = 10 * time.Second
	// firstReload and lastReload bound the pause after a renewal that failed.
	firstReload, lastReload = time.Second, 30 * time.Second
)

// lives are the live connections of a Sessions.
type lives[T any] struct {
	mu      sync.Mutex
	heap    byDeadline[T]
	timer   *time.Timer // nil without connections
	queue   []*Live[T]  // to renew
	workers int         // goroutines that renew
}

// byDeadline is a heap.
type byDeadline[T any] []*Live[T]

func (h byDeadline[T]) Len() int           { return len(h) }
func (h byDeadline[T]) Less(i, j int) bool { return h[i].deadline < h[j].deadline }
func (h byDeadline[T]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

func (h *byDeadline[T]) Push(x any) {
	l := x.(*Live[T])
	l.place = int32(len(*h))
	*h = append(*h, l)
}

func (h *byDeadline[T]) Pop() any {
	n := len(*h) - 1
	l := (*h)[n]
	(*h)[n], *h = nil, (*h)[:n]
	l.place = -1
	return l
}

// remove removes a connection that has ended.
func (ls *lives[T]) remove(l *Live[T]) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l.place >= 0 {
		heap.Remove(&ls.heap, int(l.place))
	}
	if len(ls.heap) == 0 {
		ls.heap = nil
		if ls.timer != nil {
			ls.timer.Stop()
			ls.timer = nil
		}
	}
}

func (ls *lives[T]) size() int {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return len(ls.heap)
}

// never is later than all other times.
const never = math.MaxUint32

// unixSeconds returns t in Unix seconds, rounded down.
func unixSeconds(t time.Time) uint32 { return uint32(max(0, min(t.Unix(), never-1))) }

// visit ends a connection whose time has come, or renews it, and schedules the
// next visit.
func (s *Sessions[T]) visit(l *Live[T], now time.Time) {
	ls := &s.lives
	ls.mu.Lock()
	next, cause := s.nextOf(l, unixSeconds(now))
	if cause != nil {
		ls.mu.Unlock()
		l.end(cause, context.Canceled)
		return
	}
	if l.renewAt <= unixSeconds(now) {
		l.renewAt = never
		s.enqueue(l)
	}
	if l.Err() == nil {
		l.deadline = min(next, l.renewAt)
		if l.place >= 0 {
			heap.Fix(&ls.heap, int(l.place))
		} else {
			heap.Push(&ls.heap, l)
		}
		if l.place == 0 {
			s.setTimer(now)
		}
	}
	ls.mu.Unlock()
}

// setTimer lets the timer end at the first deadline. lives.mu is held.
func (s *Sessions[T]) setTimer(now time.Time) {
	ls := &s.lives
	wait := max(1, min(lookEvery, clock.Between(now, time.Unix(int64(ls.heap[0].deadline), 0))))
	if ls.timer == nil {
		ls.timer = time.AfterFunc(wait, s.visitDue)
		return
	}
	ls.timer.Reset(wait)
}

// visitDue visits the connections whose deadline has come.
func (s *Sessions[T]) visitDue() {
	ls := &s.lives
	now, err := s.cfg.Verifier.Now(context.Background())
	var due []*Live[T]
	ls.mu.Lock()
	for err == nil && len(ls.heap) > 0 && ls.heap[0].deadline <= unixSeconds(now) {
		due = append(due, heap.Pop(&ls.heap).(*Live[T]))
	}
	switch {
	case len(ls.heap) > 0 && err == nil:
		s.setTimer(now)
	case len(ls.heap) > 0 && ls.timer != nil: // the list does not know, and ends them
		ls.timer.Reset(time.Second)
	}
	ls.mu.Unlock()
	for _, l := range due {
		s.visit(l, now)
	}
}

// nextOf returns when a connection ends at the latest, or why it ends now.
// lives.mu is held.
func (s *Sessions[T]) nextOf(l *Live[T], now uint32) (next uint32, cause error) {
	c := l.claims.Load()
	expires := unixSeconds(c.Expires.Add(s.leeway))
	if !l.renews {
		if now >= expires {
			return 0, sessiontoken.ErrExpired
		}
		return expires, nil
	}
	over, idle := s.endOf(c), l.used.Load()+uint32(s.issuer.IdleTimeout/time.Second)
	switch {
	case now >= over:
		return 0, ErrMaxSession
	case now >= idle:
		return 0, ErrIdle
	case now >= expires:
		return 0, &notKnown{l.lastFailure()}
	}
	return min(over, idle, expires), nil
}

// endOf returns when a session ends at the latest, as issuers have it.
func (s *Sessions[T]) endOf(c *sessiontoken.Claims[T]) uint32 {
	began := c.Began
	if a := c.Actor(); a != nil && a.Began.Before(began) {
		began = a.Began
	}
	return unixSeconds(began.Add(s.issuer.MaxSession))
}

// renewalOf returns when a connection with these claims is renewed: at a random
// time in the second half of the token's life, less its last eighth. Claims
// that are valid until the end of the session are not renewed.
func (l *Live[T]) renewalOf(c *sessiontoken.Claims[T], now time.Time) uint32 {
	if !l.renews || unixSeconds(c.Expires) >= l.sessions.endOf(c) {
		return never
	}
	life := clock.Between(c.IssuedAt, c.Expires)
	at := c.IssuedAt.Add(life/2 + rand.N(life*3/8+1))
	if left := clock.Between(now, c.Expires); at.Before(now) && left > 0 {
		at = now.Add(rand.N(left/4 + 1))
	}
	return unixSeconds(at)
}

func (l *Live[T]) lastFailure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rare == nil || l.rare.failed == nil {
		return errOpLate
	}
	return l.rare.failed
}

// renewSoon renews a connection as soon as maxReloads permits.
func (s *Sessions[T]) renewSoon(l *Live[T]) {
	s.lives.mu.Lock()
	defer s.lives.mu.Unlock()
	s.enqueue(l)
}

// enqueue adds a connection to those to renew. lives.mu is held.
func (s *Sessions[T]) enqueue(l *Live[T]) {
	ls := &s.lives
	if l.queued {
		return
	}
	l.queued = true
	ls.queue = append(ls.queue, l)
	if ls.workers < maxReloads {
		ls.workers++
		go s.renewQueued()
	}
}

// renewQueued renews connections until none is left.
func (s *Sessions[T]) renewQueued() {
	ls := &s.lives
	for {
		ls.mu.Lock()
		if len(ls.queue) == 0 {
			ls.queue = nil
			ls.workers--
			ls.mu.Unlock()
			return
		}
		l := ls.queue[0]
		ls.queue[0], ls.queue = nil, ls.queue[1:]
		ls.mu.Unlock()
		s.reload(l)
	}
}

// reload renews a connection by Load.
func (s *Sessions[T]) reload(l *Live[T]) {
	if l.Err() != nil {
		return
	}
	old := l.claims.Load()
	c, err := within(l.parent, &s.reloading, opLimit, func(ctx context.Context) (*sessiontoken.Claims[T], error) {
		return s.cfg.Issuer.Reload(ctx, old, s.load)
	})
	switch {
	case err == nil:
		s.counted.renewals.Add(1)
		if !l.claims.CompareAndSwap(old, c) {
			c = l.claims.Load() // of a newer token
		}
		l.forgetFailures()
		l.renewed(c)
		return
	case isVerdict(err, ErrSessionOver):
		l.end(ErrSessionOver, context.Canceled)
		return
	case isVerdict(err, sessiontoken.ErrRevoked):
		l.end(revoke.ErrRevoked, context.Canceled)
		return
	case isVerdict(err, sessiontoken.ErrExpired):
		l.end(ErrMaxSession, context.Canceled)
		return
	}
	s.counted.renewalsFailed.Add(1)
	s.log.Warn("renewal_failed", "sessionhttp: a live connection could not be renewed; it ends when its claims expire: "+faultOf(err).message, "err", err)
	pause := l.failed(err)
	now, err := s.cfg.Verifier.Now(context.Background())
	s.lives.mu.Lock()
	l.queued = false
	if err == nil {
		left := clock.Between(now, old.Expires)
		l.renewAt = unixSeconds(now.Add(min(pause, left/4))) + 1
	}
	s.lives.mu.Unlock()
	if err == nil {
		s.visit(l, now)
	}
}

// failed records a failure and returns the pause after it.
func (l *Live[T]) failed(err error) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rare == nil {
		l.rare = new(rare)
	}
	pause := min(lastReload, firstReload<<min(l.rare.failures, 10))
	l.rare.failed = err
	l.rare.failures++
	return pause/2 + rand.N(pause)
}

func (l *Live[T]) forgetFailures() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rare != nil {
		l.rare.failed, l.rare.failures = nil, 0
	}
}
