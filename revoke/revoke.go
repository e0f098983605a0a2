// Package revoke ends sessions before their tokens end by themselves: one
// session, all of a subject, all tokens of a key, or everything.
//
// A token cannot be called back, so every verifier asks a [List] whether its
// session was ended. The list is a copy in memory of what a [Store] holds: the
// answer costs no I/O. What one replica writes, the others know within
// SyncEvery and one reading of the store; a list that could not read it for
// MaxStale no longer answers, and its verifiers fail closed.
//
// What is ended is named by what tokens say (sid, sub, kid) and compared with
// when the session began, never with when a token was issued: a token that was
// renewed a moment after the sign-out is as ended as the one before.
package revoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/internal/flight"
	"github.com/sessiontoken/sessiontoken/internal/tally"
)

// Scope says what an [Entry] ends.
type Scope string

// The scopes. Sessions that begin after the entry are not touched, but for
// those of a key.
const (
	Session Scope = "session" // the session with this id (sid)
	Subject Scope = "subject" // every session of this subject (sub) begun by then
	Key     Scope = "key"     // every token signed with this key (kid)
	All     Scope = "all"     // every session begun by then
)

// Entry is one thing that was ended. Adding one twice is the same as once.
type Entry struct {
	Scope  Scope
	Value  string    // the sid, sub or kid; empty for All
	Before time.Time // when it was ended: sessions begun later go on
	Until  time.Time // when nothing that it ends can live any more
}

// Store keeps entries for all replicas. It holds no logic; package storetest
// shows what it has to do. All methods are called concurrently.
type Store interface {
	// Append adds an entry. When it returns nil, every later Since that starts
	// before it returns it, on every replica. A caller repeats it after an
	// error: an entry may be there twice.
	Append(ctx context.Context, e Entry) error

	// Since returns the entries that were added after those that next, an
	// earlier result, had covered; with an empty cursor, all of them. It may
	// return some again, and may leave out those past their Until. A cursor
	// that the store does not know means all, and so does one from before the
	// store lost data.
	//
	// A store with many of them returns a portion, and more: what follows is read
	// with next, which is then another cursor than before. Only when more is false
	// does next cover all that was added before the call.
	Since(ctx context.Context, cursor string) (entries []Entry, next string, more bool, err error)
}

// Waiter is what a [Store] may be too: one that can say when there is news, so
// that a list need not wait for SyncEvery to pass. It is a hint and nothing more:
// what counts is what Since returns, and how long ago it did.
type Waiter interface {
	// Wait returns nil when there may be entries after cursor, and an error when
	// ctx ends or it cannot wait.
	Wait(ctx context.Context, cursor string) error
}

// Config says how a [List] follows its store.
type Config struct {
	// Store is shared by all replicas. Required.
	Store Store
	// MaxSession is the longest that a session can last, the issuer's: how long
	// an entry has to be remembered. 0 means 24 h.
	MaxSession time.Duration
	// SyncEvery is how often Run reads the store, and so how soon, with one
	// reading of it, every replica knows. 0 means 1 s.
	SyncEvery time.Duration
	// MaxStale is how long the list answers without having read the store:
	// after that every answer is an error. At least twice SyncEvery. 0 means
	// 30 s.
	MaxStale time.Duration
	// InsecureAnswerWhenStale lets the list answer from what it has past
	// MaxStale: what others have ended since is then not ended here, for as long
	// as the store cannot be read. A list that was never read fails all the same.
	InsecureAnswerWhenStale bool
	// Logger is told when the store fails (Warn) and recovers (Info), once
	// each. Nil means slog.Default().
	Logger *slog.Logger
}

const (
	// skew is how far other machines' clocks may be behind: entries live so much
	// longer.
	skew = 5 * time.Minute
	// keepKeys is how long a key is remembered at least. It outlives every token
	// that was issued with it: whoever has it makes more, and a verifier that is
	// cut off from the key set goes on trusting it for a while.
	keepKeys = 30 * 24 * time.Hour
	// batch is about how many entries are applied at once: a part of a table is
	// copied for each batch with an entry in it.
	batch = 100_000
)

