package sessionhttp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// LiveOptions are the options of [Sessions.Live]. The zero value is usual.
type LiveOptions struct {
	// EndWhenChanged ends the connection with [revoke.ErrChanged] when the
	// state of the session has changed ([Sessions.Changed]) since it was opened,
	// also if the session has a cookie. If false, Load is called for such a
	// session.
	EndWhenChanged bool
	// Bearer says that the token came in an Authorization header: it is not
	// renewed. Behind Require that is known. It is for code that calls
	// [Sessions.Check] or verifies a token itself.
	Bearer bool
}

// Live is the context of a connection that lasts longer than a request, such as
// a WebSocket or a stream of server-sent events. It ends with the session:
// [context.Cause] then returns why.
//
//   - [revoke.ErrRevoked]: the session was revoked, also by a Load that
//     returned [ErrSessionOver].
//   - [revoke.ErrChanged]: its state has changed, and cannot be read again
//     without the client.
//   - [sessiontoken.ErrExpired]: the Bearer token has expired.
//   - [ErrIdle], [ErrMaxSession]: the session has reached that end.
//   - [ErrSessionOver]: Load returned it, and the list has not told of the
//     revocation yet.
//   - [ErrUndecided]: the server does not know whether the session is live.
//     The client may connect again later.
//   - [context.Canceled]: Stop was called.
//   - Otherwise the cause of the parent.
//
// Err returns [context.Canceled], or the error of the parent. Make it with
// [Sessions.Live]. All methods may be called from any goroutine.
type Live[T any] struct {
	parent   context.Context
	sessions *Sessions[T]
	claims   atomic.Pointer[sessiontoken.Claims[T]]
	ended    atomic.Pointer[ending]
	used     atomic.Uint32 // when the connection was used last, rounded up

	mu      sync.Mutex
	done    chan struct{} // made by the first call of Done
	unwatch func()
	rare    *rare

	// The fields below belong to sessions.lives, whose lock guards them. All
	// times are in Unix seconds.
	deadline uint32 // when it is visited next
	renewAt  uint32 // when it is renewed next
	place    int32  // in the heap; -1: not in it
	queued   bool   // for a renewal, or being renewed

	renews         bool // by Load, without a token; does not change
	endWhenChanged bool // does not change
}

// ending is how a Live has ended.
type ending struct {
	err    error
	values context.Context // of the parent, with the cause
}

// rare is what few connections have.
type rare struct {
	opened     *revoke.Question     // with endWhenChanged: of the claims that it was opened with
	stopParent func() bool          // nil if the parent cannot end
	after      map[*func()]struct{} // to call at the end
	failed     error                // of the last renewal
	failures   int                  // since the last renewal that succeeded
	renewed    chan struct{}        // closed by the next renewal; nil if no call of Renewed waits
}

