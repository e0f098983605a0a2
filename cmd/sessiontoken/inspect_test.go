package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sessiontoken/sessiontoken"
	"github.com/sessiontoken/sessiontoken/keys"
)

// printed is what a call of the command did.
type printed struct {
	code     int
	out, err string
}

// runWith runs the command with standard input.
func runWith(t testing.TB, stdin string, args ...string) printed {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, &call{stdin: strings.NewReader(stdin), out: &out, err: &errs, getenv: func(string) string { return "" }})
	return printed{code, out.String(), errs.String()}
}

// writeFile writes a file in a folder of the test and returns its path.
func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

type inspectState struct {
	Role string                      `json:"role"`
	Mail sessiontoken.Sealed[string] `json:"mail"`
}

const testAudience = "https://api.example"

// issueToken returns a token of an issuer, and the issuer's key set.
func issueToken(t testing.TB, issuer string) (token string, set []byte) {
	t.Helper()
	key, err := keys.GenerateKey(keys.ES256)
	require.NoError(t, err)
	static, err := keys.NewStatic(key)
	require.NoError(t, err)
	i, err := sessiontoken.NewIssuer[inspectState](sessiontoken.IssuerConfig{
		Issuer: issuer, Audience: []string{testAudience}, Keys: static, TTL: 5 * time.Minute,
		StateSecrets: [][]byte{bytes.Repeat([]byte{7}, 32)},
	})
	require.NoError(t, err)
	token, _, err = i.Issue(t.Context(), "user-1", inspectState{"admin", sessiontoken.Seal("ada@example.org")})
	require.NoError(t, err)
	published, err := static.KeySet(t.Context(), "")
	require.NoError(t, err)
	set, err = published.MarshalJSON()
	require.NoError(t, err)
	return token, set
}

// requireHidden: nothing that was printed holds the token's signature.
func requireHidden(t testing.TB, r printed, token string) {
	t.Helper()
	signature := token[strings.LastIndexByte(token, '.')+1:]
	require.NotContains(t, r.out+r.err, signature)
	require.NotContains(t, r.out+r.err, token)
}

func TestInspectSaysFirstWhetherItIsVerified(t *testing.T) {
	token, set := issueToken(t, "https://auth.example")
	_, otherSet := issueToken(t, "https://auth.example")
	jwks, other := writeFile(t, "jwks.json", set), writeFile(t, "other.json", otherSet)
	broken := writeFile(t, "broken.json", []byte(`{"keys":[]}`))
	forged := token[:len(token)-4] + "AAAA"
	for _, tt := range []struct {
		name, stdin string
		args        []string
		code        int
		first       string
		has         []string
	}{
		{"no keys", token, nil, exitNot, "NOT VERIFIED: no keys were given; pass --issuer", []string{"signature: not checked", "rules broken: none"}},
		{"keys of a file", token, []string{"--jwks", jwks}, exitDone, "VERIFIED\n", []string{"signature: valid", "rules broken: none", "pass --audience"}},
		{"all compared", token, []string{"--jwks", jwks, "--issuer", "https://auth.example", "--audience", testAudience}, exitDone, "VERIFIED\n", []string{"whether its session was revoked was not asked"}},
		{"as a header", "Authorization: Bearer " + token + "\n", []string{"--jwks", jwks}, exitDone, "VERIFIED\n", nil},
		{"another issuer", token, []string{"--jwks", jwks, "--issuer", "https://auth.example/"}, exitNot, "NOT VERIFIED: claims: iss is another issuer", []string{"signature: valid", "iss is the expected issuer"}},
		{"another audience", token, []string{"--jwks", jwks, "--audience", "b"}, exitNot, "NOT VERIFIED: claims: aud does not name", []string{"signature: valid"}},
		{"another key", token, []string{"--jwks", other}, exitNot, "NOT VERIFIED: signature: no key has this kid", []string{"signature: not valid"}},
		{"forged", forged, []string{"--jwks", jwks}, exitNot, "NOT VERIFIED: ", nil},
		{"no key set", token, []string{"--jwks", broken}, exitFailed, "NOT VERIFIED: the keys were not read", nil},
		{"no file of keys", token, []string{"--jwks", "none.json"}, exitFailed, "NOT VERIFIED: the keys were not read", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runWith(t, tt.stdin, append([]string{"inspect"}, tt.args...)...)
			require.Equal(t, tt.code, r.code, r.out+r.err)
			require.True(t, strings.HasPrefix(r.out, tt.first), r.out)
			for _, has := range tt.has {
				require.Contains(t, r.out, has)
			}
			requireHidden(t, r, token)
			requireHidden(t, r, forged)
		})
	}
}