// List knows what was ended. It is a RevocationChecker of package sessiontoken.
// It is safe for concurrent use; make it with [NewList].
type List struct {
	cfg     Config
	syncing *flight.Group
	synced  atomic.Pointer[time.Time] // start of the last good reading
	last    atomic.Pointer[outcome]

	sessions, subjects, keys *table
	all                      atomic.Pointer[mark]

	mu     sync.Mutex // of whoever changes anything; nobody who asks waits for it
	cursor string
	swept  int // the next part to sweep

	made                 time.Time
	reads                tally.Runs
	ended, writeFailures atomic.Uint64
}

type outcome struct{ err error }

// NewList checks the configuration and returns the list for it. An error names
// the field at fault. It does no I/O and starts no goroutine.
func NewList(cfg Config) (*List, error) {
	if arg.IsNil(cfg.Store) {
		return nil, errors.New("revoke: Config.Store is required")
	}
	for _, d := range []struct {
		name  string
		field *time.Duration
		zero  time.Duration
	}{
		{"MaxSession", &cfg.MaxSession, 24 * time.Hour},
		{"SyncEvery", &cfg.SyncEvery, time.Second},
		{"MaxStale", &cfg.MaxStale, 30 * time.Second},
	} {
		if *d.field < 0 {
			return nil, fmt.Errorf("revoke: Config.%s is negative", d.name)
		}
		if *d.field == 0 {
			*d.field = d.zero
		}
	}
	if cfg.MaxStale < 2*cfg.SyncEvery {
		return nil, fmt.Errorf("revoke: Config.MaxStale is %v; it must be at least twice SyncEvery, which is %v", cfg.MaxStale, cfg.SyncEvery)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	l := &List{cfg: cfg, made: time.Now(), sessions: newTable(), subjects: newTable(), keys: newTable()}
	sync := l.reads.Of(l.sync)
	l.syncing = flight.New(flight.Config{Limit: time.Hour, Cooldown: cfg.SyncEvery / 2}, func(ctx context.Context, _ *flight.Run) error { return sync(ctx) })
	return l, nil
}

// Revoked says whether a session was ended. began is when it began (auth_time),
// in whole seconds: one that began in the second in which its subject was ended
// counts as ended. An error means that the list cannot tell, because its store
// could not be read for MaxStale; the token must then not be accepted.
//
// It answers from memory. It waits for the store, for at most 5 s, only if that
// was never read, or not for MaxStale.
func (l *List) Revoked(ctx context.Context, sessionID, subject, keyID string, began time.Time) (bool, error) {
	if !l.fresh() {
		if err := l.refresh(ctx); err != nil {
			return false, err
		}
	}
	if _, ended := l.sessions.get(sessionID); ended {
		return true, nil
	}
	if _, ended := l.keys.get(keyID); ended {
		return true, nil
	}
	if m, ok := l.subjects.get(subject); ok && m.ends(began) {
		return true, nil
	}
	m := l.all.Load()
	return m != nil && m.ends(began), nil
}

// refresh waits until the store was read, for as long as one reading may take.
func (l *List) refresh(ctx context.Context) error {
	timed, cancel := context.WithTimeout(ctx, l.timeout())
	defer cancel()
	_, err := l.syncing.Try(timed, 0)
	switch {
	case l.fresh():
		return nil
	case err == nil:
		err = errors.New("it was not read in time")
	}
	return fmt.Errorf("revoke: the store has not been read for too long: %w", err)
}

// fresh says whether the store was read within MaxStale, and has it read again
// in the background when it should have been.
func (l *List) fresh() bool {
	synced := l.synced.Load()
	if synced == nil {
		return false
	}
	old := clockElapsed(*synced, time.Now())
	if old > 2*l.cfg.SyncEvery {
		l.syncing.Go() // Run does that, if it runs
	}
	return old <= l.cfg.MaxStale || l.cfg.InsecureAnswerWhenStale
}

// Staleness is the bound that this configuration states: how long after somebody
// else's end of a session this list may still not know of it, with Run under way.
// While the store answers it is the first, SyncEvery and one reading; past the
// second, no list answers any more (unless it is told to).
func (l *List) Staleness() (healthy, most time.Duration) {
	return l.cfg.SyncEvery + l.timeout(), l.cfg.MaxStale
}

// RetainFor is how long the list remembers what was ended: MaxSession. An issuer
// checks at construction that none of its sessions can outlive that.
func (l *List) RetainFor() time.Duration { return l.cfg.MaxSession }

// timeout bounds one reading of the store, or one portion of it.
func (l *List) timeout() time.Duration { return min(l.cfg.MaxStale/2, 5*time.Second) }

// EndSession ends one session: at once here, and everywhere within SyncEvery
// and one reading of the store. After an error it is ended here alone;
// repeating it is safe.
func (l *List) EndSession(ctx context.Context, sessionID string) error {
	return l.end(ctx, Session, sessionID)
}

// EndSubject ends every session that a subject has begun by now: for "sign out
// everywhere", a changed password, a blocked user. One that begins within the
// same second is ended too.
func (l *List) EndSubject(ctx context.Context, subject string) error {
	return l.end(ctx, Subject, subject)
}

// EndKey ends every token that was signed with a key, at every verifier that
// asks a list, whatever key set it holds. A key ring's own Revoke is still
// needed: it makes another key sign. A key is remembered for at least 30 days.
func (l *List) EndKey(ctx context.Context, keyID string) error { return l.end(ctx, Key, keyID) }

// EndAll ends every session that had begun by a time, such as time.Now(), or the
// moment in which a breach was closed. A time in the future is refused: nobody
// could sign in until then.
func (l *List) EndAll(ctx context.Context, begunBy time.Time) error {
	now := time.Now()
	if begunBy.IsZero() || begunBy.After(now) {
		return errors.New("revoke: EndAll wants a time, and none in the future")
	}
	return l.add(ctx, Entry{Scope: All, Before: begunBy.UTC(), Until: now.Add(l.cfg.MaxSession + skew).UTC()})
}

func (l *List) end(ctx context.Context, scope Scope, value string) error {
	if value == "" {
		return fmt.Errorf("revoke: the %s to end is not named", scope)
	}
	now, keep := time.Now(), l.cfg.MaxSession
	if scope == Key {
		keep = max(keep, keepKeys)
	}
	return l.add(ctx, Entry{Scope: scope, Value: value, Before: now.UTC(), Until: now.Add(keep + skew).UTC()})
}

func (l *List) add(ctx context.Context, e Entry) error {
	// Whatever the store says, the session is over for whoever was told so.
	l.apply(e)
	if err := l.cfg.Store.Append(ctx, e); err != nil {
		l.writeFailures.Add(1)
		return fmt.Errorf("revoke: %w", err)
	}
	l.ended.Add(1)
	return nil
}

func (l *List) apply(entries ...Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	by := map[Scope][]*Entry{}
	for i := range entries {
		if e := &entries[i]; now.Before(e.Until) {
			by[e.Scope] = append(by[e.Scope], e)
		}
	}
	l.sessions.add(by[Session])
	l.subjects.add(by[Subject])
	l.keys.add(by[Key])
	for _, e := range by[All] {
		m := markOf(e)
		if old := l.all.Load(); old != nil {
			m = m.and(*old)
		}
		l.all.Store(&m)
	}
}

// sweep forgets what is over, a part at a time: all of it in as many syncs as
// there are parts, or in an hour.
func (l *List) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now().UnixNano()
	for range max(1, parts*int(l.cfg.SyncEvery/time.Second)/3600) {
		for _, t := range []*table{l.sessions, l.subjects, l.keys} {
			t.sweep(l.swept, now)
		}
		l.swept = (l.swept + 1) % parts
	}
	if m := l.all.Load(); m != nil && now >= m.until {
		l.all.Store(nil)
	}
}

