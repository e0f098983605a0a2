package oidclogin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
)

// grant is what the store holds of a user, sealed. Times are Unix milliseconds.
type grant struct {
	Write    string `json:"w"` // of this write alone
	Subject  string `json:"sub"`
	Refresh  string `json:"rt"`
	Using    int64  `json:"use"` // since when Refresh is in use; 0: it is not
	Kept     bool   `json:"kept"`
	Rotated  bool   `json:"rot"` // the provider has replaced a refresh token
	Nonce    string `json:"n"`   // of the login's ID token; empty: none
	AuthTime int64  `json:"at"`  // of the login's ID token, Unix seconds; 0: none

	Access    string `json:"acc"` // empty: there is none that was checked
	Kind      string `json:"typ"`
	Expires   int64  `json:"exp"`
	Refreshed int64  `json:"iat"` // when the provider last gave a token
}

const (
	maxGrant = 64 << 10
	// margin is how long a token that is handed out is valid at least, if
	// its life is four times that. untold is the life of one of which the
	// provider does not say it.
	margin = 30 * time.Second
	untold = 5 * time.Minute
)

// isPlain reports whether s is text that every store can keep.
func isPlain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// isUsable reports whether the access token is valid for a while.
func (g *Grants) isUsable(r *grant) bool {
	left := r.Expires - g.clock.Now().UnixMilli()
	return r.Access != "" && left > min(margin.Milliseconds(), (r.Expires-r.Refreshed)/4) && left > 0
}

// isOld reports whether a use of a refresh token has failed by now.
func (g *Grants) isOld(r *grant) bool {
	age := clock.Between(time.UnixMilli(r.Using), g.clock.Now())
	return age > lease || age < -lease // a clock that was far ahead
}

// mayRepeat reports whether a refresh token may be sent again after a use of
// unknown outcome.
func (g *Grants) mayRepeat(r *grant) bool { return r.Kept && !r.Rotated && !g.rotates }

// associated returns what a sealed grant is bound to.
func (g *Grants) associated(key string) []byte {
	return fmt.Appendf(nil, "%d:%s%s", len(g.namespace), g.namespace, key)
}

// load returns a grant and its revision, or nil and "". With ErrGrantSealed it
// returns the revision too.
func (g *Grants) load(ctx context.Context, key string) (*grant, string, error) {
	sealed, rev, err := g.store.LoadGrant(ctx, g.namespace, key)
	if err != nil {
		return nil, "", unavailable("the store of grants", err)
	}
	if rev == "" {
		return nil, "", nil
	}
	plain, err := g.seal.Decrypt(sealed, g.associated(key))
	found := new(grant)
	if err != nil || json.Unmarshal(plain, found) != nil {
		g.counted.sealed.Add(1)
		g.log.Warn("grant_sealed", "oidclogin: a grant cannot be opened; give GrantsConfig.Secrets the secret that sealed it")
		return nil, rev, ErrGrantSealed
	}
	return found, rev, nil
}

// swap replaces the grant of a revision, or deletes it if next is nil. It tries
// again until ctx ends if the store fails. Its error matches keys.ErrConflict
// or errUnavailable; after the latter the write may take effect.
func (g *Grants) swap(ctx context.Context, key string, next *grant, rev string) (string, error) {
	var sealed []byte
	if next != nil {
		next.Write = rand.Text()
		plain, err := json.Marshal(next)
		if err != nil {
			return "", errors.New("oidclogin: a grant cannot be written as JSON")
		}
		if sealed, err = g.seal.Encrypt(plain, g.associated(key)); err != nil {
			return "", errors.New("oidclogin: a grant cannot be sealed")
		}
		if len(sealed) > maxGrant {
			return "", errors.New("oidclogin: the provider's tokens are too long to keep")
		}
	}
	unsure := false // an earlier try may have taken effect
	for pause := firstPoll; ; pause = min(2*pause, longestPoll) {
		newRev, err := g.store.SaveGrant(ctx, g.namespace, key, sealed, rev)
		conflict := errors.Is(err, keys.ErrConflict)
		if err == nil || conflict && !unsure {
			return newRev, err
		}
		unsure = true
		found, foundRev, lost := g.load(ctx, key)
		switch {
		case errors.Is(lost, ErrGrantSealed):
			return "", keys.ErrConflict
		case lost != nil:
		case next == nil && found == nil, next != nil && found != nil && found.Write == next.Write:
			return foundRev, nil
		case conflict || foundRev != rev:
			return "", keys.ErrConflict
		}
		if !sleep(ctx, pause) {
			return "", unavailable("the store of grants", err)
		}
	}
}

// sleep reports whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refreshed is the result of a run of refresh.
type refreshed struct {
	grant *grant
	fresh bool  // the run has refreshed it
	err   error // one that a later call need not repeat: ErrNoGrant
}

// atLeast returns the grant of a user for which enough reports true, or one
// that has just been refreshed.
func (g *Grants) atLeast(ctx context.Context, subject string, enough func(*grant) bool) (*grant, error) {
	key := g.key(subject)
	for {
		found, _, err := g.load(ctx, key)
		switch {
		case err != nil:
			return nil, err
		case found == nil:
			return nil, ErrNoGrant
		case enough(found):
			return found, nil
		}
		out, err := g.runs.Do(ctx, key, 2*lease, func(ctx context.Context) (refreshed, time.Duration, error) {
			out, err := g.refresh(ctx, key, enough)
			if errors.Is(err, ErrNoGrant) {
				return refreshed{err: err}, 0, nil // no pause follows
			}
			return out, 0, err
		})
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && !errors.Is(err, errUnavailable) && !errors.Is(err, ErrGrantSealed):
			return nil, unavailable("a refresh", err)
		case err != nil:
			return nil, err
		case out.err != nil:
			return nil, out.err
		case out.fresh || enough(out.grant):
			return out.grant, nil
		}
	}
}

