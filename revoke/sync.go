package revoke

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

// Run reads the store every SyncEvery until ctx ends. Then it writes the owed
// entries, for at most 5 s, and returns ctx.Err(). A failure of the store does
// not end it.
//
// Without Run, calls cause the readings: in the background if the last reading
// is older than twice SyncEvery, and before the call returns if it is older
// than MaxStale. The list then knows of revocations at other replicas after
// MaxStale at most.
func (l *List) Run(ctx context.Context) error {
	if l.syncing == nil {
		return errZero
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.writeOn(ctx)
	}()
	defer func() { <-done }()
	for {
		began := l.clock.Read()
		_ = l.syncing.Do(ctx, 0) // readingEnded logs it and keeps it for Status
		wait := l.cfg.SyncEvery - rand.N(l.cfg.SyncEvery/8+1) - l.clock.Steady(began)
		pause, _ := l.syncing.Failing()
		if err := l.pause(ctx, max(wait, pause, l.cfg.SyncEvery/4)); err != nil {
			return err
		}
	}
}

// Sync reads the store once and starts to write the owed entries, as Run does
// every SyncEvery. It is for a program that runs many lists in one goroutine.
// It returns the error of the reading. It waits until the reading or ctx ends.
// The end of ctx does not cancel the reading.
func (l *List) Sync(ctx context.Context) error {
	if l.syncing == nil {
		return errZero
	}
	return l.syncing.Do(ctx, 0) // readingEnded starts the writing
}

// pause waits for new entries, and for d at most. It fails only if ctx has
// ended.
func (l *List) pause(ctx context.Context, d time.Duration) error {
	timed, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if l.news(timed) {
		timed, cancel = context.WithTimeout(ctx, time.Millisecond) // so that many new entries share a page
		defer cancel()
	}
	<-timed.Done()
	return ctx.Err()
}

// news waits until the store may have new entries, or ctx ends. It calls Wait
// of a store that cannot wait once. While a Wait that ignores its context is
// under way, it does not call it again.
func (l *List) news(ctx context.Context) bool {
	if l.cannotWait.Load() || l.lastErr() != nil || !l.waiting.CompareAndSwap(false, true) {
		return false
	}
	l.mu.Lock()
	cursor := l.cursor
	l.mu.Unlock()
	err := make(chan error, 1)
	go func() { err <- l.waitOnce(ctx, cursor) }()
	select {
	case err := <-err:
		if errors.Is(err, errors.ErrUnsupported) {
			l.cannotWait.Store(true)
		}
		return err == nil
	case <-ctx.Done():
		return false
	}
}

// waitOnce calls the store's Wait. When it returns, another call may be made.
func (l *List) waitOnce(ctx context.Context, cursor string) (err error) {
	defer l.waiting.Store(false)
	defer func() {
		if recover() != nil {
			err = flight.ErrPanic
		}
	}()
	return l.cfg.Store.Wait(ctx, cursor)
}

// read reads the new entries, page by page. A page is applied even if a later
// one cannot be read.
func (l *List) read(ctx context.Context, r *flight.Run) error {
	for {
		l.mu.Lock()
		cursor := l.cursor
		l.mu.Unlock()
		page, asked, got, err := l.since(ctx, cursor, r.Wanted())
		if err == nil {
			err = l.checkPage(cursor, &page)
		}
		if err != nil {
			r.Commit(l.applyPending)
			l.tellNews()
			return err
		}
		if !r.Commit(func() { l.take(cursor, page, asked, got) }) {
			return flight.ErrLate
		}
		l.tellNews()
		if !page.More {
			return nil
		}
	}
}

// sharedStore is a Store whose readings the lists of several namespaces share.
type sharedStore interface {
	// SinceAfter is Since by a reading that may have begun before the call, and
	// not before after. It began at asked and ended at got.
	SinceAfter(ctx context.Context, cursor string, after clock.Instant) (p Page, asked, got clock.Instant, err error)
}