// Run follows the store until ctx ends, and returns ctx.Err(). Failures of the
// store do not end it. Without it, the list reads the store when it is asked
// something and the last reading is older than twice SyncEvery: in the
// background, or before it answers if that is older than MaxStale. What others
// end is then known within MaxStale only.
func (l *List) Run(ctx context.Context) error {
	for {
		began := time.Now()
		_ = l.syncing.Do(ctx, 0) // logged by sync, and kept for Status
		wait := l.cfg.SyncEvery - rand.N(l.cfg.SyncEvery/8+1) - time.Since(began)
		if err := l.pause(ctx, max(wait, l.cfg.SyncEvery/4)); err != nil {
			return err
		}
	}
}

// pause waits for news, or for d. It fails only if ctx has ended.
func (l *List) pause(ctx context.Context, d time.Duration) error {
	timed, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if w, ok := l.cfg.Store.(Waiter); ok && l.Status().Err == nil {
		l.mu.Lock()
		cursor := l.cursor
		l.mu.Unlock()
		if w.Wait(timed, cursor) == nil {
			time.Sleep(time.Millisecond) // a flood of news is read in portions
			return ctx.Err()
		}
	}
	<-timed.Done()
	return ctx.Err()
}

func (l *List) sync(ctx context.Context) error {
	err := l.read(ctx)
	was := l.last.Swap(&outcome{err})
	switch {
	case err != nil && (was == nil || was.err == nil):
		l.cfg.Logger.Warn("revoke: the store cannot be read; the list goes on with what it has", "for_at_most", l.cfg.MaxStale, "error", err)
	case err == nil && was != nil && was.err != nil:
		l.cfg.Logger.Info("revoke: the store can be read again")
	}
	return err
}

