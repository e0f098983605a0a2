package authority_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/authority"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
)

// TestSecretsAreNeededUntil: what Secrets returns is enough, and not too much. A
// token that was made with an old secret at the last moment needs it until the
// time that is told, and is over then.
func TestSecretsAreNeededUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := authority.Memory()
		limits := authority.Limits{IdleTimeout: 2 * time.Hour, MaxSession: 10 * time.Hour, RefreshIdle: 10 * time.Hour}
		current := sealedState{"admin", sessiontoken.Seal(hiddenMail)}
		load := func(context.Context, *sessiontoken.Claims[sealedState]) (sealedState, error) { return current, nil }
		with := func(secrets ...[]byte) *authority.Authority[sealedState] {
			a, err := authority.New(authority.Config[sealedState]{
				Issuer: issuer, Audience: []string{"site"}, Store: store, Secrets: secrets, Algorithm: keys.EdDSA, Logger: quiet, Limits: limits, Load: load,
			})
			require.NoError(t, err)
			return a
		}
		before := with(secret(1))
		sealing := func(a *authority.Authority[sealedState]) [][]string { keys, _, _ := a.Secrets(); return keys }
		require.Equal(t, [][]string{nil}, sealing(before), "nothing was read yet")
		token, c, err := before.Issuer().Begin(t.Context(), sessiontoken.Start{Subject: "ada", Renewal: sessiontoken.Renewable}, current)
		require.NoError(t, err)
		refreshToken, _, err := before.Refresh().Start(t.Context(), refresh.Family{Subject: "ada", SessionID: c.SessionID, Began: c.Began}, "")
		require.NoError(t, err)
		require.NotEmpty(t, sealing(before)[0])

		both, after := with(secret(2), secret(1)), with(secret(2))
		require.NoError(t, both.Ring().Sync(t.Context()))
		was := sealing(both)
		require.Len(t, was, 2)
		require.Empty(t, was[0])
		require.ElementsMatch(t, sealing(before)[0], was[1])
		require.NoError(t, both.Ring().Reseal(t.Context()))
		now, refreshUntil, statesUntil := both.Secrets()
		require.Equal(t, [][]string{was[1], nil}, now, "Reseal has moved them")

		renew := func(a *authority.Authority[sealedState]) error {
			_, _, err := a.Issuer().Renew(t.Context(), token, load)
			return err
		}
		exchange := func(a *authority.Authority[sealedState]) error {
			_, _, err := a.Refresh().Exchange(t.Context(), refresh.Presented{Token: refreshToken}, func(context.Context, refresh.Family) error { return errDown })
			return err // errDown: it was accepted, and is not used up
		}
		until := func(at time.Time) { time.Sleep(time.Until(at)) }
		until(statesUntil.Add(-2 * time.Minute))
		require.NoError(t, renew(both))
		require.Error(t, renew(after), "it is needed")
		until(statesUntil)
		require.ErrorIs(t, renew(both), sessiontoken.ErrExpired, "nothing needs it")
		until(refreshUntil.Add(-2 * time.Minute))
		require.ErrorIs(t, exchange(both), errDown)
		require.NotErrorIs(t, exchange(after), errDown, "it is needed")
		until(refreshUntil)
		require.ErrorIs(t, exchange(both), refresh.ErrInvalid, "nothing needs it")
	})
}

// TestSecretsWithASeal: with Config.Seal no private key needs a secret.
func TestSecretsWithASeal(t *testing.T) {
	seal, err := keys.NewAESGCM(secret(9))
	require.NoError(t, err)
	a, err := authority.New(authority.Config[sealedState]{
		Issuer: issuer, Audience: []string{"site"}, Store: authority.Memory(), Secrets: [][]byte{secret(1), secret(2)}, Seal: seal, Logger: quiet,
		Load: func(context.Context, *sessiontoken.Claims[sealedState]) (sealedState, error) {
			return sealedState{}, nil
		},
	})
	require.NoError(t, err)
	require.NoError(t, a.Ring().Sync(t.Context()))
	require.NotEmpty(t, a.Ring().Status().SealingKeys)
	sealing, _, _ := a.Secrets()
	require.Equal(t, [][]string{nil, nil}, sealing)
}