// since reads a page, by a reading of the store that began at after or later.
func (l *List) since(ctx context.Context, cursor string, after clock.Instant) (p Page, asked, got clock.Instant, err error) {
	if s, ok := l.cfg.Store.(sharedStore); ok {
		return s.SinceAfter(ctx, cursor, after)
	}
	asked = l.clock.Read()
	p, err = l.cfg.Store.Since(ctx, cursor)
	return p, asked, l.clock.Read(), err
}

// checkPage returns an error for a page that the list cannot use.
func (l *List) checkPage(cursor string, p *Page) error {
	switch {
	case p.Time.IsZero():
		return errors.New("the store returned no time")
	case p.More && p.Next == cursor:
		return errors.New("the store returns the same page again")
	}
	for i := range p.Entries {
		e := &p.Entries[i]
		if e.Namespace != l.cfg.Namespace || e.Skip {
			continue
		}
		switch e.Scope {
		case Session, Subject, Group, Key, All, Birth, Changed:
		default:
			l.loud.Warn("unknown_scope", "revoke: the store holds an entry of a scope that this version does not know; the list cannot read the store. Run the newer version on all replicas", "scope", e.Scope)
			return errors.New("the store holds an entry of a scope that this version does not know")
		}
	}
	return nil
}

// take applies a page. It is called in a Commit.
func (l *List) take(cursor string, p Page, asked, got clock.Instant) {
	l.busy.Store(true)
	defer l.busy.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cursor = p.Next
	st := l.state.Load()
	if p.Reset && cursor != "" {
		l.applyLocked()
		l.restore.Store(nil)
		if st == nil { // the list has not read the old store completely
			l.births = nil
			l.newborn.Store(nil)
		} else {
			l.reset = newReset()
		}
	}
	own := l.own(p.Entries)
	switch {
	case l.reset != nil:
		r := l.reset
		r.add(own, p.Time, l.cfg.MaxSkew)
		if p.More {
			return
		}
		if !l.endReset(st) {
			l.state.Store(&state{synced: asked, since: st.since, time: st.time, birth: st.birth, foreign: true})
			return
		}
		l.setTime(p, r.latest, asked, got)
	case st != nil && st.foreign:
		l.follow(own)
		if !p.More {
			l.state.Store(&state{synced: asked, since: st.since, time: st.time, birth: st.birth, foreign: true})
		}
		return
	default:
		l.setTime(p, latestOf(own, p.Time.Add(l.cfg.MaxSkew)), asked, got)
		l.pending = append(l.pending, own...)
		if p.More {
			if len(l.pending) >= applyAtOnce {
				l.applyLocked()
			}
			return
		}
		l.applyLocked()
	}
	next := &state{synced: asked, since: asked, time: p.Time.UnixMilli(), birth: none}
	if st != nil {
		next.since = st.since
	}
	switch {
	case l.local:
	case l.isReadOnly():
		l.followBirths(next, st, p.Time, asked)
	default:
		if len(l.births) == 0 {
			l.makeBirth(p.Time)
		}
		next.birth = l.births.oldest().at
	}
	l.state.Store(next)
	l.sweep()
}

// own returns the entries of the list's namespace.
func (l *List) own(entries []Entry) []Entry {
	other := func(e Entry) bool { return e.Namespace != l.cfg.Namespace }
	if !slices.ContainsFunc(entries, other) {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), other)
}

// latest holds the latest times of entries, or none: of any entry, of a mark
// (of a subject, a group or all), and of a group's.
type latest struct{ any, mark, group int64 }

// latestOf returns the latest times of entries, of those that are not after
// most.
func latestOf(entries []Entry, most time.Time) latest {
	l, limit := latest{none, none, none}, most.UnixMilli()
	for i := range entries {
		before := entries[i].Before.UnixMilli()
		if before > limit || entries[i].Scope == Changed { // whose number may be ahead of the time
			continue
		}
		l.any = max(l.any, before)
		switch entries[i].Scope {
		case Group:
			l.mark, l.group = max(l.mark, before), max(l.group, before)
		case Subject, All:
			l.mark = max(l.mark, before)
		}
	}
	return l
}