// read reads what is new, a portion at a time. What was read counts, also if a
// later portion cannot be had.
func (l *List) read(ctx context.Context) error {
	l.mu.Lock()
	cursor := l.cursor
	l.mu.Unlock()
	var entries []Entry
	apply := func() {
		l.apply(entries...)
		entries = nil
		l.mu.Lock()
		l.cursor = cursor
		l.mu.Unlock()
	}
	for {
		began := time.Now()
		got, next, more, err := l.portion(ctx, cursor)
		if err == nil && more && next == cursor {
			err = errors.New("the store returns the same portion again")
		}
		if err != nil {
			apply()
			return err
		}
		entries, cursor = append(entries, got...), next
		if !more {
			apply()
			l.sweep()
			l.synced.Store(&began)
			return nil
		}
		if len(entries) >= batch {
			apply()
		}
	}
}

func (l *List) portion(ctx context.Context, cursor string) (entries []Entry, next string, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout())
	defer cancel()
	entries, next, more, err = l.cfg.Store.Since(ctx, cursor)
	if err == nil {
		err = known(entries)
	}
	return entries, next, more, err
}

// known refuses entries that a later version wrote: what they end is not known
// here, so this list must not go on answering.
func known(entries []Entry) error {
	for _, e := range entries {
		switch e.Scope {
		case Session, Subject, Key, All:
		default:
			return errors.New("the store holds an entry of a scope that this version does not know")
		}
	}
	return nil
}

// Status says how a list stands, for health checks.
type Status struct {
	Entries int       // that are remembered
	Synced  time.Time // start of the last good reading of the store; zero if never
	Err     error     // of the last reading; nil if it succeeded
}

// Status reports from memory, without I/O.
func (l *List) Status() Status {
	var st Status
	if t := l.synced.Load(); t != nil {
		st.Synced = *t
	}
	if last := l.last.Load(); last != nil {
		st.Err = last.err
	}
	st.Entries = l.entries()
	return st
}

// entries is how many are remembered.
func (l *List) entries() int {
	n := int(l.sessions.size.Load() + l.subjects.size.Load() + l.keys.size.Load())
	if l.all.Load() != nil {
		n++
	}
	return n
}

func clockElapsed(since, now time.Time) time.Duration {
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)))
}
