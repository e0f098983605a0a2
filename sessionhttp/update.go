package sessionhttp

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sessiontoken/sessiontoken"
)

// errNotUpdated ends a renewal whose state the handler does not want.
var errNotUpdated = errors.New("sessionhttp: the state was not updated")

// Update changes what the session's token itself is the authority on: a theme, a
// basket. It renews the cookie of a request with what f makes of the state that Load
// has just returned. Load is given the state of the newest token that this process
// knows to have come of the cookie, and returns from it what the token owns, in
// every renewal. A refresh token carries no state: a session that goes on by one
// does so without.
//
// In one process, updates that come with one cookie, or with those that it gave out
// for it, follow each other: none is lost, and a renewal hands out the last one.
// Processes do not know of each other: if an update at one meets an update or a
// renewal at another, the browser keeps the cookie that arrives last. What must not
// be lost so belongs into a database.
//
// f is called at most once, before Update returns. An error of f is returned as it
// is, and changes nothing. The origin is checked by every method. A request without
// a cookie is [ErrNoSession]. A new state over its budget is a
// [sessiontoken.SizeError]. With an error no header was written; [Sessions.Refuse]
// answers it.
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

// loadedState is what Load has returned, for the handler to change in its own
// goroutine.
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
