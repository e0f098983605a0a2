package sessiontoken_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// office is a process with an issuer and a verifier that ask one list.
type office struct {
	list   *revoke.List
	issuer *sessiontoken.Issuer[attackState]
	v      *sessiontoken.Verifier[attackState]
}

func newOffice(t testing.TB, source sessiontoken.SigningKeySource, store revoke.Store, change ...func(*sessiontoken.VerifierConfig)) *office {
	t.Helper()
	list, err := revoke.NewList(revoke.Config{Store: store, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	onIssuer, onVerifier := withList(list)
	return &office{list, newIssuer[attackState](t, source, onIssuer), newVerifier[attackState](t, source, append(change, onVerifier)...)}
}

// read has the list read its store.
func (o *office) read(t testing.TB) { t.Helper(); require.NoError(t, o.list.Sync(t.Context())) }

// TestChangedState: a token whose state was read before the mark counts as
// expired at every verifier and can be renewed; one whose state was read after
// it does not, also within the same second.
func TestChangedState(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		a, b := newOffice(t, source, store, cache), newOffice(t, source, store, cache)
		old, begun, err := a.issuer.Issue(t.Context(), "ada", attackState{Name: "member"})
		require.NoError(t, err)
		other, _, err := a.issuer.Issue(t.Context(), "bob", attackState{})
		require.NoError(t, err)
		require.NotContains(t, payloadOf(t, old), "chg")
		for _, o := range []*office{a, b} {
			require.NoError(t, failure(o.v.Verify(t.Context(), old)))
			token, _, err := o.issuer.Renew(t.Context(), old, always(attackState{}))
			require.NoError(t, err)
			require.NotContains(t, payloadOf(t, token), "chg", "no mark lives")
		}
		for _, name := range []string{"editor", "admin"} { // no time passes
			require.NoError(t, a.list.Changed(t.Context(), "ada"))
			b.read(t)
			for _, o := range []*office{a, b} {
				for range 2 {
					err := failure(o.v.Verify(t.Context(), old))
					require.Equal(t, sessiontoken.ErrChanged, err)
					require.ErrorIs(t, err, sessiontoken.ErrExpired)
					require.ErrorIs(t, err, sessiontoken.ErrInvalid)
					require.NotErrorIs(t, err, sessiontoken.ErrRevoked)
				}
				require.NoError(t, failure(o.v.Verify(t.Context(), other)), "of another subject")
				token, c, err := o.issuer.Renew(t.Context(), old, func(_ context.Context, o *sessiontoken.Claims[attackState]) (attackState, error) {
					require.NotEqual(t, name, o.State.Name)
					return attackState{Name: name}, nil
				})
				require.NoError(t, err)
				require.Contains(t, payloadOf(t, token), `"chg":`)
				require.Equal(t, begun.SessionID, c.SessionID)
				require.False(t, c.IssuedAt.After(time.Now()))
				for _, o := range []*office{a, b} {
					c, err := o.v.Verify(t.Context(), token)
					require.NoError(t, err)
					require.Equal(t, name, c.State.Name)
				}
			}
			q, err := b.issuer.Identify(t.Context(), old)
			require.NoError(t, err)
			require.NoError(t, b.list.Check(t.Context(), &q), "the session is live")
			// The next mark makes that token stale too.
			old, _, err = b.issuer.Renew(t.Context(), old, always(attackState{Name: name}))
			require.NoError(t, err)
		}
		require.EqualValues(t, 4, a.v.Metrics()["refused_expired_total"])
	})
}

// TestChangedWhileLoadRuns: the token of a Load during which a mark came is
// stale at once, and one more renewal is enough.
func TestChangedWhileLoadRuns(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		a, b := newOffice(t, source, store, cache), newOffice(t, source, store, cache)
		token, begun, err := a.issuer.Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		for _, call := range []struct {
			name string
			make func(load func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error)) (string, *sessiontoken.Claims[attackState], error)
		}{
			{"Renew", func(load func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error)) (string, *sessiontoken.Claims[attackState], error) {
				return a.issuer.Renew(t.Context(), token, load)
			}},
			{"Resume", func(load func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error)) (string, *sessiontoken.Claims[attackState], error) {
				r := sessiontoken.Resumption{SessionID: begun.SessionID, Subject: "ada", Began: begun.Began, Renewal: sessiontoken.Renewable}
				return a.issuer.Resume(t.Context(), r, load)
			}},
		} {
			for range 3 {
				made, _, err := call.make(func(ctx context.Context, _ *sessiontoken.Claims[attackState]) (attackState, error) {
					state := attackState{Name: "read before"}
					return state, b.list.Changed(ctx, "ada")
				})
				require.NoError(t, err, call.name)
				a.read(t)
				for _, o := range []*office{a, b} {
					require.Equal(t, sessiontoken.ErrChanged, failure(o.v.Verify(t.Context(), made)), call.name)
				}
				made, _, err = call.make(always(attackState{Name: "read after"}))
				require.NoError(t, err, call.name)
				for _, o := range []*office{a, b} {
					require.NoError(t, failure(o.v.Verify(t.Context(), made)), call.name)
				}
				token = made
			}
		}
	})
}

