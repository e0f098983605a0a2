package oidclogin

import (
	"crypto"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

func TestIDToken(t *testing.T) {
	token, err := checkID(t, sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().text()), idRules())
	require.NoError(t, err)
	require.Equal(t, idClaims().text(), string(token.payload))
	token.payload = nil
	require.Equal(t, &idToken{
		issuer: opIssuer, subject: opSubject, sessionID: opSession,
		acr: "urn:example:mfa", amr: []string{"pwd", "otp"},
		authTime: opNow.Add(-time.Minute), issuedAt: opNow, expires: opNow.Add(5 * time.Minute),
	}, token)
}

// What real providers send and this package accepts.
func TestIDTokenAccepted(t *testing.T) {
	hash := func(h crypto.Hash) string {
		sum := digest(h, opAccess)
		return jws.Encode(sum[:len(sum)/2])
	}
	for _, c := range []struct {
		name   string
		header string // empty: of ES256
		claims members
		rules  func(*idTokenRules)
	}{
		{name: "without a typ", header: headerOf(oidc.ES256, "")},
		{name: "RS256", header: headerOf(oidc.RS256, "JWT")},
		{name: "ES384", header: headerOf(oidc.ES384, "JWT"), claims: members{"at_hash": hash(crypto.SHA384)}},
		{name: "ES512", header: headerOf(oidc.ES512, "JWT"), claims: members{"at_hash": hash(crypto.SHA512)}},
		{name: "EdDSA", header: headerOf(oidc.EdDSA, "JWT"), claims: members{"at_hash": hash(crypto.SHA512)}},
		{name: "a thumbprint in the header", header: `{"alg":"ES256","typ":"JWT","kid":"k1","x5t":"AAAA"}`},
		{name: "where the key is, which is not read", header: `{"alg":"ES256","typ":"JWT","kid":"k1","jku":"https://other.example/jwks"}`},
		{name: "one audience in an array", claims: members{"aud": []string{opClient}}},
		{name: "two audiences and azp", claims: members{"aud": []string{otherParty, opClient}, "azp": opClient}},
		{name: "no at_hash", claims: members{"at_hash": nil}},
		{name: "the clock is 5 min behind, and so is a token of 5 min", claims: members{"iat": opNow.Unix() - 300, "exp": opNow.Unix() + 0, "auth_time": opNow.Unix() - 300}},
		{name: "the clock is 30 s ahead", claims: members{"iat": opNow.Unix() + 30, "nbf": opNow.Unix() + 30, "exp": opNow.Unix() + 330, "auth_time": opNow.Unix() + 30}},
		{name: "iat is backdated by 5 min, the login took 4", claims: members{"iat": opNow.Unix() - 540, "nbf": opNow.Unix() - 540}},
		{name: "a fraction of a second", claims: members{"iat": float64(opNow.Unix()) - 0.5}},
		{name: "no auth_time, none asked", claims: members{"auth_time": nil}},
		{name: "auth_time 0 is none", claims: members{"auth_time": 0}},
		{name: "an old auth_time, none asked", claims: members{"auth_time": opNow.Unix() - 86400*30}},
		{name: "auth_time within max_age", rules: func(r *idTokenRules) { r.maxAge = time.Minute }},
		{name: "auth_time within max_age, the clock 5 min behind", claims: members{"iat": opNow.Unix() - 300, "auth_time": opNow.Unix() - 310}, rules: func(r *idTokenRules) { r.maxAge = time.Minute }},
		{name: "acr among the asked ones", rules: func(r *idTokenRules) { r.acrValues = []string{"other", "urn:example:mfa"} }},
		{name: "no sid", claims: members{"sid": nil}},
		{name: "a long sub", claims: members{"sub": strings.Repeat("s", 255)}},
		{name: "a long sid", claims: members{"sid": strings.Repeat("s", 255)}},
		{name: "claims of a profile", claims: members{"email": "a@example.com", "email_verified": true, "address": members{"country": "NL"}}},
		{name: "names in other letter case are other claims", claims: members{"NONCE": "x", "Sub": "y", "EXP": 1, "Events": 1}},
		{name: "after a refresh, without a nonce", claims: members{"nonce": nil}, rules: func(r *idTokenRules) { r.refreshed = true }},
		{name: "after a refresh, with the nonce", rules: func(r *idTokenRules) { r.refreshed = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := c.header
			if header == "" {
				header = headerOf(oidc.ES256, "JWT")
			}
			h, err := parseHeader([]byte(header))
			require.NoError(t, err)
			rules := idRules()
			if c.rules != nil {
				c.rules(&rules)
			}
			_, err = checkID(t, sign(string(h.Algorithm), header, idClaims().with(c.claims).text()), rules)
			require.NoError(t, err)
		})
	}
}
