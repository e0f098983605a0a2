package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	jwkv2 "github.com/lestrrat-go/jwx/v2/jwk"
	jwtv2 "github.com/lestrrat-go/jwx/v2/jwt"
	jwkv3 "github.com/lestrrat-go/jwx/v3/jwk"
	jwtv3 "github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/bench"
	"github.com/sessiontoken/sessiontoken/keys"
	"github.com/sessiontoken/sessiontoken/remote"
	"github.com/sessiontoken/sessiontoken/revoke"
)

// TestInteropRead: a token of each algorithm is read by other libraries with
// their ordinary API, from nothing but the URL of the served key set.
func TestInteropRead(t *testing.T) {
	for _, alg := range []keys.Algorithm{keys.ES256, keys.EdDSA, keys.PS256, keys.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore), Algorithm: alg})
			require.NoError(t, err)
			handler, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: ring})
			require.NoError(t, err)
			server := httptest.NewTLSServer(handler)
			defer server.Close()
			issuer, err := sessiontoken.NewIssuer[bench.State](sessiontoken.IssuerConfig{Issuer: bench.Issuer, Audience: []string{bench.Audience}, Keys: ring})
			require.NoError(t, err)
			token, claims, err := issuer.Issue(t.Context(), bench.Subject, bench.SampleState())
			require.NoError(t, err)

			for name, read := range map[string]func(*testing.T, *http.Client, string, string) (sub, sid, state string){
				"go-jose": readGoJOSE, "golang-jwt": readGolangJWT, "jwx v2": readJWXv2, "jwx v3": readJWXv3,
			} {
				t.Run(name, func(t *testing.T) {
					sub, sid, state := read(t, server.Client(), server.URL, token)
					require.Equal(t, bench.Subject, sub)
					require.Equal(t, claims.SessionID, sid)
					want, err := json.Marshal(bench.SampleState())
					require.NoError(t, err)
					require.JSONEq(t, string(want), state)
				})
			}
		})
	}
}

func fetchJOSE(t *testing.T, client *http.Client, url string) jose.JSONWebKeySet {
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	var set jose.JSONWebKeySet
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&set))
	require.Len(t, set.Keys, 2, "the current key and the next")
	for _, k := range set.Keys {
		require.True(t, k.Valid() && k.IsPublic())
		require.Equal(t, "sig", k.Use)
	}
	return set
}

type interopClaims struct {
	jwt.RegisteredClaims
	SID   string          `json:"sid"`
	State json.RawMessage `json:"state"`
}

func readGoJOSE(t *testing.T, client *http.Client, url, token string) (string, string, string) {
	set := fetchJOSE(t, client, url)
	parsed, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256, jose.EdDSA, jose.PS256, jose.RS256})
	require.NoError(t, err)
	var registered josejwt.Claims
	var own struct {
		SID   string          `json:"sid"`
		State json.RawMessage `json:"state"`
	}
	require.NoError(t, parsed.Claims(set, &registered, &own))
	require.NoError(t, registered.Validate(josejwt.Expected{Issuer: bench.Issuer, AnyAudience: josejwt.Audience{bench.Audience}}))
	return registered.Subject, own.SID, string(own.State)
}

func readGolangJWT(t *testing.T, client *http.Client, url, token string) (string, string, string) {
	set := fetchJOSE(t, client, url) // golang-jwt has no JWK of its own
	var c interopClaims
	_, err := jwt.ParseWithClaims(token, &c, func(parsed *jwt.Token) (any, error) {
		kid, _ := parsed.Header["kid"].(string)
		for _, k := range set.Key(kid) {
			if k.Algorithm == parsed.Method.Alg() {
				return k.Key, nil
			}
		}
		return nil, errors.New("no key")
	}, jwt.WithIssuer(bench.Issuer), jwt.WithAudience(bench.Audience), jwt.WithExpirationRequired())
	require.NoError(t, err)
	return c.Subject, c.SID, string(c.State)
}

func readJWXv2(t *testing.T, client *http.Client, url, token string) (string, string, string) {
	set, err := jwkv2.Fetch(t.Context(), url, jwkv2.WithHTTPClient(client))
	require.NoError(t, err)
	parsed, err := jwtv2.Parse([]byte(token), jwtv2.WithKeySet(set), jwtv2.WithIssuer(bench.Issuer), jwtv2.WithAudience(bench.Audience))
	require.NoError(t, err)
	sid, _ := parsed.Get("sid")
	state, _ := parsed.Get("state")
	text, err := json.Marshal(state)
	require.NoError(t, err)
	return parsed.Subject(), sid.(string), string(text)
}

func readJWXv3(t *testing.T, client *http.Client, url, token string) (string, string, string) {
	set, err := jwkv3.Fetch(t.Context(), url, jwkv3.WithHTTPClient(client))
	require.NoError(t, err)
	parsed, err := jwtv3.Parse([]byte(token), jwtv3.WithKeySet(set), jwtv3.WithIssuer(bench.Issuer), jwtv3.WithAudience(bench.Audience))
	require.NoError(t, err)
	var sid string
	var state any
	require.NoError(t, parsed.Get("sid", &sid))
	require.NoError(t, parsed.Get("state", &state))
	text, err := json.Marshal(state)
	require.NoError(t, err)
	subject, _ := parsed.Subject()
	return subject, sid, string(text)
}

