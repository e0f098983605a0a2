package sessionhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

// errNotUpdated ends a renewal because f of Update failed.
var errNotUpdated = errors.New("sessionhttp: the state was not updated")

// Update changes data that only the session's token holds, such as a theme or a
// basket. It renews the cookie of a request: Load returns the state, f changes
// it, and the new token holds the result. Load is given the state of the newest
// token that this process has made from the cookie, and must return the token's
// own data from it, in every renewal. A refresh token carries no state: a
// session that is refreshed loses that data.
//
// In one process, the updates of a cookie and of the cookies that replace it
// run one after another: no update is lost, and a renewal includes the last
// one. Processes do not know of each other's updates: after two at the same
// time, or an update and a renewal, the browser keeps the cookie that arrives
// last. Data that must not be lost belongs in a database.
//
// f is called at most once, before Update returns. If f fails, Update returns
// its error unchanged and changes nothing. A request from another origin is
// [ErrCrossOrigin] with every method. A request without a cookie is
// [ErrNoSession]. A new state over its budget is a [sessiontoken.SizeError].
// With an error no header was written; [Sessions.Refuse] answers it.
func (s *Sessions[T]) Update(w http.ResponseWriter, r *http.Request, f func(state *T) error) (*sessiontoken.Claims[T], error) {
	if f == nil {
		return nil, errors.New("sessionhttp: Update: f is required")
	}
	token, k, err := s.presented(r, s.checkOriginAlways)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		renewed string
		err     error
	}
	loaded, returned := make(chan *loadedState[T]), make(chan struct{})
	defer close(returned)
	load := func(ctx context.Context, old *sessiontoken.Claims[T]) (none T, _ error) {
		state, err := s.load(ctx, old)
		if err != nil {
			return none, err
		}
		l := &loadedState[T]{state, make(chan error, 1)}
		select {
		case loaded <- l:
		case <-returned:
			return none, errNotUpdated
		}
		select {
		case err := <-l.updated:
			if err != nil {
				return none, errNotUpdated
			}
			return l.state, nil
		case <-ctx.Done(): // f may still change the state
			return none, ctx.Err()
		}
	}
	var refused error // what f returned
	c, err := s.renewCookie(w, r, k, func() (string, error) {
		done := make(chan outcome, 1)
		go func() {
			renewed, err := s.renewNewest(token, func(last string, left time.Duration) (string, error) {
				return s.renewals.Alone(r.Context(), renewalKey(last), left, s.renewing(last, k, load))
			})
			done <- outcome{renewed, err}
		}()
		for {
			select {
			case l := <-loaded:
				refused = l.update(f)
			case o := <-done:
				return o.renewed, o.err
			}
		}
	})
	if refused != nil {
		return nil, refused
	}
	return c, err
}

// loadedState is the state that Load returned. f changes it in the goroutine of
// the handler.
type loadedState[T any] struct {
	state   T
	updated chan error
}

// update calls f. If f does not return, the state is not updated.
func (l *loadedState[T]) update(f func(*T) error) error {
	err := errNotUpdated
	defer func() { l.updated <- err }()
	err = f(&l.state)
	return err
}
