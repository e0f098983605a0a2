package sessionclient

import (
	"context"
	"errors"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/internal/flight"
)

// renew is the one renewal under way. It holds the keeper's lock from the
// loading of the record until its successor is saved. A nil error means that
// there is a new grant, or that c.over says why there is no session.
func (c *Client) renew(ctx context.Context, run *flight.Run) error {
	c.mu.Lock()
	c.began = c.clock.Read()
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.began = clock.Instant{}
		c.mu.Unlock()
	}()
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := c.successor(ctx)
	if err != nil && !errors.Is(err, ErrSignIn) {
		return err
	}
	run.Commit(func() { c.publish(g, err) })
	return nil
}

// successor returns a grant that is saved: the stored one if it is good, such as
// after another process has renewed it, or else that of an exchange. The
// keeper's lock is held.
func (c *Client) successor(ctx context.Context) (*grant, error) {
	stored, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	if stored == nil {
		return nil, errNoRecord
	}
	c.mu.Lock()
	refused, ended := c.refused, c.ended
	next := c.unsaved
	if c.parent != stored.refresh {
		next = nil
	}
	c.mu.Unlock()
	switch {
	case stored.refresh == ended:
		return nil, errRefused
	case next == nil && stored.access != refused && stored.good(c.clock, c.cfg.Margin) && !stored.due(c.clock):
		return stored, nil
	case next == nil:
		if next, err = c.exchange(ctx, stored.refresh); err != nil {
			return nil, err
		}
	}
	// A successor that could not be saved is kept for the next renewal: to
	// exchange the refresh token once more would look like theft.
	c.mu.Lock()
	c.unsaved, c.parent = next, stored.refresh
	c.mu.Unlock()
	if err := c.save(ctx, next); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.unsaved, c.parent = nil, ""
	c.mu.Unlock()
	return next, nil
}
