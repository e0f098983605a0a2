package sessionhttp

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"
)

const (
	// renewTimeout bounds one renewal: the caller's Load, above all.
	renewTimeout = 10 * time.Second
	// rememberFor is how long the outcome of a renewal answers further requests
	// with the same old cookie: those that a browser had sent before it got the
	// new one.
	rememberFor = 10 * time.Second
	// maxRenewals bounds what is remembered.
	maxRenewals = 10_000
)

// renewals renews each token once for all requests that bring it at the same
// time, and for those that come a little later. The zero value is ready.
type renewals struct {
	mu     sync.Mutex
	recent map[[sha256.Size]byte]*renewal
	older  map[[sha256.Size]byte]*renewal
	turned time.Time
}

type renewal struct {
	done  chan struct{} // closed when the rest is set
	token string
	err   error
	until time.Time // when its outcome is of no more use; zero while it is under way
}

var errRenewalPanic = errors.New("sessionhttp: the renewal panicked")

// do returns the successor of token. No caller's end ends the renewal, which has
// the values of the first caller's context and a limit of its own.
//
// renew returns it with the time at which it is itself due.
func (g *renewals) do(ctx context.Context, token string, renew func(context.Context, string) (string, time.Time, error)) (string, error) {
	key := sha256.Sum256([]byte(token))
	g.mu.Lock()
	r := g.find(key)
	if r == nil {
		r = &renewal{done: make(chan struct{}), err: errRenewalPanic}
		g.recent[key] = r
		go func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
			defer cancel()
			var due time.Time
			defer func() {
				_ = recover() // its value may hold what must not be logged
				g.mu.Lock()
				defer g.mu.Unlock()
				r.until = time.Now().Add(rememberFor)
				if due.Before(r.until) {
					r.until = due
				}
				if r.err != nil {
					g.forget(key, r) // the next request tries again
				}
				close(r.done)
			}()
			r.token, due, r.err = renew(ctx, token)
		}()
	}
	g.mu.Unlock()
	select {
	case <-r.done:
		return r.token, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// find returns a renewal that is under way or ended lately. g.mu is held.
func (g *renewals) find(key [sha256.Size]byte) *renewal {
	now := time.Now()
	if g.recent == nil || now.Sub(g.turned) > rememberFor || len(g.recent) >= maxRenewals {
		g.older, g.recent, g.turned = g.recent, map[[sha256.Size]byte]*renewal{}, now
	}
	r := g.recent[key]
	if r == nil {
		r = g.older[key]
	}
	if r != nil && !r.until.IsZero() && !now.Before(r.until) {
		return nil
	}
	return r
}

func (g *renewals) forget(key [sha256.Size]byte, r *renewal) {
	for _, m := range []map[[sha256.Size]byte]*renewal{g.recent, g.older} {
		if m[key] == r {
			delete(m, key)
		}
	}
}
