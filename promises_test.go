package sessiontoken_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Promises of README.md, SECURITY.md and OPERATING.md that take several packages.

// countedRing and countedLog are stores that count how often they are read.
type countedRing struct {
	keys.MemStore
	reads atomic.Int64
}

func (c *countedRing) Load(ctx context.Context, name string) (keys.Stored, error) {
	c.reads.Add(1)
	return c.MemStore.Load(ctx, name)
}

type countedLog struct {
	revoke.MemStore
	reads atomic.Int64
}

func (c *countedLog) Since(ctx context.Context, cursor string) (revoke.Page, error) {
	c.reads.Add(1)
	return c.MemStore.Since(ctx, cursor)
}

// TestVerifyingAsksNoStore: the stores are read as often with a thousand
// verifications a second as with none, of tokens seen first and seen before. A
// sign-in reads that of revocations once.
func TestVerifyingAsksNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quiet := slog.New(slog.DiscardHandler)
		ringStore, log := new(countedRing), new(countedLog)
		ring, err := keys.NewRing(keys.RingConfig{Store: ringStore, InsecureUnsealed: true, Algorithm: keys.EdDSA, Logger: quiet})
		require.NoError(t, err)
		list, err := revoke.NewList(revoke.Config{Store: log, Logger: quiet})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{}, 2)
		go func() { _ = ring.Run(ctx); done <- struct{}{} }()
		go func() { _ = list.Run(ctx); done <- struct{}{} }()
		issuer := newIssuer[attackState](t, ring, func(c *sessiontoken.IssuerConfig) { c.Revocations = list; c.TTL = time.Hour })
		verifier := newVerifier[attackState](t, ring, func(c *sessiontoken.VerifierConfig) { c.Revocations = list })

		time.Sleep(10*time.Second + 500*time.Millisecond)
		var tokens []string
		for range 100 {
			synctest.Wait()
			before := log.reads.Load()
			token, _, err := issuer.Issue(t.Context(), "ada", attackState{})
			require.NoError(t, err)
			require.Equal(t, before+1, log.reads.Load(), "a sign-in asks for the time, once")
			tokens = append(tokens, token)
		}

		minute := func(each func()) (ringReads, logReads int64) {
			time.Sleep(30*time.Second + 500*time.Millisecond) // between two readings
			r, l := ringStore.reads.Load(), log.reads.Load()
			for range 60_000 {
				each()
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			return ringStore.reads.Load() - r, log.reads.Load() - l
		}
		idleRing, idleLog := minute(func() {})
		require.Positive(t, idleLog)
		n := 0
		busyRing, busyLog := minute(func() {
			_, err := verifier.Verify(t.Context(), tokens[n%len(tokens)])
			require.NoError(t, err)
			n++
		})
		require.LessOrEqual(t, busyRing, idleRing+1, "the next moment of the same rhythm may fall into the minute")
		require.LessOrEqual(t, busyLog, idleLog+idleLog/8, "the pauses between readings differ by an eighth, by chance")
		require.Equal(t, 60_000.0, verifier.Metrics()["verifications_total"])
		cancel()
		<-done
		<-done
	})
}

// TestStateIsAsOldAsItsTokenAtMost: a change of the state is seen within TTL,
// when the token is over and its successor has what the authority says.
func TestStateIsAsOldAsItsTokenAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := keys.GenerateKey(keys.EdDSA)
		require.NoError(t, err)
		static, err := keys.NewStatic(key)
		require.NoError(t, err)
		issuer, verifier := newIssuer[attackState](t, static), newVerifier[attackState](t, static)
		truth := attackState{Name: "clerk"}
		load := func(context.Context, *sessiontoken.Claims[attackState]) (attackState, error) { return truth, nil }

		token, _, err := issuer.Issue(t.Context(), "ada", truth)
		require.NoError(t, err)
		truth = attackState{Name: "dismissed"}
		time.Sleep(5*time.Minute - time.Second)
		c, err := verifier.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, "clerk", c.State.Name)
		time.Sleep(time.Second)
		_, err = verifier.Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrExpired)
		token, _, err = issuer.Renew(t.Context(), token, load)
		require.NoError(t, err)
		c, err = verifier.Verify(t.Context(), token)
		require.NoError(t, err)
		require.Equal(t, "dismissed", c.State.Name)
	})
}

// TestRevokedKeyWhateverTheKeySet: a verifier whose key set still has a key that
// another replica's list was told to revoke refuses its tokens as soon as those
// of a revoked session, also from its cache.
func TestRevokedKeyWhateverTheKeySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, err := keys.GenerateKey(keys.EdDSA)
		require.NoError(t, err)
		static, err := keys.NewStatic(key)
		require.NoError(t, err)
		store := new(countedLog)
		newList := func() *revoke.List {
			l, err := revoke.NewList(revoke.Config{Store: store, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			return l
		}
		here, there := newList(), newList()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- there.Run(ctx) }()
		issuer := newIssuer[attackState](t, static, func(c *sessiontoken.IssuerConfig) { c.Revocations = here })
		verifier := newVerifier[attackState](t, static, func(c *sessiontoken.VerifierConfig) { c.Revocations = there })
		token, _, err := issuer.Issue(t.Context(), "ada", attackState{})
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		_, err = verifier.Verify(t.Context(), token)
		require.NoError(t, err)

		require.NoError(t, here.RevokeKey(t.Context(), key.Public().KeyID(), time.Time{}))
		healthy, _ := there.Staleness()
		time.Sleep(healthy)
		_, err = verifier.Verify(t.Context(), token)
		require.ErrorIs(t, err, sessiontoken.ErrRevoked)
		fresh, _, err := issuer.Issue(t.Context(), "ada", attackState{}) // a thief of the key signs what they like
		if err == nil {
			_, err = verifier.Verify(t.Context(), fresh)
		}
		require.ErrorIs(t, err, sessiontoken.ErrRevoked)
		cancel()
		<-done
	})
}
