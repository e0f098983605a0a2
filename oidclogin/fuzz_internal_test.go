package oidclogin

import (
	stdjson "encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// fuzzTokens calls body with tokens of any form, and with tokens that the
// provider has signed whatever their header and payload say, so that the checks
// behind the signature are reached.
func fuzzTokens(f *testing.F, seeds []hostileToken, claims members, typ string, body func(t *testing.T, raw string)) {
	header := headerOf(oidc.ES256, typ)
	f.Add(true, header, claims.text())
	for _, h := range seeds {
		if h.want == errSize {
			continue
		}
		raw := h.make(claims, header)
		f.Add(false, raw, "")
		first, second, _, err := jws.Split(raw)
		if err != nil {
			continue
		}
		a, errA := jws.Decode(first)
		b, errB := jws.Decode(second)
		if errA == nil && errB == nil {
			f.Add(true, string(a), string(b))
		}
	}
	f.Fuzz(func(t *testing.T, signed bool, a, b string) {
		if signed {
			body(t, sign(oidc.ES256, a, b))
			return
		}
		body(t, a)
	})
}

// readAgain reads the claims of a token with another parser.
func readAgain(t *testing.T, raw string) map[string]any {
	t.Helper()
	s := strings.Split(raw, ".")
	require.Len(t, s, 3)
	payload, err := jws.Decode(s[1])
	require.NoError(t, err)
	var claims map[string]any
	require.NoError(t, stdjson.Unmarshal(payload, &claims))
	return claims
}

func isOurs(t *testing.T, claims map[string]any) {
	t.Helper()
	require.Equal(t, opIssuer, claims["iss"])
	if aud, ok := claims["aud"].([]any); ok {
		require.Contains(t, aud, any(opClient))
		require.True(t, len(aud) == 1 || claims["azp"] == opClient)
	} else {
		require.Equal(t, opClient, claims["aud"])
	}
	require.InDelta(t, opNow.Unix(), claims["iat"], maxIDTokenAge.Seconds()+1)
	require.NotNil(t, claims["exp"])
}

func FuzzIDToken(f *testing.F) {
	keys := opKeySet()
	fuzzTokens(f, hostileIDTokens(), idClaims(), "JWT", func(t *testing.T, raw string) {
		token, err := verifyIDToken(t.Context(), keys, raw, idRules())
		if err != nil {
			require.Nil(t, token)
			require.ErrorIs(t, err, errRefused)
			var why refusal
			require.True(t, errors.As(err, &why))
			return
		}
		claims := readAgain(t, raw)
		isOurs(t, claims)
		require.Equal(t, opNonce, claims["nonce"])
		require.Equal(t, token.subject, claims["sub"])
		require.NotContains(t, claims, "events")
		require.NotEmpty(t, token.subject)
		if sid, ok := claims["sid"]; ok {
			require.Equal(t, token.sessionID, sid)
		}
		for _, typeJWT := range []bool{false, true} {
			rules := rulesOfLogout()
			rules.insecureTypeJWT = typeJWT
			_, err = verifyLogoutToken(t.Context(), keys, raw, rules)
			require.ErrorIs(t, err, errRefused)
		}
		require.NotPanics(t, func() { startOf(token, opNow, opNow) })
	})
}

func FuzzLogoutToken(f *testing.F) {
	keys := opKeySet()
	fuzzTokens(f, hostileLogoutTokens(), logoutMembers(), "logout+jwt", func(t *testing.T, raw string) {
		token, err := verifyLogoutToken(t.Context(), keys, raw, rulesOfLogout())
		if err != nil {
			require.Nil(t, token)
			require.ErrorIs(t, err, errRefused)
			return
		}
		claims := readAgain(t, raw)
		isOurs(t, claims)
		require.NotContains(t, claims, "nonce")
		require.Equal(t, token.tokenID, claims["jti"])
		events, ok := claims["events"].(map[string]any)
		require.True(t, ok)
		require.IsType(t, map[string]any{}, events[logoutEvent])
		require.NotEmpty(t, token.subject+token.sessionID)
		_, err = verifyIDToken(t.Context(), keys, raw, idRules())
		require.ErrorIs(t, err, errRefused)
	})
}