func TestInspectShowsWhatTheTokenSays(t *testing.T) {
	token, set := issueToken(t, "https://auth.example")
	jwks := writeFile(t, "jwks.json", set)
	r := runWith(t, "", "inspect", "--jwks", jwks, writeFile(t, "token", []byte(token)))
	require.Equal(t, exitDone, r.code, r.out+r.err)
	for _, has := range []string{
		`alg        "ES256"`, `typ        "session+jwt"`, `sub        "user-1"`, `state.role "admin"`,
		"state.mail (sealed, ", "expires in 4 min 59 s", "issued 0 s ago", "size\n  " + strconv.Itoa(len(token)) + " bytes: header ",
	} {
		if has == "expires in 4 min 59 s" && !strings.Contains(r.out, has) {
			has = "expires in " // a slow machine
		}
		if has == "issued 0 s ago" {
			has = "issued "
		}
		require.Contains(t, r.out, has)
	}
	require.NotContains(t, r.out, "ada@example.org")

	r = runWith(t, token, "inspect", "--json", "--jwks", jwks)
	require.Equal(t, exitDone, r.code, r.err)
	var got inspection
	require.NoError(t, json.Unmarshal([]byte(r.out), &got))
	require.True(t, got.Verified)
	require.Equal(t, []string{"/mail"}, got.Sealed)
	require.Empty(t, got.Broken)
	require.Contains(t, got.Times, "exp")
	require.Equal(t, len(token), got.Size.Header+got.Size.Payload+got.Size.Signature+2)
	requireHidden(t, r, token)
}

// TestInspectSizesAreThoseOfTheIssuer: the report is that of Issuer.Size.
func TestInspectSizesAreThoseOfTheIssuer(t *testing.T) {
	key, err := keys.GenerateKey(keys.EdDSA)
	require.NoError(t, err)
	static, err := keys.NewStatic(key)
	require.NoError(t, err)
	i, err := sessiontoken.NewIssuer[map[string]any](sessiontoken.IssuerConfig{Issuer: "https://auth.example", Audience: []string{"api"}, Keys: static, TTL: time.Minute})
	require.NoError(t, err)
	state := map[string]any{"roles": []any{"a", "b"}, "deep": map[string]any{"x y": "1", "long": strings.Repeat("z", 90)}}
	token, _, err := i.Issue(t.Context(), "user-1", state)
	require.NoError(t, err)
	want := i.Largest()
	p, rules := parseToken(token, expectation{}, time.Now())
	require.Empty(t, rules)
	got := sizes(token, p)
	require.Equal(t, []int{want.Bytes, want.Limit, want.Header, want.Payload, want.Signature}, []int{got.Bytes, got.Limit, got.Header, got.Payload, got.Signature})
	require.Len(t, got.Claims, len(want.Claims))
	for i, claim := range want.Claims {
		require.Equal(t, inspectClaimed{claim.Path, claim.Bytes}, got.Claims[i])
	}
}

// TestInspectHidesTokensInClaims: a token that is a claim of another one is not
// shown either, nor is the token that a header holds.
func TestInspectHidesTokensInClaims(t *testing.T) {
	inner, _ := issueToken(t, "https://other.example")
	encode := base64.RawURLEncoding.EncodeToString
	outer := encode([]byte(`{"alg":"ES256","kid":"`+inner+`","typ":"JWT"}`)) + "." +
		encode([]byte(`{"iss":"a","id_token":"`+inner+`","`+inner+`":["Bearer `+inner+`"],"state":{"`+inner+`":{"`+inner+`":1}}}`)) + "." + encode(make([]byte, 64))
	for _, args := range [][]string{{"inspect"}, {"inspect", "--json"}} {
		r := runWith(t, outer, args...)
		require.Equal(t, exitNot, r.code)
		requireHidden(t, r, inner)
		requireHidden(t, r, outer)
		require.Contains(t, r.out, "not shown")
	}
}

func TestInspectRefusesATokenAsAnArgument(t *testing.T) {
	token, _ := issueToken(t, "https://auth.example")
	opaque := "Zk3vQ0m1TqkGg8v0bYV5r2c1N7x4JwXoHq9dLfEaPzU"
	for _, tt := range []struct {
		name, arg string
		code      int
	}{
		{"a token", token, exitUsage},
		{"with its scheme", "Bearer " + token, exitUsage},
		{"a part of one", token[:60], exitFailed},
		{"an opaque one", opaque, exitUsage},
		{"a short secret", "hunter2-hunter2", exitFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := runWith(t, "", "inspect", tt.arg)
			require.NotContains(t, r.out+r.err, tt.arg)
			require.NotContains(t, r.out+r.err, tt.arg[:12])
			if tt.name == "a part of one" {
				require.NotEqual(t, exitDone, r.code)
			} else {
				require.Equal(t, tt.code, r.code, r.err)
			}
			if tt.code == exitUsage {
				require.Contains(t, r.err, "standard input")
			}
		})
	}
	r := runWith(t, "", "inspect", "--issuer", "https://auth.example", "one", token)
	require.Equal(t, exitUsage, r.code)
	requireHidden(t, r, token)
}

