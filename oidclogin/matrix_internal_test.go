package oidclogin

import (
	"context"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/refresh"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// Each kind of token is accepted by its own validator alone, even in the worst
// case: the provider and the site are one, with one name, one key, one key id
// and one secret, and each token is made at the same moment for the same client
// and user.
func TestMatrixOfTokens(t *testing.T) {
	secret := []byte("a secret of at least 32 random bytes.")
	key, err := keys.NewSigningKey(keys.ES256, opKeys().p256)
	require.NoError(t, err)
	source, err := keys.NewStatic(key)
	require.NoError(t, err)
	set, err := source.KeySet(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, set.Keys(), 1)
	kid := set.Keys()[0].KeyID()
	list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
	require.NoError(t, err)

	issuer, err := sessiontoken.NewIssuer[struct{}](sessiontoken.IssuerConfig{Issuer: opIssuer, Audience: []string{opClient}, Keys: source, Revocations: list})
	require.NoError(t, err)
	verifier, err := sessiontoken.NewVerifier[struct{}](sessiontoken.VerifierConfig{Issuer: opIssuer, Audience: opClient, Keys: source, Revocations: list})
	require.NoError(t, err)
	manager, err := refresh.NewManager(refresh.Config{Store: new(refresh.MemStore), Secrets: [][]byte{secret}, Revocations: list})
	require.NoError(t, err)
	sealing, err := newSealer([][]byte{secret}, opIssuer, opClient)
	require.NoError(t, err)

	now := time.Now()
	header := func(typ string) string {
		h := members{"alg": oidc.ES256, "kid": kid}
		if typ != "" {
			h["typ"] = typ
		}
		return h.text()
	}
	times := members{"iat": now.Unix(), "exp": now.Unix() + 120, "auth_time": now.Unix()}
	session, claims, err := issuer.Begin(t.Context(), sessiontoken.Start{Subject: opSubject, Renewal: sessiontoken.Renewable}, struct{}{})
	require.NoError(t, err)
	family, _, err := manager.Start(t.Context(), refresh.Family{Subject: claims.Subject, SessionID: claims.SessionID, Began: claims.Began}, "")
	require.NoError(t, err)
	state := newState(now)
	cookie, err := sealing.seal(kindLogin, state, pending{Nonce: opNonce})
	require.NoError(t, err)
	hint, err := sealing.seal(kindHint, state, pending{Nonce: opNonce})
	require.NoError(t, err)

	type validator struct {
		name    string
		accepts string // the kind of tokens that it is for
		check   func(raw string) error
	}
	logout := func(insecure bool) func(string) error {
		return func(raw string) error {
			r := rulesOfLogout()
			r.now, r.insecureTypeJWT = now, insecure
			_, err := verifyLogoutToken(t.Context(), opKeySet(), raw, r)
			return err
		}
	}
	id := func(change func(*idTokenRules)) func(string) error {
		return func(raw string) error {
			r := idRules()
			r.now = now
			change(&r)
			_, err := verifyIDToken(t.Context(), opKeySet(), raw, r)
			return err
		}
	}
	validators := []validator{
		{"ID token", "ID token", id(func(*idTokenRules) {})},
		{"ID token after a refresh", "ID token", id(func(r *idTokenRules) { r.refreshed = true })},
		{"logout token", "logout token", logout(false)},
		{"logout token of typ JWT", "logout token", logout(true)},
		{"session token", "session token", func(raw string) error {
			_, err := verifier.Verify(t.Context(), raw)
			return err
		}},
		{"renewal", "session token", func(raw string) error {
			_, _, err := issuer.Renew(t.Context(), raw, func(context.Context, *sessiontoken.Claims[struct{}]) (struct{}, error) { return struct{}{}, nil })
			return err
		}},
		{"refresh token", "refresh token", func(raw string) error {
			_, err := manager.Find(t.Context(), refresh.Presented{Token: raw})
			return err
		}},
		{"refresh exchange", "refresh token", func(raw string) error {
			_, _, err := manager.Exchange(t.Context(), refresh.Presented{Token: raw}, func(context.Context, refresh.Family) error { return nil })
			return err
		}},
		{"login cookie", "login cookie", func(raw string) error {
			if !sealing.open(kindLogin, state, raw, new(pending)) {
				return errSealed
			}
			return nil
		}},
	}
	for _, token := range []struct{ kind, name, raw string }{
		{"ID token", "ID token", sign(oidc.ES256, header("JWT"), idClaims().with(times).text())},
		{"ID token", "ID token without a typ", sign(oidc.ES256, header(""), idClaims().with(times).text())},
		{"logout token", "logout token", sign(oidc.ES256, header("logout+jwt"), logoutMembers().with(times).text())},
		{"session token", "session token", session},
		{"refresh token", "refresh token", family},
		{"login cookie", "login cookie", cookie},
		{"another cookie", "the cookie of a sign-out", hint},
	} {
		for _, v := range validators {
			t.Run(token.name+" to "+v.name, func(t *testing.T) {
				if err := v.check(token.raw); v.accepts == token.kind {
					require.NoError(t, err)
				} else {
					require.Error(t, err)
				}
			})
		}
	}
}
