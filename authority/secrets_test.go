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
		require.Equal(t, []authority.SecretStatus{{}}, before.Secrets(), "nothing was read yet")
		token, c, err := before.Issuer().Begin(t.Context(), sessiontoken.Start{Subject: "ada", Renewal: sessiontoken.Renewable}, current)
		require.NoError(t, err)
		refreshToken, _, err := before.Refresh().Start(t.Context(), refresh.Family{Subject: "ada", SessionID: c.SessionID, Began: c.Began}, "")
		require.NoError(t, err)
		require.NotEmpty(t, before.Secrets()[0].PrivateKeys)

		both, after := with(secret(2), secret(1)), with(secret(2))
		require.NoError(t, both.Ring().Sync(t.Context()))
		was := both.Secrets()
		require.Len(t, was, 2)
		require.Empty(t, was[0], "the first secret has no end")
		require.ElementsMatch(t, before.Secrets()[0].PrivateKeys, was[1].PrivateKeys)
		require.Greater(t, time.Until(was[1].KeysUntil), 24*time.Hour)
		require.NoError(t, both.Ring().Reseal(t.Context()))
		now := both.Secrets()
		require.Equal(t, was[1].PrivateKeys, now[0].PrivateKeys, "Reseal has moved them")
		require.Empty(t, now[1].PrivateKeys)
		require.Zero(t, now[1].KeysUntil)
		require.Equal(t, was[1].RefreshUntil, now[1].RefreshUntil)

		renew := func(a *authority.Authority[sealedState]) error {
			_, _, err := a.Issuer().Renew(t.Context(), token, load)
			return err
		}
		exchange := func(a *authority.Authority[sealedState]) error {
			_, _, err := a.Refresh().Exchange(t.Context(), refresh.Presented{Token: refreshToken}, func(context.Context, refresh.Family) error { return errDown })
			return err // errDown: it was accepted, and is not used up
		}
		until := func(at time.Time) { time.Sleep(time.Until(at)) }
		until(now[1].StatesUntil.Add(-2 * time.Minute))
		require.NoError(t, renew(both))
		require.Error(t, renew(after), "it is needed")
		until(now[1].StatesUntil)
		require.ErrorIs(t, renew(both), sessiontoken.ErrExpired, "nothing needs it")
		until(now[1].RefreshUntil.Add(-2 * time.Minute))
		require.ErrorIs(t, exchange(both), errDown)
		require.NotErrorIs(t, exchange(after), errDown, "it is needed")
		until(now[1].RefreshUntil)
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
	for _, st := range a.Secrets() {
		require.Empty(t, st.PrivateKeys)
		require.Zero(t, st.KeysUntil)
	}
}