// TestInspectNamesEachRule: one planted fault, one rule.
func TestInspectNamesEachRule(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	header := `{"alg":"EdDSA","kid":"k","typ":"session+jwt"}`
	claims := `{"iss":"https://auth.example","sub":"u","aud":"api","exp":1800000300,"iat":1800000000,"jti":"j","sid":"s","begun":1800000000000,"state":{}}`
	encode := base64.RawURLEncoding.EncodeToString
	signature := encode(make([]byte, 64))
	build := func(header, claims string) string {
		return encode([]byte(header)) + "." + encode([]byte(claims)) + "." + signature
	}
	with := func(old, new string) string {
		require.Contains(t, header+claims, old)
		return build(strings.Replace(header, old, new, 1), strings.Replace(claims, old, new, 1))
	}
	for _, tt := range []struct {
		name, token, rule, found string
	}{
		{"none", build(header, claims), "", ""},
		{"alg none", with(`"EdDSA"`, `"none"`), "alg", `"none"`},
		{"alg of a secret", with(`"EdDSA"`, `"HS256"`), "alg", `"HS256"`},
		{"no kid", with(`"kid":"k",`, ``), "kid", "missing"},
		{"kid of a number", with(`"kid":"k"`, `"kid":1`), "kid", "1"},
		{"typ JWT", with(`"session+jwt"`, `"JWT"`), "typ", `"JWT"`},
		{"jku", with(`"kid":"k"`, `"kid":"k","jku":"https://evil.example"`), "header", `"jku"`},
		{"alg twice", with(`"kid":"k"`, `"kid":"k","alg":"EdDSA"`), "duplicate", `"alg"`},
		{"sub twice", with(`"sub":"u"`, `"sub":"u","sub":"admin"`), "duplicate", `"sub"`},
		{"no exp", with(`"exp":1800000300,`, ``), "exp", "missing"},
		{"no sid", with(`"sid":"s",`, ``), "sid", "missing"},
		{"no state", with(`,"state":{}`, ``), "state", "missing"},
		{"exp of a fraction", with(`1800000300`, `1800000300.5`), "exp", "1800000300.5"},
		{"a long life", with(`1800000300`, `1800090000`), "lifetime", "1 d 1 h"},
		{"expired", with(`"exp":1800000300,"iat":1800000000`, `"exp":1799999000,"iat":1799998900`), "exp", "16 min 40 s ago"},
		{"iat in the future", with(`"iat":1800000000`, `"iat":1800000200`), "iat", "in 3 min 20 s"},
		{"nbf in the future", with(`"jti":"j"`, `"jti":"j","nbf":1800000200`), "nbf", "in 3 min 20 s"},
		{"begun after iat", with(`"begun":1800000000000`, `"begun":1800003600000`), "begun", "1 h later"},
		{"padding", strings.Replace(build(header, claims), "."+signature, "."+signature+"==", 1), "base64", "the signature"},
		{"no signature", strings.TrimSuffix(build(header, claims), signature), "signature", "no signature"},
		{"short signature", strings.TrimSuffix(build(header, claims), signature) + encode(make([]byte, 32)), "signature", "32"},
		{"two segments", encode([]byte(header)) + "." + encode([]byte(claims)), "form", "2"},
		{"encrypted", build(header, claims) + ".AAAA.AAAA", "form", "JWE"},
		{"not JSON", build(header, "hello"), "json", "not JSON"},
		{"not UTF-8", with(`"sub":"u"`, "\"sub\":\"\xff\""), "utf8", "not"},
		{"too large", with(`"state":{}`, `"state":"`+strings.Repeat("a", 7000)+`"`), "size", "it has 9"},
		{"too deep", with(`"state":{}`, `"state":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)), "json", "more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, rules := parseToken(tt.token, expectation{}, now)
			if tt.rule == "" {
				require.Empty(t, rules)
				return
			}
			var names []string
			for _, r := range rules {
				if names = append(names, r.Rule); r.Rule == tt.rule {
					require.Contains(t, r.Found, tt.found)
				}
			}
			require.Contains(t, names, tt.rule)
			r := runWith(t, tt.token, "inspect")
			require.Equal(t, exitNot, r.code)
			require.Contains(t, r.out, "\n  "+tt.rule+" ")
		})
	}
}

// attackTime is when the tokens of testdata/attacks are valid.
var attackTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// TestInspectFindsWhatTheVerifierRefuses: each hostile token of the corpus that
// is refused for its form or its claims breaks a rule, and no good one does.
func TestInspectFindsWhatTheVerifierRefuses(t *testing.T) {
	files, err := filepath.Glob("../../testdata/attacks/*.txt")
	require.NoError(t, err)
	count := map[string]int{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		head, body, _ := strings.Cut(string(data), "\n\n")
		token, err := strconv.Unquote(strings.TrimSpace(body))
		require.NoError(t, err)
		expect, _, _ := strings.Cut(strings.TrimPrefix(head, "expect: "), "\n")
		_, rules := parseToken(token, expectation{"https://issuer.example", "api"}, attackTime)
		count[expect]++
		switch expect {
		case "ok":
			require.Empty(t, rules, file)
		case "malformed", "claims", "expired":
			if strings.Contains(head, "state") && len(rules) == 0 {
				count["state"]++ // the state does not fit the type of that test
				continue
			}
			require.NotEmpty(t, rules, file)
		}
	}
	require.Greater(t, count["malformed"], 50)
	require.Greater(t, count["claims"], 100)
	t.Logf("%v", count)
}

func TestInspectFetchesTheKeys(t *testing.T) {
	var set []byte
	var issuer string
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": issuer + "/jwks"})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
	server := httptest.NewTLSServer(mux)
	issuer = server.URL
	var token string
	token, set = issueToken(t, issuer)
	ca := writeFile(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))

	r := runWith(t, token, "inspect", "--issuer", issuer, "--ca", ca, "--audience", testAudience)
	require.Equal(t, exitDone, r.code, r.out+r.err)
	require.True(t, strings.HasPrefix(r.out, "VERIFIED\n"))

	r = runWith(t, token, "inspect", "--issuer", issuer, "--audience", testAudience)
	require.Equal(t, exitFailed, r.code, "its certificate is not trusted")
	require.True(t, strings.HasPrefix(r.out, "NOT VERIFIED: "))
	requireHidden(t, r, token)

	server.Close()
	r = runWith(t, token, "inspect", "--issuer", issuer, "--ca", ca)
	require.Equal(t, exitFailed, r.code)
	require.True(t, strings.HasPrefix(r.out, "NOT VERIFIED: "))
	require.Contains(t, r.err, "doctor")
	requireHidden(t, r, token)

	r = runWith(t, token, "inspect", "--issuer", "ftp://auth.example")
	require.Equal(t, exitUsage, r.code)
}

func TestSpoken(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0 s"}, {3*time.Minute + 2*time.Second, "3 min 2 s"}, {time.Hour, "1 h"}, {-90 * time.Second, "1 min 30 s"},
		{49 * time.Hour, "2 d 1 h"}, {24*time.Hour + 5*time.Second, "1 d"}, {999 * time.Millisecond, "0 s"},
	} {
		require.Equal(t, tt.want, spoken(tt.d))
	}
}

// FuzzInspect: whatever the token is, it is taken apart without a panic, and
// neither it nor its signature is printed, nor a byte that a terminal obeys.
func FuzzInspect(f *testing.F) {
	token, _ := issueToken(f, "https://auth.example")
	encode := base64.RawURLEncoding.EncodeToString
	f.Add(token)
	f.Add("a.b.c")
	f.Add("....")
	f.Add(encode([]byte(`{"alg":"none","alg":1,"\u001b[2J":{}}`)) + "." + encode([]byte(`{"exp":1e400,"sld":["/a","","x"],"state":{"a":"x","a":[]},"begun":-1}`)) + ".")
	f.Add(encode([]byte("{\"a\":\"\xff\\ud800\"}")) + "." + encode([]byte(`{"act":{"sub":"`+token+`"}}`)) + ".AAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		for _, asJSON := range []bool{false, true} {
			var out bytes.Buffer
			c := &call{stdin: strings.NewReader(token), out: &out, err: io.Discard, json: asJSON}
			_ = (&inspectConfig{}).run(t.Context(), c)
			for _, r := range out.String() {
				if r != '\n' && !strconv.IsPrint(r) && !asJSON {
					t.Fatalf("%q is printed", r)
				}
				if r < ' ' && r != '\n' {
					t.Fatalf("%q is printed", r)
				}
			}
			if asJSON && out.Len() > 0 {
				require.True(t, json.Valid(out.Bytes()), out.String())
			}
			read, err := readToken(&call{stdin: strings.NewReader(token)})
			if err != nil {
				continue
			}
			segments := strings.Split(read, ".")
			if signature := segments[len(segments)-1]; len(segments) >= 3 && len(signature) >= 16 {
				require.NotContains(t, out.String(), signature)
			}
			if len(read) > 60 {
				require.NotContains(t, out.String(), read)
			}
		}
	})
}
