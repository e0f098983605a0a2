package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/arg"
	"github.com/sessiontoken/sessiontoken/sessionhttp"
)

// RenewalCheck configures [CheckAtRenewal].
type RenewalCheck[T any] struct {
	// Grants has a grant of each user who is checked. Required.
	Grants *Grants
	// Subject returns the provider's name of a session's user,
	// Login.Subject: from a table of users, or from the state. Empty means
	// that the session did not begin at the provider; it is not checked. An
	// error fails the renewal. Required.
	Subject func(ctx context.Context, old *sessiontoken.Claims[T]) (string, error)
	// Load is the Load of sessionhttp.Config or authority.Config. It is
	// called after the check. Required.
	Load func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error)
	// Every is how long after the provider last refreshed the user's grant,
	// for whatever reason, a renewal asks it again. 0 means 5 min.
	Every time.Duration
	// Grace is for how long after that a renewal goes on while the provider
	// does not answer. A user whom the provider has locked out meanwhile
	// stays signed in for that long. 0 means that the renewal fails as soon
	// as a check is due: the session goes on only until its token expires,
	// and requests get 503 then until the provider answers. At least Every.
	Grace time.Duration
}

// CheckAtRenewal returns a Load for sessionhttp.Config or authority.Config that
// asks the provider at a renewal whether the user may go on, by a refresh of
// the user's grant. It is for providers without back-channel logout: what ends
// the grant there, such as a locked account, ends the session here at the next
// renewal that is due. It takes as long as the session token's life and Every.
//
// The returned Load fails with [sessionhttp.ErrSessionOver] if the user has no
// grant, because the provider has ended it (invalid_grant), it was revoked, or
// none was begun. So each login must ask for offline_access. Of the user's
// sessions each is checked and ends at its own renewal; one refresh serves them
// all. A provider whose logout leaves refresh tokens valid, as some do with
// those of offline_access, ends no session this way.
//
// If the provider or the store does not answer, see RenewalCheck.Grace.
func CheckAtRenewal[T any](c RenewalCheck[T]) (func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error), error) {
	switch {
	case c.Grants == nil || c.Grants.store == nil:
		return nil, errors.New("oidclogin: RenewalCheck.Grants is required, made by NewGrants")
	case c.Subject == nil:
		return nil, errors.New("oidclogin: RenewalCheck.Subject is required")
	case c.Load == nil:
		return nil, errors.New("oidclogin: RenewalCheck.Load is required")
	}
	if err := arg.Duration("RenewalCheck.Every", c.Every, time.Second); err != nil {
		return nil, fmt.Errorf("oidclogin: %w", err)
	}
	if err := arg.Duration("RenewalCheck.Grace", c.Grace, time.Second); err != nil {
		return nil, fmt.Errorf("oidclogin: %w", err)
	}
	if c.Every == 0 {
		c.Every = 5 * time.Minute
	}
	if c.Grace != 0 && c.Grace < c.Every {
		return nil, errors.New("oidclogin: RenewalCheck.Grace is shorter than Every")
	}
	return func(ctx context.Context, old *sessiontoken.Claims[T]) (T, error) {
		var none T
		subject, err := c.Subject(ctx, old)
		if err != nil {
			return none, err
		}
		if subject != "" {
			if err := c.Grants.check(ctx, subject, c.Every, c.Grace); err != nil {
				return none, err
			}
		}
		return c.Load(ctx, old)
	}, nil
}

// checkLimit is how long a check waits for the provider.
const checkLimit = 1500 * time.Millisecond

// check refreshes a grant that was not refreshed within every. If that fails
// and it was within grace, the error is nil.
func (g *Grants) check(ctx context.Context, subject string, every, grace time.Duration) error {
	within := func(d time.Duration) func(*grant) bool {
		return func(r *grant) bool {
			age := g.clock.Now().UnixMilli() - r.Refreshed
			return -lease.Milliseconds() <= age && age < d.Milliseconds()
		}
	}
	// A renewal waits for Load for 2 s. The refresh goes on without it, and
	// a later check finds its result.
	waiting, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	_, err := g.atLeast(waiting, subject, within(every))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoGrant):
		return fmt.Errorf("%w: %w", sessionhttp.ErrSessionOver, err)
	case grace == 0 || errors.Is(err, ErrGrantSealed):
		return err
	}
	found, _, lost := g.load(ctx, g.key(subject))
	if lost != nil {
		return err
	}
	if found == nil {
		return fmt.Errorf("%w: %w", sessionhttp.ErrSessionOver, ErrNoGrant)
	}
	if !within(grace)(found) {
		return err
	}
	return nil
}
