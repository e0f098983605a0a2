package oidclogin

import (
	"crypto"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken/internal/jws"
)

// hostileToken is a token that must be refused, and why.
type hostileToken struct {
	name   string
	raw    string              // empty: made of the rest
	header string              // empty: that of a token that is accepted
	claims members             // what differs from a token that is accepted
	text   func() string       // the payload, instead of claims
	mangle func(string) string // of the token that is accepted
	want   refusal
	rules  func(*idTokenRules) // of an ID token
}

// make returns the token: one that is accepted, changed.
func (h hostileToken) make(claims members, header string) string {
	if h.raw != "" {
		return h.raw
	}
	if h.header != "" {
		header = h.header
	}
	payload := claims.with(h.claims).text()
	if h.text != nil {
		payload = h.text()
	}
	var read struct {
		Algorithm string `json:"alg"`
	}
	_ = unmarshal(header, &read)
	raw := sign(read.Algorithm, header, payload)
	if h.mangle != nil {
		raw = h.mangle(raw)
	}
	return raw
}

// segments applies f to the segments of a token.
func segments(f func(s []string)) func(string) string {
	return func(raw string) string {
		s := strings.Split(raw, ".")
		f(s)
		return strings.Join(s, ".")
	}
}

// replaced returns a payload in which a text was replaced.
func replaced(claims members, old, with string) func() string {
	return func() string {
		text := claims.text()
		if strings.Count(text, old) != 1 {
			panic("not in the payload once: " + old)
		}
		return strings.Replace(text, old, with, 1)
	}
}

// deep returns n arrays inside each other.
func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// spareBits sets a bit that base64url does not use, of the first segment that
// has one.
func spareBits(raw string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	s := strings.Split(raw, ".")
	for i := range s {
		if len(s[i])%4 != 0 {
			last := len(s[i]) - 1
			s[i] = s[i][:last] + string(alphabet[strings.IndexByte(alphabet, s[i][last])|1])
			return strings.Join(s, ".")
		}
	}
	panic("no segment has a spare bit")
}