// TestNumberIsKept: a replica that has not read the mark yet keeps the number
// of the token that it renews, so that no other replica finds the new one
// stale.
func TestNumberIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		a, b := newOffice(t, source, store), newOffice(t, source, store)
		b.read(t)
		token, _, err := a.issuer.Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		require.NoError(t, a.list.Changed(t.Context(), "ada"))
		token, _, err = a.issuer.Renew(t.Context(), token, always(attackState{}))
		require.NoError(t, err)
		token, _, err = b.issuer.Renew(t.Context(), token, always(attackState{}))
		require.NoError(t, err)
		require.NoError(t, failure(b.v.Verify(t.Context(), token)))
		require.NoError(t, failure(a.v.Verify(t.Context(), token)))

		// It is not written for ever.
		for range 30 {
			time.Sleep(50 * time.Minute)
			a.read(t)
			token, _, err = a.issuer.Renew(t.Context(), token, always(attackState{}))
			if errors.Is(err, sessiontoken.ErrExpired) { // MaxSession
				token, _, err = a.issuer.Issue(t.Context(), "ada", attackState{})
			}
			require.NoError(t, err)
		}
		require.NotContains(t, payloadOf(t, token), "chg")
	})
}

// TestBeginAndChanged: Begin does not know when its state was read. Its token
// is stale if its iat is not after the second of the mark, whether the mark is
// known to the issuer or not.
func TestBeginAndChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		a := newOffice(t, source, store)
		a.read(t)
		time.Sleep(200 * time.Millisecond)
		state := attackState{Name: "read before"}
		require.NoError(t, a.list.Changed(t.Context(), "ada"))
		time.Sleep(300 * time.Millisecond)
		token, _, err := a.issuer.Issue(t.Context(), "ada", state)
		require.NoError(t, err)
		require.NotContains(t, payloadOf(t, token), "chg")
		require.Equal(t, sessiontoken.ErrChanged, failure(a.v.Verify(t.Context(), token)))
		renewed, _, err := a.issuer.Renew(t.Context(), token, always(state))
		require.NoError(t, err)
		require.NoError(t, failure(a.v.Verify(t.Context(), renewed)))
		time.Sleep(500 * time.Millisecond) // the next second
		token, _, err = a.issuer.Issue(t.Context(), "ada", state)
		require.NoError(t, err)
		require.NoError(t, failure(a.v.Verify(t.Context(), token)))
	})
}

// readOnly is a store whose writes fail.
type readOnly struct {
	revoke.MemStore
	down atomic.Bool
}

func (u *readOnly) Append(ctx context.Context, e ...revoke.Entry) error {
	if u.down.Load() {
		return errors.New("read-only file system")
	}
	return u.MemStore.Append(ctx, e...)
}

// TestNoTokenWhileAMarkIsOwed: until the store has the mark, the issuer can
// make no token of the subject, and does not load.
func TestNoTokenWhileAMarkIsOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := staticSource(t, keys.EdDSA), new(readOnly)
		a := newOffice(t, source, store)
		token, _, err := a.issuer.Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		other, _, err := a.issuer.Issue(t.Context(), "bob", attackState{})
		require.NoError(t, err)
		store.down.Store(true)
		require.Error(t, a.list.Changed(t.Context(), "ada"))
		require.Equal(t, sessiontoken.ErrChanged, failure(a.v.Verify(t.Context(), token)), "at once")
		err = errorOf(a.issuer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) {
			t.Error("loaded")
			return attackState{}, nil
		}))
		require.ErrorIs(t, err, revoke.ErrOwed)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		require.NoError(t, errorOf(a.issuer.Renew(t.Context(), other, always(attackState{}))))
		store.down.Store(false)
		require.NoError(t, a.list.Changed(t.Context(), "ada"))
		require.NoError(t, errorOf(a.issuer.Renew(t.Context(), token, always(attackState{}))))
	})
}

