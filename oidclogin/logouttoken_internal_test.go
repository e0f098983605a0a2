package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"
)

// logoutRaw returns a logout token whose claims differ from an accepted one's.
func logoutRaw(changes members) string {
	return sign(oidc.ES256, headerOf(oidc.ES256, "logout+jwt"), logoutMembers().with(changes).text())
}

func TestLogoutToken(t *testing.T) {
	token, err := verifyLogoutToken(t.Context(), opKeySet(), logoutRaw(nil), rulesOfLogout())
	require.NoError(t, err)
	require.Equal(t, &logoutToken{issuer: opIssuer, tokenID: "logout-1", subject: opSubject, sessionID: opSession}, token)
}

// What real providers send and this package accepts.
func TestLogoutTokenAccepted(t *testing.T) {
	for _, c := range []struct {
		name    string
		header  string // empty: of ES256
		claims  members
		typeJWT bool
	}{
		{name: "RS256", header: headerOf(oidc.RS256, "logout+jwt")},
		{name: "sid alone", claims: members{"sub": nil}},
		{name: "sub alone", claims: members{"sid": nil}},
		{name: "one audience in an array", claims: members{"aud": []string{opClient}}},
		{name: "two audiences and azp", claims: members{"aud": []string{opClient, otherParty}, "azp": opClient}},
		{name: "an event with members", claims: members{"events": members{logoutEvent: members{"reason": "x"}}}},
		{name: "Keycloak's second event", claims: members{"events": members{logoutEvent: members{}, offlineEvent: true}}},
		{name: "Keycloak's claim typ", claims: members{"typ": "Logout"}},
		{name: "Auth0's claim trace_id", claims: members{"trace_id": "a0d47e9ac85a15a4"}},
		{name: "the clock is 5 min behind, and the token 30 s on its way", claims: members{"iat": opNow.Unix() - 330, "exp": opNow.Unix() - 210}},
		{name: "the clock is 30 s ahead", claims: members{"iat": opNow.Unix() + 30, "nbf": opNow.Unix() + 30, "exp": opNow.Unix() + 150}},
		{name: "typ JWT, with the option", header: headerOf(oidc.ES256, "JWT"), typeJWT: true},
		{name: "no typ, with the option", header: headerOf(oidc.ES256, ""), typeJWT: true},
		{name: "typ logout+jwt, with the option", typeJWT: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := c.header
			if header == "" {
				header = headerOf(oidc.ES256, "logout+jwt")
			}
			h, err := parseHeader([]byte(header))
			require.NoError(t, err)
			rules := rulesOfLogout()
			rules.insecureTypeJWT = c.typeJWT
			_, err = verifyLogoutToken(t.Context(), opKeySet(), sign(string(h.Algorithm), header, logoutMembers().with(c.claims).text()), rules)
			require.NoError(t, err)
		})
	}
}

// The option for typ JWT changes nothing else: an ID token and tokens of other
// kinds are refused.
func TestInsecureTypeJWT(t *testing.T) {
	rules := rulesOfLogout()
	rules.insecureTypeJWT = true
	for _, c := range []struct {
		name, raw string
		want      refusal
	}{
		{"an ID token", sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().text()), errHasNonce},
		{"an ID token without a nonce", sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().with(members{"nonce": nil}).text()), errLogoutEvent},
		{"an empty typ", sign(oidc.ES256, `{"alg":"ES256","typ":""}`, logoutMembers().text()), errType},
		{"an access token", sign(oidc.ES256, headerOf(oidc.ES256, "at+jwt"), logoutMembers().text()), errType},
		{"a session token", sign(oidc.ES256, headerOf(oidc.ES256, "session+jwt"), logoutMembers().text()), errType},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := verifyLogoutToken(t.Context(), opKeySet(), c.raw, rules)
			require.ErrorIs(t, err, c.want)
		})
	}
}

// Keys that cannot be had are not the token's fault.
func TestUnavailableKeys(t *testing.T) {
	errKeys := fmt.Errorf("%w: the provider answers 500", errUnavailable)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want error
	}{
		{"the provider is down", t.Context(), errKeys, errUnavailable},
		{"the request has ended", ended, context.Canceled, errUnavailable},
		{"no key fits", t.Context(), errors.New("no key"), errSignature},
		{"no key has the kid", t.Context(), errKeyUnknown, errKeyUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := verifyIDToken(c.ctx, failingKeys{c.err}, sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().text()), idRules())
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.want != errUnavailable, errors.Is(err, errRefused))
			require.Nil(t, id)
			logout, err := verifyLogoutToken(c.ctx, failingKeys{c.err}, logoutRaw(nil), rulesOfLogout())
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.want != errUnavailable, errors.Is(err, errRefused))
			require.Nil(t, logout)
		})
	}
}

// wrongKeys returns a payload, whatever the token is.
type wrongKeys struct {
	payload []byte
	err     error
}

func (k wrongKeys) VerifySignature(context.Context, string) ([]byte, error) { return k.payload, k.err }

// An error of a key set counts, whatever comes with it.
func TestPayloadWithAnError(t *testing.T) {
	errKeys := errors.New("not of these keys")
	_, err := verifyIDToken(t.Context(), wrongKeys{[]byte(idClaims().text()), errKeys}, sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().text()), idRules())
	require.ErrorIs(t, err, errSignature)
	_, err = verifyLogoutToken(t.Context(), wrongKeys{[]byte(logoutMembers().text()), errKeys}, logoutRaw(nil), rulesOfLogout())
	require.ErrorIs(t, err, errSignature)
}

// A key set that mixes up two tokens lets neither pass.
func TestPayloadOfAnotherToken(t *testing.T) {
	for _, payload := range [][]byte{nil, {}, []byte(idClaims().with(members{"sub": "admin"}).text())} {
		_, err := verifyIDToken(t.Context(), wrongKeys{payload, nil}, sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().text()), idRules())
		require.ErrorIs(t, err, errSignature)
		_, err = verifyLogoutToken(t.Context(), wrongKeys{payload, nil}, logoutRaw(nil), rulesOfLogout())
		require.ErrorIs(t, err, errSignature)
	}
}