// commonHostile are hostile in the same way as an ID token and as a logout
// token. typ is the header's of one that is accepted.
func commonHostile(claims members, typ string) []hostileToken {
	good := headerOf(oidc.ES256, typ)
	payload := jws.Encode([]byte(claims.text()))
	return []hostileToken{
		// The form.
		{name: "empty", raw: " ", want: errForm},
		{name: "two segments", raw: jws.Encode([]byte(good)) + "." + payload, want: errForm},
		{name: "four segments", mangle: func(s string) string { return s + ".AAAA" }, want: errForm},
		{name: "no signature", mangle: segments(func(s []string) { s[2] = "" }), want: errForm},
		{name: "a JWS in JSON", raw: `{"payload":"` + payload + `","protected":"` + jws.Encode([]byte(good)) + `","signature":"AAAA"}`, want: errForm},
		{name: "padding", mangle: segments(func(s []string) {
			s[1] = base64.URLEncoding.EncodeToString([]byte(claims.with(members{"p": "12"}).text())) + "="
		}), want: errForm},
		{name: "spare bits", mangle: spareBits, want: errForm},
		{name: "a line break", mangle: func(s string) string { return s + "\n" }, want: errForm},
		{name: "a line break inside", mangle: segments(func(s []string) { s[1] = s[1][:8] + "\r\n" + s[1][8:] }), want: errForm},
		{name: "the other alphabet", mangle: segments(func(s []string) { s[2] = "+/" + s[2][2:] }), want: errForm},
		{name: "1 MB", claims: members{"padding": strings.Repeat("x", 1<<20)}, want: errSize},
		{name: "17 KiB", claims: members{"padding": strings.Repeat("x", 17<<10)}, want: errSize},

		// The header.
		{name: "alg none", header: `{"alg":"none","typ":"` + typ + `"}`, want: errAlgorithm},
		{name: "alg None", header: `{"alg":"None","typ":"` + typ + `"}`, want: errAlgorithm},
		{name: "HS256 with the public key as the secret", header: headerOf("HS256", typ), want: errAlgorithm},
		{name: "an algorithm that the provider does not use", header: headerOf(oidc.PS256, typ), want: errAlgorithm},
		{name: "no alg", header: `{"typ":"` + typ + `","kid":"k1"}`, want: errAlgorithm},
		{name: "another algorithm than the signature's", header: headerOf(oidc.RS256, typ), mangle: segments(func(s []string) {
			s[2] = jws.Encode(signature(oidc.ES256, s[0]+"."+s[1], opKeys().p256))
		}), want: errSignature},
		{name: "crit", header: `{"alg":"ES256","typ":"` + typ + `","crit":["exp"],"exp":1}`, want: errExtension},
		{name: "an empty crit", header: `{"alg":"ES256","typ":"` + typ + `","crit":null}`, want: errExtension},
		{name: "b64", header: `{"alg":"ES256","typ":"` + typ + `","b64":true}`, want: errExtension},
		{name: "zip", header: `{"alg":"ES256","typ":"` + typ + `","zip":"DEF"}`, want: errExtension},
		{name: "enc", header: `{"alg":"ES256","typ":"` + typ + `","enc":"A256GCM"}`, want: errExtension},
		{name: "a key in the header", header: `{"alg":"ES256","typ":"` + typ + `","jwk":{"kty":"EC"}}`, want: errExtension},
		{name: "two alg", header: `{"alg":"ES256","alg":"ES256","typ":"` + typ + `"}`, want: errHeader},
		{name: "a kid that is no string", header: `{"alg":"ES256","kid":1,"typ":"` + typ + `"}`, want: errHeader},
		{name: "an empty typ", header: `{"alg":"ES256","typ":""}`, want: errType},
		{name: "a typ that is null", header: `{"alg":"ES256","typ":null}`, want: errHeader},
		{name: "a header that is an array", header: `["ES256"]`, want: errHeader},
		{name: "a deep header", header: `{"alg":"ES256","typ":"` + typ + `","x":` + deep(64) + `}`, want: errHeader},
		{name: "typ at+jwt", header: headerOf(oidc.ES256, "at+jwt"), want: errType},
		{name: "typ session+jwt", header: headerOf(oidc.ES256, "session+jwt"), want: errType},
		{name: "typ in other letter case", header: headerOf(oidc.ES256, strings.ToUpper(typ[:1])+strings.ToLower(typ[1:])), want: errType},

		// The signature.
		{name: "another provider's key", raw: signWith(oidc.ES256, good, claims.text(), opKeys().foreign), want: errSignature},
		{name: "another provider's key, and where it is", raw: signWith(oidc.ES256, `{"alg":"ES256","typ":"`+typ+`","kid":"k1","jku":"https://other.example/jwks","x5u":"https://other.example/x5u"}`, claims.text(), opKeys().foreign), want: errSignature},
		{name: "a changed payload", mangle: segments(func(s []string) { s[1] = jws.Encode([]byte(claims.with(members{"sub": "admin"}).text())) }), want: errSignature},
		{name: "a signature of zeros", mangle: segments(func(s []string) { s[2] = jws.Encode(make([]byte, 64)) }), want: errSignature},

		// The JSON.
		{name: "two sub", text: replaced(claims, `"sub":"subject-1"`, `"sub":"admin","sub":"subject-1"`), want: errClaims},
		{name: "two sub, one escaped", text: replaced(claims, `"sub":"subject-1"`, `"su\u0062":"admin","sub":"subject-1"`), want: errClaims},
		{name: "names in other letter case", text: replaced(claims, `"iss":`, `"Iss":`), want: errIssuer},
		{name: "not UTF-8", text: replaced(claims, `"sub":"subject-1"`, "\"sub\":\"subject-\xff\""), want: errClaims},
		{name: "half a surrogate", text: replaced(claims, `"sub":"subject-1"`, `"sub":"\ud800"`), want: errClaims},
		{name: "deep nesting", text: replaced(claims, `"sub":`, `"deep":`+deep(17)+`,"sub":`), want: errClaims},
		{name: "very deep nesting", text: replaced(claims, `"sub":`, `"deep":`+deep(2000)+`,"sub":`), want: errClaims},
		{name: "text after the object", text: func() string { return claims.text() + "{}" }, want: errClaims},
		{name: "an array", text: func() string { return "[" + claims.text() + "]" }, want: errClaims},
		{name: "no payload", text: func() string { return "" }, want: errClaims},

		// The claims that both have.
		{name: "another provider's iss", claims: members{"iss": "https://other.example"}, want: errIssuer},
		{name: "iss with a slash", claims: members{"iss": opIssuer + "/"}, want: errIssuer},
		{name: "no iss", claims: members{"iss": nil}, want: errIssuer},
		{name: "for another client", claims: members{"aud": otherParty}, want: errAudience},
		{name: "a second audience", claims: members{"aud": []string{opClient, otherParty}}, want: errAudience},
		{name: "a second audience and its azp", claims: members{"aud": []string{opClient, otherParty}, "azp": otherParty}, want: errAudience},
		{name: "azp of another client", claims: members{"azp": otherParty}, want: errAudience},
		{name: "an empty azp", claims: members{"azp": ""}, want: errAudience},
		{name: "azp alone", claims: members{"aud": otherParty, "azp": opClient}, want: errAudience},
		{name: "no aud", claims: members{"aud": nil}, want: errAudience},
		{name: "no audience", claims: members{"aud": []string{}}, want: errClaims},
		{name: "an audience that is no string", claims: members{"aud": []any{opClient, 1}}, want: errClaims},
		{name: "an audience that is null", claims: members{"aud": []any{opClient, members(nil)}}, want: errClaims},
		{name: "an empty sub", claims: members{"sub": ""}, want: errClaims},
		{name: "a sub of 256 bytes", claims: members{"sub": strings.Repeat("s", 256)}, want: errClaims},
		{name: "a sub that is a number", claims: members{"sub": 7}, want: errClaims},
		{name: "a sub that is null", text: replaced(claims, `"sub":"subject-1"`, `"sub":null`), want: errClaims},
		{name: "an empty sid", claims: members{"sid": ""}, want: errClaims},
		{name: "a sid that is null", text: replaced(claims, `"sid":"sid-at-the-provider"`, `"sid":null`), want: errClaims},
		{name: "a sid of 256 bytes", claims: members{"sid": strings.Repeat("s", 256)}, want: errClaims},
		{name: "no iat", claims: members{"iat": nil}, want: errIssuedAt},
		{name: "iat 0", claims: members{"iat": 0}, want: errIssuedAt},
		{name: "a negative iat", claims: members{"iat": -1}, want: errClaims},
		{name: "iat in a string", claims: members{"iat": "1800000000"}, want: errClaims},
		{name: "iat beyond all years", claims: members{"iat": 1e300}, want: errClaims},
		{name: "iat an hour ahead", claims: members{"iat": opNow.Unix() + 3600, "exp": opNow.Unix() + 3700}, want: errIssuedAt},
		{name: "iat 2 min ahead", claims: members{"iat": opNow.Unix() + 120, "exp": opNow.Unix() + 240}, want: errIssuedAt},
		{name: "iat 11 min ago", claims: members{"iat": opNow.Unix() - 660}, want: errIssuedAt},
		{name: "iat a year ago, exp in ten", claims: members{"iat": opNow.Unix() - 365*86400, "exp": opNow.Unix() + 3650*86400}, want: errIssuedAt},
		{name: "nbf in an hour", claims: members{"nbf": opNow.Unix() + 3600}, want: errNotBefore},
	}
}