func (l latest) merge(m latest) latest {
	return latest{max(l.any, m.any), max(l.mark, m.mark), max(l.group, m.group)}
}

// setTime updates the view with the time of a page, and with the latest time of
// its entries. Then it stamps the entries that were owed while the time was not
// known.
//
// The time of an entry is an upper bound: it is ahead of the store's time by
// what the reading took that its list knew the time from. What the store's
// clock has certainly reached is earlier by that, so that iat, which is taken
// from the view, does not lie in the future.
func (l *List) setTime(p Page, read latest, asked, got clock.Instant) {
	l.view.Tell(p.Time, asked, got)
	if read.any != none {
		l.view.AtLeast(timeOf(read.any).Add(-longestReading))
	}
	l.seen(read)
	l.timed.Store(&timed{asked})
	for _, e := range l.owed.stamp(l.stamp) {
		if e.Scope == Changed {
			continue // it is applied when the store has it
		}
		l.seen(latestOf([]Entry{e}, p.Time.Add(l.cfg.MaxSkew)))
		l.tables.apply([]Entry{e})
	}
}

// seen records the times of entries.
func (l *List) seen(n latest) {
	for {
		old := l.latest.Load()
		if old != nil {
			n = n.merge(*old)
		}
		if l.latest.CompareAndSwap(old, &n) {
			return
		}
	}
}

// applyPending applies the entries that were read.
func (l *List) applyPending() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applyLocked()
}

func (l *List) applyLocked() {
	live := l.live(l.pending)
	l.tables.apply(live)
	l.hear(live)
	l.births.add(live)
	l.pending = nil
}

// live returns the entries that have not expired, by the store's clock.
func (l *List) live(entries []Entry) []Entry {
	now, ok := l.view.Now()
	if !ok {
		return entries
	}
	over := func(e Entry) bool { return !now.Before(e.Until) }
	if !slices.ContainsFunc(entries, over) {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), over)
}

// sweep drops expired entries of some shards. It visits all shards in about an
// hour.
func (l *List) sweep() {
	now, ok := l.view.Now()
	if !ok {
		return
	}
	if l.sweptAt.IsZero() {
		l.sweptAt = l.clock.Read()
	}
	n := int(shards * min(l.clock.Steady(l.sweptAt), time.Hour) / time.Hour)
	if n == 0 {
		return
	}
	l.sweptAt = l.clock.Read()
	for range n {
		l.tables.sweep(l.swept, now.UnixMilli())
		l.swept = (l.swept + 1) % shards
	}
}

// readingEnded is called with the result of each reading.
func (l *List) readingEnded(err error) {
	was := l.last.Swap(&outcome{err})
	l.slow.Store(false)
	l.reads.Add(1)
	if err != nil {
		l.readFailures.Add(1)
		l.loud.Warn("store_unreadable", "revoke: the store cannot be read; the list uses what it has read until MaxStale, and fails after that. Check the store and the network", "max_stale", l.cfg.MaxStale, "error", err)
		return
	}
	if was != nil && was.err != nil {
		l.logger.Info("revoke: the store can be read again")
	}
	if st := l.state.Load(); st != nil && st.foreign {
		l.loud.Warn("foreign_store", "revoke: the store is not the one that this list has read before: it holds the birth mark of another one. The list fails and writes nothing. Configure its own store again; if this store is the right one, restart all replicas")
	}
	if ahead, trip, ok := l.view.Offset(); ok && max(ahead, -ahead)-trip > l.cfg.MaxSkew {
		l.loud.Warn("clock_disagrees", "revoke: the clock of this machine disagrees with the store's, whose time is used. Set the clock, and run NTP", "ahead", ahead)
	}
	l.retry()
}

func (l *List) lastErr() error {
	if o := l.last.Load(); o != nil {
		return o.err
	}
	return nil
}