// TestRevokedBeforeChanged: a stale token of a session that was revoked, or
// whose actor's was, is revoked.
func TestRevokedBeforeChanged(t *testing.T) {
	both(t, func(t *testing.T, cache func(*sessiontoken.VerifierConfig)) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		a := newOffice(t, source, store, cache)
		_, admin, err := a.issuer.Issue(t.Context(), "admin", attackState{})
		require.NoError(t, err)
		start := sessiontoken.Start{Subject: "ada", Actor: &sessiontoken.Actor{Subject: "admin", SessionID: admin.SessionID, Began: admin.Began}}
		acted, _, err := a.issuer.Begin(t.Context(), start, attackState{})
		require.NoError(t, err)
		require.NoError(t, failure(a.v.Verify(t.Context(), acted)))
		require.NoError(t, a.list.Changed(t.Context(), "admin"))
		require.NoError(t, failure(a.v.Verify(t.Context(), acted)), "the state is that of ada")
		require.NoError(t, a.list.Changed(t.Context(), "ada"))
		require.Equal(t, sessiontoken.ErrChanged, failure(a.v.Verify(t.Context(), acted)))
		require.NoError(t, a.list.RevokeSession(t.Context(), admin.SessionID))
		require.Equal(t, sessiontoken.ErrRevoked, failure(a.v.Verify(t.Context(), acted)))
	})
}

// TestIssuedAtIsNeverAhead: readers without leeway accept the iat of every
// token, however far the numbers of marks are ahead of the time.
func TestIssuedAtIsNeverAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, store := staticSource(t, keys.EdDSA), new(revoke.MemStore)
		a, b := newOffice(t, source, store), newOffice(t, source, store)
		token, _, err := a.issuer.Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		time.Sleep(990 * time.Millisecond)
		for range 3000 {
			require.NoError(t, a.list.Changed(t.Context(), "ada"))
		}
		b.read(t)
		for _, o := range []*office{a, b} {
			renewed, c, err := o.issuer.Renew(t.Context(), token, always(attackState{}))
			require.NoError(t, err)
			require.False(t, c.IssuedAt.After(time.Now()))
			require.NoError(t, failure(o.v.Verify(t.Context(), renewed)))
			var claims jwt.MapClaims
			_, _, err = jwt.NewParser().ParseUnverified(renewed, &claims)
			require.NoError(t, err)
			require.NoError(t, jwt.NewValidator(jwt.WithIssuedAt()).Validate(claims))
			begun, c, err := o.issuer.Issue(t.Context(), "ada", attackState{})
			require.NoError(t, err)
			require.False(t, c.IssuedAt.After(time.Now()))
			require.Equal(t, sessiontoken.ErrChanged, failure(o.v.Verify(t.Context(), begun)))
		}
	})
}

// brief is a checker that remembers marks for a while.
type brief struct {
	*revocations
	kept time.Duration
}

func (b brief) MaxTTL() time.Duration { return b.kept }

// TestMarksAreRememberedForATokensLife: no token may outlive the mark that
// makes it stale.
func TestMarksAreRememberedForATokensLife(t *testing.T) {
	source := staticSource(t, keys.EdDSA)
	issuer := func(kept, ttl time.Duration) error {
		return failure(sessiontoken.NewIssuer[attackState](sessiontoken.IssuerConfig{
			Issuer: "i", Audience: []string{"a"}, Keys: source, TTL: ttl, IdleTimeout: 24 * time.Hour, Revocations: brief{&revocations{}, kept}}))
	}
	require.NoError(t, issuer(time.Hour, time.Hour))
	require.ErrorContains(t, issuer(time.Hour-1, time.Hour), "IssuerConfig.TTL")
	require.ErrorContains(t, issuer(0, 0), "IssuerConfig.TTL")
	with := func(kept, maxTTL time.Duration) (*sessiontoken.Verifier[attackState], error) {
		return sessiontoken.NewVerifier[attackState](sessiontoken.VerifierConfig{
			Issuer: "i", Audience: "a", Keys: source, MaxTTL: maxTTL, Revocations: brief{&revocations{}, kept}})
	}
	v, err := with(12*time.Hour, 0)
	require.NoError(t, err)
	require.Equal(t, 12*time.Hour, v.Config().MaxTTL, "the default follows")
	for _, kept := range []time.Duration{12*time.Hour - 1, 0, -1} {
		_, err = with(kept, 12*time.Hour)
		require.ErrorContains(t, err, "VerifierConfig.MaxTTL")
	}
	_, err = with(0, 0)
	require.ErrorContains(t, err, "VerifierConfig.MaxTTL")
}

// markless is a checker whose Mark fails, or gives a number that no claim
// holds.
type markless struct {
	*revocations
	number int64
	err    error
}

func (m markless) Mark(context.Context, *revoke.Question) (int64, error) { return m.number, m.err }

// TestMarkFails: without a number that can be written, no token is made.
func TestMarkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := staticSource(t, keys.EdDSA)
		token, _, err := newIssuer[attackState](t, source).Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		down := errors.New("down")
		for _, m := range []markless{{err: down}, {err: sessiontoken.ErrExpired}, {number: -1}, {number: 253402300800000}} {
			m.revocations = &revocations{}
			onIssuer, _ := withList(m)
			err := errorOf(newIssuer[attackState](t, source, onIssuer).Renew(t.Context(), token, always(attackState{})))
			require.Error(t, err)
			require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		}
	})
}