// refresh refreshes a grant unless enough reports true for it. It is called
// once at a time for a grant in this process, and by any number of others.
func (g *Grants) refresh(ctx context.Context, key string, enough func(*grant) bool) (refreshed, error) {
	pause := firstPoll
	for {
		found, rev, err := g.load(ctx, key)
		switch {
		case err != nil:
			return refreshed{}, err
		case found == nil:
			return refreshed{}, ErrNoGrant
		case enough(found):
			return refreshed{grant: found}, nil
		case found.Using != 0 && !g.isOld(found):
			if !sleep(ctx, pause) {
				return refreshed{}, unavailable("another replica's refresh", ctx.Err())
			}
			pause = min(2*pause, longestPoll)
			continue
		case found.Using != 0 && !g.mayRepeat(found):
			err = g.end(ctx, key, rev, "a process ended while it refreshed a grant")
		default:
			var next *grant
			if next, err = g.use(ctx, key, found, rev); err == nil {
				return refreshed{grant: next, fresh: true}, nil
			}
		}
		if !errors.Is(err, keys.ErrConflict) {
			return refreshed{}, err
		}
	}
}

// end deletes a grant of that revision, and returns ErrNoGrant.
func (g *Grants) end(ctx context.Context, key, rev, why string) error {
	if _, err := g.swap(ctx, key, nil, rev); errors.Is(err, keys.ErrConflict) {
		return err
	}
	g.counted.over.Add(1)
	g.log.Warn("grant_over", "oidclogin: a grant for offline access is over; the user has to log in again", "why", why)
	return ErrNoGrant
}

// use records that the refresh token of a grant is in use, sends it, and stores
// the outcome. The error is keys.ErrConflict if another has written meanwhile.
func (g *Grants) use(ctx context.Context, key string, old *grant, rev string) (*grant, error) {
	ctx, cancel := context.WithTimeout(ctx, finishLimit)
	defer cancel()
	inUse := *old
	inUse.Using = g.clock.Now().UnixMilli()
	recording, stop := context.WithTimeout(ctx, recordLimit)
	rev, err := g.swap(recording, key, &inUse, rev)
	stop()
	if err != nil {
		return nil, err
	}
	sending, stop := context.WithTimeout(ctx, refreshLimit)
	a, err := g.endpoint.refresh(sending, inUse.Refresh)
	stop()
	switch {
	case errors.Is(err, errInvalidGrant):
		return nil, g.end(ctx, key, rev, "the provider says invalid_grant: it has ended the grant, or its refresh token was used elsewhere")
	case errors.Is(err, errNotUsed), err != nil && g.mayRepeat(old):
		g.counted.failed.Add(1)
		g.log.Warn("grant_refresh", "oidclogin: the provider did not refresh a grant; it is tried again", "err", err)
		free := *old
		free.Using = 0
		if _, failed := g.swap(ctx, key, &free, rev); errors.Is(failed, keys.ErrConflict) {
			return nil, failed
		}
		return nil, unavailable("the token endpoint", err)
	case err != nil:
		g.log.Warn("grant_refresh", "oidclogin: it is not known whether the provider has used a refresh token", "err", err)
		return nil, g.end(ctx, key, rev, "the provider's answer to a refresh was lost")
	}
	next, err := g.after(ctx, old, a)
	if err != nil {
		return nil, g.end(ctx, key, rev, err.Error())
	}
	if _, err = g.swap(ctx, key, next, rev); errors.Is(err, keys.ErrConflict) {
		g.abandon(ctx, key, next)
	}
	if err != nil {
		return nil, err
	}
	if next.Access == "" {
		g.counted.failed.Add(1)
		return nil, unavailable("the keys of the provider", errors.New("a refreshed ID token could not be checked"))
	}
	g.counted.refreshed.Add(1)
	return next, nil
}

// abandon revokes the refresh token of a grant that was revoked while it was
// refreshed. If a login has replaced the grant, abandon does nothing: a
// provider may revoke the tokens of that login too.
func (g *Grants) abandon(ctx context.Context, key string, r *grant) {
	if found, _, err := g.load(ctx, key); err != nil || found != nil {
		return
	}
	if err := g.endpoint.revoke(ctx, r.Refresh); err != nil {
		g.log.Warn("grant_revoke", "oidclogin: a grant was revoked here while it was refreshed, and the provider could not be told", "err", err)
	}
}

// after returns the grant after an answer. An error means that the answer
// cannot be trusted; it holds nothing of it.
func (g *Grants) after(ctx context.Context, old *grant, a *tokenAnswer) (*grant, error) {
	now := g.clock.Now()
	lasts := a.lasts
	if lasts == 0 {
		lasts = untold
	}
	next := *old
	next.Using, next.Refreshed = 0, now.UnixMilli()
	next.Access, next.Kind, next.Expires = a.access, a.kind, now.Add(lasts).UnixMilli()
	if a.refresh == "" || a.refresh == old.Refresh {
		next.Kept = true
	} else {
		next.Refresh, next.Rotated = a.refresh, true
	}
	if a.idToken == "" {
		return &next, nil
	}
	switch err := g.endpoint.verify(ctx, a, old); {
	case errors.Is(err, errUnavailable):
		next.Access = "" // the new refresh token must not be lost
	case err != nil:
		return nil, err
	}
	return &next, nil
}