// Live returns a context for a connection that outlives its request. ctx is the
// context of the request, and c its session: from [Sessions.FromContext] or
// [Sessions.Check]. The context ends with ctx and with the session: see [Live].
// Call Stop when the connection is closed.
//
// With a Bearer token, or without Config.Issuer, the context ends when the token
// expires, unless [Live.Renew] is called with a newer one. It also ends when
// the state of the session has changed.
//
// With a cookie, Load is called before the token expires and when the state has
// changed: [Live.Claims] then returns new claims. At most 64 calls run at once.
// While Load fails, it is called again until the claims expire. The context ends
// after the issuer's IdleTimeout without a call of [Live.Used], and at its
// MaxSession. The cookie in the browser is not renewed: that needs a request.
//
// An error means that the session is not live. [Sessions.Refuse] answers it.
//
// A connection has no goroutine, and takes about 400 bytes. A ctx that can end
// adds about 450, in package context. A handler that watches ctx itself can pass
// [context.WithoutCancel] of it.
//
// The Run of the list that Verifier asks must be called: past its MaxStale the
// context ends. If Verifier has no list, no revocation ends it.
func (s *Sessions[T]) Live(ctx context.Context, c *sessiontoken.Claims[T], o LiveOptions) (*Live[T], error) {
	if c == nil {
		return nil, ErrNoSession
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if s.isTest(ctx) {
		l := &Live[T]{parent: ctx, sessions: s, place: -1}
		l.claims.Store(c)
		l.followParent()
		return l, nil
	}
	if s.unwatchable {
		return nil, errUnwatchable
	}
	now, err := s.cfg.Verifier.Now(ctx)
	if err != nil {
		return nil, err
	}
	_, isBearer := ctx.Value(contextKey[T]{s}).(*bearerClaims[T])
	l := &Live[T]{
		parent: ctx, sessions: s, place: -1, endWhenChanged: o.EndWhenChanged,
		renews: s.cfg.Issuer != nil && c.Renewable && !isBearer && !o.Bearer,
	}
	l.claims.Store(c)
	l.used.Store(unixSeconds(now) + 1)
	l.renewAt = l.renewalOf(c, now)
	if l.endWhenChanged {
		opened := c.Question()
		l.rare = &rare{opened: &opened}
	}
	s.counted.livesOpened.Add(1)
	l.followParent()
	l.watch(c)
	s.visit(l, now)
	if l.Err() != nil {
		return nil, refusal(context.Cause(l))
	}
	return l, nil
}

// errUnwatchable means that the list is of a type that has no Watch.
var errUnwatchable = errors.New("sessionhttp: Live: VerifierConfig.Revocations has no method Watch, as a revoke.List has")

// watcher is what Live needs of a list.
type watcher interface {
	Watch(q *revoke.Question, notify func(error)) (stop func())
}

// refusal returns an end of a session as an error that Refuse answers.
func refusal(cause error) error {
	switch {
	case errors.Is(cause, ErrUndecided):
		return undecided{"Live", cause}
	case errors.Is(cause, revoke.ErrRevoked):
		return sessiontoken.ErrRevoked
	case errors.Is(cause, revoke.ErrChanged):
		return sessiontoken.ErrChanged
	case errors.Is(cause, ErrIdle), errors.Is(cause, ErrMaxSession):
		return fmt.Errorf("%w: %w", sessiontoken.ErrExpired, cause)
	}
	return cause
}

// notKnown is ErrUndecided with the reason. It matches no reason why a session
// ends, even if err does: err may be about something else.
type notKnown struct{ err error }

func (e *notKnown) Error() string { return ErrUndecided.Error() + ": " + e.err.Error() }

func (e *notKnown) Is(target error) bool {
	switch target {
	case ErrUndecided:
		return true
	case revoke.ErrRevoked, revoke.ErrChanged, sessiontoken.ErrInvalid, sessiontoken.ErrExpired, sessiontoken.ErrRevoked, ErrIdle, ErrMaxSession, ErrSessionOver:
		return false
	}
	return errors.Is(e.err, target)
}

// Claims returns the current claims. They change with each renewal.
func (l *Live[T]) Claims() *sessiontoken.Claims[T] { return l.claims.Load() }

// Renewed returns a channel that is closed when Claims returns other claims than
// at the call. A handler that sends the state calls it before Claims, and again
// after each renewal.
func (l *Live[T]) Renewed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rare == nil {
		l.rare = new(rare)
	}
	if l.rare.renewed == nil {
		l.rare.renewed = make(chan struct{})
	}
	return l.rare.renewed
}

// Used says that the user has used the connection now, such as by a message. A
// session with a cookie ends if that does not happen for the issuer's
// IdleTimeout.
func (l *Live[T]) Used() {
	if now, err := l.sessions.cfg.Verifier.Now(context.Background()); err == nil {
		l.used.Store(unixSeconds(now) + 1)
	}
}

// Renew takes a newer token of the session, from a client that has refreshed. It
// verifies the token and returns the error of that. A token of another session
// is [ErrBadRequest]. With an error nothing has changed. A token that is not
// newer changes nothing either.
func (l *Live[T]) Renew(ctx context.Context, token string) error {
	c, err := l.sessions.cfg.Verifier.Verify(ctx, token)
	if err != nil {
		return err
	}
	for {
		old := l.claims.Load()
		switch {
		case l.Err() != nil:
			return context.Cause(l)
		case c.SessionID != old.SessionID, c.Subject != old.Subject:
			return fmt.Errorf("%w: a token of another session", ErrBadRequest)
		case c.TokenID == old.TokenID, c.IssuedAt.Before(old.IssuedAt):
			return nil
		}
		if l.claims.CompareAndSwap(old, c) {
			l.renewed(c)
			return nil
		}
	}
}

// renewed is called when the connection has new claims.
func (l *Live[T]) renewed(c *sessiontoken.Claims[T]) {
	l.mu.Lock()
	if r := l.rare; r != nil && r.renewed != nil {
		close(r.renewed)
		r.renewed = nil
	}
	l.mu.Unlock()
	s := l.sessions
	now, err := s.cfg.Verifier.Now(context.Background())
	s.lives.mu.Lock()
	l.queued = false // before the watch, which may renew again
	if err == nil {
		l.renewAt = l.renewalOf(c, now)
	}
	s.lives.mu.Unlock()
	l.watch(c)
	if err == nil {
		s.visit(l, now)
	}
}

