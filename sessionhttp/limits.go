package sessionhttp

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// opLimit is how long a sign-in, a sign-out, a refresh or a revocation
	// takes at most, even if Load, a store or a signer ignores its context.
	opLimit = 5 * time.Second
	// findLimit is how long it takes to find the family of a refresh token.
	findLimit = 4 * time.Second
	// maxHung is how many calls of a kind may hang past their limit before the
	// next one fails at once.
	maxHung = 1000
)

var (
	errOpLate  = errors.New("sessionhttp: no answer in time: Load, a store or the signer hangs")
	errOpStuck = errors.New("sessionhttp: too many earlier calls hang: Load, a store or the signer does not heed its context")
	errPanic   = errors.New("sessionhttp: Load or a store panicked")
)

// hung counts the calls that have exceeded their limit and have not returned.
type hung struct {
	mu sync.Mutex
	n  int
}

// within runs f under a limit of its own: a client that goes away does not
// cancel it. within returns after atMost even if f does not, and drops what f
// then returns.
func within[R any](ctx context.Context, h *hung, atMost time.Duration, f func(context.Context) (R, error)) (R, error) {
	type outcome struct {
		value R
		err   error
	}
	var none R
	h.mu.Lock()
	stuck := h.n >= maxHung
	h.mu.Unlock()
	if stuck {
		return none, errOpStuck
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), atMost)
	done := make(chan outcome, 1)
	var mu sync.Mutex
	returned, given := false, false
	go func() {
		defer cancel()
		o := outcome{err: errPanic}
		defer func() {
			_ = recover() // its value may hold what must not be logged
			mu.Lock()
			returned = true
			if given {
				h.add(-1)
			}
			mu.Unlock()
			done <- o
		}()
		o.value, o.err = f(ctx)
	}()
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	select {
	case o := <-done:
		return o.value, o.err
	case <-limit.C:
	}
	mu.Lock()
	if !returned {
		given = true
		h.add(1)
	}
	mu.Unlock()
	return none, errOpLate
}

func (h *hung) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n += n
}