// TestInteropIssuedAt: with 200 marks of changed state a second, no other
// library, without leeway and with the right time, refuses the iat of a token.
func TestInteropIssuedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list, err := revoke.NewList(revoke.Config{Store: new(revoke.MemStore)})
		require.NoError(t, err)
		ring, err := keys.NewRing(keys.RingConfig{Store: new(keys.MemStore)})
		require.NoError(t, err)
		issuer, err := sessiontoken.NewIssuer[bench.State](sessiontoken.IssuerConfig{Issuer: bench.Issuer, Audience: []string{bench.Audience}, Keys: ring, Revocations: list})
		require.NoError(t, err)
		token, _, err := issuer.Issue(t.Context(), bench.Subject, bench.SampleState())
		require.NoError(t, err)
		for range 600 {
			time.Sleep(5 * time.Millisecond)
			for range 1 + rand.IntN(3) { // also several in one millisecond
				require.NoError(t, list.Changed(t.Context(), bench.Subject))
			}
			token, _, err = issuer.Renew(t.Context(), token, func(context.Context, *sessiontoken.Claims[bench.State]) (bench.State, error) {
				return bench.SampleState(), nil
			})
			require.NoError(t, err)
			now := time.Now()
			for name, read := range map[string]func(token string, now time.Time) error{
				"go-jose": issuedAtGoJOSE, "golang-jwt": issuedAtGolangJWT, "jwx v2": issuedAtJWXv2, "jwx v3": issuedAtJWXv3,
			} {
				require.NoError(t, read(token, now), name)
				require.Error(t, read(token, now.Truncate(time.Second).Add(-time.Millisecond)), "%s would notice", name)
			}
		}
	})
}

func issuedAtGoJOSE(token string, now time.Time) error {
	parsed, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	var claims josejwt.Claims
	return errors.Join(parsed.UnsafeClaimsWithoutVerification(&claims), claims.ValidateWithLeeway(josejwt.Expected{Time: now}, 0))
}

func issuedAtGolangJWT(token string, now time.Time) error {
	var claims jwt.RegisteredClaims
	_, _, err := jwt.NewParser().ParseUnverified(token, &claims)
	return errors.Join(err, jwt.NewValidator(jwt.WithIssuedAt(), jwt.WithTimeFunc(func() time.Time { return now })).Validate(claims))
}

func issuedAtJWXv2(token string, now time.Time) error {
	_, err := jwtv2.Parse([]byte(token), jwtv2.WithVerify(false), jwtv2.WithValidate(true), jwtv2.WithClock(jwtv2.ClockFunc(func() time.Time { return now })))
	return err
}

func issuedAtJWXv3(token string, now time.Time) error {
	_, err := jwtv3.Parse([]byte(token), jwtv3.WithVerify(false), jwtv3.WithValidate(true), jwtv3.WithClock(jwtv3.ClockFunc(func() time.Time { return now })))
	return err
}

// TestInteropWritten: what other libraries write in our profile is read by us,
// with the keys that they publish.
func TestInteropWritten(t *testing.T) {
	f, err := bench.NewFixture()
	require.NoError(t, err)
	var public []*keys.PublicKey
	for _, k := range f.Keys {
		key, err := keys.NewSigningKey(keys.Algorithm(k.Algorithm), k.Signer)
		require.NoError(t, err)
		require.Equal(t, k.ID, key.Public().KeyID(), "the thumbprint, computed apart")
		public = append(public, key.Public())
	}
	set, err := keys.NewSet(public...)
	require.NoError(t, err)
	handler, err := sessiontoken.JWKSHandler(sessiontoken.JWKSConfig{Keys: set})
	require.NoError(t, err)
	server := httptest.NewTLSServer(handler)
	defer server.Close()
	source, err := remote.NewKeys(remote.KeysConfig{URL: server.URL, Client: server.Client()})
	require.NoError(t, err)
	v, err := sessiontoken.NewVerifier[bench.State](sessiontoken.VerifierConfig{Issuer: bench.Issuer, Audience: bench.Audience, Keys: source})
	require.NoError(t, err)
	read := 0
	for _, peer := range bench.Peers() {
		for _, alg := range peer.Algorithms {
			c, err := peer.New(f, alg)
			require.NoError(t, err)
			token, err := c.Issue(bench.Subject, bench.SampleState())
			require.NoError(t, err)
			token, err = bench.WithSmallerS(alg, token)
			require.NoError(t, err)
			claims, err := v.Verify(context.Background(), token)
			require.NoError(t, err, "%s %s", peer.Name, alg)
			require.Equal(t, bench.SampleState(), claims.State)
			read++
		}
	}
	t.Logf("%d tokens of %d libraries", read, len(bench.Peers()))
	require.GreaterOrEqual(t, read, 5*4)

	// An ordinary JWT with the same keys is none of ours.
	key := f.Current(bench.ES256)
	other := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": bench.Issuer, "aud": bench.Audience, "sub": "x"})
	other.Header["kid"] = key.ID
	text, err := other.SignedString(key.Signer)
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), text)
	require.ErrorIs(t, err, sessiontoken.ErrMalformed)
}