// hostileIDTokens are ID tokens that must be refused.
func hostileIDTokens() []hostileToken {
	c := idClaims()
	asked := func(r *idTokenRules) { r.maxAge = 5 * time.Minute }
	acr := func(r *idTokenRules) { r.acrValues = []string{"urn:example:phr", "urn:example:phrh"} }
	return append(commonHostile(c, "JWT"), []hostileToken{
		// A logout token as an ID token: go-oidc accepts each of them.
		{name: "a logout token", header: headerOf(oidc.ES256, "logout+jwt"), text: func() string { return logoutMembers().text() }, want: errType},
		{name: "a logout token of typ JWT", text: func() string { return logoutMembers().text() }, want: errEvents},
		{name: "a logout token with the nonce", text: func() string { return logoutMembers().with(members{"nonce": opNonce}).text() }, want: errEvents},
		{name: "events null", text: replaced(c, `"nonce":`, `"events":null,"nonce":`), want: errEvents},
		// The nonce, which go-oidc does not look at.
		{name: "no nonce", claims: members{"nonce": nil}, want: errNonce},
		{name: "another nonce", claims: members{"nonce": "nonce-of-another-login"}, want: errNonce},
		{name: "an empty nonce", claims: members{"nonce": ""}, want: errNonce},
		{name: "a nonce in other letter case", claims: members{"nonce": strings.ToUpper(opNonce)}, want: errNonce},
		{name: "a longer nonce", claims: members{"nonce": opNonce + "x"}, want: errNonce},
		{name: "a nonce that is null", text: replaced(c, `"nonce":"nonce-of-this-login"`, `"nonce":null`), want: errClaims},
		{name: "a name Nonce", text: replaced(c, `"nonce":`, `"Nonce":`), want: errNonce},
		{name: "an empty nonce, and none is expected", claims: members{"nonce": ""}, rules: func(r *idTokenRules) { r.nonce = "" }, want: errNonce},
		{name: "no nonce, and none is expected", claims: members{"nonce": nil}, rules: func(r *idTokenRules) { r.nonce = "" }, want: errNonce},
		{name: "after a refresh, another nonce", claims: members{"nonce": "other"}, rules: func(r *idTokenRules) { r.refreshed = true }, want: errNonce},
		// The access token.
		{name: "at_hash of another access token", claims: members{"at_hash": jws.Encode(digest(crypto.SHA256, "other")[:16])}, want: errAccessHash},
		{name: "at_hash of the whole digest", claims: members{"at_hash": jws.Encode(digest(crypto.SHA256, opAccess))}, want: errAccessHash},
		{name: "at_hash of another algorithm", claims: members{"at_hash": jws.Encode(digest(crypto.SHA512, opAccess)[:32])}, want: errAccessHash},
		{name: "at_hash with padding", claims: members{"at_hash": base64.URLEncoding.EncodeToString(digest(crypto.SHA256, opAccess)[:16])}, want: errAccessHash},
		{name: "an empty at_hash", claims: members{"at_hash": ""}, want: errAccessHash},
		{name: "at_hash of nothing, without an access token", claims: members{"at_hash": jws.Encode(digest(crypto.SHA256, "")[:16])}, rules: func(r *idTokenRules) { r.accessToken = "" }, want: errAccessHash},
		{name: "at_hash without an access token", rules: func(r *idTokenRules) { r.accessToken = "" }, want: errAccessHash},
		// Who and when.
		{name: "no sub", claims: members{"sub": nil}, want: errSubject},
		{name: "no exp", claims: members{"exp": nil}, want: errExpired},
		{name: "expired 6 min ago", claims: members{"iat": opNow.Unix() - 500, "exp": opNow.Unix() - 360}, want: errExpired},
		{name: "expired as long ago as a clock may be behind", claims: members{"iat": opNow.Unix() - 500, "exp": opNow.Unix() - 300}, want: errExpired},
		{name: "auth_time an hour ahead", claims: members{"auth_time": opNow.Unix() + 3600}, want: errAuthTime},
		{name: "max_age asked, auth_time 0", claims: members{"auth_time": 0}, rules: asked, want: errAuthAge},
		{name: "auth_time in a string", claims: members{"auth_time": "1800000000"}, want: errClaims},
		{name: "max_age asked, no auth_time", claims: members{"auth_time": nil}, rules: asked, want: errAuthAge},
		{name: "max_age asked, an old auth_time", claims: members{"auth_time": opNow.Unix() - 361}, rules: asked, want: errAuthAge},
		{name: "max_age asked, auth_time of 1970", claims: members{"auth_time": 1}, rules: asked, want: errAuthAge},
		{name: "a distributed claim without a source", claims: members{"_claim_names": members{"groups": "src1"}}, want: errLibrary},
		// The strength.
		{name: "acr asked, another one", rules: acr, want: errACR},
		{name: "acr asked, none", claims: members{"acr": nil}, rules: acr, want: errACR},
		{name: "acr asked, an array with it", claims: members{"acr": []string{"urn:example:phr"}}, rules: acr, want: errACR},
		{name: "acr asked, in other letter case", claims: members{"acr": "URN:example:phr"}, rules: acr, want: errACR},
		{name: "acr asked, all of them", claims: members{"acr": "urn:example:phr urn:example:phrh"}, rules: acr, want: errACR},
		// What the rules lack is no permission.
		{name: "no client is known", rules: func(r *idTokenRules) { r.clientID = "" }, want: errAudience},
		{name: "no provider is known", claims: members{"iss": ""}, rules: func(r *idTokenRules) { r.issuer = "" }, want: errIssuer},
		{name: "no algorithm is known", rules: func(r *idTokenRules) { r.algorithms = nil }, want: errAlgorithm},
		{name: "the provider names none and HS256", header: headerOf("HS256", "JWT"), rules: func(r *idTokenRules) { r.algorithms = []string{"none", "HS256"} }, want: errAlgorithm},
		{name: "Google's second spelling", claims: members{"iss": "accounts.google.com"}, rules: func(r *idTokenRules) { r.issuer = "https://accounts.google.com" }, want: errIssuer},
	}...)
}

