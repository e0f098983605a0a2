package sessiontoken_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/internal/clock"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// remembering is a source that knows keys which it does not publish any more.
type remembering struct {
	*keys.Static
	retired map[string]*keys.PublicKey
	err     error
	asked   []string
}

func (r *remembering) IdentifyKey(_ context.Context, kid string) (*keys.PublicKey, error) {
	r.asked = append(r.asked, kid)
	return r.retired[kid], r.err
}

// TestIdentifyNeedsNothingButAGenuineToken: whose token it is does not depend on
// its age, its state, its revocation, nor on this machine's clock or list.
func TestIdentifyNeedsNothingButAGenuineToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, list := staticSource(t, keys.ES256), &revocations{}
		onIssuer, _ := withList(list)
		token, c, err := newIssuer[map[string]int](t, source, onIssuer).Begin(t.Context(), sessiontoken.Start{Subject: "user-1"}, map[string]int{"roles": 1})
		require.NoError(t, err)
		want := revoke.Question{SessionID: c.SessionID, Subject: "user-1", KeyID: c.KeyID, Began: c.Began}.Prepared()
		slow, fast := new(clock.Clock), new(clock.Clock)
		slow.SetAhead(-24 * time.Hour)
		fast.SetAhead(365 * 24 * time.Hour)
		issuers := map[string]*sessiontoken.Issuer[attackState]{ // of another type of state
			"the same":         newIssuer[attackState](t, source, onIssuer),
			"another audience": newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Audience = []string{"web", "api"} }),
			"shorter tokens":   newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.MaxBytes = 100 }),
		}
		clock.As(slow, func() { issuers["a slow clock"] = newIssuer[attackState](t, source) })
		clock.As(fast, func() { issuers["a fast clock"] = newIssuer[attackState](t, source) })
		identified := func() {
			t.Helper()
			for name, i := range issuers {
				q, err := i.Identify(t.Context(), token)
				require.NoError(t, err, name)
				require.Equal(t, want, q, name)
			}
		}
		identified()
		list.err, list.timeErr, list.sid = errBoom, errBoom, c.SessionID
		list.calls, list.times = 0, 0
		time.Sleep(10 * 24 * time.Hour)
		identified()
		require.Zero(t, list.calls+list.times, "it asks for no revocation and no time")
	})
}

func TestIdentifyRefuses(t *testing.T) {
	source := staticSource(t, keys.ES256)
	i := newIssuer[attackState](t, source)
	token, _, err := i.Issue(t.Context(), "user-1", attackState{})
	require.NoError(t, err)
	foreign := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Issuer = "https://other.example" })
	elsewhere := newIssuer[attackState](t, source, func(c *sessiontoken.IssuerConfig) { c.Audience = []string{"other"} })
	stranger := newIssuer[attackState](t, staticSource(t, keys.ES256))
	for _, tt := range []struct {
		name   string
		issuer *sessiontoken.Issuer[attackState]
		token  string
		want   error
	}{
		{"nothing", i, "", sessiontoken.ErrMalformed},
		{"too long", i, strings.Repeat("x", 9000), sessiontoken.ErrMalformed},
		{"another header", i, "e30" + token[strings.IndexByte(token, '.'):], sessiontoken.ErrMalformed},
		{"altered", i, token[:len(token)-4] + "AAAA", sessiontoken.ErrSignature},
		{"another issuer", foreign, token, sessiontoken.ErrClaims},
		{"another audience", elsewhere, token, sessiontoken.ErrAudience},
		{"another key", stranger, token, sessiontoken.ErrSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, with := range []sessiontoken.SigningKeySource{tt.issuer.Config().Keys, asRemembering(t, tt.issuer)} {
				cfg := tt.issuer.Config()
				cfg.Keys = with
				again, err := sessiontoken.NewIssuer[attackState](cfg)
				require.NoError(t, err)
				q, err := again.Identify(t.Context(), tt.token)
				require.ErrorIs(t, err, tt.want)
				require.ErrorIs(t, err, sessiontoken.ErrInvalid)
				require.Zero(t, q)
			}
		})
	}
}