// Stop ends the context, if it has not ended, and frees what it holds.
func (l *Live[T]) Stop() { l.end(context.Canceled, context.Canceled) }

// Deadline returns that of the parent.
func (l *Live[T]) Deadline() (time.Time, bool) { return l.parent.Deadline() }

// Done returns a channel that is closed when the context ends.
func (l *Live[T]) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.ended.Load() != nil {
			close(l.done)
		}
	}
	return l.done
}

// Err returns nil until the context ends.
func (l *Live[T]) Err() error {
	if e := l.ended.Load(); e != nil {
		return e.err
	}
	return nil
}

// Value returns that of the parent.
func (l *Live[T]) Value(key any) any {
	if e := l.ended.Load(); e != nil {
		return e.values.Value(key) // context.Cause finds the cause in it
	}
	return l.parent.Value(key)
}

// AfterFunc arranges to call f in its own goroutine when the context ends. Package
// context uses it for contexts that are derived from this one, which have no
// goroutine then. stop reports whether it prevented the call.
func (l *Live[T]) AfterFunc(f func()) (stop func() bool) {
	key := &f
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended.Load() != nil {
		go f()
		return func() bool { return false }
	}
	if l.rare == nil {
		l.rare = new(rare)
	}
	if l.rare.after == nil {
		l.rare.after = map[*func()]struct{}{}
	}
	l.rare.after[key] = struct{}{}
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, ok := l.rare.after[key]
		delete(l.rare.after, key)
		return ok
	}
}

// followParent lets the context end with its parent.
func (l *Live[T]) followParent() {
	if l.parent.Done() == nil {
		return
	}
	if l.rare == nil {
		l.rare = new(rare)
	}
	r := l.rare
	stop := context.AfterFunc(l.parent, l.parentEnded)
	l.mu.Lock()
	defer l.mu.Unlock()
	r.stopParent = stop
}

func (l *Live[T]) parentEnded() { l.end(context.Cause(l.parent), l.parent.Err()) }

// end ends the context.
func (l *Live[T]) end(cause, err error) {
	if l.ended.Load() != nil {
		return
	}
	values, cancel := context.WithCancelCause(context.WithoutCancel(l.parent))
	cancel(cause)
	l.mu.Lock()
	if !l.ended.CompareAndSwap(nil, &ending{err, values}) {
		l.mu.Unlock()
		return
	}
	if l.done != nil {
		close(l.done)
	}
	unwatch := l.unwatch
	var r rare
	if l.rare != nil {
		r, l.rare.after = *l.rare, nil
	}
	l.mu.Unlock()
	l.sessions.lives.remove(l)
	if errors.Is(cause, ErrUndecided) {
		l.sessions.counted.livesUndecided.Add(1)
	}
	if unwatch != nil {
		unwatch()
	}
	if r.stopParent != nil {
		r.stopParent()
	}
	for f := range r.after {
		go (*f)()
	}
}

// watch watches the session of c in place of the one before.
func (l *Live[T]) watch(c *sessiontoken.Claims[T]) {
	list := l.sessions.watcher
	if list == nil {
		return
	}
	q := c.Question()
	if l.endWhenChanged {
		// A renewal may have read the new state before the mark of it came.
		q.IssuedAt, q.Changed = l.rare.opened.IssuedAt, l.rare.opened.Changed
		q = q.Prepared()
	}
	stop := list.Watch(&q, l.told)
	if a := c.Actor(); a != nil {
		session := stop
		actor := list.Watch(&revoke.Question{SessionID: a.SessionID, Subject: a.Subject, Began: a.Began}, l.told)
		stop = func() { session(); actor() }
	}
	l.mu.Lock()
	before := l.unwatch
	l.unwatch = stop
	ended := l.ended.Load() != nil
	l.mu.Unlock()
	if before != nil {
		before()
	}
	if ended {
		stop()
	}
}

// told is called by the list.
func (l *Live[T]) told(err error) {
	switch {
	case err == revoke.ErrChanged && l.renews && !l.endWhenChanged:
		l.sessions.renewSoon(l)
	case err == revoke.ErrChanged, err == revoke.ErrRevoked: // themselves: see revoke.ErrRevoked
		l.end(err, context.Canceled)
	default:
		l.end(&notKnown{err}, context.Canceled)
	}
}