// hostileLogoutTokens are logout tokens that must be refused.
func hostileLogoutTokens() []hostileToken {
	c := logoutMembers()
	events := func(value string) func() string {
		return replaced(c, `"events":{"`+logoutEvent+`":{}}`, `"events":`+value)
	}
	return append(commonHostile(c, "logout+jwt"), []hostileToken{
		{name: "no typ", header: headerOf(oidc.ES256, ""), want: errType},
		{name: "typ JWT", header: headerOf(oidc.ES256, "JWT"), want: errType},
		{name: "typ with application", header: headerOf(oidc.ES256, "application/logout+jwt"), want: errType},
		{name: "an ID token", header: headerOf(oidc.ES256, "JWT"), text: func() string { return idClaims().text() }, want: errType},
		{name: "an ID token of this typ", text: func() string { return idClaims().text() }, want: errHasNonce},
		{name: "an ID token with events", claims: idClaims(), want: errHasNonce},
		{name: "a nonce", claims: members{"nonce": "n"}, want: errHasNonce},
		{name: "an empty nonce", claims: members{"nonce": ""}, want: errHasNonce},
		{name: "a nonce that is null", text: replaced(c, `"jti":`, `"nonce":null,"jti":`), want: errHasNonce},
		{name: "no events", claims: members{"events": nil}, want: errLogoutEvent},
		{name: "events null", text: events(`null`), want: errLogoutEvent},
		{name: "events a string", text: events(`"` + logoutEvent + `"`), want: errLogoutEvent},
		{name: "events an array", text: events(`["` + logoutEvent + `"]`), want: errLogoutEvent},
		{name: "events empty", text: events(`{}`), want: errLogoutEvent},
		{name: "events in an array", text: events(`[{"` + logoutEvent + `":{}}]`), want: errLogoutEvent},
		{name: "another event", text: events(`{"https://schemas.openid.net/event/backchannel-logout":{}}`), want: errLogoutEvent},
		{name: "the event in other letter case", text: events(`{"http://schemas.openid.net/event/backchannel-Logout":{}}`), want: errLogoutEvent},
		{name: "Events", text: replaced(c, `"events":`, `"Events":`), want: errLogoutEvent},
		{name: "the event is null", text: events(`{"` + logoutEvent + `":null}`), want: errLogoutEvent},
		{name: "the event is a string", text: events(`{"` + logoutEvent + `":"{}"}`), want: errLogoutEvent},
		{name: "the event is true", text: events(`{"` + logoutEvent + `":true}`), want: errLogoutEvent},
		{name: "the event is an array", text: events(`{"` + logoutEvent + `":[]}`), want: errLogoutEvent},
		{name: "two events of one name", text: events(`{"` + logoutEvent + `":{},"` + logoutEvent + `":{}}`), want: errClaims},
		{name: "a second event", text: events(`{"` + logoutEvent + `":{},"https://schemas.openid.net/secevent/risc/event-type/account-enabled":{}}`), want: errLogoutEvent},
		{name: "no jti", claims: members{"jti": nil}, want: errTokenID},
		{name: "an empty jti", claims: members{"jti": ""}, want: errClaims},
		{name: "a jti of 256 bytes", claims: members{"jti": strings.Repeat("j", 256)}, want: errClaims},
		{name: "a jti that is a number", claims: members{"jti": 7}, want: errClaims},
		{name: "neither sub nor sid", claims: members{"sub": nil, "sid": nil}, want: errNoSession},
		{name: "no sub and an empty sid", claims: members{"sub": nil, "sid": ""}, want: errClaims},
		{name: "iat 7 min ago", claims: members{"iat": opNow.Unix() - 420}, want: errIssuedAt},
		{name: "no exp", claims: members{"exp": nil}, want: errLifetime},
		{name: "expired 6 min ago", claims: members{"iat": opNow.Unix() - 359, "exp": opNow.Unix() - 300}, want: errLifetime},
		{name: "exp before iat", claims: members{"exp": opNow.Unix() - 1}, want: errLifetime},
		{name: "exp in ten years", claims: members{"exp": opNow.Unix() + 3650*86400}, want: errLifetime},
		{name: "exp in two hours", claims: members{"exp": opNow.Unix() + 7200}, want: errLifetime},
	}...)
}

func TestHostileIDTokens(t *testing.T) {
	_, err := checkID(t, sign(oidc.ES256, headerOf(oidc.ES256, "JWT"), idClaims().text()), idRules())
	require.NoError(t, err, "what the rows change is accepted")
	rows := hostileIDTokens()
	require.Greater(t, len(rows), 40)
	for _, h := range rows {
		t.Run(h.name, func(t *testing.T) {
			rules := idRules()
			if h.rules != nil {
				h.rules(&rules)
			}
			_, err := checkID(t, h.make(idClaims(), headerOf(oidc.ES256, "JWT")), rules)
			require.ErrorIs(t, err, h.want)
		})
	}
}

func TestHostileLogoutTokens(t *testing.T) {
	rows := hostileLogoutTokens()
	require.Greater(t, len(rows), 40)
	for _, h := range rows {
		t.Run(h.name, func(t *testing.T) {
			token, err := verifyLogoutToken(t.Context(), opKeySet(), h.make(logoutMembers(), headerOf(oidc.ES256, "logout+jwt")), rulesOfLogout())
			require.ErrorIs(t, err, h.want)
			require.ErrorIs(t, err, errRefused)
			require.Nil(t, token)
		})
	}
}