// TestIdentifyByARetiredKey: a token of a key that signs and verifies no longer
// is identified by a source that remembers it; one whose key the source lacks
// names no session; and if the source cannot tell, nor can Identify.
func TestIdentifyByARetiredKey(t *testing.T) {
	old := newShop(t, keys.EdDSA)
	source := &remembering{Static: staticSource(t, keys.EdDSA), retired: map[string]*keys.PublicKey{}}
	i := newIssuer[attackState](t, source)
	kid := old.key.Public().KeyID()

	require.ErrorIs(t, failure(i.Identify(t.Context(), old.token)), sessiontoken.ErrSignature)
	source.retired[kid] = old.key.Public()
	q, err := i.Identify(t.Context(), old.token)
	require.NoError(t, err)
	require.Equal(t, "user-1", q.Subject)
	require.Equal(t, kid, q.KeyID)
	require.Equal(t, []string{kid, kid}, source.asked)
	require.ErrorIs(t, errorOf(i.Renew(t.Context(), old.token, always(attackState{}))), sessiontoken.ErrSignature, "for Identify alone")
	require.ErrorIs(t, failure(newVerifier[attackState](t, source).Verify(t.Context(), old.token)), sessiontoken.ErrSignature, "for Identify alone")
	require.Len(t, source.asked, 2)

	other := newShop(t, keys.ES256)
	source.retired[kid] = other.key.Public() // a source that is wrong
	require.ErrorIs(t, failure(i.Identify(t.Context(), old.token)), sessiontoken.ErrSignature)

	source.err = errBoom
	err = failure(i.Identify(t.Context(), old.token))
	require.ErrorIs(t, err, errBoom)
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	for _, form := range []string{"", "a.b.c", strings.Repeat("x", 9000)} {
		source.asked = nil
		require.ErrorIs(t, failure(i.Identify(t.Context(), form)), sessiontoken.ErrMalformed)
		require.Empty(t, source.asked)
	}

	// A source without memory is asked as Verify asks it.
	plain := &changing{err: errBoom}
	i = newIssuer[attackState](t, signingBy{plain, source.Static})
	err = failure(i.Identify(t.Context(), old.token))
	require.ErrorIs(t, err, errBoom)
	require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
	plain.put(mustSet(t, old.key.Public()), nil)
	require.NoError(t, failure(i.Identify(t.Context(), old.token)))
}

// signingBy verifies by one source and signs by another.
type signingBy struct {
	sessiontoken.KeySource
	signer *keys.Static
}

func (signingBy) RetainFor() time.Duration { return 0 }

func (s signingBy) SigningKey(ctx context.Context) (*keys.SigningKey, error) {
	return s.signer.SigningKey(ctx)
}

// asRemembering returns the keys of an issuer as a source that identifies them.
func asRemembering(t *testing.T, i *sessiontoken.Issuer[attackState]) *remembering {
	t.Helper()
	static := i.Config().Keys.(*keys.Static)
	key, err := static.SigningKey(t.Context())
	require.NoError(t, err)
	return &remembering{Static: static, retired: map[string]*keys.PublicKey{key.Public().KeyID(): key.Public()}}
}

// TestIdentifyWithARing: a replica that has not read the key of a token yet reads
// its store before it answers; a key that the store lacks names no session; and
// while the store does not answer, it cannot be told.
func TestIdentifyWithARing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &gate{}
		ring := func() *keys.Ring {
			r, err := keys.NewRing(keys.RingConfig{Store: store, InsecureUnsealed: true, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			return r
		}
		first := ring()
		token, c, err := newIssuer[attackState](t, first).Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		late := newIssuer[attackState](t, ring())
		q, err := late.Identify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, c.SessionID, q.SessionID)

		stranger, _, err := newIssuer[attackState](t, staticSource(t, keys.ES256)).Issue(t.Context(), "user-1", attackState{})
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, failure(late.Identify(t.Context(), stranger)), sessiontoken.ErrSignature)

		store.down.Store(true)
		time.Sleep(2 * time.Second)
		err = failure(late.Identify(t.Context(), stranger))
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, sessiontoken.ErrInvalid)
		require.NoError(t, failure(late.Identify(t.Context(), token)), "what it knows, it knows")
		store.down.Store(false)
		time.Sleep(time.Minute)

		// A key that was revoked names no session either.
		require.NoError(t, first.Revoke(t.Context(), c.KeyID))
		time.Sleep(2 * time.Minute)
		require.ErrorIs(t, failure(late.Identify(t.Context(), token)), sessiontoken.ErrSignature)
	})
}

// gate is a store that can be down.
type gate struct {
	keys.MemStore
	down atomic.Bool
}

func (g *gate) Load(ctx context.Context, name string) (keys.Stored, error) {
	if g.down.Load() {
		return keys.Stored{}, errBoom
	}
	return g.MemStore.Load(ctx, name)
}
